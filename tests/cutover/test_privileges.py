"""Roles: the owner goes the whole way without being a superuser; who may not is told everything that is missing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cutover.commands import alembic, migrate, plan, shadow
from tests.cutover.obstacles import WHOLE, hand_over, refusals
from tests.cutover.witness import Witness
from tests.postgres import Server

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

TOUCHED = ("users", "sessions", "accounts", "verifications", "jwks", "two_factors")


class TestOwner:
    def test_who_is_no_superuser_goes_the_whole_way_and_back(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        owner = make_role()
        hand_over(database, owner)
        url = database.seen_by(owner)
        before = database.portrait()
        assert migrate(url, "retire").code == 0
        for _ in range(2):
            assert shadow(url, "undo", "--yes").code == 0
        assert database.portrait() == before
        done = migrate(url, *WHOLE)
        assert done.code == 0, done.text

    def test_who_does_not_own_every_table_of_the_app_succeeds_or_is_told_which(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        owner = make_role()
        hand_over(database, owner, but=("audit_logs", "files", "members"))
        done = migrate(database.seen_by(owner), "retire")
        assert done.code in (0, 2), done.text
        assert all((table in done.text) == (done.code == 2) for table in ("audit_logs", "files", "members"))

    def test_can_verify_what_an_administrator_did_and_undo_it_once_it_is_handed_over(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        owner = make_role()
        hand_over(database, owner)
        before = database.portrait()
        assert migrate(database.url, "retire").code == 0
        url = database.seen_by(owner)
        assert shadow(url, "verify").code == 0
        refused = shadow(url, "undo", "--yes")
        assert (refused.code, "missing-privileges" in refused.text) == (2, True)
        (found,) = refusals(plan(url, "drop"), "missing-privileges")
        database.run(found["remedy"])
        for _ in range(2):
            undone = shadow(url, "undo", "--yes")
            assert undone.code == 0, undone.text
        assert database.portrait() == before

    def test_who_may_not_create_is_given_what_the_remedy_grants(
        self, server: Server, make_role: Callable[[], str], make_database: Callable[[str | None], str]
    ) -> None:
        database, owner, runner = Witness(server, make_database("kysely_singular")), make_role(), make_role()
        hand_over(database, owner)
        database.run(
            f"REVOKE CREATE ON SCHEMA public FROM {owner}; GRANT {owner} TO {runner};"
            f"GRANT USAGE, CREATE ON SCHEMA public TO {runner}; GRANT CREATE ON DATABASE {database.name} TO {runner}"
        )
        url = database.seen_by(runner)
        (lacking,) = refusals(plan(url, "retire"), "missing-privileges")
        assert (lacking["subject"], "schema public" in lacking["message"]) == (owner, True)
        database.run(lacking["remedy"])
        done = migrate(url, "retire")
        assert done.code == 0, done.text
        assert database.value("SELECT count(*) FROM users") > 0


class TestJournalOfAnother:
    def test_what_another_role_made_beforehand_is_neither_read_nor_run(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        stranger = make_role()
        database.run(f"GRANT USAGE, CREATE ON SCHEMA public TO {stranger}")
        assert migrate(database.url, "adopt").code == 0
        shape = database.dump("-s", "-t", "shadow_cutover", "-t", "shadow_alembic_version", "-O", "-x")
        assert shadow(database.url, "undo", "--yes").code == 0
        database.run("DROP TABLE IF EXISTS shadow_cutover, shadow_alembic_version")
        made = "\n".join(line for line in shape.splitlines() if not line.startswith("\\"))
        database.run(f"SET ROLE {stranger};\n{made}")
        before = database.dump()
        for refused in (
            migrate(database.url, "adopt"),
            alembic(database.url, "upgrade", "0001_adopt"),
            shadow(database.url, "verify"),
        ):
            assert (refused.code, "journal-not-trusted" in refused.text) == (2, True), refused.text
            assert stranger in refused.text
        assert database.dump() == before
        (found,) = refusals(plan(database.url, "adopt"), "journal-not-trusted")
        database.run(found["remedy"])
        assert migrate(database.url, "adopt").code == 0


class TestOthers:
    def test_a_role_without_any_privilege_is_refused_with_all_the_tables(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        stranger = make_role()
        before = database.dump()
        refused = migrate(database.seen_by(stranger), "retire")
        assert refused.code == 2, refused.text
        assert "missing-privileges" in refused.text
        assert [table for table in TOUCHED if f"public.{table}" not in refused.text] == []
        assert database.dump() == before

    def test_a_reader_is_refused_and_what_the_remedy_grants_is_enough(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        reader, owner = make_role(), make_role()
        hand_over(database, owner)
        database.run(
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}; GRANT USAGE ON SCHEMA public TO {reader}"
        )
        before = database.dump()
        lacking = refusals(plan(database.seen_by(reader), "retire"), "missing-privileges")
        said = " ".join(found["message"] for found in lacking)
        assert [table for table in TOUCHED if f"public.{table}" not in said] == []
        assert alembic(database.seen_by(reader), "upgrade", "0002_retire").code == 2
        assert database.dump() == before
        for found in lacking:
            database.run(found["remedy"])
        done = migrate(database.seen_by(reader), "retire")
        assert done.code == 0, done.text


class TestForcedRowSecurity:
    """Rows that a policy hides from the owner could neither be counted nor copied."""

    def test_on_users_loses_no_value(self, database: Witness, make_role: Callable[[], str]) -> None:
        owner = make_role()
        hand_over(database, owner)
        database.run(
            "ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY;"
            "CREATE POLICY own ON users USING (id = current_setting('app.user', true))"
        )
        before = database.portrait()
        refused = migrate(database.seen_by(owner), "retire")
        assert (refused.code, "row-security" in refused.text, "public.users" in refused.text) == (2, True, True)
        assert database.portrait() == before

    def test_on_accounts_and_second_factors_hides_no_identities(
        self, database: Witness, make_role: Callable[[], str]
    ) -> None:
        owner = make_role()
        hand_over(database, owner)
        for table in ("accounts", "two_factors"):
            database.run(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        before = database.dump()
        assert migrate(database.seen_by(owner), "drop").code == 2
        assert database.dump() == before

    def test_does_not_hold_back_a_role_that_it_does_not_bind(self, database: Witness) -> None:
        database.run("ALTER TABLE users ENABLE ROW LEVEL SECURITY; ALTER TABLE users FORCE ROW LEVEL SECURITY")
        assert migrate(database.url, *WHOLE).code == 0
