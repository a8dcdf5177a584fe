"""Erasure on a real PostgreSQL: what is shown first, what goes, what forbids it, what stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import AccountDeleted, NotMigrated
from app.idp.events import IdpEvent
from app.users.erasure import Blocked, Reach, erase, survey
from app.users.events import Outcome, apply_event
from app.users.identity import ShadowRules
from app.users.shadow import provision
from tests.users.stated import MONDAY, claims

pytestmark = pytest.mark.anyio
RULES = ShadowRules()

PROJECTS = (
    "CREATE TABLE projects (id int PRIMARY KEY, owner text REFERENCES users (id) ON DELETE CASCADE)",
    "CREATE TABLE tasks (id int PRIMARY KEY, project int REFERENCES projects (id) ON DELETE CASCADE, "
    "parent int CONSTRAINT tasks_tree REFERENCES tasks (id) ON DELETE CASCADE, "
    "assignee text REFERENCES users (id) ON DELETE SET NULL)",
    "INSERT INTO projects VALUES (1, 'ada'), (2, 'ada'), (3, 'bob')",
    # of Ada's projects three tasks; below the third one of Bob's; and one of Bob's that she is to do
    "INSERT INTO tasks VALUES (1, 1, NULL, 'bob'), (2, 1, 1, 'ada'), (3, 2, NULL, NULL), (4, 3, 3, NULL), "
    "(5, 3, NULL, 'ada')",
)


async def query(engine: AsyncEngine, sql: str) -> list[tuple[Any, ...]]:
    async with engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(text(sql))]


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


@pytest.fixture
async def engine(engine: AsyncEngine) -> AsyncEngine:
    """The engine, with Ada and Bob in the database."""
    for sub in ("ada", "bob"):
        await provision(engine, claims(sub), RULES)
    return engine


def deletion(id: str = "evt", sub: str = "ada") -> IdpEvent:
    stated_at = datetime.fromtimestamp(MONDAY + 60, UTC)
    return IdpEvent(
        id=id, type="user.deleted", kind="deleted", sub=sub, stated_at=stated_at, members={}, is_test=False
    )  # fmt: skip


TOMBSTONE = ("ada", "", "ada@placeholder.invalid", False, None, True)


async def tombstone(engine: AsyncEngine, sub: str = "ada") -> list[tuple[Any, ...]]:
    columns = "id, name, email, email_verified, image, deleted_at = identity_updated_at"
    return await query(engine, f"SELECT {columns} FROM users WHERE id = '{sub}'")


class TestSurvey:
    async def test_it_follows_cascades_and_counts_each_row_once(self, engine: AsyncEngine) -> None:
        await execute(engine, *PROJECTS)
        found = await survey(engine, "ada")
        assert (found.table, found.found, found.blocked) == ("public.users", True, False)
        assert set(found.reaches) == {
            Reach("public.projects", "projects_owner_fkey", "goes", 2),
            Reach("public.tasks", "tasks_project_fkey", "goes", 3),
            Reach("public.tasks", "tasks_tree", "goes", 2),  # task 2 goes by both keys, task 4 by this one
            Reach("public.tasks", "tasks_assignee_fkey", "emptied", 1),  # task 2 goes; 5 stays
        }

    async def test_it_changes_nothing_and_tells_who_is_not_there(self, engine: AsyncEngine) -> None:
        await execute(engine, *PROJECTS)
        version = await query(engine, "SELECT id, xmin FROM users ORDER BY id")
        await survey(engine, "ada")
        nobody = await survey(engine, "nobody")
        assert (nobody.found, nobody.reaches) == (False, ())
        assert await query(engine, "SELECT id, xmin FROM users ORDER BY id") == version

    @pytest.mark.parametrize("action", ["", "ON DELETE RESTRICT", "DEFERRABLE INITIALLY DEFERRED"])
    async def test_rows_whose_key_does_not_cascade_block(self, engine: AsyncEngine, action: str) -> None:
        await execute(
            engine,
            f"CREATE TABLE invoices (n int, payer text CONSTRAINT paid_by REFERENCES users (id) {action})",
            "INSERT INTO invoices VALUES (1, 'ada'), (2, 'ada'), (3, 'bob')",
        )
        found = await survey(engine, "ada")
        assert (found.blocked, found.reaches) == (True, (Reach("public.invoices", "paid_by", "blocks", 2),))

    async def test_a_key_without_rows_blocks_nobody(self, engine: AsyncEngine) -> None:
        await execute(engine, "CREATE TABLE invoices (payer text REFERENCES users (id))")
        found = await survey(engine, "ada")
        assert (found.blocked, found.reaches) == (False, ())

    async def test_rows_that_go_another_way_do_not_block(self, engine: AsyncEngine) -> None:
        await execute(
            engine,
            "CREATE TABLE notes (author text REFERENCES users (id) ON DELETE CASCADE, "
            "editor text REFERENCES users (id))",
            "INSERT INTO notes VALUES ('ada', 'ada')",
        )
        assert not (await survey(engine, "ada")).blocked
        await erase(engine, "ada")
        assert await query(engine, "SELECT * FROM notes") == []

    async def test_keys_to_the_address_and_of_several_columns_and_partitions_are_followed(
        self, engine: AsyncEngine
    ) -> None:
        await execute(
            engine,
            "CREATE TABLE letters (recipient text REFERENCES users (email) ON DELETE CASCADE)",
            "INSERT INTO letters VALUES ('ada@example.com')",
            "CREATE TABLE visits (who text REFERENCES users (id) ON DELETE CASCADE, day int, UNIQUE (who, day)) "
            "PARTITION BY RANGE (day)",
            "CREATE TABLE visits_old PARTITION OF visits FOR VALUES FROM (0) TO (10)",
            "CREATE TABLE visits_new PARTITION OF visits FOR VALUES FROM (10) TO (20)",
            "INSERT INTO visits VALUES ('ada', 1), ('ada', 11), ('bob', 1)",
            'CREATE TABLE "Odd ""name" (of text, on_day int, FOREIGN KEY (of, on_day) REFERENCES visits (who, day) '
            "ON DELETE CASCADE)",
            "INSERT INTO \"Odd \"\"name\" VALUES ('ada', 11), ('bob', 1)",
        )
        reaches = {(reach.table, reach.fate, reach.rows) for reach in (await survey(engine, "ada")).reaches}
        assert reaches == {
            ("public.letters", "goes", 1),
            ("public.visits", "goes", 2),
            ('public."Odd ""name"', "goes", 1),
        }
        await erase(engine, "ada")
        assert await query(engine, 'SELECT of FROM "Odd ""name"') == [("bob",)]
        assert await query(engine, "SELECT who FROM visits") == [("bob",)]

    async def test_beside_an_old_app_the_table_behind_the_view_counts(self, engine: AsyncEngine) -> None:
        await execute(
            engine,
            *PROJECTS,
            'ALTER TABLE users RENAME TO "user"',
            'ALTER TABLE "user" RENAME id TO "userId"',
            'CREATE VIEW inner_users AS SELECT name, email, "userId" AS key, email_verified, image, '
            'onboarding_completed_at, created_at, updated_at, deleted_at, identity_updated_at FROM "user"',
            "CREATE VIEW users AS SELECT key AS id, name, email, email_verified, image, onboarding_completed_at, "
            "created_at, updated_at, deleted_at, identity_updated_at FROM inner_users",
        )
        found = await survey(engine, "ada")
        assert (found.table, len(found.reaches)) == ('public."user"', 4)
        await erase(engine, "ada")
        assert await tombstone(engine) == [TOMBSTONE]
        assert await query(engine, "SELECT id, assignee FROM tasks") == [(5, None)]

    @pytest.mark.parametrize(
        "hidden",
        [
            ("CREATE SCHEMA hidden", "ALTER TABLE notes SET SCHEMA hidden"),
            ("ALTER TABLE notes ENABLE ROW LEVEL SECURITY",),
            ("ALTER TABLE notes ENABLE ROW LEVEL SECURITY", "CREATE POLICY others ON notes USING (author <> 'ada')"),
        ],
        ids=["its schema", "no policy", "a policy"],
    )
    async def test_what_the_role_cannot_see_is_not_left_out(self, engine: AsyncEngine, hidden: tuple[str, ...]) -> None:
        role = f"narrow_{id(engine)}"
        await execute(
            engine,
            f"CREATE ROLE {role}",
            "CREATE TABLE notes (author text CONSTRAINT written_by REFERENCES users (id) ON DELETE CASCADE)",
            "INSERT INTO notes VALUES ('ada'), ('ada')",
            f"GRANT SELECT ON users, notes TO {role}",
            *hidden,
        )

        def become(connection: Connection) -> None:
            connection.exec_driver_sql(f"SET LOCAL ROLE {role}")

        event.listen(engine.sync_engine, "begin", become)
        found = await survey(engine, "ada")
        event.remove(engine.sync_engine, "begin", become)
        await execute(engine, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
        assert [(reach.key, reach.fate, reach.rows) for reach in found.reaches] == [("written_by", "goes", None)]

    async def test_policies_that_do_not_hold_for_the_role_hide_nothing(self, engine: AsyncEngine) -> None:
        await execute(
            engine,
            "CREATE TABLE notes (author text REFERENCES users (id) ON DELETE CASCADE)",
            "INSERT INTO notes VALUES ('ada')",
            "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
        )
        assert [reach.rows for reach in (await survey(engine, "ada")).reaches] == [1]

    async def test_a_database_without_users_is_not_migrated(self, engine: AsyncEngine) -> None:
        await execute(engine, "DROP TABLE users")
        with pytest.raises(NotMigrated):
            await survey(engine, "ada")


class TestErase:
    async def test_the_row_and_what_cascades_go_and_a_tombstone_stays(self, engine: AsyncEngine) -> None:
        await execute(engine, *PROJECTS)
        await erase(engine, "ada")
        assert await tombstone(engine) == [TOMBSTONE]
        ((deleted_at,),) = await query(engine, "SELECT deleted_at FROM users WHERE id = 'ada'")
        assert abs(datetime.now(UTC) - deleted_at) < timedelta(minutes=1)
        assert await query(engine, "SELECT id FROM projects") == [(3,)]
        assert await query(engine, "SELECT id, assignee FROM tasks") == [(5, None)]
        assert await query(engine, "SELECT email FROM users WHERE id = 'bob'") == [("bob@example.com",)]

    async def test_columns_of_the_apps_own_are_empty_in_the_tombstone(self, engine: AsyncEngine) -> None:
        await execute(engine, "ALTER TABLE users ADD diary text", "UPDATE users SET diary = 'dear'")
        await erase(engine, "ada")
        assert await query(engine, "SELECT id, diary, onboarding_completed_at FROM users ORDER BY id") == [
            ("ada", None, None), ("bob", "dear", None),
        ]  # fmt: skip

    async def test_a_token_that_still_lives_makes_no_user(self, engine: AsyncEngine) -> None:
        for sub in ("ada", "never-seen"):
            await erase(engine, sub)
            with pytest.raises(AccountDeleted):
                await provision(engine, claims(sub, iat=datetime.now(UTC).timestamp() + 60), RULES)

    async def test_said_twice_it_is_well(self, engine: AsyncEngine) -> None:
        await erase(engine, "ada")
        await erase(engine, "ada")
        assert await tombstone(engine) == [TOMBSTONE]

    @pytest.mark.parametrize(
        ("obstacle", "said"),
        [
            (
                ("CREATE TABLE invoices (payer text CONSTRAINT paid_by REFERENCES users (id) "
                 "DEFERRABLE INITIALLY DEFERRED)",
                 "INSERT INTO invoices VALUES ('ada')"),
                "rows of invoices need the user .*paid_by",
            ),
            (
                ("CREATE TABLE invoices (payer text NOT NULL REFERENCES users (id) ON DELETE SET NULL)",
                 "INSERT INTO invoices VALUES ('ada')"),
                "rows of invoices need the user .*value",
            ),
            (
                ("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'never %', OLD.email; END$$",
                 "CREATE TRIGGER no BEFORE DELETE ON users FOR EACH ROW EXECUTE FUNCTION no()"),
                "a trigger of the database forbids it$",
            ),
            (
                ("CREATE RULE keep AS ON DELETE TO users DO INSTEAD NOTHING",),
                "the row stayed",
            ),
        ],
        ids=["a key", "a column", "a trigger", "a rule"],
    )  # fmt: skip
    async def test_what_forbids_it_is_said_and_nothing_is_done_in_part(
        self, engine: AsyncEngine, obstacle: tuple[str, ...], said: str
    ) -> None:
        await execute(engine, *PROJECTS, *obstacle)
        tables = ("users", "projects", "tasks")
        before = [await query(engine, f"SELECT * FROM {table} ORDER BY id") for table in tables]
        with pytest.raises(Blocked, match=said):
            await erase(engine, "ada")
        assert [await query(engine, f"SELECT * FROM {table} ORDER BY id") for table in tables] == before


class TestByEvent:
    async def test_it_is_erased_with_all_that_cascades(self, engine: AsyncEngine) -> None:
        await execute(engine, *PROJECTS)
        assert await apply_event(engine, deletion(), RULES, on_deleted="erase") == Outcome.applied
        assert await tombstone(engine) == [TOMBSTONE]
        moment = datetime.fromtimestamp(MONDAY + 60, UTC)
        assert await query(engine, "SELECT deleted_at FROM users WHERE id = 'ada'") == [(moment,)]
        assert await query(engine, "SELECT id FROM projects") == [(3,)]

    async def test_where_it_is_forbidden_it_is_soft_and_logged(
        self, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        await execute(
            engine,
            *PROJECTS,
            "CREATE TABLE invoices (payer text CONSTRAINT paid_by REFERENCES users (id))",
            "INSERT INTO invoices VALUES ('ada')",
        )
        assert await apply_event(engine, deletion(), RULES, on_deleted="erase") == Outcome.applied
        assert await tombstone(engine) == [TOMBSTONE]
        assert await query(engine, "SELECT id FROM projects") == [(1,), (2,), (3,)]
        (line,) = (record for record in caplog.records if record.name == "app.users.events")
        assert line.levelname == "WARNING"
        assert "'ada'" in line.getMessage()
        assert "paid_by" in line.getMessage()
        assert "example.com" not in line.getMessage()

    async def test_a_deletion_older_than_the_row_erases_nothing(self, engine: AsyncEngine) -> None:
        await provision(engine, claims(iat=MONDAY + 61, name="Countess"), RULES)
        assert await apply_event(engine, deletion(), RULES, on_deleted="erase") == Outcome.unchanged
        assert await query(engine, "SELECT name, deleted_at FROM users WHERE id = 'ada'") == [("Countess", None)]
