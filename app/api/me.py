"""GET, PATCH and DELETE /me: the shadow row of whoever is asking, as the clients of the old backend read it.

The promise: the provider's fields are read here and never written; what a body names and this API cannot do is an
error that names it, not silence. What a client read it can send back: that is no change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, UTC, datetime
from typing import Annotated, Any

from litestar import Controller, Request, delete, get, patch
from litestar.datastructures import CacheControlHeader
from litestar.di import NamedDependency
from litestar.openapi.spec import OpenAPIType
from litestar.params import JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert
from sqlalchemy.ext.asyncio import AsyncEngine

from app import errors
from app.api.auth import Principal, read_token
from app.api.problems import answers
from app.idp.claims import Claims
from app.idp.userinfo import Userinfo
from app.users.identity import ShadowRules, ShadowUser
from app.users.shadow import Edit, edit, provision, refresh, soft_delete

Time = Annotated[str, Meta(extra_json_schema={"extra": {"format": "date-time"}})]
"""ISO 8601 in UTC with milliseconds, as JavaScript's `toISOString` writes it."""
# The patterns are in the document, and checked here: what a library says of them nobody understands. Python's `$` would
# let a last newline pass; (?![\s\S]) means the end in every dialect.
_NAME = r"^[^\u0000]*[^\s\u0000][^\u0000]*(?![\s\S])"
_IMAGE = r"^(https?://[^\s\u0000-\u001f\u007f]+)?(?![\s\S])"
_LONGEST_NAME, _LONGEST_IMAGE = 255, 2_048
_AS_READ = "What GET shows is taken back as it is, whatever it is"
# `object`, and the type in the document alone: who sends null for a field of the provider's is to hear whose it is.
Name = Annotated[
    object,
    Meta(
        examples=["Ada Lovelace"],
        extra_json_schema={
            "extra": {
                "type": OpenAPIType.STRING,
                "min_length": 1,
                "max_length": _LONGEST_NAME,
                "pattern": _NAME,
                "description": f"{_AS_READ}.",
            }
        },
    ),
]
"""With something in it that can be seen, and without the NUL that PostgreSQL cannot hold."""
ImageURL = Annotated[
    object,
    Meta(
        examples=["https://example.com/ada.png"],
        extra_json_schema={
            "extra": {
                "type": [OpenAPIType.STRING, OpenAPIType.NULL],
                "max_length": _LONGEST_IMAGE,
                "pattern": _IMAGE,
                "description": f"Empty means null. {_AS_READ}.",
            }
        },
    ),
]
Mirrored = Annotated[object, Meta(extra_json_schema={"extra": {"read_only": True}})]
_COMMON = (
    errors.MalformedRequest,
    errors.MissingCredentials,
    errors.InvalidToken,
    errors.InsufficientScope,
    errors.NoProfile,
    errors.AccountDeleted,
    errors.AccountDisabled,
    errors.KeysUnavailable,
    errors.DatabaseUnreachable,
    errors.NotMigrated,
    errors.Contended,
)


class UserView(Struct, rename="camel"):
    """The user; `email` is null while the provider has said none."""

    id: str
    name: str
    email: str | None
    email_verified: bool
    image: str | None
    onboarding_completed_at: Time | None
    created_at: Time
    updated_at: Time

    @classmethod
    def of(cls, user: ShadowUser) -> UserView:
        """Return what is shown of a row."""
        return cls(
            id=user.id,
            name=user.name,
            email=user.email,
            email_verified=user.email_verified,
            image=user.image,
            onboarding_completed_at=None if (done := user.onboarding_completed_at) is None else iso(done),
            created_at=iso(user.created_at),
            updated_at=iso(user.updated_at),
        )


class Me(Struct):
    """The answer of GET and PATCH."""

    user: UserView


class Deleted(Struct):
    """The answer of DELETE."""

    success: bool


class ProfileEdit(Struct, rename="camel", forbid_unknown_fields=True):
    """What PATCH takes: what is left out stays as it is. `name` and `image` only where the app owns them.

    The provider's word was taken where this API is stricter (no name, an image that is no address on the web), so a
    value is checked only if it is another than the one that is shown.
    """

    onboarding_completed_at: Time | UnsetType | None = UNSET
    name: Name | UnsetType = UNSET
    image: ImageURL | UnsetType = UNSET
    email: Mirrored | UnsetType = UNSET
    email_verified: Mirrored | UnsetType = UNSET

    def changes(self, user: ShadowUser, app_owned: frozenset[str], account_url: str | None) -> Edit:
        """Return the columns to write: those whose value is another than the user's.

        Raises:
            IdentityField: the body names a field that the provider owns.
            InvalidEdit: the time, the name or the address is none.
        """
        mirrored = {"name": self.name, "email": self.email, "emailVerified": self.email_verified, "image": self.image}
        for field, value in mirrored.items():
            if value is not UNSET and field not in app_owned:
                raise errors.IdentityField(field, account_url)
        shown, changes = UserView.of(user), Edit()
        done = self.onboarding_completed_at
        if done is not UNSET and done != shown.onboarding_completed_at:
            changes["onboarding_completed_at"] = parse_time("onboardingCompletedAt", done)
        if self.name is not UNSET and self.name != shown.name:
            changes["name"] = _checked_name(self.name)
        if self.image is not UNSET and self.image != shown.image:
            image = _checked_image(self.image)
            if image != shown.image:
                changes["image"] = image
        return changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a deployment decides about /me."""

    rules: ShadowRules
    account_url: str | None
    """Where users change what the provider owns."""
    userinfo: Userinfo | None = None
    """What is asked for the e-mail that a token lacks."""


class MeController(Controller):
    """The routes."""

    path = "/me"
    tags = ("Me",)
    cache_control = CacheControlHeader(no_store=True)

    @get(summary="Read the user", responses=answers(*_COMMON))
    async def read(self, user: NamedDependency[ShadowUser]) -> Me:
        """Return the user who is asking; the first request makes the row."""
        return Me(UserView.of(user))

    @patch(
        summary="Change what the app owns",
        responses=answers(400, 413, 415, *_COMMON, errors.ForeignOrigin, errors.InvalidEdit, errors.IdentityField),
    )
    async def change(
        self,
        data: JSONBody[ProfileEdit],
        user: NamedDependency[ShadowUser],
        database: NamedDependency[AsyncEngine],
        profile: NamedDependency[Profile],
    ) -> Me:
        """Change the fields that the app owns; a field of the provider's is refused, with where to change it."""
        changes = data.changes(user, profile.rules.app_owned, profile.account_url)
        return Me(UserView.of(await edit(database, user.id, changes) if changes else user))

    @delete(summary="Delete the user", status_code=200, responses=answers(*_COMMON, errors.ForeignOrigin))
    async def remove(
        self,
        principal: NamedDependency[Principal],
        user: NamedDependency[ShadowUser],
        database: NamedDependency[AsyncEngine],
    ) -> Deleted:
        """Soft-delete the user: from then on every token of theirs is answered with 403 `account_deleted`.

        An API key or another machine's token cannot do it.
        """
        if principal.kind == "machine":
            raise errors.InsufficientScope("A machine's token cannot delete an account; a person's can.")
        await soft_delete(database, user.id)
        return Deleted(success=True)


async def provide_user(
    request: Request[Principal, Claims, Any],
    database: NamedDependency[AsyncEngine],
    profile: NamedDependency[Profile],
) -> ShadowUser:
    """Return the row of who is asking, made or refreshed if need be; the dependency `user`."""
    claims = request.auth
    user = await provision(database, claims, profile.rules)
    if profile.userinfo is None or claims.email is not None or user.email is not None:
        return user
    if (token := _presented_jwt(request)) is None:
        return user
    if (enriched := await profile.userinfo.enrich(claims, token)) is None:
        return user
    try:
        return await refresh(database, user, enriched, profile.rules)
    except errors.Contended:  # what the request asked for is there; the rest comes with another one
        return user


def _presented_jwt(request: Request[Principal, Claims, Any]) -> str | None:
    """Return the provider's token, None if it was a session of the old app that let the request in."""
    try:
        token = read_token(request.headers.getall("authorization", []))
    except errors.MissingCredentials:
        return None
    return token if token.count(".") == 2 else None


def iso(moment: datetime) -> str:
    """Write an aware time as JavaScript's `toISOString` does: UTC, milliseconds, Z."""
    # asyncpg gives PostgreSQL's infinities as the ends of datetime's range, from which no shift to UTC is possible
    inside = MINYEAR < moment.year < MAXYEAR
    utc = moment.astimezone(UTC) if inside else moment.replace(tzinfo=UTC)
    return utc.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or not re.match(_NAME, name):
        raise errors.InvalidEdit(
            f"name must have 1 to {_LONGEST_NAME} characters, at least one of them visible, and no NUL.", field="name"
        )
    return name


def _checked_image(url: object) -> str | None:
    if url is None or url == "":
        return None
    if not isinstance(url, str) or len(url) > _LONGEST_IMAGE or not re.match(_IMAGE, url):
        raise errors.InvalidEdit(
            f"image must be null, empty, or an http:// or https:// address of at most {_LONGEST_IMAGE:,} characters, "
            "without spaces.",
            field="image",
        )
    return url


def parse_time(field: str, text: str | None) -> datetime | None:
    """Read a time with an offset (RFC 3339), in UTC.

    Raises:
        InvalidEdit: it is none, or not between the years 2 and 9998.
    """
    if text is None:
        return None
    try:
        moment: datetime = convert(text, Annotated[datetime, Meta(tz=True)])
        moment = moment.astimezone(UTC)
        # asyncpg would store the ends of the range as PostgreSQL's infinities
        if not MINYEAR < moment.year < MAXYEAR:
            raise OverflowError
        return moment
    except (ValidationError, OverflowError):
        raise errors.InvalidEdit(
            f"{field} must be null or a time with an offset, 2026-03-04T10:00:00.000Z say.", field=field
        ) from None
