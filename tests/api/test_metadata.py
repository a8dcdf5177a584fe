"""Where tokens are issued (RFC 9728)."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.api.conftest import Serve
from tests.api.provider import ISSUER

pytestmark = pytest.mark.anyio


async def test_it_names_the_resource_and_who_issues_tokens_for_it(client: httpx.AsyncClient) -> None:
    answer = await client.get("/.well-known/oauth-protected-resource")
    assert answer.json() == {
        "resource": "http://api.test",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
    }


async def test_the_challenge_points_to_it(serve: Serve) -> None:
    async with serve(public_url="https://api.test", path_prefix="/api", required_scope="app:use") as client:
        challenge = (await client.get("/api/me")).headers["www-authenticate"]
        found = re.search(r'resource_metadata="([^"]+)"', challenge)
        assert found is not None
        assert found[1] == "https://api.test/.well-known/oauth-protected-resource/api"
        metadata = (await client.get(found[1])).json()
        assert metadata["resource"] == "https://api.test/api"
        assert metadata["scopes_supported"] == ["app:use"]
        assert (await client.get("/api/.well-known/oauth-protected-resource")).json() == metadata


async def test_a_host_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.get("/.well-known/oauth-protected-resource", headers={"host": "a b"})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
