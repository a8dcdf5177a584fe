"""Reading the provider's users: who is listed, who is found, who is said not to be there, and by whom."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from app.idp.directory import (
    MAX_OCTETS,
    PAGE,
    UNCLEAR_IN_A_ROW,
    AutherDirectory,
    BetterAuthDirectory,
    DirectoryFailed,
    Entry,
    Patience,
)

pytestmark = pytest.mark.anyio

URL = "https://idp.example"
PASSWORD, KEY = "sesame-password", "sesame-key"
Answer = Callable[[httpx.Request], httpx.Response]


class Pauses:
    """Stands for sleep: nobody waits, and every wait is known."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Provider(ABC):
    """Users behind a transport; `odd` answers instead of it where it has something to say."""

    def __init__(self, *subs: str) -> None:
        self.subs = list(subs)
        self.requests: list[httpx.Request] = []
        self.odd: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
        self.credentials: list[str] = []
        """What was handed out; the last one is good."""
        self.pauses = Pauses()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.odd(request) or self.answer(request)

    @abstractmethod
    def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer as the provider does."""

    def asked(self, path: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.path.endswith(path)]

    def odd_at(self, path: str, *answers: httpx.Response | Exception) -> None:
        """Answer requests for a path with these first, one after the other."""
        left = list(answers)

        def odd(request: httpx.Request) -> httpx.Response | None:
            if not request.url.path.endswith(path) or not left:
                return None
            answer = left.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.odd = odd

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self))


def member(sub: str) -> dict[str, Any]:
    return {"id": sub, "name": f"Name of {sub}", "email": f"{sub}@example.com", "emailVerified": True}


class BetterAuth(Provider):
    """As Better Auth with its admin plugin answers."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/auth/")
        if path == "sign-in/email":
            if json.loads(request.content) != {"email": "admin@example.com", "password": PASSWORD}:
                return httpx.Response(401, json={"code": "INVALID_EMAIL_OR_PASSWORD"})
            self.credentials.append(f"session_token=cookie-{len(self.credentials)}")
            return httpx.Response(
                200, json={"redirect": False}, headers={"Set-Cookie": f"{self.credentials[-1]}; Path=/; HttpOnly"}
            )
        if request.headers.get("Cookie") != self.credentials[-1]:
            return httpx.Response(401, json={"code": "UNAUTHORIZED"})
        query = request.url.params
        if path == "admin/list-users":
            offset = int(query["offset"])
            page = self.subs[offset : offset + int(query["limit"])]
            return httpx.Response(200, json={"users": [member(sub) for sub in page], "total": len(self.subs)})
        assert path == "admin/get-user"
        if query["id"] not in self.subs:
            return httpx.Response(404, json={"code": "USER_NOT_FOUND", "message": "User not found"})
        return httpx.Response(200, json=member(query["id"]))

    def directory(self, password: str = PASSWORD, url: str = URL) -> BetterAuthDirectory:
        return BetterAuthDirectory(url, "admin@example.com", password, self.client(), sleep=self.pauses)


class Auther(Provider):
    """As Auther's documentation has it."""

    now = 0.0
    lasts: object = 900

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/auth/api-key/exchange":
            if json.loads(request.content) != {"apiKey": KEY}:
                return httpx.Response(401, json={"error": "Unauthorized"})
            self.credentials.append(f"token-{len(self.credentials)}")
            return httpx.Response(200, json={"token": self.credentials[-1], "expiresIn": self.lasts})
        if request.headers.get("Authorization") != f"Bearer {self.credentials[-1]}":
            return httpx.Response(401, json={"error": "Unauthorized"})
        sub = request.url.path.removeprefix("/api/admin/users/")
        if sub not in self.subs:
            return httpx.Response(404, json={"error": "Not found"})
        return httpx.Response(200, json={"user": member(sub)})

    def directory(self, key: str = KEY) -> AutherDirectory:
        return AutherDirectory(URL + "/", key, self.client(), sleep=self.pauses, clock=lambda: self.now)


EITHER = pytest.mark.parametrize("kind", [BetterAuth, Auther])
FINDING = {BetterAuth: "admin/get-user", Auther: "admin/users/ada"}


async def read(directory: BetterAuthDirectory, order: str = "createdAt") -> list[str]:
    return [entry.sub async for page in directory.pages(order) for entry in page.entries]


class TestList:
    @pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
    async def test_every_user_is_read_once(self, count: int) -> None:
        subs = [f"user-{number}" for number in range(count)]
        assert await read(BetterAuth(*subs).directory()) == subs

    async def test_an_entry_holds_the_members_as_they_are_and_when_it_was_asked_for(self) -> None:
        before = datetime.now(UTC)
        page, _ = [page async for page in BetterAuth("ada").directory().pages("createdAt")]
        (entry,) = page.entries
        assert (entry.sub, entry.state, entry.members, page.total) == ("ada", "known", member("ada"), 1)
        assert before <= entry.read_at <= datetime.now(UTC)

    async def test_it_is_asked_for_in_the_order_that_is_wanted(self) -> None:
        provider = BetterAuth("ada")
        await read(provider.directory(), "id")
        query = provider.asked("list-users")[0].url.params
        assert dict(query) == {"limit": "100", "offset": "0", "sortBy": "id", "sortDirection": "asc"}

    async def test_pages_shorter_than_was_asked_for_are_not_the_end(self) -> None:
        provider = BetterAuth(*(f"user-{number}" for number in range(25)))

        def ten_at_most(request: httpx.Request) -> httpx.Response | None:
            if request.url.path.endswith("list-users") and request.url.params["limit"] != "10":
                return provider.answer(
                    httpx.Request("GET", request.url.copy_set_param("limit", "10"), headers=request.headers)
                )
            return None

        provider.odd = ten_at_most
        assert await read(provider.directory()) == provider.subs

    async def test_a_list_that_repeats_itself_ends(self) -> None:
        provider = BetterAuth("ada", "bob")
        same = httpx.Response(200, json={"users": [member("ada"), member("bob")], "total": 2})
        provider.odd_at("list-users", *[same] * 5)
        assert set(await read(provider.directory())) == {"ada", "bob"}

    async def test_numbers_are_ids_too(self) -> None:
        provider = BetterAuth()
        provider.odd_at("list-users", httpx.Response(200, json={"users": [{"id": 7}], "total": 1}))
        assert await read(provider.directory()) == ["7"]

    @pytest.mark.parametrize(
        "answer",
        [
            {"users": [], "total": None},
            {"users": [], "total": True},
            {"users": None, "total": 0},
            {"total": 0},
            {"users": ["ada"], "total": 1},
            {"users": [{"id": ""}], "total": 1},
            {"users": [{"id": "x" * 256}], "total": 1},
            {"users": [{"id": "a\0"}], "total": 1},
            {"users": [{"id": True}], "total": 1},
        ],
    )
    async def test_what_is_not_a_list_of_users_is_no_empty_list(self, answer: object) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("list-users", httpx.Response(200, json=answer))
        with pytest.raises(DirectoryFailed):
            await read(provider.directory())

    async def test_auther_has_none(self) -> None:
        directory = Auther("ada").directory()
        assert directory.orders == ()
        assert [page async for page in directory.pages("createdAt")] == []


class TestFind:
    @EITHER
    async def test_who_is_there_is_known(self, kind: type[BetterAuth | Auther]) -> None:
        entry = await kind("ada").directory().find("ada")
        assert (entry.sub, entry.state, entry.members) == ("ada", "known", member("ada"))

    @EITHER
    async def test_a_404_of_the_provider_says_that_there_is_none(self, kind: type[BetterAuth | Auther]) -> None:
        entry = await kind("ada").directory().find("bob")
        assert (entry.sub, entry.state, entry.members) == ("bob", "unknown", {})

    @EITHER
    @pytest.mark.parametrize("body", ["<h1>404 Not Found</h1>", "", '["ada"]'])
    async def test_a_404_of_something_in_front_of_it_does_not(self, kind: type[BetterAuth | Auther], body: str) -> None:
        provider = kind("ada")
        provider.odd_at(FINDING[kind], httpx.Response(404, text=body))
        with pytest.raises(DirectoryFailed, match="404"):
            await provider.directory().find("ada")

    async def test_nor_does_better_auth_s_own_for_another_reason(self) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("admin/get-user", httpx.Response(404, json={"code": "NOT_FOUND"}))
        with pytest.raises(DirectoryFailed, match="404 NOT_FOUND"):
            await provider.directory().find("ada")

    @EITHER
    @pytest.mark.parametrize("status", [200, 204, 301, 403, 418])
    async def test_nor_does_any_other_answer(self, kind: type[BetterAuth | Auther], status: int) -> None:
        provider = kind("ada")
        provider.odd_at(FINDING[kind], httpx.Response(status, json=None))
        with pytest.raises(DirectoryFailed):
            await provider.directory().find("ada")

    async def test_an_id_of_any_script_and_with_any_sign_is_one_part_of_the_path(self) -> None:
        for sub in ("auth0|5f", "a/../b", "ä ö?#", "100%", "用户"):
            provider = Auther(sub)
            assert (await provider.directory().find(sub)).state == "known"


class TestUnclear:
    @EITHER
    @pytest.mark.parametrize("status", [400, 422, 500])
    async def test_an_id_at_which_the_provider_fails_is_neither_known_nor_unknown(
        self, kind: type[BetterAuth | Auther], status: int
    ) -> None:
        provider = kind("ada")
        provider.odd_at(FINDING[kind], *[httpx.Response(status, json={"message": "invalid input syntax"})] * 3)
        assert (await provider.directory().find("ada")).state == "unclear"

    async def test_so_is_one_that_the_provider_takes_for_another(self) -> None:
        provider = BetterAuth("7")
        provider.odd_at("admin/get-user", httpx.Response(200, json=member("7")))
        assert (await provider.directory().find("007")).state == "unclear"

    async def find_all(self, provider: BetterAuth, failing: Callable[[str], bool], count: int) -> list[Entry]:
        def odd(request: httpx.Request) -> httpx.Response | None:
            sub = request.url.params.get("id")
            return httpx.Response(400, json={}) if sub is not None and failing(sub) else None

        provider.odd = odd
        directory = provider.directory()
        await read(directory)
        return [await directory.find(f"odd-{number}") for number in range(count)]

    async def test_many_in_a_row_are_no_matter_while_the_provider_answers_for_others(self) -> None:
        entries = await self.find_all(BetterAuth("ada"), lambda sub: sub != "ada", 3 * UNCLEAR_IN_A_ROW)
        assert {entry.state for entry in entries} == {"unclear"}

    async def test_but_if_it_fails_at_those_too_it_is_the_provider_that_fails(self) -> None:
        with pytest.raises(DirectoryFailed, match="look at its log"):
            await self.find_all(BetterAuth("ada"), lambda _: True, UNCLEAR_IN_A_ROW)

    async def test_and_so_it_is_taken_where_it_never_answered_for_any(self) -> None:
        with pytest.raises(DirectoryFailed, match="look at its log"):
            await self.find_all(BetterAuth(), lambda _: True, UNCLEAR_IN_A_ROW)


class TestTriedAgain:
    TROUBLES = (
        httpx.Response(500),
        httpx.Response(503),
        httpx.Response(429),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
    )

    @EITHER
    @pytest.mark.parametrize("trouble", TROUBLES, ids=str)
    async def test_what_passes_is_waited_out(
        self, kind: type[BetterAuth | Auther], trouble: httpx.Response | Exception
    ) -> None:
        provider = kind("ada")
        provider.odd_at(FINDING[kind], trouble, trouble)
        assert (await provider.directory().find("ada")).state == "known"
        assert len(provider.pauses.seconds) == 2

    async def test_what_does_not_is_given_up_with_the_address_and_the_reason(self) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("list-users", *[httpx.ConnectError("refused")] * 99)
        with pytest.raises(DirectoryFailed, match=r"list-users cannot be reached: ConnectError.*IDP_DIRECTORY_URL"):
            await read(provider.directory())
        assert len(provider.asked("list-users")) == Patience().failures

    async def test_the_same_of_a_server_that_only_fails(self) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("list-users", *[httpx.Response(502)] * 99)
        with pytest.raises(DirectoryFailed, match="list-users answers 502"):
            await read(provider.directory())

    async def test_pauses_grow(self) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("list-users", *[httpx.Response(502)] * 5)
        await read(provider.directory())
        # of each doubled pause at least the half is waited, and never more than the whole
        for number, seconds in enumerate(provider.pauses.seconds):
            assert 0.25 * 2**number <= seconds <= 0.5 * 2**number

    @pytest.mark.parametrize("header", ["Retry-After", "X-Retry-After"])
    async def test_who_asks_for_more_gets_it(self, header: str) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("list-users", httpx.Response(429, headers={header: "37"}))
        await read(provider.directory())
        assert provider.pauses.seconds == [37]

    async def test_who_asks_for_hours_does_not(self) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("list-users", httpx.Response(429, headers={"Retry-After": "7200"}))
        with pytest.raises(DirectoryFailed, match="7200 seconds: run again later"):
            await read(provider.directory())

    @pytest.mark.parametrize("nonsense", ["179526161364842", "-5", "soon", "Wed, 21 Oct 2026 07:28:00 GMT", "٣٠"])
    async def test_what_is_no_number_of_seconds_is_not_heard(self, nonsense: str) -> None:
        provider = BetterAuth("ada")
        header = {b"X-Retry-After": nonsense.encode()}
        provider.odd_at("list-users", httpx.Response(429, headers=header))
        assert await read(provider.directory()) == ["ada"]
        assert provider.pauses.seconds[0] <= 0.5

    async def test_a_limit_of_a_minute_is_outlasted_without_being_told_of_it(self) -> None:
        provider = BetterAuth("ada")

        def limited(request: httpx.Request) -> httpx.Response | None:
            over = sum(provider.pauses.seconds) > 60 or not request.url.path.endswith("get-user")
            return None if over else httpx.Response(429)

        provider.odd = limited
        assert (await provider.directory().find("ada")).state == "known"

    async def test_one_that_hangs_is_not_waited_for(self) -> None:
        provider = BetterAuth("ada")

        async def hang(request: httpx.Request) -> httpx.Response:
            if len(provider.requests) == 1:
                provider.requests.append(request)
                await asyncio.sleep(30)
            return provider(request)

        client = httpx.AsyncClient(transport=httpx.MockTransport(hang))
        directory = BetterAuthDirectory(
            URL, "admin@example.com", PASSWORD, client, patience=Patience(timeout=0.05), sleep=provider.pauses
        )
        assert (await directory.find("ada")).state == "known"
        assert len(provider.pauses.seconds) == 1


class TestCredentials:
    async def test_an_admin_signs_in_once_and_with_an_origin(self) -> None:
        provider = BetterAuth(*(f"user-{number}" for number in range(2 * PAGE)))
        directory = provider.directory()
        await read(directory)
        await directory.find("user-1")
        (signed_in,) = provider.asked("sign-in/email")
        assert (str(signed_in.url), signed_in.headers["Origin"]) == (f"{URL}/api/auth/sign-in/email", URL)

    async def test_a_session_that_ended_is_begun_anew(self) -> None:
        provider = BetterAuth("ada")
        directory = provider.directory()
        await directory.find("ada")
        provider.credentials.append("session_token=nobody-has-this-one")
        assert (await directory.find("ada")).state == "known"
        assert len(provider.asked("sign-in/email")) == 2

    async def test_a_session_that_is_never_accepted_is_not_begun_for_ever(self) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("admin/get-user", *[httpx.Response(401)] * 99)
        with pytest.raises(DirectoryFailed, match="does not accept the session"):
            await provider.directory().find("ada")
        assert len(provider.asked("sign-in/email")) == 2

    @pytest.mark.parametrize("url", [f"{URL}/identity/auth", f"{URL}/identity/auth/"])
    async def test_a_path_of_one_s_own_is_kept(self, url: str) -> None:
        provider = BetterAuth()
        provider.odd = lambda request: httpx.Response(418)
        with pytest.raises(DirectoryFailed):
            await provider.directory(url=url).find("ada")
        assert str(provider.requests[0].url) == f"{URL}/identity/auth/sign-in/email"

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (httpx.Response(401, json={"code": "INVALID_EMAIL_OR_PASSWORD"}), "401 INVALID_EMAIL_OR_PASSWORD"),
            (httpx.Response(403, json={"code": "INVALID_ORIGIN"}), "403 INVALID_ORIGIN"),
            (httpx.Response(200, json={"twoFactorRedirect": True}), "second factor"),
            (httpx.Response(200, json={}), "no session cookie"),
            (httpx.Response(200, text="<html>"), "IDP_DIRECTORY_URL"),
            (httpx.Response(307, headers={"Location": "https://evil.example"}), "307"),
        ],
    )
    async def test_a_sign_in_that_fails_is_one_sentence_without_the_password(
        self, answer: httpx.Response, said: str
    ) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("sign-in/email", answer)
        with pytest.raises(DirectoryFailed) as caught:
            await provider.directory().find("ada")
        assert said in caught.value.message
        assert "sesame" not in caught.value.message

    async def test_who_may_not_read_users_is_told_so(self) -> None:
        provider = BetterAuth("ada")
        code = "YOU_ARE_NOT_ALLOWED_TO_LIST_USERS"
        provider.odd_at("list-users", httpx.Response(403, json={"code": code}))
        with pytest.raises(DirectoryFailed, match=f"403 {code}: these credentials may not read users"):
            await read(provider.directory())

    @pytest.mark.parametrize(("lasts", "renewed_at"), [(900, 870), (60, 54), (3.5, 3.15)])
    async def test_a_token_is_renewed_before_it_runs_out(self, lasts: float, renewed_at: float) -> None:
        provider = Auther("ada")
        provider.lasts = lasts
        directory = provider.directory()
        for provider.now, exchanges in ((0, 1), (renewed_at - 0.01, 1), (renewed_at, 2)):
            assert (await directory.find("ada")).state == "known"
            assert len(provider.asked("api-key/exchange")) == exchanges

    async def test_a_token_that_was_withdrawn_is_exchanged_anew(self) -> None:
        provider = Auther("ada")
        directory = provider.directory()
        await directory.find("ada")
        provider.credentials.append("nobody-has-this-one")
        assert (await directory.find("ada")).state == "known"

    async def test_a_token_that_is_never_accepted_is_not_exchanged_for_ever(self) -> None:
        provider = Auther("ada")
        provider.odd_at("users/ada", *[httpx.Response(401)] * 99)
        with pytest.raises(DirectoryFailed, match="does not accept the token"):
            await provider.directory().find("ada")
        assert len(provider.asked("api-key/exchange")) == 2

    async def test_a_key_that_is_refused_is_one_sentence_without_the_key(self) -> None:
        with pytest.raises(DirectoryFailed) as caught:
            await Auther("ada").directory("sesame-wrong").find("ada")
        assert "IDP_DIRECTORY_API_KEY" in caught.value.message
        assert "sesame" not in caught.value.message

    @pytest.mark.parametrize(
        "answer",
        [
            {},
            {"token": "t"},
            {"token": "", "expiresIn": 900},
            {"token": "t", "expiresIn": "900"},
            {"token": "t", "expiresIn": 10**400},
            {"token": "t", "expiresIn": 0},
        ],
    )
    async def test_an_exchange_that_gives_no_token_is_a_fault(self, answer: object) -> None:
        provider = Auther("ada")
        provider.odd_at("api-key/exchange", httpx.Response(200, json=answer))
        with pytest.raises(DirectoryFailed, match="without token and expiresIn"):
            await provider.directory().find("ada")


class TestHostile:
    async def test_an_answer_without_end_is_not_read_to_it(self) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("list-users", httpx.Response(200, content=b" " * (MAX_OCTETS + 1)))
        with pytest.raises(DirectoryFailed, match=f"more than {MAX_OCTETS} octets"):
            await read(provider.directory())

    @EITHER
    async def test_credentials_do_not_follow_a_redirect(self, kind: type[BetterAuth | Auther]) -> None:
        provider = kind("ada")
        provider.odd_at(FINDING[kind], httpx.Response(302, headers={"Location": "https://evil.example/"}))
        with pytest.raises(DirectoryFailed, match="302"):
            await provider.directory().find("ada")
        assert {request.url.host for request in provider.requests} == {"idp.example"}

    async def test_what_the_provider_calls_its_error_is_repeated_only_if_it_is_a_name(self) -> None:
        provider = BetterAuth("ada")
        provider.odd_at("list-users", httpx.Response(418, json={"code": "\x1b[2J your token is x"}))
        with pytest.raises(DirectoryFailed) as caught:
            await read(provider.directory())
        assert "token" not in caught.value.message
