"""Flags of the command as a remedy gives them: to be pasted into a shell as they are."""

from __future__ import annotations

import shlex


def flag(name: str, value: str) -> str:
    """Return `--name value`, quoted where a shell would read the value otherwise."""
    return f"--{name} {shlex.quote(value)}"
