"""The two encodings JOSE is made of, read strictly: base64url (RFC 7515 section 2) and JSON (RFC 8259).

The promise: a text has one meaning or none. What two readers could read differently (padding, a second spelling of the
last character, a member named twice, a lone surrogate, a byte order mark, NaN) is refused, every refusal is a
`Malformed`, and its message holds nothing of the text.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from typing import NoReturn

MAX_DEPTH = 32
"""Objects and lists within each other; no token or key set needs a tenth of it."""

_ALPHABET = re.compile(r"[A-Za-z0-9_-]+")
# The bits a last character holds beyond whole bytes must be zero, or up to sixteen spellings decode to the same bytes.
_CANONICAL_LAST = {0: None, 2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}
_TO_BASE64 = bytes.maketrans(b"-_", b"+/")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class Malformed(ValueError):
    """The text breaks the encoding's rules; the message says which and completes "it ..."."""


def decode_base64url(text: str) -> bytes:
    """Return the bytes of a non-empty unpadded base64url text in its only canonical spelling.

    Raises:
        Malformed: another alphabet, padding, whitespace, an impossible length or a non-canonical last character.
    """
    if _ALPHABET.fullmatch(text) is None:
        raise Malformed("is not base64url")
    remainder = len(text) % 4
    if remainder == 1:
        raise Malformed("is not base64url")
    if (allowed := _CANONICAL_LAST[remainder]) is not None:
        if text[-1] not in allowed:
            raise Malformed("is not canonical base64url")
        text += "=" * (4 - remainder)
    return a2b_base64(text.encode("ascii").translate(_TO_BASE64))


def parse_object(data: bytes) -> dict[str, object]:
    """Return the one JSON object that `data` is.

    Raises:
        Malformed: not UTF-8, not JSON, not an object, nested deeper than `MAX_DEPTH`, a member named twice at any
            depth, a lone surrogate, NaN, Infinity, or a number that no float or integer can hold.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("is not UTF-8") from None
    _refuse_depth(text)
    try:
        value = _DECODER.decode(text)
    except Malformed:
        raise
    except ValueError:  # JSONDecodeError, and the interpreter's limit on the digits of an integer
        raise Malformed("is not valid JSON") from None
    if not isinstance(value, dict):
        raise Malformed("is not a JSON object")
    if _SURROGATE_ESCAPE.search(text) is not None:
        _refuse_lone_surrogates(value)
    return value


def _refuse_depth(text: str) -> None:
    """Keep the recursive parser from meeting the interpreter's recursion limit."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise Malformed("is nested too deeply")


def _refuse_lone_surrogates(value: dict[str, object]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise Malformed("holds a lone surrogate") from None


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Malformed("names a member twice")
    return members


def _constant(_: str) -> NoReturn:
    raise Malformed("is not valid JSON")


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise Malformed("holds a number out of range")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_constant, parse_float=_number)
