"""What stands in the way of new types and names, and what they mean for who uses the tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from app.cutover import aside, estimate, filling
from app.cutover.catalog import Column, Table, quoted
from app.cutover.changes import Changes, Retype, children
from app.cutover.findings import Finding, Situation
from app.cutover.flags import flag
from app.cutover.layout import is_beside
from app.cutover.rehearsal import EVENT_TRIGGER
from app.cutover.release import named, removals
from app.cutover.rules.by_hand import anew, by_hand, present
from app.cutover.rules.keys import by_its_owner
from app.cutover.rules.users import is_unique
from app.cutover.shapes import stand_in
from app.cutover.signatures import USERS, normalised


def beside_the_old_app(at: Situation) -> Iterator[Finding]:
    """Whether the server can run while the old app does."""
    changes = at.changes
    if changes is None or "adopt" not in at.actions:
        return
    if changes.rewritten:
        yield Finding(
            "no-dual",
            "info",
            changes.users.sql,
            f"{changes.users.sql}.id is {changes.fields['id'].type}, so that the server cannot run beside the old app: "
            "it starts after retire.",
            "-- AUTH_MODE=idp, after retire",
        )
    else:
        filled = {column.name: column for column in changes.going if column.not_null and column.default is None}
        for name, column in sorted(filled.items()):
            yield Finding(
                "required-until-retire",
                "warn",
                f"{changes.users.sql}.{quoted(name)}",
                f"{changes.users.sql}.{quoted(name)} is NOT NULL without a default; until retire takes it, only the "
                "old app can insert users.",
                f"ALTER TABLE {changes.users.sql} ALTER COLUMN {quoted(name)} SET DEFAULT "
                f"{stand_in(column, distinct=is_unique(changes.users, name))};",
            )


def view_is_there(at: Situation) -> Iterator[Finding]:
    """The view that adopt made, should something have dropped it since."""
    changes = at.changes
    if changes is None or not changes.beside or at.actions[:1] != ("retire",):
        return
    if not any(is_beside(table) for table in at.snapshot.tables):
        yield Finding(
            "view-missing",
            "refuse",
            changes.users.sql,
            f"The view users that 0001_adopt made over {changes.users.sql} is gone.",
            "shadow undo\n-- takes back what is left of adopt; then begin again",
        )


def ids_are_rewritten(at: Situation) -> Iterator[Finding]:
    """A uuid or number id becomes text in every row of users and of what refers to it, behind a closed door."""
    changes = at.changes
    written = [each for each in changes.retypes if each.rewrites] if changes else []
    if changes is None or not written:
        return
    tables = {each.table.key: each.table for each in written}
    seconds = sum(estimate.rewriting(table) for table in tables.values())
    seconds += estimate.validation(at.snapshot, changes.keys)
    rows = sum(at.census.rows.get(key, max(table.rows, 0)) for key, table in tables.items())
    tables_of = "1 table" if len(tables) == 1 else f"{len(tables)} tables"
    time = f"about {seconds:,.1f} s" if seconds >= 0.1 else "less than 0.1 s"
    yield Finding(
        "ids-rewritten",
        "warn",
        changes.users.sql,
        f"{', '.join(f'{each.table.sql}.{quoted(each.column.name)}' for each in written)} "
        f"{'become' if len(written) > 1 else 'becomes'} {written[0].type}: about {rows:,} rows are written anew, and "
        f"readers and writers of {tables_of} wait for {time} (at "
        f"{estimate.REWRITTEN_ROWS_PER_SECOND:,} rows a second).",
        "-- choose an hour in which that can be borne",
    )


def partition_keys(at: Situation) -> Iterator[Finding]:
    """PostgreSQL changes no type of a column that decides a row's partition, in the whole or in a part."""
    changes = at.changes
    changing = {
        (table.key, each.column.name) for each in (changes.retypes if changes else ()) for table in _whole(at, each)
    }
    if changes is not None:
        changing |= {(changes.users.key, column.name) for column in changes.fields.values()}
    for each in changes.retypes if changes else ():
        tables = _whole(at, each)
        divided = next((table for table in tables if each.column.name in table.partition_key), None)
        if divided is None:
            continue
        name = quoted(each.column.name)
        leading = [
            key
            for key in at.snapshot.keys_from(*(table.key for table in tables))
            for own, there in zip(key.columns, key.target_columns, strict=True)
            if not key.inherited and own == each.column.name and (key.target, there) in changing
        ]
        drops = (
            f"{by_its_owner(at, key)}ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)};\n"
            for key in leading
        )
        again = "\n".join(f"-- {quoted(*key.table)}: {key.definition}" for key in leading)
        yield Finding(
            "partition-key",
            "refuse",
            divided.sql,
            f"{divided.sql} is partitioned by {name}, which refers to users and must become {each.type}; "
            "PostgreSQL does not change the type of a partition key.",
            f"{''.join(drops)}-- the table is then left as it is. {name} stays {each.column.type}, into which ids of "
            f"users who come later may not fit.\n-- When you have made it anew with {name} as {each.type}, after "
            f"retire, add again what was\n{again}",
        )


def _whole(at: Situation, retype: Retype) -> tuple[Table, ...]:
    """Return the table of which a column changes its type, with its partitions and what inherits from it."""
    return retype.table, *children(at.snapshot, retype.table)


def typed_tables(at: Situation) -> Iterator[Finding]:
    """The columns of a table that was made OF a type are the type's."""
    changes = at.changes
    changed = {each.table.key: each.table for each in changes.retypes} if changes else {}
    if changes is not None and (changes.going or changes.renames or "adopt" in at.actions):
        changed[changes.users.key] = changes.users
    for table in changed.values():
        if table.typed:
            yield Finding(
                "typed-table",
                "refuse",
                table.sql,
                f"{table.sql} was made OF a composite type; PostgreSQL changes no column of it, and one must change.",
                f"ALTER TABLE {table.sql} NOT OF;\n-- the columns stay, and are its own from then on",
            )


def objects_over_new_types(at: Situation) -> Iterator[Finding]:
    """Objects over columns that change type step aside and come back; some cannot."""
    changes = at.changes
    if changes is None:
        return
    given = {(found.kind, found.identity) for name in at.options.release for found in named(at.objects, name)}
    complained = {(each.kind, each.identity) for each in at.complaints}
    possible = {(each.kind, each.identity) for each in removals(at.objects, changes.carried)}
    for found in changes.carried:
        if (found.kind, found.identity) in given | complained:
            continue
        what = f"{quoted(*found.table)}.{quoted(found.column)}" if found.column else f"rows of {quoted(*found.table)}"
        retype = next((r for r in changes.retypes if r.column.name == found.column), None)
        becomes = f"which becomes {retype.type if retype else 'text'}" if found.column else "whose columns change type"
        if (found.kind, found.identity) in possible:
            yield Finding(
                "object-steps-aside",
                "info",
                found.identity,
                f"The {found.kind} {found.identity} reads {what}, {becomes}; "
                "it is dropped and made again as it was in the same transaction.",
                f"-- if it is not to come back:\n{flag('release', found.identity)}",
            )
        else:
            yield Finding(
                f"dependent-{found.kind.replace(' ', '-')}",
                "refuse",
                found.identity,
                f"The {found.kind} {found.identity} depends on {what}, which changes its type.",
                by_hand(at.objects, found),
            )
    yield from _identities(at, changes)
    changed = {(each.table.key, each.column.name) for each in changes.retypes}
    tables = {table.key for each in changes.retypes for table in _whole(at, each)}
    for found in at.objects.dependents:
        if (found.kind, found.identity) in given or found.owner in at.going:
            continue
        table = at.snapshot.table(*found.owner) if found.owner else None
        column = table.column(found.name or "") if table else None
        if found.kind == "default value" and (found.table, found.column) in changed and column and column.generated:
            yield _generated(found.identity, table, column, found.column or "")
        if found.kind == "table column" and found.table in tables and found.column is None and table and column:
            yield Finding(
                "dependent-table-column",
                "refuse",
                found.identity,
                f"{table.sql}.{quoted(column.name)} is of the row type of {quoted(*found.table)}, whose columns change "
                "their types.",
                by_hand(at.objects, found),
            )


def _identities(at: Situation, changes: Changes) -> Iterator[Finding]:
    """A column that refers to ids and counts by itself: no text is an identity."""
    for each in changes.retypes:
        for table in _whole(at, each):
            column, above = table.column(each.column.name), [at.snapshot.table(*key) for key in table.parents]
            is_id = (table.key, each.column.name) == (changes.users.key, changes.fields["id"].name)
            # a partition has the identity of the whole, and loses it with that
            is_part = table.partition_bound is not None and any(
                whole is not None and (own := whole.column(each.column.name)) and own.identity for whole in above
            )
            if column is not None and column.identity and not is_id and not is_part:
                name = quoted(column.name)
                yield Finding(
                    "dependent-default-value",
                    "refuse",
                    f"{table.sql}.{name}",
                    f"{table.sql}.{name} refers to users and is an identity column; it becomes {each.type}, which "
                    "counts nothing.",
                    f"ALTER TABLE {table.sql} ALTER COLUMN {name} DROP IDENTITY;\n"
                    "-- whoever inserts a row says from then on to whom it belongs",
                )


def what_does_not_follow(at: Situation) -> Iterator[Finding]:
    """What was rehearsed over the new types and could not be made again."""
    for found in at.complaints:
        if found.kind == EVENT_TRIGGER or found.kind in filling.KINDS:
            continue
        if found.drop is None:
            meant = named(at.objects, f"{found.kind} {found.identity}")
            removal, now = flag("release", found.identity), present(at.objects, meant[0]) if meant else ()
        else:
            parts = aside.all_parts(at.objects, at.changes) if at.changes else ()
            removal = f"{found.drop};"
            now = next((part.restore for part in parts if part.drop == found.drop), ())
        yield Finding(
            "does-not-follow",
            "refuse",
            found.identity,
            f"The {found.kind} {found.identity} cannot be made again over the new types: {found.words}.",
            "\n".join([removal, *anew(found.kind, now, "after retire, for the new types and names")]),
        )


def _generated(identity: str, table: Table | None, column: Column, over: str) -> Finding:
    where = f"{table.sql if table else ''}.{quoted(column.name)}"
    by_hand = (
        f"\n-- or, so that the values stay, and are no longer computed:\n"
        f"ALTER TABLE {table.sql if table else ''} ALTER COLUMN {quoted(column.name)} DROP EXPRESSION;"
    )
    return Finding(
        "dependent-default-value",
        "refuse",
        identity,
        f"{where} is generated from {quoted(over)}, whose type changes; PostgreSQL forbids that.",
        f"{flag('release', identity)}\n-- drops the column, and undo restores it"
        + (by_hand if column.generated == "s" else ""),
    )


def users_get_names(at: Situation) -> Iterator[Finding]:
    """Code of the app's own that has the old names in it."""
    changes = at.changes
    if changes is None or not changes.renamed:
        return
    names = ", ".join(f"{quoted(own)} becomes {new}" for own, new in changes.renames)
    target = quoted(changes.schema, USERS)
    moved = f"{changes.users.sql} becomes {target}" if changes.moves_users else f"{target} keeps its name"
    yield Finding(
        "names-change",
        "info",
        changes.users.sql,
        f"With retire, {moved}{'; ' if names else ''}{names}. Queries with the old names fail from then on.",
        "--compat-view\n-- leaves a view with the old names"
        if changes.moves_users
        else "-- deploy the server with retire",
    )
    if at.options.compat_view and not changes.moves_users:
        yield Finding(
            "compat-view-impossible",
            "refuse",
            changes.users.sql,
            f"--compat-view: {changes.users.sql} keeps its own name, so that no view can have it.",
            "-- leave --compat-view out",
        )


def ids_without_key(at: Situation) -> Iterator[Finding]:
    """Columns that seem to hold ids of users, and do not follow: no foreign key says so."""
    changes = at.changes
    if changes is None or not changes.rewritten:
        return
    followed = {(each.table.key, each.column.name) for each in changes.retypes}
    type_ = changes.fields["id"].type
    for table in at.snapshot.tables:
        if table.kind not in ("r", "p") or table.key in at.going or table.parents:
            continue
        for column in table.columns:
            alike = _OF_USERS.search(normalised(column.name)) is not None
            has_key = any(column.name in key.columns for key in at.snapshot.keys_from(table.key))
            of_type = column.type in (type_, f"{type_}[]")
            if alike and of_type and not has_key and (table.key, column.name) not in followed:
                yield Finding(
                    "id-without-key",
                    "warn",
                    f"{table.sql}.{quoted(column.name)}",
                    f"{table.sql}.{quoted(column.name)} is {column.type} and seems to hold ids of users, but no "
                    "foreign key says so: it stays as it is, and no longer compares with users.id, which becomes text.",
                    _as_text(at, table, column, column.type.replace(type_, "text")),
                )


def _as_text(at: Situation, table: Table, column: Column, type_: str) -> str:
    """Return what makes ids comparable that no foreign key takes along."""
    name = quoted(column.name)
    if any(column.name in each.partition_key for each in (table, *children(at.snapshot, table))):
        return f"-- compare {name}::{type_}; it is a partition key, of which PostgreSQL does not change the type"
    return f"-- not now, but after retire:\nALTER TABLE {table.sql} ALTER COLUMN {name} TYPE {type_};"


_OF_USERS = re.compile(
    r"(^|_)(users?|owners?|authors?|members?|creators?|assignees?|assigned_(to|user)|"
    r"(created|updated|deleted|approved|invited|assigned|modified)_by)(_ids?)?$"
)
"""Names of columns that hold ids of users."""
