"""What the app changed since retire, or put in the place of what comes back: nothing is lost unsaid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import ACCEPTED, Outcome, migrate, plan, shadow
from tests.cutover.test_came_since import remedied, undone
from tests.cutover.witness import Witness, apart_from_names_of_partitions

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

Load = Callable[[str], Witness]


def retired(database: Witness, *arguments: str) -> Witness:
    done = migrate(database.url, "retire", *arguments)
    assert done.code == 0, done.text
    return database


def back_whole(database: Witness, before: list[str]) -> None:
    """Undo both revisions; the schema is then what it was."""
    for _ in range(2):
        back = undone(database)
        assert back.code == 0, back.text
    assert database.schema() == before


def remedies(database: Witness, code: str) -> list[str]:
    return [found["remedy"] for found in plan(database.url, "retire").findings(code)]


class TestValues:
    def test_ids_longer_than_they_could_be_before_are_counted_and_kept_aside(self, load: Load) -> None:
        database = load("kysely_singular")
        keys = database.ask(
            "SELECT conrelid::regclass::text AS own, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS says, "
            "(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1]) AS col "
            "FROM pg_constraint WHERE confrelid = '\"user\"'::regclass AND array_length(conkey, 1) = 1"
        )
        database.run("".join(f"ALTER TABLE {key['own']} DROP CONSTRAINT {key['name']};" for key in keys))
        database.run('ALTER TABLE "user" ALTER id TYPE varchar(36)')
        database.run("".join(f"ALTER TABLE {key['own']} ALTER {key['col']} TYPE varchar(36);" for key in keys))
        database.run("".join(f"ALTER TABLE {key['own']} ADD CONSTRAINT {key['name']} {key['says']};" for key in keys))
        before = database.schema()
        retired(database)
        database.run("INSERT INTO users (id, name, email) VALUES (repeat('s', 60), 'n', 'n@x.org')")
        refused = undone(database)
        assert "1 users came since, whose ids are longer than character varying(36)" in refused.text
        remedied(database, refused, "undo-finds-ids", 1)
        assert database.value("SELECT email FROM users_since") == "n@x.org"
        database.run("DROP TABLE users_since")
        back_whole(database, before)

    def test_names_and_addresses_longer_than_they_could_be_before_are_counted(self, load: Load) -> None:
        database = load("kysely_singular")
        database.run('ALTER TABLE "user" ALTER email TYPE varchar(255), ALTER name TYPE varchar(300)')
        retired(database)
        database.run(
            "INSERT INTO users (id, name, email) "
            "VALUES ('a', repeat('n', 301), 'a@x.org'), ('b', 'n', repeat('m', 256))"
        )
        remedied(database, undone(database), "undo-finds-values", 2)
        assert undone(database).code == 0
        assert database.ask("SELECT length(name) AS n, length(email) AS e FROM \"user\" WHERE id IN ('a', 'b')") == [
            {"n": 300, "e": 7},
            {"n": 1, "e": 255},
        ]

    @pytest.mark.parametrize(
        ("name", "made", "since"),
        [
            (
                "number_ids",
                'ALTER TABLE "user" ADD org text; ALTER TABLE "user" ADD UNIQUE (id, org); CREATE TABLE notes '
                '(person int, org text, FOREIGN KEY (person, org) REFERENCES "user" (id, org))',
                "INSERT INTO notes VALUES ('99999999999', NULL), ('free text', NULL)",
            ),
            (
                "uuid_kysely",
                'CREATE TABLE notes (person uuid CONSTRAINT known REFERENCES "user" (id))',
                "ALTER TABLE notes DROP CONSTRAINT known; INSERT INTO notes VALUES ('free text'), ('more of it')",
            ),
            (
                "uuid_kysely",
                'CREATE TABLE notes (person uuid); ALTER TABLE notes ADD FOREIGN KEY (person) REFERENCES "user" (id) '
                "NOT ENFORCED",
                "INSERT INTO notes VALUES ('free text'), ('more of it')",
            ),
        ],
    )
    def test_what_no_foreign_key_holds_to_ids_is_counted_and_emptied(
        self, load: Load, name: str, made: str, since: str
    ) -> None:
        database = load(name)
        database.run(made)
        retired(database)
        database.run(since)
        refused = undone(database)
        assert "2 rows of public.notes have in person what" in refused.text
        assert "free text" not in refused.text
        remedied(database, refused, "undo-finds-values", 1)
        assert database.value("SELECT count(*) FROM notes_since") == 2
        back = undone(database, "--accept", "undo-misses-objects")
        assert back.code == 0, back.text
        assert database.value("SELECT count(*) FROM notes WHERE person IS NULL") == 2

    def test_what_a_domain_that_comes_back_refuses_is_named(self, load: Load) -> None:
        database = load("kysely_singular")
        database.run(
            'CREATE DOMAIN short AS text CHECK (length(VALUE) < 301); ALTER TABLE "user" ALTER name TYPE short'
        )
        retired(database)
        database.run("INSERT INTO users (id, name, email) VALUES ('a', repeat('n', 301), 'a@x.org')")
        refused = undone(database)
        assert (refused.code, "refuse undo-finds-values" in refused.text) == (2, True), refused.text
        database.run("UPDATE users SET name = 'n' WHERE length(name) > 300")
        assert undone(database).code == 0


class TestPlacesTaken:
    def test_names_that_are_no_tables_are_named_at_once(self, load: Load) -> None:
        database = load("kysely_singular")
        retired(database)
        database.run(
            "CREATE SEQUENCE session; CREATE DOMAIN account AS text; CREATE TYPE \"user\" AS ENUM ('a');"
            "CREATE SEQUENCE account_pkey; CREATE TABLE own (id int); CREATE INDEX verification ON own (id);"
            'CREATE TYPE "twoFactor" AS (id int); ALTER TABLE users ADD "emailVerified" boolean'
        )
        remedied(database, undone(database), "name-taken", 7)
        back = undone(database)
        assert back.code == 0, back.text

    @pytest.mark.parametrize("name", ["number_ids", "number_ids_13"])
    def test_so_is_that_of_the_sequence_that_made_ids(self, load: Load, name: str) -> None:
        database = load(name)
        retired(database)
        database.run("CREATE SEQUENCE user_id_seq")
        remedied(database, undone(database), "name-taken", 1)
        back = undone(database)
        assert back.code == 0, back.text

    def test_defaults_and_orders_of_text_are_named(self, load: Load) -> None:
        database = load("uuid_kysely")
        database.run(
            'CREATE TABLE notes (id int, person uuid DEFAULT gen_random_uuid() REFERENCES "user" (id));'
            "CREATE INDEX plain ON notes (person)"
        )
        retired(database)
        database.run(
            "ALTER TABLE users ALTER id SET DEFAULT gen_random_uuid()::text;"
            "CREATE INDEX likes ON notes (person text_pattern_ops); CREATE INDEX places ON notes USING spgist (person);"
            'CREATE INDEX sorts ON notes (id, person COLLATE "C"); CREATE INDEX upper ON notes (upper(person))'
        )
        remedied(database, undone(database), "undo-finds-objects", 4)
        back = undone(database)
        assert back.code == 0, back.text
        kept = "SELECT string_agg(indexname, ' ' ORDER BY 1) FROM pg_indexes WHERE tablename = 'notes'"
        assert database.value(kept) == "plain upper"


MADE = """
    CREATE TABLE notes (id int PRIMARY KEY, person uuid CONSTRAINT known REFERENCES "user" (id),
        CONSTRAINT filled CHECK (person IS NOT NULL));
    CREATE INDEX loud ON notes (upper(person::text));
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON notes USING (person IS NOT NULL);
    CREATE VIEW readers AS SELECT id FROM "user"; GRANT SELECT ON readers TO PUBLIC;
    CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER seen BEFORE UPDATE OF id ON "user" FOR EACH ROW EXECUTE FUNCTION look();
"""
CHANGED = {
    "a policy": (
        "ALTER POLICY own ON notes USING (person IS NOT NULL AND false)",
        "policy own on public.notes",
        "false",
    ),
    "a grant": ("REVOKE SELECT ON readers FROM PUBLIC", "view public.readers", "FROM public.users"),
    "a view": ("CREATE OR REPLACE VIEW readers AS SELECT id FROM users WHERE name <> ''", "view public.readers", "<>"),
    "a check": (
        "ALTER TABLE notes DROP CONSTRAINT filled, ADD CONSTRAINT filled CHECK (person <> '')",
        "constraint filled on public.notes",
        "<> ''",
    ),
    "an index": ("DROP INDEX loud; CREATE INDEX loud ON notes (lower(person))", "index public.loud", "lower("),
    "a foreign key": (
        "ALTER TABLE notes DROP CONSTRAINT known, ADD CONSTRAINT known FOREIGN KEY (person) REFERENCES users "
        "ON DELETE RESTRICT",
        "constraint known on public.notes",
        "ON DELETE RESTRICT",
    ),
    "a trigger": ("ALTER TABLE users DISABLE TRIGGER seen", 'trigger seen on public."user"', "DISABLE TRIGGER"),
    "a default": (
        "ALTER TABLE users ALTER email_verified SET DEFAULT true",
        'default of the column "emailVerified" on public."user"',
        "SET DEFAULT true",
    ),
}


class TestChanged:
    @pytest.fixture
    def made(self, load: Load) -> Witness:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(MADE)
        return database

    @pytest.mark.parametrize("what", CHANGED)
    def test_it_is_printed_as_it_is_and_replaced_only_if_a_person_accepts(self, made: Witness, what: str) -> None:
        since, named, now = CHANGED[what]
        before = apart_from_names_of_partitions(made.portrait())
        retired(made)
        made.run(since)
        there = made.dump()
        refused = undone(made)
        assert refused.code == 2, refused.text
        assert refused.text.count("refuse undo-finds-changes") == 1
        assert f"The {named} was changed since the cutover; undo takes that back." in refused.text
        assert now in refused.text.partition("--accept undo-finds-changes")[2]
        assert made.dump() == there
        assert undone(made, "--accept", "undo-finds-changes").code == 0
        assert undone(made).code == 0
        assert apart_from_names_of_partitions(made.portrait()) == before

    def test_one_of_the_apps_own_in_the_place_of_the_compat_view_is_never_dropped_unasked(self, load: Load) -> None:
        database = load("kysely_singular")
        retired(database, "--compat-view")
        database.run('DROP VIEW "user"; CREATE VIEW "user" AS SELECT 1 AS own')
        refused = undone(database)
        assert 'The view public."user" was changed since the cutover; undo drops it.' in refused.text
        assert "-- SELECT 1 AS own" in refused.text
        database.run('DROP VIEW "user"; CREATE TABLE "user" (own int)')
        remedied(database, undone(database), "name-taken", 1)
        assert undone(database, "--accept", "undo-misses-objects").code == 0

    def test_privileges_on_the_compat_view_are_nobodys_concern(self, load: Load) -> None:
        database = load("kysely_singular")
        retired(database, "--compat-view")
        database.run('GRANT SELECT ON "user" TO PUBLIC')
        assert undone(database).code == 0


class TestNoRowIsQuoted:
    SECRET = "41f7-secret"

    def test_a_trigger_of_a_retired_table_does_not_see_undo_catch_up(self, load: Load) -> None:
        database = load("kysely_singular")
        database.run(
            'INSERT INTO "user" (id, name, email, "emailVerified", "createdAt", "updatedAt") '
            "VALUES ('zz', 'x', 'zz@x.org', true, now(), now());"
            'INSERT INTO account (id, "accountId", "providerId", "userId", password, "createdAt", "updatedAt") '
            f"VALUES ('za', 'zz', 'credential', 'zz', '{self.SECRET}', now(), now());"
            "CREATE FUNCTION nope() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no delete of %', OLD; END $$;"
            "CREATE TRIGGER nope BEFORE DELETE ON account FOR EACH ROW EXECUTE FUNCTION nope()"
        )
        retired(database)
        database.run("DELETE FROM users WHERE id = 'zz'")
        back = undone(database, "--accept", "undo-loses-rows")
        assert back.code == 0, back.text
        assert database.value("SELECT count(*) FROM account WHERE id = 'za'") == 0
        assert database.value("SELECT tgenabled FROM pg_trigger WHERE tgname = 'nope'") == "O"

    @pytest.mark.parametrize("raised", ["RAISE 'was %', x", "RAISE 'was %', x USING ERRCODE = '57014'"])
    def test_what_a_function_says_of_a_row_is_not_repeated(self, load: Load, raised: str) -> None:
        database = load("uuid_kysely")
        database.run('CREATE TABLE notes (person uuid REFERENCES "user" (id), said text)')
        retired(database)
        making = "CREATE OR REPLACE FUNCTION strict(x text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS"
        database.run(
            f"INSERT INTO notes VALUES (NULL, '{self.SECRET}'); {making} $$ BEGIN RETURN x; END $$;"
            f"CREATE INDEX ON notes (strict(said), person); {making} $$ BEGIN {raised}; END $$"
        )
        refused = undone(database)
        assert refused.code == 2, refused.text
        assert self.SECRET not in refused.text
        assert "It was raised by PL/pgSQL function public.strict(text) line 1 at RAISE" in refused.text

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("99999999999", "numeric value out of range (SQLSTATE 22003)"),
            ("41f7-secret", "invalid input syntax for type integer (SQLSTATE 22P02)"),
        ],
    )
    def test_a_data_exception_is_said_without_the_value(self, load: Load, value: str, said: str) -> None:
        database = load("uuid_kysely")
        database.run('CREATE TABLE notes (person uuid REFERENCES "user" (id), said text)')
        retired(database)
        making = "CREATE OR REPLACE FUNCTION strict(x text) RETURNS int IMMUTABLE LANGUAGE sql AS"
        database.run(
            f"INSERT INTO notes VALUES (NULL, '{value}'); {making} 'SELECT 1';"
            f"CREATE INDEX ON notes (strict(said), person); {making} 'SELECT x::int'"
        )
        refused = undone(database)
        assert (refused.code, said in refused.text, value in refused.text) == (2, True, False), refused.text


class TestLongNames:
    def test_two_indexes_of_one_beginning_get_two_names(self, load: Load) -> None:
        database = load("kysely_singular")
        names = [f"{'i' * 62}{end}" for end in "ab"]
        database.run("CREATE SCHEMA other; ALTER TABLE account SET SCHEMA other")
        for name in names:
            database.run(f'CREATE INDEX {name} ON session (token); CREATE INDEX {name} ON other.account ("userId")')
        printed = remedies(database, "index-name-taken")
        assert len(printed) == 2
        database.run("\n".join(printed))
        retired(database)

    def test_two_tables_of_one_long_name_move_come_back_and_go(self, load: Load) -> None:
        database = replace(load("kysely_singular"), users='public."user"')
        name = "s" * 63
        database.run(
            f"CREATE SCHEMA other; ALTER TABLE session SET SCHEMA other; ALTER TABLE other.session RENAME TO {name};"
            f"ALTER TABLE account RENAME TO {name}"
        )
        before = database.portrait()
        retired(database)
        assert undone(database).code == 0
        assert undone(database).code == 0
        assert database.portrait() == before
        done = migrate(database.url, "drop", "--accept", ACCEPTED)
        assert done.code == 0, done.text

    def test_two_tables_whose_names_differ_at_the_end_alone_come_back(self, load: Load) -> None:
        database = replace(load("kysely_singular"), users=f"public.{'u' * 62}a")
        database.run(f'ALTER TABLE session RENAME TO {"u" * 62}b; ALTER TABLE "user" RENAME TO {"u" * 62}a')
        before = database.portrait()
        retired(database)
        for _ in range(2):
            back = undone(database)
            assert back.code == 0, back.text
        assert database.portrait() == before


class TestRemedies:
    def test_a_table_leaves_a_publication_without_what_inherits_from_it(self, load: Load) -> None:
        database = load("kysely_singular")
        database.run("CREATE TABLE old () INHERITS (session); CREATE PUBLICATION shop FOR TABLE ONLY session")
        (leaving,) = remedies(database, "publication")
        database.run(leaving.partition("\n")[0])
        assert database.value("SELECT count(*) FROM pg_publication_rel") == 0

    def test_a_foreign_key_to_addresses_keeps_its_comment_and_is_never_over_what_is_computed(self, load: Load) -> None:
        database = load("kysely_singular")
        database.run(
            'CREATE TABLE letters (mail text CONSTRAINT "to" REFERENCES "user" (email) ON DELETE CASCADE, seen text '
            'GENERATED ALWAYS AS (lower(mail)) STORED CONSTRAINT "of" REFERENCES "user" (email));'
            "COMMENT ON CONSTRAINT \"to\" ON letters IS 'whose'"
        )
        printed = remedies(database, "foreign-key-to-email")
        assert len(printed) == 2
        database.run("\n".join(printed))
        assert remedies(database, "foreign-key-to-email") == []
        assert database.ask(
            "SELECT conname AS name, pg_get_constraintdef(oid) AS says, obj_description(oid, 'pg_constraint') AS about "
            "FROM pg_constraint WHERE conrelid = 'letters'::regclass"
        ) == [
            {
                "name": "to",
                "says": 'FOREIGN KEY (mail) REFERENCES "user"(email) ON UPDATE CASCADE ON DELETE CASCADE',
                "about": "whose",
            }
        ]

    def test_two_that_make_one_foreign_key_anew_say_that_the_plan_comes_between(self, load: Load) -> None:
        database = load("kysely_singular")
        unique = database.value(
            "SELECT conname FROM pg_constraint WHERE conrelid = '\"user\"'::regclass AND contype = 'u' "
            "AND pg_get_constraintdef(oid) = 'UNIQUE (email)'"
        )
        database.run(
            f'ALTER TABLE "user" DROP CONSTRAINT "{unique}", ADD CONSTRAINT once UNIQUE (email) INCLUDE (role);'
            'CREATE TABLE letters (mail text REFERENCES "user" (email))'
        )
        codes = ("foreign-key-to-email", "index-includes-column")
        assert all(remedies(database, code)[0].endswith("anew:\n-- shadow plan") for code in codes)
        for code in codes:
            (printed,) = remedies(database, code)
            database.run(printed)
        retired(database)


def test_undo_of_adopt_drops_no_view_of_the_apps_own(load: Load) -> None:
    database = load("kysely_singular")
    adopted: Outcome = migrate(database.url, "adopt")
    assert adopted.code == 0, adopted.text
    database.run("DROP VIEW users; CREATE VIEW users AS SELECT 1 AS own")
    refused = shadow(database.url, "undo", "--yes")
    assert "The view public.users was changed since the cutover; undo drops it." in refused.text
    assert database.value("SELECT own FROM users") == 1
