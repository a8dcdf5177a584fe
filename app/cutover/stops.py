"""What stops a revision while it runs: PostgreSQL's own words, as findings and sentences for people.

The promise: no statement's values and no traceback reach anybody; each says what to do next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError

from app.cutover import restore
from app.cutover.catalog import JOURNAL, Snapshot
from app.cutover.findings import Action, Finding, Options, Refused
from app.cutover.layout import RETIRED_SCHEMA
from app.cutover.raised import arose_in, mentions, raised_by
from app.cutover.steps import REVISIONS, Step

LOCK_STATES = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
MEANT_FOR_PEOPLE = frozenset({"09", "0A", "22", "23", "2B", "42", "54", "55", "P0"})
"""Classes of SQLSTATE by which PostgreSQL says that a statement cannot be: the database must change, not the tool."""


def sqlstate(error: DBAPIError) -> str | None:
    """Return the SQLSTATE of what the server said, None where the connection broke."""
    return getattr(error.orig, "sqlstate", None)


_REMEDIES = {
    "42501": "Run it as the role that ran the cutover, or as one that may do what it names.",
    "53100": "Make room on the disk of the server that it names, then run it again.",
    "53200": "The server needs more memory; then run it again.",
    "53300": "The cutover needs two connections at once: end others, or raise the limit, then run it again.",
    "57014": "Somebody cancelled it, or it took longer than its statement_timeout; run it again.",
}
"""What to do about what the server cannot give, by SQLSTATE."""


def said(error: DBAPIError) -> str:
    """Return what the server said, in one sentence, without the statement and its values, and what to do."""
    state = sqlstate(error) or "none"
    remedy = _REMEDIES.get(state, "Run shadow plan to see where the database stands.")
    return f"The database answered: {unraised(error)} (SQLSTATE {state}). What was running is rolled back. {remedy}"


def changed(expected: str, snapshot: Snapshot) -> Finding:
    return Finding(
        "database-changed",
        "refuse",
        snapshot.database,
        f"The catalogue is not the one that was planned for (fingerprint {expected}, now {snapshot.fingerprint}).",
        "shadow plan",
    )


def stopped(step: Step, error: DBAPIError, *, undoing: bool = False, guards: Iterable[str] = ()) -> Finding:
    """Say what PostgreSQL has against a step; the transaction is rolled back.

    Args:
        step: what was tried.
        error: what came of it.
        undoing: whether it was to undo something.
        guards: the functions of event triggers, which see no row: what these say is meant for who runs this.
    """
    cause = error.orig.__cause__ if error.orig else None
    more = [part for name in ("detail", "hint") if (part := getattr(cause, name, None))]
    reason = _reason(error)
    state = sqlstate(error) or ""
    remedy = "-- change what it names, or take it out of the way with --release, and again:\nshadow plan"
    if undoing:
        remedy = "-- take what it names out of the way (it came since the cutover), and again:\nshadow undo"
    if _is_raised(error):  # by a function of the app's
        where = arose_in(error) or ""
        more = [f"It was raised by {where}."] if where else []
        if any(mentions(where, guard) for guard in guards):
            remedy = (
                "SELECT evtname, evtevent, evtfoid::regproc FROM pg_event_trigger WHERE evtenabled <> 'D';\n"
                "-- shows which may have called it; for the cutover: ALTER EVENT TRIGGER its_name DISABLE;"
            )
        else:
            reason = _UNTOLD
            remedy = (
                "SELECT tgname, tgrelid::regclass, tgfoid::regproc FROM pg_trigger WHERE NOT tgisinternal AND "
                "tgenabled <> 'D';\n"
                "-- shows which may have called it; for the cutover: ALTER TABLE its_table DISABLE TRIGGER its_name;"
            )
    return Finding(
        "statement-refused",
        "refuse",
        step.on[0] if step.on else step.title,
        f"PostgreSQL does not let this be done: {step.title}. It says: {reason} (SQLSTATE {state})."
        # what is in a row does not concern who reads this
        + "".join(f" {part}" for part in more if state[:2] not in ("22", "23") and "CASCADE" not in part),
        remedy,
    )


_ABSENT = frozenset({"42P01", "42703", "42704", "42883", "3F000"})
"""undefined_table, _column, _object, _function, invalid_schema_name"""


def absent(refused: Refused, statement: str) -> str | None:
    """Return what PostgreSQL says is not there, where that is what stopped a statement."""
    cause = refused.__cause__
    if not isinstance(cause, DBAPIError):
        return None
    state = sqlstate(cause)
    if statement.startswith("DO ") and state == "42704":
        return None  # its language: what silences the app's triggers is never left out
    # a role that is not there is to SET ROLE an invalid parameter value
    gone = state in _ABSENT or (state == "22023" and statement.startswith(restore.AS_ROLE))
    return _reason(cause) if gone else None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A statement of undo that cannot be, for something it names is gone since."""

    reason: str
    """What PostgreSQL said."""
    statement: str
    kept: str | None = None
    """The table of kept rows that it would have brought back; they are there, and would be lost with it."""


def missing(gone: Iterable[LeftOut], options: Options) -> list[Finding]:
    """Return what undo would change and is gone, unless a person accepted that it is left out.

    Args:
        gone: what would be left out.
        options: what the person decided; that kept values are lost is nothing a person can accept.
    """
    gone = tuple(gone)
    lost = [
        Finding(
            "undo-misses-values",
            "refuse",
            each.kept,
            f"Since the cutover, {each.reason}; without it undo cannot bring back what {each.kept} keeps, and would "
            "lose it.",
            "-- make it again, or give it back the name it had, and again:\nshadow undo\n"
            f"-- to give up for good what is kept there: DROP TABLE {each.kept};",
        )
        for each in gone
        if each.kept is not None
    ]
    if "undo-misses-objects" in options.accept and not lost:
        return []
    found: dict[str, list[str]] = {}
    for each in gone:
        if each.kept is None:
            found.setdefault(each.reason, []).append(each.statement.splitlines()[0])
    return lost + [
        Finding(
            "undo-misses-objects",
            "refuse",
            reason,
            f"Since the cutover, {reason}; undo has {len(statements):,} statement{'s' if len(statements) > 1 else ''} "
            f"for it, the first: {statements[0]}",
            "--accept undo-misses-objects\n-- leaves those out; where it only has another name now, give it back the "
            "one it had, and undo again",
        )
        for reason, statements in found.items()
    ]


_UNTOLD = "a function of yours raised an error, whose text may hold what is in a row"


_EXECUTES = re.compile(r"PL/pgSQL function (?!inline_code_block).* at EXECUTE")
"""Where a function of the app's runs a statement that it made: PostgreSQL quotes it in what it says."""


def _is_raised(error: DBAPIError) -> bool:
    state, where = sqlstate(error) or "", arose_in(error) or ""
    return state.startswith("P0") or raised_by(error) is not None or _EXECUTES.fullmatch(where) is not None


def unraised(error: DBAPIError) -> str:
    """Return PostgreSQL's words, without a value of a row; of what a function raised, that it did and where."""
    if not _is_raised(error):
        return _reason(error)
    where = arose_in(error)
    return f"{_UNTOLD}; it was raised by {where}" if where else _UNTOLD


_HARMLESS = (
    r"value too long for type [a-z ]+\(\d+\)",
    r"(?:smallint|integer|bigint) out of range",
    r"invalid input syntax for type [a-z ]+",
    r"division by zero",
    r'role "[^"]*" does not exist',
)
"""What PostgreSQL says of a data exception before it comes to a value; most that it says quotes one."""


def _reason(error: DBAPIError) -> str:
    """Return PostgreSQL's first line, without a value: of a data exception that may be the condition's name alone."""
    cause = (error.orig.__cause__ if error.orig else None) or error.orig
    reason = (str(cause).splitlines() or ["nothing"])[0]
    if not (sqlstate(error) or "").startswith("22"):
        return reason
    if (harmless := re.match(rf"(?:{'|'.join(_HARMLESS)})(?=: |$)", reason)) is not None:
        return harmless[0]
    return " ".join(re.findall(r"[A-Z][a-z]*", type(cause).__name__.removesuffix("Error"))).lower()


def no_record(action: Action) -> Finding:
    return Finding(
        "nothing-recorded",
        "refuse",
        JOURNAL,
        f"The journal holds no record of {action}, so it is not known how to undo it.",
        "-- restore the backup",
    )


def unaccounted(revision: str) -> Finding:
    return Finding(
        "journal-missing",
        "refuse",
        JOURNAL,
        f"The database is marked as {revision}, but {JOURNAL}, which that revision would have written, is not there.",
        "alembic stamp --purge base\n-- if no revision has run on it",
    )


FINAL = Finding(
    "drop-is-final",
    "refuse",
    REVISIONS["drop"],
    f"{REVISIONS['drop']} dropped the tables of {RETIRED_SCHEMA}; they cannot be made again from nothing.",
    'pg_restore -d "$DATABASE_URL" -t THE_TABLE before-drop.dump\n-- brings back each of them from the backup; see '
    "docs/cutover.md, After drop",
)
UNSEEN = Finding(
    "identities-not-exported",
    "refuse",
    "--sql",
    "Without a database it is not known whose passwords, linked providers and second factors the last revision drops.",
    f"alembic upgrade {REVISIONS['retire']} --sql\n-- or, once they are at the provider:\n"
    "alembic -x accept=identities-not-exported upgrade head --sql",
)
NEEDS_DATABASE = Finding(
    "needs-database",
    "refuse",
    "--sql",
    "How a revision is undone is recorded in the database it was run on; it cannot be written without one.",
    "-- run it with DATABASE_URL set and without --sql",
)
