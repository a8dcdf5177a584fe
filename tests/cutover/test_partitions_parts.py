"""Partitions, children and what is over ids there: what comes back, and what must be mended before anything runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import ACCEPTED, Outcome, migrate, plan, shadow
from tests.cutover.obstacles import hand_over
from tests.cutover.witness import Witness, apart_from_names_of_partitions

Load = Callable[[str | None], Witness]
EMBEDDED = pytest.mark.parametrize("server", ["embedded"], indirect=True)
PEOPLE = 'public."user"'


def refusals(database: Witness, to: str = "retire", *arguments: str, **environment: str) -> dict[str, dict[str, str]]:
    """Return, by subject, what a plan refuses; it answers, and changes nothing."""
    outcome = plan(database.url, to, *arguments, **environment)
    assert outcome.out, outcome.text
    assert outcome.code == (2 if any(each["level"] == "refuse" for each in outcome.json["findings"]) else 0)
    return {each["subject"]: each for each in outcome.json["findings"] if each["level"] == "refuse"}


def pasted(database: Witness, to: str = "retire", *arguments: str) -> Outcome:
    """Do what each refusal says first, SQL or a flag, and then run it."""
    flags: list[str] = [*arguments]
    for _ in range(3):
        found = refusals(database, to, *flags)
        for each in found.values():
            first = each["remedy"].splitlines()[0]
            if first.startswith("--") and not first.startswith("-- "):
                flags += shlex.split(first)
            else:
                database.run(each["remedy"])
        if not found:
            break
    return migrate(database.url, to, *flags)


PARTS = """
    CREATE TABLE cart (id int NOT NULL, s {type} NOT NULL REFERENCES "user" (id), CONSTRAINT cu UNIQUE (id, s))
        PARTITION BY LIST (id);
    CREATE TABLE c1 PARTITION OF cart FOR VALUES IN (1);
    CREATE TABLE c2 PARTITION OF cart FOR VALUES IN (2) PARTITION BY LIST (id);
    CREATE TABLE c21 PARTITION OF c2 FOR VALUES IN (2);
    CREATE INDEX ci ON cart (s) WITH (fillfactor = 33);
    CREATE INDEX ce ON cart (upper(s::text));
    COMMENT ON INDEX ci IS 'of the whole';
    ALTER INDEX ce ALTER COLUMN 1 SET STATISTICS 45;
    ALTER INDEX c1_s_idx RENAME TO custom;
    ALTER INDEX c1_upper_idx RENAME TO c1_s_idx;
    ALTER INDEX custom RENAME TO c1_upper_idx;
    ALTER INDEX c1_upper_idx SET (fillfactor = 44);
    ALTER INDEX c21_s_idx RESET (fillfactor);
    COMMENT ON INDEX c1_s_idx IS 'of the part';
    ALTER INDEX c1_s_idx ALTER COLUMN 1 SET STATISTICS 44;
    ALTER TABLE c1 RENAME CONSTRAINT c1_id_s_key TO custom_u;
    ALTER TABLE c21 RENAME CONSTRAINT c21_id_s_key TO custom_21;
    COMMENT ON CONSTRAINT custom_u ON c1 IS 'a constraint';
    COMMENT ON INDEX custom_u IS 'its index';
    ALTER TABLE c1 REPLICA IDENTITY USING INDEX custom_u;
    ALTER TABLE c1 CLUSTER ON c1_upper_idx;
    CREATE PUBLICATION carts_{n} FOR TABLE c1;
    ALTER TABLE cart ADD CONSTRAINT pc CHECK (s IS NOT NULL);
    COMMENT ON CONSTRAINT pc ON c1 IS 'an inherited check';
    INSERT INTO cart SELECT 1, id FROM "user" LIMIT 3;
"""
COMMENTS = """
    SELECT obj_description(k.oid, 'pg_constraint') AS said, k.conrelid::regclass::text AS of, k.conname AS name
    FROM pg_constraint k WHERE obj_description(k.oid, 'pg_constraint') IS NOT NULL ORDER BY 2, 3"""
SHORT_KEYS = """
    DO $$ DECLARE k record; BEGIN
    FOR k IN SELECT conrelid::regclass AS of, conname FROM pg_constraint WHERE contype = 'f'
        AND confrelid = '"user"'::regclass LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', k.of, k.conname); END LOOP; END $$;
    ALTER TABLE "user" ALTER id TYPE varchar(36);
"""


class TestWhatPartitionsHaveOfTheirOwn:
    @pytest.mark.parametrize(
        ("fixture", "type_", "before"),
        [("uuid_kysely", "uuid", ""), ("number_ids", "bigint", ""), ("kysely_singular", "varchar(36)", SHORT_KEYS)],
    )
    def test_indexes_of_parts_are_after_retire_and_after_undo_what_they_were(
        self, load: Load, fixture: str, type_: str, before: str
    ) -> None:
        database = replace(load(fixture), users=PEOPLE)
        if fixture == "number_ids":
            type_ = str(database.columns(PEOPLE)["id"][0])
        database.run(before + PARTS.format(type=type_, n=fixture))
        portrait, comments = database.portrait(), database.ask(COMMENTS)
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        database.run("UPDATE c1 SET s = s")  # a row of a published table is told apart
        indexes = "SELECT indexrelid::regclass::text AS i, indisreplident, indisclustered, pg_get_indexdef(indexrelid)"
        assert {row["i"] for row in database.ask(f"{indexes} FROM pg_index WHERE indisreplident")} == {"custom_u"}
        assert [row for row in database.ask(COMMENTS) if row["of"] in ("c1", "cart")] == [
            row for row in comments if row["of"] in ("c1", "cart")
        ]
        assert shadow(database.url, "undo", "--yes").code == 0
        assert database.ask(COMMENTS) == comments
        back = shadow(database.url, "undo", "--yes")
        assert back.code == 0, back.text
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(portrait)

    @EMBEDDED
    def test_parts_that_went_since_are_not_missed(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users=PEOPLE)
        database.run(PARTS.format(type="uuid", n="gone"))
        assert migrate(database.url, "retire").code == 0
        database.run("DROP TABLE c1; DROP TABLE c21; DROP INDEX ce")
        back = shadow(database.url, "undo", "--yes")
        assert back.code == 0, back.text

    def test_statistics_targets_and_storage_come_back(self, load: Load) -> None:
        database = replace(load("kysely_singular"), users=PEOPLE)
        database.run(
            SHORT_KEYS
            + """CREATE TABLE t (id int, u varchar(36) REFERENCES "user" (id));
            CREATE TABLE kid () INHERITS (t);
            ALTER TABLE t ALTER u SET STORAGE EXTERNAL;
            ALTER TABLE kid ALTER u SET STORAGE MAIN;
            CREATE INDEX te ON t (upper(u)); ALTER INDEX te ALTER COLUMN 1 SET STATISTICS 7;
            CREATE INDEX ke ON kid (upper(u)); ALTER INDEX ke ALTER COLUMN 1 SET STATISTICS 8;
            CREATE STATISTICS st ON id, u FROM t; ALTER STATISTICS st SET STATISTICS 5;
            COMMENT ON STATISTICS st IS 'both'"""
        )
        before = database.portrait()
        targets = "SELECT attrelid::regclass::text AS i, attstattarget AS n FROM pg_attribute WHERE attstattarget > 0"
        own = database.ask(f"{targets} ORDER BY 1")
        assert migrate(database.url, "retire").code == 0
        assert database.ask(f"{targets} ORDER BY 1") == own
        assert database.value("SELECT stxstattarget FROM pg_statistic_ext WHERE stxname = 'st'") == 5
        assert shadow(database.url, "undo", "--yes").code == 0
        assert shadow(database.url, "undo", "--yes").code == 0
        assert database.portrait() == before


@EMBEDDED
class TestWhatCannotBeMadeAgain:
    """Each was a refusal only when retire was on its way."""

    MADE = """
        CREATE TABLE d (id int PRIMARY KEY, u {type} REFERENCES "user" (id)); {more}
    """

    @pytest.mark.parametrize(
        ("more", "subject", "says"),
        [
            ("CREATE STATISTICS st ON (u % 10), id FROM d", "public.st", "character varying % integer"),
            (
                "ALTER TABLE d REPLICA IDENTITY FULL; CREATE PUBLICATION few FOR TABLE d WHERE (u > 5)",
                "public.d in publication few",
                "character varying > integer",
            ),
            ("CREATE TABLE k () INHERITS (d); CREATE INDEX ki ON k ((u % 7))", "ki of public.k", "varying % integer"),
            ("CREATE TABLE k (CONSTRAINT kc CHECK (u > 0)) INHERITS (d)", "kc of public.k", "varying > integer"),
        ],
    )
    def test_it_is_found_before(self, load: Load, more: str, subject: str, says: str) -> None:
        database = replace(load("number_ids"), users=PEOPLE)
        type_ = database.columns(PEOPLE)["id"][0]
        database.run(self.MADE.format(type=type_, more=more))
        found = refusals(database)
        assert found.keys() == {subject}
        assert found[subject]["code"] == "does-not-follow"
        assert says in found[subject]["message"]
        done = pasted(database)
        assert done.code == 0, done.text

    def test_expressions_over_a_partitioned_table_and_a_part_are_found_once_each(self, load: Load) -> None:
        database = replace(load("number_ids"), users=PEOPLE)
        type_ = database.columns(PEOPLE)["id"][0]
        database.run(
            f"""CREATE TABLE d (id int, u {type_} REFERENCES "user" (id), CONSTRAINT every CHECK (u > 0))
                PARTITION BY LIST (id);
            CREATE TABLE d1 PARTITION OF d FOR VALUES IN (1);
            CREATE INDEX di ON d ((u % 10)); CREATE INDEX d1i ON d1 ((u % 7));
            ALTER TABLE d1 ADD CONSTRAINT own CHECK (u % 2 >= 0)"""
        )
        assert refusals(database).keys() == {
            "di of public.d", "d1i of public.d1", "every of public.d", "own of public.d1"
        }  # fmt: skip
        assert pasted(database).code == 0

    def test_statistics_of_a_view_that_steps_aside_are_no_obstacle(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users=PEOPLE)
        database.run(
            self.MADE.format(type="uuid", more="CREATE MATERIALIZED VIEW m AS SELECT id, u FROM d;")
            + "CREATE STATISTICS st ON id, u FROM d; CREATE STATISTICS ms ON id, u FROM m"
        )
        before = apart_from_names_of_partitions(database.portrait())
        assert migrate(database.url, "retire").code == 0
        assert shadow(database.url, "undo", "--yes").code == 0
        assert shadow(database.url, "undo", "--yes").code == 0
        assert apart_from_names_of_partitions(database.portrait()) == before

    def test_not_null_constraints_of_children_get_one_name(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users=PEOPLE)
        database.run(
            """CREATE TABLE d (id int, u uuid CONSTRAINT dn NOT NULL REFERENCES "user" (id));
            CREATE TABLE k (u uuid CONSTRAINT kn NOT NULL) INHERITS (d);
            CREATE TABLE l (u uuid CONSTRAINT ln NOT NULL) INHERITS (k)"""
        )
        assert refusals(database)["public.d.u"]["code"] == "not-null-name"
        done = pasted(database)
        assert done.code == 0, done.text

    @pytest.mark.parametrize("made", ["PARTITION OF d FOR VALUES IN (1)", "() INHERITS (d)"])
    def test_a_part_of_another_role_is_one_finding_among_the_others(
        self, load: Load, make_role: Callable[[], str], made: str
    ) -> None:
        database, owner, other = replace(load("uuid_kysely"), users=PEOPLE), make_role(), make_role()
        way = " PARTITION BY LIST (id)" if "PARTITION" in made else ""
        database.run(
            f"""CREATE TABLE d (id int, u uuid REFERENCES "user" (id)){way}; CREATE TABLE d1 {made};
            CREATE INDEX di ON d (u) WHERE u <> '00000000-0000-0000-0000-000000000000'"""
        )
        hand_over(database, owner)
        database.run(f"ALTER TABLE d1 OWNER TO {other}")
        found = refusals(replace(database, url=database.seen_by(owner)))
        assert found[owner]["code"] == "missing-privileges"
        assert "public.d1" in found[owner]["message"]
        assert found["di of public.d"]["code"] == "does-not-follow"


@EMBEDDED
class TestNamesThatAreTaken:
    @pytest.mark.parametrize(
        "made",
        [
            "CREATE TYPE users AS ENUM ('a')",
            "CREATE TYPE users AS (a int)",
            "CREATE DOMAIN users AS text",
            "CREATE SEQUENCE users",
            "CREATE TABLE other (a int); CREATE INDEX users ON other (a)",
            'CREATE INDEX users ON "user" (name)',
        ],
    )
    def test_what_is_no_table_and_called_users_gets_another_name(self, load: Load, made: str) -> None:
        database = replace(load("kysely_singular"), users=PEOPLE)
        database.run(made)
        assert refusals(database)["public.users"]["code"] == "users-name-taken"
        assert refusals(database, "adopt")["public.users"]["code"] == "users-name-taken"
        done = pasted(database)
        assert done.code == 0, done.text

    def test_a_server_without_users_is_told_before_its_table_is_made(self, empty: Witness) -> None:
        empty.run("CREATE SEQUENCE users")
        assert refusals(empty, "adopt")["public.users"]["code"] == "users-name-taken"
        assert pasted(empty, "adopt").code == 0

    def test_sequences_of_one_name_that_move_to_one_schema(self, load: Load) -> None:
        database = replace(load("number_ids_13"), users=PEOPLE)
        database.run(
            """CREATE SCHEMA a; ALTER TABLE session SET SCHEMA a; ALTER SEQUENCE a.session_id_seq RENAME TO same;
            ALTER SEQUENCE account_id_seq RENAME TO same"""
        )
        (found,) = refusals(database).values()
        assert found["code"] == "sequence-name-taken"
        assert "same" in found["message"]
        assert pasted(database).code == 0

    @pytest.mark.parametrize("octets", [56, 57, 63])
    def test_a_long_name_of_a_schema_leaves_room_for_the_view(self, load: Load, octets: int) -> None:
        database, schema = load("plural_snake"), "s" * octets
        moved = "".join(f"ALTER TABLE {table} SET SCHEMA {schema};" for table in database.tables())
        database.run(f"CREATE SCHEMA {schema}; {moved} ALTER TABLE {schema}.users RENAME email_verified TO verified")
        flags = ("--map", "users.email_verified=verified")
        assert migrate(database.url, "adopt", *flags, DATABASE_SCHEMA=schema).code == 0
        view = "SELECT nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'v'"
        beside = database.value(f"{view} AND relname = 'users'")
        assert beside != schema
        assert "_shadow" in beside
        done = migrate(database.url, "retire", DATABASE_SCHEMA=schema)
        assert done.code == 0, done.text


@EMBEDDED
class TestWhatIsUsedAndGoes:
    @pytest.mark.parametrize("fixture", ["number_ids", "number_ids_13"])
    def test_a_column_that_takes_numbers_from_the_sequence_of_ids_gets_its_own(self, load: Load, fixture: str) -> None:
        database = replace(load(fixture), users=PEOPLE)
        database.run("CREATE TABLE tickets (n int DEFAULT nextval('user_id_seq')); INSERT INTO tickets DEFAULT VALUES")
        assert refusals(database)["public.tickets.n"]["code"] == "dependent-default-value"
        done = pasted(database)
        assert done.code == 0, done.text
        database.run("INSERT INTO tickets DEFAULT VALUES")
        assert database.value("SELECT max(n) > min(n) FROM tickets")
        assert migrate(database.url, "drop", "--accept", ACCEPTED).code == 0

    def test_a_view_that_takes_numbers_from_it_is_released(self, load: Load) -> None:
        database = replace(load("number_ids"), users=PEOPLE)
        database.run("CREATE VIEW next AS SELECT nextval('user_id_seq') AS n")
        assert refusals(database)["public.next"]["code"] == "dependent-view"
        assert pasted(database).code == 0
        back = shadow(database.url, "undo", "--yes")
        assert back.code == 0, back.text
        assert database.value("SELECT n > 0 FROM next")

    def test_what_was_made_over_kept_values_and_the_kept_sequence_is_found_before_drop(self, load: Load) -> None:
        database = replace(load("number_ids_13"), users=PEOPLE)
        assert migrate(database.url, "retire").code == 0
        database.run(
            """CREATE VIEW roles AS SELECT * FROM retired_auth.users_columns;
            CREATE TABLE kept (id int REFERENCES retired_auth.users_columns (id));
            CREATE TABLE tickets (n int DEFAULT nextval('retired_auth.user_id_seq'))"""
        )
        accepted = ("--accept", ACCEPTED)
        assert {each: found["code"] for each, found in refusals(database, "drop", *accepted).items()} == {
            "public.roles": "dependent-view",
            "public.kept (id)": "foreign-key-into-auth-table",
            "public.tickets.n": "dependent-default-value",
        }
        done = pasted(database, "drop", *accepted)
        assert done.code == 0, done.text


@EMBEDDED
class TestWhatStandsForNull:
    NULL = """ALTER TABLE "user" ALTER name DROP NOT NULL; UPDATE "user" SET name = NULL;"""

    @pytest.mark.parametrize(
        ("made", "subject"),
        [
            ("""ALTER TABLE "user" ADD CONSTRAINT filled CHECK (name <> '')""", f"{PEOPLE} filled"),
            ("""ALTER TABLE "user" ADD CONSTRAINT late CHECK (name <> '') NOT VALID""", f"{PEOPLE} late"),
            ("""ALTER TABLE "user" ADD CONSTRAINT one UNIQUE (name)""", f"{PEOPLE} one"),
            ("""CREATE UNIQUE INDEX low ON "user" (lower(name)) WHERE email <> ''""", f"{PEOPLE} low"),
            ("""CREATE DOMAIN called AS text CHECK (VALUE <> ''); ALTER TABLE "user" ALTER name TYPE called""",
             f"{PEOPLE} name"),
        ],
    )  # fmt: skip
    def test_a_value_that_is_not_taken_is_found_before(self, load: Load, made: str, subject: str) -> None:
        database = replace(load("uuid_kysely"), users=PEOPLE)
        database.run(self.NULL + made)
        found = refusals(database)
        assert {each: one["code"] for each, one in found.items()} == {subject: "value-not-taken"}
        if "UNIQUE" in made or "filled" in made:
            assert f"{database.counts()['public.user']:,} rows" in found[subject]["message"]
        done = pasted(database)
        assert done.code == 0, done.text

    def test_a_check_and_an_index_that_take_it_are_no_obstacle(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users=PEOPLE)
        database.run(
            self.NULL
            + """ALTER TABLE "user" ADD CONSTRAINT short CHECK (length(name) < 99);
            CREATE UNIQUE INDEX named ON "user" (name, email)"""
        )
        assert refusals(database) == {}
