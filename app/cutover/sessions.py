"""Where the old app has its sessions, and whose they are: for a server that honours them between adopt and retire.

The promise: it goes by what adopt wrote to the journal, and believes none of it that the catalogue does not confirm:
every name it returns is that of a column which is there. It only reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from sqlalchemy import Connection

from app.cutover.catalog import JOURNAL, literal, quoted
from app.cutover.execute import current_revision
from app.cutover.layout import RETIRED_SCHEMA
from app.cutover.signatures import normalised
from app.cutover.steps import REVISIONS

_OF_STANDING = ("banned", "ban_expires", "status", "deactivated_at", "role", "role_slugs")
"""Columns of users that say whether somebody is shut out, and which roles they have."""
_BAN = frozenset({("banned", "B"), ("ban_expires", "D"), ("ban_expires", "N")})
"""Of them those that mean a ban whoever put them there, each with the categories of its type: boolean, time, number."""


class NoSessions(Exception):
    """The old sessions cannot be had. The message goes on where a setting's name and value left off."""


class Whereabouts(TypedDict):
    """Names as SQL: tables qualified, columns alone."""

    sessions: str
    token: str
    expires_at: str
    user_id: str
    deleted_at: str | None
    """Where the app marks sessions deleted that it keeps."""
    users: str
    id: str
    of_user: Mapping[str, str]
    """Better Auth's or Auther's column of users, in snake_case, to the table's own."""


def locate(connection: Connection, schema: str) -> Whereabouts:
    """Return where the sessions are.

    Args:
        connection: reads what it is allowed to.
        schema: that of the journal.

    Raises:
        NoSessions: saying why not, and what to do.
    """
    adopted = _adopted(connection, schema)
    role = adopted["roles"].get("sessions")
    at = role and _before(adopted, role["table"])
    fields: Mapping[str, str] = role["fields"] if role else {}
    if at is None or adopted["users"] is None or not {"token", "expires_at", "user_id"} <= fields.keys():
        raise NoSessions(
            "needs the sessions table of Better Auth, and 0001_adopt found none. Set AUTH_MODE=idp; or, if there is "
            "one, name it: `shadow undo`, then `shadow migrate --to adopt --map sessions=TABLE`"
        )
    sessions, of_session = _table(connection, at)
    users, of_users = _table(connection, adopted["users"])
    id_ = adopted["fields"].get("id", "id")
    gone = [fields[name] for name in ("token", "expires_at", "user_id") if fields[name] not in of_session]
    gone += [id_] if id_ not in of_users else []
    if gone:
        raise NoSessions(
            f"needs the columns that 0001_adopt found, and {', '.join(gone)} went from {sessions} or {users} since. "
            "Run `shadow undo` and `shadow migrate --to adopt` again, or set AUTH_MODE=idp"
        )
    if of_users[id_] != "S":
        raise NoSessions(
            f"needs users whose ids are text, and those of {users} are not: the server cannot run beside the old app. "
            "Run `shadow migrate --to retire`, then set AUTH_MODE=idp"
        )
    known = {normalised(name): name for name in adopted["going_columns"] if name in of_users}
    # a column that is kept is the app's own, and so may mean anything; but who keeps a ban shuts somebody out by it
    known |= {normalised(name): name for name, kind in of_users.items() if (normalised(name), kind) in _BAN}
    deleted_at = fields.get("deleted_at")
    return Whereabouts(
        sessions=sessions,
        token=quoted(fields["token"]),
        expires_at=quoted(fields["expires_at"]),
        user_id=quoted(fields["user_id"]),
        deleted_at=quoted(deleted_at) if deleted_at in of_session else None,
        users=users,
        id=quoted(id_),
        of_user={name: quoted(known[name]) for name in _OF_STANDING if name in known},
    )


def _adopted(connection: Connection, schema: str) -> Mapping[str, Any]:
    """Return the facts before adopt."""
    revision = current_revision(connection, schema)
    if revision is None:
        raise NoSessions("needs what 0001_adopt adds. Run `shadow migrate --to adopt` first, or set AUTH_MODE=idp")
    if revision == REVISIONS["retire"]:
        raise NoSessions(
            "needs the old sessions, and 0002_retire has taken them away. Set AUTH_MODE=idp, or bring them back: "
            "`shadow undo`"
        )
    if revision != REVISIONS["adopt"]:
        raise NoSessions(f"needs the old sessions, and with {revision} they are gone for good. Set AUTH_MODE=idp")
    found = connection.exec_driver_sql(
        f"SELECT before FROM {quoted(schema, JOURNAL)} WHERE action = 'adopt' ORDER BY id DESC LIMIT 1"
    ).scalar_one()
    facts: Mapping[str, Any] = found
    return facts


def _before(adopted: Mapping[str, Any], name: str) -> str | None:
    """Return, as SQL, the table that has a name in RETIRED_SCHEMA after retire."""
    moved: Mapping[str, str] = adopted["moved"]
    return next((table for table, to in moved.items() if to == quoted(RETIRED_SCHEMA, name)), None)


def _table(connection: Connection, table: str) -> tuple[str, dict[str, str]]:
    """Return a table's name and its columns, each with the category of its type (pg_type.typcategory)."""
    rows = connection.exec_driver_sql(
        "SELECT n.nspname, c.relname, a.attname, t.typcategory FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid "
        f"JOIN pg_type t ON t.oid = a.atttypid WHERE c.oid = to_regclass({literal(table)}) "
        "AND a.attnum > 0 AND NOT a.attisdropped"
    ).all()
    if not rows:
        return table, {}
    return quoted(rows[0][0], rows[0][1]), {name: _character(category) for _, _, name, category in rows}


def _character(category: str | bytes) -> str:
    """Return PostgreSQL's type "char", which drivers give as text or as an octet, as text."""
    return category.decode() if isinstance(category, bytes) else category
