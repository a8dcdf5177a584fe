"""Running a revision: timeouts, the advisory lock, and the whole transaction again when a lock is not to be had.

The promise: a revision is one transaction, so the database is as before or as after; nobody queues behind us for
longer than the lock timeout; two runners never work at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.cutover import (
    catalog,
    census,
    checks,
    journal,
    plan,
    recognition,
    rehearsal,
    restore,
    samples,
    standing,
    steps,
    stops,
    surroundings,
    template,
    undo,
)
from app.cutover.catalog import JOURNAL, VERSION_TABLE, Snapshot, quoted
from app.cutover.findings import Action, Options, Refused, Situation, refusals
from app.cutover.layout import Doubt, Layout
from app.cutover.raised import raised_by
from app.cutover.signatures import GOING_ROLES
from app.cutover.steps import REVISIONS, Record, Step

TRIES = 12
LONGEST_PAUSE = 5.0
"""Seconds."""

_ADVISORY_CLASS = 0x5AD0_BA5E


class LockNotObtained(Exception):
    """Others hold what is needed; what was running is rolled back. The message says who, as far as it is known."""


def operator() -> str:
    """Return who runs this, for the journal: the login name, or the number of one who has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that somebody waits for."""

    pid: int
    role: str
    application: str
    state: str
    seconds: int

    def __str__(self) -> str:
        application = f", {self.application}" if self.application else ""
        return f"pid {self.pid} ({self.role}{application}; {self.state} for {self.seconds:,} s)"


@dataclass
class Watch:
    """Who was last seen blocking the connection with process id `pid`."""

    pid: int | None = None
    blockers: tuple[Blocker, ...] = ()

    @property
    def holders(self) -> str:
        """Who was seen, in words."""
        return ", ".join(str(blocker) for blocker in self.blockers) or "a session that has gone since"


@contextlib.asynccontextmanager
async def exclusive(engine: AsyncEngine, schema: str, options: Options) -> AsyncIterator[Watch]:
    """Hold the cutover's advisory lock on a connection of its own, and watch from there who blocks the work.

    Raises:
        Refused: the connection is none over which a lock could be held.
        LockNotObtained: another runner has it.
    """
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        # before the lock is taken: a pooler would keep it for whoever comes next
        if refusals(findings := await connection.run_sync(checks.first_contact, options)):
            raise Refused(findings)
        key = f"{_ADVISORY_CLASS}, hashtext({catalog.literal(schema)})"
        got = await connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({key})")
        if not got.scalar_one():
            raise LockNotObtained("Another cutover is running on this database; wait until it has ended.")
        watch = Watch()
        task = asyncio.create_task(_watch(connection, watch))
        try:
            yield watch
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, DBAPIError):
                await task
            # the lock goes with the session, also where the connection is already gone
            await connection.invalidate()


async def _watch(connection: AsyncConnection, watch: Watch) -> None:
    while True:
        if watch.pid is not None:
            rows = await connection.exec_driver_sql(
                f"""SELECT pid, coalesce(usename, '?')::text AS role, coalesce(application_name, '') AS application,
                coalesce(state, '?') AS state, coalesce(extract(epoch FROM now() - xact_start), 0)::int AS seconds
                FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids({watch.pid}))"""
            )
            if found := [Blocker(**row) for row in rows.mappings()]:
                watch.blockers = tuple(found)
        await asyncio.sleep(0.1)


def with_patience(
    connection: Connection,
    run: Callable[[], None],
    *,
    watch: Watch,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Run, and run again from the start when a lock could not be had in time or a deadlock was broken.

    Raises:
        LockNotObtained: after TRIES attempts; everything was rolled back.
    """
    watch.pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    connection.rollback()
    for attempt in range(1, TRIES + 1):
        watch.blockers = ()
        try:
            run()
        except DBAPIError as error:
            if (stops.sqlstate(error) or "")[:2] in stops.MEANT_FOR_PEOPLE - {"55"}:
                connection.rollback()
                step, guards = Step("Alembic records how far the database is", ()), _guards(connection)
                raise Refused([stops.stopped(step, error, guards=guards)]) from error
            if stops.sqlstate(error) not in stops.LOCK_STATES:
                raise
            connection.rollback()
            if attempt == TRIES:
                raise LockNotObtained(
                    f"A lock was not obtained in {TRIES} tries; it is held by {watch.holders}. What needed it was "
                    "rolled back; shadow plan shows what is left to do. Try again, or end that session."
                ) from error
            pause = min(0.1 * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311 -- jitter
            say(f"waiting for a lock held by {watch.holders}; try {attempt} of {TRIES}, again in {pause:.1f} s")
            sleep(pause)
        else:
            return


def _nothing(step: Step, seconds: float | None) -> None:
    """Report to nobody."""


@dataclass
class Cutover:
    """One run of the cutover; the revisions call `upgrade` and `undo`.

    Args:
        connection: the database, None to write SQL for Auther's template without one.
        execute: how a statement is run.
        schema: where users is, or is to be.
        options: what the person decided.
        operator: who runs it, for the journal.
        actions: all that this run will do, so that a refusal of the last is known before the first.
        expected: the fingerprint of the plan that the person saw; None where nobody saw one.
        observe: called with each step before (seconds None) and after it ran.
    """

    connection: Connection | None
    execute: Callable[[str], object]
    schema: str
    options: Options
    operator: str
    actions: tuple[Action, ...] = ()
    expected: str | None = None
    observe: Callable[[Step, float | None], None] = field(default=_nothing)
    _guards: tuple[str, ...] = field(default=(), init=False)

    def examine(self) -> None:
        """Look for what stands in the way of all that this run will do.

        Raises:
            Refused: with every finding; nothing was changed.
        """
        if self.connection is not None and self.actions:
            findings = checks.examine(survey(self.connection, self.schema, self.options, self.actions))
            if refusals(findings):
                raise Refused(findings)

    def upgrade(self, action: Action) -> None:
        """Take one revision's steps, in the transaction that is open.

        Raises:
            Refused: with every finding; nothing was changed.
        """
        try:
            if self.connection is None:
                self._write(action)
            else:
                self._upgrade(self.connection, action)
        except Refused as refused:
            done = self.actions[: self.actions.index(action)] if action in self.actions else ()
            raise Refused(refused.findings, REVISIONS[done[-1]] if done else None) from refused

    def _write(self, action: Action) -> None:
        if "drop" in self.actions and stops.UNSEEN.code not in self.options.accept:
            raise Refused([stops.UNSEEN])
        self._begin()
        snapshot = template.auther_template(self.schema)
        found = recognition.recognise(snapshot, self.schema, self.options.choices)
        for step in plan.steps_for(action, snapshot, found, self.options, self.operator):
            self._take(step)

    def _upgrade(self, connection: Connection, action: Action) -> None:
        self._begin()
        # a refusal of a later revision must be known before the first changes anything
        ahead = self.actions[self.actions.index(action) :] if action in self.actions else (action,)
        situation = survey(connection, self.schema, self.options, ahead)
        if refusals(findings := checks.examine(situation)):
            raise Refused(findings)
        snapshot = situation.snapshot
        if self.expected is not None and self.expected != snapshot.fingerprint:
            raise Refused([stops.changed(self.expected, snapshot)])
        self.expected = None
        if action == "retire":  # in one run with adopt, after which nobody has looked
            self._keep_standing(connection, "adopt", snapshot)
        for step in plan.steps_for(action, snapshot, situation.layout, situation.options, self.operator):
            self._take(step)
            if step.settles:
                self._unchanged(snapshot)

    def _keep_standing(self, connection: Connection, action: Action, snapshot: Snapshot | None = None) -> None:
        """Record how that stands which the undo of an action will take out, unless it is recorded."""
        recorded = undo.recorded(connection, self.schema, action)
        if recorded is not None and "standing" not in recorded.before:
            made = standing.of(snapshot or catalog.read(connection), recorded.before, recorded.undo)
            self.execute(standing.keeping(self.schema, action, made))

    def _unchanged(self, planned: Snapshot) -> None:
        """Look whether the catalogue is still what was planned for, now that nobody can change it."""
        now = catalog.read(self._database)
        if now.fingerprint != planned.fingerprint:
            raise Refused([stops.changed(planned.fingerprint, now)])

    def keep_facts(self, say: Callable[[str], None]) -> None:
        """Record what undo and verify compare with and nobody need wait for, now that the revision is committed.

        That is how many rows the retired tables have, which is final, and how that stands which undo will take out.
        What is recorded already stays; where it cannot be recorded, the revision is no less done.

        Args:
            say: called with what is to be done where it cannot be recorded.
        """
        try:
            self._keep_facts(self._database)
        except DBAPIError as error:
            self._database.rollback()
            say(
                "The revision is done and committed, but how it left things could not be recorded "
                f"(SQLSTATE {stops.sqlstate(error)}): run shadow migrate with the same --to, so that undo can compare."
            )

    def _keep_facts(self, database: Connection) -> None:
        current = current_revision(database, self.schema)
        action: Action | None = next((each for each in ("adopt", "retire") if REVISIONS[each] == current), None)
        if action is None or action not in self.actions:
            database.rollback()
            return
        self._keep_standing(database, action)
        recorded = undo.recorded(database, self.schema, action)
        known = recorded.before if recorded is not None and action == "retire" else {}
        if known.get("moved") and "retired_rows" not in known:
            self.execute(journal.count_of_retired(self.schema, known["moved"]))
        database.commit()

    def undo(self, action: Action) -> None:
        """Go back over one revision, in the transaction that is open.

        Raises:
            Refused: it cannot be undone, or would lose what was written since.
        """
        if action == "drop":
            raise Refused([stops.FINAL])
        database = self._database
        self._begin()
        recorded = undo.recorded(database, self.schema, action)
        if recorded is None:
            raise Refused([stops.no_record(action)])
        findings = list(undo.examine(database, self.schema, action, recorded.before, recorded.undo, self.options))
        if refusals(findings):
            raise Refused(findings)
        left_out = self._take_back(recorded.undo)
        if action == "retire":  # if that was not done at its time, it is as far as it goes back now
            self._keep_standing(database, "adopt")
        if action != "adopt":
            record = Record(f"undo-{action}", self.operator, self.options, catalog.read(database).fingerprint)
            facts = f"jsonb_build_object('left_out', {catalog.literal(json.dumps(left_out))}::jsonb)"
            self.execute(journal.entry(self.schema, record, facts))

    def _take_back(self, statements: Sequence[str]) -> list[str]:
        """Run what undoes, and find out in one pass what it would change that is gone since.

        Returns:
            What was left out, for a person accepted that.

        Raises:
            Refused: something is, and nobody accepted that it is left out.
        """
        gone: list[stops.LeftOut] = []
        try:
            waiting = list(reversed(statements))
            while waiting:
                statement = waiting.pop()
                if (reason := self._attempt(statement)) is None:
                    continue
                if len(parts := steps.apart(statement)) > 1:
                    waiting += reversed(parts)
                    continue
                if statement.startswith(restore.AS_ROLE):  # what it would have given went with the role
                    while waiting.pop() != restore.AS_ONESELF:
                        pass
                gone.append(stops.LeftOut(reason, statement, undo.kept_in(self._database, statement)))
                self.observe(Step(f"left out, for {reason}: {_title(statement)}", ()), 0.0)
        except Refused as refused:
            raise Refused([*stops.missing(gone, self.options), *refused.findings]) from refused
        if findings := stops.missing(gone, self.options):
            raise Refused(findings)
        return [each.statement for each in gone]

    def _attempt(self, statement: str) -> str | None:
        """Run a statement that undoes; return what PostgreSQL says is not there for it, None where it was done.

        Raises:
            Refused: something else is in the way.
        """
        self.execute("SAVEPOINT shadow_undo")
        try:
            self._take(Step(_title(statement), (statement,)), undoing=True)
        except Refused as refused:
            if (reason := stops.absent(refused, statement)) is None:
                raise
            self.execute("ROLLBACK TO SAVEPOINT shadow_undo")
            return reason
        self.execute("RELEASE SAVEPOINT shadow_undo")
        return None

    def _begin(self) -> None:
        for setting in steps.SETTINGS:
            self.execute(setting)
        if self.connection is not None:
            self._guards = _guards(self.connection)

    def _take(self, step: Step, *, undoing: bool = False) -> None:
        self.observe(step, None)
        started = time.perf_counter()
        for statement in step.sql:
            try:
                self.execute(statement)
            except DBAPIError as error:
                state = stops.sqlstate(error)
                passing = state in stops.LOCK_STATES or (state or "")[:2] not in stops.MEANT_FOR_PEOPLE
                if state is None or (passing and raised_by(error) is None):
                    raise
                raise Refused([stops.stopped(step, error, undoing=undoing, guards=self._guards)]) from error
        self.observe(step, time.perf_counter() - started)

    @property
    def _database(self) -> Connection:
        """The connection; what is undone is recorded in the database."""
        if self.connection is None:
            raise Refused([stops.NEEDS_DATABASE])
        return self.connection


def _guards(connection: Connection) -> tuple[str, ...]:
    """Return the functions of event triggers."""
    return tuple(trigger.function for trigger in surroundings.event_triggers(connection))


def _title(statement: str) -> str:
    return " ".join(steps.apart(statement)[0].split())[:100]


def survey(connection: Connection, schema: str, options: Options, actions: tuple[Action, ...]) -> Situation:
    """Read everything the rules look at."""
    snapshot = catalog.read(connection)
    moved: Any = None
    sequence: str | None = None
    revision = current_revision(connection, schema)
    if revision is not None:
        if snapshot.table(schema, JOURNAL) is None:
            raise Refused([stops.unaccounted(revision)])
        options = options.after(journal.chosen(connection, schema))
    if revision == REVISIONS["retire"] and (retired := undo.recorded(connection, schema, "retire")) is not None:
        moved, sequence = retired.before["roles"], retired.before["kept_sequence"]
    if revision == REVISIONS["drop"]:  # what is left is the app's, whatever it looks like
        options = replace(options, choices=options.choices.without(GOING_ROLES))
    found = recognition.recognise(snapshot, schema, options.choices, moved, samples.looking(connection, snapshot))
    if sequence is not None and sequence in {quoted(each.schema, each.name) for each in snapshot.sequences}:
        found = replace(found, kept_sequence=sequence)
    if revision == REVISIONS["adopt"]:
        found = _held_to(found, undo.recorded(connection, schema, "adopt"))
    counted = census.take(connection, snapshot, found)
    snapshot = counted.told(snapshot)
    situation = Situation(snapshot, found, counted, options, actions)
    contact = counted.surroundings.contact
    if contact.recovering or contact.read_only:
        return situation
    try:
        complaints = rehearsal.rehearse(connection, snapshot, situation.changes, options, actions)
        return replace(situation, complaints=complaints)
    except DBAPIError as error:
        if (stops.sqlstate(error) or "")[:2] not in stops.MEANT_FOR_PEOPLE:
            raise
        step = Step("the new types are tried out, in a savepoint", ())
        guards = [trigger.function for trigger in counted.surroundings.event_triggers]
        raise Refused([stops.stopped(step, error, guards=guards)]) from error


def _held_to(found: Layout, adopted: undo.Recorded | None) -> Layout:
    """Refuse what another table, or another of its columns, would be taken for than adopt took."""
    if adopted is None or adopted.before["users"] is None or found.users is None or found.doubts:
        return found
    before, now = adopted.before, {name: column.name for name, column in found.fields.items()}
    other = sorted(name for name, own in before["fields"].items() if now.get(name) != own)
    if found.users.sql == before["users"] and not other:
        return found
    was = f"{before['users']} with {', '.join(f'{name}={own}' for name, own in before['fields'].items())}"
    message = f"adopt took {was}; now it is {found.users.sql} with {', '.join(f'{n}={own}' for n, own in now.items())}."
    remedy = "shadow undo\n-- takes adopt back; then decide anew, from the first revision on"
    return replace(found, doubts=(Doubt("not-what-was-adopted", found.users.sql, message, remedy),))


def current_revision(connection: Connection, schema: str) -> str | None:
    """Return the revision the database is at, None before the first."""
    table = quoted(schema, VERSION_TABLE)
    exists = connection.exec_driver_sql(f"SELECT to_regclass({catalog.literal(table)}) IS NOT NULL").scalar_one()
    if not exists:
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalar_one_or_none()
