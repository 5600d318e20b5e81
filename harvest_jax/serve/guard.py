"""What a request must fulfil before it is looked at, and what every answer says to the browser.

A page of another site that is open in the same browser can send requests to this machine. It is refused by three of the
headers that a browser sets itself: Host (against names that were made to point here), Origin and Sec-Fetch-Site.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 60.0  # that a request may take to send its body
# Nothing of another site is loaded, nothing is sent to one, no other site frames the page.
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
# No token: whether the server lives, how the page looks, and the page that asks for the token.
OPEN = ("/healthz", "/login", "/static/style.css", "/static/page.js")


def body_refused(status: int, reason: str) -> HTTPException:
    """The answer to a body that is too large or takes too long; the rest of it is not read."""
    return HTTPException(status, reason, {"connection": "close"})


class Guard:
    """The application behind the checks; see the module.

    Args:
      app: the application.
      names: host names that requests may ask for, beside addresses in numbers.
      loopback: the server listens on this machine alone; then addresses of other machines are refused, too.
      token: that requests must have; empty: none.
      max_body: bytes of a request's body.
    """

    def __init__(self, app: ASGIApp, names: set[str], loopback: bool, token: str, max_body: int) -> None:
        self._app, self._names, self._loopback = app, {name.lower() for name in names}, loopback
        self._token, self._max_body = token, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    given.setdefault(name, value)
                given.setdefault("cache-control", "no-store")
            await send(message)

        refused = self._refused(scope, headers)
        if refused:
            await refusal(scope, *refused)(scope, receive, send_with_headers)
            return
        await self._app(scope, self._bounded(receive), send_with_headers)

    def _refused(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 421, "the Host header names another machine; start with --name NAME if this one has that name"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return 403, "the Origin header names another site"
        to_a_page = scope["method"] in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not to_a_page:
            return 403, "the request comes from another site"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body:
            return 413, f"too large: more than {self._max_body:,} bytes"
        if self._token and scope["path"] not in OPEN and not self._has_token(scope, headers):
            return 401, "a token is required: Authorization: Bearer TOKEN"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self._names:
                return True
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._loopback  # nobody can make a number point elsewhere

    def _has_token(self, scope: Scope, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and same(given.strip(), self._token):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and same(cookie.value, cookie_of(self._token))

    def _bounded(self, receive: Receive) -> Receive:
        left = self._max_body
        deadline: float | None = None

        async def bounded() -> Message:
            nonlocal left, deadline
            now = asyncio.get_running_loop().time()
            deadline = deadline or now + BODY_SECONDS
            if complete:  # what comes now is that the client goes away, whenever it does
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise body_refused(408, f"the body took longer than {BODY_SECONDS:g} s") from None
            left -= len(message.get("body", b""))
            if left < 0:
                raise body_refused(413, f"too large: more than {self._max_body:,} bytes")
            if not message.get("more_body", False):
                complete.append(True)
            return message

        complete: list[bool] = []
        return bounded


COOKIE = "harvest_serve"


def cookie_of(token: str) -> str:
    """What the browser keeps in the token's place: a cookie is also sent to servers on other ports of this machine."""
    return hmac.new(token.encode(), b"cookie of harvest serve", hashlib.sha256).hexdigest()


def same(given: str, wanted: str) -> bool:
    """Compare in a time that does not depend on what is the same."""
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def refusal(scope: Scope, status: int, reason: str) -> JSONResponse:
    """The answer to a request that is refused; a browser that asked for a page is led to the form for the token."""
    wants_page = any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
    if status == 401 and wants_page and scope["method"] == "GET":
        response = JSONResponse({"error": reason}, 303, {"location": "/login"})
    else:
        response = JSONResponse({"error": reason}, status)
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response
