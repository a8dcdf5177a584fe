"""The plan as a page: read back with the standard library's parser, as a browser would."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from app.cutover.catalog import Snapshot
from app.cutover.findings import Action, Finding, decided
from app.cutover.page import cut, lasting, page, waiting, who_waits
from app.cutover.report import LONGEST, Report
from app.cutover.steps import Step
from app.cutover.template import auther_template
from tests.cutover.commands import ACCEPTED, shadow
from tests.cutover.handmade import column, key, report, snapshot, table
from tests.cutover.markup import Element, read

ALL: tuple[Action, ...] = ("adopt", "retire", "drop")
EVENING = datetime(2026, 3, 1, 18, 30, tzinfo=UTC)
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "</title></svg></style></script><b>",
    "{{ 7*7 }}{% raw %}",
    "]]>--><!--&amp;&lt;",
    "javascript:alert(1)",
)


def shown(planned: Report) -> Element:
    return read(page(planned, at=EVENING, by="ada", tool="shadow 1.2.3"))


TEMPLATE = auther_template("public")
FOUND = (
    Finding("live-sessions", "warn", "sessions", "3 sessions are valid.", "Sign people out."),
    Finding("foreign-key", "refuse", "devices", "devices refers to sessions.", "--detach devices.session_id"),
    Finding("names-change", "info", "users", "Names change.", ""),
)


def named(name: str) -> Snapshot:
    """Return a database in which everything that a name can be given to has this one."""
    to_users = key("t.c", "users.id", name=name)
    return replace(
        TEMPLATE,
        database=name,
        role=name,
        tables=(*TEMPLATE.tables, table(name, name)),
        foreign_keys=(*TEMPLATE.foreign_keys, replace(to_users, table=("public", name), columns=(name,))),
    )  # fmt: skip


@pytest.fixture(
    params=[(), ("adopt",), ("adopt", "retire"), ALL, ("drop",), "empty", "doubt", "refused", "large"],
    ids=lambda given: given if isinstance(given, str) else "-".join(given) or "nothing",
)
def planned(request: pytest.FixtureRequest) -> Report:
    """Every kind of report."""
    if request.param == "empty":
        return report(snapshot(), *ALL)
    if request.param == "doubt":
        return report(TEMPLATE, *ALL, options=decided(map=["jwks=public.nope"]), findings=FOUND)
    if request.param == "refused":
        return report(TEMPLATE, *ALL, findings=FOUND)
    if request.param == "large":
        apps = [table(f"app_{number:02}", "id", "user_id") for number in range(80)]
        keys = [key(f"{each.name}.user_id", "users.id") for each in apps[::2]]
        large = replace(TEMPLATE, tables=(*TEMPLATE.tables, *apps), foreign_keys=(*TEMPLATE.foreign_keys, *keys))
        return report(large, *ALL)
    return report(TEMPLATE, *request.param)


class TestDocument:
    def test_is_whole(self, planned: Report) -> None:
        document = shown(planned)
        ids = [each.attributes["id"] for each in document if "id" in each.attributes]
        assert len(ids) == len(set(ids))
        for each in document:
            for reference in (each.attributes.get("aria-labelledby") or "").split():
                assert reference in ids
            if each.tag == "a":
                assert (each.attributes["href"] or "").removeprefix("#") in ids

    def test_asks_the_network_for_nothing(self, planned: Report) -> None:
        document = shown(planned)
        for each in document:
            assert not {"src", "srcset", "data", "action", "style", "onclick", "xlink:href"} & each.attributes.keys()
            assert each.tag not in {"link", "iframe", "object", "embed", "base", "use", "image", "img", "form"}
        assert not re.search(r"@import|url\(|https?:", document.one("style").whole)

    def test_would_not_be_let_to_the_network(self, planned: Report) -> None:
        document = shown(planned)
        (policy,) = document.all("meta", **{"http-equiv": "Content-Security-Policy"})
        rules = dict(rule.split(" ", 1) for rule in (policy.attributes["content"] or "").split("; "))
        assert rules.pop("default-src") == "'none'"
        for name, tag in (("style-src", "style"), ("script-src", "script")):
            digest = hashlib.sha256(document.one(tag).whole.encode()).digest()
            assert rules.pop(name) == f"'sha256-{base64.b64encode(digest).decode()}'"
        assert set(rules.values()) == {"'none'"}

    def test_headings_leave_no_level_out(self, planned: Report) -> None:
        levels = [int(each.tag[1]) for each in shown(planned) if re.fullmatch("h[1-6]", each.tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))

    def test_parts_come_in_the_order_in_which_they_are_asked_for(self, planned: Report) -> None:
        body = shown(planned).one("body")
        assert [each.tag for each in body.parts if isinstance(each, Element)] == [
            "a", "header", "nav", "main", "footer", "script",
        ]  # fmt: skip
        assert [each.attributes["id"] for each in body.all("section")] == ["diagram", "findings", "steps"]
        assert [each.tag for each in body.one("header").parts if isinstance(each, Element)] == ["p", "h1", "p", "dl"]

    def test_pictures_are_told_to_those_who_do_not_see_them(self, planned: Report) -> None:
        for each in shown(planned).one("div", class_="pictures").all("svg"):
            assert each.attributes["role"] == "img"
            title, description = each.parts[1], each.parts[3]
            assert isinstance(title, Element)
            assert isinstance(description, Element)
            assert (title.tag, description.tag) == ("title", "desc")
            assert each.attributes["aria-labelledby"] == f"{title.attributes['id']} {description.attributes['id']}"

    def test_is_made_at_a_time_by_somebody_with_something(self) -> None:
        footer = shown(report(TEMPLATE, *ALL)).one("footer").text
        assert "2026-03-01 18:30:00 UTC by ada with shadow 1.2.3" in footer


class TestHostileNames:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_are_texts(self, name: str) -> None:
        finding = Finding(name, "refuse", name, name, name)
        documents = [
            shown(report(named(each), *ALL, findings=[replace(finding, message=each)])) for each in (name, "harmless")
        ]
        hostile, harmless = (Counter(each.tag for each in document) for document in documents)
        # what has no room in the picture carries the whole as a title
        assert hostile - Counter(title=hostile["title"]) == harmless - Counter(title=harmless["title"])
        assert documents[0].one("h1").text == " ".join(name.split())
        assert any(each.whole == name for each in documents[0].all("pre"))
        quoted = '"' + name.replace('"', '""') + '"'
        assert f"public.{quoted}" in [each.whole for each in documents[0].all("th")]
        assert name in [each.whole for each in documents[0].all("code")]

    @pytest.mark.parametrize("name", HOSTILE)
    def test_make_no_attribute(self, name: str) -> None:
        for each in shown(report(named(name), *ALL)):
            assert not any(attribute.startswith("on") for attribute in each.attributes)
            assert not any(name in (value or "") for value in each.attributes.values())


class TestHeader:
    def test_says_first_whether_it_can_run_and_what_to_type(self) -> None:
        verdict = shown(report(TEMPLATE, *ALL)).one("p", class_="verdict")
        assert verdict.has("class", "ready")
        assert verdict.one("strong").text.startswith("Ready: ")
        assert verdict.one("code").text == "shadow migrate --to drop"

    def test_says_first_that_it_is_refused(self) -> None:
        document = shown(report(TEMPLATE, *ALL, findings=FOUND))
        assert document.one("p", class_="verdict").has("class", "refused")
        assert document.one("p", class_="verdict").one("strong").text.startswith("Refused: 1 ")
        assert document.one("head").one("title").text.endswith(": refused")
        assert "shadow migrate" not in document.one("footer").text

    def test_says_that_nothing_is_left(self) -> None:
        document = shown(report(TEMPLATE))
        assert document.one("p", class_="verdict").text.endswith("Nothing to do.")
        assert "Nothing" not in document.one("section", id="diagram").text

    def test_names_what_it_is_about(self) -> None:
        planned = report(snapshot(*TEMPLATE.tables, *TEMPLATE.foreign_keys, database="shop"), "adopt", "retire")
        header = shown(planned).one("header")
        terms = [each.text for each in header.all("dt")]
        facts = dict(zip(terms, [each.text for each in header.all("dd")], strict=True))
        assert header.one("h1").text == "shop"
        assert facts == {
            "Server": "PostgreSQL 15.18",
            "Layout": "better-auth, schema public",
            "Target": "0002_retire",
            "Read as": "owner",
            "Fingerprint": planned.fingerprint,
        }


class TestDiagram:
    def test_is_drawn_before_and_after_for_wide_pages_and_narrow_ones(self) -> None:
        figures = shown(report(TEMPLATE, *ALL)).all("figure")
        assert [each.one("figcaption").text for each in figures] == ["Before", "After 0003_drop"]
        assert [[each.attributes["class"] for each in figure.all("svg")] for figure in figures] == [
            ["wide", "narrow"]
        ] * 2

    @pytest.mark.parametrize("options", [None, decided(map=["jwks=public.nope"])])
    def test_is_drawn_once_where_nothing_is_known_to_change(self, options: object) -> None:
        actions = ALL if options else ()
        figures = shown(report(TEMPLATE, *actions, options=options)).all("figure")  # type: ignore[arg-type]
        assert [each.one("figcaption").text for each in figures] == ["As it is"]

    def test_counts_what_a_reviewer_asks_for(self) -> None:
        figures = shown(report(TEMPLATE, *ALL)).one("ul", class_="figures")
        assert [each.text for each in figures.all("li")] == [
            "5 tables go", "8 columns leave users", "2 columns come to users", "3 foreign keys go with their tables",
        ]  # fmt: skip

    def test_says_with_a_sign_what_a_colour_says(self) -> None:
        before, after = (each.all("svg")[0] for each in shown(report(TEMPLATE, *ALL)).all("figure"))
        words = {
            each.all("text", class_="name")[0].text: each.all("text", class_="word")
            for each in before.all("g", class_="box")
        }
        assert [each.text for each in words["users"]] == ["~ changes"]
        assert [each.text for each in words["sessions"]] == ["− goes"]
        going = [
            each.one("text", class_="sign").text
            for each in before.all("g", class_="row")
            if each.has("class", "fate-goes")
        ]
        assert going == ["−"] * (8 + 3)
        added = [
            each.one("text", class_="sign").text
            for each in after.all("g", class_="row")
            if each.has("class", "fate-added")
        ]
        assert added == ["+", "+"]

    def test_draws_the_foreign_keys_as_lines_as_long_as_they_are_there(self) -> None:
        before, after = (each.all("svg")[0] for each in shown(report(TEMPLATE, *ALL)).all("figure"))
        titles = [each.one("title").text for each in before.all("g", class_="line-dropped")]
        assert titles == [
            "3 foreign keys to users",
            *(f"{name}_user_id_users_id_fk: {name}.user_id → users.id, goes with its table"
              for name in ("accounts", "sessions", "two_factors")),
        ]  # fmt: skip
        assert after.all("g", class_="line") == []

    def test_lists_every_table_and_foreign_key_in_words(self) -> None:
        apps = table("files", "id", "owner"), table("devices", "session_id"), table("apart", "id")
        keys = key("files.owner", "users.id", on_delete="r"), key("devices.session_id", "sessions.id")
        found = replace(TEMPLATE, tables=(*TEMPLATE.tables, *apps), foreign_keys=(*TEMPLATE.foreign_keys, *keys))
        section = shown(report(found, *ALL, options=decided(detach=["devices.session_id"]))).one(
            "section", id="diagram"
        )
        tables, columns, lines = (
            [[cell.text for cell in (*row.all("th"), *row.all("td"))] for row in each.all("tr")[1:]]
            for each in section.all("table")
        )
        assert {row[0]: row[1] for row in tables} == {
            "public.users": "~ loses 8 columns, gains 2 columns",
            **{
                f"public.{name}": "− is dropped"
                for name in ("sessions", "accounts", "verifications", "jwks", "two_factors")
            },
            "public.files": "= stays",
            "public.devices": "~ loses 1 foreign key",
        }
        assert len(columns) == 8
        assert [row for row in lines if row[0].startswith(("files", "devices"))] == [
            ["files.owner → users.id", "= kept", "ON DELETE RESTRICT", "files_owner_fk"],
            [
                "devices.session_id → sessions.id",
                "× detached, the column and its values stay",
                "none",
                "devices_session_id_fk",
            ],
        ]
        assert len(lines) == 5
        assert "1 further table " in section.text

    def test_says_what_changes_its_name_and_type(self) -> None:
        found = snapshot(
            table("user", column("id", "uuid"), "name", "email", column("emailVerified", "boolean"), "image",
                  column("createdAt", "timestamp with time zone"), column("updated_at", "timestamp with time zone")),
            table("account", column("id", "uuid"), "accountId", "providerId", column("userId", "uuid"), "password"),
            table("post", column("author", "uuid")),
            key("account.userId", "user.id"),
            key("post.author", "user.id"),
        )  # fmt: skip
        section = shown(report(found, *ALL)).one("section", id="diagram")
        rows = {row.one("th").text: row.all("td")[0].text for row in section.all("table")[0].all("tr")[1:]}
        assert rows["public.post"] == "~ changes 1 column"
        assert rows['public."user"'].startswith("~ becomes users, gains 3 columns, changes 3 columns")


class TestFindings:
    def test_stand_by_level_refusals_first(self) -> None:
        section = shown(report(TEMPLATE, *ALL, findings=FOUND)).one("section", id="findings")
        assert [each.text for each in section.all("h3")] == [
            "× To decide or mend first 1",
            "! Warnings 1",
            "i To know 1",
        ]
        assert [each.one("h4").text for each in section.all("article")] == [
            "foreign-key devices", "live-sessions sessions", "names-change users",
        ]  # fmt: skip

    def test_have_a_message_and_a_remedy_to_copy(self) -> None:
        section = shown(report(TEMPLATE, *ALL, findings=FOUND)).one("section", id="findings")
        first, _, last = section.all("article")
        assert first.one("p").text == "devices refers to sessions."
        assert first.one("pre").whole == "--detach devices.session_id"
        assert "data-copy" in first.one("pre").attributes
        assert last.all("pre") == []

    def test_that_are_none_are_said_to_be_none(self) -> None:
        assert "Nothing stands in the way" in shown(report(TEMPLATE, *ALL)).one("section", id="findings").text

    def test_are_counted_at_the_top(self) -> None:
        nav = shown(report(TEMPLATE, *ALL, findings=FOUND)).one("nav")
        assert [each.text for each in nav.all("span")] == ["1 refuse", "1 warn", "1 info"]


class TestSteps:
    def test_each_is_there_with_lock_sql_and_undo(self) -> None:
        planned = report(TEMPLATE, *ALL)
        section = shown(planned).one("section", id="steps")
        assert [each.text for each in section.all("h3")] == ["0001_adopt", "0002_retire", "0003_drop"]
        items = [each.all("li") for each in section.all("ol")]
        assert [len(each) for each in items] == [len(each.steps) for each in planned.plans]
        for plan, shown_steps in zip(planned.plans, items, strict=True):
            for step, item in zip(plan.steps, shown_steps, strict=True):
                assert item.one("p", class_="title").text == " ".join(step.title.split())
                assert ("no lock" if step.lock == "none" else step.lock) in item.one("span", class_="lock").text
                assert f"Undo: {step.undone}" in item.text
                blocks = [each.whole for each in item.all("pre")]
                if max(map(len, ";\n".join((*step.sql, *step.undo)).splitlines())) <= LONGEST:
                    assert blocks == [";\n".join(each) + ";" for each in (step.sql, step.undo) if each]

    def test_sql_that_is_shortened_is_not_there_to_be_copied(self) -> None:
        section = shown(report(TEMPLATE, *ALL)).one("section", id="steps")
        shortened = [each for each in section.all("pre") if "characters more)" in each.whole]
        assert shortened
        assert not any("data-copy" in each.attributes for each in shortened)

    def test_who_waits_is_shown_from_the_lock_to_the_commit(self) -> None:
        for item in shown(report(TEMPLATE, *ALL)).one("section", id="steps").all("ol"):
            held = [re.sub("held-", "", each.attributes["class"] or "") for each in item.all("li")]
            strength = [["nobody", "writers", "readers"].index(each) for each in held]
            assert strength == sorted(strength)

    def test_of_a_refused_plan_are_shown_as_such(self) -> None:
        section = shown(report(TEMPLATE, *ALL, findings=FOUND)).one("section", id="steps")
        assert "While something is refused, none of them does." in section.text

    def test_are_none_where_the_layout_is_in_doubt(self) -> None:
        section = shown(report(TEMPLATE, *ALL, options=decided(map=["jwks=public.nope"]))).one("section", id="steps")
        assert "the layout is in doubt" in section.text
        assert section.all("ol") == []

    def test_one_that_takes_its_time_says_how_long(self) -> None:
        planned = report(TEMPLATE, "retire")
        steps = (Step("a", ("SELECT 1",), "ACCESS EXCLUSIVE", seconds=30.4), Step("b", ("SELECT 2",), seconds=90.0))
        slow = replace(planned, plans=(replace(planned.plans[0], steps=steps),))
        section = shown(slow).one("section", id="steps")
        assert "readers wait about 30 s" in section.all("li")[0].text
        assert "readers wait about 2 minutes for what grows with the rows" in section.text


class TestWaits:
    def test_as_the_locks_say(self) -> None:
        locks = ("none", "SHARE UPDATE EXCLUSIVE", "SHARE", "ACCESS EXCLUSIVE")
        assert [waiting(lock) for lock in locks] == ["nobody", "nobody", "writers", "readers"]

    def test_begin_with_the_first_lock_that_makes_somebody_wait(self) -> None:
        free, share, shut = Step("", ()), Step("", (), "SHARE"), Step("", (), "ACCESS EXCLUSIVE")
        waits = who_waits([free, share, free, shut, share])
        assert (waits.writers, waits.readers) == (2, 4)
        waits = who_waits([shut])
        assert (waits.writers, waits.readers) == (1, 1)
        waits = who_waits([free])
        assert (waits.writers, waits.readers) == (0, 0)

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(0.01, "less than 0.1 s"), (1.26, "about 1.3 s"), (25.7, "about 26 s"), (600, "about 10 minutes")],
    )
    def test_are_said_as_people_say_them(self, seconds: float, said: str) -> None:
        assert lasting(seconds) == said

    def test_sql_is_cut_line_by_line(self) -> None:
        assert cut("SELECT 1\nFROM t") == "SELECT 1\nFROM t"
        first, second = cut("x" * 700 + "\ny").splitlines()
        assert first == "x" * 120 + " ... (580 characters more)"
        assert second == "y"


class TestCommand:
    @pytest.mark.parametrize("fixture", ["plural_snake", "kysely_singular", "soft_delete_singular", "uuid_ids"])
    def test_makes_a_page_of_every_layout(self, make_database: Callable[[str | None], str], fixture: str) -> None:
        url = make_database(fixture)
        outcome = shadow(url, "plan", "--to", "drop", "--format", "html", "--accept", ACCEPTED)
        document = read(outcome.out)
        assert outcome.code == 0
        assert document.one("p", class_="verdict").has("class", "ready")
        assert [each.one("figcaption").text for each in document.all("figure")] == ["Before", "After 0003_drop"]
        assert len(document.one("section", id="steps").all("ol")) == 3

    def test_a_refusal_is_a_page_and_an_exit_code(self, make_database: Callable[[str | None], str]) -> None:
        outcome = shadow(make_database("plural_snake"), "plan", "--to", "drop", "--format", "html")
        assert outcome.code == 2
        assert read(outcome.out).one("p", class_="verdict").has("class", "refused")
