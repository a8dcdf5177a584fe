"""Fixtures every room's tests share: servers, databases."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from app.embedded import programs, stop
from tests.postgres import SYSTEM, Server, SystemServer, new_folder, offered, start_embedded

FAULTS = {"test_killed.py", "test_faults.py", "test_around.py", "test_pooler.py"}
"""Files whose tests start, kill and starve servers of their own."""
LOAD = {"test_contention.py", "test_storm.py"}
"""Files whose tests do as much at once as TEST_SCALE says."""
BENCHMARKS = {"test_bench_cutover.py", "test_bench_me.py"}
BREADTH = {"test_each_finding.py", "test_obstacles.py", "test_partitions_parts.py", "test_remedies.py"}
"""Files whose tests do one thing with every finding, obstacle, kind of object: what is found, its remedy, and the way
that is free then."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-snapshots", action="store_true", help="write tests/cutover/snapshots anew")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what `make test` leaves to other verbs, and leave out what one server tells as well as several."""
    for item in items:
        if item.path.name in FAULTS:
            item.add_marker(pytest.mark.faults)
        if item.path.name in BENCHMARKS:
            item.add_marker(pytest.mark.benchmarks)
        if item.path.name in BREADTH or "TestOtherLayouts" in item.nodeid:
            item.add_marker(pytest.mark.breadth)
    if repeated := [item for item in items if is_repeated(item)]:
        config.hook.pytest_deselected(items=repeated)
        items[:] = [item for item in items if item not in set(repeated)]


def is_repeated(item: pytest.Item) -> bool:
    """Whether it tests HTTP or load once more on another PostgreSQL.

    The rows below them are tested on each, in tests/users, and `make test-load` puts all of the load on each.
    """
    callspec = getattr(item, "callspec", None)
    server = callspec.params.get("server") if callspec is not None else None
    http = item.path.parent.name == "api" or item.path.name == "test_asgi.py"
    load = item.path.name in LOAD and "TEST_SCALE" not in os.environ
    return (http or load) and server not in (None, offered()[0])


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
    """A folder for the data of a server."""
    path = new_folder("shadow")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def start_server(folder: Path) -> Iterator[Callable[[str], Server]]:
    """Return a server of the machine by its name, started when it is first asked for and stopped at the very end."""
    with ExitStack() as stopping:
        yield cache(lambda name: _started(name, folder, stopping))


def _started(name: str, folder: Path, stopping: ExitStack) -> Server:
    if name == "embedded":
        stopping.callback(stop, folder / "embedded")
        return start_embedded(folder)
    if name == "external":
        # pg_dump takes any server that is no newer than itself
        return Server(name, programs(), os.environ["TEST_DATABASE_URL"])
    (found,) = (path for path in SYSTEM if f"system{path.parent.name}" == name)
    system = SystemServer(found)
    stopping.callback(system.stop)
    return system.start()


@pytest.fixture(scope="session", params=offered())
def server(request: pytest.FixtureRequest, start_server: Callable[[str], Server]) -> Server:
    """Each PostgreSQL server of the machine in turn."""
    return start_server(request.param)


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
