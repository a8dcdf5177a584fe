"""What an operator and the app do with adopt's view between adopt and retire, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import migrate, plan, shadow
from tests.cutover.layouts import on_the_newest_server
from tests.cutover.witness import Witness, apart_from_names_of_partitions

ORIGINAL = 'public."user"'
VIEWS = {"users": "public_shadow.users", "user": "public.users"}
"""What the old app's table is called, and where the view is then: in a schema of its own where the name is taken."""


def privileges(database: Witness, table: str, role: str) -> set[str]:
    names = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
    return {name for name in names if database.value(f"SELECT has_table_privilege('{role}', '{table}', '{name}')")}


@pytest.fixture(params=sorted(VIEWS))
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def view(name: str) -> str:
    return VIEWS[name]


@pytest.fixture
def database(load: Callable[[str], Witness], name: str) -> Witness:
    """A database whose old app's table has that name, after adopt."""
    found = replace(load("kysely_singular"), users=ORIGINAL if name == "user" else "public.users")
    if name != "user":
        found.run(f'ALTER TABLE "user" RENAME TO "{name}"')
    done = migrate(found.url, "adopt")
    assert done.code == 0, done.text
    return found


@on_the_newest_server
class TestGrants:
    """The server's role gets its privileges on the view, for that is what it reads; then the view goes."""

    def test_who_could_read_and_write_the_view_can_read_and_write_users(
        self, database: Witness, view: str, make_role: Callable[[], str]
    ) -> None:
        role = make_role()
        database.run(f"GRANT ALL ON {view} TO {role}; GRANT USAGE ON SCHEMA {view.partition('.')[0]} TO {role}")
        assert migrate(database.url, "retire").code == 0
        assert privileges(database, "public.users", role) == {"SELECT", "INSERT", "UPDATE", "DELETE"}

    def test_of_single_columns_too(self, database: Witness, view: str, make_role: Callable[[], str]) -> None:
        role = make_role()
        database.run(f"GRANT SELECT (id, email_verified), UPDATE (image) ON {view} TO {role}")
        assert migrate(database.url, "retire").code == 0
        columns = ("id", "name", "email_verified", "image")
        may = {
            (name, what)
            for name in columns
            for what in ("SELECT", "UPDATE")
            if database.value(f"SELECT has_column_privilege('{role}', 'public.users', '{name}', '{what}')")
        }
        assert may == {("id", "SELECT"), ("email_verified", "SELECT"), ("image", "UPDATE")}

    def test_nobody_else_gets_any(self, database: Witness, make_role: Callable[[], str]) -> None:
        role = make_role()
        assert migrate(database.url, "retire").code == 0
        assert privileges(database, "public.users", role) == set()

    def test_undo_takes_from_the_old_table_what_was_given_on_the_view_alone(
        self, database: Witness, view: str, make_role: Callable[[], str]
    ) -> None:
        role = make_role()
        schema = view.partition(".")[0]
        database.run(
            f"GRANT SELECT, INSERT ON {view} TO {role} WITH GRANT OPTION; GRANT UPDATE (image) ON {view} TO {role};"
            f"GRANT USAGE ON SCHEMA {schema} TO {role}"
        )
        before = database.portrait()
        assert migrate(database.url, "retire").code == 0
        back = shadow(database.url, "undo", "--yes")
        assert back.code == 0, back.text
        assert database.portrait() == before

    def test_letters_of_an_owners_name_are_no_privileges(
        self, load: Callable[[str], Witness], make_role: Callable[[], str]
    ) -> None:
        reader, owner = make_role(), f"{make_role()}/rawd"
        database = replace(load("kysely_singular"), users=ORIGINAL)
        database.run(
            f'CREATE ROLE "{owner}"; ALTER TABLE "user" OWNER TO "{owner}"; GRANT SELECT ON "user" TO {reader}'
        )
        assert migrate(database.url, "adopt").code == 0
        may = {
            name: privileges(database, name, reader)
            for name in ('public."user"', "public.users", "public.shadow_events", "public.shadow_standing")
        }
        database.run(f'REASSIGN OWNED BY "{owner}" TO CURRENT_USER; DROP OWNED BY "{owner}"; DROP ROLE "{owner}"')
        assert may == {
            'public."user"': {"SELECT"},
            "public.users": {"SELECT"},
            "public.shadow_events": set(),
            "public.shadow_standing": set(),
        }


@on_the_newest_server
class TestWhatWasPutOnIt:
    CONDITION = """
    CREATE FUNCTION elsewhere() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER instead INSTEAD OF DELETE ON {view} FOR EACH ROW EXECUTE FUNCTION elsewhere();
    COMMENT ON COLUMN {view}.email IS 'of the provider';
    ALTER VIEW {view} ALTER COLUMN name SET DEFAULT 'anon';
    ALTER VIEW {view} SET (security_barrier = true);
    """

    def test_it_is_said_to_go_and_comes_back(self, database: Witness, view: str) -> None:
        database.run(self.CONDITION.format(view=view))
        before = database.portrait()
        (found,) = plan(database.url, "retire").findings("beside-view-changed")
        assert found["level"] == "warn"
        assert "the trigger instead" in found["message"]
        assert "the option security_barrier=true" in found["message"]
        assert migrate(database.url, "retire").code == 0
        back = shadow(database.url, "undo", "--yes")
        assert back.code == 0, back.text
        assert database.portrait() == before

    def test_a_condition_too(self, database: Witness, view: str) -> None:
        definition = database.value(f"SELECT pg_get_viewdef('{view}'::regclass)").strip().rstrip(";")
        database.run(f"CREATE OR REPLACE VIEW {view} AS {definition} WHERE deleted_at IS NULL")
        before = database.portrait()
        (found,) = plan(database.url, "retire").findings("beside-view-changed")
        assert "WHERE" in found["message"]
        assert migrate(database.url, "retire").code == 0
        back = shadow(database.url, "undo", "--yes")
        assert back.code == 0, back.text
        assert database.portrait() == before

    def test_of_the_view_as_it_was_made_there_is_nothing_to_say(self, database: Witness) -> None:
        assert plan(database.url, "retire").findings("beside-view-changed") == []


class TestTheOldTableMeanwhile:
    """The old app goes on, and so do its migrations."""

    def test_a_column_of_another_name_is_no_change_of_the_view(self, load: Callable[[str], Witness]) -> None:
        database = replace(load("kysely_singular"), users=ORIGINAL)
        assert migrate(database.url, "adopt").code == 0
        database.run('ALTER TABLE "user" RENAME image TO avatar')
        refused = migrate(database.url, "retire")
        assert "not-what-was-adopted" in refused.text
        assert "shadow undo" in refused.text
        back = shadow(database.url, "undo", "--yes")
        assert back.code == 0, back.text

    def test_a_column_that_came_does_not_hinder_the_way_back(self, load: Callable[[str], Witness]) -> None:
        database = replace(load("kysely_singular"), users=ORIGINAL)
        assert migrate(database.url, "adopt").code == 0
        database.run("ALTER TABLE \"user\" ADD plan text NOT NULL DEFAULT 'x'")
        before = database.portrait()
        assert migrate(database.url, "retire").code == 0
        assert shadow(database.url, "undo", "--yes").code == 0
        assert database.portrait() == before
        back = shadow(database.url, "undo", "--yes")
        assert back.code == 0, back.text

    def test_a_view_that_was_made_another_is_not_dropped_unseen(self, load: Callable[[str], Witness]) -> None:
        database = replace(load("kysely_singular"), users=ORIGINAL)
        assert migrate(database.url, "adopt").code == 0
        definition = database.value("SELECT pg_get_viewdef('users'::regclass)").strip().rstrip(";")
        database.run(f"CREATE OR REPLACE VIEW users AS {definition} WHERE deleted_at IS NULL")
        refused = shadow(database.url, "undo", "--yes")
        assert (refused.code, "undo-finds-changes" in refused.text) == (2, True), refused.text


@on_the_newest_server
class TestWhatWasNotRecorded:
    """SQL that is run by hand ends with its COMMIT, and so may a runner that is killed."""

    def by_hand(self, database: Witness) -> None:
        written = shadow(database.url, "plan", "--to", "retire", "--format", "sql")
        assert written.code == 0, written.text
        database.run(written.out)

    def test_as_long_as_nobody_changes_the_structure_undo_needs_none(self, load: Callable[[str], Witness]) -> None:
        database = replace(load("uuid_kysely"), users=ORIGINAL)
        database.run('CREATE VIEW mine AS SELECT id, email FROM "user"')
        before = database.portrait()
        self.by_hand(database)
        database.run("INSERT INTO users (id, name, email) VALUES ('00000000-0000-4000-8000-000000000001', 'N', 'n@x')")
        database.run("DELETE FROM users WHERE name = 'N'; ANALYZE; CREATE TEMP TABLE t (a int)")
        for _ in range(2):
            back = shadow(database.url, "undo", "--yes")
            assert back.code == 0, back.text
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(before)

    @pytest.mark.parametrize(
        "change",
        [
            "CREATE OR REPLACE VIEW mine AS SELECT id, email FROM users WHERE name <> ''",
            "GRANT SELECT ON mine TO PUBLIC",
            "GRANT SELECT (email) ON mine TO PUBLIC",
            "COMMENT ON VIEW mine IS 'of the app'",
            "ALTER VIEW mine ALTER COLUMN email SET DEFAULT ''",
            "CREATE RULE nothing AS ON DELETE TO mine DO INSTEAD NOTHING",
        ],
    )
    def test_when_somebody_did_it_says_that_it_cannot_compare(
        self, load: Callable[[str], Witness], change: str
    ) -> None:
        database = load("uuid_kysely")
        database.run('CREATE VIEW mine AS SELECT id, email FROM "user"')
        self.by_hand(database)
        database.run(change)
        refused = shadow(database.url, "undo", "--yes")
        assert (refused.code, "undo-cannot-compare" in refused.text) == (2, True), refused.text
        accepted = shadow(database.url, "undo", "--yes", "--accept", "undo-cannot-compare")
        assert accepted.code == 0, accepted.text

    def test_migrate_records_it_though_there_is_nothing_left_to_do(self, load: Callable[[str], Witness]) -> None:
        database = load("uuid_kysely")
        database.run('CREATE VIEW mine AS SELECT id, email FROM "user"')
        self.by_hand(database)
        again = migrate(database.url, "retire")
        assert (again.code, "Nothing to do" in again.text) == (0, True), again.text
        database.run("CREATE OR REPLACE VIEW mine AS SELECT id, email FROM users WHERE name <> ''")
        refused = shadow(database.url, "undo", "--yes")
        assert (refused.code, "undo-finds-changes" in refused.text) == (2, True), refused.text
        assert shadow(database.url, "undo", "--yes", "--accept", "undo-finds-changes").code == 0

    def test_a_journal_that_somebody_holds_is_no_failure_of_what_was_done(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        assert migrate(database.url, "adopt").code == 0
        database.run(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE lock_not_available; END$$;"
            "CREATE TRIGGER no BEFORE UPDATE ON shadow_cutover FOR EACH ROW EXECUTE FUNCTION no()"
        )
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert "could not be recorded" in done.text
        assert "rolled back" not in done.text
