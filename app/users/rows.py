"""Rows of users inside a transaction: read, add, follow a statement, and settle who has an address.

`follow` writes what was stated. Where that changes who has an address, it is decided one at a time for each address:
the newer assertion gets it, the other row a placeholder. Rows are never merged or linked by address.

    locks are taken in one order: the event's id, its user, the addresses sorted, the row that loses its address, the
    own row

The promise: what a newer statement said is never overwritten by an older one, whoever comes between; any number of
transactions at once end, none by a deadlock among themselves.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, bindparam, exists, false, func, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import InstrumentedAttribute

from app.errors import Contended, NotMigrated
from app.users.identity import (
    PLACEHOLDER_DOMAIN,
    AddressLost,
    Identity,
    ShadowRules,
    ShadowUser,
    is_placeholder,
    placeholder,
)
from app.users.model import ReceivedEvent, Standing, User

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

_LOCK_SPACE = 0x5AD0
"""The first half of our advisory locks' keys; the second is a hash of the address."""
_USER_SPACE = 0x5AD1
"""The same of the locks of users; the second is a hash of the id."""
_ATTEMPTS = 12
_LONGEST_PAUSE = 0.1
_UNIQUE_VIOLATION = "23505"
_PASSING = frozenset({_UNIQUE_VIOLATION, "40001", "40P01", "55P03", "0A000"})
"""SQLSTATEs that another try may not meet: unique violation, serialization failure, deadlock, a lock not had within the
lock_timeout of role or database, and the cached plan of a statement whose table was altered meanwhile."""
_UNFIT = frozenset({"22001", "22021", "22P05"})
"""SQLSTATEs of a text that a column cannot hold: too long, or of characters that the encoding does not have."""
_UNSHAPED = frozenset({"42P01", "42703", "3F000", "42883"})
"""SQLSTATEs of a database without our tables: no such table, column, schema; ids that do not compare with text."""


class Overtaken(Exception):
    """Somebody changed the row between our look and our lock: look again."""


COLUMNS = (
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
)
"""The fields of ShadowUser, in their order; the table of an old app may have nulls where ours has none."""
_BY_ID = select(*COLUMNS).where(User.id == bindparam("sub"))
DISABLED = Standing.disabled & (Standing.until.is_(None) | (Standing.until > func.now()))
"""Matches whom the provider has shut out now."""
_WITH_STANDING = (
    select(*COLUMNS, func.coalesce(DISABLED, false()))
    .outerjoin(Standing, Standing.id == User.id)
    .where(User.id == bindparam("sub"))
)
_STANDING = select(DISABLED).where(Standing.id == bindparam("sub"))


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a transaction in which each statement sees what was committed before it, also after it waited for a lock."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")
        async with connection.begin():
            yield connection


async def find(engine: AsyncEngine, sub: str) -> tuple[ShadowUser | None, bool]:
    """Return the row, and whether the provider has shut the user out; of a user with a row in one SELECT."""
    async with engine.connect() as connection:
        # One statement needs no BEGIN and no COMMIT around it.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        row = (await connection.execute(_WITH_STANDING, {"sub": sub})).one_or_none()
        if row is not None:
            *columns, disabled = row
            return ShadowUser(*columns), disabled
        return None, bool((await connection.execute(_STANDING, {"sub": sub})).scalar_one_or_none())


async def read(connection: AsyncConnection, sub: str, *, lock: bool = False) -> ShadowUser | None:
    """Return the row; with `lock`, nobody changes it until the transaction ends."""
    return user_of((await connection.execute(_BY_ID.with_for_update() if lock else _BY_ID, {"sub": sub})).one_or_none())


async def add(connection: AsyncConnection, stated: Identity, address: str, **more: Any) -> ShadowUser | None:
    """Insert the row unless its id or its address is taken."""
    verified: bool | ColumnElement[bool] = bool(stated.email_verified) and address == stated.email
    if address == stated.email and not verified and stated.stated_at is not None:
        verified = verified_since(stated.sub, stated.stated_at)
    values = {
        "id": stated.sub,
        "name": stated.name or "",  # the column wants one, and any other would be our invention
        "email": address,
        "email_verified": verified,
        "image": stated.image,
        "identity_updated_at": stated.stated_at,
        **more,
    }
    # Without a target: beside the id, the address may be taken, by an identical request at that.
    statement = insert(User).values(values).on_conflict_do_nothing().returning(*COLUMNS)
    return user_of((await connection.execute(statement)).one_or_none())


async def change(connection: AsyncConnection, *where: ColumnElement[bool], **values: Any) -> ShadowUser | None:
    """Update the one row that matches, if one does.

    An address that was not verified as of `identity_updated_at` is, where an event said so later and came before.
    """
    stated_at = values.get("identity_updated_at")
    if stated_at is not None and values.get("email_verified") is False and not is_placeholder(values.get("email", "")):
        values["email_verified"] = verified_since(User.id, stated_at)
    statement = update(User).where(*where).values(**values).returning(*COLUMNS)
    return user_of((await connection.execute(statement)).one_or_none())


def live(sub: str) -> ColumnElement[bool]:
    """Match the row unless it is soft-deleted."""
    return (User.id == sub) & User.deleted_at.is_(None)


def verified_since(
    sub: str | InstrumentedAttribute[str], moment: datetime, *, outcomes: Sequence[str] = ("applied", "unchanged")
) -> ColumnElement[bool]:
    """Match if an event said, at `moment` or later, that the user's address is verified, whichever that was.

    One that named an address dated the row with it; so it is older than any address the row gets afterwards.
    """
    return exists().where(
        ReceivedEvent.sub == sub,
        ReceivedEvent.type == "user.verified",
        ReceivedEvent.outcome.in_(outcomes),
        ReceivedEvent.stated_at >= moment,
    )


def older(stated: Identity) -> ColumnElement[bool]:
    """Match rows only while what they know is older; evaluated again by PostgreSQL after it waited for a writer."""
    known = User.identity_updated_at
    return or_(known.is_(None), known < stated.stated_at)


def as_read(user: ShadowUser) -> ColumnElement[bool]:
    """Match the row only while nobody has stated anything since it was read, nor taken or verified its address."""
    known = User.identity_updated_at.is_not_distinct_from(user.identity_updated_at)
    return known & (COLUMNS[2] == user.stored_email) & (COLUMNS[3] == user.email_verified)


def user_of(row: Row[*tuple[Any, ...]] | None) -> ShadowUser | None:
    """Return what COLUMNS selected."""
    return None if row is None else ShadowUser(*row)


@dataclass(frozen=True, slots=True)
class Followed:
    """A row after it followed a statement."""

    user: ShadowUser
    changed: bool
    """Whether the row is new, or something in it."""
    lost: AddressLost | None = None


async def follow(
    connection: AsyncConnection,
    stated: Identity,
    rules: ShadowRules,
    *,
    returns: bool = False,
    dates: bool = False,
) -> Followed:
    """Make the row, or let it follow what was stated; one that is soft-deleted stays as it is.

    Args:
        connection: in a `transaction`.
        stated: what was said of the user, and when.
        rules: what the deployment decides.
        returns: whether it was said of a user made anew, so that the row is live again if this is newer.
        dates: whether the row is also to know when it was confirmed: what comes late is then known to be late.

    Raises:
        Overtaken: to be tried again, in another transaction.
    """
    user = await read(connection, stated.sub)
    changes = _changes(user, stated, rules, returns)
    if user is None or "email" in changes:
        locked = {stated.address, user.stored_email if user else stated.address}
        await lock_addresses(connection, locked)
        user = await read(connection, stated.sub)
        changes = _changes(user, stated, rules, returns)
        if user is not None and "email" in changes and user.stored_email not in locked:
            raise Overtaken
    if user is None:
        return await hold(connection, stated, lambda address: add(connection, stated, address))
    if not changes:
        if dates and user.deleted_at is None and stated.is_newer_than(user.identity_updated_at):
            await confirm(connection, stated, user)
        return Followed(user, changed=False)
    mine = User.id == stated.sub
    state = User.deleted_at.is_(None) if user.deleted_at is None else User.deleted_at < stated.stated_at
    where = (mine, state, older(stated), as_read(user))
    if "email" not in changes:
        return _written(await change(connection, *where, **changes))

    async def move(address: str) -> ShadowUser | None:
        gets = {} if address == stated.email else {"email": address, "email_verified": False}
        async with connection.begin_nested():
            return await change(connection, *where, **(changes | gets))

    return await hold(connection, stated, move)


def _changes(user: ShadowUser | None, stated: Identity, rules: ShadowRules, returns: bool) -> dict[str, Any]:
    if user is None:
        return {}
    if user.deleted_at is None:
        return stated.changes(user, rules)
    if not returns or not stated.brings_back(user):
        return {}
    # What the app owns is taken at first sight, and this is one where the deletion left nothing.
    kept = frozenset(name for name in rules.app_owned if getattr(user, name))
    changes = stated.changes(user, replace(rules, app_owned=kept))
    # The address that a row kept may have been verified while the row was deleted: `change` looks.
    kept_address = {} if user.email is None else {"email_verified": user.email_verified}
    return kept_address | changes | {"deleted_at": None, "identity_updated_at": stated.stated_at}


async def confirm(connection: AsyncConnection, stated: Identity, user: ShadowUser) -> None:
    """Note when the row was last said to be right; nothing that anybody sees of it changes."""
    confirmed = await change(
        connection, live(stated.sub), older(stated), as_read(user),
        identity_updated_at=stated.stated_at, updated_at=User.updated_at,
    )  # fmt: skip
    if confirmed is None:
        raise Overtaken


async def hold(
    connection: AsyncConnection, stated: Identity, write: Callable[[str], Awaitable[ShadowUser | None]]
) -> Followed:
    """Write the row with the stated address, or with a placeholder if a newer assertion holds the address.

    To the app's index addresses that differ in case may be the same. It is not asked whether there is one: if the row
    cannot be written again and again though nobody has that very address, it is what stands in the way.

    Raises:
        Overtaken: to be tried again, in another transaction.
    """
    lost = None
    for folded in (False, False, True):
        address, conflict = await contest(connection, stated, folded=folded)
        lost = conflict or lost
        try:
            user = await write(address)
        except IntegrityError as error:
            if sqlstate(error) != _UNIQUE_VIOLATION:
                raise
            continue
        if user is not None:
            return Followed(user, changed=True, lost=lost)
    raise Overtaken


def _written(user: ShadowUser | None) -> Followed:
    if user is None:
        raise Overtaken
    return Followed(user, changed=True)


async def contest(
    connection: AsyncConnection, stated: Identity, *, folded: bool = False
) -> tuple[str, AddressLost | None]:
    """Return the address the row may have; who held it and asserted it earlier has a placeholder then.

    Args:
        connection: in a `transaction` that has locked the address.
        stated: who asserts which address, and when.
        folded: whether an address that differs in case is the same.

    Raises:
        Overtaken: to be tried again, in another transaction.
    """
    if folded and stated.email is None:
        return await _free(connection, stated.sub), None
    same = func.lower(User.email) == func.lower(stated.address) if folded else User.email == stated.address
    held = (same, User.id != stated.sub)
    holder = user_of((await connection.execute(select(*COLUMNS).where(*held).limit(1))).one_or_none())
    if holder is None:
        return stated.address, None
    if stated.email is not None and not stated.is_newer_than(holder.identity_updated_at):
        theirs = await _free(connection, stated.sub) if folded else placeholder(stated.sub)
        return theirs, AddressLost(loser=stated.sub, winner=holder.id)
    if await change(
        connection, User.id == holder.id, same, as_read(holder),
        email=await _free(connection, holder.id) if folded else placeholder(holder.id), email_verified=False,
    ) is None:  # fmt: skip
        raise Overtaken
    return stated.address, AddressLost(loser=holder.id, winner=stated.sub)


async def _free(connection: AsyncConnection, sub: str) -> str:
    """Return the user's placeholder; a distinct one, where that of another id is the same but for its case."""
    plain = placeholder(sub)
    others = select(User.id).where(func.lower(User.email) == func.lower(plain), User.id != sub).limit(1)
    taken = (await connection.execute(others)).one_or_none() is not None
    return placeholder(sub, distinct=True) if taken else plain


async def lock_addresses(connection: AsyncConnection, addresses: Iterable[str]) -> None:
    """Make others who settle one of these addresses, in any case, wait for the end of our transaction.

    Whoever changes who has an address holds the locks of those the row has and gets, taken in one order: so two users
    who swap addresses come one after the other and cannot deadlock.
    """
    for key in sorted({_key(address.lower()) for address in addresses}):
        await connection.execute(select(func.pg_advisory_xact_lock(_LOCK_SPACE, key)))


async def lock_user(connection: AsyncConnection, sub: str) -> None:
    """Make other events of the user wait for the end of our transaction: each sees what those before it said."""
    await connection.execute(select(func.pg_advisory_xact_lock(_USER_SPACE, _key(sub))))


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), signed=True)


def tell(lost: AddressLost | None, rules: ShadowRules) -> None:
    """Log and count a conflict over an address, after the commit."""
    if lost is not None:
        _log.warning("an address was asserted for two users: %r has it, %r a placeholder", lost.winner, lost.loser)
        rules.observe(lost)


async def persistently(attempt: Callable[[], Awaitable[_T]]) -> _T:
    """Try until nobody is in the way.

    Raises:
        Contended: somebody was, every time.
        NotMigrated: the database is not of our shape.
    """
    for number in range(1, _ATTEMPTS + 1):
        try:
            return await attempt()
        except Overtaken:
            reason = "overtaken"
        except DBAPIError as error:
            state = sqlstate(error)
            if state in _UNSHAPED:
                raise NotMigrated("There is no users table of the expected shape: run the migrations.") from error
            # Each verb may be said twice; so a connection that broke is worth another try, on a new one.
            if state not in _PASSING and not error.connection_invalidated:
                raise
            reason = str(state)
        _log.debug("attempt %d of %d: %s", number, _ATTEMPTS, reason)
        await asyncio.sleep(random.SystemRandom().uniform(0, _LONGEST_PAUSE * number / _ATTEMPTS))
    raise Contended("The row is being changed by others; try again in a moment.")


async def fitting(run: Callable[[Callable[[Identity], Identity]], Awaitable[_T]]) -> _T:
    """Run with what was stated; again without name and image, and without address, where a column cannot hold them.

    What is merely mirrored never refuses a token: an app whose own columns are narrow, or whose encoding lacks a
    character, goes without.

    Args:
        run: is given what makes a statement fit; its transaction is rolled back when it fails.

    Raises:
        NotMigrated: the id itself does not fit.
    """
    for fit in (_as_it_is, Identity.brief, Identity.bare):
        try:
            return await run(fit)
        except DBAPIError as error:
            if sqlstate(error) not in _UNFIT:
                raise
            _log.warning("something that was stated of a user does not fit into a column of users: %s", sqlstate(error))
    raise NotMigrated("The users table cannot hold this id: its column is too narrow, or of another type.")


def _as_it_is(stated: Identity) -> Identity:
    return stated


def sqlstate(error: DBAPIError) -> str | None:
    """Return the SQLSTATE of what PostgreSQL said; SQLAlchemy's own error has none where a cached plan went stale."""
    return getattr(error.orig and (error.orig.__cause__ or error.orig), "sqlstate", None)
