"""Whatever a token is made of, `verify` returns Claims or raises InvalidToken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidToken
from app.idp.claims import Claims
from tests.idp.issuer import AUDIENCE, ISSUER, NOW, encode, mint, payload
from tests.idp.verifiers import make_verifier

pytestmark = pytest.mark.anyio

GOOD = mint()
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from([ISSUER, AUDIENCE, int(NOW), NOW + 900, "ES256", "p256", "at+jwt"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
header_names = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "zip", "x"])
claim_names = st.sampled_from(
    ["iss", "sub", "aud", "exp", "nbf", "iat", "nonce", "scope", "typ", "events", "email", "x"]
)


async def outcome(token: str) -> Claims | None:
    """Return Claims, or None for a token that is refused; whatever else happens fails the test."""
    try:
        return await make_verifier().verify(token)
    except InvalidToken:
        return None


class TestWhateverComes:
    @given(st.text(st.characters(), max_size=200))
    async def test_any_text_is_refused(self, token: str) -> None:
        assert await outcome(token) is None

    @given(st.binary(max_size=200))
    async def test_any_header_octets_are_refused(self, octets: bytes) -> None:
        assert await outcome(octets.decode("latin-1")) is None

    @given(st.lists(st.binary(max_size=60), min_size=3, max_size=3))
    async def test_any_three_parts_are_refused(self, parts: list[bytes]) -> None:
        assert await outcome(".".join(map(encode, parts))) is None

    @given(st.lists(st.sampled_from([HEADER, PAYLOAD, SIGNATURE, "", "AA"]), max_size=6).map(".".join))
    async def test_parts_in_another_order_are_refused(self, token: str) -> None:
        assert (await outcome(token) is not None) is (token == GOOD)

    @given(st.data())
    async def test_a_good_token_with_characters_changed_is_refused(self, data: st.DataObject) -> None:
        characters = list(GOOD)
        for _ in range(data.draw(st.integers(1, 3))):
            characters[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.characters())
        token = "".join(characters)
        assert (await outcome(token) is not None) is (token == GOOD)

    @given(json_values)
    async def test_any_json_as_header_is_refused(self, header: Any) -> None:
        assert await outcome(mint(header=json.dumps(header).encode())) is None

    @given(st.dictionaries(header_names, json_values))
    async def test_any_change_to_the_header_is_read_or_refused(self, header: dict[str, Any]) -> None:
        claims = await outcome(mint(header=header))
        assert claims is None or claims.sub == "user-1"

    @given(json_values)
    async def test_any_json_as_payload_is_refused(self, claims: Any) -> None:
        assert await outcome(mint(json.dumps(claims).encode())) is None

    @settings(max_examples=200)
    @given(st.dictionaries(claim_names, json_values))
    async def test_any_change_to_the_claims_is_read_or_refused(self, changes: dict[str, Any]) -> None:
        claims = await outcome(mint(payload(**changes)))
        assert claims is None or (claims.iss == ISSUER and AUDIENCE in claims.aud and claims.exp > NOW - 30)
