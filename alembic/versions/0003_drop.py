"""Drop: what was retired goes, object by object. Cannot be undone.

Revision ID: 0003_drop
Revises: 0002_retire
"""

from __future__ import annotations

from alembic import context

revision = "0003_drop"
down_revision = "0002_retire"
branch_labels = None
depends_on = None


def upgrade() -> None:
    context.config.attributes["cutover"].upgrade("drop")


def downgrade() -> None:
    context.config.attributes["cutover"].undo("drop")
