"""Who is asking."""

from __future__ import annotations

import re

import httpx
import pytest
from litestar import get, post
from litestar.di import NamedDependency

from app.api.auth import Principal, read_token
from app.errors import MalformedRequest, MissingCredentials
from tests.api.conftest import Serve
from tests.api.provider import Provider

CHALLENGE = 'Bearer realm="api"'
METADATA = 'resource_metadata="http://api.test/.well-known/oauth-protected-resource"'


class TestReadToken:
    @pytest.mark.parametrize(
        "header", ["Bearer a.b.c", "bearer a.b.c", "BEARER a.b.c", "Bearer   a.b.c", "Bearer a.b.c "]
    )
    def test_the_scheme_is_read_in_any_case_and_before_any_number_of_spaces(self, header: str) -> None:
        assert read_token([header]) == "a.b.c"

    @pytest.mark.parametrize("token", ["AZaz09-._~+/==", "a.b.c!", 'a"', "=", "a=b", "caf\xe9"])
    def test_whatever_stands_where_the_token_should_is_for_the_verifier_to_judge(self, token: str) -> None:
        assert read_token([f"Bearer {token}"]) == token

    @pytest.mark.parametrize(
        "header",
        ["", " ", "Bearer", "Bearer ", "Bearer\ta.b.c", "Bearer a b", "Bearer a,b", "Bearera.b.c", "a.b.c", "Basic",
         ": x", "Bearer a.b.c, Bearer d.e.f"],
    )  # fmt: skip
    def test_anything_else_is_malformed(self, header: str) -> None:
        with pytest.raises(MalformedRequest):
            read_token([header])

    def test_two_headers_are_malformed_even_if_they_are_equal(self) -> None:
        with pytest.raises(MalformedRequest):
            read_token(["Bearer a.b.c", "Bearer a.b.c"])

    @pytest.mark.parametrize("headers", [[], ["Basic dTpw"], ["DPoP a.b.c"], ['Digest username="u"']])
    def test_none_or_another_scheme_is_no_credentials(self, headers: list[str]) -> None:
        with pytest.raises(MissingCredentials):
            read_token(headers)


@pytest.mark.anyio
class TestOverHTTP:
    async def test_no_credentials_get_a_challenge_without_an_error_code(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/me")
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == f"{CHALLENGE}, {METADATA}"
        assert answer.json()["code"] == "missing_credentials"

    async def test_two_headers_get_400(self, client: httpx.AsyncClient, provider: Provider) -> None:
        good = provider.bearer()["Authorization"]
        answer = await client.get("/me", headers=[("Authorization", good), ("Authorization", good)])
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert 'error="invalid_request"' in answer.headers["www-authenticate"]

    async def test_a_bad_token_gets_401_and_is_told_why(self, client: httpx.AsyncClient, provider: Provider) -> None:
        token = provider.token(exp=1)
        answer = await client.get("/me", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
        found = re.fullmatch(
            re.escape(CHALLENGE) + r', error="invalid_token", error_description="([^"\\]+)", ' + re.escape(METADATA),
            answer.headers["www-authenticate"],
        )
        assert found is not None
        assert found[1] == answer.json()["detail"]
        assert token not in answer.text

    async def test_a_token_in_query_or_body_is_not_looked_at(
        self, client: httpx.AsyncClient, provider: Provider
    ) -> None:
        token = provider.token()
        assert (await client.get("/me", params={"access_token": token})).status_code == 401
        assert (await client.patch("/me", json={"access_token": token})).status_code == 401

    async def test_unreachable_keys_are_503_and_never_the_client_s_fault(
        self, serve: Serve, provider: Provider
    ) -> None:
        provider.down = True
        async with serve() as client:
            answer = await client.get("/me", headers=provider.bearer())
        assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert "www-authenticate" not in answer.headers

    async def test_a_missing_scope_is_403(self, serve: Serve, provider: Provider) -> None:
        async with serve(required_scope="app:use") as client:
            answer = await client.get("/me", headers=provider.bearer(scope="openid"))
            assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
            assert (await client.get("/me", headers=provider.bearer(scope="openid app:use"))).status_code == 200


@get("/mine")
async def mine(principal: NamedDependency[Principal]) -> dict[str, object]:
    return {
        "sub": principal.sub,
        "kind": principal.kind,
        "roles": sorted(principal.roles),
        "scopes": sorted(principal.scopes),
        "permissions": {entity: sorted(actions) for entity, actions in principal.permissions.items()},
        "expires_at": principal.expires_at.timestamp(),
    }


@get("/open/mine", exclude_from_auth=True)
async def opened() -> str:
    return "everybody's"


@post("/open/mine")
async def beside_the_opened() -> str:
    return "protected"


@pytest.mark.anyio
class TestRoutesOfTheApp:
    async def test_a_route_is_protected_because_it_is_there(self, serve: Serve, provider: Provider) -> None:
        async with serve(mine, opened, beside_the_opened) as client:
            assert (await client.get("/mine")).status_code == 401
            assert (await client.post("/open/mine")).status_code == 401
            assert (await client.get("/open/mine")).text == "everybody's"

    async def test_the_principal_says_what_the_token_said(self, serve: Serve, provider: Provider) -> None:
        token = provider.bearer(
            role="admin,editor", scope="read write", permissions={"invoice:42": ["read"]}, exp=4_000_000_000
        )
        async with serve(mine) as client:
            assert (await client.get("/mine", headers=token)).json() == {
                "sub": "ada",
                "kind": "user",
                "roles": ["admin", "editor"],
                "scopes": ["read", "write"],
                "permissions": {"invoice:42": ["read"]},
                "expires_at": 4_000_000_000,
            }

    async def test_the_body_of_a_stranger_is_not_read(self, client: httpx.AsyncClient) -> None:
        answer = await client.patch("/me", content=b"{" * 70_000)
        assert answer.status_code == 401
