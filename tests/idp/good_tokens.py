"""Tokens that must pass, each with the Claims it makes: every algorithm, and the shapes that providers issue."""

from __future__ import annotations

from typing import Any

from app.idp.claims import Claims
from tests.idp.issuer import ALGORITHMS, AUDIENCE, ISSUER, NOW, mint, payload, public_jwk

PLAIN = Claims(iss=ISSUER, sub="user-1", aud=(AUDIENCE,), exp=NOW + 900, iat=NOW)


def claims(**changes: Any) -> Claims:
    members = {name: getattr(PLAIN, name) for name in Claims.__slots__}
    return Claims(**{**members, **changes})


GOOD: dict[str, tuple[str, Claims]] = {
    **{f"signed with {name}": (mint(algorithm=name), PLAIN) for name in ALGORITHMS},
    "typ JWT": (mint(header={"typ": "JWT"}), PLAIN),
    "typ at+jwt": (mint(header={"typ": "at+jwt"}), PLAIN),
    "typ application/AT+JWT": (mint(header={"typ": "application/AT+JWT"}), PLAIN),
    "a header that brings a key, which is not looked at": (
        mint(header={"jwk": public_jwk("other-p256"), "jku": "https://evil.example/jwks", "x5u": "x", "x5c": []}),
        PLAIN,
    ),
    "aud a list": (
        mint(payload(aud=["https://userinfo.example", AUDIENCE])),
        claims(aud=("https://userinfo.example", AUDIENCE)),
    ),
    "exp with a fraction": (mint(payload(exp=NOW + 0.5)), claims(exp=NOW + 0.5)),
    "exp just over, within the leeway": (mint(payload(exp=int(NOW) - 29)), claims(exp=NOW - 29)),
    "neither iat nor nbf": (mint(payload(iat=...)), claims(iat=None)),
    "nbf now": (mint(payload(nbf=int(NOW))), claims(nbf=NOW)),
    "members with whitespace and escapes": (
        mint(
            b'\n{ "iss" : "https:\\/\\/idp.example", "aud":"https://api.example",'
            b'\t"sub":"\\u0443\\ud83d\\ude00", "exp":18e8 }'
        ),
        claims(sub="у😀", exp=NOW, iat=None),
    ),
    "a documented access token of Auther": (
        mint(
            payload(
                email="ada@x.example", email_verified=True, name="Ada", picture="https://x.example/a.png", sid="s1",
                permissions={
                    "invoice": ["read", "create", "approve"], "invoice:42": ["read", "approve"], "note": ["read"],
                    "report": ["sign"],
                },
                abac_required={"invoice": ["delete", "approve"], "note:7": ["read"], "report": ["sign"]},
            ),
            algorithm="RS256",
        ),
        claims(
            email="ada@x.example", email_verified=True, name="Ada", image="https://x.example/a.png",
            permissions={
                "invoice": frozenset({"read", "create"}), "invoice:42": frozenset({"read"}),
                "note": frozenset({"read"}),
            },
            withheld={
                "invoice": frozenset({"delete", "approve"}), "note:7": frozenset({"read"}),
                "report": frozenset({"sign"}),
            },
        ),
    ),
    "a session JWT of Auther": (
        mint(
            payload(
                id="user-1", name="Ada", email="ada@x.example", emailVerified=False, image="https://x.example/a.png",
                createdAt="2026-01-01T00:00:00.000Z", updatedAt="2026-01-01T00:00:00.000Z", role="admin,editor",
                banned=False, banReason=None, banExpires=None,
            ),
            algorithm="EdDSA",
        ),
        claims(
            email="ada@x.example", email_verified=False, name="Ada", image="https://x.example/a.png",
            roles=frozenset({"admin", "editor"}),
        ),
    ),
    "an id_token of Auther, which has no mark of one, with iat in milliseconds": (
        mint(
            payload(
                iat=int(NOW) * 1_000 + 123, name="Ada", given_name="Ada", family_name="", email="ada@x.example",
                email_verified=True, profile="https://x.example/a.png", updated_at="2026-01-01T00:00:00.000Z",
            ),
            algorithm="EdDSA",
        ),
        claims(
            iat=NOW + 0.123, email="ada@x.example", email_verified=True, name="Ada", image="https://x.example/a.png"
        ),
    ),
    "an API key of Auther": (
        mint(
            payload(scope="api_key_exchange", apiKeyId="key-1", permissions={"invoice": ["read"]}),
            algorithm="RS256", header={"typ": "JWT"},
        ),
        claims(
            kind="machine", scopes=frozenset({"api_key_exchange"}), permissions={"invoice": frozenset({"read"})}
        ),
    ),
    "an access token of RFC 9068": (
        mint(
            payload(jti="j1", client_id="web", scope="openid api", acr="1", auth_time=int(NOW), groups=["g"]),
            header={"typ": "at+jwt"},
        ),
        claims(client_id="web", scopes=frozenset({"openid", "api"})),
    ),
    "client credentials": (
        mint(payload(sub="worker", client_id="worker", azp="worker"), header={"typ": "at+jwt"}),
        claims(sub="worker", kind="machine", client_id="worker"),
    ),
    "an access token of Auth0": (
        mint(
            payload(
                sub="auth0|5f7c", aud=[AUDIENCE, f"{ISSUER}/userinfo"], azp="web", scope="openid read:invoices",
                permissions=["read:invoices"],
            ),
            algorithm="RS256",
        ),
        claims(
            sub="auth0|5f7c", aud=(AUDIENCE, f"{ISSUER}/userinfo"), client_id="web",
            scopes=frozenset({"openid", "read:invoices"}), permissions={"": frozenset({"read:invoices"})},
        ),
    ),
    "an access token of Keycloak": (
        mint(
            payload(
                typ="Bearer", azp="web", acr="1", auth_time=int(NOW), scope="openid email", sid="s1",
                realm_access={"roles": ["offline_access", "admin"]}, resource_access={"web": {"roles": ["x"]}},
                email="ada@x.example", email_verified=True, name="Ada", preferred_username="ada",
            ),
            algorithm="RS256", header={"typ": "JWT"},
        ),
        claims(
            client_id="web", scopes=frozenset({"openid", "email"}), roles=frozenset({"offline_access", "admin"}),
            email="ada@x.example", email_verified=True, name="Ada",
        ),
    ),
    "an access token of Keycloak 24, with the nonce of the login": (
        mint(
            payload(typ="Bearer", azp="web", nonce="n", session_state="s", acr="1", auth_time=int(NOW), scope=""),
            algorithm="RS256", header={"typ": "JWT"},
        ),
        claims(client_id="web"),
    ),
    "an access token of Entra": (
        mint(
            payload(sub="pairwise", oid="o-1", azp="web", azpacr="0", scp="read", name="Ada", tid="t", ver="2.0"),
            algorithm="RS256", header={"typ": "JWT"},
        ),
        claims(sub="pairwise", client_id="web", scopes=frozenset({"read"}), name="Ada"),
    ),
    "an app-only token of Entra, v1": (
        mint(
            payload(sub="o-2", oid="o-2", appid="worker", appidacr="1", roles=["Read.All"], tid="t", ver="1.0"),
            algorithm="RS256", header={"typ": "JWT"},
        ),
        claims(sub="o-2", kind="machine", client_id="worker", roles=frozenset({"Read.All"})),
    ),
    "mirrored members of every wrong type": (
        mint(payload(email=7, email_verified="yes", name=["Ada"], picture={}, roles=7, permissions="x", scope={})),
        PLAIN,
    ),
    "a banned user": (mint(payload(banned=True)), claims(disabled=True)),
}  # fmt: skip
