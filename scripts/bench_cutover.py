"""How long others wait while the cutover runs, and how long they wait for the plain way.

    python scripts/bench_cutover.py [--users 10000,1000000] [--uuid-users 1000000] [--out report.json]

    1  for each size a database in the layout of Auther's template, grown by SQL
    2  rounds, in turn on copies of it: `shadow migrate --to adopt`, `retire` and `drop`, each a process of its own; and
       the plain way, `DROP TABLE ... CASCADE` and DROP COLUMN in one transaction. Readers and writers of users go on
       all the while, and a transaction of four seconds is in front of both
    3  a database with uuid ids: how long readers are shut out while ids become text, and what the plan had said

The promise: both ways are measured in one run, on equal copies, with fsync on; the exit code is 1 where a cutover
failed, and every database that was made is dropped.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.embedded import start
from app.errors import DatabaseUnreachable
from scripts.bench_database import AUTHER, UUID_IDS, BenchmarkFailed, Server, load
from scripts.bench_rounds import REVISIONS, Comparison, Part, Rewrite, compare, rewrite

DATA = Path(__file__).resolve().parents[1] / ".data" / "bench"
ALLOWED = 0.2
"""Seconds that readers of users may be shut out."""
MANY = 100_000
"""Users from which on two rounds are enough: one takes minutes."""
WIDTH = 120
"""Columns where the output is no terminal."""
TITLES = {"idle": "nobody migrates", "adopt": "0001_adopt", "retire": "0002_retire", "drop": "0003_drop"}


def medians(parts: Sequence[Part], of: Callable[[Part], float]) -> tuple[float, float]:
    """Return the median and the longest over the rounds, in seconds."""
    values = [of(part) for part in parts]
    return statistics.median(values), max(values)


def whole(comparison: Comparison, of: Callable[[Part], float]) -> tuple[float, float]:
    """Return the median and the longest over the rounds, the three revisions of a round taken together."""
    values = [max(of(part) for part in parts if part.name in REVISIONS) for parts in comparison.ours]
    return statistics.median(values), max(values)


def waits_of_readers(part: Part) -> float:
    return part.reads.longest


def waits_of_writers(part: Part) -> float:
    return part.writes.longest


# ----------------------------------------------------------------------------------------------------------- rendering


def milliseconds(values: tuple[float, float]) -> str:
    """Return a median, and the longest behind it where it is another."""
    median, longest = (f"{value * 1000:,.0f}" for value in values)
    return f"{median} ms" if median == longest else f"{median} ms (max {longest})"


def comparison_table(comparison: Comparison) -> Table:
    """Return a table of one size: a line for each revision, for the whole, and for the plain way."""
    table = Table(
        title=f"{comparison.users:,} users, {comparison.sizes['sessions']:,} sessions, "
        f"{comparison.sizes['bytes'] / 2**20:,.0f} MB; {len(comparison.ours)} rounds, the median",
        title_justify="left",
    )
    for heading in ("", "a reader waited at most", "a writer waited at most", "it took", "tries"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, title in TITLES.items():
        parts = [part for round_ in comparison.ours for part in round_ if part.name == name]
        took = f"{statistics.median(part.seconds for part in parts):,.1f} s" if name != "idle" else ""
        tries = ", ".join(str(part.tries) for part in parts) if name != "idle" else ""
        reads, writes = medians(parts, waits_of_readers), medians(parts, waits_of_writers)
        table.add_row(
            title, milliseconds(reads), milliseconds(writes), took, tries, end_section=name in ("idle", "drop")
        )
    readers, writers = whole(comparison, waits_of_readers), whole(comparison, waits_of_writers)
    table.add_row("the cutover, whole", milliseconds(readers), milliseconds(writers), style="bold")
    plain = comparison.plain
    plain_readers, plain_writers = medians(plain, waits_of_readers), medians(plain, waits_of_writers)
    took = f"{statistics.median(part.seconds for part in plain):,.1f} s"
    table.add_row(
        "DROP TABLE ... CASCADE", milliseconds(plain_readers), milliseconds(plain_writers), took, end_section=True
    )
    table.add_row("ratio", f"{plain_readers[0] / readers[0]:,.0f}x", f"{plain_writers[0] / writers[0]:,.0f}x")
    return table


def rewrite_table(found: Rewrite) -> Table:
    """Return a table of what the plan said of ids that become text, and what was seen."""
    table = Table(title=f"uuid ids, {found.users:,} users: {found.rows:,} rows are written anew", title_justify="left")
    for heading in ("", "the plan said", "measured"):
        table.add_column(heading, justify="left" if not heading else "right")
    for title, predicted, measured in found.steps:
        table.add_row(title, f"{predicted:,.1f} s", f"{measured:,.1f} s")
    table.add_section()
    table.add_row("the longest wait of a reader", f"{found.predicted:,.1f} s", f"{found.measured:,.1f} s", style="bold")
    table.add_row("rows a second", "", f"{found.rows / found.measured:,.0f}")
    return table


def verdicts(comparisons: Sequence[Comparison], rewrites: Sequence[Rewrite]) -> Iterator[tuple[bool, str]]:
    """Return what was promised, each with whether it held."""
    for found in comparisons:
        _, longest = whole(found, waits_of_readers)
        yield (
            longest < ALLOWED,
            f"{found.users:,} users: no reader waited longer than {ALLOWED * 1000:.0f} ms ({longest * 1000:.0f} ms)",
        )
    if len(comparisons) > 1:
        few, many = comparisons[0], comparisons[-1]
        (less, _), (more, _) = whole(few, waits_of_readers), whole(many, waits_of_readers)
        yield (
            more < less + ALLOWED / 2,
            f"the readers' wait does not grow with the rows: {less * 1000:.0f} ms at {few.users:,} users, "
            f"{more * 1000:.0f} ms at {many.users:,}",
        )
    for rewritten in rewrites:
        # others' locks and the commit take their part of a second, however few the rows
        near = rewritten.predicted / 2 <= rewritten.measured <= rewritten.predicted * 2 + ALLOWED
        yield (
            near,
            f"uuid ids, {rewritten.users:,} users: readers wait about as long as the plan said, "
            f"{rewritten.predicted:,.1f} s, and did for {rewritten.measured:,.1f} s",
        )


def report(server: Server, comparisons: Sequence[Comparison], rewrites: Sequence[Rewrite]) -> dict[str, Any]:
    """Return everything that was measured, as JSON has it: waits in seconds, sizes in rows and bytes."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "postgresql": server.psql("SHOW server_version"),
            "fsync": server.psql("SHOW fsync"),
            "shared_buffers": server.psql("SHOW shared_buffers"),
        },
        "comparisons": [asdict(found) for found in comparisons],
        "rewrites": [asdict(found) for found in rewrites],
        "verdicts": [{"held": held, "what": what} for held, what in verdicts(comparisons, rewrites)],
    }


# ------------------------------------------------------------------------------------------------------------- running


@contextmanager
def shown(console: Console, title: str) -> Iterator[Callable[[str, float], None]]:
    """Show what is being done, and how far it is, on a line of its own.

    It is drawn when something is said and not by the clock: drawing would delay those whose waiting is measured.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=1.0)

        def advance(what: str, part: float) -> None:
            bar.update(task, description=f"{title}: {what}", completed=part, refresh=True)

        yield advance


def run(
    console: Console,
    server: Server,
    *,
    users: Sequence[int],
    uuid_users: Sequence[int],
    sessions_per_user: float,
    rounds: int | None,
    long: float,
    keep: bool,
) -> dict[str, Any]:
    """Measure all that was asked for, print it, and return it as `report` does."""
    comparisons, rewrites, made = [], [], []
    try:
        for number in users:
            with shown(console, f"{number:,} users") as advance:
                template = load(server, AUTHER, number, sessions_per_user, advance)
                made.append(template)
                times = rounds or (2 if number >= MANY else 3)
                comparisons.append(asyncio.run(compare(server, template, number, times, long, lambda t: advance(t, 1))))
            console.print(comparison_table(comparisons[-1]))
        for number in uuid_users:
            with shown(console, f"{number:,} users with uuid ids") as advance:
                template = load(server, UUID_IDS, number, 1, advance)
                made.append(template)
                advance("the cutover", 1)
                rewrites.append(asyncio.run(rewrite(server, template, number, long)))
            console.print(rewrite_table(rewrites[-1]))
    finally:
        if not keep:
            for name in made:
                server.drop(name)
    for held, what in verdicts(comparisons, rewrites):
        console.print("[green]✓[/]" if held else "[bold red]✗[/]", what)
    return report(server, comparisons, rewrites)


def numbers(text: str) -> list[int]:
    """Return the numbers of a list such as `10000,1000000`; none of an empty one."""
    return [int(word.replace("_", "")) for word in text.split(",") if word]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return 0 if it was measured, 1 if something failed."""
    parser = argparse.ArgumentParser(description="Measure how long others wait while the cutover runs.")
    add = parser.add_argument
    add("--users", type=numbers, default="10000,1000000", help="sizes, in users (%(default)s)")
    add("--uuid-users", type=numbers, default="1000000", help="sizes with uuid ids, in users (%(default)s)")
    add("--sessions-per-user", type=float, default=10, help="%(default)s")
    add("--rounds", type=int, help=f"of each way at each size (3; from {MANY:,} users on 2)")
    add("--seconds", type=float, default=4, help="that the transaction in front lasts (%(default)s)")
    add("--server", metavar="URL", help="a server whose databases may be made and dropped, instead of the embedded one")
    add("--keep", action="store_true", help="leave the loaded databases to the next run")
    add("--out", type=Path, metavar="FILE", help="write all that was measured as JSON")
    given = parser.parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    try:
        measured = run(
            console,
            Server(given.server or start(DATA)),
            users=given.users,
            uuid_users=given.uuid_users,
            sessions_per_user=given.sessions_per_user,
            rounds=given.rounds,
            long=given.seconds,
            keep=given.keep,
        )
    except (BenchmarkFailed, DatabaseUnreachable) as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("Ended.")
        return 130
    if given.out:
        given.out.write_text(json.dumps(measured, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    # so that what was made is dropped then, too
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
