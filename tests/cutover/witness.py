"""An independent witness of a database: plain SQL through psql and pg_dump, nothing of the code under test."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests.postgres import Server

OURS = ("-T", "*.shadow_*")
"""pg_dump's option that leaves out what the cutover keeps for itself."""

OUR_TABLES = ("shadow_alembic_version", "shadow_cutover", "shadow_events", "shadow_standing")
"""What the cutover and the server keep for themselves."""

_FOREIGN_KEYS = """
SELECT k.conname AS name, k.conrelid::regclass::text AS of, k.confrelid::regclass::text AS target,
       (SELECT array_agg(a.attname ORDER BY u.i) FROM unnest(k.conkey) WITH ORDINALITY u(n, i)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n) AS columns,
       (SELECT array_agg(a.attname ORDER BY u.i) FROM unnest(k.confkey) WITH ORDINALITY u(n, i)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n) AS target_columns,
       k.confdeltype AS on_delete, k.confupdtype AS on_update, k.confmatchtype AS match,
       k.condeferrable AS deferrable, k.condeferred AS deferred, k.convalidated AS valid
FROM pg_constraint k WHERE k.contype = 'f' ORDER BY 2, 1"""

_COLUMNS = """
SELECT column_name AS name, data_type AS type, character_maximum_length AS length, is_nullable = 'YES' AS nullable,
       column_default AS default
FROM information_schema.columns WHERE table_schema || '.' || table_name = '{table}' ORDER BY column_name"""

_ROWS = """
SELECT jsonb_object_agg(v.key, v.value) AS r
FROM (SELECT row_number() OVER () AS i, to_jsonb(t) AS row FROM {table} t) t, jsonb_each_text(t.row) v
GROUP BY t.i ORDER BY jsonb_object_agg(v.key, v.value)::text"""

_TABLES = """
SELECT n.nspname || '.' || c.relname AS name, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS sql
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"""


@dataclass(frozen=True)
class Witness:
    """One database of one server; `users` is the table of the people, as SQL with its schema."""

    server: Server
    url: str
    users: str = "public.users"

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.lstrip("/")

    def seen_by(self, role: str) -> str:
        """Return the address of the same database for another role."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"postgresql://{role}@{host}{parts.path}?{parts.query}"

    def run(self, script: str) -> str:
        """Run a script as somebody would who pastes it into psql; what psql complains of fails the test."""
        try:
            return self.server.psql(self.url, script)
        except subprocess.CalledProcessError as error:
            raise AssertionError(f"{error.stderr}in: {script[:500]}") from None

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        rows: list[dict[str, Any]] = json.loads(self.run(f"SELECT coalesce(jsonb_agg(q), '[]') FROM ({query}) q"))
        return rows

    def value(self, query: str) -> Any:
        """Return the only value of a query."""
        ((value,),) = (row.values() for row in self.ask(query))
        return value

    def foreign_keys(self, target: str | None = None) -> list[dict[str, Any]]:
        """Return the rows of pg_constraint, names instead of numbers; of those to one table, or all."""
        return [key for key in self.ask(_FOREIGN_KEYS) if target in (None, key["target"])]

    def tables(self) -> set[str]:
        """Return every table as `schema.name`."""
        return {row["name"] for row in self.ask(_TABLES)}

    def rows(self, table: str) -> list[dict[str, str]]:
        """Return the rows of a table, given as SQL, in an order of their own; every value as it is written."""
        return [row["r"] for row in self.ask(_ROWS.format(table=table))]

    def counts(self) -> dict[str, int]:
        """Return the number of rows of every table, counted."""
        tables = self.ask(_TABLES)
        each = [f"SELECT {number} AS i, count(*) AS n FROM {table['sql']}" for number, table in enumerate(tables)]
        return {
            tables[row["i"]]["name"]: row["n"] for row in self.ask(" UNION ALL ".join(each) or "SELECT 1 WHERE false")
        }

    def columns(self, table: str = "public.users") -> dict[str, tuple[Any, ...]]:
        """Return type, length, nullability and default of each column of a table, given as SQL."""
        rows = self.ask(_COLUMNS.format(table=table.replace('"', "")))
        return {row["name"]: (row["type"], row["length"], row["nullable"], row["default"]) for row in rows}

    def dump(self, *options: str) -> str:
        """Return everything pg_dump knows."""
        return self.server.dump(self.url, *options)

    def portrait(self) -> Portrait:
        """Return all there is, but for what the cutover keeps for itself, and the order of the columns of users."""
        statements, rows = _taken_apart(self.dump(*OURS, f"--exclude-table-data={self.users}"))
        return Portrait(self._sorted(statements), rows, self.ask(f"SELECT * FROM {self.users} ORDER BY id"))

    def schema(self) -> list[str]:
        """Return every statement that makes the database, but for what the cutover keeps for itself."""
        return self._sorted(self.dump("-s", *OURS))

    def _sorted(self, statements: str) -> list[str]:
        return sorted(self._without_order(text) for text in statements.split("\n\n") if text.strip())

    def _without_order(self, statement: str) -> str:
        if not statement.lstrip().startswith(f"CREATE TABLE {self.users} ("):
            return statement.strip()
        return "\n".join(sorted(line.strip().rstrip(",") for line in statement.strip().splitlines()))


class Portrait(NamedTuple):
    """What pg_dump and a query say of a database."""

    schema: list[str]
    data: dict[str, list[str]]
    """The rows of each table, those of users apart, in no order; and below no table what sequences stand at."""
    users: list[dict[str, Any]]


def _taken_apart(dump: str) -> tuple[str, dict[str, list[str]]]:
    """Return the statements of a dump that make something, and the rows, each below the COPY that it follows."""
    statements: list[str] = []
    found: dict[str, list[str]] = {}
    heading = ""
    for line in dump.splitlines():
        if heading and line == "\\.":
            heading = ""
        elif heading or line.startswith("SELECT pg_catalog.setval("):
            found.setdefault(heading, []).append(line)
        elif line.startswith("COPY "):
            heading = line
        else:
            statements.append(line)
    return "\n".join(statements), {heading: sorted(lines) for heading, lines in found.items()}


_NAMES_OF_PARTITIONS = re.compile(r' CONSTRAINT "visit_userId_not_null"(?= NOT NULL)')
"""The one thing that does not come back. When a partitioned table's column changes its type, PostgreSQL 18 drops the
not-null constraint of each partition and makes it again under the name that the whole's has; no statement renames it as
long as the partition is attached. So where a partition's had a name of its own, it has the whole's afterwards."""


def apart_from_names_of_partitions(portrait: Portrait) -> Portrait:
    """Return a portrait without what does not come back."""
    return portrait._replace(schema=sorted(_NAMES_OF_PARTITIONS.sub("", text) for text in portrait.schema))
