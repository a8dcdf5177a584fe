"""Findings that are only said, and decisions a person makes: identities, columns by name, --map, --fingerprint."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.cutover.commands import ACCEPTED, migrate, plan
from tests.cutover.obstacles import WHOLE
from tests.cutover.witness import Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


class TestIdentities:
    def test_the_plan_counts_whom_it_concerns(self, database: Witness) -> None:
        (counted,) = database.ask(
            "SELECT count(*) FILTER (WHERE p AND NOT l) AS only, count(*) FILTER (WHERE l) AS linked "
            "FROM (SELECT bool_or(password IS NOT NULL) p, bool_or(provider_id <> 'credential') l "
            "FROM accounts GROUP BY user_id) u"
        )
        factors = database.value("SELECT count(DISTINCT user_id) FROM two_factors")
        (found,) = plan(database.url, "drop").findings(ACCEPTED)
        assert re.findall(r"\d+", found["message"]) == [str(n) for n in (counted["only"], counted["linked"], factors)]
        assert found["level"] == "refuse"

    def test_retire_only_warns_of_them(self, database: Witness) -> None:
        (found,) = plan(database.url, "retire").findings(ACCEPTED)
        assert found["level"] == "warn"
        assert migrate(database.url, "retire").code == 0

    def test_drop_refuses_after_retire_too(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        before = database.dump()
        assert migrate(database.url, "drop").code == 2
        assert database.dump() == before
        assert migrate(database.url, *WHOLE).code == 0


class TestWhatIsOnlySaid:
    def test_functions_that_mention_what_goes(self, database: Witness) -> None:
        database.run(
            "CREATE FUNCTION online() RETURNS bigint LANGUAGE plpgsql AS "
            "$$ BEGIN RETURN (SELECT count(*) FROM sessions); END $$;"
            "CREATE FUNCTION actives() RETURNS bigint LANGUAGE sql AS "
            "$$ SELECT count(*) FROM users WHERE status = 'x' $$;"
            "CREATE FUNCTION innocent() RETURNS int LANGUAGE sql AS $$ SELECT 1 /* sessions */ -- accounts\n $$"
        )
        found = {each["subject"]: each for each in plan(database.url, "retire").findings("function-body")}
        assert {name.removeprefix("public.") for name in found} == {"online()", "actives()"}
        assert {each["level"] for each in found.values()} == {"warn"}
        assert migrate(database.url, "retire").code == 0

    def test_a_trigger_on_users_that_only_uses_the_word_can_be_accepted(self, database: Witness) -> None:
        """The body is text: whether `status` is the column, only a person can tell."""
        database.run(
            "CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM jsonb_build_object('status', NEW.id); RETURN NEW; END $$;"
            "CREATE TRIGGER telling BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION told()"
        )
        assert migrate(database.url, "retire").code == 2
        done = migrate(database.url, "retire", "--accept", "function-body")
        assert done.code == 0, done.text
        database.run("UPDATE users SET name = name")

    def test_a_foreign_key_not_valid_with_orphans_is_kept(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE visits (who varchar(255)); INSERT INTO visits VALUES ('gone'), ('gone too'), (NULL);"
            "INSERT INTO visits SELECT id FROM users;"
            "ALTER TABLE visits ADD CONSTRAINT visits_who FOREIGN KEY (who) REFERENCES users NOT VALID"
        )
        keys = database.foreign_keys("users")
        (found,) = plan(database.url, "drop").findings("foreign-key-not-valid")
        assert (found["level"], "visits_who" in found["message"], "2 rows" in found["message"]) == ("warn", True, True)
        assert migrate(database.url, *WHOLE).code == 0
        gone = ("sessions", "accounts", "two_factors")
        assert database.foreign_keys("users") == [key for key in keys if key["of"] not in gone]

    def test_live_sessions_and_colliding_addresses_are_counted(self, database: Witness) -> None:
        database.run(
            "UPDATE sessions SET expires_at = now() - interval '1 day';"
            "UPDATE sessions SET expires_at = now() + interval '1 day' WHERE id IN (SELECT id FROM sessions LIMIT 3);"
            "INSERT INTO users (id, name, email) SELECT 'x' || id, name, upper(email) FROM users LIMIT 2"
        )
        planned = plan(database.url, "retire")
        (live,), (collisions,) = planned.findings("live-sessions"), planned.findings("email-case")
        assert "3 sessions" in live["message"]
        assert "2 addresses" in collisions["message"]
        assert planned.code == 0

    def test_a_pg_dump_command_for_exactly_these_tables(self, database: Witness, tmp_path: Path) -> None:
        (found,) = plan(database.url, "retire").findings("no-backup")
        remedy = found["remedy"].replace("$DATABASE_URL", database.url)
        program, *given = shlex.split(remedy.replace("before-cutover.dump", str(tmp_path / "backup")))
        assert program == "pg_dump"
        subprocess.run([database.server.programs / program, *given], check=True)
        listed = subprocess.run(
            [database.server.programs / "pg_restore", "-l", tmp_path / "backup"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert set(re.findall(r"TABLE DATA public (\w+)", listed)) == {
            "users", "sessions", "accounts", "verifications", "jwks", "two_factors",
        }  # fmt: skip

    @pytest.mark.parametrize("of", ["ALL TABLES", "TABLES IN SCHEMA public"])
    def test_a_publication_that_takes_whatever_there_is(self, database: Witness, of: str) -> None:
        database.run(f"CREATE PUBLICATION everything FOR {of}")
        assert "everything" in plan(database.url, "drop").text

    def test_a_column_known_by_its_name_alone_can_be_kept(self, database: Witness) -> None:
        database.run("ALTER TABLE users ADD role text NOT NULL DEFAULT 'member'; UPDATE users SET role = id")
        (found,) = plan(database.url, "retire").findings("column-by-name")
        assert (found["level"], "users.role" in found["message"]) == ("warn", True)
        flags = found["remedy"].splitlines()[0].split()
        assert flags == ["--keep", "users.role"]
        assert migrate(database.url, *WHOLE, *flags).code == 0
        assert database.value("SELECT count(*) FROM users WHERE role = id") == 32

    def test_a_column_of_a_known_name_and_another_type_is_the_apps_own(self, database: Witness) -> None:
        database.run("CREATE TYPE kind AS ENUM ('a', 'b'); ALTER TABLE users ADD role kind DEFAULT 'b'")
        assert migrate(database.url, *WHOLE).code == 0
        assert database.value("SELECT count(*) FROM users WHERE role = 'b'") == 32


class TestMap:
    def test_it_decides_between_two_on_the_whole_way(self, database: Witness) -> None:
        database.run("CREATE TABLE session AS TABLE sessions")
        done = migrate(database.url, *WHOLE, "--map", "sessions=public.sessions")
        assert done.code == 0, done.text
        assert "public.session" in database.tables()

    @pytest.mark.parametrize("table", ["public.nowhere", "public.files"])
    def test_a_table_that_is_none_is_refused(self, database: Witness, table: str) -> None:
        before = database.dump()
        refused = migrate(database.url, "retire", "--map", f"sessions={table}")
        assert (refused.code, "role-missing" in refused.text, table in refused.text) == (2, True, True)
        assert database.dump() == before


class TestChangedSince:
    def test_a_plan_holds_as_long_as_the_catalogue_is_the_same(self, database: Witness) -> None:
        fingerprint = plan(database.url, "retire").json["fingerprint"]
        database.run("INSERT INTO users (id, name, email) VALUES ('new', 'N', 'new@example.com'); ANALYZE")
        assert migrate(database.url, "retire", "--fingerprint", fingerprint).code == 0

    def test_a_plan_of_another_catalogue_is_refused(self, database: Witness) -> None:
        fingerprint = plan(database.url, "retire").json["fingerprint"]
        database.run("CREATE INDEX since ON users (name)")
        before = database.dump()
        refused = migrate(database.url, "retire", "--fingerprint", fingerprint)
        assert (refused.code, "database-changed" in refused.text, fingerprint in refused.text) == (2, True, True)
        assert database.dump() == before
