"""The two tables that adopt makes for what the provider sends: who may write them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cutover.commands import ACCEPTED, migrate, plan, shadow
from tests.cutover.obstacles import hand_over
from tests.cutover.witness import Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

TABLES = ("shadow_events", "shadow_standing")
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")
ROWS = (
    "INSERT INTO shadow_events (id, type, outcome) VALUES ('evt', 'user.created', 'applied'); "
    "INSERT INTO shadow_standing VALUES ('ada', true, now())"
)


def may(database: Witness, role: str, table: str) -> set[str]:
    return {
        verb for verb in VERBS if database.value(f"SELECT has_table_privilege('{role}', '{table}', '{verb}') AS it")
    }


class TestWhoMayWrite:
    def test_owner_and_writers_of_users_may_and_readers_may_not(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        owner, writer, columns, reader, stranger = (make_role() for _ in range(5))
        hand_over(database, owner)
        database.run(
            f"GRANT SELECT, INSERT, UPDATE ON users TO {writer}; GRANT UPDATE (name) ON users TO {columns};"
            f"GRANT SELECT ON users TO {reader}"
        )
        assert migrate(database.url, "adopt").code == 0
        for table in TABLES:
            assert [may(database, role, table) for role in (owner, writer, columns)] == [{*VERBS}] * 3
            assert [may(database, role, table) for role in (reader, stranger)] == [set()] * 2

    def test_what_the_database_gives_on_any_new_table_is_not_given(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        other = make_role()
        database.run(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {other}")
        assert migrate(database.url, "adopt").code == 0
        found = [may(database, other, table) for table in TABLES]
        database.run(f"ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM {other}")
        assert found == [set()] * 2


class TestWhatBecomesOfThem:
    def test_their_rows_outlive_retire_its_undo_and_drop(self, database: Witness) -> None:
        assert migrate(database.url, "adopt").code == 0
        database.run(ROWS)
        before = [database.rows(table) for table in TABLES]
        for step in ("retire", "undo", "drop"):
            done = (
                shadow(database.url, "undo", "--yes")
                if step == "undo"
                else migrate(database.url, step, "--accept", ACCEPTED)
            )
            assert done.code == 0, done.text
            assert [database.rows(table) for table in TABLES] == before

    def test_undo_of_adopt_does_not_lose_their_rows_unasked(self, database: Witness) -> None:
        before = database.tables()
        assert migrate(database.url, "adopt").code == 0
        database.run(ROWS)
        refused = shadow(database.url, "undo", "--yes")
        assert (refused.code, "undo-loses-values" in refused.text) == (2, True)
        assert "1 rows of shadow_events" in refused.text
        assert "1 rows of shadow_standing" in refused.text
        assert shadow(database.url, "undo", "--yes", "--accept", "undo-loses-values").code == 0
        assert database.tables() == before

    @pytest.mark.parametrize("kind", ["TABLE", "VIEW", "MATERIALIZED VIEW"])
    def test_another_table_of_such_a_name_is_told_and_stays(self, database: Witness, kind: str) -> None:
        query = "AS SELECT 1 AS one"
        database.run(f"CREATE {kind} shadow_events {query}")
        (found,) = plan(database.url, "adopt").findings("name-taken")
        assert (found["level"], found["subject"]) == ("refuse", "public.shadow_events")
        assert migrate(database.url, "adopt").code == 2
        database.run(found["remedy"])
        assert migrate(database.url, "adopt").code == 0
        assert database.ask("SELECT * FROM shadow_events_own") == [{"one": 1}]
