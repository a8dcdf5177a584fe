"""Who and what is around the tables: the connection itself, others' locks and transactions, replication.

The promise: it only reads, waits for nobody, and what the role may not see is left out rather than an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from app.cutover.catalog import literal

LONG_TRANSACTION_SECONDS = 60
LONG_LOCK_SECONDS = 0.5
"""As long as a revision waits for a lock: what is held for longer may keep it from running."""


@dataclass(frozen=True, slots=True)
class Contact:
    """What the connection says of itself."""

    role: str
    """Who logged in."""
    recovering: bool
    read_only: str | None
    """Where it was set that transactions only read (pg_settings.source); None where they may write."""
    announced_pid: int
    """The process that was announced when the connection was made."""
    pid: int
    """The process that answers."""
    address: str
    """Where the server that answers listens, as libpq spells it; without a host where the role may not know it."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Somebody else's transaction that has been open for long."""

    pid: int
    role: str
    application: str
    seconds: int


@dataclass(frozen=True, slots=True)
class HeldLock:
    """Somebody else's lock on a table."""

    pid: int
    role: str
    application: str
    """Of a worker of PostgreSQL's own, what it is: `autovacuum worker`."""
    is_client: bool
    mode: str
    """As pg_locks names it: AccessShareLock ..."""
    table: tuple[str, str]
    seconds: int
    """How long its transaction has been open."""


@dataclass(frozen=True, slots=True)
class PreparedLock:
    """A transaction that was prepared for a two-phase commit and holds a lock on a table until somebody ends it."""

    gid: str
    owner: str
    table: tuple[str, str]
    seconds: int


@dataclass(frozen=True, slots=True)
class Slot:
    """A logical replication slot of this database."""

    name: str
    plugin: str
    reader: int | None
    """The process that reads it, if any does."""
    lag: int | None
    """Bytes of WAL that its reader has not confirmed."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """An enabled subscription that writes into a table."""

    name: str
    tables: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class EventTrigger:
    """A function of the database's that is called whenever its structure changes, and may forbid it."""

    name: str
    event: str
    function: str
    tags: tuple[str, ...]
    """Commands for which it is called, `DROP TABLE`; empty where it is for all of them."""
    owner: str
    owned: bool
    """Whether the role that looks may alter it."""
    always: bool
    """Whether it is also called while changes of a publisher are applied."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All of it at one moment."""

    contact: Contact
    long_transactions: tuple[Transaction, ...] = ()
    locks: tuple[HeldLock, ...] = ()
    prepared: tuple[PreparedLock, ...] = ()
    slots: tuple[Slot, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    event_triggers: tuple[EventTrigger, ...] = ()


def make_contact(connection: Connection) -> Contact:
    """Ask the connection who and where it is; what is behind it has not been looked at yet."""
    row = connection.exec_driver_sql(
        """SELECT session_user::text AS role, pg_is_in_recovery() AS recovering, pg_backend_pid() AS pid,
        CASE WHEN current_setting('transaction_read_only')::bool THEN source END AS read_only,
        concat('host=' || coalesce(host(inet_server_addr()),
          (SELECT split_part(setting, ',', 1) FROM pg_settings WHERE name = 'unix_socket_directories')) || ' ',
          'port=' || current_setting('port')) AS address
        FROM pg_settings WHERE name = 'default_transaction_read_only'"""
    )
    # asyncpg keeps what the server, or whoever spoke for it, announced as its process when it was connected to
    announced = connection.connection.driver_connection.get_server_pid()  # type: ignore[union-attr]
    return Contact(announced_pid=announced, **row.mappings().one())


def look_around(connection: Connection, tables: Iterable[tuple[str, str]]) -> Surroundings:
    """Find who and what is around some tables, in the transaction of the connection."""
    contact = make_contact(connection)
    here = ", ".join(f"({literal(schema)}, {literal(name)})" for schema, name in tables)
    if not here:
        return Surroundings(
            contact,
            _long_transactions(connection),
            slots=_slots(connection),
            event_triggers=event_triggers(connection),
        )
    return Surroundings(
        contact,
        _long_transactions(connection),
        _locks(connection, here),
        _prepared(connection, here),
        _slots(connection),
        _subscriptions(connection, here),
        event_triggers(connection),
    )


def _long_transactions(connection: Connection) -> tuple[Transaction, ...]:
    rows = connection.exec_driver_sql(
        f"""SELECT pid, coalesce(usename, '?')::text, coalesce(application_name, ''),
        extract(epoch FROM now() - xact_start)::int FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
          AND xact_start < now() - make_interval(secs => {LONG_TRANSACTION_SECONDS}) ORDER BY xact_start"""
    )
    return tuple(Transaction(*row) for row in rows)


_LOCKED_HERE = """
JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (n.nspname::text, c.relname::text) IN ({here})"""


def _locks(connection: Connection, here: str) -> tuple[HeldLock, ...]:
    # any lock on a table conflicts with ACCESS EXCLUSIVE; since when it is held nobody records, only since when its
    # transaction is open
    rows = connection.exec_driver_sql(
        f"""SELECT l.pid, coalesce(a.usename, '?')::text AS role,
          CASE a.backend_type WHEN 'client backend' THEN a.application_name ELSE a.backend_type END AS application,
          a.backend_type = 'client backend' AS is_client, l.mode, ARRAY[n.nspname::text, c.relname::text] AS "table",
          extract(epoch FROM clock_timestamp() - a.xact_start)::int AS seconds
        FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid {_LOCKED_HERE.format(here=here)}
          AND l.granted AND l.pid <> pg_backend_pid() AND a.backend_type <> 'parallel worker'
          AND a.xact_start < clock_timestamp() - make_interval(secs => {LONG_LOCK_SECONDS})
        ORDER BY a.xact_start, l.pid, n.nspname, c.relname, l.mode"""
    )
    return tuple(HeldLock(**{**row, "table": tuple(row["table"])}) for row in rows.mappings())


def _prepared(connection: Connection, here: str) -> tuple[PreparedLock, ...]:
    rows = connection.exec_driver_sql(
        f"""SELECT DISTINCT p.gid, p.owner::text AS owner, ARRAY[n.nspname::text, c.relname::text] AS "table",
          extract(epoch FROM now() - p.prepared)::int AS seconds
        FROM pg_prepared_xacts p
        JOIN pg_locks x ON x.pid IS NULL AND x.locktype = 'transactionid' AND x.transactionid = p.transaction
        JOIN pg_locks l ON l.pid IS NULL AND l.virtualtransaction = x.virtualtransaction
        {_LOCKED_HERE.format(here=here)} ORDER BY 1, 3"""
    )
    return tuple(PreparedLock(**{**row, "table": tuple(row["table"])}) for row in rows.mappings())


def _slots(connection: Connection) -> tuple[Slot, ...]:
    rows = connection.exec_driver_sql(
        """SELECT slot_name::text, plugin::text, active_pid, pg_wal_lsn_diff(
          CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
          confirmed_flush_lsn)::int8
        FROM pg_replication_slots WHERE slot_type = 'logical' AND database = current_database() ORDER BY 1"""
    )
    return tuple(Slot(*row) for row in rows)


def event_triggers(connection: Connection) -> tuple[EventTrigger, ...]:
    """Return the event triggers that a change of structure sets off."""
    rows = connection.exec_driver_sql(
        """SELECT evtname::text AS name, evtevent::text AS event, evtfoid::regprocedure::text AS function,
          coalesce(evttags, '{}') AS tags, pg_get_userbyid(evtowner)::text AS owner,
          pg_has_role(evtowner, 'USAGE') AS owned, evtenabled = 'A' AS always
        FROM pg_event_trigger WHERE evtenabled IN ('O', 'A') AND evtevent <> 'login' ORDER BY 1"""
    )
    return tuple(EventTrigger(**{**row, "tags": tuple(row["tags"])}) for row in rows.mappings())


def _subscriptions(connection: Connection, here: str) -> tuple[Subscription, ...]:
    readable = connection.exec_driver_sql(
        """SELECT bool_and(has_column_privilege('pg_catalog.pg_subscription', name, 'SELECT'))
        AND has_table_privilege('pg_catalog.pg_subscription_rel', 'SELECT')
        FROM unnest(ARRAY['oid', 'subdbid', 'subname', 'subenabled']) name"""
    )
    if not readable.scalar_one():
        return ()
    rows = connection.exec_driver_sql(
        f"""SELECT s.subname::text,
          array_agg(ARRAY[n.nspname::text, c.relname::text] ORDER BY n.nspname, c.relname)
        FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
        JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND s.subenabled
          AND (n.nspname::text, c.relname::text) IN ({here}) GROUP BY 1 ORDER BY 1"""
    )
    return tuple(Subscription(name, tuple((schema, table) for schema, table in tables)) for name, tables in rows)
