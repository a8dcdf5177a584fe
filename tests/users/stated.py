"""Claims for the tests of this room: what a token of Ada's says, unless told otherwise. And how many are many."""

from __future__ import annotations

import os
from typing import Any

from app.idp.claims import Claims

MONDAY = 1_760_000_000.0
"""Seconds since the epoch: when most of these tokens are issued."""
SCALE = float(os.environ.get("TEST_SCALE", "0.1"))
"""What part of 8,000 requests and of 10,000 events is sent; 1 takes minutes, and must hold as well."""


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
