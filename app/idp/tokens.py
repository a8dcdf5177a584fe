"""TokenVerifier: a bearer token becomes Claims, or an error that says whose fault it is.

In reading order: a strict gate over the token's form, the signature, the rules of its claims. The gate is ours because
JOSE libraries are lenient where it costs (RFC 8725): what it lets through has one spelling and one meaning, names an
accepted algorithm and a key, and asks for no extension.

The promise: of whatever text it is given, `verify` returns Claims only for a token that keeps every rule, and raises
nothing but the errors it names; their messages are ASCII without quotes and backslashes, fit for the
`error_description` of RFC 6750 section 3, and hold nothing of the token.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cachetools import LRUCache

from app.errors import InvalidToken
from app.idp.claims import ClaimRules, Claims, read_token_type
from app.idp.encoding import Malformed, decode_base64url, parse_object
from app.idp.jwks import MAX_KID, VerificationKey, check_algorithms
from app.idp.keys import RemoteKeySet

MAX_TOKEN = 16_384
"""Octets; RFC 7519 sets no limit, servers' header limits are below this."""
_EXTENSIONS = ("crit", "b64", "zip", "cty", "enc")
"""Header members that change how a token is read. Those that bring a key (`jku`, `jwk`, `x5u`, `x5c`) are not read."""


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token of good form. Anybody can have written it."""

    algorithm: str
    kid: str
    typ: str | None
    payload: dict[str, object]
    signing_input: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class _Verified:
    claims: Claims
    key: VerificationKey


class TokenVerifier:
    """Verifies the access tokens of one provider.

    Args:
        keys: the provider's keys.
        rules: what the claims must be.
        algorithms: JWS algorithms to accept, asymmetric ones only.
        clock: seconds since the epoch.
        cache_size: how many verified tokens to remember, 0 for none.

    A remembered token costs no signature: its times are checked again at every use, and its key must still be in the
    key set. Tokens are remembered by their SHA-256, so that the memory holds none that could be used. (An ECDSA
    signature has a twin that also verifies: whoever wants to deny one token must name its `jti`, not its text.)

    Raises:
        ValueError: an algorithm that cannot be accepted.
    """

    def __init__(
        self,
        *,
        keys: RemoteKeySet,
        rules: ClaimRules,
        algorithms: Collection[str],
        clock: Callable[[], float] = time.time,
        cache_size: int = 8_192,
    ) -> None:
        self._keys = keys
        self._rules = rules
        self._algorithms = check_algorithms(algorithms)
        self._clock = clock
        self._cache: LRUCache[bytes, _Verified] = LRUCache(cache_size)

    async def verify(self, token: str) -> Claims:
        """Return what a token says.

        Raises:
            InvalidToken: the token is bad; the message says which rule it breaks.
            InsufficientScope: the token is good and lacks a scope that every token must have.
            KeysUnavailable: it cannot be told, for the provider's keys cannot be had.
        """
        octets = _check_size(token)
        digest = hashlib.sha256(octets).digest()
        verified = self._cache.get(digest)
        if verified is not None and self._keys.get(verified.key.kid) is verified.key:
            self._rules.check_times(verified.claims, self._clock())
            return verified.claims

        unverified = parse_unverified(token, self._algorithms)
        key = await self._keys.find(unverified.kid)
        if key is None:
            raise InvalidToken("The token names a key that the identity provider does not have.")
        _check_signature(unverified, key)
        claims = self._rules.read(unverified.payload, typ=unverified.typ, now=self._clock())
        # A ban may run out while the token lives: such a one is read anew each time.
        if self._cache.maxsize and not claims.disabled:
            self._cache[digest] = _Verified(claims, key)
        return claims


def parse_unverified(token: str, algorithms: Collection[str]) -> UnverifiedToken:
    """Return the parts of a JWT in compact serialization (RFC 7515 section 3.1) that keeps the rules of form.

    Raises:
        InvalidToken: it does not.
    """
    octets = _check_size(token)
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidToken(_describe_parts(len(parts)))
    if not all(parts):
        raise InvalidToken("A part of the token is empty.")
    header = _parse_part("header", parts[0])
    payload = _parse_part("payload", parts[1])
    _refuse_extensions(header)
    return UnverifiedToken(
        algorithm=_read_algorithm(header, algorithms),
        kid=_read_kid(header),
        typ=_read_typ(header),
        payload=payload,
        signing_input=octets[: octets.rindex(b".")],
        signature=_decode_part("signature", parts[2]),
    )


def _check_size(token: str) -> bytes:
    if len(token) > MAX_TOKEN:
        raise InvalidToken(f"The token is larger than {MAX_TOKEN} octets.")
    try:
        return token.encode("ascii")
    except UnicodeEncodeError:
        raise InvalidToken("The token is not a JWT: it is not ASCII.") from None


def _describe_parts(count: int) -> str:
    if count == 1:
        return "The token is not a JWT: opaque tokens cannot be verified here."
    if count == 5:
        return "The token is encrypted (JWE): only signed ones can be verified here."
    return "The token is not a JWT: it has not three parts."


def _decode_part(name: str, text: str) -> bytes:
    try:
        return decode_base64url(text)
    except Malformed as malformed:
        raise InvalidToken(f"The {name} of the token {malformed}.") from None


def _parse_part(name: str, text: str) -> dict[str, object]:
    try:
        return parse_object(_decode_part(name, text))
    except Malformed as malformed:
        raise InvalidToken(f"The {name} of the token {malformed}.") from None


def _refuse_extensions(header: dict[str, object]) -> None:
    for name in _EXTENSIONS:
        if name in header:
            raise InvalidToken(f"The header of the token has a {name} member, which is not accepted.")


def _read_algorithm(header: dict[str, object], algorithms: Collection[str]) -> str:
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidToken("The algorithm of the token is not accepted.")
    return algorithm


def _read_kid(header: dict[str, object]) -> str:
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise InvalidToken(f"The token does not name its key by a kid of 1 to {MAX_KID} characters.")
    return kid


def _read_typ(header: dict[str, object]) -> str | None:
    if "typ" not in header:
        return None
    try:
        return read_token_type(header["typ"])
    except ValueError:
        raise InvalidToken("The typ of the token is not that of an access token.") from None


def _check_signature(unverified: UnverifiedToken, key: VerificationKey) -> None:
    if unverified.algorithm not in key.algorithms:
        raise InvalidToken("The key that the token names is for another algorithm.")
    if not key.verify(unverified.algorithm, unverified.signing_input, unverified.signature):
        raise InvalidToken("The signature of the token is not valid.")
