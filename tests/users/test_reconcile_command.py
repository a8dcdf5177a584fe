"""`shadow reconcile` as a person meets it: what must be set, what is shown, and how it ends: 0, 1 or 2."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.cutover.commands import PROJECT, Outcome, shadow
from tests.cutover.witness import Witness
from tests.migrated import make_migrated
from tests.postgres import Server
from tests.serving import environment

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

KEY = "sesame-key"
NEEDED = {"IDP_ISSUER": "https://idp.example", "IDP_AUDIENCE": "https://api.example"}
URL = "https://idp.example"


class Auther:
    """An Auther as it is documented, over HTTP; Better Auth's empty list is there as well."""

    def __init__(self) -> None:
        self.people: dict[str, dict[str, Any]] = {}
        self.routed: int | None = None
        """How many questions a gateway before it still passes on."""
        auther = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/api/auth/sign-in/email":
                    self._answer(200, {"redirect": False}, cookie="session=1")
                elif body == {"apiKey": KEY}:
                    self._answer(200, {"token": "good", "expiresIn": 900})
                else:
                    self._answer(401, {"error": "Unauthorized"})

            def do_GET(self) -> None:
                sub = self.path.rpartition("/")[2]
                if self.path.startswith("/api/auth/admin/list-users"):
                    self._answer(200, {"users": [], "total": 0})
                elif self.headers["Authorization"] != "Bearer good":
                    self._answer(401, {"error": "Unauthorized"})
                elif auther.is_routed() and sub in auther.people:
                    self._answer(200, auther.people[sub])
                else:
                    self._answer(404, {"error": "Not found"})

            def _answer(self, status: int, members: object, cookie: str | None = None) -> None:
                body = json.dumps(members).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if cookie:
                    self.send_header("Set-Cookie", cookie)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def is_routed(self) -> bool:
        if self.routed is None:
            return True
        self.routed -= 1
        return self.routed >= 0

    @property
    def settings(self) -> dict[str, str]:
        return NEEDED | {"IDP_DIRECTORY": "auther", "IDP_DIRECTORY_URL": self.url, "IDP_DIRECTORY_API_KEY": KEY}


@pytest.fixture
def auther() -> Iterator[Auther]:
    auther = Auther()
    yield auther
    auther.server.shutdown()
    auther.server.server_close()


@pytest.fixture
def database(server: Server, make_database: Callable[[str | None], str], auther: Auther) -> Witness:
    """A hundred rows, in step with what Auther says of them."""
    database = Witness(server, make_migrated(server, make_database))
    database.run(
        "INSERT INTO users (id, name, email) SELECT 'p' || n, 'P ' || n, 'p' || n || '@example.com' "
        "FROM generate_series(1, 100) n"
    )
    for row in database.ask("SELECT id, name, email FROM users"):
        auther.people[row["id"]] = row
    return database


def reconcile(database: Witness, settings: dict[str, str], *arguments: str) -> Outcome:
    return shadow(database.url, "reconcile", *arguments, **settings)


def live(database: Witness) -> int:
    count: int = database.value("SELECT count(*) FROM users WHERE deleted_at IS NULL")
    return count


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({}, ["IDP_DIRECTORY: ", "better-auth or auther"]),
            ({"IDP_DIRECTORY": "ldap"}, ["IDP_DIRECTORY: ", "'better-auth' or 'auther'"]),
            (
                {"IDP_DIRECTORY": "better-auth"},
                ["unset: IDP_DIRECTORY_URL, IDP_DIRECTORY_EMAIL, IDP_DIRECTORY_PASSWORD."],
            ),
            (
                {"IDP_DIRECTORY": "Better-Auth", "IDP_DIRECTORY_URL": URL, "IDP_DIRECTORY_EMAIL": "a@example.com"},
                ["unset: IDP_DIRECTORY_PASSWORD."],
            ),
            ({"IDP_DIRECTORY": "auther", "IDP_DIRECTORY_URL": URL}, ["unset: IDP_DIRECTORY_API_KEY."]),
            (
                {"IDP_DIRECTORY": "auther", "IDP_DIRECTORY_API_KEY": KEY, "IDP_DIRECTORY_URL": "http://idp.example"},
                ["IDP_DIRECTORY_URL: it must be https://"],
            ),
            (
                {"IDP_DIRECTORY": "auther", "IDP_DIRECTORY_API_KEY": KEY, "IDP_DIRECTORY_URL": f"{URL}?a=b"},
                ["IDP_DIRECTORY_URL: it must have no query"],
            ),
        ],
    )
    def test_what_is_missing_for_a_profile_is_named(
        self, database: Witness, settings: dict[str, str], named: list[str]
    ) -> None:
        failed = reconcile(database, NEEDED | settings)
        assert failed.code == 1
        assert [each for each in named if each not in failed.text] == [], failed.text
        assert "sesame" not in failed.text

    def test_a_key_that_is_refused_is_one_sentence_without_it(self, database: Witness, auther: Auther) -> None:
        failed = reconcile(database, auther.settings | {"IDP_DIRECTORY_API_KEY": "sesame-wrong"})
        assert (failed.code, "IDP_DIRECTORY_API_KEY" in failed.text, "sesame" in failed.text) == (1, True, False)

    def test_a_database_that_was_not_migrated_is_told(
        self, server: Server, make_database: Callable[[str | None], str], auther: Auther
    ) -> None:
        failed = shadow(make_database(None), "reconcile", **auther.settings)
        assert (failed.code, "run the migrations" in failed.text) == (1, True)

    def test_a_database_that_is_away_is_told(self, server: Server, auther: Auther) -> None:
        failed = shadow("postgresql://u:sesame@127.0.0.1:1/db", "reconcile", **auther.settings)
        assert (failed.code, "127.0.0.1:1/db" in failed.text, "sesame" in failed.text) == (1, True, False)


class TestWhatIsShown:
    def test_nothing_to_do(self, database: Witness, auther: Auther) -> None:
        shown = reconcile(database, auther.settings)
        assert (shown.code, "100 in step" in shown.text, "Everything is in step." in shown.text) == (0, True, True)

    def test_a_dry_run_says_what_would_be_done_and_how(self, database: Witness, auther: Auther) -> None:
        del auther.people["p7"]
        for number in range(10, 35):
            auther.people[f"p{number}"]["name"] = "Else"
        before = database.portrait()
        shown = reconcile(database, auther.settings)
        assert shown.code == 0
        assert "25 differ, would be updated" in shown.text
        assert "1 gone there, would be deleted" in shown.text
        assert "and 5 more; the first 20 are shown" in shown.text
        assert "Nothing was changed; shadow reconcile --execute does it." in shown.text
        assert database.portrait() == before

    def test_with_execute_it_says_what_was_done(self, database: Witness, auther: Auther) -> None:
        del auther.people["p7"]
        auther.people["p8"]["name"] = "Else"
        done = reconcile(database, auther.settings, "--execute")
        assert done.code == 0
        assert "1 differed, updated" in done.text
        assert "1 gone there, deleted" in done.text
        assert (database.value("SELECT name FROM users WHERE id = 'p8'"), live(database)) == ("Else", 99)
        assert "Everything is in step." in reconcile(database, auther.settings, "--execute").text

    def test_json_holds_counts_and_the_first_of_each(self, database: Witness, auther: Auther) -> None:
        del auther.people["p7"]
        auther.people["p8"]["name"] = "Else"
        shown = reconcile(database, auther.settings, "--format", "json").json
        assert shown["counts"] == {
            "same": 98, "differ": 1, "missing": 0, "disabled": 0, "enabled": 0, "gone": 1, "deleted_here": 0,
            "unclear": 0,
        }  # fmt: skip
        assert shown["first"] == {"differ": [{"id": "p8", "columns": ["name"]}], "gone": [{"id": "p7", "columns": []}]}
        assert {name: shown[name] for name in ("executed", "live", "deleted", "refusal", "total")} == {
            "executed": False, "live": 100, "deleted": 0, "refusal": None, "total": None,
        }  # fmt: skip

    def test_ids_are_text_whatever_is_in_them(self, database: Witness, auther: Auther) -> None:
        database.run("INSERT INTO users (id, name, email) VALUES ('[red]x[/blue]', 'X', 'x@example.com')")
        assert "[red]x[/blue]" in reconcile(database, auther.settings).text

    def test_on_a_terminal_its_progress_does_not_disturb_what_is_read_by_machines(
        self, database: Witness, auther: Auther
    ) -> None:
        ours, theirs = pty.openpty()
        runner = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "reconcile", "--format", "json"],
            cwd=PROJECT, env=environment(DATABASE_URL=database.url, TERM="xterm", COLUMNS="100", **auther.settings),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
        )  # fmt: skip
        out, _ = runner.communicate(timeout=60)
        os.close(theirs)
        told = os.read(ours, 65_536).decode()
        os.close(ours)
        assert runner.returncode == 0, told
        assert json.loads(out)["counts"]["same"] == 100
        assert "100/100" in told


class TestRefusal:
    def test_more_than_five_percent_go_only_by_their_number(self, database: Witness, auther: Auther) -> None:
        for number in range(1, 7):
            del auther.people[f"p{number}"]
        for how in ((), ("--execute",), ("--execute", "--allow-deletions", "5")):
            refused = reconcile(database, auther.settings, *how)
            assert (refused.code, live(database)) == (2, 100)
            assert f"Nobody {'was' if how else 'would be'} deleted." in refused.text
            assert "6 gone there, not deleted" in refused.text
        assert "--allow-deletions 6" in reconcile(database, auther.settings).text
        done = reconcile(database, auther.settings, "--execute", "--allow-deletions", "6")
        assert (done.code, live(database)) == (0, 94)

    def test_beside_an_old_app_whose_sessions_count_only_a_number_lets_anybody_go(
        self, database: Witness, auther: Auther
    ) -> None:
        del auther.people["p7"]
        dual = auther.settings | {"AUTH_MODE": "dual", "BETTER_AUTH_SECRET": "sesame-secret"}
        refused = reconcile(database, dual, "--execute")
        assert (refused.code, "an old app may be in use" in refused.text, live(database)) == (2, True, 100)
        assert reconcile(database, dual, "--execute", "--allow-deletions", "1").code == 0
        assert live(database) == 99

    def test_a_gateway_that_answers_404_from_some_moment_deletes_nobody(
        self, database: Witness, auther: Auther
    ) -> None:
        auther.routed = 95
        failed = reconcile(database, auther.settings, "--execute")
        assert (failed.code, "in front of it" in failed.text, live(database)) == (1, True, 100)

    def test_a_list_that_is_empty_is_refused(self, database: Witness, auther: Auther) -> None:
        settings = NEEDED | {
            "IDP_DIRECTORY": "better-auth",
            "IDP_DIRECTORY_URL": auther.url,
            "IDP_DIRECTORY_EMAIL": "admin@example.com",
            "IDP_DIRECTORY_PASSWORD": "sesame-password",
        }
        refused = reconcile(database, settings, "--execute", "--allow-deletions", "1000")
        assert (refused.code, "list of users is empty" in refused.text, live(database)) == (2, True, 100)

    def test_a_number_below_zero_is_none(self, database: Witness, auther: Auther) -> None:
        assert reconcile(database, auther.settings, "--execute", "--allow-deletions", "-1").code == 2
