"""Killed at any moment: the database is as before a revision or as after it, and running it again finishes.

The runner by SIGKILL at its statements, in the middle of whatever it does while others work, and undo likewise; its
connection from the server's side; the server process that serves it, which takes the whole server down.

`SHADOW_TEST_FAULTS=all` kills at every statement in every phase. Without it a runner is killed at the last statement of
each step and around each COMMIT, and what costs more or tells less is done at some of them.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from unittest import mock

import pytest

from app import cli
from app.cutover.steps import Step
from tests.cutover.commands import ACCEPTED, shadow
from tests.cutover.crowd import PEOPLE, crowd
from tests.cutover.layouts import Layout, each, on_the_newest_server
from tests.cutover.runners import Mark, Stable
from tests.cutover.test_locks import until
from tests.cutover.witness import OURS, Portrait, Witness, apart_from_names_of_partitions
from tests.postgres import Server, SystemServer

pytestmark = on_the_newest_server

EVERY = os.environ.get("SHADOW_TEST_FAULTS") == "all"
KILLS = 30 if EVERY else 6
RUNNERS = "datname = current_database() AND application_name = 'shadow'"
COMMITS = ("COMMIT", "committed")


@dataclass(frozen=True)
class Phase:
    """What is done between two states of the database."""

    name: str
    arguments: tuple[str, ...]
    before: str | None
    after: str | None
    every: int = 1
    """How many steps there are to one at which it is killed."""


PHASES = {
    phase.name: phase
    for phase in (
        Phase("adopt", ("migrate", "--yes", "--to", "adopt"), None, "0001_adopt"),
        Phase("retire", ("migrate", "--yes", "--to", "retire"), "0001_adopt", "0002_retire"),
        Phase("drop", ("migrate", "--yes", "--to", "drop", "--accept", ACCEPTED), "0002_retire", "0003_drop"),
        # each of its statements is a step of its own
        Phase("undo of retire", ("undo", "--yes"), "0002_retire", "0001_adopt", 4),
        Phase("undo of adopt", ("undo", "--yes"), "0001_adopt", None),
    )
}


GOING = {"retire": (), "undo of retire": ("--accept", "undo-loses-rows")}
"""People delete their accounts meanwhile, and what was kept of them has nobody to come back to."""
CUT = PHASES if EVERY else ("retire",)
"""The phases in which the connection is cut at each step."""
SERVED = [
    *(("adopt", at) for at in (range(5) if EVERY else (3,))),
    *(("retire", at) for at in (range(16) if EVERY else (2, 7, 14))),
    *(("undo of retire", at) for at in (range(26) if EVERY else (9,))),
    *(("drop", at) for at in (range(8) if EVERY else (3,))),
]
"""The steps at which the server process is killed."""
REWRITING = [*PHASES.values()] if EVERY else [
    replace(PHASES["retire"], every=4), replace(PHASES["undo of retire"], every=8)
]  # fmt: skip
"""The phases that are others where ids are not text yet; every table that refers to users makes steps of its own."""


@dataclass
class Course:
    """A layout's way there and back when nothing disturbs it: the database in each state, and the marks between."""

    states: dict[str | None, Witness]
    portraits: dict[str | None, Portrait]
    marks: dict[str, tuple[Mark, ...]]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def copy(self, state: str | None) -> Witness:
        """Return a new database in a state."""
        whole = self.states[state]
        name = f"{whole.name}_{next(self._numbers)}"
        whole.server.execute(f"CREATE DATABASE {name} TEMPLATE {whole.name}")
        return replace(whole, url=whole.server.address(name))


def drop(*databases: Witness) -> None:
    for database in databases:
        database.server.drop_database(database.url)


@pytest.fixture(scope="module")
def stable() -> Iterator[Stable]:
    stable = Stable()
    yield stable
    stable.close()


def go(layout: Layout, server: Server, stable: Stable) -> Course:
    original = Witness(server, server.make_database(layout.name), layout.users)
    course = Course({None: original}, {None: original.portrait()}, {})
    for phase in PHASES.values():
        database = course.copy(phase.before)
        run = stable.run(*phase.arguments, DATABASE_URL=database.url)
        assert run.code == 0, run.text
        course.marks[phase.name] = run.marks
        moved = phase.after in ("0002_retire", "0003_drop")
        there = replace(database, users=layout.target if moved else layout.users)
        if phase.after in course.states:
            assert is_like(there, course, phase.after)
            drop(there)
        else:
            course.states[phase.after], course.portraits[phase.after] = there, there.portrait()
    return course


@pytest.fixture(scope="module")
def courses() -> Iterator[dict[str, Course]]:
    """Those that were gone, by layout."""
    found: dict[str, Course] = {}
    yield found
    for course in found.values():
        drop(*course.states.values())


@pytest.fixture
def course(layout: Layout, server: Server, stable: Stable, courses: dict[str, Course]) -> Course:
    if layout.name not in courses:
        courses[layout.name] = go(layout, server, stable)
    return courses[layout.name]


def chosen(marks: tuple[Mark, ...], every: int) -> list[int]:
    """Return at which marks to kill: all, or the last of each step and those around a COMMIT."""
    if EVERY:
        return [*range(len(marks))]
    last = {mark.step: number for number, mark in enumerate(marks) if mark.sql not in COMMITS}
    commits = {number for number, mark in enumerate(marks) if mark.sql in COMMITS}
    return sorted({*[*last.values()][::every], *commits})


def revision_of(database: Witness) -> str | None:
    if "public.shadow_alembic_version" not in database.tables():
        return None
    rows = database.ask("SELECT version_num FROM shadow_alembic_version")
    return rows[0]["version_num"] if rows else None


def is_left(database: Witness) -> bool:
    """Whether no session of the runner's is there any more."""
    return bool(database.value(f"SELECT count(*) FROM pg_stat_activity WHERE {RUNNERS}") == 0)


def is_like(database: Witness, course: Course, state: str | None) -> bool:
    there = replace(course.states[state], url=database.url).portrait()
    return apart_from_names_of_partitions(there) == apart_from_names_of_partitions(course.portraits[state])


class KilledAtAStatement:
    """What holds in each phase, whatever the layout."""

    def test_is_before_or_after_and_the_next_run_finishes(self, course: Course, stable: Stable, phase: Phase) -> None:
        database = course.copy(phase.before)
        before = database.dump(*OURS)
        for at in chosen(course.marks[phase.name], phase.every):
            mark = course.marks[phase.name][at]
            run = stable.run(*phase.arguments, at=at, DATABASE_URL=database.url)
            assert (run.code, len(run.marks)) == (-signal.SIGKILL, at), (mark, run.text)
            until(partial(is_left, database))
            if database.dump(*OURS) == before:
                assert revision_of(database) == phase.before, mark
                continue
            self.is_after(database, course, phase, mark)
            drop(database)
            database = course.copy(phase.before)
        run = stable.run(*phase.arguments, DATABASE_URL=database.url)
        assert run.code == 0, run.text
        assert is_like(database, course, phase.after)
        drop(database)

    @staticmethod
    def is_after(database: Witness, course: Course, phase: Phase, mark: Mark) -> None:
        """What is killed after its COMMIT has happened: nothing is left to do, and what follows finds what it needs."""
        assert (revision_of(database), is_like(database, course, phase.after)) == (phase.after, True), mark
        if phase.name != "undo of retire":
            again = shadow(database.url, *phase.arguments)
            assert (again.code, "othing to" in again.text) == (0, True), (mark, again)
        back = phase.name.startswith("undo")
        for following in PHASES.values():
            # undo is undone by going there again, and the way there by undo
            if following.before == phase.after and following.name.startswith("undo") != back:
                done = shadow(database.url, *following.arguments)
                assert done.code == 0, (mark, done.text)
                assert is_like(database, course, following.after), mark


@each("kysely_singular")
@pytest.mark.parametrize("phase", PHASES.values(), ids=PHASES)
class TestRunnerKilledAtAStatement(KilledAtAStatement):
    pass


@each("uuid_kysely")
@pytest.mark.parametrize("phase", REWRITING, ids=lambda phase: phase.name)
class TestRunnerKilledWhileIdsAreWrittenAnew(KilledAtAStatement):
    pass


@each("kysely_singular")
class TestRunnerKilledAtAnyMomentUnderLoad:
    def test_nothing_is_lost_that_was_confirmed(self, course: Course, stable: Stable) -> None:
        self.kill_there_and_back(course, stable)

    @staticmethod
    def kill_there_and_back(course: Course, stable: Stable) -> None:
        """Back and forth between adopt and retire, killed on the way as often as not, while people come and go."""
        database = course.copy("0001_adopt")
        schemas = {state: portrait.schema for state, portrait in course.portraits.items()}
        with crowd(database.url) as people:
            until(lambda: len(people.accounts) > PEOPLE)
            for _ in range(KILLS):
                phase = PHASES["retire" if revision_of(database) == "0001_adopt" else "undo of retire"]
                pid = stable.start(*phase.arguments, *GOING[phase.name], DATABASE_URL=database.url)
                time.sleep(random.uniform(0.2, 0.8))
                os.kill(pid, signal.SIGKILL)
                run = stable.end()
                assert run.code in (0, -signal.SIGKILL), run.text
                until(partial(is_left, database))
                state = revision_of(database)
                assert replace(course.states[state], url=database.url).schema() == schemas[state]
            for phase in (PHASES["retire"], PHASES["undo of retire"]):
                done = shadow(database.url, *phase.arguments, *GOING[phase.name])
                assert done.code == 0, done.text
        assert (people.missing(database), people.surprises) == ([], [])
        assert len(people.accounts) > 50
        drop(database)


@contextmanager
def interrupted(at: int, strike: Callable[[], object]) -> Iterator[list[str]]:
    """Let something happen when the run is at a step, counted from 0; give the titles of the steps it came to."""
    begun: list[str] = []
    observe = cli._observe

    def observed(step: Step, seconds: float | None) -> None:
        if seconds is None:
            begun.append(step.title)
            if len(begun) == at + 1:
                strike()
        observe(step, seconds)

    with mock.patch.object(cli, "_observe", observed):
        yield begun


@each("kysely_singular")
@pytest.mark.parametrize("phase", [PHASES[name] for name in CUT], ids=CUT)
class TestConnectionCutAtAStep:
    def test_is_before_and_the_next_run_finishes(self, course: Course, phase: Phase) -> None:
        database = course.copy(phase.before)
        before = database.dump(*OURS)

        def cut() -> None:
            pid = database.value(f"SELECT pid FROM pg_stat_activity WHERE {RUNNERS} AND state = 'idle in transaction'")
            database.run(f"SELECT pg_terminate_backend({pid})")

        for at in range(0, len({mark.step for mark in course.marks[phase.name]} - {""}), 1 if EVERY else 3):
            with interrupted(at, cut) as begun:
                done = shadow(database.url, *phase.arguments)
            assert (done.code, len(begun), "connection" in done.text) == (1, at + 1, True), (begun, done.text)
            until(partial(is_left, database))
            assert (revision_of(database), database.dump(*OURS) == before) == (phase.before, True), begun
        done = shadow(database.url, *phase.arguments)
        assert done.code == 0, done.text
        assert is_like(database, course, phase.after)
        drop(database)


@each("kysely_singular")
class TestConnectionThatHoldsTheAdvisoryLockCut:
    def test_the_run_finishes_or_is_before(self, course: Course) -> None:
        phase = PHASES["retire"]
        database = course.copy(phase.before)

        def cut() -> None:
            lock = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database"
            pid = database.value(f"{lock} WHERE datname = current_database())")
            database.run(f"SELECT pg_terminate_backend({pid})")

        with interrupted(4, cut):
            done = shadow(database.url, *phase.arguments)
        assert done.code in (0, 1), done.text
        assert is_like(database, course, phase.after if done.code == 0 else phase.before)
        assert shadow(database.url, *phase.arguments).code == 0
        assert is_like(database, course, phase.after)
        drop(database)


class MortalServer(SystemServer):
    """A server of this module's own."""

    def restart(self, mode: str) -> None:
        """Stop it, `fast` as an operator would or `immediate` as a crash does, and start it again."""
        self._run("pg_ctl", "-w", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-m", mode, "restart")


@pytest.fixture(scope="module")
def mortal(server: Server) -> Iterator[tuple[MortalServer, Server]]:
    own = MortalServer(server.programs)
    started = own.start()
    # the tests' servers are told to forget the last moments when they crash
    started.execute("ALTER ROLE postgres SET synchronous_commit = on")
    yield own, started
    own.stop()


def is_up(database: Witness) -> bool:
    try:
        return bool(database.value("SELECT NOT pg_is_in_recovery()"))
    except AssertionError:  # psql's complaint that nobody answers
        return False


@each("kysely_singular")
class TestServerProcessKilled:
    """SIGKILL to the process that serves the runner: the server ends all others too, and recovers from its log."""

    @pytest.mark.parametrize(("phase", "at"), SERVED, ids=[f"{phase}-{at}" for phase, at in SERVED])
    def test_is_before_and_the_next_run_finishes(
        self, course: Course, mortal: tuple[MortalServer, Server], phase: str, at: int
    ) -> None:
        self.strike(course, mortal[1], PHASES[phase], at, lambda pid: os.kill(pid, signal.SIGKILL))

    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    def test_a_restart_of_the_whole_server_is_no_different(
        self, course: Course, mortal: tuple[MortalServer, Server], mode: str
    ) -> None:
        self.strike(course, mortal[1], PHASES["retire"], 9, lambda _: mortal[0].restart(mode))

    def test_a_restart_between_two_revisions_leaves_the_first(
        self, course: Course, mortal: tuple[MortalServer, Server]
    ) -> None:
        first_of_retire = len({mark.step for mark in course.marks["adopt"]} - {""})
        both = replace(PHASES["retire"], before=None)
        self.strike(course, mortal[1], both, first_of_retire, lambda _: mortal[0].restart("fast"), "0001_adopt")

    @staticmethod
    def strike(
        course: Course, server: Server, phase: Phase, at: int, strike: Callable[[int], object], state: str | None = None
    ) -> None:
        database = replace(course.states[phase.before], server=server, url=server.make_database("kysely_singular"))
        for earlier in PHASES.values():
            if revision_of(database) != phase.before and earlier.before == revision_of(database):
                assert shadow(database.url, *earlier.arguments).code == 0
        expected = state or phase.before

        def struck() -> None:
            strike(database.value(f"SELECT pid FROM pg_stat_activity WHERE {RUNNERS} AND state LIKE 'idle in%'"))

        with interrupted(at, struck) as begun:
            done = shadow(database.url, *phase.arguments)
        assert (done.code, len(begun)) == (1, at + 1), (begun, done.text)
        until(partial(is_up, database))
        assert (revision_of(database), is_like(database, course, expected)) == (expected, True), begun
        done = shadow(database.url, *phase.arguments)
        assert done.code == 0, done.text
        assert is_like(database, course, phase.after)
        drop(database)
