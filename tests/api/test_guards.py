"""What a route demands beyond a good token."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from litestar import get
from litestar.params import FromPath
from litestar.types import Guard

from app.api.guards import requires_permission, requires_role, requires_scope
from app.db import create_engine
from tests.api.conftest import Serve
from tests.api.provider import Provider

ROUTES = Path(__file__).parents[2] / "docs" / "routes.md"


async def status(serve: Serve, provider: Provider, guards: list[Guard], path: str = "/it/7", **claims: Any) -> int:
    """Return how a guarded route answers a token with some claims."""
    answer = await answered(serve, provider, guards, path, **claims)
    return answer.status_code


async def answered(
    serve: Serve, provider: Provider, guards: list[Guard], path: str = "/it/7", **claims: Any
) -> httpx.Response:
    @get("/it/{number:str}", guards=guards)
    async def it(number: FromPath[str]) -> str:
        return number

    async with serve(it) as client:
        return await client.get(path, headers=provider.bearer(**claims))


@pytest.mark.anyio
class TestRoles:
    @pytest.mark.parametrize(
        "claims",
        [{"role": "editor"}, {"role": "user,editor"}, {"roles": ["editor"]}, {"realm_access": {"roles": ["editor"]}}],
    )
    async def test_one_of_those_named_is_enough_however_it_is_spelled(
        self, serve: Serve, provider: Provider, claims: dict[str, Any]
    ) -> None:
        assert await status(serve, provider, [requires_role("admin", "editor")], **claims) == 200

    @pytest.mark.parametrize("claims", [{}, {"role": "edit"}, {"roles": ["Editor"]}, {"scope": "editor"}])
    async def test_another_is_not(self, serve: Serve, provider: Provider, claims: dict[str, Any]) -> None:
        assert await status(serve, provider, [requires_role("editor")], **claims) == 403


@pytest.mark.anyio
class TestScopes:
    @pytest.mark.parametrize("claims", [{"scope": "a b c"}, {"scp": ["a", "b"]}, {"scope": "a", "scp": "b"}])
    async def test_all_of_those_named_are_needed(
        self, serve: Serve, provider: Provider, claims: dict[str, Any]
    ) -> None:
        assert await status(serve, provider, [requires_scope("a", "b")], **claims) == 200

    async def test_what_is_missing_is_said_and_what_would_do_is_in_the_challenge(
        self, serve: Serve, provider: Provider
    ) -> None:
        answer = await answered(serve, provider, [requires_scope("b", "a")], scope="a")
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
        assert "scope b," in answer.json()["detail"]
        challenge = answer.headers["www-authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert 'scope="a b"' in challenge


@pytest.mark.anyio
class TestPermissions:
    @pytest.mark.parametrize(
        ("granted", "expected"),
        [
            ({"invoice": ["read"]}, 200),
            ({"invoice:7": ["read"]}, 200),
            ({"invoice:7": ["read"], "invoice": ["create"]}, 200),
            (["read:invoice"], 200),
            ({"invoice": ["create"]}, 403),
            ({"invoice:8": ["read"]}, 403),
            ({"invoices": ["read"]}, 403),
            ({"": ["read"]}, 403),
            ("invoice", 403),
            (None, 403),
        ],
    )
    async def test_of_one_is_granted_for_it_or_for_all_of_its_type(
        self, serve: Serve, provider: Provider, granted: object, expected: int
    ) -> None:
        guard = requires_permission("invoice", "read", id="number")
        assert await status(serve, provider, [guard], permissions=granted) == expected

    @pytest.mark.parametrize(
        ("granted", "conditional", "expected"),
        [
            ({"invoice": ["read"]}, {"invoice:7": ["read"]}, 403),
            ({"invoice": ["read"], "invoice:7": ["read"]}, {"invoice:7": ["read"]}, 403),
            ({"invoice:7": ["read"]}, {"invoice": ["read"]}, 403),
            (["read:invoice"], {"invoice:7": ["read"]}, 403),
            (["read:invoice"], {"invoice": ["read"]}, 403),
            ({"invoice": ["read"]}, {"invoice:8": ["read"]}, 200),
            ({"invoice": ["read"]}, {"invoice:7": ["edit"]}, 200),
        ],
    )
    async def test_what_only_the_provider_can_judge_is_not_granted(
        self, serve: Serve, provider: Provider, granted: object, conditional: object, expected: int
    ) -> None:
        guard = requires_permission("invoice", "read", id="number")
        claims = {"permissions": granted, "abac_required": conditional}
        assert await status(serve, provider, [guard], **claims) == expected

    async def test_a_condition_on_one_says_nothing_of_the_type(self, serve: Serve, provider: Provider) -> None:
        claims = {"permissions": {"invoice": ["read"]}, "abac_required": {"invoice:7": ["read"]}}
        assert await status(serve, provider, [requires_permission("invoice", "read")], **claims) == 200

    async def test_without_an_id_only_all_of_the_type_will_do(self, serve: Serve, provider: Provider) -> None:
        guard = requires_permission("invoice", "read")
        assert await status(serve, provider, [guard], permissions={"invoice:7": ["read"]}) == 403

    async def test_an_id_does_not_reach_into_another_type(self, serve: Serve, provider: Provider) -> None:
        """`invoice:7:3` is the 3 of the type `invoice:7`, and no invoice whose id is `7:3`."""
        granted = {"invoice:7:3": ["read"]}
        guard = requires_permission("invoice", "read", id="number")
        assert await status(serve, provider, [guard], "/it/7:3", permissions=granted) == 403
        guard = requires_permission("invoice:7", "read", id="number")
        assert await status(serve, provider, [guard], "/it/3", permissions=granted) == 200


@pytest.mark.anyio
class TestSeveral:
    async def test_all_must_let_the_request_pass(self, serve: Serve, provider: Provider) -> None:
        guards = [requires_role("editor"), requires_scope("a")]
        assert await status(serve, provider, guards, role="editor") == 403
        assert await status(serve, provider, guards, role="editor", scope="a") == 200

    async def test_who_is_not_authenticated_does_not_reach_them(self, serve: Serve, provider: Provider) -> None:
        @get("/it", guards=[requires_role("editor")])
        async def it() -> str:
            return ""

        async with serve(it) as client:
            assert (await client.get("/it")).status_code == 401


class TestDeclarations:
    @pytest.mark.parametrize("make", [requires_role, requires_scope])
    @pytest.mark.parametrize("names", [[], [""], [" "], ["a", ""]])
    def test_one_that_nobody_could_pass_or_everybody_is_an_error_at_once(self, make: Any, names: list[str]) -> None:
        with pytest.raises(ValueError, match="at least one"):
            make(*names)

    def test_scopes_are_given_one_by_one(self) -> None:
        with pytest.raises(ValueError, match="space"):
            requires_scope("a b")


@pytest.mark.anyio
async def test_the_example_of_the_documentation_runs(
    serve: Serve, provider: Provider, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", ROUTES.read_text(), re.DOTALL))
    example = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)
    exec(compile(code, str(ROUTES), "exec"), vars(example))  # noqa: S102 -- our own page
    engine = create_engine(database_url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(example.TABLE)
    await engine.dispose()
    async with serve(*example.ROUTES) as client:
        writer, reader = provider.bearer(sub="writer", role="editor"), provider.bearer(sub="reader")
        made = await client.post("/notes", json={"text": "first"}, headers=writer)
        assert made.status_code == 201, made.text
        assert (await client.get("/notes", headers=writer)).json() == ["first"]
        assert (await client.post("/notes", json={}, headers=writer)).status_code == 422
        assert (await client.post("/notes", json={"text": "x"}, headers=reader)).status_code == 403
        assert (await client.get("/notes", headers=reader)).json() == []
