"""The databases that the benchmark works on: the sample databases that Better Auth made, grown to any size by SQL.

    fixture up to its data  ->  generated rows  ->  fixture's constraints and indexes  ->  VACUUM ANALYZE
    a loaded database is a template; every run works on a copy of it, file by file

The promise: two copies of one template hold the same bytes, nothing else runs on the server, and what is made here is
dropped here.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.embedded import programs

FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures"
CHUNK = 500_000
"""Rows that one statement makes."""
_CONSTRAINTS = "; Type: CONSTRAINT; "
"""What pg_dump writes above the first thing that comes after the data."""


class BenchmarkFailed(Exception):
    """The benchmark cannot go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The generated rows of one table."""

    into: str
    """The table and its columns."""
    per_user: float
    """How many for each user; 0 where the caller says."""
    values: str
    """As SQL, of `i`, the number of the row, and `u`, that of a user: from 1 on, evenly spread."""

    def inserting(self, first: int, last: int, users: int) -> str:
        """Return the INSERT that makes the rows of these numbers."""
        numbers = f"generate_series({first}, {last}) i, LATERAL (SELECT i % {users} + 1 AS u) n"
        return f"INSERT INTO {self.into} SELECT {self.values} FROM {numbers}"  # noqa: S608 -- names of ours


@dataclass(frozen=True, slots=True)
class Layout:
    """A layout of Better Auth's, and what an app asks of its users table."""

    fixture: str
    users: str
    """The table, as SQL."""
    rows: tuple[Rows, ...]
    read: tuple[str, ...]
    """What a reader says, with {id}: before the names change, and after."""
    update: tuple[str, ...]
    insert: tuple[str, ...]
    """With {number}, which no two writers share."""


_PREFIXED = "'{}_' || substr(md5('{}' || {}), 1, 24)"
_USER, _UUID_USER = _PREFIXED.format("usr", "user", "u"), "md5('user' || u)::uuid"
_PASSWORD = "substr(md5('salt' || i), 1, 32) || ':' || repeat(md5('key' || i), 4)"  # noqa: S105 -- of nobody
_TOKEN = "substr(md5('token' || i) || md5('nekot' || i), 1, 32)"  # noqa: S105 -- of nobody
_AGENT = (
    "'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/' || 100 + i % 40 || '.0.0.0 "
    "Safari/537.36'"
)
_ADDRESS = "'192.0.' || i % 256 || '.' || i % 251"
_AGO = "now() - make_interval(mins => (i % 500000)::int)"

AUTHER = Layout(
    fixture="plural_snake",
    users="users",
    rows=(
        Rows(
            "users (id, name, email, email_verified, image, created_at, updated_at, role_slugs)",
            1,
            f"{_USER}, 'User number ' || u, 'user' || u || '@example.com', u % 5 > 0, "
            f"CASE WHEN u % 3 = 0 THEN 'https://images.example.com/' || u || '.png' END, {_AGO}, {_AGO}, "
            "CASE WHEN u % 50 = 0 THEN '{member,admin}'::text[] ELSE '{member}' END",
        ),
        Rows(
            "accounts (id, account_id, provider_id, user_id, password)",
            1,
            f"{_PREFIXED.format('act', 'account', 'i')}, {_USER}, 'credential', {_USER}, {_PASSWORD}",
        ),
        Rows(
            "two_factors (id, secret, backup_codes, user_id)",
            0.05,
            f"{_PREFIXED.format('tfa', 'factor', 'i')}, repeat(md5('secret' || i), 4), repeat(md5('codes' || i), 8), "
            f"{_USER}",
        ),
        Rows(
            "audit_logs (actor_id, action, entity_type, entity_id, metadata, ip, created_at)",
            2,
            f"CASE WHEN i % 11 > 0 THEN {_USER} END, 'file.delete', 'file', 'fil_' || i, "
            f"jsonb_build_object('g', i), ({_ADDRESS})::inet, {_AGO}",
        ),
        Rows(
            "sessions (id, expires_at, token, ip_address, user_agent, user_id)",
            0,
            f"{_PREFIXED.format('ses', 'session', 'i')}, {_AGO} + interval '7 days', {_TOKEN}, {_ADDRESS}, {_AGENT}, "
            f"{_USER}",
        ),
    ),
    read=("SELECT id, name, email, image FROM users WHERE id = '{id}'",),
    update=("UPDATE users SET updated_at = now() WHERE id = '{id}'",),
    insert=("INSERT INTO users (id, name, email) VALUES ('new_{number}', 'New', 'new{number}@example.com')",),
)

UUID_IDS = Layout(
    fixture="uuid_ids",
    users='"user"',
    rows=(
        Rows(
            '"user" (id, name, email, "emailVerified", image, "createdAt", "updatedAt")',
            1,
            f"{_UUID_USER}, CASE WHEN u % 100 > 0 THEN 'User number ' || u END, 'user' || u || '@example.com', "
            f"u % 5 > 0, CASE WHEN u % 3 = 0 THEN 'https://images.example.com/' || u || '.png' END, {_AGO}, {_AGO}",
        ),
        Rows(
            'account (id, "userId", "accountId", "providerId", password)',
            1,
            f"md5('account' || i)::uuid, {_UUID_USER}, {_UUID_USER}, 'credential', {_PASSWORD}",
        ),
        Rows(
            'activity (id, "userId", "userIdText", verb, at)',
            2,
            f"md5('activity' || i)::uuid, CASE WHEN i % 11 > 0 THEN {_UUID_USER} END, {_UUID_USER}::text, "
            f"'verb' || i % 7, {_AGO}",
        ),
        Rows(
            'project (id, "ownerId", title)',
            0.5,
            f"md5('project' || i)::uuid, {_UUID_USER}, 'Project number ' || i",
        ),
        Rows(
            '"projectMember" ("projectId", "userId", level)',
            0.5,
            f"md5('project' || i)::uuid, {_UUID_USER}, i % 4",
        ),
        Rows(
            'session (id, "userId", token, "expiresAt", "ipAddress", "userAgent")',
            0,
            f"md5('session' || i)::uuid, {_UUID_USER}, {_TOKEN}, {_AGO} + interval '7 days', {_ADDRESS}, {_AGENT}",
        ),
    ),
    read=(
        "SELECT id, name, email, image FROM \"user\" WHERE id = '{id}'",
        "SELECT id, name, email, image FROM users WHERE id = '{id}'",
    ),
    update=(
        'UPDATE "user" SET "updatedAt" = now() WHERE id = \'{id}\'',
        "UPDATE users SET updated_at = now() WHERE id = '{id}'",
    ),
    insert=(
        "INSERT INTO \"user\" (id, name, email) VALUES (gen_random_uuid(), 'New', 'new{number}@example.com')",
        "INSERT INTO users (id, name, email) VALUES (gen_random_uuid(), 'New', 'new{number}@example.com')",
    ),
)


@dataclass(frozen=True, slots=True)
class Server:
    """A server whose databases may be made and dropped, asked with psql."""

    url: str
    """Of its maintenance database."""

    def address(self, database: str) -> str:
        """Return the URL of a database."""
        parts = urlsplit(self.url)
        return f"postgresql://{parts.netloc}/{database}?{parts.query}"

    def psql(self, script: str, database: str | None = None) -> str:
        """Return what psql prints of a script; the first error ends it.

        Raises:
            BenchmarkFailed: saying what the server said.
        """
        url = self.address(database) if database else self.url
        done = subprocess.run(
            [programs() / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", url],
            input=script, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise BenchmarkFailed(f"psql: {done.stderr.strip()}")
        return done.stdout.strip()

    def count(self, table: str, database: str) -> int:
        """Return how many rows a table has."""
        return int(self.psql(f"SELECT count(*) FROM {table}", database))  # noqa: S608 -- a name of ours

    def is_template(self, database: str) -> bool:
        """Whether a database was loaded to its end."""
        return database in self.psql("SELECT datname FROM pg_database WHERE datistemplate").splitlines()

    @property
    def version(self) -> int:
        """server_version_num"""
        return int(self.psql("SHOW server_version_num"))

    def drop(self, database: str) -> None:
        """Drop a database, a template too, whoever is connected to it."""
        if self.is_template(database):
            self.psql(f"ALTER DATABASE {database} IS_TEMPLATE false")
        self.psql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    @contextmanager
    def copy(self, template: str, name: str = "bench_run") -> Iterator[str]:
        """Give a copy of a database for as long as it is needed; the server has then nothing left to write."""
        self.drop(name)
        # from PostgreSQL 15 on it would else be written to the log as well
        strategy = " STRATEGY file_copy" if self.version >= 150_000 else ""
        self.psql(f"CREATE DATABASE {name} TEMPLATE {template}{strategy}")
        try:
            self.psql("CHECKPOINT")
            yield name
        finally:
            self.drop(name)


def load(
    server: Server, layout: Layout, users: int, sessions_per_user: float, advance: Callable[[str, float], None]
) -> str:
    """Return the name of a database of a layout with so many users, made where it is not there.

    Args:
        server: where.
        layout: which.
        users: how many rows the users table has.
        sessions_per_user: how many the sessions table has for each.
        advance: called with what is being done and the part of the whole, 0 to 1, that is done.

    Raises:
        BenchmarkFailed: the server refused something, or there are fewer users than the fixture has.
    """
    name = f"bench_{layout.fixture}_{users}_{sessions_per_user:g}".replace(".", "_")
    if server.is_template(name):
        return name
    server.drop(name)
    server.psql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        _fill(server, name, layout, users, sessions_per_user, advance)
    except BaseException:  # interrupted, too: half a database is of no use
        server.drop(name)
        raise
    server.psql(f"ALTER DATABASE {name} IS_TEMPLATE true")
    return name


def _fill(
    server: Server,
    name: str,
    layout: Layout,
    users: int,
    sessions_per_user: float,
    advance: Callable[[str, float], None],
) -> None:
    before, after = _halves((FIXTURES / f"{layout.fixture}.sql").read_text())
    server.psql(before, name)
    made = users - server.count(layout.users, name)
    if made < 1:
        raise BenchmarkFailed(f"{users} users are fewer than the sample database {layout.fixture} has.")
    counts = {rows: round(made * (rows.per_user or sessions_per_user)) for rows in layout.rows}
    # indexes and keys take about as long as the rows themselves
    done, total = 0, 2 * sum(counts.values())
    for rows, count in counts.items():
        for first in range(1, count + 1, CHUNK):
            last = min(first + CHUNK - 1, count)
            server.psql(f"SET synchronous_commit = off; {rows.inserting(first, last, made)}", name)
            done += last - first + 1
            advance(f"{count:,} rows of {rows.into.split()[0]}", done / total)
    statements = [each for each in after.split(";\n") if each.strip()]
    for number, statement in enumerate(statements):
        server.psql(f"SET maintenance_work_mem = '512MB'; {statement};", name)
        advance("keys and indexes", (1 + (number + 1) / len(statements)) / 2)
    server.psql("VACUUM (ANALYZE, FREEZE)", name)


def _halves(dump: str) -> tuple[str, str]:
    """Return what pg_dump wrote up to the data, and the constraints and indexes that it wrote after them."""
    at = dump.rindex("\n", 0, dump.index(_CONSTRAINTS))
    after = "\n".join(line for line in dump[at:].splitlines() if line and not line.startswith(("--", "\\")))
    return dump[:at], after + "\n"


def sizes(server: Server, database: str) -> Mapping[str, int]:
    """Return the rows of each table, and the bytes of the whole database under `bytes`."""
    listed = server.psql(
        "SELECT relname, reltuples::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
        "ORDER BY reltuples DESC, relname",
        database,
    )
    rows = {name: int(count) for name, count in (line.split("|") for line in listed.splitlines())}
    return {**rows, "bytes": int(server.psql(f"SELECT pg_database_size('{database}')"))}
