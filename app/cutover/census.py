"""What the rows say: the counts that the rules and the sentences of a plan speak of.

The promise: it only reads, and holds no lock that anybody waits for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from app.cutover import changes, hush, strangers
from app.cutover.catalog import ForeignKey, Snapshot, Table, literal, quoted
from app.cutover.changes import Changes
from app.cutover.layout import Layout, Role
from app.cutover.surroundings import Surroundings, look_around


@dataclass(frozen=True, slots=True)
class Identities:
    """Ways to sign in that only this database knows of, in users."""

    password_only: int
    linked: int
    second_factors: int
    passkeys: int = 0

    @property
    def any(self) -> bool:
        return bool(self.password_only or self.linked or self.second_factors or self.passkeys)


@dataclass(frozen=True, slots=True)
class Values:
    """Rows of users with values that the target does not take, or takes as something else."""

    emails_null: int = 0
    emails_empty: int = 0
    ids_empty: int = 0
    ids_long: int = 0
    """Longer than LONGEST_ID."""
    names_null: int = 0
    names_empty: int = 0
    updated_missing: int = 0
    soft_deleted: int = 0
    infinite: Mapping[str, int] = field(default_factory=dict)
    """Column of the target to the rows in which it is infinity or -infinity; those without any are left out."""


@dataclass(frozen=True, slots=True)
class Census:
    """Counts at one moment."""

    surroundings: Surroundings
    rows: Mapping[tuple[str, str], int] = field(default_factory=dict)
    identities: Identities = field(default_factory=lambda: Identities(0, 0, 0))
    password_hashes: Mapping[str, int] = field(default_factory=dict)
    """Kind of hash to the number of accounts that have it."""
    live_sessions: int | None = 0
    """None where it is not known when a session expires."""
    newest_session: datetime | None = None
    colliding_emails: int = 0
    """Groups of addresses that are equal but for case."""
    orphans: Mapping[tuple[tuple[str, str], str], int] = field(default_factory=dict)
    """Of each foreign key that is not validated, by table and name: rows that violate it."""
    violated: Mapping[tuple[tuple[str, str], str], int] = field(default_factory=dict)
    """Of each validated foreign key that the cutover touches: rows that violate it; those without any are left out."""
    recased: Mapping[tuple[tuple[str, str], str], int] = field(default_factory=dict)
    """Of each foreign key over citext that becomes text: rows whose value differs in case from what it refers to."""
    values: Values = field(default_factory=Values)
    dead_limits: int = 0
    """Rows of rate_limit that count the requests of sessions."""
    held_limits: Mapping[tuple[tuple[str, str], str], int] = field(default_factory=dict)
    """Of each foreign key of a table that stays, by table and name: rows that refer to one of those."""
    language_lacks: str | None = None
    """The SQL that gives the role the language in which triggers are silenced; None where it has it."""
    retired_members: tuple[strangers.Member, ...] = ()
    """All that is in the schema of the retired tables."""

    def told(self, snapshot: Snapshot) -> Snapshot:
        """Return the catalogue, in which each foreign key says how many rows violate it though it is validated."""
        keys = tuple(
            replace(key, violated=self.violated.get((key.table, key.name), 0)) for key in snapshot.foreign_keys
        )
        return replace(snapshot, foreign_keys=keys)


LONGEST_ID = 255
"""Characters of a `sub` that the server takes."""

# a count in a regular expression, {128}, takes 50 us a row: a minute at a million
_HASHES = """CASE WHEN length({0}) = 161 AND strpos({0}, ':') = 33 AND {0} ~ '^[0-9a-f]+:[0-9a-f]+$'
  THEN 'scrypt (Better Auth)'
  WHEN {0} ~ '^\\$2[aby]\\$' THEN 'bcrypt' WHEN {0} ~ '^\\$argon2' THEN 'argon2' ELSE 'unknown' END"""


def take(connection: Connection, snapshot: Snapshot, layout: Layout) -> Census:
    """Count what the rules need, in the transaction of the connection.

    Nothing is counted where the layout is in doubt, or where the role may not read what it is about: that is a refusal
    of the rules anyway.
    """
    around = look_around(connection, set() if layout.doubts else {table.key for table in touched(snapshot, layout)})
    if layout.doubts or not all(role.table.readable for role in layout.roles):
        return Census(around)
    users = layout.users
    tables = {table.key: table for table in (*((users,) if users else ()), *layout.going)}
    keys = list(snapshot.keys_to(users.key)) if users else []
    for key in keys:
        if (table := snapshot.table(*key.table)) is not None and snapshot.sees(table):
            tables[table.key] = table
    live_sessions, newest_session = _sessions(connection, layout.role("sessions"))
    unchecked = {
        (key.table, key.name): orphans(connection, snapshot, key)
        for key in keys
        if not key.validated and key.table in tables
    }
    violated = {
        (key.table, key.name): count
        for key in _concerned(snapshot, layout)
        if (count := orphans(connection, snapshot, key))
    }
    lost = {**unchecked, **violated}
    return Census(
        around,
        rows={key: _scalar(connection, f"SELECT count(*) FROM {table.sql}") for key, table in tables.items()},
        identities=_identities(connection, layout),
        password_hashes=_hashes(connection, layout.role("accounts")),
        live_sessions=live_sessions,
        newest_session=newest_session,
        colliding_emails=_collisions(connection, layout),
        orphans=unchecked,
        violated=violated,
        recased={
            (key.table, key.name): count
            for key in _ignoring_case(snapshot, layout)
            if key.table in tables
            and (count := orphans(connection, snapshot, key, "::text") - lost.get((key.table, key.name), 0))
        },
        values=_values(connection, layout),
        dead_limits=_dead_limits(connection, layout.role("rate_limits")),
        held_limits=dict(_held_limits(connection, snapshot, layout)),
        language_lacks=hush.language_lacks(connection),
        retired_members=strangers.members(connection),
    )


def touched(snapshot: Snapshot, layout: Layout) -> Iterator[Table]:
    """Yield the tables that the cutover changes, and so those on which another's lock would hold it up."""
    planned, limits = changes.of(snapshot, layout), layout["rate_limits"]
    yield from planned.touched if planned else layout.going
    yield from (limits,) if limits else ()
    # the foreign keys into what goes are dropped, those over what changes its type are made anew
    keys = (*snapshot.keys_to(*(table.key for table in layout.going)), *(planned.keys if planned else ()))
    for name in {end for key in keys for end in (key.table, key.target)}:
        if (table := snapshot.table(*name)) is not None:
            yield table


def _concerned(snapshot: Snapshot, layout: Layout) -> Iterator[ForeignKey]:
    """Yield the validated foreign keys that refer to users, are dropped for good or for a while, or are made anew."""
    planned, users = changes.of(snapshot, layout), layout.users
    going = {table.key for table in changes.with_partitions(snapshot, layout.going)}
    gone = {column.name for column in layout.going_columns}
    for key in snapshot.foreign_keys:
        ends = [snapshot.table(*name) for name in (key.table, key.target)]
        if not (key.validated and key.enforced) or key.inherited:
            continue  # a partition's rows are counted with the whole
        if any(table is None or not snapshot.sees(table) for table in ends):
            continue
        if (
            (users is not None and key.target == users.key)
            or (users is not None and key.table == users.key and gone & set(key.columns))
            or (key.table in going) != (key.target in going)  # among them, it moves along and stands
            or (planned is not None and made_anew(planned, key))
        ):
            yield key


def made_anew(planned: Changes, key: ForeignKey) -> bool:
    """Whether retire makes PostgreSQL check all rows of a foreign key, which it adds again over other types."""
    if key.table in {move.table.key for move in planned.moves}:
        return False
    retyped = [planned.retyped(key.table, name) for name in key.columns]
    retyped += [planned.retyped(key.target, name) for name in key.target_columns]
    return key in planned.keys or any(each is not None and each.column.base_type == "citext" for each in retyped)


def _ignoring_case(snapshot: Snapshot, layout: Layout) -> Iterator[ForeignKey]:
    """Yield the foreign keys to a column of users that is citext and becomes text."""
    planned = changes.of(snapshot, layout)
    for key in snapshot.keys_to(planned.users.key) if planned else ():
        retyped = [planned.retyped(key.target, column) for column in key.target_columns] if planned else []
        if any(each is not None and each.column.base_type == "citext" for each in retyped):
            yield key


def orphans(connection: Connection, snapshot: Snapshot, key: ForeignKey, cast: str = "") -> int:
    """Return how many rows violate a foreign key: with MATCH SIMPLE, a null in any column satisfies it.

    Args:
        connection: the database.
        snapshot: its catalogue.
        key: the foreign key.
        cast: what both sides are compared as, `::text`.
    """
    return _scalar(connection, f"SELECT count(*) FROM {snapshot.rows_of(key)} r WHERE {violating(snapshot, key, cast)}")


def violating(snapshot: Snapshot, key: ForeignKey, cast: str = "") -> str:
    """Return SQL that says whether a row `r` violates a foreign key, for the arguments of `orphans`."""
    same = " AND ".join(
        f"t.{quoted(target)}{cast} {'=' if cast else _equals(snapshot, key.target, target)} r.{quoted(column)}{cast}"
        for column, target in zip(key.columns, key.target_columns, strict=True)
    )
    given = (" OR " if key.match == "f" else " AND ").join(f"r.{quoted(column)} IS NOT NULL" for column in key.columns)
    return f"({given}) AND NOT EXISTS (SELECT FROM {quoted(*key.target)} t WHERE {same})"


def _equals(snapshot: Snapshot, table: tuple[str, str], name: str) -> str:
    """Return the operator by which a foreign key compares: where nobody finds that of citext, text's would be taken."""
    column = found.column(name) if (found := snapshot.table(*table)) is not None else None
    schema = next((schema for _, schema, type_ in snapshot.types if type_ == "citext"), None)
    citext = column is not None and column.base_type == "citext" and schema is not None
    return f"OPERATOR({quoted(schema or '')}.=)" if citext else "="


def _scalar(connection: Connection, sql: str) -> int:
    return int(connection.exec_driver_sql(sql).scalar_one())


def _identities(connection: Connection, layout: Layout) -> Identities:
    password_only = linked = 0
    if (accounts := layout.role("accounts")) is not None:
        owner, provider, password = (accounts.spelled(name) for name in ("user_id", "provider_id", "password"))
        # an account of which it is not known what it is counts as a linked provider: better asked than lost
        password_only, linked = connection.exec_driver_sql(
            f"""SELECT count(*) FILTER (WHERE password AND NOT linked), count(*) FILTER (WHERE linked)
            FROM (SELECT bool_or({password or "NULL"} IS NOT NULL) AS password,
                         bool_or({f"{provider} <> 'credential'" if provider else "true"}) AS linked
                  FROM {accounts.table.sql} GROUP BY {owner or "id"}) u"""
        ).one()
    return Identities(
        password_only,
        linked,
        _owners(connection, layout.role("two_factors")),
        _owners(connection, layout.role("passkeys")),
    )


def _owners(connection: Connection, role: Role | None) -> int:
    if role is None:
        return 0
    owner = role.spelled("user_id")
    return _scalar(connection, f"SELECT count({f'DISTINCT {owner}' if owner else '*'}) FROM {role.table.sql}")


def _hashes(connection: Connection, accounts: Role | None) -> dict[str, int]:
    password = accounts.spelled("password") if accounts else None
    if accounts is None or password is None:
        return {}
    found = connection.exec_driver_sql(
        f"SELECT {_HASHES.format(password)}, count(*) FROM {accounts.table.sql} WHERE {password} IS NOT NULL "
        "GROUP BY 1 ORDER BY 1"
    )
    return {str(kind): int(count) for kind, count in found}


def _sessions(connection: Connection, sessions: Role | None) -> tuple[int | None, datetime | None]:
    if sessions is None:
        return 0, None
    if (expires := sessions.spelled("expires_at")) is None:
        return None, None
    created = sessions.spelled("created_at") or "NULL::timestamptz"
    live, newest = connection.exec_driver_sql(
        f"SELECT count(*), max({created}) FROM {sessions.table.sql} WHERE {expires} > now()"
    ).one()
    return live, newest


def _dead_limits(connection: Connection, limits: Role | None) -> int:
    key = limits.spelled("key") if limits else None
    if limits is None or key is None:
        return 0
    rows = limits.table.sql if limits.table.kind == "p" else f"ONLY {limits.table.sql}"
    return _scalar(connection, f"SELECT count(*) FROM {rows} WHERE {key} LIKE {literal(changes.DEAD_ROWS)}")


def _held_limits(
    connection: Connection, snapshot: Snapshot, layout: Layout
) -> Iterator[tuple[tuple[tuple[str, str], str], int]]:
    limits = layout.role("rate_limits")
    if limits is None or (own := limits.spelled("key")) is None:
        return
    going = {table.key for table in layout.going}
    for key in snapshot.keys_to(limits.table.key):
        table = snapshot.table(*key.table)
        if table is None or not snapshot.sees(table) or key.table in going or key.inherited or not key.enforced:
            continue
        pairs = zip(key.columns, key.target_columns, strict=True)
        same = " AND ".join(f"t.{quoted(target)} = r.{quoted(column)}" for column, target in pairs)
        count = _scalar(
            connection,
            f"SELECT count(*) FROM {snapshot.rows_of(key)} r JOIN {limits.table.sql} t ON {same} "
            f"WHERE t.{own} LIKE {literal(changes.DEAD_ROWS)}",
        )
        if count:
            yield (key.table, key.name), count


def _collisions(connection: Connection, layout: Layout) -> int:
    users, email = layout.users, layout.fields.get("email")
    if users is None or email is None:
        return 0
    lower = f"lower({quoted(email.name)}::text)"
    return _scalar(
        connection,
        f"SELECT count(*) FROM (SELECT FROM {users.sql} WHERE {quoted(email.name)} <> '' GROUP BY {lower} "
        "HAVING count(*) > 1) g",
    )


def _values(connection: Connection, layout: Layout) -> Values:
    """Count in one pass over users."""
    users = layout.users
    if users is None:
        return Values()
    named = {name: quoted(column.name) for name, column in layout.fields.items()}
    moments = [name for name, column in layout.fields.items() if column.type.startswith("timestamp")]
    conditions = {
        "emails_null": ("email", "{} IS NULL"),
        "emails_empty": ("email", "{}::text = ''"),
        "ids_empty": ("id", "{}::text = ''"),
        "ids_long": ("id", f"length({{}}::text) > {LONGEST_ID}"),
        "names_null": ("name", "{} IS NULL"),
        "names_empty": ("name", "{}::text = ''"),
        "updated_missing": ("updated_at", "{} IS NULL"),
        "soft_deleted": ("deleted_at", "{} IS NOT NULL"),
        **{f"infinite {name}": (name, "NOT isfinite({})") for name in moments},
    }
    counted = ", ".join(
        f"count(*) FILTER (WHERE {condition.format(named[name])}) AS {quoted(count)}"
        for count, (name, condition) in conditions.items()
        if name in named
    )
    row = dict(connection.exec_driver_sql(f"SELECT {counted or '1'} FROM {users.sql}").mappings().one())
    infinite = {name: count for name in moments if (count := row.pop(f"infinite {name}"))}
    return Values(**row, infinite=infinite) if counted else Values()
