"""Which tables are Better Auth's: by a name, a family or what only it writes; what could be either is asked about."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest

from tests.cutover.commands import ACCEPTED, Outcome, migrate, plan, shadow
from tests.cutover.test_small_databases import THIN
from tests.cutover.witness import Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

DEVICES = """
CREATE TABLE {schema}.device_sessions (id text PRIMARY KEY, user_id text NOT NULL REFERENCES {users} ON DELETE CASCADE,
  token text NOT NULL UNIQUE, expires_at timestamptz NOT NULL, ip_address text, user_agent text,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
INSERT INTO {schema}.device_sessions (id, user_id, token, expires_at, user_agent)
  SELECT id, id, 'push:' || id, now() + interval '1 day', 'Mozilla/5.0 (X11)' FROM {users}
"""
"""A table of the app's own with every column of Better Auth's sessions."""


def roles(database: Witness, *arguments: str) -> dict[str, str]:
    """Return which table plays which role."""
    document = shadow(database.url, "inspect", "--format", "json", *arguments).json
    return {role["role"]: role["table"] for role in document["roles"]}


def asked(outcome: Outcome) -> dict[str, str]:
    """Return the codes of a plan's refusals by what they are about."""
    return {found["subject"]: found["code"] for found in outcome.json["findings"] if found["level"] == "refuse"}


class TestLookAlikes:
    def test_without_sessions_in_the_database_those_of_devices_are_asked_about(
        self, load: Callable[[str], Witness]
    ) -> None:
        database = load("kysely_singular")
        database.run(f"DROP TABLE session; {DEVICES.format(schema='public', users=chr(34) + 'user' + chr(34))}")
        before = database.counts()["public.device_sessions"]
        assert asked(plan(database.url, "retire")) == {"sessions": "role-by-shape"}
        (found,) = plan(database.url, "retire").findings("role-by-shape")
        assert found["remedy"].splitlines() == ["--map sessions=public.device_sessions", "--map sessions=none"]
        done = migrate(database.url, "drop", "--map", "sessions=none", "--accept", ACCEPTED)
        assert done.code == 0, done.text
        assert database.counts()["public.device_sessions"] == before > 0

    def test_in_a_renamed_layout_they_are_not_preferred_for_their_english_names(
        self, load: Callable[[str], Witness]
    ) -> None:
        database = load("renamed_schema")
        database.run(DEVICES.format(schema="identity", users="identity.people"))
        (found,) = (
            each for each in plan(database.url, "retire").findings("role-by-shape") if each["subject"] == "sessions"
        )
        assert {"--map sessions=identity.device_sessions", "--map sessions=identity.logins"} < set(
            found["remedy"].splitlines()
        )

    def test_once_the_cutover_has_dropped_its_own_nothing_else_is_taken(self, database: Witness) -> None:
        assert migrate(database.url, "drop", "--accept", ACCEPTED).code == 0
        database.run(
            "CREATE TABLE ssh_keys (id text PRIMARY KEY, public_key text, private_key text, created_at timestamptz);"
            + DEVICES.format(schema="public", users="users")
        )
        assert roles(database) == {"users": "public.users"} | {
            role: table
            for role, table in roles(database).items()
            if role in ("organizations", "members", "invitations")
        }
        assert migrate(database.url, "drop", "--accept", ACCEPTED).code == 0
        assert {"public.ssh_keys", "public.device_sessions"} <= database.tables()

    def test_a_thin_database_that_never_knew_better_auth_keeps_what_looks_like_it(self, empty: Witness) -> None:
        empty.run(
            f"{THIN}; CREATE TABLE ssh_keys (id text PRIMARY KEY, owner text REFERENCES users, public_key text,"
            " private_key text, created_at timestamptz); INSERT INTO ssh_keys (id, public_key) VALUES ('1', 'AAAAB3');"
            + DEVICES.format(schema="public", users="users")
        )
        done = migrate(empty.url, "drop")
        assert done.code == 0, done.text
        assert empty.counts()["public.ssh_keys"] == 1

    def test_those_of_another_app_in_the_same_schema_are_left_to_it(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run(
            'ALTER TABLE jwks RENAME TO shop_jwks; CREATE TABLE shop_user (LIKE "user" INCLUDING ALL);'
            "CREATE TABLE shop_verification (LIKE verification INCLUDING ALL)"
        )
        done = migrate(database.url, "drop", "--accept", ACCEPTED, "--map", "users=public.user")
        assert done.code == 0, done.text
        assert {"public.shop_jwks", "public.shop_user", "public.shop_verification"} <= database.tables()


class TestFamilies:
    def test_tables_with_the_prefix_of_users_need_no_map(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        names = ("user", "session", "account", "verification", "jwks")
        database.run(";".join(f'ALTER TABLE "{name}" RENAME TO auth_{name}' for name in names))
        found = roles(database)
        assert {found[role] for role in ("users", "sessions", "accounts", "verifications", "jwks")} == {
            f"public.auth_{name}" for name in names
        }

    THREE = ("sessions", "accounts", "verifications")

    def emptied(self, database: Witness, *names: str, to: str) -> None:
        database.run(f"TRUNCATE {', '.join(names)}")
        database.run(";".join(f"ALTER TABLE {name} RENAME TO {to.format(name)}" for name in names))

    @pytest.mark.parametrize("to", ["user_{}", "{}_of_auth"])
    def test_where_sessions_accounts_and_verifications_are_of_one_family_none_is_asked_about(
        self, database: Witness, to: str
    ) -> None:
        self.emptied(database, *self.THREE, "jwks", to=to)
        assert asked(plan(database.url, "retire")) == {}
        found = roles(database)
        assert {name: found[name] for name in (*self.THREE, "jwks")} == {
            name: f"public.{to.format(name)}" for name in (*self.THREE, "jwks")
        }
        assert migrate(database.url, "retire").code == 0

    @pytest.mark.parametrize("names", [("sessions",), ("sessions", "verifications"), ("sessions", "accounts")])
    def test_a_part_of_a_family_is_asked_about(self, database: Witness, names: tuple[str, ...]) -> None:
        self.emptied(database, *names, to="user_{}")
        plain = set(names) - {"accounts"}
        assert asked(plan(database.url, "retire")) == dict.fromkeys(plain, "role-by-shape")

    def test_nor_does_a_family_speak_for_what_is_not_of_it(self, database: Witness) -> None:
        self.emptied(database, *self.THREE, to="user_{}")
        database.run("DROP TABLE user_sessions;" + DEVICES.format(schema="public", users="users"))
        assert asked(plan(database.url, "retire"))["sessions"] == "role-by-shape"


class TestTheNameUsers:
    @pytest.mark.parametrize(
        ("sql", "offered"),
        [
            ("CREATE TABLE users (login text PRIMARY KEY, email text, level int)", False),
            ("CREATE VIEW users AS SELECT 1 AS id, 'a@example.com' AS email", False),
            ('CREATE TABLE users (LIKE "user" INCLUDING ALL)', True),
        ],
    )
    def test_a_table_that_has_it_is_offered_only_where_it_could_be_the_one(
        self, load: Callable[[str], Witness], sql: str, offered: bool
    ) -> None:
        database = load("kysely_singular")
        database.run(sql)
        (found,) = plan(database.url, "retire").findings("users-name-taken")
        assert ("--map users=public.users" in found["remedy"].splitlines()) == offered
        database.run(found["remedy"])
        assert migrate(database.url, "retire").code == 0

    @pytest.mark.parametrize(("columns", "offered"), [("login text PRIMARY KEY", False), ("id int, mail text", True)])
    def test_also_where_nothing_else_is_better_auths(self, empty: Witness, columns: str, offered: bool) -> None:
        empty.run(f"CREATE TABLE users ({columns})")
        (found,) = plan(empty.url, "adopt").findings("users-name-taken")
        assert ("--map users=public.users" in found["remedy"].splitlines()) == offered
        empty.run(found["remedy"])
        assert migrate(empty.url, "adopt").code == 0


class TestIds:
    def test_a_primary_key_of_another_name_is_the_id(self, database: Witness) -> None:
        database.run(
            "ALTER TABLE sessions RENAME id TO session_id; ALTER TABLE accounts RENAME id TO account_pk;"
            "ALTER TABLE users RENAME id TO user_key"
        )
        people = database.value("SELECT string_agg(user_key, ' ' ORDER BY user_key) FROM users")
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert {"retired_auth.sessions", "retired_auth.accounts"} <= database.tables()
        assert database.value("SELECT string_agg(id, ' ' ORDER BY id) FROM users") == people

    def test_it_goes_back_to_its_name(self, database: Witness) -> None:
        database.run("ALTER TABLE users RENAME id TO user_key; ALTER TABLE sessions RENAME id TO session_id")
        before = database.schema()
        assert migrate(database.url, "retire").code == 0
        for _ in range(2):
            assert shadow(database.url, "undo", "--yes").code == 0
        assert database.schema() == before


class TestWhatMustBeThere:
    def test_accounts_under_names_of_their_own_are_asked_for(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run(
            "UPDATE account SET password = NULL, \"providerId\" = 'corporate'; ALTER TABLE account RENAME TO identity;"
            'ALTER TABLE identity RENAME "providerId" TO issuer; ALTER TABLE identity RENAME "accountId" TO subject;'
            'ALTER TABLE identity RENAME password TO secret_one; ALTER TABLE identity RENAME "accessToken" TO one;'
            'ALTER TABLE identity RENAME "refreshToken" TO two; ALTER TABLE identity RENAME "idToken" TO three'
        )
        assert asked(plan(database.url, "retire")) == {"accounts": "role-missing"}
        (found,) = plan(database.url, "retire").findings("role-missing")
        assert found["remedy"].splitlines()[0] == "--map accounts=public.identity"

    def test_a_database_of_people_under_other_names_is_not_taken_for_an_empty_one(
        self, load: Callable[[str], Witness]
    ) -> None:
        database = load("renamed_schema")
        database.run(
            "UPDATE identity.credentials SET password_hash = NULL, provider = 'firma';"
            "ALTER TABLE identity.credentials RENAME provider TO firma;"
            "ALTER TABLE identity.credentials RENAME password_hash TO kennwort;"
            "UPDATE identity.logins SET browser = 'Dart/3.2'"
        )
        stopped = migrate(database.url, "adopt")
        assert (stopped.code, "identity.people" in stopped.text) == (2, True), stopped.text
        assert "public.users" not in database.tables()

    def test_unless_it_is_said_that_there_is_no_better_auth(self, load: Callable[[str], Witness]) -> None:
        database = load("renamed_schema")
        done = migrate(database.url, "adopt", "--map", "users=none", *no_others())
        assert done.code == 0, done.text
        assert database.counts()["public.users"] == 0


def no_others() -> list[str]:
    """Return the options that leave all other tables to the app."""
    names = ("sessions", "accounts", "verifications", "jwks", "two_factors", "rate_limits")
    return [part for name in names for part in ("--map", f"{name}=none")]


class TestMaps:
    def test_a_table_of_another_apps_users_is_refused(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run(
            'CREATE TABLE shop_user (LIKE "user" INCLUDING ALL);'
            'CREATE TABLE shop_session (LIKE session INCLUDING ALL, FOREIGN KEY ("userId") REFERENCES shop_user)'
        )
        refused = plan(database.url, "retire", "--map", "users=public.user", "--map", "sessions=public.shop_session")
        assert asked(refused) == {"public.shop_session": "role-missing"}
        (found,) = refused.findings("role-missing")
        assert "public.shop_user" in found["message"]

    def test_which_column_says_when_a_session_expires_may_be_told(self, load: Callable[[str], Witness]) -> None:
        database = load("renamed_schema")
        database.run("ALTER TABLE identity.logins RENAME valid_until TO zzz")
        (found,) = plan(database.url, "retire").findings("live-sessions")
        moments = database.ask(
            "SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'logins'"
            " AND data_type ~ 'timestamp' AND column_default IS NULL"
        )
        assert set(found["remedy"].splitlines()) >= {f"--map sessions.expires_at={each['name']}" for each in moments}
        document = shadow(database.url, "inspect", "--format", "json").json
        assert document["live_sessions"] is None
        maps = ("--map", "sessions=identity.logins", "--map", "sessions.expires_at=zzz")
        database.run("UPDATE identity.logins SET zzz = now() + interval '1 day'")
        for given in (maps, maps[2:]):
            told = shadow(database.url, "inspect", "--format", "json", *given).json
            assert told["live_sessions"] == database.counts()["identity.logins"]

    def test_the_columns_that_could_play_a_part_are_listed_to_be_pasted(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run(
            "UPDATE account SET password = NULL, \"providerId\" = 'corporate';"
            'ALTER TABLE account RENAME "accountId" TO subject; ALTER TABLE account RENAME password TO one;'
            'ALTER TABLE account RENAME "providerId" TO "The Issuer"; ALTER TABLE account RENAME "accessToken" TO two;'
            'ALTER TABLE account RENAME "refreshToken" TO three; ALTER TABLE account RENAME "idToken" TO four'
        )
        (found,) = plan(database.url, "retire", "--map", "accounts=public.account").findings("role-missing")
        lines = found["remedy"].splitlines()
        assert {"--map accounts.account_id=subject", "--map 'accounts.provider_id=The Issuer'"} <= set(lines)
        assert [line for line in lines if not line.startswith(("--map accounts.", "--map 'accounts."))] == []
        texts = {row["name"] for row in database.ask(
            "SELECT column_name AS name FROM information_schema.columns WHERE table_name = 'account'"
            " AND data_type = 'text'"
        )}  # fmt: skip
        assert {shlex.split(line)[1].partition("=")[2] for line in lines} <= texts
        chosen = ("--map accounts.account_id=subject", "--map 'accounts.provider_id=The Issuer'")
        flags = shlex.split(" ".join(("--map accounts=public.account", *chosen)))
        assert plan(database.url, "retire", *flags).findings("role-missing") == []

    def test_a_table_that_cannot_play_a_role_is_none(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run('CREATE TABLE counted (id int PRIMARY KEY, "userId" text REFERENCES "user")')
        refused = plan(database.url, "retire", "--map", "two_factors=public.counted")
        (found,) = refused.findings("role-missing")
        assert found["remedy"].splitlines()[0] == "--map two_factors=none"

    def test_a_name_may_be_given_as_sql_writes_it(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run('ALTER TABLE session RENAME TO "My.Sessions"')
        found = roles(database, "--map", 'sessions=public."My.Sessions"')
        assert found["sessions"] == 'public."My.Sessions"'


class TestColumns:
    def test_what_has_nothing_but_its_name_to_speak_for_it_is_said(self, load: Callable[[str], Witness]) -> None:
        database = load("kysely_singular")
        database.run('ALTER TABLE "user" ADD "isAnonymous" boolean, ADD "lockedUntil" timestamptz')
        by_name = {found["subject"] for found in plan(database.url, "retire").findings("column-by-name")}
        assert {"users.isAnonymous", "users.lockedUntil"} <= by_name


class TestOtherSchemas:
    def test_users_moves_where_the_name_is_free_though_it_is_taken_where_it_comes_from(
        self, load: Callable[[str], Witness]
    ) -> None:
        database = load("kysely_singular")
        database.run(
            'CREATE TABLE users (login text PRIMARY KEY); CREATE SCHEMA api; ALTER TABLE "user" RENAME TO auth_user'
        )
        before = database.schema()
        options = ("--map", "users=public.auth_user")
        done = migrate(database.url, "retire", *options, DATABASE_SCHEMA="api")
        assert done.code == 0, done.text
        assert database.columns("public.users").keys() == {"login"}
        assert "email_verified" in database.columns("api.users")
        for _ in range(2):
            assert shadow(database.url, "undo", "--yes", DATABASE_SCHEMA="api").code == 0
        assert database.schema() == before
