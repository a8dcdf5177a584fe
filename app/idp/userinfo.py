"""Userinfo: what the provider says of a user whose access token has no e-mail (OpenID Connect Core 5.3).

    a token without e-mail ──▶ fetch, one at a time a user ─┬▶ an answer   e-mail, name, image: said for an hour, then
                                                            │              asked for again if it is still wanted
                                                            └▶ a failure   nothing: asked for again after a minute

The promise: nobody waits longer than `Waits.limit`, whatever the provider does; nothing is raised; an answer counts
only if its `sub` is the token's (section 5.3.2); and the token goes to this one address and into no message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass, replace
from typing import NamedTuple

import httpx
from cachetools import TLRUCache

from app.idp.claims import Claims, read_email, read_email_verified, read_image, read_name
from app.idp.documents import MAX_OCTETS, FetchFailed, is_trustworthy
from app.idp.encoding import Malformed, parse_object

_log = logging.getLogger(__name__)
_REMEMBERED = 10_000
"""Users whose answers are kept; the one not needed longest gives way."""
_AT_ONCE = 20
"""Fetches under way: fewer than the client has connections, so that the key set is never kept waiting."""
_SOONEST = 0.001
"""Seconds by which an answer is newer than the token, if the provider's clock is ahead of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """The durations, in seconds."""

    limit: float = 2.0
    """For one fetch as a whole, the wait for its turn included."""
    after_failure: float = 60.0
    """Before a user is asked for again, if nothing usable was answered."""
    after_answer: float = 3_600.0
    """The same, if it was."""


class _Said(NamedTuple):
    """What was made of an answer, and for how many seconds it stands."""

    claims: Claims | None
    seconds: float


class Userinfo:
    """The provider's userinfo endpoint.

    Args:
        url: where it is: https, or http on loopback.
        client: makes the requests; it belongs to the caller.
        observe: told of each fetch: `found`, `silent` (answered, without an e-mail) or `failed`.
        clock: seconds since the epoch.
        waits: the durations.

    Raises:
        ValueError: the address is not trustworthy.
    """

    def __init__(
        self,
        *,
        url: str,
        client: httpx.AsyncClient,
        observe: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
        waits: Waits | None = None,
    ) -> None:
        if not is_trustworthy(url):
            raise ValueError("the address of the userinfo endpoint must be https or loopback")
        self._url = url
        self._client = client
        self._observe = observe
        self._clock = clock
        self._waits = waits or Waits()
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._fetching: dict[str, asyncio.Task[Claims | None]] = {}
        self._said: TLRUCache[str, _Said] = TLRUCache(_REMEMBERED, ttu=_end, timer=clock)

    async def enrich(self, claims: Claims, token: str) -> Claims | None:
        """Return the claims with what the provider says beside them, dated so that they are newer than the token.

        None where there is nothing to add: it does not answer, or knows no more; and always for machines. While an
        answer stands, who asks again gets the same one with its date.

        Args:
            claims: what the token says.
            token: the token itself, as it was presented.
        """
        if claims.kind == "machine":
            return None
        task = self._fetching.get(claims.sub)
        if task is None:
            if (said := self._said.get(claims.sub)) is not None:
                return said.claims
            # Nobody's own task: it outlives the request that happened to start it.
            task = asyncio.create_task(self._fetch(claims, token), name="fetch of userinfo", context=Context())
            self._fetching[claims.sub] = task
            task.add_done_callback(lambda _: self._fetching.pop(claims.sub))
        await asyncio.wait({task})
        if task.cancelled():
            return None
        if (unforeseen := task.exception()) is not None:
            _log.error("userinfo not read: %s", type(unforeseen).__name__, exc_info=unforeseen)
            return None
        return task.result()

    async def aclose(self) -> None:
        """Cancel what is under way."""
        tasks = set(self._fetching.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _fetch(self, claims: Claims, token: str) -> Claims | None:
        self._said[claims.sub] = _Said(None, self._waits.after_failure)
        asked_at = self._clock()
        try:
            async with asyncio.timeout(self._waits.limit), self._turn:
                members = await self._read(token)
            if members.get("sub") != claims.sub:
                raise FetchFailed("It speaks of another user.")
        except (FetchFailed, TimeoutError, Malformed) as fault:
            reason = f"no answer within {self._waits.limit:g} seconds" if isinstance(fault, TimeoutError) else fault
            _log.warning("userinfo not read: %s", reason)
            self._observe("failed")
            return None
        email, name, image = read_email(members), read_name(members), read_image(members)
        self._observe("silent" if email is None else "found")
        enriched = None
        if (email, name, image) != (None, None, None):
            enriched = replace(
                claims,
                iat=asked_at if claims.iat is None else max(asked_at, claims.iat + _SOONEST),
                email=email,
                email_verified=None if email is None else read_email_verified(members),
                name=name or claims.name,
                image=image or claims.image,
            )
        self._said[claims.sub] = _Said(enriched, self._waits.after_answer)
        return enriched

    async def _read(self, token: str) -> dict[str, object]:
        """Return the endpoint's answer, under the limits of `documents.fetch`: 200, plain, small, no redirects.

        Raises:
            FetchFailed, Malformed: it has none that can be used.
        """
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Authorization": f"Bearer {token}"}
        request = self._client.build_request("GET", self._url, headers=headers)
        request.headers.pop("Cookie", None)  # one that the provider set when it answered about another user
        body = bytearray()
        try:
            answer = await self._client.send(request, stream=True, follow_redirects=False)
            async with aclosing(answer):
                if answer.status_code != httpx.codes.OK:
                    raise FetchFailed(f"It answered {answer.status_code}.")
                if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
                    raise FetchFailed("It answered with a compressed body.")
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_OCTETS:
                        raise FetchFailed(f"It answered with more than {MAX_OCTETS} octets.")
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise FetchFailed(f"It cannot be read: {type(error).__name__}.") from error
        return parse_object(bytes(body))


def _end(_: str, said: _Said, now: float) -> float:
    """Return when what was said of a user is no longer."""
    return now + said.seconds
