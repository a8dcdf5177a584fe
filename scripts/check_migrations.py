"""Hold the models and the revisions together: `alembic check` on a database made from nothing and on a migrated one.

The promise: it works on an embedded server in a temporary folder, and leaves nothing behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from app import embedded

SAMPLE = Path(__file__).parent.parent / "tests" / "fixtures" / "plural_snake.sql"
PSQL = ("-X", "-q", "-v", "ON_ERROR_STOP=1")


def main() -> int:
    text_ids = (
        "ALTER TABLE users ALTER id TYPE text; COMMENT ON TABLE users IS 'ours'; COMMENT ON COLUMN users.id IS 'x'"
    )
    with TemporaryDirectory(prefix="shadow", ignore_cleanup_errors=True) as folder:
        server = urlsplit(embedded.start(Path(folder) / "data"))
        psql = embedded.programs() / "psql"
        for name in ("empty", "migrated", "commented"):
            url = f"postgresql://{server.netloc}/{name}?{server.query}"
            run([psql, *PSQL, "-c", f"CREATE DATABASE {name}", server.geturl()])
            if name != "empty":
                run([psql, *PSQL, "-f", SAMPLE, url])
            if name == "commented":
                run([psql, *PSQL, "-c", text_ids, url])
            for arguments in (("-x", "accept=identities-not-exported", "upgrade", "head"), ("check",)):
                run([sys.executable, "-m", "alembic", *arguments], DATABASE_URL=url)
            print(f"alembic check: {name} database is what the models say")
    return 0


def run(command: list[str | Path], **environment: str) -> None:
    """Run a command; if it fails, show what it said and end."""
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
