"""The whole server in this process, on a migrated database, with a provider that is a transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from litestar.types import ControllerRouterHandler

from app.asgi import create_app
from app.settings import Settings
from tests.api.provider import AUDIENCE, ISSUER, Provider
from tests.migrated import make_migrated
from tests.postgres import Server

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def keys() -> Provider:
    return Provider()


@pytest.fixture
def provider(keys: Provider) -> Provider:
    keys.down = False
    return keys


@pytest.fixture
def database_url(server: Server, make_database: Callable[[str | None], str]) -> str:
    return make_migrated(server, make_database)


@pytest.fixture
def serve(provider: Provider, database_url: str) -> Serve:
    """Serve with some settings differing: `async with serve(path_prefix="/api") as client`."""

    @asynccontextmanager
    async def serving(*routes: ControllerRouterHandler, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        chosen: dict[str, Any] = {
            "database_url": database_url,
            "idp_issuer": ISSUER,
            "idp_audience": AUDIENCE,
            "idp_jwks_url": f"{ISSUER}/jwks",
            "log_format": "json",
        } | settings
        app = create_app(Settings(_env_file=None, **chosen), routes=routes, client=provider.client())
        async with (
            app.lifespan(),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.test") as client,
        ):
            yield client

    return serving


@pytest.fixture
async def client(anyio_backend: object, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve() as client:
        yield client
