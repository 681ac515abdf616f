"""The board's application: pages and answers over followed runs, guarded, on a server of its own."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...spaces.errors import InputError, SlimfrontError
from ..page import STYLE
from ..review import somebody
from .boarded import Boarded, Boards, found_runs
from .guard import LOCAL, guard, is_local

if TYPE_CHECKING:
    from dash import Dash
    from werkzeug.serving import BaseWSGIServer

TITLE = "slimfront board"


def make_app(boards: Boards, token: str, host: str = "127.0.0.1") -> Dash:
    """Return the application.

    Args:
        boards: the runs.
        token: of the session: who writes needs it, and who reads from another machine.
        host: that it is served on.
    """
    from dash import Dash

    from .callbacks import answer
    from .deciding import decide
    from .pages import frame
    from .routes import serve

    app = Dash(
        "slimfront.studies.board",
        title=TITLE,
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        suppress_callback_exceptions=True,
        serve_locally=True,
        on_error=_told,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    head = f"<style>{STYLE}</style>\n{{%css%}}"  # the report's look first
    alone = ' data-run="0"' if len(boards.runs) == 1 else ""  # the run that the start page shows
    app.index_string = app.index_string.replace("<html>", f'<html lang="en"{alone}>').replace("{%css%}", head)
    app.layout = frame(somebody() if is_local(host) else "")
    answer(app, boards)
    decide(app, boards)
    serve(app, boards)
    local = is_local(host)
    guard(app, token, {*LOCAL, host} if local else None, open_to_read=local)
    return app


def _told(error: Exception) -> None:
    """Say on the page what went wrong with something that was asked; what is no user's mistake is logged with its traceback."""
    from dash import set_props

    if not isinstance(error, SlimfrontError):
        logging.getLogger(__name__).error("the board failed at something that was asked", exc_info=error)
    set_props("problem", {"children": f"this did not work: {error}", "hidden": False})


def board(
    folders: Sequence[Path],
    host: str = "127.0.0.1",
    port: int = 8050,
    judge: bool = False,
    told: Callable[[str], None] = print,
    token: str | None = None,
) -> None:
    """Serve the board of some runs until it is interrupted.

    Args:
        folders: of runs, or that hold runs.
        host: to serve on; one that other machines reach demands the token.
        port: to serve on; 0 takes a free one.
        judge: whether the address that is told is that of blind judging.
        told: is told the address, once, when the board is ready.
        token: of the session; by default drawn.

    Raises:
        InputError: no run can be shown, or the port is taken.
    """
    made = make_server(folders, host, port, token)
    told(made.address(judge))
    try:
        made.server.serve_forever()
    finally:
        made.server.server_close()


class Served:
    """A board that is ready to be served.

    Attributes:
        server: takes requests once it is told to `serve_forever`.
        token: of the session.
    """

    def __init__(self, server: BaseWSGIServer, host: str, token: str) -> None:
        self.server = server
        self.token = token
        self._host = host

    def address(self, judge: bool = False) -> str:
        """Return the address to open; with the token where that is needed."""
        name = f"[{self._host}]" if ":" in self._host else self._host
        path = "judge/0" if judge else ""
        secret = "" if is_local(self._host) else f"?token={self.token}"
        return f"http://{name}:{self.server.server_port}/{path}{secret}"


def make_server(folders: Sequence[Path], host: str, port: int, token: str | None = None) -> Served:
    """Return a board, its runs read; see `board`."""
    from werkzeug.serving import make_server as make

    from .pages import page

    boards = Boards([Boarded(folder) for folder in found_runs(folders)])
    if all(run.trouble for run in boards.runs):
        raise InputError("; ".join(str(run.trouble) for run in boards.runs))
    page(boards, "/")  # what the first visitor would wait for is loaded
    token = token or secrets.token_urlsafe(24)
    app = make_app(boards, token, host)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        server = make(host, port, app.server, threaded=True)
    except (OSError, SystemExit) as error:  # werkzeug says why, and exits
        raise InputError(
            f"cannot serve on {host} port {port}: it is taken or not this machine's; try --port 0"
        ) from error
    return Served(server, host, token)
