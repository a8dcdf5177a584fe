"""Every provider's spelling, in one shape."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.idp.claims import (
    ClaimRules,
    Claims,
    read_ban_end,
    read_client_id,
    read_disabled,
    read_email,
    read_email_verified,
    read_image,
    read_name,
    read_permissions,
    read_roles,
    read_scopes,
    read_withheld,
)
from tests.idp.issuer import AUDIENCE, ISSUER, NOW, payload
from tests.shown import shown


def read_claims(**changes: Any) -> Claims:
    rules = ClaimRules(issuers=[ISSUER], audiences=[AUDIENCE])
    return rules.read(payload(**changes), typ=None, now=NOW)


class TestKind:
    @pytest.mark.parametrize(
        "changes",
        [
            {"scope": "api_key_exchange", "apiKeyId": "k1"},
            {"scope": "read api_key_exchange"},
            {"apiKeyId": "k1"},
            {"client_id": "user-1"},
            {"azp": "user-1"},
            {"cid": "user-1"},
            {"client_id": "another", "azp": "user-1"},
            {"gty": "client-credentials"},
            {"gty": "client_credentials"},
            {"sub": "M2M@clients"},
            {"azp": "Worker", "preferred_username": "service-account-worker"},
            {"idtyp": "app", "azp": "worker"},
            {"idtyp": "app", "scp": "read"},
            {"oid": "user-1", "azp": "worker", "roles": ["Read.All"]},
            {"oid": "user-1", "appid": "worker", "appidacr": "1", "roles": ["Read.All"]},
            {"appid": "user-1"},
        ],
        ids=shown,
    )
    def test_machines(self, changes: dict[str, Any]) -> None:
        assert read_claims(**changes).kind == "machine"

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"azp": "web", "client_id": "web", "scope": "openid api"},
            {"gty": "authorization_code"},
            {"gty": ["client-credentials"]},
            {"apiKeyId": None},
            {"sub": "someone@clients.example"},
            {"azp": "web", "preferred_username": "service-account-other"},
            {"preferred_username": "service-account-None"},
            {"idtyp": "user", "oid": "o-1", "azp": "web", "scp": "read"},
            {"oid": "o-1", "appid": "web", "scp": "read"},
            {"oid": "o-1", "appid": "web"},
            {"oid": "user-1", "azp": "web", "scp": "read"},
            {"oid": "user-1"},
        ],
        ids=shown,
    )
    def test_people(self, changes: dict[str, Any]) -> None:
        assert read_claims(**changes).kind == "user"

    def test_the_client(self) -> None:
        assert read_client_id({"azp": "b", "client_id": "a"}) == "a"
        assert read_client_id({"client_id": 7, "azp": "b"}) == "b"
        assert read_client_id({"cid": "c"}) == "c"
        assert read_client_id({"appid": "d"}) == "d"
        assert read_client_id({}) is None


class TestMirrored:
    @pytest.mark.parametrize(
        ("email", "said"),
        [
            ("ada@x.example", "ada@x.example"),
            (" Ada@X.example\n", "Ada@X.example"),
            ("é@ü.example", "é@ü.example"),
            ("a" * 310 + "@x.example", "a" * 310 + "@x.example"),
            ("a" * 311 + "@x.example", None),
            ("no-at-sign", None),
            ("", None),
            ("  ", None),
            ("a\0@x.example", None),
            ("a@x.example\nBcc: b@x.example", None),
            (None, None),
            (7, None),
            (["ada@x.example"], None),
            ({}, None),
        ],
    )
    def test_email(self, email: object, said: str | None) -> None:
        assert read_email({"email": email}) == said
        assert read_claims(email=email).email == said

    @pytest.mark.parametrize(
        ("members", "said"),
        [
            ({"email_verified": True}, True),
            ({"emailVerified": False}, False),
            ({"email_verified": "true"}, True),
            ({"emailVerified": "false"}, False),
            ({"email_verified": False, "emailVerified": True}, False),
            ({"email_verified": None, "emailVerified": True}, True),
            ({"email_verified": 1}, None),
            ({"email_verified": "yes"}, None),
            ({"email_verified": "True"}, None),
            ({"emailVerified": "2026-01-01T00:00:00Z"}, None),
            ({"email_verified": [True]}, None),
            ({}, None),
        ],
        ids=shown,
    )
    def test_email_verified(self, members: dict[str, Any], said: bool | None) -> None:
        assert read_email_verified(members) is said
        assert read_claims(email="ada@x.example", **members).email_verified is said

    def test_without_an_address_nothing_is_verified(self) -> None:
        assert read_claims(email_verified=True).email_verified is None

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("Ada", "Ada"),
            (" Ada\tLovelace\n", " Ada\tLovelace\n"),
            ("A\u0301da", "A\u0301da"),
            ("n" * 1_000, "n" * 1_000),
            ("n" * 1_001, None),
            ("", None),
            (" \n", None),
            ("A\0", None),
            (7, None),
            (None, None),
            (["Ada"], None),
        ],
    )
    def test_name_is_verbatim_or_not_said(self, name: object, said: str | None) -> None:
        assert read_name({"name": name}) == said

    @pytest.mark.parametrize(
        ("members", "said"),
        [
            ({"picture": "https://x.example/p.png"}, "https://x.example/p.png"),
            ({"image": "/i.png"}, "/i.png"),
            ({"picture": "p", "image": "i", "profile": "https://x.example"}, "p"),
            ({"picture": None, "image": "i"}, "i"),
            ({"picture": "", "image": "i"}, "i"),
            ({"profile": "https://x.example/p.png"}, "https://x.example/p.png"),
            ({"profile": "HTTP://x.example/p.png"}, "HTTP://x.example/p.png"),
            ({"picture": None, "profile": "https://x.example/ada"}, None),
            ({"image": 7, "profile": "https://x.example/ada"}, None),
            ({"profile": "ada"}, None),
            ({"profile": "javascript:alert(1)//https://x.example"}, None),
            ({"profile": "https://"}, None),
            ({"profile": "https://x.example/a b"}, None),
            ({"profile": {"url": "https://x.example"}}, None),
            ({"image": "i" * 2_048}, "i" * 2_048),
            ({"image": "i" * 2_049}, None),
            ({"image": "i\0"}, None),
            ({}, None),
        ],
        ids=shown,
    )
    def test_image(self, members: dict[str, Any], said: str | None) -> None:
        assert read_image(members) == said


class TestGrants:
    @pytest.mark.parametrize(
        ("members", "scopes"),
        [
            ({"scope": "openid email"}, {"openid", "email"}),
            ({"scope": "  a   b "}, {"a", "b"}),
            ({"scope": ["a", "b c", 7, None, ""]}, {"a", "b c"}),
            ({"scp": "a b"}, {"a", "b"}),
            ({"scp": ["a", "b"]}, {"a", "b"}),
            ({"scope": "a", "scp": ["b"]}, {"a", "b"}),
            ({"scope": "a,b"}, {"a,b"}),
            ({"scope": 7, "scp": {"a": 1}}, set()),
            ({}, set()),
        ],
        ids=shown,
    )
    def test_scopes(self, members: dict[str, Any], scopes: set[str]) -> None:
        assert read_scopes(members) == scopes

    @pytest.mark.parametrize(
        ("members", "roles"),
        [
            ({"role": "admin"}, {"admin"}),
            ({"role": "admin, editor,,"}, {"admin", "editor"}),
            ({"roles": ["admin", "a,b", 7]}, {"admin", "a,b"}),
            ({"roles": "admin,editor"}, {"admin", "editor"}),
            ({"realm_access": {"roles": ["r1", "r2"]}}, {"r1", "r2"}),
            ({"role": "a", "roles": ["b"], "realm_access": {"roles": ["c"]}}, {"a", "b", "c"}),
            ({"resource_access": {"account": {"roles": ["manage"]}}}, set()),
            ({"role": None, "roles": 7, "realm_access": ["a"]}, set()),
            ({"role": {"name": "admin"}, "realm_access": {"roles": {"a": 1}}}, set()),
            ({}, set()),
        ],
        ids=shown,
    )
    def test_roles(self, members: dict[str, Any], roles: set[str]) -> None:
        assert read_roles(members) == roles

    @pytest.mark.parametrize(
        ("value", "permissions"),
        [
            ({"invoice": ["read", "create"]}, {"invoice": {"read", "create"}}),
            ({"invoice": ["read"], "invoice:42": ["edit"]}, {"invoice": {"read"}, "invoice:42": {"edit"}}),
            ({"a:b": ["read"]}, {"a:b": {"read"}}),
            ({"invoice": "read", "order": ["read", 7, None, ""], "x": [], "y": None}, {"order": {"read"}}),
            (["read:invoices", 7], {"": {"read:invoices"}}),
            ("read:invoices", {}),
            (None, {}),
            (7, {}),
        ],
        ids=shown,
    )  # fmt: skip
    def test_permissions(self, value: object, permissions: dict[str, set[str]]) -> None:
        assert read_permissions({"permissions": value}) == permissions

    @pytest.mark.parametrize(
        ("value", "conditional", "permissions"),
        [
            ({"note": ["read", "edit"]}, {"note": ["read"]}, {"note": {"edit"}}),
            ({"note:7": ["read", "edit"]}, {"note": ["read"]}, {"note:7": {"edit"}}),
            ({"note": ["read"]}, {"note:7": ["read"]}, {"note": {"read"}}),
            ({"note": ["read"], "note:7": ["read"]}, {"note:7": ["read"]}, {"note": {"read"}}),
            ({"note": ["read"]}, {"note": "read"}, {}),
            ({"note": ["read"]}, {"note": " read , edit"}, {}),
            (["read:note", "edit:note"], {"note": ["read"]}, {"": {"edit:note"}}),
            (["read:note:7"], {"note": ["read"]}, {}),
            ({"": ["read:note", "edit:note"]}, {"note": ["read"]}, {"": {"edit:note"}}),
            (["read:note", "sync"], {"": ["sync", "read:note"]}, {}),
            (["read:note"], {"note:7": ["read"]}, {"": {"read:note"}}),
            ({"note": ["read"]}, {"notes": ["read"], "note": ["edit"]}, {"note": {"read"}}),
            ({"note": ["read"]}, {"note": None, "x": 7}, {"note": {"read"}}),
            ({"note": ["read"]}, None, {"note": {"read"}}),
        ],
        ids=shown,
    )
    def test_what_only_the_provider_can_judge_is_not_among_them(
        self, value: object, conditional: object, permissions: dict[str, set[str]]
    ) -> None:
        assert read_permissions({"permissions": value, "abac_required": conditional}) == permissions

    @pytest.mark.parametrize(
        ("conditional", "withheld"),
        [
            ({"note": ["read", "edit"], "note:7": ["sign"]}, {"note": {"read", "edit"}, "note:7": {"sign"}}),
            ({"note": [], "x": None, "y": [7]}, {}),
            ({"note": "read, edit"}, {"note": {"read", "edit"}}),
            (None, {}),
            (7, {}),
        ],
        ids=shown,
    )
    def test_withheld(self, conditional: object, withheld: dict[str, set[str]]) -> None:
        assert read_withheld({"abac_required": conditional}) == withheld
        assert read_claims(abac_required=conditional).withheld == withheld

    def test_permissions_are_read_only_for_they_are_shared(self) -> None:
        found = read_permissions({"permissions": {"invoice": ["read"]}})
        with pytest.raises(TypeError):
            cast("dict[str, frozenset[str]]", found)["invoice"] = frozenset({"delete"})


PAST, FUTURE = NOW - 60, NOW + 60


class TestDisabled:
    @pytest.mark.parametrize(
        "members",
        [
            {"banned": True},
            {"banned": "true"},
            {"banned": True, "banExpires": None},
            {"banned": True, "banExpires": FUTURE},
            {"banned": True, "ban_expires": FUTURE * 1_000},
            {"banned": True, "banExpires": "2027-01-15T08:01:00.000Z"},
            {"banned": True, "banExpires": "2027-01-15T10:01:00+02:00"},
            {"banned": True, "banExpires": "2027-01-15 08:01:00"},
            {"banned": True, "banExpires": "soon"},
            {"banned": True, "banExpires": "1912121211111"},
            {"banned": True, "banExpires": True},
            {"banned": True, "banExpires": -1},
            {"banned": True, "banExpires": 10**400},
            {"banned": True, "banExpires": "9999-12-31T23:59:59-14:00"},
            {"banned": True, "banExpires": "2286-11-20T17:46:40Z"},
            {"banned": True, "banExpires": "0001-01-01T00:00:00Z"},
            {"banned": True, "banExpires": "0001-01-01T00:00:00+14:00"},
            {"banned": True, "banExpires": []},
            {"status": "banned"},
            {"status": "Deactivated"},
            {"status": " disabled "},
            {"status": "suspended"},
            {"deactivatedAt": "2026-01-01T00:00:00Z"},
            {"deactivated_at": 1},
        ],
        ids=shown,
    )
    def test_shut_out(self, members: dict[str, Any]) -> None:
        assert read_disabled(members, NOW) is True
        assert read_claims(**members).disabled is True

    @pytest.mark.parametrize(
        "members",
        [
            {},
            {"banned": False},
            {"banned": None, "banExpires": FUTURE},
            {"banned": "false"},
            {"banned": True, "banExpires": PAST},
            {"banned": True, "ban_expires": PAST * 1_000},
            {"banned": True, "banExpires": "2027-01-15T07:59:00.000Z"},
            {"banned": True, "banExpires": "2027-01-15T08:59:00+01:00"},
            {"status": "active"},
            {"status": 7},
            {"deactivatedAt": None, "deactivated_at": None},
        ],
        ids=shown,
    )
    def test_not_shut_out(self, members: dict[str, Any]) -> None:
        assert read_disabled(members, NOW) is False

    @pytest.mark.parametrize(
        ("end", "seconds"),
        [
            ("2027-01-15T08:01:00.500Z", FUTURE + 0.5),
            (FUTURE * 1_000, FUTURE),
            ("2286-11-20T17:46:39Z", 9_999_999_999),
            ("2286-11-20T17:46:40Z", None),
            ("9999-12-31T23:59:59Z", None),
            ("9999-12-31T23:59:59-14:00", None),
            ("1969-12-31T23:59:59Z", None),
            ("0001-01-01T00:00:00+14:00", None),
            (10_000_000_000, None),
            (9_999_999_999_001, None),
            (-1, None),
            (1e300, None),
            ("soon", None),
        ],
    )  # fmt: skip
    def test_a_ban_ends_at_a_date_that_everybody_can_write_or_not_at_all(
        self, end: object, seconds: float | None
    ) -> None:
        assert read_ban_end({"banned": True, "banExpires": end}) == seconds
        if seconds is not None:
            assert datetime.fromtimestamp(seconds, UTC).year < 2287
