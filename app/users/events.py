"""What the provider says unasked: its events, and what reconciliation reads back, applied to rows and standings.

    created, updated   the row is made or follows; `created` brings a deleted one back if it is newer than the deletion
    verified           the address is verified; one that names none dates nothing but that
    deleted            soft: the row says nothing of the user any more; erase: it goes, with what cascades from it
                       either way a row that is deleted stays, so that no token makes the user anew
    other, tests       recorded only

The promise: an event is recorded and applied in one transaction, once, however often and in whatever order it comes;
a failure leaves no trace, so that the provider's next attempt works. Nothing of what it said is kept but in the row.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Literal

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.idp.claims import read_ban_end, read_disabled, read_email_verified
from app.idp.events import IdpEvent
from app.users.erasure import Blocked, erase_row
from app.users.identity import AddressLost, Identity, ShadowRules, ShadowUser
from app.users.model import ReceivedEvent, Standing, User
from app.users.rows import (
    COLUMNS,
    Overtaken,
    add,
    as_read,
    change,
    confirm,
    fitting,
    follow,
    hold,
    live,
    lock_addresses,
    lock_user,
    persistently,
    read,
    tell,
    transaction,
    verified_since,
)

_log = logging.getLogger(__name__)

OnDeleted = Literal["soft", "erase"]


_Fit = Callable[[Identity], Identity]


class Outcome(StrEnum):
    """What became of a statement."""

    applied = "applied"
    unchanged = "unchanged"
    """The row said so already, or knew something newer."""
    ignored = "ignored"
    """It is about nothing that is kept here."""
    deduped = "deduped"
    """An event of that id was recorded before."""


_STANDING = ("banned", "status", "deactivatedAt", "deactivated_at")
"""Members from which `read_disabled` concludes; where none is there, nothing is said of it."""


async def apply_event(engine: AsyncEngine, event: IdpEvent, rules: ShadowRules, *, on_deleted: OnDeleted) -> Outcome:
    """Record an event and apply it, in one transaction.

    Args:
        engine: of the server.
        event: whose signature was checked.
        rules: what the deployment decides of its rows.
        on_deleted: what becomes of a row whose user the provider has deleted.

    Raises:
        Contended, NotMigrated: see there; then, and after any other error, nothing was recorded.
    """

    async def attempt(connection: AsyncConnection, fit: _Fit) -> tuple[Outcome, AddressLost | None]:
        if not await _record(connection, event):
            return Outcome.deduped, None
        if event.sub is not None:
            await lock_user(connection, event.sub)
        outcome, lost = await _apply(connection, event, rules, on_deleted, fit)
        if outcome is not Outcome.applied:
            mine = ReceivedEvent.id == event.id
            await connection.execute(update(ReceivedEvent).where(mine).values(outcome=outcome.value))
        return outcome, lost

    return await _said(engine, attempt, rules)


async def assert_identity(engine: AsyncEngine, stated: Identity, rules: ShadowRules) -> Outcome:
    """Make the row, or let it follow what was read at the provider; one that is soft-deleted stays so.

    Raises:
        Contended, NotMigrated: see there.
    """

    async def attempt(connection: AsyncConnection, fit: _Fit) -> tuple[Outcome, AddressLost | None]:
        return await _follow(connection, fit(stated), rules)

    return await _said(engine, attempt, rules)


async def mark_deleted(engine: AsyncEngine, sub: str, stated_at: datetime, on_deleted: OnDeleted) -> Outcome:
    """Apply that the provider has no such user as of `stated_at`.

    Raises:
        Contended, NotMigrated: see there.
    """

    async def attempt(connection: AsyncConnection, _: _Fit) -> tuple[Outcome, None]:
        return await _delete(connection, sub, stated_at, on_deleted), None

    return await _said(engine, attempt, ShadowRules())


async def set_standing(
    engine: AsyncEngine, sub: str, disabled: bool, until: datetime | None, stated_at: datetime
) -> Outcome:
    """Note whether the provider has shut a user out, unless something newer is known.

    Args:
        engine: of the server.
        sub: who.
        disabled: whether they are.
        until: when that ends by itself; None for not at all.
        stated_at: when the provider said so.

    Raises:
        Contended, NotMigrated: see there.
    """

    async def attempt(connection: AsyncConnection, _: _Fit) -> tuple[Outcome, None]:
        return await _stand(connection, sub, disabled, until, stated_at), None

    return await _said(engine, attempt, ShadowRules())


async def _said(
    engine: AsyncEngine,
    attempt: Callable[[AsyncConnection, _Fit], Awaitable[tuple[Outcome, AddressLost | None]]],
    rules: ShadowRules,
) -> Outcome:
    async def once(fit: _Fit) -> tuple[Outcome, AddressLost | None]:
        async with transaction(engine) as connection:
            return await attempt(connection, fit)

    outcome, lost = await fitting(lambda fit: persistently(lambda: once(fit)))
    tell(lost, rules)
    return outcome


async def _record(connection: AsyncConnection, event: IdpEvent) -> bool:
    """Record the event unless one of its id was; a delivery at the same time is waited for."""
    values = {
        "id": event.id,
        "type": event.type,
        "sub": event.sub,
        "stated_at": event.stated_at,
        "outcome": Outcome.applied.value,
    }
    statement = insert(ReceivedEvent).values(values).on_conflict_do_nothing().returning(ReceivedEvent.id)
    return (await connection.execute(statement)).one_or_none() is not None


async def _apply(
    connection: AsyncConnection, event: IdpEvent, rules: ShadowRules, on_deleted: OnDeleted, fit: _Fit
) -> tuple[Outcome, AddressLost | None]:
    if event.is_test or event.sub is None or event.kind == "other":
        return Outcome.ignored, None
    # a statement without a date may make a row, and changes none; of the two that shut somebody out that is not enough
    now = datetime.now(UTC)
    if event.kind == "deleted":
        return await _delete(connection, event.sub, event.stated_at or now, on_deleted), None
    stated = Identity.stated(event.sub, event.members, event.stated_at)
    lost = None
    if event.kind == "verified":
        outcome = await _verify(connection, stated)
    else:
        if stated.email is None and (verified := read_email_verified(event.members)) is not None:
            stated = await _of_known_address(connection, stated, verified)
        stated = fit(stated)
        outcome, lost = await _follow(connection, stated, rules, returns=event.kind == "created")
        if event.kind == "created":
            outcome, lost = await _begin(connection, stated, outcome, lost)
    if (standing := standing_in(event.members, now)) is not None:
        stands = await _stand(connection, event.sub, *standing, event.stated_at or now)
        outcome = Outcome.applied if Outcome.applied in (outcome, stands) else outcome
    return outcome, lost


async def _follow(
    connection: AsyncConnection, stated: Identity, rules: ShadowRules, *, returns: bool = False
) -> tuple[Outcome, AddressLost | None]:
    followed = await follow(connection, stated, rules, returns=returns, dates=True)
    return Outcome.applied if followed.changed else Outcome.unchanged, followed.lost


async def _of_known_address(connection: AsyncConnection, stated: Identity, verified: bool) -> Identity:
    """Return what an event that names no address says of the one that the row has; nobody changes it meanwhile."""
    user = await read(connection, stated.sub, lock=True)
    known = user.email if user is not None and user.deleted_at is None else None
    return stated if known is None else replace(stated, email=known, email_verified=verified)


async def _begin(
    connection: AsyncConnection, stated: Identity, outcome: Outcome, lost: AddressLost | None
) -> tuple[Outcome, AddressLost | None]:
    """Let `created`, which may come last of all, say what nothing that came before it has said.

    That is a name and an address where the row has none. Said before a deletion, it is what the deletion took away.
    """
    user = await read(connection, stated.sub)
    if user is None or user.deleted_at is not None or stated.stated_at is None:
        return outcome, lost
    # a row that has just followed has no address because another user has it by a newer statement
    takes = user.email is None and stated.email is not None and outcome is not Outcome.applied
    if not (takes or (stated.name and not user.name)) or await _deleted_since(connection, stated.sub, stated.stated_at):
        return outcome, lost
    if takes:
        await lock_addresses(connection, {stated.address, user.stored_email})
        followed = await hold(connection, stated, partial(_take, connection, user, stated))
        user, lost = followed.user, followed.lost
        outcome = Outcome.applied if user.email is not None else outcome
    if stated.name and not user.name:
        # who may edit the name does so without a date
        if await change(connection, live(user.id), as_read(user), COLUMNS[1] == "", name=stated.name) is None:
            raise Overtaken
        outcome = Outcome.applied
    return outcome, lost


async def _take(connection: AsyncConnection, user: ShadowUser, stated: Identity, address: str) -> ShadowUser | None:
    if address != stated.email:
        return user  # another has it, by a newer statement
    verified: bool | ColumnElement[bool] = bool(stated.email_verified)
    if not verified and stated.stated_at is not None:
        # what was applied verified an address that the row has lost
        verified = verified_since(user.id, stated.stated_at, outcomes=(Outcome.unchanged.value,))
    async with connection.begin_nested():
        return await change(connection, live(user.id), as_read(user), email=address, email_verified=verified)


async def _deleted_since(connection: AsyncConnection, sub: str, moment: datetime) -> bool:
    """Tell whether an event said that the user was deleted, in the second of `moment` or later."""
    deleted = exists().where(
        ReceivedEvent.sub == sub,
        ReceivedEvent.type == "user.deleted",
        ReceivedEvent.outcome != Outcome.ignored.value,
        ReceivedEvent.stated_at >= moment.replace(microsecond=0),
    )
    return bool((await connection.execute(select(deleted))).scalar_one())


async def _verify(connection: AsyncConnection, stated: Identity) -> Outcome:
    """Believe the row's address verified, unless another one was named."""
    user = await read(connection, stated.sub)
    address = user.email if user is not None and user.deleted_at is None else None
    if stated.email not in (None, address):
        return Outcome.ignored
    if user is None or address is None or stated.stated_at is None:
        return Outcome.unchanged
    known, date = user.identity_updated_at, stated.stated_at
    # it only adds: said in the same second as the address itself, it is said of that
    if known is not None and date < _as_finely(known, date):
        return Outcome.unchanged
    # one that names no address dates nothing: what states the address that it is about may have yet to come
    later = known if stated.email is None else max(known or date, date)
    if user.email_verified:
        if later != known:
            await confirm(connection, stated, user)
        return Outcome.unchanged
    if await change(
        connection, live(stated.sub), as_read(user), email_verified=True, identity_updated_at=later
    ) is None:  # fmt: skip
        raise Overtaken
    return Outcome.applied


async def _delete(connection: AsyncConnection, sub: str, stated_at: datetime, on_deleted: OnDeleted) -> Outcome:
    silent = Identity.silent(sub, stated_at)
    await lock_addresses(connection, {silent.address})
    user = await read(connection, sub, lock=True)
    known = user.identity_updated_at if user else None
    if known is not None and stated_at < _as_finely(known, stated_at):
        return Outcome.unchanged
    # who deleted their account later than that stays deleted since then
    deleted_at = max(user.deleted_at, stated_at) if user and user.deleted_at else stated_at
    if user is not None and on_deleted == "erase":
        try:
            await erase_row(connection, sub, stated_at, deleted_at)
        except Blocked as blocked:
            _log.warning("%r was deleted by the provider and is not erased but soft-deleted: %s", sub, blocked)
        else:
            return Outcome.applied
    if user is not None and _says_nothing(user) and (user.deleted_at, known) == (deleted_at, stated_at):
        return Outcome.unchanged

    async def anonymise(address: str) -> ShadowUser | None:
        async with connection.begin_nested():
            if user is None:
                return await add(connection, silent, address, deleted_at=deleted_at)
            return await change(
                connection, User.id == sub,
                name="", email=address, email_verified=False, image=None,
                deleted_at=deleted_at, identity_updated_at=stated_at,
            )  # fmt: skip

    await hold(connection, silent, anonymise)
    return Outcome.applied


def _as_finely(known: datetime, stated_at: datetime) -> datetime:
    """Return a date of a row as finely as a statement's: events may be dated in whole seconds."""
    return known if stated_at.microsecond else known.replace(microsecond=0)


def _says_nothing(user: ShadowUser) -> bool:
    return (user.name, user.email, user.email_verified, user.image) == ("", None, False, None)


def standing_in(members: Mapping[str, object], now: datetime) -> tuple[bool, datetime | None] | None:
    """Return whether the provider has shut a user out, and until when if that ends by itself.

    Args:
        members: what it says of the user; None is returned where it says nothing of this.
        now: when it is judged.
    """
    if not any(name in members for name in _STANDING):
        return None
    if not read_disabled(members, now.timestamp()):
        return False, None
    end = read_ban_end(members)
    return True, None if end is None else datetime.fromtimestamp(end, UTC)


async def _stand(
    connection: AsyncConnection, sub: str, disabled: bool, until: datetime | None, stated_at: datetime
) -> Outcome:
    stated = insert(Standing).values(id=sub, disabled=disabled, until=until, stated_at=stated_at)
    newer = stated.on_conflict_do_update(
        index_elements=[Standing.id],
        set_={name: getattr(stated.excluded, name) for name in ("disabled", "stated_at", "until")},
        where=Standing.stated_at < stated.excluded.stated_at,
    )
    changed = (await connection.execute(newer.returning(Standing.id))).one_or_none()
    return Outcome.unchanged if changed is None else Outcome.applied
