"""Who gets in: every request names this host, whoever writes holds the session's token and comes from the board's own pages.

A page of another site cannot forge either: the token lies in a cookie that browsers send from the board's own pages alone
(RFC 6265bis, SameSite=Strict), and a name that was pointed at this address (DNS rebinding) is no name of the board's.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from dash import Dash
    from flask import Response

COOKIE = "slimfront_board"  # and the port, since browsers give cookies to all ports of a host
READS = ("GET", "HEAD")
OWN_SITES = (
    "none",
    "same-origin",
)  # of the header Sec-Fetch-Site: typed by the user, or asked by the board's own pages
PAGE = re.compile("/|/(run|judge)/[0-9]+")  # what a link elsewhere may lead to
LOCAL = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_local(host: str) -> bool:
    """Whether only this machine can reach a host's address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def guard(app: Dash, token: str, hosts: Collection[str] | None, open_to_read: bool) -> None:
    """Let only those in who may.

    Args:
        app: is guarded from now on; all that its pages do is registered.
        token: of the session.
        hosts: names under which the board is reached, without port; None for any: then all that is asked needs the token.
        open_to_read: whether a page is given to whoever asks, with the token for what it will write; else the token must be
            given once, as ``?token=``.
    """
    from flask import abort, request

    server, policy = app.server, _policy(app)

    def cookie() -> str:
        return f"{COOKIE}_{request.environ.get('SERVER_PORT', '')}"

    def told(given: str) -> bool:
        return hmac.compare_digest(given.encode(), token.encode())

    def check() -> None:
        if hosts is not None and _name(request.host) not in hosts:
            abort(403, "the board is not known by this name")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"{request.scheme}://{request.host}":
            abort(403, "a page of another site may not ask the board")
        opened = request.headers.get("Sec-Fetch-Mode") == "navigate" and PAGE.fullmatch(request.path)
        if request.headers.get("Sec-Fetch-Site", "none") not in OWN_SITES and not opened:
            abort(403, "a page of another site may not ask the board")
        if told(request.cookies.get(cookie(), "")) or told(request.args.get("token", "")):
            return
        if request.method not in READS or not open_to_read:
            abort(403, "this needs the board's token: open the address that `slimfront board` has printed")

    def finish(response: Response) -> Response:
        admitted = told(request.args.get("token", "")) or (open_to_read and request.method in READS)
        if admitted and response.mimetype == "text/html" and response.status_code == 200:
            response.set_cookie(cookie(), token, httponly=True, samesite="Strict")
        for name, value in HEADERS.items():
            response.headers[name] = value
        response.headers["Content-Security-Policy"] = policy
        return response

    server.before_request(check)
    server.after_request(finish)


def _name(host: str) -> str:
    """Return the name in a Host header, without its port; empty where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _policy(app: Dash) -> str:
    """Return what the pages may load: their own scripts and pictures, and nothing from elsewhere.

    Plotly's views in WebGL make functions of text ('unsafe-eval'); Dash's own first script is known by its hash.
    """
    scripts = " ".join(["'self'", "'unsafe-eval'", *app.csp_hashes()])
    return (
        f"default-src 'self'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
    )
