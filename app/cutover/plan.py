"""The plan: from a Snapshot to Steps, each with its SQL, the lock it takes, what that blocks, and how it is undone.

The promise: pure. The same Snapshot and the same options give the same SQL, nothing is touched to find out, and every
name in it is qualified. No statement here says CASCADE.

    adopt    adds the columns and tables the server needs            undone by dropping them
    retire   one transaction                                         undone from what it recorded
               1  writers wait, readers go on: values are copied, facts are counted
               2  readers wait too, for as long as the catalogue takes: tables move, columns go
    drop     drops what retire moved, object by object               cannot be undone
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from app.cutover.catalog import JOURNAL, Column, ForeignKey, Snapshot, Table, literal, quoted
from app.cutover.checks import ACTIONS, Action, Options, detached
from app.cutover.layout import KEPT_COLUMNS, RETIRED_SCHEMA, TARGET_COLUMNS, USERS, Layout

REVISIONS: dict[Action, str] = {"adopt": "0001_adopt", "retire": "0002_retire", "drop": "0003_drop"}

SESSION = {"row_security": "off", "TimeZone": "UTC", "standard_conforming_strings": "on"}
"""Run-time parameters of a connection that runs the cutover: a row that a policy hides is an error, not a row less, and
what is written as text reads the same whatever the role's own setting is."""
LOCK_TIMEOUT_MS = 500
STATEMENT_TIMEOUT_MS = 30 * 60 * 1000
IDLE_TIMEOUT_MS = 60 * 1000
SETTINGS = (
    f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}",
    f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}",
    f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}",
    *(f"SET LOCAL {name} = '{value}'" for name, value in SESSION.items()),
)
"""What each revision's transaction begins with."""

Lock = Literal["none", "SHARE", "ACCESS EXCLUSIVE"]
BLOCKS: dict[Lock, str] = {
    "none": "nobody waits",
    "SHARE": "writers wait, readers go on",
    "ACCESS EXCLUSIVE": "readers and writers wait",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done, in the transaction of its revision."""

    title: str
    sql: tuple[str, ...]
    lock: Lock = "none"
    on: tuple[str, ...] = ()
    """The tables that are locked."""
    undo: tuple[str, ...] = ()
    undone: str = "nothing to undo"
    """How it is undone, in words."""
    rows: int | None = None
    """Rows that are read or written; None where the number of rows does not matter."""
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What the journal keeps of an action."""

    action: str
    operator: str
    options: Options
    fingerprint: str
    undo: tuple[str, ...] = field(default=())


def steps_for(action: Action, snapshot: Snapshot, layout: Layout, options: Options, operator: str) -> tuple[Step, ...]:
    """Return the steps of one revision.

    Args:
        action: which revision.
        snapshot: the catalogue as it is, or as it was before the revisions planned ahead of this one.
        layout: who plays which role in it.
        options: what the person decided.
        operator: who runs it, for the journal.
    """
    if action == "adopt":
        return _adopt(snapshot, layout, options, operator)
    if action == "retire":
        return _retire(snapshot, layout, options, operator)
    return _drop(snapshot, layout, options, operator)


def _undo(steps: Iterable[Step]) -> tuple[str, ...]:
    return tuple(statement for step in reversed(tuple(steps)) for statement in step.undo)


# ------------------------------------------------------------------------------------------------------------- adopt


def _adopt(snapshot: Snapshot, layout: Layout, options: Options, operator: str) -> tuple[Step, ...]:
    journal = quoted(layout.schema, JOURNAL)
    steps = [
        Step(
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
            ),
            undo=(f"DROP TABLE {journal}",),
            undone="it is dropped",
        )
    ]
    if layout.users is None:
        steps.append(_create_users(layout.schema))
    else:
        steps += _add_columns(layout.users)
    record = Record("adopt", operator, options, snapshot.fingerprint, _undo(steps))
    # the server may be new, and so may be the table: there is nothing to count before it exists
    return (*steps, _record(layout, record, _before(snapshot, layout, options), counted=()))


def _create_users(schema: str) -> Step:
    users = quoted(schema, USERS)
    columns = ",\n".join(f"    {name} {type_} {rest}".rstrip() for name, (type_, rest) in TARGET_COLUMNS.items())
    return Step(
        f"{users} is made",
        (f"CREATE TABLE {users} (\n{columns}\n)",),
        undo=(f"DROP TABLE {users}",),
        undone="it is dropped, unless it holds rows",
    )


def _add_columns(users: Table) -> Iterator[Step]:
    missing = [name for name in TARGET_COLUMNS if users.column(name) is None]
    if missing:
        added = ", ".join(f"ADD COLUMN {name} {' '.join(TARGET_COLUMNS[name]).rstrip()}" for name in missing)
        dropped = ", ".join(f"DROP COLUMN {name}" for name in reversed(missing))
        yield Step(
            f"users gains {', '.join(missing)}",
            (f"ALTER TABLE {users.sql} {added}",),
            "ACCESS EXCLUSIVE",
            (users.sql,),
            undo=(f"ALTER TABLE {users.sql} {dropped}",),
            undone="the columns are dropped",
        )
    for name, default in (("email_verified", "false"), ("created_at", "now()"), ("updated_at", "now()")):
        column = users.column(name)
        if column is not None and column.default is None:
            yield Step(
                f"users.{name} gains its default",
                (f"ALTER TABLE {users.sql} ALTER COLUMN {name} SET DEFAULT {default}",),
                "ACCESS EXCLUSIVE",
                (users.sql,),
                undo=(f"ALTER TABLE {users.sql} ALTER COLUMN {name} DROP DEFAULT",),
                undone="the default is dropped",
            )


# ------------------------------------------------------------------------------------------------------------ retire


def _retire(snapshot: Snapshot, layout: Layout, options: Options, operator: str) -> tuple[Step, ...]:
    users, going = layout.users, layout.going
    columns = [column for column in users.columns if _goes(column.name, layout)] if users else []
    id_default = users.column("id") if users else None
    if users is None or not (going or columns or (id_default and id_default.default)):
        record = Record("retire", operator, options, snapshot.fingerprint)
        return (_record(layout, record, _before(snapshot, layout, options), counted=_counted(snapshot, layout)),)
    locked = tuple(table.sql for table in (users, *going))
    changes = [
        *_detach(snapshot, layout, options),
        *(step for table in going for step in _move(snapshot, table, layout)),
        *_shrink(snapshot, users, columns, layout),
    ]
    keeping = [
        Step(
            f"the schema {RETIRED_SCHEMA} is made",
            (f"CREATE SCHEMA {RETIRED_SCHEMA}",),
            undo=(f"DROP SCHEMA {RETIRED_SCHEMA}",),
            undone="it is dropped, empty",
        ),
        *_keep_values(users, columns),
    ]
    moved = tuple(quoted(RETIRED_SCHEMA, table.name) for table in going)
    first = f"LOCK TABLE {', '.join((users.sql, *moved))} IN ACCESS EXCLUSIVE MODE"
    record = Record("retire", operator, options, snapshot.fingerprint, (first, *_undo((*keeping, *changes))))
    return (
        Step(
            "writers wait while values are copied and facts counted",
            (f"LOCK TABLE {', '.join(locked)} IN SHARE MODE",),
            "SHARE",
            locked,
        ),
        *keeping,
        _record(layout, record, _before(snapshot, layout, options), counted=_counted(snapshot, layout)),
        Step(
            "readers wait too, from here to the end of the transaction",
            (f"LOCK TABLE {', '.join(locked)} IN ACCESS EXCLUSIVE MODE",),
            "ACCESS EXCLUSIVE",
            locked,
        ),
        *changes,
    )


def _goes(name: str, layout: Layout) -> bool:
    return any(column.name == name for column in layout.going_columns)


def _keep_values(users: Table, columns: Sequence[Column]) -> Iterator[Step]:
    if not columns:
        return
    kept = quoted(RETIRED_SCHEMA, KEPT_COLUMNS)
    names = ", ".join(quoted(column.name) for column in columns)
    yield Step(
        f"the values of {len(columns)} columns are kept in {kept}",
        (
            f"CREATE TABLE {kept} AS SELECT id, {names} FROM {users.sql}",
            f"ALTER TABLE {kept} ADD PRIMARY KEY (id)",
        ),
        undo=(f"DROP TABLE {kept}",),
        undone="it is dropped after the values are back",
        rows=max(users.rows, 0),
        bytes=users.size,
    )


def _detach(snapshot: Snapshot, layout: Layout, options: Options) -> Iterator[Step]:
    going = [table.key for table in layout.going]
    for key in snapshot.keys_to(*going):
        if key.table not in going and detached(key, options):
            yield Step(
                f"{key.name} on {quoted(*key.table)} is detached",
                (f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)}",),
                "ACCESS EXCLUSIVE",
                (quoted(*key.table), quoted(*key.target)),
                undo=(*_catch_up(key), *_add_key(key)),
                undone="the constraint is added again",
            )


def _add_key(key: ForeignKey) -> Iterator[str]:
    table, name = quoted(*key.table), quoted(key.name)
    yield f"ALTER TABLE {table} ADD CONSTRAINT {name} {key.definition}"
    if key.comment is not None:
        yield f"COMMENT ON CONSTRAINT {name} ON {table} IS {literal(key.comment)}"


def _move(snapshot: Snapshot, table: Table, layout: Layout) -> Iterator[Step]:
    going = [other.key for other in layout.going]
    keys = [key for key in snapshot.keys_from(table.key) if key.target not in going]
    moved = quoted(RETIRED_SCHEMA, table.name)
    restored = [f"ALTER TABLE {moved} SET SCHEMA {quoted(table.schema)}"]
    for key in keys:
        restored += _catch_up(key)
        restored += _add_key(key)
    dropped = ", ".join(f"DROP CONSTRAINT {quoted(key.name)}" for key in keys)
    yield Step(
        f"{table.sql} moves to {RETIRED_SCHEMA}",
        (
            *((f"ALTER TABLE {table.sql} {dropped}",) if keys else ()),
            f"ALTER TABLE {table.sql} SET SCHEMA {RETIRED_SCHEMA}",
        ),
        "ACCESS EXCLUSIVE",
        (table.sql, *sorted({quoted(*key.target) for key in keys})),
        undo=tuple(restored),
        undone="it moves back, and its foreign keys are added again",
    )


def _catch_up(key: ForeignKey) -> Iterator[str]:
    """What the foreign key would have done, had it stood, when a row it refers to was deleted meanwhile."""
    given = " AND ".join(f"r.{quoted(column)} IS NOT NULL" for column in key.columns)
    pairs = zip(key.columns, key.target_columns, strict=True)
    same = " AND ".join(f"t.{quoted(target)} = r.{quoted(column)}" for column, target in pairs)
    lost = f"{given} AND NOT EXISTS (SELECT FROM {quoted(*key.target)} t WHERE {same})"
    if not key.validated:
        return
    if key.on_delete == "c":
        yield f"DELETE FROM {quoted(*key.table)} r WHERE {lost}"
    elif key.on_delete == "n":
        emptied = ", ".join(f"{quoted(column)} = NULL" for column in key.columns)
        yield f"UPDATE {quoted(*key.table)} r SET {emptied} WHERE {lost}"


def _shrink(snapshot: Snapshot, users: Table, columns: Sequence[Column], layout: Layout) -> Iterator[Step]:
    id_column = users.column("id")
    if id_column is not None and id_column.default is not None:
        yield Step(
            "users.id loses its default: the provider makes ids",
            (f"ALTER TABLE {users.sql} ALTER COLUMN id DROP DEFAULT",),
            "ACCESS EXCLUSIVE",
            (users.sql,),
            undo=(f"ALTER TABLE {users.sql} ALTER COLUMN id SET DEFAULT {id_column.default}",),
            undone="the default is set again",
        )
    if not columns:
        return
    names = {column.name for column in columns}
    before: list[str] = []
    after: list[str] = []
    for key in snapshot.keys_from(users.key):
        if names & set(key.columns):
            before.append(f"ALTER TABLE {users.sql} DROP CONSTRAINT {quoted(key.name)}")
            after += _add_key(key)
    for constraint in users.constraints:
        if names & set(constraint.columns):
            before.append(f"ALTER TABLE {users.sql} DROP CONSTRAINT {quoted(constraint.name)}")
            after.append(f"ALTER TABLE {users.sql} ADD CONSTRAINT {quoted(constraint.name)} {constraint.definition}")
            if constraint.comment is not None:
                on = f"CONSTRAINT {quoted(constraint.name)} ON {users.sql}"
                after.append(f"COMMENT ON {on} IS {literal(constraint.comment)}")
    for index in users.indexes:
        if names & set(index.columns):
            before.append(f"DROP INDEX {quoted(users.schema, index.name)}")
            after.append(index.definition)
            name = quoted(users.schema, index.name)
            after += [f"ALTER INDEX {name} ALTER COLUMN {each}" for each in index.statistics]
            if index.comment is not None:
                after.append(f"COMMENT ON INDEX {name} IS {literal(index.comment)}")
    gone = {item.name for item in users.constraints if names & set(item.columns)}
    gone |= {item.name for item in users.indexes if names & set(item.columns)}
    if users.replica_index in gone:
        # without this, updates of a published table would fail as soon as the index is gone
        before.insert(0, f"ALTER TABLE {users.sql} REPLICA IDENTITY DEFAULT")
        after.append(f"ALTER TABLE {users.sql} REPLICA IDENTITY USING INDEX {quoted(str(users.replica_index))}")
    if users.cluster_index in gone:
        after.append(f"ALTER TABLE {users.sql} CLUSTER ON {quoted(str(users.cluster_index))}")
    dropped = ", ".join(f"DROP COLUMN {quoted(column.name)}" for column in columns)
    yield Step(
        f"users loses {', '.join(column.name for column in columns)}",
        (*before, f"ALTER TABLE {users.sql} {dropped}"),
        "ACCESS EXCLUSIVE",
        (users.sql,),
        undo=(*_restore_columns(users, columns), *after),
        undone="columns, values, defaults, constraints, indexes, comments and grants come back",
    )


def _restore_columns(users: Table, columns: Sequence[Column]) -> Iterator[str]:
    table, kept = users.sql, quoted(RETIRED_SCHEMA, KEPT_COLUMNS)
    yield f"ALTER TABLE {table} {', '.join(f'ADD COLUMN {_column(column)}' for column in columns)}"
    stored = [quoted(column.name) for column in columns if not column.generated]
    if stored:
        pairs = ", ".join(f"{name} = k.{name}" for name in stored)
        quiet, loud = _hushed(users, {column.name for column in columns})
        yield from quiet
        yield f"UPDATE {table} u SET {pairs} FROM {kept} k WHERE k.id = u.id"
        yield from loud
    for column in columns:
        name = quoted(column.name)
        named = any(found.kind == "n" and column.name in found.columns for found in users.constraints)
        if column.not_null and not named:
            yield f"ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL"
        if column.storage is not None:
            yield f"ALTER TABLE {table} ALTER COLUMN {name} SET STORAGE {column.storage}"
        if column.compression is not None:
            yield f"ALTER TABLE {table} ALTER COLUMN {name} SET COMPRESSION {column.compression}"
        if column.options:
            yield f"ALTER TABLE {table} ALTER COLUMN {name} SET ({', '.join(column.options)})"
        if column.statistics is not None:
            yield f"ALTER TABLE {table} ALTER COLUMN {name} SET STATISTICS {column.statistics}"
        if column.comment is not None:
            yield f"COMMENT ON COLUMN {table}.{name} IS {literal(column.comment)}"
        for privilege in column.privileges:
            kind, _, rest = privilege.partition(" TO ")
            yield f"GRANT {kind} ({name}) ON TABLE {table} TO {rest}"


def _hushed(users: Table, going: set[str]) -> tuple[list[str], list[str]]:
    """Return what silences, and what restores, all that an UPDATE of users would set off or run into.

    Nobody changes these rows: triggers and rules of the app's must not see it, and a row that violates a NOT VALID
    check, which holds for changes only, must not be in the way.
    """
    table = users.sql
    modes = {"O": "ENABLE", "A": "ENABLE ALWAYS"}
    quiet, loud = [], []
    for kind, what in (("TRIGGER", users.triggers), ("RULE", users.rules)):
        for item in what:
            if item.enabled in modes:
                quiet.append(f"ALTER TABLE {table} DISABLE {kind} {quoted(item.name)}")
                loud.append(f"ALTER TABLE {table} {modes[item.enabled]} {kind} {quoted(item.name)}")
    for check in users.constraints:
        if check.kind in "cn" and check.definition.endswith(" NOT VALID") and not going & set(check.columns):
            quiet.append(f"ALTER TABLE {table} DROP CONSTRAINT {quoted(check.name)}")
            loud.append(f"ALTER TABLE {table} ADD CONSTRAINT {quoted(check.name)} {check.definition}")
            if check.comment is not None:
                loud.append(f"COMMENT ON CONSTRAINT {quoted(check.name)} ON {table} IS {literal(check.comment)}")
    return quiet, loud


def _column(column: Column) -> str:
    parts = [quoted(column.name), column.type]
    if column.collation is not None:
        parts.append(f"COLLATE {column.collation}")
    if column.generated:
        parts.append(f"GENERATED ALWAYS AS ({column.default}) {'VIRTUAL' if column.generated == 'v' else 'STORED'}")
    elif column.default is not None:
        parts.append(f"DEFAULT {column.default}")
    return " ".join(parts)


# -------------------------------------------------------------------------------------------------------------- drop


def _drop(snapshot: Snapshot, layout: Layout, options: Options, operator: str) -> tuple[Step, ...]:
    record = Record("drop", operator, options, snapshot.fingerprint)
    steps = [_record(layout, record, _before(snapshot, layout, options), counted=())]
    going = layout.going
    keys = tuple(table.key for table in going)
    among = [key for key in snapshot.keys_from(*keys) if key.target in keys and key.target != key.table]
    if among:
        steps.append(
            Step(
                "foreign keys among the retired tables are dropped",
                tuple(
                    f"ALTER TABLE {quoted(RETIRED_SCHEMA, key.table[1])} DROP CONSTRAINT {quoted(key.name)}"
                    for key in among
                ),
                "ACCESS EXCLUSIVE",
                tuple(sorted({quoted(RETIRED_SCHEMA, name) for key in among for _, name in (key.table, key.target)})),
                undone="cannot be undone: restore it from the backup",
            )
        )
    for table in going:
        moved = quoted(RETIRED_SCHEMA, table.name)
        steps.append(
            Step(
                f"{moved} is dropped",
                (f"DROP TABLE {moved}",),
                "ACCESS EXCLUSIVE",
                (moved,),
                undone="cannot be undone: restore it from the backup",
                rows=max(table.rows, 0),
                bytes=table.size,
            )
        )
    if layout.going_columns or snapshot.table(RETIRED_SCHEMA, KEPT_COLUMNS):
        kept = quoted(RETIRED_SCHEMA, KEPT_COLUMNS)
        gone = "cannot be undone: restore it from the backup"
        steps.append(Step(f"{kept} is dropped", (f"DROP TABLE {kept}",), "ACCESS EXCLUSIVE", (kept,), undone=gone))
    if len(steps) > 1 or RETIRED_SCHEMA in snapshot.schemas:
        steps.append(Step(f"the schema {RETIRED_SCHEMA} is dropped", (f"DROP SCHEMA {RETIRED_SCHEMA}",)))
    return tuple(steps)


# ----------------------------------------------------------------------------------------------------------- journal


def _counted(snapshot: Snapshot, layout: Layout) -> tuple[Table, ...]:
    """The tables whose rows are counted: users, what goes, and what refers to users."""
    users = layout.users
    if users is None:
        return ()
    tables = {table.key: table for table in (users, *layout.going)}
    for key in snapshot.keys_to(users.key):
        if (table := snapshot.table(*key.table)) is not None and table.readable:
            tables[table.key] = table
    return tuple(tables.values())


def _before(snapshot: Snapshot, layout: Layout, options: Options) -> dict[str, Any]:
    """What `verify.py` compares with: the foreign keys one by one, and what is to be gone."""
    going = {table.key for table in layout.going}
    users = layout.users
    return {
        "users": None if users is None else users.sql,
        "roles": {role.name: role.table.name for role in layout.roles if role.name != USERS},
        "going": [table.sql for table in layout.going],
        "going_columns": [column.name for column in layout.going_columns],
        "required_columns": [
            column.name
            for column in (users.columns if users else ())
            if _goes(column.name, layout) and column.not_null and column.default is None and not column.generated
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
                "goes": key.table in going
                or (key.target in going and (detached(key, options) or key.inherited))
                or (users is not None and key.table == users.key and any(_goes(name, layout) for name in key.columns)),
            }
            for key in snapshot.foreign_keys
        ],
    }


def fingerprint_of_rows(users: str, columns: str) -> str:
    """Return SQL that hashes columns of all rows, whatever their order, to one number."""
    return f"(SELECT coalesce(sum(hashtextextended(ROW({columns})::text, 0)::numeric), 0)::text FROM {users})"


IDS = "id"
MIRRORED = "id, name, email, email_verified, image, extract(epoch FROM created_at)"


def _record(layout: Layout, record: Record, before: dict[str, Any], counted: Sequence[Table]) -> Step:
    facts = literal(json.dumps(before, sort_keys=True)) + "::jsonb"
    if counted:
        counts = ", ".join(f"{literal(table.sql)}, (SELECT count(*) FROM {table.sql})" for table in counted)
        facts += f" || jsonb_build_object('rows', jsonb_build_object({counts})"
        if layout.users is not None and layout.users.column("image"):
            facts += f", 'ids', {fingerprint_of_rows(layout.users.sql, IDS)}"
            facts += f", 'mirrored', {fingerprint_of_rows(layout.users.sql, MIRRORED)}"
        facts += ")"
    return Step(
        "what is, who runs this and how it is undone is written to the journal",
        (journal_entry(layout.schema, record, facts),),
        rows=sum(max(table.rows, 0) for table in counted) or None,
    )


def journal_entry(schema: str, record: Record, facts: str = "'{}'::jsonb") -> str:
    """Return the INSERT that records an action; `facts` is an SQL expression of type jsonb."""
    options = record.options
    chosen = {
        "keep": sorted(options.choices.keep),
        "map": dict(options.choices.tables),
        "detach": sorted(options.detach),
    }
    accepted = f"ARRAY[{', '.join(literal(code) for code in sorted(options.accept))}]::text[]"
    return (
        f"INSERT INTO {quoted(schema, JOURNAL)} (action, operator, accepted, options, fingerprint, before, undo)\n"
        f"SELECT {literal(record.action)}, {literal(record.operator)}, {accepted}, "
        f"{literal(json.dumps(chosen))}::jsonb, {literal(record.fingerprint)},\n{facts},\n"
        f"{literal(json.dumps(record.undo))}::jsonb"
    )


# ---------------------------------------------------------------------------------------------------------- template


def auther_template(schema: str) -> Snapshot:
    """Return Auther's template layout as a Snapshot, for SQL that is written without a database (`--sql`)."""

    def column(name: str, type_: str, rest: str = "") -> Column:
        default = rest.partition("DEFAULT ")[2] or None
        return Column(name, type_, "NOT NULL" in rest, default, "", "", None, None, (), None)

    def table(name: str, *columns: Column) -> Table:
        return Table(schema, name, "r", "", True, True, -1, 0, None, None, False, False, columns)

    text, moment, key = "text", "timestamp with time zone", "character varying(255)"
    dated = (
        column("created_at", moment, "NOT NULL DEFAULT now()"),
        column("updated_at", moment, "NOT NULL DEFAULT now()"),
    )
    owner = column("user_id", key, "NOT NULL")
    identity = column("id", key, "NOT NULL")
    tables = (
        table(
            USERS,
            identity,
            *(column(n, *TARGET_COLUMNS[n]) for n in ("name", "email", "email_verified", "image")),
            *dated,
            column("status", text, "NOT NULL DEFAULT 'active'::text"),
            column("deactivated_at", moment),
            column("deactivated_by", key),
            column("deactivated_reason", text),
            column("failed_login_attempts", "integer", "NOT NULL DEFAULT 0"),
            column("locked_until", moment),
            column("role_slugs", "text[]", "NOT NULL DEFAULT '{}'::text[]"),
            column("onboarding_completed_at", moment),
            column("two_factor_enabled", "boolean", "NOT NULL DEFAULT false"),
        ),
        table("sessions", identity, column("token", text), column("expires_at", moment), owner),
        table("accounts", identity, column("account_id", text), column("provider_id", text), owner),
        table(
            "verifications", identity, column("identifier", text), column("value", text), column("expires_at", moment)
        ),
        table("jwks", identity, column("public_key", text), column("private_key", text)),
        table("two_factors", identity, column("secret", text), column("backup_codes", text), owner),
    )
    keys = tuple(
        ForeignKey(
            f"{name}_user_id_users_id_fk", (schema, name), ("user_id",), (schema, USERS), ("id",),
            f"FOREIGN KEY (user_id) REFERENCES {quoted(schema, USERS)}(id) ON DELETE CASCADE",
            "a", "c", True, True, None, False,
        )
        for name in ("accounts", "sessions", "two_factors")
    )  # fmt: skip
    return Snapshot("", 0, "", True, True, (schema,), (schema,), tables, keys)


def pending(current: str | None, target: Action) -> tuple[Action, ...]:
    """Return the actions between the revision a database is at and the one it is to reach."""
    done = next((index + 1 for index, action in enumerate(ACTIONS) if REVISIONS[action] == current), 0)
    return ACTIONS[done : ACTIONS.index(target) + 1]
