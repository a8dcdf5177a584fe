"""Estimates: how long a step shuts readers out, told beforehand from rates that were measured.

The promise: an estimate is named as one. The rates are those of `make bench-cutover` on two cores with the table in
memory; a slower disk takes longer, and the plan says from what rate it counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.cutover.catalog import ForeignKey, Snapshot, Table

REWRITTEN_ROWS_PER_SECOND = 350_000
"""Rows of a table with three indexes whose uuid or number column becomes text."""
VALIDATED_ROWS_PER_SECOND = 4_000_000
"""Rows of a table whose foreign key is checked."""
SCANNED_ROWS_PER_SECOND = 12_000_000
"""Rows of which one column is looked at."""


def rewriting(table: Table) -> float:
    """Return the seconds that writing a table anew takes, its indexes included."""
    return max(table.rows, 0) / REWRITTEN_ROWS_PER_SECOND


def validation(snapshot: Snapshot, keys: Iterable[ForeignKey]) -> float:
    """Return the seconds that adding foreign keys takes: each is checked for every row."""
    tables = (snapshot.table(*key.table) for key in keys if key.validated)
    return sum(max(table.rows, 0) for table in tables if table) / VALIDATED_ROWS_PER_SECOND


def scanning(table: Table) -> float:
    """Return the seconds that looking at every row takes."""
    return max(table.rows, 0) / SCANNED_ROWS_PER_SECOND
