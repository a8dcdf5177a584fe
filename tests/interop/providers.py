"""Identity providers: the real ones of `tests/providers`, each in a process of its own, and what their clients do.

The promise: a token comes from nowhere but the provider's own endpoints, over HTTP, as a browser or a job gets it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx

from tests.interop.oldapp import OLDEST
from tests.serving import free_port

FOLDER = Path(__file__).parents[1] / "providers"
CALLBACK = "http://127.0.0.1/callback"
"""Where the app's clients are redirected to; nobody listens there."""
PASSWORD = "Correct-Horse-Battery-1"
_FORM = re.compile(r'<form[^>]* action="([^"]+)"')
_PROMPT = re.compile(r'name="prompt" value="([a-z]+)"')
Json = dict[str, Any]


def missing() -> str | None:
    """Return what there must be for a provider to run, and is not."""
    if shutil.which("node") is None:
        return f"a real provider needs Node {OLDEST} or newer, and there is no node"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").partition(".")[0]) < OLDEST:
        return f"a real provider needs Node {OLDEST} or newer, and this is {version}"
    packages = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    absent = sorted(name for name in packages if not (FOLDER / "node_modules" / name).is_dir())
    if absent:
        return f"a real provider needs `npm install` in tests/providers; there is no {', '.join(absent)}"
    return None


class Provider:
    """One that runs. `facts` is what its first line says; the program's head says what else it can be asked."""

    def __init__(self, program: str, *arguments: str, log: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self._log = log
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                ["node", FOLDER / program, str(self.port), *arguments], text=True, bufsize=1,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self.facts = self._answer()
        self.issuer: str = self.facts["issuer"]

    def __enter__(self) -> Provider:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Switch it off; once or twice is the same."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=30)
        finally:
            self._process.kill()
            self._process.stdout.close()

    def ask(self, do: str) -> Json:
        """Have it do something that time or its operator would."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do}) + "\n")
        return self._answer()

    def _answer(self) -> Json:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        answer: Json = json.loads(line)
        return answer


@dataclass(frozen=True)
class Person:
    """Somebody who signed up at a Better Auth provider, with the browser in which they are signed in."""

    provider: Provider
    id: str
    email: str
    name: str
    browser: httpx.Client

    def jwt(self) -> str:
        """Return a JWT of their session, as the jwt plugin gives it."""
        token: str = _json(self.browser.get("/api/auth/token"))["token"]
        return token

    def rename(self, name: str, image: str) -> None:
        """Change what the provider knows of them."""
        _json(self.browser.post("/api/auth/update-user", json={"name": name, "image": image}))


@contextmanager
def browsing(provider: Provider) -> Iterator[httpx.Client]:
    """Yield a browser that has not been at the provider yet."""
    origin = f"http://127.0.0.1:{provider.port}"
    with httpx.Client(base_url=origin, headers={"Origin": origin, "Accept": "text/html, */*"}, timeout=30) as browser:
        yield browser


@contextmanager
def signed_up(provider: Provider, name: str) -> Iterator[Person]:
    """Sign somebody up at a Better Auth provider, by the name as the first part of their address too."""
    email = f"{name.lower()}.{secrets.token_hex(4)}@example.com"
    with browsing(provider) as browser:
        said = {"email": email, "password": PASSWORD, "name": name}
        answer = _json(browser.post("/api/auth/sign-up/email", json=said))
        yield Person(provider, answer["user"]["id"], email, name, browser)


def authorize(
    provider: Provider, browser: httpx.Client, api: str | None, *, login: str = "", scope: str = "openid"
) -> Json:
    """Return the answer of the token endpoint for the authorization code flow with PKCE (RFC 6749 4.1, RFC 7636).

    Args:
        provider: has the client, and a discovery document.
        browser: follows its redirects, and fills in the forms of oidc-provider's pages.
        api: the `resource` (RFC 8707) that the token is for, if any.
        login: who signs in, where the provider asks.
        scope: asked for.
    """
    endpoints = discover(provider)
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe()
    asked = {
        "response_type": "code",
        "client_id": provider.facts["client"],
        "redirect_uri": CALLBACK,
        "scope": scope,
        "state": state,
        "code_challenge": base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    target = {} if api is None else {"resource": api}
    back = _follow(browser, browser.get(endpoints["authorization_endpoint"], params=asked | target), login)
    assert "code" in back, back
    assert (back["state"], back["iss"]) == ([state], [provider.issuer])
    redeemed = {"grant_type": "authorization_code", "code": back["code"][0], "redirect_uri": CALLBACK,
                "client_id": provider.facts["client"], "code_verifier": verifier}  # fmt: skip
    return _json(httpx.post(endpoints["token_endpoint"], data=redeemed | target))


def token_of_a_machine(provider: Provider, api: str) -> str:
    """Return an access token for client credentials (RFC 6749 section 4.4)."""
    machine = provider.facts["machine"]
    asked = {"grant_type": "client_credentials", "scope": "invoices:read", "resource": api}
    answer = httpx.post(discover(provider)["token_endpoint"], data=asked, auth=(machine["id"], machine["secret"]))
    token: str = _json(answer)["access_token"]
    return token


def discover(provider: Provider) -> Json:
    """Return the discovery document."""
    return _json(httpx.get(f"{provider.issuer}/.well-known/openid-configuration"))


def unverified(token: str, part: int = 1) -> Json:
    """Return the payload of a token, or with 0 its header, to say in a test what kind of token it is."""
    text = token.split(".")[part]
    members: Json = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return members


def _follow(browser: httpx.Client, answer: httpx.Response, login: str) -> dict[str, list[str]]:
    """Go where the answers lead until they lead back to the app, and return what the app is told."""
    for _ in range(12):
        if (location := answer.headers.get("location")) is None:
            form, prompt = _FORM.search(answer.text), _PROMPT.search(answer.text)
            assert form is not None, answer.text
            assert prompt is not None, answer.text
            filled = {"prompt": prompt[1], "login": login, "password": PASSWORD}
            answer = browser.post(urljoin(str(answer.url), form[1]), data=filled)
        elif location.startswith(CALLBACK):
            return parse_qs(urlsplit(location).query)
        else:
            answer = browser.get(urljoin(str(answer.url), location))
    raise AssertionError(f"the provider does not come back to the app: {answer}")


def _json(answer: httpx.Response) -> Json:
    assert answer.is_success, answer.text
    members: Json = answer.json()
    return members
