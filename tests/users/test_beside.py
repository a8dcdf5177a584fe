"""The shadow row where `users` is what 0001_adopt leaves beside an old app: other types, nulls, another schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.asgi import served_from
from app.db import create_engine
from app.users.identity import ShadowRules
from app.users.shadow import edit, provision, soft_delete
from tests.migrated import make_migrated
from tests.postgres import Server
from tests.users.stated import MONDAY, claims

pytestmark = pytest.mark.anyio
RULES = ShadowRules()


@pytest.fixture
async def engine(
    anyio_backend: object, server: Server, make_database: Callable[[str | None], str]
) -> AsyncIterator[AsyncEngine]:
    """An engine as the server's, on a database whose own time zone is nine hours from UTC."""
    url = make_migrated(server, make_database)
    server.execute(f"ALTER DATABASE {urlsplit(url).path.lstrip('/')} SET timezone = 'Asia/Tokyo'")
    engine = create_engine(url, server_settings=served_from("public"), pool_size=10, max_overflow=0)
    yield engine
    await engine.dispose()


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def value(engine: AsyncEngine, query: str) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(text(query))).scalar_one()


def is_now(moment: datetime | None) -> bool:
    return moment is not None and abs(datetime.now(UTC) - moment) < timedelta(minutes=2)


class TestTimesWithoutZone:
    ALTERED = (
        "ALTER TABLE users ALTER created_at TYPE timestamp, ALTER updated_at TYPE timestamp(3), "
        "ALTER deleted_at TYPE timestamp, ALTER onboarding_completed_at TYPE timestamp, "
        "ALTER identity_updated_at TYPE timestamp"
    )

    async def test_they_are_read_as_utc(self, engine: AsyncEngine) -> None:
        await provision(engine, claims(), RULES)
        await execute(engine, self.ALTERED, "UPDATE users SET created_at = '2026-03-04 10:00'")
        assert (await provision(engine, claims(), RULES)).created_at == datetime(2026, 3, 4, 10, tzinfo=UTC)

    async def test_they_are_written_as_utc(self, engine: AsyncEngine) -> None:
        await execute(engine, self.ALTERED)
        made = await provision(engine, claims(), RULES)
        assert is_now(made.created_at)
        assert is_now(made.updated_at)
        assert made.identity_updated_at == datetime.fromtimestamp(MONDAY, UTC)
        done = datetime(2026, 3, 4, 10, tzinfo=UTC)
        assert (await edit(engine, "ada", {"onboarding_completed_at": done})).onboarding_completed_at == done
        assert await value(engine, "SELECT onboarding_completed_at::text FROM users") == "2026-03-04 10:00:00"
        await soft_delete(engine, "ada")
        assert is_now((await value(engine, "SELECT deleted_at FROM users")).replace(tzinfo=UTC))

    async def test_an_older_token_is_known_as_older(self, engine: AsyncEngine) -> None:
        await execute(engine, self.ALTERED)
        await provision(engine, claims(), RULES)
        assert (await provision(engine, claims(iat=MONDAY - 1, name="Byron"), RULES)).name == "Ada Lovelace"
        assert (await provision(engine, claims(iat=MONDAY + 1, name="Countess"), RULES)).name == "Countess"


class TestNulls:
    NULLABLE = (
        "ALTER TABLE users ALTER name DROP NOT NULL, ALTER email DROP NOT NULL, ALTER email_verified DROP NOT NULL, "
        "ALTER created_at DROP NOT NULL, ALTER updated_at DROP NOT NULL"
    )

    async def test_each_reads_as_what_stands_for_it_in_the_target(self, engine: AsyncEngine) -> None:
        await execute(
            engine,
            self.NULLABLE,
            "INSERT INTO users (id, email_verified, created_at, updated_at) VALUES ('ada', NULL, '2026-03-04Z', NULL)",
        )
        user = await provision(engine, claims(iat=None), RULES)
        assert (user.name, user.email, user.email_verified) == ("", None, False)
        assert user.created_at == user.updated_at == datetime(2026, 3, 4, tzinfo=UTC)

    async def test_a_token_that_says_more_is_followed(self, engine: AsyncEngine) -> None:
        await execute(
            engine, self.NULLABLE, "INSERT INTO users (id, created_at, updated_at) VALUES ('ada', NULL, NULL)"
        )
        user = await provision(engine, claims(), RULES)
        assert (user.name, user.email, user.email_verified) == ("Ada Lovelace", "ada@example.com", True)
        assert is_now(user.created_at)
        assert is_now(user.updated_at)


class TestAView:
    async def test_one_in_the_schema_beside_is_read_before_a_table_of_the_same_name(self, engine: AsyncEngine) -> None:
        await execute(
            engine,
            'ALTER TABLE users RENAME email_verified TO "emailVerified"',
            "CREATE SCHEMA public_shadow",
            'CREATE VIEW public_shadow.users AS SELECT id, name, email, "emailVerified" AS email_verified, image, '
            "onboarding_completed_at, created_at, updated_at, deleted_at, identity_updated_at FROM public.users",
            "ALTER VIEW public_shadow.users ALTER email_verified SET DEFAULT false",
        )
        made = await provision(engine, claims(email_verified=None), RULES)
        assert (made.id, made.email_verified) == ("ada", False)
        moved = await provision(engine, claims(iat=MONDAY + 1, email="countess@example.com"), RULES)
        assert moved.email == "countess@example.com"
        assert await value(engine, 'SELECT "emailVerified" FROM public.users') is True


class TestWhileTheServerRuns:
    async def test_connections_that_know_the_types_from_before_go_on(self, engine: AsyncEngine) -> None:
        await execute(engine, TestTimesWithoutZone.ALTERED)
        before = await asyncio.gather(*(provision(engine, claims(), RULES) for _ in range(30)))
        await execute(
            engine,
            *(
                f"ALTER TABLE users ALTER {name} TYPE timestamptz"
                for name in ("created_at", "updated_at", "deleted_at")
            ),
        )
        after = await asyncio.gather(*(provision(engine, claims(), RULES) for _ in range(30)))
        assert {*after} == {*before}
