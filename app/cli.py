"""The `shadow` command: thin verbs over the rooms.

The promise: exit code 0 done or nothing to do, 1 the tool failed, 2 refused and nothing was changed, 3 a lock was not
obtained and nothing was changed. What went wrong is one sentence that says what to do, never a traceback.
"""

from __future__ import annotations

import asyncio
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

import rich_click as click
from alembic import command
from alembic.config import Config
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column
from sqlalchemy import Connection, pool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app import db, embedded
from app.asgi import check_mode
from app.cutover import checks, execute, page, plan, report, stops, verify
from app.cutover.catalog import VERSION_TABLE, quoted
from app.cutover.execute import Cutover, LockNotObtained, Watch
from app.cutover.findings import ACTIONS, OVERRULABLE, Action, Options, Refused, decided, refusals
from app.cutover.report import Planned, Report
from app.cutover.steps import REVISIONS, SESSION, Step, pending
from app.errors import ShadowError
from app.settings import DatabaseSettings, Settings, load

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
        err.print("Interrupted; the revision that was running is rolled back.")
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
    url = settings.database_url.get_secret_value() if settings.database_url else embedded.start()
    schema = settings.database_schema
    names = {**SESSION, "search_path": db.search_path(schema), "application_name": "shadow"}
    engine = db.create_engine(url, server_settings=names, poolclass=pool.NullPool)
    async with AsyncExitStack() as stack:
        with db.reachable(url):
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

    The database is DATABASE_URL (any libpq spelling), from the environment or .env; unset, an embedded server.
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


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Worker processes.")
def serve(host: str, port: int, workers: int) -> None:
    """Serve the API with Granian."""
    from granian.constants import Interfaces, Loops
    from granian.server import Server

    with _told():
        settings = load(Settings)
        check_mode(settings)
        _listen(host, port)
        if settings.database_url is None:
            # the workers find the embedded server that this process started and stops
            os.environ["DATABASE_URL"] = embedded.start()
        server = Server(
            "app.asgi:create_app",
            host,
            port,
            factory=True,
            interface=Interfaces.ASGI,
            loop=Loops.uvloop,
            workers=workers,
            websockets=False,
        )
        server.serve()


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
