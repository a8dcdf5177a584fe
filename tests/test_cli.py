"""The command as a person meets it: what is given wrongly is one sentence that says what to do, and an exit code."""

from __future__ import annotations

import os
import pty
import pwd
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cutover.commands import PROJECT, Outcome, alembic, migrate, process, shadow
from tests.cutover.witness import Witness
from tests.postgres import Server

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

PASSWORD = "hunter2-%40"


@pytest.fixture
def database(server: Server, make_database: Callable[[str | None], str]) -> Witness:
    return Witness(server, make_database("plural_snake"))


def said(outcome: Outcome) -> str:
    """Return what was said, which is never a traceback and never a password."""
    assert "Traceback" not in outcome.text
    assert "hunter2" not in outcome.text
    return outcome.text


NOT_ADDRESSES = [
    (f"mysql://u:{PASSWORD}@h/db", "postgresql://"),
    ("nonsense", "DATABASE_URL"),
    (f"postgresql://u:{PASSWORD}@127.0.0.1:1/db", "127.0.0.1:1/db"),
    (f"postgresql://u:{PASSWORD}@does-not-exist.invalid/db", "does-not-exist.invalid"),
    (f"host=127.0.0.1 port=1 password={PASSWORD} dbname=db", "127.0.0.1"),
    (f"postgresql://u:{PASSWORD}@127.0.0.1:99999/db", "DATABASE_URL"),
    (f"postgresql://u:{PASSWORD}@127.0.0.1:1/db?connect_timeout=soon", "connect_timeout"),
]


class TestAddress:
    @pytest.mark.parametrize(("url", "named"), NOT_ADDRESSES, ids=[str(n) for n in range(len(NOT_ADDRESSES))])
    def test_one_that_leads_nowhere_is_one_sentence_both_ways(self, server: Server, url: str, named: str) -> None:
        for outcome in (shadow(url, "plan"), alembic(url, "upgrade", "head")):
            assert outcome.code == 1
            assert named in said(outcome)
            assert "DATABASE_URL" in outcome.text
            assert len(outcome.err.strip().splitlines()) <= 3

    def test_a_database_that_is_not_there_is_named(self, server: Server) -> None:
        outcome = shadow(server.address("nowhere"), "inspect")
        assert (outcome.code, "nowhere" in said(outcome)) == (1, True)

    def test_a_role_that_is_not_there_is_named(self, database: Witness) -> None:
        outcome = shadow(database.seen_by("nobody_of_that_name"), "inspect")
        assert (outcome.code, "nobody_of_that_name" in said(outcome)) == (1, True)

    def test_every_verb_says_it_in_the_same_way(self, server: Server) -> None:
        url = f"postgresql://u:{PASSWORD}@127.0.0.1:1/db"
        for verb in (("inspect",), ("plan",), ("migrate", "--to", "drop", "--yes"), ("verify",), ("undo", "--yes")):
            outcome = shadow(url, *verb)
            assert (outcome.code, "127.0.0.1:1/db" in said(outcome)) == (1, True)

    def test_a_process_of_its_own_says_it_without_a_traceback(self, server: Server) -> None:
        for command in (("-c", "from app.cli import main; main()", "plan"), ("-m", "alembic", "current")):
            outcome = process(f"postgresql://u:{PASSWORD}@127.0.0.1:1/db", *command)
            assert (outcome.code, "127.0.0.1:1/db" in said(outcome)) == (1, True)

    def test_a_schema_that_is_no_name_is_a_fault_of_the_setting(self, database: Witness) -> None:
        outcome = shadow(database.url, "plan", DATABASE_SCHEMA='x"; DROP TABLE users; --')
        assert (outcome.code, "DATABASE_SCHEMA" in said(outcome)) == (1, True)


class TestDecisions:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("--accept", "everything"), "identities-not-exported"),
            (("--map", "sessions"), "role=schema.table"),
            (("--map", "people=public.users"), "users"),
            (("--map", "users=users"), "role=schema.table"),
            (("--keep", "role"), "users.role"),
            (("--keep", "users.nowhere"), "users.nowhere"),
            (("--detach", "nowhere.nothing"), "nowhere.nothing"),
            (("--fingerprint", "0000000000000000"), "0000000000000000"),
        ],
    )
    def test_one_that_is_not_known_is_refused_by_name(
        self, database: Witness, arguments: tuple[str, ...], named: str
    ) -> None:
        before = database.dump()
        outcome = migrate(database.url, "retire", *arguments)
        assert (outcome.code, named in said(outcome)) == (2, True), outcome.text
        assert database.dump() == before

    @pytest.mark.parametrize(
        "arguments", [("migrate",), ("migrate", "--to", "everywhere"), ("plan", "--format", "xml")]
    )
    def test_one_that_is_missing_or_unheard_of_is_refused(self, database: Witness, arguments: tuple[str, ...]) -> None:
        outcome = shadow(database.url, *arguments)
        assert (outcome.code, "--to" in said(outcome) or "--format" in outcome.text) == (2, True)


class TestAsking:
    def test_without_a_terminal_and_without_yes_nothing_is_run(self, database: Witness) -> None:
        before = database.dump()
        outcome = shadow(database.url, "migrate", "--to", "retire", answer="y\n")
        assert (outcome.code, "--yes" in said(outcome)) == (2, True)
        assert database.dump() == before

    @pytest.mark.parametrize(("answer", "code"), [(b"n\n", 2), (b"y\n", 0)])
    def test_on_a_terminal_it_asks(self, database: Witness, answer: bytes, code: int) -> None:
        before = database.dump()
        ours, theirs = pty.openpty()
        runner = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "migrate", "--to", "retire"],
            cwd=PROJECT, env={**os.environ, "DATABASE_URL": database.url}, stdin=theirs,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.write(ours, answer)
        out, err = runner.communicate(timeout=30)
        os.close(ours)
        os.close(theirs)
        assert runner.returncode == code, (out, err)
        assert b"0001_adopt, 0002_retire" in out
        assert (database.dump() == before) == (code == 2)


class TestWhoRunsIt:
    def test_a_user_id_without_a_name_is_no_obstacle(self, database: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a container that is run under a number."""

        def nobody(uid: int) -> pwd.struct_passwd:
            raise KeyError(f"getpwuid(): uid not found: {uid}")

        for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(pwd, "getpwuid", nobody)
        outcome = migrate(database.url, "adopt")
        assert outcome.code == 0, said(outcome)
        assert database.value("SELECT operator FROM shadow_cutover")


class TestRest:
    def test_help_lists_every_verb(self, server: Server) -> None:
        outcome = shadow("", "--help")
        assert outcome.code == 0
        for verb in ("inspect", "plan", "migrate", "verify", "undo", "serve", "demo"):
            assert verb in outcome.text

    def test_verify_where_nothing_ran_has_nothing_to_compare(self, database: Witness) -> None:
        outcome = shadow(database.url, "verify")
        assert (outcome.code, "no cutover has run" in outcome.text) == (0, True)

    def test_verify_finds_what_was_broken_since(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run("ALTER TABLE files DROP CONSTRAINT files_owner_id_users_id_fk; DELETE FROM retired_auth.sessions")
        outcome = shadow(database.url, "verify", "--format", "json")
        broken = {found["subject"] for found in outcome.json["comparisons"] if found["verdict"] == "broken"}
        assert outcome.code == 1
        assert any("files_owner_id_users_id_fk" in subject for subject in broken)
        assert any("sessions" in subject for subject in broken)
        assert shadow(database.url, "verify").code == 1

    def test_verify_tells_the_apps_own_doing_from_damage(self, database: Witness) -> None:
        assert migrate(database.url, "retire").code == 0
        database.run(
            "INSERT INTO users (id, name, email) VALUES ('new', 'N', 'new@example.com'); DELETE FROM audit_logs"
        )
        outcome = shadow(database.url, "verify", "--format", "json")
        assert outcome.code == 0
        assert {found["verdict"] for found in outcome.json["comparisons"]} == {"ok", "changed"}

    def test_serve_without_its_settings_names_all_that_are_missing(self, database: Witness) -> None:
        outcome = shadow(database.url, "serve", IDP_ISSUER="", IDP_AUDIENCE="")
        assert (outcome.code, "IDP_ISSUER" in said(outcome), "IDP_AUDIENCE" in outcome.text) == (1, True, True)
