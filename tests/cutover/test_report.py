"""`shadow plan --format text` as a person reads it: whole reports, beside the texts in `snapshots/`.

The promise: a terminal of 100 columns without colours; what differs from run to run stands there by name, in braces.
`pytest tests/cutover/test_report.py --update-snapshots` writes the texts anew: then read them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

import pytest

from app import cli
from tests.cutover.commands import ACCEPTED, Outcome, migrate, shadow
from tests.cutover.layouts import on_the_newest_server
from tests.cutover.witness import Witness

SNAPSHOTS = Path(__file__).parent / "snapshots"
COLUMNS = 100
# a session that ends while the tests are kept would change what is found
NEVER_ENDS = "UPDATE {} SET {} = '2999-01-01'"
IN_THE_WAY = """
CREATE TABLE devices (id int PRIMARY KEY, session_id varchar(255) REFERENCES sessions ON DELETE SET NULL);
CREATE VIEW active_users AS SELECT id, name FROM users WHERE status = 'active';
CREATE POLICY own_files ON files USING (owner_id IN (SELECT user_id FROM sessions));
CREATE INDEX locked_out ON users (locked_until) WHERE failed_login_attempts > 3;
ALTER TABLE users ADD tenant text;
UPDATE users SET tenant = 'first';
ALTER TABLE users ALTER tenant SET NOT NULL;
CREATE TABLE invitations (id int PRIMARY KEY, email varchar(255) REFERENCES users (email));
"""


@dataclass(frozen=True)
class Case:
    """A database, how far it is to go, and how the plan ends."""

    name: str
    fixture: str | None
    arguments: tuple[str, ...]
    sql: str = ""
    code: int = 0
    schema: str = "public"


CASES = (
    Case("text_ids", "plural_snake", ("--to", "retire"), NEVER_ENDS.format("sessions", "expires_at")),
    Case(
        "camel_case_whole_way", "kysely_singular", ("--to", "drop", "--accept", ACCEPTED),
        NEVER_ENDS.format("session", '"expiresAt"'),
    ),
    Case("uuid_ids", "uuid_kysely", ("--to", "retire"), NEVER_ENDS.format("session", '"expiresAt"')),
    Case(
        "renamed_adopt", "renamed_schema", ("--to", "adopt"), NEVER_ENDS.format("identity.logins", "valid_until"),
        schema="identity",
    ),
    Case(
        "refused", "plural_snake", ("--to", "drop"), IN_THE_WAY + NEVER_ENDS.format("sessions", "expires_at"), code=2
    ),
    Case("nothing_to_do", None, ("--to", "drop")),
)  # fmt: skip

VARYING = (
    (r"(?<=^Plan for )t\d+_\d+ \(PostgreSQL \d+, as \w+\)", "{database} (PostgreSQL {version}, as {role})"),
    (r"(?<=, fingerprint )[0-9a-f]{16}$", "{fingerprint}"),
    (r"(?<='::jsonb, ')[0-9a-f]{16}(?=',$)", "{fingerprint}"),
    (r"(?<= rows, )[\d,]+ (?:bytes|kB|MB)(?=;|$)", "{size}"),
    (r"(?<=; )(?:about [\d.]+|less than 0\.1) s(?=;)", "{time}"),
    (r"(?<= \.\.\. \()[\d,]+ characters(?=\)$)", "{length}"),
)


def steady(text: str) -> str:
    """Return a report with a name for what differs from run to run, or from one release of PostgreSQL to the next."""
    for pattern, name in VARYING:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text


def planned(case: Case, database: Witness, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    monkeypatch.setattr(cli.out, "width", COLUMNS)
    if case.fixture is None:
        assert migrate(database.url, "drop").code == 0
    if case.sql:
        database.run(case.sql)
    settings = {"DATABASE_SCHEMA": case.schema, "LOGNAME": "somebody"}
    return shadow(database.url, "plan", *case.arguments, **settings)


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@on_the_newest_server
@each_case
def test_it_reads_as_it_did(
    case: Case, load: Callable[[str | None], Witness], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    outcome = planned(case, load(case.fixture), monkeypatch)
    assert outcome.code == case.code, outcome.err
    text, kept = steady(outcome.out), SNAPSHOTS / f"{case.name}.txt"
    if request.config.getoption("--update-snapshots"):
        kept.write_text(text, encoding="utf-8")
        pytest.skip(f"{kept.name} is written anew; read it")
    before = kept.read_text(encoding="utf-8")
    if text != before:
        pytest.fail("\n".join(unified_diff(before.splitlines(), text.splitlines(), str(kept), "now", lineterm="")))


def test_every_text_that_is_kept_is_compared() -> None:
    assert {path.stem for path in SNAPSHOTS.iterdir()} == {case.name for case in CASES}


@each_case
class TestText:
    def test_what_is_no_sql_and_no_remedy_keeps_to_the_width(self, case: Case) -> None:
        for line in (SNAPSHOTS / f"{case.name}.txt").read_text(encoding="utf-8").splitlines():
            if not line.startswith("     ") or line.startswith("     lock: "):
                assert len(line) <= COLUMNS, line

    def test_no_line_ends_in_blanks_and_none_has_an_escape_code(self, case: Case) -> None:
        text = (SNAPSHOTS / f"{case.name}.txt").read_text(encoding="utf-8")
        assert [line for line in text.splitlines() if line != line.rstrip() or "\x1b" in line] == []

    def test_the_last_line_is_the_verdict(self, case: Case) -> None:
        *_, last = (SNAPSHOTS / f"{case.name}.txt").read_text(encoding="utf-8").splitlines()
        assert last.startswith("Refused: " if case.code else ("Ready: ", "Nothing to do."))
