"""Foreign keys to users(email): what the finding says would happen is what PostgreSQL does."""

from __future__ import annotations

import pytest

from tests.cutover.commands import migrate, plan
from tests.cutover.witness import Witness

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

LETTERS = """
CREATE TABLE letters (recipient text {column} REFERENCES users (email) ON UPDATE {action});
INSERT INTO letters SELECT min(email) FROM users
"""
CHANGES = "UPDATE users SET email = 'new@example.com' WHERE email = (SELECT recipient FROM letters)"
RECIPIENT = "SELECT recipient FROM letters"


@pytest.mark.parametrize("column", ["", "NOT NULL", "DEFAULT (NULL)", "DEFAULT 'last@example.com'"])
@pytest.mark.parametrize("action", ["NO ACTION", "RESTRICT", "SET NULL", "SET DEFAULT"])
def test_what_becomes_of_the_rows_is_said(database: Witness, action: str, column: str) -> None:
    database.run("UPDATE users SET email = 'last@example.com' WHERE email = (SELECT max(email) FROM users)")
    database.run(LETTERS.format(action=action, column=column))
    (found,) = plan(database.url, "adopt").findings("foreign-key-to-email")
    _, _, said = found["message"].partition("at the provider, ")
    try:
        database.run(f"BEGIN; {CHANGES}; COMMIT")
    except AssertionError:
        assert said == "the database would refuse it."
    else:
        now = database.value(RECIPIENT)
        assert now in (None, "last@example.com")
        assert ("to null" in said, "to the default" in said) == (now is None, now is not None), said
    assert "recipient" in said or "refuse" in said
    database.run(found["remedy"])
    assert migrate(database.url, "adopt").code == 0
