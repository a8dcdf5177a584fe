"""One record, several renderings: findings, steps and comparisons as text for people, JSON for machines, SQL for a DBA.

The promise: every rendering holds the same records; the last line of the text is the verdict.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from app.cutover.catalog import VERSION_TABLE, quoted
from app.cutover.census import Census
from app.cutover.findings import Action, Finding, Level, Situation, refusals
from app.cutover.layout import Layout
from app.cutover.steps import BLOCKS, REVISIONS, SETTINGS, Step
from app.cutover.verify import Verdict, Verification

LEVELS: dict[Level, str] = {"refuse": "red", "warn": "yellow", "info": "blue"}
VERDICTS: dict[Verdict, str] = {"ok": "[green]✓[/]", "changed": "[yellow]~[/]", "broken": "[red]✗[/]"}
WIDTH = 120
LONGEST = 600
"""Characters of SQL that a screen shows of one line."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The steps of one revision."""

    action: Action
    steps: tuple[Step, ...]

    @property
    def revision(self) -> str:
        return REVISIONS[self.action]


@dataclass(frozen=True, slots=True)
class Report:
    """A plan with everything that was found."""

    situation: Situation
    findings: tuple[Finding, ...]
    plans: tuple[Planned, ...]

    @property
    def fingerprint(self) -> str:
        return self.situation.snapshot.fingerprint

    @property
    def verdict(self) -> str:
        """One sentence: whether it can be run, and what to type."""
        if refused := refusals(self.findings):
            return f"Refused: {len(refused)} to decide or mend first. Nothing was changed."
        if not self.plans:
            return "Nothing to do."
        target = self.plans[-1].action
        steps = _counted(sum(len(plan.steps) for plan in self.plans), "step")
        return f"Ready: {steps} in {_counted(len(self.plans), 'revision')}.  shadow migrate --to {target}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def findings_text(findings: Iterable[Finding]) -> str:
    """Return findings as plain text, refusals first, as far as a terminal without colours goes."""
    return _printed(lambda console: print_findings(console, tuple(findings)))


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """Print findings, each with its code, what was found and what to type."""
    for finding in findings:
        colour = LEVELS[finding.level]
        said = f"[bold]{escape(finding.code)}[/]  {escape(finding.message)}"
        _print_beside(console, f"[{colour}]{finding.level:<6}[/] ", said)
        for line in finding.remedy.splitlines():
            # never wrapped: it is there to be pasted
            console.print(f"       [dim]→[/] {escape(line)}", highlight=False, soft_wrap=True)


def _print_beside(console: Console, margin: str, text: str) -> None:
    """Print a paragraph beside what stands in its margin: where it is wrapped, its lines begin below each other."""
    start = Text.from_markup(margin)
    for line in Text.from_markup(text).wrap(console, console.width - start.cell_len):
        line.rstrip()
        console.print(start + line, highlight=False, soft_wrap=True)
        start = Text(" " * start.cell_len)


def print_plan(console: Console, report: Report) -> None:
    """Print findings, then the steps with their SQL, locks, sizes and undo, then the verdict."""
    snapshot = report.situation.snapshot
    console.print(
        f"[bold]Plan[/] for {escape(snapshot.database)} (PostgreSQL {snapshot.version // 10000}, as "
        f"{escape(snapshot.role)}), layout {report.situation.layout.kind}, fingerprint {report.fingerprint}",
        highlight=False,
    )
    if report.findings:
        console.print()
        print_findings(console, report.findings)
    # what is refused has no steps worth reading: they may speak of a layout that was not understood
    for plan in () if refusals(report.findings) else report.plans:
        console.print(f"\n[bold]{plan.revision}[/], one transaction")
        for number, step in enumerate(plan.steps, 1):
            _print_step(console, number, step)
    console.print(f"\n[bold]{escape(report.verdict)}[/]", highlight=False)


def _print_step(console: Console, number: int, step: Step) -> None:
    facts = [f"lock: {step.lock}, {BLOCKS[step.lock]}"]
    if step.rows is not None:
        facts.append(f"{step.rows:,} rows" + (f", {_bytes(step.bytes)}" if step.bytes else ""))
    if step.seconds is not None:
        facts.append(f"about {step.seconds:,.1f} s" if step.seconds >= 0.05 else "less than 0.1 s")
    facts.append(f"undo: {step.undone}")
    _print_beside(console, f"{number:>3}. ", escape(step.title))
    _print_beside(console, "     ", f"[dim]{escape('; '.join(facts))}[/]")
    for statement in step.sql:
        for line in _shortened(statement).splitlines():
            console.print(f"     [cyan]{escape(line)}[/]", highlight=False, soft_wrap=True)


def _shortened(statement: str) -> str:
    """Cut what nobody reads on a screen: the journal's JSON. `--format sql` has it whole."""
    lines = statement.splitlines()
    shown = [line if len(line) <= LONGEST else f"{line[:WIDTH]} ... ({len(line):,} characters)" for line in lines]
    return "\n".join(shown)


def _bytes(size: int | None) -> str:
    value = float(size or 0)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1024:
            return f"{value:,.0f} {unit}"
        value /= 1024
    return f"{value:,.1f} TB"


def plan_text(report: Report) -> str:
    """Return the plan as plain text, as `print_plan` shows it without colours."""
    return _printed(lambda console: print_plan(console, report))


def plan_json(report: Report) -> str:
    """Return the plan as JSON: `findings`, `revisions` with their steps, `fingerprint`, `verdict`."""
    document = {
        "database": report.situation.snapshot.database,
        "layout": report.situation.layout.kind,
        "fingerprint": report.fingerprint,
        "findings": [asdict(finding) for finding in report.findings],
        "revisions": [
            {
                "revision": plan.revision,
                "steps": [{**asdict(step), "blocks": BLOCKS[step.lock]} for step in plan.steps],
            }
            for plan in report.plans
        ],
        "refused": bool(refusals(report.findings)),
        "verdict": report.verdict,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def plan_sql(report: Report) -> str:
    """Return the plan as a script for psql that leaves the database, and Alembic's record of it, as `migrate` would."""
    schema = report.situation.layout.schema
    version = quoted(schema, VERSION_TABLE)
    lines = [
        f"-- shadow plan --format sql, fingerprint {report.fingerprint}",
        f"-- {report.verdict}",
        *(f"-- {finding.level} {finding.code}: {_commented(finding.message)}" for finding in report.findings),
    ]
    if refusals(report.findings):
        return "\n".join(lines)
    lines += [
        "\\set ON_ERROR_STOP on",
        f"CREATE TABLE IF NOT EXISTS {version} (version_num varchar(32) NOT NULL, "
        f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num));",
    ]
    for plan in report.plans:
        lines += ["", f"-- {plan.revision}", "BEGIN;", *(f"{statement};" for statement in SETTINGS)]
        for step in plan.steps:
            lines += [f"-- {_commented(step.title)}", *(f"{statement};" for statement in step.sql)]
        lines += [f"DELETE FROM {version};", f"INSERT INTO {version} VALUES ('{plan.revision}');", "COMMIT;"]
    return "\n".join(lines)


def _commented(text: str) -> str:
    return text.replace("\n", "\n-- ")


def print_inspection(console: Console, situation: Situation, revision: str | None) -> None:
    """Print which table plays which role and why, with sizes and counts."""
    snapshot, layout, census = situation.snapshot, situation.layout, situation.census
    console.print(
        f"[bold]{escape(snapshot.database)}[/]: PostgreSQL {snapshot.version // 10000}, as {escape(snapshot.role)}, "
        f"schema {escape(layout.schema)}, layout [bold]{layout.kind}[/], revision {revision or 'none'}, "
        f"fingerprint {snapshot.fingerprint}",
        highlight=False,
    )
    if layout.roles:
        table = RichTable("role", "table", "rows", "size", "because of", box=None, padding=(0, 2, 0, 0))
        for role in layout.roles:
            count = census.rows.get(role.table.key)
            rows = f"{count:,}" if count is not None else f"about {max(role.table.rows, 0):,}"
            table.add_row(role.name, escape(role.table.sql), rows, _bytes(role.table.size), escape(role.reason))
        console.print(table)
    _print_users(console, layout, census)
    referring = sorted(
        {quoted(*key.table) for key in snapshot.keys_to(*((layout.users.key,) if layout.users else ()))}
        - {table.sql for table in layout.going}
    )
    if referring:
        console.print(f"kept, refer to users: {escape(', '.join(referring))}", highlight=False)
    for doubt in layout.doubts:
        console.print(f"[red]{doubt.code}[/] {escape(doubt.message)}\n       [dim]→[/] {escape(doubt.remedy)}")


def _print_users(console: Console, layout: Layout, census: Census) -> None:
    if layout.users is None:
        return
    if layout.reasons:
        columns = RichTable("column", "is", "of type", "because of", box=None, padding=(0, 2, 0, 0))
        for name, reason in layout.reasons.items():
            own = layout.fields[name]
            columns.add_row(f"users.{name}", escape(own.name), escape(own.type), escape(reason))
        console.print(columns)
    for column in layout.going_columns:
        doubt = ", [yellow]by its name alone[/]" if column.by_name_only else ""
        console.print(f"users.{escape(column.name)} goes: {escape(column.reason)}{doubt}", highlight=False)
    hashes = ", ".join(f"{count:,} {kind}" for kind, count in census.password_hashes.items())
    live = "not known" if census.live_sessions is None else f"{census.live_sessions:,}"
    if layout.doubts:
        console.print("password hashes, live sessions: not counted while the layout is in doubt", highlight=False)
    else:
        console.print(f"password hashes: {hashes or 'none'}", highlight=False)
        console.print(f"live sessions: {live}", highlight=False)
    if layout.version:
        console.print(f"Better Auth: {layout.version}, by the columns of its tables", highlight=False)


def inspection_json(situation: Situation, revision: str | None) -> str:
    """Return what `print_inspection` shows as JSON."""
    layout, census = situation.layout, situation.census
    document: dict[str, Any] = {
        "database": situation.snapshot.database,
        "server_version": situation.snapshot.version,
        "schema": layout.schema,
        "layout": layout.kind,
        "revision": revision,
        "fingerprint": situation.snapshot.fingerprint,
        "roles": [
            {
                "role": role.name,
                "table": role.table.sql,
                "rows": census.rows.get(role.table.key),
                "bytes": role.table.size,
                "reason": role.reason,
            }
            for role in layout.roles
        ],
        "columns": {
            name: {"column": column.name, "type": column.type, "reason": layout.reasons.get(name)}
            for name, column in layout.fields.items()
        },
        "better_auth": layout.version,
        "going_columns": [asdict(column) for column in layout.going_columns],
        "password_hashes": dict(census.password_hashes),
        "live_sessions": census.live_sessions,
        "doubts": [asdict(doubt) for doubt in layout.doubts],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def print_verification(console: Console, verification: Verification, *, whole: bool = True) -> None:
    """Print every comparison, or only those that are not as before, then the verdict."""
    if verification.action is None:
        console.print("Nothing to compare with: no cutover has run on this database.")
        return
    table = RichTable("", "compared", "before", "after", box=None, padding=(0, 2, 0, 0))
    shown = [found for found in verification.comparisons if whole or found.verdict != "ok"]
    for found in shown:
        same = found.before == found.after
        after = "the same" if same and len(found.after) > 12 else found.after
        table.add_row(VERDICTS[found.verdict], escape(found.subject), escape(found.before), escape(after))
    if shown:
        console.print(table)
    broken = sum(found.verdict == "broken" for found in verification.comparisons)
    changed = sum(found.verdict == "changed" for found in verification.comparisons)
    total = len(verification.comparisons)
    if broken:
        console.print(f"[red]{broken} of {total} comparisons after {verification.action} do not hold.[/]")
    else:
        beside = f"; {changed} changed since, by the app" if changed else ""
        console.print(f"[green]All {total} comparisons after {verification.action} hold[/]{beside}.", highlight=False)


def verification_json(verification: Verification) -> str:
    """Return the comparisons as JSON."""
    return json.dumps({**asdict(verification), "holds": verification.holds}, indent=2, ensure_ascii=False)


def _printed(show: Any) -> str:
    target = io.StringIO()
    show(Console(file=target, width=WIDTH, color_system=None))
    return target.getvalue().rstrip()
