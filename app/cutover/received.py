"""The two tables beside users that the server writes: which events came, and whom the provider has shut out.

The promise: whoever may write users may write them, and nobody else; they are of no use to what the cutover does, and
nothing of them counts in recognition, fingerprints or comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.cutover import restore
from app.cutover.catalog import EVENTS, STANDING, Snapshot, Table, quoted
from app.cutover.findings import Finding, Situation
from app.cutover.steps import Step

_WRITERS = frozenset({"INSERT", "UPDATE"})


def creation(schema: str, snapshot: Snapshot, users: Table | None) -> Step:
    """Return the step that makes the tables.

    Args:
        schema: where they are.
        snapshot: the catalogue.
        users: the table whose writers may write these; None where it is made by who runs this, and so are these.
    """
    events, standing = quoted(schema, EVENTS), quoted(schema, STANDING)
    return Step(
        f"{events} and {standing} are made, for what the provider sends",
        (
            f"""CREATE TABLE {events} (
    id character varying(255) PRIMARY KEY,
    type text NOT NULL,
    sub character varying(255),
    stated_at timestamp with time zone,
    received_at timestamp with time zone NOT NULL DEFAULT now(),
    outcome text NOT NULL
)""",
            f"CREATE INDEX {EVENTS}_sub_idx ON {events} (sub)",
            f"COMMENT ON TABLE {events} IS 'Events of the identity provider that came: none is applied twice.'",
            f"""CREATE TABLE {standing} (
    id character varying(255) PRIMARY KEY,
    disabled boolean NOT NULL,
    stated_at timestamp with time zone NOT NULL,
    until timestamp with time zone
)""",
            f"COMMENT ON TABLE {standing} IS 'Whom the identity provider has shut out, by the id of users.'",
            *(statement for table in (events, standing) for statement in _for_writers(table, snapshot, users)),
        ),
        undo=(f"DROP TABLE {standing}", f"DROP TABLE {events}"),
        undone="they are dropped",
    )


def _for_writers(table: str, snapshot: Snapshot, users: Table | None) -> Iterator[str]:
    if users is None:
        return
    # what the database gives on any new table was perhaps not given on users
    yield from restore.grants("TABLE", table, snapshot.role, None, snapshot.default_grantees)
    for to in sorted(_writers(users) - {quoted(snapshot.role)}):
        yield f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {to}"


def _writers(users: Table) -> set[str]:
    """Return who may insert or update rows, or some columns of them, as SQL names."""
    found = {quoted(users.owner)} if users.owner else set()
    given = [*(users.grants or ()), *(grant for column in users.columns for grant in column.grants or ())]
    return found | {grant.grantee for grant in given if _WRITERS & {*grant.each}}


def names_taken(situation: Situation) -> Iterator[Finding]:
    """What is called as one of the tables before adopt makes it; it is never taken for ours, nor written to."""
    for name in (EVENTS, STANDING):
        if (other := situation.snapshot.table(situation.layout.schema, name)) is not None:
            kind = {"v": "VIEW", "m": "MATERIALIZED VIEW", "f": "FOREIGN TABLE"}.get(other.kind, "TABLE")
            yield Finding(
                "name-taken",
                "refuse",
                other.sql,
                f"{other.sql} exists; adopt makes a table of that name for what the provider sends.",
                f"ALTER {kind} {other.sql} RENAME TO {quoted(name + '_own')};",
            )
