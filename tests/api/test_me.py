"""/me as the clients of the old backend use it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from litestar import get, head, post, put
from litestar.params import FromPath

from app.api.me import iso, parse_time
from app.db import create_engine
from app.errors import InvalidEdit
from tests.api.conftest import Serve
from tests.api.provider import ISSUER, Provider

TO_ISO_STRING = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class TestTimes:
    def test_they_are_written_as_javascript_does(self) -> None:
        moment = datetime(2026, 3, 4, 12, 0, 0, 999_999, timezone(timedelta(hours=2)))
        assert iso(moment) == "2026-03-04T10:00:00.999Z"
        assert iso(datetime(2026, 3, 4, tzinfo=UTC)) == "2026-03-04T00:00:00.000Z"

    def test_what_postgresql_has_as_infinity_is_written_as_the_last_and_the_first_moment(self) -> None:
        assert iso(datetime.max.replace(tzinfo=UTC)) == "9999-12-31T23:59:59.999Z"
        assert iso(datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))) == "0001-01-01T00:00:00.000Z"

    def test_they_are_read_with_any_offset(self) -> None:
        expected = datetime(2026, 3, 4, 10, tzinfo=UTC)
        assert parse_time("t", "2026-03-04T10:00:00.000Z") == expected
        assert parse_time("t", "2026-03-04T12:00:00+02:00") == expected
        assert parse_time("t", None) is None

    @pytest.mark.parametrize(
        "text", ["", "now", "2026-03-04", "2026-03-04T10:00:00", "2026-02-30T10:00:00Z", "1772618400",
                 "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00",
                 "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-03-04T10:00:00\x00Z"],
    )  # fmt: skip
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidEdit):
            parse_time("t", text)


@pytest.mark.anyio
class TestRead:
    async def test_the_first_request_makes_the_user(self, client: httpx.AsyncClient, provider: Provider) -> None:
        answer = await client.get("/me", headers=provider.bearer())
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        user = answer.json()["user"]
        times = {name: user.pop(name) for name in ("createdAt", "updatedAt")}
        assert all(TO_ISO_STRING.fullmatch(time) for time in times.values())
        assert answer.json().keys() == {"user"}
        assert user == {
            "id": "ada",
            "name": "Ada Lovelace",
            "email": "ada@example.com",
            "emailVerified": True,
            "image": "https://example.com/ada.png",
            "onboardingCompletedAt": None,
        }

    async def test_a_user_without_an_address_has_null(self, client: httpx.AsyncClient, provider: Provider) -> None:
        user = (await client.get("/me", headers=provider.bearer(email=None, name=None, picture=None))).json()["user"]
        assert (user["email"], user["emailVerified"], user["name"], user["image"]) == (None, False, "", None)

    async def test_a_machine_has_no_profile(self, client: httpx.AsyncClient, provider: Provider) -> None:
        answer = await client.get("/me", headers=provider.bearer("svc", client_id="svc"))
        assert (answer.status_code, answer.json()["code"]) == (403, "no_profile")

    async def test_a_banned_user_is_refused(self, client: httpx.AsyncClient, provider: Provider) -> None:
        answer = await client.get("/me", headers=provider.bearer(banned=True))
        assert (answer.status_code, answer.json()["code"]) == (403, "account_disabled")

    async def test_everything_lies_below_the_prefix(self, serve: Serve, provider: Provider) -> None:
        async with serve(path_prefix="/api") as client:
            assert (await client.get("/api/me", headers=provider.bearer())).status_code == 200
            assert (await client.get("/api/livez")).status_code == 200
            assert (await client.get("/api/schema/openapi.json")).status_code == 200
            assert (await client.get("/me", headers=provider.bearer())).status_code == 404


@pytest.mark.anyio
class TestChange:
    async def change(self, client: httpx.AsyncClient, provider: Provider, body: Any) -> httpx.Response:
        return await client.patch("/me", headers=provider.bearer(), json=body)

    async def test_onboarding_is_completed_and_undone(self, client: httpx.AsyncClient, provider: Provider) -> None:
        answer = await self.change(client, provider, {"onboardingCompletedAt": "2026-03-04T12:00:00.5+02:00"})
        assert answer.status_code == 200
        assert answer.json()["user"]["onboardingCompletedAt"] == "2026-03-04T10:00:00.500Z"
        read = await client.get("/me", headers=provider.bearer())
        assert read.json() == answer.json()
        answer = await self.change(client, provider, {"onboardingCompletedAt": None})
        assert answer.json()["user"]["onboardingCompletedAt"] is None

    async def test_an_empty_object_changes_nothing(self, client: httpx.AsyncClient, provider: Provider) -> None:
        before = await client.get("/me", headers=provider.bearer())
        answer = await self.change(client, provider, {})
        assert (answer.status_code, answer.json()) == (200, before.json())

    async def test_a_field_of_the_provider_s_is_refused_by_name(self, serve: Serve, provider: Provider) -> None:
        async with serve(idp_account_url="https://idp.example/account") as client:
            for field in ("email", "emailVerified", "name", "image"):
                body = {field: "https://x.example", "onboardingCompletedAt": None}
                answer = await self.change(client, provider, body)
                problem = answer.json()
                assert (answer.status_code, problem["code"], problem["field"]) == (422, "identity_field", field)
                assert "https://idp.example/account" in problem["detail"]

    async def test_so_is_one_of_no_type_it_could_have(self, client: httpx.AsyncClient, provider: Provider) -> None:
        for field in ("email", "emailVerified", "name", "image"):
            for value in (None, 1, [], {"set": "x"}):
                problem = (await self.change(client, provider, {field: value})).json()
                assert (problem["status"], problem["code"], problem["field"]) == (422, "identity_field", field), value

    async def test_what_cannot_be_set_is_named(self, client: httpx.AsyncClient, provider: Provider) -> None:
        for field, value in (
            ("id", "eve"),
            ("deletedAt", None),
            ("onboarding_completed_at", None),
            ("a`b", 1),
            ("onboardingCompletedAt", 1772618400),
            ("onboardingCompletedAt", "soon"),
            ("onboardingCompletedAt", True),
        ):
            answer = await self.change(client, provider, {field: value})
            problem = answer.json()
            assert (answer.status_code, problem["code"], problem["field"]) == (422, "invalid_body", field)
            assert problem["errors"][0]["field"] == field

    async def test_a_body_that_is_no_object_is_refused(self, client: httpx.AsyncClient, provider: Provider) -> None:
        for body in (None, [], "x", 1):
            answer = await self.change(client, provider, body)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_body"), body

    async def test_so_is_null(self, client: httpx.AsyncClient, provider: Provider) -> None:
        headers = provider.bearer() | {"Content-Type": "application/json"}
        answer = await client.patch("/me", headers=headers, content="null")
        assert (answer.status_code, answer.json()["detail"]) == (422, "A JSON object is needed.")

    async def test_a_body_that_says_it_is_something_else_is_not_read(
        self, client: httpx.AsyncClient, provider: Provider
    ) -> None:
        for kind in ("text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "application/jsonx"):
            headers = provider.bearer() | {"Content-Type": kind}
            answer = await client.patch("/me", headers=headers, content="{}")
            assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type"), kind
            assert answer.headers["accept-patch"] == "application/json"

    async def test_one_that_says_nothing_or_a_kind_of_json_is(
        self, client: httpx.AsyncClient, provider: Provider
    ) -> None:
        for kind in ({}, {"Content-Type": "Application/JSON; charset=utf-8"}, {"Content-Type": "application/x+json"}):
            answer = await client.patch("/me", headers=provider.bearer() | kind, content="{}")
            assert answer.status_code == 200, kind

    async def test_so_is_none_at_all(self, client: httpx.AsyncClient, provider: Provider) -> None:
        answer = await client.patch("/me", headers=provider.bearer())
        assert (answer.status_code, answer.json()["detail"]) == (422, "A JSON object is needed.")


@pytest.mark.anyio
class TestChangeOfWhatTheAppOwns:
    async def test_name_and_image_are_the_app_s_from_then_on(self, serve: Serve, provider: Provider) -> None:
        async with serve(app_owned_fields="name,image") as client:
            body = {"name": "नमस्ते 👩‍💻", "image": "https://cdn.example/a.png?x=1"}
            answer = await client.patch("/me", headers=provider.bearer(), json=body)
            assert answer.status_code == 200
            later = provider.bearer(
                name="Provider's", picture="https://idp.example/p.png", iat=3_000_000, email="n@x.de"
            )
            user = (await client.get("/me", headers=later)).json()["user"]
            assert (user["name"], user["image"]) == (body["name"], body["image"])
            cleared = await client.patch("/me", headers=provider.bearer(), json={"image": None})
            assert cleared.json()["user"]["image"] is None

    async def test_they_must_be_good_for_something(self, serve: Serve, provider: Provider) -> None:
        names = ["", "  \n", "a\0b", "\0", "n" * 256, None, 1]
        images = [
            " ", "javascript:alert(1)", "data:image/png;base64,AA", "//x.example", "https://", "https://x.example/ a",
            "https://x.example/\n", "https://x.example/\0", "https://x.example/" + "a" * 2048, False,
        ]  # fmt: skip
        async with serve(app_owned_fields="name,image") as client:
            for body in [{"name": name} for name in names] + [{"image": image} for image in images]:
                answer = await client.patch("/me", headers=provider.bearer(), json=body)
                assert (answer.status_code, answer.json()["code"]) == (422, "invalid_body"), body
                assert [answer.json()["field"]] == list(body)

    async def test_a_person_is_told_what_would_be(self, serve: Serve, provider: Provider) -> None:
        async with serve(app_owned_fields="name,image") as client:
            for body, said in (
                ({"name": " "}, "1 to 255 characters, at least one of them visible"),
                ({"name": "n" * 256}, "1 to 255 characters"),
                ({"image": "x"}, "null, empty, or an http:// or https:// address"),
            ):
                detail = (await client.patch("/me", headers=provider.bearer(), json=body)).json()["detail"]
                assert said in detail
                assert "\\" not in detail

    async def test_an_empty_image_is_none(self, serve: Serve, provider: Provider) -> None:
        async with serve(app_owned_fields="name,image") as client:
            first = await client.patch("/me", headers=provider.bearer(), json={"image": ""})
            assert (first.status_code, first.json()["user"]["image"]) == (200, None)
            again = await client.patch("/me", headers=provider.bearer(), json={"image": ""})
            assert again.json() == first.json()

    async def test_the_other_fields_stay_the_provider_s(self, serve: Serve, provider: Provider) -> None:
        async with serve(app_owned_fields="name") as client:
            answer = await client.patch("/me", headers=provider.bearer(), json={"image": None})
        assert (answer.status_code, answer.json()["field"]) == (422, "image")


@pytest.mark.anyio
class TestWhatWasRead:
    """A client that reads the user, and sends back what it read, changes nothing and is refused nothing."""

    OWN = ("name", "image", "onboardingCompletedAt")

    async def read(self, client: httpx.AsyncClient, headers: dict[str, str]) -> dict[str, Any]:
        user: dict[str, Any] = (await client.get("/me", headers=headers)).json()["user"]
        return user

    @pytest.mark.parametrize(
        "claims", [{"name": None}, {"name": "n" * 300}, {"picture": "/avatars/1.png"}, {"picture": "data:,"},
                   {"picture": "https://x.example/a b.png"}, {"picture": None}],
    )  # fmt: skip
    async def test_is_taken_back_whatever_the_provider_said(
        self, serve: Serve, provider: Provider, claims: dict[str, Any]
    ) -> None:
        async with serve(app_owned_fields="name,image") as client:
            headers = provider.bearer(**claims)
            before = await self.read(client, headers)
            answer = await client.patch("/me", headers=headers, json={name: before[name] for name in self.OWN})
            assert (answer.status_code, answer.json()) == (200, {"user": before})

    async def test_goes_with_a_change_of_something_else(self, serve: Serve, provider: Provider) -> None:
        async with serve(app_owned_fields="name,image") as client:
            headers = provider.bearer(name=None, picture="/avatars/1.png")
            before = await self.read(client, headers)
            changed = {"name": "", "image": "https://cdn.example/a.png"}
            answer = await client.patch("/me", headers=headers, json=changed)
            assert answer.status_code == 200
            after = answer.json()["user"]
            assert after == before | changed | {"updatedAt": after["updatedAt"]}
            back = await client.patch("/me", headers=headers, json={"image": before["image"]})
            assert (back.status_code, back.json()["field"]) == (422, "image")

    @pytest.mark.parametrize("moment", ["infinity", "2026-03-04 10:00:00.123456+00"])
    async def test_is_taken_back_of_a_time_that_is_shown_in_milliseconds(
        self, serve: Serve, provider: Provider, database_url: str, moment: str
    ) -> None:
        async with serve() as client:
            await self.read(client, provider.bearer())
            engine = create_engine(database_url)
            async with engine.begin() as connection:
                await connection.exec_driver_sql(f"UPDATE users SET onboarding_completed_at = '{moment}'")
            before = await self.read(client, provider.bearer())
            body = {"onboardingCompletedAt": before["onboardingCompletedAt"]}
            answer = await client.patch("/me", headers=provider.bearer(), json=body)
            assert (answer.status_code, answer.json()) == (200, {"user": before})
            async with engine.connect() as connection:
                asked = f"SELECT onboarding_completed_at = '{moment}' FROM users"
                assert (await connection.exec_driver_sql(asked)).scalar_one()
            await engine.dispose()

    async def test_is_refused_where_it_is_the_provider_s(self, serve: Serve, provider: Provider) -> None:
        async with serve(app_owned_fields="name") as client:
            before = await self.read(client, provider.bearer())
            answer = await client.patch("/me", headers=provider.bearer(), json={"image": before["image"]})
        assert (answer.status_code, answer.json()["code"]) == (422, "identity_field")


@pytest.mark.anyio
class TestRemove:
    async def test_a_deleted_user_is_refused_from_then_on(self, client: httpx.AsyncClient, provider: Provider) -> None:
        answer = await client.delete("/me", headers=provider.bearer())
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        for method in ("GET", "DELETE", "PATCH"):
            body = {"json": {}} if method == "PATCH" else {}
            again = await client.request(method, "/me", headers=provider.bearer(email="new@example.com"), **body)
            assert (again.status_code, again.json()["code"]) == (403, "account_deleted")
            assert again.json()["error"] == again.json()["title"]

    async def test_another_user_is_not(self, client: httpx.AsyncClient, provider: Provider) -> None:
        await client.delete("/me", headers=provider.bearer())
        assert (await client.get("/me", headers=provider.bearer("bob"))).status_code == 200

    @pytest.mark.parametrize("claims", [{"apiKeyId": "k1"}, {"scope": "api_key_exchange"}, {"client_id": "ada"}])
    async def test_a_machine_deletes_nobody(
        self, client: httpx.AsyncClient, provider: Provider, claims: dict[str, str]
    ) -> None:
        before = await client.get("/me", headers=provider.bearer())
        answer = await client.delete("/me", headers=provider.bearer(**claims))
        assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")
        assert "machine" in answer.json()["detail"]
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        assert (await client.get("/me", headers=provider.bearer())).json() == before.json()

    async def test_but_it_may_change_what_the_app_owns(self, client: httpx.AsyncClient, provider: Provider) -> None:
        await client.get("/me", headers=provider.bearer())
        body = {"onboardingCompletedAt": "2026-03-04T10:00:00.000Z"}
        answer = await client.patch("/me", headers=provider.bearer(apiKeyId="k1"), json=body)
        assert (answer.status_code, answer.json()["user"]["onboardingCompletedAt"]) == (200, *body.values())

    async def test_a_machine_without_a_row_has_none_to_delete(
        self, client: httpx.AsyncClient, provider: Provider
    ) -> None:
        answer = await client.delete("/me", headers=provider.bearer("svc", client_id="svc"))
        assert (answer.status_code, answer.json()["code"]) == (403, "no_profile")

    async def test_a_machine_with_a_row_of_its_own_keeps_it(self, serve: Serve, provider: Provider) -> None:
        async with serve(provision_machine_tokens=True) as client:
            headers = provider.bearer("svc", client_id="svc")
            assert (await client.delete("/me", headers=headers)).json()["code"] == "insufficient_scope"
            assert (await client.get("/me", headers=headers)).status_code == 200


@pytest.mark.anyio
class TestAllow:
    """What a path can be asked, as OPTIONS and a 405 say it."""

    async def told(self, client: httpx.AsyncClient, verb: str, path: str) -> tuple[int, str]:
        answer = await client.request(verb, path)
        return answer.status_code, answer.headers["allow"]

    async def test_names_every_method(self, client: httpx.AsyncClient) -> None:
        for path, methods in (
            ("/me", "DELETE, GET, HEAD, OPTIONS, PATCH"),
            ("/livez", "GET, HEAD, OPTIONS"),
            ("/schema/openapi.json", "GET, HEAD, OPTIONS"),
        ):
            assert await self.told(client, "OPTIONS", path) == (204, methods)
            assert await self.told(client, "PUT", path) == (405, methods)

    async def test_of_a_path_with_parameters_names_its_own(self, serve: Serve) -> None:
        @get("/notes/{number:int}")
        async def read(number: FromPath[int]) -> int:
            return number

        @post("/notes/{number:int}")
        async def write(number: FromPath[int]) -> int:
            return number

        @put("/notes")
        async def add() -> None: ...

        async with serve(read, write, add) as client:
            assert await self.told(client, "OPTIONS", "/notes/7") == (204, "GET, HEAD, OPTIONS, POST")
            assert await self.told(client, "OPTIONS", "/notes") == (204, "OPTIONS, PUT")
            assert (await client.options("/nowhere")).status_code == 404


@pytest.mark.anyio
class TestHead:
    async def test_is_get_without_the_body(self, client: httpx.AsyncClient, provider: Provider) -> None:
        await client.get("/me", headers=provider.bearer())
        for path in ("/me", "/livez", "/readyz", "/metrics", "/schema", "/schema/openapi.json", "/schema/nope"):
            get, head = [await client.request(verb, path, headers=provider.bearer()) for verb in ("GET", "HEAD")]
            assert head.status_code == get.status_code
            assert head.content == b""
            if path != "/metrics":  # which has counted one more by then
                assert head.headers == get.headers

    async def test_asks_for_a_token_where_get_does(self, client: httpx.AsyncClient) -> None:
        answer = await client.head("/me")
        assert (answer.status_code, answer.content) == (401, b"")
        assert answer.headers["www-authenticate"].startswith("Bearer ")

    async def test_is_not_allowed_where_there_is_no_get(self, serve: Serve, provider: Provider) -> None:
        @post("/notes")
        async def write() -> None: ...

        async with serve(write) as client:
            assert (await client.head("/notes", headers=provider.bearer())).status_code == 405

    async def test_of_a_route_of_one_s_own_is_left_to_it(self, serve: Serve, provider: Provider) -> None:
        @head("/notes")
        async def look() -> None: ...

        @get("/notes")
        async def read() -> str:
            raise AssertionError

        async with serve(look, read) as client:
            assert (await client.head("/notes", headers=provider.bearer())).status_code == 200


class TalkingProvider(Provider):
    """A provider with a userinfo endpoint, which tells the users' addresses and remembers who asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.emails: dict[str, str] = {}

    def client(self) -> httpx.AsyncClient:
        def serve(request: httpx.Request) -> httpx.Response:
            if request.url.path == "/jwks":
                return httpx.Response(200, json=self.key_set())
            token = request.headers["authorization"].removeprefix("Bearer ")
            sub = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["sub"]
            self.asked.append(sub)
            if sub not in self.emails:
                raise httpx.ConnectError("no route", request=request)
            return httpx.Response(200, json={"sub": sub, "email": self.emails[sub], "email_verified": True})

        return httpx.AsyncClient(transport=httpx.MockTransport(serve))


@pytest.mark.anyio
class TestATokenWithoutAnAddress:
    URL = f"{ISSUER}/userinfo"

    @pytest.fixture
    def provider(self) -> TalkingProvider:
        return TalkingProvider()

    async def test_gets_it_from_userinfo_once(self, serve: Serve, provider: TalkingProvider) -> None:
        provider.emails["ada"] = "ada@example.com"
        async with serve(idp_userinfo_url=self.URL) as client:
            for _ in range(3):
                user = (await client.get("/me", headers=provider.bearer(email=None))).json()["user"]
                assert (user["email"], user["emailVerified"]) == ("ada@example.com", True)
            told = (await client.get("/metrics")).text
        assert provider.asked == ["ada"]
        assert 'shadow_userinfo_total{outcome="found"} 1.0' in told

    async def test_first_requests_that_come_together_ask_once(self, serve: Serve, provider: TalkingProvider) -> None:
        provider.emails["ada"] = "ada@example.com"
        async with serve(idp_userinfo_url=self.URL) as client:
            headers = provider.bearer(email=None)
            answers = await asyncio.gather(*(client.get("/me", headers=headers) for _ in range(50)))
        assert {answer.json()["user"]["email"] for answer in answers} == {"ada@example.com"}
        assert provider.asked == ["ada"]

    async def test_is_served_where_userinfo_cannot_be_had(self, serve: Serve, provider: TalkingProvider) -> None:
        async with serve(idp_userinfo_url=self.URL) as client:
            answer = await client.get("/me", headers=provider.bearer(email=None))
            assert (answer.status_code, answer.json()["user"]["email"]) == (200, None)
            assert (await client.get("/me", headers=provider.bearer(email=None))).status_code == 200
        assert provider.asked == ["ada"]

    async def test_asks_for_nobody_else(self, serve: Serve, provider: TalkingProvider) -> None:
        async with serve(idp_userinfo_url=self.URL, provision_machine_tokens=True) as client:
            await client.get("/me", headers=provider.bearer("bob"))
            await client.get("/me", headers=provider.bearer("bob", email=None))
            await client.get("/me", headers=provider.bearer("svc", client_id="svc", email=None))
        assert provider.asked == []

    async def test_takes_the_address_from_an_older_assertion(self, serve: Serve, provider: TalkingProvider) -> None:
        provider.emails["new"] = "it@example.com"
        async with serve(idp_userinfo_url=self.URL) as client:
            old = provider.bearer("old", email="it@example.com", iat=int(time.time()) - 100)
            await client.get("/me", headers=old)
            new = (await client.get("/me", headers=provider.bearer("new", email=None))).json()["user"]
            assert (await client.get("/me", headers=old)).json()["user"]["email"] is None
            told = (await client.get("/metrics")).text
        assert new["email"] == "it@example.com"
        assert 'shadow_rows_total{change="conflict"} 1.0' in told
