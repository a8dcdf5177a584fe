"""What a plan consists of: Steps, each with its SQL, the lock it takes, what that blocks, and how it is undone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.cutover.findings import ACTIONS, Action, Options

REVISIONS: dict[Action, str] = {"adopt": "0001_adopt", "retire": "0002_retire", "drop": "0003_drop"}

SESSION = {
    "default_transaction_isolation": "read committed",
    "row_security": "off",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "default_tablespace": "",
    "standard_conforming_strings": "on",
    "quote_all_identifiers": "off",
    "jit": "off",
}
"""Run-time parameters of a connection that runs the cutover: a row that a policy hides is an error, not a row less, and
what is written as text reads the same whatever the role's own setting is; compiling the queries that read the catalogue
takes longer than they do. Only a transaction that sees what others
committed meanwhile can catch up with it."""
LOCK_TIMEOUT_MS = 500
SHORT_LOCK_TIMEOUT_MS = 100
"""For the locks that others queue behind while they are waited for."""
SHORTEST_LOCK_TIMEOUT_MS = 50
"""... where writers have waited for as long already."""
LONG_LOCK_TIMEOUT_MS = 3000
"""For the lock that no reader and no writer queues behind: longer than deadlock_timeout, after which an autovacuum that
is in the way gives up."""
_SINCE = "shadow.since"
"""Run-time parameter with the time since which writers wait."""
STATEMENT_TIMEOUT_MS = 30 * 60 * 1000
IDLE_TIMEOUT_MS = 60 * 1000
SETTINGS = (
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
    f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}",
    f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}",
    *(f"SET LOCAL {name} = '{value}'" for name, value in SESSION.items()),
)
"""What each revision's transaction begins with."""

Lock = Literal["none", "SHARE UPDATE EXCLUSIVE", "SHARE", "ACCESS EXCLUSIVE"]
BLOCKS: dict[Lock, str] = {
    "none": "nobody waits",
    "SHARE UPDATE EXCLUSIVE": "vacuum and changes of structure wait, readers and writers go on",
    "SHARE": "writers wait, readers go on",
    "ACCESS EXCLUSIVE": "readers and writers wait",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done, in the transaction of its revision."""

    title: str
    sql: tuple[str, ...]
    lock: Lock = "none"
    on: tuple[str, ...] = ()
    """The tables that are locked."""
    undo: tuple[str, ...] = ()
    undone: str = "nothing to undo"
    """How it is undone, in words."""
    rows: int | None = None
    """Rows that are read or written; None where the number of rows does not matter."""
    bytes: int | None = None
    seconds: float | None = None
    """How long readers are shut out by it, as far as it can be told beforehand; None where it is no time."""
    settles: bool = False
    """Whether nobody can change the catalogue of users after it, so that it is compared with what was planned for."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the journal keeps of an action."""

    action: str
    operator: str
    options: Options
    fingerprint: str
    undo: tuple[str, ...] = field(default=())


_EACH = "/* each */"


def altering(table: str, changes: Sequence[str]) -> str:
    """Return the ALTER TABLE that does several things in one pass over the rows; `apart` takes it apart again."""
    return f"ALTER TABLE {table} " + f", {_EACH} ".join(changes)


def apart(statement: str) -> tuple[str, ...]:
    """Return a statement for each change of one that `altering` made; any other statement as it is."""
    first, *others = statement.split(f", {_EACH} ")
    if not others:
        return (statement,)
    table = re.match(r"ALTER TABLE (?:[^\"\s]|\"[^\"]*\")+ ", first)
    if table is None:
        raise ValueError(f"not made by altering: {first}")
    return (first, *(table[0] + other for other in others))


def settling(tables: Iterable[str]) -> Step:
    """Return the step after which nobody changes the structure of tables, nor vacuums them."""
    names = tuple(tables)
    return Step(
        "the structure of the tables is settled from here",
        (
            f"SET LOCAL lock_timeout = {LONG_LOCK_TIMEOUT_MS}",
            f"LOCK TABLE {', '.join(names)} IN SHARE UPDATE EXCLUSIVE MODE",
            f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
        ),
        "SHARE UPDATE EXCLUSIVE",
        names,
        settles=True,
    )


def shutting_out(
    relations: Iterable[str],
    mode: str = "ACCESS EXCLUSIVE",
    *,
    writers_wait: bool = False,
    one_by_one: bool = False,
) -> tuple[str, ...]:
    """Return the SQL that locks tables and views against others, who never queue for long while it waits.

    A view comes before what it selects from: whoever reads through it takes its locks in that order, and the other
    way round each would have what the other waits for.

    Args:
        relations: as SQL.
        mode: of the lock.
        writers_wait: whether it shuts out readers where `shutting_out` has shut out writers before; the time for which
            they have waited since is taken off the time for which it waits.
        one_by_one: each in a statement of its own, so that one which is gone by then can be left out.
    """
    names = tuple(dict.fromkeys(relations))
    timeout = f"SET LOCAL lock_timeout = {SHORT_LOCK_TIMEOUT_MS}"
    if writers_wait:
        waited = f"extract(epoch FROM clock_timestamp() - current_setting('{_SINCE}')::timestamptz) * 1000"
        left = f"greatest({SHORTEST_LOCK_TIMEOUT_MS}, {SHORT_LOCK_TIMEOUT_MS} - ({waited})::int)"
        timeout = f"SELECT set_config('lock_timeout', {left}::text, true)"
    return (
        timeout,
        *(f"LOCK TABLE {each} IN {mode} MODE" for each in (names if one_by_one else (", ".join(names),))),
        f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
        *((f"SELECT set_config('{_SINCE}', clock_timestamp()::text, true)",) if mode == "SHARE" else ()),
    )


def undo_of(steps: Iterable[Step]) -> tuple[str, ...]:
    """Return what undoes steps, the last first."""
    return tuple(statement for step in reversed(tuple(steps)) for statement in step.undo)


def pending(current: str | None, target: Action) -> tuple[Action, ...]:
    """Return the actions between the revision a database is at and the one it is to reach."""
    done = next((index + 1 for index, action in enumerate(ACTIONS) if REVISIONS[action] == current), 0)
    return ACTIONS[done : ACTIONS.index(target) + 1]
