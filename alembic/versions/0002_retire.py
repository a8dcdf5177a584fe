"""Retire: the auth tables move to retired_auth, users shrinks; everything is recorded for undo.

Revision ID: 0002_retire
Revises: 0001_adopt
"""

from __future__ import annotations

from alembic import context

revision = "0002_retire"
down_revision = "0001_adopt"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["cutover"].upgrade("retire")


def downgrade() -> None:
    context.config.attributes["cutover"].undo("retire")
