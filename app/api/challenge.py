"""WWW-Authenticate: what a client without a good token is told (RFC 6750 section 3, RFC 9728 section 5.1).

    no credentials      Bearer realm, resource_metadata: no error code (RFC 6750 section 3.1)
    malformed           ... error="invalid_request"
    a bad token         ... error="invalid_token"
    a scope missing     ... error="insufficient_scope"

The promise: the header is legal whatever the message, and holds nothing of the request but its host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from litestar.connection import ASGIConnection

from app.errors import InsufficientScope, InvalidToken, MalformedRequest, MissingCredentials, ShadowError

WELL_KNOWN = "/.well-known/oauth-protected-resource"
_HOST = re.compile(r"[A-Za-z0-9._~:\[\]-]{1,255}\Z")
_ILLEGAL = re.compile(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]")
"""What RFC 6750 section 3 keeps out of `error_description`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """This API as an OAuth protected resource: where clients reach it."""

    public_url: str | None = None
    """Its address for clients; None means that the request says."""
    path_prefix: str = ""

    def identifier(self, connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
        """Return the resource identifier (RFC 9728 section 1.2), None if the request's host is not one."""
        origin = self.public_url
        if origin is None:
            host = connection.headers.get("host", "")
            if not _HOST.match(host):
                return None
            origin = f"{connection.scope['scheme']}://{host}"
        return origin.rstrip("/") + self.path_prefix

    def metadata_url(self, connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
        """Return where the metadata is: the well-known part between host and path (RFC 9728 section 3.1)."""
        if (identifier := self.identifier(connection)) is None:
            return None
        parts = urlsplit(identifier)
        return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path}"

    def metadata_paths(self) -> list[str]:
        """Return the paths to serve it at: as RFC 9728 has it, and below everything else for a proxy's sake."""
        path = urlsplit(self.public_url or "").path.rstrip("/") + self.path_prefix
        return sorted({WELL_KNOWN, WELL_KNOWN + path, self.path_prefix + WELL_KNOWN})


@dataclass(frozen=True, slots=True)
class Challenge:
    """Makes the header."""

    resource: Resource
    realm: str = "api"

    def header(self, connection: ASGIConnection[Any, Any, Any, Any], error: ShadowError) -> str | None:
        """Return the header's value for an error, None if it calls for none."""
        if not isinstance(error, MissingCredentials | MalformedRequest | InvalidToken | InsufficientScope):
            return None
        parameters = {"realm": self.realm}
        if not isinstance(error, MissingCredentials):
            parameters |= {"error": error.code, "error_description": _ILLEGAL.sub("'", error.message)}
        if isinstance(error, InsufficientScope) and error.scope is not None and not _ILLEGAL.search(error.scope):
            parameters["scope"] = error.scope
        if (url := self.resource.metadata_url(connection)) is not None:
            parameters["resource_metadata"] = url
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())
