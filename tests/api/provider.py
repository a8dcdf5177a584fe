"""A provider for the tests: real keys, real signatures, and a transport that serves the key set from memory."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ISSUER = "https://idp.example"
AUDIENCE = "https://api.example"


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Provider:
    """One RS256 key, and whether it can be reached."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        self.down = False

    def key_set(self) -> dict[str, Any]:
        numbers = self._key.public_key().public_numbers()
        n = _b64(numbers.n.to_bytes(256))
        return {"keys": [{"kty": "RSA", "kid": "k1", "alg": "RS256", "n": n, "e": _b64(numbers.e.to_bytes(3))}]}

    def client(self) -> httpx.AsyncClient:
        """Return a client that reaches nothing but this provider."""

        def serve(request: httpx.Request) -> httpx.Response:
            if self.down:
                raise httpx.ConnectError("no route", request=request)
            if request.url.path == "/jwks":
                return httpx.Response(200, json=self.key_set())
            return httpx.Response(404)

        return httpx.AsyncClient(transport=httpx.MockTransport(serve))

    def token(self, sub: str | None = "ada", **claims: Any) -> str:
        """Return a signed token of now; a claim given as None is left out."""
        now = int(time.time())
        said = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": sub,
            "iat": now,
            "exp": now + 900,
            "email": f"{sub}@example.com",
            "email_verified": True,
            "name": "Ada Lovelace",
            "picture": "https://example.com/ada.png",
        } | claims
        header = {"alg": "RS256", "kid": "k1", "typ": "JWT"}
        payload = {name: value for name, value in said.items() if value is not None}
        signed = ".".join(_b64(json.dumps(part).encode()) for part in (header, payload))
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_b64(signature)}"

    def bearer(self, sub: str | None = "ada", **claims: Any) -> dict[str, str]:
        """Return the header of a request with such a token."""
        return {"Authorization": f"Bearer {self.token(sub, **claims)}"}
