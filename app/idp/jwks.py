"""A JWK Set (RFC 7517) read as keys that may verify, each bound to the algorithms it may verify.

The promise: a key that is unfit is skipped alone, with a reason, and never takes the others down; a key that is taken
verifies under no other algorithm than its own, whatever a token's header says (RFC 8725 section 3.1).

Unfit are symmetric and private keys, RSA outside 2,048 to 8,192 bits or with an unusual exponent, points that are not
on their curve or of small order, keys for another use, keys whose alg, kty and crv disagree, and keys without a kid or
with one that is there twice. Signatures are verified by python-jose's key classes; for RSASSA-PSS and EdDSA, which it
has not, `register_key_classes` gives it the two below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jose import jwk
from jose.backends.base import Key
from jose.exceptions import JOSEError

from app.idp.encoding import Malformed, decode_base64url, parse_object

_PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_Members = Mapping[str, object]

MAX_KEYS = 100
MAX_KID = 255
_RSA_BITS = range(2_048, 8_192 + 1)
_RSA_EXPONENTS = range(65_537, 2**256, 2)
"""FIPS 186-5 section A.1.1: odd, above 2**16, below 2**256. Smaller is fragile, larger a way to burn our time."""
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})

_P = 2**255 - 19
_SMALL_ORDER_Y = frozenset({
    # The y of the eight points whose order divides 8. As public keys they verify any message; with the sign bit of x
    # they make the eight encodings.
    0,
    1,
    _P - 1,
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
})  # fmt: skip
_ED25519_OCTETS = 32


class _Kind(NamedTuple):
    kty: str
    crv: str | None


_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), _Kind("RSA", None)),
        "ES256": _Kind("EC", "P-256"),
        "ES384": _Kind("EC", "P-384"),
        "ES512": _Kind("EC", "P-521"),
        "EdDSA": _Kind("OKP", "Ed25519"),
    }
)
_CURVES: Mapping[str, type[ec.EllipticCurve]] = MappingProxyType({
    "P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1,
})  # fmt: skip
_PSS_HASHES: Mapping[str, type[hashes.HashAlgorithm]] = MappingProxyType({
    "PS256": hashes.SHA256, "PS384": hashes.SHA384, "PS512": hashes.SHA512,
})  # fmt: skip


class Unfit(Exception):
    """A key must not be used; the message says why and holds nothing of the key."""


class PSSKey(Key):
    """RSASSA-PSS with MGF1 and a salt as long as the hash (RFC 7518 section 3.5), in the form python-jose wants."""

    def __init__(self, key: rsa.RSAPublicKey, algorithm: str) -> None:
        super().__init__(key, algorithm)
        digest = _PSS_HASHES[algorithm]()
        self._key = key
        self._digest = digest
        self._padding = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)

    def verify(self, msg: bytes, sig: bytes) -> bool:
        try:
            self._key.verify(sig, msg, self._padding, self._digest)
        except InvalidSignature:
            return False
        return True


class Ed25519Key(Key):
    """EdDSA with Ed25519 (RFC 8037), in the form python-jose wants."""

    def __init__(self, key: ed25519.Ed25519PublicKey, algorithm: str) -> None:
        super().__init__(key, algorithm)
        self._key = key

    def verify(self, msg: bytes, sig: bytes) -> bool:
        try:
            self._key.verify(sig, msg)
        except InvalidSignature:
            return False
        return True


def register_key_classes() -> None:
    """Teach python-jose PS256, PS384, PS512 and EdDSA; once or many times is the same."""
    for algorithm in _PSS_HASHES:
        jwk.register_key(algorithm, PSSKey)
    jwk.register_key("EdDSA", Ed25519Key)


def check_algorithms(algorithms: Collection[str]) -> frozenset[str]:
    """Return the JWS algorithms to accept.

    Raises:
        ValueError: none at all, one string instead of several, or a name other than the asymmetric ones known here.
    """
    if isinstance(algorithms, str) or not algorithms:
        raise ValueError("algorithms must be a collection of at least one name")
    if not _KINDS.keys() >= set(algorithms):
        raise ValueError(f"algorithms must be among {', '.join(_KINDS)}")
    return frozenset(algorithms)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key with the algorithms it may verify. Two are equal if kid, algorithms and key material are."""

    kid: str
    algorithms: frozenset[str]
    material: bytes = field(repr=False)
    """The public key as DER SubjectPublicKeyInfo (RFC 5280 section 4.1)."""
    signature_octets: int = field(compare=False)
    """How long a signature of this key is, exactly."""
    _verifiers: Mapping[str, Key] = field(compare=False, repr=False)

    def verify(self, algorithm: str, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is this key's for `message` under `algorithm`; garbage is a no, never an error."""
        verifier = self._verifiers.get(algorithm)
        if verifier is None or len(signature) != self.signature_octets:
            return False
        try:
            return verifier.verify(message, signature) is True
        except (InvalidSignature, UnsupportedAlgorithm, JOSEError, ValueError, TypeError, OverflowError):
            return False


class SkippedKey(NamedTuple):
    """A key that was not taken: its place in the set, its kid if it has one, and why. No key material."""

    position: int
    kid: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class KeySet:
    """The fit keys of a JWK Set by kid, and what was skipped."""

    keys: Mapping[str, VerificationKey]
    skipped: tuple[SkippedKey, ...]


def parse_key_set(body: bytes, algorithms: Collection[str]) -> KeySet:
    """Return the keys of a JWK Set document that may verify one of `algorithms`.

    Raises:
        Malformed: not strict JSON, not a JWK Set, or one of more than `MAX_KEYS` keys.
    """
    members = parse_object(body).get("keys")
    if not isinstance(members, list):
        raise Malformed("is not a JWK Set")
    if len(members) > MAX_KEYS:
        raise Malformed(f"holds more than {MAX_KEYS} keys")
    kids = [_read_kid(member) for member in members]
    uses = Counter(kids)
    keys: dict[str, VerificationKey] = {}
    skipped: list[SkippedKey] = []
    for position, (kid, member) in enumerate(zip(kids, members, strict=True)):
        try:
            if kid is None:
                raise Unfit(f"it has no kid of 1 to {MAX_KID} characters")
            if uses[kid] > 1:
                raise Unfit("its kid is there more than once")
            keys[kid] = load_key(kid, member, algorithms)
        except Unfit as unfit:
            skipped.append(SkippedKey(position, kid, str(unfit)))
    return KeySet(MappingProxyType(keys), tuple(skipped))


def load_key(kid: str, members: _Members, algorithms: Collection[str]) -> VerificationKey:
    """Return the key that a JWK describes, bound to its own algorithm or to every one of `algorithms` that fits it.

    Raises:
        Unfit: it must not be used.
    """
    if _PRIVATE_MEMBERS & members.keys():
        raise Unfit("it is symmetric or private")
    if members.get("use", "sig") != "sig":
        raise Unfit("its use is not sig")
    operations = members.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise Unfit("its key_ops do not hold verify")
    bound = _bind(members, algorithms)
    try:
        key, octets = _LOADERS[str(members["kty"])](members)
    except Malformed as malformed:
        raise Unfit(f"one of its members {malformed}") from None
    except UnsupportedAlgorithm:
        raise Unfit("this machine's OpenSSL does not support it") from None
    verifiers = {algorithm: _construct(key, algorithm) for algorithm in bound}
    material = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return VerificationKey(kid, bound, material, octets, MappingProxyType(verifiers))


def _read_kid(member: object) -> str | None:
    kid = member.get("kid") if isinstance(member, dict) else None
    return kid if isinstance(kid, str) and 0 < len(kid) <= MAX_KID else None


def _bind(members: _Members, algorithms: Collection[str]) -> frozenset[str]:
    kty, crv = members.get("kty"), members.get("crv")
    fitting = {name for name, kind in _KINDS.items() if kind.kty == kty and kind.crv in (None, crv)}
    if not fitting:
        raise Unfit("its kty and crv are none that can be used")
    if "alg" not in members:
        bound = fitting.intersection(algorithms)
    elif members["alg"] not in tuple(fitting):
        raise Unfit("its alg is none for its kty and crv")
    else:
        bound = {str(members["alg"])}.intersection(algorithms)
    if not bound:
        raise Unfit("it is for an algorithm that is not accepted")
    return frozenset(bound)


def _load_rsa(members: _Members) -> tuple[_PublicKey, int]:
    modulus, exponent = (int.from_bytes(_octets(members, name), "big") for name in ("n", "e"))
    if modulus.bit_length() not in _RSA_BITS:
        raise Unfit(f"its modulus has not {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits")
    if modulus % 2 == 0 or exponent not in _RSA_EXPONENTS:
        raise Unfit("its modulus is even, or its exponent even, under 65537 or over 256 bits")
    try:
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise Unfit("it is not an RSA key") from None
    return key, (modulus.bit_length() + 7) // 8


def _load_ec(members: _Members) -> tuple[_PublicKey, int]:
    curve = _CURVES[str(members["crv"])]()
    x, y = (_octets(members, name) for name in ("x", "y"))
    size = (curve.key_size + 7) // 8
    if (len(x), len(y)) != (size, size):  # RFC 7518 section 6.2.1.2: the full size of a coordinate
        raise Unfit(f"its coordinates are not of {size} octets")
    try:
        key = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), curve).public_key()
    except ValueError:
        raise Unfit("its point is not on the curve") from None
    return key, 2 * size


def _load_okp(members: _Members) -> tuple[_PublicKey, int]:
    point = _octets(members, "x")
    if len(point) != _ED25519_OCTETS:
        raise Unfit(f"its point is not of {_ED25519_OCTETS} octets")
    y = int.from_bytes(point, "little") & (2**255 - 1)  # the last bit is the sign of x (RFC 8032 section 5.1.2)
    if y >= _P or y in _SMALL_ORDER_Y:
        raise Unfit("its point is of small order or not canonical")
    return ed25519.Ed25519PublicKey.from_public_bytes(point), 2 * _ED25519_OCTETS


_LOADERS = MappingProxyType({"RSA": _load_rsa, "EC": _load_ec, "OKP": _load_okp})


def _octets(members: _Members, name: str) -> bytes:
    value = members.get(name)
    if not isinstance(value, str):
        raise Unfit(f"its {name} is missing or not a string")
    return decode_base64url(value)


def _construct(key: Any, algorithm: str) -> Key:
    kind = jwk.get_key(algorithm)
    if kind is None:
        raise LookupError(f"python-jose has no key class for {algorithm}; register_key_classes was not called")
    return kind(key, algorithm)
