"""The provider's users read back, for reconciliation: Better Auth's admin plugin, and Auther's admin API.

    profile        lists       finds one                        credentials
    better-auth    every user  GET admin/get-user?id=           an admin's session, signed in again on 401
    auther         nothing     GET api/admin/users/{id}         an exchanged API key, renewed before it expires

The promise: "the provider does not know this user" is said only where an answer for that one id says so, in the
provider's own form; what is malformed, forbidden, or in another form is a `DirectoryFailed`, never an empty list. No
message holds a password, a key, a cookie or a token.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol
from urllib.parse import quote, urlsplit

import httpx

from app.errors import ShadowError
from app.idp.encoding import Malformed, parse_object

PAGE = 100
"""Users a request asks for."""
MAX_OCTETS = 16_777_216
"""Of one answer; a page may hold a hundred pictures as data URLs."""
UNCLEAR_IN_A_ROW = 5
"""After so many users in a row of whom the provider cannot answer, it is asked for one of whom it did: if it cannot
then, it is not their ids that are at fault."""
_MAX_SUB = 255
_LAST_STEADY = 499
_UNCLEAR = frozenset({httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.INTERNAL_SERVER_ERROR})
_DAY = 86_400


class DirectoryFailed(ShadowError):
    """The provider's users cannot be read; the message says why, and what to look at."""

    code = "directory"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is tried, and how long is waited. All times in seconds."""

    failures: int = 6
    """Tries while it does not answer, or with 5xx."""
    refusals: int = 9
    """Tries while it answers 429: with these pauses more than a minute, which is as long as such limits go on."""
    pause: float = 0.5
    """Before the second try; doubled before each further one."""
    longest: float = 60.0
    """The longest pause of ours."""
    asked_for: float = 900.0
    """The longest pause that the provider may ask for (RFC 9110 section 10.2.3)."""
    timeout: float = 30.0
    """For one answer as a whole."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the provider answers of one user."""

    sub: str
    state: Literal["known", "unknown", "unclear"]
    """Unknown: a 404 for this id, of the provider as far as one answer can tell. Unclear: it fails at this id, or
    answers with another user's."""
    members: Mapping[str, object]
    """The user's members as the provider spells them; empty unless known."""
    read_at: datetime
    """When it was asked: what was stated later than this is newer."""


@dataclass(frozen=True, slots=True)
class Page:
    """Users of the list, and how many the provider says there are."""

    entries: tuple[Entry, ...]
    total: int


class Directory(Protocol):
    """A provider's users."""

    orders: tuple[str, ...]
    """The members by which the list can be read, one after the other if it does not add up; empty: there is no list."""

    def pages(self, order: str) -> AsyncIterator[Page]:
        """Read the whole list, in the order of a member."""
        ...

    async def find(self, sub: str) -> Entry:
        """Ask for one user."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    members: Mapping[str, object] | None
    """The body, if it is a JSON object."""
    cookies: tuple[str, ...]
    asked_at: datetime
    address: str
    """Without the query, for messages."""


class _Http:
    """Requests that are tried again while the provider is busy, away or broken."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        patience: Patience,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._client = client
        self._patience = patience
        self._sleep = sleep

    async def ask(self, method: str, url: str, *, failures: int | None = None, **request: object) -> _Answer:
        """Return the first answer that another try would not change, else the last one; 429 and 5xx among them.

        Raises:
            DirectoryFailed: there was none.
        """
        patience = self._patience
        address = str(httpx.URL(url).copy_with(query=None))
        left = {"failures": failures or patience.failures, "refusals": patience.refusals}
        for number in itertools.count():
            asked_at = datetime.now(UTC)
            answer, wanted, kind, why = None, 0.0, "failures", ""
            try:
                async with asyncio.timeout(patience.timeout):
                    answer, wanted = await self._once(method, url, address, asked_at, **request)
            except (httpx.RequestError, TimeoutError) as error:
                why = f"{address} cannot be reached: {type(error).__name__}. Check IDP_DIRECTORY_URL."
            if answer is not None:
                if answer.status == httpx.codes.TOO_MANY_REQUESTS:
                    kind = "refusals"
                elif answer.status <= _LAST_STEADY:
                    return answer
            left[kind] -= 1
            if not left[kind]:
                break
            if wanted > patience.asked_for:
                raise DirectoryFailed(f"{address} asks to wait for {wanted:.0f} seconds: run again later.")
            pause = min(patience.pause * 2**number, patience.longest) * random.SystemRandom().uniform(0.5, 1)
            await self._sleep(max(pause, wanted))
        if answer is None:
            raise DirectoryFailed(why)
        return answer

    async def _once(
        self, method: str, url: str, address: str, asked_at: datetime, **request: Any
    ) -> tuple[_Answer, float]:
        body = bytearray()
        async with self._client.stream(method, url, follow_redirects=False, **request) as response:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_OCTETS:
                    raise DirectoryFailed(f"{address} answered with more than {MAX_OCTETS} octets.")
        try:
            members: Mapping[str, object] | None = parse_object(bytes(body))
        except Malformed:
            members = None
        cookies = tuple(line.partition(";")[0].strip() for line in response.headers.get_list("set-cookie"))
        # Better Auth's rate limit says it in a header of its own; where it counts in PostgreSQL, it joins two numbers
        # as texts and asks for millennia, which means nothing.
        wanted = response.headers.get("retry-after") or response.headers.get("x-retry-after") or ""
        seconds = float(wanted) if wanted.isascii() and wanted.isdigit() else 0.0
        return _Answer(response.status_code, members, cookies, asked_at, address), seconds if seconds <= _DAY else 0.0


class _Finding(ABC):
    """What both profiles do with the answer for one user."""

    def __init__(self, http: _Http) -> None:
        self._http = http
        self._answered: str | None = None
        self._unclear = 0

    async def find(self, sub: str) -> Entry:
        """Ask for one user; only a 404 that the provider itself gives for that id says that there is none.

        What stands in front of it may answer just so: who acts on an answer asks for one who is known as well.

        Raises:
            DirectoryFailed: it does not answer, or fails at whomever it is asked for.
        """
        entry = await self._find(sub)
        if entry.state != "unclear":
            self._unclear = 0
            self._answered = sub if entry.state == "known" else self._answered
            return entry
        self._unclear += 1
        if self._unclear == UNCLEAR_IN_A_ROW:
            if self._answered is None or (await self._find(self._answered)).state == "unclear":
                raise DirectoryFailed("The provider fails at one user after the other: look at its log.")
            self._unclear = 0
        return entry

    async def _find(self, sub: str) -> Entry:
        answer, unknown = await self._ask_for(sub)
        if answer.status in _UNCLEAR:
            return Entry(sub, "unclear", {}, answer.asked_at)
        if answer.status == httpx.codes.NOT_FOUND and unknown:
            return Entry(sub, "unknown", {}, answer.asked_at)
        members = _expect(answer)
        wrapped = members.get("user")
        entry = _entry(wrapped if isinstance(wrapped, dict) else members, answer)
        # Asked for "007", a provider with numbers for ids answers with 7.
        return entry if entry.sub == sub else Entry(sub, "unclear", {}, answer.asked_at)

    @abstractmethod
    async def _ask_for(self, sub: str) -> tuple[_Answer, bool]:
        """Return the answer for a user, and whether it is the provider's own: a 404 then means that there is none."""


class BetterAuthDirectory(_Finding):
    """Better Auth's admin plugin, as an admin who signs in with a password.

    Args:
        url: of Better Auth; without a path, `/api/auth` is meant.
        email, password: of a user whom the plugin takes for an admin, without a second factor.
    """

    orders: tuple[str, ...] = ("createdAt", "id", "id")
    # By time whoever signs up meanwhile comes last and moves nobody; rows of one import share a time, and PostgreSQL
    # may then show one twice and another never: an id nobody shares.

    def __init__(
        self,
        url: str,
        email: str,
        password: str,
        client: httpx.AsyncClient,
        *,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        super().__init__(_Http(client, patience or Patience(), sleep))
        parts = urlsplit(url.rstrip("/"))
        self._base = f"{parts.scheme}://{parts.netloc}{parts.path or '/api/auth'}"
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._credentials = {"email": email, "password": password}
        self._cookie: str | None = None

    async def pages(self, order: str) -> AsyncIterator[Page]:
        """Read until a page brings nobody new: neither `total` nor the number asked for says where the end is."""
        met: set[str] = set()
        offset = 0
        while True:
            query = {"limit": str(PAGE), "offset": str(offset), "sortBy": order, "sortDirection": "asc"}
            answer = await self._get("admin/list-users", query)
            members = _expect(answer)
            users, total = members.get("users"), members.get("total")
            if not isinstance(users, list) or isinstance(total, bool) or not isinstance(total, int):
                raise DirectoryFailed(f"{answer.address} answers with something other than users and their total.")
            entries = tuple(_entry(user, answer) for user in users)
            self._answered = entries[0].sub if entries else self._answered
            yield Page(entries, total)
            if met.issuperset(entry.sub for entry in entries):
                return
            met.update(entry.sub for entry in entries)
            offset += len(users)

    async def _ask_for(self, sub: str) -> tuple[_Answer, bool]:
        answer = await self._get("admin/get-user", {"id": sub}, failures=3)
        return answer, (answer.members or {}).get("code") == "USER_NOT_FOUND"

    async def _get(self, path: str, query: Mapping[str, str], failures: int | None = None) -> _Answer:
        for _ in range(2):
            self._cookie = cookie = self._cookie or await self._sign_in()
            headers = {"Cookie": cookie, "Accept": "application/json"}
            answer = await self._http.ask(
                "GET", f"{self._base}/{path}", headers=headers, params=query, failures=failures
            )
            if answer.status != httpx.codes.UNAUTHORIZED:
                return answer
            self._cookie = None
        raise DirectoryFailed(f"{answer.address} does not accept the session it was just given.")

    async def _sign_in(self) -> str:
        headers = {"Origin": self._origin, "Accept": "application/json"}  # without an Origin it is refused
        answer = await self._http.ask("POST", f"{self._base}/sign-in/email", headers=headers, json=self._credentials)
        if answer.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise DirectoryFailed(
                f"{answer.address} refuses the admin ({answer.status}{_code(answer)}): check IDP_DIRECTORY_EMAIL and "
                "IDP_DIRECTORY_PASSWORD, and that the origin of IDP_DIRECTORY_URL is one the provider trusts."
            )
        if _expect(answer).get("twoFactorRedirect"):
            raise DirectoryFailed("The admin of IDP_DIRECTORY_EMAIL has a second factor: give one that has none.")
        if not answer.cookies:
            raise DirectoryFailed(f"{answer.address} gives no session cookie: check IDP_DIRECTORY_URL.")
        return "; ".join(answer.cookies)


class AutherDirectory(_Finding):
    """Auther's admin API, one user at a time, with the token that an API key is exchanged for.

    Args:
        url: of Auther, without `/api`.
        api_key: one that may read users.
        clock: monotonic seconds.
    """

    orders: tuple[str, ...] = ()

    def __init__(
        self,
        url: str,
        api_key: str,
        client: httpx.AsyncClient,
        *,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(_Http(client, patience or Patience(), sleep))
        self._base = url.rstrip("/")
        self._api_key = api_key
        self._clock = clock
        self._token, self._ends = "", float("-inf")

    async def pages(self, order: str) -> AsyncIterator[Page]:
        """Yield nothing: it has no list."""
        nothing: tuple[Page, ...] = ()
        for page in nothing:
            yield page

    async def _ask_for(self, sub: str) -> tuple[_Answer, bool]:
        url = f"{self._base}/api/admin/users/{quote(sub, safe='')}"
        for _ in range(2):
            if self._clock() >= self._ends:
                await self._exchange()
            headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
            answer = await self._http.ask("GET", url, headers=headers, failures=3)
            if answer.status != httpx.codes.UNAUTHORIZED:
                # What stands in front of an API says 404 as well, seldom in JSON; that some do is for who acts on it.
                return answer, answer.members is not None
            self._ends = float("-inf")
        raise DirectoryFailed(f"{self._base}/api/admin/users does not accept the token it was just given.")

    async def _exchange(self) -> None:
        asked = self._clock()
        url = f"{self._base}/api/auth/api-key/exchange"
        answer = await self._http.ask("POST", url, json={"apiKey": self._api_key})
        if answer.status in (httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise DirectoryFailed(f"{url} refuses the API key ({answer.status}): check IDP_DIRECTORY_API_KEY.")
        members = _expect(answer)
        token, lasts = members.get("token"), members.get("expiresIn")
        if not isinstance(token, str) or not token or isinstance(lasts, bool) or not isinstance(lasts, int | float):
            raise DirectoryFailed(f"{url} answers without token and expiresIn.")
        if not 0 < lasts < 366 * _DAY:
            raise DirectoryFailed(f"{url} answers without token and expiresIn.")
        # A tenth early, thirty seconds at most: it must not run out on its way.
        self._token, self._ends = token, asked + lasts - min(30, lasts / 10)


def _expect(answer: _Answer) -> Mapping[str, object]:
    """Return the members of a 200 answer.

    Raises:
        DirectoryFailed: it is not one, or no JSON object.
    """
    if answer.status == httpx.codes.FORBIDDEN:
        raise DirectoryFailed(f"{answer.address} answers 403{_code(answer)}: these credentials may not read users.")
    if answer.status != httpx.codes.OK:
        raise DirectoryFailed(f"{answer.address} answers {answer.status}{_code(answer)}: check IDP_DIRECTORY_URL.")
    if answer.members is None:
        raise DirectoryFailed(f"{answer.address} does not answer with a JSON object: check IDP_DIRECTORY_URL.")
    return answer.members


def _code(answer: _Answer) -> str:
    code = (answer.members or {}).get("code")
    return f" {code}" if isinstance(code, str) and code.isascii() and code.isidentifier() and len(code) < 80 else ""


def _entry(user: object, answer: _Answer) -> Entry:
    members: dict[str, object] = user if isinstance(user, dict) else {}
    sub = members.get("id")
    if isinstance(sub, int) and not isinstance(sub, bool):
        sub = str(sub)
    if not isinstance(sub, str) or not 0 < len(sub) <= _MAX_SUB or "\0" in sub:
        raise DirectoryFailed(f"{answer.address} answers with a user without a usable id.")
    return Entry(sub, "known", members, answer.asked_at)
