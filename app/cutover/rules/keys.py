"""Foreign keys of the app's own: into what goes, along with what goes, and to the addresses that change."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from app.cutover import census, restore
from app.cutover.catalog import ForeignKey, Table, quoted
from app.cutover.findings import Finding, Level, Situation, detached
from app.cutover.flags import flag


def foreign_keys_into_going_tables(at: Situation) -> Iterator[Finding]:
    """A foreign key of the app's own into a table that goes: a CASCADE would silently drop it."""
    for key in at.snapshot.keys_to(*at.going):
        if key.table in at.going or key.inherited:
            continue
        where = f"{quoted(*key.table)} ({', '.join(key.columns)})"
        short = f"{key.table[0]}.{key.table[1]}.{key.columns[0]}"
        if detached(key, at.options):
            yield Finding(
                "foreign-key-detached",
                "info",
                where,
                f"{key.name} on {where} refers to {quoted(*key.target)}, which goes; the constraint is dropped, "
                "the column and its values stay.",
                "-- shadow undo restores it",
            )
        else:
            yield Finding(
                "foreign-key-into-auth-table",
                "refuse",
                where,
                f"{key.name} on {where} refers to {quoted(*key.target)}, which goes.",
                f"{flag('detach', short)}\n-- drops that one constraint, and keeps the column and its values. Or:\n"
                f"{by_its_owner(at, key)}"
                f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)};",
            )


def foreign_keys_into_going_columns(at: Situation) -> Iterator[Finding]:
    """A foreign key of the app's own to a column of users that goes."""
    users = at.layout.users
    for key in at.snapshot.keys_to(users.key) if users else ():
        if not key.inherited and (gone := set(key.target_columns) & at.going_columns):
            column = ", ".join(sorted(gone))
            yield Finding(
                "foreign-key-into-column",
                "refuse",
                quoted(*key.table),
                f"{key.name} on {quoted(*key.table)} refers to users ({column}), which goes.",
                " ".join(flag("keep", f"users.{name}") for name in sorted(gone)),
            )


def indexes_that_include_going_columns(at: Situation) -> Iterator[Finding]:
    """What is unique in users and merely includes a column that goes would go with it, and foreign keys rest on it."""
    users = at.layout.users
    if users is None:
        return
    for constraint in users.constraints:
        gone = at.going_columns & set(constraint.included)
        if gone and not at.going_columns & set(constraint.columns):
            resting = _resting(at, users, {*constraint.columns, *constraint.included})
            change = f"ALTER TABLE {users.sql} DROP CONSTRAINT {quoted(constraint.name)}"
            again = replace(constraint, definition=_without(constraint.definition, gone))
            yield _includes(at, constraint.name, gone, resting, [change, *restore.constraint(users, again)])
    for index in users.indexes:
        gone = at.going_columns & set(index.columns)
        resting = _resting(at, users, set(index.columns)) if index.unique else []
        if gone and resting and not any(gone & set(key.target_columns) for key in resting):
            change = f"DROP INDEX {quoted(users.schema, index.name)}"
            anew = replace(index, definition=_without(index.definition, gone))
            yield _includes(at, index.name, gone, resting, [change, *restore.index(users, anew)])


_NAME = r'(?:"(?:[^"]|"")*"|[^"(), ]+)'
_INCLUDED = re.compile(rf" INCLUDE \((?P<names>{_NAME}(?:, {_NAME})*)\)")


def _without(definition: str, gone: Collection[str]) -> str:
    """Return the definition of an index or constraint that no longer includes some columns."""

    def kept(found: re.Match[str]) -> str:
        names = [name for name in re.findall(_NAME, found["names"]) if _plain(name) not in gone]
        return f" INCLUDE ({', '.join(names)})" if names else ""

    return _INCLUDED.sub(kept, definition, count=1)


def _plain(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _resting(at: Situation, users: Table, columns: set[str]) -> list[ForeignKey]:
    """Return the foreign keys that rest on an index of users over these columns, those included too."""
    return [key for key in at.snapshot.keys_to(users.key) if not key.inherited and set(key.rests_on) == columns]


def _includes(
    at: Situation, name: str, gone: Collection[str], resting: list[ForeignKey], change: Iterable[str]
) -> Finding:
    """Return the finding about an index, with what makes it anew as it was but for the columns that go.

    It is one transaction: a published table without its replica identity would refuse every UPDATE meanwhile.
    """
    users = at.layout.users.sql if at.layout.users else ""
    drops = [f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)}" for key in resting]
    again = [statement for key in resting for statement in restore.foreign_key(key)]
    owners = list(dict.fromkeys(whose for key in resting if (whose := by_its_owner(at, key))))
    rests = ", ".join(f"{key.name} on {quoted(*key.table)}" for key in resting)
    statements = ["BEGIN", *drops, *change, *again, "COMMIT"]
    alone = [_ONE_AFTER_ANOTHER] if any(key.on_update != "c" for key in resting) else []
    return Finding(
        "index-includes-column",
        "refuse",
        f"{users} {name}",
        f"The unique index {name} on users includes {', '.join(sorted(gone))}, which goes, and would go with it"
        + (f"; on it rests {rests}." if rests else "."),
        "".join(owners) + "\n".join([*(f"{statement};" for statement in statements), *alone]),
    )


def foreign_keys_of_going_columns(at: Situation) -> Iterator[Finding]:
    """A column that goes takes its own foreign key along; undo restores both."""
    users = at.layout.users
    for key in at.snapshot.keys_from(users.key) if users else ():
        if gone := set(key.columns) & at.going_columns:
            yield Finding(
                "foreign-key-of-column",
                "info",
                f"users.{', '.join(sorted(gone))}",
                f"{key.name} on users goes with its column {', '.join(sorted(gone))}.",
                "-- shadow undo restores both",
            )


def foreign_keys_to_email(at: Situation) -> Iterator[Finding]:
    """A foreign key to users(email) that does not follow updates: a changed address would be refused."""
    users = at.layout.users
    email = at.layout.fields["email"].name if "email" in at.layout.fields else ""
    for key in at.snapshot.keys_to(users.key) if users else ():
        follows = key.on_update == "c" or key.table in at.going or key.inherited or not key.enforced
        if email in key.target_columns and not follows:
            yield Finding(
                "foreign-key-to-email",
                "refuse",
                f"{quoted(*key.table)} ({', '.join(key.columns)})",
                f"{key.name} on {quoted(*key.table)} refers to users ({quoted(email)}) without ON UPDATE CASCADE; when "
                f"a user's address changes at the provider, {_instead(at, key, email)}.",
                by_its_owner(at, key) + "\n".join(_made_to_follow(at, key)),
            )


def _made_to_follow(at: Situation, key: ForeignKey) -> Iterator[str]:
    """Yield what makes a foreign key anew with ON UPDATE CASCADE; what takes it out, where none can have that."""
    change = f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)}"
    if computed := _generated(at, key):
        yield f"{change};"
        yield f"-- {computed}, into which no foreign key can carry a change; it is now:"
        yield from (f"-- {line}" for each in restore.foreign_key(key) for line in f"{each};".splitlines())
        return
    _, *others = restore.foreign_key(key)
    yield f"{change}, ADD CONSTRAINT {quoted(key.name)} {_following(key.addable)};"
    yield from (f"{each};" for each in others)
    if set(key.rests_on) & at.going_columns:
        yield _ONE_AFTER_ANOTHER


_ONE_AFTER_ANOTHER = "-- and then, before anything else is pasted that makes this foreign key anew:\n-- shadow plan"
"""Two findings may each print one as it is now: pasted after a change of it, the second would take that back."""


def _generated(at: Situation, key: ForeignKey) -> str | None:
    """Return what the first generated column of a foreign key is computed as, in words; None where there is none."""
    table = at.snapshot.table(*key.table)
    columns = (table.column(name) for name in key.columns) if table is not None else ()
    found = next((column for column in columns if column is not None and column.generated), None)
    return None if found is None else f"{quoted(found.name)} is computed as {found.default}"


def _instead(at: Situation, key: ForeignKey, email: str) -> str:
    """Return what PostgreSQL does, by ON UPDATE, when an address changes that rows refer to."""
    table = at.snapshot.table(*key.table)
    columns = [column for name in key.columns if (column := table.column(name) if table else None)]
    own = ", ".join(map(quoted, key.columns))
    # a default of none is null
    emptied = key.on_update == "n" or (key.on_update == "d" and all(column.default is None for column in columns))
    if emptied and not any(column.not_null for column in columns):
        return f"the database would set {own} of the rows that refer to it to null: they would belong to nobody"
    if key.on_update == "d" and not emptied:
        return (
            f"the database would set {own} of the rows that refer to it to the default: they would belong to another, "
            f"or, where users has no such {quoted(email)}, it would refuse it"
        )
    return "the database would refuse it"


def by_its_owner(at: Situation, key: ForeignKey) -> str:
    """Return who must alter the table, as a comment before the SQL, where that is not the role that looked."""
    table = at.snapshot.table(*key.table)
    return f"-- as {table.owner}, to which the table belongs:\n" if table is not None and not table.owned else ""


_ACTION = r"(?:NO ACTION|RESTRICT|CASCADE|SET (?:NULL|DEFAULT)(?: \([^)]*\))?)"
_ACTIONS = re.compile(
    rf"(?: ON UPDATE {_ACTION})?"
    rf"(?P<rest>(?: ON DELETE {_ACTION})?(?: DEFERRABLE)?(?: INITIALLY DEFERRED)?(?: NOT VALID)?)\Z"
)


def _following(definition: str) -> str:
    """Return a foreign key's definition with ON UPDATE CASCADE."""
    return _ACTIONS.sub(lambda found: f" ON UPDATE CASCADE{found['rest']}", definition, count=1)


def foreign_keys_that_ignore_case(at: Situation) -> Iterator[Finding]:
    """What citext took for the same is not the same as text."""
    for (table, name), count in at.census.recased.items():
        key = next(each for each in at.snapshot.keys_from(table) if each.name == name)
        pairs = [(quoted(own), quoted(there)) for own, there in zip(key.columns, key.target_columns, strict=True)]
        yield Finding(
            "foreign-key-case",
            "refuse",
            f"{quoted(*table)} ({', '.join(key.columns)})",
            f"{count:,} values of {quoted(*table)} ({', '.join(key.columns)}) differ in case from what {name} refers "
            f"to in {quoted(*key.target)}; citext takes them for the same, and text, which it becomes, does not.",
            f"UPDATE {at.snapshot.rows_of(key)} r SET {', '.join(f'{own} = t.{there}' for own, there in pairs)}\n"
            f"FROM {quoted(*key.target)} t WHERE {' AND '.join(f't.{there} = r.{own}' for own, there in pairs)}\n"
            f"AND ({' OR '.join(f't.{there}::text <> r.{own}::text' for own, there in pairs)});",
        )


def unvalidated_foreign_keys(at: Situation) -> Iterator[Finding]:
    """NOT VALID keys are kept as they are."""
    users = at.layout.users
    for key in at.snapshot.keys_to(users.key) if users else ():
        if not key.validated and key.enforced and not key.inherited:
            count = at.census.orphans.get((key.table, key.name), 0)
            yield Finding(
                "foreign-key-not-valid",
                "warn",
                quoted(*key.table),
                f"{key.name} on {quoted(*key.table)} is NOT VALID, and {count:,} rows violate it; it is kept as it is.",
                f"-- once the rows are mended, if you like:\n"
                f"ALTER TABLE {quoted(*key.table)} VALIDATE CONSTRAINT {quoted(key.name)};",
            )


def violated_foreign_keys(at: Situation) -> Iterator[Finding]:
    """Rows that violate a validated key already, as `pg_restore --disable-triggers` may leave them."""
    changing = at.changes if "retire" in at.actions else None
    for key in at.snapshot.foreign_keys:
        if not (count := at.census.violated.get((key.table, key.name))):
            continue
        where = quoted(*key.table)
        fact = (
            f"{count:,} rows of {where} ({', '.join(map(quoted, key.columns))}) violate {key.name}, which refers to "
            f"{quoted(*key.target)} and is validated"
        )
        rows = f"FROM {at.snapshot.rows_of(key)} r WHERE {census.violating(at.snapshot, key)};"
        if changing is not None and census.made_anew(changing, key):
            again = "retire adds it again, over ids of another type, and PostgreSQL would refuse that"
            yield _violated(where, "refuse", f"{fact}: {again}.", _without_validation(at, key, rows))
        elif changing is None or not _goes(at, key):
            yield _violated(where, "warn", f"{fact}: it is kept as it is.", f"SELECT * {rows}  -- lists them")
        elif _may_be_not_valid(at, key):
            message = f"{fact}: it goes with retire, and shadow undo brings it back NOT VALID."
            yield _violated(where, "warn", message, f"SELECT * {rows}  -- lists them")
        else:
            message = f"{fact}: it goes with retire, and shadow undo could not bring it back."
            yield _violated(where, "refuse", message, _without_validation(at, key, rows))


def _violated(where: str, level: Level, message: str, remedy: str) -> Finding:
    return Finding("foreign-key-violated", level, where, message, remedy)


def _goes(at: Situation, key: ForeignKey) -> bool:
    """Whether retire drops a key: one of the tables it is between goes, or one of its columns."""
    of_users = at.layout.users is not None and key.table == at.layout.users.key
    columns = set(key.columns) & at.going_columns if of_users else set()
    return bool(columns) or (key.table in at.going) != (key.target in at.going)


def _may_be_not_valid(at: Situation, key: ForeignKey) -> bool:
    """Whether PostgreSQL knows such a key NOT VALID: before 18, none of a partitioned table is."""
    table = at.snapshot.table(*key.table)
    return at.snapshot.version >= 180000 or table is None or table.kind != "p"


def _without_validation(at: Situation, key: ForeignKey, rows: str) -> str:
    """Return what lets a key be added again: that it is NOT VALID, or, where it cannot be, that no row violates it."""
    deleted = f"DELETE {rows}"
    if not _may_be_not_valid(at, key):
        return f"{deleted}  -- if they are not needed"
    change = f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)}"
    _, *others = restore.foreign_key(key)
    made = [
        f"{change}, ADD CONSTRAINT {quoted(key.name)} {key.definition} NOT VALID;",
        *(f"{each};" for each in others),
    ]
    return by_its_owner(at, key) + "\n".join(
        [*made, f"-- which keeps the rows; or, if they are not needed:\n-- {deleted}"]
    )
