"""How a test's values are shown in its name: the same in every process, so that tests can be shared out."""

from __future__ import annotations

import hashlib
import re

_KEY_MATERIAL = re.compile(r"'(n|x|y)': '[\w-]+'")


def shown(value: object) -> str:
    """Return a value as text, sets in order, without the keys that are made anew in each process."""
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(repr, value)))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {shown(each)}' for key, each in value.items())}}}"[:80]
    text = _KEY_MATERIAL.sub(r"'\1': ...", str(value))
    return text if len(text) <= 80 else f"{text[:60]}~{hashlib.sha256(text.encode()).hexdigest()[:6]}"
