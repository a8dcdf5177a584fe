"""The language of the blocks that silence triggers: a database may lack it, or withhold it from the role."""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover.findings import Finding, Situation
from app.cutover.hush import LANGUAGE


def language(at: Situation) -> Iterator[Finding]:
    """Retire writes rows, or its undo does, in which no trigger of the app's is to have a say."""
    found, remedy = at.changes, at.census.language_lacks
    if found is None or remedy is None:
        return
    if found.fills or found.rate_limits or any(not column.generated for column in found.going):
        yield lacking(at.snapshot.role, at.snapshot.database, remedy)


def lacking(role: str, database: str, remedy: str) -> Finding:
    """Return the finding.

    Args:
        role: who looks.
        database: its name.
        remedy: from `hush.language_lacks`.
    """
    what = "does not have the language" if remedy.startswith("CREATE") else f"does not let {role} use the language"
    return Finding(
        "missing-language",
        "refuse",
        LANGUAGE,
        f"The database {database} {what} {LANGUAGE}, in which triggers of yours are silenced while rows are written.",
        remedy,
    )
