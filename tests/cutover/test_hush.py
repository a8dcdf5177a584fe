"""Silence: an UPDATE between the two statements sets nothing off, and afterwards everything is as it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.cutover.hush import hushed
from tests.cutover.commands import migrate, plan, shadow
from tests.cutover.obstacles import hand_over, refusals
from tests.cutover.witness import Witness

HUSHED = """
CREATE TABLE people (id int PRIMARY KEY, name text);
CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;
"""
CONSTRAINTS = """
SELECT conrelid::regclass::text AS of, conname, convalidated, conislocal, coninhcount,
    obj_description(oid, 'pg_constraint') AS comment
FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY 1, 2
"""


def in_silence(database: Witness, update: str, table: str = "public.people") -> None:
    quiet, loud = hushed(table)
    database.run(f"BEGIN; {quiet}; {update}; {loud}; COMMIT")


class TestChecksThatAreNotValidated:
    """A row that violates one may be changed meanwhile, by name or by what inherits it."""

    VIOLATED = "INSERT INTO people VALUES (1, ''); INSERT INTO young VALUES (2, '');"

    def test_those_that_children_inherit_keep_their_comment_and_validity(self, empty: Witness) -> None:
        empty.run(
            f"{HUSHED} CREATE TABLE young () INHERITS (people); CREATE TABLE newborn () INHERITS (young);"
            "INSERT INTO people VALUES (1, '');"
            "ALTER TABLE people ADD CONSTRAINT named CHECK (name <> '') NOT VALID;"
            "ALTER TABLE young VALIDATE CONSTRAINT named;"
            "COMMENT ON CONSTRAINT named ON people IS 'of all';"
            "COMMENT ON CONSTRAINT named ON young IS 'the young''s';"
            "COMMENT ON CONSTRAINT named ON newborn IS 'the newborns'' \\ own'"
        )
        before = empty.ask(CONSTRAINTS)
        assert [row["convalidated"] for row in before] == [True, False, True]
        in_silence(empty, "UPDATE people SET id = id + 10")
        assert empty.ask(CONSTRAINTS) == before

    def test_one_that_a_child_has_of_its_own_as_well_is_not_in_the_way_there(self, empty: Witness) -> None:
        empty.run(
            f"{HUSHED} CREATE TABLE young () INHERITS (people); {self.VIOLATED}"
            "ALTER TABLE young ADD CONSTRAINT named CHECK (name <> '') NOT VALID;"
            "ALTER TABLE people ADD CONSTRAINT named CHECK (name <> '') NOT VALID;"
            "ALTER TABLE young ADD CONSTRAINT few CHECK (id < 0) NOT VALID;"
            "COMMENT ON CONSTRAINT named ON young IS 'both'"
        )
        before = empty.ask(CONSTRAINTS)
        assert [(row["conislocal"], row["coninhcount"]) for row in before] == [(True, 0), (True, 0), (True, 1)]
        in_silence(empty, "UPDATE people SET id = id + 10")
        assert empty.ask(CONSTRAINTS) == before

    def test_one_that_comes_from_a_table_above_is_left_alone(self, empty: Witness) -> None:
        empty.run(
            f"{HUSHED} CREATE TABLE beings (name text); ALTER TABLE people INHERIT beings;"
            "ALTER TABLE people ADD CONSTRAINT named CHECK (name <> '') NOT VALID;"
            "ALTER TABLE beings ADD CONSTRAINT named CHECK (name <> '') NOT VALID"
        )
        before = empty.ask(CONSTRAINTS)
        in_silence(empty, "UPDATE people SET id = id + 10")
        assert empty.ask(CONSTRAINTS) == before


class TestTriggersOfChildren:
    STATES = "SELECT tgrelid::regclass::text AS of, tgname, tgenabled::text AS on FROM pg_trigger ORDER BY 1, 2"

    def test_they_see_nothing_either(self, empty: Witness) -> None:
        empty.run(
            f"{HUSHED} CREATE TABLE young () INHERITS (people); INSERT INTO young VALUES (2, 'b');"
            "CREATE TRIGGER one BEFORE UPDATE ON young FOR EACH ROW EXECUTE FUNCTION never();"
            "CREATE TRIGGER other BEFORE UPDATE ON young FOR EACH ROW EXECUTE FUNCTION never();"
            "ALTER TABLE young ENABLE ALWAYS TRIGGER other"
        )
        before = empty.ask(self.STATES)
        in_silence(empty, "UPDATE people SET id = id + 10")
        assert empty.ask(self.STATES) == before
        assert empty.value("SELECT id FROM young") == 12

    def test_those_of_partitions_have_each_its_own_state(self, empty: Witness) -> None:
        empty.run(
            f"{HUSHED} CREATE TABLE visits (id int) PARTITION BY RANGE (id);"
            "CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (9);"
            "CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM (9) TO (99);"
            "INSERT INTO visits VALUES (1), (10);"
            "CREATE TRIGGER one BEFORE UPDATE ON visits FOR EACH ROW EXECUTE FUNCTION never();"
            "ALTER TABLE visits_2 ENABLE REPLICA TRIGGER one"
        )
        before = empty.ask(self.STATES)
        in_silence(empty, "UPDATE visits SET id = id + 1", "public.visits")
        assert empty.ask(self.STATES) == before


class TestNames:
    @pytest.mark.parametrize("name", ["$hush$", "$hush$ $hush_$", "$loud$", "it's $1 %s \\"])
    def test_a_table_trigger_or_check_may_have_any(self, empty: Witness, name: str) -> None:
        sql = f'public."{name}"'
        empty.run(
            f"{HUSHED} ALTER TABLE people RENAME TO \"{name}\"; INSERT INTO {sql} VALUES (1, '');"
            f'CREATE TRIGGER "{name}" BEFORE UPDATE ON {sql} FOR EACH ROW EXECUTE FUNCTION never();'
            f"ALTER TABLE {sql} ADD CONSTRAINT \"{name}\" CHECK (name <> '') NOT VALID;"
            f"COMMENT ON CONSTRAINT \"{name}\" ON {sql} IS '$hush$'"
        )
        before = empty.dump("-s")
        in_silence(empty, f"UPDATE {sql} SET id = 5", sql)
        assert empty.dump("-s") == before


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestLanguage:
    """The blocks are plpgsql, which a database may lack, or withhold."""

    def test_where_it_is_missing_retire_and_undo_say_so_first(self, database: Witness) -> None:
        database.run("DROP EXTENSION plpgsql")
        before = database.dump()
        (found,) = refusals(plan(database.url, "retire"), "missing-language")
        refused = migrate(database.url, "retire")
        assert (refused.code, "missing-language" in refused.text) == (2, True), refused.text
        assert database.dump() == before
        database.run(found["remedy"])
        assert migrate(database.url, "retire").code == 0
        database.run("DROP EXTENSION plpgsql")
        before = database.dump()
        refused = shadow(database.url, "undo", "--yes")
        assert (refused.code, "refuse missing-language" in refused.text) == (2, True), refused.text
        assert "statement-refused" not in refused.text
        assert database.dump() == before
        database.run(refused.text.split(" → ")[1].partition(" Refused.")[0])
        back = shadow(database.url, "undo", "--yes")
        assert back.code == 0, back.text

    def test_where_its_use_is_not_granted_too(self, database: Witness, make_role: Callable[[], str]) -> None:
        owner = make_role()
        hand_over(database, owner)
        url = database.seen_by(owner)
        database.run("REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC")
        (found,) = refusals(plan(url, "retire"), "missing-language")
        assert owner in found["message"]
        database.run(found["remedy"])
        assert migrate(url, "retire").code == 0
        database.run(f"REVOKE USAGE ON LANGUAGE plpgsql FROM {owner}")
        refused = shadow(url, "undo", "--yes")
        assert (refused.code, "refuse missing-language" in refused.text) == (2, True), refused.text
        database.run(found["remedy"])
        back = shadow(url, "undo", "--yes")
        assert back.code == 0, back.text
        database.run(f"REVOKE USAGE ON LANGUAGE plpgsql FROM {owner}")
