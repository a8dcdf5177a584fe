"""The shadow row on a real PostgreSQL, one request at a time; `test_contention.py` has them all at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import AccountDeleted, AccountDisabled, NoProfile, NotMigrated
from app.idp.events import IdpEvent
from app.users.events import Outcome, apply_event
from app.users.identity import AddressLost, Identity, ShadowRules
from app.users.shadow import check_shape, edit, provision, refresh, soft_delete
from tests.users.stated import MONDAY, claims

pytestmark = pytest.mark.anyio
RULES = ShadowRules()


async def query(engine: AsyncEngine, sql: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(sql))]


async def execute(engine: AsyncEngine, sql: str) -> None:
    async with engine.begin() as connection:
        await connection.execute(text(sql))


class TestProvision:
    async def test_the_first_token_makes_the_row(self, engine: AsyncEngine) -> None:
        user = await provision(engine, claims(), RULES)
        assert (user.id, user.name, user.email, user.email_verified) == ("ada", "Ada Lovelace", "ada@example.com", True)
        assert user.image == "https://example.com/ada.png"
        assert user.identity_updated_at == datetime.fromtimestamp(MONDAY, UTC)
        assert await query(engine, "SELECT id, email FROM users") == [("ada", "ada@example.com")]

    async def test_the_next_request_reads_and_does_not_write(self, engine: AsyncEngine) -> None:
        first = await provision(engine, claims(), RULES)
        version = await query(engine, "SELECT xmin, ctid FROM users")
        assert await provision(engine, claims(), RULES) == first
        assert await provision(engine, claims(iat=MONDAY + 900), RULES) == first
        assert await query(engine, "SELECT xmin, ctid FROM users") == version

    async def test_a_newer_token_is_followed(self, engine: AsyncEngine) -> None:
        before = await provision(engine, claims(), RULES)
        after = await provision(engine, claims(iat=MONDAY + 1, name="Countess", email="new@example.com"), RULES)
        assert (after.name, after.email) == ("Countess", "new@example.com")
        assert after.created_at == before.created_at
        assert after.updated_at > before.updated_at

    async def test_a_picture_that_is_said_to_be_gone_goes(self, engine: AsyncEngine) -> None:
        await provision(engine, claims(), RULES)
        gone = claims(iat=MONDAY + 1, image=None, without_image=True)
        assert (await provision(engine, gone, ShadowRules(app_owned=frozenset({"image"})))).image is not None
        assert (await provision(engine, gone, RULES)).image is None

    async def test_an_older_token_is_not(self, engine: AsyncEngine) -> None:
        after = await provision(engine, claims(iat=MONDAY), RULES)
        assert await provision(engine, claims(iat=MONDAY - 1, name="Byron", email="old@example.com"), RULES) == after

    async def test_without_an_address_there_is_a_placeholder_until_one_is_said(self, engine: AsyncEngine) -> None:
        user = await provision(engine, claims(email=None, email_verified=None), RULES)
        assert user.email is None
        assert await query(engine, "SELECT email FROM users") == [("ada@placeholder.invalid",)]
        assert (await provision(engine, claims(iat=MONDAY + 1), RULES)).email == "ada@example.com"

    async def test_without_a_name_it_is_empty_until_one_is_said(self, engine: AsyncEngine) -> None:
        assert (await provision(engine, claims(name=None), RULES)).name == ""
        assert (await provision(engine, claims(iat=MONDAY + 1), RULES)).name == "Ada Lovelace"

    async def test_what_the_app_owns_is_taken_at_first_sight_only(self, engine: AsyncEngine) -> None:
        rules = ShadowRules(app_owned=frozenset({"name"}))
        assert (await provision(engine, claims(), rules)).name == "Ada Lovelace"
        later = await provision(engine, claims(iat=MONDAY + 1, name="Countess", image="https://x.example/2"), rules)
        assert (later.name, later.image) == ("Ada Lovelace", "https://x.example/2")

    @pytest.mark.parametrize("sub", ["auth0|62f", "O'Hara; --", "用户\u200d", "s" * 255, " ", "%s :x"])
    async def test_any_sub_is_kept_verbatim(self, engine: AsyncEngine, sub: str) -> None:
        user = await provision(engine, claims(sub, email=None), RULES)
        assert (user.id, user.email) == (sub, None)
        assert (await provision(engine, claims(sub, email=None), RULES)).id == sub

    async def test_a_row_from_before_is_found_with_what_the_app_keeps_there(self, engine: AsyncEngine) -> None:
        await execute(engine, "ALTER TABLE users ADD plan text")
        await execute(engine, "INSERT INTO users (id, name, email, plan) VALUES ('ada', 'A', 'a@old.example', 'pro')")
        user = await provision(engine, claims(), RULES)
        assert (user.name, user.email, user.email_verified) == ("Ada Lovelace", "ada@example.com", True)
        assert await query(engine, "SELECT plan FROM users") == [("pro",)]


class TestNarrowColumns:
    """Beside an old app, whose own columns may hold less than a token says."""

    LONG = "x" * 60

    @pytest.fixture(autouse=True)
    async def narrow(self, engine: AsyncEngine) -> None:
        narrowed = ", ".join(f"ALTER {name} TYPE varchar(36)" for name in ("id", "name", "image", "email"))
        await execute(engine, f"ALTER TABLE users {narrowed}")

    @pytest.mark.parametrize("said", [{"name": LONG}, {"image": f"https://x.example/{LONG}"}])
    async def test_what_does_not_fit_is_done_without_at_first_sight_and_later(
        self, engine: AsyncEngine, said: dict[str, str]
    ) -> None:
        user = await provision(engine, claims(**said), RULES)
        assert user.email == "ada@example.com"
        user = await provision(engine, claims(iat=MONDAY + 1, email="new@example.com", **said), RULES)
        assert user.email == "new@example.com"

    async def test_the_same_token_is_not_tried_again(self, engine: AsyncEngine) -> None:
        await provision(engine, claims(), RULES)
        longer = claims(iat=MONDAY + 1, name=self.LONG)
        await provision(engine, longer, RULES)
        version = await query(engine, "SELECT xmin, ctid, name FROM users")
        assert version[0][2] == "Ada Lovelace"
        for _ in range(2):
            user = await provision(engine, longer, RULES)
        assert await query(engine, "SELECT xmin, ctid, name FROM users") == version
        assert not Identity.of(longer).changes(user, RULES)

    async def test_an_address_that_does_not_fit_is_not_known(self, engine: AsyncEngine) -> None:
        assert (await provision(engine, claims(email=f"{self.LONG}@x.example"), RULES)).email is None

    async def test_an_id_that_does_not_fit_is_said_to(self, engine: AsyncEngine) -> None:
        with pytest.raises(NotMigrated, match="cannot hold this id"):
            await provision(engine, claims(self.LONG), RULES)

    async def test_an_event_is_done_as_far_as_it_fits(self, engine: AsyncEngine) -> None:
        members = {"id": "ada", "name": self.LONG, "email": "ada@example.com"}
        event = IdpEvent(
            id="e1", type="user.created", kind="created", sub="ada",
            stated_at=datetime.fromtimestamp(MONDAY, UTC), members=members, is_test=False,
        )  # fmt: skip
        assert await apply_event(engine, event, RULES, on_deleted="soft") is Outcome.applied
        assert await query(engine, "SELECT name, email FROM users") == [("", "ada@example.com")]


class TestCost:
    async def test_a_row_that_is_up_to_date_costs_one_statement(self, engine: AsyncEngine) -> None:
        sent: list[str] = []

        def connected(connection: Any, _record: object) -> None:
            # asyncpg tells of what is not prepared: BEGIN, COMMIT, ROLLBACK
            connection.driver_connection.add_query_logger(lambda query: sent.append(query.query))

        def executing(_connection: object, _cursor: object, statement: str, *_: object) -> None:
            sent.append(statement)

        event.listen(engine.sync_engine, "connect", connected)
        event.listen(engine.sync_engine, "before_cursor_execute", executing)
        await provision(engine, claims(), RULES)
        await provision(engine, claims(iat=MONDAY + 1, name="Countess"), RULES)
        assert any(statement.startswith("BEGIN") for statement in sent)
        sent.clear()
        await provision(engine, claims(iat=MONDAY + 2, name="Countess"), RULES)
        (statement,) = sent
        assert statement.startswith("SELECT users.id")


class TestAccountsShutOut:
    async def test_a_disabled_account_is_refused_and_gets_no_row(self, engine: AsyncEngine) -> None:
        with pytest.raises(AccountDisabled):
            await provision(engine, claims(disabled=True), RULES)
        assert await query(engine, "SELECT count(*) FROM users") == [(0,)]

    async def test_a_deleted_account_stays_deleted_whatever_the_token(self, engine: AsyncEngine) -> None:
        await provision(engine, claims(), RULES)
        await soft_delete(engine, "ada")
        deleted = await query(engine, "SELECT * FROM users")
        for later in (claims(), claims(iat=MONDAY + 9, name="Back", email="back@example.com"), claims(kind="machine")):
            with pytest.raises(AccountDeleted):
                await provision(engine, later, RULES)
        await soft_delete(engine, "ada")
        assert await query(engine, "SELECT * FROM users") == deleted

    async def test_a_machine_gets_no_row_and_may_use_one_that_is_there(self, engine: AsyncEngine) -> None:
        machine = claims(kind="machine", iat=MONDAY + 1, name="Key", email=None)
        with pytest.raises(NoProfile):
            await provision(engine, machine, RULES)
        user = await provision(engine, claims(), RULES)
        assert await provision(engine, machine, RULES) == user

    async def test_unless_machines_are_provisioned(self, engine: AsyncEngine) -> None:
        rules = ShadowRules(provision_machines=True)
        assert (await provision(engine, claims(kind="machine", name="Key"), rules)).name == "Key"


class TestAddresses:
    async def test_the_newer_assertion_gets_the_address(self, engine: AsyncEngine) -> None:
        lost: list[AddressLost] = []
        rules = ShadowRules(observe=lost.append)
        await provision(engine, claims("old", email="it@example.com"), rules)
        new = await provision(engine, claims("new", email="it@example.com", iat=MONDAY + 1), rules)
        assert (new.email, new.email_verified) == ("it@example.com", True)
        assert lost == [AddressLost(loser="old", winner="new")]
        assert await query(engine, "SELECT email, email_verified FROM users WHERE id = 'old'") == [
            ("old@placeholder.invalid", False)
        ]

    @pytest.mark.parametrize("iat", [MONDAY, MONDAY - 1, None])
    async def test_one_that_is_no_newer_gets_a_placeholder(self, engine: AsyncEngine, iat: float | None) -> None:
        lost: list[AddressLost] = []
        rules = ShadowRules(observe=lost.append)
        await provision(engine, claims("first", email="it@example.com"), rules)
        second = await provision(engine, claims("second", email="it@example.com", iat=iat), rules)
        assert (second.email, second.email_verified) == (None, False)
        assert lost == [AddressLost(loser="second", winner="first")]
        assert (await provision(engine, claims("first", email="it@example.com"), rules)).email == "it@example.com"

    async def test_a_row_that_was_never_dated_gives_way(self, engine: AsyncEngine) -> None:
        await execute(engine, "INSERT INTO users (id, name, email) VALUES ('legacy', 'L', 'it@example.com')")
        assert (await provision(engine, claims("new", email="it@example.com"), RULES)).email == "it@example.com"
        assert await query(engine, "SELECT email FROM users WHERE id = 'legacy'") == [("legacy@placeholder.invalid",)]

    async def test_who_moves_to_an_address_that_a_newer_assertion_holds_gets_a_placeholder(
        self, engine: AsyncEngine
    ) -> None:
        await provision(engine, claims("ada", email="old@example.com"), RULES)
        await provision(engine, claims("bob", email="it@example.com", iat=MONDAY + 9), RULES)
        moving = claims("ada", email="it@example.com", iat=MONDAY + 5, name="Countess")
        ada = await provision(engine, moving, RULES)
        assert (ada.email, ada.name) == (None, "Countess")
        version = await query(engine, "SELECT id, xmin FROM users ORDER BY id")
        assert await provision(engine, moving, RULES) == ada
        assert await query(engine, "SELECT id, xmin FROM users ORDER BY id") == version

    async def test_ids_that_differ_in_case_have_placeholders_that_do_not(self, engine: AsyncEngine) -> None:
        await execute(engine, "CREATE UNIQUE INDEX ON users (lower(email))")
        for sub in ("Ada", "ada", "ADA"):
            user = await provision(engine, claims(sub, email=None, email_verified=None), RULES)
            assert (user.id, user.email) == (sub, None)
        for number, sub in enumerate(("BOB", "bob")):
            gone = IdpEvent(
                id=f"gone {number}", type="user.deleted", kind="deleted", sub=sub,
                stated_at=datetime.fromtimestamp(MONDAY, UTC), members={}, is_test=False,
            )  # fmt: skip
            assert await apply_event(engine, gone, RULES, on_deleted="erase") is Outcome.applied
        assert len(await query(engine, "SELECT id FROM users")) == 5

    async def test_addresses_that_differ_in_case_are_two(self, engine: AsyncEngine) -> None:
        await provision(engine, claims("a", email="It@example.com"), RULES)
        assert (await provision(engine, claims("b", email="it@example.com"), RULES)).email == "it@example.com"

    @pytest.mark.parametrize(
        "unlike",
        [
            ("CREATE UNIQUE INDEX ON users (lower(email))",),
            ("CREATE EXTENSION citext", "ALTER TABLE users ALTER email TYPE citext"),
        ],
        ids=["lower(email)", "citext"],
    )
    async def test_where_the_app_holds_them_to_be_one_the_newer_has_it(
        self, engine: AsyncEngine, unlike: tuple[str, ...]
    ) -> None:
        there = "SELECT name::text FROM pg_available_extensions WHERE name = 'citext'"
        if "CREATE EXTENSION citext" in unlike and not await query(engine, there):
            pytest.skip("this server has no citext")
        for statement in unlike:
            await execute(engine, statement)
        await provision(engine, claims("a", email="It@example.com"), RULES)
        newer = await provision(engine, claims("b", email="it@example.com", iat=MONDAY + 1), RULES)
        assert newer.email == "it@example.com"
        assert await query(engine, "SELECT email, email_verified FROM users WHERE id = 'a'") == [
            ("a@placeholder.invalid", False)
        ]
        older = await provision(engine, claims("c", email="IT@example.com", iat=MONDAY), RULES)
        assert (older.email, older.email_verified) == (None, False)
        # who moves to it, and who only writes it in another way
        await provision(engine, claims("d", iat=MONDAY + 2), RULES)
        assert (await provision(engine, claims("d", email="IT@Example.com", iat=MONDAY + 3), RULES)).email is not None
        assert (await provision(engine, claims("d", email="it@example.COM", iat=MONDAY + 4), RULES)).email is not None
        assert await query(engine, "SELECT id, email FROM users ORDER BY id") == [
            ("a", "a@placeholder.invalid"),
            ("b", "b@placeholder.invalid"),
            ("c", "c@placeholder.invalid"),
            ("d", "it@example.COM"),
        ]

    async def test_an_address_is_not_taken_from_another_because_the_id_was_taken(self, engine: AsyncEngine) -> None:
        await provision(engine, claims("a", email="It@example.com"), RULES)
        tokens = [claims("b", email="it@example.com", iat=MONDAY + n) for n in range(40)]
        await asyncio.gather(*(provision(engine, token, RULES) for token in tokens))
        assert await query(engine, "SELECT id, email FROM users ORDER BY id") == [
            ("a", "It@example.com"),
            ("b", "it@example.com"),
        ]

    async def test_no_token_takes_the_placeholder_of_another(self, engine: AsyncEngine) -> None:
        await provision(engine, claims("victim", email="it@example.com"), RULES)
        eve = await provision(engine, claims("eve", email="victim@placeholder.invalid", iat=MONDAY + 1), RULES)
        assert eve.email is None
        await provision(engine, claims("new", email="it@example.com", iat=MONDAY + 2), RULES)
        assert await query(engine, "SELECT id, email FROM users ORDER BY id") == [
            ("eve", "eve@placeholder.invalid"),
            ("new", "it@example.com"),
            ("victim", "victim@placeholder.invalid"),
        ]

    async def test_the_log_names_the_subs_and_no_address(
        self, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        await provision(engine, claims("old", email="it@example.com"), RULES)
        await provision(engine, claims("new", email="it@example.com", iat=MONDAY + 1), RULES)
        (line,) = (record.getMessage() for record in caplog.records if record.name == "app.users.rows")
        assert "'old'" in line
        assert "'new'" in line
        assert "example.com" not in line


class TestRefresh:
    async def test_the_row_at_hand_is_returned_if_nothing_differs(self, engine: AsyncEngine) -> None:
        user = await provision(engine, claims(), RULES)
        await execute(engine, "DROP TABLE users")  # nothing is asked of the database
        assert await refresh(engine, user, claims(iat=MONDAY + 1), RULES) is user

    async def test_a_difference_is_written_even_if_the_row_at_hand_is_outdated(self, engine: AsyncEngine) -> None:
        outdated = await provision(engine, claims(), RULES)
        await provision(engine, claims(iat=MONDAY + 1, email="second@example.com"), RULES)
        user = await refresh(engine, outdated, claims(iat=MONDAY + 2, email="third@example.com"), RULES)
        assert user.email == "third@example.com"


class TestEdit:
    async def test_only_what_is_named_changes(self, engine: AsyncEngine) -> None:
        before = await provision(engine, claims(), RULES)
        moment = datetime(2026, 3, 4, 10, 0, 0, 123456, UTC)
        after = await edit(engine, "ada", {"onboarding_completed_at": moment})
        assert after.onboarding_completed_at == moment
        assert (after.name, after.image, after.email) == (before.name, before.image, before.email)
        assert after.updated_at > before.updated_at
        assert (await edit(engine, "ada", {"onboarding_completed_at": None})).onboarding_completed_at is None

    async def test_nothing_named_nothing_written(self, engine: AsyncEngine) -> None:
        before = await provision(engine, claims(), RULES)
        assert await edit(engine, "ada", {}) == before

    async def test_a_row_that_is_deleted_or_not_there_is_refused(self, engine: AsyncEngine) -> None:
        await provision(engine, claims(), RULES)
        await soft_delete(engine, "ada")
        for sub in ("ada", "nobody"):
            for changes in ({}, {"name": "X"}):
                with pytest.raises(AccountDeleted):
                    await edit(engine, sub, changes)  # type: ignore[arg-type]


class TestShape:
    async def test_a_migrated_database_has_it(self, engine: AsyncEngine) -> None:
        await check_shape(engine)

    @pytest.mark.parametrize(
        "change",
        [
            "DROP TABLE users",
            "ALTER TABLE users DROP identity_updated_at",
            "ALTER TABLE users ALTER id TYPE uuid USING gen_random_uuid()",
        ],
    )
    async def test_another_is_told_from_it(self, engine: AsyncEngine, change: str) -> None:
        await execute(engine, change)
        with pytest.raises(NotMigrated):
            await check_shape(engine)
        with pytest.raises(NotMigrated):
            await provision(engine, claims(), RULES)
