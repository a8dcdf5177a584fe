"""What a client without a good token is told."""

from __future__ import annotations

import pytest
from litestar.testing import RequestFactory

from app.api.challenge import Challenge, Resource
from app.errors import AccountDeleted, InvalidToken, KeysUnavailable, MissingCredentials

REQUEST = RequestFactory(server="api.test", root_path="").get("/me", headers={"host": "api.test:8000"})


class TestResource:
    @pytest.mark.parametrize(
        ("public_url", "prefix", "identifier", "metadata"),
        [
            (None, "", "http://api.test:8000", "http://api.test:8000/.well-known/oauth-protected-resource"),
            (None, "/api", "http://api.test:8000/api", "http://api.test:8000/.well-known/oauth-protected-resource/api"),
            ("https://x.example/", "", "https://x.example", "https://x.example/.well-known/oauth-protected-resource"),
            ("https://x.example/b", "/api", "https://x.example/b/api",
             "https://x.example/.well-known/oauth-protected-resource/b/api"),
        ],
    )  # fmt: skip
    def test_the_well_known_part_goes_between_host_and_path(
        self, public_url: str | None, prefix: str, identifier: str, metadata: str
    ) -> None:
        resource = Resource(public_url=public_url, path_prefix=prefix)
        assert resource.identifier(REQUEST) == identifier
        assert resource.metadata_url(REQUEST) == metadata

    def test_it_is_served_there_and_below_the_prefix(self) -> None:
        assert set(Resource(public_url="https://x.example/b", path_prefix="/api").metadata_paths()) == {
            "/.well-known/oauth-protected-resource",
            "/.well-known/oauth-protected-resource/b/api",
            "/api/.well-known/oauth-protected-resource",
        }

    @pytest.mark.parametrize("host", ["", 'x" injected="', "x y", "x/y", "é.example"])
    def test_a_host_that_is_none_is_left_out(self, host: str) -> None:
        request = RequestFactory().get("/me", headers={"host": host})
        assert Resource().metadata_url(request) is None
        assert Challenge(Resource()).header(request, MissingCredentials("x")) == 'Bearer realm="api"'


class TestChallenge:
    def test_a_description_is_made_legal(self) -> None:
        header = Challenge(Resource(public_url="https://x.example")).header(REQUEST, InvalidToken('a "b" \\ é\r\nX: y'))
        assert header is not None
        assert "error_description=\"a 'b' ' '''X: y\"" in header

    def test_what_the_client_cannot_mend_with_a_token_gets_none(self) -> None:
        challenge = Challenge(Resource())
        assert challenge.header(REQUEST, AccountDeleted("x")) is None
        assert challenge.header(REQUEST, KeysUnavailable("x", retry_after=1)) is None
