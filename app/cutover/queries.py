"""The catalogue's questions: the SQL that `catalog.py` asks of PostgreSQL 13 to 18.

The promise: each reads pg_catalog alone, whatever the tables hold and whoever looks; rows come in an order that only
their names decide; a definition is PostgreSQL's own text. `oid` in a result is the relation that the row belongs to.
"""

from __future__ import annotations

VISIBLE = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"


def _grants(acl: str, owner: str) -> str:
    """Return SQL for the grants of an access list: privileges, grantee, `t` where it may be passed on, and grantor.

    They come in the order in which they were given, for each may rest on one before it. The grantor is null where it
    is the owner; all is null where nothing was granted or revoked.
    """
    return f"""CASE WHEN {acl} IS NOT NULL THEN ARRAY(
        SELECT ARRAY[string_agg(x.privilege_type, ', ' ORDER BY x.n),
                     CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
                     left(x.is_grantable::text, 1),
                     CASE WHEN x.grantor <> {owner} THEN quote_ident(pg_get_userbyid(x.grantor)) END]
        FROM aclexplode({acl}) WITH ORDINALITY x (grantor, grantee, privilege_type, is_grantable, n)
        GROUP BY x.grantor, x.grantee, x.is_grantable ORDER BY min(x.n)) END"""


# none, and those that an owner has by default, come to the same
_RELATION_ACL = "nullif(c.relacl, acldefault('r', c.relowner))"


def _extensions(catalog: str, oid: str) -> str:
    """Return SQL for the extensions that an object was said to depend on (ALTER ... DEPENDS ON EXTENSION)."""
    return f"""ARRAY(SELECT quote_ident(e.extname) FROM pg_depend y JOIN pg_extension e ON e.oid = y.refobjid
        WHERE y.classid = '{catalog}'::regclass AND y.objid = {oid} AND y.deptype = 'x' ORDER BY 1)"""


HEAD = f"""
SELECT current_database() AS database, current_setting('server_version_num')::int AS version,
       current_user::text AS role,
       (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) AS sees_all_rows,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       ARRAY(SELECT rolname::text FROM pg_roles WHERE rolsuper ORDER BY 1) AS superusers,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
       ARRAY(SELECT n.nspname::text FROM pg_namespace n WHERE {VISIBLE} ORDER BY 1) AS schemas,
       ARRAY(SELECT n.nspname::text FROM pg_namespace n WHERE {VISIBLE}
             AND has_schema_privilege(n.oid, 'CREATE') ORDER BY 1) AS creatable_schemas,
       ARRAY(SELECT ARRAY[pg_get_userbyid(o.relowner)::text, n.nspname::text]
             FROM (SELECT DISTINCT relowner FROM pg_class WHERE relkind IN ('r', 'p')) o, pg_namespace n
             WHERE {VISIBLE} AND has_schema_privilege(o.relowner, n.oid, 'CREATE') ORDER BY 1) AS creating_owners,
       ARRAY(SELECT DISTINCT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END
             FROM pg_default_acl f, LATERAL (SELECT grantee FROM aclexplode(f.defaclacl)
                                             UNION SELECT f.defaclrole) x
             WHERE f.defaclobjtype IN ('r', 'S', 'f') ORDER BY 1)
         AS default_grantees,
       ARRAY(SELECT quote_ident(r.rolname) FROM pg_roles r WHERE pg_has_role(r.oid, 'MEMBER') ORDER BY 1) AS roles,
       ARRAY(SELECT ARRAY[n.nspname::text, obj_description(n.oid, 'pg_namespace')] FROM pg_namespace n
             WHERE {VISIBLE} AND obj_description(n.oid, 'pg_namespace') IS NOT NULL ORDER BY 1) AS schema_comments,
       ARRAY(SELECT DISTINCT ARRAY[n.nspname::text,
                                   CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END]
             FROM pg_namespace n, LATERAL aclexplode(n.nspacl) x
             WHERE {VISIBLE} AND x.privilege_type = 'USAGE' AND x.grantee <> n.nspowner ORDER BY 1) AS schema_users,
       ARRAY(SELECT ARRAY[CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, n.nspname::text, t.typname::text]
             FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
             -- the row type of a relation is the relation's, and an array gives way
             WHERE {VISIBLE} AND coalesce(c.relkind, 'c') = 'c' AND t.typelem = 0 ORDER BY 1) AS types"""

TABLES = f"""
WITH published AS MATERIALIZED (SELECT pubname, schemaname, tablename FROM pg_publication_tables)
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
       {_RELATION_ACL}::text[] AS privileges,
       {_grants(_RELATION_ACL, "c.relowner")} AS grants,
       c.relrowsecurity AS row_security, c.relforcerowsecurity AS forced_row_security,
       ARRAY(SELECT p.pubname::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
             WHERE r.prrelid = c.oid ORDER BY 1) AS publications,
       ARRAY(SELECT v.pubname::text FROM published v WHERE v.schemaname = n.nspname AND v.tablename = c.relname
               AND NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
                               WHERE r.prrelid = c.oid AND p.pubname = v.pubname)
             ORDER BY 1) AS broad_publications,
       (SELECT concat(CASE WHEN bool_or(p.pubupdate) THEN 'u' END, CASE WHEN bool_or(p.pubdelete) THEN 'd' END)
          FROM pg_publication p WHERE EXISTS (SELECT FROM published v WHERE v.pubname = p.pubname
            AND v.schemaname = n.nspname AND v.tablename = c.relname)) AS published_changes,
       CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END AS definition,
       coalesce(c.reloptions, '{{}}') || ARRAY(SELECT 'toast.' || o FROM pg_class t, unnest(t.reloptions) o
                                              WHERE t.oid = c.reltoastrelid) AS options,
       c.reloftype <> 0 AS typed, c.relispopulated AS populated,
       c.relpersistence::text AS persistence, c.relreplident::text AS replica_identity,
       (SELECT m.amname FROM pg_am m WHERE m.oid = c.relam) AS access_method,
       (SELECT s.spcname FROM pg_tablespace s WHERE s.oid = c.reltablespace) AS tablespace,
       CASE c.relkind WHEN 'p' THEN pg_get_partkeydef(c.oid) END AS partition_by,
       pg_get_expr(c.relpartbound, c.oid) AS partition_bound,
       -- the columns of the key, those in its expressions too, are what goes only together with the table
       ARRAY(SELECT a.attname::text FROM pg_depend d
             JOIN pg_attribute a ON a.attrelid = d.objid AND a.attnum = d.objsubid
             WHERE c.relkind = 'p' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'i'
               AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid = 0
             ORDER BY a.attnum) AS partition_key,
       {_extensions("pg_class", "c.oid")} AS extensions
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {VISIBLE}
ORDER BY 2, 3"""


def columns(version: int) -> str:
    """Return SQL for the columns of tables and views; before PostgreSQL 14 they have no compression of their own."""
    compression = "a.attcompression" if version >= 140000 else "''"
    return f"""
WITH RECURSIVE bases AS (
  SELECT t.oid, t.typbasetype AS base FROM pg_type t WHERE t.typtype = 'd'
  UNION ALL
  SELECT b.oid, t.typbasetype FROM bases b JOIN pg_type t ON t.oid = b.base WHERE t.typtype = 'd'
)
SELECT a.attrelid::int8 AS oid, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS not_null, pg_get_expr(d.adbin, d.adrelid) AS default, a.attidentity::text AS identity,
       a.attgenerated::text AS generated,
       CASE WHEN a.attcollation <> t.typcollation THEN quote_ident(cn.nspname) || '.' || quote_ident(l.collname) END
         AS collation,
       m.description AS comment,
       ARRAY(SELECT format('%s TO %s%s', x.privilege_type,
                           CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
                           CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
             FROM aclexplode(a.attacl) x ORDER BY 1) AS privileges,
       nullif(a.attstattarget, -1)::int AS statistics,
       CASE WHEN a.attstorage <> t.typstorage THEN
         CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END END
         AS storage,
       CASE {compression} WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END AS compression,
       coalesce(a.attoptions, '{{}}') AS options, {_grants("a.attacl", "c.relowner")} AS grants,
       t.typtype::text AS type_kind, coalesce(u.typname, t.typname)::text AS base_type,
       coalesce(u.typtype, t.typtype)::text AS base_kind,
       CASE WHEN u.oid IS NULL THEN format_type(a.atttypid, a.atttypmod) ELSE format_type(u.oid, t.typtypmod) END
         AS plain_type, a.attinhcount > 0 AS inherited
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN (bases b JOIN pg_type u ON u.oid = b.base AND u.typtype <> 'd') ON b.oid = t.oid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
LEFT JOIN pg_description m ON m.classoid = 'pg_class'::regclass AND m.objoid = a.attrelid AND m.objsubid = a.attnum
LEFT JOIN pg_collation l ON l.oid = a.attcollation LEFT JOIN pg_namespace cn ON cn.oid = l.collnamespace
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {VISIBLE}
ORDER BY a.attrelid, a.attnum"""


_COLUMN_NAMES = """ARRAY(SELECT a.attname::text FROM unnest({numbers}) WITH ORDINALITY u(n, i)
      JOIN pg_attribute a ON a.attrelid = {table} AND a.attnum = u.n ORDER BY u.i)"""


def _part_of(index: str) -> str:
    """Return SQL for the index, as SQL, that an index of a partition is a part of."""
    return f"(SELECT h.inhparent::regclass::text FROM pg_inherits h WHERE h.inhrelid = {index})"


CONSTRAINTS = f"""
SELECT k.conrelid::int8 AS oid, k.conname AS name, k.contype::text AS kind,
       {_COLUMN_NAMES.format(numbers="k.conkey", table="k.conrelid")} AS columns,
       k.confrelid::int8 AS target, {_COLUMN_NAMES.format(numbers="k.confkey", table="k.confrelid")} AS target_columns,
       pg_get_constraintdef(k.oid) AS definition, k.confupdtype::text AS on_update, k.confdeltype::text AS on_delete,
       k.convalidated AS validated, coalesce((to_jsonb(k) ->> 'conenforced')::bool, true) AS enforced,
       obj_description(k.oid, 'pg_constraint') AS comment, k.conparentid <> 0 AS inherited,
       k.confmatchtype::text AS match, k.condeferrable AS deferrable, k.condeferred AS deferred,
       (SELECT s.spcname FROM pg_tablespace s WHERE s.oid = x.reltablespace) AS tablespace,
       coalesce(x.reloptions, '{{}}') AS options, obj_description(x.oid, 'pg_class') AS index_comment,
       {_COLUMN_NAMES.format(numbers="i.indkey::int2[]", table="i.indrelid")} AS rests_on,
       {_COLUMN_NAMES.format(numbers="(y.indkey::int2[])[y.indnkeyatts:]", table="y.indrelid")} AS included,
       {_part_of("x.oid")} AS part_of
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class x ON k.contype IN ('p', 'u', 'x') AND x.oid = k.conindid
LEFT JOIN pg_index i ON k.contype = 'f' AND i.indexrelid = k.conindid
LEFT JOIN pg_index y ON y.indexrelid = x.oid
WHERE k.contype IN ('p', 'u', 'c', 'x', 'f', 'n') AND {VISIBLE}
ORDER BY n.nspname, c.relname, k.conname"""

INDEXES = f"""
SELECT i.indrelid::int8 AS oid, x.relname AS name, i.indisunique AS unique, pg_get_indexdef(i.indexrelid) AS definition,
       ARRAY(SELECT DISTINCT a.attname::text FROM pg_depend d
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
               AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid ORDER BY 1) AS columns,
       obj_description(i.indexrelid, 'pg_class') AS comment, i.indisvalid AS valid,
       i.indexprs IS NULL AND i.indpred IS NULL AS plain,
       ARRAY(SELECT format('%s SET STATISTICS %s', a.attnum, a.attstattarget) FROM pg_attribute a
             WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0 ORDER BY a.attnum) AS statistics,
       (SELECT s.spcname FROM pg_tablespace s WHERE s.oid = x.reltablespace) AS tablespace,
       {_extensions("pg_class", "x.oid")} AS extensions, coalesce(x.reloptions, '{{}}') AS options,
       {_part_of("x.oid")} AS part_of
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {VISIBLE}
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
ORDER BY n.nspname, c.relname, x.relname"""

TRIGGERS = f"""
SELECT g.tgrelid::int8 AS oid, g.tgname AS name, g.tgenabled::text AS enabled, g.tgfoid::regprocedure::text AS function,
       pg_get_triggerdef(g.oid) AS definition, obj_description(g.oid, 'pg_trigger') AS comment,
       g.tgparentid <> 0 AS inherited, {_extensions("pg_trigger", "g.oid")} AS extensions
FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT g.tgisinternal AND {VISIBLE}
ORDER BY n.nspname, c.relname, g.tgname"""

RULES = f"""
SELECT w.ev_class::int8 AS oid, w.rulename AS name, w.ev_enabled::text AS enabled,
       pg_get_ruledef(w.oid) AS definition, obj_description(w.oid, 'pg_rewrite') AS comment
FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE w.rulename <> '_RETURN' AND {VISIBLE}
ORDER BY n.nspname, c.relname, w.rulename"""

POLICIES = f"""
SELECT p.polrelid::int8 AS oid, p.polname AS name, obj_description(p.oid, 'pg_policy') AS comment,
       format('CREATE POLICY %I ON %I.%I AS %s FOR %s TO %s%s%s', p.polname, n.nspname, c.relname,
         CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
         CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
           ELSE 'ALL' END,
         (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
            FROM unnest(p.polroles) r),
         ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
         ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') AS definition,
       ARRAY(SELECT DISTINCT a.attname::text FROM pg_depend d
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_policy'::regclass AND d.objid = p.oid
               AND d.refclassid = 'pg_class'::regclass AND d.refobjid = p.polrelid ORDER BY 1) AS columns
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {VISIBLE}
ORDER BY n.nspname, c.relname, p.polname"""

STATISTICS = f"""
SELECT s.stxrelid::int8 AS oid, sn.nspname AS schema, s.stxname AS name, pg_get_userbyid(s.stxowner) AS owner,
       pg_has_role(s.stxowner, 'USAGE') AS owned, pg_get_statisticsobjdef(s.oid) AS definition,
       nullif(s.stxstattarget, -1)::int AS target, obj_description(s.oid, 'pg_statistic_ext') AS comment,
       ARRAY(SELECT DISTINCT a.attname::text FROM pg_depend d
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_statistic_ext'::regclass AND d.objid = s.oid
               AND d.refclassid = 'pg_class'::regclass ORDER BY 1) AS columns
FROM pg_statistic_ext s JOIN pg_namespace sn ON sn.oid = s.stxnamespace
JOIN pg_class c ON c.oid = s.stxrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {VISIBLE}
ORDER BY 2, 3"""


def memberships(version: int) -> str:
    """Return SQL for the publications that name a table; before PostgreSQL 15 they take it whole."""
    columns, condition = ("r.prattrs", "pg_get_expr(r.prqual, r.prrelid)") if version >= 150000 else ("NULL", "NULL")
    names = _COLUMN_NAMES.format(numbers=f"{columns}::int2[]", table="r.prrelid")
    return f"""
SELECT r.prrelid::int8 AS oid, p.pubname AS name, pg_has_role(p.pubowner, 'USAGE') AS owned,
       pg_get_userbyid(p.pubowner) AS owner,
       CASE WHEN {columns} IS NOT NULL THEN {names} END AS columns, {condition} AS condition
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {VISIBLE}
ORDER BY n.nspname, c.relname, p.pubname"""


SEQUENCES = f"""
SELECT n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
       pg_has_role(c.relowner, 'USAGE') AS owned,
       CASE d.deptype WHEN 'i' THEN CASE a.attidentity WHEN 'a' THEN 'identity always' ELSE 'identity by default' END
         WHEN 'a' THEN 'serial' ELSE 'free' END AS kind,
       CASE WHEN d.objid IS NOT NULL THEN ARRAY[tn.nspname::text, t.relname::text, a.attname::text] END AS owned_by,
       format_type(s.seqtypid, NULL) AS type, s.seqstart AS start, s.seqincrement AS increment, s.seqmin AS min,
       s.seqmax AS max, s.seqcache AS cache, s.seqcycle AS cycle, c.relpersistence::text AS persistence,
       obj_description(c.oid, 'pg_class') AS comment,
       {_grants("nullif(c.relacl, acldefault('s', c.relowner))", "c.relowner")} AS privileges,
       has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT') AS readable
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN (pg_depend d JOIN pg_class t ON t.oid = d.refobjid JOIN pg_namespace tn ON tn.oid = t.relnamespace
           JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid)
  ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
     AND d.deptype IN ('a', 'i')
WHERE {VISIBLE}
ORDER BY 1, 2"""

_OWN_FUNCTION = f"""{VISIBLE} AND l.lanname NOT IN ('c', 'internal')
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid AND e.deptype = 'e')
"""

FUNCTIONS = f"""
SELECT p.oid::regprocedure::text AS identity, l.lanname AS language, p.prosrc AS source,
       ARRAY(SELECT DISTINCT ARRAY[tn.nspname::text, tc.relname::text] FROM pg_trigger g
             JOIN pg_class tc ON tc.oid = g.tgrelid JOIN pg_namespace tn ON tn.oid = tc.relnamespace
             WHERE g.tgfoid = p.oid AND NOT g.tgisinternal ORDER BY 1) AS trigger_on,
       CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END AS kind, n.nspname AS schema,
       pg_get_functiondef(p.oid) AS definition, pg_get_userbyid(p.proowner) AS owner,
       pg_has_role(p.proowner, 'USAGE') AS owned, obj_description(p.oid, 'pg_proc') AS comment,
       {_grants("nullif(p.proacl, acldefault('f', p.proowner))", "p.proowner")} AS grants,
       {_extensions("pg_proc", "p.oid")} AS extensions
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE {_OWN_FUNCTION}
ORDER BY 1"""

# A row type, its array and an owned sequence stand for the table they belong to, a view's query for the view; a column
# may hold rows also within what is made of their type: domains, composite types, and arrays of either.
DEPENDENTS = f"""
WITH RECURSIVE made_of (part, whole) AS MATERIALIZED (
  SELECT t.typbasetype, t.oid FROM pg_type t WHERE t.typtype = 'd'
  UNION ALL
  SELECT t.typelem, t.oid FROM pg_type t WHERE t.typelem <> 0
  UNION ALL
  SELECT a.atttypid, c.reltype FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relkind = 'c'
), within AS (
  SELECT c.oid AS relation, c.reltype AS type, true AS itself FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') AND {VISIBLE}
  UNION
  SELECT w.relation, m.whole, false FROM within w JOIN made_of m ON m.part = w.type
), belongs AS (
  SELECT 'pg_class'::regclass AS classid, c.oid AS objid, c.oid AS relation, NULL::oid AS function FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND {VISIBLE}
  UNION ALL
  SELECT 'pg_type'::regclass, y.oid, c.oid, NULL FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_type t ON t.oid = c.reltype CROSS JOIN LATERAL (VALUES (t.oid), (t.typarray)) y(oid)
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND {VISIBLE}
  UNION ALL
  SELECT 'pg_class'::regclass, d.objid, d.refobjid, NULL FROM pg_depend d JOIN pg_class s ON s.oid = d.objid
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
      AND s.relkind = 'S'
  UNION ALL
  SELECT 'pg_constraint'::regclass, k.oid, k.conrelid, NULL FROM pg_constraint k WHERE k.contype = 't'
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, NULL, p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_language l ON l.oid = p.prolang WHERE {_OWN_FUNCTION}
), links AS MATERIALIZED (
  -- before PostgreSQL 15 what a generated column reads is noted of the column, not of its expression
  SELECT CASE WHEN v.oid IS NULL THEN d.classid ELSE 'pg_attrdef'::regclass END AS classid,
         coalesce(v.oid, d.objid) AS objid,
         CASE WHEN v.oid IS NOT NULL OR r.relkind IN ('v', 'm') THEN 0 ELSE d.objsubid END AS objsubid,
         b.relation, b.function, d.deptype,
         CASE WHEN d.refclassid = 'pg_class'::regclass AND d.refobjid = b.relation THEN d.refobjsubid END AS part
  FROM pg_depend d JOIN belongs b ON b.classid = d.refclassid AND b.objid = d.refobjid
  LEFT JOIN pg_class r ON d.classid = 'pg_class'::regclass AND r.oid = d.objid
  LEFT JOIN pg_trigger g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
  LEFT JOIN (pg_attribute w JOIN pg_attrdef v ON v.adrelid = w.attrelid AND v.adnum = w.attnum)
    ON d.classid = 'pg_class'::regclass AND w.attrelid = d.objid AND w.attnum = d.objsubid AND w.attgenerated <> ''
    AND (d.refclassid <> 'pg_type'::regclass OR d.deptype = 'a')
  WHERE NOT coalesce(g.tgisinternal, false)
    -- a check of a domain or of another table; what a table has of its own goes or stays with it
    AND (d.classid <> 'pg_constraint'::regclass OR b.function IS NOT NULL
         OR EXISTS (SELECT FROM pg_constraint k
                    WHERE k.oid = d.objid AND k.contype = 'c' AND k.conrelid <> b.relation AND d.deptype = 'n'))
    -- what merely sits on its table comes along where a person may want to name it
    AND (d.deptype = 'n' OR v.oid IS NOT NULL
         OR d.classid IN ('pg_statistic_ext'::regclass, 'pg_trigger'::regclass, 'pg_policy'::regclass,
                          'pg_publication_rel'::regclass, 'pg_attrdef'::regclass)
         OR d.classid = 'pg_rewrite'::regclass AND d.deptype = 'a'
         -- before PostgreSQL 15 a column that was generated goes with what its expression called
         OR d.classid = 'pg_class'::regclass AND d.objsubid > 0 AND d.deptype = 'a')
    AND NOT (d.classid = 'pg_type'::regclass
             AND EXISTS (SELECT FROM pg_type y WHERE y.oid = d.objid AND y.typelem <> 0))
  UNION ALL
  SELECT 'pg_class'::regclass, a.attrelid, a.attnum, w.relation, NULL, 'n', NULL
  FROM within w JOIN pg_attribute a ON a.atttypid = w.type AND NOT a.attisdropped
  JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') WHERE NOT w.itself
), objects AS MATERIALIZED (
  SELECT x.classid, x.objid, x.objsubid, o.oid AS site, f.adnum AS own,
         coalesce(CASE WHEN w.rulename <> '_RETURN' THEN w.rulename END, p.polname, g.tgname, s.stxname, k.conname,
                  u.pubname,
                  (SELECT y.attname FROM pg_attribute y WHERE y.attrelid = f.adrelid AND y.attnum = f.adnum),
                  (SELECT y.attname FROM pg_attribute y WHERE x.classid = 'pg_class'::regclass
                     AND y.attrelid = x.objid AND y.attnum = x.objsubid AND x.objsubid > 0))::text AS name,
         CASE WHEN x.classid = 'pg_proc'::regclass THEN x.objid::regprocedure::text END AS function,
         CASE WHEN o.relkind IS NOT NULL THEN ARRAY[o_n.nspname::text, o.relname::text] END AS owner,
         i.type AS kind, i.identity
  FROM (SELECT DISTINCT classid, objid, objsubid FROM links) x
  LEFT JOIN pg_rewrite w ON x.classid = 'pg_rewrite'::regclass AND w.oid = x.objid
  LEFT JOIN pg_policy p ON x.classid = 'pg_policy'::regclass AND p.oid = x.objid
  LEFT JOIN pg_trigger g ON x.classid = 'pg_trigger'::regclass AND g.oid = x.objid
  LEFT JOIN pg_attrdef f ON x.classid = 'pg_attrdef'::regclass AND f.oid = x.objid
  LEFT JOIN pg_statistic_ext s ON x.classid = 'pg_statistic_ext'::regclass AND s.oid = x.objid
  LEFT JOIN pg_constraint k ON x.classid = 'pg_constraint'::regclass AND k.oid = x.objid
  LEFT JOIN (pg_publication_rel r JOIN pg_publication u ON u.oid = r.prpubid)
    ON x.classid = 'pg_publication_rel'::regclass AND r.oid = x.objid
  LEFT JOIN pg_class o ON o.oid = coalesce(w.ev_class, p.polrelid, g.tgrelid, f.adrelid, s.stxrelid, k.conrelid,
                                           r.prrelid, CASE WHEN x.classid = 'pg_class'::regclass THEN x.objid END)
  LEFT JOIN pg_namespace o_n ON o_n.oid = o.relnamespace,
  LATERAL pg_identify_object(CASE WHEN w.rulename = '_RETURN' THEN 'pg_class'::regclass ELSE x.classid END,
                             CASE WHEN w.rulename = '_RETURN' THEN o.oid ELSE x.objid END, x.objsubid) i
)
SELECT DISTINCT e.kind, coalesce(e.function, e.identity) AS identity, coalesce(e.name, e.function) AS name, e.owner,
       CASE WHEN c.oid IS NOT NULL THEN ARRAY[n.nspname::text, c.relname::text] END AS table,
       a.attname::text AS column, l.function::regprocedure::text AS function
FROM links l JOIN objects e USING (classid, objid, objsubid)
LEFT JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = l.relation AND a.attnum = l.part AND l.part > 0
-- a view's query is of the view itself; a default is of its own column
WHERE NOT (e.kind IN ('view', 'materialized view') AND e.site IS NOT DISTINCT FROM l.relation)
  AND NOT (e.own IS NOT NULL AND l.relation IS NOT DISTINCT FROM e.site AND l.part IS NOT DISTINCT FROM e.own)
  AND NOT (e.own IS NOT NULL AND l.deptype <> 'n' AND l.part IS NOT DISTINCT FROM 0 AND l.function IS NULL)
ORDER BY 1, 2, 5, 6, 7"""
