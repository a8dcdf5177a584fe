"""Claims: what a verified token says, in one shape whatever the provider's spelling; and the rules it must keep.

The promise: a `Claims` exists only of a token whose signature and claims were both checked. A claim that decides
whether the token is good (iss, aud, exp, nbf, iat, sub) is read strictly and refuses the token; one that is merely
mirrored (email, name, image, ...) never does: of the wrong type, blank, with a NUL or too long it counts as not said.

The readers at the end (`read_email`, `read_roles`, ...) know how each provider spells a thing. They take the members of
any object that describes a user, never raise, and are the only place with that knowledge.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

from app.errors import InsufficientScope, InvalidToken

_Members = Mapping[str, object]

_LAST_DATE = 9_999_999_999
"""2286-11-20 in seconds; more is a count of milliseconds, which as exp would make a token immortal."""
_LEAST_MILLISECONDS = 100_000_000_000
_MAX_SUB = 255
_MAX_EMAIL = 320
_MAX_NAME = 1_000
_MAX_URL = 2_048

_TYPES = frozenset({"jwt", "at+jwt"})
_ID_TOKEN_ONLY = ("at_hash", "c_hash")
_PURPOSE = ("typ", "token_use")
"""Where Keycloak and Cognito name a token's purpose in its payload."""
_NOT_FOR_APIS = frozenset({"refresh", "offline", "logout"})
_DISABLED_STATUS = frozenset({"banned", "deactivated", "disabled", "suspended"})
_CLIENT_CREDENTIALS = ("client-credentials", "client_credentials")
_CLIENT_IDS = ("client_id", "azp", "cid", "appid")
_HTTP_URL = re.compile(r"https?://[^\s/]\S*", re.IGNORECASE)
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


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
    kind: Literal["user", "machine", "session"] = "user"
    """`machine` for API keys and client credentials, whose sub is no person; `session` for one of the old app's, which
    makes no row and changes none."""
    client_id: str | None = None
    email: str | None = None
    email_verified: bool | None = None
    name: str | None = None
    image: str | None = None
    without_image: bool = False
    """Whether the provider says that there is no picture."""
    disabled: bool = False
    """Banned or deactivated at the provider."""
    scopes: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    permissions: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Entity type, or `type:id`, to the actions granted on it; "" holds those a provider lists without an entity."""
    withheld: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Entity type, or `type:id`, to the actions that only the provider can judge, whatever is granted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRules:
    """What the claims of a token must be. A deployment can demand more than iss, aud, exp and sub, never less.

    Raises:
        ValueError: no issuer, no audience, one of them empty, or a value that no token could satisfy.
    """

    issuers: Collection[str]
    """`iss` values to accept, compared character by character (RFC 7519 section 4.1.1, RFC 9068 section 4)."""
    audiences: Collection[str]
    """`aud` values that mean this API; a token must hold one of them (RFC 7519 section 4.1.3)."""
    leeway: float = 30.0
    """How far the clocks may differ, in seconds."""
    required_typ: str | None = None
    """Header `typ` a token must have, `at+jwt` say; None takes `JWT`, `at+jwt` and none at all."""
    required_scope: Collection[str] = ()
    """Scopes that every token must have."""
    accept_id_tokens: bool = False
    """Also accept OpenID Connect id_tokens, which say who signed in and are not meant for APIs."""

    def __post_init__(self) -> None:
        for name in ("issuers", "audiences", "required_scope"):
            object.__setattr__(self, name, _strings(name, getattr(self, name)))
        for name in ("issuers", "audiences"):
            if not getattr(self, name):
                raise ValueError(f"{name} must hold at least one value")
        if isinstance(self.leeway, bool) or not (math.isfinite(self.leeway) and self.leeway >= 0):
            raise ValueError("leeway must be a number of seconds, zero or more")
        if self.required_typ is not None:
            object.__setattr__(self, "required_typ", read_token_type(self.required_typ))

    def read(self, payload: _Members, *, typ: str | None, now: float) -> Claims:
        """Return the Claims of a token whose signature was verified.

        Args:
            payload: the token's claims.
            typ: its header's `typ` as `read_token_type` gives it, or None.
            now: seconds since the epoch.

        Raises:
            InvalidToken: a claim breaks a rule.
            InsufficientScope: the token is good and lacks a scope that every token must have.
        """
        iss = payload.get("iss")
        if not isinstance(iss, str) or iss not in self.issuers:
            raise InvalidToken("The issuer of the token is not accepted.")
        aud = _read_audience(payload)
        if not any(audience in self.audiences for audience in aud):
            raise InvalidToken("The token is meant for another audience.")
        if self.required_typ is not None and typ != self.required_typ:
            raise InvalidToken("The typ of the token is not the required one.")
        scopes = read_scopes(payload)
        self._check_purpose(payload, typ, scopes)
        exp = _read_date(payload, "exp")
        if exp is None:
            raise InvalidToken("The token does not say when it expires.")
        sub = _read_subject(payload)
        client_id = read_client_id(payload)
        email = read_email(payload)
        claims = Claims(
            iss=iss,
            sub=sub,
            aud=aud,
            exp=exp,
            iat=_read_date(payload, "iat", milliseconds=True),
            nbf=_read_date(payload, "nbf"),
            kind="machine" if _is_machine(payload, sub, scopes, client_id) else "user",
            client_id=client_id,
            email=email,
            # Said of an address that the token does not name, it could be believed of another one.
            email_verified=None if email is None else read_email_verified(payload),
            name=read_name(payload),
            image=read_image(payload),
            # a token that leaves a claim out may say null; one that holds the whole row of Better Auth's means it
            without_image="emailVerified" in payload and says_no_image(payload),
            disabled=read_disabled(payload, now),
            scopes=scopes,
            roles=read_roles(payload),
            permissions=read_permissions(payload),
            withheld=read_withheld(payload),
        )
        self.check_times(claims, now)
        if not scopes.issuperset(self.required_scope):
            raise InsufficientScope("The token lacks a scope that this API requires of every token.")
        return claims

    def check_times(self, claims: Claims, now: float) -> None:
        """Check exp, nbf and iat against `now`, in seconds since the epoch; cached Claims too, at every use.

        Raises:
            InvalidToken: expired, not yet valid, or issued in the future, beyond the leeway.
        """
        if now >= claims.exp + self.leeway:
            raise InvalidToken("The token has expired.")
        if claims.nbf is not None and now + self.leeway < claims.nbf:
            raise InvalidToken("The token is not valid yet.")
        if claims.iat is not None and now + self.leeway < claims.iat:
            raise InvalidToken("The token was issued in the future.")

    def _check_purpose(self, payload: _Members, typ: str | None, scopes: frozenset[str]) -> None:
        """Refuse what an issuer signs with the same keys for another purpose (RFC 8725 section 3.12)."""
        stated = {name: value.lower() for name in _PURPOSE if isinstance(value := payload.get(name), str)}
        purposes = frozenset(stated.values())
        if "events" in payload or not purposes.isdisjoint(_NOT_FOR_APIS):
            raise InvalidToken("The token is a security event, logout or refresh token, not an access token.")
        if self.accept_id_tokens:
            return
        by_login = typ != "at+jwt" and "acr" in payload and "auth_time" in payload and not scopes
        # Keycloak before 25 leaves the nonce of the login in its access tokens, too; but it names them Bearer
        by_login = (by_login or "nonce" in payload) and stated.get("typ") != "bearer"
        if "id" in purposes or by_login or any(name in payload for name in _ID_TOKEN_ONLY):
            raise InvalidToken("The token is an id_token, not an access token.")


def read_token_type(typ: object) -> str:
    """Return a header's `typ` in lower case without `application/` (RFC 7515 section 4.1.9, RFC 9068 section 2.1).

    Raises:
        ValueError: it is not the type of an access token.
    """
    if isinstance(typ, str):
        short = typ.lower().removeprefix("application/")
        if short in _TYPES:
            return short
    raise ValueError("typ must be JWT or at+jwt")


def _strings(name: str, values: object) -> frozenset[str]:
    """Take a collection of strings, not one string: that would make `in` a test for a substring."""
    if isinstance(values, str) or not isinstance(values, Collection):
        raise ValueError(f"{name} must be a collection of strings")
    if not all(isinstance(value, str) and value for value in values):
        raise ValueError(f"{name} must hold strings that are not empty")
    return frozenset(values)


# The claims that decide. Absent is one thing, null or of the wrong type another: that is never read as absent.


def _read_date(payload: _Members, name: str, *, milliseconds: bool = False) -> float | None:
    if name not in payload:
        return None
    value = payload[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken(f"The {name} claim is not a number.")
    if milliseconds and _LEAST_MILLISECONDS < value <= _LAST_DATE * 1_000:
        value = value / 1_000
    if not 0 <= value <= _LAST_DATE:
        raise InvalidToken(f"The {name} claim is not a date in seconds.")
    return float(value)


def _read_audience(payload: _Members) -> tuple[str, ...]:
    aud = payload.get("aud")
    if isinstance(aud, str):
        return (aud,)
    if isinstance(aud, list) and aud and all(isinstance(audience, str) for audience in aud):
        return tuple(aud)
    raise InvalidToken("The token does not say whom it is meant for.")


def _read_subject(payload: _Members) -> str:
    sub = payload.get("sub")
    if not isinstance(sub, str) or not sub:
        raise InvalidToken("The token does not say who its subject is.")
    if len(sub) > _MAX_SUB:
        raise InvalidToken(f"The subject of the token is longer than {_MAX_SUB} characters.")
    if "\0" in sub:
        raise InvalidToken("The subject of the token holds a NUL.")
    return sub


# How the providers spell what is mirrored and what permits.


def read_email(members: _Members) -> str | None:
    """Return `email` without surrounding whitespace: at most 320 characters, with an `@`, without control characters.

    320 is the 64 and 255 octets of RFC 5321 section 4.5.3.1 and the `@`.
    """
    email = (_said(members.get("email"), _MAX_EMAIL) or "").strip()
    return email if "@" in email and _CONTROL.search(email) is None else None


def read_email_verified(members: _Members) -> bool | None:
    """Return `email_verified` (OpenID Connect Core 5.1), else Better Auth's `emailVerified`; "true" and "false" too."""
    for name in ("email_verified", "emailVerified"):
        value = members.get(name)
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
    return None


def read_name(members: _Members) -> str | None:
    """Return `name` as it is, at most 1,000 characters."""
    return _said(members.get("name"), _MAX_NAME)


def read_image(members: _Members) -> str | None:
    """Return `picture` (OpenID Connect), else `image` (Better Auth), at most 2,048 characters.

    `profile` is where Auther's id_token has it; elsewhere that is the address of a profile page. It is taken only
    where the two other members do not exist and it is an http or https URL.
    """
    for name in ("picture", "image"):
        if (image := _said(members.get(name), _MAX_URL)) is not None:
            return image.strip()
    if "picture" in members or "image" in members:
        return None
    profile = _said(members.get("profile"), _MAX_URL)
    return profile.strip() if profile is not None and _HTTP_URL.fullmatch(profile.strip()) else None


def read_client_id(members: _Members) -> str | None:
    """Return `client_id` (RFC 9068), else `azp` (OpenID Connect), else Okta's `cid`, else Entra's `appid`."""
    for name in _CLIENT_IDS:
        if (client_id := _said(members.get(name), _MAX_SUB)) is not None:
            return client_id
    return None


def read_scopes(members: _Members) -> frozenset[str]:
    """Return the scopes of `scope` (RFC 8693 section 4.2) and `scp`: strings with spaces between, or lists."""
    return frozenset((*_words(members.get("scope"), " "), *_words(members.get("scp"), " ")))


def read_roles(members: _Members) -> frozenset[str]:
    """Return the roles of `role` and `roles` (strings with commas between, or lists) and Keycloak's `realm_access`.

    Keycloak's `resource_access` is left alone: it holds roles in other clients' APIs.
    """
    realm = members.get("realm_access")
    of_realm = realm.get("roles") if isinstance(realm, dict) else None
    return frozenset((
        *_words(members.get("role"), ","),
        *_words(members.get("roles"), ","),
        *_words(of_realm, ","),
    ))  # fmt: skip


def read_permissions(members: _Members) -> Mapping[str, frozenset[str]]:
    """Return `permissions`, a map from an entity to the list of actions granted on it; read-only.

    What is withheld (see `read_withheld`) is not among them. What is withheld of one entity alone is still granted on
    its type.

    Auth0's form is a list of strings without entities (`read:invoices` is one name there): they come under the key "".
    """
    value, withheld = members.get("permissions"), read_withheld(members)

    def is_withheld(entity: str, action: str) -> bool:
        # what is granted on every invoice under a condition is not granted on one of them without
        return any(action in withheld.get(name, ()) for name in (entity, entity.rpartition(":")[0]))

    def is_granted(entity: str, action: str) -> bool:
        apart, _, of = action.partition(":")
        return not is_withheld(entity, action) and not (entity == "" and is_withheld(of, apart))

    granted = value if isinstance(value, dict) else {"": value}
    return _grants({
        entity: [action for action in _words(actions, None) if is_granted(entity, action)]
        for entity, actions in granted.items()
    })  # fmt: skip


def read_withheld(members: _Members) -> Mapping[str, frozenset[str]]:
    """Return Auther's `abac_required`, a map from an entity to a list of actions (commas too); read-only.

    What it names depends on conditions that only the provider can judge, at the moment of the request.
    """
    value = members.get("abac_required")
    named = value if isinstance(value, dict) else {}
    return _grants({entity: _words(actions, ",") for entity, actions in named.items()})


def says_no_image(members: _Members) -> bool:
    """Tell whether it is said that there is no picture: an explicit null, which is no silence."""
    return any(name in members for name in ("picture", "image")) and all(
        members.get(name) is None for name in ("picture", "image")
    )


def read_disabled(members: _Members, now: float) -> bool:
    """Tell whether the provider has shut the user out: a ban that has not run out, a status, or a deactivation.

    Args:
        members: `banned` with `banExpires` (Better Auth's admin plugin), `status`, `deactivatedAt`; snake_case too.
        now: seconds since the epoch.
    """
    if members.get("banned") in (True, "true"):
        ends = (_instant(members.get(name)) for name in ("banExpires", "ban_expires"))
        if not any(end is not None and end <= now for end in ends):
            return True
    status = members.get("status")
    if isinstance(status, str) and status.strip().lower() in _DISABLED_STATUS:
        return True
    return any(members.get(name) not in (None, False, "") for name in ("deactivatedAt", "deactivated_at"))


def read_ban_end(members: _Members) -> float | None:
    """Return when a ban runs out, in seconds since the epoch; None where it does not, or another reason stands beside.

    Args:
        members: see `read_disabled`.
    """
    ends = [end for name in ("banExpires", "ban_expires") if (end := _instant(members.get(name))) is not None]
    others = {name: value for name, value in members.items() if name != "banned"}
    return None if not ends or read_disabled(others, 0.0) else min(ends)


def _is_machine(members: _Members, sub: str, scopes: frozenset[str], client_id: str | None) -> bool:
    """Tell an API key (Auther) or client credentials (RFC 9068 section 2.2: sub is the client) from a person."""
    return (
        "api_key_exchange" in scopes
        or members.get("apiKeyId") is not None
        or members.get("gty") in _CLIENT_CREDENTIALS
        or sub.endswith("@clients")  # Auth0
        or any(members.get(name) == sub for name in _CLIENT_IDS)
        # Keycloak gives a client's service account a user id of its own, and this name.
        or (client_id is not None and members.get("preferred_username") == f"service-account-{client_id.lower()}")
        # Entra says it only where that is configured; a person's token for an API has a scope, a machine's has none.
        or members.get("idtyp") == "app"
        or (client_id is not None and members.get("oid") == sub and not scopes)
    )


def _said(value: object, limit: int) -> str | None:
    if isinstance(value, str) and len(value) <= limit and "\0" not in value and value.strip():
        return value
    return None


def _grants(actions: Mapping[str, Sequence[str]]) -> Mapping[str, frozenset[str]]:
    return MappingProxyType({entity: frozenset(named) for entity, named in actions.items() if named})


def _words(value: object, separator: str | None) -> Sequence[str]:
    """Return the words of a list, or of a string if `separator` says what stands between them."""
    if isinstance(value, str) and separator is not None:
        words: list[str] = value.split(separator)
    elif isinstance(value, list):
        words = [word for word in value if isinstance(word, str)]
    else:
        return ()
    return [stripped for word in words if (stripped := word.strip())]


def _instant(value: object) -> float | None:
    """Return seconds since the epoch for an ISO 8601 text, seconds or milliseconds.

    None for anything else, and for what lies before 1970 or after 2286: not every calendar has such a date.
    """
    if isinstance(value, str):
        if _ISO_DATE.match(value) is None:
            return None
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_DATE * 1_000:
        return None
    else:
        seconds = value / 1_000 if value > _LEAST_MILLISECONDS else float(value)
    return seconds if 0 <= seconds <= _LAST_DATE else None
