"""Fetching within bounds, from a real socket; and finding the key set by discovery."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest

from app.errors import KeysUnavailable
from app.idp.documents import MAX_OCTETS, FetchFailed, discover_key_set, fetch, is_trustworthy
from app.idp.keys import KeySetState, RemoteKeySet, Timing
from tests.idp.issuer import ALGORITHMS, ISSUER, JWKS_URL, Clock, Provider, key_set
from tests.shown import shown

pytestmark = pytest.mark.anyio

Send = Callable[[asyncio.StreamWriter], Awaitable[object]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Site:
    """A server on loopback that answers every request with the octets `send` writes."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.requests: list[bytes] = []
        self.hung_up = asyncio.Event()
        """Set when the client has closed the connection before the answer was complete."""
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        with suppress(ConnectionError):
            await self.send(writer)
        if writer.is_closing():
            self.hung_up.set()
        writer.close()


@asynccontextmanager
async def serve(send: Send) -> AsyncIterator[Site]:
    site = Site(send)
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
    try:
        yield site
    finally:
        server.close()


def whole(head: bytes, body: bytes) -> Send:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(head + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return send


async def drip(writer: asyncio.StreamWriter) -> None:
    """Never pause long enough for a read timeout, and never end."""
    writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.005)


async def flood(writer: asyncio.StreamWriter) -> None:
    """Say no length, and never end."""
    writer.write(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
        await writer.drain()


class TestFetch:
    async def test_a_good_answer(self) -> None:
        body = json.dumps(key_set("p256")).encode()
        async with serve(whole(HEAD + b"Cache-Control: max-age=60\r\n", body)) as site, httpx.AsyncClient() as client:
            found, headers = await fetch(client, site.url)
        assert (found, headers["cache-control"]) == (body, "max-age=60")
        assert b"accept-encoding: identity\r\n" in site.requests[0].lower()

    async def test_a_body_of_just_the_limit_and_one_more(self) -> None:
        async with httpx.AsyncClient() as client:
            async with serve(whole(HEAD, b" " * MAX_OCTETS)) as site:
                assert len((await fetch(client, site.url))[0]) == MAX_OCTETS
            async with serve(whole(HEAD, b" " * (MAX_OCTETS + 1))) as site:
                with pytest.raises(FetchFailed, match="more than 262144 octets"):
                    await fetch(client, site.url)

    async def test_a_body_without_end_is_left(self) -> None:
        async with serve(flood) as site, httpx.AsyncClient() as client:
            with pytest.raises(FetchFailed, match="more than 262144 octets"):
                await fetch(client, site.url)
            await asyncio.wait_for(site.hung_up.wait(), 5)

    async def test_a_body_that_would_grow_is_not_unpacked(self) -> None:
        bomb = gzip.compress(b" " * 50_000_000)
        assert len(bomb) < MAX_OCTETS
        async with serve(whole(HEAD + b"Content-Encoding: gzip\r\n", bomb)) as site, httpx.AsyncClient() as client:
            with pytest.raises(FetchFailed, match="compressed"):
                await fetch(client, site.url)

    @pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Temporary", b"308 Permanent"])
    async def test_a_redirect_is_not_followed_whatever_the_client_would_do(self, status: bytes) -> None:
        head = b"HTTP/1.1 " + status + b"\r\nLocation: /elsewhere\r\n"
        async with serve(whole(head, b"")) as site, httpx.AsyncClient(follow_redirects=True) as client:
            with pytest.raises(FetchFailed, match="answered 30"):
                await fetch(client, site.url)
            assert len(site.requests) == 1

    @pytest.mark.parametrize(
        "answer",
        [b"", b"SMTP ready\r\n\r\n", HEAD + b"Content-Length: 50\r\n\r\n{}", HEAD + b"Content-Length: x\r\n\r\n"],
    )
    async def test_what_is_no_http_fails_as_the_rest(self, answer: bytes) -> None:
        async def send(writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            await writer.drain()

        async with serve(send) as site, httpx.AsyncClient() as client:
            with pytest.raises(FetchFailed, match="cannot be read"):
                await fetch(client, site.url)

    async def test_nobody_there_fails_as_the_rest(self) -> None:
        async with serve(drip) as site:
            pass
        async with httpx.AsyncClient() as client:
            with pytest.raises(FetchFailed, match="ConnectError"):
                await fetch(client, site.url)

    async def test_an_untrustworthy_address_is_not_asked(self) -> None:
        provider = Provider()
        with pytest.raises(FetchFailed, match="neither https"):
            await fetch(provider.client, "http://idp.example/jwks")
        assert provider.asked == []

    async def test_a_query_is_kept_out_of_messages(self) -> None:
        provider = Provider(httpx.Response(500))
        with pytest.raises(FetchFailed, match=r"https://idp\.example/jwks answered 500") as caught:
            await fetch(provider.client, "https://idp.example/jwks?apikey=sesame")
        assert "sesame" not in str(caught.value)
        assert provider.asked == ["https://idp.example/jwks?apikey=sesame"]


class TestKeySetOverASocket:
    async def test_a_slow_drip_ends_with_the_time_limit(self) -> None:
        async with serve(drip) as site, httpx.AsyncClient() as client:
            keys = RemoteKeySet(
                issuers=[ISSUER], jwks_url=site.url, algorithms=ALGORITHMS, client=client,
                timing=Timing(fetch_limit=0.2),
            )  # fmt: skip
            with pytest.raises(KeysUnavailable):
                await keys.find("p256")
            assert keys.fault == "No key set within 0.2 seconds."
            await asyncio.wait_for(site.hung_up.wait(), 5)

    async def test_a_good_answer_makes_it_fresh(self) -> None:
        body = json.dumps(key_set("p256")).encode()
        async with serve(whole(HEAD, body)) as site, httpx.AsyncClient() as client:
            keys = RemoteKeySet(issuers=[ISSUER], jwks_url=site.url, algorithms=ALGORITHMS, client=client)
            assert await keys.find("p256") is not None
            assert keys.state is KeySetState.FRESH


class TestTrustworthy:
    @pytest.mark.parametrize(
        "url",
        [
            "https://idp.example",
            "https://idp.example:8443/x?y=z",
            "http://localhost:3000",
            "http://127.0.0.1/",
            "http://[::1]/",
        ],
    )
    async def test_https_and_loopback_are(self, url: str) -> None:
        assert is_trustworthy(url)

    @pytest.mark.parametrize(
        "url",
        [
            "", "idp.example", "//idp.example", "http://idp.example", "http://localhost.evil.example",
            "http://127.0.0.1.evil.example", "http://localhost@evil.example", "https://user@idp.example",
            "https://idp.example/#fragment", "ftp://localhost", "file:///etc/passwd", "https://", "https://\0",
            "https://xn--/", "https://idp.example:99999", "http://0.0.0.0", "http://169.254.169.254/latest",
        ],
    )  # fmt: skip
    async def test_nothing_else_is(self, url: str) -> None:
        assert not is_trustworthy(url)


OPENID = f"{ISSUER}/.well-known/openid-configuration"
BETTER_AUTH = f"{ISSUER}/api/auth/.well-known/openid-configuration"
RFC_8414 = f"{ISSUER}/.well-known/oauth-authorization-server"


def document(**changes: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "jwks_uri": JWKS_URL, **changes}


class TestDiscovery:
    @pytest.mark.parametrize(
        ("url", "asked"),
        [(OPENID, [OPENID]), (BETTER_AUTH, [OPENID, BETTER_AUTH]), (RFC_8414, [OPENID, BETTER_AUTH, RFC_8414])],
    )
    async def test_three_places_in_order(self, url: str, asked: list[str]) -> None:
        provider = Provider()
        provider.pages = {url: document()}
        assert await discover_key_set(provider.client, [ISSUER]) == JWKS_URL
        assert provider.asked == asked

    @pytest.mark.parametrize("issuer", ["https://idp.example/tenant/7", "https://idp.example/tenant/7/"])
    async def test_an_issuer_with_a_path(self, issuer: str) -> None:
        provider = Provider()
        provider.pages = {
            "https://idp.example/.well-known/oauth-authorization-server/tenant/7": document(issuer=issuer)
        }
        assert await discover_key_set(provider.client, [issuer]) == JWKS_URL
        assert provider.asked[0] == "https://idp.example/tenant/7/.well-known/openid-configuration"

    @pytest.mark.parametrize(
        "page",
        [
            document(issuer="https://evil.example"),
            document(issuer=ISSUER + "/"),
            document(issuer=None),
            document(issuer=[ISSUER]),
            {"jwks_uri": JWKS_URL},
            {"issuer": ISSUER},
            document(jwks_uri="http://idp.example/jwks"),
            document(jwks_uri="/jwks"),
            document(jwks_uri=7),
            httpx.Response(200, content=b"<html>"),
            httpx.Response(302, headers={"location": BETTER_AUTH}),
        ],
        ids=shown,
    )
    async def test_a_document_that_cannot_be_used_is_passed_over(self, page: Any) -> None:
        provider = Provider()
        provider.pages = {OPENID: page}
        with pytest.raises(FetchFailed):
            await discover_key_set(provider.client, [ISSUER])
        assert provider.asked == [OPENID, BETTER_AUTH, RFC_8414]
        provider.pages[BETTER_AUTH] = document()
        assert await discover_key_set(provider.client, [ISSUER]) == JWKS_URL

    async def test_a_document_may_speak_for_any_of_the_issuers(self) -> None:
        provider = Provider()
        provider.pages = {BETTER_AUTH: document(issuer="https://idp.example/api/auth")}
        issuers = [ISSUER, "https://idp.example/api/auth"]
        assert await discover_key_set(provider.client, issuers) == JWKS_URL

    async def test_the_address_is_remembered_until_a_fetch_fails(self) -> None:
        provider, clock = Provider(), Clock(0.0)
        provider.pages = {OPENID: document(), JWKS_URL: key_set("p256")}
        keys = RemoteKeySet(
            issuers=[ISSUER], jwks_url=None, algorithms=ALGORITHMS, client=provider.client, clock=clock
        )  # fmt: skip
        assert await keys.find("p256") is not None
        assert await keys.find("rsa") is None
        assert provider.asked == [OPENID, JWKS_URL, JWKS_URL]

        moved = JWKS_URL + "/moved"
        provider.pages = {OPENID: document(jwks_uri=moved), moved: key_set("rsa")}
        clock.advance(10)
        with pytest.raises(KeysUnavailable):
            await keys.find("rsa")
        clock.advance(10)
        assert await keys.find("rsa") is not None
        assert provider.asked[3:] == [JWKS_URL, OPENID, moved]

    async def test_a_provider_without_a_document_leaves_the_set_empty(self) -> None:
        provider = Provider()
        provider.pages = {}
        keys = RemoteKeySet(issuers=[ISSUER], jwks_url=None, algorithms=ALGORITHMS, client=provider.client)
        with pytest.raises(KeysUnavailable):
            await keys.find("rsa")
        assert keys.fault == " ".join(f"{url} answered 404." for url in (OPENID, BETTER_AUTH, RFC_8414))
