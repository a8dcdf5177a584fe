"""The rows against the provider's users: what was missed while no event came and no token was shown.

    the list, page by page ──▶ compared by id ──▶ same | differ | missing | disabled | enabled | deleted here
    whoever has a row and was not in it ──▶ asked for, one by one
        the provider knows them ──▶ compared as above
        a 404 for that very id  ──▶ asked for again, between one who was known and has to be it still ──▶ gone
        it cannot say           ──▶ unclear, left alone
    brakes ──▶ whoever is gone is deleted

Every write is that of an event (`app.users.events`), in a transaction of its own, dated by the request that read it: so
what a token or a webhook says meanwhile stands, and a run that was killed is finished by running it again.

The promise: who is not in the list is not therefore deleted, nobody is deleted before everybody was read, and not one
if the list was empty, does not add up, or would take more than `BRAKE` percent; nor, without a person's number, while
an old app may be in use, which has users the provider never heard of. A dry run writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Executable, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.idp.directory import Directory, DirectoryFailed, Entry
from app.users import rows
from app.users.events import OnDeleted, Outcome, assert_identity, mark_deleted, set_standing, standing_in
from app.users.identity import Identity, ShadowRules, ShadowUser
from app.users.model import Standing, User

BRAKE = 5
"""Percent of the rows that are not deleted: so many may go without a person's number."""
SHOWN = 20
"""Findings of a kind that are kept to be shown."""
_CHUNK = 500
"""Ids a statement asks for."""
_Standing = tuple[bool, datetime | None]
"""Whether the provider has shut a user out, and until when if that ends by itself."""
_MIRRORED = ("name", "image", "email", "email_verified")
_IS_VIEW = text("SELECT relkind = 'v' FROM pg_class WHERE oid = to_regclass('users')")
_IS_READABLE = text(
    "SELECT has_table_privilege(oid, 'SELECT') FROM pg_class WHERE oid = to_regclass('shadow_alembic_version')"
)
_REVISION = text("SELECT version_num FROM shadow_alembic_version")
_ADOPTED = "0001_adopt"


class Kind(StrEnum):
    """What a comparison can find."""

    SAME = "same"
    DIFFER = "differ"
    """What is mirrored is not what the provider has."""
    MISSING = "missing"
    """No row here."""
    DISABLED = "disabled"
    """Banned or deactivated there, and not known to be here."""
    ENABLED = "enabled"
    """Shut out here, and no longer there."""
    GONE = "gone"
    """A row here, and a 404 there."""
    DELETED_HERE = "deleted_here"
    """Known there, soft-deleted here: stays so."""
    UNCLEAR = "unclear"
    """The provider cannot say whether it knows them: left alone."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One user of a kind other than `SAME`."""

    sub: str
    columns: tuple[str, ...] = ()
    """Where they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What a run may do."""

    execute: bool
    rules: ShadowRules
    on_deleted: OnDeleted = "soft"
    allow_deletions: int | None = None
    """How many may be deleted; None: `BRAKE` percent, and none where machines have rows, which no provider lists, or an
    old app may."""
    takes_old_sessions: bool = False
    """Whether the server takes the sessions of an old app, which therefore is in use."""


@dataclass(slots=True)
class Reconciliation:
    """What was found and done."""

    executed: bool
    counts: Counter[Kind] = field(default_factory=Counter)
    first: dict[Kind, list[Difference]] = field(default_factory=dict)
    """The first `SHOWN` of each kind."""
    listed: int = 0
    """Different users that the list held."""
    total: int | None = None
    """How many there are, as the provider says; None: it has no list."""
    live: int = 0
    """Rows here that were not deleted, before anything was added."""
    deleted: int = 0
    refusal: str | None = None
    """Why nobody was, or would be, deleted."""

    def note(self, kind: Kind, difference: Difference) -> None:
        """Count, and keep the first ones."""
        self.counts[kind] += 1
        shown = self.first.setdefault(kind, [])
        if kind is not Kind.SAME and len(shown) < SHOWN:
            shown.append(difference)

    @property
    def in_step(self) -> bool:
        """Whether nothing was found that a run would change."""
        return not any(self.counts[kind] for kind in Kind if kind not in _LEFT)

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        shown = {kind: found for kind, found in self.first.items() if found}
        return {
            "executed": self.executed,
            "counts": {kind.value: self.counts[kind] for kind in Kind},
            "first": {
                kind.value: [{"id": each.sub, "columns": list(each.columns)} for each in found]
                for kind, found in shown.items()
            },
            "listed": self.listed,
            "total": self.total,
            "live": self.live,
            "deleted": self.deleted,
            "refusal": self.refusal,
        }


_LEFT = frozenset({Kind.SAME, Kind.DELETED_HERE, Kind.UNCLEAR})
Observe = Callable[[str, int, int | None], None]
"""Told what is going on, how much of it is done, and of how much, if that is known."""


async def reconcile(
    engine: AsyncEngine, directory: Directory, course: Course, observe: Observe = lambda *_: None
) -> Reconciliation:
    """Compare every user of the provider with the rows, and, if `course` says so, bring the rows into step.

    Raises:
        DirectoryFailed: the provider's users cannot be read; what was done until then stays, and nobody was deleted.
        Contended, NotMigrated: as `app.users.shadow`.
    """
    run = _Run(engine, directory, course, observe)
    await run.read_list()
    if (refusal := run.list_fault()) is None:
        gone = await run.ask_again(await run.ask_for_the_others())
        refusal = run.brake(gone, await run.old_app() if gone else None)
        if course.execute and refusal is None:
            await run.delete(gone)
    run.result.refusal = refusal
    return run.result


class _Run:
    def __init__(self, engine: AsyncEngine, directory: Directory, course: Course, observe: Observe) -> None:
        self._engine = engine
        self._directory = directory
        self._course = course
        self._observe = observe
        self._met: set[str] = set()
        self._known: str | None = None
        """One whom the provider knew."""
        self._whole = True
        self.result = Reconciliation(executed=course.execute)

    async def read_list(self) -> None:
        """Read the list until one reading holds as many users as the provider says there are."""
        # Counted later, what was added from the list of a wrong provider would make what it lacks look like little.
        self.result.live = await self._count_live()
        for order in self._directory.orders:
            listed: set[str] = set()
            async for page in self._directory.pages(order):
                self.result.total = page.total
                listed.update(entry.sub for entry in page.entries)
                await self._compare(page.entries)
                self._observe("Reading the provider's users", len(listed), page.total)
            self.result.listed = len(listed)
            self._whole = 0 < len(listed) == self.result.total
            if self._whole:
                return

    def list_fault(self) -> str | None:
        """Return why the list cannot tell whom to ask for."""
        if self.result.total is None:
            return None
        if not self._met:
            return "The provider's list of users is empty. A query that fails there looks the same."
        if not self._whole:
            return (
                f"The provider says it has {self.result.total:,} users, and its list held {self.result.listed:,}. "
                "Run again; if that stays so, look at the provider's log."
            )
        return None

    async def ask_for_the_others(self) -> list[Entry]:
        """Ask for each who has a row and was not in the list; return those whom the provider seems not to know."""
        gone: list[Entry] = []
        looked_at, live = 0, await self._count_live()
        async for subs in self._live_subs():
            for sub in subs:
                if sub not in self._met:
                    entry = await self._directory.find(sub)
                    if entry.state == "unknown":
                        gone.append(entry)
                    else:
                        await self._take(entry)
                looked_at += 1
                self._observe("Asking for those it did not list", looked_at, live)
        return gone

    async def ask_again(self, seemed_gone: list[Entry]) -> list[Entry]:
        """Ask once more for those whom the provider seems not to know; return those whom it still does not.

        What stands in front of it may have begun to answer 404 in its place, for everybody.

        Raises:
            DirectoryFailed: so it is, for one who was known is no longer, before or after.
        """
        gone: list[Entry] = []
        if self._known is None:  # then it is another provider, and nobody is deleted
            gone = seemed_gone
        elif seemed_gone:
            await self._check(self._known)
            for number, seen in enumerate(seemed_gone, 1):
                entry = await self._directory.find(seen.sub)
                if entry.state == "unknown":
                    gone.append(entry)
                else:
                    await self._take(entry)
                self._observe("Asking again for those it does not know", number, len(seemed_gone))
            await self._check(self._known)
        for entry in gone:
            self.result.note(Kind.GONE, Difference(entry.sub))
        return gone

    async def _check(self, known: str) -> None:
        if (await self._directory.find(known)).state != "known":
            raise DirectoryFailed(
                "The provider knew a user, and now it does not: something in front of it may answer in its place. "
                "Nobody was deleted. Look at what stands before IDP_DIRECTORY_URL, and run again."
            )

    async def _take(self, entry: Entry) -> None:
        if entry.state == "known":
            await self._compare((entry,))
        else:
            self.result.note(Kind.UNCLEAR, Difference(entry.sub))

    async def old_app(self) -> str | None:
        """Return why an old app may be in use on the same rows."""
        if self._course.takes_old_sessions:
            return "AUTH_MODE takes its sessions"
        if any(await self._read(_IS_VIEW)):
            return "users is a view of its table"
        readable = await self._read(_IS_READABLE)
        if readable == [False]:
            return "how far the cutover went cannot be read: GRANT SELECT ON shadow_alembic_version"
        if readable and await self._read(_REVISION) == [_ADOPTED]:
            return f"the cutover stands at {_ADOPTED}"
        return None

    def brake(self, gone: list[Entry], old_app: str | None) -> str | None:
        """Return why those who are gone must not be deleted.

        Args:
            gone: they.
            old_app: why one may be in use.
        """
        if not gone:
            return None
        if not self._met:
            return "The provider knows not one of the users here: that is another provider, or another kind of id."
        allowed = self._course.allow_deletions
        if allowed is None:
            if old_app is not None:
                return (
                    f"{len(gone):,} would be deleted, and an old app may be in use on the same rows ({old_app}): who "
                    "signs up there, no provider knows, and with ON_USER_DELETED=erase their sessions go as well. "
                    f"Look at them; --allow-deletions {len(gone)} deletes them."
                )
            if self._course.rules.provision_machines:
                return (
                    f"{len(gone):,} would be deleted, and machines have rows here (PROVISION_MACHINE_TOKENS), which "
                    f"no provider has among its users. Look at them; --allow-deletions {len(gone)} deletes them."
                )
            if len(gone) * 100 <= self.result.live * BRAKE:
                return None
            return (
                f"{len(gone):,} of {self.result.live:,} would be deleted, which is more than {BRAKE} %. "
                f"Look at them; --allow-deletions {len(gone)} deletes them."
            )
        if len(gone) <= allowed:
            return None
        return f"{len(gone):,} would be deleted, and --allow-deletions allows {allowed:,}."

    async def delete(self, gone: list[Entry]) -> None:
        """Delete, each in a transaction; who was stated to be there since they were asked for stays."""
        for entry in gone:
            outcome = await mark_deleted(self._engine, entry.sub, entry.read_at, self._course.on_deleted)
            self.result.deleted += outcome is Outcome.applied
            self._observe("Deleting who is gone", self.result.deleted, len(gone))

    async def _compare(self, entries: Iterable[Entry]) -> None:
        new = {entry.sub: entry for entry in entries if entry.sub not in self._met}
        self._met.update(new)
        self._known = next(reversed(new), self._known)
        users, shut_out = await self._look_up(new)
        for sub, entry in new.items():
            await self._follow(entry, users.get(sub), shut_out.get(sub, (False, None)))

    async def _follow(self, entry: Entry, user: ShadowUser | None, known_standing: _Standing) -> None:
        """Compare one user, note what is found, and write it unless the run is dry."""
        sub, course = entry.sub, self._course
        if user is not None and user.deleted_at is not None:
            self.result.note(Kind.DELETED_HERE, Difference(sub))
            return
        kinds: list[Kind] = []
        standing = standing_in(entry.members, entry.read_at)
        if standing is not None and standing != known_standing:
            kinds.append(Kind.DISABLED if standing[0] else Kind.ENABLED)
            self.result.note(kinds[-1], Difference(sub))
            if course.execute:
                await set_standing(self._engine, sub, *standing, entry.read_at)
        stated = Identity.stated(sub, entry.members, entry.read_at)
        changes = {} if user is None else stated.changes(user, course.rules)
        if user is None or changes:
            kinds.append(Kind.MISSING if user is None else Kind.DIFFER)
            known = {} if user is None else {**asdict(user), "email": user.stored_email}
            columns = (name for name, value in changes.items() if name in _MIRRORED and value != known[name])
            self.result.note(kinds[-1], Difference(sub, tuple(columns)))
            if course.execute:
                await assert_identity(self._engine, stated, course.rules)
        if not kinds:
            self.result.note(Kind.SAME, Difference(sub))

    async def _look_up(self, subs: Iterable[str]) -> tuple[Mapping[str, ShadowUser], Mapping[str, _Standing]]:
        """Return the rows of some users, and who of them is shut out here, until when."""
        wanted = list(subs)

        async def attempt() -> tuple[Mapping[str, ShadowUser], Mapping[str, _Standing]]:
            async with rows.transaction(self._engine) as connection:
                found = await connection.execute(select(*rows.COLUMNS).where(User.id.in_(wanted)))
                users = [user for row in found if (user := rows.user_of(row)) is not None]
                standing = await connection.execute(
                    select(Standing.id, Standing.until).where(Standing.id.in_(wanted), rows.DISABLED)
                )
                return {user.id: user for user in users}, {sub: (True, until) for sub, until in standing}

        return await rows.persistently(attempt)

    async def _count_live(self) -> int:
        (count,) = await self._read(select(func.count()).select_from(User).where(User.deleted_at.is_(None)))
        return int(count)

    async def _live_subs(self) -> AsyncIterator[list[str]]:
        last = ""
        while True:
            live = select(User.id).where(User.deleted_at.is_(None), User.id > last).order_by(User.id).limit(_CHUNK)
            if not (subs := await self._read(live)):
                return
            yield subs
            last = subs[-1]

    async def _read(self, statement: Executable) -> list[Any]:
        async def attempt() -> list[Any]:
            async with rows.transaction(self._engine) as connection:
                return list((await connection.execute(statement)).scalars())

        return await rows.persistently(attempt)
