"""Reconciliation on a real PostgreSQL, with a provider that says what a test wants it to say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import AccountDeleted, AccountDisabled
from app.idp.directory import DirectoryFailed, Entry, Page
from app.users.identity import ShadowRules
from app.users.reconcile import SHOWN, Course, Kind, Reconciliation, reconcile
from app.users.shadow import provision
from tests.users.stated import claims

pytestmark = pytest.mark.anyio

LONG_AGO = "'2026-01-05 10:00Z'"


class Provider:
    """A directory of people; without `lists` it can only be asked for one at a time."""

    def __init__(self, *subs: str, lists: bool = True, size: int = 2) -> None:
        self.people: dict[str, dict[str, Any]] = {sub: member(sub) for sub in subs}
        self.orders = ("createdAt", "id", "id") if lists else ()
        self.size = size
        self.total_is_off_by: list[int] = []
        """For each reading of the list in turn; afterwards it is right."""
        self.hidden: set[str] = set()
        """Who is not in the list though the provider knows them."""
        self.fails_at: set[str] = set()
        self.unclear: set[str] = set()
        self.found: list[str] = []
        self.ahead = timedelta()

    def entry(self, sub: str) -> Entry:
        return Entry(sub, "known", self.people[sub], datetime.now(UTC) + self.ahead)

    async def pages(self, order: str) -> AsyncIterator[Page]:
        shown = [sub for sub in self.people if sub not in self.hidden]
        total = len(shown) + (self.total_is_off_by.pop(0) if self.total_is_off_by else 0)
        for start in range(0, len(shown) + 1, self.size):
            subs = shown[start : start + self.size]
            if self.fails_at.intersection(subs):
                raise DirectoryFailed("It is down.")
            yield Page(tuple(self.entry(sub) for sub in subs), total)

    async def find(self, sub: str) -> Entry:
        self.found.append(sub)
        if sub in self.fails_at:
            raise DirectoryFailed("It is down.")
        if sub in self.people:
            return self.entry(sub)
        return Entry(sub, "unclear" if sub in self.unclear else "unknown", {}, datetime.now(UTC) + self.ahead)


def member(sub: str, **other: Any) -> dict[str, Any]:
    """Return what Better Auth's admin plugin says of a user."""
    return {
        "id": sub,
        "name": sub.title(),
        "email": f"{sub}@example.com",
        "emailVerified": True,
        "image": None,
        "banned": False,
    } | other


async def run(engine: AsyncEngine, provider: Provider, *, execute: bool = True, **course: Any) -> Reconciliation:
    rules = course.pop("rules", ShadowRules())
    return await reconcile(engine, provider, Course(execute=execute, rules=rules, **course))


async def query(engine: AsyncEngine, sql: str) -> list[tuple[Any, ...]]:
    async with engine.begin() as connection:
        result = await connection.exec_driver_sql(sql)
        return [tuple(row) for row in result] if result.returns_rows else []


async def have(engine: AsyncEngine, subs: Iterable[str]) -> None:
    """Make rows that are in step with what `member` says, as of long ago."""
    for sub in subs:
        await query(
            engine,
            "INSERT INTO users (id, name, email, email_verified, identity_updated_at) "
            f"VALUES ('{sub}', '{sub.title()}', '{sub}@example.com', true, {LONG_AGO})",
        )


async def live(engine: AsyncEngine) -> set[str]:
    return {sub for (sub,) in await query(engine, "SELECT id FROM users WHERE deleted_at IS NULL")}


async def everything(engine: AsyncEngine) -> list[tuple[Any, ...]]:
    """Return every row of ours with the transaction that wrote it."""
    users = await query(engine, "SELECT xmin::text, u::text FROM users u ORDER BY id")
    return users + await query(engine, "SELECT xmin::text, s::text FROM shadow_standing s ORDER BY id")


def counts(result: Reconciliation) -> dict[str, int]:
    return {kind.value: count for kind, count in result.counts.items() if count}


CROWD = [f"p{number:03}" for number in range(100)]


class TestComparison:
    async def situation(self, engine: AsyncEngine) -> Provider:
        """One of each kind, and enough of those in step."""
        await have(engine, [*CROWD, "differs", "shut", "free", "gone", "left", "odd", "unlisted"])
        await query(engine, "UPDATE users SET deleted_at = now() WHERE id = 'left'")
        await query(engine, f"INSERT INTO shadow_standing VALUES ('free', true, {LONG_AGO})")
        provider = Provider(*CROWD, "differs", "new", "shut", "free", "left", "unlisted")
        provider.people["differs"] |= {"name": "Else", "email": "else@example.com"}
        provider.people["shut"]["banned"] = True
        provider.hidden, provider.unclear = {"unlisted"}, {"odd"}
        return provider

    FOUND: ClassVar = {
        "same": len(CROWD) + 1, "differ": 1, "missing": 1, "disabled": 1, "enabled": 1, "gone": 1, "deleted_here": 1,
        "unclear": 1,
    }  # fmt: skip

    async def test_a_dry_run_finds_each_and_writes_nothing(self, engine: AsyncEngine) -> None:
        provider = await self.situation(engine)
        before = await everything(engine)
        result = await run(engine, provider, execute=False)
        assert (counts(result), result.refusal, result.deleted, result.in_step) == (self.FOUND, None, 0, False)
        assert {kind.value: [each.sub for each in found] for kind, found in result.first.items() if found} == {
            "differ": ["differs"], "missing": ["new"], "disabled": ["shut"], "enabled": ["free"], "gone": ["gone"],
            "deleted_here": ["left"], "unclear": ["odd"],
        }  # fmt: skip
        assert result.first[Kind.DIFFER][0].columns == ("name", "email")
        assert await everything(engine) == before

    async def test_with_execute_the_rows_come_into_step_and_another_run_writes_nothing(
        self, engine: AsyncEngine
    ) -> None:
        provider = await self.situation(engine)
        result = await run(engine, provider)
        assert (counts(result), result.refusal, result.deleted) == (self.FOUND, None, 1)
        assert await live(engine) == {*provider.people, "odd"} - {"left"}
        (differs,) = await query(engine, "SELECT name, email, email_verified FROM users WHERE id = 'differs'")
        assert differs == ("Else", "else@example.com", True)
        (gone,) = await query(engine, "SELECT name, email, deleted_at IS NOT NULL FROM users WHERE id = 'gone'")
        assert gone == ("", "gone@placeholder.invalid", True)
        assert set(await query(engine, "SELECT id, disabled FROM shadow_standing")) == {("shut", True), ("free", False)}

        before = await everything(engine)
        again = await run(engine, provider)
        assert (counts(again), again.in_step) == (
            {"same": len(provider.people) - 1, "deleted_here": 1, "unclear": 1},
            True,
        )
        assert await everything(engine) == before

    async def test_who_is_shut_out_or_gone_has_no_use_of_a_token(self, engine: AsyncEngine) -> None:
        provider = await self.situation(engine)
        await run(engine, provider)
        with pytest.raises(AccountDisabled):
            await provision(engine, claims("shut"), ShadowRules())
        with pytest.raises(AccountDeleted):
            await provision(engine, claims("gone"), ShadowRules())

    async def test_what_the_app_owns_is_no_difference(self, engine: AsyncEngine) -> None:
        await have(engine, ["ada"])
        provider = Provider("ada")
        provider.people["ada"]["name"] = "Countess"
        owned = ShadowRules(app_owned=frozenset({"name"}))
        assert counts(await run(engine, provider, rules=owned)) == {"same": 1}

    async def test_what_was_stated_after_it_was_read_stands(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        await query(engine, "UPDATE users SET identity_updated_at = now() WHERE id IN ('p000', 'p001')")
        provider = Provider(*CROWD[1:])
        provider.people["p001"]["name"] = "Before"
        provider.ahead = timedelta(minutes=-1)
        result = await run(engine, provider)
        assert (result.counts[Kind.GONE], result.deleted) == (1, 0)
        assert await query(engine, "SELECT name FROM users WHERE id = 'p001'") == [("P001",)]
        assert "p000" in await live(engine)

    async def test_two_who_swapped_their_addresses_have_each_other_s(self, engine: AsyncEngine) -> None:
        await have(engine, ["ada", "bob"])
        provider = Provider("ada", "bob")
        for sub, other in (("ada", "bob"), ("bob", "ada")):
            provider.people[sub]["email"] = f"{other}@example.com"
        await run(engine, provider)
        assert await query(engine, "SELECT id, email FROM users ORDER BY id") == [
            ("ada", "bob@example.com"),
            ("bob", "ada@example.com"),
        ]

    async def test_of_each_kind_the_first_are_kept_and_all_are_counted(self, engine: AsyncEngine) -> None:
        result = await run(engine, Provider(*CROWD), execute=False)
        assert [each.sub for each in result.first[Kind.MISSING]] == CROWD[:SHOWN]
        assert result.counts[Kind.MISSING] == len(CROWD)


class TestTheList:
    async def test_an_empty_one_deletes_nobody_whatever_is_allowed(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        before = await everything(engine)
        provider = Provider()
        for allowed in (None, 100, 100_000):
            result = await run(engine, provider, allow_deletions=allowed)
            assert "empty" in (result.refusal or "")
        assert (provider.found, await everything(engine)) == ([], before)

    async def test_one_that_does_not_add_up_is_read_again_in_another_order(self, engine: AsyncEngine) -> None:
        provider = Provider("ada", "bob")
        provider.total_is_off_by = [1, -1]
        result = await run(engine, provider)
        assert (result.refusal, result.total, result.listed) == (None, 2, 2)
        assert counts(result) == {"missing": 2}

    async def test_one_that_never_does_deletes_nobody_whatever_is_allowed(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        provider = Provider(*CROWD[1:], "new")
        provider.total_is_off_by = [3, 3, 3]
        result = await run(engine, provider, allow_deletions=100)
        assert "103 users, and its list held 100" in (result.refusal or "")
        assert (provider.found, result.deleted) == ([], 0)
        assert await live(engine) == {*CROWD, "new"}

    async def test_who_is_not_in_it_and_is_known_is_not_deleted(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        provider = Provider(*CROWD)
        provider.hidden = set(CROWD[::2])
        result = await run(engine, provider, allow_deletions=100)
        assert (counts(result), result.deleted) == ({"same": 100}, 0)

    async def test_a_provider_that_goes_away_is_a_failure_and_another_run_finishes(self, engine: AsyncEngine) -> None:
        await have(engine, [*CROWD, "gone"])
        provider = Provider(*CROWD, "new-1", "new-2", "new-3", "new-4")
        provider.fails_at = {"new-3"}
        with pytest.raises(DirectoryFailed):
            await run(engine, provider)
        assert await live(engine) == {*CROWD, "gone", "new-1", "new-2"}
        provider.fails_at = {"gone"}
        with pytest.raises(DirectoryFailed):
            await run(engine, provider)
        assert await live(engine) == {*provider.people, "gone"}
        provider.fails_at = set()
        assert (await run(engine, provider)).deleted == 1
        assert await live(engine) == set(provider.people)


class TestAskedAgain:
    """A gateway that answers 404 in the provider's place does it for everybody."""

    class Vanishing(Provider):
        """Knows nobody any more after so many questions."""

        def __init__(self, *subs: str, answers: int) -> None:
            super().__init__(*subs, lists=False)
            self.answers = answers

        async def find(self, sub: str) -> Entry:
            if len(self.found) == self.answers:
                self.people.clear()
            return await super().find(sub)

    # with 100 rows, p000 gone: 100 questions, one for who is known, one for p000, one for who is known
    @pytest.mark.parametrize("answers", [96, 99, 100, 101, 102])
    async def test_if_one_who_was_known_is_no_longer_nobody_is_deleted(self, engine: AsyncEngine, answers: int) -> None:
        await have(engine, CROWD)
        with pytest.raises(DirectoryFailed, match="in front of it"):
            await run(engine, self.Vanishing(*CROWD[1:], answers=answers), on_deleted="erase", allow_deletions=100)
        assert await live(engine) == set(CROWD)

    async def test_if_they_are_the_one_who_is_gone_is(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        assert (await run(engine, self.Vanishing(*CROWD[1:], answers=103))).deleted == 1

    @pytest.mark.parametrize("executes", [False, True])
    async def test_who_is_known_the_second_time_stays_and_is_compared(
        self, engine: AsyncEngine, executes: bool
    ) -> None:
        class Returning(Provider):
            async def find(self, sub: str) -> Entry:
                entry = await super().find(sub)
                if sub == "p007":
                    self.people.setdefault(sub, member(sub, name="Back"))
                return entry

        await have(engine, CROWD)
        provider = Returning(*CROWD[:7], *CROWD[8:], lists=False)
        result = await run(engine, provider, execute=executes)
        assert (counts(result), result.deleted) == ({"same": 99, "differ": 1}, 0)
        assert await live(engine) == set(CROWD)

    async def test_who_is_in_the_list_counts_as_known(self, engine: AsyncEngine) -> None:
        class Closed(Provider):
            async def find(self, sub: str) -> Entry:
                return Entry(sub, "unknown", {}, datetime.now(UTC))

        await have(engine, CROWD)
        with pytest.raises(DirectoryFailed, match="in front of it"):
            await run(engine, Closed(*CROWD[1:]))
        assert await live(engine) == set(CROWD)


class TestBesideAnOldApp:
    """Whoever signs up there has a row here, and no provider knows them."""

    async def refused(self, engine: AsyncEngine, why: str, **course: Any) -> None:
        await have(engine, CROWD)
        for execute in (False, True):
            result = await run(engine, Provider(*CROWD[1:]), execute=execute, on_deleted="erase", **course)
            assert (why in (result.refusal or ""), result.counts[Kind.GONE], result.deleted) == (True, 1, 0)
        assert "--allow-deletions 1 " in (result.refusal or "")
        assert await live(engine) == set(CROWD)
        allowed = await run(engine, Provider(*CROWD[1:]), on_deleted="erase", allow_deletions=1, **course)
        assert (allowed.refusal, allowed.deleted) == (None, 1)

    async def test_while_its_sessions_are_taken_only_a_number_lets_anybody_go(self, engine: AsyncEngine) -> None:
        await self.refused(engine, "AUTH_MODE", takes_old_sessions=True)

    async def test_while_users_is_a_view_of_its_table_too(self, engine: AsyncEngine) -> None:
        await query(engine, "ALTER TABLE users RENAME TO people")
        await query(engine, "CREATE VIEW users AS SELECT * FROM people")
        await self.refused(engine, "users is a view")

    async def test_while_adopt_is_as_far_as_the_cutover_went_too(self, engine: AsyncEngine) -> None:
        await query(engine, "UPDATE shadow_alembic_version SET version_num = '0001_adopt'")
        await self.refused(engine, "0001_adopt")

    @pytest.mark.parametrize("revision", ["0002_retire", "0003_drop"])
    async def test_afterwards_it_is_no_matter(self, engine: AsyncEngine, revision: str) -> None:
        await have(engine, CROWD)
        await query(engine, f"UPDATE shadow_alembic_version SET version_num = '{revision}'")
        assert (await run(engine, Provider(*CROWD[1:]))).deleted == 1

    async def test_nor_where_there_was_no_cutover(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        await query(engine, "DROP TABLE shadow_alembic_version")
        assert (await run(engine, Provider(*CROWD[1:]))).deleted == 1

    async def test_how_far_it_went_must_be_readable(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        role = f"narrow_{id(engine)}"
        await query(engine, f"CREATE ROLE {role}")
        await query(engine, f"GRANT SELECT, INSERT, UPDATE ON users, shadow_standing TO {role}")

        def become(connection: Connection) -> None:
            connection.exec_driver_sql(f"SET LOCAL ROLE {role}")

        event.listen(engine.sync_engine, "begin", become)
        result = await run(engine, Provider(*CROWD[1:]))
        event.remove(engine.sync_engine, "begin", become)
        await query(engine, f"DROP OWNED BY {role}")
        await query(engine, f"DROP ROLE {role}")
        assert "GRANT SELECT ON shadow_alembic_version" in (result.refusal or "")


class TestTheBrake:
    @pytest.mark.parametrize(("gone", "stopped"), [(5, False), (6, True)])
    async def test_of_a_hundred_rows_five_may_go(self, engine: AsyncEngine, gone: int, stopped: bool) -> None:
        await have(engine, CROWD)
        for execute in (False, True):
            result = await run(engine, Provider(*CROWD[gone:]), execute=execute)
            assert (result.counts[Kind.GONE], result.refusal is not None) == (gone, stopped)
        assert len(await live(engine)) == (100 if stopped else 100 - gone)

    @pytest.mark.parametrize(("allowed", "stopped"), [(0, True), (19, True), (20, False), (99, False)])
    async def test_a_person_s_number_is_what_counts_then(
        self, engine: AsyncEngine, allowed: int, stopped: bool
    ) -> None:
        await have(engine, CROWD)
        result = await run(engine, Provider(*CROWD[20:]), allow_deletions=allowed)
        assert (result.refusal is not None, result.deleted) == (stopped, 0 if stopped else 20)

    async def test_a_number_also_brakes_where_five_percent_would_not(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        result = await run(engine, Provider(*CROWD[2:]), allow_deletions=1)
        assert ("allows 1" in (result.refusal or ""), len(await live(engine))) == (True, 100)

    async def test_everything_else_is_written_though_it_stops(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        result = await run(engine, Provider(*CROWD[50:], "new"))
        assert result.refusal is not None
        assert await live(engine) == {*CROWD, "new"}

    async def test_rows_that_were_just_added_do_not_loosen_it(self, engine: AsyncEngine) -> None:
        """A wrong provider has many users, and none of those here."""
        await have(engine, ["ada", "bob"])
        result = await run(engine, Provider(*CROWD))
        assert ("2 of 2" in (result.refusal or ""), {"ada", "bob"} <= await live(engine)) == (True, True)

    async def test_where_machines_have_rows_only_a_number_lets_anybody_go(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        machines = ShadowRules(provision_machines=True)
        stopped = await run(engine, Provider(*CROWD[1:]), rules=machines)
        assert ("PROVISION_MACHINE_TOKENS" in (stopped.refusal or ""), stopped.deleted) == (True, 0)
        assert (await run(engine, Provider(*CROWD[1:]), rules=machines, allow_deletions=1)).deleted == 1


class TestWithoutAList:
    async def test_each_is_asked_for_and_nobody_is_added(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        provider = Provider(*CROWD[1:], "new", lists=False)
        provider.people["p050"]["name"] = "Else"
        result = await run(engine, provider)
        assert (counts(result), result.deleted) == ({"same": 98, "differ": 1, "gone": 1}, 1)
        assert (result.total, sorted(provider.found)) == (
            None,
            sorted([*CROWD, "p000", "p099", "p099"]),
        )  # again who is gone, between one who is known
        assert await live(engine) == set(CROWD[1:])

    async def test_a_provider_that_knows_nobody_is_another_provider(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        result = await run(engine, Provider(lists=False), allow_deletions=100)
        assert "knows not one" in (result.refusal or "")
        assert await live(engine) == set(CROWD)


class TestErase:
    async def test_it_takes_what_cascades_and_spares_whom_a_key_protects(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD)
        for table, rule in (("notes", "ON DELETE CASCADE"), ("invoices", "")):
            await query(engine, f"CREATE TABLE {table} (author varchar(255) REFERENCES users (id) {rule})")
        await query(engine, "INSERT INTO notes VALUES ('p000'), ('p001'), ('p002')")
        await query(engine, "INSERT INTO invoices VALUES ('p001')")
        result = await run(engine, Provider(*CROWD[2:]), on_deleted="erase")
        assert result.deleted == 2
        assert await query(engine, "SELECT author FROM notes ORDER BY 1") == [("p001",), ("p002",)]
        assert await live(engine) == set(CROWD[2:])


class TestProgress:
    async def test_it_is_told_how_far_it_is(self, engine: AsyncEngine) -> None:
        await have(engine, CROWD[:30])
        told: list[tuple[str, int, int | None]] = []
        provider = Provider(*CROWD[1:30], size=10)
        await reconcile(engine, provider, Course(execute=True, rules=ShadowRules()), lambda *what: told.append(what))
        assert [done for what, done, total in told if "Reading" in what and total == 29] == [10, 20, 29]
        assert told[-3:] == [
            ("Asking for those it did not list", 30, 30),
            ("Asking again for those it does not know", 1, 1),
            ("Deleting who is gone", 1, 1),
        ]
