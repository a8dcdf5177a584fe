"""The server as it is run: Granian and uvloop over a socket, a provider over HTTP, a PostgreSQL; and under load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.db import create_engine
from tests.api.provider import AUDIENCE, ISSUER, Provider
from tests.migrated import make_migrated
from tests.postgres import Server
from tests.serving import environment, free_port, running, served_over_http


@pytest.fixture
def database_url(server: Server, make_database: Callable[[str | None], str]) -> str:
    return make_migrated(server, make_database)


@pytest.fixture(scope="module")
def provider() -> Provider:
    return Provider()


LITESTAR = ("litestar", "--app", "app.asgi:create_app", "run")


class TestOverASocket:
    def test_a_client_s_whole_life(self, database_url: str, provider: Provider, tmp_path: Path) -> None:
        with (
            served_over_http(provider) as jwks_url,
            running(tmp_path, DATABASE_URL=database_url, IDP_ISSUER=ISSUER, IDP_AUDIENCE=AUDIENCE,
                    IDP_JWKS_URL=jwks_url) as address,
            httpx.Client(base_url=address) as client,
        ):  # fmt: skip
            assert client.get("/readyz").json() == {"status": "ok", "database": "ok", "keys": "fresh"}
            assert client.get("/me").status_code == 401
            me = provider.bearer()
            created = client.get("/me", headers=me).json()["user"]
            assert (created["id"], created["email"]) == ("ada", "ada@example.com")
            done = client.patch("/me", headers=me, json={"onboardingCompletedAt": "2026-03-04T10:00:00.000Z"})
            assert done.json()["user"]["onboardingCompletedAt"] == "2026-03-04T10:00:00.000Z"
            twice = [("Authorization", me["Authorization"])] * 2
            assert client.get("/me", headers=twice).status_code == 400
            assert client.patch("/me", headers=me, content=b"x" * 70_000).status_code == 413
            forged = me["Authorization"][:-8] + "AAAAAAAA"
            assert client.get("/me", headers={"Authorization": forged}).json()["code"] == "invalid_token"
            assert client.delete("/me", headers=me).json() == {"success": True}
            assert client.get("/me", headers=me).json()["code"] == "account_deleted"

    def test_many_clients_at_first_sight(self, database_url: str, provider: Provider, tmp_path: Path) -> None:
        async def storm(address: str) -> list[httpx.Response]:
            limits = httpx.Limits(max_connections=100)
            async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
                same = [provider.bearer("same")] * 200
                apart = [provider.bearer(f"u{n}", email="it@example.com") for n in range(100)]
                return list(await asyncio.gather(*(client.get("/me", headers=each) for each in same + apart)))

        with (
            served_over_http(provider) as jwks_url,
            running(tmp_path, DATABASE_URL=database_url, IDP_ISSUER=ISSUER, IDP_AUDIENCE=AUDIENCE,
                    IDP_JWKS_URL=jwks_url) as address,
        ):  # fmt: skip
            answers = asyncio.run(storm(address))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers[:200]}) == 1

        async def emails() -> list[str]:
            engine = create_engine(database_url)
            async with engine.connect() as connection:
                found = await connection.execute(text("SELECT email FROM users ORDER BY id"))
                rows = list(found.scalars())
            await engine.dispose()
            return rows

        rows = asyncio.run(emails())
        assert len(rows) == 101
        assert rows.count("it@example.com") == 1
        assert len(set(rows)) == 101

    def test_it_starts_without_database_and_provider_and_says_so(self, tmp_path: Path) -> None:
        nowhere = f"http://127.0.0.1:{free_port()}"
        with running(tmp_path, LITESTAR, DATABASE_URL="postgresql://u:p@127.0.0.1:9/d", IDP_ISSUER=nowhere,
                     IDP_AUDIENCE=AUDIENCE) as address:  # fmt: skip
            answer = httpx.get(f"{address}/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"status": "unavailable", "database": "unreachable", "keys": "empty"}


class TestCommandLine:
    def run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "litestar", "--app", "app.asgi:create_app", *arguments]
        settings = environment(IDP_ISSUER=ISSUER, IDP_AUDIENCE=AUDIENCE, DATABASE_URL="postgresql://127.0.0.1:9/d")
        return subprocess.run(command, env=settings, capture_output=True, text=True, check=True).stdout

    def test_litestar_lists_the_routes(self) -> None:
        listed = self.run("routes")
        for path in ("/me", "/livez", "/readyz", "/.well-known/oauth-protected-resource"):
            assert path in listed

    def test_litestar_writes_the_document(self, tmp_path: Path) -> None:
        self.run("schema", "openapi", "--output", f"{tmp_path}/openapi.json")
        assert "/me" in json.loads((tmp_path / "openapi.json").read_text())["paths"]


class TestCreateApp:
    def test_a_command_line_is_told_every_fault_and_shows_no_traceback(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", *LITESTAR]
        done = subprocess.run(command, env=environment(LOG_LEVEL="loud"), cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1
        lines = done.stderr.strip().splitlines()
        assert [line.partition(":")[0] for line in lines] == ["IDP_ISSUER", "IDP_AUDIENCE", "LOG_LEVEL"]
