"""GET /.well-known/oauth-protected-resource: who issues the tokens for this API (RFC 9728).

The promise: a client that was refused finds here, and only from here, where to ask for a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar import Request, get
from litestar.exceptions import ClientException
from litestar.handlers import HTTPRouteHandler
from msgspec import Struct

from app.api.auth import PUBLIC
from app.api.challenge import Resource
from app.api.problems import answers


class ResourceMetadata(Struct, omit_defaults=True):
    """Protected resource metadata (RFC 9728 section 2)."""

    resource: str
    authorization_servers: list[str]
    bearer_methods_supported: list[str]
    scopes_supported: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Serves the metadata."""

    resource: Resource
    issuers: tuple[str, ...]
    scopes: tuple[str, ...] = ()

    def route(self) -> HTTPRouteHandler:
        """Return the route; its paths are complete, the prefix among them."""

        @get(
            self.resource.metadata_paths(),
            summary="Where tokens are issued",
            tags=["OAuth"],
            responses=answers(400),
            security=PUBLIC,
            exclude_from_auth=True,
        )
        async def read(request: Request[Any, Any, Any]) -> ResourceMetadata:
            """Return where tokens for this API are issued."""
            if (identifier := self.resource.identifier(request)) is None:
                raise ClientException("The Host header is not the name of a host.")
            return ResourceMetadata(identifier, list(self.issuers), ["header"], list(self.scopes))

        return read
