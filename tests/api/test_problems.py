"""Whatever goes wrong, the answer is a problem and tells nothing that is not the client's to know."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from litestar import get, post
from litestar.di import NamedDependency
from litestar.exceptions import PermissionDeniedException, ServiceUnavailableException
from litestar.params import FromQuery, JSONBody
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from app import errors
from app.api.problems import TABLE, is_database_down
from app.db import create_engine
from tests.api.conftest import Serve
from tests.api.provider import Provider
from tests.postgres import Server

pytestmark = pytest.mark.anyio


CUT = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'shadow-users' AND datname = current_database()"
)


class Order(Struct, forbid_unknown_fields=True):
    amount: int
    note: str = ""


@get("/broken")
async def broken() -> None:
    raise KeyError("sesame")


@get("/sql")
async def sql(database: NamedDependency[AsyncEngine], statement: FromQuery[str]) -> None:
    async with database.begin() as connection:
        await connection.execute(text(statement))


@get("/told")
async def told(status: FromQuery[int]) -> None:
    raise {403: PermissionDeniedException("Not on Sundays."), 503: ServiceUnavailableException("Back at noon.")}[status]


@post("/orders")
async def order(data: JSONBody[Order]) -> None: ...


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the room logs, with tracebacks, as text."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("app.api.problems").addHandler(handler)
    yield stream
    logging.getLogger("app.api.problems").removeHandler(handler)


def check(answer: httpx.Response, status: int, code: str) -> dict[str, object]:
    """Check that an answer is a problem of this status and code (RFC 9457), and return it."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code), answer.text
    assert problem["type"] == f"urn:shadow:problem:{code}"
    assert problem["error"] == problem["title"] != ""
    assert problem["detail"]
    return problem


class TestTable:
    def test_every_error_that_can_reach_a_client_has_a_line(self) -> None:
        def leaves(kind: type[errors.ShadowError]) -> set[type[errors.ShadowError]]:
            below = kind.__subclasses__()
            return {kind} if not below else {leaf for each in below for leaf in leaves(each)}

        ours = {kind for kind in leaves(errors.ShadowError) if kind.__module__ == "app.errors"}
        assert ours - set(TABLE) == {errors.SettingsError}

    def test_codes_are_told_apart(self) -> None:
        codes = [kind.code for kind in TABLE]
        assert len(codes) == len(set(codes))


class TestWhatLitestarRefuses:
    async def test_no_such_path(self, client: httpx.AsyncClient) -> None:
        check(await client.get("/nope"), 404, "not_found")

    async def test_no_such_method(self, client: httpx.AsyncClient) -> None:
        answer = await client.put("/me")
        check(answer, 405, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}

    async def test_a_body_that_is_no_json(self, client: httpx.AsyncClient, provider: Provider) -> None:
        bodies = [b"{", b"\xff", b'{"name": "\xff"}', b"[" * 60_000, b'"\\ud800"', b"{'a': 1}", b"NaN", b"1e999"]
        for body in bodies:
            check(await client.patch("/me", headers=provider.bearer(), content=body), 400, "bad_request")

    async def test_a_body_that_is_too_large_counted_or_chunked(
        self, client: httpx.AsyncClient, provider: Provider
    ) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(70):
                yield b" " * 1_000

        for content in (b" " * 70_000, chunks()):
            answer = await client.patch("/me", headers=provider.bearer(), content=content)
            check(answer, 413, "content_too_large")

    async def test_a_body_or_parameter_that_does_not_fit_names_the_field(
        self, serve: Serve, provider: Provider
    ) -> None:
        async with serve(order, told) as client:
            me = provider.bearer()
            wrong = check(await client.post("/orders", headers=me, json={"amount": "x"}), 422, "invalid_body")
            assert wrong["field"] == "amount"
            missing = check(await client.post("/orders", headers=me, json={}), 422, "invalid_body")
            assert "amount" in str(missing["detail"])
            unknown = check(
                await client.post("/orders", headers=me, json={"amount": 1, "x" * 200: 1}), 422, "invalid_body"
            )
            assert unknown["field"] == "x" * 100
            parameter = check(await client.get("/told?status=soon", headers=me), 422, "invalid_body")
            assert parameter["field"] == "status"

    async def test_what_a_route_of_the_app_says_is_passed_on(self, serve: Serve, provider: Provider) -> None:
        async with serve(told) as client:
            forbidden = check(await client.get("/told?status=403", headers=provider.bearer()), 403, "forbidden")
            assert forbidden["detail"] == "Not on Sundays."
            check(await client.get("/told?status=503", headers=provider.bearer()), 503, "service_unavailable")


class TestWhatIsOurFault:
    async def test_it_is_500_and_goes_to_the_log(self, serve: Serve, provider: Provider, log: io.StringIO) -> None:
        async with serve(broken) as client:
            bearer = provider.bearer()
            answer = await client.get("/broken", headers=bearer)
        check(answer, 500, "internal_error")
        assert "sesame" not in answer.text
        assert "KeyError: 'sesame'" in log.getvalue()
        assert "GET /broken" in log.getvalue()
        assert bearer["Authorization"].removeprefix("Bearer ") not in log.getvalue()

    async def test_so_is_a_statement_that_cannot_run_or_commit(
        self, serve: Serve, provider: Provider, log: io.StringIO
    ) -> None:
        async with serve(sql) as client:
            for statement in ("SELECT 1 / 0", "SELECT * FROM nowhere"):
                answer = await client.get("/sql", headers=provider.bearer(), params={"statement": statement})
                check(answer, 500, "internal_error")
                assert statement not in answer.text


class TestWhatIsTheDatabaseS:
    async def test_one_that_is_gone_is_503(
        self, serve: Serve, provider: Provider, database_url: str, server: Server, log: io.StringIO
    ) -> None:
        async with serve() as client:
            assert (await client.get("/me", headers=provider.bearer())).status_code == 200
            server.drop_database(database_url)
            answer = await client.get("/me", headers=provider.bearer())
        problem = check(answer, 503, "database_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert problem["detail"] == "The database cannot be reached at the moment."
        assert "database unavailable" in log.getvalue()

    async def test_one_whose_connections_were_cut_heals_without_an_error(
        self, serve: Serve, provider: Provider, database_url: str, server: Server
    ) -> None:
        async with serve() as client:
            assert (await client.get("/me", headers=provider.bearer())).status_code == 200
            server.psql(database_url, CUT)
            assert (await client.get("/me", headers=provider.bearer())).status_code == 200

    async def test_one_that_nobody_is_listening_at_is_503(self, serve: Serve, provider: Provider) -> None:
        for url in ("postgresql://u:sesame@127.0.0.1:9/d", "postgresql:///d?host=/nowhere"):
            async with serve(database_url=url) as client:
                answer = await client.get("/me", headers=provider.bearer())
            check(answer, 503, "database_unavailable")
            assert "sesame" not in answer.text

    async def test_one_without_our_table_says_so(
        self, serve: Serve, provider: Provider, database_url: str, server: Server
    ) -> None:
        server.psql(database_url, "DROP TABLE users CASCADE")
        async with serve() as client:
            check(await client.get("/me", headers=provider.bearer()), 503, "not_migrated")

    async def test_one_that_is_read_only_takes_no_changes_and_is_read(
        self, serve: Serve, provider: Provider, database_url: str, server: Server, log: io.StringIO
    ) -> None:
        name = urlsplit(database_url).path.lstrip("/")
        async with serve() as client:
            known = provider.bearer()
            assert (await client.get("/me", headers=known)).status_code == 200
            server.psql(database_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            server.psql(database_url, CUT)
            assert (await client.get("/me", headers=known)).status_code == 200
            for answer in (
                await client.get("/me", headers=provider.bearer(sub="new", email="new@example.com")),
                await client.patch("/me", headers=known, json={"onboardingCompletedAt": "2026-01-01T00:00:00Z"}),
                await client.delete("/me", headers=known),
            ):
                problem = check(answer, 503, "database_unavailable")
                assert problem["detail"] == "The database takes no changes at the moment."
                assert answer.headers["retry-after"] == "5"
        assert "Traceback" not in log.getvalue()

    async def test_one_that_does_not_let_us_says_in_the_log_what_to_grant(
        self, serve: Serve, provider: Provider, database_url: str, server: Server, log: io.StringIO
    ) -> None:
        server.psql(database_url, "GRANT SELECT ON users, shadow_standing TO pg_monitor")
        async with serve(database_url=f"{database_url}&options=-c%20role%3Dpg_monitor") as client:
            answer = await client.get("/me", headers=provider.bearer())
        problem = check(answer, 503, "database_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert "users" not in str(problem["detail"])
        assert "GRANT SELECT, INSERT, UPDATE ON users" in log.getvalue()
        assert "Traceback" not in log.getvalue()

    async def test_one_whose_locks_are_not_waited_for_is_asked_again(
        self, serve: Serve, provider: Provider, database_url: str, server: Server
    ) -> None:
        name = urlsplit(database_url).path.lstrip("/")
        server.psql(database_url, f"ALTER DATABASE {name} SET lock_timeout = '50ms'")
        async with serve() as client:
            known = provider.bearer()
            assert (await client.get("/me", headers=known)).status_code == 200
            engine = create_engine(database_url)
            async with engine.begin() as holder:
                await holder.execute(text("SELECT FROM users FOR UPDATE"))
                waiting = asyncio.create_task(
                    client.patch("/me", headers=known, json={"onboardingCompletedAt": "2026-01-01T00:00:00Z"})
                )
                await asyncio.sleep(0.2)
                assert not waiting.done()
            assert (await waiting).status_code == 200
            await engine.dispose()

    @pytest.mark.parametrize("state", ["08006", "25006", "25P03", "53300", "57P01", "57P03", "57014", "28P01", "3D000"])
    def test_states_that_an_operator_must_mend(self, state: str) -> None:
        cause = Exception("x")
        cause.sqlstate = state  # type: ignore[attr-defined]
        assert is_database_down(DBAPIError("SELECT", None, cause))

    def test_a_full_pool_is_one_and_a_bad_statement_is_none(self) -> None:
        cause = Exception("x")
        cause.sqlstate = "42P01"  # type: ignore[attr-defined]
        ours = Exception("x")
        ours.sqlstate = "25P02"  # type: ignore[attr-defined]
        assert is_database_down(PoolTimeout())
        assert not is_database_down(ProgrammingError("SELECT", None, ours))
        assert not is_database_down(ProgrammingError("SELECT", None, cause))
        assert not is_database_down(KeyError("x"))


class TestLog:
    async def test_no_line_of_the_process_holds_a_token(
        self, serve: Serve, provider: Provider, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async with serve(broken, log_level="debug") as client:
            good, bad = provider.bearer()["Authorization"], provider.bearer(exp=1)["Authorization"]
            for header in (good, bad):
                await client.get("/me", headers={"Authorization": header})
                await client.get("/broken", headers={"Authorization": header})
        lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
        (unhandled,) = (line for line in lines if line["event"].startswith("unhandled"))
        assert (unhandled["level"], unhandled["logger"]) == ("error", "app.api.problems")
        assert "KeyError: 'sesame'" in unhandled["exception"]
        for token in (good, bad):
            assert token.rpartition(".")[2] not in json.dumps(lines)
            assert token.removeprefix("Bearer ")[:60] not in json.dumps(lines)
