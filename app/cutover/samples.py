"""Samples: what is in the text columns of a table, told from a few rows.

The promise: it reads at most a thousand rows of a table, and what it returns are kinds, never values.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from sqlalchemy import Connection

from app.cutover.catalog import Snapshot, Table, quoted
from app.cutover.shapes import Content, Look, is_text

ROWS = 1000

_KINDS: Mapping[Content, str] = {
    "address": "count({c}) > 0 AND bool_and({c} ~ '^[^@[:space:]]+@[^@[:space:]]+$')",
    "picture": "bool_or({c} ~ '^(https?://|data:image/)')",
    "password": "bool_or({c} ~ '^([0-9a-f]{{32}}:[0-9a-f]{{128}}$|\\$2[aby]\\$|\\$argon2)')",
    "provider": "bool_or({c} = 'credential')",
    "key": "count({c}) > 0 AND bool_and({c} ~ '^\\{{' AND {c} ~ '\"kty\"' AND {c} !~ '\"d\"')",
    "agent": "bool_or({c} ~ '^(Mozilla/[0-9]|okhttp/|curl/|PostmanRuntime/)')",
    "anything": "count({c}) > 0",
    # generateId(32) of Better Auth's, and not hexadecimal
    "token": "2 * count(*) FILTER (WHERE {c} ~ '^[0-9A-Za-z]{{32}}$' AND {c} ~ '[G-Zg-z]') > count({c})",
    "sealed": "count({c}) > 0 AND bool_and({c} ~ '^([$]ba[$]|[0-9a-f]{{96}})')",
    "limit": "bool_or({c} LIKE 'session:%')",
    "reset": "bool_or({c} ~ '^(reset-password|change-email|email-verification|sign-in-otp|forget-password)')",
}


def looking(connection: Connection, snapshot: Snapshot) -> Look:
    """Return what looks into the tables of a database, into each once, and into none that the role does not see."""

    @cache
    def look(table: Table) -> Mapping[str, frozenset[Content]]:
        texts = [column for column in table.columns if is_text(column)]
        if not texts or not snapshot.sees(table):
            return {}
        tests = ", ".join(
            f"coalesce({test.format(c=f'{quoted(column.name)}::text')}, false)"
            for column in texts
            for test in _KINDS.values()
        )
        inner = f"SELECT {', '.join(quoted(column.name) for column in texts)} FROM {table.sql} LIMIT {ROWS}"
        answers = iter(connection.exec_driver_sql(f"SELECT {tests} FROM ({inner}) sample").one())
        return {column.name: frozenset(kind for kind in _KINDS if next(answers)) for column in texts}

    return look
