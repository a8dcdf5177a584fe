"""Recognition: which table plays which role of Better Auth's schema, and which column which part; each with its reason.

    mapped       --map said so
    named        the table's name says the role, and it has the role's core columns
    by columns   it has all columns of the role, whatever it is called
    by shape     its foreign key, types and contents are the role's, whatever its columns are called

The promise: the first of these that any table reaches decides, and two tables that reach the same are never chosen
between in silence. A table that goes is never taken for its columns alone where an app's could have them too. What
cannot be decided is a `Doubt` that names the candidates and the `--map` that decides it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from app.cutover import doubts, shapes
from app.cutover.catalog import OWN_TABLES, Column, Snapshot, Table, quoted
from app.cutover.flags import flag
from app.cutover.layout import (
    DEFAULT_SCHEMA,
    NONE,
    RETIRED_SCHEMA,
    Choices,
    Doubt,
    GoingColumn,
    Layout,
    Role,
    is_beside,
)
from app.cutover.shapes import Look, looks_like_nothing
from app.cutover.signatures import (
    ADDED_COLUMNS,
    GOING_COLUMNS,
    GOING_ROLES,
    OAUTH_ROLES,
    OWNED_ROLES,
    PLAIN_ROLES,
    SIGNATURES,
    TARGET_COLUMNS,
    USERS,
    affix,
    normalised,
    says,
)

_TELLING = 7
"""Columns of a role from which all but one of them are a reason to ask."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    table: Table
    tier: int
    reason: str
    fields: Mapping[str, str]


def recognise(
    snapshot: Snapshot,
    schema: str,
    choices: Choices,
    moved: Mapping[str, Mapping[str, Any]] | None = None,
    look: Look = looks_like_nothing,
) -> Layout:
    """Return which tables of the snapshot play which role for a server that looks into `schema`.

    Args:
        snapshot: the catalogue.
        schema: where users is, or is to be.
        choices: what a person decided.
        moved: after retire, role to the name that its `table` has in RETIRED_SCHEMA and its `fields`; a table of the
            same name elsewhere is then the app's own.
        look: tells what is in the columns of a table, where names do not say it.
    """
    return _Recognition(snapshot, schema, choices, look).layout(moved)


@dataclass
class _Recognition:
    snapshot: Snapshot
    schema: str
    choices: Choices
    look: Look
    doubts: list[Doubt] = field(default_factory=list)
    adopted: bool = False
    """Whether users has what adopt adds: what there was to ask has been asked, and what came since is the app's."""

    def layout(self, moved: Mapping[str, Mapping[str, Any]] | None) -> Layout:
        if moved is not None:
            return self._retired(moved)
        users = self._users()
        self.adopted = users is not None and users.table.column("identity_updated_at") is not None
        roles = [users] if users else []
        for name in SIGNATURES:
            if name != USERS and (found := self._other(name, users, roles)) is not None:
                roles.append(found)
        roles = _distinct(roles)
        going = [role.table for role in roles if role.name in GOING_ROLES]
        if users is None:
            return self._without_users(roles, going)
        parts = shapes.parts_of_users(users.table, self.choices.columns, self.look)
        fields = parts.columns
        self.doubts += [Doubt(*each) for each in parts.faults]
        roles[0] = replace(users, fields={name: column.name for name, column in fields.items()})
        self._missing(users, roles)
        self._name_free(users.table)
        vouched = frozenset({"the two-factor plugin"} if any(r.name == "two_factors" for r in roles) else ())
        columns = tuple(_going_columns(users.table, fields, self.choices, vouched))
        if not self.snapshot.sees_all_rows:
            self.doubts += [
                doubts.hidden(table, self.snapshot.role) for table in (users.table, *going) if table.forced_row_security
            ]
        done = not going and not columns and _is_target(users.table, self.schema, fields)
        kind: Literal["thin", "better-auth"] = "thin" if done else "better-auth"
        return Layout(kind, self.schema, tuple(roles), fields, columns, tuple(self.doubts), parts.reasons)

    def _retired(self, moved: Mapping[str, Mapping[str, Any]]) -> Layout:
        users = self.snapshot.table(self.schema, USERS)
        fields = {column.name: column for column in users.columns if column.name in TARGET_COLUMNS} if users else {}
        roles = [Role(USERS, users, "retired as such", {name: name for name in fields})] if users else []
        for role, was in moved.items():
            if (table := self.snapshot.table(RETIRED_SCHEMA, was["table"])) is not None:
                roles.append(Role(role, table, "retired as such", was["fields"]))
        return Layout("retired", self.schema, tuple(roles), fields, doubts=tuple(self.doubts))

    def _without_users(self, roles: list[Role], going: list[Table]) -> Layout:
        if not going:
            taken = self.snapshot.table(self.schema, USERS)
            if taken is not None and not self.doubts:
                possible = taken.kind in ("r", "p") and shapes.has_address(taken, self.look)
                self.doubts.append(doubts.taken(taken, possible))
            elif not self.doubts and self.choices.tables.get(USERS) != NONE:
                likely = [t for t in self._tables() if shapes.could_be_users(self.snapshot, t, self.look)]
                if likely:
                    self.doubts.append(doubts.unknown(likely))
            return Layout("empty", self.schema, doubts=tuple(self.doubts))
        if not any(doubt.subject == USERS for doubt in self.doubts):
            keyed = {key.target for table in going for key in self.snapshot.keys_from(table.key)}
            likely = [t for t in self._tables() if t.key in keyed or shapes.has_address(t, self.look)]
            self.doubts.append(doubts.without_users(going, likely))
        return Layout("better-auth", self.schema, tuple(roles), doubts=tuple(self.doubts))

    # ------------------------------------------------------------------------------------------------------ the roles

    def _tables(self) -> Iterator[Table]:
        for table in self.snapshot.tables:
            apart = table.schema == RETIRED_SCHEMA or table.name in OWN_TABLES or table.partition_bound is not None
            if table.kind in ("r", "p") and not apart:
                yield table

    def _by_columns(self, role: str) -> list[_Candidate]:
        """Return the tables that are known by the names of their columns, the surest first."""
        signature, found = SIGNATURES[role], []
        for table in self._tables():
            fields = _fields(table, role, self.choices.columns)
            if says(table.name, role) and fields.keys() >= signature.core:
                reason = f"its name, and the columns {', '.join(sorted(signature.core - {'id'}))}"
                found.append(_Candidate(table, 1, reason, fields))
            elif fields.keys() >= signature.full and len(signature.full) > 3:
                reason = f"the columns {', '.join(sorted(signature.full - {'id'}))}"
                found.append(_Candidate(table, 2, reason, fields))
        return sorted(found, key=lambda candidate: candidate.tier)

    def _users(self) -> Role | None:
        if (mapped := self.choices.tables.get(USERS)) is not None:
            return None if mapped == NONE else self._mapped(USERS, mapped)
        referred = self._referred()
        candidates = self._by_columns(USERS)
        # what sessions or accounts belong to needs no name; without them, columns alone are any customer table's
        candidates = [
            replace(each, tier=0, reason=f"{each.reason}; {referred[each.table.key]}")
            if each.table.key in referred
            else each
            for each in candidates
            if each.tier == 1 or each.table.key in referred
        ]
        if not candidates:
            for table in self._tables():
                reason = referred.get(table.key) or shapes.users(self.snapshot, table, self.look)
                if reason and shapes.has_address(table, self.look):
                    candidates.append(_Candidate(table, 3, reason, _fields(table, USERS, self.choices.columns)))
        return self._chosen(USERS, self._near(candidates))

    def _referred(self) -> dict[tuple[str, str], str]:
        """Return the tables that sessions and accounts, known by their columns, belong to, and by which of them."""
        found: dict[tuple[str, str], str] = {}
        for role in ("accounts", "sessions", "two_factors"):
            for candidate in self._by_columns(role):
                for key in self.snapshot.keys_from(candidate.table.key):
                    if key.columns == (candidate.fields["user_id"],):
                        found.setdefault(key.target, f"{candidate.table.sql} refers to it")
        return found

    def _near(self, candidates: list[_Candidate]) -> list[_Candidate]:
        """Prefer the schema that DATABASE_SCHEMA names, where it was named: two apps may share a database."""
        here = [candidate for candidate in candidates if candidate.table.schema == self.schema]
        return here if here and self.schema != DEFAULT_SCHEMA else candidates

    def _other(self, role: str, users: Role | None, found: list[Role]) -> Role | None:
        if (mapped := self.choices.tables.get(role)) is not None:
            return None if mapped == NONE else self._mapped(role, mapped, users)
        homes = {each.table.schema for each in found} or {self.schema}
        candidates = [each for each in self._by_columns(role) if self._belongs(each, role, users, homes)]
        if role in OAUTH_ROLES and not {"oauth_applications", "oauth_clients"} & {each.name for each in found}:
            return None  # another server's: Better Auth's tokens are always for one of its own clients
        if users is None or (candidates and role not in PLAIN_ROLES):
            return self._chosen(role, candidates)
        taken = {each.table.key for each in found} | {each.table.key for each in candidates}
        shaped = [
            _Candidate(table, 3, *shape)
            for table in self._tables()
            if table.key not in taken and table.schema in homes and not self._is_anothers(table, role, users)
            if (shape := shapes.of_role(role, self.snapshot, table, users.table, self.look)) is not None
        ]
        if candidates:
            candidates = self._told_apart(role, candidates, shaped, users, homes)
        elif not shapes.is_shape(users.reason) and SIGNATURES[role].fate == "goes":
            # names were kept elsewhere, so a shape alone is as likely the app's
            proven = [each for each in shaped if shapes.is_proven(each.reason)]
            candidates = [each for each in proven if says(each.table.name, role)]
            if not candidates:
                self._ask(role, proven or list(self._nearly(role, taken, homes)))
        else:
            candidates = shaped
            if not shaped:
                self._ask(role, list(self._nearly(role, taken, homes)))
        return self._chosen(role, candidates)

    def _nearly(self, role: str, taken: set[tuple[str, str]], homes: set[str]) -> Iterator[_Candidate]:
        """Yield the tables that have most columns of a plugin's: one was given another name, or is the app's."""
        signature = SIGNATURES[role]
        if signature.fate != "goes" or role in PLAIN_ROLES or len(signature.full) < _TELLING:
            return
        for table in self._tables():
            fields = _fields(table, role, self.choices.columns)
            found = sorted(signature.full & fields.keys() - {"id"})
            if table.key not in taken and table.schema in homes and len(found) + 2 >= len(signature.full):
                yield _Candidate(table, 3, f"by the columns {', '.join(found)}", fields)

    def _told_apart(
        self, role: str, candidates: list[_Candidate], shaped: list[_Candidate], users: Role, homes: set[str]
    ) -> list[_Candidate]:
        """Return the tables that play a role whose columns any app's tables could have; ask where that is in doubt."""
        family = re.fullmatch(r"(.+_)users?", normalised(users.table.name))
        families = self._families(users, homes)
        proven = [each for each in shaped if shapes.is_proven(each.reason)]
        rivals = [] if says(users.table.name, USERS) else proven  # where names were mapped, one is the less likely
        certain, possible = [], []
        for each in candidates:
            whose = shapes.whose(role, self.snapshot, each.table, each.fields, self.look)
            named = each.tier == 1 or (family is not None and says(each.table.name, role, family[1]))
            named = named or affix(each.table.name, role) in families
            if named or whose == "Better Auth's":
                certain.append(each)
            elif whose == "unknown":
                possible.append(each)
        if certain and not rivals:
            return certain
        self._ask(role, [*certain, *possible, *proven])
        return []

    def _families(self, users: Role, homes: set[str]) -> set[tuple[str, str] | None]:
        """Return what stands around the names of three tables that are Better Auth's column for column.

        An app may have one that looks like its sessions, but not sessions, accounts and verifications of one family.
        """
        three = (
            {
                affix(each.table.name, role)
                for each in self._by_columns(role)
                if each.tier == 2 and self._belongs(each, role, users, homes)
            }
            for role in ("sessions", "accounts", "verifications")
        )
        return set.intersection(*three) - {None}

    def _ask(self, role: str, candidates: list[_Candidate]) -> None:
        """Ask about tables that may play a role, and may be the app's."""
        if not candidates or self.adopted:
            return
        names = "; ".join(f"{each.table.sql}, {each.reason}" for each in candidates)
        options = [flag("map", f"{role}={each.table.schema}.{each.table.name}") for each in candidates]
        message = f"It cannot be told whether one of these is Better Auth's {role}, or the app's own: {names}."
        self.doubts.append(Doubt("role-by-shape", role, message, "\n".join([*options, f"--map {role}={NONE}"])))

    def _belongs(self, candidate: _Candidate, role: str, users: Role | None, homes: set[str]) -> bool:
        """Whether a table belongs to these users, and not to those of another app in the same database."""
        targets = {key.target for key in self.snapshot.keys_from(candidate.table.key)}
        if users is not None and users.table.key not in targets and self._is_anothers(candidate.table, role, users):
            return False
        if users is not None and role in OWNED_ROLES and users.table.key not in targets:
            owner = {
                k.target
                for k in self.snapshot.keys_from(candidate.table.key)
                if k.columns == (candidate.fields["user_id"],)
            }
            return not owner and candidate.table.schema in homes
        return candidate.table.schema in homes or (users is not None and users.table.key in targets)

    def _is_anothers(self, table: Table, role: str, users: Role) -> bool:
        """Whether a table has the name of a role in another app's family: `shop_jwks` beside `shop_user`."""
        name = normalised(table.name)
        prefix = next((name[:at] for at in range(1, len(name)) if says(name, role, name[:at])), None)
        return prefix is not None and any(
            says(each.name, USERS, prefix) and each.key != users.table.key
            for each in self._tables()
            if each.schema == table.schema
        )

    def _chosen(self, role: str, candidates: list[_Candidate]) -> Role | None:
        if not candidates:
            return None
        best = [each for each in candidates if each.tier == min(other.tier for other in candidates)]
        if len(best) > 1:
            names = ", ".join(f"{each.table.schema}.{each.table.name}" for each in best)
            options = "\n".join(flag("map", f"{role}={each.table.schema}.{each.table.name}") for each in best)
            none = f"\n--map {role}={NONE}" if role != USERS else ""
            what = "columns" if best[0].tier < 3 else "shape"
            message = f"{len(best)} tables have the {what} of Better Auth's {role}: {names}."
            self.doubts.append(Doubt("role-ambiguous", role, message, options + none))
            return None
        fields = {**best[0].fields, **_mapped_fields(best[0].table, role, self.choices.columns)}
        return Role(role, best[0].table, best[0].reason, fields)

    def _mapped(self, role: str, mapped: str, users: Role | None = None) -> Role | None:
        table = next(
            (each for each in self.snapshot.tables if mapped in (f"{each.schema}.{each.name}", each.sql)), None
        )
        if table is None or table.kind not in ("r", "p"):
            what = "does not exist" if table is None else "is no table"
            near = sorted(self._tables(), key=lambda each: (each.name != mapped.rpartition(".")[2], each.sql))[:12]
            remedy = "\n".join(flag("map", f"{role}={each.sql}") for each in near) or "shadow inspect"
            self.doubts.append(Doubt("role-missing", mapped, f"{mapped}, mapped to {role}, {what}.", remedy))
            return None
        fields = _fields(table, role, self.choices.columns)
        if "id" not in fields:
            message = f"{mapped}, mapped to {role}, has no id and no primary key, which Better Auth's tables have."
            remedy = doubts.parts(self.snapshot, table, role, fields, ["id"], users.table if users else None)
            self.doubts.append(Doubt("role-missing", mapped, message, remedy))
            return None
        if users is not None and role in OWNED_ROLES and (others := self._of_others(table, fields, users.table)):
            message = f"{table.sql}, mapped to {role}, belongs to {others}, and not to {users.table.sql}."
            remedy = f"{flag('map', f'{role}={NONE}')}\n-- or the table of these users"
            self.doubts.append(Doubt("role-missing", mapped, message, remedy))
            return None
        if role != USERS and users is not None and (lacking := SIGNATURES[role].core - fields.keys()):
            shape = shapes.of_role(role, self.snapshot, table, users.table, self.look)
            if shape is None:
                message = f"{mapped}, mapped to {role}, has no {', '.join(sorted(lacking))} that is recognised."
                remedy = doubts.parts(self.snapshot, table, role, fields, lacking, users.table)
                self.doubts.append(Doubt("role-missing", mapped, message, remedy))
                return None
            fields = {**shape[1], **_mapped_fields(table, role, self.choices.columns)}
        return Role(role, table, "mapped by --map", fields)

    def _of_others(self, table: Table, fields: Mapping[str, str], users: Table) -> str:
        """Return what the rows of a table belong to, as SQL, where that is no user of these."""
        keys = [key for key in self.snapshot.keys_from(table.key) if len(key.columns) == 1]
        if any(key.target == users.key for key in keys):
            return ""
        return ", ".join(quoted(*key.target) for key in keys if key.columns == (fields.get("user_id"),))

    def _missing(self, users: Role, roles: list[Role]) -> None:
        """Ask for a role that must be there: where names were mapped, what was not recognised may still be it."""
        if self.adopted:
            return
        renamed = any(shapes.is_shape(role.reason) for role in roles) or not says(users.table.name, USERS)
        known = {role.name for role in roles} | set(self.choices.tables)
        # every user has an account; sessions may be kept elsewhere, and so may what is to be verified
        wanted = ["sessions", "accounts", "verifications"] if renamed else []
        wanted += ["accounts", "sessions"] if "accounts" not in known and not renamed else []
        for name in wanted:
            if name in known or any(doubt.subject == name for doubt in self.doubts):
                continue
            taken = {role.table.key for role in roles}
            tables = [each for each in self._tables() if each.key not in taken and each.schema == users.table.schema]
            possible = [each for each in tables if shapes.could_be(name, self.snapshot, each, users.table)]
            if possible:
                names = ", ".join(f"{each.schema}.{each.name}" for each in possible)
                options = [flag("map", f"{name}={each.schema}.{each.name}") for each in possible] + [
                    f"--map {name}={NONE}"
                ]
                message = f"No table was recognised as Better Auth's {name}; it could be one of {names}."
                self.doubts.append(Doubt("role-missing", name, message, "\n".join(options)))

    def _name_free(self, users: Table) -> None:
        taken = self.snapshot.table(self.schema, USERS)
        if taken is not None and taken.key != users.key and not is_beside(taken):
            core = _fields(taken, USERS, self.choices.columns).keys() >= SIGNATURES[USERS].core
            possible = taken.kind in ("r", "p") and (core or shapes.could_be_users(self.snapshot, taken, self.look))
            self.doubts.append(doubts.occupied(taken, users, possible))


def _distinct(roles: list[Role]) -> list[Role]:
    """Let a table play one role only, the first; the columns of an older plugin may include those of a newer."""
    found: dict[tuple[str, str], Role] = {}
    for role in roles:
        found.setdefault(role.table.key, role)
    return list(found.values())


def _fields(table: Table, role: str, columns: Mapping[str, str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for column in table.columns:
        fields.setdefault(normalised(column.name), column.name)
    own = shapes.identifier(table)
    if "id" not in fields and own is not None and normalised(own) not in SIGNATURES[role].full:
        fields["id"] = own
    return {**fields, **_mapped_fields(table, role, columns)}


def _mapped_fields(table: Table, role: str, columns: Mapping[str, str]) -> dict[str, str]:
    parts = ((name.partition("."), own) for name, own in columns.items())
    return {part: own for (owner, _, part), own in parts if owner == role and table.column(own) is not None}


def _is_target(users: Table, schema: str, fields: Mapping[str, Column]) -> bool:
    """Whether users is what the server needs, but for columns that are to be added."""
    if users.key != (schema, USERS):
        return False
    for name, (type_, rest) in TARGET_COLUMNS.items():
        column = fields.get(name)
        if column is None:
            if name not in (*ADDED_COLUMNS, "image"):
                return False
            continue
        fits = shapes.is_wide_key(column) if name == "id" else column.type == type_
        if column.name != name or not fits or ("NOT NULL" in rest and not column.not_null):
            return False
    return True


def _going_columns(
    users: Table, fields: Mapping[str, Column], choices: Choices, vouched: frozenset[str]
) -> Iterator[GoingColumn]:
    played = {column.name for column in fields.values()}
    origins = [
        known[0]
        for column in users.columns
        if (known := GOING_COLUMNS.get(normalised(column.name))) is not None and known[1].fullmatch(column.type)
    ]
    for column in users.columns:
        name = normalised(column.name)
        known = GOING_COLUMNS.get(name)
        if known is None or column.name in played or known[1].fullmatch(column.type) is None:
            continue
        if choices.keep & {f"users.{column.name}", f"users.{name}"}:
            continue
        # one that comes alone, from its plugin or from elsewhere, has nothing but its name to speak for it
        alone = origins.count(known[0]) < 2 and (known[0] not in vouched)
        yield GoingColumn(column.name, f"{known[0]} put it there", alone)
