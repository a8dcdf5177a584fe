"""Other schemas, other layouts, other tables beside: what is not Better Auth's is refused, or left alone."""

from __future__ import annotations

import pytest

from tests.cutover.commands import alembic, migrate, shadow
from tests.cutover.obstacles import WHOLE
from tests.cutover.test_small_databases import THIN
from tests.cutover.witness import Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


class TestOtherSchemas:
    def test_tables_of_another_app_are_left_alone(self, database: Witness) -> None:
        """Two apps in one database: the one in public is thin already, the other is not to be touched."""
        database.run(f"ALTER SCHEMA public RENAME TO shop; CREATE SCHEMA public; SET search_path TO public; {THIN}")
        before = database.dump("-n", "shop")
        migrate(database.url, *WHOLE)
        assert database.dump("-n", "shop") == before

    def test_another_schema_is_named_by_the_setting(self, database: Witness) -> None:
        database.run("ALTER SCHEMA public RENAME TO app; CREATE SCHEMA public")
        keys = len(database.foreign_keys("app.users"))
        for step in (("retire",), WHOLE):
            done = migrate(database.url, *step, DATABASE_SCHEMA="app")
            assert done.code == 0, done.text
        assert len(database.foreign_keys("app.users")) == keys - 3
        assert {"app.shadow_cutover", "app.shadow_alembic_version"} <= database.tables()
        assert not {name for name in database.tables() if name.startswith("public.")}
        assert alembic(database.url, "check", DATABASE_SCHEMA="app").code == 0

    def test_a_schema_with_capitals_works_too(self, database: Witness) -> None:
        database.run('ALTER SCHEMA public RENAME TO "MyApp"; CREATE SCHEMA public')
        done = migrate(database.url, *WHOLE, DATABASE_SCHEMA="MyApp")
        assert done.code == 0, done.text
        checked = alembic(database.url, "check", DATABASE_SCHEMA="MyApp")
        assert checked.code == 0, checked.text

    def test_a_schema_that_is_not_there_is_refused_both_ways(self, database: Witness) -> None:
        before = database.dump()
        for refused in (
            migrate(database.url, "retire", DATABASE_SCHEMA="nowhere"),
            alembic(database.url, "upgrade", "0002_retire", DATABASE_SCHEMA="nowhere"),
        ):
            assert refused.code == 2, refused.text
            assert "nowhere" in refused.text
        assert database.dump() == before


class TestOtherLayouts:
    def test_a_users_table_that_is_none_is_refused(self, empty: Witness) -> None:
        empty.run("CREATE TABLE users (login text PRIMARY KEY, shoe_size int)")
        before = empty.dump()
        refused = migrate(empty.url, "drop")
        assert (refused.code, "users-name-taken" in refused.text) == (2, True)
        assert "email" in refused.text
        assert empty.dump() == before

    def test_a_view_of_the_name_users_is_refused(self, empty: Witness) -> None:
        empty.run("CREATE TABLE people (id text, email text, email_verified bool); CREATE VIEW users AS TABLE people")
        before = empty.dump()
        assert migrate(empty.url, "drop").code == 2
        assert empty.dump() == before

    def test_sessions_without_users_are_refused(self, empty: Witness) -> None:
        empty.run("CREATE TABLE sessions (id text, token text, expires_at timestamptz, user_id text)")
        refused = migrate(empty.url, "drop")
        assert (refused.code, "role-missing" in refused.text, "public.sessions" in refused.text) == (2, True, True)

    def test_a_table_that_inherits_from_users_is_named(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE admins () INHERITS (users); INSERT INTO admins (id, name, email) VALUES ('z', 'Z', 'z@z')"
        )
        before = database.dump()
        refused = migrate(database.url, "retire")
        assert (refused.code, "public.admins" in refused.text) == (2, True), refused.text
        assert database.dump() == before

    def test_partitions_of_a_table_that_goes_go_along(self, database: Witness) -> None:
        database.run(
            "ALTER TABLE sessions RENAME TO whole; CREATE TABLE sessions (LIKE whole) PARTITION BY HASH (id);"
            "CREATE TABLE part PARTITION OF sessions FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
            "INSERT INTO sessions TABLE whole; DROP TABLE whole; ALTER TABLE sessions ADD PRIMARY KEY (id),"
            "ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE"
        )
        assert migrate(database.url, "adopt").code == 0
        before = database.portrait()
        retired = migrate(database.url, "retire")
        assert retired.code == 0, retired.text
        assert "public.part" not in database.tables()
        assert shadow(database.url, "undo", "--yes").code == 0
        assert database.portrait() == before
        assert migrate(database.url, *WHOLE).code == 0
        assert not {"public.part", "retired_auth.part"} & database.tables()

    def test_partitions_of_an_apps_table_are_no_obstacle(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE orders (n int, buyer varchar(255) REFERENCES users ON DELETE CASCADE) PARTITION BY RANGE (n);"
            "CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (9);"
            "INSERT INTO orders SELECT 1, id FROM users"
        )
        keys = [key for key in database.foreign_keys("users") if key["of"].startswith("orders")]
        assert migrate(database.url, *WHOLE).code == 0
        assert [key for key in database.foreign_keys("users") if key["of"].startswith("orders")] == keys
        assert database.counts()["public.orders"] == 32

    def test_a_column_of_the_row_type_of_users_is_named(self, database: Witness) -> None:
        """Its values would lose the fields that go, and undo could not bring them back."""
        database.run("CREATE TABLE history (was users); INSERT INTO history SELECT u FROM users u")
        before = database.dump()
        refused = migrate(database.url, "retire")
        assert (refused.code, "public.history" in refused.text) == (2, True), refused.text
        assert database.dump() == before


class TestDrop:
    def test_foreign_keys_between_the_tables_that_go_are_no_obstacle(self, database: Witness) -> None:
        database.run(
            "ALTER TABLE accounts ADD s varchar(255) REFERENCES sessions;"
            "ALTER TABLE sessions ADD a varchar(255) REFERENCES accounts;"
            "ALTER TABLE two_factors ADD v varchar(255) REFERENCES verifications"
        )
        done = migrate(database.url, *WHOLE)
        assert done.code == 0, done.text

    @pytest.mark.parametrize(
        ("sql", "named"),
        [
            ("CREATE VIEW public.seen AS SELECT id FROM retired_auth.sessions", "public.seen"),
            ("CREATE TABLE retired_auth.mine ()", "retired_auth.mine"),
        ],
    )
    def test_what_somebody_put_beside_the_retired_tables_is_named(
        self, database: Witness, sql: str, named: str
    ) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run(sql)
        before = database.dump()
        refused = migrate(database.url, *WHOLE)
        assert (refused.code, named in refused.text) == (2, True), refused.text
        assert database.dump() == before
