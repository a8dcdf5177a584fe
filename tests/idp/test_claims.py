"""What decides is read strictly; what is mirrored never refuses a token."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InsufficientScope, InvalidToken
from app.idp.claims import ClaimRules, Claims, read_disabled, read_token_type
from tests.idp.issuer import AUDIENCE, ISSUER, NOW, payload
from tests.shown import shown

RULES = ClaimRules(issuers=[ISSUER], audiences=[AUDIENCE])


def read(*, rules: ClaimRules = RULES, header_typ: str | None = None, **changes: Any) -> Claims:
    return rules.read(payload(**changes), typ=header_typ, now=NOW)


class TestRules:
    @pytest.mark.parametrize(
        "changes",
        [
            {"issuers": []},
            {"issuers": [""]},
            {"issuers": ISSUER},
            {"issuers": None},
            {"audiences": ()},
            {"audiences": ["api", ""]},
            {"audiences": AUDIENCE},
            {"audiences": [7]},
            {"leeway": -1},
            {"leeway": float("nan")},
            {"leeway": float("inf")},
            {"leeway": True},
            {"required_typ": "id_token+jwt"},
            {"required_typ": ""},
            {"required_scope": "read write"},
            {"required_scope": [""]},
        ],
        ids=shown,
    )
    def test_rules_that_demand_nothing_or_the_impossible_are_refused(self, changes: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="must"):
            ClaimRules(**{"issuers": [ISSUER], "audiences": [AUDIENCE], **changes})

    def test_a_plain_token(self) -> None:
        assert read() == Claims(iss=ISSUER, sub="user-1", aud=(AUDIENCE,), exp=NOW + 900, iat=NOW)


class TestPicture:
    def test_null_means_none_where_the_token_holds_the_whole_row_and_silence_elsewhere(self) -> None:
        assert read(emailVerified=True, image=None).without_image
        assert not read(emailVerified=True, image="https://x.example/a.png").without_image
        assert not read(emailVerified=True).without_image
        assert not read(picture=None, email_verified=True).without_image


class TestIssuerAndAudience:
    @pytest.mark.parametrize(
        "iss", [..., None, "", ISSUER + "/", ISSUER.upper(), "https://idp.example.evil.example", [ISSUER], 7, {}]
    )
    def test_another_issuer(self, iss: object) -> None:
        with pytest.raises(InvalidToken, match="issuer"):
            read(iss=iss)

    def test_any_of_several_issuers(self) -> None:
        rules = ClaimRules(issuers=[ISSUER, "https://old.example"], audiences=[AUDIENCE])
        assert read(rules=rules, iss="https://old.example").iss == "https://old.example"

    @pytest.mark.parametrize(
        "aud",
        ["", AUDIENCE[:-1], AUDIENCE + "/", AUDIENCE.upper(), f" {AUDIENCE}", f"{AUDIENCE} x", ["x", AUDIENCE[1:]]],
    )
    def test_another_audience(self, aud: object) -> None:
        with pytest.raises(InvalidToken, match="another audience"):
            read(aud=aud)

    @pytest.mark.parametrize("aud", [..., None, [], 7, True, {AUDIENCE: 1}, [AUDIENCE, 7], [[AUDIENCE]], [None]])
    def test_no_audience(self, aud: object) -> None:
        with pytest.raises(InvalidToken, match="whom it is meant for"):
            read(aud=aud)

    def test_one_of_a_list(self) -> None:
        assert read(aud=["https://userinfo.example", AUDIENCE]).aud == ("https://userinfo.example", AUDIENCE)


class TestSubject:
    @pytest.mark.parametrize("sub", [..., None, "", 7, True, ["user-1"], {}, "u" * 256, "a\0b", "\0"])
    def test_what_is_no_subject(self, sub: object) -> None:
        with pytest.raises(InvalidToken, match="subject"):
            read(sub=sub)

    @pytest.mark.parametrize("sub", ["u" * 255, "я" * 255, " ", "auth0|5f7c", 'O\'Hara "x"', "0"])
    def test_it_is_kept_verbatim(self, sub: str) -> None:
        assert read(sub=sub).sub == sub


class TestTimes:
    @pytest.mark.parametrize("exp", [NOW - 29.5, NOW, NOW + 1, int(NOW) + 900, NOW + 0.5, 9_999_999_999])
    def test_it_lives_until_its_end_and_the_leeway(self, exp: float) -> None:
        assert read(exp=exp).exp == exp

    @pytest.mark.parametrize("exp", [NOW - 30, NOW - 31, 0, 1, 0.5])
    def test_it_has_expired(self, exp: float) -> None:
        with pytest.raises(InvalidToken, match="expired"):
            read(exp=exp)

    def test_without_leeway_it_ends_at_the_very_second(self) -> None:
        strict = ClaimRules(issuers=[ISSUER], audiences=[AUDIENCE], leeway=0)
        assert read(rules=strict, exp=NOW + 0.001).exp == NOW + 0.001
        with pytest.raises(InvalidToken, match="expired"):
            read(rules=strict, exp=NOW)

    @pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
    @pytest.mark.parametrize("value", [None, "", str(int(NOW)), " 9_999_999_999 ", "٩٩٩٩٩٩٩٩٩٩", True, [NOW], {}])
    def test_what_is_no_number(self, name: str, value: Any) -> None:
        with pytest.raises(InvalidToken, match=f"{name} claim is not a number"):
            read(**{name: value})

    @pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
    @pytest.mark.parametrize("value", [-1, -1e300, 1e30, 10**400, -(10**400), float("inf"), float("nan"), 1e16])
    def test_what_is_no_date(self, name: str, value: Any) -> None:
        with pytest.raises(InvalidToken, match=f"{name} claim is not a date"):
            read(**{name: value})

    @pytest.mark.parametrize("exp", [10_000_000_000, int(NOW) * 1_000, int(NOW) * 1_000_000])
    def test_milliseconds_make_no_token_immortal(self, exp: int) -> None:
        with pytest.raises(InvalidToken, match="exp claim is not a date in seconds"):
            read(exp=exp)

    def test_exp_is_required_and_the_others_are_not(self) -> None:
        with pytest.raises(InvalidToken, match="when it expires"):
            read(exp=...)
        claims = read(iat=..., nbf=...)
        assert (claims.iat, claims.nbf) == (None, None)

    def test_nbf(self) -> None:
        assert read(nbf=NOW + 30).nbf == NOW + 30
        with pytest.raises(InvalidToken, match="not valid yet"):
            read(nbf=NOW + 30.5)

    def test_iat_in_seconds_or_milliseconds(self) -> None:
        assert read(iat=NOW + 30).iat == NOW + 30
        assert read(iat=int(NOW) * 1_000 + 250).iat == NOW + 0.25
        for future in (NOW + 31, (NOW + 31) * 1_000, 50_000_000_000 / 10):
            with pytest.raises(InvalidToken, match="future"):
                read(iat=future)

    def test_they_are_checked_again_at_another_time(self) -> None:
        claims = read(nbf=NOW)
        RULES.check_times(claims, NOW + 929)
        with pytest.raises(InvalidToken, match="expired"):
            RULES.check_times(claims, NOW + 930)
        with pytest.raises(InvalidToken, match="not valid yet"):
            RULES.check_times(claims, NOW - 31)


class TestPurpose:
    @pytest.mark.parametrize(
        "changes",
        [
            {"nonce": "n"},
            {"at_hash": "h"},
            {"c_hash": "h"},
            {"nonce": None},
            {"acr": "1", "auth_time": 1},
            {"acr": "1", "auth_time": 1, "scope": ""},
            {"typ": "ID"},
            {"token_use": "id"},
            {"token_use": "id", "typ": "Bearer"},
            {"typ": "Bearer", "at_hash": "h"},
            {"typ": "Bearer", "c_hash": "h"},
            {"token_use": "bearer", "nonce": "n"},
        ],
        ids=shown,
    )
    def test_an_id_token_is_taken_only_where_settings_say_so(self, changes: dict[str, Any]) -> None:
        with pytest.raises(InvalidToken, match="id_token"):
            read(**changes)
        lenient = ClaimRules(issuers=[ISSUER], audiences=[AUDIENCE], accept_id_tokens=True)
        assert read(rules=lenient, **changes).sub == "user-1"

    @pytest.mark.parametrize("purpose", ["Refresh", "Offline", "Logout", "refresh"])
    def test_other_tokens_never_are(self, purpose: str) -> None:
        lenient = ClaimRules(issuers=[ISSUER], audiences=[AUDIENCE], accept_id_tokens=True)
        with pytest.raises(InvalidToken, match="not an access token"):
            read(rules=lenient, typ=purpose)
        with pytest.raises(InvalidToken, match="not an access token"):
            read(rules=lenient, token_use=purpose)

    @pytest.mark.parametrize("events", [{"http://schemas.openid.net/event/backchannel-logout": {}}, {}, None])
    def test_security_events_never_are(self, events: object) -> None:
        lenient = ClaimRules(issuers=[ISSUER], audiences=[AUDIENCE], accept_id_tokens=True)
        with pytest.raises(InvalidToken, match="not an access token"):
            read(rules=lenient, events=events)

    def test_an_access_token_may_tell_of_the_login(self) -> None:
        assert read(acr="1", auth_time=1, scope="openid").scopes == {"openid"}
        assert read(header_typ="at+jwt", acr="1", auth_time=1).sub == "user-1"
        assert read(typ="Bearer", acr="1").sub == "user-1"
        assert read(typ=7, token_use=["id"]).sub == "user-1"
        assert read(token_use="access").sub == "user-1"

    def test_what_keycloak_names_bearer_may_hold_what_the_login_left_in_it(self) -> None:
        assert read(typ="Bearer", nonce="n", acr="1", auth_time=1, scope="openid").scopes == {"openid"}
        assert read(typ="Bearer", acr="1", auth_time=1, scope="").sub == "user-1"

    def test_a_required_type(self) -> None:
        rules = ClaimRules(issuers=[ISSUER], audiences=[AUDIENCE], required_typ="application/AT+JWT")
        assert read(rules=rules, header_typ="at+jwt").sub == "user-1"
        for typ in (None, "jwt"):
            with pytest.raises(InvalidToken, match="typ"):
                read(rules=rules, header_typ=typ)

    def test_a_required_scope(self) -> None:
        rules = ClaimRules(issuers=[ISSUER], audiences=[AUDIENCE], required_scope=["api", "read"])
        assert read(rules=rules, scope="read api more").scopes == {"read", "api", "more"}
        for scope in (..., "api", "api:read", "read,api"):
            with pytest.raises(InsufficientScope):
                read(rules=rules, scope=scope)


class TestTokenType:
    @pytest.mark.parametrize(
        ("typ", "short"),
        [("JWT", "jwt"), ("jwt", "jwt"), ("at+jwt", "at+jwt"), ("AT+JWT", "at+jwt"), ("application/at+jwt", "at+jwt"),
         ("Application/JWT", "jwt")],
    )  # fmt: skip
    def test_access_tokens(self, typ: str, short: str) -> None:
        assert read_token_type(typ) == short

    @pytest.mark.parametrize(
        "typ", ["", "JOSE", "id_token+jwt", "logout+jwt", "secevent+jwt", "dpop+jwt", "jwt ", "text/jwt",
                "application/application/jwt", None, 7, ["JWT"]],
    )  # fmt: skip
    def test_others(self, typ: object) -> None:
        with pytest.raises(ValueError, match="typ must be"):
            read_token_type(typ)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(ISSUER) | st.just("a@b"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "iss", "sub", "aud", "exp", "nbf", "iat", "typ", "token_use", "nonce", "acr", "auth_time", "events", "scope", "scp",
    "client_id", "azp", "cid", "appid", "oid", "idtyp", "gty", "apiKeyId", "preferred_username", "email",
    "email_verified", "emailVerified", "name", "picture", "image", "profile", "role", "roles", "realm_access",
    "permissions", "abac_required", "banned", "banExpires", "ban_expires", "status", "deactivatedAt",
]  # fmt: skip
DECIDING = {"iss", "sub", "aud", "exp", "nbf", "iat", "typ", "token_use", "nonce", "events", "acr"}


class TestAnything:
    @given(st.dictionaries(st.sampled_from(NAMES), anything))
    def test_any_claims_are_read_or_refused(self, claims: dict[str, Any]) -> None:
        try:
            found = RULES.read(claims, typ=None, now=NOW)
        except InvalidToken:
            return
        assert found.iss == ISSUER

    @given(st.dictionaries(st.sampled_from([name for name in NAMES if name not in DECIDING]), anything))
    def test_what_does_not_decide_never_refuses(self, claims: dict[str, Any]) -> None:
        assert read(**claims).sub == "user-1"

    @given(st.text(alphabet="0123456789-:TZ+. W", max_size=30))
    def test_any_end_of_a_ban_is_read(self, end: str) -> None:
        assert read_disabled({"banned": True, "banExpires": end}, NOW) in (True, False)
