"""What is under test, put together over a provider that answers from memory."""

from __future__ import annotations

from typing import Any

from app.idp.claims import ClaimRules
from app.idp.keys import RemoteKeySet
from app.idp.tokens import TokenVerifier
from tests.idp.issuer import ALGORITHMS, AUDIENCE, ISSUER, JWKS_URL, Clock, Provider


def make_keys(provider: Provider, clock: Clock, **changes: Any) -> RemoteKeySet:
    arguments = {
        "issuers": [ISSUER], "jwks_url": JWKS_URL, "algorithms": ALGORITHMS, "client": provider.client, "clock": clock,
    }  # fmt: skip
    return RemoteKeySet(**{**arguments, **changes})


def make_verifier(
    provider: Provider | None = None,
    clock: Clock | None = None,
    *,
    algorithms: tuple[str, ...] = ALGORITHMS,
    cache_size: int = 100,
    **rules: Any,
) -> TokenVerifier:
    """Return a verifier whose two clocks, the one of dates and the one of durations, are one."""
    clock = clock or Clock()
    return TokenVerifier(
        keys=make_keys(provider or Provider(), clock, algorithms=algorithms),
        rules=ClaimRules(**{"issuers": [ISSUER], "audiences": [AUDIENCE], **rules}),
        algorithms=algorithms,
        clock=clock,
        cache_size=cache_size,
    )
