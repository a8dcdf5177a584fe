"""`shadow erase` as a person meets it: dry unless told, asked first, 0 done, 2 refused, 3 somebody is writing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from tests.cutover.commands import PROJECT, Outcome, shadow
from tests.cutover.witness import Witness
from tests.migrated import make_migrated
from tests.postgres import Server

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

PEOPLE = """
INSERT INTO users (id, name, email) VALUES ('ada', 'Ada', 'ada@example.com'), ('bob', 'Bob', 'bob@example.com');
CREATE TABLE notes (author text CONSTRAINT written_by REFERENCES users (id) ON DELETE CASCADE);
CREATE TABLE invoices (payer text CONSTRAINT paid_by REFERENCES users (id));
INSERT INTO notes VALUES ('ada'), ('ada'), ('bob');
"""
TOMBSTONE = "SELECT name, email, deleted_at IS NOT NULL AS deleted FROM users WHERE id = 'ada'"


@pytest.fixture
def database(server: Server, make_database: Callable[[str | None], str]) -> Witness:
    database = Witness(server, make_migrated(server, make_database))
    database.run(PEOPLE)
    return database


def erase(database: Witness, *arguments: str, answer: str | None = None) -> Outcome:
    return shadow(database.url, "erase", *arguments, answer=answer)


class TestErase:
    def test_it_shows_what_would_go_and_by_which_key_and_changes_nothing(self, database: Witness) -> None:
        before = database.portrait()
        shown = erase(database, "ada")
        assert shown.code == 0
        lines = [line.split() for line in shown.out.splitlines()]
        assert ["goes", "1", "public.users", "a", "tombstone", "stays"] in lines
        assert ["goes", "2", "public.notes", "by", "written_by"] in lines
        assert "Nothing was changed" in shown.text
        assert database.portrait() == before

    def test_yes_erases_and_leaves_a_tombstone(self, database: Witness) -> None:
        done = erase(database, "ada", "--execute", "--yes")
        assert (done.code, "Erased." in done.text) == (0, True)
        assert database.ask(TOMBSTONE) == [{"name": "", "email": "ada@placeholder.invalid", "deleted": True}]
        assert database.ask("SELECT author FROM notes") == [{"author": "bob"}]

    def test_where_nobody_can_be_asked_nothing_is_done(self, database: Witness) -> None:
        before = database.portrait()
        refused = erase(database, "ada", "--execute", answer="y\n")
        assert (refused.code, "--yes" in refused.text) == (2, True)
        assert database.portrait() == before

    @pytest.mark.parametrize(("answer", "code"), [(b"n\n", 2), (b"y\n", 0)])
    def test_on_a_terminal_it_asks(self, database: Witness, answer: bytes, code: int) -> None:
        ours, theirs = pty.openpty()
        runner = subprocess.Popen(
            [sys.executable, "-c", "from app.cli import main; main()", "erase", "ada", "--execute"],
            cwd=PROJECT, env={**os.environ, "DATABASE_URL": database.url}, stdin=theirs,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.write(ours, answer)
        out, err = runner.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert runner.returncode == code, (out, err)
        assert (database.ask("SELECT name FROM users WHERE id = 'ada'") == [{"name": "Ada"}]) == (code == 2)

    @pytest.mark.parametrize("how", [(), ("--yes",)], ids=["dry", "yes"])
    def test_what_blocks_is_named_and_nothing_goes(self, database: Witness, how: tuple[str, ...]) -> None:
        database.run("INSERT INTO invoices VALUES ('ada')")
        before = database.portrait()
        refused = erase(database, "ada", *how)
        assert refused.code == 2
        assert ["blocks", "1", "public.invoices", "by", "paid_by"] in [
            line.split() for line in refused.out.splitlines()
        ]
        assert database.portrait() == before

    def test_what_a_trigger_forbids_is_refused(self, database: Witness) -> None:
        database.run(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'never'; END$$;"
            "CREATE TRIGGER no BEFORE DELETE ON notes FOR EACH ROW EXECUTE FUNCTION no()"
        )
        before = database.portrait()
        refused = erase(database, "ada", "--yes")
        assert (refused.code, "a trigger of the database forbids it" in refused.text) == (2, True)
        assert database.portrait() == before

    def test_a_role_that_may_not_delete_is_refused_and_what_it_may_not_read_is_a_question(
        self, database: Witness
    ) -> None:
        reader = f"reader_of_{database.name}"
        database.run(
            f"CREATE ROLE {reader} LOGIN; GRANT SELECT, INSERT, UPDATE ON users TO {reader};"
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON shadow_events, shadow_standing TO {reader}"
        )
        refused = shadow(database.seen_by(reader), "erase", "ada", "--yes")
        database.run(f"DROP OWNED BY {reader}; DROP ROLE {reader}")
        assert (refused.code, "may not delete" in refused.text) == (2, True)
        assert ["goes", "?", "public.notes", "by", "written_by"] in [line.split() for line in refused.out.splitlines()]
        assert database.value("SELECT name FROM users WHERE id = 'ada'") == "Ada"

    def test_a_user_who_is_not_there_is_refused(self, database: Witness) -> None:
        refused = erase(database, "nobody", "--yes")
        assert (refused.code, "nobody" in refused.text) == (2, True)
        assert database.value("SELECT count(*) FROM users") == 2

    def test_it_does_not_wait_for_ever_for_who_writes_the_row(self, database: Witness) -> None:
        holder = threading.Thread(
            target=database.run, args=("BEGIN; UPDATE users SET name = 'A'; SELECT pg_sleep(9); COMMIT",)
        )
        holder.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        while not database.value(waiting):
            pass
        locked = erase(database, "ada", "--yes")
        holder.join()
        assert (locked.code, "try again" in locked.text) == (3, True)
        assert database.value("SELECT deleted_at FROM users WHERE id = 'ada'") is None

    def test_a_database_without_the_tables_is_told(
        self, server: Server, make_database: Callable[[str | None], str]
    ) -> None:
        failed = shadow(make_database(None), "erase", "ada")
        assert (failed.code, "run the migrations" in failed.text) == (1, True)
