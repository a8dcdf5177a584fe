"""The row against a plain model of it: tokens, events, reconciliation, edits and deletions in any order.

The model below is the rules of the row written down once more, one user a dictionary entry, one statement at a time,
with no database and none of the code under test. Statements come late, twice, and for addresses that others hold.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import create_engine
from app.errors import AccountDeleted, AccountDisabled
from app.idp.events import IdpEvent, Kind
from app.users.events import Outcome, apply_event, assert_identity, mark_deleted, set_standing
from app.users.identity import Identity, ShadowRules
from app.users.shadow import Edit, edit, provision, soft_delete
from tests.migrated import make_migrated
from tests.postgres import Server
from tests.users.stated import claims

T = TypeVar("T")
Standing = Literal["deleted", "disabled"]

SUBS = ("ada", "bob", "cyd")
ADDRESSES = ("one@example.com", "two@example.com", "One@example.com")
LONG_AGO, TO_COME = 1_760_000_000, 2_000_000_000
"""Seconds since the epoch, before and after the tests run: what a user does with the app has the time of today."""
TIMES = st.sampled_from([base + step for base in (LONG_AGO, TO_COME) for step in range(6)])
FOREVER = 2**62

subs = st.sampled_from(SUBS)
statements = st.fixed_dictionaries(
    {
        "email": st.sampled_from((None, *ADDRESSES)),
        "email_verified": st.sampled_from((None, False, True)),
        "name": st.sampled_from((None, "Ada", "Augusta")),
        "image": st.sampled_from((None, "https://example.com/1.png", "https://example.com/2.png")),
    }
)


@dataclass(frozen=True)
class Row:
    """What is known of a user. `known` and `deleted` are seconds since the epoch, 0 where there is no such time."""

    name: str = ""
    email: str | None = None
    verified: bool = False
    image: str | None = None
    onboarded: int = 0
    deleted: int = 0
    known: int = 0


@dataclass
class Model:
    app_owned: frozenset[str]
    erases: bool
    rows: dict[str, Row] = field(default_factory=dict)
    standing: dict[str, tuple[bool, int]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    verifications: list[tuple[str, int, bool]] = field(default_factory=list)
    """Whose address was said to be verified, as of when, and whether it was not until then."""
    deletions: list[tuple[str, int]] = field(default_factory=list)
    """Of whom an event said that they were deleted, and when."""

    def disabled(self, sub: str) -> bool:
        return self.standing.get(sub, (False, 0))[0]

    def gets(self, sub: str, email: str, at: int) -> bool:
        """Whether a user gets an address; who held it and was stated earlier loses it."""
        for other, row in self.rows.items():
            if other != sub and row.email == email:
                if row.known >= at:
                    return False
                self.rows[other] = replace(row, email=None, verified=False)
        return True

    def verified_since(self, sub: str, at: int) -> bool:
        return any(one == sub and when >= at for one, when, _ in self.verifications)

    def follow(
        self, sub: str, at: int, said: dict[str, Any], *,
        made_anew: bool = False, dated: bool = False, no_image: bool = False,
    ) -> None:  # fmt: skip
        """Let a row follow what was said of it."""
        row = self.rows.get(sub, Row())
        first = sub not in self.rows
        returns = made_anew and 0 < row.deleted < at and row.known < at
        if not first and (at <= row.known or (row.deleted and not returns)):
            return
        new = replace(row, deleted=0)
        if returns and row.email:
            new = replace(new, verified=row.verified or self.verified_since(sub, at))
        for name in ("name", "image"):
            keeps = not first and name in self.app_owned and not (returns and not getattr(row, name))
            if said[name] is not None and not keeps:
                new = replace(new, **{name: said[name]})
        if no_image and said["image"] is None and (first or "image" not in self.app_owned):
            new = replace(new, image=None)
        if said["email"] is not None and said["email"] != row.email:
            got = self.gets(sub, said["email"], at)
            verified = got and (bool(said["email_verified"]) or self.verified_since(sub, at))
            new = replace(new, email=said["email"] if got else None, verified=verified, known=at)
        elif said["email"] is not None and said["email_verified"] is not None:
            if said["email_verified"] != row.verified:
                new = replace(new, known=at)
            new = replace(new, verified=said["email_verified"] or self.verified_since(sub, at))
        if first or dated or new != row:
            new = replace(new, known=at)
        self.rows[sub] = new

    def delete(self, sub: str, at: int) -> None:
        row = self.rows.get(sub, Row())
        if at >= row.known:
            self.rows[sub] = Row(
                onboarded=0 if self.erases else row.onboarded, deleted=max(at, row.deleted), known=at
            )  # fmt: skip

    def verify(self, sub: str, at: int, email: str | None) -> None:
        row = self.rows.get(sub)
        address = row.email if row and not row.deleted else None
        if email not in (None, address):
            return
        finds_it = row is not None and address is not None and at >= row.known
        self.verifications.append((sub, at, finds_it and not (row and row.verified)))
        if row and finds_it:
            self.rows[sub] = replace(row, verified=True, known=at if email else row.known)

    def begin(self, sub: str, at: int, said: dict[str, Any]) -> None:
        """Let what was said of a user made anew fill what the row does not know."""
        row = self.rows[sub]
        if row.deleted or any(one == sub and when >= at for one, when in self.deletions):
            return
        if not row.name and said["name"]:
            self.rows[sub] = row = replace(row, name=said["name"])
        if row.email is None and said["email"] and self.gets(sub, said["email"], at):
            early = any(one == sub and when >= at and not applied for one, when, applied in self.verifications)
            self.rows[sub] = replace(row, email=said["email"], verified=bool(said["email_verified"]) or early)

    def stand(self, sub: str, disabled: bool, at: int) -> None:
        if at > self.standing.get(sub, (False, 0))[1]:
            self.standing[sub] = (disabled, at)


class World(RuleBasedStateMachine):
    """Each rule says one thing to the model and to the database, and looks whether they still agree."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], engine: Any) -> None:
        super().__init__()
        self.run, self.engine = run, engine
        self.told: list[tuple[IdpEvent, Callable[[], None]]] = []

    @initialize(app_owned=st.sampled_from([(), ("name",), ("name", "image")]), erases=st.booleans())
    def begin(self, app_owned: tuple[str, ...], erases: bool) -> None:
        self.model = Model(frozenset(app_owned), erases)
        self.rules = ShadowRules(app_owned=self.model.app_owned)
        self.run(self._emptied())
        self.writes: dict[str, tuple[Row, str]] = {}

    async def _emptied(self) -> None:
        async with self.engine.begin() as connection:
            for table in ("users", "shadow_events", "shadow_standing"):
                await connection.execute(text(f"DELETE FROM {table}"))

    async def _rows(self) -> tuple[dict[str, Row], dict[str, str], dict[str, tuple[bool, int]]]:
        moments = "coalesce(extract(epoch FROM {0})::bigint, 0)"
        columns = ("onboarding_completed_at", "deleted_at", "identity_updated_at")
        query = f"""SELECT id, name, email, email_verified, image, {", ".join(map(moments.format, columns))}, xmin::text
            FROM users"""
        async with self.engine.connect() as connection:
            found = list(await connection.execute(text(query)))
            standing = await connection.execute(
                text(f"SELECT id, disabled, {moments.format('stated_at')} FROM shadow_standing")
            )
            stands = {sub: (disabled, at) for sub, disabled, at in standing}
        rows = {
            sub: Row(name, None if email == f"{sub}@placeholder.invalid" else email, *values)
            for sub, name, email, *values, _ in found
        }
        return rows, {row[0]: row[-1] for row in found}, stands

    def agree(self, *, rewrites: str | None = None) -> None:
        """Compare all rows; one of which nothing changed must not have been written."""
        rows, writes, standing = self.run(self._rows())
        today = datetime.now(UTC).timestamp()
        for sub, row in rows.items():
            if LONG_AGO + 60 < row.deleted < TO_COME:  # the time of the database
                assert abs(row.deleted - today) < 3600
                assert self.model.rows[sub].deleted == TODAY
                rows[sub] = replace(row, deleted=TODAY)
        assert rows == self.model.rows
        assert standing == self.model.standing
        for sub, row in rows.items():
            before = self.writes.get(sub)
            if before is not None and before[0] == row and sub != rewrites:
                assert before[1] == writes[sub], f"{sub} was written, and nothing changed"
        self.writes = {sub: (row, writes[sub]) for sub, row in rows.items()}

    @rule(sub=subs, at=TIMES, said=statements, banned=st.sampled_from((False, False, False, True)))
    def token(self, sub: str, at: int, said: dict[str, Any], banned: bool) -> None:
        expected: type[Exception] | None = None
        if banned or self.model.disabled(sub):
            expected = AccountDisabled
        elif sub in self.model.rows and self.model.rows[sub].deleted:
            expected = AccountDeleted
        else:
            self.model.follow(sub, at, said)
        request = provision(self.engine, claims(sub, iat=float(at), exp=FOREVER, disabled=banned, **said), self.rules)
        if expected is None:
            user = self.run(request)
            assert (user.id, user.email) == (sub, self.model.rows[sub].email)
        else:
            with pytest.raises(expected):
                self.run(request)
        self.agree()

    @rule(
        sub=subs, at=TIMES, said=statements, kind=st.sampled_from(("created", "updated", "deleted", "verified")),
        banned=st.sampled_from((None, None, False, True)), no_image=st.booleans(),
    )  # fmt: skip
    def event(
        self, sub: str, at: int, said: dict[str, Any], kind: Kind, banned: bool | None, no_image: bool
    ) -> None:  # fmt: skip
        members = {
            "id": sub, "name": said["name"], "image": said["image"], "email": said["email"],
            "emailVerified": said["email_verified"],
        }  # fmt: skip
        members = {
            name: value for name, value in members.items() if value is not None or (name == "image" and no_image)
        }  # fmt: skip
        if banned is not None:
            members["banned"] = banned
        event = IdpEvent(
            id=f"event {len(self.told)}", type=f"user.{kind}", kind=kind, sub=sub,
            stated_at=datetime.fromtimestamp(at, UTC), members=members, is_test=False,
        )  # fmt: skip

        def apply() -> None:
            if kind == "deleted":
                self.model.deletions.append((sub, at))
                self.model.delete(sub, at)
            elif kind == "verified":
                self.model.verify(sub, at, said["email"])
            else:
                said_of = dict(said)
                row = self.model.rows.get(sub)
                if row and not row.deleted and row.email and said["email"] is None:
                    said_of["email"] = row.email  # whether an address is verified is said of the one that is known
                self.model.follow(sub, at, said_of, made_anew=kind == "created", dated=True, no_image=no_image)
                if kind == "created":
                    self.model.begin(sub, at, said_of)
            if banned is not None and kind != "deleted":
                self.model.stand(sub, banned, at)

        self.told.append((event, apply))

    @rule(data=st.data(), times=st.integers(1, 3))
    def delivery(self, data: st.DataObject, times: int) -> None:
        """Deliver an event that was sent at some time, perhaps for the second time, perhaps at once with itself."""
        if not self.told:
            return
        event, apply = data.draw(st.sampled_from(self.told))
        fresh = event.id not in self.model.seen
        if fresh:
            self.model.seen.add(event.id)
            apply()

        async def deliver() -> list[Outcome]:
            deleted: Literal["soft", "erase"] = "erase" if self.model.erases else "soft"
            one = (apply_event(self.engine, event, self.rules, on_deleted=deleted) for _ in range(times))
            return list(await asyncio.gather(*one))

        outcomes = self.run(deliver())
        assert outcomes.count(Outcome.deduped) == times - fresh
        self.agree()

    @rule(sub=subs, at=TIMES, said=statements)
    def reconciled(self, sub: str, at: int, said: dict[str, Any]) -> None:
        self.model.follow(sub, at, said, dated=True, no_image=True)
        members = {
            "name": said["name"], "image": said["image"], "email": said["email"],
            "emailVerified": said["email_verified"],
        }  # fmt: skip
        stated = Identity.stated(sub, members, datetime.fromtimestamp(at, UTC))
        self.run(assert_identity(self.engine, stated, self.rules))
        self.agree()

    @rule(sub=subs, at=TIMES)
    def gone_at_the_provider(self, sub: str, at: int) -> None:
        self.model.delete(sub, at)
        deleted: Literal["soft", "erase"] = "erase" if self.model.erases else "soft"
        self.run(mark_deleted(self.engine, sub, datetime.fromtimestamp(at, UTC), deleted))
        self.agree(rewrites=sub)

    @rule(sub=subs, at=TIMES, disabled=st.booleans())
    def shut_out(self, sub: str, at: int, disabled: bool) -> None:
        self.model.stand(sub, disabled, at)
        self.run(set_standing(self.engine, sub, disabled, None, datetime.fromtimestamp(at, UTC)))
        self.agree()

    @rule(sub=subs, onboarded=st.sampled_from((0, LONG_AGO)), name=st.sampled_from((None, "Countess")))
    def patch(self, sub: str, onboarded: int, name: str | None) -> None:
        changes = Edit(onboarding_completed_at=datetime.fromtimestamp(onboarded, UTC) if onboarded else None)
        if name is not None and "name" in self.model.app_owned:
            changes["name"] = name
        row = self.model.rows.get(sub)
        if row is None or row.deleted:
            with pytest.raises(AccountDeleted):
                self.run(edit(self.engine, sub, changes))
        else:
            self.model.rows[sub] = replace(row, onboarded=onboarded, name=changes.get("name", row.name))
            self.run(edit(self.engine, sub, changes))
        self.agree(rewrites=sub)

    @rule(sub=subs)
    def delete(self, sub: str) -> None:
        row = self.model.rows.get(sub)
        if row is not None and not row.deleted:
            self.model.rows[sub] = replace(row, deleted=TODAY)
        self.run(soft_delete(self.engine, sub))
        self.agree()


TODAY = (LONG_AGO + TO_COME) // 2
"""What the model takes for the time of the database's clock: between the two."""


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_the_row_ends_where_the_model_says(server: Server, make_database: Callable[[str | None], str]) -> None:
    with asyncio.Runner() as runner:
        engine = create_engine(make_migrated(server, make_database), pool_size=5, max_overflow=0)
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                lambda: World(runner.run, engine),
                settings=settings(
                    max_examples=int(os.environ.get("TEST_EXAMPLES", "40")),
                    stateful_step_count=30,
                    deadline=None,
                    derandomize="TEST_EXAMPLES" not in os.environ,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(engine.dispose())


@dataclass(frozen=True)
class Said:
    """What an event of the history below says; `email` is None in `user.verified`, which names nobody's address."""

    kind: Kind
    at: int
    name: str = ""
    email: str | None = None
    verified: bool = False

    def event(self, sub: str) -> IdpEvent:
        members: dict[str, object] = {"id": sub}
        if self.email is not None:
            members |= {"name": self.name, "email": f"{sub}.{self.email}", "emailVerified": self.verified}
        return IdpEvent(
            id=f"{sub} {self.at}", type=f"user.{self.kind}", kind=self.kind, sub=sub,
            stated_at=datetime.fromtimestamp(LONG_AGO + self.at, UTC), members=members, is_test=False,
        )  # fmt: skip


def history(chance: random.Random) -> list[Said]:
    """Return a user made, and then changed and verified a few times; nobody is deleted, for a deletion stands."""
    kinds: list[Kind] = ["created", *chance.choices(["updated", "updated", "verified", "created"], k=4)]
    return [
        Said(kind, at)
        if kind == "verified"
        else Said(kind, at, f"Name {at}", chance.choice(ADDRESSES[:2]), chance.random() < 0.4)
        for at, kind in enumerate(kinds)
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("server", ["embedded"], indirect=True)
@pytest.mark.parametrize("at_once", [False, True])
async def test_events_that_say_all_of_a_user_end_in_any_order_as_in_that_of_their_dates(
    engine: AsyncEngine, at_once: bool
) -> None:
    chance = random.Random(7)
    expected = []
    for number in range(150):
        sub, told = f"u{number:03}", history(chance)
        newest = max((said for said in told if said.email is not None), key=lambda said: said.at)
        verified = newest.verified or any(said.email is None and said.at > newest.at for said in told)
        expected.append((sub, newest.name, f"{sub}.{newest.email}", verified))
        chance.shuffle(told)
        deliveries = [apply_event(engine, said.event(sub), ShadowRules(), on_deleted="soft") for said in told]
        if at_once:
            await asyncio.gather(*deliveries)
        else:
            for delivery in deliveries:
                await delivery
    async with engine.connect() as connection:
        rows = await connection.execute(text("SELECT id, name, email, email_verified FROM users ORDER BY id"))
        assert [tuple(row) for row in rows] == expected
