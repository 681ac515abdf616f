"""What the review screen answers: the front's table, a candidate's facts and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dash import ALL, MATCH, ClientsideFunction, Input, Output, State, ctx, dcc, html, no_update

from ...spaces.errors import SlimfrontError
from .candidate import candidate_section, differences_section, layers
from .comparison import image_table, stage
from .judge import disagreements
from .pages import page, runs_state, runs_view
from .parts import of_trial
from .run_page import front_table

if TYPE_CHECKING:
    import numpy as np
    from dash import Dash
    from numpy.typing import NDArray

    from ..review import Judgement
    from .boarded import Boards


def answer(app: Dash, boards: Boards) -> None:
    """Register what the review screen asks."""
    _in_the_page(app)

    @app.callback(Output("page", "children"), Output("problem", "hidden"), Input("place", "pathname"))
    def shown(path: str) -> Any:
        return page(boards, path), True

    @app.callback(Output("runs", "children"), Input("runs-tick", "n_intervals"), State("runs-state", "data"))
    def runs(_: int, known: list[Any]) -> Any:
        return no_update if runs_state(boards) == known else runs_view(boards)

    @app.callback(Output("waited", "children"), Input("wait", "n_intervals"), State("run", "data"))
    def waited(_: int, index: int) -> Any:
        there = boards[index].followed.numbers
        return dcc.Location(id="again", href=f"/run/{index}", refresh=True) if there else no_update

    @app.callback(
        Output("table", "children"),
        Input("front", "data"),
        Input("reviewed", "data"),  # what people prefer may have changed
        State("run", "data"),
        prevent_initial_call=True,
    )
    def front(_: int | None, said: int | None, index: int) -> Any:
        with boards[index].followed.lock:
            return front_table(boards[index])

    @app.callback(
        Output("candidate", "children"), Output("beside", "data"), Input("selected", "data"), State("run", "data")
    )
    def candidate(number: int | None, index: int) -> Any:
        if number is None:
            return [], None
        boarded = boards[index]
        try:
            trial = boarded.followed.trial(number)
            return candidate_section(boarded, trial), boarded.followed.run.reference.number
        except SlimfrontError as error:
            return trouble(error), None

    @app.callback(
        Output("pictures", "children"),
        Output("differences", "children"),
        Input("beside", "data"),
        Input("image", "data"),
        State("selected", "data"),
        State("run", "data"),
    )
    def pictures(other: int | None, image: int | None, number: int | None, index: int) -> Any:
        if number is None or other is None:
            return no_update, no_update
        boarded = boards[index]
        followed = boarded.followed
        try:
            trial, beside = followed.trial(number), followed.trial(int(other))
            different = differences_section(followed, trial, beside)
        except SlimfrontError as error:
            return trouble(error), []
        try:
            albums = boarded.albums.of(trial), boarded.albums.of(beside)
        except SlimfrontError as error:
            return trouble(error), different
        worst = int(albums[0].psnr_db.argmin()) if image is None or image >= len(albums[0].psnr_db) else image
        names = (f"trial {trial.number}", "reference" if followed.is_reference(beside) else f"trial {beside.number}")
        psnr = {one.candidate.key: album.psnr_db for one, album in zip((trial, beside), albums, strict=True)}
        notes = unlike_psnr(boarded.review.judgements, psnr, names)
        return [
            stage(index, trial, beside, names[1], worst, albums),
            image_table(albums, worst, names, notes),
        ], different

    @app.callback(
        Output(of_trial("times", MATCH), "children"),
        Output(of_trial("layers", MATCH), "children"),
        Input(of_trial("measure", MATCH), "n_clicks"),
        State("run", "data"),
        running=[(Output(of_trial("measure", MATCH), "disabled"), True, False)],
        prevent_initial_call=True,
    )
    def times(clicks: int | None, index: int) -> Any:
        if not clicks:
            return no_update, no_update
        from ..profile import decibels
        from .times import times_view

        boarded = boards[index]
        try:
            trial = boarded.followed.trial(ctx.triggered_id["trial"])
            explained = boarded.explained(trial)
            errors = boarded.layer_errors(trial.candidate, measure=True)
            study, network = boarded.followed.study, boarded.followed.network(trial.candidate.base)
            alone = {name: decibels(study, error) for name, error in errors.items() if error} if study else {}
        except SlimfrontError as error:
            return trouble(error), no_update
        return times_view(explained, alone, trial.candidate), layers(trial.candidate, network, errors)


def _in_the_page(app: Dash) -> None:
    """Register what the page does by itself (assets/views.js)."""

    def own(name: str, output: Any, *inputs: Any, **more: Any) -> None:
        app.clientside_callback(ClientsideFunction("board", name), output, *inputs, **more)

    own("follow", Output("done", "data"), Input("run", "data"))
    own(
        "chosen",
        Output("marked", "data"),
        Input("selected", "data"),
        Input("beside", "data"),
        Input("table", "children"),
    )
    buttons = Input({"type": "choose", "trial": ALL, "place": ALL}, "n_clicks")
    chosen = (Input("space", "clickData"), buttons, Input("go", "value"))
    own("clicked", Output("selected", "data"), *chosen, prevent_initial_call=True)
    own("image", Output("image", "data"), Input({"type": "image", "image": ALL}, "n_clicks"), prevent_initial_call=True)
    own(
        "brushed",
        Output("done", "data", allow_duplicate=True),
        Input("parallel", "restyleData"),
        prevent_initial_call=True,
    )
    for name in ("space", "parallel"):
        own("opened", Output(name, "figure"), Input(f"open-{name}", "n_clicks"), State(f"{name}-figure", "data"))
    own("png", Output("saved-png", "data"), Input("save-png", "n_clicks"), prevent_initial_call=True)
    own("svg", Output("saved-svg", "data"), Input("save-svg", "n_clicks"), prevent_initial_call=True)


def unlike_psnr(
    judgements: Sequence[Judgement], psnr_db: Mapping[str, NDArray[np.float64]], names: Sequence[str]
) -> dict[int, str]:
    """Return on which images people prefer the one of two candidates whose PSNR is lower, in words.

    Args:
        judgements: of any candidates.
        psnr_db: of each image ``[N]``, by candidate's key.
        names: what these candidates are called.
    """
    named = dict(zip(psnr_db, names, strict=False))  # a candidate may be compared with itself
    return {one.image: f"people prefer {named[one.preferred]}" for one in disagreements(judgements, psnr_db)}


def trouble(error: Exception) -> Any:
    """Return what is shown in the place of something that cannot be."""
    return html.P(str(error), className="trouble", role="alert")
