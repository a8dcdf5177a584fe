"""Every error the server can answer with, typed where it arises; `api/problems.py` turns it into HTTP, once.

    ShadowError
    ├── SettingsError            the configuration is wrong; every fault at once
    ├── DatabaseUnreachable      the database cannot be had
    ├── NotMigrated              the database has no users table of the shadow's shape
    ├── Contended                others keep changing the same rows
    ├── Unauthenticated          this request does not say who is asking: the client must act
    │   ├── MissingCredentials   no Authorization header at all
    │   ├── MalformedRequest     two headers, or not `Bearer <token>`
    │   └── InvalidToken         the token is bad
    ├── Undecidable              it cannot be told whether the token is good: the operator must act
    │   └── KeysUnavailable      the provider's keys cannot be had
    ├── Forbidden                known, and not allowed
    │   ├── InsufficientScope    a role, scope or permission is missing, or a person
    │   ├── NoProfile            a machine's token where a person's is needed
    │   ├── AccountDeleted       soft-deleted here
    │   ├── AccountDisabled      banned or deactivated at the provider
    │   └── ForeignOrigin        the cookie came from a page of another site
    ├── InvalidEdit              the body asks for a change that cannot be made
    │   └── IdentityField        it names a field that the provider owns
    └── RefusedDelivery          a webhook that is not taken: whoever sends it must act
        ├── MalformedDelivery    it lacks a header, or cannot be read
        ├── InvalidSignature     none of the secrets signed it
        └── StaleDelivery        it is signed, and from another hour

"This token is bad" and "I cannot tell" are two families because different people act on them.
The promise: a message never holds a secret, a token, or a part of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ShadowError(Exception):
    """Base of all. `code` is stable and machine-readable, the message is for a person."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SettingsError(ShadowError):
    """The settings are wrong. `faults` holds one sentence a fault, each naming its setting and what would be right."""

    code = "settings"

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class DatabaseUnreachable(ShadowError):
    """The database cannot be connected to. The message names host and reason, never the password."""

    code = "database_unavailable"


class NotMigrated(ShadowError):
    """The users table is missing, or lacks what the server needs: the operator must run the migrations."""

    code = "not_migrated"


class Contended(ShadowError):
    """Others kept changing the same rows, however often it was tried; the same request may succeed in a moment."""

    code = "contended"


class Unauthenticated(ShadowError):
    """The request does not establish who is asking."""


class MissingCredentials(Unauthenticated):
    """No credentials: RFC 6750 section 3.1 wants a challenge without an error code."""

    code = "missing_credentials"


class MalformedRequest(Unauthenticated):
    """Credentials in a form that RFC 6750 does not know."""

    code = "invalid_request"


class InvalidToken(Unauthenticated):
    """The token is bad, and the message says which rule it breaks (RFC 6750 `invalid_token`)."""

    code = "invalid_token"


class Undecidable(ShadowError):
    """Whether the token is good cannot be told at the moment."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds until a further try can have another outcome."""


class KeysUnavailable(Undecidable):
    """The provider's key set cannot be had and none is cached."""

    code = "keys_unavailable"


class Forbidden(ShadowError):
    """Known, and not allowed."""


class InsufficientScope(Forbidden):
    """The token is not enough for this (RFC 6750 `insufficient_scope`).

    A role, scope or permission is missing, or it is a machine's and this is for a person to do.
    """

    code = "insufficient_scope"

    def __init__(self, message: str, *, scope: str | None = None) -> None:
        super().__init__(message)
        self.scope = scope
        """The scopes that would do, with spaces between (RFC 6750 section 3)."""


class NoProfile(Forbidden):
    """A machine token where a user's is needed; machines get no users row."""

    code = "no_profile"


class AccountDeleted(Forbidden):
    """The user was soft-deleted here; no token brings them back."""

    code = "account_deleted"


class AccountDisabled(Forbidden):
    """The provider has banned or deactivated the user."""

    code = "account_disabled"


class ForeignOrigin(Forbidden):
    """A cookie, which browsers add by themselves, would change something for a page of another site."""

    code = "foreign_origin"


class InvalidEdit(ShadowError):
    """The requested change cannot be made."""

    code = "invalid_body"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field
        """The member of the body that is at fault, as the client spells it."""


class IdentityField(InvalidEdit):
    """The body names a field that mirrors the provider's; it is changed there."""

    code = "identity_field"

    def __init__(self, field: str, account_url: str | None) -> None:
        self.account_url = account_url
        where = f" Change it at {account_url}." if account_url else " Change it at the identity provider."
        super().__init__(f"{field} belongs to the identity provider.{where}", field=field)


class RefusedDelivery(ShadowError):
    """A webhook is not taken; nothing of it is recorded."""


class MalformedDelivery(RefusedDelivery):
    """A header is missing, there twice or of another form, or the body is no event."""

    code = "invalid_delivery"


class InvalidSignature(RefusedDelivery):
    """The signature is not that of the body under any of the secrets."""

    code = "invalid_signature"


class StaleDelivery(RefusedDelivery):
    """The signature is good, and so old, or so far in the future, that it may be a replay."""

    code = "stale_delivery"
