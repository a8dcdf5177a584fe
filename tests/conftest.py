"""Fixtures every room's tests share: servers, databases."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest

from app.embedded import programs, stop
from tests.postgres import SYSTEM, Server, SystemServer, offered, start_embedded

FAULTS = {"test_killed.py", "test_faults.py", "test_around.py", "test_pooler.py"}
"""Files whose tests start, kill and starve servers of their own."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves to `make test-faults`."""
    for item in items:
        if item.path.name in FAULTS:
            item.add_marker(pytest.mark.faults)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A server that a test makes configures the process's logging, on streams that end with the test."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder with a path short enough for a Unix socket."""
    path = Path(mkdtemp(prefix="shadow"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session", params=offered())
def server(request: pytest.FixtureRequest, folder: Path) -> Iterator[Server]:
    """Each PostgreSQL server of the machine in turn."""
    if request.param == "embedded":
        yield start_embedded(folder)
        stop(folder / "embedded")
        # it may be started again, and then with nothing in it
        shutil.rmtree(folder / "embedded", ignore_errors=True)
    elif request.param == "external":
        # pg_dump takes any server that is no newer than itself
        yield Server("external", programs(), os.environ["TEST_DATABASE_URL"])
    else:
        (found,) = (path for path in SYSTEM if f"system{path.parent.name}" == request.param)
        system = SystemServer(found)
        yield system.start()
        system.stop()


@pytest.fixture
def make_database(server: Server) -> Iterator[Callable[[str | None], str]]:
    """Make databases that are dropped after the test: `make_database()` or `make_database("plural_snake")`."""
    urls: list[str] = []

    def make(fixture: str | None = None) -> str:
        urls.append(server.make_database(fixture))
        return urls[-1]

    yield make
    for url in urls:
        server.drop_database(url)
