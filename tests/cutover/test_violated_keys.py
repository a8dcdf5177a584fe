"""Foreign keys that are validated and violated: what a restore with triggers disabled leaves behind.

They are found and counted beforehand; what was so before is not taken for the cutover's doing, and is not lost by undo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.cutover.commands import Outcome, migrate, plan, shadow
from tests.cutover.obstacles import WHOLE
from tests.cutover.witness import Portrait, Witness, apart_from_names_of_partitions
from tests.postgres import offered

EMBEDDED = pytest.mark.parametrize("server", ["embedded"], indirect=True)
CODE = "foreign-key-violated"
Load = Callable[[str], Witness]

NOTES = """
CREATE TABLE notes (id int PRIMARY KEY, reader varchar(255) CONSTRAINT read_by REFERENCES users (id));
INSERT INTO notes SELECT 1, min(id) FROM users;
"""
PAPERS = """
CREATE TABLE papers (id int PRIMARY KEY, writer uuid CONSTRAINT written_by REFERENCES "user" (id) ON DELETE SET NULL);
COMMENT ON CONSTRAINT written_by ON papers IS 'who wrote it';
INSERT INTO papers SELECT 1, id FROM "user" LIMIT 1;
"""
SESSION = """
INSERT INTO sessions SELECT (jsonb_populate_record(s, '{"id": "lost", "token": "lost", "user_id": "gone"}')).*
FROM sessions s LIMIT 1
"""
ZED = "INSERT INTO users (id, name, email) VALUES ('zed', 'Zed', 'zed@example.com');"
LOST_PAPER = "INSERT INTO papers VALUES (2, gen_random_uuid()), (3, gen_random_uuid())"


def unchecked(database: Witness, sql: str) -> None:
    """Do what no foreign key looks at, as pg_restore --disable-triggers does."""
    database.run(f"SET session_replication_role = replica; {sql}; RESET session_replication_role")


def found(database: Witness, to: str, *arguments: str) -> list[dict[str, str]]:
    return plan(database.url, to, *arguments).findings(CODE)


def done(outcome: Outcome) -> None:
    assert outcome.code == 0, outcome.text


def there_and_back(database: Witness) -> None:
    """Adopt, retire, verify, undo both."""
    done(migrate(database.url, "adopt"))
    done(migrate(database.url, "retire"))
    done(shadow(database.url, "verify"))
    done(shadow(database.url, "undo", "--yes"))
    done(shadow(database.url, "verify"))
    done(shadow(database.url, "undo", "--yes"))


def apart_from_validity(portrait: Portrait) -> Portrait:
    return portrait._replace(schema=sorted(text.replace(" NOT VALID;", ";") for text in portrait.schema))


class TestOnEveryServer:
    def test_ids_that_stay_text_leave_the_key_as_it_is(self, database: Witness) -> None:
        database.run(NOTES)
        unchecked(database, "INSERT INTO notes VALUES (2, 'gone'), (3, 'gone too')")
        (warned,) = found(database, "retire")
        assert (warned["level"], warned["subject"]) == ("warn", "public.notes")
        assert "2 rows of public.notes (reader) violate read_by" in warned["message"]
        before = database.portrait()
        there_and_back(database)
        assert database.portrait() == before

    def test_ids_that_are_rewritten_need_it_not_valid(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(PAPERS)
        unchecked(database, LOST_PAPER)
        before = database.dump()
        refused = migrate(database.url, "retire")
        assert refused.code == 2, refused.text
        assert f"refuse {CODE} 2 rows of public.papers (writer) violate written_by" in refused.text
        assert database.dump() == before
        database.run(found(database, "retire")[0]["remedy"])
        mended = database.portrait()
        assert any("COMMENT ON CONSTRAINT written_by" in text for text in mended.schema)
        there_and_back(database)
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(mended)

    def test_a_retired_table_comes_back_with_what_it_had(self, database: Witness) -> None:
        unchecked(database, SESSION)
        (warned,) = found(database, "retire")
        assert (warned["level"], warned["subject"]) == ("warn", "public.sessions")
        before = database.portrait()
        there_and_back(database)
        after = database.portrait()
        assert [text for text in after.schema if "NOT VALID" in text] == [
            text.replace(";", " NOT VALID;") for text in before.schema if text not in after.schema
        ]
        assert apart_from_validity(after) == before


@EMBEDDED
class TestKeysThatStay:
    def test_the_whole_way_is_free(self, database: Witness) -> None:
        database.run(NOTES)
        unchecked(database, "INSERT INTO notes VALUES (2, 'gone')")
        keys = [key for key in database.foreign_keys() if key["name"] == "read_by"]
        done(migrate(database.url, *WHOLE))
        done(shadow(database.url, "verify"))
        assert [key for key in database.foreign_keys() if key["name"] == "read_by"] == keys
        assert database.value("SELECT count(*) FROM notes WHERE reader = 'gone'") == 1

    def test_both_revisions_in_one_run_are_undone(self, database: Witness) -> None:
        database.run(NOTES)
        unchecked(database, "INSERT INTO notes VALUES (2, 'gone')")
        before = database.portrait()
        done(migrate(database.url, "retire"))
        done(shadow(database.url, "undo", "--yes"))
        done(shadow(database.url, "undo", "--yes"))
        assert database.portrait() == before

    def test_the_rows_can_be_listed(self, database: Witness) -> None:
        database.run(NOTES)
        unchecked(database, "INSERT INTO notes VALUES (2, 'gone'), (3, NULL)")
        (warned,) = found(database, "adopt")
        query, _, words = warned["remedy"].partition(";")
        assert (words.strip(), [row["id"] for row in database.ask(query)]) == ("-- lists them", [2])

    def test_verify_finds_what_came_to_violate_it_since(self, database: Witness) -> None:
        database.run(NOTES)
        unchecked(database, "INSERT INTO notes VALUES (2, 'gone')")
        done(migrate(database.url, "retire"))
        unchecked(database, "INSERT INTO notes VALUES (3, 'gone too')")
        verified = shadow(database.url, "verify")
        assert verified.code == 1, verified.text
        assert "rows that violate one of" in verified.text

    def test_mending_one_key_does_not_hide_another(self, database: Witness) -> None:
        database.run(NOTES + "CREATE TABLE pins (id int, owner varchar(255) REFERENCES users (id))")
        unchecked(database, "INSERT INTO notes VALUES (2, 'gone')")
        done(migrate(database.url, "retire"))
        database.run("DELETE FROM notes WHERE reader = 'gone'")
        done(shadow(database.url, "verify"))
        unchecked(database, "INSERT INTO pins VALUES (1, 'gone')")
        assert shadow(database.url, "verify").code == 1

    def test_keys_that_the_cutover_does_not_touch_are_not_counted(self, database: Witness) -> None:
        database.run("CREATE TABLE shelves (id int PRIMARY KEY); CREATE TABLE books (shelf int REFERENCES shelves)")
        unchecked(database, "INSERT INTO books VALUES (1)")
        assert found(database, "drop") == []
        before = database.portrait()
        there_and_back(database)
        assert database.portrait() == before

    def test_rows_of_partitions_are_counted_once(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE visits (id int, who varchar(255) REFERENCES users (id)) PARTITION BY RANGE (id);"
            "CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (9);"
            "CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM (10) TO (19)"
        )
        unchecked(database, "INSERT INTO visits VALUES (1, 'gone'), (11, 'gone'), (12, NULL)")
        (warned,) = found(database, "retire")
        assert "2 rows of public.visits " in warned["message"]
        done(migrate(database.url, "retire"))

    def test_what_match_full_does_not_take_violates_it(self, database: Witness) -> None:
        database.run(
            "ALTER TABLE users ADD UNIQUE (id, email);"
            "CREATE TABLE pins (who varchar(255), mail varchar(255), FOREIGN KEY (who, mail) "
            "REFERENCES users (id, email) MATCH FULL ON UPDATE CASCADE)"
        )
        unchecked(database, "INSERT INTO pins SELECT min(id), NULL FROM users UNION ALL SELECT NULL, NULL")
        (warned,) = found(database, "retire")
        assert "1 rows of public.pins (who, mail) violate" in warned["message"]


@EMBEDDED
class TestKeysThatAreAddedAgain:
    @pytest.fixture
    def papers(self, load: Load) -> Witness:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(PAPERS)
        unchecked(database, LOST_PAPER)
        return database

    def test_adopt_leaves_them_alone(self, papers: Witness) -> None:
        (warned,) = found(papers, "adopt")
        assert warned["level"] == "warn"
        done(migrate(papers.url, "adopt"))
        (refused,) = found(papers, "retire")
        assert refused["level"] == "refuse"
        assert migrate(papers.url, "retire").code == 2

    def test_mending_the_rows_is_enough(self, papers: Witness) -> None:
        (refused,) = found(papers, "retire")
        delete = next(
            line.removeprefix("-- ") for line in refused["remedy"].splitlines() if line.startswith("-- DELETE")
        )
        papers.run(delete)
        assert papers.value("SELECT array_agg(id) FROM papers") == [1]
        assert found(papers, "retire") == []
        before = apart_from_names_of_partitions(papers.portrait())
        there_and_back(papers)
        assert apart_from_names_of_partitions(papers.portrait()) == before

    def test_keys_to_what_refers_to_users_are_too(self, papers: Witness) -> None:
        papers.run("DELETE FROM papers WHERE id > 1; ALTER TABLE papers ADD UNIQUE (writer)")
        papers.run("CREATE TABLE copies (of uuid CONSTRAINT copied REFERENCES papers (writer) DEFERRABLE)")
        unchecked(papers, "INSERT INTO copies VALUES (gen_random_uuid())")
        (refused,) = found(papers, "retire")
        assert (refused["level"], "copied" in refused["message"]) == ("refuse", True)
        papers.run(refused["remedy"])
        mended = papers.portrait()
        there_and_back(papers)
        assert apart_from_names_of_partitions(papers.portrait()) == apart_from_names_of_partitions(mended)


@EMBEDDED
class TestWhatCameToViolateItSince:
    def test_is_named_before_undo_adds_the_key_again(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(PAPERS)
        done(migrate(database.url, "retire"))
        unchecked(database, "INSERT INTO papers VALUES (2, gen_random_uuid()::text)")
        refused = shadow(database.url, "undo", "--yes")
        assert refused.code == 2, refused.text
        assert "refuse undo-finds-orphans 1 rows of public.papers" in refused.text
        assert "statement-refused" not in refused.text
        database.run("DELETE FROM papers WHERE id = 2")
        done(shadow(database.url, "undo", "--yes"))


@pytest.mark.parametrize("server", [name for name in offered() if name != "embedded"], indirect=True)
class TestAddressesThatIgnoreCase:
    """Of the servers at hand, the embedded one has no citext."""

    @pytest.fixture
    def letters(self, load: Load) -> Witness:
        """Letters to an address in another case, which citext takes for the same; nobody has it in their path."""
        database = replace(load("kysely_singular"), users='public."user"')
        database.run(
            "CREATE SCHEMA extensions; CREATE EXTENSION citext SCHEMA extensions; SET search_path = public, extensions;"
            'ALTER TABLE "user" ALTER email TYPE citext;'
            'CREATE TABLE letters (recipient citext CONSTRAINT sent_to REFERENCES "user" (email) ON UPDATE CASCADE);'
            'INSERT INTO letters SELECT upper(min(email::text)) FROM "user"'
        )
        return database

    def test_another_case_violates_nothing(self, letters: Witness) -> None:
        seen = plan(letters.url, "retire")
        assert seen.findings(CODE) == []
        assert len(seen.findings("foreign-key-case")) == 1

    def test_nobody_is_not_another_case(self, letters: Witness) -> None:
        letters.run(
            'SET search_path = public, extensions; UPDATE letters SET recipient = (SELECT min(email) FROM "user")'
        )
        unchecked(letters, "INSERT INTO letters VALUES ('nobody@example.com')")
        seen = plan(letters.url, "retire")
        assert seen.findings("foreign-key-case") == []
        (refused,) = seen.findings(CODE)
        assert (refused["level"], "1 rows of public.letters" in refused["message"]) == ("refuse", True)
        letters.run(refused["remedy"])
        mended = letters.portrait()
        there_and_back(letters)
        assert letters.portrait() == mended


class TestAPartitionedTable:
    def test_is_freed_by_what_the_finding_says(self, load: Load) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(
            'CREATE TABLE visits (id int, who uuid REFERENCES "user" (id)) PARTITION BY RANGE (id);'
            "CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (9)"
        )
        unchecked(database, "INSERT INTO visits VALUES (1, gen_random_uuid())")
        (refused,) = found(database, "retire")
        assert refused["level"] == "refuse"
        database.run(refused["remedy"])
        mended = database.portrait()
        there_and_back(database)
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(mended)


@EMBEDDED
class TestWhatComesBackWithUndo:
    @pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
    def test_nothing_that_was_lost_before_is_deleted_or_emptied(self, database: Witness, action: str) -> None:
        database.run(
            "ALTER TABLE sessions ALTER user_id DROP NOT NULL, DROP CONSTRAINT sessions_user_id_users_id_fk,"
            f"ADD CONSTRAINT of_user FOREIGN KEY (user_id) REFERENCES users ON DELETE {action}"
        )
        unchecked(database, SESSION)
        before = database.portrait()
        there_and_back(database)
        assert apart_from_validity(database.portrait()) == before
        assert database.value("SELECT NOT convalidated FROM pg_constraint WHERE conname = 'of_user'")
        there_and_back(database)

    def test_rows_of_who_left_since_stay_too_where_the_key_comes_back_not_valid(self, database: Witness) -> None:
        unchecked(database, SESSION)
        database.run(
            ZED + "UPDATE sessions SET user_id = 'zed' WHERE id = (SELECT min(id) FROM sessions WHERE id <> 'lost')"
        )
        ids = database.ask("SELECT id FROM sessions ORDER BY id")
        done(migrate(database.url, "retire"))
        database.run("DELETE FROM users WHERE id = 'zed'")
        done(shadow(database.url, "undo", "--yes", "--accept", "undo-loses-rows"))
        assert database.ask("SELECT id FROM sessions ORDER BY id") == ids

    def test_a_detached_key_does(self, database: Witness) -> None:
        database.run("CREATE TABLE push (id int, session varchar(255) CONSTRAINT pushed REFERENCES sessions)")
        unchecked(database, "INSERT INTO push VALUES (1, 'gone')")
        (warned,) = found(database, "retire", "--detach", "push.session")
        assert (warned["level"], "pushed" in warned["message"]) == ("warn", True)
        done(migrate(database.url, "retire", "--detach", "push.session"))
        done(shadow(database.url, "undo", "--yes"))
        assert database.ask("SELECT session FROM push") == [{"session": "gone"}]
        assert database.value("SELECT NOT convalidated FROM pg_constraint WHERE conname = 'pushed'")

    def test_a_column_of_users_does(self, database: Witness) -> None:
        database.run(
            "UPDATE users SET deactivated_by = NULL;"
            "ALTER TABLE users ADD CONSTRAINT by_whom FOREIGN KEY (deactivated_by) REFERENCES users"
        )
        unchecked(database, "UPDATE users SET deactivated_by = 'gone' WHERE id = (SELECT min(id) FROM users)")
        (warned,) = found(database, "retire")
        assert (warned["level"], "by_whom" in warned["message"]) == ("warn", True)
        before = database.portrait()
        there_and_back(database)
        assert apart_from_validity(database.portrait()) == before


@EMBEDDED
class TestRowsThatFollowEachOther:
    LEVELS = 100

    @pytest.fixture
    def chained(self, database: Witness) -> Witness:
        """Sessions that refer to sessions, a hundred deep, the first of somebody who then leaves."""
        database.run(ZED)
        database.run(
            "ALTER TABLE sessions ADD after varchar(255) CONSTRAINT after REFERENCES sessions ON DELETE CASCADE"
        )
        database.run("ALTER TABLE sessions ALTER user_id DROP NOT NULL")
        database.run(
            f"""INSERT INTO sessions SELECT (jsonb_populate_record(NULL::sessions, to_jsonb(s) || jsonb_build_object(
            'id', 'at ' || n, 'token', n,
            'user_id', CASE n WHEN 0 THEN 'zed' END, 'after', 'at ' || nullif(n, 0) - 1))).*
            FROM (SELECT * FROM sessions LIMIT 1) s, generate_series(0, {self.LEVELS}) n"""
        )
        done(migrate(database.url, "retire"))
        return database

    def test_all_are_named_and_no_other(self, chained: Witness) -> None:
        others = self._others(chained)
        chained.run("DELETE FROM users WHERE id = 'zed'")
        refused = shadow(chained.url, "undo", "--yes")
        assert refused.code == 2, refused.text
        assert f"{self.LEVELS + 1:,} rows of retired_auth.sessions would be deleted" in refused.text
        done(shadow(chained.url, "undo", "--yes", "--accept", "undo-loses-rows"))
        assert chained.ask("SELECT id FROM sessions ORDER BY 1") == others

    def test_a_ring_ends(self, chained: Witness) -> None:
        chained.run(f"UPDATE retired_auth.sessions SET after = 'at {self.LEVELS}' WHERE id = 'at 0'")
        chained.run("DELETE FROM users WHERE id = 'zed'")
        refused = shadow(chained.url, "undo", "--yes")
        assert f"{self.LEVELS + 1:,} rows of retired_auth.sessions would be deleted" in refused.text

    def test_what_hangs_on_the_last_is_counted_and_listed(self, chained: Witness) -> None:
        chained.run(
            "CREATE TABLE traces (id int, session varchar(255) REFERENCES retired_auth.sessions ON DELETE CASCADE);"
            "CREATE TABLE marks (id int, session varchar(255) REFERENCES retired_auth.sessions ON DELETE SET NULL);"
            f"INSERT INTO traces SELECT 1, 'at {self.LEVELS}'; INSERT INTO marks SELECT 2, 'at {self.LEVELS}';"
            "INSERT INTO marks SELECT 3, min(id) FROM retired_auth.sessions WHERE id NOT LIKE 'at %'"
        )
        chained.run("DELETE FROM users WHERE id = 'zed'")
        refused = shadow(chained.url, "undo", "--yes").text
        assert "1 rows of public.traces would be deleted" in refused
        assert "In 1 rows of public.marks, session would be emptied" in refused

    @staticmethod
    def _others(database: Witness) -> list[dict[str, Any]]:
        return database.ask("SELECT id FROM retired_auth.sessions WHERE id NOT LIKE 'at %' ORDER BY 1")
