"""What takes an object out of the way by hand: SQL for each kind that cannot be taken out and put back by itself.

The promise: it can be pasted, also where two findings name one object, takes no row of the app's with it, and never
says CASCADE; what uses the object in its turn PostgreSQL then names. Nothing is dropped of which it does not say, in
comments that become SQL without their dashes, how it is now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
    statements = list(_statements(snapshot, site, found))
    if not statements:
        yield f"-- change by hand, so that nothing depends on it any more: {found.kind} {found.identity}"
    yield from statements


def _owner(site: Table | None, found: Dependent) -> str | None:
    """Return the role that must do it, where that is another than the one that looked."""
    if found.kind == "publication relation" and site is not None:
        return next((each.owner for each in site.memberships if each.name == found.name and not each.owned), None)
    return site.owner if site is not None and not site.owned else None


def _statements(snapshot: Snapshot, site: Table | None, found: Dependent) -> Iterator[str]:
    """Yield the statements, and what is to be known of them as comments."""
    name = quoted(found.name or "")
    if found.kind == "table column" and site is not None:
        column = site.column(found.name or "")
        yield f"ALTER TABLE {site.sql} ALTER COLUMN {name} TYPE jsonb USING to_jsonb({name});"
        yield from (f"-- it is now of the type {column.type}",) if column else ()
    elif found.kind == "composite type column":
        # where a table has such a column PostgreSQL refuses, so that no value is lost
        whole, _, part = found.identity.rpartition(".")
        yield f"ALTER TYPE {whole} ALTER ATTRIBUTE {part} TYPE jsonb;"
        yield f"-- it is now of the row type of {quoted(*found.table)}"
    elif found.kind == "table" and site is not None and site.partition_bound is None:
        yield from _inheriting(f"ALTER TABLE {site.sql}", found)
    elif found.kind == "foreign table" and site is not None and site.partition_bound is None:
        yield from _inheriting(f"ALTER FOREIGN TABLE {site.sql}", found)
    elif found.kind == "default value" and site is not None:
        yield from _default(site, found)
    elif (drop := _drop(site, found)) is not None:
        yield f"{drop};"
        yield from anew(found.kind, present(snapshot, found), "afterwards, without what goes")


def _drop(site: Table | None, found: Dependent) -> str | None:
    name = quoted(found.name or "")
    if found.kind == "publication relation" and site is not None:
        return f"ALTER PUBLICATION {name} DROP TABLE {site.sql}"
    if found.kind == "domain constraint":
        constraint, _, domain = found.identity.rpartition(" on ")
        return f"ALTER DOMAIN {domain} DROP CONSTRAINT IF EXISTS {constraint}"
    if found.kind in ("policy", "rule", "trigger") and site is not None:
        return f"DROP {found.kind.upper()} IF EXISTS {name} ON {site.sql}"
    if found.kind == "table constraint" and site is not None:
        return f"ALTER TABLE {site.sql} DROP CONSTRAINT IF EXISTS {name}"
    return f"DROP {_DROPPED[found.kind]} IF EXISTS {found.identity}" if found.kind in _DROPPED else None


def _inheriting(change: str, found: Dependent) -> Iterator[str]:
    yield f"{change} NO INHERIT {quoted(*found.table)};"
    yield "-- its columns stay, and are its own from then on"


def _default(site: Table, found: Dependent) -> Iterator[str]:
    column = site.column(found.name or "")
    if column is None:
        return
    change = f"ALTER TABLE {site.sql} ALTER COLUMN {quoted(column.name)}"
    if column.generated == "s":
        yield f"{change} DROP EXPRESSION;"
        yield f"-- the values stay, and are no longer computed as {column.default}"
    elif not column.generated:
        yield f"{change} DROP DEFAULT;"
        yield f"-- it is now {column.default}"
    else:
        yield f"ALTER TABLE {site.sql} DROP COLUMN {quoted(column.name)};"
        yield f"-- it holds no values of its own, and is computed as {column.default}"


# ----------------------------------------------------------------------------------------------- how an object is now


def anew(kind: str, statements: Iterable[str], when: str) -> Iterator[str]:
    """Yield, as comments, the statements that make an object as it is.

    Args:
        kind: the object's, as pg_identify_object names it.
        statements: without the semicolon at the end.
        when: and how to make it anew: `afterwards, without what goes`.
    """
    statements = list(statements)
    if not statements:
        yield f"-- and make the {kind} anew {when}"
        return
    yield f"-- and make the {kind} anew {when}; it is now:"
    if any(statement.startswith("SET LOCAL ") for statement in statements):
        statements = ["BEGIN", *statements, "COMMIT"]
    yield from (f"-- {line}" for statement in statements for line in f"{statement};".splitlines())


def present(snapshot: Snapshot, found: Dependent) -> tuple[str, ...]:
    """Return the statements that make an object as it is: definition, owner, grants, comment; none where not known."""
    site = snapshot.table(*found.owner) if found.owner else None
    if found.kind in ("function", "procedure"):
        own = next((each for each in snapshot.functions if each.identity == found.identity), None)
        if own is not None:
            return tuple(restore.function(own, snapshot.default_grantees))
    if found.kind == "index" and found.owner is not None:
        schema, name = found.owner
        indexes = ((table, each) for table in snapshot.tables if table.schema == schema for each in table.indexes)
        return tuple(line for table, each in indexes if each.name == name for line in restore.index(table, each))
    if site is not None:
        return tuple(_of_site(snapshot, site, found))
    return (found.definition,) if found.definition else ()


def _of_site(snapshot: Snapshot, site: Table, found: Dependent) -> Iterator[str]:
    """Yield what makes a view, or what sits on a table."""
    if found.kind == "view":
        yield from restore.view(site, snapshot.default_grantees)
    elif found.kind == "materialized view":
        yield from restore.materialized_view(site, snapshot.default_grantees, site.populated)
    elif found.kind == "policy":
        yield from (line for each in site.policies if each.name == found.name for line in restore.policy(site, each))
    elif found.kind == "rule":
        yield from (line for each in site.rules if each.name == found.name for line in restore.rule(site, each))
    elif found.kind == "trigger":
        yield from (line for each in site.triggers if each.name == found.name for line in restore.trigger(site, each))
    elif found.kind == "statistics object":
        yield from (line for each in site.statistics if each.name == found.name for line in restore.statistics(each))
    elif found.kind == "table constraint":
        own = (each for each in site.constraints if each.name == found.name)
        yield from (line for each in own for line in restore.constraint(site, each))
    elif found.kind == "publication relation":
        members = (each for each in site.memberships if each.name == found.name)
        yield from (line for each in members for line in restore.membership(site, each))
