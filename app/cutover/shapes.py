"""Shapes: what a table or column is when its names do not say it. Foreign keys, types, and what is in the rows.

The promise: a shape is only asked for where names fail, each answer says what it rests on, and two answers are none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from app.cutover.catalog import Column, Snapshot, Table, quoted
from app.cutover.flags import flag
from app.cutover.names import with_suffix
from app.cutover.signatures import GOING_COLUMNS, TARGET_COLUMNS, USERS, normalised

Content = Literal[
    "address", "picture", "password", "provider", "key", "agent", "token", "sealed", "reset", "limit", "anything"
]
"""What the sampled values of a text column are; see `samples.py`."""
Look = Callable[[Table], Mapping[str, frozenset[Content]]]
"""Returns what is in each text column of a table."""

_BY_SHAPE = "by its shape: "


def looks_like_nothing(_table: Table) -> Mapping[str, frozenset[Content]]:
    """Look into no row."""
    return {}


def is_shape(reason: str) -> bool:
    """Whether a role was given for its shape."""
    return reason.startswith(_BY_SHAPE)


_NAMES_ONLY = "its columns "


def is_proven(reason: str) -> bool:
    """Whether a shape rests on what is in the rows, and not on names alone."""
    return is_shape(reason) and _NAMES_ONLY not in reason


def is_text(column: Column) -> bool:
    return re.match(r"text\b|character|(\w+\.)?citext\b", column.type) is not None or column.base_type in _TEXT_TYPES


def is_moment(column: Column) -> bool:
    return re.match(r"timestamp\b", column.type) is not None


def is_boolean(column: Column) -> bool:
    return column.type == "boolean" or column.base_type == "bool"


def is_number(column: Column) -> bool:
    return plain_type(column) in ("smallint", "integer", "bigint")


def plain_type(column: Column) -> str:
    """Return a column's type, of a domain the one below it."""
    return column.plain_type or column.type


def stand_in(column: Column, *, distinct: bool = False) -> str:
    """Return SQL for a value that a column takes, for a remedy that can be pasted.

    Args:
        column: the column.
        distinct: whether each row needs another.
    """
    kind = column.base_type
    if column.base_kind == "e":
        return f"(enum_range(NULL::{column.type}))[1]"
    if kind in _TEXT_TYPES and distinct:
        return "gen_random_uuid()::text"
    if kind.startswith(("int", "float", "numeric", "money")) and kind != "interval":
        return "0"
    fixed = {
        "bool": "false", "uuid": "gen_random_uuid()", "json": "'{}'", "jsonb": "'{}'", "interval": "'0'",
        "timestamp": "now()", "timestamptz": "now()", "date": "now()", "time": "now()", "timetz": "now()",
        "inet": "'0.0.0.0'", "cidr": "'0.0.0.0/0'",
    }  # fmt: skip
    if column.base_kind in "rm":
        return "'empty'" if column.base_kind == "r" else "'{}'"
    return fixed.get(kind, "'{}'" if kind.startswith("_") else "''")


def is_wide_key(column: Column) -> bool:
    """Whether a column holds any `sub` that the server takes: text, or varchar of at least 255."""
    type_ = plain_type(column)
    return type_ == "text" or (type_.startswith("character varying") and room(column) >= 255)


def room(column: Column) -> float:
    """Return how many characters a column of a text type takes."""
    length = re.search(r"\((\d+)\)", plain_type(column))
    return float(length[1]) if length else float("inf")


_TEXT_TYPES = frozenset({"text", "varchar", "bpchar", "citext"})


# --------------------------------------------------------------------------------------------------------- the tables


def users(snapshot: Snapshot, table: Table, look: Look) -> str | None:
    """Return why a table is the users table: one that a sessions' and an accounts' shape both belong to."""
    referring = {key.table for key in snapshot.keys_to(table.key) if len(key.columns) == 1}
    shaped: dict[str, str] = {}
    for key in sorted(referring):
        other = snapshot.table(*key)
        if other is None or other.parents:
            continue
        for role in ("accounts", "sessions"):
            if other.sql not in shaped.values() and of_role(role, snapshot, other, table, look) is not None:
                shaped.setdefault(role, other.sql)
    if len(shaped) < 2:
        return None
    return f"{_BY_SHAPE}{shaped['accounts']} has the shape of its accounts, {shaped['sessions']} of its sessions"


def could_be_users(snapshot: Snapshot, table: Table, look: Look) -> bool:
    """Whether types and foreign keys allow a table to be users: accounts and sessions could belong to it."""
    referring = {key.table for key in snapshot.keys_to(table.key) if len(key.columns) == 1}
    others = [other for key in referring if (other := snapshot.table(*key)) is not None]
    accounts = {each.key for each in others if could_be("accounts", snapshot, each, table)}
    sessions = {each.key for each in others if could_be("sessions", snapshot, each, table)}
    return bool(accounts) and len(accounts | sessions) > 1 and has_address(table, look)


def identifier(table: Table) -> str | None:
    """Return the column that is a table's id: of that name, or else the primary key."""
    if (own := next((column.name for column in table.columns if normalised(column.name) == "id"), None)) is not None:
        return own
    keys = [constraint.columns for constraint in table.constraints if constraint.kind == "p"]
    return keys[0][0] if keys and len(keys[0]) == 1 else None


def has_address(table: Table, look: Look) -> bool:
    """Whether a table can hold users: it has an id and one column of e-mail addresses."""
    if identifier(table) is None:
        return False
    return any(is_text(column) and _says(column, "mail") for column in table.columns) or any(
        "address" in contents for contents in look(table).values()
    )


def of_role(role: str, snapshot: Snapshot, table: Table, users: Table, look: Look) -> tuple[str, dict[str, str]] | None:
    """Return why a table plays a role of these users by its shape, and the columns that are known; None if not."""
    own = identifier(table)
    if role not in _HINTS or own is None or not could_be(role, snapshot, table, users):
        return None
    contents = look(table)
    fields = {"id": own}
    referring = {column for key in snapshot.keys_from(table.key) for column in key.columns}
    contents = {name: found for name, found in contents.items() if name not in {own, *referring}}
    proofs = []
    for part, (content, hint) in _HINTS[role].items():
        by_content = [name for name, found in contents.items() if content in found] if content else []
        wanted = [
            column.name
            for column in table.columns
            if column.name not in fields.values() and _kind_fits(part, column) and _says(column, hint)
        ]
        if len(by_content) == 1:
            fields[part] = by_content[0]
            proofs.append(f"{quoted(by_content[0])} holds {_CONTENT_WORDS[content]}")
        elif len(wanted) == 1:
            fields[part] = wanted[0]
        if content == "sealed" and len(by_content) > 1:
            proofs.append(f"{' and '.join(map(quoted, by_content))} hold {_CONTENT_WORDS[content]}")
    owner = [key.columns[0] for key in snapshot.keys_from(table.key) if key.target == users.key]
    if owner:
        fields["user_id"] = owner[0]
    hinted = [part for part in _HINTS[role] if part in fields]
    if not proofs and (len(hinted) < _NEEDED_HINTS[role] or len(table.columns) > _MOST_COLUMNS[role]):
        return None
    because = [f"it belongs to {users.sql}"] if owner else []
    because += proofs or [f"{_NAMES_ONLY}{', '.join(quoted(fields[part]) for part in hinted)}"]
    return _BY_SHAPE + "; ".join(because), fields


def whose(
    role: str, snapshot: Snapshot, table: Table, fields: Mapping[str, str], look: Look
) -> Literal["Better Auth's", "the app's", "unknown"]:
    """Return whose a table is that has the columns of a role, by what is in them."""
    part, content = _OWN[role]
    found = look(table).get(fields[part], frozenset())
    if content in found:
        return "Better Auth's"
    refers = role in ("jwks", "verifications") and any(snapshot.keys_from(table.key))
    speaks = role in ("jwks", "two_factors") and "anything" in found
    return "the app's" if refers or speaks else "unknown"


_OWN: Mapping[str, tuple[str, Content]] = {
    "sessions": ("token", "token"),
    "verifications": ("identifier", "reset"),
    "jwks": ("public_key", "key"),
    "two_factors": ("secret", "sealed"),
}
"""Of each role that any app's tables could have the columns of, the one of which the values tell."""


def could_be(role: str, snapshot: Snapshot, table: Table, users: Table) -> bool:
    """Whether types and foreign keys allow a role."""
    keys = list(snapshot.keys_from(table.key))
    owners = [key for key in keys if key.target == users.key and len(key.columns) == 1]
    texts = [column for column in table.columns if is_text(column)]
    own = {column for key in keys for column in key.columns} | {identifier(table) or ""}
    texts = [column for column in texts if column.name not in own]
    moments = [column for column in table.columns if is_moment(column)]
    if role == "accounts":
        return bool(owners) and len(texts) >= 6 and len(moments) >= 2
    if role == "sessions":
        single = {c.columns[0] for c in table.constraints if c.kind == "u" and len(c.columns) == 1}
        single |= {i.columns[0] for i in table.indexes if i.unique and len(i.columns) == 1}
        token = any(column.name in single and column.not_null for column in texts)
        return bool(owners) and 1 <= len(moments) <= 6 and 1 <= len(texts) <= 8 and token
    if role == "two_factors":
        return bool(owners) and 2 <= len(texts) <= 4
    if role == "jwks":
        return not keys and 2 <= len(texts) <= 5 and bool(moments)
    if role == "rate_limits":
        return not keys and len(texts) == 1 and sum(is_number(column) for column in table.columns) >= 2
    if role == "verifications":
        return not keys and len(texts) == 2 and 1 <= len(moments) <= 4
    return False


_CREATED = "creat|insert|regist|join|sign_?up|since|start|added|made|born"

_HINTS: Mapping[str, Mapping[str, tuple[Content | None, str]]] = {
    "accounts": {
        "provider_id": ("provider", "provider|vendor|strategy"),
        "password": ("password", "passw|hash"),
        "access_token": (None, "access"),
        "refresh_token": (None, "refresh"),
        "id_token": (None, "id_?token|identity_?token"),
        "scope": (None, "scope"),
    },
    "sessions": {
        "token": ("token", "token|secret"),
        "expires_at": (None, "expir|valid|until|ends|lapse"),
        "ip_address": (None, r"(^|_)ip(_|$)|address"),
        "user_agent": ("agent", "agent|browser|device|client"),
        "created_at": (None, _CREATED),
    },
    "two_factors": {"secret": ("sealed", "secret|seed|totp"), "backup_codes": (None, "backup|recover|code")},
    "jwks": {"public_key": ("key", "pub"), "private_key": (None, "priv")},
    "rate_limits": {"key": ("limit", "key")},
    "verifications": {
        "value": ("token", "value|token|code|secret"),
        "identifier": ("reset", "ident|subject|purpose|target|key"),
        "expires_at": (None, "expir|valid|until|ends|lapse"),
    },
}
"""Of each role the parts by which it is known: what their values are, or what their names speak of."""

_NEEDED_HINTS = {"accounts": 4, "sessions": 3, "two_factors": 2, "jwks": 2, "verifications": 3, "rate_limits": 2}
_MOST_COLUMNS = {"accounts": 16, "sessions": 14, "two_factors": 8, "jwks": 8, "verifications": 8, "rate_limits": 6}
"""Columns that Better Auth's own table of a role has at most, plugins' included."""
_CONTENT_WORDS: Mapping[Content | None, str] = {
    "provider": "names of providers",
    "password": "password hashes",
    "agent": "user agents",
    "key": "JSON Web Keys",
    "reset": "purposes of verification",
    "token": "tokens of 32 letters and digits",
    "sealed": "what was encrypted",
    "limit": "how often sessions asked",
}


def _kind_fits(part: str, column: Column) -> bool:
    return is_moment(column) if part.endswith("_at") else is_text(column)


def _says(column: Column, pattern: str) -> bool:
    return re.search(pattern, normalised(column.name)) is not None


# -------------------------------------------------------------------------------------------------- columns of users

_COLUMN_HINTS: Mapping[str, tuple[Content | None, str]] = {
    "email": ("address", "mail"),
    "email_verified": (None, "verif|confirm|valid"),
    "name": (None, r"(^|_)name$|full_?name|nick"),
    "image": ("picture", "avatar|picture|photo|image|(^|_)pic(_|$)"),
    "created_at": (None, _CREATED),
    "updated_at": (None, "updat|modif|chang|edit|touch"),
}
_OPTIONAL = frozenset({"image", "onboarding_completed_at", "deleted_at", "identity_updated_at"})

Fault = tuple[str, str, str, str]
"""Code, subject, message and remedy of a doubt."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Which column of users becomes which of the target, why, and what stands in the way of telling."""

    columns: Mapping[str, Column]
    reasons: Mapping[str, str]
    faults: Sequence[Fault]


def parts_of_users(users: Table, mapped: Mapping[str, str], look: Look) -> Parts:
    """Find the columns of the target in a users table."""
    found: dict[str, Column] = {}
    reasons: dict[str, str] = {}
    faults: list[Fault] = []
    for name in TARGET_COLUMNS:
        if (own := mapped.get(f"{USERS}.{name}")) is not None:
            if (column := users.column(own)) is None:
                faults.append(("field-missing", f"users.{name}", f"{users.sql} has no column {own}.", "shadow inspect"))
            else:
                found[name], reasons[name] = column, "mapped by --map"
            continue
        spelled = [column for column in users.columns if normalised(column.name) == name]
        if len(spelled) > 1:
            faults.append(_several(users, name, spelled))
        elif spelled:
            found[name], reasons[name] = spelled[0], "its name"
        elif name == "id" and (key := users.column(identifier(users) or "")) is not None:
            found[name], reasons[name] = key, "the primary key"
    taken = {column.name for column in found.values()}
    for name in TARGET_COLUMNS:
        if name in found or f"{USERS}.{name}" in mapped or any(fault[1] == f"users.{name}" for fault in faults):
            continue
        candidates = [column for column in _candidates(users, name, look) if column.name not in taken]
        if len(candidates) == 1:
            found[name], reasons[name] = candidates[0], _reason(name, candidates[0])
            taken.add(candidates[0].name)
        elif candidates:
            faults.append(_several(users, name, candidates))
        elif name not in _OPTIONAL:
            others = [c for c in users.columns if c.name not in taken and normalised(c.name) not in GOING_COLUMNS]
            fitting = [c.name for c in others if _fits(name, c) and not c.type.endswith("[]")]
            options = "\n-- or\n".join([*(flag("map", f"users.{name}={each}") for each in fitting), _add(users, name)])
            message = f"{users.sql} has no column that is recognised as Better Auth's {name}."
            faults.append(("field-missing", f"users.{name}", message, options))
    faults += _unfit(users, found)
    faults += _collisions(users, found)
    return Parts(found, reasons, faults)


def _reason(name: str, column: Column) -> str:
    content, hint = _COLUMN_HINTS[name]
    if _says(column, hint):
        return f"what its name speaks of, and its type {column.type}"
    return f"what is in it: {'e-mail addresses' if content == 'address' else 'pictures'}"


def _candidates(users: Table, name: str, look: Look) -> Iterator[Column]:
    if name not in _COLUMN_HINTS:
        return
    content, hint = _COLUMN_HINTS[name]
    fitting = [c for c in users.columns if _fits(name, c) and normalised(c.name) not in GOING_COLUMNS]
    by_name = [column for column in fitting if _says(column, hint) and not _speaks_of_another(name, column)]
    if by_name or content is None:
        yield from by_name
        return
    contents = look(users)
    yield from (column for column in fitting if content in contents.get(column.name, ()))


def _speaks_of_another(name: str, column: Column) -> bool:
    """Whether a column's name that mentions an address is about something else: `email_opt_in`."""
    return name == "email" and _says(column, "verif|confirm|token|hash|opt|pref|new|pending|backup|second|domain")


def _fits(name: str, column: Column) -> bool:
    wanted = TARGET_COLUMNS[name][0]
    if name == "id":
        return is_text(column) or plain_type(column) == "uuid" or is_number(column)
    if wanted == "boolean":
        return is_boolean(column)
    return is_moment(column) if wanted.startswith("timestamp") else is_text(column)


def _several(users: Table, name: str, columns: list[Column]) -> Fault:
    names = ", ".join(quoted(column.name) for column in columns)
    options = "\n".join(flag("map", f"users.{name}={column.name}") for column in columns)
    return (
        "field-ambiguous",
        f"users.{name}",
        f"{len(columns)} columns of {users.sql} could be its {name}: {names}.",
        options,
    )


def _add(users: Table, name: str) -> str:
    type_, rest = TARGET_COLUMNS[name]
    default = " DEFAULT ''" if name == "name" else ""
    return f"ALTER TABLE {users.sql} ADD COLUMN {name} {type_} {rest.replace(' UNIQUE', '')}{default};"


def _unfit(users: Table, found: Mapping[str, Column]) -> Iterator[Fault]:
    for name, column in found.items():
        if _fits(name, column):
            continue
        where = f"{users.sql}.{quoted(column.name)}"
        message = f"{where} is {column.type}, which is not turned into {TARGET_COLUMNS[name][0]}."
        yield "column-type", f"users.{name}", message, _conversion(users, name, column)
    if users.kind == "p":
        message = f"{users.sql} is partitioned; a unique address over all partitions cannot be had."
        yield "layout-unsupported", users.sql, message, "-- make it a plain table first"


def _conversion(users: Table, name: str, column: Column) -> str:
    """Return what a person can paste where a type is not one that Better Auth makes."""
    change = f"ALTER TABLE {users.sql} ALTER COLUMN {quoted(column.name)}"
    wanted = TARGET_COLUMNS[name][0]
    own = quoted(column.name)
    if wanted == "boolean":
        using = (
            f"{own} IS NOT NULL" if is_moment(column) or column.type == "date" else f"{own}::text IN ('1', 't', 'true')"
        )
        return f"{change} DROP DEFAULT, ALTER COLUMN {own} TYPE boolean USING {using};"
    if wanted.startswith("timestamp"):
        if column.type in ("bigint", "integer", "numeric", "double precision"):
            using = f"to_timestamp({own} / 1000.0)"
            return f"{change} DROP DEFAULT, ALTER COLUMN {own} TYPE {wanted} USING {using};  -- milliseconds"
        return f"{change} DROP DEFAULT, ALTER COLUMN {own} TYPE {wanted} USING {own}::{wanted};"
    if name in _OPTIONAL:
        apart = with_suffix(column.name, "_own", [each.name for each in users.columns])
        return f"ALTER TABLE {users.sql} RENAME COLUMN {own} TO {quoted(apart)};  -- it is the app's own"
    return f"{change} TYPE {'text' if name != 'id' else TARGET_COLUMNS['id'][0]} USING {own}::text;"


def _collisions(users: Table, found: Mapping[str, Column]) -> Iterator[Fault]:
    """A column of the app's own that has the name which another is to have."""
    for name, column in found.items():
        if column.name != name and (own := users.column(name)) is not None and own not in found.values():
            message = f"{users.sql}.{quoted(column.name)} is to become {name}, but there is a column {name} already."
            apart = with_suffix(name, "_own", [each.name for each in users.columns])
            remedy = f"ALTER TABLE {users.sql} RENAME COLUMN {quoted(name)} TO {quoted(apart)};"
            yield "name-taken", f"users.{name}", message, remedy
