"""Nothing there, and everything there already: the two databases that need little."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cutover.commands import ACCEPTED, alembic, migrate, plan, shadow
from tests.cutover.test_whole_way import TARGET
from tests.cutover.witness import OUR_TABLES, Witness
from tests.postgres import Server

THIN = """
CREATE TABLE users (
    id varchar(255) PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE,
    email_verified boolean NOT NULL DEFAULT false, image text, onboarding_completed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz, identity_updated_at timestamptz, preferences jsonb NOT NULL DEFAULT '{}'
);
CREATE TABLE notes (id bigserial PRIMARY KEY, author varchar(255) NOT NULL REFERENCES users ON DELETE CASCADE);
INSERT INTO users (id, name, email) SELECT 'sub|' || n, 'User ' || n, n || '@example.com' FROM generate_series(1, 50) n;
INSERT INTO notes (author) SELECT id FROM users;
"""


class TestEmptyDatabase:
    @pytest.mark.parametrize("way", ["shadow", "alembic"])
    def test_the_target_is_made(self, empty: Witness, way: str) -> None:
        done = migrate(empty.url, "drop") if way == "shadow" else alembic(empty.url, "upgrade", "head")
        assert done.code == 0, done.text
        assert empty.columns() == TARGET
        keys = "SELECT pg_get_constraintdef(oid) AS says FROM pg_constraint WHERE conrelid = 'users'::regclass"
        assert [row["says"] for row in empty.ask(f"{keys} AND contype <> 'n' ORDER BY 1")] == [
            "PRIMARY KEY (id)",
            "UNIQUE (email)",
        ]
        assert empty.tables() == {"public.users", *(f"public.{name}" for name in OUR_TABLES)}
        assert alembic(empty.url, "check").code == 0

    def test_again_is_nothing(self, empty: Witness) -> None:
        migrate(empty.url, "drop")
        before = empty.dump()
        assert migrate(empty.url, "drop").code == 0
        assert alembic(empty.url, "upgrade", "head").code == 0
        assert empty.dump() == before

    def test_and_back_to_nothing(self, empty: Witness) -> None:
        migrate(empty.url, "retire")
        for _ in range(2):
            assert shadow(empty.url, "undo", "--yes").code == 0
        assert empty.tables() == set()

    def test_tables_of_the_apps_own_do_not_matter(self, empty: Witness) -> None:
        empty.run("CREATE TABLE orders (id int); CREATE VIEW many AS TABLE orders; INSERT INTO orders VALUES (1)")
        assert migrate(empty.url, "drop").code == 0
        assert empty.counts()["public.orders"] == 1

    def test_in_a_schema_of_its_own(self, empty: Witness) -> None:
        empty.run("CREATE SCHEMA app")
        assert migrate(empty.url, "drop", DATABASE_SCHEMA="app").code == 0
        assert empty.columns("app.users") == TARGET


class TestThinDatabase:
    @pytest.mark.parametrize("way", ["shadow", "alembic"])
    def test_nothing_changes_in_users(self, empty: Witness, way: str) -> None:
        empty.run(THIN)
        before = empty.portrait()
        done = migrate(empty.url, "drop") if way == "shadow" else alembic(empty.url, "upgrade", "head")
        assert done.code == 0, done.text
        assert empty.portrait() == before
        assert alembic(empty.url, "check").code == 0

    def test_nothing_of_it_is_locked_against_readers(self, empty: Witness) -> None:
        empty.run(THIN)
        steps = [step for each in plan(empty.url, "drop").json["revisions"] for step in each["steps"]]
        assert {step["lock"] for step in steps} == {"none"}

    def test_undo_leaves_users_as_it_was(self, empty: Witness) -> None:
        empty.run(THIN)
        before = empty.portrait()
        migrate(empty.url, "retire")
        for _ in range(2):
            assert shadow(empty.url, "undo", "--yes").code == 0
        assert empty.portrait() == before

    def test_nothing_is_to_be_accepted(self, empty: Witness) -> None:
        empty.run(THIN)
        assert plan(empty.url, "drop").findings(ACCEPTED) == []


class TestOtherSchemaBesideIt:
    def test_two_apps_in_one_database_each_keep_to_their_own(
        self, server: Server, make_database: Callable[[str | None], str]
    ) -> None:
        database = Witness(server, make_database(None))
        for schema in ("one", "two"):
            database.run(f"CREATE SCHEMA {schema}; SET search_path TO {schema}; {THIN}")
        before = database.server.dump(database.url, "-n", "two")
        assert migrate(database.url, "drop", DATABASE_SCHEMA="one").code == 0
        assert database.server.dump(database.url, "-n", "two") == before
        assert migrate(database.url, "drop", DATABASE_SCHEMA="two").code == 0
