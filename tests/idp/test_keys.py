"""The state machine: what is asked of the provider, when, and what is answered meanwhile."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import httpx
import pytest

from app.errors import KeysUnavailable
from app.idp.keys import KeySetState, RemoteKeySet
from tests.idp.issuer import JWKS_URL, Clock, Gate, Provider, key_set, settle
from tests.idp.verifiers import make_keys

EMPTY, FRESH, STALE, DEAD = KeySetState.EMPTY, KeySetState.FRESH, KeySetState.STALE, KeySetState.DEAD
DOWN = httpx.Response(503)
DAY = 86_400.0

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


class TestEmpty:
    async def test_nothing_is_asked_before_a_question(self, keys: RemoteKeySet, provider: Provider) -> None:
        assert keys.state is EMPTY
        assert keys.get("rsa") is None
        await settle()
        assert provider.asked == []

    async def test_the_first_question_waits_for_the_set(self, keys: RemoteKeySet, provider: Provider) -> None:
        key = await keys.find("rsa")
        assert key is not None
        assert key.kid == "rsa"
        assert keys.get("rsa") is key
        assert keys.state is FRESH
        assert provider.asked == [JWKS_URL]

    async def test_two_hundred_waiters_are_one_request(self, keys: RemoteKeySet, provider: Provider) -> None:
        provider.before = gate = Gate()
        waiters = [asyncio.create_task(keys.find("rsa")) for _ in range(200)]
        await settle()
        gate.open.set()
        found = await asyncio.gather(*waiters)
        assert [key.kid for key in found if key is not None] == ["rsa"] * 200
        assert len(provider.asked) == 1

    async def test_a_cancelled_waiter_does_not_take_the_fetch_along(
        self, keys: RemoteKeySet, provider: Provider
    ) -> None:
        provider.before = gate = Gate()
        first, second = asyncio.create_task(keys.find("rsa")), asyncio.create_task(keys.find("rsa"))
        await settle()
        first.cancel()
        await settle()
        assert first.cancelled()
        gate.open.set()
        assert await second is not None
        assert len(provider.asked) == 1

    async def test_failures_are_retried_with_a_growing_pause(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        provider.answer = DOWN
        for attempt, pause in enumerate([1, 2, 4, 8, 10, 10], start=1):
            with pytest.raises(KeysUnavailable) as caught:
                await keys.find("rsa")
            assert (caught.value.retry_after, len(provider.asked)) == (pause, attempt)
            clock.advance(pause - 0.5)
            with pytest.raises(KeysUnavailable) as caught:
                await keys.find("rsa")
            assert (caught.value.retry_after, len(provider.asked)) == (1, attempt)
            clock.advance(0.5)
        assert keys.state is EMPTY
        provider.answer = key_set("rsa")
        assert await keys.find("rsa") is not None
        assert keys.fault is None

    async def test_the_fault_is_for_the_operator_and_the_error_for_the_client(
        self, keys: RemoteKeySet, provider: Provider
    ) -> None:
        provider.answer = httpx.ConnectError("connection refused by 10.0.0.1")
        with pytest.raises(KeysUnavailable) as caught:
            await keys.find("rsa")
        assert caught.value.message == "The keys of the identity provider cannot be had at the moment."
        assert keys.fault == f"{JWKS_URL} cannot be read: ConnectError."

    async def test_ensure_loads_once_or_says_that_it_cannot(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        provider.answer = DOWN
        with pytest.raises(KeysUnavailable):
            await keys.ensure()
        clock.advance(1)
        provider.answer = key_set("rsa")
        await asyncio.gather(keys.ensure(), keys.ensure())
        await keys.ensure()
        assert keys.state is FRESH
        assert len(provider.asked) == 2


class TestUnknownKid:
    async def test_a_rotation_right_after_start_is_seen_at_once(self, keys: RemoteKeySet, provider: Provider) -> None:
        await keys.find("rsa")
        provider.answer = key_set("rsa", "p256")
        assert await keys.find("p256") is not None
        assert len(provider.asked) == 2

    async def test_a_load_that_answers_the_question_itself_is_no_look_up(
        self, keys: RemoteKeySet, provider: Provider
    ) -> None:
        assert await keys.find("p256") is None
        assert len(provider.asked) == 1
        provider.answer = key_set("rsa", "p256")
        assert await keys.find("p256") is not None

    async def test_then_not_again_for_the_cooldown(self, keys: RemoteKeySet, provider: Provider, clock: Clock) -> None:
        await keys.find("rsa")
        assert await keys.find("p256") is None
        provider.answer = key_set("rsa", "p256")
        clock.advance(9.9)
        assert await keys.find("p256") is None
        assert await keys.find("another") is None
        assert len(provider.asked) == 2
        clock.advance(0.1)
        assert await keys.find("p256") is not None
        assert len(provider.asked) == 3

    async def test_the_cooldown_counts_from_the_attempt(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        async def take_four_seconds() -> None:
            clock.advance(4)

        await keys.find("rsa")
        provider.before = take_four_seconds
        assert await keys.find("p256") is None
        clock.advance(6)
        assert await keys.find("p256") is None
        assert len(provider.asked) == 3

    async def test_a_failed_look_up_cannot_tell_and_cools_down_too(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        await keys.find("rsa")
        provider.answer = DOWN
        for waited in (0, 3, 6.5):
            clock.now = waited
            with pytest.raises(KeysUnavailable) as caught:
                await keys.find("p256")
            assert caught.value.retry_after == [10, 7, 4][[0, 3, 6.5].index(waited)]
        assert len(provider.asked) == 2
        assert await keys.find("rsa") is not None
        assert keys.state is FRESH
        clock.now = 10.0
        provider.answer = key_set("rsa", "p256")
        assert await keys.find("p256") is not None

    async def test_two_hundred_unknown_kids_are_one_request(self, keys: RemoteKeySet, provider: Provider) -> None:
        await keys.find("rsa")
        found = await asyncio.gather(*(keys.find(f"kid-{number}") for number in range(200)))
        assert found == [None] * 200
        assert len(provider.asked) == 2

    async def test_what_was_fetched_before_the_question_does_not_answer_it(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        await keys.find("rsa")
        clock.advance(301)
        provider.before = gate = Gate()
        keys.get("rsa")  # starts a refresh, whose answer is made now
        await settle()
        provider.answer = key_set("rsa", "p256")
        question = asyncio.create_task(keys.find("p256"))
        await settle()
        gate.open.set()
        assert await question is not None
        assert len(provider.asked) == 3

    async def test_a_stale_set_asks_once_for_its_refresh_and_the_unknown_kid(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        await keys.find("rsa")
        clock.advance(301)
        assert await keys.find("p256") is None
        assert len(provider.asked) == 2

    async def test_a_refresh_that_fails_cannot_tell(self, keys: RemoteKeySet, provider: Provider, clock: Clock) -> None:
        await keys.find("rsa")
        clock.advance(301)
        provider.answer = DOWN
        with pytest.raises(KeysUnavailable):
            await keys.find("p256")
        assert await keys.find("rsa") is not None


class TestStale:
    async def test_it_is_served_while_one_refresh_runs(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        key = await keys.find("rsa")
        clock.advance(299.9)
        assert (keys.state, keys.get("rsa")) == (FRESH, key)
        clock.advance(0.1)
        provider.before = gate = Gate()
        assert keys.state is STALE
        for _ in range(5):
            assert keys.get("rsa") is key
            assert await keys.find("rsa") is key
            await settle()
        assert len(provider.asked) == 2
        gate.open.set()
        await settle()
        assert keys.state is FRESH

    async def test_an_outage_is_survived_for_a_day_and_no_longer(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        key = await keys.find("rsa")
        provider.answer = DOWN
        clock.advance(300)
        while clock.now < DAY:
            assert await keys.find("rsa") is key
            await settle()
            clock.advance(600)
        clock.now = DAY - 0.1
        assert (keys.state, await keys.find("rsa")) == (STALE, key)
        await settle()
        clock.now = DAY
        assert keys.state is DEAD
        assert keys.get("rsa") is None
        with pytest.raises(KeysUnavailable):
            await keys.find("rsa")
        clock.advance(10)
        provider.answer = key_set("rsa")
        assert await keys.find("rsa") is key
        assert keys.state is FRESH

    async def test_its_refresh_is_retried_with_a_growing_pause(
        self, keys: RemoteKeySet, provider: Provider, clock: Clock
    ) -> None:
        await keys.find("rsa")
        provider.answer = DOWN
        clock.advance(300)
        times: list[float] = []
        for _ in range(400):
            before = len(provider.asked)
            keys.get("rsa")
            await settle()
            if len(provider.asked) > before:
                times.append(clock.now - 300)
            clock.advance(0.1)
        assert [round(time) for time in times] == [0, 1, 3, 7, 15, 25, 35]

    async def test_a_day_of_quiet_is_no_outage(self, keys: RemoteKeySet, provider: Provider, clock: Clock) -> None:
        await keys.find("rsa")
        clock.advance(3 * DAY)
        assert keys.state is DEAD
        assert await keys.find("rsa") is not None
        assert len(provider.asked) == 2

    async def test_a_refresh_does_not_run_in_the_name_of_a_request(
        self, provider: Provider, keys: RemoteKeySet
    ) -> None:
        request: ContextVar[str] = ContextVar("request", default="none")
        seen: list[str] = []

        async def look() -> None:
            seen.append(request.get())

        provider.before = look
        request.set("somebody's")
        await keys.find("rsa")
        assert seen == ["none"]
