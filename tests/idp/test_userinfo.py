"""Userinfo: the e-mail that a token lacks, without waiting long, asking often or believing the wrong answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from app.idp.claims import Claims
from app.idp.documents import MAX_OCTETS
from app.idp.userinfo import Userinfo, Waits

URL = "https://idp.example/userinfo"
TOKEN = "header.payload.signature"
ADA = {"sub": "ada", "email": "ada@example.com", "email_verified": True, "name": "Ada"}

pytestmark = pytest.mark.anyio


def claims(sub: str = "ada", **said: Any) -> Claims:
    return Claims(iss="https://idp.example", sub=sub, aud=("api",), exp=2_000.0, **{"iat": 900.0, **said})


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Endpoint:
    """What answers, and what it was asked."""

    def __init__(self, answer: Any = ADA, status: int = 200, **response: Any) -> None:
        self.answer, self.status, self.response = answer, status, response
        self.requests: list[httpx.Request] = []
        self.observed: list[str] = []
        self.clock = Clock()
        self.before: Callable[[], Awaitable[object]] | None = None
        client = httpx.AsyncClient(transport=httpx.MockTransport(self.handle))
        waits = Waits(limit=0.2)
        self.userinfo = Userinfo(url=URL, client=client, observe=self.observed.append, clock=self.clock, waits=waits)

    async def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.before is not None:
            await self.before()
        if isinstance(self.answer, bytes):
            return httpx.Response(self.status, content=self.answer, **self.response)
        return httpx.Response(self.status, json=self.answer, **self.response)

    async def ask(self, sub: str = "ada", **said: Any) -> Claims | None:
        return await self.userinfo.enrich(claims(sub, **said), TOKEN)


class TestAnAnswer:
    async def test_is_asked_for_with_the_caller_s_token_and_adds_what_it_says(self) -> None:
        endpoint = Endpoint()
        enriched = await endpoint.ask(name="Old", image="https://x.example/a.png")
        assert enriched is not None
        assert (enriched.email, enriched.email_verified, enriched.name) == ("ada@example.com", True, "Ada")
        assert enriched.image == "https://x.example/a.png"
        (request,) = endpoint.requests
        assert (request.method, str(request.url)) == ("GET", URL)
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert endpoint.observed == ["found"]

    async def test_is_dated_with_the_time_it_was_asked_for(self) -> None:
        endpoint = Endpoint()
        enriched = await endpoint.ask()
        assert enriched is not None
        assert enriched.iat == 1_000.0

    async def test_is_newer_than_a_token_of_a_provider_whose_clock_is_ahead(self) -> None:
        endpoint = Endpoint()
        enriched = await endpoint.ask(iat=1_020.0)
        assert enriched is not None
        assert enriched.iat is not None
        assert 1_020.0 < enriched.iat < 1_021.0

    async def test_is_dated_where_the_token_is_not(self) -> None:
        enriched = await Endpoint().ask(iat=None)
        assert enriched is not None
        assert enriched.iat == 1_000.0

    async def test_leaves_what_the_token_permits_as_it_is(self) -> None:
        endpoint = Endpoint(ADA | {"role": "admin", "scope": "all", "permissions": {"x": ["y"]}})
        enriched = await endpoint.ask(roles=frozenset({"reader"}))
        assert enriched is not None
        assert (enriched.roles, enriched.scopes, enriched.permissions) == ({"reader"}, frozenset(), {})

    async def test_is_not_asked_for_again_for_an_hour(self) -> None:
        endpoint = Endpoint()
        first = await endpoint.ask()
        endpoint.clock.now += 3_599
        assert await endpoint.ask() == first
        assert len(endpoint.requests) == 1
        endpoint.clock.now += 2
        later = await endpoint.ask()
        assert later is not None
        assert (later.iat, len(endpoint.requests)) == (4_601.0, 2)

    async def test_without_an_address_is_silence_for_an_hour(self) -> None:
        endpoint = Endpoint({"sub": "ada"})
        assert await endpoint.ask() is None
        endpoint.clock.now += 3_599
        assert await endpoint.ask() is None
        assert (len(endpoint.requests), endpoint.observed) == (1, ["silent"])

    async def test_may_say_that_it_is_not_compressed(self) -> None:
        assert await Endpoint(headers={"Content-Encoding": "identity"}).ask() is not None

    async def test_of_one_user_says_nothing_of_another(self) -> None:
        endpoint = Endpoint()
        await endpoint.ask("ada")
        endpoint.answer = {"sub": "eve", "email": "eve@example.com"}
        enriched = await endpoint.ask("eve")
        assert enriched is not None
        assert (enriched.sub, enriched.email) == ("eve", "eve@example.com")

    async def test_brings_no_cookie_along_when_another_user_is_asked_for(self) -> None:
        endpoint = Endpoint(headers={"Set-Cookie": "session=of-ada; Path=/"})
        await endpoint.ask("ada")
        await endpoint.ask("eve")
        assert ["cookie" in request.headers for request in endpoint.requests] == [False, False]


class TestAFailure:
    @pytest.mark.parametrize(
        ("answer", "response"),
        [
            pytest.param(ADA | {"sub": "eve"}, {}, id="another sub"),
            pytest.param({"email": "ada@example.com"}, {}, id="no sub"),
            pytest.param(ADA, {"status": 401}, id="refused"),
            pytest.param(ADA, {"status": 302, "headers": {"Location": "https://eve.example/"}}, id="redirected"),
            pytest.param(b"eyJhbGciOiJSUzI1NiJ9.e30.x", {}, id="a JWT"),
            pytest.param([ADA], {}, id="a list"),
            pytest.param(b'{"sub": "ada", "sub": "ada", "email": "a@b.c"}', {}, id="a member twice"),
            pytest.param(b" " * (MAX_OCTETS + 1), {}, id="too large"),
            pytest.param(b"\x1f\x8b", {"headers": {"Content-Encoding": "gzip"}}, id="compressed"),
        ],
    )
    async def test_adds_nothing(self, answer: Any, response: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
        endpoint = Endpoint(answer, **response)
        with caplog.at_level(logging.DEBUG):
            assert await endpoint.ask() is None
        assert (len(endpoint.requests), endpoint.observed) == (1, ["failed"])
        assert "userinfo not read" in caplog.text
        assert TOKEN not in caplog.text

    async def test_is_tried_again_after_a_minute(self) -> None:
        endpoint = Endpoint(status=500)
        assert await endpoint.ask() is None
        endpoint.status = 200
        endpoint.clock.now += 59
        assert await endpoint.ask() is None
        endpoint.clock.now += 2
        assert await endpoint.ask() is not None

    async def test_is_what_takes_too_long(self) -> None:
        endpoint = Endpoint()
        endpoint.before = asyncio.Event().wait
        async with asyncio.timeout(2):
            assert await endpoint.ask() is None
        assert endpoint.observed == ["failed"]

    async def test_is_waited_for_no_longer_however_many_users_hang(self) -> None:
        endpoint = Endpoint()
        endpoint.before = asyncio.Event().wait
        async with asyncio.timeout(2):
            assert set(await asyncio.gather(*(endpoint.ask(f"u{n}") for n in range(200)))) == {None}

    async def test_of_ours_is_not_the_client_s(self, caplog: pytest.LogCaptureFixture) -> None:
        async def burst() -> None:
            raise ZeroDivisionError

        endpoint = Endpoint()
        endpoint.before = burst
        assert await endpoint.ask() is None
        assert "ZeroDivisionError" in caplog.text


class TestManyAtOnce:
    async def test_one_request_is_made_for_all_of_one_user_s(self) -> None:
        endpoint = Endpoint()
        endpoint.before = lambda: asyncio.sleep(0.02)
        answers = await asyncio.gather(*(endpoint.ask() for _ in range(50)))
        assert len(endpoint.requests) == 1
        assert {answer.email for answer in answers if answer} == {"ada@example.com"}
        assert None not in answers

    async def test_one_that_goes_away_does_not_take_the_request_along(self) -> None:
        endpoint = Endpoint()
        go = asyncio.Event()
        endpoint.before = go.wait
        first, second = asyncio.create_task(endpoint.ask()), asyncio.create_task(endpoint.ask())
        await asyncio.sleep(0.01)
        first.cancel()
        go.set()
        assert await second is not None
        assert len(endpoint.requests) == 1

    async def test_whoever_waits_at_shutdown_is_let_go(self) -> None:
        endpoint = Endpoint()
        endpoint.before = asyncio.Event().wait
        waiting = asyncio.create_task(endpoint.ask())
        await asyncio.sleep(0.01)
        await endpoint.userinfo.aclose()
        assert await waiting is None


class TestNobodyAsks:
    async def test_for_a_machine(self) -> None:
        endpoint = Endpoint()
        assert await endpoint.ask(kind="machine") is None
        assert endpoint.requests == []

    @pytest.mark.parametrize("url", ["http://idp.example/userinfo", "ftp://idp.example", "https://u:p@idp.example/"])
    def test_at_an_address_that_is_not_trustworthy(self, url: str) -> None:
        with pytest.raises(ValueError, match="https or loopback"):
            Userinfo(url=url, client=httpx.AsyncClient())
