"""A real PgBouncer between: the cutover says so before it takes a lock, and asks for the direct address."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.cutover.steps import SESSION
from tests.cutover.commands import Outcome, alembic, migrate, plan, shadow
from tests.cutover.witness import Witness

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CODE = "transaction-pooler"
PASSES = f"ignore_startup_parameters = {','.join([*SESSION, 'search_path'])}"
"""PgBouncer's option by which it takes the parameters that the cutover sends, and forgets them."""
DEADLINE = 10.0

pytestmark = [
    pytest.mark.parametrize("server", ["embedded"], indirect=True),
    pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)"),
]


@pytest.fixture
def bounced(database: Witness) -> Iterator[Callable[..., str]]:
    """Start PgBouncer before the database: `bounced("session", "option = value")` is the address through it."""
    assert PROGRAM
    sockets = parse_qs(urlsplit(database.url).query)["host"][0]
    folder = Path(tempfile.mkdtemp(prefix="pool"))
    # it refuses to run as root; who owns the server's folder may enter it
    user = os.stat(sockets).st_uid if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, user, -1)
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str, *options: str) -> str:
        lines = (
            "[databases]", f"* = host={sockets} user=postgres",
            "[pgbouncer]", "listen_addr =", f"unix_socket_dir = {folder}", "listen_port = 6432", "auth_type = any",
            f"pool_mode = {mode}", *options,
        )  # fmt: skip
        (folder / "ini").write_text("\n".join(lines))
        started.append(subprocess.Popen([PROGRAM, "-q", folder / "ini"], user=user))
        end = time.monotonic() + DEADLINE
        while not (folder / ".s.PGSQL.6432").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        return f"postgresql://postgres@/{database.name}?host={folder}&port=6432"

    yield start
    for process in started:
        process.terminate()
        process.wait(DEADLINE)
    shutil.rmtree(folder)


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
