"""What is in the rows of users: each kind of value is counted, said, and mended by what the remedy says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.cutover.commands import alembic, migrate, plan
from tests.cutover.witness import Witness
from tests.postgres import Server

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@dataclass(frozen=True)
class Users:
    """A database that Better Auth made, and how its users table spells things."""

    at: Witness
    table: str
    updated_at: str
    created_at: str
    size: int

    def run(self, sql: str) -> None:
        """Run SQL in which {users}, {updated_at} and {created_at} stand for the names."""
        self.at.run(sql.format(users=self.table, updated_at=self.updated_at, created_at=self.created_at))

    def found(self, code: str) -> list[dict[str, str]]:
        return plan(self.at.url, "retire").findings(code)

    def one(self, code: str) -> dict[str, str]:
        (finding,) = self.found(code)
        return finding


SPELLINGS = {
    "plural_snake": ("public.users", "updated_at", "created_at"),
    "soft_delete_singular": ('public."user"', '"updatedAt"', '"createdAt"'),
    "uuid_ids": ('public."user"', '"updatedAt"', '"createdAt"'),
}


@pytest.fixture(params=SPELLINGS)
def users(request: pytest.FixtureRequest, server: Server, make_database: Callable[[str | None], str]) -> Users:
    """In each of three layouts."""
    return users_of(Witness(server, make_database(request.param)), request.param)


@pytest.fixture
def texts(database: Witness) -> Users:
    """In the layout of Auther's template, where ids are text."""
    return users_of(database, "plural_snake")


@pytest.fixture
def deletable(server: Server, make_database: Callable[[str | None], str]) -> Users:
    """In the layout that marks deleted rows."""
    return users_of(Witness(server, make_database("soft_delete_singular")), "soft_delete_singular")


def users_of(database: Witness, fixture: str) -> Users:
    table, updated_at, created_at = SPELLINGS[fixture]
    return Users(database, table, updated_at, created_at, database.value(f"SELECT count(*) FROM {table}"))


class TestEveryLayout:
    def test_what_better_auth_itself_wrote_is_never_refused(self, users: Users) -> None:
        found = [each for each in plan(users.at.url, "retire").json["findings"] if each["level"] == "refuse"]
        assert [each for each in found if each["subject"].startswith(users.table)] == []


class TestEmailMissing:
    def test_null_is_refused_until_each_has_a_placeholder(self, users: Users) -> None:
        users.run("ALTER TABLE {users} ALTER email DROP NOT NULL; UPDATE {users} SET email = NULL")
        users.run("UPDATE {users} SET email = '' WHERE id = (SELECT id FROM {users} LIMIT 1)")
        for refused in (migrate(users.at.url, "retire"), alembic(users.at.url, "upgrade", "0002_retire")):
            assert (refused.code, "email-missing" in refused.text) == (2, True), refused.text
        finding = users.one("email-missing")
        assert finding["level"] == "refuse"
        assert f"{users.table}.email is null in {users.size - 1:,} rows and empty in 1" in finding["message"]
        users.run(finding["remedy"])
        assert users.found("email-missing") == []
        same = f"SELECT count(*) FROM {users.table} WHERE email = id::text || '@placeholder.invalid'"
        assert users.at.value(same) == users.size
        done = migrate(users.at.url, "adopt")
        assert done.code == 0, done.text

    def test_a_single_empty_one_is_warned_of(self, users: Users) -> None:
        users.run("UPDATE {users} SET email = id || '@x'")
        assert users.found("email-missing") == []
        users.run("UPDATE {users} SET email = '' WHERE id = (SELECT id FROM {users} LIMIT 1)")
        finding = users.one("email-missing")
        assert (finding["level"], "null in 0 rows and empty in 1" in finding["message"]) == ("warn", True)
        users.run(finding["remedy"])
        assert users.found("email-missing") == []

    def test_those_that_are_null_do_not_collide_with_one_another(self, texts: Users) -> None:
        texts.run("ALTER TABLE {users} ALTER email DROP NOT NULL; UPDATE {users} SET email = NULL")
        assert texts.found("email-case") == []


class TestIds:
    LONG = "x" * 256

    def test_one_of_256_characters_is_warned_of_and_listed_by_the_remedy(self, texts: Users) -> None:
        texts.run("ALTER TABLE {users} ALTER id TYPE text")
        texts.run(
            f"INSERT INTO {{users}} (id, name, email) VALUES ('{self.LONG}', 'L', 'l@x'),(repeat('é', 255), 'M', 'm@x')"
        )
        finding = texts.one("id-too-long")
        assert (finding["level"], finding["message"].startswith("1 ids")) == ("warn", True)
        assert texts.at.run(finding["remedy"]).split() == [self.LONG]
        texts.run(f"UPDATE {{users}} SET id = 'the-sub' WHERE id = '{self.LONG}'")
        assert texts.found("id-too-long") == []

    def test_an_empty_one_is_warned_of_and_listed_by_the_remedy(self, texts: Users) -> None:
        texts.run("INSERT INTO {users} (id, name, email) VALUES ('', 'Nobody', 'n@example.com')")
        finding = texts.one("id-empty")
        assert finding["level"] == "warn"
        assert "n@example.com" in texts.at.run(finding["remedy"])
        texts.run("UPDATE {users} SET id = 'the-sub' WHERE id = ''")
        assert texts.found("id-empty") == []


class TestNames:
    def test_null_and_empty_are_counted_apart(self, users: Users) -> None:
        users.run("ALTER TABLE {users} ALTER name DROP NOT NULL; UPDATE {users} SET name = 'N'")
        assert users.found("name-missing") == []
        users.run("UPDATE {users} SET name = NULL WHERE id IN (SELECT id FROM {users} ORDER BY id LIMIT 2)")
        users.run("UPDATE {users} SET name = '' WHERE id = (SELECT id FROM {users} ORDER BY id DESC LIMIT 1)")
        finding = users.one("name-missing")
        assert finding["level"] == "info"
        assert "Of the names, 2 are null and become empty; already empty: 1." in finding["message"]


class TestUpdatedAt:
    def test_those_without_are_counted_with_what_they_become(self, users: Users) -> None:
        users.run("ALTER TABLE {users} ALTER {updated_at} DROP NOT NULL; UPDATE {users} SET {updated_at} = NULL")
        finding = users.one("updated-missing")
        assert finding["level"] == "info"
        assert f"is null in {users.size:,} rows and becomes {users.table}.{users.created_at}" in finding["message"]


class TestInfinity:
    def test_each_column_is_warned_of_and_mended(self, users: Users) -> None:
        users.run("UPDATE {users} SET {created_at} = '-infinity'; UPDATE {users} SET {updated_at} = 'infinity'")
        found = users.found("infinite-timestamp")
        subjects = {f"{users.table}.{users.created_at}", f"{users.table}.{users.updated_at}"}
        assert {each["subject"] for each in found} == subjects
        assert {each["level"] for each in found} == {"warn"}
        assert all(f"{users.size:,} rows" in each["message"] for each in found)
        for each in found:
            users.run(each["remedy"])
        assert users.found("infinite-timestamp") == []

    @pytest.mark.parametrize(
        "column",
        ['"deletedAt" = DEFAULT', "\"deletedAt\" = 'infinity'"],
        ids=["by a default of a column that is not null", "by hand"],
    )
    def test_who_is_deleted_at_infinity_is_refused_and_mended(self, deletable: Users, column: str) -> None:
        """Some apps mean by it that nobody deleted the row; the server takes any moment for a deletion."""
        if "DEFAULT" in column:
            deletable.run("ALTER TABLE {users} ALTER \"deletedAt\" SET DEFAULT 'infinity'")
        deletable.run(f"UPDATE {{users}} SET {column}")
        if "DEFAULT" in column:
            deletable.run('ALTER TABLE {users} ALTER "deletedAt" SET NOT NULL')
        finding = deletable.one("infinite-timestamp")
        assert (finding["level"], "deleted" in finding["message"]) == ("refuse", True)
        assert migrate(deletable.at.url, "adopt").code == 2
        deletable.run(finding["remedy"])
        assert deletable.found("infinite-timestamp") == []
        assert deletable.at.value(f'SELECT count(*) FROM {deletable.table} WHERE "deletedAt" IS NOT NULL') == 0


class TestSoftDeleted:
    def test_they_are_counted_and_can_be_let_in_again(self, deletable: Users) -> None:
        deletable.run('UPDATE {users} SET "deletedAt" = NULL')
        assert deletable.found("soft-deleted") == []
        deletable.run('UPDATE {users} SET "deletedAt" = now() WHERE id IN (SELECT id FROM {users} LIMIT 3)')
        finding = deletable.one("soft-deleted")
        assert finding["level"] == "info"
        assert finding["message"].startswith(f'3 users are deleted here ({deletable.table}."deletedAt" is set)')


class TestRateLimit:
    def test_the_rows_of_sessions_are_counted(self, deletable: Users) -> None:
        deletable.run("DELETE FROM rate_limit WHERE key LIKE 'session:%'")
        assert deletable.found("rate-limit-rows") == []
        deletable.run(
            "INSERT INTO rate_limit (key, count, \"lastRequest\") VALUES ('session:a', 1, 1), ('session:b', 1, 1),"
            "('203.0.113.7|/session:%', 1, 1)"
        )
        finding = deletable.one("rate-limit-rows")
        assert (finding["level"], finding["subject"]) == ("info", "public.rate_limit")
        assert finding["message"].startswith("2 rows of public.rate_limit")


class TestPasskeys:
    def test_they_are_ways_in_that_would_be_lost(self, texts: Users) -> None:
        texts.run(
            "DELETE FROM accounts; DELETE FROM two_factors;"
            "CREATE TABLE passkey (id text PRIMARY KEY, name text, public_key text NOT NULL, user_id varchar(255) "
            "NOT NULL REFERENCES users ON DELETE CASCADE, credential_id text NOT NULL, counter int NOT NULL, "
            "device_type text NOT NULL, backed_up bool NOT NULL, transports text, created_at timestamptz, aaguid text);"
            "INSERT INTO passkey SELECT n || id, 'k', 'p', id, 'c', 0, 'd', true FROM users, generate_series(1, 2) n"
        )
        assert "32 have passkeys" in texts.one("identities-not-exported")["message"]
        assert migrate(texts.at.url, "drop").code == 2
