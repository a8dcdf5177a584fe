"""Databases as Better Auth left them, and roles, on every server or on one."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from tests.cutover.commands import migrate
from tests.cutover.witness import Witness
from tests.postgres import Server

_numbers = itertools.count()


@pytest.fixture
def make_role(server: Server) -> Iterator[Callable[[], str]]:
    """Make roles that may log in; they are dropped after the databases that `database` gives."""
    names: list[str] = []

    def make() -> str:
        names.append(f"role{os.getpid()}_{next(_numbers)}")
        server.execute(f"CREATE ROLE {names[-1]} LOGIN")
        return names[-1]

    yield make
    for name in names:
        server.execute(f"DROP ROLE {name}")


@pytest.fixture
def database(server: Server, make_role: Callable[[], str], make_database: Callable[[str | None], str]) -> Witness:
    """A database in the layout of Auther's template, full of rows that Better Auth made."""
    return Witness(server, make_database("plural_snake"))


@pytest.fixture
def load(
    server: Server, make_role: Callable[[], str], make_database: Callable[[str | None], str]
) -> Callable[[str | None], Witness]:
    """Load a fixture by its name; None is a database without a table."""
    return lambda name: Witness(server, make_database(name))


@pytest.fixture
def load_retired(server: Server, load: Callable[[str | None], Witness]) -> Callable[..., Witness]:
    """Load a fixture with what a script made in it, after `retire` with options: gone once, and copied from then on."""

    def loaded(fixture: str, script: str, *options: str) -> Witness:
        name = f"retired_{hashlib.sha256(repr((fixture, script, options)).encode()).hexdigest()[:16]}"
        if name not in server.templates:
            database = load(fixture)
            database.run(script)
            done = migrate(database.url, "retire", *options)
            assert done.code == 0, done.text
            server.keep_as_template(database.url, name)
        return load(name)

    return loaded


@pytest.fixture
def empty(server: Server, make_role: Callable[[], str], make_database: Callable[[str | None], str]) -> Witness:
    """A database without a table."""
    return Witness(server, make_database(None))
