"""The entity diagram as a value: which tables a plan touches, what becomes of each, of its columns and foreign keys.

    Report --moves_in--> Moves --diagram_of--> Diagram --drawing.draw--> places on a page

The promise: pure, without a coordinate or a word of markup. All that is read of a Report's layout and actions is read
in `moves_in`; the rest knows Moves alone. A table that neither is users, nor goes, nor has a foreign key from or to one
of these is counted and not shown, so that a database of any size stays readable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from app.cutover import beside
from app.cutover.catalog import OWN_TABLES, Column, ForeignKey, Snapshot, Table, quoted
from app.cutover.changes import Changes
from app.cutover.findings import Action, Options, detached
from app.cutover.layout import RETIRED_SCHEMA
from app.cutover.report import Report
from app.cutover.signatures import TARGET_COLUMNS, USERS, says

Key = tuple[str, str]
"""Schema and name of a table."""
Place = tuple[Key, str]
"""A table and a column."""
Fate = Literal["stays", "changes", "goes", "added"]
"""What becomes of a table or column."""
LineFate = Literal["kept", "detached", "dropped", "undecided"]
"""What becomes of a foreign key: `dropped` goes with its table or column, `detached` alone, since --detach named it;
`undecided` stands in the way of a table that goes."""

LONGEST = 12
"""The app's own columns of users that are shown one by one."""
LOST: dict[LineFate, str] = {"kept": "", "dropped": "", "detached": " ×", "undecided": " !"}
"""The sign behind a column whose foreign key alone does not stay."""
_ACTIONS = {"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT", "r": "RESTRICT"}
_SHORT = (
    (re.compile(r"character varying"), "varchar"),
    (re.compile(r"timestamp(\(\d\))? with time zone"), r"timestamptz\1"),
    (re.compile(r" without time zone"), ""),
)


@dataclass(frozen=True, slots=True)
class Moves:
    """What a plan does to tables and columns, all by the names they have before."""

    schema: str
    """The one whose tables are named without it."""
    users: Key | None
    """The users table as it is; None where there is none yet."""
    becomes: Key | None
    """The users table as it will be; None where there will be none."""
    roles: Mapping[Key, tuple[str, str]] = field(default_factory=dict)
    """Table to the role it plays and why it was taken for it."""
    going: Mapping[Key, str] = field(default_factory=dict)
    """Table to what becomes of it, in words."""
    leaving: Mapping[str, str] = field(default_factory=dict)
    """Column of users that goes, to why."""
    added: tuple[tuple[str, str], ...] = ()
    """Columns that users gains: name and type."""
    renamed: Mapping[Place, str] = field(default_factory=dict)
    retyped: Mapping[Place, str] = field(default_factory=dict)
    """Column to its new name or type."""
    required: frozenset[Place] = frozenset()
    """Columns that may be null before, and not after."""
    detached: frozenset[tuple[Key, str]] = frozenset()
    """Table and name of the foreign keys that --detach drops."""
    remarks: Mapping[Key, str] = field(default_factory=dict)
    """What else is to be known of a table afterwards."""
    settled: bool = True
    """Whether it is known what becomes of the tables; not so where the layout is in doubt."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A column in a box."""

    name: str
    fate: Fate
    note: str
    """Its type, where it leads, or what it becomes or was."""
    hint: str = ""
    """Why."""
    leads: bool = False
    """Whether a foreign key begins in it."""


@dataclass(frozen=True, slots=True)
class Box:
    """A table at one time."""

    name: str
    fate: Fate
    facts: str
    """Role, rows, size."""
    attributes: tuple[Attribute, ...] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Slot:
    """A table's place in both pictures."""

    key: Key
    before: Box | None
    after: Box | None
    absent: str = ""
    """What stands in the place of the box that is missing."""


@dataclass(frozen=True, slots=True)
class Line:
    """A foreign key. `source` and `target` are the keys of slots."""

    name: str
    source: Key
    columns: tuple[str, ...]
    target: Key
    target_columns: tuple[str, ...]
    fate: LineFate
    leads: str
    """`members.user_id -> users.id`"""
    rules: str
    """`ON DELETE CASCADE, NOT VALID`"""
    becomes: str
    """What becomes of it, in words."""


@dataclass(frozen=True, slots=True)
class Diagram:
    users: Slot | None
    going: tuple[Slot, ...]
    staying: tuple[Slot, ...]
    lines: tuple[Line, ...]
    further_tables: int
    """Tables that are not shown: nothing leads from or to them that the plan touches."""
    further_keys: int
    """Foreign keys that are not shown, between tables that stay."""
    settled: bool
    """Whether the fates are known; else everything is shown as it is."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (*((self.users,) if self.users else ()), *self.going, *self.staying)

    def count(self, fate: LineFate) -> int:
        return sum(line.fate == fate for line in self.lines)


def moves_in(report: Report) -> Moves:
    """Return what a report's revisions do; nothing, where the layout is in doubt."""
    situation = report.situation
    snapshot, layout = situation.snapshot, situation.layout
    actions = () if layout.doubts else situation.actions
    found = None if layout.doubts else situation.changes
    roles = {role.table.key: (role.name, role.reason) for role in layout.roles}
    target = (layout.schema, USERS)
    if layout.users is None:
        made = tuple((name, type_) for name, (type_, _) in TARGET_COLUMNS.items())
        return Moves(layout.schema, None, target if actions else None, roles, added=made, settled=not layout.doubts)
    users = layout.users.key
    moves = Moves(layout.schema, users, users, roles, settled=not layout.doubts)
    if "retire" in actions or "drop" in actions:
        end = "is dropped" if "drop" in actions else f"moves to {RETIRED_SCHEMA}"
        retired = [table.key for table in snapshot.tables if table.schema == RETIRED_SCHEMA]
        gone = [move.table.key for move in found.moves] if found else retired
        moves = replace(moves, going=dict.fromkeys(gone, end))
    if "adopt" in actions:
        missing = ((name, type_) for name, (type_, _) in TARGET_COLUMNS.items() if name not in layout.fields)
        moves = replace(moves, added=tuple(missing))
    if found is None:
        return moves
    remarks = dict(_remarks(found, situation.options, actions))
    if "retire" not in actions:
        return replace(moves, remarks=remarks)
    return replace(
        moves,
        becomes=target,
        leaving={
            column.name: column.reason + (", by its name alone" if column.by_name_only else "")
            for column in layout.going_columns
        },
        renamed={(users, old): new for old, new in found.renames},
        retyped={(each.table.key, each.column.name): each.type for each in found.retypes},
        required=frozenset((users, column.name) for _, column in found.required),
        detached=frozenset((key.table, key.name) for key in snapshot.foreign_keys if detached(key, situation.options)),
        remarks=remarks,
    )


def _remarks(found: Changes, options: Options, actions: Sequence[Action]) -> Iterator[tuple[Key, str]]:
    users = found.users.key
    if "retire" not in actions:
        if "adopt" in actions and found.beside:
            yield users, f"the view {quoted(beside.schema_of(found), USERS)} shows it under the new names"
        return
    said = []
    if found.going and "drop" not in actions:
        count = len(found.going)
        said.append(f"{RETIRED_SCHEMA} keeps the values of the {count} column{'s' * (count != 1)} that left")
    if options.compat_view and found.renamed:
        said.append("a view keeps the old names alive")
    if said:
        yield users, "; ".join(said)
    if found.rate_limits is not None:
        yield found.rate_limits.key, "loses its rows about sessions"


def diagram_of(snapshot: Snapshot, moves: Moves, counted: Mapping[Key, int]) -> Diagram:
    """Return the tables a plan touches, before and after.

    Args:
        snapshot: the catalogue as it is.
        moves: what the plan does.
        counted: rows of the tables that were counted; PostgreSQL's estimate stands in for the others.
    """
    return _Eye(snapshot, moves, counted).diagram()


@dataclass(frozen=True)
class _Eye:
    """Looks at a snapshot with the moves in mind."""

    snapshot: Snapshot
    moves: Moves
    counted: Mapping[Key, int]

    # ---------------------------------------------------------------------------------------------------- what is shown

    def diagram(self) -> Diagram:
        moves = self.moves
        centre = {*moves.going, *((moves.users,) if moves.users else ())}
        keys = [key for key in self.snapshot.foreign_keys if not key.inherited]
        shown = [key for key in keys if {key.table, key.target} & centre]
        ends = {end for key in shown for end in (key.table, key.target)}
        tables = {
            table.key: table
            for table in self.snapshot.tables
            if table.key in ends or (table.key in centre | moves.roles.keys() and not self._is_part(table))
        }
        slots = {key: self._slot(table, shown) for key, table in tables.items()}
        return Diagram(
            slots.get(moves.users) if moves.users else self._made(),
            tuple(slots[key] for key in moves.going if key in slots),
            tuple(slot for key, slot in slots.items() if key not in centre),
            tuple(self._line(key) for key in shown),
            sum(self._is_further(table) for table in self.snapshot.tables if table.key not in tables.keys() | centre),
            len(keys) - len(shown),
            moves.settled,
        )

    def _is_part(self, table: Table) -> bool:
        """Whether it is a partition or child, and goes the way of its parent."""
        return any(self.snapshot.table(*parent) for parent in table.parents)

    def _is_further(self, table: Table) -> bool:
        return table.kind in "rp" and not self._is_part(table) and table.name not in OWN_TABLES

    def _made(self) -> Slot | None:
        """The users table where there is none yet."""
        if self.moves.becomes is None:
            return None
        attributes = tuple(Attribute(name, "added", short(type_)) for name, type_ in self.moves.added)
        box = Box(self._name(self.moves.becomes), "added", "", attributes)
        return Slot(self.moves.becomes, None, box, "is not there yet")

    def _slot(self, table: Table, shown: Sequence[ForeignKey]) -> Slot:
        key, facts = table.key, self._facts(table)
        name = self._name(key)
        if (end := self.moves.going.get(key)) is not None:
            return Slot(key, Box(name, "goes", facts, tuple(self._linked(table, shown))), None, end)
        becomes, said = self._becomes(key), [self.moves.remarks[key]] if key in self.moves.remarks else []
        moved = becomes != key
        if key == self.moves.users:
            before, after = tuple(self._before(table, shown)), tuple(self._after(table, shown))
        else:
            before, after = tuple(self._linked(table, shown)), tuple(self._linked(table, shown, after=True))
        changes = moved or said or any(each.fate != "stays" for each in (*before, *after))
        fate: Fate = "changes" if changes else "stays"
        after_name = self._name(becomes)
        return Slot(
            key,
            Box(name, fate, facts, before, f"becomes {after_name}" if moved else ""),
            Box(after_name, fate, facts, after, "; ".join([f"was {name}"] * moved + said)),
        )

    # ------------------------------------------------------------------------------------------------- in so many words

    def _name(self, key: Key) -> str:
        return quoted(key[1]) if key[0] == self.moves.schema else quoted(*key)

    def _becomes(self, key: Key) -> Key:
        return self.moves.becomes if key == self.moves.users and self.moves.becomes else key

    def _facts(self, table: Table) -> str:
        """Role, where the name does not say it, rows, size, partitions."""
        role, _ = self.moves.roles.get(table.key, ("", ""))
        exact = self.counted.get(table.key)
        rows = f"{exact:,} rows" if exact is not None else f"≈ {table.rows:,} rows"
        parts = sum(table.key in other.parents for other in self.snapshot.tables)
        facts = [role] if role and not says(table.name, role) else []
        facts += [rows if exact is not None or table.rows >= 0 else "rows not counted", size(table.size)]
        facts += [f"{parts} partitions" if table.kind == "p" else f"{parts} children"] if parts else []
        return " · ".join(filter(None, facts))

    # ------------------------------------------------------------------------------------------------------ the columns

    def _before(self, users: Table, shown: Sequence[ForeignKey]) -> Iterator[Attribute]:
        """The columns of users as they are: those that stay first, those that go last."""
        yield from self._staying(users, shown, after=False)
        for column in users.columns:
            if column.name in self.moves.leaving:
                yield Attribute(column.name, "goes", short(column.type), self.moves.leaving[column.name])

    def _after(self, users: Table, shown: Sequence[ForeignKey]) -> Iterator[Attribute]:
        yield from self._staying(users, shown, after=True)
        for name, type_ in self.moves.added:
            yield Attribute(name, "added", short(type_))

    def _staying(self, users: Table, shown: Sequence[ForeignKey], *, after: bool) -> Iterator[Attribute]:
        own = 0
        for column in users.columns:
            if column.name in self.moves.leaving:
                continue
            attribute = self._attribute(users, column, shown, after)
            if attribute.fate == "stays" and attribute.name not in TARGET_COLUMNS and not attribute.leads:
                own += 1
                if own > LONGEST:
                    continue
            yield attribute
        if own > LONGEST:
            yield Attribute(f"… {own - LONGEST} further column{'s' * (own - LONGEST != 1)}", "stays", "untouched")

    def _linked(self, table: Table, shown: Sequence[ForeignKey], *, after: bool = False) -> Iterator[Attribute]:
        """The columns of another table in which a shown foreign key begins or ends, or that change."""
        for column in table.columns:
            attribute = self._attribute(table, column, shown, after)
            reached = any(key.target == table.key and column.name in key.target_columns for key in shown)
            if attribute.leads or reached or attribute.fate == "changes":
                yield attribute

    def _attribute(self, table: Table, column: Column, shown: Sequence[ForeignKey], after: bool) -> Attribute:
        """Return a column with what it becomes or was; if that is nothing, with where it leads, or its type."""
        place, moves = (table.key, column.name), self.moves
        keys = [key for key in shown if key.table == table.key and column.name in key.columns]
        leads = list(dict.fromkeys(self._leads(key, column.name, after) for key in keys))
        if table.key in moves.going:
            return Attribute(column.name, "goes", ", ".join(leads) or short(column.type), leads=bool(keys))
        name, type_ = moves.renamed.get(place, column.name), moves.retyped.get(place, column.type)
        changed = [name if not after else column.name] if place in moves.renamed else []
        changed += [short(type_ if not after else column.type)] if place in moves.retyped else []
        changed += ["nullable" if after else "not null"] if place in moves.required else []
        notes = [f"{'was' if after else 'becomes'} {' '.join(changed)}"] if changed else []
        lost = any(self._fate(key) in ("detached", "undecided") for key in keys)
        notes += leads if lost or not notes else []
        fate: Fate = "changes" if changed or lost else "stays"
        note = ", ".join(notes) or short(column.type)
        return Attribute(name if after else column.name, fate, note, leads=bool(keys))

    # ------------------------------------------------------------------------------------------------- the foreign keys

    def _leads(self, key: ForeignKey, column: str, after: bool) -> str:
        """Where a foreign key's column leads, with a sign if the key alone does not stay."""
        fate = self._fate(key)
        if after and fate == "detached":
            return "no foreign key"
        end = key.target_columns[key.columns.index(column)]
        target = self._becomes(key.target) if after else key.target
        name = self.moves.renamed.get((key.target, end), end) if after else end
        return f"→ {self._name(target)}{'' if name == 'id' else f'.{quoted(name)}'}{LOST[fate]}"

    def _fate(self, key: ForeignKey) -> LineFate:
        going = self.moves.going
        if key.table in going or (key.table == self.moves.users and set(key.columns) & self.moves.leaving.keys()):
            return "dropped"
        if key.target not in going:
            return "kept"
        return "detached" if (key.table, key.name) in self.moves.detached else "undecided"

    def _line(self, key: ForeignKey) -> Line:
        fate = self._fate(key)
        becomes = {
            "kept": "kept",
            "detached": "detached, the column and its values stay",
            "dropped": "goes with its table" if key.table in self.moves.going else "goes with its column",
            "undecided": "in the way",
        }[fate]
        types = [self.moves.retyped[key.table, name] for name in key.columns if (key.table, name) in self.moves.retyped]
        if fate == "kept" and types:
            becomes = f"kept, over {short(types[0])}"
        if not self.moves.settled:
            becomes = "not decided yet"
        source, target = _joined(key.columns), _joined(key.target_columns)
        return Line(
            key.name,
            key.table,
            key.columns,
            key.target,
            key.target_columns,
            fate,
            f"{self._name(key.table)}.{source} → {self._name(key.target)}.{target}",
            ", ".join(_rules(key)),
            becomes,
        )


def _rules(key: ForeignKey) -> Iterator[str]:
    for verb, code in (("UPDATE", key.on_update), ("DELETE", key.on_delete)):
        if code in _ACTIONS:
            yield f"ON {verb} {_ACTIONS[code]}"
    for words in ("MATCH FULL", "DEFERRABLE", "INITIALLY DEFERRED"):
        if f" {words}" in key.definition.rpartition(")")[2]:
            yield words
    if not key.validated:
        yield "NOT VALID"


def _joined(columns: tuple[str, ...]) -> str:
    return quoted(*columns) if len(columns) == 1 else f"({', '.join(map(quoted, columns))})"


def short(type_: str) -> str:
    """Return a type as people say it: `varchar(255)`, `timestamptz`."""
    for pattern, word in _SHORT:
        type_ = pattern.sub(word, type_)
    return type_


def size(count: int) -> str:
    """Return bytes in the unit that suits them; nothing for none."""
    if not count:
        return ""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1024:
            return f"{value:,.0f} {unit}"
        value /= 1024
    return f"{value:,.1f} TB"
