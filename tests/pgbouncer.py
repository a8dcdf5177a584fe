"""A real PgBouncer before a test's server."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
INSTALLED = pytest.mark.skipif(PROGRAM is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)")
DEADLINE = 10.0


@contextmanager
def before(url: str) -> Iterator[Callable[..., str]]:
    """Yield what starts PgBouncer before a database: `start("session", "option = value")` is the address through it.

    Args:
        url: of the database, on a Unix socket.
    """
    assert PROGRAM
    parts = urlsplit(url)
    sockets = parse_qs(parts.query)["host"][0]
    folder = Path(tempfile.mkdtemp(prefix="pool"))
    # it refuses to run as root; who owns the server's folder may enter it
    user = os.stat(sockets).st_uid if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, user, -1)
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str, *options: str) -> str:
        lines = (
            "[databases]", f"* = host={sockets} user=postgres",
            "[pgbouncer]", "listen_addr =", f"unix_socket_dir = {folder}", "listen_port = 6432", "auth_type = any",
            f"pool_mode = {mode}", *options,
        )  # fmt: skip
        (folder / "ini").write_text("\n".join(lines))
        started.append(subprocess.Popen([PROGRAM, "-q", folder / "ini"], user=user))
        end = time.monotonic() + DEADLINE
        while not (folder / ".s.PGSQL.6432").exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        return f"postgresql://postgres@{parts.path}?host={folder}&port=6432"

    try:
        yield start
    finally:
        for process in started:
            process.terminate()
            process.wait(DEADLINE)
        shutil.rmtree(folder)
