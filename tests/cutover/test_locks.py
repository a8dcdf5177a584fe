"""Others at the same time: nobody queues behind the cutover for long, and two runners never work at once."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from app import cli
from app.cutover import execute, steps
from app.cutover.execute import Cutover
from tests.cutover.commands import alembic, migrate, shadow
from tests.cutover.runners import Stable
from tests.cutover.witness import OURS, Witness
from tests.postgres import Server

DEADLINE = 30.0
"""Seconds after which something that was waited for is not going to happen."""


TRIES = 3
"""How often a lock is not to be had before it is."""
IN_THE_WAY = """SELECT relation::regclass::text AS of, mode FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE application_name = 'shadow' AND locktype = 'relation' AND database = (
  SELECT oid FROM pg_database WHERE datname = current_database()
)"""
"""The locks on tables that the runner has or waits for."""


@dataclass
class Holder:
    """Somebody's session that has a lock and does not let go."""

    process: subprocess.Popen[str]
    pid: int

    complaints: str = ""
    """What psql complained of until it was released."""

    def say(self, statement: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{statement}\n")
        self.process.stdin.flush()

    def release(self) -> None:
        if self.process.poll() is None:
            _, self.complaints = self.process.communicate("COMMIT;\n")


@contextmanager
def holding(database: Witness, lock: str) -> Iterator[Holder]:
    """Hold a lock, `TABLE users IN ACCESS SHARE MODE` say, until told to release it."""
    process = subprocess.Popen(
        [database.server.programs / "psql", "-X", "-q", "-A", "-t", database.url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
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


def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Hear of each statement of `shadow` that fails: it, and the lock_timeout that was in force."""
    failed: list[tuple[str, str]] = []
    made = cli._cutover

    def make(*arguments: Any) -> Cutover:
        cutover = made(*arguments)
        run, connection = cutover.execute, cutover.connection
        assert connection is not None

        def execute(sql: str) -> object:
            timeout = connection.exec_driver_sql("SHOW lock_timeout").scalar_one()
            try:
                return run(sql)
            except DBAPIError:
                failed.append((sql, timeout))
                raise

        cutover.execute = execute
        return cutover

    monkeypatch.setattr(cli, "_cutover", make)
    return failed


def until(happened: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def stable() -> Iterator[Stable]:
    stable = Stable()
    yield stable
    stable.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tries, a short pause between them, and no long wait for the lock that keeps nobody waiting."""
    monkeypatch.setattr(execute, "TRIES", 2)
    monkeypatch.setattr(steps, "LONG_LOCK_TIMEOUT_MS", 200)
    monkeypatch.setattr(execute, "LONGEST_PAUSE", 0.01)


@pytest.fixture
def adopted(database: Witness) -> Witness:
    """A database that has adopt behind it."""
    assert migrate(database.url, "adopt").code == 0
    return database


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

    @pytest.mark.parametrize(
        "lock",
        [
            "TABLE users IN ACCESS SHARE MODE",
            "TABLE users IN ROW EXCLUSIVE MODE",
            "TABLE sessions IN ACCESS SHARE MODE",
            "TABLE two_factors IN SHARE UPDATE EXCLUSIVE MODE",
        ],
    )
    def test_retire_changes_nothing_whoever_has_it(self, adopted: Witness, lock: str) -> None:
        """A reader, a writer, a reader of a table that goes, a vacuum."""
        before = adopted.dump(*OURS)
        with holding(adopted, lock) as holder:
            done = migrate(adopted.url, "retire")
            assert (done.code, f"pid {holder.pid}" in done.text) == (3, True), done.text
        assert adopted.dump(*OURS) == before

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


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestLockOnATableOfTheAppThatIsNotToBeHad:
    @pytest.mark.parametrize("table", ["comment", "visit_2025"])
    def test_it_counts_too_where_ids_are_written_anew(
        self, server: Server, make_database: Callable[[str | None], str], table: str
    ) -> None:
        database = Witness(server, make_database("uuid_kysely"))
        assert migrate(database.url, "adopt").code == 0
        before = database.dump(*OURS)
        with holding(database, f"TABLE {table} IN ACCESS SHARE MODE") as holder:
            done = migrate(database.url, "retire")
            assert (done.code, f"pid {holder.pid}" in done.text) == (3, True), done.text
        assert database.dump(*OURS) == before


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


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestAReaderOfMinutes:
    """Whoever comes after it queues behind the cutover's wait, so that wait is short, and between two there is none."""

    @pytest.mark.parametrize(
        ("to", "arguments"),
        [
            (None, ("migrate", "--yes", "--to", "adopt")),
            ("adopt", ("migrate", "--yes", "--to", "retire")),
            ("retire", ("undo", "--yes")),
        ],
        ids=["adopt", "retire", "undo"],
    )
    def test_nobody_queues_behind_the_cutover_for_longer_than_100_ms(
        self, database: Witness, to: str | None, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if to is not None:
            assert migrate(database.url, to).code == 0
        waits = heard(monkeypatch)
        in_the_way: list[list[dict[str, str]]] = []
        with holding(database, "TABLE users IN ACCESS SHARE MODE") as holder:

            def pause(_least: float, _most: float) -> float:
                in_the_way.append(database.ask(IN_THE_WAY))
                if len(in_the_way) == TRIES:
                    holder.release()
                return 0.0

            monkeypatch.setattr(execute.random, "uniform", pause)
            done = shadow(database.url, *arguments)
        assert done.code == 0, done.text
        assert in_the_way == [[]] * TRIES
        assert len(waits) == TRIES
        # what writers have waited for before is taken off
        assert all(50 <= int(timeout.removesuffix("ms")) <= 100 for _, timeout in waits), waits


@contextmanager
def reading(database: Witness, query: str) -> Iterator[None]:
    """Let an app read all the time, some at once, until the end of the block; that what it reads is gone is its own
    affair."""
    stopped = threading.Event()

    async def read() -> None:
        connection = await asyncpg.connect(database.url, statement_cache_size=0)
        while not stopped.is_set():
            with suppress(asyncpg.UndefinedTableError):
                await connection.fetch(query)
        await connection.close()

    async def read_all() -> None:
        await asyncio.gather(*(read() for _ in range(6)))

    thread = threading.Thread(target=lambda: asyncio.run(read_all()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestReadersThroughAView:
    """They have the view and want users. Who has users already, and wants the view, waits for them and they for him."""

    @pytest.mark.parametrize(
        ("fixture", "view", "arguments"),
        [
            ("kysely_singular", None, ()),
            ("kysely_singular", 'CREATE VIEW seen AS SELECT id, role FROM "user"', ("--release", "public.seen")),
            ("uuid_kysely", 'CREATE VIEW seen AS SELECT id, name FROM "user"', ()),
        ],
        ids=["of the server, beside the old app", "of the app's own, released", "of the app's own, that steps aside"],
    )
    def test_never_wait_for_the_cutover_while_it_waits_for_them(
        self,
        server: Server,
        make_database: Callable[[str | None], str],
        fixture: str,
        view: str | None,
        arguments: tuple[str, ...],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        database = Witness(server, make_database(fixture))
        database.run(view or "")
        assert migrate(database.url, "adopt").code == 0
        waits = heard(monkeypatch)
        with reading(database, f"SELECT * FROM {'seen' if view else 'users'}"):
            done = migrate(database.url, "retire", *arguments)
        assert [sql for sql, _ in waits if sql.startswith("DROP")] == []
        assert done.code == 0, done.text


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestAnAppThatTakesLocksInTheOtherOrder:
    def test_it_is_not_the_one_that_fails(self, adopted: Witness, stable: Stable) -> None:
        """It has sessions and wants users, the cutover the other way round: the cutover steps back."""
        with holding(adopted, "TABLE sessions IN ROW EXCLUSIVE MODE") as app:
            stable.start("migrate", "--to", "retire", "--yes", DATABASE_URL=adopted.url)
            until(lambda: waiting(adopted) > 0)
            app.say("UPDATE users SET name = 'by the app' WHERE id = (SELECT min(id) FROM users);")
        run = stable.end()
        assert (run.code, app.complaints) == (0, ""), run.text
        assert adopted.value("SELECT count(*) FROM users WHERE name = 'by the app'") == 1


class TestTwoRunners:
    @pytest.mark.parametrize("second", ["shadow", "alembic"])
    def test_one_works_and_the_other_ends_with_3(self, database: Witness, stable: Stable, second: str) -> None:
        with holding(database, "TABLE users IN ACCESS SHARE MODE"):
            stable.start("migrate", "--to", "retire", "--yes", DATABASE_URL=database.url)
            until(lambda: waiting(database) > 0)
            if second == "shadow":
                other = migrate(database.url, "retire")
            else:
                other = alembic(database.url, "upgrade", "0002_retire")
            assert (other.code, "nother cutover is running" in other.text) == (3, True), other.text
        first = stable.end()
        assert first.code == 0, first.text
        actions = database.ask("SELECT action FROM shadow_cutover ORDER BY id")
        assert [row["action"] for row in actions] == ["adopt", "retire"]


def waiting(database: Witness) -> int:
    """Return how many of the database's sessions wait for a lock."""
    count: int = database.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return count
