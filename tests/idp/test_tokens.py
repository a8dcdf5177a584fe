"""From a token to Claims: what is good, what is remembered, and who is told what."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from app.errors import InsufficientScope, InvalidToken, KeysUnavailable
from app.idp.claims import ClaimRules, Claims
from app.idp.jwks import VerificationKey
from app.idp.tokens import MAX_TOKEN, TokenVerifier
from tests.idp.good_tokens import GOOD, PLAIN
from tests.idp.issuer import (
    ALGORITHMS,
    AUDIENCE,
    ISSUER,
    NOW,
    Clock,
    Provider,
    key_set,
    mint,
    payload,
    private_key,
    public_jwk,
    settle,
)
from tests.idp.verifiers import make_keys, make_verifier

pytestmark = pytest.mark.anyio

MARK = 'SESAME"\r\nSet-Cookie: x=y'


class TestGoodTokens:
    @pytest.mark.parametrize(("token", "expected"), GOOD.values(), ids=GOOD)
    async def test_it_says_what_it_says(self, token: str, expected: Claims) -> None:
        verifier = make_verifier()
        assert await verifier.verify(token) == expected
        assert await verifier.verify(token) == expected

    async def test_the_largest_that_is_taken(self) -> None:
        verifier = make_verifier()
        size = MAX_TOKEN - len(mint(payload(pad="")))
        token = mint(payload(pad="x" * (size * 3 // 4)))
        assert MAX_TOKEN - 4 <= len(token) <= MAX_TOKEN
        assert await verifier.verify(token) == PLAIN
        with pytest.raises(InvalidToken, match="larger than 16384"):
            await verifier.verify(mint(payload(pad="x" * (size * 3 // 4 + 4))))

    async def test_the_longest_kid_that_is_taken(self) -> None:
        kid = "k" * 255
        verifier = make_verifier(Provider(key_set(public_jwk("p256", kid=kid))))
        assert await verifier.verify(mint(header={"kid": kid})) == PLAIN


class TestAlgorithms:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    async def test_one_that_is_not_listed_is_refused(self, algorithm: str) -> None:
        others = tuple(name for name in ALGORITHMS if name != algorithm)
        with pytest.raises(InvalidToken, match="algorithm"):
            await make_verifier(algorithms=others).verify(mint(algorithm=algorithm))

    @pytest.mark.parametrize("algorithms", ["RS256", [], ["HS256"], ["none"], ["RS256", "HS512"]])
    async def test_symmetric_ones_and_none_cannot_be_listed(self, algorithms: Any) -> None:
        rules = ClaimRules(issuers=[ISSUER], audiences=[AUDIENCE])
        with pytest.raises(ValueError, match="algorithms must be"):
            TokenVerifier(keys=make_keys(Provider(), Clock()), rules=rules, algorithms=algorithms)

    async def test_a_key_that_names_its_algorithm_is_for_no_other(self) -> None:
        verifier = make_verifier(Provider(key_set(public_jwk("rsa", alg="PS256"))))
        assert await verifier.verify(mint(algorithm="PS256")) == PLAIN
        with pytest.raises(InvalidToken, match="for another algorithm"):
            await verifier.verify(mint(algorithm="RS256"))


class TestWhoMustAct:
    async def test_a_provider_that_is_down_is_not_the_clients_fault(self) -> None:
        provider = Provider(httpx.Response(500))
        with pytest.raises(KeysUnavailable) as caught:
            await make_verifier(provider).verify(mint())
        assert caught.value.retry_after == 1

    async def test_what_is_no_token_is_refused_without_asking_the_provider(self) -> None:
        provider = Provider(httpx.Response(500))
        verifier = make_verifier(provider)
        for token in (
            "opaque",
            mint(algorithm="RS256", header={"alg": "HS256"}),
            mint(b"[]"),
            mint(header={"kid": ...}),
        ):
            with pytest.raises(InvalidToken):
                await verifier.verify(token)
        assert provider.asked == []

    async def test_a_missing_scope_is_known_and_not_allowed(self) -> None:
        verifier = make_verifier(required_scope=["api"])
        for _ in range(2):
            with pytest.raises(InsufficientScope):
                await verifier.verify(mint())
        assert (await verifier.verify(mint(payload(scope="api")))).scopes == {"api"}

    @pytest.mark.parametrize(
        ("token", "message"),
        [
            ("k7dXq2mFJ0aZr9sVtLw3YbNcHgUeRpQi", "The token is not a JWT: opaque tokens cannot be verified here."),
            ("a.b.c.d.e", "The token is encrypted (JWE): only signed ones can be verified here."),
            ("a.b", "The token is not a JWT: it has not three parts."),
            ("a..c", "A part of the token is empty."),
            ("é.b.c", "The token is not a JWT: it is not ASCII."),
            ("!.b.c", "The header of the token is not base64url."),
            (mint(b"{"), "The payload of the token is not valid JSON."),
            (mint(header={"crit": ["exp"]}), "The header of the token has a crit member, which is not accepted."),
            (mint(header={"typ": "logout+jwt"}), "The typ of the token is not that of an access token."),
            (mint(header={"alg": "none"}), "The algorithm of the token is not accepted."),
            (mint(header={"kid": ""}), "The token does not name its key by a kid of 1 to 255 characters."),
            (mint(header={"kid": "x"}), "The token names a key that the identity provider does not have."),
            (mint(key=private_key("other-p256")), "The signature of the token is not valid."),
            (mint(payload(exp=1)), "The token has expired."),
        ],
    )
    async def test_the_message_says_which_rule(self, token: str, message: str) -> None:
        with pytest.raises(InvalidToken) as caught:
            await make_verifier().verify(token)
        assert caught.value.message == message

    @pytest.mark.parametrize(
        "token",
        [
            *(mint(header={name: MARK}) for name in ("alg", "kid", "typ", "crit")),
            *(mint(payload(**{name: MARK})) for name in ("iss", "aud", "exp", "nbf", "iat")),
            mint(payload(sub=MARK * 20)),
            MARK,
            MARK + mint(),
        ],
    )
    async def test_the_message_repeats_nothing_of_the_token(self, token: str) -> None:
        with pytest.raises(InvalidToken) as caught:
            await make_verifier().verify(token)
        assert "SESAME" not in caught.value.message
        assert re.fullmatch(r"[ !#-\[\]-~]+", caught.value.message)  # RFC 6750 section 3: error_description


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kids of the keys that verified a signature, in order."""
    kids: list[str] = []
    verify = VerificationKey.verify

    def count(key: VerificationKey, algorithm: str, message: bytes, signature: bytes) -> bool:
        kids.append(key.kid)
        return verify(key, algorithm, message, signature)

    monkeypatch.setattr(VerificationKey, "verify", count)
    return kids


class TestRemembering:
    async def test_a_token_costs_one_signature(self, verified: list[str]) -> None:
        verifier = make_verifier()
        token = mint()
        first = await verifier.verify(token)
        assert await verifier.verify("".join(token)) is first
        assert verified == ["p256"]

    async def test_what_is_remembered_is_bounded(self, verified: list[str]) -> None:
        verifier = make_verifier(cache_size=2)
        tokens = [mint(payload(sub=f"user-{number}")) for number in range(3)]
        for token in (*tokens, tokens[2], tokens[1], tokens[0]):
            await verifier.verify(token)
        assert len(verified) == 4

    async def test_nothing_may_be_remembered(self, verified: list[str]) -> None:
        verifier = make_verifier(cache_size=0)
        token = mint()
        assert await verifier.verify(token) == await verifier.verify(token)
        assert len(verified) == 2

    async def test_a_bad_token_is_not_remembered(self, verified: list[str]) -> None:
        verifier = make_verifier()
        token = mint(key=private_key("other-p256"))
        for _ in range(2):
            with pytest.raises(InvalidToken, match="signature"):
                await verifier.verify(token)
        assert len(verified) == 2

    async def test_times_are_checked_at_every_use(self) -> None:
        clock = Clock()
        verifier = make_verifier(clock=clock)
        token = mint(payload(nbf=int(NOW)))
        await verifier.verify(token)
        clock.now = NOW + 929
        await verifier.verify(token)
        clock.now = NOW + 930
        with pytest.raises(InvalidToken, match="expired"):
            await verifier.verify(token)
        clock.now = NOW - 31
        with pytest.raises(InvalidToken, match="not valid yet"):
            await verifier.verify(token)

    async def test_a_withdrawn_key_is_dead_for_remembered_tokens_too(self) -> None:
        clock, provider = Clock(), Provider(key_set("p256", "ed"))
        verifier = make_verifier(provider, clock)
        token, other = mint(), mint(algorithm="EdDSA")
        assert await verifier.verify(token) == await verifier.verify(other) == PLAIN
        provider.answer = key_set("ed")
        clock.advance(301)
        assert await verifier.verify(other) == PLAIN  # still from memory, and starts the refresh
        await settle()
        assert await verifier.verify(other) == PLAIN
        with pytest.raises(InvalidToken, match="does not have"):
            await verifier.verify(token)

    async def test_another_key_under_the_same_kid_is_another_key(self) -> None:
        clock, provider = Clock(), Provider(key_set("p256"))
        verifier = make_verifier(provider, clock)
        token = mint()
        await verifier.verify(token)
        provider.answer = key_set(public_jwk("other-p256", kid="p256"))
        clock.advance(301)
        await verifier.verify(token)
        await settle()
        with pytest.raises(InvalidToken, match="signature"):
            await verifier.verify(token)
        assert await verifier.verify(mint(key=private_key("other-p256"))) == PLAIN

    async def test_an_unchanged_key_keeps_what_is_remembered(self, verified: list[str]) -> None:
        clock = Clock()
        verifier = make_verifier(Provider(), clock)
        token = mint()
        for _ in range(3):
            await verifier.verify(token)
            clock.advance(301 if clock.now == NOW else 0)
            await settle()
        assert verified == ["p256"]

    async def test_an_outage_of_a_day_is_the_end_for_remembered_tokens_too(self) -> None:
        clock, provider = Clock(), Provider()
        verifier = make_verifier(provider, clock)
        token = mint(payload(exp=int(NOW) + 200_000))
        await verifier.verify(token)
        provider.answer = httpx.Response(500)
        clock.advance(86_399)
        assert (await verifier.verify(token)).sub == "user-1"
        await settle()
        clock.advance(10)
        with pytest.raises(KeysUnavailable):
            await verifier.verify(token)

    async def test_a_ban_that_runs_out_is_not_remembered(self) -> None:
        clock = Clock()
        verifier = make_verifier(clock=clock)
        token = mint(payload(banned=True, banExpires=NOW + 60))
        assert (await verifier.verify(token)).disabled
        clock.advance(60)
        assert not (await verifier.verify(token)).disabled


class TestRotation:
    async def test_a_new_key_signs_at_once(self) -> None:
        provider = Provider(key_set("p256"))
        verifier = make_verifier(provider)
        await verifier.verify(mint())
        provider.answer = key_set("p256", "ed")
        tokens = [mint(payload(sub=f"user-{number}"), algorithm="EdDSA") for number in range(50)]
        found = await asyncio.gather(*(verifier.verify(token) for token in tokens))
        assert {claims.sub for claims in found} == {f"user-{number}" for number in range(50)}
        assert len(provider.asked) == 2

    async def test_an_unknown_key_during_an_outage_cannot_be_told(self) -> None:
        provider = Provider(key_set("p256"))
        verifier = make_verifier(provider)
        await verifier.verify(mint())
        provider.answer = httpx.Response(500)
        with pytest.raises(KeysUnavailable):
            await verifier.verify(mint(algorithm="EdDSA"))
        assert await verifier.verify(mint()) == PLAIN
