"""Killed at any moment: the database is as before a revision or as after it, and running it again finishes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from app import cli
from app.cutover.steps import Step
from tests.cutover.commands import ACCEPTED, PROJECT, migrate
from tests.cutover.test_locks import until
from tests.cutover.witness import Witness
from tests.postgres import Server

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True, scope="session")

WHOLE = ("drop", "--accept", ACCEPTED)
KILLED_AT = """
import os, signal, sys
from app import cli
left = int(sys.argv.pop(1))
def observe(step, seconds):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
cli._observe = observe
cli.main()
"""


@pytest.fixture(scope="module")
def portraits(server: Server) -> Iterator[dict[str | None, Any]]:
    """What the database looks like at each revision when nothing disturbs the way."""
    database = Witness(server, server.make_database("plural_snake"))
    found: dict[str | None, Any] = {None: database.portrait()}
    for to, revision, more in (
        ("adopt", "0001_adopt", ()),
        ("retire", "0002_retire", ()),
        ("drop", "0003_drop", ("--accept", ACCEPTED)),
    ):
        assert migrate(database.url, to, *more).code == 0
        found[revision] = database.portrait()
    yield found
    server.drop_database(database.url)


def revision_of(database: Witness) -> str | None:
    if "public.shadow_alembic_version" not in database.tables():
        return None
    rows = database.ask("SELECT version_num FROM shadow_alembic_version")
    return rows[0]["version_num"] if rows else None


def is_alone(database: Witness) -> bool:
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    return bool(database.value(others) == 0)


class TestKilled:
    @pytest.mark.parametrize("at", [0, 3, 9, 14, 21, 28, 33, 40])
    def test_the_runner_at_a_step(self, database: Witness, portraits: dict[str | None, Any], at: int) -> None:
        runner = subprocess.run(
            [sys.executable, "-c", KILLED_AT, str(at), "migrate", "--yes", "--to", *WHOLE],
            cwd=PROJECT, env={"DATABASE_URL": database.url, "LOGNAME": "tester"},
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        assert runner.returncode == -signal.SIGKILL
        until(lambda: is_alone(database))
        assert database.portrait() == portraits[revision_of(database)]
        again = migrate(database.url, *WHOLE)
        assert again.code == 0, again.text
        assert database.portrait() == portraits["0003_drop"]

    @pytest.mark.parametrize("at", [2, 8, 19, 30, 42])
    def test_its_connection_at_a_step(
        self, database: Witness, portraits: dict[str | None, Any], at: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[Step] = []

        def observe(step: Step, _seconds: float | None) -> None:
            seen.append(step)
            if len(seen) == at:
                database.run(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in%'"
                )

        with monkeypatch.context() as patch:
            patch.setattr(cli, "_observe", observe)
            done = migrate(database.url, *WHOLE)
        assert done.code == 1, done.text
        assert "connection" in done.text
        until(lambda: is_alone(database))
        assert database.portrait() == portraits[revision_of(database)]
        assert migrate(database.url, *WHOLE).code == 0
        assert database.portrait() == portraits["0003_drop"]

    def test_a_statement_that_is_cancelled(
        self, database: Witness, portraits: dict[str | None, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        database.run("ALTER TABLE users ADD note text")
        database.run(
            "CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN "
            "PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN true; END $$;"
            "CREATE FUNCTION deny() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM slow(); END $$;"
        )
        database.run(
            "CREATE EVENT TRIGGER slowly ON ddl_command_end WHEN tag IN ('ALTER TABLE') EXECUTE FUNCTION deny()"
        )
        before = database.dump()
        done = migrate(database.url, "retire")
        assert (done.code, "57014" in done.text, "Cannot connect" in done.text) == (1, True, False), done.text
        assert database.dump() == before
