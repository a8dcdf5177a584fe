"""Guards: what a route demands of who is asking, beyond a good token.

    @get("/invoices/{number:str}", guards=[requires_permission("invoice", "read", id="number")])

The promise: a guard reads the verified token alone, never the database, and what is missing is a 403
`insufficient_scope` that names it (RFC 6750 section 3.1). Where a route has several, all must let the request pass.
"""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard

from app.api.auth import Principal
from app.errors import InsufficientScope

_Connection = ASGIConnection[Any, Principal, Any, Any]


def requires_role(*roles: str) -> Guard:
    """Return a guard that lets pass who has one of these roles (`role`, `roles` or `realm_access.roles`).

    Raises:
        ValueError: no role, or an empty one, is named.
    """
    wanted = frozenset(_named("role", roles))

    def guard(connection: _Connection, _: BaseRouteHandler) -> None:
        if wanted.isdisjoint(connection.user.roles):
            which = " or ".join(sorted(wanted))
            raise InsufficientScope(f"The token lacks the role {which}, which this route requires.")

    return guard


def requires_scope(*scopes: str) -> Guard:
    """Return a guard that lets pass tokens with all of these scopes (`scope`, RFC 8693 section 4.2, or `scp`).

    Raises:
        ValueError: no scope is named, or one that no token could have: empty, or with a space.
    """
    wanted = frozenset(_named("scope", scopes))
    if any(" " in scope for scope in wanted):
        raise ValueError("a scope has no space in it; give several as several arguments")
    needed = " ".join(sorted(wanted))

    def guard(connection: _Connection, _: BaseRouteHandler) -> None:
        if missing := wanted - connection.user.scopes:
            which = " ".join(sorted(missing))
            raise InsufficientScope(f"The token lacks the scope {which}, which this route requires.", scope=needed)

    return guard


def requires_permission(entity: str, action: str, *, id: str | None = None) -> Guard:
    """Return a guard that lets pass who may do something with an entity: see `Principal.may`.

    Args:
        entity: the type, `invoice`.
        action: `read`.
        id: the path parameter that names the one entity; without it, only a permission for all of the type will do.

    Raises:
        ValueError: one of them is empty.
    """
    _named("entity, action or id", [entity, action, *([] if id is None else [id])])

    def guard(connection: _Connection, _: BaseRouteHandler) -> None:
        one = None if id is None else str(connection.path_params[id])
        if not connection.user.may(entity, action, one):
            raise InsufficientScope(f"The token lacks the permission to {action} this {entity}.")

    return guard


def _named(what: str, names: Any) -> list[str]:
    found = list(names)
    if not found or not all(isinstance(name, str) and name.strip() for name in found):
        raise ValueError(f"{what}: name at least one, and none that is empty")
    return found
