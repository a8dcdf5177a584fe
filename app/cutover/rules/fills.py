"""What retire would put where nothing is, and the table does not take."""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover import filling, restore
from app.cutover.catalog import quoted
from app.cutover.changes import Changes, Fill
from app.cutover.findings import Complaint, Finding, Situation
from app.cutover.rules.by_hand import anew
from app.cutover.rules.users import is_unique


def values_not_taken(at: Situation) -> Iterator[Finding]:
    """A check, a unique index or a domain forbids what stands for null."""
    changes = at.changes
    for found in at.complaints:
        if found.kind in filling.KINDS and changes is not None:
            over = _columns(changes, found)
            fills = [fill for fill in changes.fills if fill.column.name in over]
            what = ", ".join(f"{changes.users.sql}.{quoted(fill.column.name)} ({fill.value})" for fill in fills)
            by = f"the domain {fills[0].column.type}" if found.kind == filling.DOMAIN else quoted(found.identity)
            yield Finding(
                "value-not-taken",
                "refuse",
                f"{changes.users.sql} {quoted(found.identity)}",
                f"Where nothing is, retire puts what the server requires: {what}; {by} forbids that: {found.words}.",
                _remedy(changes, found, fills),
            )


def _columns(changes: Changes, found: Complaint) -> set[str]:
    if found.kind == filling.DOMAIN:
        return {found.identity}
    users = changes.users
    over = [each.columns for each in users.constraints if each.name == found.identity]
    over += [each.columns for each in users.indexes if each.name == found.identity]
    return {name for names in over for name in names}


def _remedy(changes: Changes, found: Complaint, fills: list[Fill]) -> str:
    users, email = changes.users, changes.fields.get("email")
    now = [line for each in users.indexes if each.name == found.identity for line in restore.index(users, each)]
    now += [
        line for each in users.constraints if each.name == found.identity for line in restore.constraint(users, each)
    ]
    kind = "index" if found.drop is not None and found.drop.startswith("DROP INDEX") else "constraint"
    dropped = [f"{found.drop};", *anew(kind, now, "after retire")] if found.drop is not None else []
    named = [quoted(fill.column.name) for fill in fills if fill.name == "name"]
    if not named or email is None or not is_unique(users, email.name):
        others = " and ".join(quoted(fill.column.name) for fill in fills)
        return "\n".join(dropped) or f"UPDATE {users.sql} SET {others} = ... WHERE {others} IS NULL;"
    alternative = ["-- or, if a name may be anything:", *(f"-- {line.removeprefix('-- ')}" for line in dropped)]
    return "\n".join(
        [
            f"UPDATE {users.sql} SET {named[0]} = {quoted(email.name)} WHERE {named[0]} IS NULL;",
            "-- the next token of each brings its name",
            *(alternative if dropped else ()),
        ]
    )
