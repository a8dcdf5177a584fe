"""The old app's sessions: a token, signed or plain, becomes who is asking, as Better Auth itself would tell.

    <token>.<signature>     the cookie's value, and a Bearer token that Better Auth signed
    <token>                 a plain Bearer token

The signature is the base64 of HMAC-SHA256(BETTER_AUTH_SECRET, token); the sessions table holds the plain token.

The promise: a signature is compared in constant time before anything is looked up; a session counts until it expires,
is signed out or its user is banned, whoever it impersonates; nothing is written here, so no session is ever extended.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncEngine

from app.errors import AccountDisabled, InvalidToken, NotMigrated
from app.idp.claims import Claims, read_disabled, read_roles
from app.users.rows import persistently

_STORABLE = re.compile(r"[!-~]{1,255}\Z")
"""What a token can be: of other characters Better Auth makes none, and the database could not hold all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacySessions:
    """Where the sessions are, and the users they are of. Names as SQL: tables qualified, columns alone."""

    sessions: str
    token: str
    expires_at: str
    user_id: str
    deleted_at: str | None
    """Where the app marks sessions deleted that it keeps."""
    users: str
    id: str
    of_user: Mapping[str, str]
    """`banned`, `ban_expires`, `status`, `deactivated_at`, `role`, `role_slugs`, as far as there are such columns."""

    def query(self) -> str:
        """Return the SQL that finds a live session by its token, `$1`."""
        columns = "".join(f", u.{column}" for column in self.of_user.values())
        kept = f" AND s.{self.deleted_at} IS NULL" if self.deleted_at else ""
        return (
            f"SELECT u.{self.id}, s.{self.expires_at}{columns} FROM {self.sessions} s "  # noqa: S608 - quoted names
            f"JOIN {self.users} u ON u.{self.id} = s.{self.user_id} "
            f"WHERE s.{self.token} = $1 AND s.{self.expires_at} > now(){kept}"
        )


@dataclass(frozen=True, slots=True)
class LegacySession:
    """A live session."""

    sub: str
    """The user's id, which is their `sub` as well."""
    roles: frozenset[str]
    expires_at: datetime
    """When it ends, unless the old app extends it."""

    def claims(self) -> Claims:
        """Return what a session says of its user, as a token would: who it is, and nothing to be mirrored.

        The kind is one that makes no row and changes none: the old app has made it, and may just have deleted it.
        """
        ends = self.expires_at.timestamp()
        return Claims(iss="", sub=self.sub, aud=(), exp=ends, kind="session", roles=self.roles)


def read_signed(value: str, secret: str) -> str:
    """Return the token of `<token>.<signature>`.

    Raises:
        InvalidToken: the signature is not that of the secret.
    """
    token, _, signature = value.rpartition(".")
    right = base64.b64encode(hmac.digest(secret.encode(), token.encode(), "sha256"))
    if not token or not hmac.compare_digest(right, signature.encode()):
        raise InvalidToken("The session's signature is not right.")
    return token


class SessionFinder:
    """Finds sessions, where `locate` says that they are; it is asked until it has said so once."""

    def __init__(self, locate: Callable[[AsyncEngine], Awaitable[LegacySessions]]) -> None:
        self._locate = locate
        self._at: LegacySessions | None = None

    async def prepare(self, engine: AsyncEngine) -> LegacySessions:
        """Return where the sessions are; it is looked for unless it is known.

        Raises:
            NotMigrated: the database has none that could count.
        """
        if self._at is None:
            self._at = await self._locate(engine)
        return self._at

    async def find(self, engine: AsyncEngine, token: str) -> LegacySession:
        """Return the live session of a plain token.

        Raises:
            InvalidToken: there is none, or it has expired; or retire has taken the old sessions away meanwhile.
            AccountDisabled: its user is banned or deactivated.
            NotMigrated: as `prepare`.
        """
        if _STORABLE.match(token) is None:
            raise InvalidToken("There is no such session, or it has ended.")
        at = await self.prepare(engine)
        try:
            row = await persistently(lambda: _read(engine, at.query(), token))
        except NotMigrated as error:
            raise InvalidToken("The old sessions have ended: sign in at the identity provider.") from error
        if row is None:
            raise InvalidToken("There is no such session, or it has ended.")
        sub, expires_at, *values = tuple[Any, ...](row)
        members = {name: _plain(value) for name, value in zip(at.of_user, values, strict=True)}
        if read_disabled(members, time.time()):
            raise AccountDisabled("The account is disabled.")
        roles = read_roles({"role": members.get("role"), "roles": members.get("role_slugs")})
        return LegacySession(sub, roles, expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC))


async def _read(engine: AsyncEngine, query: str, token: str) -> Row[Any] | None:
    async with engine.connect() as connection:
        # One statement needs no BEGIN and no COMMIT around it.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        return (await connection.exec_driver_sql(query, (token,))).one_or_none()


def _plain(value: object) -> object:
    """Return a column's value as JSON would have it, which is what the readers of claims read."""
    return value.isoformat() if isinstance(value, datetime) else value
