"""A provider for the tests: keys of every kind, tokens signed with `cryptography` alone, and a transport that answers.

Nothing of `app` is used to make a token, so that what the tests expect does not come from what they test.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://idp.example"
JWKS_URL = "https://idp.example/api/auth/jwks"
AUDIENCE = "https://api.example"
NOW = 1_800_000_000.0
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
KIDS = {**dict.fromkeys(ALGORITHMS[:6], "rsa"), "ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed"}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Json = dict[str, Any]

_CURVES: dict[str, tuple[ec.EllipticCurve, str, int]] = {
    "p256": (ec.SECP256R1(), "P-256", 32),
    "p384": (ec.SECP384R1(), "P-384", 48),
    "p521": (ec.SECP521R1(), "P-521", 66),
}
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def encode(data: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def encode_integer(number: int, size: int | None = None) -> str:
    return encode(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


@cache
def private_key(name: str) -> PrivateKey:
    """Return a key: rsa, p256, p384, p521 or ed; `other-` before the name makes a further one of its kind."""
    kind = name.removeprefix("other-")
    if kind == "rsa":
        return rsa.generate_private_key(65_537, 2_048)
    if kind == "ed":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(_CURVES[kind][0])


@cache
def _public_members(name: str) -> tuple[tuple[str, str], ...]:
    key = private_key(name).public_key()
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return (("kty", "RSA"), ("n", encode_integer(numbers.n)), ("e", encode_integer(numbers.e)))
    if isinstance(key, ed25519.Ed25519PublicKey):
        return (("kty", "OKP"), ("crv", "Ed25519"), ("x", encode(key.public_bytes_raw())))
    point = key.public_numbers()
    _, crv, size = _CURVES[name.removeprefix("other-")]
    return (("kty", "EC"), ("crv", crv), ("x", encode_integer(point.x, size)), ("y", encode_integer(point.y, size)))


def public_jwk(name: str, **more: Any) -> Json:
    """Return the public JWK of a key; its kid is its name unless `more` says otherwise."""
    return {**dict(_public_members(name)), "kid": name, **more}


def key_set(*keys: str | Json) -> Json:
    """Return a JWK Set of keys by name or as they are; of one key of each kind if none is named."""
    chosen = keys or ("rsa", "p256", "p384", "p521", "ed")
    return {"keys": [public_jwk(key) if isinstance(key, str) else key for key in chosen]}


def sign(algorithm: str, message: bytes, key: PrivateKey | None = None) -> bytes:
    """Return the JWS signature of a message."""
    key = key or private_key(KIDS[algorithm])
    digest = _HASHES.get(algorithm[2:])
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    assert digest is not None
    if isinstance(key, rsa.RSAPrivateKey):
        if algorithm.startswith("PS"):
            return key.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        return key.sign(message, padding.PKCS1v15(), digest)
    size = (key.curve.key_size + 7) // 8
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def payload(**changes: Any) -> Json:
    """Return the claims of a good token; a change to `...` leaves the claim out."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "iat": int(NOW), "exp": int(NOW) + 900, **changes}
    return {name: value for name, value in claims.items() if value is not ...}


def mint(
    claims: Json | bytes | None = None,
    *,
    algorithm: str = "ES256",
    header: Json | bytes | None = None,
    key: PrivateKey | None = None,
) -> str:
    """Return a token with a good signature over whatever header and claims.

    A header given as a dict changes the default one (`alg`, `kid`), where `...` leaves a member out; bytes are taken
    as they are.
    """
    if not isinstance(header, bytes):
        members = {"alg": algorithm, "kid": KIDS[algorithm], **(header or {})}
        header = json.dumps({name: value for name, value in members.items() if value is not ...}).encode()
    if not isinstance(claims, bytes):
        claims = json.dumps(payload() if claims is None else claims).encode()
    message = f"{encode(header)}.{encode(claims)}"
    return f"{message}.{encode(sign(algorithm, message.encode(), key))}"


class Clock:
    """A clock that stands until it is told to go."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Provider:
    """Answers every GET with `answer`, or with what `pages` has for its URL, and remembers what was asked."""

    def __init__(self, answer: Json | httpx.Response | Exception | None = None) -> None:
        self.answer: Json | httpx.Response | Exception = key_set() if answer is None else answer
        self.pages: dict[str, Json | httpx.Response] | None = None
        self.requests: list[httpx.Request] = []
        self.before: Callable[[], Awaitable[object]] | None = None
        """Awaited before each answer; what it does meanwhile is the test's affair."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer: Json | httpx.Response | Exception = self.answer
        if self.pages is not None:
            answer = self.pages.get(str(request.url), httpx.Response(404))
        if self.before is not None:
            await self.before()
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    @property
    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))

    @property
    def asked(self) -> list[str]:
        return [str(request.url) for request in self.requests]


class Gate:
    """Holds the provider's answers back until it is opened; set as `provider.before`."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        await self.open.wait()


async def settle() -> None:
    """Let background tasks run until they wait for something from outside."""
    for _ in range(50):
        await asyncio.sleep(0)
