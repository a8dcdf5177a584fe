"""The journal: a table of our own that keeps what was done, who accepted what, the facts before, and the undo as SQL.

The promise: what `verify.py` compares with and what `shadow undo` runs was written in the transaction it speaks of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from app.cutover import restore, shapes
from app.cutover.catalog import JOURNAL, OWN_TABLES, VERSION_TABLE, Snapshot, Table, literal, quoted
from app.cutover.changes import RATE_LIMIT_ROWS, Changes, children, comes_along
from app.cutover.findings import Finding, Options, detached
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA, Layout
from app.cutover.signatures import USERS
from app.cutover.steps import Record, Step

KEPT_TABLES = (KEPT_COLUMNS, RATE_LIMIT_ROWS)
"""Tables of our own in RETIRED_SCHEMA."""


def creation(schema: str, snapshot: Snapshot, reader: str | None = None) -> Step:
    """Return the step that makes the journal.

    What undo runs is written there: nobody but who runs the cutover may write it, or could have anything run.

    Args:
        schema: where it is.
        snapshot: the catalogue.
        reader: who may read it, and Alembic's version table, where that is another than who runs this.
    """
    journal = quoted(schema, JOURNAL)
    ours = (journal, quoted(schema, VERSION_TABLE))
    return Step(
        f"the journal {journal} is made",
        (
            f"""CREATE TABLE IF NOT EXISTS {journal} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action text NOT NULL,
    at timestamp with time zone NOT NULL DEFAULT now(),
    operator text NOT NULL,
    role text NOT NULL DEFAULT session_user,
    accepted text[] NOT NULL,
    options jsonb NOT NULL,
    fingerprint text NOT NULL,
    before jsonb NOT NULL,
    undo jsonb NOT NULL
)""",
            f"COMMENT ON TABLE {journal} IS "
            "'What the cutover did, who ran and accepted it, and how it is undone. Kept for shadow verify.'",
            *(statement for table in ours for statement in kept_from_others(table, snapshot, reader)),
        ),
        undo=(f"DROP TABLE {journal}",),
        undone="it is dropped",
    )


def kept_from_others(table: str, snapshot: Snapshot, reader: str | None) -> Iterator[str]:
    """Yield what takes from a new table of our own the privileges that the database gives to others by default.

    Args:
        table: as SQL; it belongs to the role that looked.
        snapshot: the catalogue.
        reader: who may read it.
    """
    yield from restore.grants("TABLE", table, snapshot.role, None, snapshot.default_grantees)
    if reader is not None:
        yield f"GRANT SELECT ON {table} TO {quoted(reader)}"


def not_trusted(snapshot: Snapshot, schema: str) -> Iterator[Finding]:
    """Yield what keeps the role that looked from believing the journal: who could write it has less power.

    Whoever owns it decides what undo runs. So it is believed if it is of the role itself, or of a superuser.
    """
    ours = [table for name in (VERSION_TABLE, JOURNAL) if (table := snapshot.table(schema, name)) is not None]
    trusted = {snapshot.role, *snapshot.superusers}
    for owner in sorted({table.owner for table in ours} - trusted):
        names = [table.sql for table in ours if table.owner == owner]
        yield Finding(
            "journal-not-trusted",
            "refuse",
            names[0],
            f"{' and '.join(names)} belong{'s' if len(names) == 1 else ''} to {owner}, who could have written there "
            f"what {snapshot.role} is to run.",
            f"-- run it as {owner}, if the cutover was begun so; or look at what is written, and take it over:\n"
            + (f"SELECT action, at, role, undo FROM {quoted(schema, JOURNAL)};\n" if len(ours) > 1 else "")
            + "\n".join(f"ALTER TABLE {name} OWNER TO {quoted(snapshot.role)};" for name in names),
        )


def not_given(snapshot: Snapshot, schema: str) -> Iterator[Finding]:
    """Yield what keeps the role that looked from going on with, or back from, what another role did."""
    yield from not_trusted(snapshot, schema)
    # without the journal, what has such a name is not of the cutover
    names = OWN_TABLES if snapshot.table(schema, JOURNAL) is not None else (VERSION_TABLE,)
    ours = [table for name in names if (table := snapshot.table(schema, name)) is not None]
    ours += [table for name in KEPT_TABLES if (table := snapshot.table(RETIRED_SCHEMA, name)) is not None]
    if lacking := [table for table in ours if not table.owned]:
        by, role = lacking[0].owner, quoted(snapshot.role)
        retired = [f"ALTER SCHEMA {RETIRED_SCHEMA} OWNER TO {role};"] if RETIRED_SCHEMA in snapshot.schemas else []
        yield Finding(
            "missing-privileges",
            "refuse",
            lacking[0].sql,
            f"The cutover was run by {by}, to which {', '.join(table.sql for table in lacking)} belong: what undo runs "
            f"is written there, so that {snapshot.role} may only read it.",
            "\n".join(
                [f"-- run it as {by}; or, as {by}, hand it over:", *retired]
                + [f"ALTER TABLE {table.sql} OWNER TO {role};" for table in lacking]
            ),
        )


def entry(schema: str, record: Record, facts: str = "'{}'::jsonb") -> str:
    """Return the INSERT that records an action; `facts` is an SQL expression of type jsonb."""
    options = record.options
    chosen = {
        "keep": sorted(options.choices.keep),
        "map": {**options.choices.tables, **options.choices.columns},
        "detach": sorted(options.detach),
        "release": sorted(options.release),
        "compat_view": options.compat_view,
    }
    accepted = f"ARRAY[{', '.join(literal(code) for code in sorted(options.accept))}]::text[]"
    return (
        f"INSERT INTO {quoted(schema, JOURNAL)} (action, operator, accepted, options, fingerprint, before, undo)\n"
        f"SELECT {literal(record.action)}, {literal(record.operator)}, {accepted}, "
        f"{literal(json.dumps(chosen))}::jsonb, {literal(record.fingerprint)},\n{facts},\n"
        f"{literal(json.dumps(record.undo))}::jsonb"
    )


def chosen(connection: Connection, schema: str) -> dict[str, Any]:
    """Return the options that were recorded last, as `entry` wrote them: what was decided once holds on."""
    found = connection.exec_driver_sql(
        f"SELECT options FROM {quoted(schema, JOURNAL)} WHERE action IN ('adopt', 'retire') ORDER BY id DESC LIMIT 1"
    ).scalar_one_or_none()
    return found or {}


def recording(
    layout: Layout,
    record: Record,
    before: dict[str, Any],
    counted: Sequence[Table] = (),
    filled: Mapping[str, str] | None = None,
) -> Step:
    """Return the step that records an action, with the facts before it.

    Args:
        layout: where the journal and users are.
        record: the action.
        before: from `facts`.
        counted: the tables whose rows are counted, nobody waiting for it.
        filled: columns of the target that the action fills where they are null, and with what, as SQL.
    """
    told = literal(json.dumps(before, sort_keys=True)) + "::jsonb"
    if counted:
        counts = ", ".join(f"{literal(table.sql)}, (SELECT count(*) FROM {table.sql})" for table in counted)
        told += f" || jsonb_build_object('rows', jsonb_build_object({counts})"
        if layout.users is not None and "email" in layout.fields:
            names = {name: column.name for name, column in layout.fields.items()}
            told += f", 'ids', {hash_of_ids(layout.users.sql, names)}"
            told += f", 'mirrored', {hash_of_mirrored(layout.users.sql, names, filled)}"
        told += ")"
    return Step(
        "what is, who runs this and how it is undone is written to the journal",
        (entry(layout.schema, record, told),),
        rows=sum(max(table.rows, 0) for table in counted) or None,
    )


def count_of_retired(schema: str, moved: Mapping[str, str]) -> str:
    """Return the UPDATE that adds to the record of retire how many rows each retired table has: they are its last."""
    counts = ", ".join(f"{literal(table)}, (SELECT count(*) FROM {where})" for table, where in moved.items())
    return (
        f"UPDATE {quoted(schema, JOURNAL)} SET before = before || jsonb_build_object('retired_rows', "
        f"jsonb_build_object({counts})) WHERE id = (SELECT max(id) FROM {quoted(schema, JOURNAL)} "
        f"WHERE action = 'retire') AND NOT before ? 'retired_rows'"
    )


def counted(snapshot: Snapshot, layout: Layout) -> tuple[Table, ...]:
    """Return the tables whose rows are counted: users, what goes, and what refers to users."""
    users = layout.users
    if users is None:
        return ()
    tables = {table.key: table for table in (users, *layout.going)}
    for key in snapshot.keys_to(users.key):
        # a partition's rows are counted with the whole; the app may drop or detach it
        if not key.inherited and (table := snapshot.table(*key.table)) is not None and snapshot.sees(table):
            tables[table.key] = table
    return tuple(tables.values())


def facts(snapshot: Snapshot, layout: Layout, changes: Changes | None, options: Options) -> dict[str, Any]:
    """Return what `verify.py` compares with: the foreign keys one by one, what is to be gone, what has which name."""
    users = layout.users
    tables = [move.table for move in changes.moves] if changes else list(layout.going)
    going = {table.key for table in tables}
    gone = {column.name for column in changes.going} if changes else set()
    names = {move.table.key: move.name for move in changes.moves} if changes else {}
    moved = {quoted(*key): name for key, name in names.items()}
    renamed = dict(changes.renames) if changes else {}
    return {
        "users": None if users is None else users.sql,
        "target": quoted(layout.schema, USERS),
        "fields": {name: column.name for name, column in layout.fields.items()},
        "renames": renamed,
        "id_type": shapes.plain_type(layout.fields["id"]) if "id" in layout.fields else None,
        "roles": {
            role.name: {"table": names[role.table.key], "fields": dict(role.fields)}
            for role in layout.roles
            if role.table.key in going and role.table.key in names
        },
        "moved": {table: quoted(RETIRED_SCHEMA, name) for table, name in moved.items()},
        "going": [table.sql for table in tables],
        "going_columns": sorted(gone),
        # what undo changes back, with the names of afterwards: nothing that came since may rest on it
        "retyped": [
            [layout.schema, USERS, renamed.get(each.column.name, each.column.name)]
            if users is not None and each.table.key == users.key
            else [*each.table.key, each.column.name]
            for each in (changes.retypes if changes else ())
        ],
        # of each of them, and of what it is over where that is a domain: not every value of now need be one
        "types": [[each.column.type, shapes.plain_type(each.column)] for each in (changes.retypes if changes else ())],
        "defaults": sorted(_defaults(snapshot, layout, changes)) if changes else [],
        # with what each sits on, as that is called afterwards
        "carried": sorted(
            (each.kind, each.name or each.identity, *_afterwards(layout, each.owner))
            for each in (changes.carried if changes else ())
        ),
        "index_names": [
            *([layout.schema, name] for name in (_index_names(users, gone) if users is not None else ())),
            *([table.schema, name] for table in tables for name in _index_names(table, None)),
        ],
        "required_columns": [
            column.name
            for column in (users.columns if users else ())
            if column.name in gone and column.not_null and column.default is None and not column.generated
        ],
        "foreign_keys": [
            {
                "name": key.name,
                "table": quoted(*key.table),
                "target": quoted(*key.target),
                "definition": key.definition,
                "columns": key.columns,
                "target_columns": key.target_columns,
                "on_delete": key.on_delete,
                "validated": key.validated,
                "inherited": key.inherited,
                **({"violated": key.violated} if key.violated else {}),
                "goes": key.table in going
                or (key.target in going and (detached(key, options) or key.inherited))
                or (users is not None and key.table == users.key and bool(gone & set(key.columns))),
            }
            for key in snapshot.foreign_keys
            if not comes_along(snapshot, key)
        ],
    }


def _defaults(snapshot: Snapshot, layout: Layout, changes: Changes) -> Iterator[tuple[str, str, str, str]]:
    """Yield the default that a partition or child has for a column which changes its type, by its name of afterwards.

    PostgreSQL writes it alike before and afterwards: it is of the type that it is made of, and becomes the other.
    """
    renamed = dict(changes.renames)
    for each in changes.retypes:
        of_users = layout.users is not None and each.table.key == layout.users.key
        for table in children(snapshot, each.table):
            column = table.column(each.column.name)
            if column is not None and column.default is not None:
                yield *table.key, renamed.get(column.name, column.name) if of_users else column.name, column.default


def _afterwards(layout: Layout, owner: tuple[str, str] | None) -> tuple[str, ...]:
    """Return what a table is called once users has its name and place; nothing where there is none."""
    if owner is None:
        return ()
    return (layout.schema, USERS) if layout.users is not None and owner == layout.users.key else owner


def _index_names(table: Table, gone: set[str] | None) -> list[str]:
    """Return the names of the indexes of a table, or of those that go with some columns, and come back with them."""
    owned = [(each.name, each.columns) for each in table.constraints if each.kind in "pux"]
    every = [*owned, *((each.name, each.columns) for each in table.indexes)]
    return [name for name, columns in every if gone is None or gone & set(columns)]


def hash_of_ids(users: str, fields: Mapping[str, str]) -> str:
    """Return SQL that hashes the ids of all rows, whatever their order and type, to one number."""
    return _hash(users, f"{quoted(fields['id'])}::text")


def hash_of_mirrored(users: str, fields: Mapping[str, str], filled: Mapping[str, str] | None = None) -> str:
    """Return SQL that hashes what is mirrored from the provider, and who is soft-deleted, in all rows.

    Args:
        users: the table, as SQL.
        fields: column of the target to the table's own; one that is not there counts as null.
        filled: column of the target to what stands for null, as SQL; what is so to be filled is hashed as if it were.
    """

    def value(name: str, template: str) -> str:
        if name not in fields:
            return "NULL"
        own = quoted(fields[name])
        return template.format(f"coalesce({own}, {filled[name]})" if filled and name in filled else own)

    moment = "extract(epoch FROM {})"
    return _hash(
        users,
        ", ".join(
            (
                value("id", "{}::text"),
                value("name", "coalesce({}::text, '')"),
                value("email", "{}::text"),
                value("email_verified", "coalesce({}, false)"),
                value("image", "{}::text"),
                value("created_at", moment),
                value("deleted_at", moment),
            )
        ),
    )


def _hash(users: str, values: str) -> str:
    return f"(SELECT coalesce(sum(hashtextextended(ROW({values})::text, 0)::numeric), 0)::text FROM {users})"
