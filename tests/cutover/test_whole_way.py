"""From every layout to the target, and from Auther's template by each of the four ways that lead there.

What was there before and what is there after is asked of the database itself, in SQL.
"""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cutover.commands import ACCEPTED, Outcome, alembic, migrate, process, shadow
from tests.cutover.layouts import Layout, each_other, each_telling, on_the_newest_server
from tests.cutover.witness import OUR_TABLES, Witness
from tests.postgres import Server

SHADOW = "from app.cli import main; main()"
GONE = {"public.sessions", "public.accounts", "public.verifications", "public.jwks", "public.two_factors"}
TARGET = {
    "id": ("character varying", 255, False, None),
    "name": ("text", None, False, None),
    "email": ("text", None, False, None),
    "email_verified": ("boolean", None, False, "false"),
    "image": ("text", None, True, None),
    "onboarding_completed_at": ("timestamp with time zone", None, True, None),
    "created_at": ("timestamp with time zone", None, False, "now()"),
    "updated_at": ("timestamp with time zone", None, False, "now()"),
    "deleted_at": ("timestamp with time zone", None, True, None),
    "identity_updated_at": ("timestamp with time zone", None, True, None),
}
OWN = {
    "preferences": ("jsonb", None, False, "'{}'::jsonb"),
    "locale": ("character varying", 5, True, "'en'::character varying"),
    "Plan": ("text", None, True, None),
}
APP = """
ALTER TABLE users ADD preferences jsonb NOT NULL DEFAULT '{}', ADD locale varchar(5) DEFAULT 'en', ADD "Plan" text;
UPDATE users SET preferences = jsonb_build_object('n', length(id)), locale = left(id, 2), "Plan" = 'é' || id;
ALTER TABLE users ADD UNIQUE (id, email);
CREATE TABLE "Odd ""table"" % :names" (
    "User Id" varchar(255) CONSTRAINT "Odd ""key"" % :x" REFERENCES users MATCH FULL
        ON DELETE SET DEFAULT ON UPDATE RESTRICT DEFERRABLE INITIALLY DEFERRED,
    "E" text, FOREIGN KEY ("User Id", "E") REFERENCES users (id, email) ON UPDATE CASCADE DEFERRABLE
);
INSERT INTO "Odd ""table"" % :names" SELECT id, email FROM users;
CREATE SCHEMA billing;
CREATE TABLE billing."order" (id serial PRIMARY KEY, buyer varchar(255));
INSERT INTO billing."order" (buyer) SELECT id FROM users UNION ALL SELECT 'usr_nobody';
ALTER TABLE billing."order" ADD FOREIGN KEY (buyer) REFERENCES users ON DELETE CASCADE NOT VALID;
"""
MIRRORED = "SELECT id, name, email, email_verified, image, created_at, updated_at FROM users ORDER BY id"
OF_THE_APP = 'SELECT id, preferences, locale, "Plan", onboarding_completed_at FROM users ORDER BY id'


@dataclass(frozen=True)
class Facts:
    """What must be afterwards as it was before."""

    foreign_keys: list[dict[str, Any]]
    counts: dict[str, int]
    mirrored: list[dict[str, Any]]
    of_the_app: list[dict[str, Any]]
    indexes: list[dict[str, Any]]

    @classmethod
    def of(cls, database: Witness) -> Facts:
        kept = "SELECT indexdef FROM pg_indexes WHERE tablename <> ALL (ARRAY['{}']) ORDER BY 1"
        names = "','".join([*(name.removeprefix("public.") for name in GONE), *OUR_TABLES])
        return cls(
            [key for key in database.foreign_keys() if f"public.{key['of']}" not in GONE],
            {name: count for name, count in database.counts().items() if name not in GONE and ".shadow_" not in name},
            database.ask(MIRRORED),
            database.ask(OF_THE_APP),
            database.ask(kept.format(names)),
        )


@dataclass(frozen=True)
class Journey:
    """A way that was gone."""

    way: str
    database: Witness
    before: Facts
    outcome: Outcome


def go(way: str, database: Witness) -> Outcome:
    if way == "the command":
        return process(database.url, "-c", SHADOW, "migrate", "--to", "drop", "--yes", "--accept", ACCEPTED)
    if way == "alembic":
        return process(database.url, "-m", "alembic", "-x", f"accept={ACCEPTED}", "upgrade", "head")
    if way == "the plan as SQL":
        written = shadow(database.url, "plan", "--to", "drop", "--accept", ACCEPTED, "--format", "sql")
    else:
        written = process(
            "postgresql:///nowhere", "-m", "alembic", "-x", f"accept={ACCEPTED}", "upgrade", "head", "--sql"
        )
    if written.code == 0:
        database.run(written.out)
    return written


@pytest.fixture(scope="module", params=["the command", "alembic", "the plan as SQL", "alembic --sql"])
def journey(request: pytest.FixtureRequest, server: Server) -> Iterator[Journey]:
    """A database with an app around it, gone the whole way."""
    database = Witness(server, server.make_database("plural_snake"))
    database.run(APP)
    before = Facts.of(database)
    yield Journey(request.param, database, before, go(request.param, database))
    server.drop_database(database.url)


class TestWholeWay:
    def test_it_ends_with_0(self, journey: Journey) -> None:
        assert journey.outcome.code == 0, journey.outcome.text
        assert "Traceback" not in journey.outcome.text

    def test_every_foreign_key_of_the_app_is_what_it_was(self, journey: Journey) -> None:
        to_users = [key for key in journey.before.foreign_keys if key["target"] == "users"]
        assert len(to_users) == 10 + 3
        assert journey.database.foreign_keys() == journey.before.foreign_keys

    def test_every_table_has_as_many_rows_as_before(self, journey: Journey) -> None:
        ours = {f"public.{name}" for name in OUR_TABLES}
        after = {name: count for name, count in journey.database.counts().items() if name not in ours}
        assert after == journey.before.counts

    def test_every_id_and_mirrored_value_is_what_it_was(self, journey: Journey) -> None:
        assert len(journey.before.mirrored) == 32
        assert journey.database.ask(MIRRORED) == journey.before.mirrored

    def test_every_value_of_the_apps_own_columns_is_what_it_was(self, journey: Journey) -> None:
        assert journey.database.ask(OF_THE_APP) == journey.before.of_the_app

    def test_every_index_of_what_stays_is_what_it_was(self, journey: Journey) -> None:
        assert Facts.of(journey.database).indexes == journey.before.indexes

    def test_the_tables_of_better_auth_are_gone_from_every_schema(self, journey: Journey) -> None:
        assert not {name for name in journey.database.tables() if f"public.{name.partition('.')[2]}" in GONE}
        assert journey.database.ask("SELECT 1 AS there FROM pg_namespace WHERE nspname = 'retired_auth'") == []

    def test_users_has_the_target_columns_and_the_apps_own_and_no_other(self, journey: Journey) -> None:
        assert journey.database.columns() == TARGET | OWN

    def test_the_email_is_still_unique_and_the_id_the_primary_key(self, journey: Journey) -> None:
        keys = "SELECT pg_get_constraintdef(oid) AS says FROM pg_constraint WHERE conrelid = 'users'::regclass"
        says = [row["says"] for row in journey.database.ask(f"{keys} AND contype IN ('p', 'u') ORDER BY 1")]
        assert says == ["PRIMARY KEY (id)", "UNIQUE (email)", "UNIQUE (id, email)"]

    def test_the_journal_says_who_did_what_and_what_was_accepted(self, journey: Journey) -> None:
        rows = journey.database.ask("SELECT action, operator, role, accepted, at FROM shadow_cutover ORDER BY id")
        role = journey.database.value("SELECT current_user")
        assert [row["action"] for row in rows] == ["adopt", "retire", "drop"]
        assert {(row["operator"], row["role"], *row["accepted"]) for row in rows} == {
            (getpass.getuser(), role, ACCEPTED)
        }
        assert all(row["at"] for row in rows)

    def test_verify_holds(self, journey: Journey) -> None:
        verified = shadow(journey.database.url, "verify", "--format", "json")
        assert (verified.code, verified.json["holds"], verified.json["action"]) == (0, True, "drop")
        # SQL that was written without a database knows no foreign keys but the template's own
        unequal = [found for found in verified.json["comparisons"] if found["verdict"] != "ok"]
        assert (unequal == []) == (journey.way != "alembic --sql")

    def test_going_it_again_changes_nothing_and_ends_with_0(self, journey: Journey) -> None:
        before = journey.database.dump()
        again = migrate(journey.database.url, "drop")
        assert (again.code, "Nothing to do" in again.text) == (0, True)
        assert shadow(journey.database.url, "plan").code == 0
        assert alembic(journey.database.url, "upgrade", "head").code == 0
        assert journey.database.dump() == before

    def test_alembic_is_at_head_and_finds_nothing_to_do(self, journey: Journey) -> None:
        assert journey.database.ask("SELECT * FROM shadow_alembic_version") == [{"version_num": "0003_drop"}]
        checked = alembic(journey.database.url, "check")
        assert checked.code == 0, checked.text


FAR_FROM_UTC = (
    "ALTER DATABASE {name} SET TimeZone = 'America/St_Johns'; ALTER DATABASE {name} SET DateStyle = 'SQL, DMY'"
)
SAME_DEFAULT = {"CURRENT_TIMESTAMP": "now()"}
PRECISE = """SELECT column_name AS name FROM information_schema.columns
WHERE table_schema || '.' || table_name = '{table}' AND datetime_precision = 6"""
RATE_LIMITS = {"rateLimit": "key", "rate_limit": "key", "throttle": "who"}
"""The tables with rows of sessions that are to go, and the column that tells."""


@dataclass(frozen=True)
class Before:
    """What a database of some layout was, with the names that it is to have afterwards."""

    keys: list[dict[str, Any]]
    people: list[dict[str, Any]]
    others: dict[str, list[dict[str, str]]]
    """The rows of every table that stays, but users."""
    columns: dict[str, tuple[Any, ...]]
    """The columns of users that are the app's own."""
    own: list[dict[str, str]]
    """And what is in them."""

    @classmethod
    def of(cls, database: Witness, layout: Layout) -> Before:
        mirrored = {layout.column(name).strip('"') for name in TARGET}
        columns = {n: c for n, c in database.columns(layout.users).items() if n not in mirrored | set(layout.lost)}
        names = {layout.column(name).strip('"'): name for name in TARGET}
        keys = [
            _renamed(key, shown(layout.users), shown(layout.target), names)
            for key in database.foreign_keys()
            if qualified(key["of"]) not in layout.gone
        ]
        return cls(
            sorted(keys, key=_order),
            database.ask(layout.mirrored(before=True)),
            staying(database, layout.gone, layout.users),
            columns,
            [{name: row[name] for name in columns} for row in by_id(database, layout.users)],
        )


def shown(table: str) -> str:
    """Return what `regclass` writes of a table."""
    return table.removeprefix("public.")


def qualified(table: str) -> str:
    return (table if "." in table else f"public.{table}").replace('"', "")


def _order(key: dict[str, Any]) -> tuple[str, str]:
    return key["of"], key["name"]


def _renamed(key: dict[str, Any], users: str, target: str, names: dict[str, str]) -> dict[str, Any]:
    """Return a foreign key with the names that users and its columns have in the target."""
    new = dict(key)
    for table, columns in (("of", "columns"), ("target", "target_columns")):
        if key[table] == users:
            new |= {table: target, columns: [names.get(column, column) for column in key[columns]]}
    return new


def by_id(database: Witness, users: str) -> list[dict[str, str]]:
    return sorted(database.rows(users), key=lambda row: row["id"])


def staying(database: Witness, gone: set[str], users: str) -> dict[str, list[dict[str, str]]]:
    """Return the rows of all tables but those that go, users and ours; of rate limits those that are no session's."""
    names = [name for name in database.tables() if name not in gone and not name.endswith(OUR_TABLES)]
    found = {}
    for schema, table in (name.split(".") for name in names):
        if f"{schema}.{table}" != users.replace('"', ""):
            rows = database.rows(f'"{schema}"."{table}"')
            key = RATE_LIMITS.get(table)
            found[f"{schema}.{table}"] = [row for row in rows if not (key and row[key].startswith("session:"))]
    return found


@dataclass(frozen=True)
class Arrival:
    """A database of some layout at the end of the way."""

    layout: Layout
    database: Witness
    before: Before
    outcome: Outcome


@pytest.fixture(scope="module")
def arrivals(server: Server) -> Iterator[dict[str, Arrival]]:
    """Those that were gone to, by layout."""
    found: dict[str, Arrival] = {}
    yield found
    for arrival in found.values():
        server.drop_database(arrival.database.url)


@pytest.fixture
def arrival(server: Server, layout: Layout, arrivals: dict[str, Arrival]) -> Arrival:
    if layout.name not in arrivals:
        database = Witness(server, server.make_database(layout.name), layout.users)
        database.run(FAR_FROM_UTC.format(name=database.name))
        before = Before.of(database, layout)
        outcome = migrate(database.url, "drop", "--accept", ACCEPTED, **layout.settings)
        arrivals[layout.name] = Arrival(layout, database, before, outcome)
    return arrivals[layout.name]


class TheWholeWay:
    def test_it_ends_with_0(self, arrival: Arrival) -> None:
        assert arrival.outcome.code == 0, arrival.outcome.text

    def test_every_foreign_key_of_the_app_is_what_it_was(self, arrival: Arrival) -> None:
        assert arrival.before.keys
        assert sorted(arrival.database.foreign_keys(), key=_order) == arrival.before.keys

    def test_every_id_and_mirrored_value_is_what_it_was(self, arrival: Arrival) -> None:
        assert len(arrival.before.people) > 20
        assert arrival.database.ask(arrival.layout.mirrored(before=False)) == arrival.before.people

    def test_every_row_of_every_other_table_is_what_it_was(self, arrival: Arrival) -> None:
        assert sum(map(len, arrival.before.others.values())) > 20
        assert staying(arrival.database, set(), arrival.layout.target) == arrival.before.others

    def test_users_has_the_target_columns_and_the_apps_own_and_no_other(self, arrival: Arrival) -> None:
        layout, columns = arrival.layout, arrival.database.columns(arrival.layout.target)
        text = not layout.rewritten and layout.id_type == "text"
        ids = TARGET | ({"id": ("text", None, False, None)} if text else {})
        # a foreign key's columns are of the type of what they refer to
        referring = dict.fromkeys(layout.ids_in_users, ("character varying", 255, True, None))
        same = {
            name: (*rest, default and SAME_DEFAULT.get(default, default)) for name, (*rest, default) in columns.items()
        }
        assert same == ids | arrival.before.columns | referring
        precise = {row["name"] for row in arrival.database.ask(PRECISE.format(table=layout.target))}
        assert {name for name in TARGET if TARGET[name][0] == "timestamp with time zone"} <= precise

    def test_every_value_of_the_apps_own_columns_is_what_it_was(self, arrival: Arrival) -> None:
        rows = by_id(arrival.database, arrival.layout.target)
        assert [{name: row[name] for name in arrival.before.columns} for row in rows] == arrival.before.own

    def test_the_id_is_the_primary_key_and_the_email_unique(self, arrival: Arrival) -> None:
        unique = (
            "SELECT i.indisprimary AS first, array_agg(a.attname ORDER BY a.attnum) AS columns FROM pg_index i "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) "
            f"WHERE i.indrelid = '{arrival.layout.target}'::regclass AND i.indisunique AND i.indisvalid "
            "GROUP BY i.indexrelid, 1"
        )
        found = arrival.database.ask(unique)
        assert {"first": True, "columns": ["id"]} in found
        assert {"first": False, "columns": ["email"]} in found

    def test_the_tables_of_better_auth_and_their_sequences_are_gone(self, arrival: Arrival) -> None:
        tables = arrival.database.tables()
        assert not arrival.layout.gone & tables
        assert (arrival.layout.users.replace('"', "") in tables) == (arrival.layout.users == arrival.layout.target)
        assert arrival.database.ask("SELECT 1 AS there FROM pg_namespace WHERE nspname ~ 'retired_auth|shadow'") == []
        left = (
            "SELECT relname FROM pg_class WHERE relkind IN ('S', 'v') AND relname ~* '^(user|account|session|jwks)' "
            "AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"
        )
        assert arrival.database.ask(left) == []

    def test_going_it_again_changes_nothing(self, arrival: Arrival) -> None:
        before = arrival.database.dump()
        again = migrate(arrival.database.url, "drop", **arrival.layout.settings)
        assert (again.code, "Nothing to do" in again.text) == (0, True), again.text
        assert arrival.database.dump() == before

    def test_verify_holds_and_alembic_finds_nothing_to_do(self, arrival: Arrival) -> None:
        verified = shadow(arrival.database.url, "verify", "--format", "json", **arrival.layout.settings)
        unequal = [found for found in verified.json["comparisons"] if found["verdict"] != "ok"]
        assert (verified.code, unequal) == (0, [])
        checked = alembic(arrival.database.url, "check", **arrival.layout.settings)
        assert checked.code == 0, checked.text


@each_telling
class TestTellingLayoutsOnEveryServer(TheWholeWay):
    pass


@on_the_newest_server
@each_other
class TestOtherLayouts(TheWholeWay):
    pass


class TestStepByStep:
    def test_each_revision_alone_leads_to_the_same_end(self, database: Witness) -> None:
        database.run(APP)
        before = Facts.of(database)
        for to, more in (("adopt", ()), ("retire", ()), ("drop", ("--accept", ACCEPTED))):
            done = migrate(database.url, to, *more)
            assert done.code == 0, done.text
            assert Facts.of(database).foreign_keys == before.foreign_keys
        assert database.columns() == TARGET | OWN
        assert database.ask(MIRRORED) == before.mirrored

    def test_adopt_only_adds(self, database: Witness) -> None:
        columns, counts = database.columns(), database.counts()
        assert migrate(database.url, "adopt").code == 0
        assert {name: database.columns()[name] for name in columns} == columns
        assert set(database.columns()) - set(columns) == {"deleted_at", "identity_updated_at"}
        assert {name: database.counts()[name] for name in counts} == counts

    def test_after_retire_the_tables_are_kept_out_of_reach_with_every_row(self, database: Witness) -> None:
        counts = database.counts()
        assert migrate(database.url, "retire").code == 0
        assert not GONE & database.tables()
        moved = {name.replace("public.", "retired_auth."): counts[name] for name in GONE}
        assert {name: count for name, count in database.counts().items() if name in moved} == moved
        assert database.columns() == TARGET

    def test_after_retire_deleting_a_user_works(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run("DELETE FROM files; DELETE FROM support_tickets; DELETE FROM users")
        assert database.value("SELECT count(*) FROM members") == 0
