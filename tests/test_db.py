"""Addresses: what psql accepts, this accepts."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app import db
from app.db import InvalidURL, create_engine, parse_url, privilege_wanted, reachable, redacted
from app.errors import DatabaseUnreachable
from tests.cutover.commands import alembic, migrate, shadow
from tests.postgres import Server


class TestParseURL:
    @pytest.mark.parametrize(
        "text",
        [
            "postgres://u:p@h:5433/d",
            "postgresql://u:p@h:5433/d",
            "postgresql+asyncpg://u:p@h:5433/d",
            "postgresql+psycopg2://u:p@h:5433/d?channel_binding=require",
        ],
    )
    def test_every_scheme_means_the_same(self, text: str) -> None:
        assert parse_url(text) == ("postgresql://u:p@h:5433/d", {})

    def test_channel_binding_is_left_out_and_sslmode_stays(self) -> None:
        dsn, _ = parse_url("postgresql://u:p@h/d?sslmode=require&channel_binding=require")
        assert dsn == "postgresql://u:p@h/d?sslmode=require"

    def test_the_systems_certificates_are_trusted_where_libpq_would(self) -> None:
        for url in ("postgresql://h/d?sslrootcert=system", "postgresql://h/d?sslrootcert=system&sslmode=verify-full"):
            dsn, arguments = parse_url(url)
            assert dsn == "postgresql://h/d"
            assert (arguments["ssl"].check_hostname, arguments["ssl"].verify_mode) == (True, ssl.CERT_REQUIRED)

    def test_a_socket_directory_stays_readable(self) -> None:
        assert parse_url("postgresql:///d?host=/var/run/pg")[0] == "postgresql:///d?host=/var/run/pg"

    def test_keywords_become_a_url(self) -> None:
        dsn, arguments = parse_url(r"host=/sock dbname='my db' user=o\'hara connect_timeout=5")
        assert dsn == "postgresql:///my%20db?host=/sock&user=o%27hara"
        assert arguments == {"timeout": 5}

    def test_an_address_beside_the_hosts_name_is_where_it_connects(self) -> None:
        assert parse_url("postgresql:///d?hostaddr=10.0.0.1")[0] == "postgresql:///d?host=10.0.0.1"

    def test_a_hash_belongs_to_the_password(self) -> None:
        assert parse_url("postgresql://u:a#b@h/d")[0] == "postgresql://u:a%23b@h/d"

    @pytest.mark.parametrize(
        "parameters",
        [
            "options=-c%20geqo%3Doff", "statement_timeout=5000", "application_name=x", "my.setting=1",
            "target_session_attrs=read-write", "sslmode=verify-full",
        ],
    )  # fmt: skip
    def test_what_libpq_or_the_server_knows_is_passed_on(self, parameters: str) -> None:
        assert parse_url(f"postgresql://h/d?{parameters}")[0] == f"postgresql://h/d?{parameters}"

    def test_several_hosts_stay_several(self) -> None:
        assert parse_url("postgresql://u@h1:5432,h2:5433/d")[0] == "postgresql://u@h1:5432,h2:5433/d"

    @pytest.mark.parametrize(
        "text",
        [
            "postgresql://h:99999/d",
            "host=h port=0 dbname=d",
            "",
            "mysql://h/d",
            "not an address",
            "postgresql://h/d?connect_timeout=soon",
            "postgresql://h/d?sslrootcert=system&sslmode=require",
            "postgresql://h:port/d",
            "postgresql://h/d?sslmode=weird",
            "postgresql://h/d?target_session_attrs=master",
            "postgresql://h/d?nonsense=1",
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidURL):
            parse_url(text)


class TestRedacted:
    @pytest.mark.parametrize(
        "text",
        ["postgresql://u:sesame@db.example:5432/app", "host=db.example port=5432 dbname=app user=u password=sesame"],
    )
    def test_shows_where_and_never_the_password(self, text: str) -> None:
        assert redacted(text) == "db.example:5432/app"


@pytest.mark.anyio
async def test_an_engine_connects(make_database: Callable[[str | None], str]) -> None:
    engine = create_engine(make_database("plural_snake"), server_settings={"search_path": "public"})
    async with engine.connect() as connection:
        count = (await connection.exec_driver_sql("SELECT count(*) FROM users")).scalar_one()
    await engine.dispose()
    assert count > 0


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestTheDirectAddress:
    """Beside DATABASE_URL, which is a pooler's: here one that nobody listens at."""

    NOWHERE = "postgresql://u:sesame@127.0.0.1:9/d"

    def test_is_what_the_verbs_of_the_cutover_and_alembic_use(
        self, server: Server, make_database: Callable[[str | None], str]
    ) -> None:
        direct = make_database("plural_snake")
        assert migrate(self.NOWHERE, "adopt", DATABASE_DIRECT_URL=direct).code == 0
        for done in (
            shadow(self.NOWHERE, "inspect", DATABASE_DIRECT_URL=direct),
            shadow(self.NOWHERE, "verify", DATABASE_DIRECT_URL=direct),
            alembic(self.NOWHERE, "upgrade", "0002_retire", DATABASE_DIRECT_URL=direct),
            shadow(self.NOWHERE, "undo", "--yes", DATABASE_DIRECT_URL=direct),
        ):
            assert done.code == 0, done.text

    def test_is_named_where_it_cannot_be_connected_to(
        self, server: Server, make_database: Callable[[str | None], str]
    ) -> None:
        working = make_database(None)
        for failed in (
            shadow(working, "plan", DATABASE_DIRECT_URL=self.NOWHERE),
            alembic(working, "current", DATABASE_DIRECT_URL=self.NOWHERE),
        ):
            assert (failed.code, "Check DATABASE_DIRECT_URL" in failed.text) == (1, True), failed.text
            assert "sesame" not in failed.text

    def test_is_not_for_the_other_verbs(self, server: Server, make_database: Callable[[str | None], str]) -> None:
        refused = shadow(self.NOWHERE, "erase", "nobody", DATABASE_DIRECT_URL=make_database(None))
        assert (refused.code, "127.0.0.1:9/d" in refused.text) == (1, True), refused.text


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """Listen on loopback, take connections and say nothing; yield the address."""

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"postgresql://u:sesame@127.0.0.1:{server.sockets[0].getsockname()[1]}/d"
    finally:
        for writer in held:
            writer.close()
        server.close()


@pytest.mark.anyio
class TestAServerThatDoesNotAnswer:
    async def test_is_given_up_while_connecting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(db, "CONNECT_TIMEOUT", 0.2)
        async with silent() as url:
            engine = create_engine(url)
            with pytest.raises(DatabaseUnreachable, match=r"no answer within 0\.2 seconds") as caught, reachable(url):
                async with engine.connect():
                    pass
            await engine.dispose()
        assert "sesame" not in caught.value.message

    async def test_is_waited_for_as_long_as_the_address_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(db, "CONNECT_TIMEOUT", 0.2)
        async with silent() as url:
            engine = create_engine(f"{url}?connect_timeout=2")
            with pytest.raises(TimeoutError, match="no answer within 2 seconds"):
                async with engine.connect():
                    pass
            await engine.dispose()

    async def test_is_given_up_at_a_statement_and_its_connection_not_used_again(
        self, make_database: Callable[[str | None], str]
    ) -> None:
        engine = create_engine(make_database(None), command_timeout=1, pool_size=1, max_overflow=0)
        stopped = 0
        try:
            async with engine.connect() as connection:
                stopped = int(await connection.scalar(text("SELECT pg_backend_pid()")) or 0)
            os.kill(stopped, signal.SIGSTOP)
            began = time.monotonic()
            with pytest.raises(TimeoutError, match="no answer within 1 seconds"):
                async with engine.begin() as connection:
                    await connection.scalar(text("SELECT 1"))
            assert time.monotonic() - began < 2
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT pg_backend_pid()")) != stopped
        finally:
            os.kill(stopped, signal.SIGCONT)
            await engine.dispose()

    async def test_is_waited_for_without_end_where_nothing_is_said(
        self, make_database: Callable[[str | None], str]
    ) -> None:
        engine = create_engine(make_database(None))
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            assert driver._config.command_timeout is None
        await engine.dispose()


@pytest.mark.anyio
class TestPrivilegeWanted:
    @pytest.mark.parametrize(
        ("statement", "wanted"),
        [
            ("SELECT * FROM users", "GRANT SELECT, INSERT, UPDATE ON users"),
            ("SELECT * FROM notes", "ON notes"),
            ("SELECT * FROM hidden.notes", "GRANT USAGE ON SCHEMA hidden"),
        ],
    )
    async def test_says_what_to_grant(
        self, server: Server, make_database: Callable[[str | None], str], statement: str, wanted: str
    ) -> None:
        url = make_database(None)
        server.psql(
            url, "CREATE TABLE users (); CREATE TABLE notes (); CREATE SCHEMA hidden; CREATE TABLE hidden.notes ()"
        )
        engine = create_engine(url, server_settings={"role": "pg_monitor"})
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(text(statement))
        await engine.dispose()
        assert wanted in (privilege_wanted(caught.value) or "")

    async def test_is_nothing_where_that_is_not_the_matter(self, make_database: Callable[[str | None], str]) -> None:
        engine = create_engine(make_database(None))
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(text("SELECT 1 / 0"))
        await engine.dispose()
        assert privilege_wanted(caught.value) is None
