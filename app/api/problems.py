"""The one table from errors to answers: RFC 9457 problem details, with a stable `code`, the title again as `error`.

    what went wrong                                answer
    ShadowError                                    its line of `TABLE`
    Litestar's HTTPException                       its status; a body that does not validate is 422
    the database cannot be had, or not in time     503 with Retry-After
    it is read only, or the role may not           the same; what to GRANT goes to the log
    anything else                                  500; what it was goes to the log, never to the client

The promise: every answer that is not a success is one of these, and none holds a token, a statement or a traceback.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import asyncpg
from litestar import Request, Response
from litestar.exceptions import ClientException, HTTPException, InternalServerException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ExceptionHandlersMap
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import errors
from app.api.challenge import Challenge
from app.api.methods import allow
from app.db import privilege_wanted

_log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 5
"""Seconds after which to try again where nothing better is known."""


class Fault(Struct):
    """One thing that is wrong with a request's body or parameters."""

    field: str
    """Its path, as the client spells it."""
    detail: str


class Problem(Struct, omit_defaults=True):
    """Problem details (RFC 9457)."""

    type: str
    """`urn:shadow:problem:<code>`; an identifier, there is nothing to fetch."""
    title: str
    status: int
    detail: str
    code: str
    """Stable and machine-readable."""
    error: str
    """The title, under the name that clients of the old backend read."""
    field: str | UnsetType = UNSET
    """The member of the body that is at fault."""
    errors: list[Fault] | UnsetType = UNSET


TABLE: Mapping[type[errors.ShadowError], tuple[HTTPStatus, str]] = {
    errors.MissingCredentials: (HTTPStatus.UNAUTHORIZED, "Not authenticated"),
    errors.MalformedRequest: (HTTPStatus.BAD_REQUEST, "Malformed credentials"),
    errors.InvalidToken: (HTTPStatus.UNAUTHORIZED, "Invalid token"),
    errors.KeysUnavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "Keys unavailable"),
    errors.Undecidable: (HTTPStatus.SERVICE_UNAVAILABLE, "Temporarily unavailable"),
    errors.InsufficientScope: (HTTPStatus.FORBIDDEN, "Insufficient scope"),
    errors.NoProfile: (HTTPStatus.FORBIDDEN, "No profile"),
    errors.AccountDeleted: (HTTPStatus.FORBIDDEN, "Account deleted"),
    errors.AccountDisabled: (HTTPStatus.FORBIDDEN, "Account disabled"),
    errors.ForeignOrigin: (HTTPStatus.FORBIDDEN, "Foreign origin"),
    errors.IdentityField: (HTTPStatus.UNPROCESSABLE_ENTITY, "Field belongs to the identity provider"),
    errors.InvalidEdit: (HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid body"),
    errors.DatabaseUnreachable: (HTTPStatus.SERVICE_UNAVAILABLE, "Database unavailable"),
    errors.NotMigrated: (HTTPStatus.SERVICE_UNAVAILABLE, "Database not migrated"),
    errors.Contended: (HTTPStatus.SERVICE_UNAVAILABLE, "Temporarily unavailable"),
    errors.MalformedDelivery: (HTTPStatus.BAD_REQUEST, "Malformed delivery"),
    errors.InvalidSignature: (HTTPStatus.UNAUTHORIZED, "Invalid signature"),
    errors.StaleDelivery: (HTTPStatus.UNAUTHORIZED, "Stale delivery"),
}
# Spelled out, for the standard library's phrases change from one Python to the next.
_OF_HTTP: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "Bad request"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    413: ("content_too_large", "Content too large"),
    415: ("unsupported_media_type", "Unsupported media type"),
    422: ("invalid_body", "Invalid body"),
    429: ("too_many_requests", "Too many requests"),
}
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_JSON = re.compile(r"application/([A-Za-z0-9.-]+\+)?json", re.IGNORECASE)
_READ_ONLY = "25006"
_DOWN = ("08", "25P03", "25P04", _READ_ONLY, "28", "3D", "53", "57", "58")
"""Beginnings of SQLSTATEs of a server that cannot be reached, is read only, refuses the role, is full, shutting down or
gave up in time. The rest of class 25 are mistakes of a program."""


def problem_response(
    code: str, title: str, status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response[Problem]:
    """Return the answer that says what is wrong."""
    problem = Problem(f"urn:shadow:problem:{code}", title, status, detail, code, title, **more)
    return Response(problem, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


@dataclass(frozen=True, slots=True)
class Problems:
    """Litestar's exception handler for everything."""

    challenge: Challenge

    def handlers(self) -> ExceptionHandlersMap:
        """Return what Litestar wants as `exception_handlers`."""
        return {Exception: self.answer}

    def answer(self, request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
        """Return the answer to an error, and log what the operator must know of it."""
        if is_database_down(error):
            cause = error.orig if isinstance(error, DBAPIError) else error  # its own message would add the statement
            _log.error("database unavailable: %s: %s", type(cause).__name__, cause)
            at_fault = "takes no changes" if getattr(cause, "sqlstate", None) == _READ_ONLY else "cannot be reached"
            error = errors.DatabaseUnreachable(f"The database {at_fault} at the moment.")
        elif isinstance(error, DBAPIError) and (wanted := privilege_wanted(error)) is not None:
            _log.error("database unavailable: %s", wanted)
            error = errors.DatabaseUnreachable("The database does not let the server do this.")
        if isinstance(error, errors.ShadowError) and (found := _row(type(error))) is not None:
            return self._answer_ours(request, error, *found)
        if isinstance(error, HTTPException) and error.status_code != HTTPStatus.INTERNAL_SERVER_ERROR:
            return _answer_http(error)
        _log.error("unhandled exception, %s %s", request.method, request.scope["path"], exc_info=error)
        return problem_response("internal_error", "Internal server error", 500, "Something went wrong on our side.")

    def _answer_ours(
        self, request: Request[Any, Any, Any], error: errors.ShadowError, status: HTTPStatus, title: str
    ) -> Response[Problem]:
        headers: dict[str, str] = {}
        more: dict[str, Any] = {}
        if (challenge := self.challenge.header(request, error)) is not None:
            headers["WWW-Authenticate"] = challenge
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            wait = error.retry_after if isinstance(error, errors.Undecidable) else RETRY_AFTER
            headers["Retry-After"] = str(wait)
        if isinstance(error, errors.InvalidEdit) and error.field is not None:
            more = {"field": error.field, "errors": [Fault(error.field, error.message)]}
        return problem_response(error.code, title, status, error.message, headers, **more)


class StrictRequest(Request[Any, Any, Any]):
    """Litestar's request; a body that breaks off, or is no JSON for whatever reason, is the client's error."""

    async def body(self) -> bytes:
        """Return the body.

        Raises:
            ClientException: the client hung up in the middle of it, so nobody will read the answer; but neither is it
                a fault of ours that the log should hold with a traceback.
        """
        try:
            return await super().body()
        except InternalServerException:
            if not self.is_connected:  # it was read before, and not kept
                raise
            raise ClientException("The body breaks off.") from None

    async def json(self) -> Any:
        """Return the body's JSON value.

        Raises:
            ClientException: it is none.
            HTTPException: 415, it says that it is something else. A body without a type is taken for JSON.
        """
        kind, _ = self.content_type
        if kind and not _JSON.fullmatch(kind):
            hint = {"Accept-Patch": "application/json"} if self.method == "PATCH" else None  # RFC 5789 section 2.2
            raise HTTPException("The body must be application/json.", status_code=415, headers=hint)
        try:
            return await super().json()
        except RecursionError:
            raise ClientException("The JSON is nested too deeply.") from None
        except UnicodeDecodeError:
            raise ClientException("The JSON is not UTF-8.") from None


def answers(*kinds: type[errors.ShadowError] | int) -> dict[int, ResponseSpec]:
    """Return the OpenAPI `responses` of a route that may answer with these errors, besides 400 and 500.

    Any request may be answered with 400: one whose Host is none, say.

    Args:
        kinds: errors, or statuses of Litestar's own.
    """
    told: dict[int, list[str]] = {400: [_OF_HTTP[400][1]], 500: ["Internal server error"]}
    for kind in kinds:
        status, title = (kind, _OF_HTTP[kind][1]) if isinstance(kind, int) else TABLE[kind]
        if title not in (titles := told.setdefault(int(status), [])):
            titles.append(title)
    return {
        status: ResponseSpec(Problem, generate_examples=False, description="; ".join(titles), media_type=MEDIA_TYPE)
        for status, titles in sorted(told.items())
    }


def _row(kind: type[errors.ShadowError]) -> tuple[HTTPStatus, str] | None:
    return next((TABLE[base] for base in kind.__mro__ if base in TABLE), None)


def _answer_http(error: HTTPException) -> Response[Problem]:
    if isinstance(error, ValidationException):
        code, title = _OF_HTTP[422]
        faults = _faults(error)
        detail = "; ".join(f"{fault.field}: {fault.detail}" if fault.field else fault.detail for fault in faults)
        first = faults[0].field if faults else ""
        more: dict[str, Any] = {"errors": faults} | ({"field": first} if first else {})
        return problem_response(code, title, 422, detail or title, error.headers, **more)
    fallback = HTTPStatus(error.status_code)
    code, title = _OF_HTTP.get(error.status_code, (fallback.name.lower(), fallback.phrase))
    detail = title if error.detail == fallback.phrase else error.detail
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and "allow" in headers:
        headers["allow"] = allow(headers["allow"].split(", "))
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["Connection"] = "close"  # the rest of the body is not read; unsaid, the next request on it would fail
    return problem_response(code, title, error.status_code, detail, headers)


def _faults(error: ValidationException) -> list[Fault]:
    """Read Litestar's messages: `{message, key?}`, where the key `data` means the body as a whole."""
    faults = []
    for told in error.extra if isinstance(error.extra, list) else []:
        field, message = str(told.get("key", "")), str(told.get("message", ""))
        if unknown := _UNKNOWN_FIELD.search(message):
            name = unknown[1][:100]
            field, message = (
                (name if field == "data" else f"{field}.{name}"),
                "There is no such field, or it cannot be set.",
            )
        elif field == "data":
            none = message == "'data'" or message.startswith("Expected `object`")
            field, message = "", "A JSON object is needed." if none else message
        faults.append(Fault(field, message))
    return faults


def is_database_down(error: BaseException) -> bool:
    match error:
        case errors.DatabaseUnreachable():
            return True
        case DBAPIError():
            return error.connection_invalidated or str(getattr(error.orig, "sqlstate", None)).startswith(_DOWN)
        case PoolTimeout():
            return True
        case SQLAlchemyError():
            return False
        case asyncpg.PostgresError():  # unwrapped: while connecting
            return str(error.sqlstate).startswith(_DOWN)
        case asyncpg.InterfaceError() | OSError():
            return True
    return False
