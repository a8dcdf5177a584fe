"""Where the parts of a Diagram are drawn: boxes, rows and lines with coordinates, for a wide page and a narrow one.

    wide    | users                    |        narrow      | users         |
            |   going    +    staying  |                    +  going        |
            |   going    +    staying  |                    +  staying      |

The promise: pure. A table has the same place before and after, so that the eye can compare; a text ends where its box
does. Foreign keys to users share a trunk (+) for each fate, any other has a lane of its own beside the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len, set_cell_size

from app.cutover.diagram import Attribute, Box, Diagram, Fate, Key, Line, LineFate, Slot

Time = Literal["before", "after"]
Side = Literal["left", "right", "both"]
Track = Literal["left", "middle", "right"]

WIDE, NARROW = 600, 348
HEAD, BRIEF, REMARK, ROW, FOOT, GAP, UNDER = 44, 26, 15, 18, 7, 12, 44
"""Heights: name and facts, both in one line, a remark, a column, what is left below the last; between boxes, and below
users."""
LANE, EDGE, CURVE, PAD = 10, 4, 6, 12
BIG, SMALL, PLAIN = 7.25, 6.65, 5.9
"""Widths of a character: monospaced at 12 and 11 pixels (0.602 of them in any font), proportional at 10.5."""
WORDS: dict[Fate, tuple[str, str]] = {
    "stays": ("=", "stays"),
    "changes": ("~", "changes"),
    "goes": ("−", "goes"),
    "added": ("+", "new"),
}
"""A sign and a word beside each colour."""
CROWD = 24
"""Tables that merely stay: if they are more, each is drawn in one line."""
PASSING: tuple[Fate, Fate] = ("goes", "added")
"""What is there at one of the two times only."""
TRUNKS: tuple[LineFate, LineFate] = ("dropped", "kept")


@dataclass(frozen=True, slots=True)
class Text:
    """A text as far as there is room, and the whole of it."""

    x: float
    y: float
    shown: str
    whole: str


@dataclass(frozen=True, slots=True)
class DrawnRow:
    fate: Fate
    sign: str
    x: float
    y: float
    width: float
    name: Text
    note: Text
    hint: str


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """A box, or the empty place (`ghost`) of one with a word on where it is."""

    fate: Fate
    ghost: bool
    x: float
    y: float
    width: float
    height: float
    head: float
    name: Text
    aside: Text
    """What stands behind the name."""
    facts: Text
    remark: Text
    label: str
    rows: tuple[DrawnRow, ...]


@dataclass(frozen=True, slots=True)
class Stroke:
    """A foreign key's line, or the trunk of several. `path` and `arrow` are an SVG path's `d`."""

    fate: LineFate
    path: str
    title: str
    arrow: str = ""
    start: tuple[float, float] | None = None
    mark: tuple[float, float] | None = None
    """Where the sign of its fate is put."""


@dataclass(frozen=True, slots=True)
class Label:
    fate: LineFate
    x: float
    y: float
    text: str
    anchor: Literal["start", "end"]


@dataclass(frozen=True, slots=True)
class Drawing:
    width: float
    height: float
    boxes: tuple[DrawnBox, ...]
    strokes: tuple[Stroke, ...]
    labels: tuple[Label, ...]
    rest: Text | None
    """The tables that are not shown, in a sentence."""


def draw(diagram: Diagram, time: Time, *, narrow: bool = False) -> Drawing:
    """Return one picture of the database, before or after."""
    return _Sheet(diagram, time, narrow).drawing()


def fit(text: str, x: float, y: float, width: float, character: float) -> Text:
    """Return a text that ends within `width`, with an ellipsis where it had to be cut."""
    cells = max(int(width // character), 1)
    shown = text if cell_len(text) <= cells else set_cell_size(text, cells - 1).rstrip() + "…"
    return Text(x, y, shown, text)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a table is, at one of the two times."""

    slot: Slot
    time: Time
    side: Side
    y: float
    aligned: bool
    """Whether it takes as much room as at the other time, so that what is below is in the same place."""
    halved: bool = False
    """Whether what stays stands on the left and what comes and goes on the right."""
    brief: bool = False
    """Whether it is one line, with the columns behind the name."""

    @property
    def box(self) -> Box | None:
        return self.slot.before if self.time == "before" else self.slot.after

    @property
    def shown(self) -> Box:
        """The box, or the one whose empty place it is."""
        shown = self.box or self.slot.before or self.slot.after
        if shown is None:
            raise ValueError(f"{self.slot.key} is neither before nor after")
        return shown

    @property
    def head(self) -> float:
        if self.brief:
            return BRIEF
        boxes = (self.slot.before, self.slot.after) if self.aligned else (self.box,)
        return HEAD + (REMARK if any(box and box.remark for box in boxes) else 0)

    def _tall(self, box: Box | None) -> float:
        rows = max(map(len, self.columns(box)), default=0)
        return self.head + ROW * rows + (FOOT if rows else 0)

    @property
    def height(self) -> float:
        return self._tall(self.shown if self.aligned else self.box)

    @property
    def room(self) -> float:
        return max(self._tall(self.slot.before), self._tall(self.slot.after)) if self.aligned else self.height

    def columns(self, box: Box | None) -> list[list[Attribute]]:
        """The attributes of a box in one column or two, or in none."""
        if self.brief:
            return []
        attributes = list(box.attributes) if box else []
        passing = [each for each in attributes if each.fate in PASSING]
        if not self.halved:
            return [attributes]
        return [[each for each in attributes if each not in passing], passing]

    def row(self, column: str) -> float | None:
        """Return the middle of a column's row; its place is the same after, whatever it is called then."""
        if self.brief:
            return self.y + BRIEF / 2
        for rows in self.columns(self.slot.before):
            for number, attribute in enumerate(rows):
                if attribute.name == column:
                    return self.y + self.head + ROW * (number + 0.5)
        return None


class _Sheet:
    """The places of all tables and lanes, the same before and after."""

    def __init__(self, diagram: Diagram, time: Time, narrow: bool) -> None:
        self.diagram, self.time, self.narrow = diagram, time, narrow
        self.width = NARROW if narrow else WIDE
        users = diagram.users.key if diagram.users else None
        self.trunked = [line for line in diagram.lines if line.target == users != line.source]
        self.single = [line for line in diagram.lines if line not in self.trunked]
        self.places = self._placed()
        self.lanes = self._allotted()
        self.gutter = {track: self._gutter(track) for track in ("left", "middle", "right")}
        self.boxes = (self.width - sum(self.gutter.values())) / (1 if narrow else 2)

    # ----------------------------------------------------------------------------------------------------- the places

    def _placed(self) -> dict[Key, _Place]:
        places: dict[Key, _Place] = {}
        ends: dict[Side, float] = {"left": EDGE, "right": EDGE}
        if self.diagram.users is not None:
            users = self.diagram.users
            fates = {each.fate for box in (users.before, users.after) if box for each in box.attributes}
            halved = not self.narrow and len(fates) > 1 and not fates.isdisjoint(PASSING)
            place = _Place(users, self.time, "both", EDGE, not self.narrow, halved)
            places[users.key] = place
            under = EDGE + place.room + (UNDER if self.trunked else GAP)
            ends = {"left": under, "right": under}
        idle = {slot.key for slot in self.diagram.staying if slot.before and slot.before.fate == "stays"}
        for slot in (*self.diagram.going, *self.diagram.staying):
            going = slot.after is None
            side: Side = "left" if not self.narrow and (going or ends["left"] < ends["right"]) else "right"
            brief = slot.key in idle and len(idle) > CROWD
            place = _Place(slot, self.time, side, ends[side], not self.narrow, brief=brief)
            places[slot.key] = place
            ends[side] += place.room + (GAP / 2 if place.brief else GAP)
        return places

    def _ends(self, line: Line) -> tuple[float, float]:
        """Return the heights at which a line begins and ends."""
        source, target = self.places[line.source], self.places[line.target]
        pairs = list(zip(line.columns, line.target_columns, strict=True))
        # of (tenant_id, parent_id) -> (tenant_id, id) the second pair tells more
        first, last = next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])
        return source.row(first) or source.y + HEAD / 2, target.row(last) or target.y + HEAD / 2

    def _track(self, line: Line) -> Track:
        sides = {self.places[line.source].side, self.places[line.target].side} - {"both"}
        if len(sides) == 2:
            return "middle"
        return "left" if sides == {"left"} else "right"

    def _allotted(self) -> dict[Line, tuple[Track, int]]:
        """Give each line the nearest lane of its track in which it meets no other."""
        taken: dict[tuple[Track, int], list[tuple[float, float]]] = {}
        lanes: dict[Line, tuple[Track, int]] = {}
        for line in sorted(self.single, key=lambda each: abs(self._ends(each)[0] - self._ends(each)[1])):
            low, high = sorted(self._ends(line))
            track, number = self._track(line), 0
            while any(
                low <= other_high and other_low <= high for other_low, other_high in taken.get((track, number), ())
            ):
                number += 1
            taken.setdefault((track, number), []).append((low, high))
            lanes[line] = track, number
        return lanes

    def _gutter(self, track: Track) -> float:
        count = 1 + max((number for other, number in self.lanes.values() if other == track), default=-1)
        if track == "middle":
            return 0 if self.narrow else 4 * LANE + LANE * count
        trunks = 3 * LANE if self.narrow and track == "left" and self.trunked else 0
        return EDGE + trunks + (LANE * count + CURVE if count else 0)

    def _lane(self, line: Line) -> float:
        track, number = self.lanes[line]
        if track == "left":
            return self.gutter["left"] - CURVE - LANE * (number + 0.5)
        if track == "right":
            return self.width - self.gutter["right"] + CURVE + LANE * (number + 0.5)
        return self.gutter["left"] + self.boxes + LANE * (number + 2.5)

    def _trunk(self, fate: LineFate) -> float:
        if self.narrow:
            return EDGE + LANE * (0.5 if fate == "dropped" else 1.7)
        if fate == "dropped":
            return self.gutter["left"] + self.boxes + 1.4 * LANE
        return self.width - self.gutter["right"] - self.boxes - 1.4 * LANE

    def _x(self, place: _Place) -> tuple[float, float]:
        """Return the left and right edge of a table's boxes."""
        if place.side == "both":
            reaching = {self.lanes[line][0] for line in self.single if place.slot.key in (line.source, line.target)}
            left = self.gutter["left"] if "left" in reaching else EDGE
            return left, self.width - (self.gutter["right"] if "right" in reaching else EDGE)
        if place.side == "left":
            return self.gutter["left"], self.gutter["left"] + self.boxes
        return self.width - self.gutter["right"] - self.boxes, self.width - self.gutter["right"]

    # ---------------------------------------------------------------------------------------------------- the drawing

    def drawing(self) -> Drawing:
        bottom = max((place.y + place.room for place in self.places.values()), default=0)
        rest = self._rest(bottom + GAP)
        return Drawing(
            self.width,
            bottom + EDGE + (GAP + 34 if rest else 0),
            tuple(self._box(place) for place in self.places.values()),
            (*self._trunks(), *self._singles()),
            tuple(self._labels()),
            rest,
        )

    def _rest(self, y: float) -> Text | None:
        tables, keys = self.diagram.further_tables, self.diagram.further_keys
        if not tables and not keys:
            return None
        parts = [f"{tables:,} further table{'s' * (tables != 1)}"] if tables else []
        parts += [f"{keys:,} foreign key{'s' * (keys != 1)}"] if keys else []
        return fit(f"untouched: {', '.join(parts)}", self.width / 2, y, self.width - 2 * PAD, PLAIN)

    def _box(self, place: _Place) -> DrawnBox:
        (left, right), box, shown = self._x(place), place.box, place.shown
        x, y, width, room = left + PAD, place.y, right - left, right - left - 2 * PAD
        nothing = Text(x, y, "", "")
        if place.brief:
            columns = ", ".join(each.name for each in shown.attributes if each.leads)
            name = fit(shown.name, x, y + 17, room - SMALL * min(cell_len(columns) + 2, 14), BIG)
            aside = fit(columns, right - PAD, y + 17, room - BIG * cell_len(name.shown) - 2 * SMALL, SMALL)
            texts = name, aside, nothing, nothing
            return DrawnBox(shown.fate, False, left, y, width, BRIEF, BRIEF, *texts, "", ())
        sign, word = WORDS[shown.fate] if box and self.diagram.settled else ("", "")
        label = f"{sign} {'changed' if (shown.fate, self.time) == ('changes', 'after') else word}".strip()
        facts = shown.facts if box else place.slot.absent
        return DrawnBox(
            shown.fate,
            box is None,
            left,
            y,
            width,
            place.height,
            place.head,
            fit(shown.name, x, y + 19, room, BIG),
            nothing,
            fit(facts, x, y + 35, room - PLAIN * (len(label) + 4), PLAIN),
            fit(box.remark if box else "", x, y + 35 + REMARK, room, PLAIN),
            label,
            tuple(self._rows(place, left, width)),
        )

    def _rows(self, place: _Place, left: float, width: float) -> Iterator[DrawnRow]:
        columns = place.columns(place.box)
        part = width / len(columns)
        for number, attributes in enumerate(columns):
            for index, each in enumerate(attributes):
                x, y = left + part * number, place.y + place.head + ROW * index
                room = part - 2 * PAD - 2 * SMALL
                name = fit(each.name, x + PAD + 2 * SMALL, y + 13, room - SMALL * min(len(each.note) + 2, 14), SMALL)
                note = fit(each.note, x + part - PAD, y + 13, room - SMALL * (cell_len(name.shown) + 2), SMALL)
                sign = "" if each.fate == "stays" else WORDS[each.fate][0]
                yield DrawnRow(each.fate, sign, x, y, part, name, note, each.hint)

    def _trunks(self) -> Iterator[Stroke]:
        for fate in TRUNKS:
            lines = [line for line in self.trunked if line.fate == fate and (self.time == "before" or fate == "kept")]
            if not lines:
                continue
            x, top = self._trunk(fate), self._arrival()
            low = max(self._ends(line)[0] for line in lines)
            title = f"{len(lines)} foreign keys to users"
            yield Stroke(fate, f"M{x:g},{low - CURVE:g}V{top:g}", title, _arrow(x, top, "up"))
            for line in lines:
                y = self._ends(line)[0]
                left, right = self._x(self.places[line.source])
                edge = left if x < left else right
                bend = x + CURVE if x < left else x - CURVE
                path = f"M{edge:g},{y:g}H{bend:g}Q{x:g},{y:g} {x:g},{y - CURVE:g}"
                yield Stroke(fate, path, _title(line), start=(edge, y))

    def _arrival(self) -> float:
        """Return the lower edge of users."""
        place = next(place for place in self.places.values() if place.side == "both")
        return place.y + place.height

    def _labels(self) -> Iterator[Label]:
        for number, fate in enumerate(TRUNKS):
            count = sum(line.fate == fate for line in self.trunked)
            if not self.diagram.settled or not count or (self.time == "after" and fate != "kept"):
                continue
            x, y = self._trunk(fate), self._arrival()
            text = f"{count} {fate}"
            if self.narrow:
                yield Label(fate, self._trunk("kept") + LANE, y + (34 if number == 0 else 20), text, "start")
            elif fate == "dropped":
                yield Label(fate, x - LANE, y + 24, text, "end")
            else:
                yield Label(fate, x + LANE, y + 24, text, "start")

    def _singles(self) -> Iterator[Stroke]:
        for line in self.single:
            if self.time == "after" and line.fate != "kept":
                continue
            (start, end), lane = self._ends(line), self._lane(line)
            first, last = (self._edge(self.places[key], lane) for key in (line.source, line.target))
            mark = (lane, (start + end) / 2) if line.fate in ("detached", "undecided") else None
            arrow = _arrow(last, end, "right" if lane < last else "left")
            yield Stroke(line.fate, _bent(first, start, lane, last, end), _title(line), arrow, (first, start), mark)

    def _edge(self, place: _Place, lane: float) -> float:
        left, right = self._x(place)
        return left if lane < left else right


def _bent(x1: float, y1: float, lane: float, x2: float, y2: float) -> str:
    """Return a path from a box over to its lane, along it, and back to a box, with round corners."""
    if y1 == y2:
        return f"M{x1:g},{y1:g}H{x2:g}"
    curve = min(CURVE, abs(y2 - y1) / 2)
    out, back = (curve if x1 > lane else -curve), (curve if x2 > lane else -curve)
    down = curve if y2 > y1 else -curve
    return (
        f"M{x1:g},{y1:g}H{lane + out:g}Q{lane:g},{y1:g} {lane:g},{y1 + down:g}"
        f"V{y2 - down:g}Q{lane:g},{y2:g} {lane + back:g},{y2:g}H{x2:g}"
    )


def _arrow(x: float, y: float, way: Literal["up", "left", "right"]) -> str:
    if way == "up":
        return f"M{x:g},{y:g}l-4,7h8z"
    return f"M{x:g},{y:g}l{'-7' if way == 'right' else '7'},-4v8z"


def _title(line: Line) -> str:
    return f"{line.name}: {line.leads}, {line.becomes}"
