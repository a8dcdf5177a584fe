"""/metrics, as Prometheus reads it."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import httpx
import pytest
from litestar import get
from litestar.params import FromPath
from prometheus_client.parser import text_string_to_metric_families

from app.api.metrics import Metrics
from app.idp.keys import KeySetState
from tests.api.conftest import Serve
from tests.api.provider import AUDIENCE, ISSUER, Provider
from tests.serving import running, served_over_http

SHADOW = ("app.cli", "serve", "--workers", "2")


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and its labels' values, in the order of the labels' names."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    return parsed(answer.text)


def parsed(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.anyio
class TestRequests:
    async def test_are_counted_by_method_route_and_status(self, client: httpx.AsyncClient, provider: Provider) -> None:
        for _ in range(3):
            await client.get("/me", headers=provider.bearer())
        await client.get("/me")
        await client.head("/livez")
        found = await samples(client)
        assert found["shadow_http_requests_total", "GET", "/me", "200"] == 3
        assert found["shadow_http_requests_total", "GET", "/me", "401"] == 1
        assert found["shadow_http_requests_total", "HEAD", "/livez", "200"] == 1
        assert found["shadow_http_request_seconds_count", "GET", "/me"] == 4

    async def test_a_route_is_its_template(self, serve: Serve, provider: Provider) -> None:
        @get("/notes/{number:int}")
        async def note(number: FromPath[int]) -> int:
            return number

        async with serve(note) as client:
            for number in range(5):
                await client.get(f"/notes/{number}", headers=provider.bearer())
            found = await samples(client)
        assert found["shadow_http_requests_total", "GET", "/notes/{number}", "200"] == 5

    async def test_what_clients_invent_makes_no_new_labels(self, client: httpx.AsyncClient) -> None:
        for number in range(20):
            await client.get(f"/nowhere/{number}")
            await client.request(f"VERB{number}", "/me")
        found = {key: count for key, count in (await samples(client)).items() if key[0] == "shadow_http_requests_total"}
        assert found == {
            ("shadow_http_requests_total", "GET", "unmatched", "404"): 20,
            ("shadow_http_requests_total", "other", "unmatched", "405"): 20,
        }

    async def test_that_fail_are_counted_too(self, serve: Serve, provider: Provider) -> None:
        @get("/broken")
        async def broken() -> None:
            raise ZeroDivisionError

        async with serve(broken) as client:
            await client.get("/broken", headers=provider.bearer())
            assert (await samples(client))["shadow_http_requests_total", "GET", "/broken", "500"] == 1

    async def test_are_timed(self, serve: Serve, provider: Provider) -> None:
        @get("/slow")
        async def slow() -> None:
            await asyncio.sleep(0.06)

        async with serve(slow) as client:
            await client.get("/slow", headers=provider.bearer())
            found = await samples(client)
        assert found["shadow_http_request_seconds_sum", "GET", "/slow"] >= 0.06
        assert found["shadow_http_request_seconds_bucket", "0.05", "GET", "/slow"] == 0
        assert found["shadow_http_request_seconds_bucket", "+Inf", "GET", "/slow"] == 1


@pytest.mark.anyio
class TestTheRest:
    async def test_tokens_by_verdict(self, client: httpx.AsyncClient, provider: Provider) -> None:
        await client.get("/me", headers=provider.bearer())
        await client.get("/me", headers=provider.bearer(aud="another"))
        await client.get("/me", headers={"Authorization": "Bearer x"})
        found = await samples(client)
        assert found["shadow_tokens_total", "accepted"] == 1
        assert found["shadow_tokens_total", "invalid_token"] == 2

    async def test_tokens_that_cannot_be_judged(self, serve: Serve, provider: Provider) -> None:
        provider.down = True
        async with serve() as client:
            await client.get("/me", headers=provider.bearer())
            found = await samples(client)
        assert found["shadow_tokens_total", "keys_unavailable"] == 1
        assert [state for (name, *label), on in found.items() if name == "shadow_key_set_state" and on
                for state in label] == ["empty"]  # fmt: skip

    async def test_the_key_set_s_state(self, client: httpx.AsyncClient) -> None:
        assert (await client.get("/readyz")).status_code == 200
        found = await samples(client)
        states = {key[1]: value for key, value in found.items() if key[0] == "shadow_key_set_state"}
        assert states == {"empty": 0, "fresh": 1, "stale": 0, "dead": 0}

    async def test_conflicts_over_an_address(self, client: httpx.AsyncClient, provider: Provider) -> None:
        now = int(time.time())
        for sub, iat in (("a", now - 60), ("b", now)):
            await client.get("/me", headers=provider.bearer(sub, email="it@example.com", iat=iat))
        assert (await samples(client))["shadow_rows_total", "conflict"] == 1

    async def test_rows_that_tokens_made_and_refreshed(self, client: httpx.AsyncClient, provider: Provider) -> None:
        now = int(time.time())
        for sub, said in (
            ("a", {"iat": now - 60}),
            ("b", {"iat": now - 60}),
            ("b", {"iat": now - 60}),  # nothing new
            ("a", {"iat": now - 50, "name": "Other"}),
            ("a", {"iat": now - 40, "email": "moved@example.com"}),
            ("c", {"iat": now, "email": "moved@example.com"}),
        ):
            await client.get("/me", headers=provider.bearer(sub, **said))
        found = await samples(client)
        counted = {key[1]: count for key, count in found.items() if key[0] == "shadow_rows_total"}
        assert counted == {"made": 3, "refreshed": 2, "conflict": 1}

    async def test_nothing_of_a_user(self, client: httpx.AsyncClient, provider: Provider) -> None:
        await client.get("/me", headers=provider.bearer("secret-sub", email="secret@example.com", name="Secret"))
        assert "secret" not in (await client.get("/metrics")).text.lower()

    def test_what_other_rooms_count(self) -> None:
        metrics = Metrics(lambda: KeySetState.FRESH)
        metrics.count("webhooks", "applied")
        metrics.counting("webhooks")("deduped")
        found = parsed(metrics.text()[0].decode())
        assert (found["shadow_webhooks_total", "applied"], found["shadow_webhooks_total", "deduped"]) == (1, 1)

    def test_two_servers_in_a_process_count_apart(self) -> None:
        one, other = Metrics(lambda: KeySetState.FRESH), Metrics(lambda: KeySetState.FRESH)
        one.count("rows", "made")
        assert "made" not in other.text()[0].decode()


class TestSeveralWorkers:
    def test_answer_for_each_other(self, database_url: str, provider: Provider, tmp_path: Path) -> None:
        with (
            served_over_http(provider) as jwks_url,
            running(tmp_path, SHADOW, DATABASE_URL=database_url, IDP_ISSUER=ISSUER, IDP_AUDIENCE=AUDIENCE,
                    IDP_JWKS_URL=jwks_url) as address,
        ):  # fmt: skip
            for _ in range(40):  # each on a connection of its own, so that both workers get some
                assert httpx.get(f"{address}/me").status_code == 401
            told = [httpx.get(f"{address}/metrics").text for _ in range(10)]
        for text in told:
            assert parsed(text)["shadow_http_requests_total", "GET", "/me", "401"] == 40
            assert len(re.findall(r"^shadow_key_set_state", text, re.MULTILINE)) == 4
