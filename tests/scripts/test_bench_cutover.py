"""The benchmark at a size that tells nothing of speed: that it measures what it says, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from shutil import rmtree
from typing import Any

import pytest

from app.embedded import stop
from scripts import bench_cutover
from scripts.bench_cutover import verdicts
from scripts.bench_database import AUTHER, UUID_IDS, Layout, load
from scripts.bench_database import Server as Benched
from scripts.bench_load import Waits
from scripts.bench_rounds import PLAIN, Comparison, Part, Rewrite
from tests.postgres import Server, new_folder, start_embedded

USERS = 60
GONE = {"sessions", "accounts", "verifications", "jwks", "two_factors"}


@pytest.fixture(scope="module")
def embedded() -> Iterator[Server]:
    folder = new_folder("bench")
    yield start_embedded(folder)
    stop(folder / "embedded")
    rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def report(embedded: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a whole run wrote."""
    out = tmp_path_factory.mktemp("bench") / "report.json"
    code = bench_cutover.main([
        "--server", embedded.url, "--users", str(USERS), "--uuid-users", str(USERS),
        "--sessions-per-user", "3", "--rounds", "1", "--seconds", "0.3", "--out", str(out),
    ])  # fmt: skip
    assert code == 0
    document: dict[str, Any] = json.loads(out.read_text())
    return document


@pytest.fixture
def small(report: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = report["comparisons"][0]
    return found


class TestRun:
    def test_both_ways_are_measured_as_often(self, small: dict[str, Any]) -> None:
        assert small["users"] == USERS
        assert len(small["ours"]) == len(small["plain"]) == 1

    def test_a_round_is_the_load_alone_and_then_each_revision(self, small: dict[str, Any]) -> None:
        assert [part["name"] for part in small["ours"][0]] == ["idle", "adopt", "retire", "drop"]

    def test_readers_and_writers_went_on_all_the_while(self, small: dict[str, Any]) -> None:
        for part in (*small["ours"][0], *small["plain"]):
            for waits in (part["reads"], part["writes"]):
                assert waits["count"] > 0, part["name"]
                assert 0 < waits["median"] <= waits["p99"] <= waits["longest"]

    def test_nobody_waits_longer_than_the_whole_took(self, small: dict[str, Any]) -> None:
        for part in small["ours"][0]:
            assert part["reads"]["longest"] < part["seconds"], part["name"]

    def test_what_the_command_said_it_did_is_kept(self, small: dict[str, Any]) -> None:
        _, adopt, retire, drop = (dict(part["steps"]) for part in small["ours"][0])
        assert "users gains deleted_at, identity_updated_at" in adopt
        assert {f"public.{name} moves to retired_auth" for name in GONE} <= set(retire)
        assert {f"retired_auth.{name} is dropped" for name in GONE} <= set(drop)

    def test_sizes_are_those_of_the_database(self, small: dict[str, Any]) -> None:
        assert small["sizes"]["users"] == USERS
        assert small["sizes"]["sessions"] > 3 * (USERS - 38)
        assert small["sizes"]["bytes"] > 1_000_000

    def test_rows_with_uuid_ids_are_those_of_users_and_of_what_refers_to_it(self, report: dict[str, Any]) -> None:
        (found,) = report["rewrites"]
        written = ("user", "activity", "project", "projectMember")
        assert found["rows"] == sum(found["sizes"][name] for name in written)
        assert found["predicted"] == pytest.approx(sum(seconds for _, seconds, _ in found["steps"]))
        assert found["measured"] == found["part"]["reads"]["longest"]

    def test_each_promise_has_its_verdict(self, report: dict[str, Any]) -> None:
        readers, ids = (verdict["what"] for verdict in report["verdicts"])
        assert readers.startswith(f"{USERS} users: no reader waited longer than 200 ms")
        assert ids.startswith(f"uuid ids, {USERS} users: ")

    def test_it_says_on_what_it_was_measured(self, report: dict[str, Any]) -> None:
        assert set(report["machine"]) >= {"cores", "postgresql", "python", "fsync"}

    def test_no_database_is_left(self, embedded: Server, report: dict[str, Any]) -> None:
        assert report
        left = embedded.psql(embedded.url, "SELECT datname FROM pg_database").split()
        assert not [name for name in left if name.startswith("bench")]

    def test_fewer_users_than_the_sample_has_end_it_with_1(
        self, embedded: Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert bench_cutover.main(["--server", embedded.url, "--users", "3", "--uuid-users", ""]) == 1
        assert "3 users are fewer than the sample database plural_snake has" in capsys.readouterr().out


class TestDatabase:
    @pytest.fixture(params=[AUTHER, UUID_IDS], ids=lambda layout: layout.fixture)
    def layout(self, request: pytest.FixtureRequest) -> Layout:
        found: Layout = request.param
        return found

    @pytest.fixture
    def loaded(self, embedded: Server, layout: Layout) -> Iterator[str]:
        server = Benched(embedded.url)
        name = load(server, layout, 200, 2, lambda what, part: None)
        yield name
        server.drop(name)

    def test_its_structure_is_that_of_the_sample(self, embedded: Server, layout: Layout, loaded: str) -> None:
        sample = embedded.make_database(layout.fixture)
        assert embedded.dump(embedded.address(loaded), "-s") == embedded.dump(sample, "-s")
        embedded.drop_database(sample)

    def test_it_has_as_many_users_as_were_asked_for(self, embedded: Server, layout: Layout, loaded: str) -> None:
        assert embedded.psql(embedded.address(loaded), f"SELECT count(*) FROM {layout.users}").strip() == "200"

    def test_a_copy_is_dropped_and_leaves_the_original(self, embedded: Server, loaded: str) -> None:
        server = Benched(embedded.url)
        with server.copy(loaded) as copied:
            embedded.psql(embedded.address(copied), "DROP TABLE jwks")
        left = embedded.psql(embedded.url, "SELECT datname FROM pg_database").split()
        assert (loaded in left, copied in left) == (True, False)
        assert embedded.psql(embedded.address(loaded), "SELECT to_regclass('public.jwks') IS NOT NULL").strip() == "t"


class TestPlainWay:
    def test_it_drops_what_the_cutover_does(self, embedded: Server) -> None:
        url = embedded.make_database("plural_snake")
        embedded.psql(url, ";\n".join(("SET client_min_messages = error", *PLAIN)))
        tables = set(embedded.psql(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'").split())
        columns = embedded.psql(
            url,
            "SELECT attname FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped",
        )
        assert not tables & GONE
        assert set(columns.split()) == {
            "id", "name", "email", "email_verified", "image", "created_at", "updated_at", "onboarding_completed_at",
        }  # fmt: skip
        embedded.drop_database(url)


class TestWaits:
    def test_the_longest_is_never_left_out(self) -> None:
        waits = Waits.of([0.001] * 99 + [4.0])
        assert (waits.count, waits.median, waits.longest) == (100, 0.001, 4.0)

    def test_there_may_be_none(self) -> None:
        assert Waits.of([]) == Waits(0, 0.0, 0.0, 0.0)


def part(name: str, reader: float) -> Part:
    return Part(name, 5.0, Waits(10, 0.001, 0.01, reader), Waits(10, 0.001, 0.01, reader))


def compared(users: int, *retires: float) -> Comparison:
    rounds = tuple(
        (part("idle", 9.0), part("adopt", 0.01), part("retire", each), part("drop", 0.02)) for each in retires
    )
    return Comparison(users, {"sessions": 10 * users, "bytes": 1}, rounds, (part("plain", 4.0),) * len(rounds))


class TestVerdicts:
    @staticmethod
    def held(*found: Comparison | Rewrite) -> list[bool]:
        comparisons = [each for each in found if isinstance(each, Comparison)]
        return [held for held, _ in verdicts(comparisons, [each for each in found if isinstance(each, Rewrite)])]

    def test_one_reader_in_one_round_that_waited_too_long_is_too_many(self) -> None:
        assert self.held(compared(100, 0.1, 0.1, 0.1)) == [True]
        assert self.held(compared(100, 0.1, 0.1, 0.201)) == [False]

    def test_a_wait_that_grows_with_the_rows_is_told(self) -> None:
        assert self.held(compared(100, 0.02), compared(10_000, 0.05)) == [True, True, True]
        assert self.held(compared(100, 0.02), compared(10_000, 0.19)) == [True, True, False]

    def test_a_plan_may_be_off_by_half_or_twice(self) -> None:
        found = Rewrite(100, {}, 400, 10.0, 10.0, (), part("retire", 10.0))
        assert self.held(found) == [True]
        assert self.held(replace(found, measured=4.9)) == [False]
        assert self.held(replace(found, measured=20.3)) == [False]
