"""In what a row follows a token."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.users.identity import Identity, ShadowRules, ShadowUser, is_placeholder, placeholder
from tests.users.stated import MONDAY, claims

RULES = ShadowRules()
THEN = datetime(2025, 10, 9, 8, 53, 20, tzinfo=UTC)  # MONDAY


def row(**values: Any) -> ShadowUser:
    known: dict[str, Any] = {
        "id": "ada",
        "name": "Ada Lovelace",
        "stored_email": "ada@example.com",
        "email_verified": True,
        "image": "https://example.com/ada.png",
        "onboarding_completed_at": None,
        "created_at": THEN,
        "updated_at": THEN,
        "deleted_at": None,
        "identity_updated_at": THEN,
    }
    return ShadowUser(**(known | values))


class TestOf:
    def test_the_time_of_the_statement_is_iat(self) -> None:
        assert Identity.of(claims()).stated_at == THEN

    @pytest.mark.parametrize(
        "email", ["eve@placeholder.invalid", "eve@PLACEHOLDER.invalid", "a\0b@x", "\ud800@x", None]
    )
    def test_an_address_that_nobody_can_have_or_that_cannot_be_stored_is_none(self, email: str | None) -> None:
        stated = Identity.of(claims(email=email))
        assert (stated.email, stated.email_verified) == (None, None)
        assert stated.address == "ada@placeholder.invalid"

    @pytest.mark.parametrize("name", ["नमस्ते", "e\u0301", "\u202eevil", "👩‍💻", "a" * 255, "tab\there"])
    def test_a_name_in_any_script_is_taken_verbatim(self, name: str) -> None:
        assert Identity.of(claims(name=name)).name == name


class TestChanges:
    def test_a_token_no_newer_than_the_row_changes_nothing(self) -> None:
        stated = Identity.of(claims(name="Countess", email="new@example.com"))
        assert stated.changes(row(identity_updated_at=THEN), RULES) == {}

    def test_a_token_without_iat_changes_nothing(self) -> None:
        assert Identity.of(claims(iat=None, name="Countess")).changes(row(identity_updated_at=None), RULES) == {}

    def test_a_newer_token_that_says_the_same_changes_nothing(self) -> None:
        assert Identity.of(claims(iat=MONDAY + 1)).changes(row(), RULES) == {}

    def test_silence_changes_nothing(self) -> None:
        silent = claims(iat=MONDAY + 1, email=None, email_verified=None, name=None, image=None)
        assert Identity.of(silent).changes(row(), RULES) == {}

    def test_a_row_that_was_never_dated_is_older_than_any_token(self) -> None:
        changes = Identity.of(claims(name="Countess")).changes(row(identity_updated_at=None), RULES)
        assert changes == {"name": "Countess", "identity_updated_at": THEN}

    def test_a_new_address_is_not_verified_by_silence(self) -> None:
        stated = Identity.of(claims(iat=MONDAY + 1, email="new@example.com", email_verified=None))
        changes = stated.changes(row(email_verified=True), RULES)
        assert (changes["email"], changes["email_verified"]) == ("new@example.com", False)

    def test_verification_follows_for_the_same_address(self) -> None:
        changes = Identity.of(claims(iat=MONDAY + 1, email_verified=False)).changes(row(), RULES)
        assert changes["email_verified"] is False
        assert "email" not in changes

    def test_what_the_app_owns_does_not_follow(self) -> None:
        stated = Identity.of(claims(iat=MONDAY + 1, name="Countess", image="https://example.com/new.png"))
        assert stated.changes(row(), ShadowRules(app_owned=frozenset({"name", "image"}))) == {}
        assert stated.changes(row(), ShadowRules(app_owned=frozenset({"image"})))["name"] == "Countess"

    def test_a_placeholder_gives_way_to_an_address(self) -> None:
        changes = Identity.of(claims(iat=MONDAY + 1)).changes(row(stored_email=placeholder("ada")), RULES)
        assert changes["email"] == "ada@example.com"


class TestPlaceholder:
    def test_it_is_recognised_and_not_shown(self) -> None:
        assert placeholder("ada") == "ada@placeholder.invalid"
        assert is_placeholder("some former id@placeholder.invalid")
        assert row(stored_email=placeholder("ada")).email is None
        assert row().email == "ada@example.com"
