"""/webhooks/idp: signed deliveries over HTTP, on real databases, and what becomes of the rows."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from app.errors import SettingsError
from app.settings import Settings, load
from tests.api.conftest import Serve
from tests.api.provider import AUDIENCE, ISSUER, Provider
from tests.api.test_problems import check
from tests.postgres import Server
from tests.serving import running

pytestmark = pytest.mark.anyio

SECRET = "whsec_c2VzYW1lIHNlc2FtZSBzZXNhbWU="
OTHER = "whsec_b3BlbiBvcGVuIG9wZW4gb3Blbg=="
PATH = "/webhooks/idp"
FORM = "application/x-www-form-urlencoded"
RECEIVED, DEDUPED = {"received": True}, {"deduped": True}
_numbers = count(1)


class Sender:
    """The provider's side of the webhooks: signs events and sends them to a client's server."""

    def __init__(self, client: httpx.AsyncClient, scheme: str = "auther", secret: str = SECRET) -> None:
        self.client = client
        self.scheme = scheme
        self.secret = secret

    def event(self, type: str = "user.updated", sub: str = "ada", ago: int = 0, **data: Any) -> dict[str, Any]:
        """Return an event that was stated some seconds ago."""
        at = int(time.time()) - ago
        return {"id": f"evt_{next(_numbers)}", "origin": ISSUER, "type": type, "timestamp": at,
                "data": {"id": sub} | data}  # fmt: skip

    def headers(self, body: bytes, id: str, at: float | None = None) -> dict[str, str]:
        """Return the headers of a delivery that was first sent at a time, in seconds."""
        at = time.time() if at is None else at
        if self.scheme == "standard":
            key = base64.b64decode(self.secret.removeprefix("whsec_"))
            digest = hmac.new(key, f"{id}.{int(at)}.".encode() + body, hashlib.sha256).digest()
            signature = "v1," + base64.b64encode(digest).decode()
            return {"webhook-id": id, "webhook-timestamp": str(int(at)), "webhook-signature": signature}
        stamp = str(int(at * 1_000))
        signed = body if self.scheme == "auther-body" else f"{stamp}.".encode() + body
        signature = hmac.new(self.secret.encode(), signed, hashlib.sha256).hexdigest()
        return {"x-webhook-id": id, "x-webhook-timestamp": stamp, "x-webhook-signature": signature}

    async def send(self, event: dict[str, Any], method: str = "POST") -> httpx.Response:
        """Deliver an event once, as JSON."""
        body = json.dumps(event).encode()
        headers = self.headers(body, event["id"]) | {"Content-Type": "application/json"}
        return await self.client.request(method, PATH, content=body, headers=headers)

    async def tell(self, *arguments: Any, **data: Any) -> None:
        """Deliver an event that is new and well."""
        answer = await self.send(self.event(*arguments, **data))
        assert (answer.status_code, answer.json()) == (200, RECEIVED), answer.text


@pytest.fixture
async def sender(anyio_backend: object, serve: Serve) -> AsyncIterator[Sender]:
    async with serve(idp_webhook_secret=SECRET) as client:
        yield Sender(client)


Query = Callable[[str], list[list[str]]]


@pytest.fixture
def query(server: Server, database_url: str) -> Query:
    """Run SQL on the database of the test, and return the rows."""
    return lambda sql: [line.split("|") for line in server.psql(database_url, sql).splitlines()]


def events(query: Query) -> list[list[str]]:
    return query("SELECT id, type, sub, outcome FROM shadow_events ORDER BY received_at")


def chunked(body: bytes, size: int = 1_000) -> AsyncIterator[bytes]:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    return chunks()


class TestSettings:
    def test_for_standard_webhooks_a_secret_is_base64(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"IDP_ISSUER": ISSUER, "IDP_AUDIENCE": AUDIENCE, "IDP_WEBHOOK_SCHEME": "Standard"}.items():
            monkeypatch.setenv(name, value)
        for wrong in ("sesame", "whsec_", f"{SECRET},sesame", "whsec_é"):
            monkeypatch.setenv("IDP_WEBHOOK_SECRET", wrong)
            with pytest.raises(SettingsError) as caught:
                load(Settings, env_file=None)
            (fault,) = caught.value.faults
            assert fault.startswith("IDP_WEBHOOK_SECRET: ")
            assert "base64" in fault
            assert "sesame" not in fault
        monkeypatch.setenv("IDP_WEBHOOK_SECRET", f"{SECRET},{OTHER.removeprefix('whsec_')}")
        assert len(load(Settings, env_file=None).idp_webhook_secret) == 2

    def test_a_deletion_is_soft_or_erases(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"IDP_ISSUER": ISSUER, "IDP_AUDIENCE": AUDIENCE}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("ON_USER_DELETED", raising=False)
        assert load(Settings, env_file=None).on_user_deleted == "soft"
        monkeypatch.setenv("ON_USER_DELETED", "Erase")
        assert load(Settings, env_file=None).on_user_deleted == "erase"
        monkeypatch.setenv("ON_USER_DELETED", "hard")
        with pytest.raises(SettingsError, match="ON_USER_DELETED"):
            load(Settings, env_file=None)


class TestWithoutASecret:
    async def test_the_path_is_one_that_does_not_exist(self, client: httpx.AsyncClient) -> None:
        sender = Sender(client)
        for method in ("POST", "PUT", "GET"):
            there, nowhere = await sender.send(sender.event(), method), await client.request(method, "/nope")
            check(there, 404, "not_found")
            assert there.json() == nowhere.json()
        assert PATH not in (await client.get("/schema/openapi.json")).json()["paths"]


class TestDelivery:
    @pytest.mark.parametrize("scheme", ["auther", "auther-body", "standard"])
    async def test_an_event_makes_a_row_once(self, serve: Serve, query: Query, scheme: str) -> None:
        async with serve(idp_webhook_secret=SECRET, idp_webhook_scheme=scheme) as client:
            sender = Sender(client, scheme)
            event = sender.event("user.created", email="ada@example.com", emailVerified=True, name="Ada")
            answer = await sender.send(event)
            assert (answer.status_code, answer.json()) == (200, RECEIVED)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
            again = await sender.send(event)
            assert (again.status_code, again.json()) == (200, DEDUPED)
        assert query("SELECT id, email, email_verified, name FROM users") == [["ada", "ada@example.com", "t", "Ada"]]
        assert events(query) == [[event["id"], "user.created", "ada", "applied"]]

    async def test_it_may_come_by_put_and_as_a_form(self, sender: Sender, query: Query) -> None:
        event = sender.event("user.created", name="Ada & Łukasz")
        fields = {name: str(value) for name, value in event.items() if name != "data"}
        for method, form in (
            ("PUT", {"data": json.dumps(event)}),
            ("POST", fields | {"id": "evt_form", "data": json.dumps(event["data"])}),
        ):
            body = urlencode(form).encode()
            id = form.get("id", event["id"])
            headers = sender.headers(body, id) | {"Content-Type": f"{FORM}; charset=utf-8"}
            answer = await sender.client.request(method, PATH, content=body, headers=headers)
            assert (answer.status_code, answer.json()) == (200, RECEIVED), answer.text
        assert query("SELECT id, name FROM users") == [["ada", "Ada & Łukasz"]]
        assert [event[0] for event in events(query)] == [event["id"], "evt_form"]

    async def test_the_same_event_by_post_and_by_put_is_one(self, sender: Sender) -> None:
        event = sender.event("user.created")
        assert (await sender.send(event, "PUT")).json() == RECEIVED
        assert (await sender.send(event, "POST")).json() == DEDUPED

    async def test_the_data_may_be_called_payload_and_no_content_type_be_named(
        self, sender: Sender, query: Query
    ) -> None:
        event = sender.event("user.created", name="Ada")
        event["payload"] = event.pop("data")
        body = json.dumps(event).encode()
        answer = await sender.client.post(PATH, content=body, headers=sender.headers(body, event["id"]))
        assert answer.json() == RECEIVED
        assert query("SELECT name FROM users") == [["Ada"]]

    async def test_it_lies_below_the_prefix_and_asks_for_no_token(self, serve: Serve) -> None:
        async with serve(idp_webhook_secret=SECRET, path_prefix="/api") as client:
            sender = Sender(client)
            body = json.dumps(event := sender.event("user.created")).encode()
            headers = sender.headers(body, event["id"]) | {"Authorization": "Basic eA=="}
            assert (await client.post(PATH, content=body, headers=headers)).status_code == 404
            assert (await client.post(f"/api{PATH}", content=body, headers=headers)).json() == RECEIVED

    async def test_two_secrets_are_good_while_one_replaces_the_other(self, serve: Serve) -> None:
        async with serve(idp_webhook_secret=f"{SECRET}, {OTHER}") as client:
            for secret in (SECRET, OTHER):
                await Sender(client, secret=secret).tell("user.created")
            third = Sender(client, secret="whsec_third")
            check(await third.send(third.event()), 401, "invalid_signature")

    async def test_a_type_not_invented_yet_is_recorded(self, sender: Sender, query: Query) -> None:
        await sender.tell("session.created", userId="ada")
        await sender.tell("planet.discovered")
        assert [[type, outcome] for _, type, _, outcome in events(query)] == [
            ["session.created", "ignored"],
            ["planet.discovered", "ignored"],
        ]
        assert query("SELECT count(*) FROM users") == [["0"]]

    async def test_a_test_delivery_is_recorded_and_not_applied(
        self, sender: Sender, provider: Provider, query: Query
    ) -> None:
        assert (await sender.client.get("/me", headers=provider.bearer())).status_code == 200
        before = query("SELECT * FROM users")
        for type in ("user.created", "user.updated", "user.deleted", "user.verified"):
            answer = await sender.send(sender.event(type, name="Test", banned=True) | {"testEvent": True})
            assert (answer.status_code, answer.json()) == (200, RECEIVED)
        assert query("SELECT * FROM users") == before
        assert query("SELECT count(*) FROM shadow_standing") == [["0"]]
        assert [outcome for *_, outcome in events(query)] == ["ignored"] * 4

    async def test_ten_deliveries_of_one_event_at_once_are_one(self, sender: Sender, query: Query) -> None:
        event = sender.event("user.created", email="ada@example.com")
        answers = await asyncio.gather(*(sender.send(event) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200}
        told = [answer.json() for answer in answers]
        assert (told.count(RECEIVED), told.count(DEDUPED)) == (1, 9)
        assert events(query) == [[event["id"], "user.created", "ada", "applied"]]

    async def test_a_body_of_ten_thousand_octets_is_taken(self, sender: Sender) -> None:
        event = sender.event("user.created", about="x" * 10_000)
        body = json.dumps(event).encode()
        headers = sender.headers(body, event["id"])
        assert (await sender.client.post(PATH, content=chunked(body), headers=headers)).json() == RECEIVED
        assert (await sender.client.post(PATH, content=body, headers=headers)).json() == DEDUPED


class TestRefusal:
    async def check(self, sender: Sender, query: Query, status: int, code: str, **request: Any) -> dict[str, object]:
        answer = await sender.client.post(PATH, **request)
        problem = check(answer, status, code)
        assert "www-authenticate" not in answer.headers
        assert events(query) == []
        assert SECRET not in answer.text
        return problem

    async def test_a_header_that_is_missing_or_doubled(self, sender: Sender, query: Query) -> None:
        body = json.dumps(event := sender.event("user.created")).encode()
        good = list(sender.headers(body, event["id"]).items())
        for name, value in good:
            without = [pair for pair in good if pair[0] != name]
            for headers in (without, [*good, (name, value)], [*good, (name.upper(), "x")], [*without, (name, "")]):
                problem = await self.check(sender, query, 400, "invalid_delivery", content=body, headers=headers)
                assert name in str(problem["detail"])

    async def test_a_signature_that_nobody_made_who_knows_the_secret(self, sender: Sender, query: Query) -> None:
        body = json.dumps(event := sender.event("user.created")).encode()
        good = sender.headers(body, event["id"])
        stranger = Sender(sender.client, secret=OTHER).headers(body, event["id"])
        signature = good["x-webhook-signature"]
        for content, headers in (
            (body, stranger),
            (body, good | {"x-webhook-signature": "0" * 64}),
            (body, good | {"x-webhook-signature": signature[:-1]}),
            (body, good | {"x-webhook-signature": signature.upper()}),
            (body, good | {"x-webhook-signature": f"v1,{signature}"}),
            (body, good | {"x-webhook-timestamp": str(int(good["x-webhook-timestamp"]) + 1)}),
            (body[:-1], good),
            (body + b"\n", good),
            (body.replace(b"user.created", b"user.deleted"), good),
            (b"", good),
        ):
            await self.check(sender, query, 401, "invalid_signature", content=content, headers=headers)

    async def test_one_that_is_an_hour_old_or_ahead(self, sender: Sender, query: Query) -> None:
        body = json.dumps(event := sender.event("user.created")).encode()
        for apart in (-3_700, 3_700, -86_400):
            headers = sender.headers(body, event["id"], time.time() + apart)
            await self.check(sender, query, 401, "stale_delivery", content=body, headers=headers)
        retried = sender.headers(body, event["id"], time.time() - 1_968)
        assert (await sender.client.post(PATH, content=body, headers=retried)).json() == RECEIVED

    async def test_a_body_that_is_no_event(self, sender: Sender, query: Query) -> None:
        for body in (b"", b"{", b"[]", b"\xff", b"[" * 60_000, b'{"type": "user.created"}', b'{"type": "\\u0000"}'):
            headers = sender.headers(body, "evt_1")
            await self.check(sender, query, 400, "invalid_delivery", content=body, headers=headers)

    async def test_an_id_that_the_body_contradicts(self, sender: Sender, query: Query) -> None:
        body = json.dumps(sender.event("user.created")).encode()
        headers = sender.headers(body, "evt_another")
        await self.check(sender, query, 400, "invalid_delivery", content=body, headers=headers)

    async def test_a_body_that_is_too_large_counted_or_not(self, sender: Sender, query: Query) -> None:
        body = json.dumps(event := sender.event("user.created", about="x" * 70_000)).encode()
        headers = sender.headers(body, event["id"])
        for content in (body, chunked(body)):
            await self.check(sender, query, 413, "content_too_large", content=content, headers=headers)
            await self.check(sender, query, 400, "invalid_delivery", content=content)

    async def test_another_method(self, sender: Sender) -> None:
        for method in ("DELETE", "PATCH"):
            check(await sender.client.request(method, PATH), 405, "method_not_allowed")


class TestRows:
    """That an event reaches the row by way of HTTP; tests/users has the rules, one by one."""

    async def test_what_comes_late_changes_nothing(self, sender: Sender, query: Query) -> None:
        await sender.tell("user.created", "ada", 20, name="First", email="ada@example.com")
        await sender.tell("user.updated", "ada", 5, name="Third")
        await sender.tell("user.updated", "ada", 10, name="Second")
        assert query("SELECT name, email FROM users") == [["Third", "ada@example.com"]]
        assert [outcome for *_, outcome in events(query)] == ["applied", "applied", "unchanged"]

    async def test_a_user_who_is_deleted_stays_out_whoever_asks(
        self, sender: Sender, provider: Provider, query: Query
    ) -> None:
        me = provider.bearer("ada")
        assert (await sender.client.get("/me", headers=me)).status_code == 200
        await sender.tell("user.deleted", "ada", -5)
        await sender.tell("user.deleted", "never-seen")
        for token in (me, provider.bearer("never-seen")):
            check(await sender.client.get("/me", headers=token), 403, "account_deleted")
        assert query("SELECT name, image, deleted_at IS NOT NULL FROM users ORDER BY id") == [["", "", "t"]] * 2

    async def test_erasure_takes_what_cascades(self, serve: Serve, provider: Provider, query: Query) -> None:
        query("CREATE TABLE notes (author varchar(255) NOT NULL REFERENCES users ON DELETE CASCADE)")
        async with serve(idp_webhook_secret=SECRET, on_user_deleted="erase") as client:
            sender = Sender(client)
            await sender.tell("user.created", "ada", 10, name="Ada", email="ada@example.com")
            query("INSERT INTO notes VALUES ('ada')")
            await sender.tell("user.deleted", "ada")
            check(await client.get("/me", headers=provider.bearer("ada")), 403, "account_deleted")
        assert query("SELECT count(*) FROM notes") == [["0"]]
        assert query("SELECT id, name FROM users") == [["ada", ""]]

    async def test_a_ban_shuts_out_and_its_end_lets_in(self, sender: Sender, provider: Provider) -> None:
        me = provider.bearer("ada")
        await sender.tell("user.created", "ada", 20)
        assert (await sender.client.get("/me", headers=me)).status_code == 200
        await sender.tell("user.updated", "ada", 5, banned=True)
        check(await sender.client.get("/me", headers=me), 403, "account_disabled")
        await sender.tell("user.updated", "ada", 0, banned=False)
        assert (await sender.client.get("/me", headers=me)).status_code == 200


class TestWhenTheDatabaseFails:
    def fail(self, query: Query, what: str) -> None:
        """Have the database do something at each write to users, after the event was recorded."""
        query(
            f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what}; RETURN NEW; END $$;"
            "CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION fail()"
        )

    @pytest.mark.parametrize(
        ("what", "status"),
        [
            ("RAISE 'full' USING ERRCODE = '53100'", 503),
            ("RAISE 'shutting down' USING ERRCODE = '57P01'", 503),
            ("RAISE 'deadlock' USING ERRCODE = '40P01'", 503),
            ("PERFORM pg_terminate_backend(pg_backend_pid())", 503),
            ("RAISE 'no'", 500),
        ],
    )
    async def test_the_answer_says_so_nothing_is_recorded_and_the_retry_works(
        self, sender: Sender, query: Query, what: str, status: int
    ) -> None:
        self.fail(query, what)
        event = sender.event("user.created", email="ada@example.com")
        answer = await sender.send(event)
        assert answer.status_code == status, answer.text
        assert ("retry-after" in answer.headers) == (status == 503)
        assert events(query) == []
        assert query("SELECT count(*) FROM users") == [["0"]]
        query("DROP TRIGGER fail ON users")
        assert (await sender.send(event)).json() == RECEIVED
        assert query("SELECT email FROM users") == [["ada@example.com"]]

    async def test_one_that_is_gone_is_503(self, sender: Sender, server: Server, database_url: str) -> None:
        await sender.tell("user.created")
        server.drop_database(database_url)
        answer = await sender.send(sender.event())
        check(answer, 503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0

    async def test_one_without_our_tables_says_so(self, sender: Sender, query: Query) -> None:
        query("DROP TABLE shadow_events")
        check(await sender.send(sender.event()), 503, "not_migrated")

    async def test_what_is_refused_never_asks_it(self, sender: Sender, server: Server, database_url: str) -> None:
        server.drop_database(database_url)
        forger = Sender(sender.client, secret=OTHER)
        check(await forger.send(forger.event()), 401, "invalid_signature")


class TestOverASocket:
    """Granian and a connection that tells what a client library would not."""

    def test_a_body_that_breaks_off_is_no_fault_of_ours_and_the_retry_works(
        self, database_url: str, query: Query, tmp_path: Path
    ) -> None:
        with (
            running(tmp_path, DATABASE_URL=database_url, IDP_ISSUER=ISSUER, IDP_AUDIENCE=AUDIENCE,
                    IDP_JWKS_URL="http://127.0.0.1:9/jwks", IDP_WEBHOOK_SECRET=SECRET) as address,
            httpx.Client(base_url=address) as client,
        ):  # fmt: skip
            sender = Sender(httpx.AsyncClient())
            body = json.dumps(event := sender.event("user.created")).encode()
            headers = sender.headers(body, event["id"])
            told = {"Host": "x", "Content-Length": str(len(body)), **headers}
            lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
            with socket.create_connection((urlsplit(address).hostname, urlsplit(address).port), timeout=10) as wire:
                wire.sendall(f"POST {PATH} HTTP/1.1\r\n{lines}\r\n".encode() + body[:-1])
                wire.shutdown(socket.SHUT_WR)
                assert wire.recv(4_096).startswith(b"HTTP/1.1 400 ")
            assert events(query) == []
            assert client.post(PATH, content=body, headers=headers).json() == RECEIVED


class TestLog:
    @pytest.fixture
    def lines(self) -> Iterator[list[str]]:
        class Keep(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                kept.append(f"{record.levelname} {record.getMessage()}")

        kept: list[str] = []
        logger, handler = logging.getLogger("app.api.webhooks"), Keep()
        logger.addHandler(handler)
        yield kept
        logger.removeHandler(handler)

    async def test_it_says_which_event_came_and_what_became_of_it(self, sender: Sender, lines: list[str]) -> None:
        event = sender.event("user.created", name="Sesame", email="sesame@example.com")
        await sender.send(event)
        await sender.send(event)
        odd = sender.event("planet.\nforged line")
        await sender.send(odd)
        assert lines == [
            f"INFO webhook {event['id']}, 'user.created': applied",
            f"INFO webhook {event['id']}, 'user.created': deduped",
            f"INFO webhook {odd['id']}, 'planet.\\nforged line': ignored",
        ]

    async def test_and_why_one_was_refused(self, sender: Sender, lines: list[str]) -> None:
        forger = Sender(sender.client, secret=OTHER)
        await forger.send(forger.event(name="Sesame"))
        (line,) = lines
        assert line.startswith("WARNING webhook refused: The signature")
        assert "Sesame" not in line
        assert OTHER not in line


class TestDocument:
    async def test_both_methods_are_there_with_every_status_and_header(self, sender: Sender) -> None:
        document = (await sender.client.get("/schema/openapi.json")).json()
        told = document["paths"][PATH]
        assert set(told) == {"post", "put"}
        assert told["post"]["operationId"] != told["put"]["operationId"]
        for operation in told.values():
            assert set(operation["responses"]) == {"200", "400", "401", "413", "500", "503"}
            assert operation["security"] == [{}]
            assert {(each["name"], each["in"], each["required"]) for each in operation["parameters"]} == {
                ("x-webhook-id", "header", True),
                ("x-webhook-timestamp", "header", True),
                ("x-webhook-signature", "header", True),
            }
            assert set(operation["requestBody"]["content"]) == {"application/json", FORM}
            told_of = operation["requestBody"]["content"]["application/json"]["schema"]
            assert set(told_of["properties"]) == {"id", "type", "timestamp", "data"}
            for status, answer in operation["responses"].items():
                name = "Receipt" if status == "200" else "Problem"
                (content,) = answer["content"].values()
                assert content["schema"] == {"$ref": f"#/components/schemas/{name}"}
        receipt = document["components"]["schemas"]["Receipt"]
        assert set(receipt["properties"]) == {"received", "deduped"}
        assert not receipt.get("required")
