"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}

What the cutover needs stands in 0001 to 0003. A revision of your own comes after them; keep it short-locked:
one statement per `op.execute`, indexes CONCURRENTLY in an autocommit_block, foreign keys NOT VALID first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
