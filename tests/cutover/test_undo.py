"""Back again: after undo the database is what pg_dump said it was, and where it cannot be, it is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import ACCEPTED, alembic, migrate, shadow
from tests.cutover.layouts import Layout, each_other, each_telling, on_the_newest_server
from tests.cutover.witness import Witness, apart_from_names_of_partitions
from tests.postgres import Server

ADORNMENTS = """
COMMENT ON COLUMN users.status IS 'as the old app''s \\ "admin" sees it';
COMMENT ON COLUMN users.role_slugs IS '';
ALTER TABLE users ALTER locked_until SET STATISTICS 512;
ALTER TABLE users ADD username text COLLATE "C", ADD display_username text;
UPDATE users SET username = lower(id) WHERE id < 'usr_m';
GRANT SELECT (status), UPDATE (status, username) ON users TO {role};
GRANT UPDATE (status) ON users TO PUBLIC;
GRANT SELECT, DELETE ON sessions TO {role} WITH GRANT OPTION;
GRANT INSERT ON users TO {role};

CREATE INDEX "Users by status" ON users USING hash (status);
CREATE INDEX users_locked ON users (locked_until DESC) WHERE locked_until IS NOT NULL;
CREATE INDEX users_slugs ON users USING gin (role_slugs);
CREATE UNIQUE INDEX users_username ON users (lower(username));
COMMENT ON INDEX "Users by status" IS 'for the admin''s list';
ALTER TABLE users ADD CONSTRAINT users_username_key UNIQUE (username);
ALTER TABLE users ADD CONSTRAINT known CHECK (status IN ('active', 'pending', 'suspended', 'deactivated', 'inactive'));
ALTER TABLE users ADD CONSTRAINT few CHECK (failed_login_attempts < 1000) NOT VALID;
COMMENT ON CONSTRAINT known ON users IS 'no other';
UPDATE users SET deactivated_by = NULL WHERE deactivated_by NOT IN (SELECT id FROM users);
ALTER TABLE users ADD CONSTRAINT by_whom FOREIGN KEY (deactivated_by) REFERENCES users ON DELETE SET NULL DEFERRABLE;
COMMENT ON CONSTRAINT by_whom ON users IS 'an "admin"';
UPDATE users SET deactivated_by = (SELECT min(id) FROM users) WHERE id > 'usr_t';

COMMENT ON TABLE sessions IS 'of Better Auth';
COMMENT ON CONSTRAINT sessions_user_id_users_id_fk ON sessions IS 'goes and comes back';
ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE sessions FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON sessions AS RESTRICTIVE FOR SELECT TO {role} USING (user_id = current_setting('app.user', true));
CREATE POLICY known ON sessions USING (user_id IN (SELECT id FROM users));
CREATE SEQUENCE sessions_number OWNED BY sessions.id;
ALTER TABLE sessions ADD number bigint NOT NULL DEFAULT nextval('sessions_number');
ALTER TABLE sessions ADD organization text;
UPDATE sessions SET organization = (SELECT min(id) FROM organizations);
ALTER TABLE sessions ADD FOREIGN KEY (organization) REFERENCES organizations ON UPDATE CASCADE ON DELETE SET NULL;
ALTER TABLE two_factors ADD account text REFERENCES accounts ON DELETE SET NULL;

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.updated_at := now(); RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE changes (number serial, of text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO changes (of) VALUES (coalesce(NEW.id, OLD.id)); RETURN NULL; END $$;
CREATE TRIGGER "Noted" AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER off AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE users DISABLE TRIGGER off;
CREATE TRIGGER copied AFTER UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note();
ALTER TABLE users ENABLE REPLICA TRIGGER copied;
ALTER TABLE users ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON users USING (id = current_setting('app.user', true));
"""


def undo(url: str, *arguments: str, **environment: str) -> None:
    done = shadow(url, "undo", "--yes", *arguments, **environment)
    assert done.code == 0, done.text


@pytest.fixture
def adorned(database: Witness, make_role: Callable[[], str]) -> Witness:
    """A database with everything on the tables and columns that go that can be there and is not in the way."""
    database.run(ADORNMENTS.format(role=make_role()))
    return database


class ThereAndBack:
    def test_goes_there_and_back_and_leaves_no_trace(
        self, server: Server, make_database: Callable[[str | None], str], layout: Layout
    ) -> None:
        database = Witness(server, make_database(layout.name), layout.users)
        original, tables = database.portrait(), database.tables()
        assert migrate(database.url, "adopt", **layout.settings).code == 0
        adopted = database.portrait()
        retired = migrate(database.url, "retire", **layout.settings)
        assert retired.code == 0, retired.text
        assert not layout.gone & database.tables()
        verified = shadow(database.url, "verify", **layout.settings)
        assert verified.code == 0, verified.text
        undo(database.url, **layout.settings)
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(adopted)
        undo(database.url, **layout.settings)
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(original)
        assert database.tables() == tables


@each_telling
class TestTellingLayoutsOnEveryServer(ThereAndBack):
    pass


@on_the_newest_server
@each_other
class TestOtherLayouts(ThereAndBack):
    pass


class TestUndo:
    def test_undo_of_retire_brings_everything_back(self, adorned: Witness) -> None:
        migrate(adorned.url, "adopt")
        before = adorned.portrait()
        retired = migrate(adorned.url, "retire")
        assert retired.code == 0, retired.text
        assert "public.sessions" not in adorned.tables()
        undo(adorned.url)
        assert adorned.portrait() == before
        assert shadow(adorned.url, "verify").code == 0

    def test_undo_of_retire_and_adopt_leaves_no_trace(self, adorned: Witness) -> None:
        before, tables = adorned.portrait(), adorned.tables()
        assert migrate(adorned.url, "retire").code == 0
        undo(adorned.url)
        undo(adorned.url)
        assert adorned.portrait() == before
        assert adorned.tables() == tables

    def test_alembic_downgrade_does_the_same(self, adorned: Witness) -> None:
        before = adorned.portrait()
        assert alembic(adorned.url, "upgrade", "0002_retire").code == 0
        assert alembic(adorned.url, "downgrade", "base").code == 0
        assert adorned.portrait() == before

    def test_what_came_back_can_be_retired_and_brought_back_again(self, database: Witness) -> None:
        before = database.portrait()
        for _ in range(2):
            assert migrate(database.url, "retire").code == 0
            undo(database.url)
        undo(database.url)
        assert database.portrait() == before

    def test_the_apps_triggers_do_not_fire(self, adorned: Witness) -> None:
        changed = "SELECT id, updated_at FROM users ORDER BY id"
        before, noted = adorned.ask(changed), adorned.counts()["public.changes"]
        assert migrate(adorned.url, "retire").code == 0
        undo(adorned.url)
        assert (adorned.ask(changed), adorned.counts()["public.changes"]) == (before, noted)

    def test_nor_do_those_that_always_fire(self, adorned: Witness) -> None:
        adorned.run("ALTER TABLE users ENABLE ALWAYS TRIGGER touched")
        before = adorned.portrait()
        assert migrate(adorned.url, "retire").code == 0
        undo(adorned.url)
        undo(adorned.url)
        assert adorned.portrait() == before

    def test_undo_is_recorded_with_who_did_it(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        undo(database.url)
        rows = database.ask("SELECT action, operator FROM shadow_cutover ORDER BY id")
        assert [row["action"] for row in rows] == ["adopt", "retire", "undo-retire"]
        assert len({row["operator"] for row in rows}) == 1

    def test_where_nothing_ran_there_is_nothing_to_undo(self, database: Witness) -> None:
        before = database.dump()
        undo(database.url)
        assert database.dump() == before

    def test_without_a_terminal_it_asks_for_yes(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        before = database.dump()
        assert shadow(database.url, "undo").code == 2
        assert database.dump() == before


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestWhatHappenedMeanwhile:
    """Rows that came and went between retire and undo."""

    def test_a_new_user_has_the_defaults_of_the_columns_that_come_back(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run("INSERT INTO users (id, name, email) VALUES ('new', 'N', 'new@example.com')")
        undo(database.url)
        (user,) = database.ask("SELECT * FROM users WHERE id = 'new'")
        assert (user["status"], user["failed_login_attempts"], user["role_slugs"]) == ("active", 0, [])
        assert (user["two_factor_enabled"], user["locked_until"]) == (False, None)

    def test_what_a_deleted_user_had_goes_as_the_foreign_keys_say(self, database: Witness) -> None:
        (user,) = database.ask(
            "SELECT u.id FROM users u JOIN sessions s ON s.user_id = u.id JOIN accounts a ON a.user_id = u.id LIMIT 1"
        )
        counts = database.counts()
        assert migrate(database.url, "retire").code == 0
        database.run(f"DELETE FROM files; DELETE FROM support_tickets; DELETE FROM users WHERE id = '{user['id']}'")
        undo(database.url, "--accept", "undo-loses-rows")
        for table in ("sessions", "accounts", "two_factors"):
            assert database.value(f"SELECT count(*) FROM {table} WHERE user_id = '{user['id']}'") == 0
        assert database.counts()["public.sessions"] < counts["public.sessions"]
        assert {key["valid"] for key in database.foreign_keys("users")} == {True}

    def test_set_null_is_caught_up_with_too(self, database: Witness) -> None:
        database.run(
            "ALTER TABLE sessions ADD impersonated_by varchar(255) REFERENCES users ON DELETE SET NULL; "
            "INSERT INTO users (id, name, email) VALUES ('admin', 'A', 'chief@example.com'); "
            "UPDATE sessions SET impersonated_by = 'admin'"
        )
        counts = database.counts()
        assert migrate(database.url, "retire").code == 0
        database.run("DELETE FROM users WHERE id = 'admin'")
        undo(database.url, "--accept", "undo-loses-rows")
        assert database.value("SELECT count(*) FROM sessions WHERE impersonated_by IS NOT NULL") == 0
        assert database.counts()["public.sessions"] == counts["public.sessions"]

    def test_new_values_of_what_stayed_are_kept(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run("UPDATE users SET name = 'Renamed', deleted_at = now()")
        undo(database.url)
        assert database.value("SELECT count(*) FROM users WHERE name = 'Renamed' AND deleted_at IS NOT NULL") == 32

    def test_a_detached_foreign_key_follows_a_user_who_was_deleted(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE devices (session varchar(255) REFERENCES sessions ON DELETE SET NULL);"
            "INSERT INTO devices SELECT id FROM sessions; DELETE FROM files; DELETE FROM support_tickets"
        )
        retired = migrate(database.url, "retire", "--detach", "devices.session")
        assert retired.code == 0, retired.text
        database.run("DELETE FROM users")
        undo(database.url, "--accept", "undo-loses-rows")
        assert database.value("SELECT count(*) FROM devices WHERE session IS NOT NULL") == 0

    def test_a_user_came_who_has_no_value_for_a_required_column(self, database: Witness) -> None:
        """What it should be is for a person to say: refused in words, not by the database in the middle of it."""
        database.run("ALTER TABLE users ALTER status DROP DEFAULT")
        assert migrate(database.url, "retire").code == 0
        database.run("INSERT INTO users (id, name, email) VALUES ('new', 'N', 'new@example.com')")
        before = database.dump()
        done = shadow(database.url, "undo", "--yes")
        assert done.code == 2, done.text
        assert "status" in done.text
        assert database.dump() == before

    def test_a_user_whose_sessions_forbade_it_was_deleted(self, database: Witness) -> None:
        """ON DELETE NO ACTION: what should become of the rows is for a person to say; the refusal counts them."""
        database.run(
            "ALTER TABLE sessions DROP CONSTRAINT sessions_user_id_users_id_fk;"
            "ALTER TABLE sessions ADD FOREIGN KEY (user_id) REFERENCES users;"
            "DELETE FROM files; DELETE FROM support_tickets"
        )
        assert migrate(database.url, "retire").code == 0
        database.run("DELETE FROM users WHERE id = (SELECT min(user_id) FROM retired_auth.sessions)")
        before = database.dump()
        refused = shadow(database.url, "undo", "--yes")
        assert (refused.code, "sessions" in refused.text) == (2, True), refused.text
        assert database.dump() == before

    def test_values_that_were_filled_are_no_change_of_the_apps(self, database: Witness) -> None:
        database.run(
            "ALTER TABLE users ALTER created_at DROP NOT NULL, ALTER updated_at DROP NOT NULL;"
            "UPDATE users SET created_at = NULL, updated_at = NULL WHERE id < 'usr_m'"
        )
        assert migrate(database.url, "retire").code == 0
        compared = shadow(database.url, "verify", "--format", "json").json["comparisons"]
        assert [each["subject"] for each in compared if each["verdict"] != "ok"] == []

    def test_a_table_of_the_old_name_came(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run("CREATE TABLE sessions (id int)")
        before = database.dump()
        refused = shadow(database.url, "undo", "--yes")
        assert (refused.code, "public.sessions" in refused.text) == (2, True), refused.text
        assert database.dump() == before

    def test_backslashes_survive_whatever_the_databases_setting_is(self, database: Witness) -> None:
        database.run(
            r"""COMMENT ON COLUMN users.status IS 'C:\new "folder" \';"""
            r"ALTER TABLE users ALTER status SET DEFAULT 'a\b';"
            f"ALTER DATABASE {database.name} SET standard_conforming_strings = off"
        )
        before = database.portrait()
        assert migrate(database.url, "retire").code == 0
        undo(database.url)
        undo(database.url)
        assert database.portrait() == before

    def test_a_row_that_violates_a_check_not_valid_is_no_obstacle(self, database: Witness) -> None:
        database.run("ALTER TABLE users ADD CHECK (length(name) > 1000) NOT VALID")
        before = database.portrait()
        assert migrate(database.url, "retire").code == 0
        undo(database.url)
        undo(database.url)
        assert database.portrait() == before

    def test_a_rule_on_users_does_not_swallow_the_values(self, database: Witness) -> None:
        database.run("CREATE RULE frozen AS ON UPDATE TO users DO INSTEAD NOTHING")
        before = database.portrait()
        if migrate(database.url, "retire").code == 2:
            return
        undo(database.url)
        undo(database.url)
        assert database.portrait() == before

    def test_storage_options_of_a_column_come_back(self, database: Witness) -> None:
        database.run(
            "ALTER TABLE users ALTER deactivated_reason SET STORAGE EXTERNAL, ALTER status SET (n_distinct = 4)"
        )
        before = database.portrait()
        assert migrate(database.url, "retire").code == 0
        undo(database.url)
        undo(database.url)
        assert database.portrait() == before


RARE = {
    "a sequence of the column's own": "CREATE SEQUENCE tries OWNED BY users.failed_login_attempts;"
    "ALTER TABLE users ALTER failed_login_attempts SET DEFAULT nextval('tries')",
    "an identity column": "ALTER TABLE users ALTER failed_login_attempts DROP DEFAULT;"
    "ALTER TABLE users ALTER failed_login_attempts ADD GENERATED BY DEFAULT AS IDENTITY (START 100)",
    "a replica identity": "ALTER TABLE users ADD username text; UPDATE users SET username = id;"
    "ALTER TABLE users ALTER username SET NOT NULL; CREATE UNIQUE INDEX by_name ON users (username);"
    "ALTER TABLE users REPLICA IDENTITY USING INDEX by_name",
    "a clustering index": "CREATE INDEX by_status ON users (status); ALTER TABLE users CLUSTER ON by_status",
    "statistics of an index": "CREATE INDEX by_status ON users ((status || 'x'));"
    "ALTER INDEX by_status ALTER COLUMN 1 SET STATISTICS 99",
    "a unique constraint with storage parameters": "ALTER TABLE users ADD username text, ADD display_username text;"
    "UPDATE users SET username = id; ALTER TABLE users ADD CONSTRAINT one UNIQUE (username) WITH (fillfactor = 60);"
    "COMMENT ON CONSTRAINT one ON users IS 'a name'; COMMENT ON INDEX one IS 'an index'",
    "rows that subscribers cannot tell apart": "CREATE PUBLICATION all_of_users FOR TABLE users;"
    "ALTER TABLE users REPLICA IDENTITY NOTHING",
    "a virtual column": "ALTER TABLE users DROP two_factor_enabled;"
    "ALTER TABLE users ADD two_factor_enabled boolean GENERATED ALWAYS AS (length(name) > 3) VIRTUAL",
    "a not-null constraint with a name": "ALTER TABLE users DROP status;"
    "ALTER TABLE users ADD status text CONSTRAINT stated NOT NULL DEFAULT 'active'",
    "a not-null constraint that is not valid": "ALTER TABLE users ADD CONSTRAINT seen NOT NULL image NOT VALID",
}
"""What PostgreSQL 18 knows of columns that go, or of users; some of it, older servers do not."""


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestRareThings:
    @pytest.mark.parametrize("what", RARE)
    def test_are_refused_before_or_come_back_as_they_were(self, database: Witness, what: str) -> None:
        database.run(RARE[what])
        before = database.portrait()
        if migrate(database.url, "retire").code == 2:
            assert database.portrait() == before
            return
        undo(database.url)
        undo(database.url)
        assert database.portrait() == before

    def test_the_index_of_a_constraint_comes_back_to_its_tablespace(self, database: Witness) -> None:
        place = f"place_{database.name}"
        database.run(f"SET allow_in_place_tablespaces = on;\nCREATE TABLESPACE {place} LOCATION ''")
        database.run(
            "ALTER TABLE users ADD username text, ADD display_username text; UPDATE users SET username = id;"
            f"ALTER TABLE users ADD CONSTRAINT one UNIQUE (username) USING INDEX TABLESPACE {place}"
        )
        before = database.portrait()
        try:
            assert migrate(database.url, "retire").code == 0
            undo(database.url)
            undo(database.url)
            assert database.portrait() == before
        finally:
            database.run(f"ALTER TABLE users DROP username;\nDROP TABLESPACE {place}")

    def test_a_table_that_inherits_and_was_released_keeps_nothing_of_adopt(self, database: Witness) -> None:
        database.run("CREATE TABLE guests (host text) INHERITS (users)")
        before = set(database.columns("public.guests"))
        assert migrate(database.url, "retire", "--release", "public.guests").code == 0
        undo(database.url)
        undo(database.url)
        assert set(database.columns("public.guests")) == before


class TestWhatCannotBeUndone:
    def test_drop_is_final_and_says_how_to_restore(self, database: Witness) -> None:
        assert migrate(database.url, "drop", "--accept", ACCEPTED).code == 0
        before = database.dump()
        for refused in (shadow(database.url, "undo", "--yes"), alembic(database.url, "downgrade", "-1")):
            assert refused.code == 2
            assert "drop-is-final" in refused.text
            assert "pg_restore" in refused.text
            assert database.dump() == before

    def test_adopt_is_not_undone_over_values_that_would_be_lost(self, database: Witness) -> None:
        assert migrate(database.url, "adopt").code == 0
        database.run("UPDATE users SET deleted_at = now() WHERE id < 'usr_c'")
        before = database.dump()
        refused = shadow(database.url, "undo", "--yes")
        assert (refused.code, "undo-loses-values" in refused.text, "deleted_at" in refused.text) == (2, True, True)
        assert database.dump() == before
        undo(database.url, "--accept", "undo-loses-values")
        assert "deleted_at" not in database.columns()

    def test_a_table_that_adopt_made_is_not_dropped_with_users_in_it(self, empty: Witness) -> None:
        assert migrate(empty.url, "adopt").code == 0
        empty.run("INSERT INTO users (id, name, email) VALUES ('a', 'A', 'a@example.com')")
        refused = shadow(empty.url, "undo", "--yes")
        assert (refused.code, "undo-loses-values" in refused.text) == (2, True)
        empty.run("DELETE FROM users")
        undo(empty.url)
        assert empty.tables() == set()


class TestDeferred:
    """What is checked at the end of a transaction would stand in the way of what comes later in it."""

    @on_the_newest_server
    @pytest.mark.parametrize("fixture", ["number_ids", "uuid_kysely"])
    def test_a_deferred_foreign_key_of_users_and_one_to_it(self, load: Callable[[str], Witness], fixture: str) -> None:
        database = replace(load(fixture), users='public."user"')
        database.run(
            "CREATE TABLE firm (id int PRIMARY KEY); INSERT INTO firm VALUES (1);"
            'ALTER TABLE "user" ADD firm int DEFAULT 1 REFERENCES firm DEFERRABLE INITIALLY DEFERRED;'
            'CREATE TABLE deeds AS SELECT id AS owner FROM "user";'
            'ALTER TABLE deeds ADD FOREIGN KEY (owner) REFERENCES "user" (id) DEFERRABLE INITIALLY DEFERRED'
        )
        before = database.portrait()
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        for _ in range(2):
            back = shadow(database.url, "undo", "--yes")
            assert back.code == 0, back.text
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(before)
