"""The database as an address: any libpq spelling of a URL becomes an engine on asyncpg.

The promise: what psql accepts, this accepts; what it does not is refused before anything is connected; no message shows
the password; and nobody waits for ever for a server that does not answer.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.errors import DatabaseUnreachable
from app.pooler import Passage

INSUFFICIENT_PRIVILEGE = "42501"
"""SQLSTATE."""
CONNECT_TIMEOUT = 5
"""Seconds that connecting may take, unless the address says `connect_timeout`."""
_SCHEMES = ("postgres", "postgresql")
_CLIENT_ONLY = frozenset({
    # libpq reads these itself; asyncpg would hand them to the server, which knows no such parameter
    "channel_binding", "client_encoding", "fallback_application_name", "gssencmode", "gssdelegation", "keepalives",
    "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts", "max_protocol_version",
    "min_protocol_version", "replication", "requirepeer", "require_auth", "sslcertmode", "sslcompression", "sslcrldir",
    "sslsni", "tcp_user_timeout", "pgbouncer", "schema", "connection_limit", "pool_timeout",
})  # fmt: skip
_READ_HERE = frozenset({
    "connect_timeout", "database", "dbname", "gsslib", "host", "hostaddr", "krbsrvname", "passfile", "password", "port",
    "service", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode",
    "sslnegotiation", "sslpassword", "sslrootcert", "target_session_attrs", "user",
})  # fmt: skip
"""Those that libpq reads, and asyncpg or we as well."""
_SENT = frozenset({
    "application_name", "datestyle", "default_transaction_isolation", "default_transaction_read_only",
    "extra_float_digits", "idle_in_transaction_session_timeout", "idle_session_timeout", "intervalstyle", "jit",
    "lock_timeout", "options",
    "plan_cache_mode", "role", "row_security", "search_path", "statement_timeout", "synchronous_commit", "timezone",
    "transaction_timeout", "work_mem",
})  # fmt: skip
"""Run-time parameters that addresses are seen with, though libpq has but two of them; others go into `options`."""
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
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
    if _SCHEME.match(text) is None:  # a keyword's value may hold :// as well
        text = _from_keywords(text)
    scheme, rest = text.split("://", 1)
    if scheme.split("+", 1)[0] not in _SCHEMES:
        raise InvalidURL(f"it begins with {scheme}://; a PostgreSQL address begins with postgresql://")
    try:
        parts = urlsplit(f"postgresql://{rest.replace('#', '%23')}")  # to libpq it is a character like any other
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise InvalidURL("it cannot be read as postgresql://user:password@host:port/database?parameter=value") from None
    _check_hosts(parts.netloc, query)
    _check_parameters(query, nameable="@" not in parts.path + parts.query and "password" not in query)
    if address := query.pop("hostaddr", None):
        query.setdefault("host", address)
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


def _check_hosts(netloc: str, query: Mapping[str, str]) -> None:
    if netloc.count("@") > 1:
        raise InvalidURL("an @ in its user or password must be written %40")
    hosts = [re.sub(r"\[[^\]]*\]", "", host) for host in netloc.rpartition("@")[2].split(",")]
    ports = [host.partition(":")[2] for host in hosts] + query.get("port", "").split(",")
    if any(port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536) for port in ports):
        raise InvalidURL("its port must be a number from 1 to 65535")


def _check_parameters(query: Mapping[str, str], *, nameable: bool) -> None:
    """Look whether the server would be asked for what it does not know, or asyncpg for what it cannot do.

    Args:
        query: the parameters.
        nameable: whether their names may be shown: a password with a `?` or `&` of its own would be cut there.
    """
    for name, value in query.items():
        if name not in _READ_HERE and name.lower() not in _CLIENT_ONLY | _SENT and "." not in name:
            what = f"the parameter {name}" if nameable else "a parameter"
            raise InvalidURL(
                f"it has {what}, which is not known here; one of the server's own is written options=-c%20name%3Dvalue"
            )
        if value and value not in _CHOICES.get(name, (value,)):
            raise InvalidURL(f"{name} must be one of {', '.join(_CHOICES[name])}")


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


def create_engine(
    url: str,
    *,
    server_settings: Mapping[str, str] | None = None,
    command_timeout: float | None = None,
    through_pooler: bool = False,
    **options: Any,
) -> AsyncEngine:
    """Return an engine for any libpq spelling of an address; nothing is connected yet.

    Args:
        url: the address.
        server_settings: run-time parameters every connection starts with, `{"search_path": "app"}` say.
        command_timeout: seconds to wait for the answer to a statement, None without end. After it TimeoutError is
            raised, and the connection is not used again: nobody knows what it would answer next.
        through_pooler: whether it is to work through a connection pooler too, in transaction mode at that.
        options: passed to SQLAlchemy's `create_async_engine` (pool_size, poolclass ...).

    Raises:
        InvalidURL: the address is not one.
    """
    dsn, given = parse_url(url)
    arguments = {"timeout": CONNECT_TIMEOUT} | given

    async def connect(parameters: Mapping[str, str]) -> asyncpg.Connection[asyncpg.Record]:
        try:
            return await asyncpg.connect(
                dsn,
                server_settings=dict(parameters) or None,
                command_timeout=command_timeout,
                statement_cache_size=0,  # of the statements that asyncpg asks on its own; SQLAlchemy keeps the others
                **arguments,
            )
        except TimeoutError:
            if (limit := arguments["timeout"]) is None:  # of the system's own
                raise
            raise TimeoutError(f"no answer within {limit} seconds") from None

    def give_up(context: ExceptionContext) -> None:
        if context.connection is None or not isinstance(context.original_exception, TimeoutError):
            return
        context.is_disconnect = True
        if not context.connection.invalidated and (driver := context.connection.connection.driver_connection):
            driver.terminate()  # closing it would wait for an answer again
        raise TimeoutError(f"no answer within {command_timeout:g} seconds")

    passage = Passage(connect, server_settings or {}, looks=through_pooler)
    engine: AsyncEngine = create_async_engine("postgresql+asyncpg://", creator=lambda: passage.open(engine), **options)
    if command_timeout is not None:
        event.listen(engine.sync_engine, "handle_error", give_up)
    return engine


def search_path(*schemas: str) -> str:
    """Return the run-time parameter that makes schemas, spelled as they are, the only ones names are looked up in.

    PostgreSQL looks into them in their order, and passes over those that do not exist.
    """
    return ", ".join('"' + schema.replace('"', '""') + '"' for schema in schemas)


@contextmanager
def reachable(url: str, setting: str = "DATABASE_URL") -> Iterator[None]:
    """Turn what goes wrong while connecting into one sentence.

    Args:
        url: the address.
        setting: where it was given.

    Raises:
        DatabaseUnreachable: saying where, what, and what to look at.
    """
    try:
        yield
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, DBAPIError) as error:
        # SQLAlchemy wraps what asyncpg raises twice over
        cause = _original(error)
        if isinstance(cause, asyncpg.ClientConfigurationError):
            raise DatabaseUnreachable(f"{setting} cannot be used: {cause.args[0].rstrip('.')}.") from error
        if not isinstance(cause, _UNREACHABLE):
            raise
        raise DatabaseUnreachable(_sentence(url, setting, cause)) from error


def _original(error: BaseException) -> BaseException:
    if isinstance(error, DBAPIError) and error.orig is not None:
        return error.orig.__cause__ or error.orig
    return error


def privilege_wanted(error: DBAPIError) -> str | None:
    """Return what an operator must GRANT where the role may not do what was asked, None if that is not the matter."""
    if getattr(_original(error), "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
        return None
    said = str(_original(error)).strip().splitlines()[0]
    if (denied := _DENIED.search(said)) is None:
        return f"{said}. The role of DATABASE_URL must be allowed that."  # row security, say
    kind, name = denied.groups()
    if kind == "schema":
        wanted = f"USAGE ON SCHEMA {name}"
    elif kind == "sequence":
        wanted = f"USAGE ON SEQUENCE {name}"
    else:
        wanted = f"{_WANTED.get(name, 'what the statement needs')} ON {name}"
    return f"{said}. As its owner, GRANT {wanted} to the role of DATABASE_URL."


_DENIED = re.compile(r"permission denied for (table|view|relation|sequence|schema) (\S+)")
_WANTED = {
    "users": "SELECT, INSERT, UPDATE",
    "shadow_events": "SELECT, INSERT, UPDATE, DELETE",
    "shadow_standing": "SELECT, INSERT, UPDATE, DELETE",
}
"""What the server does with its tables."""
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


def _sentence(url: str, setting: str, error: BaseException) -> str:
    where = f"Cannot connect to {redacted(url)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"{where}: its certificate is not trusted: {why}. Check sslmode, sslrootcert and host in {setting}."
    if isinstance(error, OSError) and (unread := _unread(url)):
        return f"{where}: {unread}."
    reason = str(error).strip().splitlines()
    what = f"{where}: {reason[0] if reason else type(error).__name__}. "
    if isinstance(error, asyncpg.ProtocolViolationError) or "pooling mode" in what:
        # PostgreSQL itself has no objection to what asyncpg sends
        return f"{what}A connection pooler answers there; give DATABASE_DIRECT_URL the direct address of the server."
    return f"{what}Check {setting} (host, port, database, user, sslmode) and that the server is up."


def _unread(url: str) -> str | None:
    """Return which of the files that a URL names is not one; what is raised where one is missing does not say it."""
    query = dict(parse_qsl(urlsplit(parse_url(url)[0]).query))
    named = ((name, query[name]) for name in _FILES if name in query)
    return next((f"{name} says {path}, which is no file" for name, path in named if not Path(path).is_file()), None)
