"""What somebody else put into the schema of the retired tables, which drop and undo remove with nothing of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.cutover.catalog import quoted
from app.cutover.findings import Finding, Situation
from app.cutover.layout import RETIRED_SCHEMA
from app.cutover.strangers import Member


def in_retired_schema(at: Situation) -> Iterator[Finding]:
    """Functions, types and whatever else is no table: those `around.left_over` names."""
    if at.layout.kind == "retired":
        known = {at.layout.kept_sequence, *(table.sql for table in at.snapshot.tables)}
        others = (each for each in at.census.retired_members if each.identity not in known)
        yield from not_empty(others, at.layout.schema)


def not_empty(strangers: Iterable[Member], schema: str) -> Iterator[Finding]:
    """Yield what keeps the schema of the retired tables from being dropped.

    Args:
        strangers: those of its members that are not ours.
        schema: where they can be put.
    """
    for each in strangers:
        yield Finding(
            "schema-not-empty",
            "refuse",
            each.identity,
            f"The {each.kind} {each.identity} is none of what retire put there, and the schema {RETIRED_SCHEMA} is to "
            "be dropped.",
            f"ALTER {_KINDS.get(each.kind, each.kind.upper())} {each.identity} SET SCHEMA {quoted(schema)};",
        )


_KINDS = {"statistics object": "STATISTICS", "composite type": "TYPE"}
"""What ALTER calls some of the kinds."""
