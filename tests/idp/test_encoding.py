"""One meaning or none."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.idp.encoding import MAX_DEPTH, Malformed, decode_base64url, parse_object


class TestDecodeBase64url:
    @given(st.binary(min_size=1, max_size=100))
    def test_reads_what_was_written(self, data: bytes) -> None:
        assert decode_base64url(base64.urlsafe_b64encode(data).rstrip(b"=").decode()) == data

    @given(st.text("AQgwBZaz09-_+/=. \n", min_size=1, max_size=12))
    def test_takes_a_text_only_if_it_is_the_spelling_of_its_bytes(self, text: str) -> None:
        try:
            data = decode_base64url(text)
        except Malformed:
            return
        assert base64.urlsafe_b64encode(data).rstrip(b"=").decode() == text

    @pytest.mark.parametrize(
        "text", ["", "A", "AAAAA", "AA==", "AA=", "A+", "A/", "AA\n", " AA", "A A", "AB", "AAB", "ÄA", "\uff21A", "٣A"]
    )
    def test_refuses_every_other_spelling(self, text: str) -> None:
        with pytest.raises(Malformed):
            decode_base64url(text)


class TestParseObject:
    def test_reads_an_object(self) -> None:
        text = '{"a": [1, 2.5, "\\ud83d\\ude00", null, {"b": true}], "ключ": "значение"}'
        assert parse_object(text.encode()) == {"a": [1, 2.5, "😀", None, {"b": True}], "ключ": "значение"}

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b'{"a":1,"a":1}', "twice"),
            (b'{"x":[{"a":1,"\\u0061":2}]}', "twice"),
            (b'{"a":NaN}', "not valid JSON"),
            (b'{"a":-Infinity}', "not valid JSON"),
            (b'{"a":1e400}', "out of range"),
            (b'{"a":-1e400}', "out of range"),
            (b'{"a":' + b"1" * 5_000 + b"}", "not valid JSON"),
            (b'{"a":01}', "not valid JSON"),
            (b'{"a":"\\ud800"}', "lone surrogate"),
            (b'{"\\uDC00\\uD800":1}', "lone surrogate"),
            (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
            (b'{"a":"\xff"}', "not UTF-8"),
            (b'\xef\xbb\xbf{"a":1}', "not valid JSON"),
            ('{"a":1}'.encode("utf-16"), "not UTF-8"),
            ('{"a":1}'.encode("utf-16-le"), "not valid JSON"),
            (b'{"a":"\n"}', "not valid JSON"),
            (b'{"a":1}{}', "not valid JSON"),
            (b'{"a":1} x', "not valid JSON"),
            (b"{'a':1}", "not valid JSON"),
            (b'{"a":1,}', "not valid JSON"),
            (b"", "not valid JSON"),
            (b"[]", "not a JSON object"),
            (b'"a"', "not a JSON object"),
            (b"1", "not a JSON object"),
            (b"null", "not a JSON object"),
        ],
    )
    def test_refuses_what_two_readers_may_read_differently(self, data: bytes, reason: str) -> None:
        with pytest.raises(Malformed, match=reason):
            parse_object(data)

    @pytest.mark.parametrize("opening", ["[", '{"a":', '["]",['])
    def test_refuses_depth_before_it_costs_the_stack(self, opening: str) -> None:
        for depth in (MAX_DEPTH + 1, 1_000, 50_000):
            with pytest.raises(Malformed, match="deeply"):
                parse_object(b'{"a":' + opening.encode() * depth)

    def test_counts_depth_and_not_brackets(self) -> None:
        wide = {"a": [[number] for number in range(500)], "text": "[{" * 500, "quoted": '\\"[[' * 50}
        assert parse_object(json.dumps(wide).encode()) == wide

    def test_takes_the_deepest_that_is_allowed(self) -> None:
        data = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
        assert list(parse_object(data)) == ["a"]

    def test_is_linear_in_unterminated_strings(self) -> None:
        with pytest.raises(Malformed):
            parse_object(b"[" * (MAX_DEPTH + 1) + b'"' + b'\\"' * 500_000)

    @given(
        st.binary(max_size=60)
        | st.text(max_size=60).map(str.encode)
        | st.text('[]{}",:\\ud8ea01', max_size=40).map(str.encode)
    )
    def test_any_bytes_are_an_object_or_malformed(self, data: bytes) -> None:
        try:
            found = parse_object(data)
        except Malformed:
            return
        assert found == json.loads(data)

    @given(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists)))
    def test_reads_every_object_that_a_writer_makes(self, value: dict[str, object]) -> None:
        assert parse_object(json.dumps(value, ensure_ascii=False).encode()) == value
        assert parse_object(json.dumps(value).encode()) == value
