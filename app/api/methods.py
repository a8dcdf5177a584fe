"""HEAD and OPTIONS: what GET would answer, without its body, and what a path can be asked (RFC 9110 section 9.3).

Litestar refuses HEAD, and of handlers that share a path it names those of the last to OPTIONS.

The promise: every route that answers GET answers HEAD with the same status and headers, every `Allow` is whole, and
routes for HEAD or OPTIONS of the app's own are left to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from litestar import Litestar
from litestar.enums import HttpMethod, ScopeType
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send


def complete_methods(app: Litestar) -> ASGIApp:
    """Return the app's router with HEAD answered wherever GET is, and OPTIONS with every method of the path."""
    inner = app.asgi_handler

    async def completed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["method"] == "HEAD":
            await _answer_head(inner, scope, receive, send)
        elif scope["type"] == ScopeType.HTTP and scope["method"] == "OPTIONS":
            await _answer_options(app, inner, scope, receive, send)
        else:
            await inner(scope, receive, send)

    return completed


def allow(methods: Iterable[str]) -> str:
    """Return the value of an Allow header; where GET is, HEAD is, too."""
    named = set(methods)
    return ", ".join(sorted(named | {"HEAD"} if "GET" in named else named))


async def _answer_head(inner: ASGIApp, scope: HTTPScope, receive: Receive, send: Send) -> None:
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

    await inner(scope, receive, unless_refused)
    if refused:
        await inner(as_get, receive, without_body)
        if "path_template" in as_get:
            scope["path_template"] = as_get["path_template"]


async def _answer_options(app: Litestar, inner: ASGIApp, scope: HTTPScope, receive: Receive, send: Send) -> None:
    async def naming_all(message: Message) -> None:
        if message["type"] == "http.response.start" and (template := scope.get("path_template")) is not None:
            routes = [route for route in app.routes if isinstance(route, HTTPRoute) and route.path_format == template]
            whole = allow(method for route in routes for method in route.methods).encode()
            message["headers"] = [(name, whole if name == b"allow" else value) for name, value in message["headers"]]
        await send(message)

    await inner(scope, receive, naming_all)
