"""What the server cannot give: room, connections, time, privileges; and others who want the same at the same time.

In each the command ends with PostgreSQL's own sentence and what to do, the database is as it was, and when the fault is
mended the next run finishes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cutover.commands import PROJECT, Outcome, alembic, migrate, plan, shadow
from tests.cutover.layouts import LAYOUTS
from tests.cutover.obstacles import hand_over, refusals
from tests.cutover.test_locks import DEADLINE, holding, until
from tests.cutover.witness import OURS, Witness, apart_from_names_of_partitions
from tests.postgres import Server

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

UUID = "uuid_kysely"
TEXT = "kysely_singular"
MANY = """INSERT INTO "user" (id, name, email, "emailVerified", "banReason")
SELECT {id}, 'Somebody', n || '@many.example.com', true, repeat('x', 40) FROM generate_series(1, 2000) n"""
"""Users who need some 200 kB."""
MAKES_IDS = {TEXT: "'many-' || n", UUID: "gen_random_uuid()"}
MOVED = """ALTER TABLE "user" SET TABLESPACE {disk}; ALTER INDEX user_pkey SET TABLESPACE {disk}"""
KEPT = "ALTER DATABASE {name} SET TABLESPACE {disk}"
"""With everything in it; nobody may be connected meanwhile."""


@dataclass(frozen=True)
class Disk:
    """A tablespace on a file system of its own."""

    name: str
    folder: Path

    @contextmanager
    def almost_full(self) -> Iterator[None]:
        """Leave room for 64 kB until the end of the block."""
        ballast = self.folder / "ballast"
        ballast.write_bytes(b"")
        free = shutil.disk_usage(self.folder).free
        with ballast.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, free - 65_536)
        try:
            yield
        finally:
            ballast.unlink()


@pytest.fixture
def disk(server: Server, folder: Path) -> Iterator[Disk]:
    """A disk that can be filled."""
    path = folder / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        path.rmdir()
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    inner = path / "tablespace"
    inner.mkdir()
    owner = Path(server.psql(server.url, "SHOW data_directory").strip()).stat()
    os.chown(inner, owner.st_uid, owner.st_gid)
    server.execute(f"CREATE TABLESPACE small LOCATION '{inner}'")
    yield Disk("small", path)
    server.execute("DROP TABLESPACE small")
    subprocess.run(["umount", path], check=True)
    path.rmdir()


class TestDiskFull:
    @pytest.mark.parametrize("name", [TEXT, UUID], ids=["while values are kept", "while ids are written anew"])
    def test_retire_is_undone_and_finishes_when_there_is_room(
        self, disk: Disk, server: Server, make_database: Callable[[str | None], str], name: str
    ) -> None:
        database = Witness(server, make_database(name), LAYOUTS[name].users)
        database.run(MANY.format(id=MAKES_IDS[name]))
        if name == TEXT:
            server.execute(KEPT.format(disk=disk.name, name=database.name))
        else:
            database.run(MOVED.format(disk=disk.name))
        assert migrate(database.url, "adopt").code == 0
        before = database.dump(*OURS)
        with disk.almost_full():
            self.ran_out_of_space(migrate(database.url, "retire"))
            assert database.dump(*OURS) == before
        done = migrate(database.url, "retire")
        assert done.code == 0, done.text
        assert database.value("SELECT count(*) FROM users") > 2000

    def test_undo_is_undone_and_finishes_when_there_is_room(
        self, disk: Disk, server: Server, make_database: Callable[[str | None], str]
    ) -> None:
        database = Witness(server, make_database(UUID), LAYOUTS[UUID].users)
        database.run(MANY.format(id=MAKES_IDS[UUID]))
        database.run(MOVED.format(disk=disk.name))
        assert migrate(database.url, "adopt").code == 0
        adopted = database.portrait()
        assert migrate(database.url, "retire").code == 0
        before = database.dump(*OURS)
        with disk.almost_full():
            self.ran_out_of_space(shadow(database.url, "undo", "--yes"))
            assert database.dump(*OURS) == before
        assert shadow(database.url, "undo", "--yes").code == 0
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(adopted)

    def test_alembic_ends_so_too(self, disk: Disk, server: Server, make_database: Callable[[str | None], str]) -> None:
        database = Witness(server, make_database(TEXT), LAYOUTS[TEXT].users)
        database.run(MANY.format(id=MAKES_IDS[TEXT]))
        assert alembic(database.url, "upgrade", "0001_adopt").code == 0
        server.execute(KEPT.format(disk=disk.name, name=database.name))
        before = database.dump(*OURS)
        with disk.almost_full():
            self.ran_out_of_space(alembic(database.url, "upgrade", "0002_retire"))
            assert database.dump(*OURS) == before
        assert alembic(database.url, "upgrade", "0002_retire").code == 0

    @staticmethod
    def ran_out_of_space(ended: Outcome) -> None:
        """It ends with 1, and says what the server said and what to do."""
        assert ended.code == 1, ended.text
        assert "No space left on device" in ended.text
        assert "53100" in ended.text
        assert "run it again" in ended.text
        assert "Traceback" not in ended.text


class TestOutOfConnections:
    @pytest.mark.parametrize("limit", [0, 1])
    def test_it_is_said_and_changes_nothing(self, database: Witness, make_role: Callable[[], str], limit: int) -> None:
        role = make_role()
        hand_over(database, role)
        database.run(f"ALTER ROLE {role} CONNECTION LIMIT {limit}")
        before = database.dump()
        for ended in (
            migrate(database.seen_by(role), "retire"),
            alembic(database.seen_by(role), "upgrade", "0002_retire"),
        ):
            assert (ended.code, "too many connections" in ended.text) == (1, True), ended.text
            assert limit == 0 or "two connections" in ended.text
        assert database.dump() == before
        database.run(f"ALTER ROLE {role} CONNECTION LIMIT 2")
        assert migrate(database.seen_by(role), "retire").code == 0


class TestCancelledStatement:
    """As by `pg_cancel_backend`, or a `statement_timeout` of the server's."""

    SLOW = """
    CREATE FUNCTION cancelled() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
      IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'retired_auth')
      THEN PERFORM pg_cancel_backend(pg_backend_pid()), pg_sleep(5); END IF; END $$;
    CREATE EVENT TRIGGER cancelled ON ddl_command_end WHEN tag IN ('{tag}') EXECUTE FUNCTION cancelled()"""

    @pytest.mark.parametrize("tag", ["CREATE TABLE AS", "ALTER TABLE"])
    def test_it_is_said_and_the_next_run_finishes(self, database: Witness, tag: str) -> None:
        assert migrate(database.url, "adopt").code == 0
        before = database.dump(*OURS)
        database.run(self.SLOW.format(tag=tag))
        ended = migrate(database.url, "retire")
        assert (ended.code, "57014" in ended.text) == (1, True), ended.text
        database.run("DROP EVENT TRIGGER cancelled; DROP FUNCTION cancelled")
        assert database.dump(*OURS) == before
        assert migrate(database.url, "retire").code == 0


class TestThreeRunners:
    """As when three instances of an app are deployed at once, each of which runs `alembic upgrade head` first."""

    def test_one_works_and_the_others_end_with_3_and_have_nothing_to_do_later(self, database: Witness) -> None:
        command = [sys.executable, "-m", "alembic", "upgrade", "0002_retire"]
        with holding(database, "TABLE users IN ACCESS SHARE MODE"):
            runners = [
                subprocess.Popen(
                    command, cwd=PROJECT, env={**os.environ, "DATABASE_URL": database.url},
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                )
                for _ in range(3)
            ]  # fmt: skip
            until(lambda: sum(runner.poll() is not None for runner in runners) == 2)
            assert sorted(str(runner.poll()) for runner in runners) == ["3", "3", "None"]
        said = [runner.communicate(timeout=DEADLINE)[1] for runner in runners]
        assert sorted(runner.returncode for runner in runners) == [0, 3, 3], said
        assert sum("nother cutover is running" in text for text in said) == 2, said
        actions = database.ask("SELECT action FROM shadow_cutover ORDER BY id")
        assert [row["action"] for row in actions] == ["adopt", "retire"]
        assert alembic(database.url, "upgrade", "0002_retire").code == 0


class TestRoleWithoutPrivileges:
    """Where ids are written anew, tables of the app's own are altered too."""

    def test_everything_lacking_is_named_at_once_and_what_is_printed_is_enough(
        self, server: Server, make_role: Callable[[], str], make_database: Callable[[str | None], str]
    ) -> None:
        database = Witness(server, make_database(UUID), LAYOUTS[UUID].users)
        owner, runner = make_role(), make_role()
        hand_over(database, owner)
        before = database.dump()
        lacking = refusals(plan(database.seen_by(runner), "retire"), "missing-privileges")
        said = " ".join(found["message"] for found in lacking)
        altered = [
            "user",
            *LAYOUTS[UUID].going,
            "comment",
            "invoice",
            "post",
            "profile",
            "projectMember",
            "seat",
            "task",
        ]
        assert [table for table in altered if table not in said] == []
        assert migrate(database.seen_by(runner), "retire").code == 2
        assert database.dump() == before
        for found in lacking:
            database.run(found["remedy"])
        done = migrate(database.seen_by(runner), "retire")
        assert done.code == 0, done.text
