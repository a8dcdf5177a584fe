"""Where Alembic meets the database: its own version table, one transaction a revision, one runner at a time.

`alembic upgrade head` needs DATABASE_URL (beside a pooler DATABASE_DIRECT_URL, too) and, where something is to be
accepted, `-x accept=CODE`; `-x keep=users.role` and the others decide what the options of `shadow migrate` decide.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import Any, NoReturn

from alembic import command, context
from alembic.operations import ops
from sqlalchemy import Column, Connection, UniqueConstraint, pool, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import SchemaItem

from app import db, embedded
from app.cutover import execute, stops
from app.cutover.catalog import VERSION_TABLE
from app.cutover.execute import Cutover, LockNotObtained, Watch
from app.cutover.findings import Action, Options, Refused, decided
from app.cutover.report import findings_text
from app.cutover.steps import REVISIONS, SESSION, Step
from app.errors import ShadowError
from app.settings import DatabaseSettings, load
from app.users.model import Base, User


def options_given() -> Options:
    """Return what `-x` decided."""
    given: dict[str, list[str]] = {"accept": [], "keep": [], "detach": [], "release": [], "map": []}
    compat_view = False
    for argument in context.get_x_argument(as_dictionary=False):
        name, _, value = argument.partition("=")
        if argument == "compat-view":
            compat_view = True
            continue
        if name not in given or not value:
            known = "accept=CODE, keep=users.column, detach=table.column, release=OBJECT, map=role=table, compat-view"
            stop(f"-x {argument} is not known; there are {known}.", 2)
        given[name].append(value)
    try:
        return decided(**given, compat_view=compat_view)
    except ValueError as error:
        stop(f"-x {error}", 2)


def is_ours(item: SchemaItem, _name: str | None, _type: str, reflected: bool, compare_to: SchemaItem | None) -> bool:
    """Compare what our models declare; what only the database has is the app's own."""
    if isinstance(item, UniqueConstraint) and item.table.name == User.__tablename__:
        return False  # its name is whatever the old app called it; that it is there is a rule of `rules/users.py`
    return not (reflected and compare_to is None)


def type_differs(_context: object, found: Column[Any], ours: Column[Any], *_types: object) -> bool | None:
    """Let an id that was text stay text; of everything else Alembic decides."""
    return False if (ours.table.name, found.name) == (User.__tablename__, "id") else None


def leave_comments(_context: object, _revision: object, directives: list[Any]) -> None:
    """Take out what would drop the comments that the database's owner gave its tables and columns."""
    for script in directives:
        for group in script.upgrade_ops_list:
            group.ops = [kept for operation in group.ops if (kept := without_comments(operation)) is not None]


def without_comments(operation: Any) -> Any:
    if isinstance(operation, ops.DropTableCommentOp):
        return None
    if isinstance(operation, ops.ModifyTableOps):
        operation.ops = [kept for each in operation.ops if (kept := without_comments(each)) is not None]
        return operation if operation.ops else None
    if isinstance(operation, ops.AlterColumnOp):
        operation.modify_comment = False
        return operation if operation.has_changes() else None
    return operation


def configure(connection: Connection | None, schema: str) -> None:
    context.configure(
        connection=connection,
        dialect_name="postgresql",
        target_metadata=Base.metadata,
        version_table=VERSION_TABLE,
        version_table_schema=schema,
        transaction_per_migration=True,
        include_object=is_ours,
        compare_type=type_differs,
        process_revision_directives=leave_comments,
        compare_server_default=False,
        literal_binds=connection is None,
    )


def write_sql(settings: DatabaseSettings) -> None:
    print("-- Written without a database: it is assumed that it has the layout of Auther's template.")
    configure(None, settings.database_schema)

    def write(statement: str) -> None:
        context.get_context().impl.execute(text(statement.replace(":", r"\:")))

    context.config.attributes["cutover"] = Cutover(
        None, write, settings.database_schema, options_given(), execute.operator(), actions=ahead(None)
    )
    with context.begin_transaction():
        context.run_migrations()


def migrate(connection: Connection, cutover: Cutover, watch: Watch) -> None:
    """Run the revisions that were asked for, each again from its start when a lock was not to be had."""

    def once() -> None:
        configure(connection, cutover.schema)
        with context.begin_transaction():
            context.run_migrations()

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    execute.with_patience(connection, once, watch=watch, say=say)
    cutover.keep_facts(say)


async def connect_and_migrate(settings: DatabaseSettings) -> None:
    url, setting = settings.cutover_address() or (embedded.start(), "DATABASE_URL")
    engine = db.create_engine(
        url,
        server_settings={
            **SESSION,
            "search_path": db.search_path(settings.database_schema),
            "application_name": "shadow (alembic)",
        },
        poolclass=pool.NullPool,
    )
    async with AsyncExitStack() as stack:
        with db.reachable(url, setting):
            connection = await stack.enter_async_context(engine.connect())
        watch = await stack.enter_async_context(execute.exclusive(engine, settings.database_schema, options_given()))
        current = await connection.run_sync(execute.current_revision, settings.database_schema)
        await connection.rollback()

        def run(connection: Connection) -> None:
            cutover = Cutover(
                connection,
                connection.exec_driver_sql,
                settings.database_schema,
                options_given(),
                execute.operator(),
                actions=ahead(current),
                observe=say_when_done,
            )
            context.config.attributes["cutover"] = cutover
            # before Alembic makes its version table: a refusal leaves nothing behind
            cutover.examine()
            connection.rollback()
            migrate(connection, cutover, watch)

        await connection.run_sync(run)


def say_when_done(step: Step, seconds: float | None) -> None:
    if seconds is not None:
        print(f"{step.title} ({seconds * 1000:,.0f} ms)", file=sys.stderr)


def destination() -> str | None:
    try:
        asked = context.get_revision_argument()
    except KeyError:  # a command that goes nowhere
        return None
    return asked if isinstance(asked, str) else None


def ahead(current: str | None) -> tuple[Action, ...]:
    """Return what `alembic upgrade` will do from here; nothing for the other commands."""
    given = context.config.cmd_opts
    if given is None:  # Python calls Alembic: where it goes is known, but for +n; what was not asked for is no harm
        target = destination() or "head"
    elif command.upgrade in given.cmd:
        target = given.revision.rpartition(":")[2]  # --sql takes from:to
    else:
        return ()
    scripts = context.script.iterate_revisions(target, current, implicit_base=True)
    going = {script.revision for script in scripts}
    return tuple(action for action, revision in REVISIONS.items() if revision in going)


def main() -> None:
    if (connection := context.config.attributes.get("connection")) is not None:
        # `shadow` has connected, holds the lock and reports in its own way
        migrate(connection, context.config.attributes["cutover"], context.config.attributes["watch"])
        return
    try:
        settings = load(DatabaseSettings)
        if context.is_offline_mode():
            write_sql(settings)
        else:
            asyncio.run(connect_and_migrate(settings))
    except Refused as refused:
        stop(f"{findings_text(refused.findings)}\n{_AS_ARGUMENTS}", 2)
    except LockNotObtained as error:
        stop(str(error), 3)
    except ShadowError as error:
        stop(error.message, 1)
    except DBAPIError as error:
        stop(stops.said(error), 1)


_AS_ARGUMENTS = "Refused. What a remedy says as --accept CODE is -x accept=CODE here; so are the others."


def stop(sentence: str, code: int) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(code)


main()
