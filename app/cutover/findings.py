"""What is found, and what a person decides about it: the records that every rule, plan and report speaks in.

The promise: a refusal that a person may overrule is overruled by its code (`--accept CODE`), or by naming the object
(`--detach table.column`); there is no general force.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from app.cutover import changes
from app.cutover.catalog import ForeignKey, Snapshot
from app.cutover.census import Census
from app.cutover.changes import Changes
from app.cutover.layout import NONE, Choices, Layout, without_beside
from app.cutover.signatures import SIGNATURES, TARGET_COLUMNS, USERS

Action = Literal["adopt", "retire", "drop"]
ACTIONS: tuple[Action, ...] = ("adopt", "retire", "drop")
Level = Literal["refuse", "warn", "info"]

OVERRULABLE = frozenset(
    {
        "identities-not-exported",
        "constraint-spans-column",
        "required-column",
        "function-body",
        "transaction-pooler",
    }
)
"""Codes that --accept takes; the others have another remedy."""
ACCEPTABLE = OVERRULABLE | {
    "undo-cannot-compare",
    "undo-finds-changes",
    "undo-loses-rows",
    "undo-loses-values",
    "undo-misses-objects",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found. `message` states the fact, `remedy` can be pasted."""

    code: str
    level: Level
    subject: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Options:
    """What the person who runs the cutover decided."""

    choices: Choices = field(default_factory=Choices)
    accept: frozenset[str] = frozenset()
    detach: frozenset[str] = frozenset()
    """`table.column` or `schema.table.column` of foreign keys into a table that goes."""
    release: frozenset[str] = frozenset()
    """Objects that are taken out of the way, their definition kept for undo."""
    compat_view: bool = False
    """Whether a view keeps the old names alive."""

    def after(self, recorded: Mapping[str, Any]) -> Options:
        """Return these decisions with what an earlier revision recorded of who plays what; what is decided anew wins.

        Args:
            recorded: from `journal.chosen`.
        """
        mapped = recorded.get("map", {})
        tables = {name: value for name, value in mapped.items() if "." not in name}
        columns = {name: value for name, value in mapped.items() if "." in name}
        choices = Choices(
            {**tables, **self.choices.tables},
            {**columns, **self.choices.columns},
            self.choices.keep | frozenset(recorded.get("keep", ())),
        )
        return replace(self, choices=choices)


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that could not be made again over new types, when that was rehearsed."""

    kind: str
    identity: str
    drop: str | None
    """What removes a constraint or index; None for an object, which can be released."""
    words: str
    """PostgreSQL's."""


@dataclass(frozen=True)
class Situation:
    """Everything a rule may look at."""

    snapshot: Snapshot
    layout: Layout
    census: Census
    options: Options
    actions: tuple[Action, ...]
    complaints: tuple[Complaint, ...] = ()

    @cached_property
    def changes(self) -> Changes | None:
        """What retire changes; None where there is nothing of Better Auth's, or it is in doubt."""
        return changes.of(self.snapshot, self.layout)

    @cached_property
    def objects(self) -> Snapshot:
        """The snapshot without what the cutover itself put there."""
        return without_beside(self.snapshot)

    @cached_property
    def going(self) -> frozenset[tuple[str, str]]:
        return frozenset(table.key for table in changes.with_partitions(self.snapshot, self.layout.going))

    @property
    def going_columns(self) -> frozenset[str]:
        return frozenset(column.name for column in self.layout.going_columns)


class Refused(Exception):
    """Something must be decided or mended first; what was running is rolled back.

    `findings` holds all, refusals first; `reached` is the last revision that had been finished by the same run.
    """

    def __init__(self, findings: Iterable[Finding], reached: str | None = None) -> None:
        self.findings = tuple(findings)
        self.reached = reached
        super().__init__("\n".join(f"{found.code}: {found.message}" for found in refusals(self.findings)))


def refusals(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "refuse"]


def decided(
    *,
    accept: Iterable[str] = (),
    keep: Iterable[str] = (),
    detach: Iterable[str] = (),
    release: Iterable[str] = (),
    map: Iterable[str] = (),
    compat_view: bool = False,
) -> Options:
    """Return the options for what a person typed.

    Args:
        accept: codes of findings.
        keep: `users.column`.
        detach: `table.column` or `schema.table.column`.
        release: objects, as findings name them.
        map: `role=schema.table`, `role=none`, or `role.field=column`.
        compat_view: whether the old names are kept alive by a view.

    Raises:
        ValueError: one of them cannot be meant; the message says which and what would be right.
    """
    accept, keep, detach = frozenset(accept), frozenset(keep), frozenset(detach)
    for code in sorted(accept - ACCEPTABLE):
        raise ValueError(f"accept {code}: there is no such code to accept; there are {', '.join(sorted(ACCEPTABLE))}.")
    for name in sorted(keep):
        if not re.fullmatch(r"users\..+", name):
            raise ValueError(f"keep {name}: name a column of users, as in users.role.")
    for name in sorted(detach):
        if "." not in name:
            raise ValueError(f"detach {name}: name a column, as in devices.session_id.")
    tables, columns = {}, {}
    for pair in map:
        what, _, value = pair.partition("=")
        role, _, part = what.partition(".")
        if role not in SIGNATURES or not value:
            raise ValueError(
                f"map {pair}: give role=schema.table or users.email=column, where the role is one of "
                f"{', '.join(SIGNATURES)}."
            )
        if part:
            if role == USERS and part not in TARGET_COLUMNS:
                raise ValueError(f"map {pair}: users has {', '.join(TARGET_COLUMNS)}, and no {part}.")
            columns[what] = value
        elif "." in value or value == NONE:
            tables[role] = value
        else:
            raise ValueError(f"map {pair}: give role=schema.table, as in {role}=public.{value}.")
    return Options(Choices(tables, columns, keep), accept, detach, frozenset(release), compat_view)


def detached(key: ForeignKey, options: Options) -> bool:
    """Whether --detach names this foreign key."""
    return bool(names_of(key) & options.detach)


def names_of(key: ForeignKey) -> set[str]:
    """Return what --detach may call a foreign key."""
    schema, table = key.table
    return {f"{prefix}{column}" for column in key.columns for prefix in (f"{table}.", f"{schema}.{table}.")}
