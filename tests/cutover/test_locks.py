"""Others at the same time: nobody queues behind the cutover for long, and two runners never work at once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from app.cutover import execute
from tests.cutover.commands import PROJECT, Outcome, alembic, migrate
from tests.cutover.witness import Witness

DEADLINE = 30.0
"""Seconds after which something that was waited for is not going to happen."""


@dataclass
class Holder:
    """Somebody's session that has a lock and does not let go."""

    process: subprocess.Popen[str]
    pid: int

    def release(self) -> None:
        if self.process.poll() is None:
            self.process.communicate("COMMIT;\n")


@contextmanager
def holding(database: Witness, lock: str) -> Iterator[Holder]:
    """Hold a lock, `TABLE users IN ACCESS SHARE MODE` say, until told to release it."""
    process = subprocess.Popen(
        [database.server.programs / "psql", "-X", "-q", "-A", "-t", database.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"SET application_name = 'the old app'; BEGIN; LOCK {lock}; SELECT pg_backend_pid();\n")
    process.stdin.flush()
    holder = Holder(process, int(process.stdout.readline()))
    try:
        yield holder
    finally:
        holder.release()


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tries, and a short pause between them."""
    monkeypatch.setattr(execute, "TRIES", 2)
    monkeypatch.setattr(execute, "LONGEST_PAUSE", 0.01)


@pytest.mark.usefixtures("impatient")
class TestLockThatIsNotToBeHad:
    @pytest.mark.parametrize("way", ["shadow", "alembic"])
    def test_it_ends_with_3_says_who_has_it_and_changes_nothing(self, database: Witness, way: str) -> None:
        before = database.dump()
        with holding(database, "TABLE users IN ACCESS SHARE MODE") as holder:
            if way == "shadow":
                done = migrate(database.url, "retire")
            else:
                done = alembic(database.url, "upgrade", "0002_retire")
            assert (done.code, f"pid {holder.pid}" in done.text) == (3, True), done.text
            assert "the old app" in done.text
            assert database.dump() == before

    def test_one_that_only_a_later_revision_needs_ends_so_too(self, database: Witness) -> None:
        before = database.dump()
        with holding(database, "TABLE sessions IN ACCESS SHARE MODE") as holder:
            done = migrate(database.url, "retire")
            assert (done.code, f"pid {holder.pid}" in done.text) == (3, True), done.text
            assert "othing was changed" not in done.text or database.dump() == before

    def test_what_was_done_before_it_is_found_by_the_next_run(self, database: Witness) -> None:
        with holding(database, "TABLE sessions IN ACCESS SHARE MODE"):
            assert migrate(database.url, "retire").code == 3
        assert migrate(database.url, "retire").code == 0

    def test_undo_ends_with_3_too(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        before = database.dump()
        with holding(database, "TABLE users IN ACCESS SHARE MODE") as holder:
            done = alembic(database.url, "downgrade", "-1")
            assert (done.code, f"pid {holder.pid}" in done.text) == (3, True), done.text
            assert database.dump() == before


class TestLockThatComesFree:
    def test_it_tries_again_and_succeeds(self, database: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
        with holding(database, "TABLE users IN ACCESS SHARE MODE") as holder:

            def release(_least: float, _most: float) -> float:
                holder.release()
                return 0.0

            monkeypatch.setattr(execute.random, "uniform", release)
            done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert f"waiting for a lock held by pid {holder.pid}" in done.text
        assert database.value("SELECT count(*) FROM shadow_cutover") == 2

    def test_readers_do_not_queue_behind_it_for_longer_than_the_timeout(self, database: Witness) -> None:
        """While it waits for its lock, a reader gets through: lock_timeout ends the wait long before the reader's."""
        with holding(database, "TABLE users IN ACCESS SHARE MODE"):
            runner = start(database, "migrate", "--to", "adopt", "--yes")
            until(lambda: waiting(database) > 0)
            database.run("SET statement_timeout = '5s'; SELECT count(*) FROM users")
        assert ended(runner).code == 0


class TestTwoRunners:
    @pytest.mark.parametrize("second", ["shadow", "alembic"])
    def test_one_works_and_the_other_ends_with_3(self, database: Witness, second: str) -> None:
        with holding(database, "TABLE users IN ACCESS SHARE MODE"):
            runner = start(database, "migrate", "--to", "retire", "--yes")
            until(lambda: waiting(database) > 0)
            if second == "shadow":
                other = migrate(database.url, "retire")
            else:
                other = alembic(database.url, "upgrade", "0002_retire")
            assert (other.code, "nother cutover is running" in other.text) == (3, True), other.text
        first = ended(runner)
        assert first.code == 0, first.text
        actions = database.ask("SELECT action FROM shadow_cutover ORDER BY id")
        assert [row["action"] for row in actions] == ["adopt", "retire"]


def start(database: Witness, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from app.cli import main; main()", *arguments],
        cwd=PROJECT, env={"DATABASE_URL": database.url, "LOGNAME": "tester"}, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(runner: subprocess.Popen[str]) -> Outcome:
    out, err = runner.communicate(timeout=DEADLINE)
    return Outcome(runner.returncode, out, err)


def waiting(database: Witness) -> int:
    """Return how many of the database's sessions wait for a lock."""
    count: int = database.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return count
