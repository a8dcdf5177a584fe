"""The OpenAPI document says what the server does."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.api.conftest import Serve

pytestmark = pytest.mark.anyio
ROUTES = {
    ("get", "/me"): {"200", "400", "401", "403", "500", "503"},
    ("patch", "/me"): {"200", "400", "401", "403", "413", "415", "422", "500", "503"},
    ("delete", "/me"): {"200", "400", "401", "403", "500", "503"},
    ("get", "/livez"): {"200", "400", "500"},
    ("get", "/readyz"): {"200", "400", "500", "503"},
    ("get", "/metrics"): {"200", "400", "500"},
    ("get", "/.well-known/oauth-protected-resource"): {"200", "400", "500"},
}


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/schema/openapi.json")
    assert answer.headers["content-type"] == "application/vnd.oai.openapi+json"
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(verb, path): told for path, item in document["paths"].items() for verb, told in item.items()}


async def test_every_route_is_there_with_every_status(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert {route: set(told["responses"]) for route, told in operations(document).items()} == ROUTES


async def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for route, told in operations(document).items():
        for status, answer in told["responses"].items():
            if status >= "400" and route != ("get", "/readyz"):
                schema = answer["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}, (route, status)
    problem = document["components"]["schemas"]["Problem"]
    assert set(problem["required"]) == {"type", "title", "status", "detail", "code", "error"}


async def test_routes_are_protected_unless_they_say_otherwise(document: dict[str, Any]) -> None:
    (scheme,) = document["components"]["securitySchemes"].items()
    assert (scheme[0], scheme[1]["type"], scheme[1]["scheme"]) == ("bearer", "http", "bearer")
    assert document["security"] == [{"bearer": []}]
    public = {path for (_, path), told in operations(document).items() if told.get("security") == [{}]}
    assert public == {"/livez", "/readyz", "/metrics", "/.well-known/oauth-protected-resource"}
    assert all(told.get("security") in ([{}], None, [{"bearer": []}]) for told in operations(document).values())


async def test_what_patch_takes_is_told_from_what_it_only_shows(document: dict[str, Any]) -> None:
    properties = document["components"]["schemas"]["ProfileEdit"]["properties"]
    assert {name for name, told in properties.items() if told.get("readOnly")} == {"email", "emailVerified"}
    assert document["components"]["schemas"]["ProfileEdit"]["additionalProperties"] is False
    for field, empty_too in (("name", False), ("image", True)):
        assert bool(re.search(properties[field]["pattern"], "")) is empty_too
        assert "What GET shows is taken back as it is" in properties[field]["description"]
    view = document["components"]["schemas"]["UserView"]
    assert view["properties"]["createdAt"] == {"type": "string", "format": "date-time"}
    assert set(view["required"]) == set(view["properties"])


async def test_it_is_there_as_yaml_and_with_a_page_without_a_token(serve: Serve) -> None:
    async with serve(path_prefix="/api") as client:
        assert "openapi: 3.1" in (await client.get("/api/schema/openapi.yaml")).text
        for path in ("/api/schema", "/api/schema/"):
            page = await client.get(path)
            assert page.status_code == 200
            assert "<div id=" in page.text


class TestThePage:
    async def test_loads_what_this_server_has_and_nothing_else(self, serve: Serve) -> None:
        async with serve(path_prefix="/api") as client:
            page = await client.get("/api/schema")
            loaded = re.findall(r'(?:src|href|data-document)="([^"]*)"', page.text)
            assert loaded == ["data:,", *(f"/api/schema/{name}" for name in
                              ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "openapi.json"))]  # fmt: skip
            for path in loaded[1:]:
                assert (await client.get(path)).status_code == 200, path
            script = await client.get("/api/schema/swagger-ui-bundle.js")
            assert script.headers["content-type"].startswith("text/javascript")
            assert len(script.content) > 1_000_000

    async def test_forbids_the_browser_everything_else(self, client: httpx.AsyncClient) -> None:
        policy = (await client.get("/schema")).headers["content-security-policy"]
        said = {name: set(values) for name, *values in (part.split() for part in policy.split(";"))}
        assert said["default-src"] == {"'none'"}
        assert said["script-src"] == said["connect-src"] == {"'self'"}

    async def test_is_where_a_proxy_has_it(self, serve: Serve) -> None:
        async with serve(public_url="https://example.com/users") as client:
            assert 'src="/users/schema/start.js"' in (await client.get("/schema")).text
            assert (await client.get("/schema/openapi.json")).json()["servers"] == [{"url": "/users"}]

    async def test_what_is_not_there_is_a_problem(self, client: httpx.AsyncClient) -> None:
        for path in ("/schema/nope", "/schema/nope.json", "/schema/a/b", "/schema/swagger-ui.js"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
