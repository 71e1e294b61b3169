"""The HTTP application: routes, who may call, errors in one form, headers of every answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proto.errors import SkelgraphError
from proto.names import Header
from services.gateway import openapi
from services.gateway.calls import REQUEST_ID, Call, ClientGone, json_response
from services.gateway.chat_api import ChatApi
from services.gateway.errors import (
    MethodNotAllowed,
    NoSuchRoute,
    WrongHost,
    body_of,
    headers_of,
    status_of,
)
from services.gateway.gateway import Gateway
from services.gateway.operations import OPERATIONS
from services.gateway.rates import rate_headers
from services.gateway.requests_api import RequestsApi
from services.runtime import metrics, tracing
from services.runtime.span import NoSpan

log = structlog.get_logger()

Handler = Callable[[Call], Awaitable[Response]]

#: The live page; a folder of static files.
PAGE: Final = Path(__file__).parent / "page"
#: All operations lie below.
API: Final = "/v1"
#: What pages may send: our own headers, and those of OpenAI's client for JavaScript.
_CORS_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "Traceparent",
    "OpenAI-Organization",
    "OpenAI-Project",
    *(
        f"X-Stainless-{name}"
        for name in (
            "Arch",
            "Helper-Method",
            "Lang",
            "OS",
            "Package-Version",
            "Poll-Helper",
            "Custom-Poll-Interval",
            "Retry-Count",
            "Runtime",
            "Runtime-Version",
            "Timeout",
        )
    ),
)
#: Names under which this machine calls itself.
_OWN_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_CLIENT_GONE: Final = 499

_SECURITY: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def make_app(
    gateway: Gateway, *, own_names_only: bool, cors_origins: Sequence[str] = ()
) -> ASGIApp:
    """Return the application.

    Args:
        gateway: requests over the queue.
        own_names_only: refuse calls to any other name than this machine's own, so that no
            foreign web page reaches a gateway that asks for no keys (DNS rebinding).
        cors_origins: web origins whose pages may call; none by default.
    """
    chat, requests = ChatApi(gateway), RequestsApi(gateway)
    handlers: dict[str, Handler] = {
        "create_chat_completion": chat.complete,
        "list_models": chat.models,
        "show_model": chat.model,
        "submit_request": requests.submit,
        "list_requests": requests.recent,
        "show_request": requests.show,
        "cancel_request": requests.cancel,
        "follow_request": requests.events,
        "draft_skeleton": requests.skeleton,
    }
    routes = _routes(gateway, handlers)
    routes.append(Route("/openapi.json", _openapi))
    if PAGE.is_dir():
        routes.append(Mount("/", _Page(directory=PAGE, html=True)))
    middleware = [Middleware(_Traced), Middleware(_Headers)]
    if own_names_only:
        middleware.append(Middleware(_OwnNames))
    if cors_origins:
        middleware.append(_cors(cors_origins))
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: _http_error, Exception: _http_error},
    )


def _routes(gateway: Gateway, handlers: Mapping[str, Handler]) -> list[BaseRoute]:
    """Return one route a path: what is not allowed there can say what is.

    They are mounted together, or the page's files would answer for methods that a path lacks.
    """
    paths = dict.fromkeys(operation.path for operation in OPERATIONS)
    return [Mount(API, routes=[_route(gateway, path, handlers) for path in paths])]


def _route(gateway: Gateway, path: str, handlers: Mapping[str, Handler]) -> Route:
    operations = {str(one.method): one.name for one in OPERATIONS if one.path == path}

    async def endpoint(request: Request) -> Response:
        name = operations["GET" if request.method == "HEAD" else request.method]
        span = tracing.current()
        span.rename(f"{request.method} {path}")
        span.put({"http.route": path, "skelgraph.operation": name})
        response = await _answer(gateway, handlers[name], request)
        metrics.HTTP_REQUESTS.labels(name, str(response.status_code)).inc()
        return response

    return Route(path.removeprefix(API), endpoint, methods=list(operations))


async def _answer(gateway: Gateway, handle: Handler, request: Request) -> Response:
    """Return what a handler answers, or why it does not."""
    try:
        caller = gateway.keys.caller(request.headers.get("authorization"))
        response = await handle(Call(request, caller, gateway.limits))
        response.headers.update(rate_headers(gateway.accounts, caller))
    except SkelgraphError as error:
        response = error_response(error)
        if meant := getattr(request.state, REQUEST_ID, None):
            response.headers["X-Request-Id"] = meant
    except ClientGone:
        return Response(status_code=_CLIENT_GONE)  # nobody reads it
    return response


def error_response(error: SkelgraphError) -> Response:
    """Return an error in OpenAI's form. The connection is closed: a body may not be read yet."""
    status = status_of(error.code)
    if status >= 500:
        log.warning("http_error", code=error.code, error=error.message)
    headers = {**headers_of(error), "Connection": "close"}
    return json_response(body_of(error.code, error.message, error.field), status, headers)


async def _http_error(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    known = {404: NoSuchRoute, 405: MethodNotAllowed}
    response = error_response(known.get(status, SkelgraphError)())
    if isinstance(error, HTTPException) and error.headers:
        response.headers.update(error.headers)  # which methods are allowed
    return response


async def _openapi(_: Request) -> Response:
    return json_response(openapi.document())


class _Page(StaticFiles):
    """The live page's files; a browser asks each time whether they have changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.setdefault("Cache-Control", "no-cache")
        return response


class _Traced:
    """Makes a call of the API a span, to the end of its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not tracing.is_on() or scope["type"] != "http" or not scope["path"].startswith(API):
            await self._app(scope, receive, send)
            return
        headers = Request(scope).headers
        with tracing.serving(scope["method"], headers.get(Header.TRACEPARENT, "")) as span:
            span.put({"http.request.method": scope["method"], "url.scheme": scope["scheme"]})

            async def send_and_note(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note_status(span, message["status"])
                await send(message)

            await self._app(scope, receive, send_and_note)


def _note_status(span: NoSpan, status: int) -> None:
    span.put({"http.response.status_code": status})
    if status >= 500:
        span.fail(str(status))


class _Headers:
    """Sets the security headers on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _OwnNames:
    """Lets only calls to this machine's own names through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _host(Request(scope)) not in _OWN_NAMES:
            await error_response(WrongHost())(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _cors(origins: Sequence[str]) -> Middleware:
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=_CORS_HEADERS,
        expose_headers=["X-Request-Id", "Retry-After", "Location"],
    )
