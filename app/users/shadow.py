"""The shadow row: made at first sight of a `sub`, kept fresh by newer tokens, edited and soft-deleted by its user.

    provision(claims)
      no row ────────▶ insert ──▶ done
                         │ somebody has the id or the address
                         ▼
      row ◀──────────── look ──▶ still no row: the address is another user's ──▶ settle
       │
       ├ deleted: AccountDeleted
       ├ nothing newer, or nothing different: done, nothing written
       ├ another address ──▶ settle
       └ anything else ──▶ update

`settle` decides who has an address, in a transaction of its own, one at a time for each address: the newer assertion
gets it, the other row a placeholder. Rows are never merged or linked by address.

The promise: any number of concurrent requests, identical or conflicting, leave one row a `sub` and one holder an
address, and raise nothing but the errors named here; what a newer token said is never overwritten by an older one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import Any, TypedDict, TypeVar

from sqlalchemy import ColumnElement, Row, bindparam, false, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import AccountDeleted, AccountDisabled, Contended, NoProfile, NotMigrated
from app.idp.claims import Claims
from app.users.identity import PLACEHOLDER_DOMAIN, AddressLost, Identity, ShadowRules, ShadowUser, placeholder
from app.users.model import User

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_LOCK_SPACE = 0x5AD0
"""The first half of our advisory locks' keys; the second is a hash of the address."""
_ATTEMPTS = 12
_LONGEST_PAUSE = 0.1
_PASSING = frozenset({"23505", "40001", "40P01", "0A000"})
"""SQLSTATEs that another try may not meet: unique violation, serialization failure, deadlock, and the cached plan of a
statement whose table was altered meanwhile."""
_UNSHAPED = frozenset({"42P01", "42703", "3F000", "42883"})
"""SQLSTATEs of a database without our table: no such table, column, schema; ids that do not compare with text."""


class Edit(TypedDict, total=False):
    """What the app may change of a row; a key that is not there stays as it is."""

    onboarding_completed_at: datetime | None
    name: str
    image: str | None


async def provision(engine: AsyncEngine, claims: Claims, rules: ShadowRules) -> ShadowUser:
    """Return the row of a token's user, made or refreshed if need be. A row that is up to date costs one SELECT.

    Raises:
        AccountDisabled: the provider has shut the user out; nothing is read or written.
        AccountDeleted: the row is soft-deleted.
        NoProfile: a machine's token, and no row.
        Contended, NotMigrated: see there.
    """
    if claims.disabled:
        raise AccountDisabled("The account is disabled at the identity provider.")
    stated = Identity.of(claims)
    made_by_token = claims.kind == "user" or rules.provision_machines

    async def attempt() -> ShadowUser:
        user = await _find(engine, stated.sub)
        if user is None:
            if not made_by_token:
                raise NoProfile("The token belongs to a machine, and there is no user profile for it.")
            user = await _insert(engine, stated) or await _find(engine, stated.sub)
            if user is None:
                return await _settle(engine, stated, rules)
        if user.deleted_at is not None:
            raise _deleted()
        if not made_by_token:
            return user
        return await _refresh(engine, user, stated, rules)

    return await _persistently(attempt)


async def refresh(engine: AsyncEngine, user: ShadowUser, claims: Claims, rules: ShadowRules) -> ShadowUser:
    """Return the row after the mirrored fields followed a token: only if it is newer, only if something differs.

    For who has the row already: without a change this reads and writes nothing. A token without `iat` cannot be dated:
    it may make a row, and never changes one.

    Raises:
        as `provision`.
    """
    return await provision(engine, claims, rules) if Identity.of(claims).changes(user, rules) else user


async def edit(engine: AsyncEngine, sub: str, changes: Edit) -> ShadowUser:
    """Write what the app owns, and return the row.

    Raises:
        AccountDeleted: there is no such row, or it is soft-deleted.
        Contended, NotMigrated: see there.
    """

    async def attempt() -> ShadowUser:
        async with engine.begin() as connection:
            user = await _update(connection, _live(sub), **changes) if changes else await _read(connection, sub)
        if user is None or user.deleted_at is not None:
            raise _deleted()
        return user

    return await _persistently(attempt)


async def soft_delete(engine: AsyncEngine, sub: str) -> None:
    """Mark the row deleted; one that already is keeps its time.

    Raises:
        Contended, NotMigrated: see there.
    """

    async def attempt() -> None:
        async with engine.begin() as connection:
            await _update(connection, _live(sub), deleted_at=func.now())

    await _persistently(attempt)


async def check_shape(engine: AsyncEngine) -> None:
    """Look whether the database has the table that the other functions need.

    Raises:
        NotMigrated: it has not.
    """
    await _persistently(lambda: _find(engine, ""))


class _Overtaken(Exception):
    """Somebody changed the row between our look and our lock: look again."""


_COLUMNS = (
    User.id,
    func.coalesce(User.name, literal_column("''")),
    func.coalesce(User.email, User.id + literal_column(f"'@{PLACEHOLDER_DOMAIN}'")),
    func.coalesce(User.email_verified, false()),
    User.image,
    User.onboarding_completed_at,
    func.coalesce(User.created_at, User.updated_at, func.now()),
    func.coalesce(User.updated_at, User.created_at, func.now()),
    User.deleted_at,
    User.identity_updated_at,
)  # the fields of ShadowUser, in their order; the table of an old app may have nulls where ours has none
_BY_ID = select(*_COLUMNS).where(User.id == bindparam("sub"))


async def _find(engine: AsyncEngine, sub: str) -> ShadowUser | None:
    async with engine.connect() as connection:
        # One statement needs no BEGIN and no COMMIT around it.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        return await _read(connection, sub)


async def _read(connection: AsyncConnection, sub: str) -> ShadowUser | None:
    return _user((await connection.execute(_BY_ID, {"sub": sub})).one_or_none())


async def _insert(engine: AsyncEngine, stated: Identity) -> ShadowUser | None:
    """Insert the row unless its id or its address is taken."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        return await _add(connection, stated, stated.address)


async def _add(connection: AsyncConnection, stated: Identity, address: str) -> ShadowUser | None:
    values = {
        "id": stated.sub,
        "name": stated.name or "",  # the column wants one, and any other would be our invention
        "email": address,
        "email_verified": bool(stated.email_verified) and address == stated.email,
        "image": stated.image,
        "identity_updated_at": stated.stated_at,
    }
    # Without a target: beside the id, the address may be taken, by an identical request at that.
    statement = insert(User).values(values).on_conflict_do_nothing().returning(*_COLUMNS)
    return _user((await connection.execute(statement)).one_or_none())


async def _refresh(engine: AsyncEngine, user: ShadowUser, stated: Identity, rules: ShadowRules) -> ShadowUser:
    changes = stated.changes(user, rules)
    if not changes:
        return user
    if "email" in changes:
        return await _settle(engine, stated, rules)
    async with engine.begin() as connection:
        updated = await _update(connection, *_older(stated), **changes)
    if updated is None:
        raise _Overtaken
    return updated


async def _settle(engine: AsyncEngine, stated: Identity, rules: ShadowRules) -> ShadowUser:
    """Write the row with the stated address, or with a placeholder if a newer assertion holds the address."""
    async with engine.connect() as connection:
        # Under a stricter level the statements after the lock would not see what was committed before it was had.
        await connection.execution_options(isolation_level="READ COMMITTED")
        async with connection.begin():
            before = await _read(connection, stated.sub)
            locked = {stated.address, before.stored_email if before else stated.address}
            await _lock(connection, locked)
            user = await _read(connection, stated.sub)
            if user is None:
                address, lost = await _contest(connection, stated)
                settled = await _add(connection, stated, address)
            else:
                changes = stated.changes(user, rules)
                if user.stored_email not in locked or user.deleted_at is not None or "email" not in changes:
                    raise _Overtaken
                address, lost = await _contest(connection, stated)
                if address != stated.email:
                    changes |= {"email": address, "email_verified": False}
                settled = await _update(connection, *_older(stated), **changes)
            if settled is None:
                raise _Overtaken
    if lost is not None:
        _log.warning("an address was asserted for two users: %r has it, %r a placeholder", lost.winner, lost.loser)
        rules.observe(lost)
    return settled


async def _contest(connection: AsyncConnection, stated: Identity) -> tuple[str, AddressLost | None]:
    """Return the address the row may have; who held it and asserted it earlier has a placeholder then."""
    held = (User.email == stated.address, User.id != stated.sub)
    holder = _user((await connection.execute(select(*_COLUMNS).where(*held))).one_or_none())
    if holder is None:
        return stated.address, None
    if stated.email is not None and not stated.is_newer_than(holder.identity_updated_at):
        return placeholder(stated.sub), AddressLost(loser=stated.sub, winner=holder.id)
    await _update(connection, *held, email=placeholder(holder.id), email_verified=False)
    return stated.address, AddressLost(loser=holder.id, winner=stated.sub)


async def _lock(connection: AsyncConnection, addresses: Iterable[str]) -> None:
    """Make others who settle one of these addresses wait for the end of our transaction.

    Whoever changes rows in `_settle` holds the locks of the addresses they have and get, taken in one order: so two
    users who swap addresses come one after the other and cannot deadlock.
    """
    digests = (hashlib.blake2b(address.encode(), digest_size=4).digest() for address in addresses)
    for key in sorted({int.from_bytes(digest, signed=True) for digest in digests}):
        await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, key)))


async def _update(connection: AsyncConnection, *where: ColumnElement[bool], **values: Any) -> ShadowUser | None:
    statement = update(User).where(*where).values(**values).returning(*_COLUMNS)
    return _user((await connection.execute(statement)).one_or_none())


def _live(sub: str) -> ColumnElement[bool]:
    return (User.id == sub) & User.deleted_at.is_(None)


def _older(stated: Identity) -> tuple[ColumnElement[bool], ...]:
    """Match the row only while what it knows is older; evaluated again by PostgreSQL after it waited for a writer."""
    known = User.identity_updated_at
    return _live(stated.sub), or_(known.is_(None), known < stated.stated_at)


def _user(row: Row[*tuple[Any, ...]] | None) -> ShadowUser | None:
    return None if row is None else ShadowUser(*row)


def _deleted() -> AccountDeleted:
    return AccountDeleted("The account was deleted.")


async def _persistently(attempt: Callable[[], Awaitable[_T]]) -> _T:
    """Try until nobody is in the way.

    Raises:
        Contended: somebody was, every time.
        NotMigrated: the database is not of our shape.
    """
    for number in range(1, _ATTEMPTS + 1):
        try:
            return await attempt()
        except _Overtaken:
            reason = "overtaken"
        except DBAPIError as error:
            state = _sqlstate(error)
            if state in _UNSHAPED:
                raise NotMigrated("There is no users table of the expected shape: run the migrations.") from error
            # Each verb may be said twice; so a connection that broke is worth another try, on a new one.
            if state not in _PASSING and not error.connection_invalidated:
                raise
            reason = str(state)
        _log.debug("attempt %d of %d: %s", number, _ATTEMPTS, reason)
        await asyncio.sleep(random.SystemRandom().uniform(0, _LONGEST_PAUSE * number / _ATTEMPTS))
    raise Contended("The row is being changed by others; try again in a moment.")


def _sqlstate(error: DBAPIError) -> str | None:
    """Return the SQLSTATE of what PostgreSQL said; SQLAlchemy's own error has none where a cached plan went stale."""
    return getattr(error.orig and (error.orig.__cause__ or error.orig), "sqlstate", None)
