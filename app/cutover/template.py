"""Auther's template layout as a Snapshot, for SQL that is written without a database (`alembic upgrade head --sql`)."""

from __future__ import annotations

from app.cutover.catalog import Column, ForeignKey, Snapshot, Table, quoted
from app.cutover.signatures import TARGET_COLUMNS, USERS


def auther_template(schema: str) -> Snapshot:
    """Return Auther's template layout as a Snapshot, for SQL that is written without a database (`--sql`)."""

    def column(name: str, type_: str, rest: str = "") -> Column:
        default = rest.partition("DEFAULT ")[2] or None
        return Column(name, type_, "NOT NULL" in rest, default, "", "", None, None, (), None)

    def table(name: str, *columns: Column) -> Table:
        return Table(schema, name, "r", "", True, True, -1, 0, None, None, False, False, columns)

    text, moment, key = "text", "timestamp with time zone", "character varying(255)"
    dated = (
        column("created_at", moment, "NOT NULL DEFAULT now()"),
        column("updated_at", moment, "NOT NULL DEFAULT now()"),
    )
    owner = column("user_id", key, "NOT NULL")
    identity = column("id", key, "NOT NULL")
    tables = (
        table(
            USERS,
            identity,
            *(column(n, *TARGET_COLUMNS[n]) for n in ("name", "email", "email_verified", "image")),
            *dated,
            column("status", text, "NOT NULL DEFAULT 'active'::text"),
            column("deactivated_at", moment),
            column("deactivated_by", key),
            column("deactivated_reason", text),
            column("failed_login_attempts", "integer", "NOT NULL DEFAULT 0"),
            column("locked_until", moment),
            column("role_slugs", "text[]", "NOT NULL DEFAULT '{}'::text[]"),
            column("onboarding_completed_at", moment),
            column("two_factor_enabled", "boolean", "NOT NULL DEFAULT false"),
        ),
        table("sessions", identity, column("token", text), column("expires_at", moment), owner),
        table("accounts", identity, column("account_id", text), column("provider_id", text), owner),
        table(
            "verifications", identity, column("identifier", text), column("value", text), column("expires_at", moment)
        ),
        table("jwks", identity, column("public_key", text), column("private_key", text)),
        table("two_factors", identity, column("secret", text), column("backup_codes", text), owner),
    )
    keys = tuple(
        ForeignKey(
            f"{name}_user_id_users_id_fk", (schema, name), ("user_id",), (schema, USERS), ("id",),
            f"FOREIGN KEY (user_id) REFERENCES {quoted(schema, USERS)}(id) ON DELETE CASCADE",
            "a", "c", True, True, None, False,
        )
        for name in ("accounts", "sessions", "two_factors")
    )  # fmt: skip
    return Snapshot("", 0, "", True, True, (schema,), (schema,), tables, keys)
