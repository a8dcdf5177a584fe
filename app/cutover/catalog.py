"""The catalogue as a value: what PostgreSQL knows of a database's tables, read once into a frozen `Snapshot`.

The promise: everything that is decided later is decided from a Snapshot, and two Snapshots with one fingerprint
describe the same tables. Definitions are PostgreSQL's own text (pg_get_constraintdef and its kin) with every name
qualified, so that they can be run again as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection

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


@dataclass(frozen=True, slots=True)
class Constraint:
    """A primary key, unique, check, exclusion or (from PostgreSQL 18) not-null constraint."""

    name: str
    kind: str
    columns: tuple[str, ...]
    definition: str
    comment: str | None


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


@dataclass(frozen=True, slots=True)
class Index:
    """An index that no constraint owns; `columns` are all that it depends on, expressions and predicate included."""

    name: str
    columns: tuple[str, ...]
    definition: str
    unique: bool
    comment: str | None
    valid: bool
    statistics: tuple[str, ...] = ()
    """`1 SET STATISTICS 500`: per-column targets."""


@dataclass(frozen=True, slots=True)
class Trigger:
    name: str
    enabled: str
    function: str
    definition: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rewrite rule of a table's own, not that of a view."""

    name: str
    enabled: str


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
    """An object that would break, or go, with a table or one of its columns (pg_depend, dependency type normal)."""

    kind: str
    """As pg_identify_object names it: view, materialized view, function, policy, trigger ..."""
    identity: str
    name: str | None
    """Of a policy, trigger or rule its own, of a default or column the column's."""
    owner: tuple[str, str] | None
    """The table it sits on, for policies, triggers, rules, defaults and columns."""
    table: tuple[str, str]
    column: str | None
    definition: str | None


@dataclass(frozen=True, slots=True)
class Function:
    identity: str
    language: str
    source: str
    trigger_on: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The tables of a database at one moment, as the role that looked saw them."""

    database: str
    version: int = field(compare=False)
    """server_version_num"""
    role: str
    sees_all_rows: bool
    """Superuser or BYPASSRLS: no row security policy hides rows from the role."""
    may_create_schema: bool
    schemas: tuple[str, ...]
    creatable_schemas: tuple[str, ...]
    """Schemas in which the role may create."""
    tables: tuple[Table, ...]
    foreign_keys: tuple[ForeignKey, ...]
    dependents: tuple[Dependent, ...] = ()
    functions: tuple[Function, ...] = ()

    def table(self, schema: str, name: str) -> Table | None:
        return next((table for table in self.tables if table.key == (schema, name)), None)

    def keys_from(self, *tables: tuple[str, str]) -> Iterator[ForeignKey]:
        return (key for key in self.foreign_keys if key.table in tables)

    def keys_to(self, *tables: tuple[str, str]) -> Iterator[ForeignKey]:
        return (key for key in self.foreign_keys if key.target in tables)

    @property
    def fingerprint(self) -> str:
        """A hash of the structure: sizes, estimates and our own tables do not count."""
        structure = asdict(self)
        del structure["version"]
        structure["tables"] = [
            # the order of columns does not count: a column that left and came back stands last
            {**table, "columns": sorted(table["columns"], key=lambda column: column["name"]), "rows": 0, "size": 0}
            for table in structure["tables"]
            if table["name"] not in OWN_TABLES
        ]
        structure["dependents"] = [found for found in structure["dependents"] if found["table"][1] not in OWN_TABLES]
        return hashlib.sha256(json.dumps(structure, sort_keys=True).encode()).hexdigest()[:16]


VERSION_TABLE = "shadow_alembic_version"
JOURNAL = "shadow_cutover"
OWN_TABLES = (VERSION_TABLE, JOURNAL)

_VISIBLE = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"

_TABLES = f"""
SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind,
       pg_get_userbyid(c.relowner) AS owner, pg_has_role(c.relowner, 'USAGE') AS owned,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable,
       c.reltuples::int8 AS rows, pg_total_relation_size(c.oid) AS size, obj_description(c.oid, 'pg_class') AS comment,
       (SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
          WHERE i.indrelid = c.oid AND i.indisreplident) AS replica_index,
       (SELECT x.relname FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
          WHERE i.indrelid = c.oid AND i.indisclustered) AS cluster_index,
       ARRAY(SELECT ARRAY[pn.nspname::text, pc.relname::text] FROM pg_inherits h
             JOIN pg_class pc ON pc.oid = h.inhparent JOIN pg_namespace pn ON pn.oid = pc.relnamespace
             WHERE h.inhrelid = c.oid ORDER BY h.inhseqno) AS parents,
       c.relacl::text[] AS privileges, c.relrowsecurity AS row_security, c.relforcerowsecurity AS forced_row_security,
       ARRAY(SELECT p.pubname::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE r.prrelid = c.oid ORDER BY 1) AS publications,
       ARRAY(SELECT v.pubname::text FROM pg_publication_tables v
             JOIN pg_publication p ON p.pubname = v.pubname
             WHERE v.schemaname = n.nspname AND v.tablename = c.relname
               AND NOT EXISTS (SELECT FROM pg_publication_rel r WHERE r.prrelid = c.oid AND r.prpubid = p.oid)
             ORDER BY 1) AS broad_publications
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_VISIBLE}
ORDER BY 2, 3"""

_COLUMNS = f"""
SELECT a.attrelid::int8 AS oid, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS not_null, pg_get_expr(d.adbin, d.adrelid) AS default, a.attidentity::text AS identity,
       a.attgenerated::text AS generated,
       CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(cn.nspname) || '.' || quote_ident(l.collname) END
         AS collation,
       col_description(a.attrelid, a.attnum) AS comment,
       ARRAY(SELECT format('%s TO %s%s', x.privilege_type,
                           CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
                           CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
             FROM aclexplode(a.attacl) x ORDER BY 1) AS privileges,
       nullif(a.attstattarget, -1)::int AS statistics,
       CASE WHEN a.attstorage <> t.typstorage THEN
         CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END
         AS storage,
       CASE to_jsonb(a) ->> 'attcompression' WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END AS compression,
       coalesce(a.attoptions, '{{}}') AS options
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = l.collnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_VISIBLE}
ORDER BY a.attrelid, a.attnum"""

_COLUMN_NAMES = """ARRAY(SELECT a.attname::text FROM unnest({numbers}) WITH ORDINALITY u(n, i)
      JOIN pg_attribute a ON a.attrelid = {table} AND a.attnum = u.n ORDER BY u.i)"""

_CONSTRAINTS = f"""
SELECT k.conrelid::int8 AS oid, k.conname AS name, k.contype::text AS kind,
       {_COLUMN_NAMES.format(numbers="k.conkey", table="k.conrelid")} AS columns,
       k.confrelid::int8 AS target, {_COLUMN_NAMES.format(numbers="k.confkey", table="k.confrelid")} AS target_columns,
       pg_get_constraintdef(k.oid) AS definition, k.confupdtype::text AS on_update, k.confdeltype::text AS on_delete,
       k.convalidated AS validated, coalesce((to_jsonb(k) ->> 'conenforced')::bool, true) AS enforced,
       obj_description(k.oid, 'pg_constraint') AS comment, k.conparentid <> 0 AS inherited
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype IN ('p', 'u', 'c', 'x', 'f', 'n') AND {_VISIBLE}
ORDER BY n.nspname, c.relname, k.conname"""

_INDEXES = f"""
SELECT i.indrelid::int8 AS oid, x.relname AS name, i.indisunique AS unique, pg_get_indexdef(i.indexrelid) AS definition,
       ARRAY(SELECT DISTINCT a.attname::text FROM pg_depend d
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
               AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid ORDER BY 1) AS columns,
       obj_description(i.indexrelid, 'pg_class') AS comment, i.indisvalid AS valid,
       ARRAY(SELECT format('%s SET STATISTICS %s', a.attnum, a.attstattarget) FROM pg_attribute a
             WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0 ORDER BY 1) AS statistics
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {_VISIBLE}
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
ORDER BY n.nspname, c.relname, x.relname"""

_TRIGGERS = f"""
SELECT g.tgrelid::int8 AS oid, g.tgname AS name, g.tgenabled::text AS enabled, g.tgfoid::regprocedure::text AS function,
       pg_get_triggerdef(g.oid) AS definition
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT g.tgisinternal AND {_VISIBLE}
ORDER BY n.nspname, c.relname, g.tgname"""

_RULES = f"""
SELECT w.ev_class::int8 AS oid, w.rulename AS name, w.ev_enabled::text AS enabled
FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE w.rulename <> '_RETURN' AND {_VISIBLE}
ORDER BY n.nspname, c.relname, w.rulename"""

# A row type, its array and an owned sequence stand for the table they belong to.
_DEPENDENTS = f"""
WITH belongs AS (
  SELECT 'pg_class'::regclass AS classid, c.oid AS objid, c.oid AS relid FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f') AND {_VISIBLE}
  UNION ALL
  SELECT 'pg_type'::regclass, t.oid, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = c.reltype OR t.typelem = c.reltype AND t.typcategory = 'A'
    WHERE c.relkind IN ('r', 'p', 'f') AND {_VISIBLE}
  UNION ALL
  SELECT 'pg_class'::regclass, d.objid, d.refobjid FROM pg_depend d JOIN pg_class s ON s.oid = d.objid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
      AND s.relkind = 'S'
)
SELECT DISTINCT i.type AS kind, i.identity,
       coalesce(CASE WHEN o.relkind NOT IN ('v', 'm') THEN w.rulename END, p.polname, g.tgname,
                (SELECT y.attname FROM pg_attribute y WHERE y.attrelid = f.adrelid AND y.attnum = f.adnum),
                (SELECT y.attname FROM pg_attribute y WHERE d.classid = 'pg_class'::regclass
                   AND y.attrelid = d.objid AND y.attnum = d.objsubid AND d.objsubid > 0))::text AS name,
       CASE WHEN o.relkind IS NOT NULL THEN ARRAY[o_n.nspname::text, o.relname::text] END AS owner,
       ARRAY[n.nspname::text, c.relname::text] AS table,
       CASE WHEN d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid THEN a.attname::text END AS column,
       CASE WHEN w.oid IS NOT NULL AND o.relkind IN ('v', 'm') THEN pg_get_viewdef(o.oid)
            WHEN w.oid IS NOT NULL THEN pg_get_ruledef(w.oid)
            WHEN d.classid = 'pg_proc'::regclass THEN pg_get_functiondef(d.objid)
            WHEN d.classid = 'pg_trigger'::regclass THEN pg_get_triggerdef(d.objid)
            WHEN p.oid IS NOT NULL THEN format('CREATE POLICY %I ON %I.%I AS %s FOR %s TO %s%s%s', p.polname,
              o_n.nspname, o.relname, CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
              CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                ELSE 'ALL' END,
              (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                 FROM unnest(p.polroles) r),
              ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
              ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') END AS definition
FROM pg_depend d
JOIN belongs b ON b.classid = d.refclassid AND b.objid = d.refobjid
JOIN pg_class c ON c.oid = b.relid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
LEFT JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND p.oid = d.objid
LEFT JOIN pg_trigger g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
LEFT JOIN pg_statistic_ext s ON d.classid = 'pg_statistic_ext'::regclass AND s.oid = d.objid
LEFT JOIN pg_class o ON o.oid = coalesce(w.ev_class, p.polrelid, g.tgrelid, f.adrelid, s.stxrelid,
                                         CASE WHEN d.classid = 'pg_class'::regclass THEN d.objid END)
LEFT JOIN pg_namespace o_n ON o_n.oid = o.relnamespace,
LATERAL pg_identify_object(CASE WHEN o.relkind IN ('v', 'm') THEN 'pg_class'::regclass ELSE d.classid END,
                           CASE WHEN o.relkind IN ('v', 'm') THEN o.oid ELSE d.objid END,
                           CASE WHEN d.classid = 'pg_class'::regclass THEN d.objsubid ELSE 0 END) i
WHERE d.classid <> 'pg_constraint'::regclass AND NOT coalesce(g.tgisinternal, false)
  AND (d.deptype = 'n' OR d.classid = 'pg_statistic_ext'::regclass
       OR f.oid IS NOT NULL AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.refobjsubid <> f.adnum)
  AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type y WHERE y.oid = d.objid AND y.typelem <> 0))
ORDER BY 1, 2"""

_FUNCTIONS = f"""
SELECT p.oid::regprocedure::text AS identity, l.lanname AS language, p.prosrc AS source,
       ARRAY(SELECT DISTINCT ARRAY[tn.nspname::text, tc.relname::text] FROM pg_trigger g
             JOIN pg_class tc ON tc.oid = g.tgrelid JOIN pg_namespace tn ON tn.oid = tc.relnamespace
             WHERE g.tgfoid = p.oid AND NOT g.tgisinternal ORDER BY 1) AS trigger_on
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE {_VISIBLE} AND l.lanname NOT IN ('c', 'internal')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
ORDER BY 1"""


def read(connection: Connection) -> Snapshot:
    """Read the catalogue. Takes no lock that anybody waits for, and leaves the search_path as it was."""
    search_path = connection.exec_driver_sql("SELECT current_setting('search_path')").scalar_one()
    # with nothing in the path every name in a definition comes out qualified
    _set_search_path(connection, "")
    snapshot = _read(connection)
    _set_search_path(connection, search_path)
    return snapshot


def _set_search_path(connection: Connection, path: str) -> None:
    # for this transaction only, so that a failure between two calls leaves nothing behind
    connection.exec_driver_sql(f"SELECT set_config('search_path', {literal(path)}, true)")


def _read(connection: Connection) -> Snapshot:
    def rows(sql: str) -> Sequence[dict[str, Any]]:
        return [dict(row) for row in connection.exec_driver_sql(sql).mappings()]

    def grouped(sql: str) -> dict[int, list[dict[str, Any]]]:
        groups: dict[int, list[dict[str, Any]]] = {}
        for row in rows(sql):
            groups.setdefault(row.pop("oid"), []).append(row)
        return groups

    (head,) = rows(
        f"""SELECT current_database() AS database, current_setting('server_version_num')::int AS version,
        current_user::text AS role,
        (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) AS sees_all_rows,
        has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
        ARRAY(SELECT n.nspname::text FROM pg_namespace n WHERE {_VISIBLE} ORDER BY 1) AS schemas,
        ARRAY(SELECT n.nspname::text FROM pg_namespace n WHERE {_VISIBLE}
              AND has_schema_privilege(n.oid, 'CREATE') ORDER BY 1) AS creatable_schemas"""
    )
    relations = rows(_TABLES)
    names = {row["oid"]: (row["schema"], row["name"]) for row in relations}
    columns, indexes, triggers = grouped(_COLUMNS), grouped(_INDEXES), grouped(_TRIGGERS)
    rules = grouped(_RULES)
    constraints, foreign_keys = {}, []
    for oid, found in grouped(_CONSTRAINTS).items():
        constraints[oid] = tuple(_constraint(row) for row in found if row["kind"] != "f")
        foreign_keys += [_foreign_key(names, oid, row) for row in found if row["kind"] == "f"]
    tables = tuple(
        Table(
            **_tuples(
                {name: value for name, value in row.items() if name != "oid"},
                "privileges",
                "publications",
                "broad_publications",
                "parents",
            ),
            columns=tuple(Column(**_tuples(column, "privileges", "options")) for column in columns.get(row["oid"], ())),
            constraints=constraints.get(row["oid"], ()),
            indexes=tuple(Index(**_tuples(index, "columns", "statistics")) for index in indexes.get(row["oid"], ())),
            triggers=tuple(Trigger(**trigger) for trigger in triggers.get(row["oid"], ())),
            rules=tuple(Rule(**rule) for rule in rules.get(row["oid"], ())),
        )
        for row in relations
    )
    return Snapshot(
        **_tuples(head, "schemas", "creatable_schemas"),
        tables=tables,
        foreign_keys=tuple(foreign_keys),
        dependents=tuple(Dependent(**_tuples(row, "owner", "table")) for row in rows(_DEPENDENTS)),
        functions=tuple(
            Function(**{**row, "trigger_on": tuple((schema, name) for schema, name in row["trigger_on"])})
            for row in rows(_FUNCTIONS)
        ),
    )


def _tuples(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**row, **{name: _frozen(row[name]) for name in names}}


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _constraint(row: dict[str, Any]) -> Constraint:
    kept = ("name", "kind", "columns", "definition", "comment")
    return Constraint(**_tuples({name: row[name] for name in kept}, "columns"))


def _foreign_key(names: dict[int, tuple[str, str]], oid: int, row: dict[str, Any]) -> ForeignKey:
    row = {name: value for name, value in row.items() if name != "kind"}
    row["target"] = names[row["target"]]
    return ForeignKey(table=names[oid], **_tuples(row, "columns", "target_columns"))
