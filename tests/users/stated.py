"""Claims for the tests of this room: what a token of Ada's says, unless told otherwise."""

from __future__ import annotations

from typing import Any

from app.idp.claims import Claims

MONDAY = 1_760_000_000.0
"""Seconds since the epoch: when most of these tokens are issued."""


def claims(sub: str = "ada", **stated: Any) -> Claims:
    """Return Claims of a token issued on Monday, with name, address and picture."""
    said: dict[str, Any] = {
        "iss": "https://idp.example",
        "aud": ("https://api.example",),
        "exp": MONDAY + 900,
        "iat": MONDAY,
        "email": f"{sub}@example.com",
        "email_verified": True,
        "name": "Ada Lovelace",
        "image": "https://example.com/ada.png",
    }
    return Claims(sub=sub, **(said | stated))
