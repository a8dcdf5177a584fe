"""Event triggers of the app's: what they forbid is known with the plan, by whatever they tell it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cutover.commands import ACCEPTED, migrate, plan
from tests.cutover.obstacles import refusals
from tests.cutover.witness import Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

GUARD = """
CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
CREATE EVENT TRIGGER guard ON {event} EXECUTE FUNCTION forbid()
"""
OF_THE_NAME = """
IF EXISTS (SELECT FROM {objects}() WHERE object_identity LIKE '%{name}') THEN RAISE 'hands off'; END IF;
"""


def forbids_by_name(name: str, event: str = "ddl_command_end") -> str:
    objects = "pg_event_trigger_dropped_objects" if event == "sql_drop" else "pg_event_trigger_ddl_commands"
    return GUARD.format(event=event, body=OF_THE_NAME.format(objects=objects, name=name))


class TestByTheNamesOfWhatChanges:
    @pytest.mark.parametrize(
        ("name", "event"),
        [
            (".users", "ddl_command_end"),
            (".two_factors", "ddl_command_end"),
            ("retired_auth.sessions", "ddl_command_end"),
            (".users_columns", "ddl_command_end"),
            (".users.status", "sql_drop"),
        ],
    )
    def test_the_plan_of_retire_knows_it(self, database: Witness, name: str, event: str) -> None:
        assert migrate(database.url, "adopt").code == 0
        before = database.dump()
        database.run(forbids_by_name(name, event))
        (found,) = refusals(plan(database.url, "retire"), "event-trigger")
        assert (found["subject"], "hands off" in found["message"]) == ("guard", True)
        database.run(found["remedy"])
        database.run("DROP EVENT TRIGGER guard; DROP FUNCTION forbid()")
        assert database.dump() == before
        assert migrate(database.url, "retire").code == 0

    def test_names_that_are_to_be_too(self, load: Callable[[str], Witness]) -> None:
        database = load("number_ids")
        database.run(forbids_by_name(".users"))
        (found,) = refusals(plan(database.url, "retire"), "event-trigger")
        assert found["subject"] == "guard"

    def test_one_about_other_tables_is_not_in_the_way(self, database: Witness) -> None:
        database.run(forbids_by_name("public.files"))
        assert refusals(plan(database.url, "retire"), "event-trigger") == []
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text


class TestBySqlstate:
    @pytest.mark.parametrize("state", ["57014", "53100", "55006", "55P03", "40P01", "08006", "P0001"])
    def test_what_a_function_raises_is_its_own_opinion(self, database: Witness, state: str) -> None:
        body = f"RAISE 'ask the DBA' USING ERRCODE = '{state}';"
        database.run(GUARD.format(event="ddl_command_end", body=body))
        (found,) = refusals(plan(database.url, "retire"), "event-trigger")
        assert (found["subject"], "ask the DBA" in found["message"]) == ("guard", True)

    @pytest.mark.parametrize("state", ["57014", "53100", "55006", "55P03"])
    def test_so_it_is_where_only_the_real_table_sets_it_off(self, database: Witness, state: str) -> None:
        assert migrate(database.url, "adopt").code == 0
        raised = OF_THE_NAME.format(objects="pg_event_trigger_ddl_commands", name="public.users")
        body = raised.replace("'hands off'", f"'hands off' USING ERRCODE = '{state}'")
        database.run(GUARD.format(event="ddl_command_end", body=body))
        stopped = migrate(database.url, "retire")
        assert (stopped.code, "refuse statement-refused" in stopped.text) == (2, True), stopped.text
        assert f"hands off (SQLSTATE {state}). It was raised by PL/pgSQL function forbid()" in stopped.text


class TestOtherActions:
    @pytest.mark.parametrize("event", ["ddl_command_start", "ddl_command_end"])
    @pytest.mark.parametrize("name", ["plural_snake", "kysely_singular"])
    def test_the_plan_of_adopt_alone_knows_it(self, load: Callable[[str], Witness], name: str, event: str) -> None:
        database = load(name)
        database.run(GUARD.format(event=event, body="IF tg_tag = 'ALTER TABLE' THEN RAISE 'hands off'; END IF;"))
        (found,) = refusals(plan(database.url, "adopt"), "event-trigger")
        assert found["subject"] == "guard"
        assert migrate(database.url, "adopt").code == 2
        database.run(found["remedy"])
        assert migrate(database.url, "adopt").code == 0

    @pytest.mark.parametrize("name", [".sessions", ".two_factors"])
    def test_the_plan_of_drop_alone_knows_it(self, database: Witness, name: str) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run(forbids_by_name(name, "sql_drop"))
        (found,) = refusals(plan(database.url, "drop"), "event-trigger")
        assert found["subject"] == "guard"
        database.run(found["remedy"])
        done = migrate(database.url, "drop", "--accept", ACCEPTED)
        assert done.code == 0, done.text

    def test_one_that_forbids_new_schemas_does_not_concern_adopt(self, database: Witness) -> None:
        database.run(
            GUARD.format(event="ddl_command_start", body="IF tg_tag = 'CREATE SCHEMA' THEN RAISE 'no'; END IF;")
        )
        assert refusals(plan(database.url, "adopt"), "event-trigger") == []
        assert migrate(database.url, "adopt").code == 0
        assert len(refusals(plan(database.url, "retire"), "event-trigger")) == 1
