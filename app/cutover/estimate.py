"""Estimates: how long a step shuts readers out, told beforehand from rates that were measured.

    a table whose rows are written anew    its rows, its bytes, and its rows once more for each index that is built
    foreign keys that are checked          the rows of both tables
    a column that is looked through        the rows

The promise: an estimate is named as one. The rates are those of `make bench-cutover` at a million users on two cores,
the tables in memory, the log on a disk; a slower disk takes longer, and the plan says from what rate it counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.cutover.catalog import ForeignKey, Snapshot, Table

REWRITTEN_ROWS_PER_SECOND = 400_000
"""What it came to for a users table with two indexes and three million rows that refer to it, keys included."""

_WRITTEN_ROWS_PER_SECOND = 2_000_000
"""Rows written anew, each with the uuid or number in it that becomes text."""
_WRITTEN_BYTES_PER_SECOND = 400_000_000
"""... and the bytes of table and indexes, which are written twice: to the files and to the log."""
_INDEXED_ROWS_PER_SECOND = 1_250_000
"""Rows sorted and written into one index. Of text by the collation C or ICU's; glibc's others are slower."""
_CHECKED_ROWS_PER_SECOND = 2_200_000
"""Rows of the two tables of a foreign key, joined by a planner that knows them."""
_SCANNED_ROWS_PER_SECOND = 12_000_000
"""Rows of which one column is looked at."""
_BYTES_OF_A_ROW = 150
"""With its share of the indexes, where PostgreSQL has not counted yet."""


def rewriting(table: Table, partitions: Iterable[Table] = ()) -> float:
    """Return the seconds that writing a table anew takes, its indexes included.

    Args:
        table: the table.
        partitions: those it has, and its children, which are written anew with it.
    """
    return sum(_rewriting(each) for each in (table, *partitions))


def _rewriting(table: Table) -> float:
    rows = _rows(table)
    indexes = len(table.indexes) + sum(constraint.kind in "pux" for constraint in table.constraints)
    return (
        rows / _WRITTEN_ROWS_PER_SECOND
        + table.size / _WRITTEN_BYTES_PER_SECOND
        + rows * indexes / _INDEXED_ROWS_PER_SECOND
    )


def validation(snapshot: Snapshot, keys: Iterable[ForeignKey]) -> float:
    """Return the seconds that adding foreign keys takes: each is checked for every row."""
    checked = (snapshot.table(*name) for key in keys if key.validated for name in (key.table, key.target))
    return sum(_rows(table) for table in checked if table) / _CHECKED_ROWS_PER_SECOND


def scanning(table: Table) -> float:
    """Return the seconds that looking at every row takes."""
    return _rows(table) / _SCANNED_ROWS_PER_SECOND


def _rows(table: Table) -> int:
    """Return how many rows of its own a table has; a partitioned one has none, whatever it was counted to have."""
    if table.kind == "p":
        return 0
    # PostgreSQL says -1 of a table that it has not counted, and before version 14 it says 0
    return table.rows if table.rows > 0 else table.size // _BYTES_OF_A_ROW
