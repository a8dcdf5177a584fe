"""Addresses: what psql accepts, this accepts."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest

from app.db import InvalidURL, create_engine, parse_url, redacted


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
        for text in ("postgresql://h/d?sslrootcert=system", "postgresql://h/d?sslrootcert=system&sslmode=verify-full"):
            dsn, arguments = parse_url(text)
            assert dsn == "postgresql://h/d"
            assert (arguments["ssl"].check_hostname, arguments["ssl"].verify_mode) == (True, ssl.CERT_REQUIRED)

    def test_a_socket_directory_stays_readable(self) -> None:
        assert parse_url("postgresql:///d?host=/var/run/pg")[0] == "postgresql:///d?host=/var/run/pg"

    def test_keywords_become_a_url(self) -> None:
        dsn, arguments = parse_url(r"host=/sock dbname='my db' user=o\'hara connect_timeout=5")
        assert dsn == "postgresql:///my%20db?host=/sock&user=o%27hara"
        assert arguments == {"timeout": 5}

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
