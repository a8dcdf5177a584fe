"""Refusals: what stands in the way is named, nothing is changed, and what the remedy says is enough.

Each obstacle is put up by SQL, as an app's history would have left it; then the command must end with 2, the dump must
be the same, and after the remedy (pasted into psql, or given as a flag) the whole way must be free.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest

from tests.cutover.commands import ACCEPTED, alembic, migrate, plan, process, shadow
from tests.cutover.obstacles import OBSTACLES, WHOLE, Obstacle, hand_over, refusals
from tests.cutover.witness import Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


SQL = "ALTER|CANCEL|COMMENT|CREATE|DELETE|DROP|GRANT|INSERT|REFRESH|REVOKE|ROLLBACK|SELECT|SET|UPDATE|VACUUM"
PASTEABLE = re.compile(rf"--|(?:{SQL}) |\\ef |pg_dump |pg_restore |shadow |alembic |  ")
"""A flag or a comment, a statement, a command of psql or of a shell, or the next line of one of them."""


def first_flags(remedy: str) -> tuple[str, ...]:
    """Return the first line of a remedy that is flags, as a shell would split it."""
    return tuple(shlex.split(next(line for line in remedy.splitlines() if re.match(r"--[a-z]", line))))


def released(line: str) -> tuple[str, ...]:
    """Return a remedy's line as flags where it says --release or --detach."""
    return tuple(shlex.split(line)) if line.startswith(("--release ", "--detach ")) else ()


def remedied(database: Witness, obstacle: Obstacle, remedy: str) -> tuple[str, ...]:
    """Do what the remedy says; return the flags to migrate with."""
    if obstacle.remedy == "flags":
        return first_flags(remedy)
    if obstacle.remedy.startswith("--"):
        assert obstacle.remedy.split()[0] in remedy
        return tuple(obstacle.remedy.split())
    database.run(remedy if obstacle.remedy == "sql" else obstacle.remedy)
    return ()


class TestObstacles:
    @pytest.fixture(params=OBSTACLES, ids=lambda obstacle: obstacle.what.replace(" ", "-"))
    def obstacle(self, request: pytest.FixtureRequest, database: Witness) -> Obstacle:
        found: Obstacle = request.param
        database.run(found.sql)
        return found

    def test_it_is_refused_by_name_and_gone_with_its_remedy(self, obstacle: Obstacle, database: Witness) -> None:
        before, keys = database.dump(), database.foreign_keys("users")
        refused = migrate(database.url, *WHOLE)
        assert refused.code == 2, refused.text
        assert obstacle.code in refused.text
        planned = plan(database.url, *WHOLE)
        assert planned.code == 2
        (found,) = refusals(planned, obstacle.code)
        assert [name for name in obstacle.names if name not in found["message"]] == []
        lines = [line for each in planned.json["findings"] for line in each["remedy"].splitlines()]
        assert [line for line in lines if not PASTEABLE.match(line)] == []
        assert database.dump() == before

        flags = remedied(database, obstacle, found["remedy"])
        counts = database.counts()
        free = migrate(database.url, *WHOLE, *flags)
        assert free.code == 0, free.text
        survived = {name: count for name, count in database.counts().items() if name in counts}
        assert {name: counts[name] for name in survived} == survived
        names = {key["name"] for key in keys if key["name"] not in ("letters_to", "late")}
        gone = {f"{table}_user_id_users_id_fk" for table in ("sessions", "accounts", "two_factors")}
        assert names - gone <= {key["name"] for key in database.foreign_keys("users")}


class TestRemedies:
    @pytest.mark.parametrize("what", ["a column of a table's row type", "a table that inherits"])
    def test_none_takes_rows_of_the_app_with_it(self, database: Witness, what: str) -> None:
        (obstacle,) = (each for each in OBSTACLES if each.what == what)
        database.run(obstacle.sql)
        (found,) = refusals(plan(database.url, *WHOLE), obstacle.code)
        assert "DROP TABLE" not in found["remedy"]
        assert "DROP COLUMN" not in found["remedy"]

    def test_the_definition_of_what_must_be_dropped_is_shown(self, database: Witness) -> None:
        database.run(
            "CREATE VIEW online AS SELECT user_id FROM sessions WHERE ip_address <> 'of the view';"
            "ALTER TABLE files ENABLE ROW LEVEL SECURITY;"
            "CREATE POLICY seen ON files USING (owner_id <> 'of the policy' AND owner_id IN (SELECT id FROM sessions))"
        )
        remedies = " ".join(found["remedy"] for found in plan(database.url, *WHOLE).json["findings"])
        assert "of the view" in remedies
        assert "of the policy" in remedies

    def test_a_view_on_a_view_leads_to_both(self, database: Witness) -> None:
        database.run("CREATE VIEW a AS SELECT user_id FROM sessions; CREATE VIEW b AS SELECT count(*) FROM a")
        (found,) = refusals(plan(database.url, *WHOLE), "dependent-view")
        assert "public.a" in found["message"]
        database.run(found["remedy"])
        assert migrate(database.url, *WHOLE).code == 0

    def test_what_can_be_released_is_free_with_the_flag_and_comes_back(self, database: Witness) -> None:
        database.run(
            "CREATE VIEW a AS SELECT user_id FROM sessions; CREATE VIEW b AS SELECT count(*) FROM a;"
            "COMMENT ON VIEW b IS 'how many'; GRANT SELECT ON a TO PUBLIC;"
            "CREATE POLICY signed_in ON files USING (EXISTS (SELECT FROM sessions s WHERE s.user_id = owner_id));"
            "CREATE PUBLICATION p FOR TABLE sessions, files"
        )
        assert migrate(database.url, "adopt").code == 0
        before = database.portrait()
        refused = [each for each in plan(database.url, "retire").json["findings"] if each["level"] == "refuse"]
        flags = [word for each in refused for line in each["remedy"].splitlines() for word in released(line)]
        done = migrate(database.url, "retire", *flags)
        assert done.code == 0, done.text
        assert (
            database.ask("SELECT viewname FROM pg_views WHERE schemaname = 'public' AND viewname IN ('a', 'b')") == []
        )
        assert shadow(database.url, "undo", "--yes").code == 0
        assert database.portrait() == before

    def test_all_obstacles_are_said_in_one_pass_refusals_first(self, database: Witness) -> None:
        words = (
            "a view on a table",
            "a publication",
            "a rule",
            "a required column that",
            "a foreign key into sessions",
        )
        taken = [each for each in OBSTACLES if each.what.startswith(words)]
        for each in taken:
            database.run(each.sql)
        planned = plan(database.url, *WHOLE)
        assert {each.code for each in taken} <= {found["code"] for found in planned.json["findings"]}
        levels = [found["level"] for found in planned.json["findings"]]
        assert levels == sorted(levels, key=["refuse", "warn", "info"].index)


class TestByAlembic:
    """The same rules, where no plan was made first."""

    @pytest.mark.parametrize("to", ["head", "heads", "+3", "0003_drop", "0003"])
    def test_a_refusal_of_a_later_revision_keeps_the_first_from_running(self, database: Witness, to: str) -> None:
        database.run("CREATE VIEW online AS SELECT user_id FROM sessions")
        before = database.dump()
        refused = alembic(database.url, "-x", f"accept={ACCEPTED}", "upgrade", to)
        assert refused.code == 2, refused.text
        assert "dependent-view" in refused.text
        assert "public.online" in refused.text
        assert database.dump() == before

    def test_nor_does_it_where_python_calls_alembic(self, database: Witness) -> None:
        """As a deployment's own script does, which has no command line to look at."""
        database.run("CREATE VIEW online AS SELECT user_id FROM sessions")
        before = database.dump()
        script = (
            "from alembic import command; from alembic.config import Config;"
            "command.upgrade(Config(toml_file='pyproject.toml'), 'head')"
        )
        refused = process(database.url, "-c", script)
        assert (refused.code, "dependent-view" in refused.text) == (2, True), refused.text
        assert database.dump() == before

    def test_identities_are_not_dropped_unless_accepted_by_name(self, database: Witness) -> None:
        before = database.dump()
        refused = alembic(database.url, "upgrade", "head")
        assert (refused.code, ACCEPTED in refused.text) == (2, True)
        assert database.dump() == before
        assert alembic(database.url, "upgrade", "0002_retire").code == 0
        assert alembic(database.url, "upgrade", "head").code == 2
        assert alembic(database.url, "-x", f"accept={ACCEPTED}", "upgrade", "head").code == 0

    def test_a_foreign_key_is_detached_by_x(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE devices (s varchar(255) REFERENCES sessions); INSERT INTO devices SELECT id FROM sessions"
        )
        given = ("-x", f"accept={ACCEPTED}", "-x", "detach=devices.s")
        assert alembic(database.url, *given, "upgrade", "head").code == 0
        assert database.value("SELECT count(*) FROM devices WHERE s IS NOT NULL") > 0

    @pytest.mark.parametrize("x", ["accept=identites-not-exported", "map=sessions", "keep=role", "nonsense=1"])
    def test_what_x_does_not_know_is_said(self, database: Witness, x: str) -> None:
        before = database.dump()
        refused = alembic(database.url, "-x", x, "-x", f"accept={ACCEPTED}", "upgrade", "head")
        assert refused.code != 0
        assert database.dump() == before


class TestDetach:
    SQL = (
        "CREATE TABLE devices (id int, session_id varchar(255) REFERENCES sessions ON DELETE SET NULL);"
        "COMMENT ON CONSTRAINT devices_session_id_fkey ON devices IS 'ours';"
        "INSERT INTO devices SELECT 1, id FROM sessions"
    )

    def test_column_and_values_stay_and_undo_restores_the_constraint(self, database: Witness) -> None:
        database.run(self.SQL)
        before, rows = database.portrait(), database.ask("SELECT * FROM devices ORDER BY session_id")
        assert migrate(database.url, "retire", "--detach", "public.devices.session_id").code == 0
        assert database.ask("SELECT * FROM devices ORDER BY session_id") == rows
        assert shadow(database.url, "verify").code == 0
        for _ in range(2):
            assert shadow(database.url, "undo", "--yes").code == 0
        assert database.portrait() == before

    def test_of_a_partitioned_table_goes_with_its_partitions(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE visits (n int, s varchar(255) REFERENCES sessions) PARTITION BY RANGE (n);"
            "CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (9);"
            "INSERT INTO visits SELECT 1, id FROM sessions"
        )
        before = database.portrait()
        done = migrate(database.url, "retire", "--detach", "visits.s")
        assert done.code == 0, done.text
        assert shadow(database.url, "verify").code == 0
        for _ in range(2):
            assert shadow(database.url, "undo", "--yes").code == 0
        assert database.portrait() == before

    def test_of_two_only_the_one_that_is_named(self, database: Witness) -> None:
        database.run(self.SQL + "; ALTER TABLE files ADD made_in varchar(255) REFERENCES sessions")
        planned = plan(database.url, "retire", "--detach", "devices.session_id")
        assert planned.code == 2
        (found,) = refusals(planned, "foreign-key-into-auth-table")
        assert "files" in found["subject"]

    def test_on_a_table_of_somebody_else_is_refused(self, database: Witness, make_role: Callable[[], str]) -> None:
        owner = make_role()
        database.run(self.SQL)
        hand_over(database, owner, but=("devices",))
        database.run(f"GRANT SELECT ON devices TO {owner}")
        before = database.dump()
        refused = migrate(database.seen_by(owner), "retire", "--detach", "devices.session_id")
        assert (refused.code, "public.devices" in refused.text) == (2, True), refused.text
        assert database.dump() == before
