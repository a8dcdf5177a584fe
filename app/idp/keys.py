"""RemoteKeySet: the provider's public keys, kept fresh, and served through its outages.

            a fetch is good               time passes
    EMPTY ──────────────────▶ FRESH ──────────────────▶ STALE ── 24 h without a good fetch ──▶ DEAD
      ▲                         ▲                         │                                     │
      │ start                   ├───── a fetch is good ───┘                                     │
                                └───── a fetch is good ─────────────────────────────────────────┘

    EMPTY  nothing was fetched yet: a question waits for a fetch; if that fails, KeysUnavailable
    FRESH  answered from memory
    STALE  answered from memory, while one fetch runs in the background; retried with backoff
    DEAD   too old to be trusted: as EMPTY

A kid that is not in the set is looked up at once, for providers sign with a new key the moment they have it; then not
again for a cooldown, counted from the attempt, failed or not. Whoever asks in between is told what the last look-up
said: the key is unknown, or it cannot be told.

The promise: one fetch at a time, however many wait, and a waiter that is cancelled does not take it along; an answer
that is unusable, empty or late never replaces a good set; a key that the provider withdrew is gone with the next good
fetch; an unchanged key stays the same object across fetches, so that `is` tells whether a key is still live.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import httpx

from app.errors import KeysUnavailable
from app.idp.documents import FetchFailed, discover_key_set, fetch, is_trustworthy
from app.idp.encoding import Malformed
from app.idp.jwks import SkippedKey, VerificationKey, check_algorithms, parse_key_set, register_key_classes

_log = logging.getLogger(__name__)
_MAX_AGE = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?([0-9]{1,10})', re.IGNORECASE)


class KeySetState(enum.Enum):
    """Where a key set stands; the module's docstring draws it."""

    EMPTY = "empty"
    FRESH = "fresh"
    STALE = "stale"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The durations a key set lives by, all in seconds."""

    fetch_limit: float = 5.0
    """For one attempt as a whole: discovery, connection and the last octet of the body."""
    freshness: float = 300.0
    """How long a set is fresh if the answer has no `Cache-Control: max-age`."""
    freshness_bounds: tuple[float, float] = (60.0, 3_600.0)
    """What a `max-age` is held within."""
    cooldown: float = 10.0
    """From one look-up of an unknown kid to the next."""
    backoff_bounds: tuple[float, float] = (1.0, 10.0)
    """After a failed fetch, the pause before the next; it doubles from the first value to the second."""
    outage: float = 86_400.0
    """How long after the last good fetch a set is still served."""


class _Fetched(NamedTuple):
    """What a good fetch brought: keys by kid, the address they came from, and how many seconds they are fresh."""

    keys: Mapping[str, VerificationKey]
    url: str
    freshness: float


class RemoteKeySet:
    """The keys of one provider.

    Args:
        issuers: the issuers that share the key set; discovery asks the first.
        jwks_url: where the key set is; None means that discovery says.
        algorithms: JWS algorithms to load keys for.
        client: makes the requests; it belongs to the caller.
        clock: seconds from any origin, never going back.
        timing: the durations.

    Raises:
        ValueError: no issuer, an address that is neither https nor http on loopback, or an unusable algorithm.
    """

    def __init__(
        self,
        *,
        issuers: Sequence[str],
        jwks_url: str | None,
        algorithms: Collection[str],
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
        timing: Timing | None = None,
    ) -> None:
        if isinstance(issuers, str) or not issuers:
            raise ValueError("issuers must be a sequence of at least one issuer")
        if not is_trustworthy(issuers[0] if jwks_url is None else jwks_url):
            raise ValueError("the address of the key set, or else the first issuer, must be https or loopback")
        register_key_classes()
        self._issuers = tuple(issuers)
        self._jwks_url = jwks_url
        self._discovered_url: str | None = None
        self._algorithms = check_algorithms(algorithms)
        self._client = client
        self._clock = clock
        self._timing = timing or Timing()

        self._keys: Mapping[str, VerificationKey] = MappingProxyType({})
        self._skipped: tuple[SkippedKey, ...] = ()
        self._stale_at = self._dead_at = -math.inf
        self._failures = 0
        self._retry_at = -math.inf
        self._look_up_at = -math.inf
        self._look_up_failed = False
        self._fault: str | None = None
        self._fetching: asyncio.Task[_Fetched] | None = None

    @property
    def state(self) -> KeySetState:
        """Where the set stands now."""
        now = self._clock()
        if now < self._stale_at:
            return KeySetState.FRESH
        if now < self._dead_at:
            return KeySetState.STALE
        return KeySetState.DEAD if self._keys else KeySetState.EMPTY

    @property
    def fault(self) -> str | None:
        """Why the last fetch failed, in a sentence for the operator; None if it did not."""
        return self._fault

    def get(self, kid: str) -> VerificationKey | None:
        """Return the live key with this kid if that can be told from memory; the quick path, in a running loop.

        A stale set starts its refresh here. None says nothing about the key: ask `find`.
        """
        now = self._clock()
        if now >= self._stale_at:
            if now >= self._dead_at:
                return None
            if self._fetching is None and now >= self._retry_at:
                self._start_fetch()
        return self._keys.get(kid)

    async def find(self, kid: str) -> VerificationKey | None:
        """Return the live key with this kid, or None if the provider has none, fetching the set if need be.

        Raises:
            KeysUnavailable: it cannot be told.
        """
        earlier = self._fetching
        if (key := self.get(kid)) is not None:
            return key
        if earlier is not None:
            await self._join(earlier)
            if (key := self._keys.get(kid)) is not None:
                return key
            # What it brought may be older than the question: go on and ask again.
        task = self._fetching or (self._look_up() if self._is_servable() else self._load())
        if task is None:
            return None
        await self._join(task)
        return self._keys.get(kid)

    async def ensure(self) -> None:
        """Fetch the set unless one can be served; for start-up and readiness.

        Raises:
            KeysUnavailable: there is none and none can be had.
        """
        if not self._is_servable():
            await self._join(self._fetching or self._load())

    async def aclose(self) -> None:
        """Cancel a fetch that is under way; who waits for it gets KeysUnavailable."""
        if (task := self._fetching) is not None:
            task.cancel()
            await asyncio.wait({task})

    def _is_servable(self) -> bool:
        return self._clock() < self._dead_at

    def _load(self) -> asyncio.Task[_Fetched]:
        """Start the fetch that an empty or dead set needs, unless the last one failed a moment ago."""
        if self._clock() < self._retry_at:
            raise self._unavailable()
        return self._start_fetch()

    def _look_up(self) -> asyncio.Task[_Fetched] | None:
        """Start the fetch that an unknown kid asks for; None if the last one was good and a moment ago."""
        now = self._clock()
        if now >= self._look_up_at:
            self._look_up_at = now + self._timing.cooldown
            self._look_up_failed = True  # until it succeeds
            return self._start_fetch()
        if self._look_up_failed:
            raise self._unavailable()
        return None

    def _start_fetch(self) -> asyncio.Task[_Fetched]:
        # Nobody's own task: it outlives the request that happened to start it, and does not log in that one's name.
        context = Context()
        task = asyncio.create_task(self._fetch(), name="fetch of the key set", context=context)
        task.add_done_callback(self._settle, context=context)
        self._fetching = task
        return task

    async def _join(self, task: asyncio.Task[_Fetched]) -> None:
        """Wait for a fetch, which goes on if the waiter is cancelled; `_settle`, added first, has run before this."""
        await asyncio.wait({task})
        if task.cancelled() or task.exception() is not None:
            raise self._unavailable()

    async def _fetch(self) -> _Fetched:
        try:
            async with asyncio.timeout(self._timing.fetch_limit):
                url = self._jwks_url or self._discovered_url
                if url is None:
                    url = await discover_key_set(self._client, self._issuers)
                body, headers = await fetch(self._client, url)
        except TimeoutError:
            raise FetchFailed(f"No key set within {self._timing.fetch_limit:g} seconds.") from None
        try:
            key_set = parse_key_set(body, self._algorithms)
        except Malformed as malformed:
            raise FetchFailed(f"The key set {malformed}.") from None
        self._report_skipped(key_set.skipped)
        if not key_set.keys:
            raise FetchFailed("The key set holds no key that can be used.")
        return _Fetched(key_set.keys, url, self._freshness(headers))

    def _settle(self, task: asyncio.Task[_Fetched]) -> None:
        """Take over what a fetch brought. A task that was cancelled or broke by a fault of ours ends here too."""
        self._fetching = None
        if task.cancelled():
            return
        if (error := task.exception()) is None:
            self._install(task.result())
            return
        shortest, longest = self._timing.backoff_bounds
        self._retry_at = self._clock() + min(shortest * 2.0 ** min(self._failures, 30), longest)
        self._failures += 1
        self._discovered_url = None
        self._fault = str(error) if isinstance(error, FetchFailed) else f"The fetch broke: {type(error).__name__}."
        unforeseen = None if isinstance(error, FetchFailed) else error
        _log.warning("key set not fetched (state %s): %s", self.state.value, self._fault, exc_info=unforeseen)

    def _install(self, fetched: _Fetched) -> None:
        now = self._clock()
        before = self._keys
        self._keys = MappingProxyType({
            kid: before[kid] if before.get(kid) == key else key for kid, key in fetched.keys.items()
        })  # fmt: skip
        self._stale_at = now + fetched.freshness
        self._dead_at = now + max(self._timing.outage, fetched.freshness)
        self._failures = 0
        self._retry_at = -math.inf
        self._look_up_failed = False
        self._fault = None
        self._discovered_url = fetched.url
        if before.keys() != self._keys.keys():
            added, withdrawn = sorted(self._keys.keys() - before.keys()), sorted(before.keys() - self._keys.keys())
            _log.info("key set changed: kids added %r, withdrawn %r", added, withdrawn)

    def _report_skipped(self, skipped: tuple[SkippedKey, ...]) -> None:
        """Log each key that was skipped, once for as long as the provider keeps it as it is."""
        for key in skipped:
            if key not in self._skipped:
                _log.warning("key %d of the key set (kid %r) is not used: %s", key.position, key.kid, key.reason)
        self._skipped = skipped

    def _freshness(self, headers: httpx.Headers) -> float:
        """Return the answer's `max-age` (RFC 9111 section 5.2.2.1) held within bounds, in seconds."""
        found = _MAX_AGE.search(headers.get("cache-control", ""))
        if found is None:
            return self._timing.freshness
        shortest, longest = self._timing.freshness_bounds
        return min(max(float(found[1]), shortest), longest)

    def _unavailable(self) -> KeysUnavailable:
        retry_at = self._look_up_at if self._is_servable() else self._retry_at
        wait = retry_at - self._clock()
        return KeysUnavailable(
            "The keys of the identity provider cannot be had at the moment.",
            retry_after=max(1, math.ceil(wait)) if wait > 0 else 1,
        )
