"""What undo must not take: what the provider brought since, rows of people who are still there, the app's own rows, and
where a sequence stood."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.cutover.commands import Outcome, migrate, plan, shadow
from tests.cutover.obstacles import hand_over
from tests.cutover.witness import Witness, apart_from_names_of_partitions

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

Load = Callable[[str], Witness]
ZOE = """
    INSERT INTO "user" (id, name, email, "emailVerified", "createdAt", "updatedAt", role)
        VALUES ('zoe', 'Zoe', 'zoe@example.com', true, now(), now(), 'chief');
    INSERT INTO account (id, "accountId", "providerId", "userId", password, "createdAt", "updatedAt")
        VALUES ('of zoe', 'zoe', 'credential', 'zoe', 'hash', now(), now());
    INSERT INTO session (id, "expiresAt", token, "createdAt", "updatedAt", "userId")
        VALUES ('zoe is here', now() + '1d', 'secret', now(), now(), 'zoe');
"""


def undone(database: Witness, *arguments: str) -> Outcome:
    return shadow(database.url, "undo", "--yes", *arguments)


def retired(database: Witness, *arguments: str) -> None:
    done = migrate(database.url, "retire", *arguments)
    assert done.code == 0, done.text


def taken_back(database: Witness, *arguments: str) -> None:
    back = undone(database, *arguments)
    assert back.code == 0, back.text


def listed(database: Witness, outcome: Outcome) -> list[int]:
    """Return how many rows each query of the refusals finds that lists what would be lost."""
    lines = [line.strip().removeprefix("→ ") for line in f"{outcome.out}\n{outcome.err}".splitlines()]
    queries = [line.partition(";")[0] for line in lines if line.endswith("-- lists them")]
    return [database.value(f"SELECT count(*) FROM ({query}) q") for query in queries]


class TestWhatWasFilled:
    @pytest.mark.parametrize(
        ("column", "new", "brought"),
        [
            ("name", "name", "'Brought'"),
            ('"emailVerified"', "email_verified", "true"),
            ('"updatedAt"', "updated_at", "timestamptz '2031-05-06 07:08:09.123456Z'"),
            ('"createdAt"', "created_at", "timestamptz '2031-05-06 07:08:09.123456Z'"),
        ],
    )
    def test_becomes_null_again_but_for_what_the_provider_brought_since(
        self, load: Load, column: str, new: str, brought: str
    ) -> None:
        database = load("uuid_kysely")
        database.run(f'ALTER TABLE "user" ALTER {column} DROP NOT NULL; UPDATE "user" SET {column} = NULL')
        count = database.value('SELECT count(*) FROM "user"')
        retired(database)
        database.run(f"UPDATE users SET {new} = {brought} WHERE id = (SELECT min(id) FROM users)")
        taken_back(database)
        left = database.value(f'SELECT count(*) FROM "user" WHERE {column} = {brought}')
        nulls = database.value(f'SELECT count(*) FROM "user" WHERE {column} IS NULL')
        assert (left, nulls) == (1, count - 1)

    @pytest.mark.parametrize("type_", ["timestamp(0)", "timestamptz(3)", "date"])
    def test_the_time_of_the_cutover_is_known_again_whatever_its_precision(self, load: Load, type_: str) -> None:
        database = replace(load("uuid_kysely"), users='public."user"')
        database.run(
            'ALTER TABLE "user" ALTER "createdAt" DROP NOT NULL, ALTER "updatedAt" DROP NOT NULL;'
            f'ALTER TABLE "user" ALTER "updatedAt" TYPE {type_};'
            'UPDATE "user" SET "createdAt" = NULL, "updatedAt" = NULL'
        )
        before = database.portrait()
        if migrate(database.url, "retire").code == 2:
            assert type_ == "date"
            return
        taken_back(database)
        taken_back(database)
        assert database.portrait().users == before.users


class TestRowsOfWhoIsStillThere:
    @pytest.fixture
    def database(self, load: Load) -> Witness:
        database = replace(load("kysely_singular"), users='public."user"')
        database.run(ZOE)
        return database

    def test_another_id_is_named_before_what_hung_on_the_old_one_goes(self, database: Witness) -> None:
        retired(database)
        database.run("UPDATE users SET id = 'auth0|zoe' WHERE id = 'zoe'")
        before = database.dump()
        refused = undone(database)
        assert refused.code == 2, refused.text
        assert refused.text.count("refuse undo-loses-rows") == 3
        for message in (
            "1 rows of retired_auth.account would be deleted",
            "1 rows of retired_auth.session would be deleted",
            "1 rows of retired_auth.users_columns would be lost",
            'not in public."user" any more, or has another id or address now',
        ):
            assert message in refused.text
        assert listed(database, refused) == [1, 1, 1]
        assert database.dump() == before
        taken_back(database, "--accept", "undo-loses-rows")
        assert database.value("SELECT count(*) FROM account WHERE id = 'of zoe'") == 0

    def test_nothing_is_lost_where_the_old_id_is_given_back(self, database: Witness) -> None:
        before = database.portrait()
        retired(database)
        database.run("UPDATE users SET id = 'auth0|zoe' WHERE id = 'zoe'")
        assert undone(database).code == 2
        database.run("UPDATE users SET id = 'zoe' WHERE id = 'auth0|zoe'")
        taken_back(database)
        taken_back(database)
        assert database.portrait() == before

    def test_another_address_is_told_from_a_user_who_is_gone(self, database: Witness) -> None:
        database.run(
            'ALTER TABLE account ADD mail text CONSTRAINT by_mail REFERENCES "user" (email) ON UPDATE CASCADE '
            "ON DELETE CASCADE; UPDATE account SET mail = 'zoe@example.com' WHERE id = 'of zoe'"
        )
        retired(database)
        database.run("UPDATE users SET email = 'zoe@other.example' WHERE id = 'zoe'")
        refused = undone(database)
        assert refused.code == 2, refused.text
        assert "Of 1 of them the user is there by" in refused.text
        (update,) = [line for line in refused.text.split(" → ") if line.startswith("UPDATE ")]
        database.run(update.partition("--")[0])
        taken_back(database)
        assert database.ask("SELECT mail FROM account WHERE id = 'of zoe'") == [{"mail": "zoe@other.example"}]

    def test_rows_of_the_apps_that_would_follow_are_counted(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE cart (id int PRIMARY KEY, s text CONSTRAINT of_session REFERENCES session ON DELETE CASCADE,"
            " above int REFERENCES cart ON DELETE CASCADE);"
            "CREATE TABLE item (id int PRIMARY KEY, cart int REFERENCES cart ON DELETE CASCADE);"
            "CREATE TABLE mark (id int PRIMARY KEY, item int REFERENCES item ON DELETE SET NULL);"
            "INSERT INTO cart VALUES (1, 'zoe is here', NULL), (2, NULL, 1), (3, NULL, 2), (4, NULL, NULL);"
            "INSERT INTO item VALUES (1, 1), (2, 3), (3, 4); INSERT INTO mark VALUES (1, 2), (2, 3)"
        )
        retired(database, "--detach", "cart.s")
        database.run("DELETE FROM users WHERE id = 'zoe'")
        refused = undone(database)
        assert refused.code == 2, refused.text
        for message in (
            "3 rows of public.cart would be deleted",
            "2 rows of public.item would be deleted",
            "In 1 rows of public.mark, item would be emptied",
        ):
            assert message in refused.text
        taken_back(database, "--accept", "undo-loses-rows")
        assert database.counts()["public.cart"] == 1
        assert database.ask("SELECT id, item FROM mark ORDER BY id") == [{"id": 1, "item": None}, {"id": 2, "item": 3}]

    def test_rows_that_would_forbid_it_are_named_and_no_acceptance_takes_them(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE cart (id int PRIMARY KEY, s text REFERENCES session ON DELETE CASCADE);"
            "CREATE TABLE bill (id int PRIMARY KEY, cart int CONSTRAINT of_cart REFERENCES cart);"
            "INSERT INTO cart VALUES (1, 'zoe is here'); INSERT INTO bill VALUES (1, 1)"
        )
        retired(database, "--detach", "cart.s")
        database.run("DELETE FROM users WHERE id = 'zoe'")
        refused = undone(database, "--accept", "undo-loses-rows")
        assert refused.code == 2, refused.text
        assert "refuse undo-finds-orphans 1 rows of public.bill" in refused.text
        assert "statement-refused" not in refused.text
        database.run("UPDATE bill SET cart = NULL")
        taken_back(database, "--accept", "undo-loses-rows")

    def test_a_retired_table_that_refers_to_one_of_the_apps(self, database: Witness) -> None:
        database.run(
            "CREATE TABLE shop (id int PRIMARY KEY); INSERT INTO shop VALUES (1);"
            "ALTER TABLE session ADD shop int REFERENCES shop ON DELETE CASCADE;"
            "ALTER TABLE account ADD shop int CONSTRAINT at REFERENCES shop;"
            "UPDATE session SET shop = 1 WHERE id = 'zoe is here'; UPDATE account SET shop = 1 WHERE id = 'of zoe'"
        )
        retired(database)
        database.run("DELETE FROM shop")
        refused = undone(database)
        assert "refuse undo-loses-rows 1 rows of retired_auth.session" in refused.text
        assert "refuse undo-finds-orphans 1 rows of retired_auth.account" in refused.text
        database.run("UPDATE retired_auth.account SET shop = NULL")
        taken_back(database, "--accept", "undo-loses-rows")

    def test_a_column_of_users_that_comes_back_and_refers_to_who_is_gone(self, database: Witness) -> None:
        database.run(
            'ALTER TABLE "user" ADD CONSTRAINT chief FOREIGN KEY (role) REFERENCES "user" ON DELETE SET NULL NOT VALID;'
            "UPDATE \"user\" SET role = NULL; UPDATE \"user\" SET role = 'zoe' WHERE id < 'm';"
            'ALTER TABLE "user" VALIDATE CONSTRAINT chief'
        )
        retired(database)
        database.run("DELETE FROM users WHERE id = 'zoe'")
        refused = undone(database, "--accept", "undo-loses-rows")
        assert refused.code == 2
        assert "refuse undo-finds-orphans" in refused.text
        assert "chief" in refused.text
        database.run(refused.text.split(" → ")[1].partition(";")[0])
        taken_back(database, "--accept", "undo-loses-rows")

    def test_where_nobody_went_nothing_is_named(self, database: Witness) -> None:
        before = database.portrait()
        retired(database)
        database.run("UPDATE users SET email = 'zoe@other.example', name = 'Z' WHERE id = 'zoe'")
        taken_back(database)
        taken_back(database)
        assert database.portrait().data == before.data


class TestRowsOfTheRateLimiter:
    HELD = """
    CREATE TABLE penalty (id int PRIMARY KEY, rl bigint CONSTRAINT whose REFERENCES "rateLimit" (id) {action});
    INSERT INTO penalty SELECT id, id FROM "rateLimit"
    """

    @pytest.mark.parametrize("action", ["ON DELETE CASCADE", "ON DELETE SET NULL", "", "ON DELETE CASCADE NOT VALID"])
    def test_those_that_rows_of_the_apps_refer_to_are_named(self, load: Load, action: str) -> None:
        database = load("number_ids")
        database.run(self.HELD.format(action=action if "NOT VALID" not in action else "ON DELETE CASCADE"))
        if "NOT VALID" in action:
            database.run(
                "ALTER TABLE penalty DROP CONSTRAINT whose, ADD CONSTRAINT whose FOREIGN KEY (rl) "
                'REFERENCES "rateLimit" (id) ON DELETE CASCADE NOT VALID'
            )
        dead = database.value("SELECT count(*) FROM \"rateLimit\" WHERE key LIKE 'session:%'")
        rows = database.ask("SELECT * FROM penalty ORDER BY id")
        (found,) = plan(database.url, "retire").findings("rate-limit-referred")
        assert (found["level"], found["subject"]) == ("refuse", "public.penalty")
        assert found["message"].startswith(f"{dead} rows of public.penalty refer by whose")
        assert migrate(database.url, "retire").code == 2
        database.run(found["remedy"])
        retired(database)
        assert database.ask("SELECT * FROM penalty ORDER BY id") == rows

    def test_those_that_refer_to_others_are_in_nobodys_way(self, load: Load) -> None:
        database = load("number_ids")
        database.run(self.HELD.format(action=""))
        database.run("DELETE FROM penalty WHERE rl IN (SELECT id FROM \"rateLimit\" WHERE key LIKE 'session:%')")
        retired(database)

    def test_a_child_of_another_owner_keeps_its_rows_and_triggers_through_both(
        self, load: Load, make_role: Callable[[], str]
    ) -> None:
        database, owner, other = load("number_ids"), make_role(), make_role()
        database.run(
            'CREATE TABLE child () INHERITS ("rateLimit"); '
            "INSERT INTO child (id, key, count, \"lastRequest\") VALUES (1, 'session:mine', 1, 1);"
            "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;"
            "CREATE TRIGGER kept BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION never()"
        )
        hand_over(database, owner)
        database.run(f"ALTER TABLE child OWNER TO {other}")
        before = database.rows('ONLY "rateLimit"')
        done = migrate(database.seen_by(owner), "retire")
        assert done.code == 0, done.text
        assert database.value("SELECT count(*) FROM ONLY \"rateLimit\" WHERE key LIKE 'session:%'") == 0
        back = shadow(database.seen_by(owner), "undo", "--yes")
        assert back.code == 0, back.text
        assert (database.rows('ONLY "rateLimit"'), database.value("SELECT count(*) FROM child")) == (before, 1)


USER = 'INSERT INTO "user" (id, name, email, "emailVerified", "createdAt", "updatedAt") OVERRIDING SYSTEM VALUE VALUES '


def user(id: str) -> str:
    return f"{USER}({id}, 'N', 'n{id}@example.com', true, now(), now());"


class TestWhereASequenceStood:
    """Of `number_ids`, whose ids are an identity or a sequence of their own."""

    NEXT = "SELECT nextval(pg_get_serial_sequence('\"user\"', 'id'))"
    OWNED = """
    ALTER TABLE "user" ALTER id DROP IDENTITY IF EXISTS; CREATE SEQUENCE ids OWNED BY "user".id;
    SELECT setval('ids', (SELECT max(id) FROM "user")); ALTER TABLE "user" ALTER id SET DEFAULT nextval('ids');
    """
    BACKWARDS = 'ALTER TABLE "user" ALTER id SET MINVALUE -1000 SET MAXVALUE 9999 SET INCREMENT -1 RESTART WITH -1;'

    @pytest.mark.parametrize(
        "made",
        [
            user("5000"),
            user("5000") + 'ALTER TABLE "user" ALTER id SET MAXVALUE 1000;',
            BACKWARDS + user("-7") + 'INSERT INTO "user" (name, email, "emailVerified", "createdAt", "updatedAt") '
            "VALUES ('x', 'x1@x', true, now(), now()), ('x', 'x2@x', true, now(), now());",
            OWNED + user("5000"),
            'ALTER TABLE "user" ALTER id RESTART WITH 700;',
        ],
        ids=["an id by hand", "one beyond its bounds", "backwards", "owned", "never called"],
    )
    def test_there_it_stands_again_where_nobody_came(self, load: Load, made: str) -> None:
        database = replace(load("number_ids"), users='public."user"')
        database.run(made)
        before = database.portrait()
        retired(database)
        taken_back(database)
        taken_back(database)
        assert apart_from_names_of_partitions(database.portrait()) == apart_from_names_of_partitions(before)

    @pytest.mark.parametrize(
        ("made", "came", "step"),
        [
            ("", 1, 1),
            (user("5000"), 1, 1),
            ('ALTER TABLE "user" ALTER id SET INCREMENT 10;', 10, 10),
            (OWNED, 1, 1),
        ],
        ids=["identity", "with an id by hand ahead", "in tens", "owned"],
    )
    def test_an_id_that_came_since_is_not_made_once_more(self, load: Load, made: str, came: int, step: int) -> None:
        database = load("number_ids")
        database.run(made)
        stood = database.value("SELECT last_value FROM pg_sequences WHERE sequencename ~ 'user|ids' LIMIT 1")
        retired(database)
        database.run(f"INSERT INTO users (id, name, email) VALUES ('{stood + came}', 'N', 'came@example.com')")
        taken_back(database)
        assert database.value(self.NEXT) == stood + came + step

    def test_backwards_too(self, load: Load) -> None:
        database = load("number_ids")
        database.run(self.BACKWARDS)
        retired(database)
        database.run("INSERT INTO users (id, name, email) VALUES ('-3', 'N', 'came@example.com')")
        taken_back(database)
        assert database.value(self.NEXT) == -4

    def test_an_id_that_it_never_makes_does_not_move_it(self, load: Load) -> None:
        database = load("number_ids")
        database.run('ALTER TABLE "user" ALTER id SET MAXVALUE 1000')
        retired(database)
        database.run("INSERT INTO users (id, name, email) VALUES ('5000', 'N', 'came@example.com')")
        taken_back(database)
        assert database.value(self.NEXT) < 1000

    def test_ids_may_be_texts(self, database: Witness) -> None:
        database.run(
            "CREATE SEQUENCE ids OWNED BY users.id; ALTER TABLE users ALTER id SET DEFAULT nextval('ids')::text;"
            "SELECT setval('ids', 7)"
        )
        before = database.portrait()
        retired(database)
        taken_back(database)
        assert database.value("SELECT last_value FROM ids") == 7
        retired(database)
        database.run("INSERT INTO users (id, name, email) VALUES ('9', 'N', 'came@example.com')")
        taken_back(database)
        assert database.value("SELECT nextval('ids')") == 10
        database.run("DELETE FROM users WHERE id = '9'; SELECT setval('ids', 7)")
        taken_back(database)
        assert database.portrait() == before
