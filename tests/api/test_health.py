"""Alive, and ready."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from urllib.parse import urlsplit

import httpx
import pytest
from litestar import get
from litestar.di import NamedDependency
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app import asgi
from app.api import health
from app.api.health import Parts, Readiness
from app.errors import KeysUnavailable
from app.idp.keys import KeySetState
from tests.api.conftest import Serve
from tests.api.provider import Provider
from tests.postgres import Server

pytestmark = pytest.mark.anyio
_OURS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'shadow-users' AND datname = current_database()"


async def ready(client: httpx.AsyncClient) -> tuple[int, dict[str, str]]:
    answer = await client.get("/readyz")
    assert answer.headers["cache-control"] == "no-store"
    assert ("retry-after" in answer.headers) == (answer.status_code == 503)
    return answer.status_code, answer.json()


class TestAStatementThatTakesTooLong:
    async def test_is_given_up_and_answered_as_a_database_that_is_not_there(
        self, serve: Serve, provider: Provider
    ) -> None:
        @get("/slow")
        async def slow(database: NamedDependency[AsyncEngine]) -> None:
            async with database.connect() as connection:
                await connection.execute(text("SELECT pg_sleep(30)"))

        async with serve(slow, statement_timeout_seconds=1) as client:
            answer = await client.get("/slow", headers=provider.bearer())
            assert (await client.get("/me", headers=provider.bearer())).status_code == 200
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert answer.headers["retry-after"] == "5"

    async def test_is_ten_seconds_unless_the_settings_leave_it_to_the_database(self, serve: Serve) -> None:
        @get("/limit", exclude_from_auth=True)
        async def limit(database: NamedDependency[AsyncEngine]) -> str:
            async with database.connect() as connection:
                return str(await connection.scalar(text("SHOW statement_timeout")))

        async with serve(limit) as client:
            assert (await client.get("/limit")).text == "10s"
        async with serve(limit, statement_timeout_seconds=0) as client:
            assert (await client.get("/limit")).text == "0"


class TestADatabaseThatDoesNotAnswer:
    async def test_is_given_up_some_time_after_the_statement_timeout(
        self, serve: Serve, provider: Provider, database_url: str, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(asgi, "ANSWER", 0.5)
        async with serve(statement_timeout_seconds=1) as client:
            me = provider.bearer()
            assert (await client.get("/me", headers=me)).status_code == 200
            pids = [int(pid) for pid in server.psql(database_url, _OURS).split()]
            try:
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                answer = await asyncio.wait_for(client.get("/me", headers=me), 4)
                assert (await client.get("/me", headers=me)).status_code == 200
            finally:
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert answer.headers["retry-after"] == "5"


async def test_every_route_may_answer_400(client: httpx.AsyncClient) -> None:
    document = (await client.get("/schema/openapi.json")).json()
    for path, item in document["paths"].items():
        for verb, told in item.items():
            assert "400" in told["responses"], (verb, path)
        for path in ("/livez", "/readyz", "/metrics"):
            answer = await client.get(path, headers={"Host": "a b"})
            assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), path


class TestReady:
    async def test_with_everything_there(self, client: httpx.AsyncClient) -> None:
        assert await ready(client) == (200, {"status": "ok", "database": "ok", "keys": "fresh"})

    async def test_without_the_provider_until_it_comes(self, serve: Serve, provider: Provider) -> None:
        provider.down = True
        async with serve() as client:
            assert await ready(client) == (503, {"status": "unavailable", "database": "ok", "keys": "empty"})
            assert (await client.get("/livez")).json() == {"status": "ok"}

    async def test_without_the_migrations(self, serve: Serve, database_url: str, server: Server) -> None:
        server.psql(database_url, "ALTER TABLE users DROP deleted_at")
        async with serve() as client:
            assert await ready(client) == (503, {"status": "unavailable", "database": "not_migrated", "keys": "fresh"})

    async def test_without_the_database(self, serve: Serve) -> None:
        async with serve(database_url="postgresql://u:p@127.0.0.1:9/d") as client:
            assert await ready(client) == (503, {"status": "unavailable", "database": "unreachable", "keys": "fresh"})

    async def test_where_nothing_can_be_written(self, serve: Serve, database_url: str, server: Server) -> None:
        name = urlsplit(database_url).path.lstrip("/")
        server.psql(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        async with serve() as client:
            assert await ready(client) == (503, {"status": "unavailable", "database": "read_only", "keys": "fresh"})

    @pytest.mark.parametrize("grants", ["", "SELECT", "SELECT, INSERT", "SELECT, UPDATE"])
    async def test_where_the_role_may_not_read_and_write(
        self, serve: Serve, database_url: str, server: Server, grants: str
    ) -> None:
        server.psql(database_url, "GRANT SELECT ON shadow_standing TO pg_monitor")
        if grants:
            server.psql(database_url, f"GRANT {grants} ON users TO pg_monitor")
        async with serve(database_url=f"{database_url}&options=-c%20role%3Dpg_monitor") as client:
            assert await ready(client) == (503, {"status": "unavailable", "database": "not_permitted", "keys": "fresh"})
            server.psql(database_url, "GRANT SELECT, INSERT, UPDATE ON users TO pg_monitor")
            assert (await ready(client))[0] == 200

    async def test_within_the_limit_where_a_backend_is_stopped(
        self, serve: Serve, database_url: str, server: Server, provider: Provider
    ) -> None:
        async with serve() as client:
            assert (await ready(client))[0] == 200
            pids = [int(pid) for pid in server.psql(database_url, _OURS).split()]
            try:
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                began = time.monotonic()
                assert (await ready(client))[1]["database"] == "unreachable"
                assert time.monotonic() - began < health.LIMIT + 0.5
            finally:
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)

    async def test_in_the_wrong_schema(self, serve: Serve) -> None:
        async with serve(database_schema="elsewhere") as client:
            assert (await ready(client))[1]["database"] == "not_migrated"

    async def test_whatever_hangs_does_not_hang_the_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Hanging:
            state = KeySetState.EMPTY

            async def ensure(self) -> None:
                await asyncio.Event().wait()

        async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            held.append(writer)  # and never a word

        held: list[asyncio.StreamWriter] = []
        monkeypatch.setattr(health, "LIMIT", 0.05)
        silent = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        engine = create_async_engine(f"postgresql+asyncpg://u:p@127.0.0.1:{port}/d")
        try:
            assert await Parts(engine, Hanging()).examine() == Readiness("unavailable", "unreachable", "empty")
        finally:
            await engine.dispose()
            silent.close()

    async def test_stale_keys_are_served_and_dead_ones_are_not(self, serve: Serve, database_url: str) -> None:
        class Keys:
            def __init__(self, state: KeySetState) -> None:
                self.state = state

            async def ensure(self) -> None:
                if self.state is KeySetState.DEAD:
                    raise KeysUnavailable("x", retry_after=1)

        engine = create_async_engine("postgresql+asyncpg://u:p@127.0.0.1:9/d")
        assert (await Parts(engine, Keys(KeySetState.DEAD)).examine()).keys == "dead"
        assert (await Parts(engine, Keys(KeySetState.STALE)).examine()).keys == "stale"
