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
    first = (_context(error) or [""])[0]
    return first if _BY_FUNCTION.fullmatch(first) else None


def arose_in(error: DBAPIError) -> str | None:
    """Return in which function, at which of its lines, an error arose, in PostgreSQL's words; None where in none.

    A line that quotes a statement is passed over: a function may have made that from what is in a row.
    """
    return next((line for line in _context(error) if line.startswith("PL/")), None)


def mentions(context: str, function: str) -> bool:
    """Whether where an error arose, in PostgreSQL's words, is a function.

    Args:
        context: one line of it, or several.
        function: as regprocedure gives it.
    """
    name = function.partition("(")[0].rpartition(".")[2].strip('"')
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", context) is not None


def _context(error: DBAPIError) -> list[str]:
    cause = error.orig.__cause__ if error.orig else None
    return (getattr(cause, "context", None) or "").splitlines()
