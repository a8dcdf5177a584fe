"""What the app dropped since retire: undo brings back what it can, and names, all at once, what it would miss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import Outcome, migrate, shadow
from tests.cutover.witness import Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

MADE = """
    CREATE TABLE fans (id int PRIMARY KEY, person uuid REFERENCES "user" (id) ON DELETE CASCADE);
    CREATE TABLE notes (id int PRIMARY KEY, person uuid CONSTRAINT known REFERENCES "user" (id),
        CONSTRAINT filled CHECK (person IS NOT NULL));
    CREATE INDEX notes_of ON notes (person);
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON notes USING (person IS NOT NULL);
    CREATE TABLE pairs (id int PRIMARY KEY, author uuid REFERENCES "user" (id), editor uuid REFERENCES "user" (id));
    CREATE VIEW readers AS SELECT id FROM "user";
    CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name := ''seen''; RETURN NEW; END';
    CREATE TRIGGER seen BEFORE UPDATE ON "user" FOR EACH ROW EXECUTE FUNCTION look();
    CREATE TRIGGER seen_id BEFORE UPDATE OF id ON "user" FOR EACH ROW EXECUTE FUNCTION look();
    CREATE RULE told AS ON UPDATE TO "user" DO ALSO NOTIFY told;
    ALTER TABLE "user" ADD CONSTRAINT late CHECK (email <> 'nobody') NOT VALID;
"""
OF_NO_CONSEQUENCE = {
    "an index": "DROP INDEX notes_of",
    "a trigger of users": "DROP TRIGGER seen ON users",
    "a rule of users": "DROP RULE told ON users",
    "a check of users that is not validated": "ALTER TABLE users DROP CONSTRAINT late",
    "a column of users": "ALTER TABLE users DROP COLUMN image",
}
MISSED = {
    "a table": ("DROP TABLE fans", 'relation "public.fans"'),
    "a column": ("ALTER TABLE notes DROP COLUMN person CASCADE", 'column "person"'),
    "a foreign key": ("ALTER TABLE notes DROP CONSTRAINT known", 'constraint "known"'),
    "a check over an id": ("ALTER TABLE notes DROP CONSTRAINT filled", 'constraint "filled"'),
    "a view": ("DROP VIEW readers", 'view "readers"'),
    "a trigger over the id": ("DROP TRIGGER seen_id ON users", 'trigger "seen_id"'),
    "a policy": ("DROP POLICY own ON notes", 'policy "own"'),
    "a retired table": ("DROP TABLE retired_auth.verification", 'relation "retired_auth.verification"'),
    "one of two columns of a table": ("ALTER TABLE pairs DROP COLUMN editor CASCADE", 'column "editor"'),
    "a function of a trigger that comes back": ("DROP FUNCTION look() CASCADE", "function public.look()"),
}


@pytest.fixture
def retired(load_retired: Callable[..., Witness]) -> Witness:
    return replace(load_retired("uuid_kysely", MADE), users='public."user"')


def undone(database: Witness, *arguments: str) -> Outcome:
    return shadow(database.url, "undo", "--yes", *arguments)


@pytest.mark.parametrize("what", OF_NO_CONSEQUENCE)
def test_what_undo_does_not_need_is_not_missed(retired: Witness, what: str) -> None:
    names = 'SELECT id, name FROM "user" ORDER BY id'
    before = retired.ask(names.replace('"user"', "users"))
    retired.run(OF_NO_CONSEQUENCE[what])
    back = undone(retired)
    assert back.code == 0, back.text
    assert retired.ask(names) == before


@pytest.mark.parametrize("what", MISSED)
def test_what_undo_would_change_is_named_and_can_be_left_out(retired: Witness, what: str) -> None:
    drop, named = MISSED[what]
    retired.run(drop)
    there = replace(retired, users="public.users")
    state = there.portrait()
    refused = undone(retired)
    assert refused.code == 2, refused.text
    assert f"refuse undo-misses-objects Since the cutover, {named}" in refused.text
    assert "statement-refused" not in refused.text
    assert there.portrait() == state
    back = undone(retired, "--accept", "undo-misses-objects")
    assert back.code == 0, back.text
    assert f"left out, for {named}" in back.text
    assert retired.value("SELECT to_regnamespace('retired_auth') IS NULL")
    types = (
        "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = '\"user\"'::regclass AND attname = 'id'"
    )
    assert retired.value(types) == "uuid"


def test_all_that_is_missed_is_named_at_once(retired: Witness) -> None:
    retired.run("DROP TABLE fans; DROP VIEW readers; DROP POLICY own ON notes")
    assert undone(retired).text.count("refuse undo-misses-objects") == 3


def test_what_has_another_name_is_undone_when_it_has_its_own_again(retired: Witness) -> None:
    retired.run("ALTER TABLE notes RENAME person TO reader")
    assert "undo-misses-objects" in undone(retired).text
    retired.run("ALTER TABLE notes RENAME reader TO person")
    back = undone(retired)
    assert back.code == 0, back.text


def test_a_generated_column_over_an_id_that_came_since_is_named_with_its_drop(retired: Witness) -> None:
    retired.run("ALTER TABLE notes ADD short text GENERATED ALWAYS AS (upper(person)) STORED")
    refused = undone(retired)
    assert refused.code == 2
    assert "refuse undo-finds-objects" in refused.text
    retired.run(refused.text.split(" → ")[1].partition(" Refused.")[0])
    assert undone(retired).code == 0


class TestWhatIsKeptIsNeverLost:
    KEPT = "SELECT count(*) FROM retired_auth.users_columns"

    @pytest.mark.parametrize(
        ("gone", "named", "again"),
        [
            ("DROP SEQUENCE tickets CASCADE", 'relation "public.tickets"', "CREATE SEQUENCE tickets"),
            ("ALTER TABLE users RENAME TO people", None, "ALTER TABLE people RENAME TO users"),
            (
                "ALTER TABLE retired_auth.users_columns RENAME role TO was",
                "column k.role",
                "ALTER TABLE retired_auth.users_columns RENAME was TO role",
            ),
        ],
    )
    def test_no_acceptance_makes_undo_drop_values_it_could_not_bring_back(
        self, load: Callable[[str], Witness], gone: str, named: str | None, again: str
    ) -> None:
        database = load("uuid_kysely")
        database.run(
            "CREATE SEQUENCE tickets; ALTER TABLE \"user\" ALTER role SET DEFAULT 'r' || nextval('tickets');"
            "UPDATE \"user\" SET role = 'of ' || email"
        )
        roles = 'SELECT id::text, role FROM "user" ORDER BY 1'
        before = database.ask(roles)
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        kept = database.value(self.KEPT)
        database.run(gone)
        refused = undone(database, "--accept", "undo-misses-objects")
        assert refused.code == 2, refused.text
        if named:
            assert "refuse undo-misses-values" in refused.text
            assert named in refused.text
        assert database.value(self.KEPT) == kept
        database.run(again)
        back = undone(database)
        assert back.code == 0, back.text
        assert database.ask(roles) == before

    def test_rows_of_a_table_that_the_app_dropped_are_given_up_by_hand_alone(
        self, load: Callable[[str], Witness]
    ) -> None:
        database = load("number_ids")
        assert migrate(database.url, "retire").code == 0
        database.run('DROP TABLE "rateLimit"')
        refused = undone(database, "--accept", "undo-misses-objects")
        assert refused.code == 2
        assert "refuse undo-misses-values" in refused.text
        database.run("DROP TABLE retired_auth.rate_limit_rows")
        back = undone(database, "--accept", "undo-misses-objects")
        assert back.code == 0, back.text
