"""What the catalogue knows, each kind of object a frozen value; and names and texts as SQL.

The promise: two values that are equal describe objects that pg_dump writes alike; numbers that move (rows, bytes, where
a sequence stands) do not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_KEYWORDS = """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate
    collation column concurrently constraint create cross current_catalog current_date current_role current_schema
    current_time current_timestamp current_user default deferrable desc distinct do else end except false fetch
    for foreign freeze from full grant group having ilike in initially inner intersect into is isnull join lateral
    leading left like limit localtime localtimestamp natural not notnull null offset on only or order outer
    overlaps placing primary references returning right select session_user similar some symmetric system_user
    table tablesample then to trailing true union unique user using variadic verbose when where window with
"""
_RESERVED = frozenset(_KEYWORDS.split())
"""PostgreSQL's keywords that no name can be unquoted (pg_get_keywords, catcode R and T)."""


def quoted(*names: str) -> str:
    """Return a qualified name as SQL, quoted where PostgreSQL needs it: `public."twoFactor"`."""
    return ".".join(_quoted(name) for name in names)


def _quoted(name: str) -> str:
    if _PLAIN.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | None) -> str:
    """Return a text as an SQL literal (standard_conforming_strings is on)."""
    return "NULL" if value is None else "'" + value.replace("'", "''") + "'"


@dataclass(frozen=True, slots=True)
class Grant:
    """Privileges that one role gave to another."""

    privileges: str
    """`INSERT, SELECT`"""
    grantee: str
    """A role's name as SQL, or PUBLIC."""
    grantable: bool
    grantor: str | None = None
    """As SQL; None where it is the object's owner."""

    @property
    def each(self) -> tuple[str, ...]:
        """The privileges, one by one."""
        return tuple(self.privileges.split(", "))


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    not_null: bool
    default: str | None
    identity: str
    generated: str
    collation: str | None
    comment: str | None
    privileges: tuple[str, ...]
    """`SELECT TO role`, `UPDATE TO role WITH GRANT OPTION`: granted on this column alone."""
    statistics: int | None
    storage: str | None = None
    """PLAIN, EXTERNAL, EXTENDED or MAIN where it is not the type's own."""
    compression: str | None = None
    options: tuple[str, ...] = ()
    """`n_distinct=4`: per-column options."""
    grants: tuple[Grant, ...] | None = None
    """The `privileges` once more, in the order in which they were given and with who gave them."""
    type_kind: str = "b"
    """pg_type.typtype: `b`ase, `c`omposite, `d`omain, `e`num, `r`ange, `m`ultirange."""
    base_type: str = ""
    """pg_type.typname, of what a domain is over in the end: `varchar`, `citext`, `_text` for an array of text."""
    base_kind: str = "b"
    """pg_type.typtype of that."""
    plain_type: str = ""
    """`character varying(255)`: of a domain the type below it, else the `type`."""
    inherited: bool = False
    """Whether a table above has it: it is dropped, renamed and retyped there alone."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A primary key, unique, check, exclusion or (from PostgreSQL 18) not-null constraint."""

    name: str
    kind: str
    columns: tuple[str, ...]
    definition: str
    comment: str | None
    tablespace: str | None = None
    """Of its index, as the next two; None where it is the database's."""
    options: tuple[str, ...] = ()
    """`fillfactor=70`: storage parameters, which the definition leaves out."""
    index_comment: str | None = None
    included: tuple[str, ...] = field(default=(), compare=False)
    """Columns that its index merely includes."""
    part_of: str | None = field(default=None, compare=False)
    """The index of the partitioned table above that its index is a part of, as SQL."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key with everything that makes it what it is; `definition` names ON DELETE, MATCH and the rest."""

    name: str
    table: tuple[str, str]
    columns: tuple[str, ...]
    target: tuple[str, str]
    target_columns: tuple[str, ...]
    definition: str
    on_update: str
    on_delete: str
    validated: bool
    enforced: bool
    comment: str | None
    inherited: bool
    """Whether it came from the partitioned table above."""
    match: str = "s"
    """pg_constraint.confmatchtype: `s`imple, `f`ull, `p`artial."""
    deferrable: bool = False
    deferred: bool = False
    rests_on: tuple[str, ...] = field(default=(), compare=False)
    """The columns of the target's index by which it is checked, those too that it merely includes."""
    violated: int = field(default=0, compare=False)
    """Rows that were counted to violate it although it is validated; it cannot be added again but NOT VALID."""

    @property
    def addable(self) -> str:
        """The definition with which it can be added again, whatever its rows are."""
        return f"{self.definition} NOT VALID" if self.violated else self.definition


@dataclass(frozen=True, slots=True)
class Index:
    """An index that no constraint owns; `columns` are all that it depends on, expressions and predicate included."""

    name: str
    columns: tuple[str, ...]
    definition: str
    unique: bool
    comment: str | None
    valid: bool
    plain: bool = True
    """Whether it is over columns alone, all rows: neither expressions nor a predicate."""
    statistics: tuple[str, ...] = ()
    """`1 SET STATISTICS 500`: per-column targets."""
    tablespace: str | None = None
    extensions: tuple[str, ...] = ()
    """Names, as SQL, of those it was said to depend on."""
    options: tuple[str, ...] = field(default=(), compare=False)
    """`fillfactor=70`: storage parameters, which the definition has too."""
    part_of: str | None = field(default=None, compare=False)
    """The index of the partitioned table above that it is a part of, as SQL."""


@dataclass(frozen=True, slots=True)
class Trigger:
    name: str
    enabled: str
    function: str
    definition: str
    comment: str | None = None
    inherited: bool = False
    """Whether it came from the partitioned table above."""
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A rewrite rule of a table or view, but for the one that makes a view what it is."""

    name: str
    enabled: str
    definition: str
    comment: str | None


@dataclass(frozen=True, slots=True)
class Policy:
    """A row-security policy; `columns` are those of its own table that it reads."""

    name: str
    definition: str
    columns: tuple[str, ...]
    comment: str | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """An extended statistics object (CREATE STATISTICS)."""

    schema: str
    name: str
    owner: str
    owned: bool
    definition: str
    columns: tuple[str, ...]
    target: int | None
    comment: str | None


@dataclass(frozen=True, slots=True)
class Membership:
    """That a publication names a table."""

    name: str
    """The publication's."""
    owned: bool
    """Whether the role that looks may alter the publication."""
    columns: tuple[str, ...] | None
    """None where it takes all there are."""
    condition: str | None
    owner: str = field(default="", compare=False)
    """The publication's."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence; where it stands is no part of the structure."""

    schema: str
    name: str
    owner: str
    owned: bool
    kind: str
    """`identity always`, `identity by default`, `serial` where a column owns it, else `free`."""
    owned_by: tuple[tuple[str, str], str] | None
    """The table and the column that it goes with."""
    type: str
    start: int
    increment: int
    min: int
    max: int
    cache: int
    cycle: bool
    persistence: str
    comment: str | None
    privileges: tuple[Grant, ...] | None
    """In the order in which they were given; None where nothing was granted or revoked."""
    last_value: int | None = field(default=None, compare=False)
    """None where the role may not read it."""
    is_called: bool | None = field(default=None, compare=False)

    @property
    def sql(self) -> str:
        return quoted(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Table:
    schema: str
    name: str
    kind: str
    owner: str
    owned: bool
    """Whether the role that looks may alter it."""
    readable: bool
    rows: int = field(compare=False)
    """PostgreSQL's estimate, -1 where it has none."""
    size: int = field(compare=False)
    """Bytes, indexes and TOAST included."""
    comment: str | None
    privileges: tuple[str, ...] | None
    row_security: bool
    forced_row_security: bool
    columns: tuple[Column, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[Index, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    rules: tuple[Rule, ...] = ()
    replica_index: str | None = None
    """The index that is the replica identity."""
    cluster_index: str | None = None
    parents: tuple[tuple[str, str], ...] = ()
    """What it is a partition or child of."""
    publications: tuple[str, ...] = ()
    """Those that name the table."""
    broad_publications: tuple[str, ...] = ()
    """Those that take whatever there is, in the database or in the schema."""
    published_changes: str = ""
    """What those of both kinds tell of rows that are there: `u`pdates, `d`eletes."""
    memberships: tuple[Membership, ...] = ()
    """The `publications` once more, with what they take of the table."""
    policies: tuple[Policy, ...] = ()
    statistics: tuple[Statistics, ...] = ()
    grants: tuple[Grant, ...] | None = None
    """The `privileges` once more, in the order in which they were given."""
    definition: str | None = None
    """The query of a view or materialized view."""
    options: tuple[str, ...] = ()
    """`fillfactor=70`, `toast.autovacuum_enabled=false`, `security_barrier=true`: storage parameters or a view's."""
    typed: bool = False
    """Whether it was made OF a composite type, which then decides its columns."""
    populated: bool = True
    persistence: str = "p"
    """pg_class.relpersistence: `p`ermanent, `u`nlogged, `t`emporary."""
    replica_identity: str = "d"
    """pg_class.relreplident: `d`efault, `n`othing, `f`ull, `i`ndex."""
    access_method: str | None = None
    tablespace: str | None = None
    """None where it is the database's."""
    partition_by: str | None = None
    """`RANGE (created_at)`, of a partitioned table."""
    partition_bound: str | None = None
    """`FOR VALUES FROM (1) TO (9)`, of a partition."""
    partition_key: tuple[str, ...] = ()
    """The columns that decide a row's partition, those in expressions too."""
    extensions: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.schema, self.name

    @property
    def sql(self) -> str:
        return quoted(self.schema, self.name)

    def column(self, name: str) -> Column | None:
        return next((column for column in self.columns if column.name == name), None)


@dataclass(frozen=True, slots=True)
class Dependent:
    """An object that would break, or go, with a relation or one of its columns.

    One that merely sits on its table, as a trigger does, is among them with no column. An object that depends on
    several columns is there once for each.
    """

    kind: str
    """As pg_identify_object names it: view, materialized view, function, policy, trigger ..."""
    identity: str
    """As pg_identify_object names it, but for functions, whose arguments are `text` and not `pg_catalog.text`."""
    name: str | None
    """Of a policy, trigger, rule, constraint or statistics object its own, of a default or column the column's, of a
    publication relation the publication's, of a function its identity."""
    owner: tuple[str, str] | None
    """The table it sits on, for policies, triggers, rules, defaults, columns and the like; of a relation its own."""
    table: tuple[str, str]
    """The relation depended upon."""
    column: str | None
    definition: str | None


@dataclass(frozen=True, slots=True)
class Function:
    identity: str
    language: str
    source: str
    trigger_on: tuple[tuple[str, str], ...]
    kind: str
    """function or procedure"""
    schema: str
    definition: str
    owner: str
    owned: bool
    comment: str | None
    grants: tuple[Grant, ...] | None
    """As a table's."""
    extensions: tuple[str, ...]
    dependents: tuple[Dependent, ...] = ()
    """What would break, or go, with it; their `table` is its schema and identity."""
