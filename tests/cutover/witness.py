"""An independent witness of a database: plain SQL through psql and pg_dump, nothing of the code under test."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.postgres import Server

OURS = ("-T", "*.shadow_*")
"""pg_dump's option that leaves out what the cutover keeps for itself."""

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

_TABLES = """
SELECT n.nspname || '.' || c.relname AS name, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS sql
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"""


@dataclass(frozen=True)
class Witness:
    """One database of one server."""

    server: Server
    url: str

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

    def counts(self) -> dict[str, int]:
        """Return the number of rows of every table, counted."""
        tables = self.ask(_TABLES)
        each = [f"SELECT {number} AS i, count(*) AS n FROM {table['sql']}" for number, table in enumerate(tables)]
        return {
            tables[row["i"]]["name"]: row["n"] for row in self.ask(" UNION ALL ".join(each) or "SELECT 1 WHERE false")
        }

    def columns(self, table: str = "public.users") -> dict[str, tuple[Any, ...]]:
        """Return type, length, nullability and default of each column of a table."""
        rows = self.ask(_COLUMNS.format(table=table))
        return {row["name"]: (row["type"], row["length"], row["nullable"], row["default"]) for row in rows}

    def dump(self, *options: str) -> str:
        """Return everything pg_dump knows."""
        return self.server.dump(self.url, *options)

    def portrait(self) -> tuple[list[str], str, list[dict[str, Any]]]:
        """Return all there is, but for what the cutover keeps for itself, and the order of the columns of users."""
        schema = sorted(_without_order(text) for text in self.dump("-s", *OURS).split("\n\n") if text.strip())
        data = self.dump("-a", *OURS, "--exclude-table-data=public.users")
        return schema, data, self.ask("SELECT * FROM public.users ORDER BY id")


def _without_order(statement: str) -> str:
    if not statement.lstrip().startswith("CREATE TABLE public.users ("):
        return statement.strip()
    return "\n".join(sorted(line.strip().rstrip(",") for line in statement.strip().splitlines()))
