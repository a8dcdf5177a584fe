"""The OpenAPI document at /schema/openapi.json and .yaml, and at /schema a page to try the API in.

The page is Swagger UI, and every octet of it comes from here: its files are those of the package `swagger-ui-py`. A
token that is pasted there stays in the page.

The promise: nothing is fetched from anywhere else, which the page's Content-Security-Policy enforces, and no script is
run but the two that are named in it; what is not there below /schema is a problem like anywhere else.
"""

from __future__ import annotations

import html
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from litestar import Request, Response, Router, get
from litestar.datastructures import CacheControlHeader, ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, OpenAPIRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Schema, Server
from litestar.plugins import OpenAPISchemaPlugin
from litestar.typing import FieldDefinition
from msgspec import Struct
from msgspec.structs import StructConfig

from app.api.auth import SECURITY_SCHEME, security_components

if TYPE_CHECKING:
    from litestar._openapi.schema_generation import SchemaCreator

_ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_START = """\
SwaggerUIBundle({
  url: document.currentScript.dataset.document,
  dom_id: "#page",
  deepLinking: true,
  validatorUrl: null,
});
"""
_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{base}/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="{base}/swagger-ui-bundle.js"></script>
<script src="{base}/start.js" data-document="{base}/openapi.json"></script>
</body>
</html>
"""


def openapi_config(path_prefix: str, version: str, public_url: str | None = None) -> OpenAPIConfig:
    """Return how the API is described; every route is protected unless it says otherwise.

    Args:
        path_prefix: where everything is.
        version: of the API.
        public_url: how clients reach the server, if a proxy in front has it elsewhere.
    """
    outside = urlsplit(public_url or "").path.rstrip("/")
    return OpenAPIConfig(
        title="Shadow users",
        version=version,
        description="The users of an external identity provider, as this app knows them.",
        servers=[Server(url=outside or "/")],
        components=security_components(),
        security=[{SECURITY_SCHEME: []}],
        use_handler_docstrings=True,
        openapi_router=Router(
            f"{path_prefix}/schema",
            route_handlers=[_asset(name, media_type) for name, media_type in _ASSETS.items()] + [_start()],
            before_request=_refuse_unknown,
            response_headers=[
                ResponseHeader(name="Content-Security-Policy", value=_POLICY),
                ResponseHeader(name="X-Content-Type-Options", value="nosniff"),
                ResponseHeader(name="Referrer-Policy", value="no-referrer"),
            ],
            include_in_schema=False,
            opt={"exclude_from_auth": True},
        ),
        render_plugins=[_Page(f"{outside}{path_prefix}/schema"), JsonRenderPlugin(), YamlRenderPlugin()],
    )


class ClosedStructs(OpenAPISchemaPlugin):
    """Has it in the document where a Struct takes no fields but its own."""

    def is_plugin_supported_field(self, field_definition: FieldDefinition) -> bool:
        """Tell whether it is such a Struct."""
        if field_definition.is_union or not field_definition.is_subclass_of(Struct):
            return False
        config: StructConfig = field_definition.type_.__struct_config__
        return config.forbid_unknown_fields

    def to_openapi_schema(self, field_definition: FieldDefinition, schema_creator: SchemaCreator) -> Schema:
        """Return the schema that Litestar makes of it, closed."""
        schema: Schema = next(
            plugin.to_openapi_schema(field_definition, schema_creator)
            for plugin in schema_creator.plugins
            if isinstance(plugin, OpenAPISchemaPlugin)
            and plugin is not self
            and plugin.is_plugin_supported_field(field_definition)
        )
        schema.additional_properties = False
        return schema


class _Page(OpenAPIRenderPlugin):
    """Swagger UI, from files of our own."""

    def __init__(self, base: str) -> None:
        super().__init__(path="/")
        self.base = base

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page."""
        title = html.escape(openapi_schema["info"]["title"])
        return _PAGE.format(title=title, base=html.escape(self.base)).encode()


def _asset(name: str, media_type: str) -> HTTPRouteHandler:
    @get(f"/{name}", media_type=media_type, name=f"schema {name}", cache_control=CacheControlHeader(max_age=86_400))
    async def read() -> Response[bytes]:
        return Response(_installed(name).read_bytes(), media_type=media_type)

    return read


def _start() -> HTTPRouteHandler:
    @get("/start.js", media_type="text/javascript", name="schema start.js", sync_to_thread=False)
    def read() -> str:
        return _START

    return read


def _installed(name: str) -> Path:
    return Path(str(distribution("swagger-ui-py").locate_file(f"swagger_ui/static/{name}")))


async def _refuse_unknown(request: Request[Any, Any, Any]) -> None:
    """Litestar answers for paths that it does not know here with a page; its route for them has a parameter."""
    if request.path_params:
        raise NotFoundException
