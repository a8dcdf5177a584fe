"""What somebody else put into the schema of the retired tables: it is to be dropped, and nothing of theirs with it.

The promise: it only reads, and knows everything that a schema can hold, not tables alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from app.cutover.catalog import literal
from app.cutover.layout import RETIRED_SCHEMA


@dataclass(frozen=True, slots=True)
class Member:
    """Something that is in the schema, and comes by itself: not with a table, an extension or a type."""

    kind: str
    """As PostgreSQL says it: `table`, `function`, `statistics object`."""
    identity: str
    """As SQL, with the schema: `retired_auth.report`, `retired_auth.f(integer)`."""


_MEMBERS = f"""
SELECT i.type, i.identity
FROM pg_depend d CROSS JOIN pg_identify_object(d.classid, d.objid, d.objsubid) i
WHERE d.refclassid = 'pg_namespace'::regclass AND d.deptype = 'n'
    AND d.refobjid = (SELECT oid FROM pg_namespace WHERE nspname = {literal(RETIRED_SCHEMA)})
    AND NOT EXISTS (
        SELECT FROM pg_depend o WHERE (o.classid, o.objid) = (d.classid, d.objid)
            AND (o.deptype = 'e' OR (i.type = 'sequence' AND o.deptype IN ('a', 'i')))
    )
ORDER BY 1, 2
"""


def members(connection: Connection) -> tuple[Member, ...]:
    """Return all that is in the schema of the retired tables, ours and others'."""
    return tuple(Member(kind, identity) for kind, identity in connection.exec_driver_sql(_MEMBERS))
