"""What the demonstration is made of: its record, its database, its processes.

The promise: the database is asked with psql, and every process that is started here ends here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / ".data"
FIXTURES = ROOT / "tests" / "fixtures"
GONE = frozenset({"sessions", "accounts", "verifications", "jwks", "two_factors"})
"""Better Auth's own tables in the sample database, all but users."""
FOREIGN_KEYS = """
    SELECT conrelid::regclass::text AS "table", conname AS name, pg_get_constraintdef(oid, true) AS definition,
           convalidated AS valid
    FROM pg_constraint WHERE contype = 'f' AND confrelid = 'public.users'::regclass"""


class Stopped(Exception):
    """The demonstration cannot go on; the message says why and where to look."""


class Unmet(Exception):
    """Something that should hold does not; the message says what was seen instead."""


@dataclass
class Record:
    """What held and what did not, said as it happens and once more at the end."""

    console: Console
    lines: list[tuple[bool, str, str]] = field(default_factory=list)

    def part(self, title: str) -> None:
        """Begin a part."""
        self.console.print()
        self.console.rule(Text(title, style="bold"), align="left")

    def say(self, held: bool, what: str, seen: str) -> None:
        """Keep and print one line."""
        self.lines.append((held, what, seen))
        mark = ("✓ ", "green") if held else ("✗ ", "bold red")
        self.console.print(Text.assemble(mark, what, (f"  {seen}", "dim")), soft_wrap=True)

    def step(self, what: str, check: Callable[[], str]) -> None:
        """Make a check, which returns what it saw."""
        try:
            self.say(True, what, check())
        except (Unmet, httpx.HTTPError) as error:
            self.say(False, what, str(error) or type(error).__name__)
        except (LookupError, TypeError, ValueError) as error:
            self.say(False, what, f"an answer of another shape: {error!r}")

    def table(self) -> bool:
        """Print what held; return whether all of it did."""
        table = Table("", "what", "seen", title="What held", title_justify="left", title_style="bold")
        for held, what, seen in self.lines:
            table.add_row(Text("✓", "green") if held else Text("✗", "bold red"), Text(what), Text(seen, "dim"))
        self.console.print()
        self.console.print(table)
        return all(held for held, _, _ in self.lines)


@dataclass(frozen=True)
class Database:
    """The database `demo`, asked with psql: independent of every driver and every line of the project."""

    programs: Path
    server: str

    @property
    def url(self) -> str:
        """The address of `demo`."""
        parts = urlsplit(self.server)
        return f"postgresql://{parts.netloc}/demo?{parts.query}"

    def psql(self, url: str, *arguments: str) -> str:
        """Return what psql prints; the first error ends it."""
        command = [str(self.programs / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PGTZ": "UTC"})
        if done.returncode:
            raise Stopped(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def load(self, dump: Path) -> None:
        """Make `demo` anew, from a dump."""
        make = "CREATE DATABASE demo TEMPLATE template0 ENCODING 'UTF8'"
        self.psql(self.server, "-c", "DROP DATABASE IF EXISTS demo WITH (FORCE)", "-c", make)
        self.psql(self.url, "-f", str(dump))
        self.psql(self.url, "-c", "ANALYZE")

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        text = self.psql(self.url, "-c", f"SELECT coalesce(json_agg(r), '[]') FROM ({query}) r")  # noqa: S608
        rows: list[dict[str, Any]] = json.loads(text)
        return rows

    def users(self) -> dict[str, dict[str, Any]]:
        """Return every row of users, whole, by id."""
        return {row["id"]: row for row in self.ask("SELECT * FROM public.users")}

    def foreign_keys(self) -> set[tuple[str, ...]]:
        """Return the foreign keys to users, but for those of the tables that go."""
        return {tuple(map(str, row.values())) for row in self.ask(FOREIGN_KEYS) if row["table"] not in GONE}


class Processes:
    """What was started here, and is ended here."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._started: list[tuple[str, subprocess.Popen[str]]] = []

    def start(self, name: str, command: Sequence[str], **environment: str) -> subprocess.Popen[str]:
        """Start a process in a group of its own, so that Ctrl-C reaches this one alone, which then ends the others."""
        with log_of(name).open("w") as log:
            process = subprocess.Popen(
                command, cwd=DATA, env={**self._environment, **environment}, start_new_session=True, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE if name == "dev_idp" else log, stderr=log,
            )  # fmt: skip
        self._started.append((name, process))
        return process

    def must_run(self) -> None:
        """Raise Stopped if one has ended."""
        for name, process in self._started:
            if process.poll() is not None:
                lines = log_of(name).read_text().splitlines()[-15:]
                raise Stopped(f"{name} ended with exit code {process.returncode}:\n  " + "\n  ".join(lines))

    def stop(self) -> None:
        """End them, the last first."""
        while self._started:
            _, process = self._started.pop()
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its own group: it leads one since it was started
                process.wait()


def log_of(name: str) -> Path:
    """Return where a process logs to."""
    return DATA / f"{name}.log"
