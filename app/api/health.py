"""GET /livez and /readyz: does the process turn, and can it do its work.

The promise: both answer within `LIMIT` seconds whatever hangs, without a token, and /readyz names the part at fault.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal, Protocol

import asyncpg
from litestar import Controller, Response, get
from litestar.datastructures import CacheControlHeader
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from msgspec import Meta, Struct
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from app.api.auth import PUBLIC
from app.api.problems import RETRY_AFTER, answers
from app.errors import KeysUnavailable, NotMigrated, ShadowError
from app.idp.keys import KeySetState
from app.users.shadow import NotWritable, check_shape

_log = logging.getLogger(__name__)
LIMIT = 3.0
NO_STORE = CacheControlHeader(no_store=True)


class Keys(Protocol):
    """What is asked of a key set: `RemoteKeySet`."""

    @property
    def state(self) -> KeySetState:
        """Where it stands."""

    async def ensure(self) -> None:
        """Fetch it unless it can be served.

        Raises:
            KeysUnavailable: it cannot be had.
        """


class Alive(Struct):
    """The answer of /livez."""

    status: Literal["ok"] = "ok"


class Readiness(Struct):
    """The answer of /readyz: `ok`, or what is wrong, part by part."""

    status: Literal["ok", "unavailable"]
    database: Annotated[str, Meta(examples=["ok", "unreachable", "not_migrated", "read_only", "not_permitted"])]
    """`not_permitted`: the role may not read and write `users`."""
    keys: Annotated[str, Meta(examples=["fresh", "stale", "empty", "dead"])]
    """Fresh and stale ones are served."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the server stands on."""

    database: AsyncEngine
    keys: Keys

    async def examine(self) -> Readiness:
        """Look at all parts at once."""
        database, keys = await asyncio.gather(self._database(), self._keys())
        ready = database == "ok" and keys in (KeySetState.FRESH.value, KeySetState.STALE.value)
        return Readiness("ok" if ready else "unavailable", database, keys)

    async def _database(self) -> str:
        try:
            await _within_limit(check_shape(self.database))
        except NotMigrated as error:
            return error.code
        except NotWritable as error:
            _log.warning("not ready: %s", error.message)
            return error.fault
        except (OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, ShadowError):
            return "unreachable"
        return "ok"

    async def _keys(self) -> str:
        # Nobody sends requests to a server that is not ready: if this did not fetch, nothing would.
        try:
            async with asyncio.timeout(LIMIT):
                await self.keys.ensure()
        except (KeysUnavailable, TimeoutError):
            pass
        return self.keys.state.value


_ABANDONED: set[asyncio.Task[None]] = set()
"""What is still being given up; the loop itself would forget it."""


async def _within_limit(looking: Coroutine[Any, Any, None]) -> None:
    """Wait for the database at most `LIMIT` seconds: to end politely, its connection would wait for it some more.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.create_task(looking)
    try:
        done, _ = await asyncio.wait({task}, timeout=LIMIT)
    finally:
        if not task.done():
            _ABANDONED.add(task)
            task.add_done_callback(_forget)
            task.cancel()
    if not done:
        raise TimeoutError
    task.result()


def _forget(task: asyncio.Task[None]) -> None:
    _ABANDONED.discard(task)
    if not task.cancelled():
        task.exception()  # that nobody asked for it would be logged


class HealthController(Controller):
    """The routes."""

    tags = ("Health",)
    security = PUBLIC
    cache_control = NO_STORE

    @get("/livez", summary="Is the process alive?", exclude_from_auth=True, responses=answers())
    async def live(self) -> Alive:
        """Answer without touching anything."""
        return Alive()

    @get(
        "/readyz",
        summary="Can it serve requests?",
        exclude_from_auth=True,
        responses={
            **answers(),
            503: ResponseSpec(Readiness, generate_examples=False, description="A part is at fault"),
        },
    )
    async def ready(self, parts: NamedDependency[Parts]) -> Response[Readiness]:
        """Look at the database and the key set, and say which is at fault."""
        readiness = await parts.examine()
        if readiness.status == "ok":
            return Response(readiness)
        return Response(
            readiness, status_code=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER)}
        )
