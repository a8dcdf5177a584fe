"""What an answer of the provider does to the set: replace it, leave it, keep it fresh; and what is told of it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from app.errors import KeysUnavailable
from app.idp.keys import KeySetState, RemoteKeySet, Timing
from tests.idp.issuer import ISSUER, JWKS_URL, Clock, Gate, Provider, encode, key_set, public_jwk, settle
from tests.idp.verifiers import make_keys
from tests.shown import shown

EMPTY, FRESH, STALE = KeySetState.EMPTY, KeySetState.FRESH, KeySetState.STALE
DOWN = httpx.Response(503)

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
def provider() -> Provider:
    return Provider(key_set("rsa"))


@pytest.fixture
def keys(provider: Provider, clock: Clock) -> RemoteKeySet:
    return make_keys(provider, clock)


class TestReplacing:
    async def refresh(self, keys: RemoteKeySet, clock: Clock) -> None:
        clock.advance(3_601)
        keys.get("any")
        await settle()

    async def test_a_withdrawn_key_is_dead_at_the_next_good_fetch(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        provider.answer = key_set("rsa", "p256")
        await keys.find("rsa")
        provider.answer = key_set("p256")
        await self.refresh(keys, clock)
        assert keys.get("rsa") is None
        assert keys.get("p256") is not None

    async def test_an_unchanged_key_stays_the_same_object_and_a_changed_one_does_not(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        provider.answer = key_set("rsa", "p256")
        rsa, p256 = await keys.find("rsa"), await keys.find("p256")
        provider.answer = key_set("rsa", public_jwk("other-p256", kid="p256"))
        await self.refresh(keys, clock)
        assert keys.get("rsa") is rsa
        assert keys.get("p256") not in (None, p256)

    @pytest.mark.parametrize(
        "answer",
        [
            {"keys": []},
            {"keys": [{"kty": "oct", "kid": "rsa", "k": "AAAA"}]},
            {"keys": [public_jwk("rsa"), public_jwk("rsa")]},
            {"keys": [public_jwk("rsa", kid=f"k{number}") for number in range(101)]},
            {"keys": {}},
            {},
            httpx.Response(200, content=b""),
            httpx.Response(200, content=b"<html>maintenance</html>"),
            httpx.Response(200, content=b'{"keys":[],"keys":[]}'),
            httpx.Response(200, content=b"[" * 5_000),
            httpx.Response(200, content=b" " * 262_145),
            httpx.Response(200, headers={"content-encoding": "gzip"}, content=b""),
            httpx.Response(203, json=key_set("p256")),
            httpx.Response(204),
            httpx.Response(302, headers={"location": JWKS_URL + "2"}),
            httpx.Response(404),
            httpx.Response(500),
            httpx.ReadTimeout("late"),
            httpx.RemoteProtocolError("garbage"),
            RuntimeError("a fault of ours"),
        ],
        ids=shown,
    )
    async def test_what_is_no_good_answer_never_replaces_a_good_set(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock, answer: Any
    ) -> None:
        key = await keys.find("rsa")
        provider.answer = answer
        await self.refresh(keys, clock)
        assert (keys.state, keys.get("rsa")) == (STALE, key)
        assert keys.fault is not None
        assert len(provider.asked) == 2
        provider.answer = key_set("rsa")
        clock.advance(1)
        keys.get("rsa")
        await settle()
        assert keys.state is FRESH
        assert keys.fault is None

    async def test_nor_makes_a_first_one(self, keys: RemoteKeySet, provider: Provider) -> None:
        provider.answer = {"keys": []}
        with pytest.raises(KeysUnavailable):
            await keys.find("rsa")
        assert keys.state is EMPTY
        assert keys.fault == "The key set holds no key that can be used."

    async def test_an_answer_that_is_late_is_none(self, provider: Provider, clock: Clock) -> None:
        provider.before = Gate()
        keys = make_keys(provider, clock, timing=Timing(fetch_limit=0.01))
        with pytest.raises(KeysUnavailable):
            await keys.find("rsa")
        assert keys.fault == "No key set within 0.01 seconds."


class TestFreshness:
    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            (None, 300),
            ("public", 300),
            ("max-age=600", 600),
            ("public, max-age=120, must-revalidate", 120),
            ("Public,Max-Age=120", 120),
            ('max-age="120"', 120),
            ("max-age=5", 60),
            ("max-age=0", 60),
            ("max-age=86400", 3_600),
            ("max-age=99999999999999999999", 3_600),
            ("s-maxage=900", 300),
            ("x-max-age=900", 300),
            ("max-age=-5", 300),
            ("max-age=soon", 300),
            ("max-age=٣٠٠", 300),
        ],
    )
    async def test_max_age_is_honoured_within_bounds(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock, header: str | None, seconds: float
    ) -> None:
        headers = {} if header is None else {b"cache-control": header.encode()}
        provider.answer = httpx.Response(200, json=key_set("rsa"), headers=headers)
        await keys.find("rsa")
        clock.advance(seconds - 0.1)
        assert keys.state is FRESH
        clock.advance(0.1)
        assert keys.state is STALE


class TestClosing:
    async def test_it_cancels_the_fetch_and_waiters_cannot_tell(self, keys: RemoteKeySet, provider: Provider) -> None:
        provider.before = Gate()
        waiter = asyncio.create_task(keys.find("rsa"))
        await settle()
        await keys.aclose()
        with pytest.raises(KeysUnavailable):
            await waiter
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        assert "fetch of the key set" not in tasks

    async def test_nothing_under_way_is_nothing_to_close(self, keys: RemoteKeySet) -> None:
        await keys.aclose()
        assert keys.state is EMPTY


class TestLogging:
    async def test_a_skipped_key_is_named_once_and_never_shown(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        secret = encode(b"the secret of the provider")
        provider.answer = key_set("rsa", {"kty": "oct", "kid": "mac\n", "k": secret})
        with caplog.at_level(logging.DEBUG, logger="app"):
            for _ in range(3):
                await keys.find("rsa")
                clock.advance(301)
                keys.get("rsa")
                await settle()
        skipped = [record.getMessage() for record in caplog.records if "not used" in record.getMessage()]
        assert skipped == [r"key 1 of the key set (kid 'mac\n') is not used: it is symmetric or private"]
        assert secret not in caplog.text

    async def test_failures_and_rotations_are_told(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, logger="app"):
            await keys.find("rsa")
            provider.answer = DOWN
            with pytest.raises(KeysUnavailable):
                await keys.find("p256")
            clock.advance(10)
            provider.answer = key_set("p256")
            await keys.find("p256")
        assert [record.getMessage() for record in caplog.records if record.name.startswith("app.")] == [
            "key set changed: kids added ['rsa'], withdrawn []",
            f"key set not fetched (state fresh): {JWKS_URL} answered 503.",
            "key set changed: kids added ['p256'], withdrawn ['rsa']",
        ]


class TestConstruction:
    @pytest.mark.parametrize(
        "changes",
        [
            {"issuers": []},
            {"issuers": ISSUER},
            {"jwks_url": "http://idp.example/jwks"},
            {"jwks_url": "ftp://localhost/jwks"},
            {"jwks_url": "https://user:password@idp.example/jwks"},
            {"jwks_url": None, "issuers": ["http://idp.example"]},
            {"jwks_url": None, "issuers": ["idp.example"]},
            {"algorithms": ["HS256"]},
            {"algorithms": []},
        ],
        ids=shown,
    )
    async def test_what_cannot_work_is_refused(self, provider: Provider, clock: Clock, changes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="must be"):
            make_keys(provider, clock, **changes)

    async def test_loopback_may_be_plain(self, provider: Provider, clock: Clock) -> None:
        for host in ("localhost:3000", "127.0.0.1", "[::1]:8080"):
            assert make_keys(provider, clock, jwks_url=f"http://{host}/jwks").state is EMPTY
