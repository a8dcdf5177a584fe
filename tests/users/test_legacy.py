"""The old app's sessions, in a table like Better Auth's; the whole way, with Better Auth, is in tests/interop."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.asgi import served_from
from app.db import create_engine
from app.errors import AccountDeleted, AccountDisabled, InvalidToken, NoProfile, NotMigrated
from app.users.identity import ShadowRules
from app.users.legacy import LegacySession, LegacySessions, SessionFinder, read_signed
from app.users.shadow import provision, soft_delete
from tests.migrated import make_migrated
from tests.postgres import Server

SECRET = "a secret of the old app, 32 characters"
TOKEN = "Wq3pVb0cYkz5sJ1nR7tXaLh2mD9fGe4u"
NOWHERE = "There is no such session, or it has ended."


def signed(token: str, secret: str = SECRET) -> str:
    """Sign as Better Auth does: base64 with padding, behind a dot."""
    mac = hmac.new(secret.encode(), token.encode(), hashlib.sha256).digest()
    return f"{token}.{base64.b64encode(mac).decode()}"


class TestReadSigned:
    def test_the_token_is_what_stands_before_the_last_dot(self) -> None:
        assert read_signed(signed(TOKEN), SECRET) == TOKEN
        assert read_signed(signed("with.dots"), SECRET) == "with.dots"

    def test_the_signature_is_what_openssl_makes(self) -> None:
        # printf %s token | openssl dgst -sha256 -hmac secret -binary | base64
        assert read_signed("token.6UERDj0r/oJiHw4+FDRzDXMF0QbF9oyHFl0LJ6RhGko=", "secret") == "token"

    @pytest.mark.parametrize(
        "value",
        [
            signed(TOKEN, "another secret"),
            signed(TOKEN)[:-1],
            signed(TOKEN) + "=",
            signed(TOKEN).lower(),
            TOKEN,
            f"{TOKEN}.",
            f".{signed(TOKEN).partition('.')[2]}",
            f"X{signed(TOKEN)}",
            signed(""),
            f"{TOKEN}.ä",
            "ä.ä",
            ".",
            "",
        ],
    )
    def test_anything_else_is_refused_and_not_repeated(self, value: str) -> None:
        with pytest.raises(InvalidToken) as caught:
            read_signed(value, SECRET)
        assert caught.value.message == "The session's signature is not right."

    def test_every_bit_of_the_signature_counts(self) -> None:
        token, _, signature = signed(TOKEN).partition(".")
        octets = base64.b64decode(signature)
        for bit in range(256):
            altered = bytearray(octets)
            altered[bit // 8] ^= 1 << bit % 8
            with pytest.raises(InvalidToken):
                read_signed(f"{token}.{base64.b64encode(altered).decode()}", SECRET)


WHERE = LegacySessions(
    sessions='"session"',
    token="token",
    expires_at='"expiresAt"',
    user_id='"userId"',
    deleted_at=None,
    users="users",
    id="id",
    of_user={"banned": "banned", "ban_expires": '"banExpires"', "role": "role"},
)


@pytest.fixture
async def engine(
    anyio_backend: object, server: Server, make_database: Callable[[str | None], str]
) -> AsyncIterator[AsyncEngine]:
    """An engine as the server's; Ada has a session for an hour more."""
    engine = create_engine(make_migrated(server, make_database), server_settings=served_from("public"), pool_size=5)
    await execute(
        engine,
        'ALTER TABLE users ADD banned boolean, ADD "banExpires" timestamp, ADD role text, ADD status text, '
        "ADD deactivated_at timestamptz, ADD role_slugs text[]",
        "INSERT INTO users (id, name, email) VALUES ('ada', 'Ada', 'ada@example.com')",
        'CREATE TABLE "session" (id text PRIMARY KEY, token text NOT NULL UNIQUE, "expiresAt" timestamptz NOT NULL, '
        '"userId" text NOT NULL REFERENCES users ON DELETE CASCADE, "impersonatedBy" text, "deletedAt" timestamp)',
        f"INSERT INTO \"session\" VALUES ('s1', '{TOKEN}', now() + interval '1 hour', 'ada')",
    )
    yield engine
    await engine.dispose()


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def find(engine: AsyncEngine, token: str = TOKEN, where: LegacySessions = WHERE) -> LegacySession:
    async def locate(_: AsyncEngine) -> LegacySessions:
        return where

    return await SessionFinder(locate).find(engine, token)


@pytest.mark.anyio
class TestFind:
    async def test_a_live_session_says_whose_it_is_and_until_when(self, engine: AsyncEngine) -> None:
        found = await find(engine)
        assert (found.sub, found.roles) == ("ada", frozenset())
        assert abs(found.expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=2)

    async def test_a_time_without_zone_is_utc(self, engine: AsyncEngine) -> None:
        await execute(
            engine,
            'ALTER TABLE "session" ALTER "expiresAt" TYPE timestamp',
            'UPDATE "session" SET "expiresAt" = \'2999-01-01\'',
        )
        assert (await find(engine)).expires_at == datetime(2999, 1, 1, tzinfo=UTC)

    async def test_one_that_never_ends_counts(self, engine: AsyncEngine) -> None:
        await execute(engine, 'UPDATE "session" SET "expiresAt" = \'infinity\'')
        found = await find(engine)
        assert found.claims().exp == found.expires_at.timestamp() > 250_000_000_000

    @pytest.mark.parametrize("ends", ["now()", "now() - interval '1 second'", "'-infinity'"])
    async def test_an_expired_one_is_refused(self, engine: AsyncEngine, ends: str) -> None:
        await execute(engine, f'UPDATE "session" SET "expiresAt" = {ends}')
        with pytest.raises(InvalidToken) as caught:
            await find(engine)
        assert caught.value.message == NOWHERE

    async def test_one_that_was_signed_out_is_refused(self, engine: AsyncEngine) -> None:
        await execute(engine, 'DELETE FROM "session"')
        with pytest.raises(InvalidToken):
            await find(engine)

    @pytest.mark.parametrize(
        "token", ["", TOKEN.lower(), TOKEN[:-1], "' OR true --", "%", "a\0b", "é", f" {TOKEN}", "x" * 256, "a\n"]
    )
    async def test_an_unknown_token_is_refused_in_the_same_words(self, engine: AsyncEngine, token: str) -> None:
        with pytest.raises(InvalidToken) as caught:
            await find(engine, token)
        assert caught.value.message == NOWHERE

    async def test_an_impersonated_one_is_that_of_the_impersonated(self, engine: AsyncEngine) -> None:
        await execute(engine, 'UPDATE "session" SET "impersonatedBy" = \'admin\'')
        assert (await find(engine)).sub == "ada"

    async def test_one_that_the_app_marked_deleted_is_refused(self, engine: AsyncEngine) -> None:
        where = replace(WHERE, deleted_at='"deletedAt"')
        assert (await find(engine, where=where)).sub == "ada"
        await execute(engine, 'UPDATE "session" SET "deletedAt" = now()')
        with pytest.raises(InvalidToken):
            await find(engine, where=where)

    async def test_nothing_is_written(self, engine: AsyncEngine) -> None:
        state = text('SELECT s::text || u::text FROM "session" s, users u')
        async with engine.connect() as connection:
            before = await connection.scalar(state)
            await find(engine)
            assert await connection.scalar(state) == before


@pytest.mark.anyio
class TestOfTheUser:
    @pytest.mark.parametrize(
        ("column", "banned"),
        [
            ("banned = true", True),
            ("banned = true, \"banExpires\" = now() at time zone 'UTC' + interval '1 hour'", True),
            ("banned = true, \"banExpires\" = now() at time zone 'UTC' - interval '1 hour'", False),
            ("banned = false", False),
            ("banned = NULL", False),
        ],
    )
    async def test_a_ban_counts_until_it_runs_out(self, engine: AsyncEngine, column: str, banned: bool) -> None:
        await execute(engine, f"UPDATE users SET {column}")
        if not banned:
            assert (await find(engine)).sub == "ada"
            return
        with pytest.raises(AccountDisabled):
            await find(engine)

    @pytest.mark.parametrize("column", ["status = 'deactivated'", "status = 'banned'", "deactivated_at = now()"])
    async def test_who_is_deactivated_in_auther_s_template_is_shut_out(self, engine: AsyncEngine, column: str) -> None:
        where = replace(WHERE, of_user={"status": "status", "deactivated_at": "deactivated_at"})
        await execute(engine, "UPDATE users SET status = 'active'")
        assert (await find(engine, where=where)).sub == "ada"
        await execute(engine, f"UPDATE users SET {column}")
        with pytest.raises(AccountDisabled):
            await find(engine, where=where)

    async def test_roles_are_those_of_the_old_app(self, engine: AsyncEngine) -> None:
        await execute(engine, "UPDATE users SET role = 'admin, editor', role_slugs = '{owner}'")
        assert (await find(engine)).roles == {"admin", "editor"}
        where = replace(WHERE, of_user={"role_slugs": "role_slugs"})
        assert (await find(engine, where=where)).roles == {"owner"}
        assert (await find(engine, where=replace(WHERE, of_user={}))).roles == frozenset()


@pytest.mark.anyio
class TestTheRow:
    async def test_it_is_read_and_nothing_in_it_refreshed(self, engine: AsyncEngine) -> None:
        session = await find(engine)
        user = await provision(engine, session.claims(), ShadowRules())
        assert (user.id, user.name, user.email, user.identity_updated_at) == ("ada", "Ada", "ada@example.com", None)

    async def test_who_is_soft_deleted_stays_out(self, engine: AsyncEngine) -> None:
        session = await find(engine)
        await soft_delete(engine, "ada")
        with pytest.raises(AccountDeleted):
            await provision(engine, session.claims(), ShadowRules())

    async def test_who_goes_between_two_looks_is_not_made_again(self, engine: AsyncEngine) -> None:
        session = await find(engine)
        await execute(engine, "DELETE FROM users")
        with pytest.raises(NoProfile):
            await provision(engine, session.claims(), ShadowRules())


@pytest.mark.anyio
class TestWhereTheyAre:
    async def test_it_is_asked_until_it_is_known_and_then_no_more(self, engine: AsyncEngine) -> None:
        asked: list[AsyncEngine] = []

        async def locate(engine: AsyncEngine) -> LegacySessions:
            asked.append(engine)
            if len(asked) == 1:
                raise NotMigrated("not yet")
            return WHERE

        finder = SessionFinder(locate)
        with pytest.raises(NotMigrated):
            await finder.find(engine, TOKEN)
        for _ in range(3):
            assert (await finder.find(engine, TOKEN)).sub == "ada"
        assert asked == [engine, engine]

    async def test_when_retire_takes_them_away_meanwhile_they_have_ended(self, engine: AsyncEngine) -> None:
        async def locate(_: AsyncEngine) -> LegacySessions:
            return WHERE

        finder = SessionFinder(locate)
        assert (await finder.find(engine, TOKEN)).sub == "ada"
        await execute(engine, "CREATE SCHEMA retired_auth", 'ALTER TABLE "session" SET SCHEMA retired_auth')
        with pytest.raises(InvalidToken) as caught:
            await finder.find(engine, TOKEN)
        assert caught.value.message == "The old sessions have ended: sign in at the identity provider."

    async def test_connections_that_know_the_types_from_before_go_on(self, engine: AsyncEngine) -> None:
        before = await asyncio.gather(*(find(engine) for _ in range(20)))
        await execute(engine, 'ALTER TABLE "session" ALTER "expiresAt" TYPE timestamptz(3)')
        after = await asyncio.gather(*(find(engine) for _ in range(20)))
        assert {found.sub for found in (*before, *after)} == {"ada"}
