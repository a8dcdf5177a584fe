"""What a database or a role has set by default changes nothing of what the cutover does."""

from __future__ import annotations

import shlex

import pytest

from tests.cutover.commands import ACCEPTED, migrate, shadow
from tests.cutover.witness import Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


class TestIsolation:
    @pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
    def test_what_was_written_while_values_were_copied_is_kept(self, database: Witness, level: str) -> None:
        database.run(f"ALTER DATABASE {database.name} SET default_transaction_isolation = '{level}'")
        script = shadow(database.url, "plan", "--to", "retire", "--format", "sql").out
        # another session writes after the copy, before writers are shut out
        meanwhile = "BEGIN; UPDATE users SET failed_login_attempts = 77; COMMIT"
        psql = shlex.join([str(database.server.programs / "psql"), "-X", "-q", "-c", meanwhile, database.url])
        before, rest = script.split("-- writers wait from here", 1)
        database.run(f"{before}\\! {psql}\n-- writers wait from here{rest}")
        kept = database.ask("SELECT DISTINCT failed_login_attempts AS n FROM retired_auth.users_columns")
        assert [row["n"] for row in kept] == [77]

    @pytest.mark.parametrize("level", ["repeatable read", "serializable"])
    def test_every_transaction_of_the_command_says_so(self, database: Witness, level: str) -> None:
        database.run(
            f"ALTER DATABASE {database.name} SET default_transaction_isolation = '{level}';"
            "CREATE TABLE levels (level text);"
            "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS "
            "$$ BEGIN INSERT INTO levels VALUES (current_setting('transaction_isolation')); END $$;"
            "CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION note()"
        )
        assert migrate(database.url, "retire").code == 0
        assert shadow(database.url, "undo", "--yes").code == 0
        assert migrate(database.url, "drop", "--accept", ACCEPTED).code == 0
        assert [row["level"] for row in database.ask("SELECT DISTINCT level FROM levels")] == ["read committed"]


class TestDates:
    def test_definitions_come_back_whatever_order_of_day_and_month_the_role_has(self, database: Witness) -> None:
        database.run(
            "ALTER TABLE users ADD ban_expires timestamptz DEFAULT '2030-02-03 04:05:06+00', ADD banned boolean;"
            "ALTER TABLE users ADD CONSTRAINT late CHECK (ban_expires > '2020-02-03'::date)"
        )
        before = database.portrait()
        database.run(
            f"ALTER DATABASE {database.name} SET DateStyle = 'SQL, DMY';"
            f"ALTER DATABASE {database.name} SET IntervalStyle = 'sql_standard'"
        )
        assert migrate(database.url, "retire").code == 0
        database.run(
            f"ALTER DATABASE {database.name} RESET DateStyle; ALTER DATABASE {database.name} RESET IntervalStyle"
        )
        for _ in range(2):
            assert shadow(database.url, "undo", "--yes").code == 0
        assert database.portrait() == before
