"""`shadow reconcile` against a real Better Auth with its admin plugin, over HTTP, on a PostgreSQL of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.cutover.commands import PROJECT, Outcome, shadow
from tests.cutover.witness import Witness
from tests.interop.oldapp import FOLDER, OldApp, missing
from tests.migrated import make_migrated
from tests.postgres import FIXTURES, Server
from tests.serving import environment

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

CROWD = 300
Row = dict[str, Any]


class Provider:
    """A Better Auth with `CROWD` users more than the fixture has, imported in one go; one of the fixture's is admin."""

    def __init__(self, server: Server, layout: str, app: OldApp, witness: Witness) -> None:
        self.app, self.witness = app, witness
        known = json.loads((FIXTURES / f"{layout}.creds.json").read_text())
        asked_for_more = {person["email"] for person in known["twoFactor"]}
        self.admin = next(person for person in known["users"] if person["email"] not in asked_for_more)
        number = layout.startswith("number")
        witness.run(
            f"""INSERT INTO "user" ({"" if number else "id, "}name, email, "emailVerified", "createdAt", "updatedAt")
            SELECT {"" if number else "'crowd-' || n, "}'Zoë O''Neill ' || n, 'crowd.' || n || '@example.com',
                   n % 3 = 0, '2026-01-05 10:00Z', '2026-01-05 10:00Z' FROM generate_series(1, {CROWD}) n"""
        )
        witness.run(f"""UPDATE "user" SET role = 'admin' WHERE email = '{self.admin["email"]}'""")
        self.url = app("serve")["url"]
        self.settings = environment(
            IDP_ISSUER=self.url,
            IDP_AUDIENCE=self.url,
            IDP_DIRECTORY="better-auth",
            IDP_DIRECTORY_URL=self.url,
            IDP_DIRECTORY_EMAIL=self.admin["email"],
            IDP_DIRECTORY_PASSWORD=self.admin["password"],
        )

    @contextmanager
    def by_admin(self) -> Iterator[Callable[..., Any]]:
        """Yield what calls the admin plugin as a person would have it called."""
        with httpx.Client(base_url=f"{self.url}/api/auth", headers={"Origin": self.url}) as client:
            credentials = {name: self.admin[name] for name in ("email", "password")}
            client.post("/sign-in/email", json=credentials).raise_for_status()

            def call(verb: str, **body: object) -> Any:
                return client.post(f"/admin/{verb}", json=body).raise_for_status().json()

            yield call

    def users(self) -> list[Row]:
        return self.witness.ask('SELECT id::text, name, email, "emailVerified" AS verified, image FROM "user"')

    def banned(self) -> set[str]:
        found = self.witness.ask(
            """SELECT id::text FROM "user" WHERE banned AND coalesce("banExpires" > now(), true)"""
        )
        return {row["id"] for row in found}

    def crowd(self) -> list[str]:
        """Return the ids of the crowd, in the order they were numbered."""
        found = self.witness.ask(
            """SELECT id::text FROM "user" WHERE email LIKE 'crowd.%' ORDER BY length(email), email"""
        )
        return [row["id"] for row in found]


@pytest.fixture
def make_provider(server: Server, make_database: Callable[[str | None], str]) -> Iterator[Callable[[str], Provider]]:
    running: list[OldApp] = []

    def make(layout: str = "kysely_singular") -> Provider:
        url = make_database(layout)
        running.append(OldApp(layout, url, FOLDER / "directory.mjs"))
        return Provider(server, layout, running[-1], Witness(server, url))

    yield make
    for app in running:
        app.__exit__(None, None, None)


@pytest.fixture
def here(server: Server, make_database: Callable[[str | None], str]) -> Witness:
    """The database of the rows, at the head revision."""
    return Witness(server, make_migrated(server, make_database))


def reconcile(here: Witness, provider: Provider, *arguments: str) -> Outcome:
    return shadow(here.url, "reconcile", "--format", "json", *arguments, **provider.settings)


def found(outcome: Outcome) -> dict[str, int]:
    """Return the counts that are not zero."""
    return {kind: count for kind, count in outcome.json["counts"].items() if count}


def rows(here: Witness) -> list[Row]:
    return here.ask("SELECT id, name, email, email_verified AS verified, image FROM users WHERE deleted_at IS NULL")


def in_order(them: list[Row]) -> list[Row]:
    return sorted(them, key=lambda row: row["id"])


class TestTheWholeWay:
    @pytest.mark.parametrize("layout", ["kysely_singular", "ba_13", "number_ids"])
    def test_rows_come_into_step_and_stay_there(
        self, here: Witness, make_provider: Callable[..., Provider], layout: str
    ) -> None:
        provider = make_provider(layout)
        everybody = provider.users()

        dry = reconcile(here, provider)
        assert (dry.code, found(dry)["missing"]) == (0, len(everybody)), dry.text
        assert rows(here) == []

        filled = reconcile(here, provider, "--execute")
        assert (filled.code, filled.json["listed"], filled.json["total"]) == (0, len(everybody), len(everybody))
        assert in_order(rows(here)) == in_order(everybody)

        crowd = provider.crowd()
        with provider.by_admin() as call:
            for sub in crowd[:5]:
                call("update-user", userId=sub, data={"name": f"Changed {sub}"})
            for sub in crowd[5:8]:
                call("remove-user", userId=sub)
            for sub in crowd[8:10]:
                call("ban-user", userId=sub, banReason="Spam")
            for number in range(4):
                call("create-user", email=f"new.{number}@example.com", name=f"New {number}", password="long-enough-1")

        before = here.ask("SELECT * FROM users ORDER BY id")
        dry = reconcile(here, provider)
        changed = {"same": len(everybody) - 10, "differ": 5, "gone": 3, "disabled": 2, "missing": 4}
        assert dry.code == 0, dry.text
        assert found(dry) == changed
        assert {each["id"] for each in dry.json["first"]["gone"]} == set(crowd[5:8])
        assert dry.json["first"]["differ"][0]["columns"] == ["name"]
        assert here.ask("SELECT * FROM users ORDER BY id") == before

        done = reconcile(here, provider, "--execute")
        assert (done.code, found(done), done.json["deleted"]) == (0, changed, 3)
        assert in_order(rows(here)) == in_order(provider.users())
        deleted = here.ask("SELECT id, name, email FROM users WHERE deleted_at IS NOT NULL")
        assert {row["id"] for row in deleted} == set(crowd[5:8])
        assert {(row["name"], row["email"] == f"{row['id']}@placeholder.invalid") for row in deleted} == {("", True)}
        shut_out = {row["id"] for row in here.ask("SELECT id FROM shadow_standing WHERE disabled")}
        assert shut_out == provider.banned() >= set(crowd[8:10])

        with provider.by_admin() as call:
            call("unban-user", userId=crowd[8])
        assert found(reconcile(here, provider, "--execute")) == {"same": len(everybody), "enabled": 1}
        again = shadow(here.url, "reconcile", **provider.settings)
        assert (again.code, "Everything is in step" in again.text) == (0, True)


class TestKilled:
    def kill(self, here: Witness, provider: Provider, soon: Callable[[], bool]) -> None:
        """Run it, and kill it in the middle of what it is doing when the time has come."""
        process = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "reconcile", "--execute"],
            cwd=PROJECT, env={**os.environ, **provider.settings, "DATABASE_URL": here.url},
        )  # fmt: skip
        while not soon():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def test_running_it_again_finishes(self, here: Witness, make_provider: Callable[..., Provider]) -> None:
        provider = make_provider()
        everybody = len(provider.users())
        here.run(
            "INSERT INTO users (id, name, email) SELECT 'gone-' || n, 'Gone', 'gone.' || n || '@example.com' "
            "FROM generate_series(1, 10) n"
        )
        # twice while it adds rows, and once while it deletes some, which are slowed down so that they can be met
        for goal in (60, 200):
            self.kill(here, provider, lambda goal=goal: len(rows(here)) >= 10 + goal)
            assert 10 + goal <= len(rows(here)) < 10 + everybody
        here.run(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN IF NEW.deleted_at IS NOT NULL THEN PERFORM pg_sleep(1); END IF; RETURN NEW; END$$;"
            "CREATE TRIGGER slow BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        deleted = "SELECT count(*) FROM users WHERE deleted_at IS NOT NULL"
        self.kill(here, provider, lambda: here.value(deleted) == 3)
        here.run("DROP TRIGGER slow ON users")
        while here.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            time.sleep(0.01)
        assert (here.value(deleted), len(rows(here))) == (3, 7 + everybody)
        finished = reconcile(here, provider, "--execute")
        assert finished.code == 0
        assert found(finished)["gone"] == finished.json["deleted"] == 7
        assert in_order(rows(here)) == in_order(provider.users())
        assert found(reconcile(here, provider)) == {"same": everybody}


class TestAuther:
    def test_the_same_users_are_read_one_by_one_with_a_token_for_a_key(
        self, here: Witness, make_provider: Callable[..., Provider]
    ) -> None:
        provider = make_provider()
        assert reconcile(here, provider, "--execute").code == 0
        before = len(rows(here))
        crowd = provider.crowd()
        with provider.by_admin() as call:
            call("update-user", userId=crowd[0], data={"name": "Changed"})
            call("remove-user", userId=crowd[1])
            call("ban-user", userId=crowd[2])
            call("create-user", email="new@example.com", name="New", password="long-enough-1")
        provider.settings |= {"IDP_DIRECTORY": "auther", "IDP_DIRECTORY_API_KEY": "auther-key"}

        changed = {"same": before - 3, "differ": 1, "gone": 1, "disabled": 1}
        assert found(reconcile(here, provider)) == changed
        done = reconcile(here, provider, "--execute")
        assert (done.code, found(done), done.json["deleted"], done.json["total"]) == (0, changed, 1, None)
        assert in_order(rows(here)) == in_order([row for row in provider.users() if row["name"] != "New"])
        assert found(reconcile(here, provider)) == {"same": before - 1}
        # more tokens than runs
        assert provider.app("exchanged")["times"] > 3

        provider.settings["IDP_DIRECTORY_API_KEY"] = "hunter2"
        refused = reconcile(here, provider, "--execute")
        assert (refused.code, "IDP_DIRECTORY_API_KEY" in refused.err, "hunter2" in refused.text) == (1, True, False)


class TestTheEmptyList:
    def test_a_query_that_fails_at_the_provider_deletes_nobody(
        self, here: Witness, make_provider: Callable[..., Provider]
    ) -> None:
        provider = make_provider()
        assert reconcile(here, provider, "--execute").code == 0
        before = rows(here)
        provider.app("break", what="list")
        with httpx.Client(base_url=f"{provider.url}/api/auth", headers={"Origin": provider.url}) as client:
            client.post("/sign-in/email", json={n: provider.admin[n] for n in ("email", "password")})
            trap = client.get("/admin/list-users?limit=100")
        assert (trap.status_code, trap.json()) == (200, {"users": [], "total": 0})

        for overruled in ((), ("--allow-deletions", "100000")):
            refused = reconcile(here, provider, "--execute", *overruled)
            assert (refused.code, refused.json["deleted"]) == (2, 0)
            assert "empty" in refused.json["refusal"]
            assert rows(here) == before
        assert "Nobody was deleted" in shadow(here.url, "reconcile", "--execute", **provider.settings).text

        provider.app("break", what="nothing")
        assert reconcile(here, provider).code == 0


class TestTheBrake:
    def test_more_than_five_percent_go_only_by_their_number(
        self, here: Witness, make_provider: Callable[..., Provider]
    ) -> None:
        provider = make_provider()
        assert reconcile(here, provider, "--execute").code == 0
        before = len(rows(here))
        gone = before // 20 + 1
        crowd = provider.crowd()
        with provider.by_admin() as call:
            for sub in crowd[:gone]:
                call("remove-user", userId=sub)
            call("update-user", userId=crowd[-1], data={"name": "Changed"})

        assert reconcile(here, provider).code == 2
        for too_few in ((), ("--allow-deletions", str(gone - 1))):
            refused = reconcile(here, provider, "--execute", *too_few)
            assert (refused.code, found(refused)["gone"], refused.json["deleted"]) == (2, gone, 0)
            assert f"{gone} " in refused.json["refusal"]
            assert len(rows(here)) == before
        assert here.ask(f"SELECT name FROM users WHERE id = '{crowd[-1]}'") == [{"name": "Changed"}]

        done = reconcile(here, provider, "--execute", "--allow-deletions", str(gone))
        assert (done.code, done.json["deleted"], len(rows(here))) == (0, gone, before - gone)

    def test_exactly_five_percent_go(self, here: Witness, make_provider: Callable[..., Provider]) -> None:
        provider = make_provider()
        assert reconcile(here, provider, "--execute").code == 0
        gone = len(rows(here)) // 20
        with provider.by_admin() as call:
            for sub in provider.crowd()[:gone]:
                call("remove-user", userId=sub)
        assert reconcile(here, provider, "--execute").json["deleted"] == gone


class TestIds:
    def test_those_that_are_none_of_the_provider_s_type_are_left_alone(
        self, here: Witness, make_provider: Callable[..., Provider]
    ) -> None:
        provider = make_provider("number_ids")
        assert reconcile(here, provider, "--execute").code == 0
        here.run(
            "INSERT INTO users (id, name, email) SELECT 'machine-' || n, '', 'machine-' || n || '@example.com' "
            "FROM generate_series(1, 6) n"
        )
        outcome = reconcile(here, provider, "--execute")
        assert (outcome.code, found(outcome)["unclear"]) == (0, 6), outcome.text
        assert here.value("SELECT count(*) FROM users WHERE id LIKE 'machine-%' AND deleted_at IS NULL") == 6


class TestCredentials:
    def test_a_wrong_password_is_one_sentence(self, here: Witness, make_provider: Callable[..., Provider]) -> None:
        provider = make_provider()
        provider.settings["IDP_DIRECTORY_PASSWORD"] = "hunter2-hunter2"
        refused = reconcile(here, provider, "--execute")
        assert (refused.code, "IDP_DIRECTORY_PASSWORD" in refused.err, "hunter2" in refused.text) == (1, True, False)

    def test_so_is_somebody_who_is_no_admin(self, here: Witness, make_provider: Callable[..., Provider]) -> None:
        provider = make_provider()
        provider.witness.run("""UPDATE "user" SET role = 'user'""")
        refused = reconcile(here, provider, "--execute")
        assert (refused.code, "403" in refused.err, rows(here)) == (1, True, [])
