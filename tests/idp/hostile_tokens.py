"""Tokens that must be refused, by name. Each is signed well, unless its signature is where the hostility lies.

The rows follow what JOSE libraries were seen to let through or to crash on, and RFC 8725's list of attacks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.idp.issuer import (
    ALGORITHMS,
    AUDIENCE,
    ISSUER,
    KIDS,
    NOW,
    Json,
    encode,
    mint,
    payload,
    private_key,
    public_jwk,
    sign,
)

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_ORDERS = {
    "ES256": (32, 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
    "ES384": (48, 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973),
}
EXP = int(NOW) + 900


def _text(**changes: object) -> str:
    return json.dumps(payload(**changes))


def _with_signature(token: str, signature: bytes) -> str:
    return f"{token.rpartition('.')[0]}.{encode(signature)}"


def _replace(token: str, part: int, text: str) -> str:
    parts = token.split(".")
    parts[part] = text
    return ".".join(parts)


def _resigned(header: str, claims: str) -> str:
    """Sign two parts as they are spelled, so that only the spelling is at fault."""
    message = f"{header}.{claims}"
    return f"{message}.{encode(sign('ES256', message.encode()))}"


def _non_canonical(text: str) -> str:
    """Change bits of the last character that belong to no octet."""
    assert len(text) % 4 in (2, 3)
    return text[:-1] + _ALPHABET[_ALPHABET.index(text[-1]) + 1]


def _encode_uneven(data: bytes) -> str:
    """Return base64url of JSON, with as many spaces after it as make its last character hold bits of no octet."""
    while len(data) % 3 == 0:
        data += b" "
    return encode(data)


def spellings() -> Iterator[tuple[str, str]]:
    """Yield second spellings of a good token: of its signature, and of the two parts that are signed."""
    head = _encode_uneven(b'{"alg":"ES256","kid":"p256"}')
    body = _encode_uneven(_text(name="???>>>~~~").encode())
    good = _resigned(head, body)
    signature = good.rpartition(".")[2]
    for name, part, text in (("header", 0, head), ("payload", 1, body), ("signature", 2, signature)):
        variants = {
            "with padding": text + "=" * (-len(text) % 4),
            "with too much padding": text + "====",
            "with another last character": _non_canonical(text),
            "with a line feed after it": text + "\n",
            "with a space before it": " " + text,
            "with a line feed inside": text[:8] + "\r\n" + text[8:],
            "with a NUL": text[:8] + "\0" + text[8:],
            "with characters a lenient reader drops": text[:8] + "!!!!" + text[8:],
            "with a percent escape": text[:-1] + f"%{ord(text[-1]):02X}",
            "with a full-width letter": text[:-1] + chr(ord(text[-1]) + 0xFEE0),
            "with a character too many": text + "A" * ((1 - len(text)) % 4 or 4),
        }
        for spelling, variant in variants.items():
            if part == 2:
                yield f"{name} {spelling}", _replace(good, 2, variant)
            elif variant.isascii():
                yield f"{name} {spelling}, signed so", _resigned(*((variant, body) if part == 0 else (head, variant)))
            else:
                yield f"{name} {spelling}", _replace(good, part, variant)
    standard = base64.b64encode(_text(name="???>>>~~~").encode()).decode().rstrip("=")
    assert "/" in standard
    yield "payload in the alphabet of base64, signed so", _resigned(head, standard)
    yield "signature in the alphabet of base64", _standard_signature()
    yield "a byte order mark before the token", "\ufeff" + good
    yield "a space before the token", " " + good
    yield "a line feed after the token", good + "\n"
    yield "a scheme before the token", "Bearer " + good


def _standard_signature() -> str:
    while True:
        token = mint()
        head, _, signature = token.rpartition(".")
        if "-" in signature or "_" in signature:
            return f"{head}.{signature.replace('-', '+').replace('_', '/')}"


def shapes() -> Iterator[tuple[str, str]]:
    """Yield what has not the form of a JWT."""
    good = mint()
    head, body, signature = good.split(".")
    yield "nothing", ""
    yield "an opaque token", "k7dXq2mFJ0aZr9sVtLw3YbNcHgUeRpQi"
    yield "a legacy session token", "q3Zx0aKq8gFh2mPz.c2lnbmF0dXJl"
    yield "two parts", f"{head}.{body}"
    yield "four parts", f"{good}.{signature}"
    yield "five parts", f"{good}.{signature}.{signature}"
    yield "dots alone", ".."
    yield "an empty header", f".{body}.{signature}"
    yield "an empty payload", f"{head}..{signature}"
    yield "an empty signature", f"{head}.{body}."
    yield "a million dots", "." * 1_000_000
    yield "a hundred kilobytes, well signed", mint(payload(pad="x" * 100_000))
    yield "a kid of fifteen kilobytes", mint(header={"kid": "x" * 12_000})
    yield "JSON serialization", json.dumps({"protected": head, "payload": body, "signature": signature})
    yield "a lone surrogate", "\ud800.b.c"
    yield "Cyrillic that looks the same", good.replace("e", "е", 1)
    yield "Latin-1 octets", "\xff\xfe.\x00.\x00"
    yield "a nested JWT", mint(mint().encode(), header={"cty": "JWT"})


def json_faults() -> Iterator[tuple[str, str]]:
    """Yield headers and payloads that two readers of JSON may read differently, or that crash one."""
    alg, claims = '"alg":"ES256","kid":"p256"', _text()[1:-1]
    texts: dict[str, bytes] = {
        "an array": b"[%s]",
        "a string": b'"x"',
        "a number": b"1",
        "null": b"null",
        "nothing": b" ",
        "a byte order mark": b"\xef\xbb\xbf{%s}",
        "something after it": b"{%s}{}",
        "a comma too many": b"{%s,}",
        "a comment": b"{%s}//",
        "single quotes": b"{%s,'x':1}",
        "NaN": b'{%s,"x":NaN}',
        "Infinity": b'{%s,"x":-Infinity}',
        "a number out of range": b'{%s,"x":1e400}',
        "five thousand digits": b'{%s,"x":' + b"1" * 5_000 + b"}",
        "a lone surrogate": b'{%s,"x":"\\ud800"}',
        "a lone surrogate as a name": b'{%s,"\\udfff":1}',
        "a control character": b'{%s,"x":"\n"}',
        "octets that are no UTF-8": b'{%s,"x":"\xff"}',
        "an overlong NUL": b'{%s,"x":"\xc0\x80"}',
        "a surrogate in UTF-8": b'{%s,"x":"\xed\xa0\x80"}',
        "a thousand open arrays": b'{%s,"x":' + b"[" * 1_000,
        "a thousand closed arrays": b'{%s,"x":' + b"[" * 1_000 + b"]" * 1_000 + b"}",
        "two thousand objects": b'{%s,"x":' + b'{"x":' * 2_000,
        "a name twice, deep inside": b'{%s,"x":[{"a":1,"a":1}]}',
    }
    for name, text in texts.items():
        yield f"header: {name}", mint(header=text.replace(b"%s", alg.encode()))
        yield f"payload: {name}", mint(text.replace(b"%s", claims.encode()))
    yield "header: a thousand arrays and nothing else", mint(header=b"[" * 1_000)
    yield "header in UTF-16", mint(header=f"{{{alg}}}".encode("utf-16"))
    yield "payload in UTF-16", mint(_text().encode("utf-16-le"))
    yield "alg twice", mint(header=b'{"alg":"none","alg":"ES256","kid":"p256"}')
    yield "alg twice, once escaped", mint(header=b'{"\\u0061lg":"HS256","alg":"ES256","kid":"p256"}')
    yield "kid twice", mint(header=b'{"alg":"ES256","kid":"p256","kid":"p256"}')
    for member, value in (("sub", '"admin"'), ("exp", "9999999999"), ("iss", f'"{ISSUER}"'), ("aud", f'"{AUDIENCE}"')):
        yield f"{member} twice", mint(f'{{"{member}":{value},{claims}}}'.encode())


def headers() -> Iterator[tuple[str, str]]:
    """Yield headers that ask for what is not to be given."""
    for kid in (
        ...,
        None,
        7,
        True,
        [],
        ["p256"],
        {"kid": "p256"},
        "",
        " p256",
        "P256",
        "p256\0",
        "k" * 256,
        "nobody's",
    ):
        yield f"kid {kid!r:.40}", mint(header={"kid": kid})
    for kid in ("../../../../dev/null", "/dev/null", "' OR 1=1--", "p256'; DROP TABLE users;--", "$(id)", "__proto__"):
        yield f"kid {kid}", mint(header={"kid": kid})
    for crit in (["exp"], ["b64"], [], "exp", None, ["http://example.com/UNDEFINED"]):
        yield f"crit {crit!r}", mint(header={"crit": crit})
    yield "b64 false", mint(header={"b64": False})
    yield "b64 false and critical", mint(header={"b64": False, "crit": ["b64"]})
    yield "b64 true", mint(header={"b64": True})
    yield "zip", mint(header={"zip": "DEF"})
    yield "enc", mint(header={"enc": "A256GCM"})
    yield "cty", mint(header={"cty": "JWT"})
    types = ["id_token+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt", "token-introspection+jwt", "oauth-authz-req+jwt",
             "JOSE", "JWE", "at+jwt ", "text/at+jwt", "application/", "", None, 7, ["JWT"]]  # fmt: skip
    for typ in types:
        yield f"typ {typ!r}", mint(header={"typ": typ})
    stranger = private_key("other-p256")
    jwk = public_jwk("other-p256")
    for name, kid in (("the kid of a good key", "p256"), ("its own kid", "other-p256")):
        yield f"a key in the header, under {name}", mint(header={"jwk": jwk, "kid": kid}, key=stranger)
    yield "a jku", mint(header={"jku": "https://evil.example/jwks", "kid": "other-p256"}, key=stranger)
    yield "an x5u", mint(header={"x5u": "https://evil.example/x.pem"}, key=stranger)
    yield "an x5c", mint(header={"x5c": [encode(b"certificate")]}, key=stranger)


def _hmac(secret: bytes, algorithm: str, kid: str) -> str:
    token = mint(header={"alg": algorithm, "kid": kid})
    digest = hmac.digest(secret, token.rpartition(".")[0].encode(), getattr(hashlib, f"sha{algorithm[2:]}"))
    return _with_signature(token, digest)


def algorithm_confusions() -> Iterator[tuple[str, str]]:
    """Yield tokens whose algorithm is not that of the key they name."""
    public = private_key("rsa").public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jwk = public_jwk("rsa")
    secrets = {
        "PEM": pem,
        "PEM without its last line feed": pem.rstrip(),
        "PKCS #1 PEM": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "DER": der,
        "PKCS #1 DER": public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        "base64 of DER": base64.b64encode(der),
        "JWK": json.dumps(jwk).encode(),
        "compact JWK": json.dumps(jwk, separators=(",", ":")).encode(),
        "modulus": jwk["n"].encode(),
        "nothing": b"",
    }
    for name, secret in secrets.items():
        yield f"HS256 with the public key's {name} as its secret", _hmac(secret, "HS256", "rsa")
    yield "HS384 with the public key's PEM", _hmac(pem, "HS384", "rsa")
    yield "HS512 with the public key's PEM", _hmac(pem, "HS512", "rsa")
    yield "HS256 with the provider's symmetric key", _hmac(b"the provider's secret", "HS256", "mac")
    for alg in ("none", "None", "NONE", "nOnE", "", None, 7, ["ES256"], {"alg": "ES256"}, "es256", "ES256 ", "S256",
                "ES25", "ES256K", "EdDSA448", "RS1", "dir", "RSA-OAEP", "ES256,RS256"):  # fmt: skip
        yield f"alg {alg!r}", mint(header={"alg": alg})
    yield "alg missing", mint(header={"alg": ...})
    unsigned = mint(header={"alg": "none"}).rpartition(".")[0]
    yield "alg none and no signature", unsigned + "."
    yield "alg none and a signature of one character", unsigned + ".A"
    for kid, by, named in (
        ("rsa", "RS256", "ES256"), ("rsa", "RS256", "EdDSA"), ("rsa", "RS256", "PS256"), ("rsa", "PS256", "RS256"),
        ("rsa", "RS256", "RS512"), ("rsa", "RS512", "RS256"), ("rsa", "PS384", "PS256"), ("p256", "ES256", "RS256"),
        ("p256", "ES256", "ES384"), ("p256", "ES256", "EdDSA"), ("p384", "ES384", "ES256"), ("p521", "ES512", "ES256"),
        ("ed", "EdDSA", "ES256"), ("ed", "EdDSA", "RS256"),
    ):  # fmt: skip
        yield f"signed with {by}, named {named}", mint(algorithm=by, header={"alg": named, "kid": kid})
    yield "an RS256 token under the kid of an EC key", mint(algorithm="RS256", header={"kid": "p256"})
    yield "an ES256 token under the kid of an RSA key", mint(header={"kid": "rsa"})
    yield "an unusable key's kid", mint(header={"kid": "mac"})
    yield "a kid that two keys share", mint(algorithm="ES384", header={"kid": "shared"}, key=private_key("p384"))
    yield "a key for encryption", mint(algorithm="RS256", header={"kid": "for-encryption"})
    yield "a key for PS256 only", mint(algorithm="RS256", header={"kid": "for-ps256"})


def signatures() -> Iterator[tuple[str, str]]:
    """Yield bad signatures over good headers and payloads."""
    for algorithm in ALGORITHMS:
        token = mint(algorithm=algorithm)
        other = mint(payload(sub="another"), algorithm=algorithm)
        signature = base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")
        yield f"{algorithm}: the signature of another token", f"{token.rpartition('.')[0]}.{other.rpartition('.')[2]}"
        yield f"{algorithm}: nothing but zeros", _with_signature(token, bytes(len(signature)))
        yield f"{algorithm}: nothing but ones", _with_signature(token, b"\xff" * len(signature))
        yield f"{algorithm}: an octet short", _with_signature(token, signature[:-1])
        yield f"{algorithm}: an octet long", _with_signature(token, signature + b"\0")
        yield f"{algorithm}: a zero before it", _with_signature(token, b"\0" + signature)
        yield (
            f"{algorithm}: by a key that is not the provider's",
            mint(algorithm=algorithm, key=private_key("other-" + KIDS[algorithm])),
        )
    token = mint()
    for algorithm, (size, order) in _ORDERS.items():
        for name, r, s in (("r = 0", 0, 1), ("s = 0", 1, 0), ("r = s = n", order, order), ("r = 1, s = n", 1, order)):
            raw = r.to_bytes(size, "big") + s.to_bytes(size, "big")
            yield f"{algorithm}: {name}", _with_signature(mint(algorithm=algorithm), raw)
    raw = base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")
    der = b"\x30\x44\x02\x20" + raw[:32] + b"\x02\x20" + raw[32:]
    yield "ES256: as DER", _with_signature(token, der)
    eddsa = mint(algorithm="EdDSA")
    raw = base64.urlsafe_b64decode(eddsa.rpartition(".")[2] + "==")
    order = 2**252 + 27742317777372353535851937790883648493
    beyond = (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    yield "EdDSA: s plus the order", _with_signature(eddsa, raw[:32] + beyond)
    yield "another payload under a good signature", _replace(token, 1, encode(_text(sub="admin").encode()))


def claims() -> Iterator[tuple[str, str]]:
    """Yield claims that break a rule, or that belong to a token for another purpose."""
    rows: dict[str, Iterable[object]] = {
        "exp": (..., None, str(EXP), " 9_999_999_999 ", "٩٩٩٩٩٩٩٩٩٩", True, [EXP], {}, "", -1, 0, NOW - 30, -(10**300),
                10**400, 1e300, 10_000_000_000, EXP * 1_000),
        "nbf": (None, "0", False, [0], NOW + 31, EXP * 1_000, -1, 10**400),
        "iat": (None, "0", True, {}, NOW + 31, (NOW + 31) * 1_000, 10**30, -1),
        "iss": (..., None, "", 7, True, [ISSUER], {ISSUER: 1}, f"{ISSUER}/", ISSUER.upper(), f"{ISSUER} ",
                f"{ISSUER}\0", "https://idp.example.evil.example", "http://idp.example", "https://evil.example"),
        "aud": (..., None, "", [], 7, {}, {AUDIENCE: 1}, [AUDIENCE, 7], [AUDIENCE, None], [[AUDIENCE]], AUDIENCE[:-1],
                f"{AUDIENCE}/", f"{AUDIENCE}.evil.example", AUDIENCE.upper(), f"https://other.example {AUDIENCE}",
                f"https://other.example,{AUDIENCE}", ["https://other.example"], ISSUER, "*"),
        "sub": (..., None, "", 7, 0, True, [], ["user-1"], {}, "u" * 256, "user\0admin", "\0"),
        "typ": ("ID", "Refresh", "Offline", "Logout"),
        "token_use": ("id", "refresh"),
        "events": ({"http://schemas.openid.net/event/backchannel-logout": {}}, {}),
        "nonce": ("n-0S6_WzA2Mj", None),
        "at_hash": ("MTIzNDU2Nzg5MDEyMzQ1Ng",),
        "c_hash": ("MTIzNDU2Nzg5MDEyMzQ1Ng",),
    }  # fmt: skip
    for name, values in rows.items():
        for value in values:
            yield f"{name} {value!r:.50}", mint(payload(**{name: value}))
    yield "exp 1e400", mint(_text().replace(str(EXP), "1e400").encode())
    yield "exp NaN", mint(_text().replace(str(EXP), "NaN").encode())
    yield "exp with five thousand digits", mint(_text().replace(str(EXP), "9" * 5_000).encode())
    yield "sub a lone surrogate", mint(_text().replace("user-1", "\\ud800").encode())
    yield "an id_token by its acr and auth_time", mint(payload(acr="1", auth_time=int(NOW)))
    yield (
        "an id_token of OpenID Connect",
        mint(payload(nonce="n", at_hash="h", acr="1", auth_time=1), algorithm="RS256"),
    )
    yield "an id_token of Cognito", mint(payload(token_use="id", auth_time=1, event_id="e"), algorithm="RS256")
    yield "an id_token that Keycloak would have named ID", mint(payload(typ="Bearer", nonce="n", at_hash="h"))
    yield "an id_token that says it is an access token", mint(payload(nonce="n"), header={"typ": "at+jwt"})
    yield "a logout token", mint(payload(events={"x": {}}, sid="s", jti="j"), header={"typ": "logout+jwt"})
    yield "no claims at all", mint({})


_FAMILIES = (
    (spellings, "base64url|not ASCII"),
    (shapes, "not a JWT|encrypted|empty|larger|kid|JSON|member"),
    (json_faults, "UTF-8|JSON|too deeply|twice|surrogate|out of range"),
    (headers, "kid|does not have|member|typ|signature"),
    (algorithm_confusions, "algorithm|signature|does not have|empty"),
    (signatures, "signature"),
    (claims, "claim|issuer|audience|whom|subject|expire|valid yet|future|an access token|JSON|surrogate|range"),
)


def corpus() -> dict[str, tuple[str, str]]:
    """Return all of them by name, each with a pattern of the messages that say what is wrong with it."""
    found: dict[str, tuple[str, str]] = {}
    for rows, reason in _FAMILIES:
        for name, token in rows():
            assert name not in found, name
            found[name] = (token, reason)
    return found


def provider_keys() -> Json:
    """Return the key set of a provider whose keys are partly unfit, as the corpus expects it."""
    names = ("rsa", "p256", "p384", "p521", "ed")
    return {
        "keys": [
            *(public_jwk(name) for name in names),
            {"kty": "oct", "kid": "mac", "alg": "HS256", "k": encode(b"the provider's secret")},
            public_jwk("p384", kid="shared"),
            public_jwk("p256", kid="shared"),
            public_jwk("rsa", kid="for-encryption", use="enc"),
            public_jwk("rsa", kid="for-ps256", alg="PS256"),
        ]
    }
