"""What would stop an undo in its middle is found at first, all at once, with what gets it out of the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cutover.commands import Outcome, migrate, plan, shadow
from tests.cutover.obstacles import hand_over, refusals
from tests.cutover.witness import OURS, Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


def undone(url: str) -> Outcome:
    return shadow(url, "undo", "--yes")


def remedied(database: Witness, url: str, **counts: int) -> None:
    """See that an undo is refused with so many findings of each code, run their remedies, and undo."""
    before = database.dump(*OURS)
    refused = undone(url)
    assert refused.code == 2, refused.text
    assert "statement-refused" not in refused.text
    found = {code: refused.text.count(f"refuse {code.replace('_', '-')} ") for code in counts}
    assert (found, refused.text.count("refuse ")) == (counts, sum(counts.values())), refused.text
    assert database.dump(*OURS) == before
    arrows = (line.strip() for line in f"{refused.out}\n{refused.err}".splitlines())
    database.run("\n".join(line.removeprefix("→ ") for line in arrows if line.startswith("→ ")))
    back = undone(url)
    assert back.code == 0, back.text


class TestInTheSchemaOfTheRetired:
    """Undo drops it, and nothing of the app's with it."""

    MADE = """
    CREATE TABLE retired_auth.report (id serial PRIMARY KEY, at date);
    CREATE VIEW retired_auth.latest AS SELECT max(at) FROM retired_auth.report;
    CREATE MATERIALIZED VIEW retired_auth.kept AS SELECT 1 AS one;
    CREATE SEQUENCE retired_auth.numbers;
    CREATE TYPE retired_auth.mood AS ENUM ('good'); CREATE TYPE retired_auth.pair AS (a int, b int);
    CREATE DOMAIN retired_auth.positive AS int CHECK (VALUE > 0);
    CREATE FUNCTION retired_auth."F"(a int, b text[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE PROCEDURE retired_auth.p() LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE retired_auth.all_of(int) (SFUNC = int4pl, STYPE = int);
    CREATE OPERATOR retired_auth.=== (FUNCTION = int4eq, LEFTARG = int, RIGHTARG = int);
    CREATE STATISTICS retired_auth.both ON id, at FROM retired_auth.report;
    CREATE COLLATION retired_auth.plain (LOCALE = 'C');
    CREATE TEXT SEARCH CONFIGURATION retired_auth.words (COPY = simple);
    """

    def test_whatever_a_schema_can_hold_is_named_and_moved(self, database: Witness) -> None:
        before = database.schema()
        assert migrate(database.url, "retire").code == 0
        database.run(self.MADE)
        remedied(database, database.url, schema_not_empty=14)
        assert undone(database.url).code == 0
        assert database.value("SELECT to_regclass('public.report') IS NOT NULL")
        assert set(before) < set(database.schema())

    def test_the_sequence_of_ids_is_the_cutovers_own(self, load: Callable[[str], Witness]) -> None:
        database = load("number_ids")
        database.run(
            'CREATE SEQUENCE ids_of_users OWNED BY "user".id; ALTER TABLE "user" ALTER id DROP IDENTITY IF EXISTS;'
            "ALTER TABLE \"user\" ALTER id SET DEFAULT nextval('ids_of_users')"
        )
        assert migrate(database.url, "retire").code == 0
        back = undone(database.url)
        assert back.code == 0, back.text

    def test_drop_names_what_is_no_table_too(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run("CREATE FUNCTION retired_auth.f(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
        (found,) = refusals(plan(database.url, "drop"), "schema-not-empty")
        assert found["subject"] == "retired_auth.f(integer)"
        database.run(found["remedy"])
        database.run("CREATE SEQUENCE retired_auth.tickets")
        (found,) = refusals(plan(database.url, "drop"), "schema-not-empty")
        assert found["subject"] == "retired_auth.tickets"
        database.run(found["remedy"])
        done = migrate(database.url, "drop", "--accept", "identities-not-exported")
        assert done.code == 0, done.text
        assert database.value("SELECT to_regclass('public.tickets') IS NOT NULL")

    def test_what_reads_a_retired_table_is_taken_out_by_hand_alone_before_drop(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run("CREATE VIEW late AS SELECT id FROM retired_auth.sessions")
        for given in ((), ("--release", "public.late")):
            (found,) = refusals(plan(database.url, "drop", *given), "dependent-view")
            assert "--release" not in found["remedy"]
        database.run(found["remedy"])
        done = migrate(database.url, "drop", "--accept", "identities-not-exported")
        assert done.code == 0, done.text


class TestOnWhatUndoDrops:
    def test_views_over_the_view_that_keeps_the_old_names(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        assert migrate(database.url, "retire", "--compat-view").code == 0
        database.run(
            'CREATE VIEW names AS SELECT id, name FROM "user"; CREATE VIEW short AS SELECT name FROM names;'
            'CREATE MATERIALIZED VIEW how_many AS SELECT count(*) FROM "user";'
            'CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM "user"; END'
        )
        remedied(database, database.url, undo_finds_objects=3)

    def test_views_over_what_retire_keeps(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run(
            "CREATE VIEW locked AS SELECT id FROM retired_auth.users_columns WHERE locked_until IS NOT NULL;"
            "CREATE TABLE notes (of varchar(255) REFERENCES retired_auth.users_columns)"
        )
        remedied(database, database.url, undo_finds_objects=2)

    def test_a_view_that_only_counts_the_view_of_adopt(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        assert migrate(database.url, "adopt").code == 0
        database.run("CREATE VIEW how_many AS SELECT count(*) FROM users; CREATE VIEW names AS SELECT name FROM users")
        remedied(database, database.url, undo_finds_objects=2)

    def test_a_foreign_key_to_the_table_that_adopt_made(self, empty: Witness) -> None:
        assert migrate(empty.url, "adopt").code == 0
        empty.run("CREATE TABLE notes (id int, of varchar(255) REFERENCES users); CREATE VIEW n AS SELECT FROM users")
        remedied(empty, empty.url, undo_finds_objects=2)


class TestRowsOutOfSight:
    @pytest.mark.parametrize("table", ["users", "retired_auth.sessions"])
    def test_force_row_level_security_is_named_with_its_way_out(
        self, database: Witness, make_role: Callable[[], str], table: str
    ) -> None:
        owner = make_role()
        hand_over(database, owner)
        url = database.seen_by(owner)
        assert migrate(url, "retire").code == 0
        database.run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        remedied(database, url, row_security=1)

    def test_before_adopt_is_undone_too(self, database: Witness, make_role: Callable[[], str]) -> None:
        owner = make_role()
        hand_over(database, owner)
        url = database.seen_by(owner)
        assert migrate(url, "adopt").code == 0
        database.run("ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY")
        remedied(database, url, row_security=1)


class TestPrivilegesTakenSince:
    def test_tables_of_others_and_schemas_are_named(self, database: Witness, make_role: Callable[[], str]) -> None:
        owner, other = make_role(), make_role()
        hand_over(database, owner)
        url = database.seen_by(owner)
        assert migrate(url, "retire").code == 0
        database.run(
            f"ALTER TABLE users OWNER TO {other}; ALTER TABLE retired_auth.sessions OWNER TO {other};"
            f"REVOKE CREATE ON SCHEMA public FROM {owner}, PUBLIC"
        )
        remedied(database, url, missing_privileges=2)


class TestLongNames:
    """PostgreSQL keeps 63 octets of a name."""

    @pytest.mark.parametrize("name", ["s" * 63, "é" * 31, "x" + "é" * 31, "漢" * 21])
    def test_a_column_or_index_that_has_one_again_gets_another(self, database: Witness, name: str) -> None:
        database.run(f'CREATE INDEX "{name}" ON users (status); CREATE TABLE others (id int)')
        assert migrate(database.url, "retire").code == 0
        database.run(f'CREATE INDEX "{name}" ON others (id)')
        remedied(database, database.url, name_taken=1)

    @pytest.mark.parametrize("name", ["s" * 63, "漢" * 21])
    def test_so_does_a_table(self, database: Witness, name: str) -> None:
        database.run(f'ALTER TABLE sessions RENAME TO "{name}"')
        done = migrate(database.url, "retire", "--map", f"sessions=public.{name}")
        assert done.code == 0, done.text
        database.run(f'CREATE TABLE "{name}" (id int)')
        remedied(database, database.url, name_taken=1)

    def test_the_other_name_is_free(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run("ALTER TABLE users ADD status int, ADD status_own int")
        remedied(database, database.url, name_taken=1)
        assert {"status", "status_own", "status_own2"} <= database.columns().keys()
