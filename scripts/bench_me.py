"""How fast a warm GET /me is answered: wrk on this checkout, and in turn on another commit of it.

    one server each, one worker, a database of its own on one PostgreSQL; the token's user is known already
    a round is wrk on the one, then on the other; the next round begins with the other

The promise: an answer that is not 200 ends it, and what was made for it is gone afterwards.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from app.embedded import DATA, start
from scripts.bench_database import BenchmarkFailed, Server

ROOT = Path(__file__).resolve().parents[1]
AUDIENCE = "https://bench.example"
PATIENCE = 30.0
"""Seconds that a server may take to be ready."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One checkout and what wrk said of it."""

    name: str
    url: str
    rates: list[float] = field(default_factory=list)
    """Requests a second, of each round."""

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def running(checkout: Path, *command: str, **environment: str) -> Iterator[None]:
    """Run a program of a checkout until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout), **environment},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def answered(url: str, **headers: str) -> None:
    """Return as soon as the answer is 200.

    Raises:
        BenchmarkFailed: it is not within PATIENCE.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            httpx.get(url, headers=headers).raise_for_status()
            return
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"No answer from {url}: {error}") from None
            time.sleep(0.1)


@contextmanager
def new_database(server: Server, name: str) -> Iterator[str]:
    """Make a database, and drop it at the end of the block; return its URL."""
    server.drop(name)
    server.psql(f"CREATE DATABASE {name}")
    try:
        yield server.address(name)
    finally:
        server.drop(name)


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Check another commit out into a folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="bench")) / "checkout"
    done = subprocess.run(
        ["git", "worktree", "add", "--detach", str(folder), commit], cwd=ROOT, capture_output=True, text=True
    )  # fmt: skip
    try:
        if done.returncode:
            raise BenchmarkFailed(done.stderr.strip())
        yield folder
    finally:
        shutil.rmtree(folder.parent)
        subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)


@contextmanager
def serving(name: str, checkout: Path, database: str, issuer: str) -> Iterator[Measured]:
    """Serve /me from a checkout on a database that has just been made.

    Raises:
        BenchmarkFailed: its migrations or its server do not run.
    """
    settings = {
        "DATABASE_URL": database, "IDP_ISSUER": issuer, "IDP_AUDIENCE": AUDIENCE, "LOG_LEVEL": "warning",
    }  # fmt: skip
    migrated = subprocess.run(
        [sys.executable, "-m", "app.cli", "migrate", "--to", "drop", "--yes", "--accept", "identities-not-exported"],
        cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout), **settings}, capture_output=True, text=True,
    )  # fmt: skip
    if migrated.returncode:
        raise BenchmarkFailed(f"{name}: its migrations ended with {migrated.returncode}:\n{migrated.stderr}")
    port = free_port()
    with running(checkout, "-m", "app.cli", "serve", "--port", str(port), **settings):
        url = f"http://127.0.0.1:{port}"
        answered(f"{url}/readyz")
        yield Measured(name, f"{url}/me")


def load(url: str, token: str, seconds: int, connections: int) -> float:
    """Return how many requests a second wrk had answered.

    Raises:
        BenchmarkFailed: some answers were not 200, or wrk said something else.
    """
    said = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-H", f"Authorization: Bearer {token}", url],
        capture_output=True, text=True,
    )  # fmt: skip
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said.stdout)
    if rate is None or "Non-2xx" in said.stdout or "Socket errors" in said.stdout:
        raise BenchmarkFailed(f"wrk said:\n{said.stdout}{said.stderr}")
    return float(rate[1])


def measure(console: Console, given: argparse.Namespace) -> None:
    """Measure, and print a line for each checkout and the ratio.

    Raises:
        BenchmarkFailed: it cannot be measured.
    """
    if shutil.which("wrk") is None:
        raise BenchmarkFailed("wrk is not installed; install it, and run this again.")
    server = Server(given.server or start(DATA))
    with ExitStack() as stack:
        checkouts = {"this checkout": ROOT}
        if given.against:
            checkouts[given.against] = stack.enter_context(checked_out(given.against))
        port = free_port()
        issuer = f"http://127.0.0.1:{port}"
        stack.enter_context(running(ROOT, "scripts/dev_idp.py", "--port", str(port), "--audience", AUDIENCE))
        answered(f"{issuer}/.well-known/openid-configuration")
        token: str = httpx.post(f"{issuer}/dev/token", json={"sub": "ada"}).json()["token"]
        measured = []
        for number, (name, checkout) in enumerate(checkouts.items()):
            database = stack.enter_context(new_database(server, f"bench_me_{number}"))
            measured.append(stack.enter_context(serving(name, checkout, database, issuer)))
            answered(measured[-1].url, Authorization=f"Bearer {token}")
        for number in range(given.rounds):
            for each in measured if number % 2 == 0 else reversed(measured):
                with console.status(f"round {number + 1} of {given.rounds}: {each.name}"):
                    each.rates.append(load(each.url, token, given.seconds, given.connections))
    table = Table("GET /me, warm", "requests a second: median", "each round", box=None)
    for each in measured:
        table.add_row(each.name, f"{each.median:,.0f}", ", ".join(f"{rate:,.0f}" for rate in each.rates))
    console.print(table)
    if given.against:
        console.print(f"ratio {measured[0].median / measured[1].median:.2f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 if it was measured, 1 if something failed."""
    parser = argparse.ArgumentParser(description="Measure how fast a warm GET /me is answered, with wrk.")
    add = parser.add_argument
    add("--against", metavar="COMMIT", help="measure this commit too, in turn")
    add("--rounds", type=int, default=5, help="%(default)s")
    add("--seconds", type=int, default=6, help="of each round (%(default)s)")
    add("--connections", type=int, default=16, help="of wrk (%(default)s)")
    add("--server", metavar="URL", help="a server whose databases may be made and dropped, instead of the embedded one")
    console = Console(highlight=False)
    try:
        measure(console, parser.parse_args(arguments))
    except BenchmarkFailed as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Ended.")
        return 130
    return 0


if __name__ == "__main__":
    # so that what was made is gone then, too
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
