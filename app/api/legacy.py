"""Who is asking, while the old app's sessions count: beside the provider's tokens (dual), or alone (legacy).

    Authorization: Bearer a.b.c     a JWT: the verifier decides, alone; in legacy it is refused
    Authorization: Bearer <other>   a session's token, signed or plain
    no Bearer, but a cookie         the old app's signed cookie; what can change something, and a websocket, must come
                                    from a trusted origin
    neither                         MissingCredentials

The promise: the first line that applies decides. A bad JWT is never looked for among the sessions, a bad header never
followed by a look at the cookie, and a token that is no JWT never reaches the provider's keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.middleware.authentication import AuthenticationResult
from litestar.types import ASGIApp
from sqlalchemy.ext.asyncio import AsyncEngine

from app.api.auth import Authentication, Principal, Verifier, read_token
from app.errors import ForeignOrigin, InvalidToken, MissingCredentials
from app.users.legacy import LegacySession, SessionFinder, read_signed

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""RFC 9110 section 9.2.1: methods that change nothing."""
_SECURE = "__Secure-"


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyRules:
    """What a deployment decides about the old sessions."""

    secret: str = field(repr=False)
    """Better Auth's."""
    tokens: bool
    """Whether the provider's JWTs count as well."""
    cookie_prefix: str = "better-auth"
    bearer: Literal["plain", "signed", "off"] = "plain"
    """Which session tokens count in the Authorization header: all, those that Better Auth signed, none."""
    public_origin: str | None = None
    """`https://api.example.com`, as browsers reach the server; None means that the request's host says."""
    trusted_origins: frozenset[str] = frozenset()
    """Other origins whose pages may change something with the cookie."""

    def cookie(self, headers: Sequence[str]) -> str | None:
        """Return the session cookie's value, not yet verified; None if there is none.

        Of several cookies of one name the first counts, as for Better Auth: browsers send that of the longest path
        first (RFC 6265 section 5.4).
        """
        found: dict[str, str] = {}
        for pair in ";".join(headers).split(";"):
            name, sign, value = pair.partition("=")
            if sign:
                found.setdefault(name.strip(), value.strip())
        name = f"{self.cookie_prefix}.session_token"
        value = found.get(_SECURE + name, found.get(name, ""))
        return unquoted(value.removeprefix('"').removesuffix('"')) or None

    def session_token(self, bearer: str) -> str:
        """Return the session's plain token of a Bearer token.

        Raises:
            InvalidToken: it is not signed rightly, or such a token does not count.
        """
        if self.bearer == "off":
            raise InvalidToken("The tokens of sessions do not count in the Authorization header here.")
        token = unquoted(bearer)
        return read_signed(token, self.secret) if "." in token or self.bearer == "signed" else token

    def check_origin(self, connection: ASGIConnection[Any, Any, Any, Any]) -> None:
        """Let pass what a page of a trusted origin sent, or what changes nothing.

        A browser adds the cookie to whatever any page sends here, and alone says whose page it is (Fetch standard,
        3.2; Fetch Metadata, 2.3). Who is no browser, and says neither, should send the token as Bearer. A websocket
        begins with a GET, but what is said through it may change anything, and any page may open and read it
        (RFC 6455 section 10.2).

        Raises:
            ForeignOrigin: the request can change something, and comes from elsewhere or does not say from where.
        """
        scope: Any = connection.scope
        if scope["type"] == ScopeType.HTTP and scope["method"] in _SAFE:
            return
        origin = connection.headers.get("origin", "null")
        if origin == "null":  # none, or one that the browser keeps to itself
            trusted = connection.headers.get("sec-fetch-site") == "same-origin"
        elif self.public_origin is not None:
            trusted = origin in {self.public_origin, *self.trusted_origins}
        else:
            # behind a proxy the scheme may be another than the browser's
            host = origin.partition("://")[2]
            trusted = host == connection.headers.get("host", "null") or origin in self.trusted_origins
        if not trusted:
            raise ForeignOrigin("A cookie may change something only for pages of this site: send it from there.")


class DualAuthentication(Authentication):
    """Sets `request.user` to the Principal and `request.auth` to its Claims, which of a session hold its user's id."""

    def __init__(
        self, app: ASGIApp, verifier: Verifier, sessions: SessionFinder, rules: LegacyRules, **options: Any
    ) -> None:
        super().__init__(app, verifier, **options)
        self.sessions = sessions
        self.rules = rules

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        """Verify the request's token, or find its session."""
        try:
            token = read_token(connection.headers.getall("authorization", []))
        except MissingCredentials:
            cookie = self.rules.cookie(connection.headers.getall("cookie", []))
            if cookie is None:
                if self.rules.tokens:
                    raise
                raise MissingCredentials(
                    "A session of the app is needed: its cookie, or its token as Authorization: Bearer <token>."
                ) from None
        else:
            if not is_jwt(token):
                return await self._session(connection, self.rules.session_token(token))
            if self.rules.tokens:
                return await super().authenticate_request(connection)
            raise InvalidToken("Tokens of the identity provider do not count here yet.")
        session_token = read_signed(cookie, self.rules.secret)
        self.rules.check_origin(connection)
        return await self._session(connection, session_token)

    async def _session(self, connection: ASGIConnection[Any, Any, Any, Any], token: str) -> AuthenticationResult:
        engine: AsyncEngine = connection.app.state.database
        session = await self.sessions.find(engine, token)
        return AuthenticationResult(user=principal_of(session), auth=session.claims())


def is_jwt(token: str) -> bool:
    """Tell whether a token has the form of a signed JWT: three parts (RFC 7515 section 3.1)."""
    return token.count(".") == 2


def unquoted(value: str) -> str:
    """Return a cookie's value as `decodeURIComponent` would; as it is, where that would fail."""
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return value


def principal_of(session: LegacySession) -> Principal:
    """Return the principal of a session: a person with the roles of the old app, and no scopes and permissions."""
    return Principal(
        sub=session.sub,
        kind="user",
        scopes=frozenset(),
        roles=session.roles,
        permissions={},
        expires_at=session.expires_at,
    )
