"""The database as an address: any libpq spelling of a URL becomes an engine on asyncpg.

The promise: what psql accepts, this accepts, and no message shows the password.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit
from uuid import uuid4

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.errors import DatabaseUnreachable

_SCHEMES = ("postgres", "postgresql")
_CLIENT_ONLY = frozenset({
    # libpq reads these itself; asyncpg would hand them to the server, which knows no such parameter
    "channel_binding", "client_encoding", "fallback_application_name", "gssencmode", "gssdelegation", "keepalives",
    "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts", "max_protocol_version",
    "min_protocol_version", "replication", "requirepeer", "require_auth", "sslcertmode", "sslcompression", "sslcrldir",
    "sslsni", "tcp_user_timeout", "pgbouncer", "schema", "connection_limit", "pool_timeout",
})  # fmt: skip
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_KEYWORD = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)")


class InvalidURL(ValueError):
    """The text is not an address of a PostgreSQL database; the message says what would be right."""


def parse_url(text: str) -> tuple[str, dict[str, Any]]:
    """Return the DSN and the keyword arguments that `asyncpg.connect` takes for a libpq URL or keyword string.

    Accepts `postgres://`, `postgresql://`, SQLAlchemy's `postgresql+driver://` and libpq's `key=value` form
    (PostgreSQL documentation, 32.1.1 Connection Strings).

    Raises:
        InvalidURL: it is neither.
    """
    text = text.strip()
    if "://" not in text:
        text = _from_keywords(text)
    scheme, rest = text.split("://", 1)
    if scheme.split("+", 1)[0] not in _SCHEMES:
        raise InvalidURL(f"it begins with {scheme}://; a PostgreSQL address begins with postgresql://")
    try:
        parts = urlsplit(f"postgresql://{rest}")
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise InvalidURL("it cannot be read as postgresql://user:password@host:port/database?parameter=value") from None
    ports = [
        *re.findall(r":(\d*)(?=,|$)", re.sub(r"^.*@|\[[^\]]*\]", "", parts.netloc)),
        *query.get("port", "").split(","),
    ]
    if any(port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536) for port in ports):
        raise InvalidURL("its port must be a number from 1 to 65535")
    arguments: dict[str, Any] = {}
    if timeout := query.pop("connect_timeout", None):
        if not timeout.isascii() or not timeout.isdigit():
            raise InvalidURL("connect_timeout must be a whole number of seconds")
        arguments["timeout"] = max(int(timeout), 2) if int(timeout) else None
    if query.get("sslrootcert") == "system":
        # to asyncpg that would be the name of a file
        if query.pop("sslmode", "verify-full") != "verify-full":
            raise InvalidURL("with sslrootcert=system, sslmode must be verify-full")
        del query["sslrootcert"]
        arguments["ssl"] = ssl.create_default_context()
    kept = {name: value for name, value in query.items() if name.lower() not in _CLIENT_ONLY}
    return _join(parts.netloc, parts.path, kept), arguments


def _join(netloc: str, path: str, query: Mapping[str, str]) -> str:
    # urlunsplit drops the slashes of an empty authority for schemes it does not know
    parameters = urlencode(query, quote_via=quote, safe="/")
    return f"postgresql://{netloc}{path}{'?' + parameters if parameters else ''}"


def _from_keywords(text: str) -> str:
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text):
        found = _KEYWORD.match(text, position)
        if found is None:
            raise InvalidURL("it begins neither with postgresql:// nor with host=... or another libpq keyword")
        value = found[2]
        if value.startswith("'"):
            value = value[1:-1]
        pairs[found[1]] = re.sub(r"\\(.)", r"\1", value)
        position = found.end()
    if not pairs:
        raise InvalidURL("it is empty; give postgresql://user:password@host:port/database")
    if "hostaddr" in pairs:
        pairs["host"] = pairs.pop("hostaddr")
    return _join("", "/" + quote(pairs.pop("dbname", ""), safe=""), pairs)


def redacted(text: str) -> str:
    """Return where a URL points, for messages: host, port and database, no user and no password."""
    try:
        dsn, _ = parse_url(text)
        parts = urlsplit(dsn)
        query = dict(parse_qsl(parts.query))
        host = query.get("host") or unquote(parts.netloc.rpartition("@")[2]) or "the local socket"
        port = query.get("port")
        database = query.get("dbname") or query.get("database") or unquote(parts.path.lstrip("/"))
    except ValueError:
        return "the database"
    return f"{host}{':' + port if port else ''}{'/' + database if database else ''}"


def create_engine(url: str, *, server_settings: Mapping[str, str] | None = None, **options: Any) -> AsyncEngine:
    """Return an engine for any libpq spelling of an address; nothing is connected yet.

    Args:
        url: the address.
        server_settings: run-time parameters every connection starts with, `{"search_path": "app"}` say.
        options: passed to SQLAlchemy's `create_async_engine` (pool_size, poolclass ...).

    Raises:
        InvalidURL: the address is not one.
    """
    dsn, arguments = parse_url(url)

    async def connect() -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(dsn, server_settings=dict(server_settings or {}) or None, **arguments)

    def creator() -> Any:
        # what create_async_engine makes of an async_creator, which takes no names; and a name that is used twice, in
        # this process or another, is an error behind a pooler that hands its servers on with what was prepared there
        return engine.sync_engine.dialect.dbapi.connect(  # type: ignore[union-attr]
            async_creator_fn=connect, prepared_statement_name_func=lambda: f"shadow_{uuid4().hex}"
        )

    engine = create_async_engine("postgresql+asyncpg://", creator=creator, **options)
    return engine


def search_path(*schemas: str) -> str:
    """Return the run-time parameter that makes schemas, spelled as they are, the only ones names are looked up in.

    PostgreSQL looks into them in their order, and passes over those that do not exist.
    """
    return ", ".join('"' + schema.replace('"', '""') + '"' for schema in schemas)


@contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn what goes wrong while connecting into one sentence.

    Raises:
        DatabaseUnreachable: saying where, what, and what to look at.
    """
    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError) as error:
        # SQLAlchemy wraps what asyncpg raises twice over
        cause = _original(error)
        if isinstance(cause, asyncpg.ClientConfigurationError):
            raise DatabaseUnreachable(f"DATABASE_URL cannot be used: {cause.args[0].rstrip('.')}.") from error
        if not isinstance(cause, _UNREACHABLE):
            raise
        raise DatabaseUnreachable(_sentence(url, cause)) from error


def _original(error: BaseException) -> BaseException:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


_UNREACHABLE = (
    OSError,  # refused, no such host, timed out, TLS
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
)


def _sentence(url: str, error: BaseException) -> str:
    where = f"Cannot connect to {redacted(url)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"{where}: its certificate is not trusted: {why}. Check sslmode, sslrootcert and host in DATABASE_URL."
    if isinstance(error, OSError) and (unread := _unread(url)):
        return f"{where}: {unread}."
    reason = str(error).strip().splitlines()
    what = f"{where}: {reason[0] if reason else type(error).__name__}. "
    if isinstance(error, asyncpg.ProtocolViolationError) or "pooling mode" in what:
        # PostgreSQL itself has no objection to what asyncpg sends
        return f"{what}A connection pooler answers there; give DATABASE_URL the direct address of the server itself."
    return f"{what}Check DATABASE_URL (host, port, database, user, sslmode) and that the server is up."


def _unread(url: str) -> str | None:
    """Return which of the files that a URL names is not one; what is raised where one is missing does not say it."""
    query = dict(parse_qsl(urlsplit(parse_url(url)[0]).query))
    named = ((name, query[name]) for name in _FILES if name in query)
    return next((f"{name} says {path}, which is no file" for name, path in named if not Path(path).is_file()), None)
