"""Claims: what a verified token says, in one shape whatever the provider's spelling.

The promise: a `Claims` exists only of a token whose signature and claims were both checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a verified token says. For the mirrored fields None means that the token does not say."""

    iss: str
    sub: str
    aud: tuple[str, ...]
    exp: float
    """Seconds since the epoch (RFC 7519 section 4.1.4)."""
    iat: float | None = None
    """Seconds since the epoch, also where the provider counts in milliseconds."""
    nbf: float | None = None
    kind: Literal["user", "machine"] = "user"
    """`machine` for API keys and client credentials, whose sub is no person."""
    client_id: str | None = None
    email: str | None = None
    email_verified: bool | None = None
    name: str | None = None
    image: str | None = None
    disabled: bool = False
    """Banned or deactivated at the provider."""
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    permissions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Entity type, or `type:id`, to the actions granted on it."""
