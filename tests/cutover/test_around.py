"""Who else is there: standbys, read-only sessions, locks, prepared transactions, replication; each remedy is run."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from app.embedded import programs
from tests.cutover.commands import Outcome, alembic, migrate, plan, shadow
from tests.cutover.obstacles import hand_over
from tests.cutover.test_locks import holding, until
from tests.cutover.witness import Witness
from tests.postgres import SYSTEM, Server, SystemServer

embedded = pytest.mark.parametrize("server", ["embedded"], indirect=True)


class OwnServer(SystemServer):
    """A server that a test may configure, restart and copy."""

    def configured(self, *settings: str) -> Server:
        """Start it, with settings that need a restart."""
        server = self.start()
        server.execute(*(f"ALTER SYSTEM SET {setting}" for setting in settings))
        self._run("pg_ctl", "-w", "-D", str(self.folder / "data"), "restart")
        return server

    def standby(self) -> tuple[OwnServer, Server]:
        """Make another server that follows this one."""
        other = OwnServer(self.programs)
        data = str(other.folder / "data")
        self._run("pg_basebackup", "-h", str(self.folder), "-U", "postgres", "-D", data, "-R", "-c", "fast")
        # not fewer connections than its primary, or it does not start
        options = f"-h '' -k {other.folder} -c max_connections=300"
        other._run("pg_ctl", "-w", "-D", data, "-l", str(other.folder / "log"), "-o", options, "start")
        return other, Server("standby", self.programs, f"postgresql://postgres@/postgres?host={other.folder}")


@pytest.fixture(scope="module", params=[*SYSTEM, None], ids=lambda path: path.parent.name if path else "embedded")
def own(request: pytest.FixtureRequest) -> Iterator[tuple[OwnServer, Server]]:
    """A server with two-phase commits and logical replication on, and an autovacuum that is eager and slow."""
    machine = OwnServer(request.param or programs())
    try:
        server = machine.configured(
            "max_prepared_transactions = 5", "wal_level = logical", "autovacuum_naptime = 1",
            "autovacuum_max_workers = 20",  # three would be at other databases of the tests, slowly
            "autovacuum_vacuum_cost_delay = 100", "autovacuum_vacuum_cost_limit = 1",
        )  # fmt: skip
    except PermissionError:
        pytest.skip(f"{machine.user} may not run {machine.programs}")
    try:
        yield machine, server
    finally:
        machine.stop()


@pytest.fixture
def replicated(own: tuple[OwnServer, Server]) -> Iterator[Witness]:
    """A database in the layout of Auther's template on such a server."""
    database = Witness(own[1], own[1].make_database("plural_snake"))
    yield database
    # a slot cannot be made, by any test, while a prepared transaction is not ended
    for left in database.ask("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
        database.run("ROLLBACK PREPARED '{}'".format(left["gid"].replace("'", "''")))


def found(url: str, code: str, to: str = "retire") -> list[dict[str, str]]:
    """Return the findings of a plan with a code."""
    return plan(url, to).findings(code)


def ways(url: str) -> Iterator[Outcome]:
    """Go all the ways that would change something."""
    yield migrate(url, "retire")
    yield alembic(url, "upgrade", "0002_retire")
    yield shadow(url, "undo", "--yes")
    yield alembic(url, "downgrade", "-1")


class TestStandby:
    def test_it_is_refused_and_the_remedy_shows_the_primary(self, own: tuple[OwnServer, Server]) -> None:
        machine, primary = own
        name = Witness(primary, primary.make_database("plural_snake")).name
        other, standby = machine.standby()
        try:
            url = standby.address(name)
            for refused in ways(url):
                assert (refused.code, "standby" in refused.text) == (2, True), refused.text
            (finding,) = found(url, "standby")
            assert str(other.folder) in finding["message"]
            until(lambda: standby.psql(url, finding["remedy"]) != "")
            host, _, port = standby.psql(url, finding["remedy"]).strip().partition("|")
            followed = f"postgresql://postgres@/{name}?host={host}&port={port}"
            assert found(followed, "standby") == []
            assert migrate(followed, "retire").code == 0
        finally:
            other.stop()


class TestReadOnly:
    """Found before Alembic makes its version table; the remedy undoes the setting where it was made."""

    def refused_and_mended(self, database: Witness, url: str) -> None:
        before = database.dump()
        for refused in ways(url):
            assert (refused.code, "read-only" in refused.text) == (2, True), refused.text
        assert database.dump() == before
        (finding,) = found(url, "read-only")
        assert "default_transaction_read_only" in finding["message"]
        database.run(finding["remedy"])
        assert found(url, "read-only") == []
        done = migrate(url, "retire")
        assert done.code == 0, done.text

    @embedded
    def test_for_the_database(self, database: Witness) -> None:
        database.run(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
        self.refused_and_mended(database, database.url)

    @embedded
    @pytest.mark.parametrize("where", ["", "IN DATABASE {0}"])
    def test_for_the_role(self, database: Witness, make_role: Callable[[], str], where: str) -> None:
        owner = make_role()
        hand_over(database, owner)
        database.run(f"ALTER ROLE {owner} {where.format(database.name)} SET default_transaction_read_only = on")
        self.refused_and_mended(database, database.seen_by(owner))

    @pytest.mark.parametrize("statement", ["ALTER SYSTEM", "ALTER ROLE ALL"])
    def test_for_everybody(self, replicated: Witness, statement: str) -> None:
        replicated.run(f"{statement} SET default_transaction_read_only = on; SELECT pg_reload_conf()")
        until(lambda: found(replicated.url, "read-only") != [])
        self.refused_and_mended(replicated, replicated.url)

    @embedded
    def test_by_the_address(self, database: Witness) -> None:
        url = f"{database.url}&options=-c%20default_transaction_read_only%3Don"
        (finding,) = found(url, "read-only")
        assert "DATABASE_URL" in finding["remedy"]
        assert found(database.url, "read-only") == []


@embedded
class TestLocksHeld:
    LOCK = "TABLE sessions, files IN ROW EXCLUSIVE MODE"

    def test_one_that_is_older_than_the_timeout_is_named_and_ended_by_the_remedy(self, database: Witness) -> None:
        with holding(database, self.LOCK) as holder:
            assert found(database.url, "locks-held") == []
            until(lambda: found(database.url, "locks-held") != [])
            (finding,) = found(database.url, "locks-held")
            assert (finding["level"], finding["subject"]) == ("warn", f"pid {holder.pid}")
            for what in ("postgres", "the old app", "RowExclusiveLock", "public.sessions"):
                assert what in finding["message"]
            assert "public.files" not in finding["message"]
            database.run(finding["remedy"])
            until(lambda: holder.process.poll() is not None or found(database.url, "locks-held") == [])
            assert found(database.url, "locks-held") == []

    def test_one_on_a_table_that_refers_to_what_goes_counts_too(self, database: Witness) -> None:
        database.run("CREATE TABLE devices (s varchar(255) REFERENCES sessions)")
        with holding(database, "TABLE devices IN ACCESS SHARE MODE"):
            until(lambda: found(database.url, "locks-held") != [])
            (finding,) = found(database.url, "locks-held")
            assert "AccessShareLock on public.devices" in finding["message"]

    def test_one_that_is_not_in_the_way_is_nobodys_business(self, database: Witness) -> None:
        with holding(database, "TABLE files IN ACCESS SHARE MODE"):
            time.sleep(0.6)
            assert found(database.url, "locks-held") == []

    def test_who_may_not_see_others_is_told_nothing_wrong(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        owner = make_role()
        hand_over(database, owner)
        with holding(database, self.LOCK):
            time.sleep(0.6)
            assert plan(database.seen_by(owner), "retire").code == 0


class TestAutovacuum:
    def test_its_worker_is_named_and_cancelled_by_the_remedy(self, replicated: Witness) -> None:
        """It gives way to a waiting lock after a second only, and the cutover waits for half of one."""
        replicated.run(
            "INSERT INTO users (id, name, email) SELECT n, n, n || '@x' FROM generate_series(1, 20000) n;"
            "ALTER TABLE users SET (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0);"
            "UPDATE users SET name = id"
        )
        until(lambda: found(replicated.url, "locks-held") != [])
        (finding,) = found(replicated.url, "locks-held")
        assert "autovacuum worker" in finding["message"]
        assert "ShareUpdateExclusiveLock on public.users" in finding["message"]
        replicated.run("ALTER TABLE users SET (autovacuum_enabled = off)")
        replicated.run(finding["remedy"])
        until(lambda: found(replicated.url, "locks-held") == [])


class TestPreparedTransaction:
    def test_it_is_refused_until_somebody_ends_it(self, replicated: Witness) -> None:
        replicated.run("BEGIN; UPDATE users SET name = 'N'; DELETE FROM files; PREPARE TRANSACTION 'half''s'")
        for refused in (migrate(replicated.url, "retire"), alembic(replicated.url, "upgrade", "0002_retire")):
            assert refused.code == 2, refused.text
        (finding,) = found(replicated.url, "prepared-transaction")
        assert (finding["level"], finding["subject"]) == ("refuse", "half's")
        assert "postgres" in finding["message"]
        assert "public.users" in finding["message"]
        replicated.run(finding["remedy"])
        assert found(replicated.url, "prepared-transaction") == []
        assert replicated.value("SELECT count(*) FROM users WHERE name = 'N'") == 32
        assert migrate(replicated.url, "retire").code == 0

    def test_one_that_holds_nothing_of_ours_is_left_alone(self, replicated: Witness) -> None:
        replicated.run("BEGIN; DELETE FROM files; PREPARE TRANSACTION 'elsewhere'")
        assert found(replicated.url, "prepared-transaction") == []
        replicated.run("ROLLBACK PREPARED 'elsewhere'")


class TestReplicationSlot:
    def test_one_that_nobody_reads_is_named_with_what_it_keeps_and_dropped_by_the_remedy(
        self, replicated: Witness
    ) -> None:
        replicated.run(
            "SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput'); UPDATE users SET name = name"
        )
        (finding,) = found(replicated.url, "replication-slot")
        assert finding["level"] == "warn"
        assert all(word in finding["message"] for word in ("left_behind", "pgoutput", "read by nobody"))
        behind = re.search(r"([\d,]+) bytes behind", finding["message"])
        assert behind
        assert int(behind[1].replace(",", "")) > 1000
        replicated.run(finding["remedy"])
        assert found(replicated.url, "replication-slot") == []

    def test_one_that_is_read_names_its_reader(self, replicated: Witness) -> None:
        replicated.run(
            "CREATE PUBLICATION of_files FOR TABLE files;"
            "SELECT pg_create_logical_replication_slot('in_use', 'pgoutput')"
        )
        reader = subprocess.Popen(
            [
                replicated.server.programs / "pg_recvlogical", "-d", replicated.url, "--slot", "in_use", "--start",
                "-f", "/dev/null", "-o", "proto_version=1", "-o", "publication_names=of_files",
            ]
        )  # fmt: skip
        try:
            pid = "SELECT coalesce(max(active_pid), 0) FROM pg_replication_slots WHERE slot_name = 'in_use'"
            until(lambda: replicated.value(pid) > 0)
            (finding,) = found(replicated.url, "replication-slot")
            assert f"read by pid {replicated.value(pid)}" in finding["message"]
        finally:
            reader.terminate()
            reader.wait()

    def test_one_of_another_database_is_none_of_ours(self, own: tuple[OwnServer, Server], replicated: Witness) -> None:
        other = Witness(own[1], own[1].make_database(None))
        other.run("SELECT pg_create_logical_replication_slot('others', 'pgoutput')")
        assert found(replicated.url, "replication-slot") == []


class TestSubscription:
    @pytest.fixture
    def subscriber(self, own: tuple[OwnServer, Server], replicated: Witness) -> Witness:
        """A database whose sessions and files another one writes."""
        publisher = Witness(own[1], own[1].make_database("plural_snake"))
        slot = f"of_{replicated.name}"
        publisher.run(
            "CREATE PUBLICATION rows FOR TABLE sessions, files;"
            f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
        )
        replicated.run(
            'CREATE SUBSCRIPTION "From There" '
            f"CONNECTION 'host={own[0].folder} user=postgres dbname={publisher.name}' "
            f"PUBLICATION rows WITH (create_slot = false, slot_name = '{slot}', copy_data = false)"
        )
        return replicated

    def test_it_is_named_with_the_tables_and_stopped_by_the_remedy(self, subscriber: Witness) -> None:
        (finding,) = found(subscriber.url, "subscription")
        assert finding["level"] == "warn"
        assert "From There" in finding["message"]
        assert "public.sessions" in finding["message"]
        assert "public.files" not in finding["message"]
        subscriber.run(finding["remedy"])
        assert found(subscriber.url, "subscription") == []

    def test_who_may_not_see_it_is_not_stopped_by_that(
        self, own: tuple[OwnServer, Server], subscriber: Witness
    ) -> None:
        owner = f"blind_{subscriber.name}"
        own[1].execute(f"CREATE ROLE {owner} LOGIN")
        hand_over(subscriber, owner)
        subscriber.run("REVOKE SELECT ON pg_subscription_rel FROM PUBLIC")
        planned = plan(subscriber.seen_by(owner), "retire")
        assert (planned.code, planned.findings("subscription")) == (0, [])
