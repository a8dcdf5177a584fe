"""Every layout with text ids: the table the old app has its users in, as that app spells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.interop.oldapp import FOLDER

CAMEL = {
    "id": "id",
    "name": "name",
    "email": "email",
    "email_verified": '"emailVerified"',
    "image": "image",
    "created_at": '"createdAt"',
    "updated_at": '"updatedAt"',
    "onboarding_completed_at": "onboarding_completed_at",
    "deleted_at": "deleted_at",
}
"""The server's names to Better Auth's; the last two are added by adopt where they are not there."""
SNAKE = {name: name for name in CAMEL}


@dataclass(frozen=True)
class Layout:
    """A layout of `tests/betterauth/layouts.mjs`."""

    name: str
    table: str
    columns: Mapping[str, str]
    fixture: str
    altered: str = ""
    """SQL that makes the layout out of the fixture."""
    program: Path = FOLDER / "oldapp.mjs"

    def select(self, where: str = "true") -> str:
        """Return a query of the users, under the server's names."""
        columns = ", ".join(f"{own} AS {name}" for name, own in self.columns.items())
        return f"SELECT {columns} FROM {self.table} WHERE {where}"


def _camel(layout: str, /, table: str = 'public."user"', **columns: str) -> Layout:
    return Layout(layout, table, CAMEL | columns, layout)


LAYOUTS = (
    _camel("kysely_singular"),
    _camel("soft_delete_singular", deleted_at='"deletedAt"'),
    Layout("plural_snake", "public.users", SNAKE, "plural_snake"),
    Layout("drizzle_plural", "public.users", SNAKE, "drizzle_plural"),
    _camel(
        "renamed_schema",
        "identity.people",
        name="full_name",
        email="email_address",
        email_verified="email_confirmed",
        image="avatar",
        created_at="joined_on",
        updated_at="changed_on",
    ),
    _camel("mixed", "public.members", email_verified="email_verified"),
    _camel("prisma_like"),
    _camel("ba_13"),
    _camel("ba_14"),
    _camel("plugins_17"),
    # the server's view cannot be beside a table of its own name
    Layout(
        "users_camel",
        "public.users",
        CAMEL,
        "kysely_singular",
        'ALTER TABLE "user" RENAME TO users',
        Path(__file__).with_name("users_camel.mjs"),
    ),
)
