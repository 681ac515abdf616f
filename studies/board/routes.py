"""Addresses that give data: what has changed, pictures, tables, the page that opens offline."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...objectives.machine import wait_for_quiet
from ...spaces.errors import InputError, SlimfrontError
from ..export import export
from ..pictures import difference, difference_factor
from ..report import report
from . import budgets
from .albums import webp
from .run_page import state_text

if TYPE_CHECKING:
    from dash import Dash
    from flask import Response

    from .boarded import Boards
    from .followed import Followed

WEBP = "image/webp"
VERSION = re.compile("[0-9]{1,15}")
MOST_WAIT_SECONDS = 4.0  # for a timing that goes on


def serve(app: Dash, boards: Boards) -> None:
    """Add the addresses."""
    from flask import Response, abort, jsonify, request

    def since() -> int:
        text = request.args.get("since", "0")
        if not VERSION.fullmatch(text):
            abort(400, f"since must be a version that the board has told, but got {text!r}")
        return int(text)

    def followed(index: int) -> Followed:
        try:
            return boards[index].followed
        except SlimfrontError as error:
            abort(404, str(error))

    @app.server.get("/run/<int:index>/rows")
    def rows(index: int) -> Response:
        run, version = followed(index), since()
        if version:  # what is drawn for it is not to disturb a timing
            wait_for_quiet(MOST_WAIT_SECONDS)
        news = run.news(version) or {"version": version}
        return jsonify(news | {"state": state_text(run), "reviewed": boards[index].review.size})

    @app.server.get("/run/<int:index>/column")
    def column(index: int) -> Response:
        run, version = followed(index), since()
        try:
            return jsonify(run.column(request.args.get("name", ""), version))
        except InputError as error:
            abort(400, str(error))

    @app.server.get("/run/<int:index>/fitting")
    def fitting(index: int) -> Response:
        frame = followed(index).frame()
        try:
            return jsonify(budgets.answer(frame, request.args))
        except InputError as error:
            abort(400, str(error))

    def found(what: Callable[[], bytes], kind: str, name: str = "", kept: bool = False) -> Response:
        try:
            body = what()
        except SlimfrontError as error:
            abort(404, str(error))
        response = Response(body, mimetype=kind)
        response.headers["Cache-Control"] = "private, max-age=86400" if kept else "no-store"
        if name:
            response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response

    def picture(index: int, number: int, image: int) -> Any:
        boarded = boards[index]
        pictures = boarded.albums.of(boarded.followed.trial(number)).pictures
        return pictures[_place(image, len(pictures))]

    @app.server.get("/run/<int:index>/picture/<int:number>/<int:image>.webp")
    def one(index: int, number: int, image: int) -> Response:
        return found(lambda: webp(picture(index, number, image)), WEBP, kept=True)

    @app.server.get("/run/<int:index>/picture/<int:first>/<int:second>/<int:image>/difference.webp")
    def gap(index: int, first: int, second: int, image: int) -> Response:
        def made() -> bytes:
            boarded = boards[index]
            albums = [boarded.albums.of(boarded.followed.trial(number)).pictures for number in (first, second)]
            one, two = (album[_place(image, len(album))] for album in albums)
            return webp(difference(one, two, difference_factor(albums[1], albums[:1])))

        return found(made, WEBP, kept=True)

    @app.server.get("/judge/<int:index>/<session>/<int:count>/<any(left, right):side>.webp")
    def blind(index: int, session: str, count: int, side: str) -> Response:
        def made() -> bytes:
            asked = boards[index].sessions.asked(session, count)
            if asked is None:
                raise SlimfrontError("this question is answered")
            return webp(picture(index, getattr(asked.question, side), asked.question.image))

        return found(made, WEBP)

    @app.server.get("/run/<int:index>/candidates.<any(csv, parquet):kind>")
    def candidates(index: int, kind: str) -> Response:
        def made() -> bytes:
            return _written(
                f"candidates.{kind}", lambda path: export(boards[index].followed.read_again(), all=True, **{kind: path})
            )

        mime = "text/csv" if kind == "csv" else "application/vnd.apache.parquet"
        return found(made, mime, f"candidates.{kind}")

    @app.server.get("/run/<int:index>/report.html")
    def offline(index: int) -> Response:
        def made() -> bytes:
            return _written("report.html", lambda path: report(boards[index].followed.read_again(), path))

        return found(made, "text/html", "report.html")


def _place(image: int, count: int) -> int:
    if image >= count:
        raise SlimfrontError(f"there is no image {image}; there are {count}")
    return image


def _written(name: str, write: Callable[[Path], Any]) -> bytes:
    """Return what is written to a file."""
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()
