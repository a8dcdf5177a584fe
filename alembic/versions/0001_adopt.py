"""Adopt: add what the server needs; the old app goes on.

Revision ID: 0001_adopt
Revises: None
"""

from __future__ import annotations

from alembic import context

revision = "0001_adopt"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["cutover"].upgrade("adopt")


def downgrade() -> None:
    context.config.attributes["cutover"].undo("adopt")
