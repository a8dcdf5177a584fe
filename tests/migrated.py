"""Databases at the head revision, as `alembic upgrade head` makes them from an empty one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from tests.postgres import Server


def make_migrated(server: Server, make_database: Callable[[str | None], str]) -> str:
    """Return the URL of a new database at the head revision; the revisions run once a server."""
    if "migrated" not in server.templates:
        template = f"fixture_{os.getpid()}_migrated"
        server.execute(f"CREATE DATABASE {template} TEMPLATE template0 ENCODING 'UTF8'")
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            env=os.environ | {"DATABASE_URL": server.address(template)}, check=True, capture_output=True,
        )  # fmt: skip
        server.templates.add("migrated")
    return make_database("migrated")
