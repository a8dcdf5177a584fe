"""What the rows say: the counts that the rules and the sentences of a plan speak of.

The promise: it only reads, and holds no lock that anybody waits for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from app.cutover.catalog import ForeignKey, Snapshot, quoted
from app.cutover.layout import Layout, Role


@dataclass(frozen=True, slots=True)
class Identities:
    """Ways to sign in that only this database knows of, in users."""

    password_only: int
    linked: int
    second_factors: int

    @property
    def any(self) -> bool:
        return bool(self.password_only or self.linked or self.second_factors)


@dataclass(frozen=True, slots=True)
class Transaction:
    """Somebody else's transaction that has been open for long."""

    pid: int
    role: str
    application: str
    seconds: int


@dataclass(frozen=True, slots=True)
class Census:
    """Counts at one moment."""

    rows: Mapping[tuple[str, str], int]
    identities: Identities
    password_hashes: Mapping[str, int]
    """Kind of hash to the number of accounts that have it."""
    live_sessions: int
    newest_session: datetime | None
    colliding_emails: int
    """Groups of addresses that are equal but for case."""
    orphans: Mapping[tuple[tuple[str, str], str], int]
    """Of each foreign key that is not validated, by table and name: rows that violate it."""
    long_transactions: tuple[Transaction, ...]


LONG_TRANSACTION_SECONDS = 60

_HASHES = """CASE WHEN password ~ '^[0-9a-f]{32}:[0-9a-f]{128}$' THEN 'scrypt (Better Auth)'
  WHEN password ~ '^\\$2[aby]\\$' THEN 'bcrypt' WHEN password ~ '^\\$argon2' THEN 'argon2' ELSE 'unknown' END"""


def take(connection: Connection, snapshot: Snapshot, layout: Layout) -> Census:
    """Count what the rules need, in the transaction of the connection.

    Nothing is counted where the layout is in doubt, or where the role may not read what it is about: that is a refusal
    of the rules anyway.
    """
    roles = [role.table for role in layout.roles]
    if layout.doubts or not all(table.readable for table in roles):
        return Census({}, Identities(0, 0, 0), {}, 0, None, 0, {}, ())
    users, accounts, two_factors = layout.users, layout.role("accounts"), layout.role("two_factors")
    tables = {table.key: table for table in (*((users,) if users else ()), *layout.going)}
    keys = list(snapshot.keys_to(users.key)) if users else []
    for key in keys:
        if (table := snapshot.table(*key.table)) is not None and table.readable:
            tables[table.key] = table
    live_sessions, newest_session = _sessions(connection, layout.role("sessions"))
    return Census(
        rows={key: _scalar(connection, f"SELECT count(*) FROM {table.sql}") for key, table in tables.items()},
        identities=_identities(connection, accounts, two_factors),
        password_hashes=_hashes(connection, accounts),
        live_sessions=live_sessions,
        newest_session=newest_session,
        colliding_emails=_scalar(
            connection,
            f"SELECT count(*) FROM (SELECT FROM {users.sql} "
            f"GROUP BY lower({quoted(layout.fields['email'].name)}::text) HAVING count(*) > 1) g",
        )
        if users and "email" in layout.fields
        else 0,
        orphans={
            (key.table, key.name): orphans(connection, key) for key in keys if not key.validated and key.table in tables
        },
        long_transactions=_long_transactions(connection),
    )


def orphans(connection: Connection, key: ForeignKey) -> int:
    """Return how many rows violate a foreign key (MATCH SIMPLE: a null in any column satisfies it)."""
    pairs = list(zip(key.columns, key.target_columns, strict=True))
    given = " AND ".join(f"r.{quoted(column)} IS NOT NULL" for column in key.columns)
    same = " AND ".join(f"t.{quoted(target)} = r.{quoted(column)}" for column, target in pairs)
    return _scalar(
        connection,
        f"SELECT count(*) FROM {quoted(*key.table)} r WHERE {given} "
        f"AND NOT EXISTS (SELECT FROM {quoted(*key.target)} t WHERE {same})",
    )


def _scalar(connection: Connection, sql: str) -> int:
    return int(connection.exec_driver_sql(sql).scalar_one())


def _identities(connection: Connection, accounts: Role | None, two_factors: Role | None) -> Identities:
    password_only = linked = second_factors = 0
    if accounts is not None and (owner := accounts.spelled("user_id")) is not None:
        provider, password = accounts.spelled("provider_id"), accounts.spelled("password")
        other = f"{provider} <> 'credential'" if provider else "false"
        password_only, linked = connection.exec_driver_sql(
            f"""SELECT count(*) FILTER (WHERE password AND NOT linked), count(*) FILTER (WHERE linked)
            FROM (SELECT bool_or({password or "NULL"} IS NOT NULL) AS password, bool_or({other}) AS linked
                  FROM {accounts.table.sql} GROUP BY {owner}) u"""
        ).one()
    if two_factors is not None and (owner := two_factors.spelled("user_id")) is not None:
        second_factors = _scalar(connection, f"SELECT count(DISTINCT {owner}) FROM {two_factors.table.sql}")
    return Identities(password_only, linked, second_factors)


def _hashes(connection: Connection, accounts: Role | None) -> dict[str, int]:
    if accounts is None or (password := accounts.spelled("password")) is None:
        return {}
    found = connection.exec_driver_sql(
        f"SELECT {_HASHES}, count(*) FROM (SELECT {password} AS password FROM {accounts.table.sql}) a "
        "WHERE password IS NOT NULL GROUP BY 1 ORDER BY 1"
    )
    return {str(kind): int(count) for kind, count in found}


def _sessions(connection: Connection, sessions: Role | None) -> tuple[int, datetime | None]:
    if sessions is None or (expires := sessions.spelled("expires_at")) is None:
        return 0, None
    created = sessions.spelled("created_at") or "NULL::timestamptz"
    live, newest = connection.exec_driver_sql(
        f"SELECT count(*), max({created}) FROM {sessions.table.sql} WHERE {expires} > now()"
    ).one()
    return live, newest


def _long_transactions(connection: Connection) -> tuple[Transaction, ...]:
    rows = connection.exec_driver_sql(
        f"""SELECT pid, coalesce(usename, '?')::text, coalesce(application_name, ''),
        extract(epoch FROM now() - xact_start)::int FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
          AND xact_start < now() - make_interval(secs => {LONG_TRANSACTION_SECONDS}) ORDER BY xact_start"""
    )
    return tuple(Transaction(*row) for row in rows)
