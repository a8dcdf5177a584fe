"""Names that stand beside others, in SQL that is to be pasted.

The promise: PostgreSQL does not cut one down to the name that it was to be told apart from.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain, count

LONGEST_NAME = 63
"""Octets that PostgreSQL keeps of a name (NAMEDATALEN - 1); it cuts off the rest, with a mere notice."""


def with_suffix(name: str, suffix: str, taken: Collection[str] = ()) -> str:
    """Return a name with a suffix, shortened so that it fits, and numbered where it is taken.

    Args:
        name: of what gets another name.
        suffix: `_own`, `_old`, in ASCII.
        taken: the names of others beside it.
    """
    suffixes = chain((suffix,), (f"{suffix}{number}" for number in count(2)))
    # a server of another encoding than UTF-8 counts fewer octets, not more
    names = (_cut(name, LONGEST_NAME - len(each)) + each for each in suffixes)
    return next(each for each in names if each not in taken)


def fitting(name: str) -> str:
    """Return as much of a name as PostgreSQL keeps."""
    return _cut(name, LONGEST_NAME)


def _cut(name: str, octets: int) -> str:
    return name.encode()[:octets].decode(errors="ignore")
