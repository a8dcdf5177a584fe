"""Webhooks before the database: signature, age, body. Signatures are made here, with hmac, as the providers do."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from app.errors import InvalidSignature, MalformedDelivery, StaleDelivery
from app.idp.events import EventReader, IdpEvent, Scheme, read_moment

NOW = 1_772_618_400
"""2026-03-04T10:00:00Z in seconds."""
SECRET = "whsec_c2VzYW1lIHNlc2FtZSBzZXNhbWU="
OTHER = "whsec_b3BlbiBvcGVuIG9wZW4gb3Blbg=="
EVENT = {
    "id": "evt_1",
    "origin": "https://idp.example",
    "type": "user.updated",
    "timestamp": NOW,
    "data": {"id": "ada", "name": "Ada Ł"},
}
SCHEMES: tuple[Scheme, ...] = ("auther", "auther-body", "standard")


def encode(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def sign(scheme: Scheme, body: bytes, *, id: str = "evt_1", at: int = NOW, secret: str = SECRET) -> dict[str, str]:
    """Return the headers with which a provider sends a body at a time, in seconds."""
    if scheme == "standard":
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
        signature = "v1," + base64.b64encode(digest).decode()
        return {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": signature}
    signed = body if scheme == "auther-body" else f"{at}000.".encode() + body
    signature = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return {"x-webhook-id": id, "x-webhook-timestamp": f"{at}000", "x-webhook-signature": signature}


def read(
    body: bytes, headers: Mapping[str, str | list[str]], scheme: Scheme = "auther", *,
    secrets: tuple[str, ...] = (SECRET,), now: float = NOW, is_form: bool = False,
) -> IdpEvent:  # fmt: skip
    reader = EventReader(scheme=scheme, secrets=secrets, clock=lambda: now)

    def values(name: str) -> list[str]:
        found = headers.get(name, [])
        return [found] if isinstance(found, str) else found

    return reader.read(reader.read_headers(values), body, is_form=is_form)


def read_event(event: Mapping[str, Any], scheme: Scheme = "auther", **options: Any) -> IdpEvent:
    """Read an event that was sent and signed as it should be."""
    body = encode(event)
    return read(body, sign(scheme, body), scheme, **options)


def of_signature(headers: Mapping[str, str]) -> str:
    return next(name for name in headers if name.endswith("-signature"))


class TestSignature:
    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_what_the_secret_signed_is_read(self, scheme: Scheme) -> None:
        assert read_event(EVENT, scheme) == IdpEvent(
            id="evt_1",
            type="user.updated",
            kind="updated",
            sub="ada",
            stated_at=datetime(2026, 3, 4, 10, tzinfo=UTC),
            members={"id": "ada", "name": "Ada Ł"},
            is_test=False,
        )

    def test_the_vector_that_standard_webhooks_publishes_is_good_under_its_secret(self) -> None:
        reader = EventReader(scheme="standard", secrets=["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
        headers = {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }
        unverified = reader.read_headers(lambda name: [headers[name]])
        reader.verify(unverified, b'{"test": 2432232314}')
        with pytest.raises(InvalidSignature):
            reader.verify(unverified, b'{"test": 2432232315}')

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_a_body_that_differs_in_any_one_octet_is_refused(self, scheme: Scheme) -> None:
        body = encode(EVENT)
        headers = sign(scheme, body)
        for place in range(len(body)):
            altered = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
            with pytest.raises(InvalidSignature):
                read(altered, headers, scheme)

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_so_is_one_that_was_cut_or_grew(self, scheme: Scheme) -> None:
        body = encode(EVENT)
        for altered in (b"", body[:-1], body[1:], body + b" ", b" " + body, body + body):
            with pytest.raises(InvalidSignature):
                read(altered, sign(scheme, body), scheme)

    @pytest.mark.parametrize("scheme", SCHEMES)
    @pytest.mark.parametrize(
        "respell",
        [
            lambda good: "v1," + "A" * 43 + "=" if good.startswith("v1,") else "0" * 64,
            lambda good: good[:-1],
            lambda good: good[: len(good) // 2],
            lambda good: good + "0",
            str.upper,
            lambda good: f"sha256={good}",
            lambda good: good[:-1] + "é",
            lambda good: good[:-1] + "Ł",
            lambda good: f"{good},{good}",
        ],
        ids=["forged", "truncated", "half", "longer", "upper_case", "prefixed", "no_ascii", "beyond_latin1", "twice"],
    )
    def test_a_signature_has_one_spelling(self, scheme: Scheme, respell: Callable[[str], str]) -> None:
        body = encode(EVENT)
        good = sign(scheme, body)
        name = of_signature(good)
        with pytest.raises(InvalidSignature):
            read(body, good | {name: respell(good[name])}, scheme)

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_another_secret_is_refused(self, scheme: Scheme) -> None:
        body = encode(EVENT)
        with pytest.raises(InvalidSignature):
            read(body, sign(scheme, body, secret=OTHER), scheme)

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_two_secrets_are_good_while_one_replaces_the_other(self, scheme: Scheme) -> None:
        body = encode(EVENT)
        for secret in (SECRET, OTHER):
            assert read(body, sign(scheme, body, secret=secret), scheme, secrets=(SECRET, OTHER)).id == "evt_1"
        with pytest.raises(InvalidSignature):
            read(body, sign(scheme, body, secret="whsec_dGhpcmQ="), scheme, secrets=(SECRET, OTHER))

    def test_headers_of_another_delivery_are_refused(self) -> None:
        one, two = encode(EVENT), encode(EVENT | {"id": "evt_2"})
        first, second = sign("auther", one), sign("auther", two, id="evt_2", at=NOW + 1)
        with pytest.raises(InvalidSignature):
            read(one, first | {"x-webhook-timestamp": second["x-webhook-timestamp"]})
        with pytest.raises(InvalidSignature):
            read(one, first | {"x-webhook-signature": second["x-webhook-signature"]})
        with pytest.raises(MalformedDelivery):
            read(one, first | {"x-webhook-id": "evt_2"})

    def test_standard_webhooks_signs_the_id_too(self) -> None:
        body = encode({name: value for name, value in EVENT.items() if name != "id"})
        with pytest.raises(InvalidSignature):
            read(body, sign("standard", body) | {"webhook-id": "evt_2"}, "standard")

    def test_standard_webhooks_sends_several_signatures_and_versions(self) -> None:
        body = encode(EVENT)
        good, other = sign("standard", body), sign("standard", body, secret=OTHER)
        name = "webhook-signature"
        assert read(body, good | {name: f"{other[name]} v1a,AAAA {good[name]}"}, "standard").id == "evt_1"
        with pytest.raises(InvalidSignature):
            read(body, good | {name: good[name].replace("v1,", "v2,")}, "standard")

    @pytest.mark.parametrize(("one", "other"), [("auther", "auther-body"), ("auther-body", "auther")])
    def test_one_scheme_s_signature_is_none_of_another_s(self, one: Scheme, other: Scheme) -> None:
        body = encode(EVENT)
        with pytest.raises(InvalidSignature):
            read(body, sign(one, body), other)

    def test_a_secret_of_auther_s_is_taken_verbatim(self) -> None:
        body = encode(EVENT)
        for secret in ("plain", "whsec_not base64!", "schlüssel"):
            assert read(body, sign("auther", body, secret=secret), secrets=(secret,)).id == "evt_1"

    @pytest.mark.parametrize(
        ("scheme", "secrets", "fault"),
        [
            ("auther", [], "must be a secret"),
            ("auther", [""], "empty"),
            ("standard", ["whsec_"], "empty"),
            ("standard", ["whsec_!"], "base64"),
        ],
    )
    def test_a_reader_cannot_be_made_without_a_key(self, scheme: Scheme, secrets: list[str], fault: str) -> None:
        with pytest.raises(ValueError, match=fault):
            EventReader(scheme=scheme, secrets=secrets)


class TestHeaders:
    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_each_must_be_there_once(self, scheme: Scheme) -> None:
        body = encode(EVENT)
        good = sign(scheme, body)
        for name, value in good.items():
            for values in ([], [""], [" "], [value, value]):
                with pytest.raises(MalformedDelivery, match=name):
                    read(body, good | {name: values}, scheme)

    def test_an_id_has_up_to_255_visible_characters(self) -> None:
        event = {name: value for name, value in EVENT.items() if name != "id"}
        body = encode(event)
        longest = "x" * 255
        assert read(body, sign("auther", body, id=longest)).id == longest
        for id in ("x" * 256, "a b", "a\0b", "é", "a\nb"):
            with pytest.raises(MalformedDelivery):
                read(body, sign("auther", body, id=id))

    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_a_timestamp_is_a_number_of_digits(self, scheme: Scheme) -> None:
        body = encode(EVENT)
        good = sign(scheme, body)
        name = next(name for name in good if name.endswith("-timestamp"))
        for text in ("now", "-1", "+1", "1e9", "1_0", "1.5", "0x10", "²", "2026-03-04T10:00:00Z", "9" * 16, "9" * 99):
            with pytest.raises(MalformedDelivery):
                read(body, good | {name: text}, scheme)

    def test_standard_webhooks_counts_seconds(self) -> None:
        body = encode(EVENT)
        with pytest.raises(MalformedDelivery):
            read(body, sign("standard", body, at=NOW * 1_000), "standard")

    @pytest.mark.parametrize(("scheme", "digits"), [("auther", 13), ("auther-body", 13), ("standard", 11)])
    def test_what_has_the_form_that_is_announced_is_well_formed(self, scheme: Scheme, digits: int) -> None:
        reader = EventReader(scheme=scheme, secrets=[SECRET])
        for text in ("0", "0" * digits, "1", "9" * digits):
            sent = ("!~", text, "x")
            assert all(re.fullmatch(pattern, value) for pattern, value in zip(reader.patterns, sent, strict=True))
            values = {name: [value] for name, value in zip(reader.headers, sent, strict=True)}
            assert reader.read_headers(values.__getitem__).timestamp == text
        with pytest.raises(MalformedDelivery):
            reader.read_headers(lambda name: ["9" * (digits + 1)])

    def test_the_headers_come_first_then_the_signature_then_the_age_then_the_body(self) -> None:
        body = b"{"
        late = NOW + 7_200
        good = sign("auther", body)
        with pytest.raises(MalformedDelivery, match="x-webhook-id"):
            read(body, {name: value for name, value in good.items() if name != "x-webhook-id"}, now=late)
        with pytest.raises(InvalidSignature):
            read(body, good | {"x-webhook-signature": "0" * 64}, now=late)
        with pytest.raises(StaleDelivery):
            read(body, good, now=late)
        with pytest.raises(MalformedDelivery, match="JSON"):
            read(body, good)


class TestAge:
    @pytest.mark.parametrize("scheme", SCHEMES)
    def test_an_hour_either_way_is_accepted_and_no_more(self, scheme: Scheme) -> None:
        for apart in (-3_600, -1_968, 0, 3_600):
            assert read_event(EVENT, scheme, now=NOW + apart).id == "evt_1"
        for apart in (-86_400, -3_601, 3_601, 86_400):
            with pytest.raises(StaleDelivery):
                read_event(EVENT, scheme, now=NOW + apart)

    def test_where_nobody_signs_the_header_the_envelope_says_it(self) -> None:
        body = encode(EVENT)
        fresh = sign("auther-body", body, at=NOW + 7_200)
        with pytest.raises(StaleDelivery):
            read(body, fresh, "auther-body", now=NOW + 7_200)
        assert read(body, fresh, "auther-body", now=NOW).stated_at == datetime(2026, 3, 4, 10, tzinfo=UTC)

    def test_there_an_envelope_without_a_time_is_refused(self) -> None:
        wrong: list[object] = [None, "soon", True, -1, {}]
        for timestamp in wrong:
            with pytest.raises(MalformedDelivery):
                read_event(EVENT | {"timestamp": timestamp}, "auther-body")


class TestBody:
    @pytest.mark.parametrize(
        "body", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b"[" * 60_000, b'{"type":"a","type":"b"}',
                 b'{"type":"\\ud800"}', b'{"type":NaN}', b"\xef\xbb\xbf{}", b"data=%7B%7D"],
    )  # fmt: skip
    def test_what_is_no_json_object_is_refused(self, body: bytes) -> None:
        with pytest.raises(MalformedDelivery) as refused:
            read(body, sign("auther", body))
        assert "60000" not in refused.value.message

    def test_it_must_say_its_type(self) -> None:
        for type in (None, 1, "", "a\0b", "x" * 256, ["user.created"]):
            with pytest.raises(MalformedDelivery, match="type"):
                read_event(EVENT | {"type": type})

    def test_its_id_must_be_that_of_the_header_if_it_has_one(self) -> None:
        for id in ("evt_2", "EVT_1", 1, ["evt_1"]):
            with pytest.raises(MalformedDelivery, match="id"):
                read_event(EVENT | {"id": id})
        assert read_event(EVENT | {"id": None}).id == "evt_1"

    @pytest.mark.parametrize("type", ["user.created", "user.updated", "user.deleted", "user.verified"])
    def test_what_happened_to_a_user_must_say_to_whom(self, type: str) -> None:
        assert read_event(EVENT | {"type": type, "data": {"id": "u" * 255}}).kind == type.removeprefix("user.")
        ids: list[object] = [None, "", True, 1.5, "a\0", "u" * 256]
        for data in (None, [], "ada", {}, *({"id": id} for id in ids)):
            with pytest.raises(MalformedDelivery, match="user"):
                read_event(EVENT | {"type": type, "data": data})

    def test_the_documentation_calls_the_data_payload(self) -> None:
        event = {name: value for name, value in EVENT.items() if name != "data"}
        assert read_event(event | {"payload": {"id": "bob"}}).sub == "bob"
        assert read_event(event | {"payload": {"id": "bob"}, "data": {"id": "ada"}}).sub == "ada"
        assert read_event(event | {"payload": {"id": "bob"}, "data": None}).sub == "bob"

    @pytest.mark.parametrize(
        "type", ["session.created", "account.linked", "grant.revoked", "group.x", "User.Created", "user.created2", "x"]
    )
    def test_a_type_that_is_not_known_is_read_all_the_same(self, type: str) -> None:
        for data in ({"id": "s1"}, None, [1], "x", {"id": 7}):
            event = read_event(EVENT | {"type": type, "data": data})
            assert (event.type, event.kind) == (type, "other")
            assert event.members == (data if isinstance(data, dict) else {})

    def test_only_an_event_of_a_user_is_about_one(self) -> None:
        assert read_event(EVENT | {"type": "session.created", "data": {"id": "s1"}}).sub is None
        assert read_event(EVENT | {"type": "user.banned", "data": {"id": "ada", "banned": True}}).sub == "ada"
        assert read_event(EVENT | {"type": "user.banned", "data": {"id": None}}).sub is None

    def test_a_test_delivery_says_so_and_may_lack_everything_else(self) -> None:
        assert read_event(EVENT | {"testEvent": True}).is_test
        assert read_event(EVENT | {"data": {"testEvent": True, "id": "ada"}}).is_test
        assert read_event(EVENT | {"testEvent": True, "data": {"message": "hello"}}).sub is None
        assert read_event(EVENT | {"testEvent": True, "data": None}).members == {}
        for no_test in (False, None, 0, "yes"):
            assert not read_event(EVENT | {"testEvent": no_test}).is_test

    def test_the_members_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            read_event(EVENT).members["id"] = "eve"  # type: ignore[index]


class TestForm:
    def read(self, fields: Mapping[str, str] | list[tuple[str, str]]) -> IdpEvent:
        body = urlencode(fields).encode()
        return read(body, sign("auther", body), is_form=True)

    def test_the_envelope_may_be_in_fields_with_the_data_as_json(self) -> None:
        fields = {"id": "evt_1", "type": "user.updated", "timestamp": str(NOW), "testEvent": "true"}
        for name in ("data", "payload"):
            event = self.read(fields | {name: '{"id":"ada","name":"Ada Ł & Söhne"}'})
            assert (event.sub, event.members["name"], event.is_test) == ("ada", "Ada Ł & Söhne", True)
            assert event.stated_at == datetime(2026, 3, 4, 10, tzinfo=UTC)

    def test_or_all_of_it_is_json_in_one_field(self) -> None:
        assert self.read({"data": json.dumps(EVENT)}) == read_event(EVENT)
        assert self.read({"payload": json.dumps(EVENT)}) == read_event(EVENT)

    def test_anything_else_is_refused(self) -> None:
        for fields in (
            [("data", "{}")],
            [("data", "ada"), ("type", "user.updated")],
            [("type", "user.updated"), ("type", "user.deleted"), ("data", '{"id":"ada"}')],
            [("id", "evt_2"), ("type", "user.updated"), ("data", '{"id":"ada"}')],
            [],
        ):
            with pytest.raises(MalformedDelivery):
                self.read(fields)

    def test_what_is_json_is_no_form_whatever_its_type_is_said_to_be(self) -> None:
        """The type is signed by nobody, and what a user calls themselves is within the octets that are."""
        name = f"x&type=user.deleted&timestamp={NOW}&data=%7B%22id%22%3A%22victim%22%7D&z="
        for before in (b"", b" \n"):
            body = before + encode({**EVENT, "data": {"id": "ada", "name": name}})
            event = read(body, sign("auther", body, id="evt_1"), is_form=True)
            assert (event.kind, event.sub, event.members["name"]) == ("updated", "ada", name)

    @pytest.mark.parametrize("body", [b"type=%FF&data={}", b"type=\xc3\xa9", b'["type"]'])
    def test_so_is_what_is_no_form(self, body: bytes) -> None:
        with pytest.raises(MalformedDelivery):
            read(body, sign("auther", body), is_form=True)


class TestWhenItWasStated:
    def stated_at(self, type: str = "user.updated", timestamp: object = NOW, **data: object) -> datetime | None:
        return read_event(EVENT | {"type": type, "timestamp": timestamp, "data": {"id": "ada"} | data}).stated_at

    def test_it_is_when_the_user_was_last_updated(self) -> None:
        expected = datetime(2026, 3, 4, 9, 59, 58, 765_000, UTC)
        for updated_at in ("2026-03-04T09:59:58.765Z", "2026-03-04T10:59:58.765+01:00", 1_772_618_398_765):
            assert self.stated_at(updatedAt=updated_at) == expected
        assert self.stated_at(updated_at="2026-03-04T09:59:58.765Z") == expected

    def test_else_when_the_envelope_says_in_seconds_or_milliseconds_or_text(self) -> None:
        unreadable: list[object] = [None, "", "yesterday", True, {}]
        for updated_at in unreadable:
            assert self.stated_at(updatedAt=updated_at) == datetime(2026, 3, 4, 10, tzinfo=UTC)
        assert self.stated_at(timestamp=NOW * 1_000 + 5) == datetime(2026, 3, 4, 10, 0, 0, 5_000, UTC)
        assert self.stated_at(timestamp="2026-03-04T10:00:00.000005Z") == datetime(2026, 3, 4, 10, 0, 0, 5, UTC)

    def test_else_when_the_delivery_was_signed(self) -> None:
        for timestamp in (None, "soon", NOW + 7_200):
            assert self.stated_at(timestamp=timestamp) == datetime(2026, 3, 4, 10, tzinfo=UTC)

    def test_in_the_second_of_the_envelope_the_delivery_is_dated_more_finely(self) -> None:
        body = encode(EVENT)
        for milliseconds, expected in (("600", 600_000), ("000", 0)):
            timestamp = f"{NOW}{milliseconds}"
            signature = hmac.new(SECRET.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
            headers = sign("auther", body) | {"x-webhook-timestamp": timestamp, "x-webhook-signature": signature}
            assert read(body, headers).stated_at == datetime(2026, 3, 4, 10, 0, 0, expected, UTC)

    def test_an_id_that_is_a_number_is_its_digits(self) -> None:
        assert read_event(EVENT | {"data": {"id": 17}}).sub == "17"
        with pytest.raises(MalformedDelivery):
            read_event(EVENT | {"data": {"id": True}})

    def test_a_time_that_is_yet_to_come_is_not_believed(self) -> None:
        assert self.stated_at(updatedAt="2126-01-01T00:00:00Z") == datetime(2026, 3, 4, 10, tzinfo=UTC)

    def test_a_deletion_holds_from_when_it_was_sent_not_from_the_last_update(self) -> None:
        sent = datetime(2026, 3, 4, 10, tzinfo=UTC)
        assert self.stated_at("user.deleted", updatedAt="2025-01-01T00:00:00Z") == sent


class TestMoments:
    def test_no_rounding_loses_a_microsecond(self) -> None:
        assert read_moment("2026-03-04T10:00:00.123457Z") == datetime(2026, 3, 4, 10, 0, 0, 123_457, UTC)
        assert read_moment(1_772_618_400_123) == datetime(2026, 3, 4, 10, 0, 0, 123_000, UTC)
        assert read_moment("1772618400") == read_moment(1_772_618_400.0) == datetime(2026, 3, 4, 10, tzinfo=UTC)

    def test_without_an_offset_it_is_utc_wherever_the_server_stands(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        try:
            assert read_moment("2026-03-04T10:00:00") == datetime(2026, 3, 4, 10, tzinfo=UTC)
        finally:
            monkeypatch.undo()
            time.tzset()

    @pytest.mark.parametrize(
        "value", [None, True, -1, 10**13, 10**400, "", "2026-03-04", "2026-13-01T00:00:00Z", "1969-12-31T23:59:59Z",
                  "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00", [], {}],
    )  # fmt: skip
    def test_anything_else_is_none(self, value: object) -> None:
        assert read_moment(value) is None
