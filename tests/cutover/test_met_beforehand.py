"""What PostgreSQL would refuse in the middle of a revision or an undo is met before it, named, with its remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import Outcome, migrate, plan, shadow
from tests.cutover.obstacles import refusals
from tests.cutover.witness import OURS, Witness, apart_from_names_of_partitions
from tests.postgres import offered

on_the_newest = pytest.mark.parametrize("server", ["embedded"], indirect=True)

Load = Callable[[str], Witness]


def undone(database: Witness, *arguments: str) -> Outcome:
    return shadow(database.url, "undo", "--yes", *arguments)


def remedies(outcome: Outcome, code: str, count: int) -> str:
    """See that an undo is refused with findings of one code alone, and return the SQL that they print."""
    assert outcome.code == 2, outcome.text
    assert "statement-refused" not in outcome.text
    assert outcome.text.count("refuse ") == outcome.text.count(f"refuse {code} ") == count, outcome.text
    assert "CASCADE" not in outcome.text
    said = f"{outcome.out}\n{outcome.err}".partition("Refused.")[0]
    pasted: list[str] = []
    of_remedy = False
    for line in said.splitlines():
        of_remedy = "→ " in line or (of_remedy and not line.strip().startswith("refuse "))
        if of_remedy:
            pasted.append(line.replace("→ ", "  ", 1))
    return "\n".join(pasted)


def remedied(database: Witness, outcome: Outcome, code: str, count: int = 1) -> None:
    database.run(remedies(outcome, code, count))
    back = undone(database)
    assert back.code == 0, back.text


@on_the_newest
class TestNoValueOfARowIsTold:
    """What a function of the app's says may quote what is in a row."""

    NAMELESS = (
        "ALTER TABLE users ALTER name DROP NOT NULL; UPDATE users SET name = 'x' WHERE name = '';"
        "UPDATE users SET name = NULL WHERE email = 'ada@example.com';"
    )

    @pytest.mark.parametrize(
        "says",
        [
            "RAISE EXCEPTION 'empty name for %', e",
            "RAISE EXCEPTION USING ERRCODE = '23514', MESSAGE = 'of ' || e",
            "RAISE EXCEPTION USING ERRCODE = '42704', MESSAGE = 'of ' || e",
            "ASSERT false, e",
            "EXECUTE 'SELECT ' || quote_ident(e)",
            "PERFORM e::uuid",
            "RETURN e::int > 0",
        ],
    )
    def test_by_a_plan_that_tries_what_stands_for_null(self, database: Witness, says: str) -> None:
        database.run(
            f"{self.NAMELESS} CREATE FUNCTION known(n text, e text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS "
            f"$$ BEGIN IF n = '' THEN {says}; END IF; RETURN true; END $$;"
            "ALTER TABLE users ADD CONSTRAINT known CHECK (name IS NULL OR known(name, email))"
        )
        planned = plan(database.url, "retire")
        (found,) = refusals(planned, "value-not-taken")
        assert "known" in found["message"]
        assert "ada@" not in planned.text

    @pytest.mark.parametrize(
        "says", ["EXECUTE 'SELECT ' || quote_ident(e)", "RAISE EXCEPTION USING ERRCODE = '42704', MESSAGE = 'of ' || e"]
    )
    def test_by_a_statement_that_is_refused(self, load: Load, says: str) -> None:
        database = load("uuid_kysely")
        made = "CREATE OR REPLACE FUNCTION sent(e text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
        database.run(
            'CREATE TABLE notes (person uuid REFERENCES "user" (id), mail text);'
            "INSERT INTO notes VALUES (NULL, 'ada@example.com');"
            f"{made} RETURN e; END $$; CREATE INDEX of_sent ON notes (sent(mail)); {made} {says}; END $$"
        )
        done = migrate(database.url, "retire")
        assert (done.code, "statement-refused" in done.text) == (2, True), done.text
        assert "PL/pgSQL function public.sent(text)" in done.text
        assert "ada@" not in done.text


@on_the_newest
class TestUndoOfAdopt:
    """It drops columns, and PostgreSQL would drop unsaid what is over them."""

    MADE = """
        CREATE UNIQUE INDEX one_live ON users (name, email) WHERE deleted_at IS NULL;
        ALTER TABLE users ADD CONSTRAINT ck CHECK (deleted_at IS NULL OR name <> '');
        ALTER TABLE users ADD CONSTRAINT uq UNIQUE (id, deleted_at);
        CREATE STATISTICS stx ON name, deleted_at FROM users;
        CREATE TABLE x (a varchar(255), b timestamptz, CONSTRAINT of_uq FOREIGN KEY (a, b)
            REFERENCES users (id, deleted_at));
        CREATE TABLE days (at timestamptz PRIMARY KEY);
        ALTER TABLE users ADD CONSTRAINT day FOREIGN KEY (deleted_at) REFERENCES days;
    """

    def test_indexes_constraints_keys_and_statistics_over_what_it_drops_are_named(self, database: Witness) -> None:
        before = database.schema()
        assert migrate(database.url, "adopt").code == 0
        database.run(self.MADE)
        refused = undone(database)
        for name in ("one_live", "ck", "uq", "stx", "of_uq", "day"):
            assert f" {name} of public.users is over deleted_at, which undo drops" in refused.text
        assert "CREATE UNIQUE INDEX one_live ON public.users USING btree (name, email)" in refused.text
        remedied(database, refused, "undo-finds-objects", 6)
        database.run("DROP TABLE x, days")
        assert database.schema() == before

    def test_those_of_the_old_apps_table_and_of_its_children_too(self, load: Load) -> None:
        database = load("kysely_singular")
        database.run('CREATE TABLE vip () INHERITS ("user")')
        before = database.schema()
        assert migrate(database.url, "adopt").code == 0
        database.run(
            'CREATE INDEX live ON "user" (email) WHERE deleted_at IS NULL; CREATE INDEX of_vip ON vip (deleted_at);'
            "ALTER TABLE \"user\" ADD CONSTRAINT ck CHECK (deleted_at IS NULL OR name <> '')"
        )
        remedied(database, undone(database), "undo-finds-objects", 3)
        assert database.schema() == before

    def test_what_is_over_other_columns_stays_unnamed(self, database: Witness) -> None:
        assert migrate(database.url, "adopt").code == 0
        database.run("CREATE INDEX by_name ON users (name); ALTER TABLE users ADD CONSTRAINT ck CHECK (name <> 'x')")
        assert undone(database).code == 0
        assert database.value("SELECT to_regclass('by_name') IS NOT NULL")


@on_the_newest
class TestIdentityOfAColumnThatRefers:
    @pytest.mark.parametrize(
        "made",
        [
            'CREATE TABLE profiles (user_id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY REFERENCES "user")',
            'CREATE TABLE profiles (user_id int GENERATED ALWAYS AS IDENTITY REFERENCES "user", at int)',
            'CREATE TABLE whole (user_id int REFERENCES "user", at int);'
            "CREATE TABLE profiles (user_id int NOT NULL GENERATED ALWAYS AS IDENTITY) INHERITS (whole)",
            'CREATE TABLE profiles (user_id int GENERATED ALWAYS AS IDENTITY REFERENCES "user", at int) '
            "PARTITION BY RANGE (at); CREATE TABLE profiles_1 PARTITION OF profiles FOR VALUES FROM (0) TO (9)",
        ],
    )
    def test_it_is_named_before_retire_with_what_takes_it_out(self, load: Load, made: str) -> None:
        database = load("number_ids")
        database.run(made)
        (found,) = refusals(plan(database.url, "retire"), "dependent-default-value")
        assert found["subject"] == "public.profiles.user_id"
        database.run(found["remedy"])
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        back = undone(database)
        assert back.code == 0, back.text


MADE = """
    CREATE TABLE notes (id int PRIMARY KEY, person uuid CONSTRAINT known REFERENCES "user" (id), x int);
    INSERT INTO notes SELECT row_number() OVER (), id, 1 FROM "user";
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON notes USING (person IS NOT NULL);
    CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER seen BEFORE UPDATE OF person ON notes FOR EACH ROW EXECUTE FUNCTION look();
    CREATE RULE told AS ON DELETE TO notes DO ALSO NOTIFY told;
    CREATE PUBLICATION pub FOR TABLE notes (id, person);
    CREATE TABLE prt (id int, u uuid REFERENCES "user" (id), at date) PARTITION BY RANGE (at);
    CREATE TABLE prt_1 PARTITION OF prt FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE par (id int PRIMARY KEY, u uuid REFERENCES "user" (id), x int);
    CREATE INDEX par_u ON par (u);
"""
CAME_SINCE = {
    "a policy of the name of one that is carried": "CREATE POLICY own ON par USING (u IS NOT NULL)",
    "a trigger of the name of one that is carried": "CREATE TRIGGER seen BEFORE UPDATE OF u ON par FOR EACH ROW "
    "EXECUTE FUNCTION look()",
    "a table in a publication that is carried": "ALTER PUBLICATION pub ADD TABLE par (id, u)",
    "a policy of users": "CREATE POLICY own ON users USING (id <> '')",
    "a column of the row type of users": "CREATE TABLE hist (id int, was users)",
    "a column of the row type of what refers": "CREATE TABLE hist (id int, was notes)",
    "a column of the row type of a partition": "CREATE TABLE hist (id int, was prt_1)",
    "an array of rows": "CREATE TABLE hist (id int, was notes[])",
    "a domain over rows": "CREATE DOMAIN rows AS users; CREATE TABLE hist (id int, was rows)",
    "a table that was made to inherit": "CREATE TABLE base (person varchar(255)); ALTER TABLE notes INHERIT base",
    "a table that was attached": "CREATE TABLE base (id int NOT NULL, person varchar(255), x int) "
    "PARTITION BY LIST (id); ALTER TABLE base ATTACH PARTITION notes DEFAULT",
    "a table that was attached by the id itself": "CREATE TABLE base (id int NOT NULL, person varchar(255), x int) "
    "PARTITION BY LIST (person); ALTER TABLE base ATTACH PARTITION notes DEFAULT",
    "users that was made to inherit": "CREATE TABLE base (id varchar(255)); ALTER TABLE users INHERIT base",
    "users that inherits a name which changes back": "CREATE TABLE base (email_verified boolean);"
    "ALTER TABLE users INHERIT base",
    "a partition with a default": "CREATE TABLE prt_2 PARTITION OF prt (u DEFAULT 'abc') "
    "FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
    "a partition with an index of texts": "CREATE TABLE prt_2 PARTITION OF prt "
    "FOR VALUES FROM ('2025-01-01') TO ('2026-01-01'); CREATE INDEX ON prt_2 (u text_pattern_ops)",
    "an index of texts on the whole": "CREATE INDEX ON prt (u text_pattern_ops)",
    "a child with a default": "CREATE TABLE chi (y int) INHERITS (par); ALTER TABLE chi ALTER u SET DEFAULT 'x'",
    "a child with an index of texts": "CREATE TABLE chi (y int) INHERITS (par);"
    "CREATE INDEX ON chi (u varchar_pattern_ops)",
    "a view over a partition": "CREATE VIEW parts AS SELECT u FROM prt_1",
    "a view over a child that came since": "CREATE TABLE chi (y int) INHERITS (par);"
    "CREATE VIEW parts AS SELECT u FROM chi",
}
"""What PostgreSQL would stop at."""
FREED = """
    ALTER TABLE notes DROP CONSTRAINT known; DROP POLICY own ON notes; DROP TRIGGER seen ON notes;
    ALTER PUBLICATION pub DROP TABLE notes;
"""
"""What takes all from the column of notes that keeps its type."""


@pytest.fixture
def retired(load_retired: Callable[..., Witness]) -> Witness:
    return load_retired("uuid_kysely", MADE)


@on_the_newest
class TestUndoOfRetire:
    def test_nothing_that_was_there_is_named(self, retired: Witness) -> None:
        assert undone(retired).code == 0

    @pytest.mark.parametrize("what", CAME_SINCE)
    def test_what_came_since_is_named_with_its_remedy(self, retired: Witness, what: str) -> None:
        retired.run(CAME_SINCE[what])
        state = retired.dump(*OURS)
        refused = undone(retired)
        assert retired.dump(*OURS) == state
        remedied(retired, refused, "undo-finds-objects")

    @pytest.mark.parametrize(("type_", "using"), [("jsonb", "to_jsonb(person)"), ("json", "to_json(person)")])
    def test_an_id_that_became_json_is_text_again_with_the_remedy(
        self, retired: Witness, type_: str, using: str
    ) -> None:
        ids = "SELECT id, person::text AS person FROM notes ORDER BY id"
        before = retired.ask(ids)
        retired.run(f"{FREED} ALTER TABLE notes ALTER person TYPE {type_} USING {using}")
        refused = undone(retired, "--accept", "undo-misses-objects")
        retired.run(remedies(refused, "undo-finds-values", 1))
        back = undone(retired, "--accept", "undo-misses-objects")
        assert back.code == 0, back.text
        assert retired.ask(ids) == before

    def test_one_that_is_a_uuid_again_is_nothing_to_name(self, retired: Witness) -> None:
        retired.run(f"{FREED} ALTER TABLE notes ALTER person TYPE uuid USING person::uuid")
        back = undone(retired, "--accept", "undo-misses-objects")
        assert back.code == 0, back.text

    def test_partitions_and_children_keep_the_defaults_that_they_had(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(
            'CREATE TABLE prt (u uuid REFERENCES "user" (id), at int) PARTITION BY RANGE (at);'
            "CREATE TABLE prt_1 PARTITION OF prt (u DEFAULT gen_random_uuid()) FOR VALUES FROM (0) TO (9)"
        )
        assert migrate(database.url, "adopt").code == 0
        before = apart_from_names_of_partitions(database.portrait())
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        back = undone(database)
        assert back.code == 0, back.text
        assert apart_from_names_of_partitions(database.portrait()) == before

    def test_a_row_type_is_in_the_way_of_defaults_that_come_back_too(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run("CREATE TABLE hist (id int, was users); INSERT INTO hist SELECT 1, u FROM users u LIMIT 1")
        remedied(database, undone(database), "undo-finds-objects")
        assert database.value("SELECT was->>'email' LIKE '%@%' FROM hist")


@pytest.mark.parametrize("server", [name for name in offered() if name != "embedded"], indirect=True)
class TestAddressesWithoutCase:
    """Of the servers at hand, the embedded one has no citext."""

    @pytest.fixture
    def caseless(self, database: Witness) -> Witness:
        database.run(
            "CREATE EXTENSION citext; ALTER TABLE users ALTER email TYPE citext;"
            "CREATE TABLE letters (recipient citext UNIQUE REFERENCES users (email) ON UPDATE CASCADE)"
        )
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        return database

    def test_those_that_differ_in_case_alone_are_counted(self, caseless: Witness) -> None:
        caseless.run(
            "INSERT INTO users (id, name, email) SELECT 'n', 'n', upper(email) FROM users WHERE email ~ '^ada@';"
            "INSERT INTO letters SELECT email FROM users WHERE email ~* '^ada@'"
        )
        refused = undone(caseless)
        assert "2 rows of public.users have in email what is alike to public.citext" in refused.text
        assert "2 rows of public.letters have in recipient" in refused.text
        queries = remedies(refused, "undo-finds-values", 2)
        assert "{ada@example.com,ADA@EXAMPLE.COM}" in caseless.run(queries)
        caseless.run("DELETE FROM letters; UPDATE users SET email = 'n@x.org' WHERE id = 'n'")
        back = undone(caseless)
        assert back.code == 0, back.text

    def test_others_are_not(self, caseless: Witness) -> None:
        caseless.run("INSERT INTO users (id, name, email) VALUES ('n', 'n', 'N@x.org')")
        back = undone(caseless)
        assert back.code == 0, back.text
