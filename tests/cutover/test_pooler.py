"""A real PgBouncer between: the cutover says so before it takes a lock, and asks for the direct address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from app.cutover.steps import SESSION
from tests import pgbouncer
from tests.cutover.commands import Outcome, alembic, migrate, plan, shadow
from tests.cutover.witness import Witness

CODE = "transaction-pooler"
PASSES = f"ignore_startup_parameters = {','.join([*SESSION, 'search_path'])}"
"""PgBouncer's option by which it takes the parameters that the cutover sends, and forgets them."""

pytestmark = [
    pytest.mark.parametrize("server", ["embedded"], indirect=True),
    pgbouncer.INSTALLED,
]


@pytest.fixture
def bounced(database: Witness) -> Iterator[Callable[..., str]]:
    """Start PgBouncer before the database: `bounced("session", "option = value")` is the address through it."""
    with pgbouncer.before(database.url) as start:
        yield start


def ways(url: str) -> Iterator[Outcome]:
    """Go all the ways that would change something."""
    yield migrate(url, "retire")
    yield alembic(url, "upgrade", "0002_retire")
    yield shadow(url, "undo", "--yes")
    yield alembic(url, "downgrade", "-1")


class TestWhatAPoolerDoesNotTake:
    @pytest.mark.parametrize(("mode", "options"), [("session", ()), ("transaction", ()), ("statement", (PASSES,))])
    def test_the_answer_is_known_for_a_poolers(
        self, bounced: Callable[..., str], mode: str, options: tuple[str, ...]
    ) -> None:
        url = bounced(mode, *options)
        for failed in (plan(url, "retire"), *ways(url)):
            assert failed.code == 1, failed.text
            assert "connection pooler" in failed.text
            assert "direct address" in failed.text


@pytest.mark.parametrize("mode", ["session", "transaction"])
class TestAPoolerThatTakesAll:
    def test_every_way_is_refused_again_and_again_and_leaves_nothing(
        self, database: Witness, bounced: Callable[..., str], mode: str
    ) -> None:
        url, before = bounced(mode, PASSES), database.dump()
        for _ in range(2):
            for refused in ways(url):
                assert (refused.code, CODE in refused.text) == (2, True), refused.text
        assert database.dump() == before
        assert database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0

    def test_the_finding_has_the_address_that_works(
        self, database: Witness, bounced: Callable[..., str], mode: str
    ) -> None:
        url = bounced(mode, PASSES)
        for _ in range(2):
            (found,) = plan(url, "retire").findings(CODE)
            assert found["level"] == "refuse"
        address = re.search(r"host=(\S+) port=(\d+)", found["remedy"])
        assert address
        direct = f"postgresql://postgres@/{database.name}?host={address[1]}&port={address[2]}"
        assert plan(direct, "retire").findings(CODE) == []
        assert migrate(direct, "retire").code == 0


class TestAccepted:
    """What gives every connection a server process of its own is no pooler to us, and cannot be told from one."""

    def test_it_goes_the_whole_way_and_back(self, database: Witness, bounced: Callable[..., str]) -> None:
        url, before = bounced("session", PASSES), database.portrait()
        done = migrate(url, "retire", "--accept", CODE)
        assert done.code == 0, done.text
        assert database.value("SELECT accepted FROM shadow_cutover ORDER BY id DESC LIMIT 1") == [CODE]
        for _ in range(2):
            undone = shadow(url, "undo", "--yes", "--accept", CODE)
            assert undone.code == 0, undone.text
        assert database.portrait() == before


class TestDirect:
    def test_it_is_not_taken_for_one(self, database: Witness) -> None:
        assert plan(database.url, "retire").findings(CODE) == []
