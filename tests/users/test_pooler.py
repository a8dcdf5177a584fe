"""The server's database through a real PgBouncer: every statement finds its table, and is there to be executed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import await_

from app.api.problems import is_database_down
from app.asgi import served_from
from app.db import create_engine
from app.errors import NotMigrated
from app.idp.events import IdpEvent
from app.users.erasure import erase, survey
from app.users.events import Outcome, apply_event
from app.users.identity import ShadowRules
from app.users.rows import find, sqlstate
from app.users.shadow import check_shape, edit, provision
from tests import pgbouncer
from tests.migrated import make_migrated
from tests.postgres import Server
from tests.users.stated import MONDAY, claims

FORGETS = "ignore_startup_parameters = search_path,statement_timeout,TimeZone"
"""PgBouncer's option by which it takes what the server sends when it connects, and forgets it."""
RULES = ShadowRules()

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("server", ["embedded"], indirect=True),
    pgbouncer.INSTALLED,
]


@pytest.fixture
def direct(server: Server, make_database: Callable[[str | None], str]) -> str:
    """The address of the database without the pooler."""
    return make_migrated(server, make_database)


@pytest.fixture
def bounced(direct: str) -> Iterator[Callable[..., str]]:
    with pgbouncer.before(direct) as start:
        yield start


def served(url: str) -> AsyncEngine:
    return create_engine(
        url, server_settings=served_from("public", 10), through_pooler=True, pool_size=10, max_overflow=0
    )


@pytest.fixture
async def engine(anyio_backend: object, bounced: Callable[..., str]) -> AsyncIterator[AsyncEngine]:
    """The server's engine through a pooler that has three server processes for it, and takes none of its parameters."""
    engine = served(bounced("transaction", "default_pool_size = 3"))
    yield engine
    await engine.dispose()


async def value(engine: AsyncEngine, query: str) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(text(query))).scalar_one()


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


def sync_pool(engine: AsyncEngine) -> QueuePool:
    pool = engine.sync_engine.pool
    assert isinstance(pool, QueuePool)
    return pool


def deletion(sub: str, seconds: int = 60) -> IdpEvent:
    stated_at = datetime.fromtimestamp(MONDAY + seconds, UTC)
    return IdpEvent(
        id=f"evt-{sub}", type="user.deleted", kind="deleted", sub=sub, stated_at=stated_at, members={}, is_test=False
    )  # fmt: skip


class TestARequest:
    async def test_many_at_once_make_refresh_and_read_their_rows(self, engine: AsyncEngine) -> None:
        async def one(number: int) -> str:
            user = await provision(engine, claims(f"u{number % 20}", iat=MONDAY + number, name=f"N{number}"), RULES)
            found, disabled = await find(engine, user.id)
            assert found is not None
            return f"{found.id} {disabled}"

        answers = Counter(await asyncio.gather(*(one(number) for number in range(300))))
        assert answers == {f"u{number} False": 15 for number in range(20)}
        assert await value(engine, "SELECT name FROM users WHERE id = 'u7'") == "N287"

    async def test_a_row_that_one_statement_makes_is_there_for_all(self, engine: AsyncEngine) -> None:
        await provision(engine, claims(), RULES)
        assert await value(engine, "SELECT name FROM users WHERE id = 'ada'") == "Ada Lovelace"

    async def test_events_edits_and_erasure_go_through(self, engine: AsyncEngine) -> None:
        await asyncio.gather(*(provision(engine, claims(f"u{number}"), RULES) for number in range(30)))
        outcomes = await asyncio.gather(
            *(apply_event(engine, deletion(f"u{number}"), RULES, on_deleted="erase") for number in range(20))
        )
        assert set(outcomes) == {Outcome.applied}
        await edit(engine, "u20", {"onboarding_completed_at": datetime.now(UTC)})
        assert (await survey(engine, "u21")).found
        await erase(engine, "u21")
        assert await value(engine, "SELECT count(*) FROM users WHERE deleted_at IS NOT NULL") == 21
        assert await value(engine, "SELECT count(*) FROM users WHERE onboarding_completed_at IS NOT NULL") == 1

    async def test_what_fails_is_what_it_is_and_the_next_goes_through(self, engine: AsyncEngine) -> None:
        await check_shape(engine, writes=True)
        await execute(engine, "ALTER TABLE users RENAME TO elsewhere")
        for _ in range(12):
            with pytest.raises(NotMigrated):
                await provision(engine, claims(), RULES)
        await execute(engine, "ALTER TABLE elsewhere RENAME TO users")
        assert (await provision(engine, claims(), RULES)).name == "Ada Lovelace"

    async def test_nothing_that_was_prepared_stays_with_a_process(self, engine: AsyncEngine) -> None:
        await asyncio.gather(*(provision(engine, claims(f"u{number}"), RULES) for number in range(30)))
        counts = [await value(engine, "SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") for _ in range(6)]
        assert set(counts) == {0}


@dataclass
class Loss:
    """Ends every server process behind the pooler, once, after a number of statements of an engine."""

    server: Server
    url: str
    turns: int
    """How often the loop may turn afterwards: so much of the news has come when the next statement is sent."""
    statements: int = 0
    """After which it happens; 0 for not yet."""
    seen: int = 0

    def listen(self, engine: AsyncEngine) -> None:
        event.listen(engine.sync_engine, "after_cursor_execute", self._count)

    def after(self, statements: int) -> None:
        self.statements, self.seen = statements, 0

    @property
    def happened(self) -> bool:
        return 0 < self.statements <= self.seen

    def _count(self, *_: object) -> None:
        self.seen += 1
        if self.seen == self.statements:
            self.server.psql(
                self.url,
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type = 'client backend'",
            )
            for _turn in range(self.turns):
                await_(asyncio.sleep(0))


@pytest.fixture
async def loss(request: pytest.FixtureRequest, engine: AsyncEngine, server: Server, direct: str) -> Loss:
    await provision(engine, claims(), RULES)  # now it knows that there is a pooler
    loss = Loss(server, direct, request.param)
    loss.listen(engine)
    return loss


@pytest.mark.parametrize("loss", range(5), indirect=True)
class TestALostConnection:
    async def test_between_any_two_statements_and_before_commit_it_is_tried_again(
        self, engine: AsyncEngine, loss: Loss
    ) -> None:
        lost = 0
        for number in range(1, 10):
            for sub in ("ada", f"new{number}"):
                loss.after(number)
                assert (await provision(engine, claims(sub), RULES)).email == f"{sub}@example.com"
                lost += loss.happened
                assert sync_pool(engine).checkedout() == 0
        # where the row is there, set_config and SELECT; of a new one another SELECT, and set_config and INSERT
        assert lost >= 2 + 5

    async def test_what_is_not_tried_again_says_that_the_database_is_away(
        self, engine: AsyncEngine, loss: Loss
    ) -> None:
        for number in (1, 2):
            loss.after(number)
            with pytest.raises(DBAPIError) as caught:
                await find(engine, "ada")
            assert loss.happened
            assert caught.value.connection_invalidated
            assert is_database_down(caught.value)
            assert sync_pool(engine).checkedout() == 0


class TestCommitOfOneStatement:
    AT_COMMIT = (
        "CREATE FUNCTION public.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON public.users DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION public.at_commit()",
    )
    INSERT = "INSERT INTO users (id, name, email, email_verified) VALUES ('x', '', 'x@x', false)"

    async def alone(self, engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.exec_driver_sql(self.INSERT)

    async def prepare(self, engine: AsyncEngine, does: str) -> None:
        await execute(engine, *(statement.format(does) for statement in self.AT_COMMIT))

    async def test_what_postgresql_says_of_the_row_is_said_of_the_row(self, engine: AsyncEngine) -> None:
        await self.prepare(engine, "RAISE unique_violation;")
        for _ in range(12):
            with pytest.raises(IntegrityError) as caught:
                await self.alone(engine)
            assert (sqlstate(caught.value), caught.value.connection_invalidated) == ("23505", False)
        assert sync_pool(engine).checkedout() == 0
        assert await value(engine, "SELECT count(*) FROM users") == 0

    async def test_no_answer_is_waited_for_as_long_as_for_any(
        self, anyio_backend: object, bounced: Callable[..., str]
    ) -> None:
        url = bounced("transaction", "default_pool_size = 3")
        engine = create_engine(
            url, server_settings=served_from("public", 10), through_pooler=True, command_timeout=0.5,
            pool_size=1, max_overflow=0,
        )  # fmt: skip
        await self.prepare(engine, "PERFORM pg_sleep(4);")
        begun = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            await self.alone(engine)
        assert time.monotonic() - begun < 3
        assert is_database_down(caught.value)
        assert await value(engine, "SELECT 1") == 1
        await engine.dispose()


class TestParameters:
    BESIDE = (
        "CREATE SCHEMA public_shadow",
        "ALTER TABLE public.users RENAME TO people",
        "CREATE TABLE public.users (id int)",
        "CREATE VIEW public_shadow.users AS SELECT * FROM public.people",
    )

    @pytest.mark.parametrize("options", [(), (FORGETS,)], ids=["refused", "forgotten"])
    @pytest.mark.parametrize("mode", ["session", "transaction"])
    async def test_each_statement_has_them(
        self, anyio_backend: object, bounced: Callable[..., str], mode: str, options: tuple[str, ...]
    ) -> None:
        engine = served(bounced(mode, *options))
        await execute(engine, *self.BESIDE)
        await provision(engine, claims(), RULES)
        found, _ = await find(engine, "ada")
        assert found is not None
        assert await value(engine, "SHOW TimeZone") == "UTC"
        assert await value(engine, "SHOW statement_timeout") == "10s"
        assert await value(engine, "SELECT count(*) FROM public.people") == 1
        await engine.dispose()

    async def test_they_end_with_the_transaction(self, anyio_backend: object, bounced: Callable[..., str]) -> None:
        url = bounced("transaction", "default_pool_size = 1")
        ours, other = served(url), create_engine(url, through_pooler=True)
        assert await value(ours, "SHOW statement_timeout") == "10s"
        assert await value(other, "SHOW statement_timeout") == "0"
        await ours.dispose()
        await other.dispose()


class TestDirect:
    async def test_one_statement_alone_has_no_transaction_around_it(self, anyio_backend: object, direct: str) -> None:
        engine = served(direct)
        await provision(engine, claims(), RULES)
        sent: list[str] = []
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *what: sent.append(what[2]))
        await find(engine, "ada")
        assert len(sent) == 1
        await engine.dispose()
