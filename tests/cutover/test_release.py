"""What stands in the way goes, without CASCADE, and comes back so that pg_dump cannot tell."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, pool

from app.cutover import catalog
from app.cutover.catalog import Snapshot
from app.cutover.release import held, named, removals
from app.db import create_engine
from tests.cutover.obstacles import hand_over
from tests.cutover.witness import Witness
from tests.postgres import Server

QUIET = "CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
ODD = 'CREATE SCHEMA "Odd ""Schema"" £"; SET search_path = "Odd ""Schema"" £", public;'


def in_transaction(url: str, what: Callable[[Connection], Any]) -> Any:
    async def run() -> Any:
        engine = create_engine(url, poolclass=pool.NullPool)
        async with engine.begin() as connection:
            return await connection.run_sync(what)

    return asyncio.run(run())


def version(database: Witness) -> int:
    number: int = database.value("SELECT current_setting('server_version_num')::int")
    return number


def look(database: Witness, role: str | None = None) -> Snapshot:
    """Return the catalogue as the superuser or a role sees it."""
    snapshot: Snapshot = in_transaction(database.seen_by(role) if role else database.url, catalog.read)
    return snapshot


def execute(database: Witness, statements: Iterable[str], role: str | None = None) -> None:
    """Run statements one by one in one transaction, as the cutover does."""

    def run(connection: Connection) -> None:
        for statement in ("SET LOCAL row_security = off", *statements):
            connection.exec_driver_sql(statement)

    in_transaction(database.seen_by(role) if role else database.url, run)


def there_and_back(
    database: Witness, *identities: str, role: str | None = None, meanwhile: Callable[[], None] = lambda: None
) -> list[str]:
    """Take objects out and put them back; return how each that went is called, in the order in which they went."""
    snapshot, before = look(database, role), database.dump()
    found = [one for identity in identities for one in named(snapshot, identity)]
    going = removals(snapshot, found)
    dropped = [statement for removal in going for statement in removal.drop]
    assert not [statement for statement in dropped if "CASCADE" in statement]
    execute(database, dropped, role)
    without = look(database, role)
    assert not [one for identity in identities for one in named(without, identity)]
    meanwhile()
    execute(database, [statement for removal in reversed(going) for statement in removal.restore], role)
    assert database.dump() == before
    assert look(database, role).fingerprint == snapshot.fingerprint
    return [removal.identity for removal in going]


@pytest.fixture
def parsed_bodies(database: Witness) -> None:
    """Functions whose bodies PostgreSQL knows: BEGIN ATOMIC ... END, or RETURN."""
    if version(database) < 140000:
        pytest.skip("parsed bodies came with PostgreSQL 14")


@pytest.fixture
def tablespace(server: Server, make_role: Callable[[], str]) -> Iterator[str]:
    """A tablespace that is dropped before the roles that may use it, and after the databases that do."""
    name = f'"space of {os.getpid()}"'
    server.psql(server.url, f"SET allow_in_place_tablespaces = on; CREATE TABLESPACE {name} LOCATION ''")
    yield name
    server.execute(f"DROP TABLESPACE {name}")


class TestViews:
    def test_all_that_is_known_of_a_view_comes_back(self, database: Witness, make_role: Callable[[], str]) -> None:
        owner, reader, other = make_role(), make_role(), make_role()
        invoker = ", security_invoker = true" if version(database) >= 150000 else ""
        database.run(f"""
            CREATE VIEW active_users WITH (security_barrier = true{invoker}, check_option = local) AS
              SELECT id, name AS "Full Name", email, status FROM users WHERE status = 'active';
            ALTER VIEW active_users ALTER status SET DEFAULT 'active', ALTER "Full Name" SET DEFAULT 'it''s me';
            GRANT CREATE ON SCHEMA public TO {owner}; GRANT SELECT ON users TO {owner};
            ALTER VIEW active_users OWNER TO {owner};
            GRANT SELECT ON active_users TO {reader} WITH GRANT OPTION;
            GRANT INSERT, UPDATE ON active_users TO {reader};
            SET ROLE {reader}; GRANT SELECT ON active_users TO {other}; RESET ROLE;
            GRANT SELECT (id), UPDATE ("Full Name") ON active_users TO PUBLIC;
            GRANT SELECT (email) ON active_users TO {reader} WITH GRANT OPTION;
            SET ROLE {reader}; GRANT SELECT (email) ON active_users TO {other}; RESET ROLE;
            REVOKE DELETE ON active_users FROM {owner};
            COMMENT ON VIEW active_users IS 'it''s \\ "quoted" %s :name';
            COMMENT ON COLUMN active_users."Full Name" IS 'with a space';
        """)
        assert there_and_back(database, "public.active_users") == ["public.active_users"]

    def test_its_triggers_and_rules_come_back_with_it(self, database: Witness) -> None:
        database.run(f"""{QUIET}
            CREATE VIEW active_users AS SELECT id, status FROM users;
            CREATE TABLE written (id text);
            CREATE TRIGGER "on change" INSTEAD OF UPDATE ON active_users FOR EACH ROW EXECUTE FUNCTION quiet();
            COMMENT ON TRIGGER "on change" ON active_users IS 'instead';
            CREATE RULE "on delete" AS ON DELETE TO active_users DO INSTEAD
              (INSERT INTO written VALUES (OLD.id); DELETE FROM sessions WHERE user_id = OLD.id);
            COMMENT ON RULE "on delete" ON active_users IS 'instead';
        """)
        went = there_and_back(database, "view public.active_users")
        assert set(went) == {
            "public.active_users", '"on change" on public.active_users', '"on delete" on public.active_users'
        }  # fmt: skip
        assert went[-1] == "public.active_users"

    def test_two_views_whose_rules_write_to_one_another(self, database: Witness) -> None:
        database.run("""
            CREATE VIEW first AS SELECT id FROM sessions; CREATE VIEW second AS SELECT id FROM first;
            CREATE RULE forth AS ON INSERT TO first DO INSTEAD INSERT INTO second VALUES (NEW.id);
        """)
        assert there_and_back(database, "public.first") == ["forth on public.first", "public.second", "public.first"]

    @pytest.mark.usefixtures("parsed_bodies")
    def test_what_stands_on_a_view_goes_first(self, database: Witness, make_role: Callable[[], str]) -> None:
        reader = make_role()
        database.run(f"""
            CREATE VIEW online AS SELECT user_id, expires_at FROM sessions;
            CREATE MATERIALIZED VIEW seen AS SELECT user_id, max(expires_at) AS until FROM online GROUP BY 1;
            CREATE UNIQUE INDEX seen_once ON seen (user_id);
            GRANT SELECT ON seen TO {reader};
            CREATE VIEW recent AS SELECT s.user_id, o.expires_at FROM seen s JOIN online o USING (user_id);
            CREATE FUNCTION recently() RETURNS SETOF recent LANGUAGE sql AS 'SELECT * FROM recent';
            CREATE FUNCTION how_many() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM online; END;
            CREATE RULE signed_out AS ON DELETE TO files DO ALSO NOTIFY signed_out;
            CREATE RULE out_of_sight AS ON UPDATE TO files
              WHERE EXISTS (SELECT FROM recent) DO ALSO INSERT INTO online VALUES (NEW.owner_id, now());
            ALTER TABLE files ENABLE ROW LEVEL SECURITY;
            CREATE POLICY enough ON files AS RESTRICTIVE USING (how_many() < 10);
        """)
        went = there_and_back(database, "public.online")
        assert set(went) == {
            "public.online", "public.seen", "public.recent", "public.recently()", "public.how_many()",
            "out_of_sight on public.files", "enough on public.files",
        }  # fmt: skip
        stands_on = [
            ("public.seen", "public.online"), ("public.recent", "public.seen"), ("public.recent", "public.online"),
            ("public.recently()", "public.recent"), ("public.how_many()", "public.online"),
            ("out_of_sight on public.files", "public.recent"), ("enough on public.files", "public.how_many()"),
        ]  # fmt: skip
        assert [pair for pair in stands_on if went.index(pair[0]) > went.index(pair[1])] == []

    def test_under_hostile_names(self, database: Witness) -> None:
        database.run(f"""{ODD}
            CREATE VIEW "Ålle ""Nutzer"" 'x'; --" AS SELECT id AS "Ид", status AS "select" FROM users;
            COMMENT ON COLUMN "Ålle ""Nutzer"" 'x'; --"."Ид" IS '§';
            ALTER VIEW "Ålle ""Nutzer"" 'x'; --" ALTER "select" SET DEFAULT '$$';
            CREATE MATERIALIZED VIEW "Kopie %s" AS SELECT "Ид" AS "values" FROM "Ålle ""Nutzer"" 'x'; --";
            CREATE INDEX "über :name" ON "Kopie %s" (lower("values"));
            CREATE RULE "no ""way" AS ON DELETE TO "Ålle ""Nutzer"" 'x'; --" DO INSTEAD NOTHING;
            CREATE FUNCTION "F ()"("A b" text, "Ålle ""Nutzer"" 'x'; --") RETURNS text
              LANGUAGE sql AS 'SELECT $1 -- %s :x';
        """)
        there_and_back(database, """"Odd ""Schema"" £"."Ålle ""Nutzer"" 'x'; --\"""")

    @pytest.mark.usefixtures("parsed_bodies")
    def test_what_default_privileges_would_add_does_not_stay(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        some, other = make_role(), make_role()
        database.run(f"""
            CREATE VIEW bare AS SELECT id FROM sessions;
            CREATE VIEW shared AS SELECT id FROM bare; GRANT SELECT ON shared TO {other};
            CREATE FUNCTION count_bare() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM bare; END;
            CREATE FUNCTION count_shared() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM shared; END;
            REVOKE EXECUTE ON FUNCTION count_shared() FROM PUBLIC;
            ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {some};
            ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {other};
            ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
        """)
        there_and_back(database, "public.bare")


class TestMaterializedViews:
    def test_all_that_is_known_of_one_comes_back(
        self, tablespace: str, database: Witness, make_role: Callable[[], str]
    ) -> None:
        owner, reader = make_role(), make_role()
        compression = "ALTER who SET COMPRESSION pglz," if version(database) >= 140000 else ""
        database.run(f"""
            GRANT CREATE ON SCHEMA public TO {owner}; GRANT CREATE ON TABLESPACE {tablespace} TO {owner};
            GRANT SELECT ON accounts TO {owner};
            CREATE MATERIALIZED VIEW providers WITH (fillfactor = 70, toast.autovacuum_enabled = false)
              TABLESPACE {tablespace} AS
              SELECT provider_id, count(*) AS n, string_agg(user_id, ',') AS who FROM accounts GROUP BY 1;
            CREATE UNIQUE INDEX once ON providers (provider_id) INCLUDE (n) WITH (fillfactor = 60)
              TABLESPACE {tablespace};
            CREATE INDEX "by length" ON providers (length(who), n DESC NULLS LAST) WHERE n > 0;
            ALTER INDEX "by length" ALTER COLUMN 1 SET STATISTICS 321;
            COMMENT ON INDEX "by length" IS 'partial';
            ALTER INDEX once DEPENDS ON EXTENSION plpgsql;
            ALTER MATERIALIZED VIEW providers CLUSTER ON once; ALTER MATERIALIZED VIEW providers REPLICA IDENTITY FULL;
            ALTER MATERIALIZED VIEW providers ALTER who SET STATISTICS 123, ALTER who SET STORAGE EXTERNAL,
              {compression}
              ALTER n SET (n_distinct = 4);
            ALTER MATERIALIZED VIEW providers OWNER TO {owner};
            ALTER MATERIALIZED VIEW providers DEPENDS ON EXTENSION plpgsql;
            GRANT SELECT ON providers TO {reader} WITH GRANT OPTION; GRANT SELECT (n) ON providers TO PUBLIC;
            COMMENT ON MATERIALIZED VIEW providers IS 'how many'; COMMENT ON COLUMN providers.n IS 'so many';
        """)
        there_and_back(database, "public.providers")
        assert database.value("SELECT count(*) FROM providers") > 0

    def test_one_over_rows_that_a_policy_hides_from_its_owner(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        owner = make_role()
        database.run(f"""
            GRANT CREATE ON SCHEMA public TO {owner}; GRANT SELECT ON files TO {owner};
            ALTER TABLE files ENABLE ROW LEVEL SECURITY; CREATE POLICY small ON files USING (size_bytes < 100000);
            CREATE VIEW all_files AS TABLE files; ALTER VIEW all_files OWNER TO {owner};
            CREATE MATERIALIZED VIEW small_files AS SELECT id FROM all_files WITH NO DATA;
            ALTER MATERIALIZED VIEW small_files OWNER TO {owner}; REFRESH MATERIALIZED VIEW small_files;
        """)
        small = database.value("SELECT count(*) FROM small_files")
        assert small == database.value("SELECT count(*) FROM files WHERE size_bytes < 100000")
        there_and_back(database, "public.all_files")
        assert database.value("SELECT count(*) FROM small_files") == small
        (last,) = removals(snapshot := look(database), named(snapshot, "public.small_files"))
        # what comes after it must not run where a policy hides rows unsaid
        execute(database, [*last.drop, *last.restore, "SELECT 1 / (current_setting('row_security') = 'off')::int"])

    def test_one_without_rows_stays_without(self, database: Witness) -> None:
        database.run("CREATE MATERIALIZED VIEW later AS SELECT id FROM sessions WITH NO DATA")
        there_and_back(database, "public.later")
        assert database.value("SELECT relispopulated FROM pg_class WHERE relname = 'later'") is False

    def test_one_that_was_filled_from_one_that_has_lost_its_rows(self, database: Witness) -> None:
        database.run("""
            CREATE MATERIALIZED VIEW lower AS SELECT id FROM sessions;
            CREATE VIEW between AS SELECT id FROM lower;
            CREATE MATERIALIZED VIEW upper AS SELECT id FROM between;
            REFRESH MATERIALIZED VIEW lower WITH NO DATA;
        """)
        before = database.dump()
        going = removals(snapshot := look(database), named(snapshot, "public.lower"))
        execute(database, [statement for removal in going for statement in removal.drop])
        execute(database, [statement for removal in reversed(going) for statement in removal.restore])
        assert database.dump() == before

    def test_another_access_method(self, database: Witness) -> None:
        database.run("""
            CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler;
            CREATE MATERIALIZED VIEW kept USING heap_too AS SELECT id FROM sessions;
        """)
        there_and_back(database, "public.kept")


class TestFunctions:
    @pytest.mark.usefixtures("parsed_bodies")
    def test_all_that_is_known_of_one_comes_back(self, database: Witness, make_role: Callable[[], str]) -> None:
        owner, caller = make_role(), make_role()
        database.run(f"""
            CREATE FUNCTION f(who text DEFAULT 'x', VARIADIC "and More" int[] DEFAULT '{{}}') RETURNS SETOF sessions
              ROWS 7 COST 3 STABLE STRICT PARALLEL RESTRICTED SECURITY DEFINER
              SET search_path TO '' SET work_mem = '5MB'
              BEGIN ATOMIC SELECT * FROM sessions WHERE user_id = who; END;
            CREATE FUNCTION f(integer) RETURNS int LANGUAGE sql AS 'SELECT $1';
            GRANT CREATE ON SCHEMA public TO {owner}; ALTER FUNCTION f(text, int[]) OWNER TO {owner};
            REVOKE ALL ON FUNCTION f(text, int[]) FROM PUBLIC;
            GRANT EXECUTE ON FUNCTION f(text, int[]) TO {caller} WITH GRANT OPTION;
            COMMENT ON FUNCTION f(text, int[]) IS 'the sessions of';
            ALTER FUNCTION f(text, int[]) DEPENDS ON EXTENSION plpgsql;
        """)
        assert there_and_back(database, "public.f(text,integer[])") == ["public.f(text,integer[])"]

    @pytest.mark.usefixtures("parsed_bodies")
    def test_a_procedure_that_gives_something_back(self, database: Witness) -> None:
        database.run("""
            CREATE PROCEDURE p(IN since timestamptz, INOUT n bigint, name text DEFAULT 'x')
              BEGIN ATOMIC SELECT count(*) FROM sessions WHERE created_at > since; END;
            COMMENT ON PROCEDURE p(timestamptz, bigint, text) IS 'counts';
            REVOKE ALL ON PROCEDURE p(timestamptz, bigint, text) FROM PUBLIC;
        """)
        there_and_back(database, "procedure public.p(timestamp with time zone,bigint,text)")

    def test_a_body_that_is_text_may_name_what_the_search_path_does_not_hold(self, database: Witness) -> None:
        database.run("""
            CREATE SCHEMA app; CREATE TABLE app.only_here (id int); SET search_path = app, public;
            CREATE FUNCTION public.there(sessions) RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM only_here';
        """)
        there_and_back(database, "public.there(public.sessions)")

    @pytest.mark.usefixtures("parsed_bodies")
    def test_whatever_calls_it_goes_first(self, database: Witness) -> None:
        database.run(f"""{QUIET}
            CREATE FUNCTION rule_of(text) RETURNS boolean IMMUTABLE
              BEGIN ATOMIC SELECT $1 IS NOT NULL OR EXISTS (SELECT FROM sessions); END;
            ALTER TABLE files ADD CONSTRAINT "by rule" CHECK (rule_of(name)) NOT VALID,
              ALTER name SET DEFAULT rule_of('')::text,
              ADD ok boolean GENERATED ALWAYS AS (rule_of(name)) STORED;
            COMMENT ON CONSTRAINT "by rule" ON files IS 'rule';
            CREATE INDEX "files by rule" ON files (rule_of(name)); COMMENT ON INDEX "files by rule" IS 'rule';
            CREATE TRIGGER when_ruled BEFORE UPDATE ON files FOR EACH ROW WHEN (rule_of(OLD.name))
              EXECUTE FUNCTION quiet();
            CREATE POLICY ruled ON files USING (rule_of(name)); CREATE VIEW rules AS SELECT rule_of('x') AS x;
            CREATE STATISTICS ruled ON rule_of(name), owner_id FROM files;
        """)
        went = there_and_back(database, "public.rule_of(text)")
        assert set(went) == {
            '"by rule" on public.files', "for public.files.name", "for public.files.ok", 'public."files by rule"',
            "when_ruled on public.files", "ruled on public.files", "public.rules", "public.ruled",
            "public.rule_of(text)",
        }  # fmt: skip
        assert went[-1] == "public.rule_of(text)"

    def test_a_trigger_function_goes_after_its_triggers(self, database: Witness) -> None:
        database.run(f"""{QUIET}
            CREATE TRIGGER one BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION quiet();
            CREATE TRIGGER two BEFORE UPDATE ON files FOR EACH ROW EXECUTE FUNCTION quiet();
        """)
        went = there_and_back(database, "public.quiet()")
        assert went == ["one on public.users", "two on public.files", "public.quiet()"]


class TestPartsOfTables:
    @pytest.mark.parametrize("state", ["ENABLE", "DISABLE", "ENABLE REPLICA", "ENABLE ALWAYS"])
    def test_a_trigger_in_each_state(self, database: Witness, state: str) -> None:
        database.run(f"""{QUIET}
            CREATE TRIGGER "told on" BEFORE UPDATE OF status ON users FOR EACH ROW
              WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION quiet('a', 'it''s');
            ALTER TABLE users {state} TRIGGER "told on"; COMMENT ON TRIGGER "told on" ON users IS 'told';
            ALTER TRIGGER "told on" ON users DEPENDS ON EXTENSION plpgsql;
        """)
        assert there_and_back(database, '"told on" on public.users') == ['"told on" on public.users']

    def test_a_constraint_trigger_and_one_with_transition_tables(self, database: Witness) -> None:
        database.run(f"""{QUIET}
            CREATE CONSTRAINT TRIGGER late AFTER UPDATE OF status ON users FROM files DEFERRABLE INITIALLY DEFERRED
              FOR EACH ROW EXECUTE FUNCTION quiet(); COMMENT ON TRIGGER late ON users IS 'late';
            CREATE TRIGGER many AFTER UPDATE ON users REFERENCING OLD TABLE AS before NEW TABLE AS after
              FOR EACH STATEMENT EXECUTE FUNCTION quiet();
        """)
        there_and_back(database, "late on public.users", "trigger many on public.users")

    def test_a_trigger_of_a_partitioned_table(self, database: Witness) -> None:
        database.run(f"""{QUIET}
            CREATE TABLE log (id int, status text) PARTITION BY RANGE (id);
            CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (1) TO (9);
            CREATE TRIGGER told BEFORE UPDATE OF status ON log FOR EACH ROW EXECUTE FUNCTION quiet();
        """)
        there_and_back(database, "told on public.log")

    @pytest.mark.parametrize("state", ["ENABLE", "DISABLE", "ENABLE REPLICA", "ENABLE ALWAYS"])
    def test_a_rule_in_each_state(self, database: Witness, state: str) -> None:
        database.run(f"""
            CREATE RULE "signed out" AS ON DELETE TO push_tokens WHERE OLD.user_id IS NOT NULL DO ALSO
              (DELETE FROM sessions WHERE user_id = OLD.user_id);
            ALTER TABLE push_tokens {state} RULE "signed out"; COMMENT ON RULE "signed out" ON push_tokens IS 'bye';
        """)
        there_and_back(database, '"signed out" on public.push_tokens')

    def test_policies_of_each_command(self, database: Witness, make_role: Callable[[], str]) -> None:
        some, other = make_role(), make_role()
        database.run(f"""
            ALTER TABLE files ENABLE ROW LEVEL SECURITY; ALTER TABLE files FORCE ROW LEVEL SECURITY;
            CREATE POLICY "signed in" ON files AS RESTRICTIVE USING (owner_id IN (SELECT user_id FROM sessions));
            COMMENT ON POLICY "signed in" ON files IS 'only those';
            CREATE POLICY adds ON files FOR INSERT TO {some}, {other}
              WITH CHECK (EXISTS (SELECT FROM sessions s WHERE s.user_id = owner_id));
            CREATE POLICY changes ON files FOR UPDATE USING (true) WITH CHECK (owner_id > '');
            CREATE POLICY reads ON files FOR SELECT TO {some} USING (name <> '');
            CREATE POLICY deletes ON files FOR DELETE TO CURRENT_USER USING (size_bytes = 0);
        """)
        names = ('"signed in"', "adds", "changes", "reads", "deletes")
        there_and_back(database, *(f"{name} on public.files" for name in names))

    def test_membership_of_a_publication(self, database: Witness) -> None:
        if version(database) < 150000:
            pytest.skip("columns and conditions came with PostgreSQL 15")
        database.run("""
            CREATE PUBLICATION "to the ""big"" warehouse" FOR TABLE users (id, status) WHERE (status <> 'it''s'), files;
            CREATE PUBLICATION whole FOR TABLE users;
        """)
        identity = 'public.users in publication to the "big" warehouse'
        assert there_and_back(database, identity) == [identity]
        there_and_back(database, "public.users in publication whole", "publication relation " + identity)

    def test_a_stored_generated_column_keeps_its_values_meanwhile(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        reader = make_role()
        database.run(f"""
            ALTER TABLE users ADD "is Locked" boolean GENERATED ALWAYS AS (failed_login_attempts > 5) STORED NOT NULL;
            ALTER TABLE users ADD tag text COLLATE "C" GENERATED ALWAYS AS (lower(status)) STORED;
            ALTER TABLE users ALTER tag SET STATISTICS 77, ALTER tag SET STORAGE EXTERNAL;
            CREATE UNIQUE INDEX tagged ON users (tag, id); COMMENT ON INDEX tagged IS 'tags';
            ALTER TABLE users CLUSTER ON tagged; ALTER TABLE users ADD CONSTRAINT once UNIQUE ("is Locked", id);
            ALTER TABLE users REPLICA IDENTITY USING INDEX once;
            ALTER TABLE users ADD CONSTRAINT tag_is CHECK (tag <> '' OR "is Locked");
            COMMENT ON CONSTRAINT tag_is ON users IS 'tags'; COMMENT ON COLUMN users.tag IS 'a tag';
            GRANT SELECT (tag) ON users TO {reader} WITH GRANT OPTION;
            CREATE TABLE tags (tag text PRIMARY KEY); INSERT INTO tags SELECT DISTINCT tag FROM users;
            ALTER TABLE users ADD CONSTRAINT tag_known FOREIGN KEY (tag) REFERENCES tags ON DELETE CASCADE;
            COMMENT ON CONSTRAINT tag_known ON users IS 'known';
            CREATE VIEW tagged_users AS SELECT id, tag FROM users; CREATE VIEW tagged_too AS TABLE tagged_users;
            CREATE STATISTICS by_tag ON tag, status FROM users;
            CREATE POLICY of_tag ON users USING (tag <> '');
        """)
        values = 'SELECT jsonb_agg(jsonb_build_array(id, tag, "is Locked") ORDER BY id) FROM users'
        before = database.value(values)

        def still_there() -> None:
            assert database.value(values) == before
            assert database.value("SELECT count(*) FROM tagged_too") == len(before)

        went = there_and_back(
            database, "for public.users.tag", 'default value for public.users."is Locked"', meanwhile=still_there
        )
        assert went == ["for public.users.tag", 'for public.users."is Locked"']
        assert database.value(values) == before

    def test_a_generated_column_keeps_its_values_while_what_it_calls_is_gone(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        # before PostgreSQL 15 the column itself depends on the function, with or without the expression
        reader = make_role()
        database.run(f"""
            CREATE FUNCTION tag_of(text, sessions) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)';
            ALTER TABLE users ADD "a Tag" text COLLATE "C" GENERATED ALWAYS AS (tag_of(status, NULL)) STORED NOT NULL;
            CREATE UNIQUE INDEX tagged ON users ("a Tag", id); ALTER TABLE users ADD CHECK ("a Tag" <> '');
            GRANT SELECT ("a Tag") ON users TO {reader}; COMMENT ON COLUMN users."a Tag" IS 'a tag';
            CREATE VIEW tags AS SELECT id, "a Tag" FROM users; CREATE POLICY of_tag ON users USING ("a Tag" <> '');
            CREATE TABLE set_off (id text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
              AS $$ BEGIN INSERT INTO set_off VALUES (NEW.id); RETURN NEW; END $$;
            CREATE TRIGGER noted BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note();
        """)
        kind = database.columns()["a Tag"]
        function = "public.tag_of(text,public.sessions)"

        def still_there() -> None:
            wrong = """SELECT count(*) FROM users u JOIN tags t USING (id) WHERE t."a Tag" <> upper(u.status)"""
            assert database.value(wrong) == 0
            assert database.value("SELECT count(*) FROM tags") == database.value("SELECT count(*) FROM users") > 0
            assert database.columns()["a Tag"] == kind
            assert database.value("SELECT count(*) FROM pg_indexes WHERE indexname = 'tagged'") == 1

        went = there_and_back(database, function, meanwhile=still_there)
        assert went == ['for public.users."a Tag"', function]
        still_there()
        assert database.value("SELECT count(*) FROM set_off") == 0

    def test_a_column_that_was_generated_once_outlives_what_it_called(self, database: Witness) -> None:
        database.run("""
            CREATE FUNCTION tag_of(text, sessions) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)';
            ALTER TABLE users ADD tag text GENERATED ALWAYS AS (tag_of(status, NULL)) STORED;
            ALTER TABLE users ALTER tag DROP EXPRESSION, ALTER tag SET DEFAULT 'none', ALTER tag SET NOT NULL;
            CREATE INDEX tagged ON users (tag); COMMENT ON COLUMN users.tag IS 'a tag';
        """)
        before = database.dump()
        (rows,) = database.ask("SELECT jsonb_object_agg(id, tag) AS tags FROM users")
        columns = database.columns()
        snapshot = look(database)
        clings = named(snapshot, "table column public.users.tag")
        assert bool(clings) == (version(database) < 150000)
        going = removals(snapshot, named(snapshot, "public.tag_of(text,public.sessions)"))
        execute(database, [statement for removal in going for statement in removal.drop])
        assert database.ask("SELECT jsonb_object_agg(id, tag) AS tags FROM users") == [rows]
        assert database.columns() == columns
        execute(database, [statement for removal in reversed(going) for statement in removal.restore])
        assert database.dump() == before
        assert named(look(database), "table column public.users.tag") == ()

    def test_a_generated_column_is_known_of_a_row_type_that_it_only_mentions(self, database: Witness) -> None:
        database.run("ALTER TABLE files ADD mentions boolean GENERATED ALWAYS AS (NULL::sessions IS NULL) STORED")
        expression = "for public.files.mentions"
        of_sessions = [found for found in look(database).dependents if found.table == ("public", "sessions")]
        assert expression in {found.identity for found in of_sessions}
        assert there_and_back(database, expression) == [expression]
        (removal,) = removals(snapshot := look(database), named(snapshot, expression))
        execute(database, removal.drop)
        assert expression not in {found.identity for found in look(database).dependents}
        database.run("DROP TABLE sessions")
        assert database.value("SELECT bool_and(mentions) FROM files") is True

    def test_what_reads_a_generated_column_comes_back_after_it(self, database: Witness) -> None:
        database.run("""
            CREATE FUNCTION tag_of(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)';
            ALTER TABLE users ADD tag text GENERATED ALWAYS AS (tag_of(status)) STORED;
            CREATE VIEW tagged AS SELECT id, tag FROM users;
            CREATE VIEW too AS SELECT tagged.tag, status FROM tagged JOIN users USING (id);
        """)
        there_and_back(database, "for public.users.tag", "public.too")
        there_and_back(database, "public.too", "for public.users.tag")
        there_and_back(database, "public.tag_of(text)", "public.tagged")

    def test_a_virtual_generated_column(self, database: Witness) -> None:
        if version(database) < 180000:
            pytest.skip("virtual columns came with PostgreSQL 18")
        database.run("""
            ALTER TABLE users ADD locked boolean GENERATED ALWAYS AS (failed_login_attempts > 5) VIRTUAL NOT NULL,
              ADD tag text GENERATED ALWAYS AS (upper(status)) VIRTUAL,
              ADD CONSTRAINT tag_is CHECK (tag <> '' OR locked);
            COMMENT ON COLUMN users.tag IS 'a tag';
            CREATE VIEW locked_users AS SELECT id FROM users WHERE locked;
        """)
        went = there_and_back(database, "for public.users.locked", "for public.users.tag")
        assert went == ["for public.users.tag", "public.locked_users", "for public.users.locked"]

    def test_a_default_that_calls_the_sequence_of_another_table(self, database: Witness) -> None:
        database.run("""
            CREATE SEQUENCE numbers OWNED BY sessions.id;
            ALTER TABLE files ADD "No" bigint DEFAULT nextval('numbers') * 2 NOT NULL;
            CREATE VIEW numbered AS SELECT id, "No" FROM files;
            ALTER VIEW numbered ALTER "No" SET DEFAULT nextval('numbers');
        """)
        assert there_and_back(database, 'for public.files."No"') == ['for public.files."No"']
        assert there_and_back(database, "public.numbered") == ['for public.numbered."No"', "public.numbered"]

    def test_an_extended_statistics_object(self, database: Witness, make_role: Callable[[], str]) -> None:
        owner = make_role()
        expression = "lower(email)" if version(database) >= 140000 else "email"
        database.run(f"""
            CREATE SCHEMA apart; GRANT CREATE ON SCHEMA apart TO {owner};
            CREATE STATISTICS apart."by Status" (ndistinct, mcv) ON status, {expression}, locked_until FROM users;
            ALTER STATISTICS apart."by Status" SET STATISTICS 500; COMMENT ON STATISTICS apart."by Status" IS 'they go';
            ALTER STATISTICS apart."by Status" OWNER TO {owner};
        """)
        there_and_back(database, 'apart."by Status"')
        database.run("DROP SCHEMA apart CASCADE")


class TestChildren:
    def test_a_table_that_inherits_keeps_its_rows_and_inherits_again(self, database: Witness) -> None:
        database.run("""
            CREATE TABLE old_sessions (why text) INHERITS (sessions);
            INSERT INTO old_sessions SELECT *, 'x' FROM ONLY sessions;
        """)
        rows = database.value("SELECT count(*) FROM sessions")
        going = removals(snapshot := look(database), named(snapshot, "public.old_sessions"))
        execute(database, going[0].drop)
        assert database.value("SELECT count(*) FROM sessions") == rows / 2
        execute(database, going[0].restore)
        assert database.value("SELECT count(*) FROM sessions") == rows
        assert look(database).table("public", "old_sessions") == snapshot.table("public", "old_sessions")


class TestWhatCannotBeTakenOut:
    @pytest.mark.parametrize(
        ("sql", "identity", "holds"),
        [
            ("CREATE TABLE revoked (at timestamptz, was sessions)", "public.revoked.was", "public.revoked.was"),
            (
                "CREATE VIEW v AS SELECT * FROM sessions; CREATE TABLE kept (was v)",
                "public.v",
                "public.kept.was",
            ),
            (
                "CREATE FUNCTION f(int, int) RETURNS int BEGIN ATOMIC SELECT $1 FROM sessions; END;"
                "CREATE AGGREGATE sum_of (int) (SFUNC = f, STYPE = int)",
                "public.f(integer,integer)",
                "public.sum_of(integer)",
            ),
            (
                "CREATE FUNCTION f(text) RETURNS boolean BEGIN ATOMIC SELECT EXISTS (SELECT FROM sessions); END;"
                "CREATE DOMAIN checked AS text CHECK (f(VALUE))",
                "public.f(text)",
                "checked_check on public.checked",
            ),
            (
                "CREATE FUNCTION f() RETURNS int RETURN 1; CREATE VIEW v AS SELECT f() AS x FROM sessions;"
                "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT x FROM v; END",
                "public.v",
                "public.f()",
            ),
            (
                "ALTER TABLE users ADD n text GENERATED ALWAYS AS (id || status) STORED UNIQUE;"
                "CREATE TABLE of_n (n text REFERENCES users (n))",
                "for public.users.n",
                "for public.users.n",
            ),
        ],
    )
    def test_it_is_named_and_nothing_is_offered(
        self, database: Witness, request: pytest.FixtureRequest, sql: str, identity: str, holds: str
    ) -> None:
        if "BEGIN ATOMIC" in sql:
            request.getfixturevalue("parsed_bodies")
        database.run(sql)
        snapshot = look(database)
        wanted = named(snapshot, identity)
        assert holds in {found.identity for found in held(snapshot, wanted)}
        assert removals(snapshot, wanted) == ()

    def test_the_others_are_offered_all_the_same(self, database: Witness) -> None:
        database.run("CREATE TABLE revoked (was sessions); CREATE VIEW online AS SELECT id FROM sessions")
        snapshot = look(database)
        wanted = (*named(snapshot, "public.revoked.was"), *named(snapshot, "public.online"))
        assert [removal.identity for removal in removals(snapshot, wanted)] == ["public.online"]

    @pytest.mark.usefixtures("parsed_bodies")
    def test_what_would_not_be_read_again(self, database: Witness) -> None:
        # PostgreSQL writes the nameless parameter as f."" here, pg_dump does too
        database.run(
            "CREATE FUNCTION f(text, n int) RETURNS text BEGIN ATOMIC SELECT id FROM sessions WHERE id = $1; END"
        )
        snapshot = look(database)
        assert removals(snapshot, named(snapshot, "public.f(text,integer)")) == ()


class TestAsARoleWithoutPrivileges:
    @pytest.fixture
    def role(self, database: Witness, make_role: Callable[[], str]) -> str:
        owner = make_role()
        hand_over(database, owner)
        return owner

    @pytest.mark.usefixtures("parsed_bodies")
    def test_the_owner_may_do_it_all(self, database: Witness, role: str, make_role: Callable[[], str]) -> None:
        reader = make_role()
        database.run(f"""{QUIET}
            ALTER FUNCTION quiet() OWNER TO {role}; SET ROLE {role};
            CREATE VIEW online AS SELECT id FROM sessions; GRANT SELECT ON online TO {reader} WITH GRANT OPTION;
            CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM online; CREATE INDEX ON counted (count);
            CREATE FUNCTION how_many() RETURNS bigint BEGIN ATOMIC SELECT count FROM counted; END;
            CREATE TRIGGER told BEFORE UPDATE OF status ON users FOR EACH ROW EXECUTE FUNCTION quiet();
            CREATE POLICY few ON files USING (how_many() < 10); CREATE STATISTICS s ON id, status FROM users;
        """)
        went = there_and_back(database, "public.online", "public.quiet()", "public.s", role=role)
        assert len(went) == 7

    @pytest.mark.parametrize(
        ("sql", "identity"),
        [
            ("CREATE VIEW v AS SELECT id FROM sessions", "public.v"),
            ("CREATE FUNCTION f(sessions) RETURNS int LANGUAGE sql AS 'SELECT 1'", "public.f(public.sessions)"),
            ("CREATE PUBLICATION p FOR TABLE sessions", "public.sessions in publication p"),
            ("CREATE STATISTICS s ON id, user_id FROM sessions", "public.s"),
            (
                "SET ROLE {role}; CREATE VIEW v AS SELECT id FROM sessions;"
                "GRANT SELECT ON v TO {other} WITH GRANT OPTION; RESET ROLE;"
                "SET ROLE {other}; GRANT SELECT ON v TO PUBLIC",
                "public.v",
            ),
            (
                "SET ROLE {role}; CREATE VIEW v AS SELECT id FROM sessions; RESET ROLE;"
                "REVOKE CREATE ON SCHEMA public FROM {role}, PUBLIC",
                "public.v",
            ),
        ],
    )
    def test_what_it_could_not_put_back_is_not_taken_out(
        self, database: Witness, role: str, make_role: Callable[[], str], sql: str, identity: str
    ) -> None:
        database.run(sql.format(role=role, other=make_role()))
        snapshot, all_seeing = look(database, role), look(database)
        wanted = named(snapshot, identity)
        assert [found.identity for found in held(snapshot, wanted)] == [identity]
        assert removals(snapshot, wanted) == ()
        assert len(removals(all_seeing, wanted)) == 1


class TestNames:
    @pytest.mark.usefixtures("parsed_bodies")
    def test_an_object_is_found_by_its_identity_with_or_without_its_kind(self, database: Witness) -> None:
        database.run(f"""{QUIET}
            CREATE VIEW online AS SELECT id FROM sessions;
            CREATE FUNCTION online(text) RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM sessions; END;
            CREATE TRIGGER online BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION quiet();
            CREATE POLICY online ON users USING (true);
        """)
        snapshot = look(database)

        def kinds(identity: str) -> set[str]:
            return {found.kind for found in named(snapshot, identity)}

        assert kinds("public.online") == kinds("view public.online") == {"view"}
        assert kinds("public.online(text)") == kinds("function public.online(pg_catalog.text)") == {"function"}
        assert kinds("online on public.users") == {"trigger", "policy"}
        assert kinds("policy online on public.users") == {"policy"}
        assert kinds("public.quiet()") == {"function"}
        assert kinds("online") == kinds("public.users") == kinds("") == set()
