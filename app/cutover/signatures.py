"""What Better Auth's tables look like: the columns by which each role is known, and what becomes of it.

The promise: a signature speaks of columns, in snake_case as `normalised` makes them; the name of a table adds weight
and never decides alone. Sources: Better Auth, Concepts: Database, and the schemas its plugins declare (1.3 to 1.7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

Fate = Literal["shrinks", "goes", "stays"]

USERS = "users"


@dataclass(frozen=True, slots=True)
class Signature:
    """The columns of a role.

    A table whose name says the role needs `core`, a table of any other name needs `full`.
    """

    fate: Fate
    names: frozenset[str]
    """In the singular."""
    core: frozenset[str]
    full: frozenset[str]


def _signature(fate: Fate, names: str, core: str, more: str = "") -> Signature:
    needed = frozenset(core.split())
    return Signature(fate, frozenset(names.split()), needed, needed | frozenset(more.split()))


SIGNATURES: Mapping[str, Signature] = {
    USERS: _signature("shrinks", "user", "id email email_verified", "name image created_at updated_at"),
    "sessions": _signature("goes", "session", "id token expires_at user_id", "ip_address user_agent"),
    "accounts": _signature(
        "goes", "account", "id account_id provider_id user_id", "access_token refresh_token id_token scope password"
    ),
    "verifications": _signature("goes", "verification", "id identifier value expires_at", "created_at updated_at"),
    "jwks": _signature("goes", "jwk jwks", "id public_key private_key", "created_at"),
    "two_factors": _signature("goes", "two_factor", "id secret backup_codes user_id"),
    "passkeys": _signature("goes", "passkey", "id public_key credential_id counter user_id", "device_type backed_up"),
    "api_keys": _signature(
        "goes", "apikey api_key", "id key prefix rate_limit_enabled", "start refill_interval remaining last_request"
    ),
    "oauth_applications": _signature(
        "goes", "oauth_application", "id client_id client_secret redirect_urls", "name type disabled"
    ),
    "oauth_clients": _signature(
        "goes", "oauth_client", "id client_id client_secret redirect_uris grant_types response_types"
    ),
    "oauth_access_tokens": _signature(
        "goes", "oauth_access_token", "id client_id user_id scopes", "access_token access_token_expires_at"
    ),
    "oauth_refresh_tokens": _signature(
        "goes", "oauth_refresh_token", "id token client_id user_id scopes", "session_id"
    ),
    "oauth_consents": _signature("goes", "oauth_consent", "id client_id user_id scopes", "consent_given"),
    "oauth_client_resources": _signature("goes", "oauth_client_resource", "id client_id resource_id", "metadata"),
    "oauth_resources": _signature("goes", "oauth_resource", "id identifier name", "signing_algorithm allowed_scopes"),
    "oauth_client_assertions": _signature("goes", "oauth_client_assertion", "id expires_at"),
    "sso_providers": _signature("goes", "sso_provider", "id issuer provider_id domain", "oidc_config saml_config"),
    "rate_limits": _signature("stays", "rate_limit", "id key count last_request"),
    "device_codes": _signature("stays", "device_code", "id device_code user_code expires_at", "polling_interval"),
    "wallet_addresses": _signature("stays", "wallet_address", "id user_id address chain_id", "is_primary"),
    "organizations": _signature("stays", "organization", "id name slug", "logo metadata"),
    "members": _signature("stays", "member", "id organization_id user_id role", "created_at"),
    "invitations": _signature("stays", "invitation", "id organization_id email inviter_id", "status expires_at"),
    "teams": _signature("stays", "team", "id name organization_id", "member_count"),
    "team_members": _signature("stays", "team_member", "id team_id user_id", "membership_key"),
}
"""By role. What goes is moved by retire and dropped by drop; what stays is named because the app hangs on it."""

GOING_ROLES = tuple(role for role, signature in SIGNATURES.items() if signature.fate == "goes")
OAUTH_ROLES = frozenset(
    {
        "oauth_access_tokens",
        "oauth_refresh_tokens",
        "oauth_consents",
        "oauth_client_resources",
        "oauth_resources",
        "oauth_client_assertions",
    }
)
"""Roles that only stand beside clients of Better Auth's own."""
OWNED_ROLES = frozenset({"sessions", "accounts", "two_factors", "passkeys"})
"""Roles whose rows belong to a user: where the database has foreign keys at all, theirs lead to the users table."""

PLAIN_ROLES = frozenset({"sessions", "verifications", "jwks", "two_factors"})
"""Roles whose columns have names that any app's tables have: of devices, coupons, keys of machines."""

TARGET_COLUMNS: Mapping[str, tuple[str, str]] = {
    "id": ("character varying(255)", "PRIMARY KEY"),
    "name": ("text", "NOT NULL"),
    "email": ("text", "NOT NULL UNIQUE"),
    "email_verified": ("boolean", "NOT NULL DEFAULT false"),
    "image": ("text", ""),
    "onboarding_completed_at": ("timestamp with time zone", ""),
    "created_at": ("timestamp with time zone", "NOT NULL DEFAULT now()"),
    "updated_at": ("timestamp with time zone", "NOT NULL DEFAULT now()"),
    "deleted_at": ("timestamp with time zone", ""),
    "identity_updated_at": ("timestamp with time zone", ""),
}
"""The users table that the server needs: type, and what follows it in CREATE TABLE."""

ADDED_COLUMNS = ("onboarding_completed_at", "deleted_at", "identity_updated_at")
"""Those that Better Auth does not have."""

_TEXT = re.compile(r"text|character varying(\(\d+\))?")
_MOMENT = re.compile(r"timestamp(\(\d\))? with(out)? time zone")
_BOOLEAN = re.compile(r"boolean")

GOING_COLUMNS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "status": ("Auther's template", _TEXT),
    "deactivated_at": ("Auther's template", _MOMENT),
    "deactivated_by": ("Auther's template", re.compile(_TEXT.pattern + "|uuid|integer|bigint")),
    "deactivated_reason": ("Auther's template", _TEXT),
    "failed_login_attempts": ("Auther's template", re.compile(r"integer|smallint|bigint")),
    "locked_until": ("Auther's template", _MOMENT),
    "role_slugs": ("Auther's template", re.compile(r"(text|character varying(\(\d+\))?)\[\]")),
    "two_factor_enabled": ("the two-factor plugin", _BOOLEAN),
    "role": ("the admin plugin", _TEXT),
    "banned": ("the admin plugin", _BOOLEAN),
    "ban_reason": ("the admin plugin", _TEXT),
    "ban_expires": ("the admin plugin", re.compile(_MOMENT.pattern + "|bigint|integer")),
    "username": ("the username plugin", _TEXT),
    "display_username": ("the username plugin", _TEXT),
    "phone_number": ("the phone-number plugin", _TEXT),
    "phone_number_verified": ("the phone-number plugin", _BOOLEAN),
    "is_anonymous": ("the anonymous plugin", _BOOLEAN),
    "last_login_method": ("the last-login-method plugin", _TEXT),
}
"""Column of users that goes: who put it there, and its type; of another type it is the app's own. A second column that
the same put there speaks for it."""


@cache
def normalised(name: str) -> str:
    """Return a column's or table's name in snake_case: `emailVerified`, `email_verified` -> `email_verified`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def says(table_name: str, role: str, prefix: str = "") -> bool:
    """Whether a table's name, after a prefix, says the role, in the singular, the plural or Drizzle's (`jwkss`)."""
    name = normalised(table_name)
    if not name.startswith(prefix):
        return False
    name = name.removeprefix(prefix)
    return any(name in (singular, f"{singular}s") for singular in SIGNATURES[role].names)


def affix(table_name: str, role: str) -> tuple[str, str] | None:
    """Return what stands before and behind a role in a table's name: `user_sessions` -> `user_`, nothing."""
    words = "|".join(sorted(SIGNATURES[role].names))
    found = re.fullmatch(rf"(.+_)?(?:{words})s?(_.+)?", normalised(table_name))
    return (found[1] or "", found[2] or "") if found else None
