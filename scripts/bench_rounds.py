"""What the benchmark measures: the cutover and the plain way in turn, on equal copies; and ids that become text.

The promise: what is measured is what clients saw, over connections of their own; nothing is left out of the longest
wait.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from scripts.bench_database import AUTHER, UUID_IDS, BenchmarkFailed, Layout, Server, sizes
from scripts.bench_load import Load, Waits, load

REVISIONS = ("adopt", "retire", "drop")
PLAIN = (
    *(f"DROP TABLE IF EXISTS {table} CASCADE" for table in (
        "two_factors", "jwks", "verifications", "accounts", "sessions",
    )),
    *(f"ALTER TABLE users DROP COLUMN IF EXISTS {column}" for column in (
        "status", "deactivated_at", "deactivated_by", "deactivated_reason", "failed_login_attempts", "locked_until",
        "role_slugs", "two_factor_enabled",
    )),
)  # fmt: skip
"""The migration that Drizzle generates for the same change."""
CALLS = 5
"""How often `shadow migrate` is called at most: where no lock was to be had, a person tries again."""
LOCKED = 3
"""Its exit code then."""
_STEP = re.compile(r"^ *✓ (.+) ([\d,]+) ms$", re.MULTILINE)
_TRY = "waiting for a lock"


@dataclass(frozen=True, slots=True)
class Part:
    """What was seen while one thing ran."""

    name: str
    """`idle`, `adopt`, `retire`, `drop` or `plain`."""
    seconds: float
    """How long it ran."""
    reads: Waits
    writes: Waits
    tries: int = 1
    """How often it began."""
    steps: tuple[tuple[str, float], ...] = ()
    """What it said it did, and for how many seconds; those of a try that was rolled back too."""


@dataclass(frozen=True, slots=True)
class Told:
    """A step of which the plan says for how long it shuts readers out."""

    title: str
    seconds: float
    rewritten: int
    """Rows that it writes anew."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The cutover and the plain way at one size."""

    users: int
    sizes: Mapping[str, int]
    ours: tuple[tuple[Part, ...], ...]
    """A round each: idle, adopt, retire, drop."""
    plain: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Ids that became text: what the plan had said, and what was seen."""

    users: int
    sizes: Mapping[str, int]
    rows: int
    """Rows that were written anew."""
    predicted: float
    """Seconds that readers would be shut out."""
    measured: float
    """Seconds that the reader who waited longest did wait."""
    steps: tuple[tuple[str, float, float], ...]
    """Title, seconds predicted, seconds measured."""
    part: Part


async def compare(
    server: Server, template: str, users: int, rounds: int, long: float, say: Callable[[str], None]
) -> Comparison:
    """Measure the cutover and the plain way in turn, each on a copy of a database of Auther's layout.

    Args:
        server: where the template is.
        template: the database that is copied.
        users: how many it has.
        rounds: how often.
        long: seconds that the transaction in front of them lasts.
        say: called with what is being done.
    """
    ours, plain = [], []
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}: the cutover")
        with server.copy(template) as database:
            ours.append(tuple(await _cut_over(server, database, AUTHER, long, REVISIONS)))
        say(f"round {number} of {rounds}: the plain way")
        with server.copy(template) as database:
            plain.append(await _plainly(server, database, long))
    return Comparison(users, sizes(server, template), tuple(ours), tuple(plain))


async def rewrite(server: Server, template: str, users: int, long: float) -> Rewrite:
    """Measure how long readers are shut out while ids become text, on a copy of a database with uuid ids."""
    with server.copy(template) as database:
        told = await _told(server, database)
        _, _, part = await _cut_over(server, database, UUID_IDS, long, ("adopt", "retire"))
    taken = dict(part.steps)
    return Rewrite(
        users,
        sizes(server, template),
        rows=sum(step.rewritten for step in told),
        predicted=sum(step.seconds for step in told),
        measured=part.reads.longest,
        steps=tuple((step.title, step.seconds, taken.get(step.title, 0.0)) for step in told),
        part=part,
    )


async def _cut_over(server: Server, database: str, layout: Layout, long: float, to: Sequence[str]) -> list[Part]:
    """Run revisions one after the other under load, the load alone first."""
    async with load(server.address(database), layout, long) as seen:
        seen.taken()
        started = time.perf_counter()
        await asyncio.sleep(long)
        parts = [Part("idle", time.perf_counter() - started, *seen.taken())]
        for revision in to:
            parts.append(await _migrate(server, database, revision, seen))
    return parts


async def _migrate(server: Server, database: str, revision: str, seen: Load) -> Part:
    """Run `shadow migrate` until it has found its lock.

    Raises:
        BenchmarkFailed: it ended in another way.
    """
    accepted = ("--accept", "identities-not-exported") if revision == "drop" else ()
    tries, started = 0, time.perf_counter()
    for _ in range(CALLS):
        code, out, err = await _shadow(server.address(database), "migrate", "--to", revision, "--yes", *accepted)
        tries += 1 + err.count(_TRY)
        if code != LOCKED:
            break
    if code:
        raise BenchmarkFailed(f"shadow migrate --to {revision} ended with {code}:\n{out[-2000:]}\n{err[-2000:]}")
    took = time.perf_counter() - started
    steps = tuple((title, int(ms.replace(",", "")) / 1000) for title, ms in _STEP.findall(out))
    return Part(revision, took, *seen.taken(), tries, steps)


async def _plainly(server: Server, database: str, long: float) -> Part:
    """Run the plain way under load, in one transaction that waits for as long as it must."""
    url = server.address(database)
    async with load(url, AUTHER, long) as seen:
        connection = await asyncpg.connect(url)
        try:
            seen.taken()
            started = time.perf_counter()
            async with connection.transaction():
                for statement in PLAIN:
                    await connection.execute(statement)
            took = time.perf_counter() - started
        finally:
            await connection.close()
        # those who waited are answered only now
        await asyncio.sleep(0.5)
        return Part("plain", took, *seen.taken())


async def _told(server: Server, database: str) -> list[Told]:
    """Return the steps of the plan that are said to shut readers out.

    Raises:
        BenchmarkFailed: the plan is refused.
    """
    code, out, err = await _shadow(server.address(database), "plan", "--to", "retire", "--format", "json")
    if code:
        raise BenchmarkFailed(f"shadow plan ended with {code}:\n{out[-2000:]}\n{err[-2000:]}")
    steps = [step for revision in json.loads(out)["revisions"] for step in revision["steps"]]
    # what is written anew is told with its bytes, what is only looked at with its rows alone
    return [
        Told(step["title"], step["seconds"], step["rows"] if step["bytes"] else 0)
        for step in steps
        if step["seconds"] is not None
    ]


async def _shadow(url: str, *arguments: str) -> tuple[int, str, str]:
    """Return how the command ended, and what it said on stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("shadow")), *arguments,
        # so wide that no line of what it says is wrapped
        env={**os.environ, "DATABASE_URL": url, "COLUMNS": "1000"},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()
