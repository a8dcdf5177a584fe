"""The provider's documents over HTTP: its key set, and the discovery document that says where that is.

The promise: an answer that is large, compressed, redirected or malformed costs at most `MAX_OCTETS` of memory and
becomes a `FetchFailed` with one sentence for the operator. How long it may take is the caller's to say, around it all.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from app.idp.encoding import Malformed, parse_object

MAX_OCTETS = 262_144
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_LAST_PORT = 65_535


class FetchFailed(Exception):
    """A document cannot be had; the message names its address and the reason."""


def is_trustworthy(url: str) -> bool:
    """Tell whether `url` is https, or http on loopback, without user, password or fragment."""
    try:
        parsed = httpx.URL(url)
        host, port = parsed.host, parsed.port or 443
    except (httpx.InvalidURL, ValueError):  # an IDNAError is a ValueError
        return False
    if not host or port > _LAST_PORT or parsed.userinfo or parsed.fragment:
        return False
    return parsed.scheme == "https" or (parsed.scheme == "http" and host in _LOOPBACK)


async def fetch(client: httpx.AsyncClient, url: str) -> tuple[bytes, httpx.Headers]:
    """Return body and headers of a 200 answer to GET.

    Raises:
        FetchFailed: an address that is not trustworthy, no connection, another status (a redirect is one: it is not
            followed), a compressed body (it was asked for plain, and a small one may grow without bound), too large.
    """
    if not is_trustworthy(url):
        raise FetchFailed("The address of a document is neither https nor http on loopback.")
    shown = httpx.URL(url).copy_with(query=None)  # some providers want an API key in the query
    headers = {"Accept": "application/json, application/jwk-set+json", "Accept-Encoding": "identity"}
    body = bytearray()
    try:
        async with client.stream("GET", url, headers=headers, follow_redirects=False) as response:
            if response.status_code != httpx.codes.OK:
                raise FetchFailed(f"{shown} answered {response.status_code}.")
            if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise FetchFailed(f"{shown} answered with a compressed body.")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_OCTETS:
                    raise FetchFailed(f"{shown} answered with more than {MAX_OCTETS} octets.")
            return bytes(body), response.headers
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise FetchFailed(f"{shown} cannot be read: {type(error).__name__}.") from error


async def discover_key_set(client: httpx.AsyncClient, issuers: Sequence[str]) -> str:
    """Return the `jwks_uri` that the discovery document of the first issuer names.

    It is looked for below the issuer (OpenID Connect Discovery 1.0 section 4), below Better Auth's `/api/auth`, and
    where RFC 8414 section 3 has it. A document counts only if its `issuer` is, character by character, one of `issuers`
    (OpenID Connect Discovery 1.0 section 4.3).

    Raises:
        FetchFailed: none of the documents can be had and used; the message says why, one by one.
    """
    faults = []
    for url in _candidates(issuers[0]):
        try:
            body, _ = await fetch(client, url)
            document = parse_object(body)
        except FetchFailed as fault:
            faults.append(str(fault))
            continue
        except Malformed as malformed:
            faults.append(f"{url} {malformed}.")
            continue
        jwks_uri = document.get("jwks_uri")
        if document.get("issuer") not in tuple(issuers):
            faults.append(f"{url} speaks for another issuer.")
        elif not isinstance(jwks_uri, str) or not is_trustworthy(jwks_uri):
            faults.append(f"{url} names no jwks_uri that is https or loopback.")
        else:
            return jwks_uri
    raise FetchFailed(" ".join(faults))


def _candidates(issuer: str) -> tuple[str, ...]:
    base = issuer.rstrip("/")
    parsed = httpx.URL(base)
    inserted = parsed.copy_with(raw_path=b"/.well-known/oauth-authorization-server" + parsed.raw_path.rstrip(b"/"))
    return (
        f"{base}/.well-known/openid-configuration",
        f"{base}/api/auth/.well-known/openid-configuration",
        str(inserted),
    )
