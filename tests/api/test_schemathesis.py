"""The server against its own document: schemathesis makes requests, good and bad, and judges the answers.

It looks for a 5xx, a status, content type, header or body that the document does not have, bad data that is taken, good
data that is not, a route that answers without a token, and a method that answers though it is not there.
"""

from __future__ import annotations

import hmac
import itertools
import time
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import settings as tries
from requests import PreparedRequest
from requests.auth import AuthBase
from schemathesis.specs.openapi.checks import (
    missing_required_header,
    negative_data_rejection,
    positive_data_acceptance,
)

from app.asgi import create_app
from app.settings import Settings
from tests.api.provider import AUDIENCE, ISSUER, Provider
from tests.migrated import make_migrated
from tests.postgres import Server
from tests.serving import running, served_over_http

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

SECRET = "whsec_of_the_tests"
TRIES = tries(max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
"""The same ones every time."""
NUMBERS = itertools.count()


class Signed(AuthBase):
    """Signs a webhook as it goes out, as of now."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        timestamp, body = str(time.time_ns() // 1_000_000), request.body or b""
        content = timestamp.encode() + b"." + (body.encode() if isinstance(body, str) else body)
        request.headers["x-webhook-timestamp"] = timestamp
        request.headers["x-webhook-signature"] = hmac.new(SECRET.encode(), content, "sha256").hexdigest()
        return request


def document() -> schemathesis.BaseSchema:
    """Return the document of a server that is made and not started; the same as it serves."""
    app = create_app(
        Settings(_env_file=None, idp_issuer=(ISSUER,), idp_audience=(AUDIENCE,), idp_webhook_secret=SECRET)
    )
    return schemathesis.openapi.from_dict(app.openapi_schema.to_schema())


@pytest.fixture(scope="module")
def keys() -> Provider:
    return Provider()


@pytest.fixture(scope="module")
def address(keys: Provider, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = make_migrated(server, server.make_database)
    with (
        served_over_http(keys) as jwks_url,
        running(
            tmp_path_factory.mktemp("served"), DATABASE_URL=database, IDP_ISSUER=ISSUER, IDP_AUDIENCE=AUDIENCE,
            IDP_JWKS_URL=jwks_url, IDP_WEBHOOK_SECRET=SECRET, APP_OWNED_FIELDS="name,image", LOG_LEVEL="error",
        ) as address,
    ):  # fmt: skip
        yield address
    server.drop_database(database)


@document().parametrize()
@TRIES
def test_nothing_is_found(case: schemathesis.Case, address: str, keys: Provider) -> None:
    case.call_and_validate(address, headers=keys.bearer(f"user-{next(NUMBERS)}"))


@document().include(path_regex="/webhooks/").parametrize()
@TRIES
def test_nor_behind_a_signature(case: schemathesis.Case, address: str) -> None:
    # what an event holds depends on its type, and is not in the document; and two of the headers are good, always
    unclear = [positive_data_acceptance, negative_data_rejection, missing_required_header]
    case.call_and_validate(address, auth=Signed(), excluded_checks=unclear)
