"""Whatever comes, the answer is InvalidToken or Claims: never a crash, never the operator's fault, never a pass."""

from __future__ import annotations

import re

import pytest

from app.errors import InvalidToken
from tests.idp.good_tokens import GOOD
from tests.idp.hostile_tokens import corpus, provider_keys
from tests.idp.issuer import ALGORITHMS, Clock, Provider, mint
from tests.idp.verifiers import make_verifier

pytestmark = pytest.mark.anyio

HOSTILE = corpus()
DESCRIPTION = re.compile(r"[ !#-\[\]-~]{1,120}")
"""What RFC 6750 section 3 allows in an `error_description`."""


class TestHostileTokens:
    def test_there_are_more_than_a_few(self) -> None:
        assert len({token for token, _ in HOSTILE.values()}) > 300

    @pytest.mark.parametrize(("token", "reason"), HOSTILE.values(), ids=HOSTILE)
    async def test_it_is_refused_for_what_is_wrong_with_it(self, token: str, reason: str) -> None:
        verifier = make_verifier(Provider(provider_keys()))
        for _ in range(2):
            with pytest.raises(InvalidToken, match=reason) as caught:
                await verifier.verify(token)
            assert DESCRIPTION.fullmatch(caught.value.message)

    async def test_none_of_them_spoils_the_verifier_for_good_tokens(self) -> None:
        provider, clock = Provider(provider_keys()), Clock()
        verifier = make_verifier(provider, clock)
        for token, _ in GOOD.values():
            await verifier.verify(token)
        for token, _ in HOSTILE.values():
            with pytest.raises(InvalidToken):
                await verifier.verify(token)
        for token, claims in GOOD.values():
            assert await verifier.verify(token) == claims
        assert len(provider.asked) == 2  # the first load, and one look-up for all the unknown kids

    async def test_with_id_tokens_accepted_the_rest_stays_refused(self) -> None:
        accepted = set()
        for name, (token, _) in HOSTILE.items():
            try:
                await make_verifier(Provider(provider_keys()), accept_id_tokens=True).verify(token)
            except InvalidToken:
                continue
            accepted.add(name)
        assert accepted == {
            "typ 'ID'",
            "token_use 'id'",
            "nonce 'n-0S6_WzA2Mj'",
            "nonce None",
            "at_hash 'MTIzNDU2Nzg5MDEyMzQ1Ng'",
            "c_hash 'MTIzNDU2Nzg5MDEyMzQ1Ng'",
            "an id_token by its acr and auth_time",
            "an id_token of OpenID Connect",
            "an id_token of Cognito",
            "an id_token that Keycloak would have named ID",
            "an id_token that says it is an access token",
        }


class TestOneChangedCharacter:
    @pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256", "PS256"])
    async def test_of_a_good_token_makes_a_bad_one(self, algorithm: str) -> None:
        verifier = make_verifier()
        token = mint(algorithm=algorithm)
        await verifier.verify(token)
        for position, character in enumerate(token):
            for other in {"A", "B", "_", ".", "=", chr(ord(character) ^ 1)} - {character}:
                with pytest.raises(InvalidToken):
                    await verifier.verify(token[:position] + other + token[position + 1 :])

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    async def test_any_other_last_character_makes_a_bad_one(self, algorithm: str) -> None:
        verifier = make_verifier()
        token = mint(algorithm=algorithm)
        await verifier.verify(token)
        for other in set(map(chr, range(128))) - {token[-1]}:
            with pytest.raises(InvalidToken):
                await verifier.verify(token[:-1] + other)

    async def test_taken_out_or_put_in_makes_a_bad_one(self) -> None:
        verifier = make_verifier()
        token = mint()
        await verifier.verify(token)
        for position in range(len(token)):
            for changed in (token[:position] + token[position + 1 :], token[:position] + "A" + token[position:]):
                if changed != token:
                    with pytest.raises(InvalidToken):
                        await verifier.verify(changed)
