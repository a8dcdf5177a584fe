"""Dual mode beside Better Auth itself: what it takes for somebody's session the server takes too, and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from app.cutover.catalog import literal
from tests.api.provider import AUDIENCE, ISSUER, Provider
from tests.cutover.commands import migrate, shadow
from tests.cutover.witness import Witness
from tests.interop.conftest import people
from tests.interop.layouts import LAYOUTS, Layout
from tests.interop.oldapp import OldApp, missing
from tests.postgres import Server
from tests.serving import running

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

SECRET = "test-only-secret-0123456789abcdef0123456789abcdef"
"""Of `tests/betterauth/layouts.mjs`."""
COOKIE = "__Secure-better-auth.session_token"
SESSIONS = {
    "plural_snake": ("sessions", "token", "expires_at"),
    "drizzle_plural": ("sessions", "token", "expires_at"),
    "renamed_schema": ("identity.logins", "secret_token", "valid_until"),
}
"""Table and columns of sessions, where they are not Better Auth's own."""
Headers = dict[str, str]
_numbers = itertools.count(1)


@dataclass(frozen=True)
class SignedIn:
    """What a browser, and a client without cookies, has after it signed in."""

    id: str
    token: str
    cookie: str
    """As it is sent: encoded, and signed."""
    bearer: str
    """Of the header `set-auth-token`, in the form that this version of Better Auth gives it."""

    def ways(self) -> dict[str, Headers]:
        """Return every way in which it can be presented."""
        return {
            "cookie": {"Cookie": f"{COOKIE}={self.cookie}"},
            "signed": {"Authorization": f"Bearer {self.bearer}"},
            "plain": {"Authorization": f"Bearer {self.token}"},
        }


@dataclass(frozen=True)
class Dual:
    """Better Auth and the server in dual mode on one database, after adopt."""

    layout: Layout
    witness: Witness
    old: OldApp
    client: httpx.Client
    provider: Provider
    serve: Callable[[str], AbstractContextManager[httpx.Client]]
    """Starts another server, in another AUTH_MODE."""
    before: SignedIn
    """Who signed in before adopt."""

    def in_the_old_app(self, headers: Headers) -> str | None:
        """Return whose session Better Auth takes it for."""
        answer = self.old("http", path="/get-session", headers=headers)
        assert answer["status"] == 200
        return str(answer["body"]["user"]["id"]) if answer["body"] else None

    def here(self, headers: Headers, client: httpx.Client | None = None) -> str | None:
        """Return whose session the server takes it for; what it does not is 401."""
        answer = (client or self.client).get("/me", headers=headers)
        if answer.status_code == 200:
            return str(answer.json()["user"]["id"])
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token"), answer.text
        return None

    def sessions(self, change: str, token: str) -> None:
        """Run SQL on the row of a session: `{table}`, `{expires_at}`."""
        table, column, expires_at = SESSIONS.get(self.layout.name, ("session", "token", '"expiresAt"'))
        statement = change.format(table=table, expires_at=expires_at)
        self.witness.run(f"{statement} WHERE {column} = {literal(token)}")


def sign_in(old: OldApp, email: str, password: str) -> SignedIn:
    """Sign in over HTTP; each time from another address, for there are limits."""
    address = {"x-forwarded-for": f"192.0.2.{next(_numbers) % 250 + 1}"}
    answer = old("http", path="/sign-in/email", headers=address, body={"email": email, "password": password})
    assert answer["status"] == 200, answer
    (cookie,) = (each for each in answer["cookies"] if each.startswith(f"{COOKIE}="))
    value = cookie.partition(";")[0].partition("=")[2]
    return SignedIn(answer["body"]["user"]["id"], answer["body"]["token"], value, answer["token"])


def sign_up(dual: Dual) -> SignedIn:
    """Sign somebody up, and in."""
    new = {"email": f"dual.{next(_numbers)}@example.com", "password": "Correct-Horse-Battery-1", "name": "Zoë"}
    dual.old("sign-up", **new)
    return sign_in(dual.old, new["email"], new["password"])


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.name)
def dual(
    request: pytest.FixtureRequest, server: Server, provider: Provider, jwks_url: str, tmp_path_factory: Any
) -> Iterator[Dual]:
    layout: Layout = request.param
    url = server.make_database(layout.fixture)
    witness = Witness(server, url)
    # a time that is read or compared in the zone of nobody's choice is nine hours off
    witness.run(f"ALTER DATABASE {witness.name} SET timezone = 'Asia/Tokyo'")
    witness.run(layout.altered)

    @contextmanager
    def serve(mode: str) -> Iterator[httpx.Client]:
        settings = {
            "DATABASE_URL": url,
            "IDP_ISSUER": ISSUER,
            "IDP_AUDIENCE": AUDIENCE,
            "IDP_JWKS_URL": jwks_url,
            "BETTER_AUTH_SECRET": SECRET,
            "AUTH_MODE": mode,
        }
        with (
            running(tmp_path_factory.mktemp("server"), **settings) as address,
            httpx.Client(base_url=address, timeout=30) as client,
        ):
            yield client

    with OldApp(layout.name, url, layout.program) as old:
        person = people(layout)[0]
        before = sign_in(old, person["email"], person["password"])
        adopted = migrate(url, "adopt")
        assert adopted.code == 0, adopted.text
        with serve("dual") as client:
            yield Dual(layout, witness, old, client, provider, serve, before)
    server.drop_database(url)


class TestASession:
    def test_from_before_adopt_goes_on(self, dual: Dual) -> None:
        for headers in dual.before.ways().values():
            assert dual.here(headers) == dual.before.id == people(dual.layout)[0]["id"]

    def test_of_who_signs_up_now_counts_at_once(self, dual: Dual) -> None:
        new = sign_up(dual)
        for headers in new.ways().values():
            assert dual.here(headers) == dual.in_the_old_app(headers) == new.id

    def test_shows_the_row_as_a_token_of_the_provider_does(self, dual: Dual) -> None:
        new = sign_up(dual)
        silent = dual.provider.bearer(new.id, email=None, email_verified=None, name=None, picture=None)
        seen = [dual.client.get("/me", headers=headers).json() for headers in (new.ways()["cookie"], silent)]
        assert seen[0] == seen[1]
        assert seen[0]["user"]["name"] == "Zoë"

    def test_is_not_extended_here(self, dual: Dual) -> None:
        new = sign_up(dual)
        dual.sessions("UPDATE {table} SET {expires_at} = now() at time zone 'UTC' + interval '90 s'", new.token)
        table = SESSIONS.get(dual.layout.name, ("session",))[0]
        before = dual.witness.ask(f"SELECT * FROM {table}")
        for headers in new.ways().values():
            dual.here(headers)
        assert dual.witness.ask(f"SELECT * FROM {table}") == before

    def test_that_has_expired_counts_nowhere(self, dual: Dual) -> None:
        new = sign_up(dual)
        dual.sessions("UPDATE {table} SET {expires_at} = now() at time zone 'UTC' - interval '10 h'", new.token)
        for headers in new.ways().values():
            assert dual.here(headers) is None
            assert dual.in_the_old_app(headers) is None

    def test_that_was_signed_out_counts_nowhere(self, dual: Dual) -> None:
        new = sign_up(dual)
        assert dual.here(new.ways()["cookie"]) == new.id
        out = dual.old("http", path="/sign-out", headers=new.ways()["cookie"], body={})
        assert out["status"] == 200
        for headers in new.ways().values():
            assert dual.here(headers) is None
            assert dual.in_the_old_app(headers) is None

    def test_that_is_forged_counts_nowhere(self, dual: Dual) -> None:
        mine, other = sign_up(dual), sign_up(dual)
        token, _, signature = mine.cookie.partition(".")
        flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
        for value in (
            f"{token}.{flipped}",
            f"{token}.{other.cookie.partition('.')[2]}",
            f"{other.token}.{signature}",
            f"{token}.",
            token[:-1] + "." + signature,
            "x." + signature,
        ):
            for headers in ({"Cookie": f"{COOKIE}={value}"}, {"Authorization": f"Bearer {value}"}):
                assert dual.here(headers) is None, value
                assert dual.in_the_old_app(headers) is None, value
        assert dual.here({"Authorization": f"Bearer {token[:-1]}"}) is None

    def test_changes_something_only_from_this_site(self, dual: Dual) -> None:
        new = sign_up(dual)
        done = {"onboardingCompletedAt": "2026-03-04T10:00:00.000Z"}
        cookie = new.ways()["cookie"]
        for origin in ({}, {"Origin": "https://evil.example"}):
            refused = dual.client.patch("/me", headers=cookie | origin, json=done)
            assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
        here = {"Origin": str(dual.client.base_url).rstrip("/")}
        patched = dual.client.patch("/me", headers=cookie | here, json=done)
        assert patched.json()["user"]["onboardingCompletedAt"] == "2026-03-04T10:00:00.000Z"
        assert dual.client.delete("/me", headers=cookie | here).json() == {"success": True}
        assert dual.client.get("/me", headers=cookie).json()["code"] == "account_deleted"


class TestAMode:
    def test_is_switched_by_a_restart_and_nothing_else(self, dual: Dual) -> None:
        jwt = dual.provider.bearer(dual.before.id, email=None, name=None, picture=None)
        sessions = list(dual.before.ways().values())
        honoured = {"legacy": (True, False), "dual": (True, True), "idp": (False, True)}
        for mode in ("dual", "idp", "legacy", "dual"):
            with dual.serve(mode) as client:
                of_sessions, of_tokens = honoured[mode]
                assert dual.here(jwt, client) == (dual.before.id if of_tokens else None)
                for headers in sessions:
                    answer = client.get("/me", headers=headers)
                    assert answer.status_code == (200 if of_sessions else 401)

    def test_dual_ends_with_retire_and_comes_back_with_undo(self, dual: Dual) -> None:
        jwt = dual.provider.bearer(dual.before.id, email=None, name=None, picture=None)
        retired = migrate(dual.witness.url, "retire")
        assert retired.code == 0, retired.text
        for headers in dual.before.ways().values():
            assert dual.here(headers) is None
        assert dual.here(jwt) == dual.before.id
        with pytest.raises(AssertionError, match="AUTH_MODE: dual needs the old sessions, and 0002_retire"):
            dual.serve("dual").__enter__()
        with dual.serve("idp") as client:
            assert dual.here(jwt, client) == dual.before.id
        undone = shadow(dual.witness.url, "undo", "--yes")
        assert undone.code == 0, undone.text
        for headers in dual.before.ways().values():
            assert dual.here(headers) == dual.in_the_old_app(headers) == dual.before.id
