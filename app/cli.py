"""The `shadow` command: thin verbs over the rooms.

The promise: exit code 0 done or nothing to do, 1 the tool failed, 2 refused and nothing was changed, 3 a lock was not
obtained and nothing was changed. What went wrong is one sentence that says what to do, never a traceback.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import httpx
import rich_click as click
from alembic import command
from alembic.config import Config
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from sqlalchemy import Connection, pool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import db, embedded
from app.asgi import check_mode, open_database, served_from
from app.cutover import checks, execute, page, plan, report, stops, verify
from app.cutover.catalog import VERSION_TABLE, quoted
from app.cutover.execute import Cutover, LockNotObtained, Watch
from app.cutover.findings import ACTIONS, OVERRULABLE, Action, Options, Refused, decided, refusals
from app.cutover.report import Planned, Report
from app.cutover.steps import REVISIONS, SESSION, Step, pending
from app.errors import Contended, SettingsError, ShadowError
from app.idp.directory import AutherDirectory, BetterAuthDirectory, Directory
from app.settings import DatabaseSettings, Settings, load
from app.users import erasure
from app.users.identity import ShadowRules
from app.users.reconcile import SHOWN, Course, Kind, Reconciliation, reconcile
from app.users.shadow import check_shape

FAILED, REFUSED, LOCKED = 1, 2, 3

_T = TypeVar("_T")
# off a terminal, unless COLUMNS says otherwise, a fixed width: what is compared or searched should not change with it
_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else report.WIDTH
out = Console(highlight=False, width=_WIDTH)
err = Console(stderr=True, highlight=False, width=_WIDTH)


@contextmanager
def _told() -> Iterator[None]:
    """Turn what goes wrong into a sentence and an exit code."""
    try:
        yield
    except Refused as refused:
        report.print_findings(err, refused.findings)
        stands = f"The database stands at {refused.reached}." if refused.reached else "Nothing was changed."
        err.print(f"[bold]Refused. {stands}[/]")
        raise SystemExit(REFUSED) from None
    except LockNotObtained as error:
        err.print(f"[yellow]{escape(str(error))}[/]")
        raise SystemExit(LOCKED) from None
    except ShadowError as error:
        for line in error.message.splitlines():
            err.print(f"[red]{escape(line)}[/]", soft_wrap=True)
        raise SystemExit(FAILED) from None
    except OSError as error:
        err.print(f"[red]The connection was lost: {escape(str(error))}.[/] What was running is rolled back; try again.")
        raise SystemExit(FAILED) from None
    except DBAPIError as error:
        err.print(f"[red]{escape(stops.said(error))}[/]")
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        err.print("Interrupted; what was running is rolled back.")
        raise SystemExit(130) from None


@dataclass(frozen=True)
class Database:
    """A connected database and the schema the server looks into."""

    engine: AsyncEngine
    connection: AsyncConnection
    schema: str

    async def read(self, function: Callable[..., _T], *arguments: Any) -> _T:
        """Run a function of the cutover that only reads, in a transaction of its own."""
        with err.status("Reading the catalogue and counting rows ..."):
            result = await self.connection.run_sync(function, *arguments)
            await self.connection.rollback()
        return result


@asynccontextmanager
async def _database() -> AsyncIterator[Database]:
    settings = load(DatabaseSettings)
    url, setting = settings.cutover_address() or (embedded.start(), "DATABASE_URL")
    schema = settings.database_schema
    names = {**SESSION, "search_path": db.search_path(schema), "application_name": "shadow"}
    engine = db.create_engine(url, server_settings=names, poolclass=pool.NullPool)
    async with AsyncExitStack() as stack:
        with db.reachable(url, setting):
            connection = await stack.enter_async_context(engine.connect())
        yield Database(engine, connection, schema)


def _decisions(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options by which a person decides what the database cannot say; the function gets them as `options`."""

    @wraps(function)
    def decide(
        accept: tuple[str, ...],
        keep: tuple[str, ...],
        detach: tuple[str, ...],
        release: tuple[str, ...],
        map: tuple[str, ...],
        compat_view: bool,
        **others: Any,
    ) -> None:
        try:
            options = decided(
                accept=accept, keep=keep, detach=detach, release=release, map=map, compat_view=compat_view
            )
        except ValueError as error:
            raise click.UsageError(f"--{error}") from None
        function(options=options, **others)

    decorated: Callable[..., None] = decide
    for name, metavar, meaning in (
        ("accept", "CODE", f"Overrule a refusal: {', '.join(sorted(OVERRULABLE))}."),
        ("keep", "users.COLUMN", "Keep a column that would go by its name."),
        ("detach", "TABLE.COLUMN", "Drop this foreign key into a table that goes; the column and its values stay."),
        ("release", "OBJECT", "Take a view, trigger, policy ... out of the way; its definition is kept for undo."),
        ("map", "ROLE=TABLE", "Say which table plays a role, or which column a part: users.email=mail, accounts=none."),
    ):
        decorated = click.option(f"--{name}", name, multiple=True, metavar=metavar, help=meaning)(decorated)
    keep_names = "Leave a view with the old table's name and columns, for code that still reads them."
    return click.option("--compat-view", is_flag=True, help=keep_names)(decorated)


_TO = click.option(
    "--to", "target", type=click.Choice(ACTIONS), default="drop", show_default=True, help="How far to go."
)
_FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people or machines.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="shadow-users")
def main() -> None:
    """Move a Better Auth database to the shadow shape, and serve it.

    The database is DATABASE_URL (any libpq spelling), from the environment or .env; unset, an embedded server. Beside a
    pooler the verbs of the cutover use DATABASE_DIRECT_URL.
    """


@main.command()
@_decisions
@_FORMAT
def inspect(options: Options, form: str) -> None:
    """Show which table plays which role, and why. Changes nothing."""

    async def run() -> None:
        async with _database() as database:
            situation = await database.read(execute.survey, database.schema, options, ())
            revision = await database.read(execute.current_revision, database.schema)
        if form == "json":
            click.echo(report.inspection_json(situation, revision))
        else:
            report.print_inspection(out, situation, revision)

    with _told():
        asyncio.run(run())


def _planned(connection: Connection, schema: str, options: Options, target: Action) -> Report:
    actions = pending(execute.current_revision(connection, schema), target)
    situation = execute.survey(connection, schema, options, actions)
    findings = checks.examine(situation) if actions else ()
    plans = tuple(
        Planned(
            action,
            plan.steps_for(action, situation.snapshot, situation.layout, situation.options, execute.operator()),
        )
        for action in (() if situation.layout.doubts else actions)
    )
    return Report(situation, findings, plans)


_RENDERINGS: dict[str, Callable[[Report], str]] = {
    "text": report.plan_text,
    "json": report.plan_json,
    "sql": report.plan_sql,
    "html": lambda planned: page.page(
        planned, at=datetime.now(UTC), by=execute.operator(), tool=f"shadow {version('shadow-users')}"
    ),
}


@main.command("plan")
@_TO
@_decisions
@click.option("--format", "form", type=click.Choice(["text", "json", "sql", "html"]), default="text", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file.")
def show_plan(target: Action, options: Options, form: str, output: Path | None) -> None:
    """Show what would be found and done: findings, then steps with SQL, locks, sizes and undo. Changes nothing."""

    async def run() -> Report:
        async with _database() as database:
            return await database.read(_planned, database.schema, options, target)

    with _told():
        planned = asyncio.run(run())
        if form == "text" and output is None:
            report.print_plan(out, planned)
        else:
            rendered = _RENDERINGS[form](planned)
            click.echo(rendered) if output is None else _write(output, rendered)
        if refusals(planned.findings):
            raise SystemExit(REFUSED)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        err.print(f"[red]Cannot write {escape(str(path))}: {escape(str(error.strerror))}.[/] Give another --output.")
        raise SystemExit(FAILED) from None


@main.command()
@click.option("--to", "target", type=click.Choice(ACTIONS), required=True, help="How far to go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--fingerprint", help="Refuse unless the catalogue still has this fingerprint, from shadow plan.")
@_decisions
def migrate(target: Action, yes: bool, fingerprint: str | None, options: Options) -> None:
    """Plan, ask, run, verify."""

    async def run() -> bool:
        async with _database() as database, execute.exclusive(database.engine, database.schema, options) as watch:
            planned = await database.read(_planned, database.schema, options, target)
            if refusals(planned.findings) or yes or not planned.plans:
                report.print_findings(out, planned.findings)
            if refusals(planned.findings):
                out.print(f"[bold]{escape(planned.verdict)}[/]")
                raise SystemExit(REFUSED)
            if not planned.plans:
                # what SQL that was run by hand leaves out, or a run that ended right after its commit
                cutover = _cutover(database, options, ACTIONS, None, _observe)
                await database.read(lambda _: cutover.keep_facts(err.print))
                out.print("Nothing to do.")
                return True
            if not yes:
                _ask(planned)
            actions = tuple(each.action for each in planned.plans)
            with _progress(sum(len(each.steps) for each in planned.plans)) as observe:
                cutover = _cutover(database, options, actions, fingerprint or planned.fingerprint, observe)
                await _alembic(database, cutover, watch, command.upgrade, REVISIONS[target])
            return _print_verification(await database.read(verify.verify, database.schema))

    with _told():
        if not asyncio.run(run()):
            raise SystemExit(FAILED)


def _ask(planned: Report) -> None:
    revisions = ", ".join(each.revision for each in planned.plans)
    if not sys.stdin.isatty():
        err.print(f"Not run: nobody is there to answer. Look at shadow plan, then run again with --yes ({revisions}).")
        raise SystemExit(REFUSED)
    report.print_plan(out, planned)
    if not click.confirm(f"Run {revisions} on {planned.situation.snapshot.database}?"):
        err.print("Not run. Nothing was changed.")
        raise SystemExit(REFUSED)


def _observe(step: Step, seconds: float | None) -> None:
    if seconds is not None:
        out.print(f"  [green]✓[/] {escape(step.title)} [dim]{seconds * 1000:,.0f} ms[/]")


@contextmanager
def _progress(steps: int | None) -> Iterator[Callable[[Step, float | None], None]]:
    """Show on a terminal which of so many steps is running, and for how long; each that is done stays as a line."""
    narrow = Column(no_wrap=True)
    columns = (
        SpinnerColumn(table_column=narrow),
        BarColumn(20, table_column=narrow),
        MofNCompleteColumn(table_column=narrow),
        TimeElapsedColumn(table_column=narrow),
        # what runs may have a long name; the count and the clock stay beside it
        TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
    )
    with Progress(*columns, console=out, transient=True, expand=True, disable=not out.is_terminal) as bar:
        task = bar.add_task("", total=steps)

        def observe(step: Step, seconds: float | None) -> None:
            if seconds is None:
                bar.update(task, description=escape(step.title))
            else:
                bar.advance(task)
            _observe(step, seconds)

        yield observe


def _cutover(
    database: Database,
    options: Options,
    actions: tuple[Action, ...],
    expected: str | None,
    observe: Callable[[Step, float | None], None],
) -> Cutover:
    sync = database.connection.sync_connection
    if sync is None:
        raise RuntimeError("the connection is open inside its context")
    return Cutover(
        sync, sync.exec_driver_sql, database.schema, options, execute.operator(), actions, expected, observe
    )  # fmt: skip


async def _alembic(
    database: Database, cutover: Cutover, watch: Watch, verb: Callable[[Config, str], None], revision: str
) -> None:
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))

    def run(connection: Connection) -> None:
        config.attributes.update(connection=connection, cutover=cutover, watch=watch)
        verb(config, revision)

    await database.connection.run_sync(run)
    await database.connection.rollback()


def _scripts() -> Path:
    """Return the folder of the revisions: beside `app` in a checkout, inside it where it was installed."""
    package = Path(__file__).parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "alembic"


def _print_verification(verification: verify.Verification) -> bool:
    report.print_verification(out, verification, whole=False)
    return verification.holds


@main.command("verify")
@_FORMAT
def show_verification(form: str) -> None:
    """Compare the database with what it was before the last revision. Changes nothing."""

    async def run() -> verify.Verification:
        async with _database() as database:
            return await database.read(verify.verify, database.schema)

    with _told():
        verification = asyncio.run(run())
        if form == "json":
            click.echo(report.verification_json(verification))
        else:
            report.print_verification(out, verification)
        if not verification.holds:
            raise SystemExit(FAILED)


@main.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--accept", multiple=True, metavar="CODE", help="Overrule a refusal, by its code.")
def undo(yes: bool, accept: tuple[str, ...]) -> None:
    """Go back one revision."""
    try:
        options = decided(accept=accept)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None

    async def run() -> bool:
        async with _database() as database, execute.exclusive(database.engine, database.schema, options) as watch:
            current = await database.read(execute.current_revision, database.schema)
            action = next((action for action in ACTIONS if REVISIONS[action] == current), None)
            if action is None:
                out.print("Nothing to undo: no revision has run on this database.")
                return True
            if not yes and not (sys.stdin.isatty() and click.confirm(f"Undo {current}?")):
                err.print("Not run. Nothing was changed. Answer yes, or give --yes.")
                raise SystemExit(REFUSED)
            with _progress(None) as observe:
                await _alembic(database, _cutover(database, options, (), None, observe), watch, command.downgrade, "-1")
            if action == "adopt":
                await database.connection.exec_driver_sql(f"DROP TABLE {quoted(database.schema, VERSION_TABLE)}")
                await database.connection.commit()
                out.print("The database is as it was before the cutover.")
                return True
            return _print_verification(await database.read(verify.verify, database.schema))

    with _told():
        if not asyncio.run(run()):
            raise SystemExit(FAILED)


@main.command("reconcile")
@click.option("--execute", is_flag=True, help="Write; without it, only show what would be written.")
@click.option(
    "--allow-deletions",
    type=click.IntRange(0),
    metavar="N",
    help="Delete up to N, also where that is more than 5 %, or an old app is beside.",
)
@_FORMAT
def run_reconciliation(execute: bool, allow_deletions: int | None, form: str) -> None:
    """Compare the rows with the provider's users (IDP_DIRECTORY), and bring them into step. Dry by default.

    It can be interrupted at any time: running it again finishes. Exit code 2: whoever is gone was not deleted.
    """

    async def run() -> Reconciliation:
        settings = load(Settings)
        rules = ShadowRules(
            app_owned=frozenset(settings.app_owned_fields), provision_machines=settings.provision_machine_tokens
        )
        course = Course(
            execute=execute,
            rules=rules,
            on_deleted=settings.on_user_deleted,
            allow_deletions=allow_deletions,
            takes_old_sessions=settings.auth_mode != "idp",
        )
        async with httpx.AsyncClient() as client:
            directory = _directory(settings, client)
            engine = open_database(settings)
            try:
                with db.reachable(settings.database_url.get_secret_value() if settings.database_url else ""):
                    await check_shape(engine, writes=execute)
                with _counting() as observe:
                    return await reconcile(engine, directory, course, observe)
            finally:
                await engine.dispose()

    with _told():
        result = asyncio.run(run())
        if form == "json":
            click.echo(json.dumps(result.as_json(), indent=2))
        else:
            _print_reconciliation(result)
        if result.refusal is not None:
            raise SystemExit(REFUSED)


def _directory(settings: Settings, client: httpx.AsyncClient) -> Directory:
    password, key = settings.idp_directory_password, settings.idp_directory_api_key
    url, email = settings.idp_directory_url or "", settings.idp_directory_email or ""
    if settings.idp_directory == "better-auth":
        return BetterAuthDirectory(url, email, password.get_secret_value() if password else "", client)
    if settings.idp_directory == "auther":
        return AutherDirectory(url, key.get_secret_value() if key else "", client)
    raise SettingsError(("IDP_DIRECTORY: it must say how the provider's users are read: better-auth or auther.",))


@contextmanager
def _counting() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show on a terminal how far something is, on stderr: stdout may be JSON."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def observe(what: str, done: int, total: int | None) -> None:
            bar.update(task, description=escape(what), completed=done, total=total)

        yield observe


_MEANINGS = {
    Kind.SAME: ("in step", "in step"),
    Kind.DIFFER: ("differ, would be updated", "differed, updated"),
    Kind.MISSING: ("missing here, would be added", "missing here, added"),
    Kind.DISABLED: ("disabled there, would be shut out", "disabled there, shut out"),
    Kind.ENABLED: ("enabled there, would be let in", "enabled there, let in"),
    Kind.GONE: ("gone there, would be deleted", "gone there, deleted"),
    Kind.DELETED_HERE: ("deleted here, left so", "deleted here, left so"),
    Kind.UNCLEAR: ("the provider cannot say, left alone", "the provider cannot say, left alone"),
}
"""What a count means in a dry run, and in one that wrote."""


def _print_reconciliation(result: Reconciliation) -> None:
    meanings = {kind: meaning[result.executed] for kind, meaning in _MEANINGS.items()}
    if result.refusal is not None:
        meanings[Kind.GONE] = "gone there, not deleted"
    elif result.executed and result.deleted < result.counts[Kind.GONE]:
        meanings[Kind.GONE] = f"gone there, {result.deleted:,} deleted; of the others something newer is known"
    counts = Table(box=None, show_header=False, pad_edge=False)
    counts.add_column(justify="right")
    for kind in Kind:
        counts.add_row(f"{result.counts[kind]:,}", meanings[kind])
    out.print(counts)
    for kind, found in result.first.items():
        if found:
            more = result.counts[kind] - len(found)
            where = ("differs in",) if kind is Kind.DIFFER else ()
            table = Table("id", *where, title=meanings[kind], title_justify="left", min_width=40)
            for each in found:
                table.add_row(escape(each.sub), *([", ".join(each.columns)] if where else []))
            out.print(table)
            if more:
                out.print(f"  and {more:,} more; the first {SHOWN} are shown")
    if result.refusal is not None:
        out.print(f"[bold]Nobody {'was' if result.executed else 'would be'} deleted.[/] {escape(result.refusal)}")
    elif result.in_step:
        out.print("Everything is in step.")
    elif not result.executed:
        out.print("Nothing was changed; shadow reconcile --execute does it.")
    else:
        out.print("Done.")


@main.command("erase")
@click.argument("sub")
@click.option("--execute", is_flag=True, help="Erase; without it, only show what would go.")
@click.option("--yes", is_flag=True, help="Erase, and do not ask.")
def run_erasure(sub: str, execute: bool, yes: bool) -> None:
    """Erase the user with the id SUB, and what cascades from the row; a tombstone stays. Dry by default."""

    async def run() -> None:
        settings = load(DatabaseSettings)
        url = settings.database_url.get_secret_value() if settings.database_url else embedded.start()
        # it waits for whoever writes these rows, and not for ever: a dozen times, so for 5 seconds
        names = {**served_from(settings.database_schema), "application_name": "shadow", "lock_timeout": "400ms"}
        engine = db.create_engine(url, server_settings=names, through_pooler=True, poolclass=pool.NullPool)
        try:
            with db.reachable(url):
                found = await erasure.survey(engine, sub)
            _print_survey(sub, found)
            if not found.found or found.blocked:
                raise SystemExit(REFUSED)
            if not execute and not yes:
                out.print("Nothing was changed; shadow erase --execute does it.")
                return
            if not yes and not (sys.stdin.isatty() and click.confirm(f"Erase {sub}?")):
                err.print("Not run. Nothing was changed. Answer yes, or give --yes.")
                raise SystemExit(REFUSED)
            await erasure.erase(engine, sub)
        except erasure.Blocked as blocked:
            err.print(f"[red]Refused: {escape(str(blocked))}.[/] Nothing was changed.", soft_wrap=True)
            raise SystemExit(REFUSED) from None
        except (Contended, DBAPIError) as error:
            if isinstance(error, DBAPIError) and stops.sqlstate(error) not in stops.LOCK_STATES:
                raise
            raise LockNotObtained("Others are writing these rows. Nothing was changed; try again.") from None
        out.print("Erased. A tombstone stays, so that no token makes the user anew.")

    with _told():
        asyncio.run(run())


def _print_survey(sub: str, found: erasure.Survey) -> None:
    if not found.found:
        err.print(f"There is no user with the id {escape(sub)}. Nothing was changed.", soft_wrap=True)
        return
    lines = Table(box=None, show_header=False, pad_edge=False)
    for column in ("left", "right", "left", "left"):
        lines.add_column(justify=column, overflow="fold")
    lines.add_row("goes", "1", escape(found.table), "a tombstone stays")
    for reach in found.reaches:
        rows = "?" if reach.rows is None else f"{reach.rows:,}"
        lines.add_row(reach.fate, rows, escape(reach.table), f"by {escape(reach.key)}")
    out.print(lines)
    if any(reach.rows is None for reach in found.reaches):
        out.print("? stands for tables that this role may not read, or not every row of.")
    if found.blocked:
        out.print("[bold]Refused. Nothing was changed.[/] Delete or detach what blocks, or give its key a cascade.")


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Worker processes.")
def serve(host: str, port: int, workers: int) -> None:
    """Serve the API with Granian."""
    from app.api.run import run_server

    with _told():
        settings = load(Settings)
        check_mode(settings)
        _listen(host, port)
        if settings.database_url is None:
            # the workers find the embedded server that this process started and stops
            os.environ["DATABASE_URL"] = embedded.start()
        run_server("app.asgi:create_app", host, port, workers=workers)


def _listen(host: str, port: int) -> None:
    """Find out whether the address can be had, before processes are started that would all fail at it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        err.print(
            f"[red]Cannot listen on {host}:{port}: {escape(str(error.strerror))}.[/] Give another --host or --port."
        )
        raise SystemExit(FAILED) from None


@main.command()
@click.option("--stay", is_flag=True, help="Leave provider and server running, and print curl lines.")
def demo(stay: bool) -> None:
    """Go the whole way on an embedded PostgreSQL with a sample database and a development provider."""
    script = Path(__file__).parent.parent / "scripts" / "demo.py"
    if not script.is_file():
        err.print("The demo is part of a checkout of the project; it is not installed. Clone it and run make demo.")
        raise SystemExit(FAILED)
    # it takes this process's place, so that a signal reaches it and it can end what it started
    os.execv(sys.executable, [sys.executable, str(script), *(("--stay",) if stay else ())])  # noqa: S606


if __name__ == "__main__":
    main()
