"""What the provider's events do to the rows, on a real PostgreSQL; one at a time, `test_storm.py` has them at once."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import AccountDeleted, AccountDisabled, NotMigrated
from app.idp.events import IdpEvent, Kind
from app.users.events import Outcome, apply_event, assert_identity, mark_deleted, set_standing
from app.users.identity import AddressLost, Identity, ShadowRules
from app.users.shadow import provision, soft_delete
from tests.users.stated import MONDAY, claims

pytestmark = pytest.mark.anyio
RULES = ShadowRules()
NUMBERS = itertools.count()
APPLIED, UNCHANGED, IGNORED, DEDUPED = Outcome.applied, Outcome.unchanged, Outcome.ignored, Outcome.deduped

TOMBSTONE = "name, email, email_verified, image"
NOTHING = ("", "ada@placeholder.invalid", False, None)


def at(seconds: float) -> datetime:
    """Return so many seconds after Monday."""
    return datetime.fromtimestamp(MONDAY, UTC) + timedelta(seconds=seconds)


def event(kind: Kind, seconds: float | None = 0, *, sub: str | None = "ada", **members: Any) -> IdpEvent:
    return IdpEvent(
        id=members.pop("id_of_event", None) or f"evt_{next(NUMBERS)}",
        type="session.created" if kind == "other" else f"user.{kind}",
        kind=kind,
        sub=sub,
        stated_at=None if seconds is None else at(seconds),
        members=members,
        is_test=members.pop("is_test", False),
    )


def created(seconds: float | None = 0, sub: str = "ada", **members: Any) -> IdpEvent:
    said = {
        "email": f"{sub}@example.com",
        "emailVerified": True,
        "name": "Ada Lovelace",
        "image": "https://x.example/a",
    }
    return event("created", seconds, sub=sub, **(said | members))


async def happen(
    engine: AsyncEngine, *events: IdpEvent, rules: ShadowRules = RULES, erase: bool = False
) -> list[Outcome]:
    return [await apply_event(engine, each, rules, on_deleted="erase" if erase else "soft") for each in events]


async def query(engine: AsyncEngine, sql: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(sql))]


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def row(engine: AsyncEngine, columns: str, sub: str = "ada") -> tuple[Any, ...]:
    (found,) = await query(engine, f"SELECT {columns} FROM users WHERE id = '{sub}'")
    return found


async def waiting(engine: AsyncEngine) -> None:
    """Return when somebody waits for a row that another transaction has written."""
    waits = """SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE NOT granted AND locktype = 'transactionid' AND datname = current_database()"""
    for _ in range(500):
        if await query(engine, waits):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody waits")


class TestRecord:
    async def test_what_came_is_kept_without_what_it_said(self, engine: AsyncEngine) -> None:
        await happen(engine, created(5, id_of_event="evt_1"))
        (kept,) = await query(engine, "SELECT id, type, sub, stated_at, outcome FROM shadow_events")
        assert kept == ("evt_1", "user.created", "ada", at(5), "applied")
        columns = await query(
            engine, "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'shadow_events'"
        )
        assert {name for (name,) in columns} == {"id", "type", "sub", "stated_at", "received_at", "outcome"}

    async def test_an_id_seen_before_does_nothing_else(self, engine: AsyncEngine) -> None:
        first, again = created(id_of_event="evt_1"), created(9, name="Countess", id_of_event="evt_1")
        assert await happen(engine, first, again, first) == [APPLIED, DEDUPED, DEDUPED]
        assert await row(engine, "name") == ("Ada Lovelace",)

    async def test_two_deliveries_at_once_are_applied_once(self, engine: AsyncEngine) -> None:
        same = created()
        outcomes = await asyncio.gather(*(apply_event(engine, same, RULES, on_deleted="soft") for _ in range(20)))
        assert sorted(outcomes) == [APPLIED, *[DEDUPED] * 19]

    @pytest.mark.parametrize(
        "what",
        [
            event("other", email="new@example.com", banned=True),
            event("updated", 9, name="Countess", banned=True, is_test=True),
            event("deleted", 9, is_test=True),
            event("updated", 9, sub=None, name="Countess"),
        ],
        ids=["another type", "a test", "a test of deletion", "of nobody"],
    )
    async def test_what_is_not_to_be_applied_is_recorded_as_ignored(self, engine: AsyncEngine, what: IdpEvent) -> None:
        await happen(engine, created())
        before = await query(engine, "SELECT users.*, users.xmin FROM users")
        assert await happen(engine, what, what) == [IGNORED, DEDUPED]
        assert await query(engine, "SELECT users.*, users.xmin FROM users") == before
        assert await query(engine, "SELECT * FROM shadow_standing") == []
        assert await query(engine, f"SELECT outcome FROM shadow_events WHERE id = '{what.id}'") == [("ignored",)]

    async def test_a_failure_leaves_no_trace_and_the_next_attempt_works(self, engine: AsyncEngine) -> None:
        await execute(engine, "ALTER TABLE users ADD CONSTRAINT no_ada CHECK (name <> 'Ada Lovelace')")
        late = created()
        with pytest.raises(DBAPIError, match="no_ada"):
            await happen(engine, late)
        assert await query(engine, "SELECT id FROM shadow_events UNION SELECT id FROM users") == []
        await execute(engine, "ALTER TABLE users DROP CONSTRAINT no_ada")
        assert await happen(engine, late) == [APPLIED]

    async def test_a_database_without_the_table_is_not_migrated(self, engine: AsyncEngine) -> None:
        await execute(engine, "DROP TABLE shadow_events")
        with pytest.raises(NotMigrated):
            await happen(engine, created())


class TestCreatedAndUpdated:
    @pytest.mark.parametrize("kind", ["created", "updated"])
    async def test_either_makes_the_row(self, engine: AsyncEngine, kind: Kind) -> None:
        said = event(kind, 5, email="ada@example.com", emailVerified=True, name="Ada", image="https://x.example/a")
        assert await happen(engine, said) == [APPLIED]
        assert await row(engine, "email, email_verified, name, image, identity_updated_at, deleted_at") == (
            "ada@example.com", True, "Ada", "https://x.example/a", at(5), None,
        )  # fmt: skip

    async def test_silence_replaces_nothing(self, engine: AsyncEngine) -> None:
        await happen(engine, created(), event("updated", 1, name="Countess"))
        assert await row(engine, "name, email, email_verified, image") == (
            "Countess", "ada@example.com", True, "https://x.example/a",
        )  # fmt: skip

    async def test_older_than_the_row_changes_nothing(self, engine: AsyncEngine) -> None:
        outcomes = await happen(
            engine, created(10), event("updated", 9, name="Late"), event("updated", 10, name="Same")
        )
        assert outcomes == [APPLIED, UNCHANGED, UNCHANGED]
        assert await row(engine, "name") == ("Ada Lovelace",)

    async def test_what_confirms_the_row_makes_older_news_late_and_is_not_an_update(self, engine: AsyncEngine) -> None:
        await happen(engine, created(0))
        (before,) = await row(engine, "updated_at")
        outcomes = await happen(engine, created(20), event("updated", 10, name="Countess"))
        assert outcomes == [UNCHANGED, UNCHANGED]
        assert await row(engine, "name, updated_at, identity_updated_at") == ("Ada Lovelace", before, at(20))

    async def test_without_a_date_it_makes_a_row_and_changes_none(self, engine: AsyncEngine) -> None:
        assert await happen(engine, created(None), created(None, name="Countess")) == [APPLIED, UNCHANGED]
        assert await row(engine, "name, identity_updated_at") == ("Ada Lovelace", None)

    async def test_what_the_app_owns_is_left_alone(self, engine: AsyncEngine) -> None:
        rules = ShadowRules(app_owned=frozenset({"name"}))
        await happen(engine, created(), event("updated", 1, name="Countess", email="new@example.com"), rules=rules)
        assert await row(engine, "name, email") == ("Ada Lovelace", "new@example.com")

    async def test_an_address_of_another_user_goes_to_the_newer_and_is_counted(self, engine: AsyncEngine) -> None:
        lost: list[AddressLost] = []
        rules = ShadowRules(observe=lost.append)
        bob = created(1, "bob", email="ada@example.com")
        await happen(engine, created(0), bob, bob, rules=rules)
        assert await row(engine, "email, email_verified") == ("ada@placeholder.invalid", False)
        assert await row(engine, "email, email_verified", "bob") == ("ada@example.com", True)
        assert lost == [AddressLost(loser="ada", winner="bob")]

    async def test_a_token_and_an_event_know_of_each_other(self, engine: AsyncEngine) -> None:
        await happen(engine, created(10))
        assert (await provision(engine, claims(iat=MONDAY + 5, name="Late"), RULES)).name == "Ada Lovelace"
        assert (await provision(engine, claims(iat=MONDAY + 15, name="Countess"), RULES)).name == "Countess"
        assert await happen(engine, event("updated", 12, name="Late")) == [UNCHANGED]


class TestVerified:
    @pytest.mark.parametrize(("members", "dated"), [({}, 0), ({"email": "ada@example.com"}, 1)])
    async def test_the_present_address_is_verified_and_dated_where_it_is_named(
        self, engine: AsyncEngine, members: dict[str, str], dated: int
    ) -> None:
        await happen(engine, created(emailVerified=False))
        assert await happen(engine, event("verified", 1, **members)) == [APPLIED]
        assert await row(engine, "email_verified, identity_updated_at") == (True, at(dated))

    @pytest.mark.parametrize(
        ("seconds", "members", "outcome"),
        [(1, {"email": "other@example.com"}, IGNORED), (-1, {}, UNCHANGED), (None, {}, UNCHANGED)],
        ids=["of another address", "older", "without a date"],
    )
    async def test_otherwise_nothing_is(
        self, engine: AsyncEngine, seconds: float | None, members: dict[str, str], outcome: Outcome
    ) -> None:
        await happen(engine, created(emailVerified=False))
        assert await happen(engine, event("verified", seconds, **members)) == [outcome]
        assert await row(engine, "email_verified, identity_updated_at") == (False, at(0))

    async def test_it_is_in_the_second_of_the_address_too(self, engine: AsyncEngine) -> None:
        await happen(engine, created(0.75, emailVerified=False))
        assert await happen(engine, event("verified", 0)) == [APPLIED]
        assert await row(engine, "email_verified, identity_updated_at") == (True, at(0.75))

    async def test_it_may_come_before_the_user(self, engine: AsyncEngine) -> None:
        await happen(engine, event("verified", 5), created(4, emailVerified=False))
        assert await row(engine, "email, email_verified") == ("ada@example.com", True)
        await happen(engine, event("verified", 3, sub="bob"), created(4, "bob", emailVerified=False))
        assert await row(engine, "email_verified", "bob") == (False,)

    async def test_one_that_names_its_address_does_not_before_the_row_has_it(self, engine: AsyncEngine) -> None:
        early = event("verified", 5, email="ada@example.com")
        assert await happen(engine, early, created(4, emailVerified=False)) == [IGNORED, APPLIED]
        assert await row(engine, "email, email_verified") == ("ada@example.com", False)

    async def test_it_may_come_before_the_change_of_the_address_that_it_verifies(self, engine: AsyncEngine) -> None:
        changed = event("updated", 4, email="new@example.com", emailVerified=False, name="Countess")
        await happen(engine, created(0, emailVerified=False), event("verified", 5), changed)
        assert await row(engine, "email, email_verified, name") == ("new@example.com", True, "Countess")

    async def test_it_verifies_what_is_stated_until_then_and_nothing_later(self, engine: AsyncEngine) -> None:
        said: dict[str, Any] = {"email": "ada@example.com", "emailVerified": False}
        await happen(engine, event("verified", 5), created(0, **said), event("updated", 4, **said, name="Countess"))
        assert await row(engine, "email_verified, name") == (True, "Countess")
        await happen(engine, event("updated", 6, **said))
        assert await row(engine, "email_verified") == (False,)
        await happen(engine, created(1, sub="bob"), event("verified", 5, sub="bob"))
        await happen(engine, event("updated", 6, sub="bob", email="new@example.com"))
        assert await row(engine, "email, email_verified", "bob") == ("new@example.com", False)

    async def test_a_late_creation_does_not_bring_it_back_after_a_newer_statement(self, engine: AsyncEngine) -> None:
        said: dict[str, Any] = {"email": "ada@example.com", "emailVerified": False}
        await happen(engine, event("updated", 20, **said), event("verified", 10), created(5, **said))
        assert await row(engine, "email_verified") == (False,)

    async def test_an_address_that_was_named_verifies_no_other(self, engine: AsyncEngine) -> None:
        named = event("verified", 5, email="ada@example.com")
        await happen(engine, created(0, emailVerified=False), named)
        late, newer = (event("updated", seconds, email="new@example.com", emailVerified=False) for seconds in (4, 6))
        assert await happen(engine, late, newer) == [UNCHANGED, APPLIED]
        assert await row(engine, "email, email_verified") == ("new@example.com", False)

    async def test_it_does_not_verify_what_the_row_gets_for_an_address_that_it_lost(self, engine: AsyncEngine) -> None:
        await happen(engine, event("updated", 3, email="it@example.com"), event("verified", 5))
        await happen(engine, created(6, "bob", email="it@example.com"), created(1, emailVerified=False))
        assert await row(engine, "email, email_verified") == ("ada@example.com", False)

    async def test_a_test_of_it_verifies_nothing(self, engine: AsyncEngine) -> None:
        await happen(engine, event("verified", 5, is_test=True), created(0, emailVerified=False))
        assert await row(engine, "email_verified") == (False,)

    @pytest.mark.parametrize("address", ["ada@example.com", "new@example.com"])
    async def test_a_token_from_before_it_does_not_take_it_back_and_one_from_after_it_does(
        self, engine: AsyncEngine, address: str
    ) -> None:
        await happen(engine, created(0, emailVerified=False), event("verified", 5))
        for iat, verified in ((4, True), (6, False)):
            token = claims(iat=MONDAY + iat, email=address, email_verified=False)
            for _ in range(2):
                user = await provision(engine, token, RULES)
                assert (user.email, user.email_verified) == (address, verified)

    async def test_nor_does_one_that_waited_for_it(self, engine: AsyncEngine) -> None:
        await happen(engine, created(0, emailVerified=False))
        async with engine.begin() as writer:
            received = "INSERT INTO shadow_events (id, type, sub, stated_at, outcome) VALUES ('evt', 'user.verified', "
            await writer.execute(text(received + "'ada', :at, 'applied')"), {"at": at(5)})
            await writer.execute(text("UPDATE users SET email_verified = true"))
            token = claims(iat=MONDAY + 4, email="new@example.com", email_verified=False)
            request = asyncio.create_task(provision(engine, token, RULES))
            await waiting(engine)
        assert ((user := await request).email, user.email_verified) == ("new@example.com", True)

    async def test_a_row_that_a_token_from_before_it_makes_is_verified(self, engine: AsyncEngine) -> None:
        await happen(engine, event("verified", 5), event("verified", 5, sub="bob"))
        assert (await provision(engine, claims(iat=MONDAY + 4, email_verified=False), RULES)).email_verified
        assert not (await provision(engine, claims("bob", iat=MONDAY + 6, email_verified=False), RULES)).email_verified
        no_address = claims("cyd", iat=MONDAY + 4, email=None, email_verified=None)
        assert not (await provision(engine, no_address, RULES)).email_verified

    @pytest.mark.parametrize(("seconds", "verified"), [(4, True), (6, False)])
    async def test_nor_does_what_was_read_at_the_provider_before_it(
        self, engine: AsyncEngine, seconds: int, verified: bool
    ) -> None:
        await happen(engine, created(0, emailVerified=False), event("verified", 5))
        read = Identity.stated("ada", {"email": "ada@example.com", "emailVerified": False}, at(seconds))
        await assert_identity(engine, read, RULES)
        assert await row(engine, "email_verified, identity_updated_at") == (verified, at(seconds))

    async def test_who_had_left_by_himself_comes_back_verified(self, engine: AsyncEngine) -> None:
        later = (datetime.now(UTC) - at(0)).total_seconds() + 60
        await happen(engine, created(emailVerified=False))
        await soft_delete(engine, "ada")
        await happen(engine, event("verified", later + 1), created(later, emailVerified=False))
        assert await row(engine, "email_verified, deleted_at") == (True, None)

    async def test_at_once_with_the_event_that_makes_the_row_it_counts(self, engine: AsyncEngine) -> None:
        for n in range(40):
            both = [event("verified", 5, sub=f"u{n}"), created(4, f"u{n}", emailVerified=False)]
            await asyncio.gather(*(apply_event(engine, each, RULES, on_deleted="soft") for each in both))
        assert await query(engine, "SELECT DISTINCT email_verified FROM users") == [(True,)]

    @pytest.mark.parametrize("verified", [True, False])
    async def test_an_update_that_names_no_address_speaks_of_the_present_one(
        self, engine: AsyncEngine, verified: bool
    ) -> None:
        await happen(engine, created(emailVerified=not verified))
        assert await happen(engine, event("updated", 1, emailVerified=verified)) == [APPLIED]
        assert await row(engine, "email, email_verified") == ("ada@example.com", verified)
        assert await happen(engine, event("updated", 1, emailVerified=not verified)) == [UNCHANGED]
        assert await happen(engine, event("updated", 0, emailVerified=not verified)) == [UNCHANGED]

    async def test_nor_does_an_update_verify_a_placeholder(self, engine: AsyncEngine) -> None:
        await happen(engine, created(email=None, emailVerified=None), event("updated", 1, emailVerified=True))
        assert await row(engine, "email, email_verified") == ("ada@placeholder.invalid", False)

    async def test_nor_is_a_placeholder_a_deleted_row_or_one_that_is_not_there(self, engine: AsyncEngine) -> None:
        await happen(engine, created(email=None), created(sub="bob"), event("deleted", 1, sub="bob"))
        for sub in ("ada", "bob", "nobody"):
            assert await happen(engine, event("verified", 9, sub=sub)) == [UNCHANGED]
        assert await query(engine, "SELECT id, email_verified FROM users ORDER BY id") == [
            ("ada", False),
            ("bob", False),
        ]


class TestLateCreation:
    """`created` comes after what was said later."""

    async def test_it_says_what_nothing_newer_has_said(self, engine: AsyncEngine) -> None:
        await happen(engine, event("updated", 5, image="https://x.example/b"), created(0, image="https://x.example/a"))
        assert await row(engine, "name, email, email_verified, image, identity_updated_at") == (
            "Ada Lovelace", "ada@example.com", True, "https://x.example/b", at(5),
        )  # fmt: skip

    async def test_without_a_date_it_says_nothing(self, engine: AsyncEngine) -> None:
        assert await happen(engine, event("updated", 5), created(None)) == [APPLIED, UNCHANGED]
        assert await row(engine, TOMBSTONE) == NOTHING

    async def test_it_does_not_touch_the_name_that_the_user_writes_meanwhile(self, engine: AsyncEngine) -> None:
        rules = ShadowRules(app_owned=frozenset({"name"}))
        await provision(engine, claims(iat=MONDAY + 60, name=None), rules)
        async with engine.begin() as writer:
            await writer.execute(text("UPDATE users SET name = 'Mine'"))
            late = asyncio.create_task(happen(engine, created(0), rules=rules))
            await waiting(engine)
        assert await late == [UNCHANGED]
        assert await row(engine, "name") == ("Mine",)

    @pytest.mark.parametrize("silence", [{"name": None}, {"email": None, "email_verified": None}])
    async def test_nor_a_row_that_its_user_deletes_meanwhile(
        self, engine: AsyncEngine, silence: dict[str, Any]
    ) -> None:
        await provision(engine, claims(iat=MONDAY + 60, **silence), RULES)
        before = await row(engine, TOMBSTONE)
        async with engine.begin() as writer:
            await writer.execute(text("UPDATE users SET deleted_at = now()"))
            late = asyncio.create_task(happen(engine, created(0)))
            await waiting(engine)
        assert await late == [UNCHANGED]
        assert await row(engine, TOMBSTONE) == before

    @pytest.mark.parametrize("erase", [False, True])
    @pytest.mark.parametrize("seconds", [0, 10, 10.9])
    async def test_what_a_deletion_took_away_does_not_come_back(
        self, engine: AsyncEngine, erase: bool, seconds: float
    ) -> None:
        brings_back = event("created", 20)
        late = created(seconds)
        assert await happen(engine, event("deleted", 10), brings_back, late, erase=erase) == [
            APPLIED, APPLIED, UNCHANGED,
        ]  # fmt: skip
        assert await row(engine, TOMBSTONE) == NOTHING
        assert await row(engine, "deleted_at") == (None,)

    async def test_nor_where_the_deletion_came_too_late_to_count(self, engine: AsyncEngine) -> None:
        assert await happen(engine, event("updated", 20), event("deleted", 10), created(0)) == [
            APPLIED, UNCHANGED, UNCHANGED,
        ]  # fmt: skip
        assert await row(engine, TOMBSTONE) == NOTHING

    async def test_what_was_said_after_it_does(self, engine: AsyncEngine) -> None:
        await happen(engine, event("deleted", 10), event("created", 20), created(15))
        assert await row(engine, "name, email, email_verified") == ("Ada Lovelace", "ada@example.com", True)


class TestDeleted:
    async def test_the_row_says_nothing_any_more(self, engine: AsyncEngine) -> None:
        assert await happen(engine, created(), event("deleted", 7)) == [APPLIED, APPLIED]
        assert await row(engine, TOMBSTONE) == NOTHING
        assert await row(engine, "deleted_at, identity_updated_at") == (at(7), at(7))

    @pytest.mark.parametrize("erase", [False, True])
    async def test_a_token_that_still_lives_makes_no_user(self, engine: AsyncEngine, erase: bool) -> None:
        for sub, events in (("ada", [created(), event("deleted", 7)]), ("eve", [event("deleted", 7, sub="eve")])):
            await happen(engine, *events, erase=erase)
            with pytest.raises(AccountDeleted):
                await provision(engine, claims(sub, iat=MONDAY + 60), RULES)
            assert (await row(engine, "email", sub))[0] == f"{sub}@placeholder.invalid"

    async def test_nothing_is_verified_though_an_event_said_so_later(self, engine: AsyncEngine) -> None:
        await happen(engine, created(), event("verified", 9), event("deleted", 7))
        assert await row(engine, TOMBSTONE) == NOTHING

    async def test_its_whole_second_counts_against_a_row_of_the_same_second(self, engine: AsyncEngine) -> None:
        assert await happen(engine, created(10.9), event("deleted", 9)) == [APPLIED, UNCHANGED]
        assert await happen(engine, event("deleted", 10)) == [APPLIED]

    async def test_late_events_and_tokens_leave_it_so(self, engine: AsyncEngine) -> None:
        await happen(engine, created(), event("deleted", 10))
        late = [created(5), created(10), event("updated", 20, name="X"), event("verified", 20)]
        assert await happen(engine, *late) == [UNCHANGED] * 4
        assert await row(engine, TOMBSTONE) == NOTHING

    async def test_said_twice_it_is_done_once(self, engine: AsyncEngine) -> None:
        assert await happen(engine, created(), event("deleted", 7), event("deleted", 7)) == [
            APPLIED,
            APPLIED,
            UNCHANGED,
        ]

    async def test_the_address_is_free_for_another(self, engine: AsyncEngine) -> None:
        await happen(engine, created(0), event("deleted", 100))
        bob = await provision(engine, claims("bob", email="ada@example.com", iat=MONDAY + 1), RULES)
        assert (bob.email, bob.email_verified) == ("ada@example.com", True)

    async def test_who_left_by_himself_is_anonymised_too(self, engine: AsyncEngine) -> None:
        await happen(engine, created())
        await soft_delete(engine, "ada")
        assert await happen(engine, event("deleted", 7)) == [APPLIED]
        assert await row(engine, TOMBSTONE) == NOTHING

    async def test_a_placeholder_that_another_row_has_from_before_is_no_obstacle(self, engine: AsyncEngine) -> None:
        await execute(engine, "INSERT INTO users (id, name, email) VALUES ('new', 'N', 'ada@placeholder.invalid')")
        assert await happen(engine, event("deleted", 7)) == [APPLIED]
        assert await query(engine, "SELECT id, email FROM users ORDER BY id") == [
            ("ada", "ada@placeholder.invalid"), ("new", "new@placeholder.invalid"),
        ]  # fmt: skip


class TestReturn:
    async def test_a_user_made_anew_after_the_deletion_is_live_again(self, engine: AsyncEngine) -> None:
        await happen(engine, created(), event("deleted", 10))
        assert await happen(engine, created(11, email="back@example.com", image=None)) == [APPLIED]
        assert await row(engine, "name, email, email_verified, image, deleted_at, identity_updated_at") == (
            "Ada Lovelace", "back@example.com", True, None, None, at(11),
        )  # fmt: skip
        assert (await provision(engine, claims(iat=MONDAY + 12, email="back@example.com"), RULES)).id == "ada"

    async def test_who_left_by_himself_comes_back_the_same_way(self, engine: AsyncEngine) -> None:
        await happen(engine, created())
        await soft_delete(engine, "ada")
        later = (datetime.now(UTC) - at(0)).total_seconds() + 60
        assert await happen(engine, created(later - 3_600), created(later)) == [UNCHANGED, APPLIED]
        assert await row(engine, "name, email, deleted_at") == ("Ada Lovelace", "ada@example.com", None)

    async def test_with_an_address_that_is_another_s_by_now_the_newer_has_it(self, engine: AsyncEngine) -> None:
        await happen(engine, created(), event("deleted", 10), created(12, "bob", email="ada@example.com"), created(11))
        assert await row(engine, "email, email_verified, deleted_at") == ("ada@placeholder.invalid", False, None)
        await happen(engine, created(13))
        assert await row(engine, "email") == ("ada@example.com",)
        assert await row(engine, "email", "bob") == ("bob@placeholder.invalid",)

    async def test_what_the_app_owns_is_taken_where_the_deletion_left_nothing(self, engine: AsyncEngine) -> None:
        rules = ShadowRules(app_owned=frozenset({"name", "image"}))
        await happen(engine, created(), event("deleted", 10), created(11, name="Countess"), rules=rules)
        assert await row(engine, "name, image") == ("Countess", "https://x.example/a")

    async def test_an_erased_one_comes_back_too(self, engine: AsyncEngine) -> None:
        await happen(engine, created(), event("deleted", 10), created(11), erase=True)
        assert await row(engine, "name, email, deleted_at") == ("Ada Lovelace", "ada@example.com", None)


class TestStanding:
    @pytest.mark.parametrize(
        "members", [{"banned": True}, {"status": "deactivated"}, {"deactivatedAt": "2026-01-01T00:00:00Z"}]
    )
    async def test_who_is_shut_out_is_refused_until_let_in(self, engine: AsyncEngine, members: dict[str, Any]) -> None:
        await happen(engine, created())
        assert await happen(engine, event("updated", 10, **members)) == [APPLIED]
        with pytest.raises(AccountDisabled):
            await provision(engine, claims(iat=MONDAY + 60), RULES)
        await happen(engine, event("updated", 20, **dict.fromkeys(members)))
        assert (await provision(engine, claims(iat=MONDAY + 60), RULES)).id == "ada"

    async def test_of_two_the_newer_counts_whichever_comes_first(self, engine: AsyncEngine) -> None:
        await happen(engine, event("updated", 20, banned=False), event("updated", 10, banned=True))
        assert await query(engine, "SELECT disabled, stated_at FROM shadow_standing") == [(False, at(20))]

    async def test_who_has_no_row_yet_gets_none(self, engine: AsyncEngine) -> None:
        await set_standing(engine, "ada", True, None, at(0))
        with pytest.raises(AccountDisabled):
            await provision(engine, claims(), RULES)
        assert await query(engine, "SELECT id FROM users") == []

    async def test_a_ban_that_has_run_out_shuts_nobody_out(self, engine: AsyncEngine) -> None:
        await happen(engine, created(banned=True, banExpires="2025-01-01T00:00:00Z"))
        assert (await provision(engine, claims(), RULES)).id == "ada"

    async def test_a_ban_runs_out_by_itself(self, engine: AsyncEngine) -> None:
        ends = datetime.now(UTC) + timedelta(seconds=1)
        await happen(engine, created(banned=True, banExpires=ends.isoformat()))
        with pytest.raises(AccountDisabled):
            await provision(engine, claims(), RULES)
        await asyncio.sleep((ends - datetime.now(UTC)).total_seconds() + 0.05)
        assert (await provision(engine, claims(), RULES)).id == "ada"

    @pytest.mark.parametrize("reason", [{"status": "suspended"}, {"deactivatedAt": "2026-01-01T00:00:00Z"}])
    async def test_another_reason_does_not_run_out_with_it(self, engine: AsyncEngine, reason: dict[str, Any]) -> None:
        ends = datetime.now(UTC) + timedelta(days=1)
        await happen(engine, created(banned=True, banExpires=ends.isoformat(), **reason))
        assert await query(engine, "SELECT disabled, until FROM shadow_standing") == [(True, None)]

    async def test_silence_says_nothing_of_it(self, engine: AsyncEngine) -> None:
        await happen(engine, created(), event("updated", 1, name="X"), event("verified", 2))
        assert await query(engine, "SELECT * FROM shadow_standing") == []


class TestReadAtTheProvider:
    async def test_what_was_read_makes_a_row_and_is_followed(self, engine: AsyncEngine) -> None:
        def read(name: str) -> Identity:
            return Identity.stated("ada", {"email": "a@example.com", "name": name}, at(5 if name == "A" else 6))

        outcomes = [await assert_identity(engine, read(name), RULES) for name in ("A", "A", "B", "A")]
        assert outcomes == [APPLIED, UNCHANGED, APPLIED, UNCHANGED]
        assert await row(engine, "name") == ("B",)
        assert await query(engine, "SELECT * FROM shadow_events") == []

    async def test_nobody_comes_back_by_it(self, engine: AsyncEngine) -> None:
        await happen(engine, created(), event("deleted", 10))
        assert await assert_identity(engine, Identity.stated("ada", {"name": "A"}, at(99)), RULES) == UNCHANGED
        assert await row(engine, TOMBSTONE) == NOTHING

    async def test_who_is_gone_is_deleted_unless_something_newer_is_known(self, engine: AsyncEngine) -> None:
        await happen(engine, created(10))
        assert await mark_deleted(engine, "ada", at(5), "soft") == UNCHANGED
        assert await mark_deleted(engine, "ada", at(15), "soft") == APPLIED
        assert await row(engine, TOMBSTONE) == NOTHING


class TestBesideAnOldApp:
    """`users` is a view, over a table with names of its own."""

    @pytest.mark.parametrize("erase", [False, True])
    async def test_all_of_it_works_through_the_view(self, engine: AsyncEngine, erase: bool) -> None:
        await execute(
            engine,
            'ALTER TABLE users RENAME TO "user"',
            'ALTER TABLE "user" RENAME email_verified TO "emailVerified"',
            'CREATE VIEW users AS SELECT id, name, email, "emailVerified" AS email_verified, image, '
            'onboarding_completed_at, created_at, updated_at, deleted_at, identity_updated_at FROM "user"',
            "ALTER VIEW users ALTER email_verified SET DEFAULT false",
        )
        changed = event("updated", 1, name="Countess", email="new@example.com")
        await happen(engine, created(0, emailVerified=False), event("verified", 2), changed)
        assert await query(engine, 'SELECT name, "emailVerified" FROM "user"') == [("Countess", True)]
        await happen(engine, event("deleted", 3), erase=erase)
        assert await row(engine, TOMBSTONE) == NOTHING
        await happen(engine, created(4))
        assert await row(engine, "name, deleted_at") == ("Ada Lovelace", None)
