"""An engine on a migrated database, on every server, and Claims to state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from app.db import create_engine
from tests.migrated import make_migrated
from tests.postgres import Server


@pytest.fixture
async def engine(
    anyio_backend: object, server: Server, make_database: Callable[[str | None], str]
) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(make_migrated(server, make_database), pool_size=10, max_overflow=0)
    yield engine
    await engine.dispose()
