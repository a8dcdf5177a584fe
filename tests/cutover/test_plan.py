"""The plan as a value: pure, the same every time, without CASCADE; and the same records in every format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.cutover.catalog import Column, Snapshot, Table, literal, quoted
from app.cutover.findings import ACTIONS, Options
from app.cutover.layout import Choices
from app.cutover.plan import steps_for
from app.cutover.recognition import recognise
from app.cutover.signatures import normalised
from app.cutover.steps import Step, pending
from app.cutover.template import auther_template
from tests.cutover.commands import ACCEPTED, plan, process, shadow
from tests.cutover.witness import Witness
from tests.postgres import Server

NOBODY = Options()


def planned(snapshot: Snapshot, options: Options = NOBODY) -> Iterator[Step]:
    found = recognise(snapshot, "public", options.choices)
    for action in ACTIONS:
        yield from steps_for(action, snapshot, found, options, "somebody")


class TestSteps:
    def test_the_same_snapshot_gives_the_same_steps(self) -> None:
        assert list(planned(auther_template("public"))) == list(planned(auther_template("public")))

    def test_no_statement_says_cascade_but_for_a_foreign_keys_own_action(self) -> None:
        for step in planned(auther_template("public")):
            for statement in (*step.sql, *step.undo):
                bare = re.sub(r"'(?:[^']|'')*'", "", statement)
                assert "CASCADE" not in re.sub(r"ON (DELETE|UPDATE) CASCADE", "", bare)

    def test_every_table_is_named_with_its_schema(self) -> None:
        names = "users|sessions|accounts|verifications|jwks|two_factors"
        for step in planned(auther_template("app")):
            for statement in (*step.sql, *step.undo):
                bare = re.sub(r"'(?:[^']|'')*'", "", statement)
                assert not re.search(rf"(?<![\w.])(?:TABLE|FROM|INTO|UPDATE|REFERENCES) (?:{names})\b", bare), statement

    def test_readers_wait_only_after_the_copies_were_made(self) -> None:
        template = auther_template("public")
        steps = steps_for("retire", template, recognise(template, "public", Choices()), NOBODY, "somebody")
        locks = [step.lock for step in steps]
        shut = next(i for i, step in enumerate(steps) if step.lock == "ACCESS EXCLUSIVE")
        copied = next(i for i, step in enumerate(steps) if any("AS SELECT" in statement for statement in step.sql))
        assert set(locks[: copied + 1]) == {"none", "SHARE UPDATE EXCLUSIVE"}
        assert all(step.rows is None for step in steps[shut:])
        assert not any("AS SELECT" in statement for step in steps[shut:] for statement in step.sql)
        assert "ACCESS EXCLUSIVE" not in locks[:shut]

    def test_users_is_locked_before_what_refers_to_it(self) -> None:
        template = auther_template("public")
        steps = steps_for("retire", template, recognise(template, "public", Choices()), NOBODY, "somebody")
        for step in steps:
            for statement in step.sql:
                if statement.startswith("LOCK TABLE"):
                    assert statement.startswith(("LOCK TABLE public.users, ", "LOCK TABLE public.users IN"))

    @pytest.mark.parametrize(
        ("current", "target", "expected"),
        [
            (None, "adopt", ("adopt",)),
            (None, "drop", ("adopt", "retire", "drop")),
            ("0001_adopt", "retire", ("retire",)),
            ("0002_retire", "drop", ("drop",)),
            ("0003_drop", "drop", ()),
            ("0003_drop", "adopt", ()),
        ],
    )
    def test_what_is_pending(self, current: str | None, target: str, expected: tuple[str, ...]) -> None:
        assert pending(current, target) == expected  # type: ignore[arg-type]


class TestNames:
    @pytest.mark.parametrize(
        ("name", "sql"),
        [
            ("users", "users"),
            ("user", '"user"'),
            ("order", '"order"'),
            ("twoFactor", '"twoFactor"'),
            ('a"b', '"a""b"'),
            ("per cent %s %", '"per cent %s %"'),
            (":name", '":name"'),
            ("1st", '"1st"'),
            ("", '""'),
            ("naïve", '"naïve"'),
        ],
    )
    def test_are_quoted_where_they_must_be(self, name: str, sql: str) -> None:
        assert quoted(name) == sql

    def test_every_word_that_the_server_reserves_is_quoted(self, empty: Witness) -> None:
        words = empty.ask("SELECT word FROM pg_get_keywords() WHERE catcode IN ('R', 'T')")
        assert [row["word"] for row in words if not quoted(row["word"]).startswith('"')] == []

    def test_texts_come_through_as_they_are(self, empty: Witness) -> None:
        texts = ["", "it's", "back\\slash", "''", "é\n\t", "%s :x $1"]
        assert empty.value(f"SELECT ARRAY[{', '.join(map(literal, texts))}] AS v") == texts

    @pytest.mark.parametrize(
        ("name", "snake"),
        [
            ("emailVerified", "email_verified"),
            ("email_verified", "email_verified"),
            ("jwks", "jwks"),
            ("userId", "user_id"),
        ],
    )
    def test_are_compared_in_snake_case(self, name: str, snake: str) -> None:
        assert normalised(name) == snake


class TestLayout:
    """Snapshots made by hand: which table plays which role."""

    def test_the_template_is_recognised(self) -> None:
        found = recognise(auther_template("public"), "public", Choices())
        assert found.kind == "better-auth"
        assert {role.name for role in found.roles} == {
            "users", "sessions", "accounts", "verifications", "jwks", "two_factors",
        }  # fmt: skip
        assert found.doubts == ()
        assert all(role.reason for role in found.roles)

    def test_nothing_is_empty(self) -> None:
        assert (
            recognise(replace(auther_template("public"), tables=(), foreign_keys=()), "public", Choices()).kind
            == "empty"
        )

    def test_a_table_of_the_name_without_the_columns_plays_no_role(self) -> None:
        template = auther_template("public")
        stranger = replace(template.tables[1], columns=template.tables[1].columns[:2])
        assert stranger.name == "sessions"
        found = recognise(replace(template, tables=(template.tables[0], stranger)), "public", Choices())
        assert found["sessions"] is None

    @pytest.mark.parametrize(
        ("column", "type_", "fault"),
        [
            ("id", "jsonb", "public.users.id is jsonb"),
            ("created_at", "bigint", "public.users.created_at is bigint"),
            ("email_verified", "timestamp with time zone", "public.users.email_verified is timestamp with time zone"),
            ("deleted_at", "boolean", "public.users.deleted_at is boolean"),
        ],
    )
    def test_a_type_that_cannot_become_the_targets_is_named(self, column: str, type_: str, fault: str) -> None:
        template = auther_template("public")
        users = template.tables[0]
        others = [each for each in users.columns if each.name != column]
        changed = (*others, Column(column, type_, True, None, "", "", None, None, (), None))
        found = recognise(
            replace(template, tables=(replace(users, columns=changed), *template.tables[1:])), "public", Choices()
        )
        assert [(doubt.code, fault in doubt.message) for doubt in found.doubts] == [("column-type", True)]

    def test_an_id_that_is_text_is_as_good(self) -> None:
        template = auther_template("public")
        users = template.tables[0]
        changed = tuple(replace(each, type="text") if each.name == "id" else each for each in users.columns)
        assert recognise(replace(template, tables=(replace(users, columns=changed),)), "public", Choices()).doubts == ()

    def test_a_column_that_is_kept_does_not_go(self) -> None:
        found = recognise(auther_template("public"), "public", Choices(keep=frozenset({"users.status"})))
        assert "status" not in {column.name for column in found.going_columns}

    def test_a_name_that_speaks_for_itself_alone_says_so(self) -> None:
        template = auther_template("public")
        users = template.tables[0]
        role = Column("role", "text", False, None, "", "", None, None, (), None)
        banned = replace(role, name="banned", type="boolean")
        for columns, by_name in (((role,), True), ((role, banned), False)):
            table = replace(users, columns=(*users.columns, *columns))
            found = recognise(replace(template, tables=(table,)), "public", Choices())
            (going,) = (column for column in found.going_columns if column.name == "role")
            assert going.by_name_only is by_name

    def test_two_candidates_are_both_named(self) -> None:
        template = auther_template("public")
        double = replace(template.tables[1], name="session")
        found = recognise(replace(template, tables=(*template.tables, double)), "public", Choices())
        (doubt,) = found.doubts
        assert doubt.code == "role-ambiguous"
        assert set(re.findall(r"public\.\w+", doubt.message)) == {"public.session", "public.sessions"}

    def test_a_view_plays_no_role(self) -> None:
        template = auther_template("public")
        view: Table = replace(template.tables[1], kind="v")
        found = recognise(replace(template, tables=(template.tables[0], view)), "public", Choices())
        assert found["sessions"] is None


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
class TestFormats:
    def test_text_and_json_say_the_same(self, database: Witness) -> None:
        database.run("CREATE VIEW online AS SELECT user_id FROM sessions; CREATE VIEW a AS SELECT status FROM users")
        text = shadow(database.url, "plan", "--to", "drop").text
        document = plan(database.url, "drop").json
        assert len(document["findings"]) >= 4
        for finding in document["findings"]:
            assert set(finding) == {"code", "level", "subject", "message", "remedy"}
            assert f"{finding['level']} {finding['code']} {' '.join(finding['message'].split())}" in text
        assert text.endswith(" ".join(document["verdict"].split()))

    def test_every_step_says_its_sql_its_lock_what_that_blocks_and_how_it_is_undone(self, database: Witness) -> None:
        document = plan(database.url, "drop", "--accept", ACCEPTED).json
        assert [each["revision"] for each in document["revisions"]] == ["0001_adopt", "0002_retire", "0003_drop"]
        for step in (step for each in document["revisions"] for step in each["steps"]):
            assert step["sql"]
            assert step["title"]
            assert step["undone"]
            assert (step["lock"] == "none") == (step["blocks"] == "nobody waits")
            assert step["on"] or step["lock"] == "none"

    def test_json_is_json_where_it_refuses_too(self, database: Witness) -> None:
        refused = plan(database.url, "drop")
        assert (refused.code, refused.json["refused"]) == (2, True)
        assert json.loads(shadow(database.url, "inspect", "--format", "json").out)["layout"] == "better-auth"

    def test_sql_of_a_refused_plan_holds_nothing_to_run(self, database: Witness) -> None:
        refused = shadow(database.url, "plan", "--to", "drop", "--format", "sql")
        assert refused.code == 2
        before = database.dump()
        database.run(refused.out)
        assert database.dump() == before

    def test_sql_is_read_rightly_whatever_the_databases_setting_is(self, database: Witness) -> None:
        database.run(
            f"ALTER DATABASE {database.name} SET standard_conforming_strings = off;"
            "ALTER DATABASE {0} SET TimeZone = 'Asia/Kathmandu'; COMMENT ON COLUMN users.status IS 'a \"word\"'".format(
                database.name
            )
        )
        database.run(shadow(database.url, "plan", "--to", "retire", "--format", "sql").out)
        assert shadow(database.url, "verify").code == 0
        back = shadow(database.url, "undo", "--yes")
        assert (back.code, "changed" in back.text) == (0, False), back.text

    def test_sql_without_a_database_accepts_by_name_too(self, database: Witness) -> None:
        refused = process("postgresql:///nowhere", "-m", "alembic", "upgrade", "head", "--sql")
        assert (refused.code, ACCEPTED in refused.err) == (2, True)
        before = database.dump()
        database.run(refused.out)
        assert database.dump() == before

    def test_sql_without_a_database_cannot_go_back(self, server: Server) -> None:
        refused = process("postgresql:///nowhere", "-m", "alembic", "downgrade", "0002_retire:0001_adopt", "--sql")
        assert (refused.code, "needs-database" in refused.err) == (2, True)

    def test_planning_and_looking_change_nothing(self, database: Witness) -> None:
        before = database.dump()
        for arguments in (
            ("plan",), ("plan", "--format", "sql"), ("plan", "--format", "json"), ("inspect",), ("verify",),
        ):  # fmt: skip
            shadow(database.url, *arguments)
        assert database.dump() == before

    def test_inspect_shows_every_role_with_its_rows(self, database: Witness) -> None:
        document = shadow(database.url, "inspect", "--format", "json").json
        counts = database.counts()
        assert {role["table"]: role["rows"] for role in document["roles"]} == {
            f"public.{name}": counts[f"public.{name}"]
            for name in (
                *("users", "sessions", "accounts", "verifications", "jwks", "two_factors"),
                *("organizations", "members"),  # these stay, and are named
            )
        }
        assert sum(document["password_hashes"].values()) == database.value("SELECT count(password) FROM accounts")
        text = shadow(database.url, "inspect").text
        assert "revision none" in text
