"""A key that is unfit is skipped alone; a key that is taken verifies what is its own."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from jose import jwk

from app.idp.encoding import Malformed
from app.idp.jwks import (
    MAX_KEYS,
    KeySet,
    PSSKey,
    Unfit,
    VerificationKey,
    check_algorithms,
    load_key,
    parse_key_set,
    register_key_classes,
)
from tests.idp.issuer import ALGORITHMS, KIDS, encode, encode_integer, key_set, private_key, public_jwk, sign

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
MESSAGE = b"what is signed"

Point = tuple[int, int]


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_key_classes()


def load(members: dict[str, Any], algorithms: tuple[str, ...] = ALGORITHMS) -> VerificationKey:
    return load_key("k", members, algorithms)


def parse(*keys: Any, algorithms: tuple[str, ...] = ALGORITHMS) -> KeySet:
    return parse_key_set(json.dumps({"keys": keys}).encode(), algorithms)


class TestBinding:
    @pytest.mark.parametrize(
        ("name", "algorithms"),
        [
            ("rsa", set(ALGORITHMS[:6])),
            ("p256", {"ES256"}),
            ("p384", {"ES384"}),
            ("p521", {"ES512"}),
            ("ed", {"EdDSA"}),
        ],
    )
    def test_without_alg_a_key_is_for_all_that_fit_it(self, name: str, algorithms: set[str]) -> None:
        assert load(public_jwk(name)).algorithms == algorithms

    def test_with_alg_a_key_is_for_that_one_only(self) -> None:
        key = load(public_jwk("rsa", alg="PS384"))
        assert key.algorithms == {"PS384"}
        assert key.verify("PS384", MESSAGE, sign("PS384", MESSAGE))
        assert not key.verify("RS256", MESSAGE, sign("RS256", MESSAGE))

    def test_only_accepted_algorithms_are_bound(self) -> None:
        assert load(public_jwk("rsa"), ("RS256", "ES256")).algorithms == {"RS256"}

    @pytest.mark.parametrize(
        "alg", ["ES256", "RS256", "HS256", "none", "RSA-OAEP", "rs256", "", None, 7, ["EdDSA"], {}]
    )
    def test_an_alg_that_does_not_fit_makes_the_key_unfit(self, alg: object) -> None:
        with pytest.raises(Unfit, match="alg"):
            load(public_jwk("ed", alg=alg))

    def test_an_alg_that_is_not_accepted_makes_the_key_unfit(self) -> None:
        with pytest.raises(Unfit, match="not accepted"):
            load(public_jwk("rsa", alg="RS512"), ("RS256",))
        with pytest.raises(Unfit, match="not accepted"):
            load(public_jwk("p521"), ("RS256",))


class TestVerify:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_a_good_signature_and_no_other(self, algorithm: str) -> None:
        key = load(public_jwk(KIDS[algorithm]))
        signature = sign(algorithm, MESSAGE)
        assert key.verify(algorithm, MESSAGE, signature)
        assert not key.verify(algorithm, MESSAGE + b".", signature)
        assert not key.verify(algorithm, MESSAGE, bytes([signature[0] ^ 1]) + signature[1:])
        assert not key.verify(algorithm, MESSAGE, sign(algorithm, MESSAGE, private_key("other-" + KIDS[algorithm])))

    @pytest.mark.parametrize(
        ("algorithm", "octets"),
        [("RS256", 256), ("PS256", 256), ("ES256", 64), ("ES384", 96), ("ES512", 132), ("EdDSA", 64)],
    )
    def test_a_signature_has_one_length(self, algorithm: str, octets: int) -> None:
        key = load(public_jwk(KIDS[algorithm]))
        signature = sign(algorithm, MESSAGE)
        assert len(signature) == key.signature_octets == octets
        for other in (b"", signature[:-1], signature + b"\0", b"\0" + signature, signature * 2):
            assert not key.verify(algorithm, MESSAGE, other)

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    @pytest.mark.parametrize("octet", [b"\0", b"\xff", b"\x01"])
    def test_garbage_of_the_right_length_is_a_no(self, algorithm: str, octet: bytes) -> None:
        key = load(public_jwk(KIDS[algorithm]))
        assert not key.verify(algorithm, MESSAGE, octet * key.signature_octets)

    def test_der_is_no_signature(self) -> None:
        key = load(public_jwk("p256"))
        r_and_s = sign("ES256", MESSAGE)
        der = b"\x30\x44\x02\x20" + r_and_s[:32] + b"\x02\x20" + r_and_s[32:]
        assert not key.verify("ES256", MESSAGE, der)

    def test_an_algorithm_of_another_key_is_a_no(self) -> None:
        assert not load(public_jwk("rsa")).verify("ES256", MESSAGE, sign("RS256", MESSAGE))
        assert not load(public_jwk("rsa")).verify("HS256", MESSAGE, sign("RS256", MESSAGE))

    def test_a_pss_salt_is_as_long_as_the_hash(self) -> None:
        signer = private_key("rsa")
        assert isinstance(signer, rsa.RSAPrivateKey)
        short = signer.sign(MESSAGE, padding.PSS(padding.MGF1(hashes.SHA256()), 20), hashes.SHA256())
        assert not load(public_jwk("rsa")).verify("PS256", MESSAGE, short)

    def test_a_library_that_breaks_is_a_no(self) -> None:
        class Broken(PSSKey):
            def verify(self, msg: bytes, sig: bytes) -> bool:
                raise ValueError("broken")

        signer = private_key("rsa")
        assert isinstance(signer, rsa.RSAPrivateKey)
        key = VerificationKey("k", frozenset({"PS256"}), b"", 1, {"PS256": Broken(signer.public_key(), "PS256")})
        assert key.verify("PS256", MESSAGE, b"x") is False


class TestPublishedVectors:
    def test_rfc_7515_a2(self) -> None:
        key = load({
            "kty": "RSA",
            "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yR"
            "T-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXB"
            "dQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9ia"
            "GNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
            "e": "AQAB",
        })  # fmt: skip
        signature = decode(
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1"
            "dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzD"
            "wusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe7"
            "7Rw"
        )
        message = (
            b"eyJhbGciOiJSUzI1NiJ9"
            b".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        )
        assert key.verify("RS256", message, signature)
        assert not key.verify("RS384", message, signature)

    def test_rfc_7515_a3(self) -> None:
        key = load(
            {
                "kty": "EC",
                "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            }
        )
        message = (
            b"eyJhbGciOiJFUzI1NiJ9"
            b".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        )
        signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        assert key.verify("ES256", message, decode(signature))

    def test_rfc_8037_a4(self) -> None:
        key = load({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
        message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
        signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        assert key.verify("EdDSA", message, decode(signature))


class TestUnfitKeys:
    @pytest.mark.parametrize(
        "members",
        [
            {"kty": "oct", "k": encode(b"secret" * 8)},
            {"kty": "oct", "k": encode(b"secret" * 8), "alg": "RS256"},
            public_jwk("ed", d=encode(b"\1" * 32)),
            public_jwk("p256", d="AQAB", alg="ES256", use="sig"),
            *(public_jwk("rsa", **{name: "AQAB"}) for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv")),
        ],
    )
    def test_symmetric_and_private(self, members: dict[str, Any]) -> None:
        with pytest.raises(Unfit, match="symmetric or private"):
            load(members)

    @pytest.mark.parametrize("use", ["enc", "SIG", "", None, ["sig"]])
    def test_for_another_use(self, use: object) -> None:
        with pytest.raises(Unfit, match="use"):
            load(public_jwk("rsa", use=use))

    @pytest.mark.parametrize("operations", [[], ["sign"], ["encrypt"], "verify", None, {"verify": 1}])
    def test_for_other_operations(self, operations: object) -> None:
        with pytest.raises(Unfit, match="key_ops"):
            load(public_jwk("rsa", key_ops=operations))

    def test_use_and_operations_that_allow_verifying(self) -> None:
        assert load(public_jwk("rsa", use="sig", key_ops=["verify"])).algorithms

    @pytest.mark.parametrize(
        "change",
        [
            {"kty": "EC"}, {"kty": "OKP"}, {"kty": "oct"}, {"kty": "rsa"}, {"kty": None}, {"kty": []}, {"kty": ""},
        ],
    )  # fmt: skip
    def test_kty_that_does_not_fit(self, change: dict[str, Any]) -> None:
        with pytest.raises(Unfit, match="kty and crv"):
            load({**public_jwk("rsa"), **change})

    @pytest.mark.parametrize("crv", ["P-384", "secp256k1", "Ed25519", "p-256", "", None, 256, ["P-256"]])
    def test_crv_that_does_not_fit(self, crv: object) -> None:
        with pytest.raises(Unfit):
            load(public_jwk("p256", crv=crv))

    @pytest.mark.parametrize("crv", ["X25519", "Ed448", "P-256"])
    def test_octet_key_pairs_of_another_curve(self, crv: str) -> None:
        with pytest.raises(Unfit, match="kty and crv"):
            load(public_jwk("ed", crv=crv))

    @pytest.mark.parametrize("value", [..., None, 7, ["AQAB"], "", "AQAB=", "AQ+B", "AQA\n", "Ā"])
    @pytest.mark.parametrize(
        ("name", "member"), [("rsa", "n"), ("rsa", "e"), ("p256", "x"), ("p256", "y"), ("ed", "x")]
    )
    def test_members_missing_or_malformed(self, name: str, member: str, value: object) -> None:
        members = {key: item for key, item in public_jwk(name, **{member: value}).items() if item is not ...}
        with pytest.raises(Unfit, match=r"members|missing"):
            load(members)

    @pytest.mark.parametrize("bits", [512, 1_024, 2_047, 8_193, 16_384])
    def test_rsa_of_another_size(self, bits: int) -> None:
        with pytest.raises(Unfit, match="2048 to 8192 bits"):
            load({"kty": "RSA", "n": encode_integer(2 ** (bits - 1) + 1), "e": "AQAB"})

    @pytest.mark.parametrize("bits", [2_048, 3_072, 4_096, 8_192])
    def test_rsa_of_an_allowed_size(self, bits: int) -> None:
        key = load({"kty": "RSA", "n": encode_integer(2 ** (bits - 1) + 1), "e": "AQAB"})
        assert key.signature_octets == bits // 8

    @pytest.mark.parametrize("exponent", [1, 2, 3, 17, 65_535, 65_536, 65_538, 2**256 + 1, 2**2_000 + 1])
    def test_rsa_with_an_unusual_exponent(self, exponent: int) -> None:
        with pytest.raises(Unfit, match="exponent"):
            load(public_jwk("rsa", e=encode_integer(exponent)))

    def test_rsa_with_an_even_modulus(self) -> None:
        with pytest.raises(Unfit, match="even"):
            load({"kty": "RSA", "n": encode_integer(2**2_047), "e": "AQAB"})

    def test_a_leading_zero_of_the_modulus_is_forgiven(self) -> None:
        signer = private_key("rsa")
        assert isinstance(signer, rsa.RSAPrivateKey)
        modulus = signer.public_key().public_numbers().n
        assert load(public_jwk("rsa", n=encode_integer(modulus, 257))) == load(public_jwk("rsa"))

    @pytest.mark.parametrize("size", [31, 33, 48])
    def test_ec_coordinates_of_another_length(self, size: int) -> None:
        with pytest.raises(Unfit, match="32 octets"):
            load(public_jwk("p256", x=encode(b"\1" * size)))

    @pytest.mark.parametrize("name", ["p256", "p384", "p521"])
    def test_ec_points_that_are_not_on_the_curve(self, name: str) -> None:
        size = load(public_jwk(name)).signature_octets // 2
        for x, y in ((1, 1), (0, 0), (2 ** (8 * size) - 1, 1)):
            with pytest.raises(Unfit, match="not on the curve"):
                load(public_jwk(name, x=encode_integer(x, size), y=encode_integer(y, size)))

    @pytest.mark.parametrize("size", [31, 33, 57])
    def test_ed25519_points_of_another_length(self, size: int) -> None:
        with pytest.raises(Unfit, match="32 octets"):
            load(public_jwk("ed", x=encode(b"\1" * size)))

    @pytest.mark.parametrize("sign_of_x", [0, 1])
    def test_ed25519_points_of_either_sign_are_taken(self, sign_of_x: int) -> None:
        y = int.from_bytes(decode(public_jwk("ed")["x"]), "little") & (2**255 - 1)
        assert load(public_jwk("ed", x=encode((y | sign_of_x << 255).to_bytes(32, "little")))).algorithms == {"EdDSA"}

    def test_ed25519_points_of_small_order(self) -> None:
        points = small_order_points()
        assert len(points) == 8
        for x, y in points:
            with pytest.raises(Unfit, match="small order"):
                load(public_jwk("ed", x=encode((y | (x & 1) << 255).to_bytes(32, "little"))))

    @pytest.mark.parametrize("y", [P, P + 1, P + 2, P + 18, 2**255 - 1])
    @pytest.mark.parametrize("sign_of_x", [0, 1])
    def test_ed25519_points_that_are_not_canonical(self, y: int, sign_of_x: int) -> None:
        with pytest.raises(Unfit, match="not canonical"):
            load(public_jwk("ed", x=encode((y | sign_of_x << 255).to_bytes(32, "little"))))

    @pytest.mark.parametrize("y", [0, 1, P - 1])
    @pytest.mark.parametrize("sign_of_x", [0, 1])
    def test_ed25519_points_of_small_order_with_either_sign(self, y: int, sign_of_x: int) -> None:
        with pytest.raises(Unfit, match="small order"):
            load(public_jwk("ed", x=encode((y | sign_of_x << 255).to_bytes(32, "little"))))

    def test_a_reason_holds_nothing_of_the_key(self) -> None:
        secret = encode(b"a very secret symmetric key")
        (skipped,) = parse({"kty": "oct", "kid": "k", "k": secret}).skipped
        assert secret not in repr(skipped)
        assert encode(load(public_jwk("rsa")).material[-30:]) not in repr(load(public_jwk("rsa")))


class TestParseKeySet:
    def test_one_bad_key_does_not_take_the_others_down(self) -> None:
        found = parse(
            public_jwk("rsa"), {"kty": "oct", "kid": "mac", "k": "AAAA"}, public_jwk("ed", x="AQ"), public_jwk("p256")
        )
        assert set(found.keys) == {"rsa", "p256"}
        assert [(key.position, key.kid) for key in found.skipped] == [(1, "mac"), (2, "ed")]

    @pytest.mark.parametrize("kid", [..., None, "", 7, [], {}, "k" * 256])
    def test_a_key_without_a_usable_kid_is_skipped(self, kid: object) -> None:
        member = {name: value for name, value in public_jwk("rsa", kid=kid).items() if value is not ...}
        found = parse(member, public_jwk("ed"))
        assert set(found.keys) == {"ed"}
        assert [(key.position, key.kid) for key in found.skipped] == [(0, None)]

    @pytest.mark.parametrize("member", [None, 1, "key", [], True])
    def test_a_member_that_is_no_object_is_skipped(self, member: object) -> None:
        assert set(parse(member, public_jwk("ed")).keys) == {"ed"}

    @pytest.mark.parametrize(
        "second",
        [public_jwk("rsa"), public_jwk("p256", kid="rsa"), {"kty": "oct", "kid": "rsa", "k": "AAAA"}, {"kid": "rsa"}],
    )
    def test_a_kid_that_is_there_twice_refuses_both(self, second: dict[str, Any]) -> None:
        found = parse(public_jwk("rsa"), second, public_jwk("ed"))
        assert set(found.keys) == {"ed"}
        assert {key.reason for key in found.skipped} == {"its kid is there more than once"}

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":null}', b'{"keys":[],"keys":[]}', b"<html>"]
    )
    def test_what_is_no_key_set_is_malformed(self, body: bytes) -> None:
        with pytest.raises(Malformed):
            parse_key_set(body, ALGORITHMS)

    def test_too_many_keys_are_malformed(self) -> None:
        keys = [public_jwk("ed", kid=f"k{number}") for number in range(MAX_KEYS + 1)]
        assert len(parse(*keys[:-1]).keys) == MAX_KEYS
        with pytest.raises(Malformed, match="more than 100 keys"):
            parse(*keys)

    def test_the_same_keys_are_equal_and_others_are_not(self) -> None:
        body = json.dumps(key_set()).encode()
        assert parse_key_set(body, ALGORITHMS).keys == parse_key_set(body, ALGORITHMS).keys
        assert load(public_jwk("rsa")) != load(public_jwk("other-rsa"))
        assert load(public_jwk("rsa")) != load(public_jwk("rsa", alg="RS256"))


class TestAlgorithms:
    @pytest.mark.parametrize(
        "algorithms", [[], "RS256", ["HS256"], ["RS256", "none"], ["rs256"], ["RS256,ES256"], [""]]
    )
    def test_what_is_not_asymmetric_and_known_is_refused(self, algorithms: Any) -> None:
        with pytest.raises(ValueError, match="algorithms must be"):
            check_algorithms(algorithms)

    def test_the_library_learns_the_four_it_has_not(self) -> None:
        register_key_classes()
        register_key_classes()
        assert {name: jwk.get_key(name) is not None for name in ALGORITHMS} == dict.fromkeys(ALGORITHMS, True)


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def add(one: Point, other: Point) -> Point:
    """Add on the twisted Edwards curve of RFC 8032 section 5.1."""
    d = -121665 * pow(121666, -1, P) % P
    (x1, y1), (x2, y2) = one, other
    product = d * x1 * x2 * y1 * y2
    x3 = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P
    y3 = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P
    return x3, y3


def small_order_points() -> set[Point]:
    """Return the points whose order divides 8: multiples by L of points that were chosen for nothing."""
    found: set[Point] = set()
    d = -121665 * pow(121666, -1, P) % P
    for y in range(2, 40):
        square = (y * y - 1) * pow(d * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if x * x % P != square:
            x = x * pow(2, (P - 1) // 4, P) % P
        if x * x % P == square:
            point, multiple, left = (x, y), (0, 1), L
            while left:
                if left & 1:
                    multiple = add(multiple, point)
                point, left = add(point, point), left >> 1
            found.add(multiple)
    return found
