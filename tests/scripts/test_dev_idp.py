"""The development provider over real sockets; its tokens are checked with PyCA cryptography from its published keys."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Address
from pathlib import Path
from queue import SimpleQueue
from socketserver import TCPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

SCRIPT = Path(__file__).parents[2] / "scripts" / "dev_idp.py"
AUDIENCE = "http://api.test"


def start(*options: str, **pipes: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), "--audience", AUDIENCE, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **pipes)


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    word, _, base = process.stdout.readline().strip().partition(" ")
    assert word == "ready"
    return base


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    with start() as process:
        yield address(process)
        process.terminate()


@pytest.fixture
def provider(base: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base, trust_env=False) as client:
        yield client
        client.post("/dev/outage", json={"on": False})


@dataclass
class Delivery:
    headers: dict[str, str]
    body: bytes


class Receiver(TCPServer):
    """A webhook endpoint that answers 202 and keeps what it was sent."""

    def __init__(self) -> None:
        deliveries: SimpleQueue[Delivery] = SimpleQueue()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                deliveries.put(Delivery({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None: ...

        super().__init__(("127.0.0.1", 0), Handler)
        self.deliveries = deliveries
        self.url = f"http://127.0.0.1:{self.server_address[1]}/webhooks/idp"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def number(part: str) -> int:
    return int.from_bytes(decoded(part))


def read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return json.loads(decoded(header)), json.loads(decoded(claims))


def check(token: str, jwk: dict[str, str]) -> None:
    """Raise InvalidSignature unless the key made the token's signature."""
    message, _, last = token.rpartition(".")
    data, signature = message.encode(), decoded(last)
    match jwk["kty"]:
        case "RSA":
            rsa_key = rsa.RSAPublicNumbers(number(jwk["e"]), number(jwk["n"])).public_key()
            rsa_key.verify(signature, data, padding.PKCS1v15(), hashes.SHA256())
        case "EC":
            assert len(signature) == 64
            curve_key = ec.EllipticCurvePublicNumbers(number(jwk["x"]), number(jwk["y"]), ec.SECP256R1()).public_key()
            halves = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
            curve_key.verify(halves, data, ec.ECDSA(hashes.SHA256()))
        case "OKP":
            ed25519.Ed25519PublicKey.from_public_bytes(decoded(jwk["x"])).verify(signature, data)


def keys(provider: httpx.Client) -> dict[str, dict[str, str]]:
    return {key["kid"]: key for key in provider.get("/api/auth/jwks").raise_for_status().json()["keys"]}


def mint(provider: httpx.Client, **asked: Any) -> str:
    token = provider.post("/dev/token", json={"sub": "usr_1", **asked}).raise_for_status().json()["token"]
    assert isinstance(token, str)
    return token


class TestProcess:
    def test_says_loudly_what_it_is_and_ends_cleanly_on_sigterm(self) -> None:
        with start() as process:
            address(process)
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert output == ""
        assert "DEVELOPMENT ONLY" in errors
        assert "Traceback" not in errors

    def test_ends_cleanly_on_ctrl_c(self) -> None:
        with start() as process:
            address(process)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
        assert process.returncode == 0
        assert "Traceback" not in errors

    def test_ends_with_a_parent_that_was_killed(self) -> None:
        parent_code = (
            "import subprocess, sys, time\n"
            "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(60)\n"
        )
        command = [sys.executable, str(SCRIPT), "--audience", AUDIENCE, "--until-stdin-closes"]
        with subprocess.Popen(
            [sys.executable, "-c", parent_code, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as parent:
            assert parent.stdout is not None
            lines = {parent.stdout.readline().partition(" ")[0].strip() for _ in range(2)}
            (child,) = (int(word) for word in lines if word.isdigit())
            assert "ready" in lines
            os.kill(child, 0)
            parent.kill()
            # the provider holds the other end of the pipe: it ends when the provider does
            assert parent.stdout.read() == ""

    @pytest.mark.parametrize("host", [str(IPv4Address(0)), "192.168.1.10", "example.com", "::"])
    def test_refuses_any_other_address_than_loopback(self, host: str) -> None:
        with start("--host", host) as process:
            output, errors = process.communicate(timeout=10)
        assert process.returncode == 2
        assert f"{host} is not loopback" in errors
        assert output == ""

    def test_a_port_in_use_is_one_sentence(self, base: str) -> None:
        port = base.rpartition(":")[2]
        with start("--port", port) as process:
            output, errors = process.communicate(timeout=10)
        assert process.returncode == 1
        assert errors.splitlines()[-1].startswith(f"Cannot listen on 127.0.0.1:{port}")
        assert "Traceback" not in errors
        assert output == ""


class TestMetadata:
    @pytest.mark.parametrize("folder", ["", "/api/auth"])
    def test_discovery_leads_to_the_keys_and_its_issuer_has_no_path(
        self, provider: httpx.Client, base: str, folder: str
    ) -> None:
        found = provider.get(f"{folder}/.well-known/openid-configuration").json()
        assert found["issuer"] == base
        assert found["jwks_uri"] == f"{base}/api/auth/jwks"
        assert provider.get(found["userinfo_endpoint"]).status_code == 401

    def test_the_issuer_can_be_another(self) -> None:
        with start("--issuer", "https://id.example") as process:
            with httpx.Client(base_url=address(process), trust_env=False) as provider:
                assert provider.get("/.well-known/openid-configuration").json()["issuer"] == "https://id.example"
                assert read(mint(provider))[1]["iss"] == "https://id.example"
            process.terminate()

    def test_three_kinds_of_key_stand_side_by_side_as_auther_publishes_them(self, provider: httpx.Client) -> None:
        answer = provider.get("/api/auth/jwks")
        published = answer.json()["keys"][:3]
        assert [(key["alg"], key["kty"], key.get("crv")) for key in published] == [
            ("RS256", "RSA", None),
            ("ES256", "EC", "P-256"),
            ("EdDSA", "OKP", "Ed25519"),
        ]
        assert len({key["kid"] for key in published}) == 3
        private = {"d", "p", "q", "dp", "dq", "qi", "k"}
        assert all(not {"use", *private} & set(key) for key in published)
        assert "cache-control" not in answer.headers

    def test_an_outage_shuts_keys_and_discovery_until_it_ends(self, provider: httpx.Client) -> None:
        paths = ("/api/auth/jwks", "/.well-known/openid-configuration", "/api/auth/.well-known/openid-configuration")
        provider.post("/dev/outage", json={"on": True})
        assert [provider.get(path).status_code for path in paths] == [503, 503, 503]
        provider.post("/dev/outage", json={"on": False})
        assert [provider.get(path).status_code for path in paths] == [200, 200, 200]


class TestToken:
    @pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
    def test_the_published_key_verifies_it(self, provider: httpx.Client, alg: str) -> None:
        token = mint(provider, alg=alg)
        header, claims = read(token)
        key = keys(provider)[header["kid"]]
        assert (header["alg"], key["alg"]) == (alg, alg)
        check(token, key)
        assert claims["sub"] == "usr_1"
        with pytest.raises(InvalidSignature):
            check(mint(provider, alg=alg, broken="signature"), key)

    def test_an_access_token_has_what_auther_documents(self, provider: httpx.Client, base: str) -> None:
        before = int(time.time())
        profile = {"email": "a@example.com", "email_verified": True, "name": "Ada", "picture": "https://i.example/a"}
        header, claims = read(mint(provider, claims={**profile, "permissions": {"invoice": ["read"]}}, expiresIn=60))
        assert set(header) == {"alg", "kid"}
        assert header["alg"] == "RS256"
        assert claims | profile == claims
        assert claims["permissions"] == {"invoice": ["read"]}
        assert (claims["iss"], claims["aud"], claims["sub"]) == (base, AUDIENCE, "usr_1")
        assert before <= claims["iat"] <= time.time()
        assert claims["exp"] - claims["iat"] == 60

    def test_an_id_token_counts_iat_in_milliseconds_and_keeps_the_picture_in_profile(
        self, provider: httpx.Client
    ) -> None:
        told = {"name": "Ada King", "email": "a@example.com", "email_verified": False, "picture": "https://i.example/a"}
        header, claims = read(mint(provider, sub="usr_id", kind="id_token", claims=told))
        assert set(header) == {"alg", "kid"}
        assert header["alg"] == "EdDSA"
        assert claims["aud"] != AUDIENCE
        assert claims["iat"] // 1000 + 900 == claims["exp"]
        assert claims["profile"] == "https://i.example/a"
        assert (claims["given_name"], claims["family_name"]) == ("Ada", "King")
        assert "nonce" in claims
        assert not {"sid", "jti", "azp", "permissions"} & set(claims)

    def test_a_session_token_carries_the_user_row_in_camel_case(self, provider: httpx.Client) -> None:
        mint(provider, sub="usr_s", claims={"name": "Ada", "email": "a@example.com", "email_verified": True})
        header, claims = read(mint(provider, sub="usr_s", kind="session"))
        assert header["alg"] == "EdDSA"
        row = {"id": "usr_s", "sub": "usr_s", "name": "Ada", "email": "a@example.com", "emailVerified": True}
        row |= {"image": None, "role": "user", "banned": False}
        assert claims | row == claims
        assert {"createdAt", "updatedAt"} <= set(claims)

    def test_an_api_key_token_knows_the_owner_only(self, provider: httpx.Client) -> None:
        mint(provider, sub="usr_k", claims={"name": "Ada", "email": "a@example.com"})
        header, claims = read(mint(provider, sub="usr_k", kind="api-key"))
        assert (header["alg"], header["typ"]) == ("RS256", "JWT")
        assert claims["scope"] == "api_key_exchange"
        assert {"permissions", "apiKeyId"} <= set(claims)
        assert not {"email", "name"} & set(claims)

    def test_an_rfc_9068_token_names_the_client_and_no_person(self, provider: httpx.Client) -> None:
        mint(provider, sub="usr_r", claims={"name": "Ada", "email": "a@example.com"})
        header, claims = read(mint(provider, sub="usr_r", kind="at+jwt", audience=[AUDIENCE, "https://other.example"]))
        assert header["typ"] == "at+jwt"
        assert {"client_id", "jti", "scope"} <= set(claims)
        assert claims["aud"] == [AUDIENCE, "https://other.example"]
        assert not {"email", "name"} & set(claims)

    def test_a_fault_breaks_what_it_names_and_leaves_the_signature_good(
        self, provider: httpx.Client, base: str
    ) -> None:
        now = time.time()
        for fault in ("expired", "early", "audience", "issuer"):
            token = mint(provider, broken=fault)
            header, claims = read(token)
            check(token, keys(provider)[header["kid"]])
            wrong = {
                "expired": claims["exp"] < now,
                "early": claims.get("nbf", 0) > now + 60,
                "audience": claims["aud"] != AUDIENCE,
                "issuer": claims["iss"] != base,
            }
            assert [name for name, is_wrong in wrong.items() if is_wrong] == [fault]
        assert read(mint(provider, broken="kid"))[0]["kid"] not in keys(provider)
        unsigned = mint(provider, broken="none")
        assert read(unsigned)[0]["alg"] == "none"
        assert unsigned.endswith(".")

    @pytest.mark.parametrize(
        "body",
        [b"", b"[]", b"{", b'{"sub": 1}', b'{"sub": "a", "alg": "HS256"}', b'{"sub": "a", "expiresin": 5}', b"\xff"],
    )
    def test_a_request_that_cannot_be_read_is_refused(self, provider: httpx.Client, body: bytes) -> None:
        answer = provider.post("/dev/token", content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]

    def test_an_unknown_route_is_404_and_the_connection_goes_on(self, provider: httpx.Client) -> None:
        assert provider.post("/dev/nothing", json={"a": 1}).status_code == 404
        assert provider.get("/api/auth/jwks").status_code == 200


class TestRotation:
    def test_new_keys_sign_at_once_and_the_old_stay_published(self, provider: httpx.Client) -> None:
        before = keys(provider)
        old = mint(provider)
        provider.post("/dev/rotate").raise_for_status()
        after = keys(provider)
        assert set(before) < set(after)
        assert len(after) == len(before) + 3
        check(old, after[read(old)[0]["kid"]])
        new = mint(provider)
        assert read(new)[0]["kid"] in set(after) - set(before)
        check(new, after[read(new)[0]["kid"]])

    def test_retired_keys_are_withdrawn(self, provider: httpx.Client) -> None:
        before = keys(provider)
        provider.post("/dev/rotate", json={"retire": True}).raise_for_status()
        after = keys(provider)
        assert len(after) == 3
        assert not set(before) & set(after)


class TestUserinfo:
    def test_says_what_was_told_of_the_bearer(self, provider: httpx.Client) -> None:
        told = {"email": "u@example.com", "email_verified": True, "name": "Ute"}
        mint(provider, sub="usr_u", claims=told)
        token = mint(provider, sub="usr_u", kind="at+jwt")
        answer = provider.get("/api/auth/oauth2/userinfo", headers={"authorization": f"Bearer {token}"})
        assert answer.json() == {"sub": "usr_u", **told}

    def test_refuses_what_is_no_good_token(self, provider: httpx.Client) -> None:
        bad = ["", "Bearer x", f"Bearer {mint(provider, broken='signature')}", f"Bearer {mint(provider, expiresIn=0)}"]
        answers = [provider.get("/api/auth/oauth2/userinfo", headers={"authorization": value}) for value in bad]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 401]


class TestWebhook:
    def test_auther_signs_milliseconds_and_body(self, provider: httpx.Client, receiver: Receiver, base: str) -> None:
        asked = {
            "url": receiver.url,
            "secret": "whsec_c2VzYW1l",
            "type": "user.updated",
            "data": {"id": "u", "name": "é"},
        }
        before = time.time_ns() // 1_000_000
        answer = provider.post("/dev/webhook", json=asked).json()
        sent = receiver.deliveries.get_nowait()
        at = sent.headers["x-webhook-timestamp"]
        assert answer == {"id": sent.headers["x-webhook-id"], "timestamp": int(at), "status": 202}
        assert answer["id"].startswith("evt_")
        assert before <= int(at) <= time.time_ns() // 1_000_000
        expected = hmac.new(b"whsec_c2VzYW1l", at.encode() + b"." + sent.body, hashlib.sha256).hexdigest()
        assert sent.headers["x-webhook-signature"] == expected
        assert sent.headers["x-webhook-origin"] == base
        envelope = {"id": answer["id"], "origin": base, "type": "user.updated", "timestamp": int(at) // 1000}
        assert json.loads(sent.body) == {**envelope, "data": {"id": "u", "name": "é"}}

    def test_the_documented_scheme_signs_the_body_and_calls_the_data_payload(
        self, provider: httpx.Client, receiver: Receiver
    ) -> None:
        asked = {
            "url": receiver.url,
            "secret": "s",
            "scheme": "auther-body",
            "type": "user.created",
            "data": {"id": "u"},
        }
        assert provider.post("/dev/webhook", json=asked).json()["status"] == 202
        sent = receiver.deliveries.get_nowait()
        assert sent.headers["x-webhook-signature"] == hmac.new(b"s", sent.body, hashlib.sha256).hexdigest()
        assert json.loads(sent.body)["payload"] == {"id": "u"}
        assert "data" not in json.loads(sent.body)

    def test_standard_webhooks_count_seconds_and_sign_in_base64(
        self, provider: httpx.Client, receiver: Receiver
    ) -> None:
        asked = {"url": receiver.url, "secret": "whsec_c2VzYW1l", "scheme": "standard", "type": "user.deleted"}
        provider.post("/dev/webhook", json={**asked, "data": {"id": "u"}, "timestamp": 1_700_000_000_999})
        sent = receiver.deliveries.get_nowait()
        assert sent.headers["webhook-timestamp"] == "1700000000"
        message = f"{sent.headers['webhook-id']}.1700000000.".encode() + sent.body
        signature = base64.b64encode(hmac.new(b"sesame", message, hashlib.sha256).digest()).decode()
        assert sent.headers["webhook-signature"] == f"v1,{signature}"

    def test_a_retry_repeats_id_and_timestamp(self, provider: httpx.Client, receiver: Receiver) -> None:
        asked = {"url": receiver.url, "secret": "s", "type": "user.updated", "data": {"id": "u"}}
        first = provider.post("/dev/webhook", json=asked).json()
        again = provider.post("/dev/webhook", json={**asked, "id": first["id"], "timestamp": first["timestamp"]}).json()
        assert again == first
        one, two = receiver.deliveries.get_nowait(), receiver.deliveries.get_nowait()
        assert one == two

    def test_a_receiver_that_is_not_there_is_a_502(self, provider: httpx.Client) -> None:
        with Receiver() as gone:
            url = gone.url
        asked = {"url": url, "secret": "s", "type": "user.updated", "data": {}}
        assert provider.post("/dev/webhook", json=asked).status_code == 502
