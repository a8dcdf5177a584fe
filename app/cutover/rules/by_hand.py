"""What takes an object out of the way by hand: SQL for each kind that cannot be taken out and put back by itself.

The promise: it can be pasted, also where two findings name one object, takes no row of the app's with it, and never
says CASCADE; what uses the object in its turn PostgreSQL then names.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover import restore
from app.cutover.catalog import Dependent, Snapshot, Table, quoted
from app.cutover.flags import flag
from app.cutover.release import held

_DROPPED = {
    "aggregate": "AGGREGATE",
    "cast": "CAST",
    "composite type": "TYPE",
    "conversion": "CONVERSION",
    "function": "FUNCTION",
    "index": "INDEX",
    "materialized view": "MATERIALIZED VIEW",
    "operator": "OPERATOR",
    "operator class": "OPERATOR CLASS",
    "operator family": "OPERATOR FAMILY",
    "procedure": "PROCEDURE",
    "statistics object": "STATISTICS",
    "transform": "TRANSFORM",
    "type": "TYPE",
    "view": "VIEW",
}
"""Kinds of which pg_identify_object names the identity as DROP does, and what DROP calls them."""


def by_hand(snapshot: Snapshot, found: Dependent) -> str:
    """Return what to paste so that an object, and what on it cannot be released, no longer stands in the way."""
    bound = held(snapshot, [found]) or (found,)
    lines = [line for each in bound for line in _lines(snapshot, each)]
    if found not in bound:
        lines += [f"-- after that the {found.kind} can go as others do:", flag("release", found.identity)]
    return "\n".join(lines)


def _lines(snapshot: Snapshot, found: Dependent) -> Iterator[str]:
    site = snapshot.table(*found.owner) if found.owner else None
    owner = _owner(site, found)
    if owner is not None:
        yield f"-- as {owner}, to which it belongs:"
    statements = list(_statements(site, found))
    if not statements:
        yield f"-- change by hand, so that nothing depends on it any more: {found.kind} {found.identity}"
    yield from statements


def _owner(site: Table | None, found: Dependent) -> str | None:
    """Return the role that must do it, where that is another than the one that looked."""
    if found.kind == "publication relation" and site is not None:
        return next((each.owner for each in site.memberships if each.name == found.name and not each.owned), None)
    return site.owner if site is not None and not site.owned else None


def _statements(site: Table | None, found: Dependent) -> Iterator[str]:
    """Yield the statements, and what is to be known of them as comments."""
    again = f"-- and make the {found.kind} anew afterwards, without what goes"
    name = quoted(found.name or "")
    if found.kind == "table column" and site is not None:
        yield f"ALTER TABLE {site.sql} ALTER COLUMN {name} TYPE jsonb USING to_jsonb({name});"
    elif found.kind == "composite type column":
        # where a table has such a column PostgreSQL refuses, so that no value is lost
        whole, _, part = found.identity.rpartition(".")
        yield f"ALTER TYPE {whole} ALTER ATTRIBUTE {part} TYPE jsonb;"
    elif found.kind == "publication relation" and site is not None:
        yield f"ALTER PUBLICATION {name} DROP TABLE {site.sql};"
        for member in site.memberships:
            if member.name == found.name:
                yield "-- and afterwards, without what goes; it is now:"
                yield from (f"-- {statement};" for statement in restore.membership(site, member))
    elif found.kind == "domain constraint":
        constraint, _, domain = found.identity.rpartition(" on ")
        yield f"ALTER DOMAIN {domain} DROP CONSTRAINT IF EXISTS {constraint};"
        yield again
    elif found.kind in ("policy", "rule", "trigger") and site is not None:
        yield f"DROP {found.kind.upper()} IF EXISTS {name} ON {site.sql};"
        yield again
    elif found.kind == "table constraint" and site is not None:
        yield f"ALTER TABLE {site.sql} DROP CONSTRAINT IF EXISTS {name};"
        yield again
    elif found.kind == "table" and site is not None and site.partition_bound is None:
        yield f"ALTER TABLE {site.sql} NO INHERIT {quoted(*found.table)};"
    elif found.kind == "foreign table" and site is not None and site.partition_bound is None:
        yield f"ALTER FOREIGN TABLE {site.sql} NO INHERIT {quoted(*found.table)};"
    elif found.kind == "default value" and site is not None:
        yield from _default(site, found)
    elif found.kind in _DROPPED:
        yield f"DROP {_DROPPED[found.kind]} IF EXISTS {found.identity};"
        yield again
        if site is not None and site.kind in ("v", "m"):
            yield "-- it is now:"
            yield from (f"-- {line}" for line in (site.definition or "").splitlines())


def _default(site: Table, found: Dependent) -> Iterator[str]:
    column = site.column(found.name or "")
    if column is None:
        return
    change = f"ALTER TABLE {site.sql} ALTER COLUMN {quoted(column.name)}"
    if column.generated == "s":
        yield f"{change} DROP EXPRESSION;"
        yield "-- the values stay, and are no longer computed"
    elif not column.generated:
        yield f"{change} DROP DEFAULT;"
    else:
        yield f"ALTER TABLE {site.sql} DROP COLUMN {quoted(column.name)};"
        yield f"-- it holds no values of its own, and is computed as {column.default}"
