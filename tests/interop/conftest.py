"""A PostgreSQL for all of these tests; both apps on one database, once a layout; the server after the cutover."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.embedded import stop
from tests.api.provider import AUDIENCE, ISSUER, Provider
from tests.cutover.commands import migrate
from tests.cutover.witness import Witness
from tests.interop.layouts import LAYOUTS, Layout
from tests.interop.oldapp import OldApp
from tests.migrated import make_migrated
from tests.postgres import FIXTURES, Server, start_embedded
from tests.serving import running, served_over_http

SILENT: dict[str, Any] = {"email": None, "email_verified": None, "name": None, "picture": None}
"""Claims of a token that says nothing of its user but the sub, as many access tokens do."""


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Server]:
    """The embedded server, one of its own: what the SQL comes to elsewhere is shown elsewhere."""
    yield start_embedded(folder / "interop")
    stop(folder / "interop" / "embedded")


@pytest.fixture(scope="session")
def provider() -> Provider:
    return Provider()


@pytest.fixture(scope="session")
def jwks_url(provider: Provider) -> Iterator[str]:
    with served_over_http(provider) as url:
        yield url


@dataclass(frozen=True)
class Both:
    """The old app and the server on one database, after adopt."""

    layout: Layout
    witness: Witness
    old: OldApp
    client: httpx.Client
    """Of the server, which ran before adopt as well."""
    provider: Provider
    token: str
    """Of a session that the first of `people` began before adopt."""
    serve: Callable[[], AbstractContextManager[httpx.Client]]
    """Starts another server."""

    def bearer(self, sub: str, **claims: Any) -> dict[str, str]:
        """Return the header of a request with a token; it says of its user what `claims` say, and nothing else."""
        return self.provider.bearer(sub, **(SILENT | claims))

    def me(self, sub: str, client: httpx.Client | None = None, **claims: Any) -> dict[str, Any]:
        """Return the user that the server answers for a token."""
        answer = (client or self.client).get("/me", headers=self.bearer(sub, **claims))
        assert answer.status_code == 200, answer.text
        user: dict[str, Any] = answer.json()["user"]
        return user

    def rows(self, where: str = "true") -> list[dict[str, Any]]:
        """Return rows of the old app's own table, under the server's names."""
        return self.witness.ask(self.layout.select(where))


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout.name)
def both(
    request: pytest.FixtureRequest, server: Server, provider: Provider, jwks_url: str, tmp_path_factory: Any
) -> Iterator[Both]:
    layout: Layout = request.param
    url = server.make_database(layout.fixture)
    witness = Witness(server, url)
    # a time that is read or written in the zone of nobody's choice is nine hours off; nothing waits for ever
    for setting in ("timezone = 'Asia/Tokyo'", "statement_timeout = '20s'"):
        witness.run(f"ALTER DATABASE {witness.name} SET {setting}")
    witness.run(layout.altered)

    @contextmanager
    def serve() -> Iterator[httpx.Client]:
        settings = {"DATABASE_URL": url, "IDP_ISSUER": ISSUER, "IDP_AUDIENCE": AUDIENCE, "IDP_JWKS_URL": jwks_url}
        with (
            running(tmp_path_factory.mktemp("server"), **settings) as address,
            httpx.Client(base_url=address, timeout=30) as client,
        ):
            yield client

    with OldApp(layout.name, url, layout.program) as old, serve() as client:
        person = people(layout)[0]
        token = old("sign-in", email=person["email"], password=person["password"])["token"]
        assert client.get("/readyz").json()["database"] == "not_migrated"
        adopted = migrate(url, "adopt")
        assert adopted.code == 0, adopted.text
        yield Both(layout, witness, old, client, provider, token, serve)
    server.drop_database(url)


def people(layout: Layout) -> list[dict[str, str]]:
    """Return who needs a password only, in a fixture: id, email, password."""
    known = json.loads((FIXTURES / f"{layout.fixture}.creds.json").read_text())
    asked_for_more = {person["email"] for person in known["twoFactor"]}
    return [person for person in known["users"] if person["email"] not in asked_for_more]


Serve = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def database_url(server: Server, make_database: Callable[[str | None], str]) -> str:
    """A database after the cutover, with nobody in it."""
    return make_migrated(server, make_database)


@pytest.fixture
def serve(database_url: str, tmp_path: Path) -> Serve:
    """Start a server on `database_url`: `with serve(IDP_ISSUER=..., IDP_AUDIENCE=...) as client`."""

    @contextmanager
    def serving(**settings: str) -> Iterator[httpx.Client]:
        with (
            running(tmp_path, DATABASE_URL=database_url, **settings) as address,
            httpx.Client(base_url=address, timeout=30) as client,
        ):
            yield client

    return serving
