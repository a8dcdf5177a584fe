"""Two apps on one database between adopt and retire: Better Auth itself, with its own queries, and the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import pytest

from app.cutover.catalog import literal
from tests.cutover.commands import migrate, shadow
from tests.interop.conftest import Both, people
from tests.interop.oldapp import missing

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

PASSWORD = "Correct-Horse-Battery-1"
_numbers = count()


def somebody() -> dict[str, str]:
    """Return what somebody whom nobody knows yet fills in when they sign up."""
    number = next(_numbers)
    return {"email": f"new.{number}@example.com", "name": f"Zoë O'Neill {number}", "password": PASSWORD}


def moment(text: str) -> datetime:
    """Read a time as PostgreSQL writes it in JSON; without a zone it is UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def is_now(text: str) -> bool:
    return abs(datetime.now(UTC) - moment(text)) < timedelta(minutes=2)


def as_javascript(text: str | None) -> str | None:
    """Write such a time as JavaScript's `toISOString` does."""
    return None if text is None else f"{moment(text).astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return what /me has to answer for a row."""
    return {
        "id": row["id"],
        "name": row["name"],
        "email": row["email"],
        "emailVerified": row["email_verified"],
        "image": row["image"],
        "onboardingCompletedAt": as_javascript(row["onboarding_completed_at"]),
        "createdAt": as_javascript(row["created_at"]),
        "updatedAt": as_javascript(row["updated_at"] or row["created_at"]),
    }


class TestWhoWasThere:
    def test_everybody_reads_as_the_old_app_s_table_has_them(self, both: Both) -> None:
        rows = both.rows()
        assert len(rows) > 20
        for row in rows:
            if row["deleted_at"] is None:
                assert both.me(row["id"]) == shown(row)
            else:
                refused = both.client.get("/me", headers=both.bearer(row["id"]))
                assert (refused.status_code, refused.json()["code"]) == (403, "account_deleted")

    def test_they_go_on_signing_in_as_who_they_are(self, both: Both) -> None:
        for person in people(both.layout)[:4]:
            answer = both.old("sign-in", email=person["email"], password=person["password"])
            assert answer["id"] == both.me(person["id"])["id"] == person["id"]

    def test_a_session_from_before_goes_on(self, both: Both) -> None:
        assert both.old("session", token=both.token)["id"] == people(both.layout)[0]["id"]


class TestTheOldAppFirst:
    def test_who_signs_up_is_known_to_the_server_and_has_one_row(self, both: Both) -> None:
        new = somebody()
        sub = both.old("sign-up", **new)["id"]
        silent, stated = both.me(sub), both.me(sub, email=new["email"], email_verified=False, name=new["name"])
        assert (silent["id"], silent["name"], silent["email"]) == (sub, new["name"], new["email"])
        assert stated == silent
        (row,) = both.rows(f"lower({both.layout.columns['email']}) = {literal(new['email'])}")
        assert shown(row) == silent
        assert is_now(silent["createdAt"])
        assert is_now(silent["updatedAt"])

    def test_who_changes_their_name_there_has_it_here(self, both: Both) -> None:
        answer = both.old("sign-up", **somebody())
        both.me(answer["id"])
        both.old("update-user", token=answer["token"], name="Zoë Ångström-O'Neill")
        assert both.me(answer["id"])["name"] == "Zoë Ångström-O'Neill"


class TestTheServerFirst:
    def test_a_sub_that_nobody_knows_becomes_a_user_of_the_old_app(self, both: Both) -> None:
        new, sub = somebody(), 'auth0|it\'s "new"'
        said = {"email": new["email"], "email_verified": True, "name": new["name"], "picture": "https://x.example/1"}
        user = both.me(sub, **said)
        (row,) = both.rows(f"id = {literal(sub)}")
        assert shown(row) == user
        assert (user["email"], user["name"], user["emailVerified"]) == (new["email"], new["name"], True)
        assert is_now(row["created_at"])
        assert is_now(row["updated_at"])
        assert both.me(sub) == user

    def test_their_address_is_taken_in_the_old_app(self, both: Both) -> None:
        new = somebody()
        both.me(f"sub of {new['email']}", email=new["email"], name=new["name"])
        refused = both.old.try_to("sign-up", **new)
        assert (refused["ok"], "exist" in refused["error"]) == (False, True)
        assert len(both.rows(f"{both.layout.columns['email']} = {literal(new['email'])}")) == 1

    def test_a_sub_without_an_address_has_a_row_too(self, both: Both) -> None:
        assert (both.me("nameless")["email"], both.me("nameless")["name"]) == (None, "")
        (row,) = both.rows("id = 'nameless'")
        assert (row["email"], row["name"]) == ("nameless@placeholder.invalid", "")


class TestOneRowForBoth:
    def test_what_a_newer_token_says_is_what_the_old_app_shows(self, both: Both) -> None:
        new, changed = somebody(), somebody()
        answer = both.old("sign-up", **new)
        both.me(answer["id"], name=changed["name"], email=changed["email"], email_verified=True)
        session = both.old("session", token=answer["token"])
        assert (session["name"], session["email"]) == (changed["name"], changed["email"])
        assert both.old("sign-in", email=changed["email"], password=PASSWORD)["id"] == answer["id"]

    def test_what_the_app_writes_is_all_that_is_written(self, both: Both) -> None:
        answer = both.old("sign-up", **somebody())
        whole = f"SELECT * FROM {both.layout.table} WHERE id = {literal(answer['id'])}"
        (before,) = both.witness.ask(whole)
        done = {"onboardingCompletedAt": "2026-03-04T10:00:00.000Z"}
        patched = both.client.patch("/me", headers=both.bearer(answer["id"]), json=done)
        assert (patched.status_code, patched.json()["user"]["onboardingCompletedAt"]) == (200, *done.values())
        (after,) = both.witness.ask(whole)
        updated_at = both.layout.columns["updated_at"].strip('"')
        differing = {name for name in after if after[name] != before[name]}
        assert differing == {"onboarding_completed_at", updated_at}
        assert moment(after["onboarding_completed_at"]) == datetime(2026, 3, 4, 10, tzinfo=UTC)
        assert is_now(after[updated_at])
        assert both.old("session", token=answer["token"])["id"] == answer["id"]

    def test_who_is_deleted_here_is_marked_there_and_stays_out(self, both: Both) -> None:
        answer = both.old("sign-up", **somebody())
        me = both.bearer(answer["id"])
        assert both.client.delete("/me", headers=me).json() == {"success": True}
        assert both.client.get("/me", headers=me).json()["code"] == "account_deleted"
        (row,) = both.rows(f"id = {literal(answer['id'])}")
        assert is_now(row["deleted_at"])


class TestAtOnce:
    def test_twenty_sign_up_and_twenty_others_come_with_a_token(self, both: Both) -> None:
        signing_up, coming = [somebody() for _ in range(20)], [somebody() for _ in range(20)]
        before = len(both.rows())

        def come(new: dict[str, str]) -> str:
            id_: str = both.me(f"sub of {new['email']}", email=new["email"], name=new["name"])["id"]
            return id_

        with ThreadPoolExecutor(20) as crowd:
            answers = crowd.submit(both.old.ask_all, [{"do": "sign-up", **new} for new in signing_up])
            seen = list(crowd.map(come, [*coming, *coming]))
        assert [answer["ok"] for answer in answers.result()] == [True] * 20
        assert seen == [f"sub of {new['email']}" for new in coming] * 2
        assert len(both.rows()) == before + 40
        for new, answer in zip(signing_up, answers.result(), strict=True):
            assert both.me(answer["id"])["email"] == new["email"]

    def test_an_address_that_both_are_asked_for_has_one_holder(self, both: Both) -> None:
        disputed = [somebody() for _ in range(5)]
        with ThreadPoolExecutor(5) as crowd:
            answers = crowd.submit(both.old.ask_all, [{"do": "sign-up", **new} for new in disputed])
            for user in crowd.map(lambda new: both.me(f"rival of {new['email']}", email=new["email"]), disputed):
                assert user["id"] == f"rival of {user['email']}"
        for new, answer in zip(disputed, answers.result(), strict=True):
            (holder,) = both.rows(f"{both.layout.columns['email']} = {literal(new['email'])}")
            assert holder["id"] == f"rival of {new['email']}"
            assert (len(both.rows(f"id = {literal(answer['id'])}")) if answer["ok"] else 1) == 1


@contextmanager
def asking_all_the_time(both: Both, sub: str) -> Iterator[list[int]]:
    """Ask the server for a user again and again, and yield the statuses."""
    statuses: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=both.client.base_url, timeout=30) as client:
            while not ended.is_set():
                statuses.append(client.get("/me", headers=both.bearer(sub)).status_code)

    crowd = [threading.Thread(target=ask) for _ in range(4)]
    for thread in crowd:
        thread.start()
    yield statuses
    ended.set()
    for thread in crowd:
        thread.join()


class TestTheEvening:
    def test_the_same_people_before_retire_after_it_and_after_undo(self, both: Both) -> None:
        new, other, known = somebody(), somebody(), people(both.layout)[0]
        answer = both.old("sign-up", **new)
        both.me("came first", email=other["email"], name=other["name"])
        before = {sub: both.me(sub) for sub in (answer["id"], "came first", known["id"])}

        with asking_all_the_time(both, known["id"]) as statuses:
            retired = migrate(both.witness.url, "retire")
        assert retired.code == 0, retired.text
        assert set(statuses) == {200}
        assert not both.old.try_to("sign-in", email=new["email"], password=PASSWORD)["ok"]
        with both.serve() as restarted:
            for client in (both.client, restarted):
                assert {sub: both.me(sub, client) for sub in before} == before
            later = both.me("came later", restarted, name="Zoë")

        with asking_all_the_time(both, known["id"]) as statuses:
            undone = shadow(both.witness.url, "undo", "--yes")
        assert undone.code == 0, undone.text
        assert set(statuses) == {200}
        assert {sub: both.me(sub) for sub in before} == before
        assert both.me("came later")["name"] == later["name"] == "Zoë"
        for person in (new | {"id": answer["id"]}, known):
            signed_in = both.old("sign-in", email=person["email"], password=person["password"])
            assert signed_in["id"] == person["id"]
        assert both.old("session", token=both.token)["id"] == known["id"]
