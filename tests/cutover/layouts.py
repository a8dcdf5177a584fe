"""The databases of `tests/fixtures` as those who made them would describe them: where people are, and what was what.

The promise: written by hand from what Better Auth was told when it made them (`tests/betterauth/layouts.mjs`), nothing
asked of the code under test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

_CAMEL = {"email_verified": '"emailVerified"', "created_at": '"createdAt"', "updated_at": '"updatedAt"'}
_AUTH = ("session", "account", "verification", "jwks", "twoFactor")
_ADMIN = ("twoFactorEnabled", "role", "banned", "banReason", "banExpires")
_OAUTH = ("AccessToken", "Client", "ClientAssertion", "ClientResource", "Consent", "RefreshToken", "Resource")


@dataclass(frozen=True)
class Layout:
    """One fixture.

    Args:
        name: of the file.
        users: the table of the people, as SQL.
        going: the tables that Better Auth needed and nobody else does, without their schema.
        lost: the columns of users of the same kind.
        names: the target's columns that have another name here, with that name as SQL.
        id_type: what an id is, as information_schema has it.
        ids_in_users: other columns of users that hold ids of users.
        schema: where all this is, and where users will be.
        without: the target's columns that are not there.
    """

    name: str
    users: str
    going: tuple[str, ...]
    lost: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    id_type: str = "text"
    ids_in_users: tuple[str, ...] = ()
    schema: str = "public"
    without: tuple[str, ...] = ("deleted_at",)

    @property
    def target(self) -> str:
        """Where the people are afterwards, as SQL."""
        return f"{self.schema}.users"

    @property
    def gone(self) -> set[str]:
        """What is to be gone afterwards, as `schema.table`, the old name of users not included."""
        return {f"{self.schema}.{name}" for name in self.going}

    @property
    def settings(self) -> dict[str, str]:
        return {"DATABASE_SCHEMA": self.schema}

    @property
    def rewritten(self) -> bool:
        """Whether ids are no text yet."""
        return self.id_type not in ("text", "character varying")

    def column(self, name: str) -> str:
        """Return what a column of the target is called here, as SQL."""
        return self.names.get(name, name)

    def mirrored(self, *, before: bool) -> str:
        """Return the query for what identities are, moments as seconds since 1970: one without zone is UTC."""
        here, table = (self.column, self.users) if before else (str, self.target)
        absent = self.without if before else ()
        created, updated, deleted = (
            "NULL" if name in absent else f"extract(epoch FROM {here(name)})"
            for name in ("created_at", "updated_at", "deleted_at")
        )
        return (
            f"SELECT id::text AS id, coalesce({here('name')}, '') AS name, {here('email')} AS email, "
            f"coalesce({here('email_verified')}, false) AS email_verified, {here('image')} AS image, "
            f"{created} AS created_at, coalesce({updated}, {created}) AS updated_at, {deleted} AS deleted_at "
            f"FROM {table} ORDER BY 1"
        )


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout(
            "plural_snake",
            "public.users",
            ("sessions", "accounts", "verifications", "jwks", "two_factors"),
            (
                *("status", "deactivated_at", "deactivated_by", "deactivated_reason", "failed_login_attempts"),
                *("locked_until", "role_slugs", "two_factor_enabled"),
            ),
            id_type="character varying",
        ),
        Layout("kysely_singular", 'public."user"', _AUTH, _ADMIN, _CAMEL),
        Layout(
            "soft_delete_singular",
            'public."user"',
            ("session", "account", "verification"),
            names={**_CAMEL, "deleted_at": '"deletedAt"'},
            without=(),
        ),
        Layout(
            "uuid_ids", 'public."user"', ("session", "account", "verification", "jwks"), names=_CAMEL, id_type="uuid"
        ),
        Layout("uuid_kysely", 'public."user"', _AUTH, _ADMIN, _CAMEL, "uuid", ("invitedBy",)),
        Layout("number_ids", 'public."user"', _AUTH, _ADMIN, _CAMEL, "integer", ("invitedBy",)),
        Layout("number_ids_13", 'public."user"', _AUTH, _ADMIN, _CAMEL, "integer", ("invitedBy",)),
        Layout(
            "drizzle_plural",
            "public.users",
            ("sessions", "accounts", "verifications", "jwkss", "two_factors"),
            ("two_factor_enabled", "role", "banned", "ban_reason", "ban_expires"),
        ),
        Layout(
            "renamed_schema",
            "identity.people",
            ("logins", "credentials", "proofs", "signing_keys", "second_factors"),
            names={
                "name": "full_name",
                "email": "email_address",
                "email_verified": "email_confirmed",
                "image": "avatar",
                "created_at": "joined_on",
                "updated_at": "changed_on",
            },
            schema="identity",
        ),
        Layout(
            "mixed",
            "public.members",
            ("session", "accounts", "verification", "jwks", "twoFactor"),
            _ADMIN,
            {"created_at": '"createdAt"', "updated_at": '"updatedAt"'},
        ),
        Layout(
            "plugins_17",
            'public."user"',
            (*_AUTH, "passkey", "apikey", "ssoProvider", *(f"oauth{name}" for name in _OAUTH)),
            (
                *(*_ADMIN, "username", "displayUsername", "phoneNumber", "phoneNumberVerified", "isAnonymous"),
                "lastLoginMethod",
            ),
            _CAMEL,
        ),
        Layout("prisma_like", 'public."user"', _AUTH, _ADMIN, _CAMEL),
        Layout("ba_13", 'public."user"', _AUTH, _ADMIN, _CAMEL),
        Layout("ba_14", 'public."user"', _AUTH, _ADMIN, _CAMEL),
    )
}

TELLING = ("uuid_kysely", "number_ids", "drizzle_plural", "soft_delete_singular")
"""Where what PostgreSQL does differs most from version to version: rewritten ids, and moments that get a zone."""

on_the_newest_server = pytest.mark.parametrize("server", ["embedded"], indirect=True)


def each(*names: str) -> pytest.MarkDecorator:
    """Parametrize with layouts."""
    return pytest.mark.parametrize("layout", [pytest.param(LAYOUTS[name], id=name) for name in names])


each_telling = each(*TELLING)
each_other = each(*(name for name in LAYOUTS if name not in TELLING))
