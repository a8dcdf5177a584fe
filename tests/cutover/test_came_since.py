"""What the app made since, or over the types that change: known before anything is locked, with what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import Outcome, migrate, plan, shadow
from tests.cutover.witness import Witness, apart_from_names_of_partitions

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


def undone(database: Witness, *arguments: str) -> Outcome:
    return shadow(database.url, "undo", "--yes", *arguments)


def remedied(database: Witness, outcome: Outcome, code: str, count: int) -> None:
    """Run the SQL that the refusals of an undo print, each after its arrow."""
    assert outcome.code == 2, outcome.text
    assert outcome.text.count(f"refuse {code}") == count, outcome.text
    assert "CASCADE" not in outcome.text
    statements = [part.partition(" refuse ")[0].partition(" Refused.")[0] for part in outcome.text.split(" → ")[1:]]
    database.run("\n".join(statements))


class TestBeforeDrop:
    @pytest.mark.parametrize("level", ["refuse", "warn"])
    def test_a_function_whose_text_reads_a_retired_table_is_named(self, database: Witness, level: str) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM count(*) FROM retired_auth.sessions; RETURN NEW; END $$"
        )
        if level == "refuse":
            database.run("CREATE TRIGGER noted BEFORE UPDATE ON files FOR EACH ROW EXECUTE FUNCTION note()")
        (found,) = plan(database.url, "drop").findings("function-body")
        assert (found["level"], found["subject"]) == (level, "public.note()")
        assert "retired_auth" in found["message"]


class TestBeforeUndo:
    def test_what_rests_on_ids_that_change_back_is_named_at_once(self, load: Callable[[str], Witness]) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        before = database.portrait()
        assert migrate(database.url, "retire").code == 0
        database.run(
            "CREATE TABLE fans (id int, person varchar(255) REFERENCES users);"
            "CREATE VIEW present AS SELECT id FROM users WHERE deleted_at IS NULL"
        )
        remedied(database, undone(database), "undo-finds-objects", 2)
        for _ in range(2):
            assert undone(database).code == 0
        database.run("DROP TABLE fans")
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(before)

    def test_a_partition_that_was_detached_is_named_and_follows_by_hand(self, load: Callable[[str], Witness]) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(
            'CREATE TABLE parts (person uuid CONSTRAINT whose REFERENCES "user" (id), at int) PARTITION BY RANGE (at);'
            "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9);"
            'INSERT INTO parts SELECT id, 3 FROM "user"'
        )
        before = database.ask("SELECT * FROM parts ORDER BY 1")
        assert migrate(database.url, "retire").code == 0
        database.run(
            "ALTER TABLE parts DETACH PARTITION parts_1;"
            "CREATE TABLE later (person varchar(255) CONSTRAINT whose REFERENCES users)"
        )
        refused = undone(database)
        remedied(database, refused, "undo-finds-objects", 2)
        back = undone(database, "--accept", "undo-misses-objects")
        assert back.code == 0, back.text
        again = re.findall(r"-- (ALTER TABLE [^;]*;)", refused.text)
        assert len(again) == 4
        database.run("\n".join(again))
        assert database.ask("SELECT * FROM parts_1 ORDER BY 1") == before
        assert database.value("SELECT count(*) FROM pg_constraint WHERE conname = 'whose' AND convalidated") == 3

    def test_grants_by_a_role_that_was_dropped_are_named_and_left_out(self, database: Witness) -> None:
        database.run(
            "CREATE ROLE keeper; CREATE ROLE reader;"
            "GRANT SELECT ON sessions TO reader; GRANT SELECT (status) ON users TO keeper WITH GRANT OPTION;"
            "SET ROLE keeper; GRANT SELECT (status) ON users TO reader"
        )
        assert migrate(database.url, "retire").code == 0
        database.run("DROP OWNED BY keeper; DROP ROLE keeper")
        assert 'role "keeper" does not exist' in undone(database).text
        back = undone(database, "--accept", "undo-misses-objects")
        assert back.code == 0, back.text
        assert database.value("SELECT current_user = session_user") is True
        granted = "SELECT has_column_privilege('reader', 'users', 'status', 'SELECT')"
        assert database.value(granted) is False

    def test_the_view_that_keeps_the_old_names_is_the_cutovers_own(self, load: Callable[[str], Witness]) -> None:
        database = load("uuid_kysely")
        assert migrate(database.url, "retire", "--compat-view").code == 0
        for _ in range(2):
            back = undone(database)
            assert back.code == 0, back.text

    def test_a_view_over_what_adopt_added_is_named(self, database: Witness) -> None:
        assert migrate(database.url, "adopt").code == 0
        database.run("CREATE VIEW present AS SELECT name FROM users WHERE deleted_at IS NULL")
        remedied(database, undone(database), "undo-finds-objects", 1)
        assert undone(database).code == 0

    def test_names_that_were_given_again_are_named(self, database: Witness) -> None:
        database.run("CREATE INDEX by_status ON users (status)")
        assert migrate(database.url, "retire").code == 0
        database.run("ALTER TABLE users ADD status int; CREATE INDEX by_status ON files (id)")
        remedied(database, undone(database), "name-taken", 2)
        assert undone(database).code == 0
        assert {"status", "status_own"} <= database.columns().keys()


class TestTriggersOfUsers:
    TOUCHES = (
        "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.updated_at := '2000-01-01'; RETURN NEW; END $$;"
        "CREATE TRIGGER touched BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch()"
    )

    def test_one_that_came_since_sees_nothing_of_undo(self, database: Witness) -> None:
        times = "SELECT id, updated_at FROM users ORDER BY id"
        before = database.ask(times)
        assert migrate(database.url, "retire").code == 0
        database.run(self.TOUCHES)
        assert undone(database).code == 0
        assert database.ask(times) == before
        database.run("UPDATE users SET name = name")
        assert database.value("SELECT count(*) FROM users WHERE updated_at > '2000-01-02'") == 0

    def test_nor_one_that_reads_a_name_which_changes_back(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        assert migrate(database.url, "retire").code == 0
        database.run(self.TOUCHES)
        back = undone(database)
        assert back.code == 0, back.text


class TestReleasedAndMadeAnew:
    def test_views_policies_and_triggers_are_named_and_step_back(self, database: Witness) -> None:
        database.run(
            "CREATE VIEW active AS SELECT id, status FROM users;"
            "CREATE POLICY shown ON users USING (status = 'active');"
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER seen BEFORE UPDATE OF status ON users FOR EACH ROW EXECUTE FUNCTION look()"
        )
        before = database.schema()
        names = ("public.active", "shown on public.users", "seen on public.users")
        done = migrate(database.url, "retire", *(part for name in names for part in ("--release", name)))
        assert done.code == 0, done.text
        database.run(
            "CREATE VIEW active AS SELECT id FROM users; CREATE POLICY shown ON users USING (true);"
            "CREATE TRIGGER seen BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION look()"
        )
        remedied(database, undone(database), "undo-finds-objects", 3)
        for _ in range(2):
            back = undone(database)
            assert back.code == 0, back.text
        assert database.schema() == before


class TestRehearsal:
    @pytest.mark.parametrize(
        "index",
        [
            'CREATE INDEX by_day ON "user" (("createdAt"::date))',
            'CREATE INDEX by_day ON "user" (id) WHERE "createdAt" > \'2020-01-01\'::timestamp::date',
        ],
    )
    def test_an_index_over_the_day_of_a_timestamp_is_named_beforehand(
        self, load: Callable[[str], Witness], index: str
    ) -> None:
        database = load("soft_delete_singular")
        database.run(index)
        planned = plan(database.url, "retire")
        for found in planned.findings("does-not-follow"):
            assert "by_day" in found["subject"]
            database.run(found["remedy"])
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text

    def test_views_and_policies_on_partitions_and_children_follow(self, load: Callable[[str], Witness]) -> None:
        database = load("uuid_kysely")
        database.run(
            'CREATE TABLE parts (person uuid REFERENCES "user" (id), at int) PARTITION BY RANGE (at);'
            "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9);"
            'CREATE VIEW whose AS SELECT u.email FROM parts_1 p JOIN "user" u ON u.id = p.person;'
            "ALTER TABLE parts_1 ENABLE ROW LEVEL SECURITY;"
            'CREATE POLICY known ON parts_1 USING (person IN (SELECT id FROM "user"));'
            "CREATE TABLE notes (id int); ALTER TABLE notes ENABLE ROW LEVEL SECURITY;"
            'CREATE POLICY any_user ON notes USING (EXISTS (SELECT FROM "user" u WHERE u.id IS NOT NULL))'
        )
        assert plan(database.url, "retire").findings("does-not-follow") == []
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text

    def test_a_comparison_with_a_partition_that_does_not_follow_is_named(self, load: Callable[[str], Witness]) -> None:
        database = load("number_ids")
        database.run(
            'CREATE TABLE parts (person int REFERENCES "user" (id), at int) PARTITION BY RANGE (at);'
            "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9);"
            "CREATE VIEW late AS SELECT * FROM parts_1 WHERE person > 5"
        )
        (found,) = plan(database.url, "retire").findings("does-not-follow")
        assert found["subject"] == "public.late"


class TestTypedTables:
    def test_one_that_refers_to_users_is_named_and_stands_alone_with_the_remedy(
        self, load: Callable[[str], Witness]
    ) -> None:
        database = load("uuid_kysely")
        database.run(
            "CREATE TYPE visit_of AS (person uuid, at int); CREATE TABLE seen OF visit_of;"
            'ALTER TABLE seen ADD FOREIGN KEY (person) REFERENCES "user" (id)'
        )
        (found,) = plan(database.url, "retire").findings("typed-table")
        assert (found["level"], found["subject"]) == ("refuse", "public.seen")
        database.run(found["remedy"])
        assert migrate(database.url, "retire").code == 0


class TestTriggersOfWhatStays:
    def test_one_on_rate_limit_does_not_see_the_rows_of_sessions_go(self, load: Callable[[str], Witness]) -> None:
        database = load("number_ids")
        database.run(
            "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;"
            'CREATE TRIGGER kept BEFORE DELETE OR INSERT ON "rateLimit" FOR EACH ROW EXECUTE FUNCTION never()'
        )
        keys = 'SELECT key FROM "rateLimit" ORDER BY 1'
        before = database.ask(keys)
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert database.ask(keys) == [row for row in before if not row["key"].startswith("session:")] != before
        assert undone(database).code == 0
        assert database.ask(keys) == before
