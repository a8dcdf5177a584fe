"""The server behind real identity providers: their tokens, their keys over HTTP, and their outages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.interop.conftest import Serve
from tests.interop.providers import (
    Person,
    Provider,
    authorize,
    browsing,
    discover,
    missing,
    signed_up,
    token_of_a_machine,
    unverified,
)
from tests.postgres import Server

if reason := missing():
    pytest.skip(reason, allow_module_level=True)

EVERYTHING = "openid profile email"
Users = Callable[[], list[str]]
PATIENCE = 20.0
"""Seconds; the cooldown between two look-ups of unknown keys is ten."""


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def me(client: httpx.Client, token: str) -> dict[str, Any]:
    """Return the user that GET /me answers."""
    answer = client.get("/me", headers=bearer(token))
    assert answer.status_code == 200, answer.text
    user: dict[str, Any] = answer.json()["user"]
    return user


def refusal(client: httpx.Client, token: str) -> tuple[int, str]:
    """Return status and code of what GET /me answers."""
    answer = client.get("/me", headers=bearer(token))
    return answer.status_code, answer.json()["code"]


def detail(client: httpx.Client, token: str) -> str:
    """Return why a token is refused."""
    answer = client.get("/me", headers=bearer(token))
    assert answer.status_code == 401, answer.text
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    said: str = answer.json()["detail"]
    return said


def wait_for_the_next_second() -> None:
    """Tokens are dated in whole seconds: of two in one second neither is newer."""
    time.sleep(1.05 - time.time() % 1)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "provider.log"


@pytest.fixture
def users(server: Server, database_url: str) -> Users:
    """Ask for the ids of all rows."""
    return lambda: server.psql(database_url, "SELECT id FROM users ORDER BY id").split()


def of_the_jwt_plugin(provider: Provider) -> dict[str, str]:
    """Return the settings for Better Auth's jwt plugin, which has no discovery document."""
    return {
        "IDP_ISSUER": provider.issuer,
        "IDP_AUDIENCE": provider.issuer,
        "IDP_JWKS_URL": f"{provider.issuer}/api/auth/jwks",
    }


class TestBetterAuthsJwtPlugin:
    @pytest.mark.parametrize("alg", ["EdDSA", "ES256", "RS256", "PS256"])
    def test_whoever_signs_up_there_is_a_user_here(self, alg: str, serve: Serve, log: Path, users: Users) -> None:
        configured = () if alg == "EdDSA" else (alg,)  # it is the plugin's own default
        with (
            Provider("betterauth_jwt.mjs", *configured, log=log) as provider,
            signed_up(provider, "Ada") as ada,
            signed_up(provider, "Grace") as grace,
            serve(**of_the_jwt_plugin(provider)) as client,
        ):
            token = ada.jwt()
            header = unverified(token, 0)
            assert (set(header), header["alg"]) == ({"alg", "kid"}, alg)
            user = me(client, token)
            assert {name: user[name] for name in ("id", "name", "email", "emailVerified", "image")} == {
                "id": ada.id, "name": "Ada", "email": ada.email, "emailVerified": False, "image": None,
            }  # fmt: skip
            assert me(client, grace.jwt())["email"] == grace.email
            assert me(client, token) == user
            assert users() == sorted([ada.id, grace.id])

    def test_an_algorithm_counts_if_it_is_named(self, serve: Serve, log: Path) -> None:
        with Provider("betterauth_jwt.mjs", "ES512", log=log) as provider, signed_up(provider, "Ada") as ada:
            token = ada.jwt()
            with serve(**of_the_jwt_plugin(provider)) as client:
                assert detail(client, token) == "The algorithm of the token is not accepted."
            with serve(**of_the_jwt_plugin(provider), IDP_ALGORITHMS="ES512") as client:
                assert me(client, token)["id"] == ada.id

    def test_what_changes_there_comes_with_the_next_token(self, serve: Serve, log: Path) -> None:
        with (
            Provider("betterauth_jwt.mjs", log=log) as provider,
            signed_up(provider, "Ada") as ada,
            serve(**of_the_jwt_plugin(provider)) as client,
        ):
            before = ada.jwt()
            assert me(client, before)["name"] == "Ada"
            wait_for_the_next_second()
            ada.rename("Ada Lovelace", "https://example.com/ada.png")
            user = me(client, ada.jwt())
            assert (user["name"], user["image"]) == ("Ada Lovelace", "https://example.com/ada.png")
            assert me(client, before) == user

    def test_another_providers_token_is_refused(self, serve: Serve, log: Path) -> None:
        with (
            Provider("betterauth_jwt.mjs", log=log) as provider,
            Provider("betterauth_jwt.mjs", log=log) as other,
            signed_up(other, "Eve") as eve,
            serve(**of_the_jwt_plugin(provider)) as client,
        ):
            assert refusal(client, eve.jwt()) == (401, "invalid_token")
            assert other.issuer not in detail(client, eve.jwt())


class TestKeysThatChange:
    def test_a_new_key_is_good_at_once_and_a_removed_one_no_more_after_the_next_fetch(
        self, serve: Serve, log: Path
    ) -> None:
        with (
            Provider("betterauth_jwt.mjs", log=log) as provider,
            signed_up(provider, "Ada") as ada,
            serve(**of_the_jwt_plugin(provider)) as client,
        ):
            first = ada.jwt()
            me(client, first)
            provider.ask("expire")
            second = ada.jwt()
            assert unverified(second, 0)["kid"] != unverified(first, 0)["kid"]
            me(client, second)
            me(client, first)

            assert provider.ask("retire")["keys"] == 1
            me(client, first)  # nothing has made the server fetch the keys again
            provider.ask("expire")
            third = ada.jwt()
            refused = accepted_after_refusals(client, third)
            assert set(refused) <= {(401, "invalid_token")}
            assert detail(client, first) == "The token names a key that the identity provider does not have."
            me(client, second)


def accepted_after_refusals(client: httpx.Client, token: str) -> list[tuple[int, str]]:
    """Ask until a token is accepted, and return how it was refused until then."""
    refused = []
    deadline = time.monotonic() + PATIENCE
    while (answer := client.get("/me", headers=bearer(token))).status_code != 200:
        refused.append((answer.status_code, answer.json()["code"]))
        assert time.monotonic() < deadline, answer.text
        time.sleep(float(answer.headers.get("retry-after", "0.5")))
    return refused


class TestClientsOfTheOldBackend:
    """They call GET, PATCH and DELETE /api/me, read `user`, `success` and `error`, and edit name and image."""

    @pytest.fixture
    def ada(self, log: Path) -> Iterator[Person]:
        with Provider("betterauth_jwt.mjs", log=log) as provider, signed_up(provider, "Ada") as ada:
            yield ada

    @pytest.fixture
    def client(self, ada: Person, serve: Serve) -> Iterator[httpx.Client]:
        own = {"PATH_PREFIX": "/api", "APP_OWNED_FIELDS": "name,image"}
        with serve(**of_the_jwt_plugin(ada.provider), **own) as client:
            client.headers.update(bearer(ada.jwt()))
            yield client

    def test_get_answers_the_user(self, client: httpx.Client, ada: Person) -> None:
        user = client.get("/api/me").json()["user"]
        assert (user["id"], user["name"], user["email"]) == (ada.id, "Ada", ada.email)

    def test_patch_changes_what_it_names_and_answers_the_user(self, client: httpx.Client, ada: Person) -> None:
        user = client.get("/api/me").json()["user"]
        for edit in (
            {"name": "Countess", "image": "https://example.com/countess.png"},
            {"onboardingCompletedAt": "2026-03-04T10:00:00.000Z"},
            {"image": None},
        ):
            user |= edit
            answered = client.patch("/api/me", json=edit).json()["user"]
            assert {**answered, "updatedAt": user["updatedAt"]} == user
        wait_for_the_next_second()
        ada.rename("Ada Lovelace", "https://example.com/ada.png")
        client.headers.update(bearer(ada.jwt()))
        kept = client.get("/api/me").json()["user"]
        assert (kept["name"], kept["image"]) == ("Countess", None)

    def test_delete_is_a_success_and_the_end(self, client: httpx.Client, ada: Person, users: Users) -> None:
        client.get("/api/me")
        answer = client.delete("/api/me")
        assert (answer.status_code, answer.json()) == (200, {"success": True})
        client.headers.update(bearer(ada.jwt()))
        for method in ("GET", "PATCH", "DELETE"):
            answer = client.request(method, "/api/me", json={} if method == "PATCH" else None)
            assert (answer.status_code, answer.json()["code"]) == (403, "account_deleted")
            assert answer.json()["error"]
        assert users() == [ada.id]

    def test_who_is_not_signed_in_reads_an_error(self, client: httpx.Client) -> None:
        del client.headers["authorization"]
        answer = client.get("/api/me")
        assert answer.status_code == 401
        assert answer.json()["error"]


class TestBetterAuthsOAuthProviderPlugin:
    @pytest.fixture
    def provider(self, log: Path) -> Iterator[Provider]:
        with Provider("oauth_provider.mjs", log=log) as provider:
            yield provider

    @pytest.fixture
    def settings(self, provider: Provider) -> dict[str, str]:
        """The keys are found by discovery."""
        return {"IDP_ISSUER": provider.issuer, "IDP_AUDIENCE": provider.facts["api"]}

    def test_a_token_for_this_api_says_who_and_nothing_else(
        self, provider: Provider, settings: dict[str, str], serve: Serve
    ) -> None:
        with signed_up(provider, "Ada") as ada, serve(**settings, REQUIRED_TYP="at+jwt") as client:
            token = authorize(provider, ada.browser, provider.facts["api"], scope=EVERYTHING)["access_token"]
            assert unverified(token, 0)["typ"] == "at+jwt"
            assert unverified(token)["aud"] == [provider.facts["api"], f"{provider.issuer}/oauth2/userinfo"]
            user = me(client, token)
            assert (user["id"], user["name"], user["email"]) == (ada.id, "", None)

    def test_the_rest_is_read_from_userinfo(self, provider: Provider, settings: dict[str, str], serve: Serve) -> None:
        userinfo = discover(provider)["userinfo_endpoint"]
        with signed_up(provider, "Ada") as ada, serve(**settings, IDP_USERINFO_URL=userinfo) as client:
            token = authorize(provider, ada.browser, provider.facts["api"], scope=EVERYTHING)["access_token"]
            user = me(client, token)
            assert (user["id"], user["name"], user["email"]) == (ada.id, "Ada", ada.email)
            assert user["emailVerified"] is False
            # With `openid` alone userinfo tells no address, and what was known stays.
            wait_for_the_next_second()
            assert me(client, authorize(provider, ada.browser, provider.facts["api"])["access_token"]) == user

    def test_nobody_waits_for_a_userinfo_that_is_gone(
        self, provider: Provider, settings: dict[str, str], serve: Serve
    ) -> None:
        userinfo, api = discover(provider)["userinfo_endpoint"], provider.facts["api"]
        with (
            signed_up(provider, "Ada") as ada,
            signed_up(provider, "Grace") as grace,
            serve(**settings, IDP_USERINFO_URL=userinfo) as client,
        ):
            later = authorize(provider, ada.browser, api, scope=EVERYTHING)["access_token"]
            known = me(client, authorize(provider, grace.browser, api, scope=EVERYTHING)["access_token"])
            provider.close()
            began = time.monotonic()
            user = me(client, later)
            assert time.monotonic() - began < 5
            assert (user["id"], user["email"]) == (ada.id, None)
            assert known["email"] == grace.email

    def test_an_id_token_is_refused_even_if_the_client_is_an_audience(
        self, provider: Provider, settings: dict[str, str], serve: Serve
    ) -> None:
        lax = settings | {"IDP_AUDIENCE": f"{provider.facts['api']},{provider.facts['client']}"}
        with signed_up(provider, "Ada") as ada, serve(**lax) as client:
            tokens = authorize(provider, ada.browser, provider.facts["api"], scope=EVERYTHING)
            assert detail(client, tokens["id_token"]) == "The token is an id_token, not an access token."

    def test_a_token_without_a_resource_is_opaque_and_refused_as_that(
        self, provider: Provider, settings: dict[str, str], serve: Serve, users: Users
    ) -> None:
        with signed_up(provider, "Ada") as ada, serve(**settings) as client:
            token = authorize(provider, ada.browser, None, scope=EVERYTHING)["access_token"]
            assert detail(client, token) == "The token is not a JWT: opaque tokens cannot be verified here."
            assert users() == []

    def test_a_machine_is_no_user(
        self, provider: Provider, settings: dict[str, str], serve: Serve, users: Users
    ) -> None:
        with serve(**settings) as client:
            assert refusal(client, token_of_a_machine(provider, provider.facts["api"])) == (403, "no_profile")
            assert users() == []


class TestOidcProvider:
    @pytest.fixture
    def provider(self, log: Path, tmp_path: Path) -> Iterator[Provider]:
        with Provider("oidc_provider.mjs", str(tmp_path / "keys.json"), log=log) as provider:
            yield provider

    @pytest.fixture
    def settings(self, provider: Provider) -> dict[str, str]:
        """The keys are found by discovery."""
        return {"IDP_ISSUER": provider.issuer, "IDP_AUDIENCE": ",".join(provider.facts["apis"].values())}

    @pytest.mark.parametrize("alg", ["RS256", "ES256"])
    def test_whoever_signs_in_there_is_a_user_here(
        self, alg: str, provider: Provider, settings: dict[str, str], serve: Serve, users: Users
    ) -> None:
        with browsing(provider) as browser, serve(**settings, REQUIRED_TYP="at+jwt") as client:
            api = provider.facts["apis"][alg]
            token = authorize(provider, browser, api, login="ada", scope=f"{EVERYTHING} invoices:read")["access_token"]
            assert unverified(token, 0) | {"kid": ""} == {"alg": alg, "typ": "at+jwt", "kid": ""}
            user = me(client, token)
            said = ("ada of oidc-provider", "ada@people.example.com", True, "https://people.example.com/ada.png")
            expected = said if alg == "ES256" else ("", None, False, None)  # see the head of oidc_provider.mjs
            assert (user["name"], user["email"], user["emailVerified"], user["image"]) == expected
            assert users() == ["ada"]

    def test_a_userinfo_that_takes_no_token_for_an_api_harms_nobody(
        self, provider: Provider, settings: dict[str, str], serve: Serve
    ) -> None:
        userinfo = discover(provider)["userinfo_endpoint"]
        with browsing(provider) as browser, serve(**settings, IDP_USERINFO_URL=userinfo) as client:
            api = provider.facts["apis"]["RS256"]
            token = authorize(provider, browser, api, login="ada", scope=EVERYTHING)["access_token"]
            assert httpx.get(userinfo, headers=bearer(token)).status_code == 401
            user = me(client, token)
            assert (user["id"], user["email"]) == ("ada", None)

    def test_an_id_token_is_meant_for_somebody_else(
        self, provider: Provider, settings: dict[str, str], serve: Serve, users: Users
    ) -> None:
        with browsing(provider) as browser, serve(**settings) as client:
            api = provider.facts["apis"]["RS256"]
            tokens = authorize(provider, browser, api, login="ada", scope=EVERYTHING)
            assert detail(client, tokens["id_token"]) == "The token is meant for another audience."
            assert users() == []

    def test_a_required_type_refuses_it_also_where_the_client_is_an_audience(
        self, provider: Provider, settings: dict[str, str], serve: Serve
    ) -> None:
        lax = settings | {"IDP_AUDIENCE": f"{settings['IDP_AUDIENCE']},{provider.facts['client']}"}
        with browsing(provider) as browser, serve(**lax, REQUIRED_TYP="at+jwt") as client:
            api = provider.facts["apis"]["RS256"]
            tokens = authorize(provider, browser, api, login="ada", scope=EVERYTHING)
            # Nothing in it says that it is one: no nonce was sent, and it has no at_hash.
            assert unverified(tokens["id_token"]).keys() == {
                "sub", "email", "email_verified", "name", "picture", "aud", "exp", "iat", "iss",
            }  # fmt: skip
            assert detail(client, tokens["id_token"]) == "The typ of the token is not the required one."
            me(client, tokens["access_token"])

    def test_a_scope_that_is_required_is_asked_of_every_token(
        self, provider: Provider, settings: dict[str, str], serve: Serve
    ) -> None:
        with browsing(provider) as browser, serve(**settings, REQUIRED_SCOPE="invoices:read") as client:
            api = provider.facts["apis"]["RS256"]
            without = authorize(provider, browser, api, login="ada")["access_token"]
            assert refusal(client, without) == (403, "insufficient_scope")
            me(client, authorize(provider, browser, api, login="ada", scope="openid invoices:read")["access_token"])

    def test_a_machine_is_no_user(
        self, provider: Provider, settings: dict[str, str], serve: Serve, users: Users
    ) -> None:
        with serve(**settings) as client:
            token = token_of_a_machine(provider, provider.facts["apis"]["RS256"])
            assert refusal(client, token) == (403, "no_profile")
            assert users() == []


class TestSwitchedOffAndOnAgain:
    def test_known_keys_go_on_and_a_server_that_has_none_cannot_tell(
        self, serve: Serve, log: Path, tmp_path: Path, users: Users
    ) -> None:
        keys = str(tmp_path / "keys.json")
        with Provider("oidc_provider.mjs", keys, log=log) as provider:
            ada, grace = token_for(provider, "ada"), token_for(provider, "grace")
            settings = {"IDP_ISSUER": provider.issuer, "IDP_AUDIENCE": provider.facts["apis"]["RS256"]}
            with serve(**settings) as client:
                assert me(client, ada)["id"] == "ada"
                provider.close()
                assert me(client, ada)["id"] == "ada"
                assert me(client, grace)["id"] == "grace"
                assert client.get("/readyz").status_code == 200
        with serve(**settings) as client:
            answer = client.get("/me", headers=bearer(ada))
            assert (answer.status_code, answer.json()["code"]) == (503, "keys_unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert "www-authenticate" not in answer.headers
            assert client.get("/readyz").status_code == 503
            with Provider("oidc_provider.mjs", keys, log=log, port=provider.port):
                assert set(accepted_after_refusals(client, ada)) <= {(503, "keys_unavailable")}
                assert client.get("/readyz").status_code == 200
        assert users() == ["ada", "grace"]

    def test_a_key_that_nobody_can_look_up_is_not_called_unknown(self, serve: Serve, log: Path, tmp_path: Path) -> None:
        old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")
        with Provider("oidc_provider.mjs", old, log=log) as provider:
            ada = token_for(provider, "ada")
            settings = {"IDP_ISSUER": provider.issuer, "IDP_AUDIENCE": provider.facts["apis"]["RS256"]}
            with serve(**settings) as client:
                me(client, ada)
                provider.close()
                with Provider("oidc_provider.mjs", new, log=log, port=provider.port) as restarted:
                    later = token_for(restarted, "ada")
                assert refusal(client, later) == (503, "keys_unavailable")
                me(client, ada)
                with Provider("oidc_provider.mjs", new, log=log, port=provider.port):
                    assert set(accepted_after_refusals(client, later)) <= {(503, "keys_unavailable")}
                    assert detail(client, ada) == "The token names a key that the identity provider does not have."


def token_for(provider: Provider, login: str) -> str:
    """Return an access token of oidc-provider for its first API."""
    with browsing(provider) as browser:
        token: str = authorize(provider, browser, provider.facts["apis"]["RS256"], login=login)["access_token"]
        return token
