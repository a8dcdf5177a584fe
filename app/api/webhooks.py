"""POST and PUT /webhooks/idp: what the provider tells unasked, recorded once and applied in the same transaction.

    no secret is set               404, as any path that is not there
    headers missing, doubled       400 invalid_delivery
    body too large                 413
    signed by nobody we know       401 invalid_signature
    an hour old, or ahead          401 stale_delivery
    the body is no event           400 invalid_delivery
    its id was seen before         200 {"deduped": true}
    anything else                  200 {"received": true}, whether it changed a row or not
    the database is in the way     503 with Retry-After, and nothing is recorded

The promise: a 200 is sent after the commit, so what was not recorded will be sent again; and the log says which event
came and what became of it, never what it holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from litestar import Request, route
from litestar.datastructures import CacheControlHeader
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import OpenAPIMediaType, Operation, Parameter, RequestBody, Schema
from litestar.openapi.spec.enums import OpenAPIType
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy.ext.asyncio import AsyncEngine

from app import errors
from app.api.auth import PUBLIC
from app.api.problems import answers
from app.idp.events import MAX_ID, EventReader
from app.users.events import OnDeleted, Outcome, apply_event
from app.users.identity import ShadowRules

_log = logging.getLogger(__name__)

FORM = "application/x-www-form-urlencoded"


_EVENT = Schema(
    type=OpenAPIType.OBJECT,
    required=["type"],
    properties={
        "id": Schema(type=OpenAPIType.STRING, description="That of the header."),
        "type": Schema(type=OpenAPIType.STRING, min_length=1, max_length=MAX_ID, examples=["user.updated"]),
        "timestamp": Schema(
            type=[OpenAPIType.INTEGER, OpenAPIType.STRING],
            description="Seconds or milliseconds since 1970, or ISO 8601.",
        ),
        "data": Schema(type=OpenAPIType.OBJECT, description="What is stated of the user; `payload` means the same."),
    },
)


class Receipt(Struct):
    """The answer: one of the two, always true."""

    received: bool | UnsetType = UNSET
    """The event was new, and is recorded now."""
    deduped: bool | UnsetType = UNSET
    """It was recorded before; nothing was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """Receives what the provider sends."""

    reader: EventReader
    rules: ShadowRules
    on_deleted: OnDeleted
    observe: Callable[[str], None] = lambda _: None
    """Told what became of every delivery: an Outcome's value, or the code of the error; for counting."""

    def route(self) -> HTTPRouteHandler:
        """Return the route; its path is below the prefix."""

        @route(
            "/webhooks/idp",
            http_method=[HttpMethod.POST, HttpMethod.PUT],
            status_code=200,
            summary="Receive an event of the identity provider",
            tags=["Webhooks"],
            responses=answers(
                errors.MalformedDelivery,
                errors.InvalidSignature,
                errors.StaleDelivery,
                413,
                errors.DatabaseUnreachable,
                errors.NotMigrated,
                errors.Contended,
            ),
            operation_class=_operation(self.reader),
            security=PUBLIC,
            exclude_from_auth=True,
            cache_control=CacheControlHeader(no_store=True),
        )
        async def receive(request: Request[Any, Any, Any], database: NamedDependency[AsyncEngine]) -> Receipt:
            """Record the event and apply it, once; the provider repeats what is not answered with 200."""
            outcome = await self._receive(request, database)
            return Receipt(deduped=True) if outcome is Outcome.deduped else Receipt(received=True)

        return receive

    async def _receive(self, request: Request[Any, Any, Any], database: AsyncEngine) -> Outcome:
        try:
            unverified = self.reader.read_headers(lambda name: request.headers.getall(name, []))
            body = await request.body()
            event = self.reader.read(unverified, body, is_form=request.content_type[0] == FORM)
        except errors.RefusedDelivery as refused:
            _log.warning("webhook refused: %s", refused.message)
            self.observe(refused.code)
            raise
        outcome = await apply_event(database, event, self.rules, on_deleted=self.on_deleted)
        _log.info("webhook %s, %r: %s", event.id, event.type, outcome.value)
        self.observe(outcome.value)
        return outcome


def _operation(reader: EventReader) -> type[Operation]:
    """Return how the document describes the request: the handler takes it raw, so nothing can be read off that."""
    told = ("The same on every retry.", "When it was first sent.", "What the secret makes of the octets.")

    @dataclass
    class Delivery(Operation):
        def __post_init__(self) -> None:
            self.parameters = [
                Parameter(
                    name=name,
                    param_in="header",
                    required=True,
                    description=description,
                    schema=Schema(type=OpenAPIType.STRING, pattern=f"^{pattern}$"),
                )
                for name, description, pattern in zip(reader.headers, told, reader.patterns, strict=True)
            ]
            form = OpenAPIMediaType(schema=Schema(type=OpenAPIType.OBJECT))
            self.request_body = RequestBody(
                content={"application/json": OpenAPIMediaType(schema=_EVENT), FORM: form}, required=True
            )

    return Delivery
