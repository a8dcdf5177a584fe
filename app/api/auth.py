"""Who is asking: the Authorization header becomes a Principal, or an error that says whose fault it is.

    no header, or another scheme        MissingCredentials
    two headers, or no `Bearer token`   MalformedRequest
    anything else                       the verifier decides

A route is protected because it is there: only `exclude_from_auth=True` on a handler opens it, for its own path.

The promise: a token is read from the header alone, never from the query or the body (RFC 6750 section 5.3, RFC 9700
section 4.3.2), and a request that is not authenticated reaches neither guard, dependency nor body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.middleware.authentication import AbstractAuthenticationMiddleware, AuthenticationResult
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ASGIApp

from app.errors import MalformedRequest, MissingCredentials
from app.idp.claims import Claims

_BEARER = re.compile(r"bearer +([^\s,]+) *\Z", re.IGNORECASE)
"""RFC 6750 section 2.1, with the scheme in any case (RFC 9110 section 11.1). Which characters a token may have is for
the verifier to say: whoever sends a damaged one is to hear `invalid_token`."""
_ANOTHER_SCHEME = re.compile(r"(?!bearer\b)[A-Za-z][A-Za-z0-9-]* +\S", re.IGNORECASE)

PUBLIC: list[dict[str, list[str]]] = [{}]
"""`security` of a public route; Litestar would drop an empty list from the document."""
SECURITY_SCHEME = "bearer"


class Verifier(Protocol):
    """Turns a token into Claims: a `TokenVerifier`, or whatever remembers its answers."""

    async def verify(self, token: str) -> Claims:
        """Return what the token says.

        Raises:
            InvalidToken, InsufficientScope, KeysUnavailable: see `app.errors`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is asking, and what the provider lets them do."""

    sub: str
    kind: Literal["user", "machine"]
    """`machine` for API keys and client credentials."""
    scopes: frozenset[str]
    roles: frozenset[str]
    permissions: Mapping[str, frozenset[str]]
    """Entity type, or `type:id`, to the actions granted on it."""
    expires_at: datetime
    """When the token ends."""
    withheld: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Entity type, or `type:id`, to the actions that only the provider can judge."""

    def may(self, entity: str, action: str, id: str | None = None) -> bool:
        """Tell whether the token permits an action on all entities of a type, or on the one that `id` names.

        `{"invoice": ["read"]}` grants on every invoice, `{"invoice:42": ["read"]}` on one. A type may itself contain a
        colon, an id that is granted may not: `invoice:42:7` is the 7 of the type `invoice:42`. Where the provider lists
        permissions without entities (Auth0), `read:invoice` is the action on every invoice.

        What is granted only under a condition (Auther's `abac_required`) is not permitted, whatever else is granted. A
        condition on one invoice is met only where `id` names that one: without it, it is the type that is asked about.
        """
        if id and action in self.withheld.get(f"{entity}:{id}", ()):
            return False
        if action in self.permissions.get(entity, ()) or f"{action}:{entity}" in self.permissions.get("", ()):
            return True
        return bool(id) and ":" not in (id or "") and action in self.permissions.get(f"{entity}:{id}", ())

    @classmethod
    def of(cls, claims: Claims) -> Principal:
        """Return the principal of a verified token."""
        return cls(
            sub=claims.sub,
            kind="machine" if claims.kind == "machine" else "user",
            scopes=claims.scopes,
            roles=claims.roles,
            permissions=claims.permissions,
            expires_at=datetime.fromtimestamp(claims.exp, UTC),
            withheld=claims.withheld,
        )


class Authentication(AbstractAuthenticationMiddleware):
    """Sets `request.user` to the Principal and `request.auth` to its Claims."""

    def __init__(self, app: ASGIApp, verifier: Verifier, **options: Any) -> None:
        super().__init__(app, **options)
        self.verifier = verifier

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        """Verify the request's token."""
        claims = await self.verifier.verify(read_token(connection.headers.getall("authorization", [])))
        return AuthenticationResult(user=Principal.of(claims), auth=claims)


def read_token(headers: Sequence[str]) -> str:
    """Return the token of a request's Authorization headers.

    Raises:
        MissingCredentials: there is none, or another scheme's: such a client does not know what is wanted here, and
            gets no error code (RFC 6750 section 3.1).
        MalformedRequest: two of them, or not `Bearer <token>`.
    """
    if len(headers) > 1:
        raise MalformedRequest("There is more than one Authorization header.")
    if not headers:
        raise MissingCredentials("An access token of the identity provider is needed: Authorization: Bearer <token>.")
    if (found := _BEARER.match(headers[0])) is not None:
        return found[1]
    if _ANOTHER_SCHEME.match(headers[0]) is not None:
        raise MissingCredentials("The scheme of the Authorization header is not Bearer.")
    raise MalformedRequest("The Authorization header is not of the form Bearer <token>.")


def provide_principal(request: Request[Principal, Claims, Any]) -> Principal:
    """Return who is asking; the dependency `principal`."""
    return request.user


def security_components() -> Components:
    """Return the OpenAPI security scheme."""
    scheme = SecurityScheme(
        type="http",
        scheme="bearer",
        bearer_format="JWT",
        description="An access token of the identity provider.",
    )
    return Components(security_schemes={SECURITY_SCHEME: scheme})
