"""HEAD: what GET would answer, without its body (RFC 9110 section 9.3.2).

The promise: every route that answers GET answers HEAD with the same status and headers; a HEAD route of the app's own
is left to it.
"""

from __future__ import annotations

from http import HTTPStatus

from litestar.enums import HttpMethod, ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send


def answering_head(app: ASGIApp) -> ASGIApp:
    """Return the app with HEAD answered wherever GET is: Litestar itself has 405 for it."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != "HEAD":
            await app(scope, receive, send)
            return
        as_get: HTTPScope = {**scope, "method": HttpMethod.GET, "state": dict(scope.get("state") or {})}
        refused = False

        async def unless_refused(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = message["status"] == HTTPStatus.METHOD_NOT_ALLOWED
            if not refused:
                await send(message)

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message["body"] = b""
            await send(message)

        await app(scope, receive, unless_refused)
        if refused:
            await app(as_get, receive, without_body)
            if "path_template" in as_get:
                scope["path_template"] = as_get["path_template"]

    return answering
