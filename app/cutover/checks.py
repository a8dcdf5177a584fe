"""What has to be known before anything is touched: one function a rule, each from a Snapshot to Findings.

The promise: all of them in one pass, refusals first. A refusal that a person may overrule is overruled by its code
(`--accept CODE`), or by naming the object (`--detach table.column`); there is no general force.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from app.cutover.catalog import Constraint, Dependent, ForeignKey, Index, Snapshot, Table, quoted
from app.cutover.census import Census
from app.cutover.layout import (
    ADDED_COLUMNS,
    GOING_COLUMNS,
    KEPT_COLUMNS,
    RETIRED_SCHEMA,
    SIGNATURES,
    TARGET_COLUMNS,
    Choices,
    Layout,
)

Action = Literal["adopt", "retire", "drop"]
ACTIONS: tuple[Action, ...] = ("adopt", "retire", "drop")
Level = Literal["refuse", "warn", "info"]

OVERRULABLE = frozenset({"identities-not-exported", "constraint-spans-column", "required-column", "function-body"})
"""Codes that --accept takes; the others have another remedy."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found. `message` states the fact, `remedy` can be pasted."""

    code: str
    level: Level
    subject: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Options:
    """What the person who runs the cutover decided."""

    choices: Choices = field(default_factory=Choices)
    accept: frozenset[str] = frozenset()
    detach: frozenset[str] = frozenset()
    """`table.column` or `schema.table.column` of foreign keys into a table that goes."""


ACCEPTABLE = OVERRULABLE | {"undo-loses-values"}


def decided(
    *, accept: Iterable[str] = (), keep: Iterable[str] = (), detach: Iterable[str] = (), tables: Iterable[str] = ()
) -> Options:
    """Return the options for what a person typed.

    Args:
        accept: codes of findings.
        keep: `users.column`.
        detach: `table.column` or `schema.table.column`.
        tables: `role=schema.table`.

    Raises:
        ValueError: one of them cannot be meant; the message says which and what would be right.
    """
    accept, keep, detach = frozenset(accept), frozenset(keep), frozenset(detach)
    for code in sorted(accept - ACCEPTABLE):
        raise ValueError(f"accept {code}: there is no such code to accept; there are {', '.join(sorted(ACCEPTABLE))}.")
    for name in sorted(keep):
        if not re.fullmatch(r"users\..+", name):
            raise ValueError(f"keep {name}: name a column of users, as in users.role.")
    for name in sorted(detach):
        if "." not in name:
            raise ValueError(f"detach {name}: name a column, as in devices.session_id.")
    mapped = {}
    for pair in tables:
        role, _, table = pair.partition("=")
        if role not in SIGNATURES or "." not in table:
            raise ValueError(f"map {pair}: give role=schema.table, where the role is one of {', '.join(SIGNATURES)}.")
        mapped[role] = table
    return Options(Choices(mapped, keep), accept, detach)


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything a rule may look at."""

    snapshot: Snapshot
    layout: Layout
    census: Census
    options: Options
    actions: tuple[Action, ...]

    @property
    def going(self) -> frozenset[tuple[str, str]]:
        return frozenset(table.key for table in self.layout.going)

    @property
    def going_columns(self) -> frozenset[str]:
        return frozenset(column.name for column in self.layout.going_columns)


class Refused(Exception):
    """Something must be decided or mended first; nothing was changed. `findings` holds all, refusals first."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(f"{found.code}: {found.message}" for found in refusals(self.findings)))


def refusals(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "refuse"]


def examine(situation: Situation) -> tuple[Finding, ...]:
    """Apply every rule that concerns the actions about to be taken."""
    if situation.layout.doubts:
        return tuple(
            Finding(doubt.code, "refuse", doubt.subject, doubt.message, doubt.remedy)
            for doubt in situation.layout.doubts
        )
    found: list[Finding] = []
    for action, rules in RULES.items():
        if action in situation.actions:
            for rule in rules:
                found += [_accepted(finding, situation.options) for finding in rule(situation)]
    order: dict[Level, int] = {"refuse": 0, "warn": 1, "info": 2}
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: order[finding.level]))


def _accepted(finding: Finding, options: Options) -> Finding:
    if finding.level == "refuse" and finding.code in OVERRULABLE and finding.code in options.accept:
        return replace(finding, level="warn", message=f"{finding.message} Accepted.")
    return finding


def detached(key: ForeignKey, options: Options) -> bool:
    """Whether --detach names this foreign key."""
    return bool(_names_of(key) & options.detach)


def _names_of(key: ForeignKey) -> set[str]:
    schema, table = key.table
    return {f"{prefix}{column}" for column in key.columns for prefix in (f"{table}.", f"{schema}.{table}.")}


def foreign_keys_into_going_tables(at: Situation) -> Iterator[Finding]:
    """A foreign key of the app's own into a table that goes: a CASCADE would silently drop it."""
    for key in at.snapshot.keys_to(*at.going):
        if key.table in at.going or key.inherited:
            continue
        where = f"{quoted(*key.table)} ({', '.join(key.columns)})"
        short = f"{key.table[0]}.{key.table[1]}.{key.columns[0]}"
        if detached(key, at.options):
            yield Finding(
                "foreign-key-detached",
                "info",
                where,
                f"{key.name} on {where} refers to {quoted(*key.target)}, which goes; the constraint is dropped, "
                "the column and its values stay.",
                "shadow undo restores it.",
            )
        else:
            yield Finding(
                "foreign-key-into-auth-table",
                "refuse",
                where,
                f"{key.name} on {where} refers to {quoted(*key.target)}, which goes.",
                f"--detach {short}, which drops that one constraint and keeps the column and its values; or "
                f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)};",
            )


def foreign_keys_into_going_columns(at: Situation) -> Iterator[Finding]:
    """A foreign key of the app's own to a column of users that goes."""
    users = at.layout.users
    for key in at.snapshot.keys_to(users.key) if users else ():
        if gone := set(key.target_columns) & at.going_columns:
            column = ", ".join(sorted(gone))
            yield Finding(
                "foreign-key-into-column",
                "refuse",
                quoted(*key.table),
                f"{key.name} on {quoted(*key.table)} refers to users ({column}), which goes.",
                " ".join(f"--keep users.{name}" for name in sorted(gone)),
            )


def dependents(at: Situation) -> Iterator[Finding]:
    """Views, functions, policies and whatever else reads a table or column that goes."""
    users = at.layout.users
    grouped: dict[tuple[str, str], list[Dependent]] = {}
    for found in at.snapshot.dependents:
        of_table = found.table in at.going
        of_users = users is not None and found.table == users.key and bool(at.going_columns)
        of_column = of_users and found.column in at.going_columns
        # a child table, or a column of the row type of users, would lose columns along with it
        of_shape = of_users and found.column is None and found.kind in ("table", "table column")
        if (of_table or of_column or of_shape) and not _goes_along(found, at):
            grouped.setdefault((found.kind, found.identity), []).append(found)
    for (kind, identity), reasons in grouped.items():
        what = sorted({_what(reason, at) for reason in reasons})
        yield Finding(
            f"dependent-{kind.replace(' ', '-')}",
            "refuse",
            identity,
            f"The {kind} {identity} depends on {', '.join(what)}, which "
            f"{'go' if len(what) > 1 else 'goes'}; dropping it would break or take the {kind}.",
            _removal(at, reasons[0]),
        )


def _goes_along(found: Dependent, at: Situation) -> bool:
    """Whether the object sits on a table that goes, or is the default of the very column that goes."""
    if found.owner in at.going:
        return True
    users = at.layout.users
    if found.kind == "default value" and users is not None and found.owner == users.key:
        return found.name in at.going_columns
    return False


def _what(reason: Dependent, at: Situation) -> str:
    if reason.table in at.going:
        return quoted(*reason.table)
    return f"{quoted(*reason.table)}.{reason.column}" if reason.column else f"columns of {quoted(*reason.table)}"


_DROPPED_BY_NAME = {
    "view": "VIEW",
    "materialized view": "MATERIALIZED VIEW",
    "function": "FUNCTION",
    "procedure": "PROCEDURE",
    "statistics object": "STATISTICS",
    "type": "TYPE",
}


def _removal(at: Situation, found: Dependent) -> str:
    """Return SQL that takes the object out of the way and no row of the app's with it."""
    remedy = _statement(at, found)
    if found.definition is None:
        return remedy
    kept = "\n".join(f"--   {line}" for line in found.definition.strip().splitlines())
    return f"{remedy}\n-- and make it anew without what goes; it is now:\n{kept}"


def _statement(at: Situation, found: Dependent) -> str:
    kind, owner, name = found.kind, found.owner, found.name
    if owner is not None and name is not None:
        table, column = quoted(*owner), quoted(name)
        if kind in ("trigger", "policy", "rule"):
            return f"DROP {kind.upper()} {column} ON {table};"
        if kind == "default value":
            return _without_expression(at, owner, name)
        if kind == "table column":
            return f"ALTER TABLE {table} ALTER COLUMN {column} TYPE jsonb USING to_jsonb({column});"
    if kind == "table":
        return f"ALTER TABLE {found.identity} NO INHERIT {quoted(*found.table)};"
    if kind == "publication relation":
        table, _, publication = found.identity.partition(" in publication ")
        return (
            f"ALTER PUBLICATION {publication} DROP TABLE {table};\n"
            f"-- then add it again with a column list without what goes: ALTER PUBLICATION {publication} ADD TABLE ..."
        )
    return f"DROP {_DROPPED_BY_NAME.get(kind, kind.upper())} {found.identity};"


def _without_expression(at: Situation, owner: tuple[str, str], name: str) -> str:
    table = at.snapshot.table(*owner)
    column = table.column(name) if table else None
    change = f"ALTER TABLE {quoted(*owner)} ALTER COLUMN {quoted(name)}"
    if column is not None and column.generated == "s":
        return f"{change} DROP EXPRESSION;\n-- the values stay, and are no longer computed"
    if column is not None and column.generated:
        return f"ALTER TABLE {quoted(*owner)} DROP COLUMN {quoted(name)};\n-- it is virtual and holds no values"
    return f"{change} DROP DEFAULT;"


def sequences_of_going_columns(at: Situation) -> Iterator[Finding]:
    """A sequence that a column owns is dropped with it, and undo could not tell where it stood."""
    users = at.layout.users
    for found in at.snapshot.dependents if users else ():
        if users is None or found.kind != "default value" or (found.owner, found.table) != (users.key, users.key):
            continue
        column = users.column(found.name or "")
        if column is None or column.name not in at.going_columns or found.column is not None:
            continue
        called = re.search(r"nextval\('((?:[^']|'')+)'", column.default or "")
        sequence = called[1].replace("''", "'") if called else "..."
        yield Finding(
            "column-owns-sequence",
            "refuse",
            f"users.{column.name}",
            f"users.{column.name}, which goes, owns the sequence {sequence}, which would go with it for good.",
            f"ALTER SEQUENCE {sequence} OWNED BY NONE;",
        )
    for column in users.columns if users else ():
        if column.identity and column.name in at.going_columns and users is not None:
            yield Finding(
                "column-owns-sequence",
                "refuse",
                f"users.{column.name}",
                f"users.{column.name}, which goes, is an identity column; its sequence would go with it for good.",
                f"ALTER TABLE {users.sql} ALTER COLUMN {quoted(column.name)} DROP IDENTITY;",
            )


def partitions(at: Situation) -> Iterator[Finding]:
    """A partition stays where it is when its table moves, and goes when that is dropped."""
    for table in at.snapshot.tables:
        for parent in table.parents:
            above = at.snapshot.table(*parent)
            if parent in at.going and above is not None and above.kind == "p":
                yield Finding(
                    "partitioned-table",
                    "refuse",
                    table.sql,
                    f"{table.sql} is a partition of {above.sql}, which goes; this version moves whole tables only.",
                    f"ALTER TABLE {above.sql} DETACH PARTITION {table.sql};\n-- it stays behind as a table of its own",
                )


def replica_identity(at: Situation) -> Iterator[Finding]:
    """An index over a column that goes may be how subscribers tell the rows of users apart."""
    users = at.layout.users
    if users is None or users.replica_index is None:
        return
    over: list[Constraint | Index] = [*users.constraints, *users.indexes]
    for found in over:
        if found.name == users.replica_index and set(found.columns) & at.going_columns:
            yield Finding(
                "replica-identity",
                "warn",
                users.sql,
                f"The replica identity of users is the index {found.name} over a column that goes; it becomes the "
                "primary key.",
                "shadow undo restores it.",
            )


def functions(at: Situation) -> Iterator[Finding]:
    """Function bodies are text to PostgreSQL: one that reads a column which is gone fails when it is next called."""
    users = at.layout.users
    if users is None:
        return
    tables = {table.name for table in at.layout.going}
    for function in at.snapshot.functions:
        if function.trigger_on and all(table in at.going for table in function.trigger_on):
            continue
        body = re.sub(r"--[^\n]*|/\*.*?\*/", "", function.source, flags=re.DOTALL)
        words = set(re.findall(r"[A-Za-z_]\w*", body))
        on_users = users.key in function.trigger_on
        columns = sorted(words & at.going_columns) if on_users or users.name in words else []
        mentioned = [*(quoted(name) for name in sorted(words & tables)), *(f"users.{name}" for name in columns)]
        if not mentioned:
            continue
        breaks = f"every change of {users.sql} would fail" if on_users else "it would fail when it is next called"
        yield Finding(
            "function-body",
            "refuse" if on_users else "warn",
            function.identity,
            f"The body of {function.identity} mentions {', '.join(mentioned)}; afterwards {breaks}.",
            f"\\ef {function.identity}\n-- and rewrite it without them; if it only uses the words: "
            "--accept function-body",
        )


def constraints_over_going_columns(at: Situation) -> Iterator[Finding]:
    """DROP COLUMN silently takes multi-column constraints and indexes along."""
    users = at.layout.users
    if users is None:
        return
    for constraint in users.constraints:
        gone, stay = _divided(constraint.columns, at)
        if gone and stay:
            yield Finding(
                "constraint-spans-column",
                "refuse",
                f"{users.sql} {constraint.name}",
                f"The constraint {constraint.name} on users, {constraint.definition}, covers {', '.join(gone)}, which "
                f"goes, and {', '.join(stay)}, which stays; it goes with the column.",
                f"{' '.join(f'--keep users.{name}' for name in gone)}, or --accept constraint-spans-column",
            )
    for index in users.indexes:
        gone, stay = _divided(index.columns, at)
        if gone and stay:
            yield Finding(
                "constraint-spans-column" if index.unique else "index-spans-column",
                "refuse" if index.unique else "warn",
                f"{users.sql} {index.name}",
                f"The index {index.name} on users covers {', '.join(gone)}, which goes, and {', '.join(stay)}, which "
                "stays; it goes with the column, and undo restores it.",
                (f"{' '.join(f'--keep users.{name}' for name in gone)}, or --accept constraint-spans-column\n")
                * index.unique
                + f"-- it is now: {index.definition};",
            )


def _divided(columns: Iterable[str], at: Situation) -> tuple[list[str], list[str]]:
    names = sorted(columns)
    return [n for n in names if n in at.going_columns], [n for n in names if n not in at.going_columns]


def columns_by_name(at: Situation) -> Iterator[Finding]:
    """Columns for which only their name speaks, and columns of a known name that are of another type."""
    users = at.layout.users
    for column in at.layout.going_columns:
        if column.by_name_only:
            yield Finding(
                "column-by-name",
                "warn",
                f"users.{column.name}",
                f"users.{column.name} goes because of its name alone ({column.reason.split(' put')[0]} uses it); "
                "nothing else says whose it is.",
                f"--keep users.{column.name} if it is the app's own.",
            )
    for own in users.columns if users else ():
        if own.name in GOING_COLUMNS and own.name not in at.going_columns:
            yield Finding(
                "column-kept",
                "info",
                f"users.{own.name}",
                f"users.{own.name} ({own.type}) stays as the app's own.",
                "Nothing to do.",
            )


def foreign_keys_of_going_columns(at: Situation) -> Iterator[Finding]:
    """A column that goes takes its own foreign key along; undo restores both."""
    users = at.layout.users
    for key in at.snapshot.keys_from(users.key) if users else ():
        if gone := set(key.columns) & at.going_columns:
            yield Finding(
                "foreign-key-of-column",
                "info",
                f"users.{', '.join(sorted(gone))}",
                f"{key.name} on users goes with its column {', '.join(sorted(gone))}.",
                "shadow undo restores both.",
            )


def required_columns(at: Situation) -> Iterator[Finding]:
    """A column of the app's own that is NOT NULL without default: the server could not insert a user."""
    users = at.layout.users
    if users is None:
        return
    for column in users.columns:
        filled = column.default is not None or column.identity or column.generated
        known = column.name in TARGET_COLUMNS and column.name not in ADDED_COLUMNS
        if column.not_null and not filled and not known and column.name not in at.going_columns:
            yield Finding(
                "required-column",
                "refuse",
                f"users.{column.name}",
                f"users.{column.name} ({column.type}) is NOT NULL without a default; the server, which does not know "
                "it, could never insert a new user.",
                f"ALTER TABLE {users.sql} ALTER COLUMN {quoted(column.name)} SET DEFAULT ...; "
                "or --accept required-column",
            )


def email_is_unique(at: Situation) -> Iterator[Finding]:
    """The server settles who holds an address by the unique constraint."""
    users = at.layout.users
    if users is None or _unique_at_once(users, "email", "pu"):
        return
    if any(index.unique and index.valid and index.definition.endswith("(email)") for index in users.indexes):
        return
    yield Finding(
        "email-not-unique",
        "refuse",
        f"{users.sql}.email",
        "users.email has no unique constraint that holds at once (not deferrable), which the server needs.",
        f"ALTER TABLE {users.sql} ADD CONSTRAINT users_email_unique UNIQUE (email);",
    )


def _unique_at_once(users: Table, column: str, kinds: str) -> bool:
    """Whether a constraint that is checked at once says so: ON CONFLICT takes no deferrable one as arbiter."""
    found = [c for c in users.constraints if c.kind in kinds and c.columns == (column,)]
    return any(" DEFERRABLE" not in constraint.definition for constraint in found)


def id_is_primary_key(at: Situation) -> Iterator[Finding]:
    users = at.layout.users
    if users is not None and not _unique_at_once(users, "id", "p"):
        yield Finding(
            "id-not-primary-key",
            "refuse",
            f"{users.sql}.id",
            "users.id is not the primary key of users, which the server needs.",
            f"ALTER TABLE {users.sql} ADD PRIMARY KEY (id);",
        )


def foreign_keys_to_email(at: Situation) -> Iterator[Finding]:
    """A foreign key to users(email) that does not follow updates: a changed address would be refused."""
    users = at.layout.users
    for key in at.snapshot.keys_to(users.key) if users else ():
        if "email" in key.target_columns and key.on_update != "c":
            yield Finding(
                "foreign-key-to-email",
                "refuse",
                f"{quoted(*key.table)} ({', '.join(key.columns)})",
                f"{key.name} on {quoted(*key.table)} refers to users (email) without ON UPDATE CASCADE; when a user's "
                "address changes at the provider, the database would refuse it.",
                f"ALTER TABLE {quoted(*key.table)} DROP CONSTRAINT {quoted(key.name)}, "
                f"ADD CONSTRAINT {quoted(key.name)} {_following(key.definition)};",
            )


_ACTION = r"(?:NO ACTION|RESTRICT|CASCADE|SET (?:NULL|DEFAULT)(?: \([^)]*\))?)"
_ACTIONS = re.compile(
    rf"(?: ON UPDATE {_ACTION})?"
    rf"(?P<rest>(?: ON DELETE {_ACTION})?(?: DEFERRABLE)?(?: INITIALLY DEFERRED)?(?: NOT VALID)?)\Z"
)


def _following(definition: str) -> str:
    """Return a foreign key's definition with ON UPDATE CASCADE."""
    return _ACTIONS.sub(lambda found: f" ON UPDATE CASCADE{found['rest']}", definition, count=1)


def unvalidated_foreign_keys(at: Situation) -> Iterator[Finding]:
    """NOT VALID keys, and those already violated, are kept as they are."""
    users = at.layout.users
    for key in at.snapshot.keys_to(users.key) if users else ():
        if not key.validated:
            count = at.census.orphans.get((key.table, key.name), 0)
            yield Finding(
                "foreign-key-not-valid",
                "warn",
                quoted(*key.table),
                f"{key.name} on {quoted(*key.table)} is NOT VALID, and {count:,} rows violate it; it is kept as it is.",
                f"ALTER TABLE {quoted(*key.table)} VALIDATE CONSTRAINT {quoted(key.name)}; "
                "once the rows are mended, if you like.",
            )


def publications(at: Situation) -> Iterator[Finding]:
    """A table that is dropped leaves its publications without a word."""
    for table in at.layout.going:
        for publication in table.publications:
            yield Finding(
                "publication",
                "refuse",
                table.sql,
                f"{table.sql}, which goes, is part of the publication {publication}; its subscribers would stop "
                "hearing of it without notice.",
                f"ALTER PUBLICATION {quoted(publication)} DROP TABLE {table.sql};",
            )
    broad: dict[str, list[str]] = {}
    for table in at.layout.going:
        for publication in table.broad_publications:
            broad.setdefault(publication, []).append(table.sql)
    for publication, tables in broad.items():
        yield Finding(
            "publication-of-everything",
            "warn",
            publication,
            f"The publication {publication} takes whatever tables there are, {', '.join(tables)} among them; its "
            "subscribers hear no more of these.",
            "Drop those tables at the subscribers, or leave them there as they are.",
        )


def privileges(at: Situation) -> Iterator[Finding]:
    """Everything the role cannot alter, at once."""
    users = at.layout.users
    touched: list[Table] = [*((users,) if users else ()), *(at.layout.going if at.actions != ("adopt",) else ())]
    for key in at.snapshot.keys_to(*at.going) if "retire" in at.actions else ():
        if detached(key, at.options) and (own := at.snapshot.table(*key.table)) is not None and own not in touched:
            touched.append(own)
    if lacking := [table for table in touched if not table.owned]:
        owners = sorted({table.owner for table in lacking})
        yield Finding(
            "missing-privileges",
            "refuse",
            at.snapshot.role,
            f"The role {at.snapshot.role} cannot alter {', '.join(table.sql for table in lacking)}: "
            f"{'it belongs' if len(lacking) == 1 else 'they belong'} to {', '.join(owners)}.",
            "\n".join(f"GRANT {quoted(owner)} TO {quoted(at.snapshot.role)};" for owner in owners),
        )
    if at.layout.schema in at.snapshot.schemas and at.layout.schema not in at.snapshot.creatable_schemas:
        yield Finding(
            "missing-privileges",
            "refuse",
            at.layout.schema,
            f"The role {at.snapshot.role} may not create tables in the schema {at.layout.schema}.",
            f"GRANT USAGE, CREATE ON SCHEMA {quoted(at.layout.schema)} TO {quoted(at.snapshot.role)};",
        )


def decisions_apply(at: Situation) -> Iterator[Finding]:
    """What a person named has to be there: a typing error must not pass for a decision."""
    users = at.layout.users
    for name in sorted(at.options.choices.keep):
        if users is None or users.column(name.removeprefix("users.")) is None:
            yield Finding(
                "nothing-of-that-name", "refuse", name, f"--keep {name}: users has no such column.", "shadow inspect"
            )
    into = [key for key in at.snapshot.keys_to(*at.going) if key.table not in at.going]
    for name in sorted(at.options.detach):
        if not any(name in _names_of(key) for key in into):
            yield Finding(
                "nothing-of-that-name",
                "refuse",
                name,
                f"--detach {name}: there is no foreign key on that column into a table that goes.",
                "shadow plan",
            )


def left_over(at: Situation) -> Iterator[Finding]:
    """What somebody put into the schema of the retired tables, which goes with them."""
    ours = {*at.going, (RETIRED_SCHEMA, KEPT_COLUMNS)}
    if at.layout.kind != "retired":
        return
    for table in at.snapshot.tables:
        if table.schema == RETIRED_SCHEMA and table.key not in ours:
            yield Finding(
                "schema-not-empty",
                "refuse",
                table.sql,
                f"{table.sql} is none of the retired tables, and the schema {RETIRED_SCHEMA} is to be dropped.",
                f"ALTER TABLE {table.sql} SET SCHEMA {quoted(at.layout.schema)};",
            )


def may_make_schema(at: Situation) -> Iterator[Finding]:
    """Retiring needs a schema of its own."""
    moves = bool(at.layout.going or at.layout.going_columns) and at.layout.kind != "retired"
    if moves and not at.snapshot.may_create_schema:
        yield Finding(
            "missing-privileges",
            "refuse",
            at.snapshot.database,
            f"The role {at.snapshot.role} may not create the schema {RETIRED_SCHEMA} in the database.",
            f"GRANT CREATE ON DATABASE {quoted(at.snapshot.database)} TO {quoted(at.snapshot.role)};",
        )
    if moves and RETIRED_SCHEMA in at.snapshot.schemas:
        yield Finding(
            "schema-taken",
            "refuse",
            RETIRED_SCHEMA,
            f"The schema {RETIRED_SCHEMA} exists already; the tables that go are to be kept there.",
            f"ALTER SCHEMA {RETIRED_SCHEMA} RENAME TO {RETIRED_SCHEMA}_old;",
        )


def schema_exists(at: Situation) -> Iterator[Finding]:
    if at.layout.schema not in at.snapshot.schemas:
        yield Finding(
            "schema-missing",
            "refuse",
            at.layout.schema,
            f"The schema {at.layout.schema} (DATABASE_SCHEMA) does not exist in the database {at.snapshot.database}.",
            f"CREATE SCHEMA {quoted(at.layout.schema)};",
        )


def identities(level: Level) -> Callable[[Situation], Iterator[Finding]]:
    """Ways to sign in that exist nowhere else: retiring can be undone, dropping cannot."""

    def rule(at: Situation) -> Iterator[Finding]:
        lost = at.census.identities
        if lost.any and not (level == "warn" and "drop" in at.actions):
            yield Finding(
                "identities-not-exported",
                level,
                "accounts",
                f"{lost.password_only:,} users have a password here as their only way in, {lost.linked:,} have linked "
                f"providers, {lost.second_factors:,} have second factors, and no export of them is known.",
                "Import them at the provider first; then --accept identities-not-exported"
                if level == "refuse"
                else "Import them at the provider before shadow migrate --to drop, which cannot be undone.",
            )

    return rule


def live_sessions(at: Situation) -> Iterator[Finding]:
    """Sessions that are still valid: is the old app really gone?"""
    if at.census.live_sessions:
        newest = at.census.newest_session
        since = f", the newest from {newest:%Y-%m-%d %H:%M} UTC" if newest else ""
        yield Finding(
            "live-sessions",
            "warn",
            "sessions",
            f"{at.census.live_sessions:,} sessions are still valid{since}; whoever holds one is signed out.",
            "Make sure that the old app no longer signs people in.",
        )


def colliding_emails(at: Situation) -> Iterator[Finding]:
    if at.census.colliding_emails:
        yield Finding(
            "email-case",
            "warn",
            "users.email",
            f"{at.census.colliding_emails:,} addresses are held by several users whose spelling differs in case only; "
            "a provider that lower-cases addresses knows one of them.",
            f"SELECT lower(email), array_agg(id) FROM {at.layout.users.sql if at.layout.users else 'users'} "
            "GROUP BY 1 HAVING count(*) > 1;",
        )


def long_transactions(at: Situation) -> Iterator[Finding]:
    for other in at.census.long_transactions:
        who = f"{other.role}, {other.application}" if other.application else other.role
        yield Finding(
            "long-transaction",
            "warn",
            f"pid {other.pid}",
            f"A transaction of pid {other.pid} ({who}) has been open for {other.seconds:,} s; a lock may have to "
            "wait for it.",
            f"SELECT pg_terminate_backend({other.pid}); if nobody misses it.",
        )


def backup(at: Situation) -> Iterator[Finding]:
    """Nothing here knows of a backup."""
    tables = [*((at.layout.users,) if at.layout.users else ()), *at.layout.going]
    if len(tables) > 1 or at.layout.going_columns:
        names = " ".join(f"-t '{table.sql}'" for table in tables)
        yield Finding(
            "no-backup",
            "warn",
            at.snapshot.database,
            "No backup is known to this tool.",
            f'pg_dump -Fc {names} -f before-cutover.dump "$DATABASE_URL"',
        )


Rule = Callable[[Situation], Iterator[Finding]]

RULES: dict[Action, tuple[Rule, ...]] = {
    "adopt": (
        schema_exists,
        privileges,
        id_is_primary_key,
        email_is_unique,
        required_columns,
        foreign_keys_to_email,
        colliding_emails,
        unvalidated_foreign_keys,
        long_transactions,
    ),
    "retire": (
        decisions_apply,
        privileges,
        may_make_schema,
        foreign_keys_into_going_tables,
        foreign_keys_into_going_columns,
        foreign_keys_of_going_columns,
        dependents,
        partitions,
        sequences_of_going_columns,
        replica_identity,
        functions,
        constraints_over_going_columns,
        publications,
        columns_by_name,
        identities("warn"),
        live_sessions,
        backup,
    ),
    "drop": (
        privileges,
        left_over,
        foreign_keys_into_going_tables,
        dependents,
        publications,
        identities("refuse"),
        backup,
    ),
}
