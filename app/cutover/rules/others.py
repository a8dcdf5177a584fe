"""Who else is there: what stands between us and the server, and who holds, reads or writes the same tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.cutover.catalog import literal, quoted
from app.cutover.findings import Finding, Situation
from app.cutover.rehearsal import EVENT_TRIGGER
from app.cutover.surroundings import Contact

_READ_ONLY = "default_transaction_read_only"
_SET = {
    "database": ("for the database", "ALTER DATABASE {database} RESET {setting};"),
    "user": ("for the role", "ALTER ROLE {role} RESET {setting};"),
    "database user": ("for the role in this database", "ALTER ROLE {role} IN DATABASE {database} RESET {setting};"),
    "global": ("for all roles", "ALTER ROLE ALL RESET {setting};"),
    "client": ("by the address", "-- and take {setting} out of DATABASE_URL"),
}
"""By where a setting was made (pg_settings.source): where that is in words, and how it is taken back."""
_SET_ELSEWHERE = ("for the whole server", "ALTER SYSTEM SET {setting} = off;\nSELECT pg_reload_conf();")


def connection(at: Situation) -> Iterator[Finding]:
    """What the connection says of itself."""
    yield from of_contact(at.census.surroundings.contact, at.snapshot.database)


def of_contact(contact: Contact, database: str) -> Iterator[Finding]:
    """Yield what keeps any change from being made over this connection, or from being one that holds."""
    if contact.recovering:
        yield Finding(
            "standby",
            "refuse",
            database,
            f"The server ({contact.address}) is a standby, or is still being restored: nothing can be written to it.",
            "SELECT sender_host, sender_port FROM pg_stat_wal_receiver;\n"
            "-- shows a standby's primary; give DATABASE_URL that address",
        )
    elif contact.read_only is not None:
        where, reset = _SET.get(contact.read_only, _SET_ELSEWHERE)
        back = reset.format(setting=_READ_ONLY, database=quoted(database), role=quoted(contact.role))
        yield Finding(
            "read-only",
            "refuse",
            database,
            f"Transactions of {contact.role} may only read: {_READ_ONLY} is on {where}. Some hosts set it when the "
            "disk is full.",
            f"SET {_READ_ONLY} = off;\n{back}",
        )
    if contact.announced_pid != contact.pid:
        yield Finding(
            "transaction-pooler",
            "refuse",
            "DATABASE_URL",
            f"The connection was announced as process {contact.announced_pid}, and process {contact.pid} answers: a "
            "connection pooler or a proxy stands between. Through a pooler a lock does not stay with who took it.",
            f"-- Give DATABASE_DIRECT_URL the address of the server, which says of itself: {contact.address}\n"
            "-- or, if what stands between gives every connection a server process of its own:\n"
            "--accept transaction-pooler",
        )


def long_transactions(at: Situation) -> Iterator[Finding]:
    """Transactions that may yet want a lock on what is to be changed."""
    around = at.census.surroundings
    holders = {lock.pid for lock in around.locks}
    for other in around.long_transactions:
        if other.pid not in holders:
            yield Finding(
                "long-transaction",
                "warn",
                f"pid {other.pid}",
                f"A transaction of pid {other.pid} ({_who(other.role, other.application)}) has been open for "
                f"{other.seconds:,} s; a lock may have to wait for it.",
                f"SELECT pg_terminate_backend({other.pid}); -- if nobody misses it",
            )


def locks_held(at: Situation) -> Iterator[Finding]:
    """Locks of others that a revision would wait for longer than it waits; any lock on a table is one."""
    grouped: dict[int, list[str]] = {}
    locks = {lock.pid: lock for lock in at.census.surroundings.locks}
    for lock in at.census.surroundings.locks:
        grouped.setdefault(lock.pid, []).append(f"{lock.mode} on {quoted(*lock.table)}")
    for pid, held in grouped.items():
        lock = locks[pid]
        end = "pg_terminate_backend" if lock.is_client else "pg_cancel_backend"
        yield Finding(
            "locks-held",
            "warn",
            f"pid {pid}",
            f"pid {pid} ({_who(lock.role, lock.application)}) holds {', '.join(held)} in a transaction that has been "
            f"open for {lock.seconds:,} s; the cutover waits half a second at a time, and gives up after a dozen.",
            f"SELECT {end}({pid}); -- or wait until it has ended",
        )


def _who(role: str, application: str) -> str:
    return f"{role}, {application}" if application else role


def prepared_transactions(at: Situation) -> Iterator[Finding]:
    """Half of a two-phase commit: its locks outlive every session and every restart."""
    grouped: dict[tuple[str, str, int], list[str]] = {}
    for lock in at.census.surroundings.prepared:
        grouped.setdefault((lock.gid, lock.owner, lock.seconds), []).append(quoted(*lock.table))
    for (gid, owner, seconds), tables in grouped.items():
        yield Finding(
            "prepared-transaction",
            "refuse",
            gid,
            f"The transaction {gid}, which {owner} prepared {seconds:,} s ago and nobody ended, holds locks on "
            f"{', '.join(tables)} until somebody does.",
            f"COMMIT PREPARED {literal(gid)};\n"
            f"-- or ROLLBACK PREPARED {literal(gid)}; which of them, whoever coordinates it knows",
        )


def replication_slots(at: Situation) -> Iterator[Finding]:
    """Whoever reads the changes of this database hears of tables that move and columns that go."""
    for slot in at.census.surroundings.slots:
        behind = "" if slot.lag is None else f", {slot.lag:,} bytes behind"
        if slot.reader is not None:
            state = f"read by pid {slot.reader}"
            remedy = "-- make sure that its reader takes users without what goes, and no longer asks for what is gone"
        else:
            state = "read by nobody"
            remedy = f"SELECT pg_drop_replication_slot({literal(slot.name)}); -- if nobody comes back for it"
        yield Finding(
            "replication-slot",
            "warn",
            slot.name,
            f"The logical replication slot {slot.name} ({slot.plugin}) is {state}{behind}; what the cutover changes "
            "is kept for it, and sent to its reader.",
            remedy,
        )


_TAGS = re.compile(
    r"(CREATE|ALTER|DROP) (SCHEMA|TABLE|TABLE AS|VIEW|MATERIALIZED VIEW|INDEX|SEQUENCE|TRIGGER|RULE|POLICY|FUNCTION|"
    r"PROCEDURE|STATISTICS|PUBLICATION)|COMMENT|GRANT|REVOKE|REFRESH MATERIALIZED VIEW"
)
"""Commands that the cutover may give."""


def event_triggers(at: Situation) -> Iterator[Finding]:
    """Functions that are called by every change of structure: they may forbid it, or make something of their own."""
    raised = {each.identity: each.words for each in at.complaints if each.kind == EVENT_TRIGGER}
    for trigger in at.census.surroundings.event_triggers:
        commands = f" of {', '.join(trigger.tags)}" if trigger.tags else ""
        called = f"The event trigger {trigger.name} calls {trigger.function} at {trigger.event}{commands}"
        whose = "" if trigger.owned else f"-- as {trigger.owner}, to which it belongs, or a superuser:\n"
        disabled = f"{whose}ALTER EVENT TRIGGER {quoted(trigger.name)} DISABLE;"
        enabled = f"-- ALTER EVENT TRIGGER {quoted(trigger.name)} ENABLE{' ALWAYS' if trigger.always else ''};"
        if trigger.name in raised:
            yield Finding(
                "event-trigger",
                "refuse",
                trigger.name,
                f"{called}, which forbids what the cutover does: {raised[trigger.name]}.",
                f"{disabled}\n-- and afterwards:\n{enabled}",
            )
            continue
        concerned = not trigger.tags or any(_TAGS.fullmatch(tag) for tag in trigger.tags)
        yield Finding(
            "event-trigger",
            "warn" if concerned else "info",
            trigger.name,
            f"{called}, {'for what the cutover does too' if concerned else 'which the cutover does not use'}; where it "
            "raises an error, the revision is rolled back.",
            f"{disabled}\n-- if it is in the way; and afterwards:\n{enabled}",
        )


def subscriptions(at: Situation) -> Iterator[Finding]:
    """Another database that writes here: its rows would no longer fit, and replication would stop."""
    for subscription in at.census.surroundings.subscriptions:
        tables = [quoted(*table) for table in subscription.tables]
        yield Finding(
            "subscription",
            "warn",
            subscription.name,
            f"The subscription {subscription.name} writes into {', '.join(tables)}, which the cutover changes; "
            "afterwards it would fail again and again, and hold up its publisher.",
            f"ALTER SUBSCRIPTION {quoted(subscription.name)} DISABLE;\n"
            "-- before it is enabled again, take these tables out of the publication it reads",
        )
