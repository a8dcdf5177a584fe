"""The picture: places that can be compared, lines that begin and end at their tables, texts that stay in boxes."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from rich.cells import cell_len

from app.cutover.catalog import ForeignKey, Table
from app.cutover.diagram import Diagram, Moves, diagram_of
from app.cutover.drawing import BIG, BRIEF, NARROW, SMALL, WIDE, Drawing, DrawnBox, Time, draw, fit
from tests.cutover.handmade import USERS, key, snapshot, table

SESSIONS, ACCOUNTS = ("public", "sessions"), ("public", "accounts")
MOVES = Moves(
    "public", USERS, USERS, going=dict.fromkeys((SESSIONS, ACCOUNTS), "is dropped"),
    leaving=dict.fromkeys(("status", "role", "banned", "phone"), "a plugin's"),
    added=(("deleted_at", "timestamp with time zone"), ("identity_updated_at", "timestamp with time zone")),
    detached=frozenset([(("public", "devices"), "devices_session_fk")]),
)  # fmt: skip
CENTRE = (
    table("users", "id", "email", "status", "role", "banned", "phone", "home"), table("sessions", "id", "user_id"),
    table("accounts", "id", "user_id"), table("devices", "session", "other"), table("homes", "id"),
    key("sessions.user_id", "users.id"), key("accounts.user_id", "users.id"), key("devices.session", "sessions.id"),
    key("users.home", "homes.id"), key("users.email", "users.id"),
)  # fmt: skip


def apps(count: int) -> list[Table | ForeignKey]:
    """Return tables of the app's, each with a foreign key to users."""
    tables = [table(f"app_{number:02}", "id", "user_id", "by") for number in range(count)]
    return [*tables, *(key(f"{each.name}.{name}", "users.id") for each in tables for name in ("user_id", "by"))]


def diagram(count: int = 6, moves: Moves = MOVES) -> Diagram:
    return diagram_of(snapshot(*CENTRE, *apps(count)), moves, {})


def boxes(drawing: Drawing) -> dict[str, DrawnBox]:
    return {box.name.whole: box for box in drawing.boxes}


def points(path: str) -> list[tuple[float, float]]:
    """Return where a path of M, H, V and Q goes, the corners' control points left out."""
    x = y = 0.0
    found = []
    for command, numbers in re.findall(r"([MHVQ])([^MHVQ]*)", path):
        values = [float(each) for each in re.split(r"[ ,]", numbers)]
        x = values[-1] if command == "H" else x if command == "V" else values[-2]
        y = values[-1] if command != "H" else y
        found.append((x, y))
    return found


every = pytest.mark.parametrize(
    ("count", "time", "narrow"),
    [(count, time, narrow) for count in (0, 6, 80) for time in ("before", "after") for narrow in (False, True)],
)


class TestPlaces:
    @every
    def test_boxes_lie_in_the_picture_and_on_none_other(self, count: int, time: Time, narrow: bool) -> None:
        drawing = draw(diagram(count), time, narrow=narrow)
        assert drawing.width == (NARROW if narrow else WIDE)
        for box in drawing.boxes:
            assert box.x >= 0
            assert box.x + box.width <= drawing.width
            assert box.y + box.height <= drawing.height
        for one, other in combinations(drawing.boxes, 2):
            beside = one.x + one.width <= other.x or other.x + other.width <= one.x
            assert beside or one.y + one.height <= other.y or other.y + other.height <= one.y

    @pytest.mark.parametrize("count", [0, 6, 80])
    def test_a_table_has_its_place_before_and_after(self, count: int) -> None:
        before, after = (boxes(draw(diagram(count), time)) for time in ("before", "after"))
        assert before.keys() == after.keys()
        for name, box in before.items():
            assert (box.x, box.y, box.width) == (after[name].x, after[name].y, after[name].width)

    def test_what_goes_stands_on_the_left(self) -> None:
        found = boxes(draw(diagram(), "before"))
        left = min(box.x for name, box in found.items() if name != "users")
        assert found["sessions"].x == found["accounts"].x == left

    def test_columns_that_stay_stand_left_of_those_that_come_and_go(self) -> None:
        for time, passing in (
            ("before", {"status", "role", "banned", "phone"}),
            ("after", {"deleted_at", "identity_updated_at"}),
        ):
            rows = boxes(draw(diagram(), time))["users"].rows  # type: ignore[arg-type]
            middle = {row.x for row in rows if row.name.whole in passing}
            assert len(middle) == 1
            assert all(row.x < min(middle) for row in rows if row.name.whole not in passing)

    def test_on_a_narrow_page_what_went_takes_a_line(self) -> None:
        before, after = (boxes(draw(diagram(), time, narrow=True))["sessions"] for time in ("before", "after"))
        assert not before.ghost
        assert after.ghost
        assert after.height < before.height

    def test_many_that_stay_take_a_line_each(self) -> None:
        assert boxes(draw(diagram(10), "before"))["app_00"].height > BRIEF
        box = boxes(draw(diagram(80), "before"))["app_00"]
        assert box.height == BRIEF
        assert box.aside.whole == "user_id, by"

    def test_eighty_tables_fit_on_few_screens(self) -> None:
        assert draw(diagram(80), "before").height < 2000

    def test_a_database_without_users_is_the_target_alone(self) -> None:
        found = diagram_of(snapshot(table("t")), Moves("public", None, USERS, added=(("id", "text"),)), {})
        (before,), (after,) = draw(found, "before").boxes, draw(found, "after").boxes
        assert (before.ghost, before.facts.shown) == (True, "is not there yet")
        assert (after.ghost, after.label) == (False, "+ new")


class TestLines:
    @every
    def test_each_begins_at_the_edge_of_its_table_beside_its_column(self, count: int, time: Time, narrow: bool) -> None:
        drawing = draw(diagram(count), time, narrow=narrow)
        for stroke in drawing.strokes:
            if stroke.start is None:
                continue
            source, _, column = stroke.title.partition(": ")[2].partition(" ")[0].partition(".")
            box = boxes(drawing)[source]
            assert stroke.start == points(stroke.path)[0]
            assert stroke.start[0] in (pytest.approx(box.x), pytest.approx(box.x + box.width))
            middles = [row.y + 9 for row in box.rows if row.name.whole == column] or [box.y + box.height / 2]
            assert stroke.start[1] == pytest.approx(middles[0])

    @every
    def test_each_that_has_a_lane_ends_at_its_target(self, count: int, time: Time, narrow: bool) -> None:
        drawing = draw(diagram(count), time, narrow=narrow)
        for stroke in drawing.strokes:
            if stroke.start and stroke.arrow:
                target = stroke.title.partition("→ ")[2].partition(".")[0]
                box = boxes(drawing)[target]
                x, y = points(stroke.path)[-1]
                assert x in (pytest.approx(box.x), pytest.approx(box.x + box.width))
                assert box.y <= y <= box.y + box.height

    @every
    def test_those_to_users_end_in_a_trunk_that_reaches_it(self, count: int, time: Time, narrow: bool) -> None:
        drawing = draw(diagram(count), time, narrow=narrow)
        users = boxes(drawing)["users"]
        trunks = {stroke.fate: points(stroke.path) for stroke in drawing.strokes if stroke.start is None}
        for (x, low), (_, top) in trunks.values():
            assert top == users.y + users.height
            assert low > top
            assert users.x <= x <= users.x + users.width
        for stroke in drawing.strokes:
            if stroke.start and not stroke.arrow:
                (x, low), (_, top) = trunks[stroke.fate]
                end = points(stroke.path)[-1]
                assert end[0] == pytest.approx(x)
                assert top <= end[1] <= low

    def test_every_foreign_key_has_one_before(self) -> None:
        found = diagram()
        titles = [stroke.title.partition(":")[0] for stroke in draw(found, "before").strokes if stroke.start]
        assert sorted(titles) == sorted(line.name for line in found.lines)

    def test_only_what_is_kept_has_one_after(self) -> None:
        found = diagram()
        titles = [stroke.title.partition(":")[0] for stroke in draw(found, "after").strokes if stroke.start]
        assert sorted(titles) == sorted(line.name for line in found.lines if line.fate == "kept")

    @pytest.mark.parametrize("narrow", [False, True])
    def test_no_two_run_over_each_other(self, narrow: bool) -> None:
        many = [table(f"d_{number}", "s", "a") for number in range(5)]
        into = [
            key(f"{each.name}.{name}", target)
            for each in many
            for name, target in (("s", "sessions.id"), ("a", "accounts.id"))
        ]
        drawing = draw(diagram_of(snapshot(*CENTRE, *many, *into), MOVES, {}), "before", narrow=narrow)
        lanes = [points(stroke.path) for stroke in drawing.strokes if stroke.start and stroke.arrow]
        assert len(lanes) == 13
        steps = [(one, other) for path in lanes for one, other in pairwise(path)]
        spans = [(x, *sorted((y1, y2))) for (x, y1), (other, y2) in steps if x == other and y1 != y2]
        for (x, low, high), (other, other_low, other_high) in combinations(spans, 2):
            assert x != other or high < other_low or other_high < low

    def test_one_that_is_detached_or_in_the_way_has_a_sign_on_it(self) -> None:
        marked = {stroke.fate for stroke in draw(diagram(), "before").strokes if stroke.mark}
        assert marked == {"detached"}
        undecided = diagram(moves=replace(MOVES, detached=frozenset()))
        assert {stroke.fate for stroke in draw(undecided, "before").strokes if stroke.mark} == {"undecided"}

    def test_the_trunks_tell_how_many_they_carry(self) -> None:
        labels = {label.fate: label.text for label in draw(diagram(6), "before").labels}
        assert labels == {"dropped": "2 dropped", "kept": "12 kept"}
        assert [label.text for label in draw(diagram(6), "after").labels] == ["12 kept"]

    def test_nothing_is_labelled_where_nothing_is_settled(self) -> None:
        drawing = draw(diagram(moves=Moves("public", USERS, USERS, settled=False)), "before")
        assert drawing.labels == ()
        assert {box.label for box in drawing.boxes} == {""}

    def test_of_several_columns_the_pair_that_differs_is_led_by(self) -> None:
        parts = table("users", "tenant", "id", "by"), key("users.tenant,by", "users.tenant,id")
        drawing = draw(diagram_of(snapshot(*parts), Moves("public", USERS, USERS), {}), "before")
        (stroke,) = drawing.strokes
        rows = {row.name.whole: row.y + 9 for row in boxes(drawing)["users"].rows}
        assert points(stroke.path)[0][1] == rows["by"]
        assert points(stroke.path)[-1][1] == rows["id"]


class TestTexts:
    def test_one_that_has_room_is_whole(self) -> None:
        assert fit("abcde", 0, 0, 50, 10).shown == "abcde"

    def test_one_that_has_none_ends_in_an_ellipsis(self) -> None:
        found = fit("abcdef", 0, 0, 50, 10)
        assert (found.shown, found.whole) == ("abcd…", "abcdef")

    def test_wide_characters_take_two_places(self) -> None:
        found = fit("日本語のテーブル", 0, 0, 80, 10)
        assert found.shown == "日本語…"

    @pytest.mark.parametrize("narrow", [False, True])
    def test_names_and_notes_never_meet(self, narrow: bool) -> None:
        long = "x" * 63
        moves = replace(MOVES, renamed={(USERS, long): "y" * 63})
        parts = table("users", "id", long), table(long, long), key(f"{long}.{long}", "users.id")
        drawing = draw(diagram_of(snapshot(*parts), moves, {}), "before", narrow=narrow)
        for box in drawing.boxes:
            assert BIG * cell_len(box.name.shown) <= box.width
            for row in box.rows:
                end = row.name.x + SMALL * cell_len(row.name.shown)
                assert end < row.note.x - SMALL * cell_len(row.note.shown)
                assert row.note.x <= row.x + row.width
