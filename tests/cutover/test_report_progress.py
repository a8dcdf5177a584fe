"""What is shown while work is done: a bar that moves on a terminal, plain lines on a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cutover.commands import PROJECT, process
from tests.cutover.layouts import on_the_newest_server
from tests.cutover.test_whole_way import SHADOW
from tests.cutover.witness import Witness
from tests.postgres import Server

pytestmark = on_the_newest_server

RETIRE = ("migrate", "--to", "retire", "--yes")
SLOW = """
CREATE FUNCTION patient() RETURNS boolean LANGUAGE sql AS 'SELECT true';
ALTER TABLE company ADD CONSTRAINT patience CHECK ("ownerId" IS NOT NULL AND patient());
CREATE OR REPLACE FUNCTION patient() RETURNS boolean LANGUAGE sql AS 'SELECT pg_sleep(0.5) IS NOT NULL'
"""
"""A constraint that is checked again for each of three rows, half a second each, when their ids have become text."""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
COUNTER = re.compile(r"^\S +[━╸╺]+ +(\d+)/(\d+) \d+:\d\d:\d\d\b")
HIDDEN, SHOWN, ERASED = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"
"""What a terminal is told: to hide its cursor, to show it, to erase a line."""


@dataclass(frozen=True)
class Shown:
    """What a terminal was sent while ids were written anew, and every line that was ever on it."""

    sent: str
    lines: list[str]

    @property
    def done(self) -> list[str]:
        """The lines that say that a step is done."""
        return [line for line in self.lines if line.startswith("✓ ")]


@pytest.fixture
def database(server: Server) -> Iterator[Witness]:
    yield (database := slow(server))
    server.drop_database(database.url)


def slow(server: Server) -> Witness:
    """Return a database with ids that are written anew, which takes its time."""
    database = Witness(server, server.make_database("uuid_kysely"))
    assert database.value("SELECT count(*) FROM company") == 3
    database.run(SLOW)
    return database


@pytest.fixture(scope="module")
def shown(server: Server) -> Iterator[Shown]:
    database = slow(server)
    code, sent = on_a_terminal(database.url, *RETIRE)
    assert code == 0, sent
    yield Shown(sent, frames(sent))
    server.drop_database(database.url)


def on_a_terminal(url: str, *arguments: str) -> tuple[int, str]:
    """Run `shadow` on a terminal of 100 columns; return its exit code and everything the terminal was sent."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "DATABASE_URL": url, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    # a runner that is no person's terminal may have said so
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        environment.pop(name, None)
    runner = subprocess.Popen(
        [sys.executable, "-c", SHADOW, *arguments], cwd=PROJECT, env=environment,
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    sent = b""
    try:
        while read := os.read(ours, 65536):
            sent += read
    except OSError:  # how Linux says that nobody has the other end open any more
        pass
    os.close(ours)
    return runner.wait(timeout=60), sent.decode()


def frames(sent: str) -> list[str]:
    """Return every line that was ever on the terminal, without what moves its cursor and colours it."""
    return [line.strip() for line in re.split(r"[\r\n]+", ESCAPE.sub("", sent)) if line.strip()]


def slowest(lines: list[str]) -> tuple[str, int]:
    """Return the title of the step that took longest, and its milliseconds."""
    found = [re.fullmatch(r"✓ (.+) ([\d,]+) ms", line) for line in lines]
    return max(((each[1], int(each[2].replace(",", ""))) for each in found if each), key=lambda each: each[1])


class TestOnATerminal:
    def test_a_bar_says_which_of_how_many_steps_runs_and_for_how_long(self, shown: Shown) -> None:
        title, milliseconds = slowest(shown.done)
        assert milliseconds >= 1500
        done = next(number for number, line in enumerate(shown.done) if f" {title} " in line)
        bar = re.compile(rf"(\S) [━╸╺]+ +{done}/(\d+) (\d+:\d\d:\d\d) {re.escape(title)}")
        found = [each for line in shown.lines if (each := bar.fullmatch(line))]
        spinners, totals, clocks = ({*values} for values in zip(*(each.groups() for each in found), strict=True))
        assert len(spinners) > 1
        assert len(clocks) > 1
        assert len(totals) == 1

    def test_the_count_goes_up_and_never_past_the_number_of_steps(self, shown: Shown) -> None:
        counted = [(int(each[1]), int(each[2])) for line in shown.lines if (each := COUNTER.search(line))]
        counts = [count for count, _ in counted]
        assert counts == sorted(counts)
        assert (counts[0], len({*counts}) > 3) == (0, True)
        (total,) = {total for _, total in counted}
        assert counts[-1] <= len(shown.done) <= total

    def test_each_step_that_is_done_stays_as_a_line_and_the_bar_goes(self, shown: Shown) -> None:
        assert len(shown.done) > 20
        assert (HIDDEN in shown.sent, ERASED in shown.sent) == (True, True)
        assert shown.sent.rindex(SHOWN) > shown.sent.rindex(HIDDEN)
        assert "━" not in shown.sent[shown.sent.rindex(ERASED) :]

    def test_reading_is_said_too(self, shown: Shown) -> None:
        assert any("Reading the catalogue" in line for line in shown.lines)


class TestOnAPipe:
    def test_the_same_steps_are_plain_lines(self, database: Witness, shown: Shown) -> None:
        # a terminal elsewhere in the environment is no reason
        outcome = process(database.url, "-c", SHADOW, *RETIRE, TERM="xterm", COLUMNS="1000")
        assert outcome.code == 0, outcome.text
        assert [text for text in (outcome.out, outcome.err) if re.search(r"[\x1b\r━]|Reading the", text)] == []
        done = [line for line in outcome.out.splitlines() if re.fullmatch(r"  ✓ .+ [\d,]+ ms", line)]
        assert len(done) == len(shown.done)
        assert slowest([line.strip() for line in done])[0] == slowest(shown.done)[0]
