"""Remedies, pasted: what was is afterwards, but for what goes; and refusals that came only while a revision ran."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import migrate, plan, shadow
from tests.cutover.test_by_hand import shown
from tests.cutover.witness import Witness, apart_from_names_of_partitions

Load = Callable[[str | None], Witness]


class TestDoesNotFollow:
    @pytest.mark.parametrize(
        "sql",
        [
            "ALTER TABLE doc ADD CONSTRAINT nobody CHECK (owner <> '00000000-0000-0000-0000-000000000000') NOT VALID;"
            "COMMENT ON CONSTRAINT nobody ON doc IS 'it''s nobody'",
            "CREATE INDEX few ON doc (id) WITH (fillfactor = 70) WHERE owner = '11111111-1111-1111-1111-111111111111';"
            "COMMENT ON INDEX few IS 'a few'",
            "CREATE POLICY own ON doc USING (owner = current_setting('app.user')::uuid);"
            "COMMENT ON POLICY own ON doc IS 'one''s own'",
        ],
        ids=["check", "index", "policy"],
    )
    def test_it_shows_what_is_to_be_made_anew_with_its_comment(self, load: Load, sql: str) -> None:
        database = load("uuid_kysely")
        database.run('CREATE TABLE doc (id int, owner uuid REFERENCES "user" (id)); ' + sql)
        before = database.schema()
        (found,) = plan(database.url, "retire").findings("does-not-follow")
        database.run("DROP POLICY IF EXISTS own ON doc;" + found["remedy"])
        assert database.schema() != before
        database.run(shown(found["remedy"]))
        assert database.schema() == before


class TestIndexIncludesColumn:
    INDEX = """SELECT c.reloptions, obj_description(c.oid) AS said, i.indisclustered, i.indisreplident,
        pg_get_indexdef(c.oid) AS made, (SELECT spcname FROM pg_tablespace s WHERE s.oid = c.reltablespace) AS place
        FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE relname = 'reached'"""
    KEY = """SELECT pg_get_constraintdef(oid) AS made, obj_description(oid, 'pg_constraint') AS said
        FROM pg_constraint WHERE conname IN ('letters_to', 'reached') ORDER BY 1"""

    @pytest.mark.parametrize(
        "made",
        [
            'CREATE UNIQUE INDEX reached ON users (email) INCLUDE (name, status, "a, (b)") WITH (fillfactor = 70)',
            'ALTER TABLE users ADD CONSTRAINT reached UNIQUE (email) INCLUDE (name, status, "a, (b)")'
            " WITH (fillfactor = 70); COMMENT ON CONSTRAINT reached ON users IS 'one''s own'",
        ],
        ids=["index", "constraint"],
    )
    def test_all_is_as_it_was_but_for_the_column_that_goes(self, database: Witness, made: str) -> None:
        database.run(
            'ALTER TABLE users DROP CONSTRAINT users_email_unique, ADD "a, (b)" int;'
            f"{made}; COMMENT ON INDEX reached IS 'where to';"
            "ALTER TABLE users CLUSTER ON reached, REPLICA IDENTITY USING INDEX reached;"
            "CREATE TABLE letters (recipient text CONSTRAINT letters_to REFERENCES users (email) ON UPDATE CASCADE);"
            "COMMENT ON CONSTRAINT letters_to ON letters IS 'to whom';"
            "CREATE PUBLICATION people FOR TABLE users"
        )
        index, keys = database.ask(self.INDEX), database.ask(self.KEY)
        assert "status, " in index[0]["made"]
        (found,) = plan(database.url, "retire").findings("index-includes-column")
        lines = found["remedy"].splitlines()
        assert (lines[0], lines[-1]) == ("BEGIN;", "COMMIT;")
        database.run(found["remedy"])
        assert database.ask(self.INDEX) == [{**index[0], "made": index[0]["made"].replace("status, ", "")}]
        assert database.ask(self.KEY) == [{**key, "made": key["made"].replace("status, ", "")} for key in keys]
        database.run("UPDATE users SET name = name")
        if "CREATE" in made:
            database.run("ALTER TABLE users ADD UNIQUE (email)")
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text


class TestRowTypes:
    """What depends on the row type of users, or on what is made of it, is known before anything is changed."""

    def test_a_check_of_a_domain_over_a_column_that_goes(self, database: Witness) -> None:
        database.run("CREATE DOMAIN person AS users CHECK ((VALUE).status IS NOT NULL)")
        before = database.dump()
        stopped = migrate(database.url, "retire")
        assert (stopped.code, "dependent-domain-constraint" in stopped.text) == (2, True), stopped.text
        assert database.dump() == before
        (found,) = plan(database.url, "retire").findings("dependent-domain-constraint")
        assert "public.users.status" in found["message"]
        database.run(found["remedy"])
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert shadow(database.url, "undo", "--yes").code == 0

    def test_a_materialized_view_of_rows_whose_columns_change_type_steps_aside(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run('CREATE MATERIALIZED VIEW rows AS SELECT u FROM "user" u')
        before = database.portrait()
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert database.value("SELECT count(*) FROM rows") == database.value("SELECT count(*) FROM users")
        for _ in range(2):
            assert shadow(database.url, "undo", "--yes").code == 0
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(before)

    @pytest.mark.parametrize("fixture", ["plural_snake", "uuid_kysely"])
    @pytest.mark.parametrize(
        "sql",
        [
            "CREATE DOMAIN person AS {}; CREATE TABLE kept (was person)",
            "CREATE DOMAIN person AS {}; CREATE TABLE kept (was person[])",
            "CREATE TYPE pair AS (first {0}, second {0}); CREATE TABLE kept (was pair)",
            "CREATE TYPE pair AS (first {0}[], n int); CREATE DOMAIN two AS pair; CREATE TABLE kept (was two)",
        ],
        ids=["domain", "array of a domain", "composite type", "domain over a composite type"],
    )
    def test_a_column_that_holds_them_within_another_type(self, load: Load, fixture: str, sql: str) -> None:
        database = load(fixture)
        users = "users" if fixture == "plural_snake" else '"user"'
        database.run(sql.format(users))
        found = plan(database.url, "retire").findings("dependent-table-column")
        assert {each["subject"] for each in found} == {"public.kept.was"}
        for each in plan(database.url, "retire").json["findings"]:
            if each["level"] == "refuse":
                database.run(each["remedy"])
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text


class TestReplicaIdentity:
    """PostgreSQL refuses to change published rows that subscribers cannot tell apart, even where there are none."""

    @pytest.mark.parametrize("publication", ["FOR ALL TABLES", "FOR TABLE \"rateLimit\" WITH (publish = 'delete')"])
    def test_of_a_rate_limit_without_key(self, load: Load, publication: str) -> None:
        database = load("number_ids")
        key = database.value(
            "SELECT conname FROM pg_constraint WHERE conrelid = '\"rateLimit\"'::regclass AND contype = 'p'"
        )
        database.run(f'ALTER TABLE "rateLimit" DROP CONSTRAINT "{key}"; CREATE PUBLICATION all_of_it {publication}')
        before = database.dump()
        stopped = migrate(database.url, "retire")
        assert (stopped.code, "replica-identity" in stopped.text) == (2, True), stopped.text
        assert database.dump() == before
        (found,) = plan(database.url, "retire").findings("replica-identity")
        assert (found["level"], found["subject"]) == ("refuse", 'public."rateLimit"')
        database.run(found["remedy"])
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text

    def test_is_of_no_interest_where_insertions_alone_are_published(self, load: Load) -> None:
        database = load("number_ids")
        key = database.value(
            "SELECT conname FROM pg_constraint WHERE conrelid = '\"rateLimit\"'::regclass AND contype = 'p'"
        )
        database.run(
            f'ALTER TABLE "rateLimit" DROP CONSTRAINT "{key}";'
            "CREATE PUBLICATION news FOR TABLE \"rateLimit\" WITH (publish = 'insert')"
        )
        assert plan(database.url, "retire").findings("replica-identity") == []
        assert migrate(database.url, "retire").code == 0

    def test_of_users_whose_index_is_gone(self, database: Witness) -> None:
        database.run(
            "CREATE UNIQUE INDEX by_name ON users (email, name);"
            "ALTER TABLE users REPLICA IDENTITY USING INDEX by_name; DROP INDEX by_name;"
            "CREATE PUBLICATION people FOR TABLE users"
        )
        (found,) = plan(database.url, "retire").findings("replica-identity")
        assert (found["level"], found["subject"]) == ("refuse", "public.users")
        database.run(found["remedy"])
        database.run("UPDATE users SET name = name")
        assert plan(database.url, "retire").findings("replica-identity") == []
