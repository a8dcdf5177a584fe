"""What sits on no table and what PostgreSQL itself writes no definition of: domains and their checks, aggregates,
operators, their classes and families, casts, transforms; the SQL that asks for each as the SQL that makes it.

The promise: definition, owner and comment are whole, and every name is qualified where the search_path is empty. What
came with PostgreSQL or an extension is left out.
"""

from __future__ import annotations

_ARGUMENTS = "CASE WHEN p.pronargs = 0 THEN '*' ELSE pg_get_function_arguments(p.oid) END"
_EXTENT = "CASE WHEN a.{0} THEN '{1}' END"


def _given(clause: str, value: str) -> str:
    """Return SQL for `CLAUSE = value`, null where there is no such function."""
    return f"'{clause} = ' || nullif({value}, 0)::regproc"


def _operator(oid: str) -> str:
    """Return SQL for an operator's name where no arguments may follow, null where there is none."""
    return (
        f"(SELECT format('OPERATOR(%I.%s)', s.nspname, y.oprname) FROM pg_operator y "
        f"JOIN pg_namespace s ON s.oid = y.oprnamespace WHERE y.oid = {oid})"
    )


def _modified(clause: str, column: str) -> str:
    word = f"CASE {column} WHEN 'r' THEN 'READ_ONLY' WHEN 's' THEN 'SHAREABLE' ELSE 'READ_WRITE' END"
    return f"'{clause} = ' || {word}"


_AGGREGATE = f"""concat_ws(', ', {_given("SFUNC", "a.aggtransfn")}, 'STYPE = ' || a.aggtranstype::regtype,
      'SSPACE = ' || nullif(a.aggtransspace, 0), {_given("FINALFUNC", "a.aggfinalfn")},
      {_EXTENT.format("aggfinalextra", "FINALFUNC_EXTRA")},
      CASE WHEN a.aggfinalfn <> 0 THEN {_modified("FINALFUNC_MODIFY", "a.aggfinalmodify")} END,
      {_given("COMBINEFUNC", "a.aggcombinefn")}, {_given("SERIALFUNC", "a.aggserialfn")},
      {_given("DESERIALFUNC", "a.aggdeserialfn")}, 'INITCOND = ' || quote_literal(a.agginitval),
      {_given("MSFUNC", "a.aggmtransfn")}, {_given("MINVFUNC", "a.aggminvtransfn")},
      'MSTYPE = ' || nullif(a.aggmtranstype, 0)::regtype, 'MSSPACE = ' || nullif(a.aggmtransspace, 0),
      {_given("MFINALFUNC", "a.aggmfinalfn")}, {_EXTENT.format("aggmfinalextra", "MFINALFUNC_EXTRA")},
      CASE WHEN a.aggmfinalfn <> 0 THEN {_modified("MFINALFUNC_MODIFY", "a.aggmfinalmodify")} END,
      'MINITCOND = ' || quote_literal(a.aggminitval), 'SORTOP = ' || {_operator("a.aggsortop")},
      CASE a.aggkind WHEN 'h' THEN 'HYPOTHETICAL' END,
      'PARALLEL = ' || CASE p.proparallel WHEN 's' THEN 'SAFE' WHEN 'r' THEN 'RESTRICTED' END)"""


def _members(catalog: str, oid: str) -> str:
    """Return SQL for the operators and functions that belong to a class, or to a family alone."""
    of = f"""FROM pg_depend d JOIN {{}} y ON y.oid = d.objid
        WHERE d.classid = '{{}}'::regclass AND d.refclassid = '{catalog}'::regclass AND d.refobjid = {oid}
          AND d.deptype IN ('a', 'i')"""
    return f"""SELECT format('OPERATOR %s %s', y.amopstrategy, y.amopopr::regoperator) ||
          coalesce(
          (SELECT format(' FOR ORDER BY %I.%I', s.nspname, f.opfname) FROM pg_opfamily f
           JOIN pg_namespace s ON s.oid = f.opfnamespace WHERE f.oid = y.amopsortfamily), '') AS member
        {of.format("pg_amop", "pg_amop")}
      UNION ALL
      SELECT format('FUNCTION %s (%s, %s) %s', y.amprocnum, y.amproclefttype::regtype, y.amprocrighttype::regtype,
          y.amproc::regprocedure)
        {of.format("pg_amproc", "pg_amproc")}"""


_CHECK = """concat_ws(E';\\n',
      format('ALTER DOMAIN %s ADD CONSTRAINT %I %s', k.contypid::regtype, k.conname, pg_get_constraintdef(k.oid)),
      format('COMMENT ON CONSTRAINT %I ON DOMAIN %s IS ', k.conname, k.contypid::regtype)
        || quote_literal(obj_description(k.oid, 'pg_constraint')))"""

_DOMAIN = f"""concat_ws(E';\\n', concat_ws(' ', 'CREATE DOMAIN', t.oid::regtype, 'AS',
        format_type(t.typbasetype, t.typtypmod),
        (SELECT format('COLLATE %I.%I', s.nspname, l.collname) FROM pg_collation l
           JOIN pg_namespace s ON s.oid = l.collnamespace JOIN pg_type b ON b.oid = t.typbasetype
           WHERE l.oid = t.typcollation AND t.typcollation <> b.typcollation),
        'DEFAULT ' || t.typdefault, CASE WHEN t.typnotnull THEN 'NOT NULL' END),
      (SELECT string_agg({_CHECK}, E';\\n' ORDER BY k.conname)
         FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))"""

DEFINITIONS = f"""
WITH made (classid, oid, called, definition, owner) AS (
  SELECT 'pg_constraint'::regclass, k.oid, NULL, {_CHECK}, NULL::oid
    FROM pg_constraint k WHERE k.contypid <> 0 AND k.contype = 'c'
  UNION ALL
  SELECT 'pg_type'::regclass, t.oid, format('DOMAIN %s', t.oid::regtype), {_DOMAIN}, t.typowner
    FROM pg_type t WHERE t.typtype = 'd'
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid,
    format('AGGREGATE %s(%s)', p.oid::regproc, {_ARGUMENTS}),
    format('CREATE AGGREGATE %s(%s) (%s)', p.oid::regproc, {_ARGUMENTS}, {_AGGREGATE}), p.proowner
    FROM pg_proc p JOIN pg_aggregate a ON a.aggfnoid = p.oid
  UNION ALL
  SELECT 'pg_proc'::regclass, p.oid, format('FUNCTION %s', p.oid::regprocedure), pg_get_functiondef(p.oid), p.proowner
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang AND l.lanname IN ('c', 'internal')
    WHERE p.prokind IN ('f', 'w')
  UNION ALL
  SELECT 'pg_operator'::regclass, o.oid, format('OPERATOR %s', o.oid::regoperator),
    format('CREATE OPERATOR %I.%s (%s)', n.nspname, o.oprname, concat_ws(', ', {_given("FUNCTION", "o.oprcode::oid")},
      'LEFTARG = ' || nullif(o.oprleft, 0)::regtype, 'RIGHTARG = ' || nullif(o.oprright, 0)::regtype,
      'COMMUTATOR = ' || {_operator("o.oprcom")}, 'NEGATOR = ' || {_operator("o.oprnegate")},
      {_given("RESTRICT", "o.oprrest::oid")}, {_given("JOIN", "o.oprjoin::oid")},
      CASE WHEN o.oprcanhash THEN 'HASHES' END, CASE WHEN o.oprcanmerge THEN 'MERGES' END)), o.oprowner
    FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
  UNION ALL
  SELECT 'pg_opclass'::regclass, c.oid, format('OPERATOR CLASS %I.%I USING %I', n.nspname, c.opcname, m.amname),
    concat_ws(' ', format('CREATE OPERATOR CLASS %I.%I', n.nspname, c.opcname),
      CASE WHEN c.opcdefault THEN 'DEFAULT' END,
      format('FOR TYPE %s USING %I FAMILY %I.%I AS', c.opcintype::regtype, m.amname, s.nspname, f.opfname),
      (SELECT string_agg(member, ', ' ORDER BY member) FROM (
        SELECT format('STORAGE %s', coalesce(nullif(c.opckeytype, 0), c.opcintype)::regtype) AS member
      UNION ALL
      {_members("pg_opclass", "c.oid")}) x)), c.opcowner
    FROM pg_opclass c JOIN pg_namespace n ON n.oid = c.opcnamespace JOIN pg_am m ON m.oid = c.opcmethod
    JOIN pg_opfamily f ON f.oid = c.opcfamily JOIN pg_namespace s ON s.oid = f.opfnamespace
  UNION ALL
  SELECT 'pg_opfamily'::regclass, f.oid, format('OPERATOR FAMILY %I.%I USING %I', n.nspname, f.opfname, m.amname),
    concat_ws(E';\\n', format('CREATE OPERATOR FAMILY %I.%I USING %I', n.nspname, f.opfname, m.amname),
      (SELECT format('ALTER OPERATOR FAMILY %I.%I USING %I ADD %s', n.nspname, f.opfname, m.amname,
         string_agg(member, ', ' ORDER BY member)) FROM ({_members("pg_opfamily", "f.oid")}) x
         HAVING count(*) > 0)), f.opfowner
    FROM pg_opfamily f JOIN pg_namespace n ON n.oid = f.opfnamespace JOIN pg_am m ON m.oid = f.opfmethod
  UNION ALL
  SELECT 'pg_cast'::regclass, c.oid, format('CAST (%s AS %s)', c.castsource::regtype, c.casttarget::regtype),
    format('CREATE CAST (%s AS %s) ', c.castsource::regtype, c.casttarget::regtype) ||
      CASE c.castmethod WHEN 'f' THEN format('WITH FUNCTION %s', c.castfunc::regprocedure)
        WHEN 'i' THEN 'WITH INOUT' ELSE 'WITHOUT FUNCTION' END ||
      CASE c.castcontext WHEN 'i' THEN ' AS IMPLICIT' WHEN 'a' THEN ' AS ASSIGNMENT' ELSE '' END, NULL
    FROM pg_cast c
  UNION ALL
  SELECT 'pg_transform'::regclass, r.oid, format('TRANSFORM FOR %s LANGUAGE %I', r.trftype::regtype, l.lanname),
    format('CREATE TRANSFORM FOR %s LANGUAGE %I (%s)', r.trftype::regtype, l.lanname, concat_ws(', ',
      'FROM SQL WITH FUNCTION ' || nullif(r.trffromsql, 0)::regprocedure,
      'TO SQL WITH FUNCTION ' || nullif(r.trftosql, 0)::regprocedure)), NULL
    FROM pg_transform r JOIN pg_language l ON l.oid = r.trflang
)
SELECT i.type AS kind,
  CASE WHEN m.classid = 'pg_proc'::regclass THEN m.oid::regprocedure::text ELSE i.identity END AS identity,
  concat_ws(E';\\n', m.definition, 'ALTER ' || m.called || ' OWNER TO ' || quote_ident(pg_get_userbyid(m.owner)),
    'COMMENT ON ' || m.called || ' IS ' || quote_literal(obj_description(m.oid, m.classid::regclass::text)))
    AS definition
FROM made m, LATERAL pg_identify_object(m.classid, m.oid, 0) i
-- 16384: the first that is nobody's but the database's own
WHERE m.oid >= 16384 AND NOT EXISTS (
  SELECT FROM pg_depend e WHERE e.classid = m.classid AND e.objid = m.oid AND e.deptype = 'e')
ORDER BY 1, 2"""
"""Rows of kind and identity, as pg_identify_object names them (functions and aggregates with short names of types), and
definition: statements, with `;` and a line's end between them."""
