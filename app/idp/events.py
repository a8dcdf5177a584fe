"""Webhooks: what the provider tells unasked. Signature and age first, then the body, read into an IdpEvent.

    read_headers ─▶ UnverifiedDelivery ─▶ signature ─▶ age ─▶ body ─▶ IdpEvent
    MalformedDelivery                     InvalidSignature    MalformedDelivery
                                                       StaleDelivery

    scheme        headers               signed content             signature                    secret
    auther        x-webhook-*, ms       <timestamp>.<body>         HMAC-SHA256, lower-case hex  verbatim
    auther-body   x-webhook-*           <body>                     HMAC-SHA256, lower-case hex  verbatim
    standard      webhook-*, seconds    <id>.<timestamp>.<body>    v1,<base64>, one or several  whsec_<base64>

With `auther-body` the timestamp header is signed by nobody: the age is that of the envelope's timestamp.

The promise: nothing of a body is parsed before a secret is known to have signed those very octets, the comparison takes
the same time wherever they differ, and no message holds a secret, a signature or a part of the body.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Literal
from urllib.parse import parse_qsl

from app.errors import InvalidSignature, MalformedDelivery, StaleDelivery
from app.idp.encoding import Malformed, parse_object

Scheme = Literal["auther", "auther-body", "standard"]
Kind = Literal["created", "updated", "deleted", "verified", "other"]

WINDOW = timedelta(hours=1)
"""How far a delivery's timestamp may be from now, either way. Auther's last retry comes 33 minutes after the first
attempt and carries its timestamp; ids tell repetitions apart, so a wide window costs nothing."""
MAX_ID = 255
"""Characters of an event's id, its type, and a user's id."""

_KINDS: Mapping[str, Kind] = {
    "user.created": "created",
    "user.updated": "updated",
    "user.deleted": "deleted",
    "user.verified": "verified",
}
_DIGITS = re.compile(r"[0-9]{1,16}")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAST_MILLISECONDS = 100_000_000_000
"""The year 5138 in seconds, 1973 in milliseconds: what is more counts milliseconds."""
_LAST = 9_999_999_999_999
"""2286 in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdpEvent:
    """What the provider said in a delivery whose signature and age were both checked."""

    id: str
    """The same on every retry."""
    type: str
    """As sent."""
    kind: Kind
    sub: str | None
    """The user whom it is about; None where it is about something else."""
    stated_at: datetime | None
    """In UTC: as of when it holds, by which statements about a user are ordered."""
    members: Mapping[str, object]
    """What is said of the user, for the readers of `app.idp.claims`."""
    is_test: bool
    """A test delivery: to be recorded, never applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedDelivery:
    """The headers of a delivery, well-formed and not yet to be believed."""

    id: str
    timestamp: str
    moment: datetime
    """The timestamp as a time."""
    signature: str


class EventReader:
    """Turns deliveries into events.

    Args:
        scheme: how they are signed.
        secrets: what signs them; two, while one replaces the other.
        clock: seconds since the epoch.

    Raises:
        ValueError: no secret, an empty one, or for `standard` one that is not base64.
    """

    def __init__(self, *, scheme: Scheme, secrets: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        self._scheme: Scheme = scheme
        self._keys = [read_key(scheme, secret) for secret in secrets]
        if not self._keys:
            raise ValueError("there must be a secret")
        self._clock = clock
        in_seconds = scheme == "standard"
        prefix = "webhook" if in_seconds else "x-webhook"
        self.headers = (f"{prefix}-id", f"{prefix}-timestamp", f"{prefix}-signature")
        """The names of the headers that hold id, timestamp and signature."""
        self.patterns = (f"[!-~]{{1,{MAX_ID}}}", "[0-9]{1,11}" if in_seconds else "[0-9]{1,13}", r"\S.*")
        """What each of them looks like. More digits would count milliseconds as seconds, or go beyond 2286."""

    def read_headers(self, values: Callable[[str], Sequence[str]]) -> UnverifiedDelivery:
        """Return what the headers say.

        Args:
            values: returns all values of the header of that name (lower case).

        Raises:
            MalformedDelivery: one is missing, there more than once, or of another form.
        """
        id, timestamp, signature = (_only(values(name), name) for name in self.headers)
        if re.fullmatch(self.patterns[0], id) is None:
            raise MalformedDelivery(f"The id of the delivery is not 1 to {MAX_ID} visible characters of ASCII.")
        moment = read_moment(timestamp) if re.fullmatch(self.patterns[1], timestamp) else None
        if moment is None:
            unit = "seconds" if self._scheme == "standard" else "milliseconds"
            raise MalformedDelivery(f"The timestamp of the delivery does not count {unit} since 1970.")
        return UnverifiedDelivery(id=id, timestamp=timestamp, moment=moment, signature=signature)

    def verify(self, unverified: UnverifiedDelivery, body: bytes) -> None:
        """Check that a secret signed the delivery.

        Raises:
            InvalidSignature: none did.
        """
        # Standard Webhooks sends one signature a key, with other versions among them; Auther sends one.
        sent = unverified.signature.split(" ") if self._scheme == "standard" else [unverified.signature]
        for key in self._keys:
            expected = self._sign(key, unverified, body)
            if any(hmac.compare_digest(expected, each.encode("latin-1", "replace")) for each in sent):
                return
        raise InvalidSignature("The signature is not that of this body under the secret of this endpoint.")

    def read(self, unverified: UnverifiedDelivery, body: bytes, *, is_form: bool = False) -> IdpEvent:
        """Return the event.

        Args:
            unverified: the headers.
            body: the octets as they came.
            is_form: they are said to be `application/x-www-form-urlencoded`.

        Raises:
            InvalidSignature: nobody who knows a secret sent it.
            StaleDelivery: its timestamp is more than `WINDOW` from now.
            MalformedDelivery: the body is no event.
        """
        self.verify(unverified, body)
        signed_moment = None if self._scheme == "auther-body" else unverified.moment
        if signed_moment is not None:
            self._check_age(signed_moment)
        # the body's type is signed by nobody: what is JSON is never read as a form, in which it says something else
        is_json = not is_form or body.lstrip().startswith(b"{")
        envelope = _parse(body, "body") if is_json else _read_form(body)
        told_at = read_moment(envelope.get("timestamp"))
        if signed_moment is None:
            if told_at is None:
                raise MalformedDelivery("The event does not say when it was sent.")
            self._check_age(told_at)
        elif told_at is not None and told_at == signed_moment.replace(microsecond=0):
            told_at = signed_moment  # the same, and finer: of two events of one second it tells which came first
        return self._event(unverified.id, envelope, (told_at, signed_moment))

    def _event(self, id: str, envelope: Mapping[str, object], sent_at: tuple[datetime | None, ...]) -> IdpEvent:
        if (own_id := envelope.get("id")) is not None and own_id != id:
            raise MalformedDelivery("The id of the event is not that of the delivery.")
        type = envelope.get("type")
        if not isinstance(type, str) or not _is_storable(type):
            raise MalformedDelivery("The event does not say of which type it is.")
        members = next((found for name in ("data", "payload") if isinstance(found := envelope.get(name), dict)), {})
        is_test = any(told.get("testEvent") in (True, "true") for told in (envelope, members))
        kind = _KINDS.get(type, "other")
        sub = members.get("id") if type.startswith("user.") else None
        if isinstance(sub, int) and not isinstance(sub, bool):
            sub = str(sub)  # Better Auth with ids that are numbers; in tokens they are text
        if not isinstance(sub, str) or not _is_storable(sub):
            if kind != "other" and not is_test:
                raise MalformedDelivery("The event does not say which user it is about.")
            sub = None
        return IdpEvent(
            id=id,
            type=type,
            kind=kind,
            sub=sub,
            stated_at=self._stated_at(kind, members, sent_at),
            members=MappingProxyType(members),
            is_test=is_test,
        )

    def _stated_at(
        self, kind: Kind, members: Mapping[str, object], sent_at: tuple[datetime | None, ...]
    ) -> datetime | None:
        """Return as of when the event holds: as of the user's last update where it says so, else when it was sent."""
        updated_at = read_moment(members.get("updatedAt", members.get("updated_at")))
        # When a user who is gone was last updated does not say since when they are gone.
        moments = sent_at if kind == "deleted" else (updated_at, *sent_at)
        latest = self._now() + WINDOW  # believed, a time beyond it would keep every later statement out
        return next((moment for moment in moments if moment is not None and moment <= latest), None)

    def _check_age(self, moment: datetime) -> None:
        if abs(self._now() - moment) > WINDOW:
            raise StaleDelivery("The timestamp of the delivery is more than an hour from now.")

    def _now(self) -> datetime:
        return _EPOCH + timedelta(seconds=self._clock())

    def _sign(self, key: bytes, unverified: UnverifiedDelivery, body: bytes) -> bytes:
        """Return the signature header that the delivery should have, as octets."""
        match self._scheme:
            case "auther":
                content = b"%s.%s" % (unverified.timestamp.encode(), body)
            case "auther-body":
                content = body
            case "standard":
                content = b"%s.%s.%s" % (unverified.id.encode(), unverified.timestamp.encode(), body)
        digest = hmac.digest(key, content, "sha256")
        return b"v1," + base64.b64encode(digest) if self._scheme == "standard" else digest.hex().encode()


def read_key(scheme: Scheme, secret: str) -> bytes:
    """Return the key that a secret stands for.

    Raises:
        ValueError: it is empty, or not of the scheme's form.
    """
    key = (
        base64.b64decode(secret.removeprefix("whsec_"), validate=True) if scheme == "standard" else secret.encode()
    )  # a binascii.Error is a ValueError
    if not key:
        raise ValueError("the secret must not be empty")
    return key


def read_moment(value: object) -> datetime | None:
    """Return a time in UTC: ISO 8601 (without an offset it is UTC), or seconds or milliseconds since 1970.

    None for anything else, and for what lies before 1970 or after 2286. A number may come as text, as forms send it.
    """
    if isinstance(value, str):
        if _DIGITS.fullmatch(value):
            return read_moment(int(value))
        if _ISO.match(value) is None:
            return None
        try:
            moment = datetime.fromisoformat(value)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            return None
        return moment if _EPOCH <= moment <= _EPOCH + timedelta(milliseconds=_LAST) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST:
        return None
    return _EPOCH + timedelta(milliseconds=value if value > _LEAST_MILLISECONDS else value * 1_000)


def _only(values: Sequence[str], name: str) -> str:
    if len(values) != 1 or not values[0].strip():
        raise MalformedDelivery(f"There must be one {name} header.")
    return values[0].strip()


def _is_storable(text: str) -> bool:
    return 0 < len(text) <= MAX_ID and "\0" not in text


def _parse(text: bytes, what: str) -> dict[str, object]:
    try:
        return parse_object(text)
    except Malformed as malformed:
        raise MalformedDelivery(f"The {what} {malformed}.") from None


def _read_form(body: bytes) -> dict[str, object]:
    """Return the envelope of a form: its fields, with `data` as JSON; or `data` alone, which then is all of it."""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:  # a UnicodeDecodeError is one
        raise MalformedDelivery("The body is not a form.") from None
    fields: dict[str, object] = dict(pairs)
    if len(fields) != len(pairs):
        raise MalformedDelivery("The form has a field twice.")
    objects = {name: _parse(text.encode(), name) for name, text in pairs if name in ("data", "payload")}
    if "type" not in fields and objects:
        return next(iter(objects.values()))
    return fields | objects
