"""The shadow row: made at first sight of a `sub`, kept fresh by newer tokens, edited and soft-deleted by its user.

    provision(claims)
      no row ────────▶ insert ──▶ done
                         │ somebody has the id or the address
                         ▼
      row ◀──────────── look ──▶ still no row: the address is another user's ──▶ settle
       │
       ├ shut out by the provider: AccountDisabled, also where there is no row yet
       ├ deleted: AccountDeleted
       ├ nothing newer, or nothing different: done, nothing written
       ├ another address ──▶ settle
       └ anything else ──▶ update

`settle` decides who has an address, in a transaction of its own: see `rows.follow`.

The promise: any number of concurrent requests, identical or conflicting, leave one row a `sub` and one holder an
address, and raise nothing but the errors named here; what a newer token changed is never overwritten by an older one.
A token that changes nothing is not noted either, for nothing is written: one between it and the last change counts.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal, TypedDict

from sqlalchemy import func, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import privilege_wanted
from app.errors import AccountDeleted, AccountDisabled, DatabaseUnreachable, NoProfile
from app.idp.claims import Claims
from app.users.identity import Identity, ShadowRules, ShadowUser
from app.users.rows import (
    Overtaken,
    add,
    as_read,
    change,
    confirm,
    find,
    fitting,
    follow,
    live,
    older,
    persistently,
    read,
    tell,
    transaction,
)

_WRITABLE = text(
    "SELECT current_setting('transaction_read_only') = 'on', "
    "has_any_column_privilege('users', 'INSERT') AND has_any_column_privilege('users', 'UPDATE')"
)


class Edit(TypedDict, total=False):
    """What the app may change of a row; a key that is not there stays as it is."""

    onboarding_completed_at: datetime | None
    name: str
    image: str | None


async def provision(engine: AsyncEngine, claims: Claims, rules: ShadowRules) -> ShadowUser:
    """Return the row of a token's user, made or refreshed if need be. A row that is up to date costs one SELECT.

    Raises:
        AccountDisabled: the provider has shut the user out, says the token or said an event; nothing is written.
        AccountDeleted: the row is soft-deleted.
        NoProfile: a machine's token, and no row.
        Contended, NotMigrated: see there.
    """
    if claims.disabled:
        raise _disabled()
    whole = Identity.of(claims)
    made_by_token = claims.kind == "user" or (claims.kind == "machine" and rules.provision_machines)

    async def attempt(fit: Callable[[Identity], Identity]) -> ShadowUser:
        stated = fit(whole)
        user, disabled = await find(engine, stated.sub)
        if disabled:
            raise _disabled()
        if user is None:
            if not made_by_token:
                raise NoProfile("The token belongs to a machine, and there is no user profile for it.")
            if (made := await _insert(engine, stated)) is not None:
                rules.wrote("made")
                return made
            user = (await find(engine, stated.sub))[0]
            if user is None:
                return await _settle(engine, stated, rules, "made")
        if user.deleted_at is not None:
            raise _deleted()
        if not made_by_token:
            return user
        refreshed = await _refresh(engine, user, stated, rules)
        if stated is not whole and refreshed is user and whole.is_newer_than(user.identity_updated_at):
            # what does not fit is not tried again with every request of the same token
            async with transaction(engine) as connection:
                await confirm(connection, whole, user)
        return refreshed

    return await fitting(lambda fit: persistently(lambda: attempt(fit)))


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
            user = await change(connection, live(sub), **changes) if changes else await read(connection, sub)
        if user is None or user.deleted_at is not None:
            raise _deleted()
        return user

    return await persistently(attempt)


async def soft_delete(engine: AsyncEngine, sub: str) -> None:
    """Mark the row deleted; one that already is keeps its time.

    Raises:
        Contended, NotMigrated: see there.
    """

    async def attempt() -> None:
        async with engine.begin() as connection:
            await change(connection, live(sub), deleted_at=func.now())

    await persistently(attempt)


class NotWritable(DatabaseUnreachable):
    """The database is there, and takes no rows. `fault` says why, the message what to do."""

    def __init__(self, fault: Literal["read_only", "not_permitted"], message: str) -> None:
        super().__init__(message)
        self.fault = fault


async def check_shape(engine: AsyncEngine, *, writes: bool = True) -> None:
    """Look whether the database has the tables that the other functions need, and would let them write.

    Args:
        engine: the database.
        writes: whether they are to.

    Raises:
        NotMigrated: it has not.
        NotWritable: it is read only, or the role may not.
    """
    try:
        await persistently(lambda: find(engine, ""))
        if writes:
            await persistently(lambda: _check_writable(engine))
    except DBAPIError as error:
        if (wanted := privilege_wanted(error)) is None:
            raise
        raise NotWritable("not_permitted", wanted) from error


async def _check_writable(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        read_only, permitted = (await connection.execute(_WRITABLE)).one()
    if read_only:
        raise NotWritable(
            "read_only", "The database is read only: a standby, or default_transaction_read_only is on for it."
        )
    if not permitted:
        raise NotWritable(
            "not_permitted",
            "The role may not write users: GRANT SELECT, INSERT, UPDATE ON users to that of DATABASE_URL.",
        )


async def _insert(engine: AsyncEngine, stated: Identity) -> ShadowUser | None:
    """Insert the row unless its id or its address is taken."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        return await add(connection, stated, stated.address)


async def _refresh(engine: AsyncEngine, user: ShadowUser, stated: Identity, rules: ShadowRules) -> ShadowUser:
    changes = stated.changes(user, rules)
    if not changes:
        return user
    if "email" in changes:
        return await _settle(engine, stated, rules, "refreshed")
    async with engine.begin() as connection:
        updated = await change(connection, live(stated.sub), older(stated), as_read(user), **changes)
    if updated is None:
        raise Overtaken
    rules.wrote("refreshed")
    return updated


async def _settle(
    engine: AsyncEngine, stated: Identity, rules: ShadowRules, what: Literal["made", "refreshed"]
) -> ShadowUser:
    async with transaction(engine) as connection:
        followed = await follow(connection, stated, rules)
    tell(followed.lost, rules)
    if followed.changed:
        rules.wrote(what)
    if followed.user.deleted_at is not None:
        raise _deleted()
    return followed.user


def _deleted() -> AccountDeleted:
    return AccountDeleted("The account was deleted.")


def _disabled() -> AccountDisabled:
    return AccountDisabled("The account is disabled at the identity provider.")
