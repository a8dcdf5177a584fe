"""Tables and objects of the app's own: what looks like Better Auth's is asked about, what would break is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import ACCEPTED, Outcome, migrate, plan, shadow
from tests.cutover.witness import Witness, apart_from_names_of_partitions
from tests.postgres import offered

on_the_newest = pytest.mark.parametrize("server", ["embedded"], indirect=True)


def refused(outcome: Outcome) -> dict[str, str]:
    """Return the codes and subjects of a plan's refusals."""
    return {found["code"]: found["subject"] for found in outcome.json["findings"] if found["level"] == "refuse"}


@on_the_newest
class TestTablesThatLookAlike:
    def test_without_better_auths_own_an_apps_tables_are_left_alone(self, load: Callable[[str], Witness]) -> None:
        database = load("ba_14")
        database.run(
            'DROP TABLE jwks, "twoFactor";'
            "CREATE TABLE ssh_hosts (id serial PRIMARY KEY, public_pem text, private_pem text, created_at timestamptz);"
            'CREATE TABLE webhooks (id serial PRIMARY KEY, user_id text NOT NULL REFERENCES "user"(id),'
            " signing_secret text NOT NULL, verification_code text, url text, created_at timestamptz);"
            'CREATE TABLE oauth_access_tokens (id text PRIMARY KEY, user_id text REFERENCES "user"(id),'
            " client_id bigint, scopes text, revoked boolean, expires_at timestamptz)"
        )
        assert migrate(database.url, "drop", "--accept", ACCEPTED).code == 0
        assert {"public.ssh_hosts", "public.webhooks", "public.oauth_access_tokens"} <= database.tables()

    @pytest.mark.parametrize("owner", ["", 'owner text REFERENCES "user"(id) ON DELETE CASCADE,'])
    def test_keys_of_machines_are_no_signing_keys(self, load: Callable[[str], Witness], owner: str) -> None:
        database = load("ba_14")
        database.run(
            f"DROP TABLE jwks; CREATE TABLE peers (id serial PRIMARY KEY, {owner} public_key text NOT NULL,"
            " private_key text NOT NULL, created_at timestamptz); INSERT INTO peers (public_key, private_key) "
            "VALUES ('K0pFxg8=', 'yAnz5TF+')"
        )
        assert migrate(database.url, "drop", "--accept", ACCEPTED).code == 0
        assert database.counts()["public.peers"] == 1

    def test_an_empty_table_that_could_hold_signing_keys_is_asked_about(self, load: Callable[[str], Witness]) -> None:
        database = load("ba_14")
        database.run(
            "DROP TABLE jwks; CREATE TABLE peers (id serial PRIMARY KEY, public_key text NOT NULL,"
            " private_key text NOT NULL, created_at timestamptz)"
        )
        asked = plan(database.url, "drop")
        assert refused(asked) == {"role-by-shape": "jwks"}
        (found,) = asked.findings("role-by-shape")
        assert found["remedy"].splitlines() == ["--map jwks=public.peers", "--map jwks=none"]
        assert plan(database.url, "retire", "--map", "jwks=none").code == 0

    def test_signing_keys_under_another_name_are_known_by_what_is_in_them(self, load: Callable[[str], Witness]) -> None:
        database = load("ba_14")
        database.run("ALTER TABLE jwks RENAME TO signing")
        roles = shadow(database.url, "inspect", "--format", "json").json["roles"]
        assert {role["table"] for role in roles if role["role"] == "jwks"} == {"public.signing"}

    def test_one_whose_rows_speak_for_it_is_asked_about(self, load: Callable[[str], Witness]) -> None:
        database = load("ba_14")
        database.run(
            "DROP TABLE session;"
            'CREATE TABLE devices (id serial PRIMARY KEY, owner text REFERENCES "user"(id),'
            " push_token text NOT NULL UNIQUE, browser text, seen timestamptz, valid_until timestamptz);"
            "INSERT INTO devices (owner, push_token, browser) SELECT id, id, 'Mozilla/5.0 (X11)' FROM \"user\""
        )
        asked = plan(database.url, "drop")
        assert refused(asked) == {"role-by-shape": "sessions"}
        (found,) = asked.findings("role-by-shape")
        assert "public.devices" in found["message"]
        assert found["remedy"].splitlines() == ["--map sessions=public.devices", "--map sessions=none"]
        done = migrate(database.url, "drop", "--accept", ACCEPTED, "--map", "sessions=none")
        assert done.code == 0, done.text
        assert "public.devices" in database.tables()

    def test_a_renamed_layout_is_known_by_what_is_in_it(self, load: Callable[[str], Witness]) -> None:
        document = shadow(load("renamed_schema").url, "inspect", "--format", "json").json
        assert {role["role"]: role["table"] for role in document["roles"]} == {
            "users": "identity.people",
            "sessions": "identity.logins",
            "accounts": "identity.credentials",
            "verifications": "identity.proofs",
            "jwks": "identity.signing_keys",
            "two_factors": "identity.second_factors",
            "rate_limits": "identity.throttle",
        }
        assert {name: column["column"] for name, column in document["columns"].items()} == {
            "id": "id",
            "name": "full_name",
            "email": "email_address",
            "email_verified": "email_confirmed",
            "image": "avatar",
            "created_at": "joined_on",
            "updated_at": "changed_on",
        }
        assert all(role["reason"] for role in document["roles"])
        assert all(column["reason"] for column in document["columns"].values())


@on_the_newest
class TestDecisionsThatHoldOn:
    def test_what_was_mapped_for_adopt_is_known_to_retire(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run(
            'ALTER TABLE "user" RENAME COLUMN name TO title; ALTER TABLE "user" ADD nick text NOT NULL DEFAULT \'\''
        )
        assert migrate(database.url, "adopt", "--map", "users.name=title").code == 0
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert {"name", "nick"} <= database.columns().keys()

    def test_retire_takes_no_other_than_adopt_took(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run('ALTER TABLE "user" RENAME COLUMN image TO portrait; ALTER TABLE "user" ADD photo text')
        assert migrate(database.url, "adopt", "--map", "users.image=portrait").code == 0
        before = database.dump()
        other = migrate(database.url, "retire", "--map", "users.image=photo")
        assert (other.code, "not-what-was-adopted" in other.text) == (2, True), other.text
        assert database.dump() == before


@on_the_newest
class TestIdsThatBecomeText:
    UNIQUE = (
        "SELECT conname AS name, pg_get_constraintdef(oid) AS definition FROM pg_constraint WHERE contype = 'u'"
        " AND conrelid = '\"user\"'::regclass"
    )
    DOCUMENTS = """
        CREATE TABLE doc (id int PRIMARY KEY, owner uuid REFERENCES "user"(id), tenant uuid,
            reviewer uuid REFERENCES "user"(id),
            CONSTRAINT others CHECK (owner IS DISTINCT FROM reviewer));
        INSERT INTO doc SELECT row_number() OVER (), id FROM "user";
        ALTER TABLE doc ENABLE ROW LEVEL SECURITY"""

    def test_what_still_reads_them_steps_aside_and_is_back(self, load: Callable[[str], Witness]) -> None:
        database = load("uuid_kysely")
        database.run(
            f"{self.DOCUMENTS}; CREATE POLICY own ON doc USING (owner::text = current_setting('app.user', true));"
            "CREATE VIEW mine AS SELECT id, owner FROM doc; CREATE VIEW many AS SELECT count(*) FROM mine"
        )
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert database.value("SELECT count FROM many") == database.value("SELECT count(*) FROM users")
        assert database.value("SELECT count(*) FROM pg_policies WHERE policyname = 'own'") == 1

    @pytest.mark.parametrize(
        ("sql", "subject"),
        [
            ("CREATE POLICY own ON doc USING (owner = current_setting('app.user')::uuid)", "own on public.doc"),
            ('CREATE VIEW v AS SELECT d.id FROM doc d JOIN "user" u ON u.id = d.tenant', "public.v"),
            ("ALTER TABLE doc ADD CONSTRAINT nobody CHECK (owner <> '" + "0" * 32 + "'::uuid)", "nobody of public.doc"),
            ("CREATE INDEX few ON doc (id) WHERE owner = '" + "1" * 32 + "'::uuid", "few of public.doc"),
        ],
        ids=["policy", "view", "check", "index"],
    )
    def test_what_compares_them_with_a_uuid_is_named_beforehand(
        self, load: Callable[[str], Witness], sql: str, subject: str
    ) -> None:
        database = load("uuid_kysely")
        database.run(f"{self.DOCUMENTS}; {sql}")
        before = database.dump()
        planned = plan(database.url, "retire")
        (found,) = planned.findings("does-not-follow")
        assert (planned.code, found["level"], found["subject"]) == (2, "refuse", subject)
        assert "operator does not exist" in found["message"]
        assert migrate(database.url, "retire").code == 2
        assert database.dump() == before

    def test_a_domain_over_uuid_is_as_good_as_uuid(self, load: Callable[[str], Witness]) -> None:
        database = load("uuid_kysely")
        database.run('CREATE DOMAIN uid AS uuid; ALTER TABLE "user" ALTER id DROP DEFAULT, ALTER id TYPE uid')
        database = replace(database, users='public."user"')
        before, users = (
            database.portrait(),
            database.value("SELECT string_agg(id::text, ' ' ORDER BY id) FROM \"user\""),
        )
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert database.columns()["id"][:2] == ("character varying", 255)
        assert database.value("SELECT string_agg(id, ' ' ORDER BY id) FROM users") == users
        database.run("INSERT INTO users (id, name, email) VALUES ('no-uuid', '', 'x@example.com')")
        assert "undo-finds-ids" in shadow(database.url, "undo", "--yes").text
        database.run("DELETE FROM users WHERE id = 'no-uuid'")
        for _ in range(2):
            assert shadow(database.url, "undo", "--yes").code == 0
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(before)

    @pytest.mark.parametrize(
        "made",
        [
            'CREATE UNIQUE INDEX reached ON "user" (email) INCLUDE (id)',
            'ALTER TABLE "user" ADD CONSTRAINT reached UNIQUE (email) INCLUDE (id)',
        ],
        ids=["index", "constraint"],
    )
    def test_a_key_that_rests_on_an_index_which_includes_them_is_back_too(
        self, load: Callable[[str], Witness], made: str
    ) -> None:
        database = load("uuid_kysely")
        (email,) = (key for key in database.ask(self.UNIQUE) if key["definition"] == "UNIQUE (email)")
        database.run(
            f'{made}; ALTER TABLE "user" DROP CONSTRAINT "{email["name"]}";'
            'CREATE TABLE letters (recipient text CONSTRAINT "to whom" REFERENCES "user" (email)'
            " ON UPDATE CASCADE ON DELETE SET NULL DEFERRABLE);"
            'COMMENT ON CONSTRAINT "to whom" ON letters IS \'x\'; INSERT INTO letters SELECT email FROM "user"'
        )
        if made.startswith("CREATE"):  # the server wants a constraint as well
            database.run('ALTER TABLE "user" ADD UNIQUE (email)')
        database = replace(database, users='public."user"')
        before = database.portrait()
        (key,) = (each for each in database.foreign_keys() if each["name"] == "to whom")
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert [each for each in database.foreign_keys() if each["name"] == "to whom"] == [{**key, "target": "users"}]
        assert shadow(database.url, "verify").code == 0
        for _ in range(2):
            assert shadow(database.url, "undo", "--yes").code == 0
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(before)

    def test_a_key_to_a_partitioned_table_is_verified_though_its_by_products_get_other_names(
        self, load: Callable[[str], Witness]
    ) -> None:
        database = load("uuid_kysely")
        database.run(
            'CREATE TABLE page (owner uuid REFERENCES "user" (id), at int, PRIMARY KEY (owner, at))'
            " PARTITION BY RANGE (at);"
            "CREATE TABLE page_1 PARTITION OF page FOR VALUES FROM (0) TO (9);"
            "CREATE TABLE line (owner uuid, at int,"
            " CONSTRAINT of_page FOREIGN KEY (owner, at) REFERENCES page (owner, at))"
        )
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert shadow(database.url, "verify").code == 0
        assert shadow(database.url, "undo", "--yes").code == 0

    def test_a_sequence_stands_before_the_ids_that_came_meanwhile(self, load: Callable[[str], Witness]) -> None:
        database = load("number_ids")
        assert migrate(database.url, "retire").code == 0
        last = database.value("SELECT max(id::int) FROM users")
        database.run(f"INSERT INTO users (id, name, email) VALUES ('{last + 7}', 'N', 'new@example.com')")
        assert shadow(database.url, "undo", "--yes").code == 0
        database.run("INSERT INTO \"user\" (name, email, \"emailVerified\") VALUES ('M', 'm@example.com', false)")
        assert database.value('SELECT max(id) FROM "user"') == last + 8


@pytest.mark.parametrize("server", [name for name in offered() if name != "embedded"], indirect=True)
class TestAddressesThatIgnoreCase:
    """Of the servers at hand, the embedded one has no citext."""

    def test_what_refers_to_one_in_another_case_is_named_and_mended(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run(
            'CREATE EXTENSION citext; ALTER TABLE "user" ALTER email TYPE citext;'
            'CREATE TABLE letters (recipient citext REFERENCES "user" (email) ON UPDATE CASCADE);'
            'INSERT INTO letters SELECT upper(email::text) FROM "user"'
        )
        (found,) = plan(database.url, "retire").findings("foreign-key-case")
        assert (found["level"], found["subject"]) == ("refuse", "public.letters (recipient)")
        assert f"{database.value('SELECT count(*) FROM letters'):,} values" in found["message"]
        database.run(found["remedy"])
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert database.value("SELECT count(*) FROM letters JOIN users ON email = recipient") > 0


@on_the_newest
class TestDefaultPrivileges:
    """What ALTER DEFAULT PRIVILEGES gives on new tables is no reason to show, or to give away, what is old."""

    @pytest.fixture
    def open_handed(self, load: Callable[[str], Witness], make_role: Callable[[], str]) -> tuple[Witness, str]:
        role, database = make_role(), load("kysely_singular")
        database.run(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {role}, PUBLIC")
        return database, role

    def allowed(self, database: Witness, role: str) -> set[str]:
        """Return the tables and views of which a role may do anything."""
        anything = "'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'"
        rows = database.ask(
            "SELECT oid::regclass::text AS name FROM pg_class WHERE relkind IN ('r', 'v') AND relnamespace IN "
            "('public'::regnamespace, to_regnamespace('retired_auth')) "
            f"AND has_table_privilege('{role}', oid, {anything})"
        )
        return {row["name"] for row in rows}

    def test_nobody_gains_by_them_whatever_is_made(self, open_handed: tuple[Witness, str]) -> None:
        database, role = open_handed
        assert self.allowed(database, role) == set()
        assert migrate(database.url, "adopt").code == 0
        assert self.allowed(database, role) == set()
        assert migrate(database.url, "retire", "--compat-view").code == 0
        assert self.allowed(database, role) == set()


@on_the_newest
class TestWhoMaySee:
    def test_no_view_shows_what_a_policy_hides(
        self, load: Callable[[str], Witness], make_role: Callable[[], str]
    ) -> None:
        database, reader = load("kysely_singular"), make_role()
        database.run(
            f'ALTER TABLE "user" ENABLE ROW LEVEL SECURITY; GRANT SELECT ON "user" TO {reader};'
            f"CREATE POLICY own ON \"user\" TO {reader} USING (id = current_setting('app.user', true))"
        )
        counted = f"SET ROLE {reader}; SELECT count(*) FROM "
        assert migrate(database.url, "adopt").code == 0
        assert database.run(f"{counted} users").strip() == "0"
        assert migrate(database.url, "retire", "--compat-view").code == 0
        assert database.run(f"{counted} users").strip() == "0"
        assert database.run(f'{counted} "user"').strip() == "0"

    def test_the_views_belong_to_the_tables_owner(
        self, load: Callable[[str], Witness], make_role: Callable[[], str]
    ) -> None:
        database, owner = load("kysely_singular"), make_role()
        database.run(f'ALTER TABLE "user" OWNER TO {owner}; GRANT ALL ON SCHEMA public TO {owner}')
        assert migrate(database.url, "adopt").code == 0
        assert database.run(f"SET ROLE {owner}; SELECT count(*) FROM users").strip() == "32"


@on_the_newest
class TestFunctionsOverRows:
    def test_one_that_takes_a_row_of_users_is_read_though_it_does_not_name_the_table(self, database: Witness) -> None:
        database.run(
            "CREATE FUNCTION label(u users) RETURNS text LANGUAGE sql AS 'SELECT u.name || u.status';"
            "CREATE FUNCTION shout(u users) RETURNS text LANGUAGE sql AS 'SELECT upper(u.name)'"
        )
        (found,) = plan(database.url, "retire").findings("function-body")
        assert (found["subject"], "users.status" in found["message"]) == ("public.label(public.users)", True)


@on_the_newest
class TestEventTriggers:
    FORBIDS = (
        "CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'ask the DBA' USING HINT = 'Or DROP ... CASCADE'; END $$;"
        "CREATE EVENT TRIGGER guard ON ddl_command_end EXECUTE FUNCTION forbid()"
    )

    @pytest.mark.parametrize("name", ["plural_snake", "uuid_kysely"])
    def test_one_that_forbids_is_named_with_what_it_said_and_disabled_by_the_remedy(
        self, load: Callable[[str], Witness], name: str
    ) -> None:
        database = load(name)
        known = database.dump()
        database.run(self.FORBIDS)
        before = database.dump()
        stopped = migrate(database.url, "retire")
        assert (stopped.code, "ask the DBA" in stopped.text, "forbid()" in stopped.text) == (2, True, True)
        assert "CASCADE" not in stopped.text
        assert database.dump() == before
        # the plan knows it beforehand
        (found,) = plan(database.url, "retire").findings("event-trigger")
        assert (found["level"], found["subject"]) == ("refuse", "guard")
        database.run(found["remedy"])
        assert migrate(database.url, "retire").code == 0
        assert shadow(database.url, "undo", "--yes").code == 0
        assert shadow(database.url, "undo", "--yes").code == 0
        database.run("DROP EVENT TRIGGER guard; DROP FUNCTION forbid()")
        assert len(database.dump()) > len(known) / 2

    @pytest.mark.parametrize("event", ["ddl_command_start", "sql_drop", "table_rewrite"])
    def test_whenever_it_is_called_the_plan_knows_which_it_is(self, load: Callable[[str], Witness], event: str) -> None:
        database = load("uuid_kysely")
        database.run(
            "CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
            "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION look();"
            "CREATE EVENT TRIGGER others ON ddl_command_start WHEN TAG IN ('CREATE EXTENSION', 'DROP EXTENSION')"
            f" EXECUTE FUNCTION look(); {self.FORBIDS.replace('ddl_command_end', event)};"
            "ALTER EVENT TRIGGER guard ENABLE ALWAYS"
        )
        before = database.dump()
        found = plan(database.url, "retire").findings("event-trigger")
        levels = {each["subject"]: each["level"] for each in found}
        assert levels == {"guard": "refuse", "watch": "warn", "others": "info"}
        assert database.dump() == before
        database.run(found[0]["remedy"])
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        # as it was, by the lines that are to be pasted afterwards
        database.run("\n".join(line.removeprefix("-- ") for line in found[0]["remedy"].splitlines()[-1:]))
        assert database.value("SELECT evtenabled::text AS e FROM pg_event_trigger WHERE evtname = 'guard'") == "A"

    def test_the_plan_names_those_that_are_called(self, database: Witness) -> None:
        database.run(
            "CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
            "CREATE EVENT TRIGGER watch ON sql_drop EXECUTE FUNCTION look()"
        )
        (found,) = plan(database.url, "retire").findings("event-trigger")
        assert [word for word in ("watch", "look()", "sql_drop") if word not in found["message"]] == []
        database.run(found["remedy"])
        assert plan(database.url, "retire").findings("event-trigger") == []


@on_the_newest
class TestUndoLosesNothing:
    def test_rows_that_the_app_wrote_to_a_detached_column_are_named(self, database: Witness) -> None:
        database.run("CREATE TABLE push (id int, session_id varchar(255) REFERENCES sessions ON DELETE CASCADE)")
        assert migrate(database.url, "retire", "--detach", "push.session_id").code == 0
        database.run("INSERT INTO push VALUES (1, 'a session of the provider')")
        before = database.dump()
        stopped = shadow(database.url, "undo", "--yes")
        assert (stopped.code, "undo-finds-orphans" in stopped.text, "public.push" in stopped.text) == (2, True, True)
        assert database.dump() == before

    def test_what_was_built_on_the_view_of_adopt_comes_back_with_it(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        assert migrate(database.url, "adopt").code == 0
        database.run("CREATE VIEW ids AS SELECT id FROM users; CREATE VIEW how_many AS SELECT count(*) FROM ids")
        before = database.dump("-s", "-T", "*.shadow_*")
        assert refused(plan(database.url, "retire")) == {"dependent-view": "public.ids"}
        assert migrate(database.url, "retire", "--release", "public.ids").code == 0
        assert shadow(database.url, "undo", "--yes").code == 0
        assert sorted(database.dump("-s", "-T", "*.shadow_*").split()) == sorted(before.split())
