"""A development identity provider: keys, discovery, tokens for anybody, userinfo, signed webhooks, in one process.

    python scripts/dev_idp.py --port 0 --audience http://127.0.0.1:8000

    GET  /.well-known/openid-configuration    also below /api/auth; the issuer has no path
    GET  /api/auth/jwks                       RS256, ES256 and EdDSA side by side; no `use`, no Cache-Control
    GET  /api/auth/oauth2/userinfo            for the bearer of a good token
    POST /dev/token     TokenRequest          {"token"}
    POST /dev/rotate    {retire?}             new keys sign at once; old ones stay published unless `retire`
    POST /dev/outage    {on}                  keys and discovery answer 503
    POST /dev/webhook   WebhookRequest        {"id", "timestamp", "status"}

The promise: it binds to loopback only, keeps everything in memory, prints no token, and says loudly what it is.
The standard library serves it: the port is open, and known, when the line `ready http://127.0.0.1:PORT` is printed.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hmac
import ipaddress
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, Literal

import httpx
import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

BANNER = """\
###########################################################################
## DEVELOPMENT ONLY: this provider hands a token for anybody to anybody. ##
## Never point a server that holds real data at it.                      ##
###########################################################################"""
CLIENT = "dev-client"
PROFILE = ("email", "email_verified", "name", "picture")
Algorithm = Literal["RS256", "ES256", "EdDSA"]
Kind = Literal["access", "at+jwt", "id_token", "session", "api-key"]
Fault = Literal["signature", "expired", "early", "audience", "issuer", "kid", "none"]
Document = dict[str, Any]
FAULTS: dict[Fault, Callable[[int], tuple[Document, Document]]] = {
    # what each fault changes in header and claims; "signature" and "none" are also the signer's
    "signature": lambda now: ({}, {}),
    "expired": lambda now: ({}, {"iat": now - 7200, "exp": now - 3600}),
    "early": lambda now: ({}, {"nbf": now + 3600}),
    "audience": lambda now: ({}, {"aud": "https://another-api.example"}),
    "issuer": lambda now: ({}, {"iss": "https://another-issuer.example"}),
    "kid": lambda now: ({"kid": "unknown"}, {}),
    "none": lambda now: ({"alg": "none"}, {}),
}


class TokenRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What a token should be. `claims` go in last and as they are; the profile among them is remembered."""

    sub: str
    alg: Algorithm | None = None
    claims: Document = {}
    expires_in: int = 900  # seconds
    audience: str | list[str] | None = None
    kind: Kind = "access"
    broken: Fault | None = None  # the one thing that is wrong with it


class WebhookRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A delivery. With `id` and `timestamp` (milliseconds) of an earlier one it is a retry, as Auther makes them."""

    url: str
    secret: str
    type: str
    data: Document
    scheme: Literal["auther", "auther-body", "standard"] = "auther"
    id: str | None = None
    timestamp: int | None = None


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """Whether the old keys leave the key set at once."""

    retire: bool = False


class Outage(msgspec.Struct, forbid_unknown_fields=True):
    """Whether keys and discovery answer 503."""

    on: bool


class Refused(Exception):
    """An answer that is no success: its status and the reason."""


def b64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """A private key: how it signs (RFC 7518 section 3, RFC 8037) and its public half as a JWK."""

    def __init__(self, alg: Algorithm) -> None:
        self.sign: Callable[[bytes], bytes]
        match alg:
            case "RS256":
                pair = rsa.generate_private_key(65537, 2048)
                modulus = pair.public_key().public_numbers().n.to_bytes(256)
                public = {"kty": "RSA", "n": b64url(modulus), "e": "AQAB"}
                self.sign = lambda message: pair.sign(message, padding.PKCS1v15(), hashes.SHA256())
            case "ES256":
                curve = ec.generate_private_key(ec.SECP256R1())
                point = curve.public_key().public_numbers()
                x, y = (b64url(number.to_bytes(32)) for number in (point.x, point.y))
                public = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
                self.sign = lambda message: b"".join(
                    half.to_bytes(32) for half in decode_dss_signature(curve.sign(message, ec.ECDSA(hashes.SHA256())))
                )
            case "EdDSA":
                edwards = ed25519.Ed25519PrivateKey.generate()
                public = {"kty": "OKP", "crv": "Ed25519", "x": b64url(edwards.public_key().public_bytes_raw())}
                self.sign = edwards.sign
        self.jwk: dict[str, str] = {"kid": secrets.token_hex(8), "alg": alg, **public}


def shape(kind: Kind, sub: str, profile: Mapping[str, Any], now: float) -> tuple[Document, Document]:
    """Return the header and the claims in which a kind of token differs from the others."""
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    name, image, random = str(profile.get("name", "")), profile.get("picture"), secrets.token_hex(16)
    match kind:
        case "access":
            return {"alg": "RS256"}, {"sid": random, "permissions": {}, **profile}
        case "at+jwt":  # RFC 9068: names the client, and nothing of the person
            return {"alg": "RS256", "typ": "at+jwt"}, {"client_id": CLIENT, "scope": "openid", "jti": random}
        case "id_token":  # iat in milliseconds, the picture in `profile`
            given, _, family = name.partition(" ")
            person = {"name": name, "given_name": given, "family_name": family, "profile": image, "updated_at": at}
            mail = {claim: profile[claim] for claim in ("email", "email_verified") if claim in profile}
            session = {"nonce": random, "acr": "urn:mace:incommon:iap:silver", "auth_time": int(now)}
            return {"alg": "EdDSA"}, {"aud": CLIENT, "iat": int(now * 1000), **person, **mail, **session}
        case "session":  # the whole user row in camelCase
            row = {"id": sub, "name": name, "image": image, "createdAt": at, "updatedAt": at, "role": "user"}
            mail = {"email": profile.get("email"), "emailVerified": profile.get("email_verified", False)}
            return {"alg": "EdDSA"}, {**row, **mail, "banned": False}
        case "api-key":
            return {"alg": "RS256", "typ": "JWT"}, {"scope": "api_key_exchange", "permissions": {}, "apiKeyId": random}


class Provider:
    """What the provider knows and answers, without sockets."""

    def __init__(self, base: str, issuer: str, audience: str, clock: Callable[[], float] = time.time) -> None:
        self.base, self.issuer, self.audience, self.clock = base, issuer, audience, clock
        self.down = False
        self.published: tuple[Key, ...] = ()  # the newest first
        self.profiles: dict[str, Document] = {}
        self.minted: dict[str, tuple[str, float]] = {}  # token -> sub and when it expires
        self.rotate(Rotation())

    def rotate(self, asked: Rotation) -> Document:
        """Sign with new keys from now on."""
        self.published = Key("RS256"), Key("ES256"), Key("EdDSA"), *(() if asked.retire else self.published)
        return {"kids": [key.jwk["kid"] for key in self.published]}

    def outage(self, asked: Outage) -> Document:
        """Begin or end an outage."""
        self.down = asked.on
        return {"on": self.down}

    def discovery(self) -> Document:
        """OpenID Connect Discovery 1.0 section 3, as far as there is something to discover."""
        self._must_be_up()
        known = {"issuer": self.issuer, "jwks_uri": f"{self.base}/api/auth/jwks", "subject_types_supported": ["public"]}
        algorithms = {"id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"]}
        return {**known, **algorithms, "userinfo_endpoint": f"{self.base}/api/auth/oauth2/userinfo"}

    def jwks(self) -> Document:
        """RFC 7517 section 5."""
        self._must_be_up()
        return {"keys": [key.jwk for key in self.published]}

    def _must_be_up(self) -> None:
        if self.down:
            raise Refused(503, "an outage, as asked for")

    def userinfo(self, authorization: str | None) -> Document:
        """OpenID Connect Core 1.0 section 5.3."""
        sub, expires = self.minted.get((authorization or "").partition(" ")[2], ("", 0.0))
        if expires <= self.clock():
            raise Refused(401, "invalid_token")
        return {"sub": sub, **self.profiles[sub]}

    def token(self, asked: TokenRequest) -> Document:
        """Mint a token, and remember what is said of its user."""
        now = self.clock()
        told = {name: asked.claims[name] for name in PROFILE if name in asked.claims}
        profile = self.profiles[asked.sub] = self.profiles.get(asked.sub, {}) | told
        header, claims = shape(asked.kind, asked.sub, profile, now)
        header["alg"] = asked.alg or header["alg"]
        key = next(key for key in self.published if key.jwk["alg"] == header["alg"])
        header["kid"] = key.jwk["kid"]
        usual = {"sub": asked.sub, "iss": self.issuer, "aud": self.audience, "iat": int(now)}
        claims = {**usual, "exp": int(now) + asked.expires_in, **claims}
        claims |= ({} if asked.audience is None else {"aud": asked.audience}) | asked.claims
        faulty_header, faulty_claims = FAULTS[asked.broken](int(now)) if asked.broken else ({}, {})
        header |= faulty_header
        claims |= faulty_claims
        message = f"{b64url(msgspec.json.encode(header))}.{b64url(msgspec.json.encode(claims))}"
        signature = b"" if asked.broken == "none" else key.sign(message.encode())
        if asked.broken == "signature":
            signature = bytes([signature[0] ^ 1]) + signature[1:]
        token = f"{message}.{b64url(signature)}"
        if asked.broken is None:
            self.minted[token] = asked.sub, now + asked.expires_in
        return {"token": token}

    def webhook(self, asked: WebhookRequest) -> Document:
        """Deliver a webhook once: Auther's two ways to sign, or Standard Webhooks."""
        event = asked.id or f"evt_{secrets.token_hex(16)}"
        at = asked.timestamp if asked.timestamp is not None else int(self.clock() * 1000)
        data = "payload" if asked.scheme == "auther-body" else "data"  # Auther's documentation, and its code
        envelope = {"id": event, "origin": self.issuer, "type": asked.type, "timestamp": at // 1000}
        body = msgspec.json.encode({**envelope, data: asked.data})
        if asked.scheme == "standard":
            try:
                secret = base64.b64decode(asked.secret.removeprefix("whsec_"), validate=True)
            except binascii.Error:
                raise Refused(400, "secret: after whsec_ it must be base64") from None
            signature = hmac.digest(secret, b"%s.%d.%s" % (event.encode(), at // 1000, body), "sha256")
            signed = "v1," + base64.b64encode(signature).decode()
            headers = {"webhook-id": event, "webhook-timestamp": str(at // 1000), "webhook-signature": signed}
        else:
            message = body if asked.scheme == "auther-body" else b"%d.%s" % (at, body)
            signed = hmac.digest(asked.secret.encode(), message, "sha256").hex()
            headers = {"x-webhook-id": event, "x-webhook-timestamp": str(at), "x-webhook-signature": signed}
            headers["x-webhook-origin"] = self.issuer
        try:
            headers["content-type"] = "application/json"
            answer = httpx.post(asked.url, content=body, headers=headers, trust_env=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Refused(502, f"url: {error}") from None
        return {"id": event, "timestamp": at, "status": answer.status_code}


class Server(ThreadingTCPServer):
    """The socket, bound and listening once made. (The library's HTTPServer would look its own name up first.)"""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, issuer: str | None, audience: str) -> None:
        super().__init__((host, port), Handler)
        self.base = f"http://{host}:{self.server_address[1]}"
        self.provider = Provider(self.base, issuer or self.base, audience)


class Handler(BaseHTTPRequestHandler):
    """A connection: bytes to requests, answers to bytes."""

    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # header and body in one packet, so that nothing waits for a delayed acknowledgement

    def do_GET(self) -> None:
        """Answer."""
        try:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            status, document = 200, self._route(self.server.provider, body or b"{}")
        except (msgspec.MsgspecError, ValueError) as error:
            status, document = 400, {"error": str(error)}
        except Refused as refused:
            status, document = refused.args[0], {"error": refused.args[1]}
        answer = msgspec.json.encode(document)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self) -> None:
        """Answer."""
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""

    def _route(self, provider: Provider, body: bytes) -> Document:
        match f"{self.command} {self.path}":
            case "GET /.well-known/openid-configuration" | "GET /api/auth/.well-known/openid-configuration":
                return provider.discovery()
            case "GET /api/auth/jwks":
                return provider.jwks()
            case "GET /api/auth/oauth2/userinfo":
                return provider.userinfo(self.headers["authorization"])
            case "POST /dev/token":
                return provider.token(msgspec.json.decode(body, type=TokenRequest))
            case "POST /dev/rotate":
                return provider.rotate(msgspec.json.decode(body, type=Rotation))
            case "POST /dev/outage":
                return provider.outage(msgspec.json.decode(body, type=Outage))
            case "POST /dev/webhook":
                return provider.webhook(msgspec.json.decode(body, type=WebhookRequest))
        raise Refused(404, "no such route")


def loopback(host: str) -> str:
    """Return an IPv4 address of this machine's own, or refuse."""
    host = "127.0.0.1" if host == "localhost" else host
    try:
        own = ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        own = False
    if not own:
        raise argparse.ArgumentTypeError(f"{host} is not loopback, and this provider serves nobody else; use 127.0.0.1")
    return host


def main() -> int:
    """Serve until SIGTERM, SIGINT or, if asked to, until standard input closes."""
    parser = argparse.ArgumentParser(description="A development identity provider; see the top of this file.")
    parser.add_argument("--host", type=loopback, default="127.0.0.1", help="a loopback address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0, the default: any that is free")
    parser.add_argument("--audience", required=True, help="`aud` of the tokens: the API's address")
    parser.add_argument("--issuer", help="`iss` of the tokens (default: the provider's own address)")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the parent that holds the pipe")
    options = parser.parse_args()
    print(BANNER, file=sys.stderr, flush=True)
    try:
        server = Server(options.host, options.port, options.issuer, options.audience)
    except (OSError, OverflowError) as error:
        print(f"Cannot listen on {options.host}:{options.port}: {error}.", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))

    def follow_parent() -> None:
        while os.read(0, 4096):
            pass
        server.shutdown()

    if options.until_stdin_closes:
        threading.Thread(target=follow_parent, daemon=True).start()
    with server:
        print(f"ready {server.base}", flush=True)
        server.serve_forever(poll_interval=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
