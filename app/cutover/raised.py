"""Errors that a function of the app's raises, told from those that the server itself has.

The promise: what a function says with RAISE is its own opinion, whatever SQLSTATE it gives it: not a timeout, a full
disk or a lock.
"""

from __future__ import annotations

import re

from sqlalchemy.exc import DBAPIError

_BY_FUNCTION = re.compile(r"PL/pgSQL.* RAISE|PL/(?!pgSQL).*")


def raised_by(error: DBAPIError) -> str | None:
    """Return where a function raised an error, in PostgreSQL's words; None where none did.

    Of PL/pgSQL the context says at which statement: what fails below any other than RAISE may be the server's. The
    other languages do not tell.
    """
    cause = error.orig.__cause__ if error.orig else None
    first = ((getattr(cause, "context", None) or "").splitlines() or [""])[0]
    return first if _BY_FUNCTION.fullmatch(first) else None
