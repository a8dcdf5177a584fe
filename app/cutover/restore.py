"""What was, as SQL that makes it again: one function a kind of object.

The promise: pure, and whole. Definition, owner, grants with who gave them, comments, storage, statistics targets and
whatever else pg_dump writes of an object come back; what a default privilege of the database would add does not stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from app.cutover.catalog import (
    Column,
    Constraint,
    ForeignKey,
    Function,
    Grant,
    Index,
    Membership,
    Policy,
    Rule,
    Statistics,
    Table,
    Trigger,
    literal,
    quoted,
)

AS_ROLE, AS_ONESELF = "SET LOCAL ROLE", "RESET ROLE"
"""Around what another role grants: nothing else stands between them."""
_MODES = {"D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS", "O": "ENABLE"}


def grants(
    kind: str, name: str, owner: str, given: Iterable[Grant] | None, others: Collection[str] = ()
) -> Iterator[str]:
    """Yield what gives a new object its privileges.

    Args:
        kind: TABLE (for views too), SEQUENCE, FUNCTION or PROCEDURE.
        name: the object as SQL.
        owner: the owner's name.
        given: its grants in their order; None where nothing was granted or revoked.
        others: roles, as SQL, to which the database's default privileges give something on a new object.
    """
    on = f"{kind} {name}"
    if given is None and not others:
        return
    fresh = dict.fromkeys(("PUBLIC", quoted(owner), *others))
    yield f"REVOKE ALL ON {on} FROM {', '.join(fresh)}"
    if given is None:
        if kind in ("FUNCTION", "PROCEDURE"):
            yield f"GRANT ALL ON {on} TO PUBLIC"
        yield f"GRANT ALL ON {on} TO {quoted(owner)}"
    for grant in given or ():
        yield from _as_grantor(grant, f"GRANT {grant.privileges} ON {on}")


def _as_grantor(grant: Grant, sql: str) -> Iterator[str]:
    statement = f"{sql} TO {grant.grantee}{' WITH GRANT OPTION' if grant.grantable else ''}"
    if grant.grantor is None:
        yield statement
    else:
        yield from (f"{AS_ROLE} {grant.grantor}", statement, AS_ONESELF)


def comment(on: str, text: str | None) -> Iterator[str]:
    """Yield what comments on an object."""
    if text is not None:
        yield f"COMMENT ON {on} IS {literal(text)}"


def _options(options: Iterable[str]) -> str:
    listed = _pairs(options)
    return f" WITH ({listed})" if listed else ""


def _pairs(options: Iterable[str]) -> str:
    pairs = (option.partition("=") for option in options)
    return ", ".join(f"{quoted(*name.split('.'))}={literal(value)}" for name, _, value in pairs)


# --------------------------------------------------------------------------------------------------------- relations


def view(table: Table, others: Collection[str] = (), but: Collection[str] = ()) -> Iterator[str]:
    """Yield what makes a view; its triggers and rules are made by themselves.

    Args:
        table: the view.
        others: see `grants`.
        but: columns whose defaults are set by themselves.
    """
    yield f"CREATE VIEW {table.sql}{_options(table.options)} AS\n{_query(table)}"
    yield f"ALTER VIEW {table.sql} OWNER TO {quoted(table.owner)}"
    for column in table.columns:
        if column.default is not None and column.name not in but:
            yield f"ALTER VIEW {table.sql} ALTER COLUMN {quoted(column.name)} SET DEFAULT {column.default}"
    yield from _relation(table, "VIEW", others)


def materialized_view(
    table: Table, others: Collection[str] = (), populated: bool = True, secured: bool = False
) -> Iterator[str]:
    """Yield what makes a materialized view with its indexes, and fills it as its owner would.

    Args:
        table: the materialized view.
        others: see `grants`.
        populated: whether it is to hold rows.
        secured: whether row security may hide rows from its owner, as it does for the app; the cutover itself runs
            where that is an error.
    """
    method = f" USING {quoted(table.access_method)}" if table.access_method else ""
    place = f" TABLESPACE {quoted(table.tablespace)}" if table.tablespace else ""
    yield (
        f"CREATE MATERIALIZED VIEW {table.sql}{method}{_options(table.options)}{place} AS\n"
        f"{_query(table)}\nWITH NO DATA"
    )
    yield f"ALTER MATERIALIZED VIEW {table.sql} OWNER TO {quoted(table.owner)}"
    for found in table.indexes:
        # one that failed to be built is of no use, and pg_dump leaves it out too
        if found.valid:
            yield from index(table, found)
    if table.replica_identity in "fn":
        yield f"ALTER TABLE {table.sql} REPLICA IDENTITY {'FULL' if table.replica_identity == 'f' else 'NOTHING'}"
    yield from _relation(table, "MATERIALIZED VIEW", others)
    if populated and secured:
        yield "SET LOCAL row_security = on"
    if populated:
        yield f"REFRESH MATERIALIZED VIEW {table.sql}"
    if populated and secured:
        yield "SET LOCAL row_security = off"


def _query(table: Table) -> str:
    return (table.definition or "").strip().removesuffix(";")


def _relation(table: Table, kind: str, others: Collection[str]) -> Iterator[str]:
    yield from comment(f"{kind} {table.sql}", table.comment)
    yield from (f"ALTER {kind} {table.sql} DEPENDS ON EXTENSION {name}" for name in table.extensions)
    yield from grants("TABLE", table.sql, table.owner, table.grants, others)
    for each in table.columns:
        yield from column(table, each)


def column(table: Table, column: Column) -> Iterator[str]:
    """Yield what a column of a table or view has beside its name, type, default and constraints."""
    change = f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(column.name)}"
    yield from storage(table, column)
    if column.options:
        yield f"{change} SET ({', '.join(column.options)})"
    if column.statistics is not None:
        yield f"{change} SET STATISTICS {column.statistics}"
    yield from comment(f"COLUMN {table.sql}.{quoted(column.name)}", column.comment)
    for grant in column.grants or ():
        each = ", ".join(f"{privilege} ({quoted(column.name)})" for privilege in grant.each)
        yield from _as_grantor(grant, f"GRANT {each} ON TABLE {table.sql}")


def storage(table: Table, column: Column) -> Iterator[str]:
    """Yield what a column forgets when its type changes."""
    change = f"ALTER TABLE {table.sql} ALTER COLUMN {quoted(column.name)}"
    if column.storage is not None:
        yield f"{change} SET STORAGE {column.storage}"
    if column.compression is not None:
        yield f"{change} SET COMPRESSION {column.compression}"


def index(table: Table, index: Index) -> Iterator[str]:
    """Yield what makes an index, and what its table says of it."""
    name = quoted(table.schema, index.name)
    yield index.definition
    if index.tablespace is not None:
        yield f"ALTER INDEX {name} SET TABLESPACE {quoted(index.tablespace)}"
    yield from index_statistics(table, index)
    yield from comment(f"INDEX {name}", index.comment)
    yield from chosen(table, index.name)


def index_statistics(table: Table, index: Index) -> Iterator[str]:
    """Yield what an index forgets when a column of its table changes its type."""
    name = quoted(table.schema, index.name)
    yield from (f"ALTER INDEX {name} ALTER COLUMN {each}" for each in index.statistics)
    yield from (f"ALTER INDEX {name} DEPENDS ON EXTENSION {each}" for each in index.extensions)


def index_options(name: str, own: Collection[str], others: Collection[str] = ()) -> Iterator[str]:
    """Yield what gives an index its storage parameters, in the place of others."""
    theirs = {option.partition("=")[0] for option in others} - {option.partition("=")[0] for option in own}
    if theirs:
        yield f"ALTER INDEX {name} RESET ({', '.join(quoted(each) for each in sorted(theirs))})"
    if own:
        yield f"ALTER INDEX {name} SET ({_pairs(own)})"


def constraint(table: Table, constraint: Constraint) -> Iterator[str]:
    """Yield what makes a constraint of a table's own."""
    yield f"ALTER TABLE {table.sql} ADD CONSTRAINT {quoted(constraint.name)} {constraint.definition}"
    yield from comment(f"CONSTRAINT {quoted(constraint.name)} ON {table.sql}", constraint.comment)
    index = quoted(table.schema, constraint.name)
    yield from index_options(index, constraint.options)
    if constraint.tablespace is not None:
        yield f"ALTER INDEX {index} SET TABLESPACE {quoted(constraint.tablespace)}"
    yield from comment(f"INDEX {index}", constraint.index_comment)
    yield from chosen(table, constraint.name)


def foreign_key(key: ForeignKey) -> Iterator[str]:
    """Yield what makes a foreign key."""
    table = quoted(*key.table)
    yield f"ALTER TABLE {table} ADD CONSTRAINT {quoted(key.name)} {key.addable}"
    yield from comment(f"CONSTRAINT {quoted(key.name)} ON {table}", key.comment)


def chosen(table: Table, index: str) -> Iterator[str]:
    """Yield what a table says of one of its indexes: that its rows are in that order, or told apart by it."""
    if table.cluster_index == index:
        yield f"ALTER TABLE {table.sql} CLUSTER ON {quoted(index)}"
    if table.replica_index == index:
        yield f"ALTER TABLE {table.sql} REPLICA IDENTITY USING INDEX {quoted(index)}"


# ----------------------------------------------------------------------------------------------------- all the others


def function(function: Function, others: Collection[str] = ()) -> Iterator[str]:
    """Yield what makes a function or procedure."""
    kind = function.kind.upper()
    # a body that is text may name what is not there yet, or is elsewhere in the search path
    yield "SET LOCAL check_function_bodies = off"
    yield function.definition
    yield f"ALTER {kind} {function.identity} OWNER TO {quoted(function.owner)}"
    yield from comment(f"{kind} {function.identity}", function.comment)
    yield from (f"ALTER {kind} {function.identity} DEPENDS ON EXTENSION {name}" for name in function.extensions)
    yield from grants(kind, function.identity, function.owner, function.grants, others)


def trigger(table: Table, trigger: Trigger) -> Iterator[str]:
    """Yield what makes a trigger, in the state it was in."""
    name = quoted(trigger.name)
    yield trigger.definition
    if trigger.enabled != "O":
        yield f"ALTER TABLE {table.sql} {_MODES[trigger.enabled]} TRIGGER {name}"
    yield from (f"ALTER TRIGGER {name} ON {table.sql} DEPENDS ON EXTENSION {each}" for each in trigger.extensions)
    yield from comment(f"TRIGGER {name} ON {table.sql}", trigger.comment)


def rule(table: Table, rule: Rule) -> Iterator[str]:
    """Yield what makes a rule, in the state it was in."""
    yield rule.definition.removesuffix(";")
    if rule.enabled != "O":
        yield f"ALTER TABLE {table.sql} {_MODES[rule.enabled]} RULE {quoted(rule.name)}"
    yield from comment(f"RULE {quoted(rule.name)} ON {table.sql}", rule.comment)


def policy(table: Table, policy: Policy) -> Iterator[str]:
    """Yield what makes a row-security policy."""
    yield policy.definition
    yield from comment(f"POLICY {quoted(policy.name)} ON {table.sql}", policy.comment)


def statistics(statistics: Statistics) -> Iterator[str]:
    """Yield what makes an extended statistics object; its numbers come with the next ANALYZE."""
    name = quoted(statistics.schema, statistics.name)
    yield statistics.definition
    yield f"ALTER STATISTICS {name} OWNER TO {quoted(statistics.owner)}"
    if statistics.target is not None:
        yield f"ALTER STATISTICS {name} SET STATISTICS {statistics.target}"
    yield from comment(f"STATISTICS {name}", statistics.comment)


def membership(table: Table, membership: Membership) -> Iterator[str]:
    """Yield what makes a table part of a publication."""
    columns = f" ({', '.join(quoted(name) for name in membership.columns)})" if membership.columns is not None else ""
    condition = f" WHERE ({membership.condition})" if membership.condition is not None else ""
    yield f"ALTER PUBLICATION {quoted(membership.name)} ADD TABLE ONLY {table.sql}{columns}{condition}"
