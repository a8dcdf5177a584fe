"""What the provider states of a user, and in what a users row should follow it: pure, no database.

The promise: an older statement never replaces a newer one, silence replaces nothing, and an address is never believed
verified on the strength of another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from app.idp.claims import Claims, read_email, read_email_verified, read_image, read_name, says_no_image

PLACEHOLDER_DOMAIN = "placeholder.invalid"
"""RFC 2606 section 2 keeps `.invalid` from ever being a real domain."""


@dataclass(frozen=True, slots=True)
class ShadowUser:
    """A users row. All times are aware."""

    id: str
    name: str
    stored_email: str
    """As the table has it: a placeholder where no address is known."""
    email_verified: bool
    image: str | None
    onboarding_completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    identity_updated_at: datetime | None

    @property
    def email(self) -> str | None:
        """The address, None if none is known."""
        return None if is_placeholder(self.stored_email) else self.stored_email


@dataclass(frozen=True, slots=True)
class AddressLost:
    """An address was asserted for two users: `loser` has a placeholder now, `winner` the address."""

    loser: str
    winner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRules:
    """What a deployment decides about its rows."""

    app_owned: frozenset[str] = frozenset()
    """Of `name` and `image`: taken from the token at first sight, never overwritten by one."""
    provision_machines: bool = False
    """Also make rows for API keys and client credentials."""
    observe: Callable[[AddressLost], None] = lambda _: None
    """Told of every conflict over an address, after the commit; for counting."""
    wrote: Callable[[Literal["made", "refreshed"]], None] = lambda _: None
    """Told of every row that a token made or changed, after the commit; for counting."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a token or an event says of a user that can be stored, and when it said so. None: it does not say."""

    sub: str
    email: str | None
    email_verified: bool | None
    name: str | None
    image: str | None
    stated_at: datetime | None
    without_image: bool = False
    """Whether it is said that there is no picture."""

    @classmethod
    def of(cls, claims: Claims) -> Identity:
        """Take what can be stored from a token's claims."""
        stated_at = None if claims.iat is None else datetime.fromtimestamp(claims.iat, UTC)
        email, verified = claims.email, claims.email_verified
        stated = cls._storing(claims.sub, email, verified, claims.name, claims.image, stated_at)
        return replace(stated, without_image=claims.without_image)

    @classmethod
    def stated(cls, sub: str, members: Mapping[str, object], stated_at: datetime | None) -> Identity:
        """Take what can be stored from an object that describes a user: an event's, or one of the provider's list."""
        email, verified = read_email(members), read_email_verified(members)
        stated = cls._storing(sub, email, verified, read_name(members), read_image(members), stated_at)
        return replace(stated, without_image=says_no_image(members))

    @classmethod
    def silent(cls, sub: str, stated_at: datetime) -> Identity:
        """Return what says nothing but that there is, or was, a user of that id."""
        return cls(sub, None, None, None, None, stated_at)

    @classmethod
    def _storing(
        cls,
        sub: str,
        email: str | None,
        email_verified: bool | None,
        name: str | None,
        image: str | None,
        stated_at: datetime | None,
    ) -> Identity:
        email = _storable(email)
        if email is not None and is_placeholder(email):
            email = None  # nobody has such an address; believed, it could take another user's placeholder
        return cls(
            sub=sub,
            email=email,
            # Said of an address that is not named, it could be believed of another one.
            email_verified=None if email is None else email_verified,
            name=_storable(name),
            image=_storable(image),
            stated_at=stated_at,
        )

    def brief(self) -> Identity:
        """Return it without what may be too long, or of characters that the app's own columns do not take."""
        return replace(self, name=None, image=None)

    def bare(self) -> Identity:
        """Return it without an address, too."""
        return replace(self.brief(), email=None, email_verified=None)

    @property
    def address(self) -> str:
        """What goes into `email`."""
        return self.email or placeholder(self.sub)

    def is_newer_than(self, moment: datetime | None) -> bool:
        """Tell whether this was stated after `moment`; None means never. What has no date is newer than nothing."""
        return self.stated_at is not None and (moment is None or self.stated_at > moment)

    def brings_back(self, user: ShadowUser) -> bool:
        """Tell whether this, said of a user made anew, is newer than the deletion and than all that is known."""
        return (
            user.deleted_at is not None
            and self.is_newer_than(user.deleted_at)
            and self.is_newer_than(user.identity_updated_at)
        )

    def changes(self, user: ShadowUser, rules: ShadowRules) -> dict[str, Any]:
        """Return the columns, and their values, in which the row should follow."""
        if not self.is_newer_than(user.identity_updated_at):
            return {}
        changes: dict[str, Any] = {}
        for column, stated, known in (("name", self.name, user.name), ("image", self.image, user.image)):
            if stated is not None and stated != known and column not in rules.app_owned:
                changes[column] = stated
        if self.without_image and user.image is not None and "image" not in rules.app_owned:
            changes["image"] = None
        if self.email is not None and self.email != user.stored_email:
            # The old address was verified; silence about the new one is not.
            changes |= {"email": self.email, "email_verified": bool(self.email_verified)}
        elif self.email_verified is not None and self.email_verified != user.email_verified:
            changes["email_verified"] = self.email_verified
        if changes:
            changes["identity_updated_at"] = self.stated_at
        return changes


def placeholder(sub: str, *, distinct: bool = False) -> str:
    """Return what stands in `email`, which is unique and not null, for a user whose address is not known.

    Args:
        sub: the user.
        distinct: one that also differs from those of ids that differ from this in case alone.
    """
    mark = f"+{hashlib.blake2b(sub.encode(), digest_size=4).hexdigest()}" if distinct else ""
    return f"{sub}{mark}@{PLACEHOLDER_DOMAIN}"


def is_placeholder(address: str) -> bool:
    """Tell whether an address is one of ours, also one made for an id that the user had before."""
    return address.lower().endswith(f"@{PLACEHOLDER_DOMAIN}")


def _storable(text: str | None) -> str | None:
    """Return None for a text that PostgreSQL cannot hold: one with a NUL or a lone surrogate."""
    if text is None or "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return None
    return text
