"""What a reviewer sees of the tables: which are shown, and what becomes of each, of its columns and foreign keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.cutover.catalog import ForeignKey, Snapshot, Table
from app.cutover.diagram import Attribute, Diagram, Moves, Slot, diagram_of, moves_in, short, size
from app.cutover.findings import decided
from app.cutover.template import auther_template
from tests.cutover.handmade import USERS, column, key, report, snapshot, table

STILL = Moves("public", USERS, USERS)
SESSIONS = ("public", "sessions")


def diagram(moves: Moves, *parts: Table | ForeignKey) -> Diagram:
    return diagram_of(snapshot(*parts), moves, {})


def slot(found: Diagram, name: str) -> Slot:
    (one,) = (each for each in found.slots if each.key == ("public", name))
    return one


def before(found: Diagram, name: str) -> dict[str, tuple[str, str]]:
    """Return fate and note of each column that a table's box shows."""
    box = slot(found, name).before
    assert box is not None
    return {each.name: (each.fate, each.note) for each in box.attributes}


def after(found: Diagram, name: str) -> dict[str, tuple[str, str]]:
    box = slot(found, name).after
    assert box is not None
    return {each.name: (each.fate, each.note) for each in box.attributes}


class TestColumnsOfUsers:
    def test_what_stays_comes_first_and_what_goes_last(self) -> None:
        found = diagram(replace(STILL, leaving={"status": "a plugin's"}), table("users", "id", "status", "plan"))
        assert found.users is not None
        assert found.users.before is not None
        assert found.users.before.attributes == (
            Attribute("id", "stays", "text"),
            Attribute("plan", "stays", "text"),
            Attribute("status", "goes", "text", "a plugin's"),
        )
        assert after(found, "users") == {"id": ("stays", "text"), "plan": ("stays", "text")}

    def test_one_that_is_added_is_there_afterwards_only(self) -> None:
        moves = replace(STILL, added=(("deleted_at", "timestamp with time zone"),))
        found = diagram(moves, table("users", "id"))
        assert before(found, "users") == {"id": ("stays", "text")}
        assert after(found, "users") == {"id": ("stays", "text"), "deleted_at": ("added", "timestamptz")}

    def test_one_that_gets_another_name_says_so_at_both_times(self) -> None:
        moves = replace(STILL, renamed={(USERS, "emailVerified"): "email_verified"})
        found = diagram(moves, table("users", column("emailVerified", "boolean")))
        assert before(found, "users") == {"emailVerified": ("changes", "becomes email_verified")}
        assert after(found, "users") == {"email_verified": ("changes", "was emailVerified")}

    def test_one_that_gets_another_type_says_so_at_both_times(self) -> None:
        moves = replace(STILL, retyped={(USERS, "id"): "character varying(255)"})
        found = diagram(moves, table("users", column("id", "uuid")))
        assert before(found, "users") == {"id": ("changes", "becomes varchar(255)")}
        assert after(found, "users") == {"id": ("changes", "was uuid")}

    def test_one_that_gets_all_of_it_says_all_of_it(self) -> None:
        place = (USERS, "updatedAt")
        moves = replace(
            STILL,
            renamed={place: "updated_at"},
            retyped={place: "timestamp with time zone"},
            required=frozenset([place]),
        )
        found = diagram(moves, table("users", column("updatedAt", "timestamp without time zone", required=False)))
        assert before(found, "users") == {"updatedAt": ("changes", "becomes updated_at timestamptz not null")}
        assert after(found, "users") == {"updated_at": ("changes", "was updatedAt timestamp nullable")}

    def test_one_that_may_no_longer_be_null_says_so(self) -> None:
        found = diagram(replace(STILL, required=frozenset([(USERS, "name")])), table("users", "name"))
        assert before(found, "users") == {"name": ("changes", "becomes not null")}
        assert after(found, "users") == {"name": ("changes", "was nullable")}

    def test_the_apps_own_are_folded_where_there_are_many(self) -> None:
        own = [f"own_{number:02}" for number in range(20)]
        found = diagram(STILL, table("users", "id", *own, "email"))
        shown = ["id", *own[:12], "email", "… 8 further columns"]
        assert list(before(found, "users")) == shown
        assert list(after(found, "users")) == shown

    def test_a_folded_one_never_hides_a_foreign_key(self) -> None:
        own = [f"own_{number:02}" for number in range(20)]
        found = diagram(
            STILL, table("users", "id", *own), table("plans", "id"), key("users.own_19", "plans.id", on_delete="c")
        )
        assert before(found, "users")["own_19"] == ("stays", "→ plans")

    def test_where_none_is_yet_all_are_new(self) -> None:
        moves = Moves("public", None, USERS, added=(("id", "character varying(255)"), ("name", "text")))
        found = diagram(moves)
        assert found.users is not None
        assert found.users.before is None
        assert found.users.absent == "is not there yet"
        assert after(found, "users") == {"id": ("added", "varchar(255)"), "name": ("added", "text")}


class TestTables:
    def test_users_may_get_another_name(self) -> None:
        moves = Moves("public", ("public", "user"), USERS)
        found = diagram(moves, table("user", "id"), table("posts", "author"), key("posts.author", "user.id"))
        assert found.users is not None
        assert found.users.before is not None
        assert found.users.after is not None
        assert (found.users.before.name, found.users.before.remark) == ('"user"', "becomes users")
        assert (found.users.after.name, found.users.after.remark) == ("users", 'was "user"')
        assert found.users.before.fate == "changes"
        assert before(found, "posts") == {"author": ("stays", '→ "user"')}
        assert after(found, "posts") == {"author": ("stays", "→ users")}

    def test_one_that_goes_leaves_an_empty_place_that_says_where_it_is(self) -> None:
        found = diagram(replace(STILL, going={SESSIONS: "moves to retired_auth"}), table("users"), table("sessions"))
        assert slot(found, "sessions").after is None
        assert slot(found, "sessions").absent == "moves to retired_auth"
        assert [each.key for each in found.going] == [SESSIONS]
        assert found.staying == ()

    def test_of_another_schema_carry_its_name(self) -> None:
        moves = replace(STILL, going={("auth", "sessions"): "is dropped"})
        found = diagram(moves, table("users"), table("sessions", schema="auth"))
        (box,) = (each.before for each in found.going)
        assert box is not None
        assert box.name == "auth.sessions"

    def test_an_apps_one_shows_the_columns_that_lead_somewhere_and_no_other(self) -> None:
        found = diagram(
            STILL, table("users", "id"), table("files", "id", "title", "owner"), key("files.owner", "users.id")
        )
        assert before(found, "files") == {"owner": ("stays", "→ users")}

    def test_the_column_that_is_led_to_is_named_where_it_is_not_the_id(self) -> None:
        found = diagram(
            STILL, table("users", "id", "email"), table("news", "address"), key("news.address", "users.email")
        )
        assert before(found, "news") == {"address": ("stays", "→ users.email")}

    def test_a_key_column_changes_its_type_with_the_id(self) -> None:
        moves = replace(STILL, retyped={(("public", "files"), "owner"): "character varying(255)"})
        found = diagram(
            moves, table("users", "id"), table("files", column("owner", "uuid")), key("files.owner", "users.id")
        )
        assert before(found, "files") == {"owner": ("changes", "becomes varchar(255)")}
        assert after(found, "files") == {"owner": ("changes", "was uuid")}
        assert [line.becomes for line in found.lines] == ["kept, over varchar(255)"]

    def test_those_that_touch_nothing_that_changes_are_counted(self) -> None:
        apps = [table(f"app_{number:02}", "id", "parent") for number in range(80)]
        among = [key(f"app_{number:02}.parent", "app_00.id") for number in range(1, 80)]
        found = diagram(STILL, table("users", "id"), *apps, *among, key("app_07.id", "users.id"))
        assert [each.key[1] for each in found.staying] == ["app_07"]
        assert (found.further_tables, found.further_keys) == (79, 79)

    def test_one_that_plays_a_role_is_shown_though_it_touches_nothing(self) -> None:
        moves = replace(STILL, roles={("public", "organization"): ("organizations", "its name")})
        assert [each.key[1] for each in diagram(moves, table("users"), table("organization")).staying] == [
            "organization"
        ]

    def test_the_remark_of_one_is_shown_afterwards(self) -> None:
        limits = ("public", "rate_limit")
        moves = replace(STILL, roles={limits: ("rate_limits", "")}, remarks={limits: "loses rows"})
        box = slot(diagram(moves, table("users"), table("rate_limit")), "rate_limit").after
        assert box is not None
        assert (box.fate, box.remark) == ("changes", "loses rows")

    def test_a_partition_is_part_of_its_parent(self) -> None:
        events = ("public", "events")
        found = diagram(
            STILL,
            table("users", "id"),
            table("events", "actor", kind="p"),
            table("events_1", "actor", parents=[events]),
            table("events_2", "actor", parents=[events]),
            key("events.actor", "users.id"),
            key("events_1.actor", "users.id", inherited=True),
            key("events_2.actor", "users.id", inherited=True),
        )
        assert [each.key[1] for each in found.staying] == ["events"]
        box = slot(found, "events").before
        assert box is not None
        assert box.facts.endswith("2 partitions")
        assert len(found.lines) == 1
        assert (found.further_tables, found.further_keys) == (0, 0)

    def test_a_partition_goes_with_its_parent(self) -> None:
        going = dict.fromkeys((SESSIONS, ("public", "sessions_1")), "is dropped")
        parts = table("users"), table("sessions", kind="p"), table("sessions_1", parents=[SESSIONS])
        found = diagram(replace(STILL, going=going), *parts)
        assert [each.key for each in found.going] == [SESSIONS]
        assert found.further_tables == 0

    def test_views_and_the_cutovers_own_are_not_counted(self) -> None:
        found = diagram(STILL, table("users"), table("v", kind="v"), table("shadow_cutover"), table("t"))
        assert found.further_tables == 1

    def test_rows_are_counted_ones_or_an_estimate_or_not_known(self) -> None:
        roles = {("public", name): (name, "") for name in ("members", "teams", "jwks")}
        parts = table("users"), table("members", rows=7), table("teams", rows=1234), table("jwks", rows=-1, size=0)
        found = diagram_of(snapshot(*parts), replace(STILL, roles=roles), {("public", "members"): 8})
        facts = [each.before.facts for each in found.staying if each.before]
        assert facts == ["8 rows · 8 kB", "≈ 1,234 rows · 8 kB", "rows not counted"]

    def test_the_role_is_told_where_the_name_does_not(self) -> None:
        roles = {("public", name): ("sessions", "") for name in ("session", "login")}
        found = diagram(replace(STILL, roles=roles), table("users"), table("session"), table("login"))
        assert [each.before.facts.partition(" · ")[0] for each in found.staying if each.before] == [
            "≈ 10 rows",
            "sessions",
        ]


class TestForeignKeys:
    PARTS = (table("users", "id", "email", "by"), table("sessions", "id", "user_id"), table("devices", "session"))
    GOING = replace(STILL, going={SESSIONS: "is dropped"})
    IN_THE_WAY = key("devices.session", "sessions.id", name="in_the_way")

    def fate(self, moves: Moves, one: ForeignKey) -> tuple[str, str]:
        (line,) = diagram(moves, *self.PARTS, one).lines
        return line.fate, line.becomes

    def test_of_the_app_to_users_is_kept(self) -> None:
        assert self.fate(self.GOING, key("devices.session", "users.id")) == ("kept", "kept")

    def test_of_a_table_that_goes_goes_with_it(self) -> None:
        assert self.fate(self.GOING, key("sessions.user_id", "users.id")) == ("dropped", "goes with its table")

    def test_of_a_column_that_goes_goes_with_it(self) -> None:
        moves = replace(STILL, leaving={"by": ""})
        assert self.fate(moves, key("users.by", "users.id")) == ("dropped", "goes with its column")

    def test_into_a_table_that_goes_is_in_the_way(self) -> None:
        assert self.fate(self.GOING, self.IN_THE_WAY) == ("undecided", "in the way")
        found = diagram(self.GOING, *self.PARTS, self.IN_THE_WAY)
        assert before(found, "devices") == {"session": ("changes", "→ sessions !")}

    def test_into_a_table_that_goes_may_be_detached(self) -> None:
        moves = replace(self.GOING, detached=frozenset([(("public", "devices"), "in_the_way")]))
        assert self.fate(moves, self.IN_THE_WAY)[0] == "detached"
        found = diagram(moves, *self.PARTS, self.IN_THE_WAY)
        assert before(found, "devices") == {"session": ("changes", "→ sessions ×")}
        assert after(found, "devices") == {"session": ("changes", "no foreign key")}
        assert before(found, "sessions") == {"id": ("goes", "text")}

    def test_nothing_is_said_of_one_where_the_layout_is_in_doubt(self) -> None:
        moves = replace(STILL, settled=False)
        assert self.fate(moves, key("devices.session", "users.id")) == ("kept", "not decided yet")

    def test_is_told_with_its_names_and_rules(self) -> None:
        parts = table("users", "id", "tenant"), table("Order", "buyer Id", "tenant")
        one = key(
            "Order.tenant,buyer Id", "users.tenant,id", on_delete="n", on_update="c", validated=False,
            definition="FOREIGN KEY (a) REFERENCES users(id) MATCH FULL DEFERRABLE INITIALLY DEFERRED NOT VALID",
        )  # fmt: skip
        (line,) = diagram(STILL, *parts, one).lines
        assert line.leads == '"Order".(tenant, "buyer Id") → users.(tenant, id)'
        assert line.rules.split(", ") == [
            "ON UPDATE CASCADE", "ON DELETE SET NULL", "MATCH FULL", "DEFERRABLE", "INITIALLY DEFERRED", "NOT VALID",
        ]  # fmt: skip


class TestMoves:
    """From a report, as the layout and the actions have it."""

    TEMPLATE = auther_template("public")

    def test_adopt_only_adds(self) -> None:
        moves = moves_in(report(self.TEMPLATE, "adopt"))
        assert [name for name, _ in moves.added] == ["deleted_at", "identity_updated_at"]
        assert (moves.going, moves.leaving, moves.becomes) == ({}, {}, USERS)

    def test_retire_moves_tables_and_takes_columns(self) -> None:
        moves = moves_in(report(self.TEMPLATE, "adopt", "retire"))
        assert {name for _, name in moves.going} == {"sessions", "accounts", "verifications", "jwks", "two_factors"}
        assert set(moves.going.values()) == {"moves to retired_auth"}
        assert set(moves.leaving) == {
            "status", "deactivated_at", "deactivated_by", "deactivated_reason", "failed_login_attempts",
            "locked_until", "role_slugs", "two_factor_enabled",
        }  # fmt: skip
        assert "8 columns" in moves.remarks[USERS]

    def test_drop_drops_what_retire_moved(self) -> None:
        moves = moves_in(report(self.TEMPLATE, "adopt", "retire", "drop"))
        assert set(moves.going.values()) == {"is dropped"}
        assert moves.remarks == {}

    def test_where_adopt_has_run_nothing_is_added(self) -> None:
        assert moves_in(report(self.TEMPLATE, "retire")).added == ()

    def test_nothing_moves_where_nothing_is_to_be_done(self) -> None:
        moves = moves_in(report(self.TEMPLATE))
        assert (moves.going, moves.leaving, moves.added, moves.settled) == ({}, {}, (), True)

    def test_a_column_that_goes_by_its_name_alone_says_so(self) -> None:
        users = replace(self.TEMPLATE.tables[0], columns=(*self.TEMPLATE.tables[0].columns, column("role")))
        moves = moves_in(report(replace(self.TEMPLATE, tables=(users, *self.TEMPLATE.tables[1:])), "retire"))
        assert moves.leaving["role"].endswith("by its name alone")
        assert not moves.leaving["status"].endswith("by its name alone")

    def test_what_a_person_detaches_is_detached(self) -> None:
        with_devices = self.with_devices()
        (one,) = with_devices.keys_from(("public", "devices"))
        options = decided(detach=["devices.session_id"])
        assert moves_in(report(with_devices, "retire", options=options)).detached == {(one.table, one.name)}
        assert moves_in(report(with_devices, "retire")).detached == frozenset()

    def with_devices(self) -> Snapshot:
        return replace(
            self.TEMPLATE,
            tables=(*self.TEMPLATE.tables, table("devices", "session_id")),
            foreign_keys=(*self.TEMPLATE.foreign_keys, key("devices.session_id", "sessions.id")),
        )

    def test_other_names_and_types_become_the_targets(self) -> None:
        user = ("public", "user")
        found = snapshot(
            table("user", column("id", "uuid"), column("name", required=False), "email",
                  column("emailVerified", "boolean"), "image", column("createdAt", "timestamp with time zone"),
                  column("updatedAt", "timestamp without time zone")),
            table("account", column("id", "uuid"), "accountId", "providerId", column("userId", "uuid"), "password"),
            table("post", column("id", "uuid"), column("authorId", "uuid")),
            key("account.userId", "user.id"),
            key("post.authorId", "user.id"),
        )  # fmt: skip
        moves = moves_in(report(found, "adopt", "retire"))
        assert (moves.users, moves.becomes) == (user, USERS)
        assert moves.renamed == {
            (user, "emailVerified"): "email_verified",
            (user, "createdAt"): "created_at",
            (user, "updatedAt"): "updated_at",
        }
        assert moves.retyped == {
            (user, "id"): "character varying(255)",
            (user, "updatedAt"): "timestamp with time zone",
            (("public", "post"), "authorId"): "character varying(255)",
        }
        assert moves.required == {(user, "name")}

    def test_without_users_the_target_is_made(self) -> None:
        moves = moves_in(report(snapshot(table("t", "id")), "adopt"))
        assert (moves.users, moves.becomes) == (None, USERS)
        assert [name for name, _ in moves.added][:3] == ["id", "name", "email"]

    def test_nothing_is_settled_where_the_layout_is_in_doubt(self) -> None:
        moves = moves_in(report(self.TEMPLATE, "retire", options=decided(map=["sessions=public.nope"])))
        assert not moves.settled
        assert (moves.going, moves.leaving) == ({}, {})


class TestWords:
    @pytest.mark.parametrize(
        ("type_", "said"),
        [
            ("character varying(255)", "varchar(255)"),
            ("character varying(20)[]", "varchar(20)[]"),
            ("timestamp with time zone", "timestamptz"),
            ("timestamp(3) with time zone", "timestamptz(3)"),
            ("timestamp(3) without time zone", "timestamp(3)"),
            ("time without time zone", "time"),
            ("numeric(10,2)", "numeric(10,2)"),
        ],
    )
    def test_types(self, type_: str, said: str) -> None:
        assert short(type_) == said

    @pytest.mark.parametrize(
        ("count", "said"),
        [(0, ""), (1000, "1,000 bytes"), (8192, "8 kB"), (5 * 1024**3, "5 GB"), (3 * 1024**4, "3.0 TB")],
    )
    def test_sizes(self, count: int, said: str) -> None:
        assert size(count) == said
