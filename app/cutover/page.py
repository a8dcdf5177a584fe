"""The plan as one HTML file, to be shown to a reviewer before the evening: diagram, findings, steps.

The promise: one file that asks the network for nothing, and a policy in it that would not let it. Every name of the
database is escaped by the template; style and script are admitted by their hashes alone, so that a name that slipped
through would still do nothing. Without scripts nothing is missing but the buttons that copy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from app.cutover.catalog import quoted
from app.cutover.diagram import Diagram, Fate, Moves, Place, Slot, diagram_of, moves_in, size
from app.cutover.drawing import WORDS, Drawing, Time, draw
from app.cutover.findings import Finding, Level, refusals
from app.cutover.report import LONGEST, WIDTH, Report
from app.cutover.steps import BLOCKS, REVISIONS, Lock, Step

HERE = Path(__file__).parent
LEVELS: dict[Level, tuple[str, str]] = {
    "refuse": ("×", "To decide or mend first"),
    "warn": ("!", "Warnings"),
    "info": ("i", "To know"),
}
"""The sign and the heading of each level."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and what it counts; `fate` is that of a table, column or foreign key."""

    number: int
    what: str
    fate: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A table in words, for those who do not see the picture."""

    name: str
    fate: Fate
    becomes: str
    facts: str
    reason: str
    """Its role, and why it was taken for it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One of the two times, drawn for wide pages and for narrow ones."""

    time: Time
    title: str
    description: str
    drawings: tuple[tuple[str, Drawing], ...]


@dataclass(frozen=True, slots=True)
class Waits:
    """The steps from which on somebody waits; 0 if nobody does."""

    writers: int
    readers: int


def page(report: Report, *, at: datetime, by: str, tool: str) -> str:
    """Return the plan as an HTML document.

    Args:
        report: the plan with everything that was found.
        at: when it was made, with a time zone.
        by: who made it.
        tool: name and version of the program.
    """
    situation = report.situation
    moves = moves_in(report)
    diagram = diagram_of(situation.snapshot, moves, situation.census.rows)
    style, script = ((HERE / name).read_text() for name in ("page.css", "page.js"))
    sentence, _, command = report.verdict.partition("  ")
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(cut=cut, size=size, seconds=lasting)
    return environment.get_template("page.html.j2").render(
        report=report,
        snapshot=situation.snapshot,
        layout=situation.layout,
        target=REVISIONS[situation.actions[-1]] if situation.actions else None,
        refused=bool(refusals(report.findings)),
        sentence=sentence,
        command=command,
        moves=moves,
        diagram=diagram,
        figures=tuple(figures(diagram, moves)),
        pictures=tuple(pictures(report, diagram)),
        tables=tuple(tables(diagram, moves)),
        findings=grouped(report.findings),
        levels=LEVELS,
        words=WORDS,
        blocks=BLOCKS,
        waiting=waiting,
        who_waits=who_waits,
        # both are files of this package, without a word of the database
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        policy=policy(style, script),
        at=at,
        by=by,
        tool=tool,
    )


def policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy (CSP3, 2.3.1) that admits this style and this script, and nothing else."""
    hashes = (base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in (style, script))
    styles, scripts = (f"'sha256-{each}'" for each in hashes)
    return f"default-src 'none'; style-src {styles}; script-src {scripts}; base-uri 'none'; form-action 'none'"


def pictures(report: Report, diagram: Diagram) -> Iterator[Picture]:
    """Return the database before and after; only as it is, where nothing is to be done or the layout is in doubt."""
    situation = report.situation
    shown, keys = len(diagram.slots), len(diagram.lines)
    told = f"{shown} of {shown + diagram.further_tables} tables and {keys} foreign keys, listed below the pictures."
    pair = diagram.settled and situation.actions
    yield _picture(diagram, "before", "Before" if pair else "As it is", told)
    if pair:
        told = "The same tables afterwards, each in its place; what went leaves an empty place."
        yield _picture(diagram, "after", f"After {REVISIONS[situation.actions[-1]]}", told)


def _picture(diagram: Diagram, time: Time, title: str, description: str) -> Picture:
    return Picture(
        time, title, description, (("wide", draw(diagram, time)), ("narrow", draw(diagram, time, narrow=True)))
    )


def figures(diagram: Diagram, moves: Moves) -> Iterator[Figure]:
    """Return what a reviewer asks first: how many go, leave, come, change, stay; without the zeros."""
    counted = (
        (len(diagram.going), "table goes", "tables go", "goes"),
        (len(moves.leaving), "column leaves users", "columns leave users", "goes"),
        (int(not moves.users and moves.becomes is not None), "table is made", "", "added"),
        (len(moves.added) if moves.users else 0, "column comes to users", "columns come to users", "added"),
        (len(changing(moves)), "column changes", "columns change", "changes"),
        (diagram.count("kept"), "foreign key is kept", "foreign keys are kept", "kept"),
        (diagram.count("dropped"), "foreign key goes with its table", "foreign keys go with their tables", "dropped"),
        (diagram.count("detached"), "foreign key is detached", "foreign keys are detached", "detached"),
        (diagram.count("undecided"), "foreign key is in the way", "foreign keys are in the way", "undecided"),
    )
    return (Figure(number, one if number == 1 else many, fate) for number, one, many, fate in counted if number)


def tables(diagram: Diagram, moves: Moves) -> Iterator[Listed]:
    """Return the tables of the diagram in words."""
    for slot in diagram.slots:
        if (box := slot.before or slot.after) is None:
            continue
        reason = "the app's own" if slot.before else "made for the server"
        if slot.key in moves.roles:
            reason = ": ".join(moves.roles[slot.key])
        yield Listed(quoted(*slot.key), box.fate, _becomes(slot, diagram, moves), box.facts, reason)


def _becomes(slot: Slot, diagram: Diagram, moves: Moves) -> str:
    if not diagram.settled:
        return "not decided yet"
    if slot.before is None:
        return "is made"
    if slot.after is None:
        return slot.absent
    lines = [line for line in diagram.lines if line.source == slot.key]
    counts = (
        ("loses", sum(each.fate == "goes" for each in slot.before.attributes), "column"),
        ("gains", sum(each.fate == "added" for each in slot.after.attributes), "column"),
        ("changes", sum(table == slot.key for table, _ in changing(moves)), "column"),
        ("loses", sum(line.fate == "detached" for line in lines), "foreign key"),
        ("stands in the way with", sum(line.fate == "undecided" for line in lines), "foreign key"),
    )
    said = [f"{verb} {count} {noun}{'s' * (count != 1)}" for verb, count, noun in counts if count]
    remarks = (slot.before.remark, *said, moves.remarks.get(slot.key))
    return ", ".join(filter(None, remarks)) or "stays"


def changing(moves: Moves) -> frozenset[Place]:
    """Return the columns that get another name, another type, or may no longer be null."""
    return frozenset((*moves.renamed, *moves.retyped, *moves.required))


def grouped(findings: Iterable[Finding]) -> list[tuple[Level, list[Finding]]]:
    """Return findings by level, refusals first; a level without any is left out."""
    found = list(findings)
    groups = [(level, [finding for finding in found if finding.level == level]) for level in LEVELS]
    return [(level, group) for level, group in groups if group]


def waiting(lock: Lock) -> Literal["nobody", "writers", "readers"]:
    """Return who waits for a lock; where readers do, writers do."""
    waits = [clause for clause in BLOCKS[lock].split(", ") if clause.endswith(" wait")]
    if any("readers" in clause for clause in waits):
        return "readers"
    return "writers" if any("writers" in clause for clause in waits) else "nobody"


def who_waits(steps: Sequence[Step]) -> Waits:
    """Return from which step on writers and readers wait: a lock is held to the end of its transaction."""
    waits = [waiting(step.lock) for step in steps]
    writers = next((number for number, who in enumerate(waits, 1) if who != "nobody"), 0)
    return Waits(writers, waits.index("readers") + 1 if "readers" in waits else 0)


def lasting(seconds: float) -> str:
    """Return an estimated time as one says it."""
    if seconds < 0.1:
        return "less than 0.1 s"
    if seconds < 120:
        return f"about {seconds:,.{1 if seconds < 10 else 0}f} s"
    return f"about {seconds / 60:,.0f} minutes"


def cut(statement: str) -> str:
    """Return a statement without the ends of the lines that nobody reads: the journal's JSON."""
    return "\n".join(
        line if len(line) <= LONGEST else f"{line[:WIDTH]} ... ({len(line) - WIDTH:,} characters more)"
        for line in statement.splitlines()
    )
