"""Objects of the database that depend on what goes, or would go along with it unsaid."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from app.cutover import beside
from app.cutover.catalog import Constraint, Dependent, Function, Index, Table, quoted
from app.cutover.findings import Finding, Situation
from app.cutover.flags import flag
from app.cutover.layout import is_beside
from app.cutover.names import with_suffix
from app.cutover.release import named, removals
from app.cutover.rules.by_hand import anew, by_hand
from app.cutover.rules.keys import indexes_that_include_going_columns


def dependents(at: Situation) -> Iterator[Finding]:
    """Views, functions, policies and whatever else reads a table or column that goes."""
    users = at.layout.users
    grouped: dict[tuple[str, str], list[Dependent]] = {}
    # the view that adopt made goes too, with whatever was built on it since
    views = {table.key for table in at.snapshot.tables if is_beside(table)}
    for found in at.objects.dependents:
        of_table = found.table in at.going
        of_users = users is not None and found.table == users.key and bool(at.going_columns)
        of_column = of_users and found.column in at.going_columns
        # a child table, or a column of the row type of users, would lose columns along with it
        of_shape = of_users and found.column is None and found.kind in ("table", "table column")
        if (of_table or of_column or of_shape or found.table in views) and not _goes_along(found, at):
            grouped.setdefault((found.kind, found.identity), []).append(found)
    released = {(found.kind, found.identity) for found in _released(at)}
    for (kind, identity), reasons in grouped.items():
        if (kind, identity) in released:
            continue
        what = sorted({_what(reason, at) for reason in reasons})
        yield Finding(
            f"dependent-{kind.replace(' ', '-')}",
            "refuse",
            identity,
            f"The {kind} {identity} depends on {', '.join(what)}, which "
            f"{'go' if len(what) > 1 else 'goes'}; dropping it would break or take the {kind}.",
            _removal(at, reasons[0]),
        )


def put_on_the_view(at: Situation) -> Iterator[Finding]:
    """What somebody put on the view that stands beside the old app's table has no place on the table."""
    changes = at.changes
    view = beside.standing(at.snapshot, changes) if changes is not None and changes.beside else None
    if view is not None and (found := beside.put_on(view)):
        yield Finding(
            "beside-view-changed",
            "warn",
            view.sql,
            f"The view {view.sql} of adopt has something of its own since: {', '.join(found)}. It goes with the view, "
            "and comes back with undo.",
            "-- nothing to do, unless the server needs it: a table cannot have it as it is",
        )


def released_objects(at: Situation) -> Iterator[Finding]:
    """What --release takes out of the way, with everything that depends on it."""
    for removal in removals(at.objects, _released(at)):
        restricts = removal.kind == "policy"
        yield Finding(
            "object-released",
            "warn" if restricts else "info",
            removal.identity,
            f"The {removal.kind} {removal.identity} is taken out of the way; its definition is kept."
            + (
                " Rows that it hides, or changes that it forbids, are no longer hidden or forbidden."
                if restricts
                else ""
            ),
            "-- shadow undo restores it",
        )


def _released(at: Situation) -> list[Dependent]:
    if at.layout.kind == "retired":
        return []  # with drop there is no undo for which a definition could be kept
    return [found for name in sorted(at.options.release) for found in named(at.objects, name)]


def _goes_along(found: Dependent, at: Situation) -> bool:
    """Whether the object sits on a table that goes, or is the default of the very column that goes."""
    if found.owner in at.going:
        return True
    users = at.layout.users
    if found.kind == "default value" and users is not None and found.owner == users.key:
        return found.name in at.going_columns
    return False


def _what(reason: Dependent, at: Situation) -> str:
    if reason.table in at.going:
        return quoted(*reason.table)
    return f"{quoted(*reason.table)}.{reason.column}" if reason.column else f"columns of {quoted(*reason.table)}"


def _removal(at: Situation, found: Dependent) -> str:
    """Return what takes the object out of the way and no row of the app's with it; what depends on it goes before."""
    ways = removals(at.objects, [found])
    if not ways:
        return by_hand(at.objects, found)
    others = [way.identity for way in ways if (way.kind, way.identity) != (found.kind, found.identity)]
    along = f", and those of {', '.join(others)}, which depend on it" if others else ""
    kept = [sql for way in reversed(ways) for sql in way.restore]
    drops = "\n".join(f"{sql};" for way in ways for sql in way.drop)
    out = "\n".join([drops, *(anew(found.kind, kept, "without what goes") if kept else ())])
    if at.layout.kind == "retired":
        return out
    return f"{flag('release', found.identity)}\n-- keeps its definition{along} for undo. Or take it out by hand:\n{out}"


def sequences_of_going_columns(at: Situation) -> Iterator[Finding]:
    """A sequence that a column owns is dropped with it, and undo could not tell where it stood."""
    users = at.layout.users
    for found in at.objects.dependents if users else ():
        if users is None or found.kind != "default value" or (found.owner, found.table) != (users.key, users.key):
            continue
        column = users.column(found.name or "")
        if column is None or column.name not in at.going_columns or found.column is not None:
            continue
        owned = next((each for each in at.snapshot.sequences if each.owned_by == (users.key, column.name)), None)
        if owned is None:
            continue
        sequence = owned.sql
        yield Finding(
            "column-owns-sequence",
            "refuse",
            f"users.{column.name}",
            f"users.{column.name}, which goes, owns the sequence {sequence}, which would go with it for good.",
            f"ALTER SEQUENCE {sequence} OWNED BY NONE;",
        )
    for column in users.columns if users else ():
        if column.identity and column.name in at.going_columns and users is not None:
            yield Finding(
                "column-owns-sequence",
                "refuse",
                f"users.{column.name}",
                f"users.{column.name}, which goes, is an identity column; its sequence would go with it for good.",
                f"ALTER TABLE {users.sql} ALTER COLUMN {quoted(column.name)} DROP IDENTITY;",
            )


def names_collide(at: Situation) -> Iterator[Finding]:
    """Indexes of one name in two schemas: the schema that both tables move to has room for one."""
    seen: dict[str, str] = {}
    every = {each.name for each in at.snapshot.tables}
    every |= {name for table in at.snapshot.tables for name in _index_names(table)}
    for move in at.changes.moves if at.changes else ():
        for name in _index_names(move.table):
            if name in seen:
                every.add(apart := with_suffix(f"{move.table.schema}_{name}", "", every))
                yield Finding(
                    "index-name-taken",
                    "refuse",
                    f"{move.table.sql} {quoted(name)}",
                    f"{move.table.sql} and {seen[name]} both have an index {quoted(name)}, and move to one schema.",
                    f"ALTER INDEX {quoted(move.table.schema, name)} RENAME TO {quoted(apart)};",
                )
            seen.setdefault(name, move.table.sql)
    users, changes = at.layout.users, at.changes
    if users is None or changes is None or users.schema == changes.schema:
        return
    there = [table for table in at.snapshot.tables if table.schema == changes.schema and not is_beside(table)]
    taken = {name: table.sql for table in there for name in _index_names(table)}
    for name in _index_names(users):
        if name in taken:
            every.add(apart := with_suffix(f"{users.schema}_{name}", "", every))
            yield Finding(
                "index-name-taken",
                "refuse",
                f"{users.sql} {quoted(name)}",
                f"{users.sql}, which moves to the schema {changes.schema}, has an index {quoted(name)}, and so has "
                f"{taken[name]} there.",
                f"ALTER INDEX {quoted(users.schema, name)} RENAME TO {quoted(apart)};",
            )


def _index_names(table: Table) -> list[str]:
    owned = [constraint.name for constraint in table.constraints if constraint.kind in "pux"]
    return [*owned, *(index.name for index in table.indexes)]


def replica_identity(at: Situation) -> Iterator[Finding]:
    """An index over a column that goes may be how subscribers tell the rows of users apart."""
    yield from published_without_identity(at)
    users = at.layout.users
    if users is None or users.replica_index is None:
        return
    over: list[Constraint | Index] = [*users.constraints, *users.indexes]
    for found in over:
        if found.name == users.replica_index and set(found.columns) & at.going_columns:
            yield Finding(
                "replica-identity",
                "warn",
                users.sql,
                f"The replica identity of users is the index {found.name} over a column that goes; it becomes the "
                "primary key.",
                "-- nothing to do: shadow undo restores it",
            )


def published_without_identity(at: Situation) -> Iterator[Finding]:
    """Where a publication has changes of rows that nothing tells apart, PostgreSQL refuses every UPDATE or DELETE."""
    users, limits = at.layout.users, at.layout["rate_limits"]
    for table, changes in ((users, "ud"), (limits, "d")):
        if table is None or not set(changes) & set(table.published_changes) or _told_apart(table):
            continue
        published = ", ".join((*table.publications, *table.broad_publications))
        if table.replica_identity == "n":
            how = "with REPLICA IDENTITY NOTHING"
        elif table.replica_identity == "i":
            how = "and the index that was its replica identity is gone"
        else:
            how = "and has no primary key that tells its rows apart"
        # NOTHING is set aside while the cutover itself changes rows
        breaks = "every UPDATE of it, the server's among them" if table is users else "to delete its rows of sessions"
        yield Finding(
            "replica-identity",
            "warn" if table.replica_identity == "n" else "refuse",
            table.sql,
            f"{table.sql} is published ({published}) {how}: PostgreSQL refuses {breaks}.",
            _identity(table, at.going_columns if table is users else ()),
        )


def _told_apart(table: Table) -> bool:
    """Whether subscribers can tell the rows of a table apart."""
    if table.replica_identity == "i":
        return table.replica_index is not None
    return table.replica_identity == "f" or (table.replica_identity == "d" and _primary_key(table))


def _primary_key(table: Table) -> bool:
    return any(each.kind == "p" and " DEFERRABLE" not in each.definition for each in table.constraints)


def _identity(table: Table, going: Collection[str]) -> str:
    """Return what gives a table a replica identity: the least that subscribers need."""
    change = f"ALTER TABLE {table.sql} REPLICA IDENTITY"
    if _primary_key(table):
        return f"{change} DEFAULT;"
    required = {column.name for column in table.columns if column.not_null and column.name not in going}
    for each in table.constraints:
        if each.kind == "u" and set(each.columns) <= required and " DEFERRABLE" not in each.definition:
            return f"{change} USING INDEX {quoted(each.name)};"
    return f"{change} FULL;\n-- or, which costs subscribers less, give it a primary key"


def functions(at: Situation) -> Iterator[Finding]:
    """Function bodies are text to PostgreSQL: one that reads a column which is gone fails when it is next called."""
    users = at.layout.users
    if users is None:
        return
    renamed = {own for own, _ in at.changes.renames} if at.changes else set()
    written = [each for each in at.changes.retypes if each.rewrites] if at.changes else []
    given = {(found.kind, found.identity) for found in _released(at)}
    # a parameter of the row type of users says as much as its name would
    routines = [found for found in at.objects.dependents if found.kind in ("function", "procedure")]
    of_rows = {found.identity for found in routines if found.table == users.key and found.column is None}
    for function in at.snapshot.functions:
        if function.trigger_on and all(table in at.going for table in function.trigger_on):
            continue
        if (function.kind, function.identity) in given:
            continue
        text = _Text(function.source)
        triggers = {
            f"{quoted(trigger.name)} on {table.sql}": table
            for table in at.snapshot.tables
            if table.key in function.trigger_on and table.key not in at.going
            for trigger in table.triggers
            if trigger.function == function.identity
            and ("trigger", f"{quoted(trigger.name)} on {table.sql}") not in given
        }
        about = {users.key} if text.names(users.name) else set()
        about |= {table.key for table in triggers.values()}
        about |= {users.key} if function.identity in of_rows else set()
        mentioned = [table.sql for table in at.layout.going if text.names(table.name)]
        if at.changes is not None and at.changes.moves_users and text.names(users.name):
            mentioned.append(users.sql)
        if users.key in about:
            gone = sorted(name for name in at.going_columns | renamed if text.names(name))
            mentioned += [f"users.{quoted(name)}" for name in gone]
        mentioned += [
            f"{each.table.sql}.{quoted(each.column.name)}, which becomes text"
            for each in written
            if text.names(each.column.name) and (each.table.key in about or text.names(each.table.name))
        ]
        if not mentioned:
            continue
        used = [*(f"the trigger {trigger}" for trigger in triggers), *used_by(function)]
        breaks = "it may fail when it is next called"
        if triggers:
            tables = sorted({table.sql for table in triggers.values()})
            breaks = f"every change of {' and '.join(tables)} that sets it off may fail"
        release = "".join(
            f"\n-- or take the trigger out; undo restores it:\n{flag('release', trigger)}" for trigger in triggers
        )
        release += "".join(
            f"\n-- or take the {found.kind} out; undo restores it:\n{flag('release', found.identity)}"
            for found in function.dependents
            if found.kind in ("policy", "rule")
        )
        by = f", used by {', '.join(used)}," if used else ""
        yield Finding(
            "function-body",
            "refuse" if used else "warn",
            function.identity,
            f"The body of {function.identity}{by} mentions {'; '.join(dict.fromkeys(mentioned))}. Afterwards {breaks}.",
            f"\\ef {function.identity}\n-- and rewrite it without them; if it only uses the words:\n"
            f"--accept function-body{release}",
        )


def used_by(function: Function) -> Iterator[str]:
    """Yield what calls a function whenever rows are read or written: policies, defaults, constraints."""
    for found in function.dependents:
        if found.kind in ("policy", "default value", "table constraint", "domain constraint", "rule"):
            yield f"the {found.kind} {found.identity}"


class _Text:
    """The words of a function's body as PostgreSQL reads them: case counts in quotes only."""

    def __init__(self, source: str) -> None:
        bare = re.sub(r"--[^\n]*|/\*.*?\*/", "", source, flags=re.DOTALL)
        self._quoted = {name.replace('""', '"') for name in re.findall(r'"((?:[^"]|"")+)"', bare)}
        self._words = {word.lower() for word in re.findall(r"[A-Za-z_]\w*", re.sub(r'"(?:[^"]|"")+"', " ", bare))}

    def names(self, name: str) -> bool:
        """Whether a name is there; one that must be quoted counts in quotes alone."""
        return name in self._quoted or (quoted(name) == name and name in self._words)


def constraints_over_going_columns(at: Situation) -> Iterator[Finding]:
    """DROP COLUMN silently takes multi-column constraints and indexes along."""
    users = at.layout.users
    if users is None:
        return
    yield from indexes_that_include_going_columns(at)
    for constraint in users.constraints:
        gone, stay = _divided(constraint.columns, at)
        if gone and stay:
            yield Finding(
                "constraint-spans-column",
                "refuse",
                f"{users.sql} {constraint.name}",
                f"The constraint {constraint.name} on users, {constraint.definition}, covers {', '.join(gone)}, which "
                f"goes, and {', '.join(stay)}, which stays; it goes with the column.",
                _kept_or_accepted(gone),
            )
    for index in users.indexes:
        gone, stay = _divided(index.columns, at)
        if gone and stay:
            yield Finding(
                "constraint-spans-column" if index.unique else "index-spans-column",
                "refuse" if index.unique else "warn",
                f"{users.sql} {index.name}",
                f"The index {index.name} on users covers {', '.join(gone)}, which goes, and {', '.join(stay)}, which "
                "stays; it goes with the column, and undo restores it.",
                (f"{_kept_or_accepted(gone)}\n" if index.unique else "") + f"-- it is now: {index.definition};",
            )


def _kept_or_accepted(names: Iterable[str]) -> str:
    flags = " ".join(flag("keep", f"users.{name}") for name in names)
    return f"{flags}\n-- or\n--accept constraint-spans-column"


def _divided(columns: Iterable[str], at: Situation) -> tuple[list[str], list[str]]:
    names = sorted(columns)
    return [n for n in names if n in at.going_columns], [n for n in names if n not in at.going_columns]


def publications(at: Situation) -> Iterator[Finding]:
    """A table that is dropped leaves its publications without a word."""
    released = {found.identity for found in _released(at)}
    for table in at.layout.going:
        for publication in table.publications:
            member = f"{table.sql} in publication {publication}"
            if member in released:
                continue
            yield Finding(
                "publication",
                "refuse",
                table.sql,
                f"{table.sql}, which goes, is part of the publication {publication}; its subscribers would stop "
                "hearing of it without notice.",
                _leaving(table, publication, member),
            )
    broad: dict[str, list[str]] = {}
    for table in at.layout.going:
        for publication in table.broad_publications:
            broad.setdefault(publication, []).append(table.sql)
    for publication, tables in broad.items():
        yield Finding(
            "publication-of-everything",
            "warn",
            publication,
            f"The publication {publication} takes whatever tables there are, {', '.join(tables)} among them; its "
            "subscribers hear no more of these.",
            "-- drop those tables at the subscribers, or leave them there as they are",
        )


def _leaving(table: Table, publication: str, member: str) -> str:
    """Return what takes a table out of a publication; undo can put it back where the publication is the role's own."""
    leaving = f"ALTER PUBLICATION {quoted(publication)} DROP TABLE ONLY {table.sql};"
    for each in table.memberships:
        if each.name == publication and not each.owned:
            return f"-- as {each.owner}, to which the publication belongs:\n{leaving}"
    return f"{leaving}\n-- or, so that undo restores it:\n{flag('release', member)}"
