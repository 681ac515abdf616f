"""What the review screen answers: news of the run, budgets, colours, a candidate's facts and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dash import ALL, ClientsideFunction, Input, Output, State, dcc, html, no_update

from ...spaces.errors import SlimfrontError
from ..figures import VIEWS
from ..limits import Limits
from ..texts import number_text, size_text
from .budgets import Budget, bits, fitting
from .candidate import candidate_section, differences_section
from .comparison import image_table, stage
from .pages import page, runs_state, runs_view
from .parameters import column
from .run_page import PARALLEL, PLAIN, front_table, state_text

if TYPE_CHECKING:
    from dash import Dash

    from .boarded import Boards
    from .followed import Followed

KEYS = ("max_size", "max_latency", "min_speedup", "max_drop")


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
        Output("news", "data"),
        Output("state", "children"),
        Input("tick", "n_intervals"),
        State("version", "data"),
        State("run", "data"),
        State("state", "children"),
    )
    def news(_: int, version: int | None, index: int, state: str | None) -> Any:
        followed = boards[index].followed
        found = followed.news(version or 0)
        text = state_text(followed)
        return no_update if found is None else found, no_update if text == state else text

    @app.callback(
        Output("mask", "data"),
        *(Output(f"{key}-text", "children") for key in KEYS),
        *(Input(key, "value") for key in KEYS),
        Input("brush", "data"),
        Input("version", "data"),
        State("budgets", "data"),
        State("run", "data"),
    )
    def mask(*given: Any) -> Any:
        *positions, brush, _, spent, index = given
        frame = boards[index].followed.frame()
        able = {budget["key"]: Budget(**budget) for budget in spent}
        placed = {key: float(position) for key, position in zip(KEYS, positions, strict=True)}
        limits = Limits(**{key: able[key].value(position) for key, position in placed.items()})
        ranges = {name: found for name, found in (brush or {}).items() if name in PARALLEL}
        kept = fitting(frame, limits, ranges)
        texts = [able[key].text(position) for key, position in placed.items()]
        return {"bits": bits(frame["trial"], kept), "text": left_text(frame, kept)}, *texts

    @app.callback(
        Output("table", "children"),
        Output("front-shown", "data"),
        Input("version", "data"),
        Input("reviewed", "data"),
        State("run", "data"),
        State("front-shown", "data"),
    )
    def front(_: int, said: int | None, index: int, shown: list[Any] | None) -> Any:
        boarded = boards[index]
        with boarded.followed.lock:
            members: list[Any] = [
                [trial.number, *trial.readings["speedup"].to_json().values()]
                for trial in boarded.followed.front_trials()
            ]
            members.append(said)  # what people prefer may have changed
            return (no_update, no_update) if members == shown else (front_table(boarded), members)

    @app.callback(
        Output("colours", "data"),
        Output("colour-legend", "children"),
        Input("colour", "data"),
        Input("version", "data"),
        State("run", "data"),
        State("colours", "data"),
    )
    def colours(name: str, _: int, index: int, known: Any) -> Any:
        if name == PLAIN and known is None:
            return no_update, no_update
        return coloured(boards[index].followed, name)

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
        left = names[1] if followed.is_reference(beside) else f"trial {beside.number}"
        return [stage(index, trial, beside, left, worst, albums), image_table(albums, worst, names)], different

    @app.callback(
        Output("times", "children"),
        Input("measure", "n_clicks"),
        State("selected", "data"),
        State("run", "data"),
        running=[(Output("measure", "disabled"), True, False)],
        prevent_initial_call=True,
    )
    def times(clicks: int | None, number: int, index: int) -> Any:
        if not clicks:
            return no_update
        from .times import times_view

        boarded = boards[index]
        try:
            trial = boarded.followed.trial(number)
            return times_view(boarded.explained(trial), boarded.layer_costs, trial.candidate)
        except SlimfrontError as error:
            return trouble(error)


def _in_the_page(app: Dash) -> None:
    """Register what the page does by itself (assets/views.js)."""

    def own(name: str, output: Any, *inputs: Any, **more: Any) -> None:
        app.clientside_callback(ClientsideFunction("board", name), output, *inputs, **more)

    own("news", Output("version", "data"), Input("news", "data"))
    own("mask", Output("left", "children"), Input("mask", "data"))
    own("colour", Output("done", "data"), Input("colours", "data"))
    own(
        "chosen",
        Output("marked", "data"),
        Input("selected", "data"),
        Input("beside", "data"),
        Input("table", "children"),
    )
    clicks = [Input(name, "clickData") for name in (*VIEWS, "space")]
    buttons = Input({"type": "choose", "trial": ALL, "place": ALL}, "n_clicks")
    own("clicked", Output("selected", "data"), *clicks, buttons, Input("go", "value"), prevent_initial_call=True)
    own("image", Output("image", "data"), Input({"type": "image", "image": ALL}, "n_clicks"), prevent_initial_call=True)
    own("brushed", Output("brush", "data"), Input("parallel", "restyleData"), prevent_initial_call=True)
    own("opened", Output("open", "data"), Input("open-space", "n_clicks"), Input("open-parallel", "n_clicks"))
    own("free", [Output(key, "value") for key in KEYS], Input("free", "n_clicks"), prevent_initial_call=True)
    own("png", Output("saved-png", "data"), Input("save-png", "n_clicks"), prevent_initial_call=True)
    own("svg", Output("saved-svg", "data"), Input("save-svg", "n_clicks"), prevent_initial_call=True)


def left_text(frame: Any, kept: Any) -> str:
    """Return what is left of a budget."""
    left = frame[kept]
    if left.empty:
        return f"none of {len(frame):,} candidates fits"
    timed = left[left["state"] == "measured"]  # speeds of others are foretold
    if timed.empty:
        return f"{len(left):,} of {len(frame):,} candidates fit, none of which was timed"
    front = int(left["on_front"].sum())
    ends = [("smallest", "size_bytes", timed["size_bytes"].idxmin()), ("fastest", "speedup", timed["speedup"].idxmax())]
    if timed["psnr_db"].notna().any():
        ends.append(("best", "psnr_db", timed["psnr_db"].idxmax()))
    show = {
        "size_bytes": lambda v: size_text(float(v)),
        "speedup": lambda v: f"{number_text(v)}×",
        "psnr_db": lambda v: f"{number_text(v)} dB",
    }
    words = ", ".join(
        f"the {what} {show[name](frame.loc[row, name])} (trial {frame.loc[row, 'trial']})" for what, name, row in ends
    )
    return f"{len(left):,} of {len(frame):,} candidates fit, {front} of them on the front; {words}"


def coloured(followed: Followed, name: str) -> tuple[Any, str]:
    """Return the values that points are coloured by, by trial number, and the legend in words."""
    if name == PLAIN:
        return None, ""
    with followed.lock:
        frame, trials = followed.frame(), followed.trials()
    if name == "base":
        bases = list(dict.fromkeys(frame["base"]))
        values: list[Any] = [bases.index(base) for base in frame["base"]]
        legend = f"{len(bases)} bases, each in its colour"
    else:
        values = frame[name].tolist() if name in frame else column(name, trials, followed.network)
        known = [value for value in values if value == value]
        legend = f"yellow {min(known):.4g} to blue {max(known):.4g}" if known else "nothing known"
    by_number: list[Any] = [None] * (int(frame["trial"].max()) + 1)
    for number, value in zip(frame["trial"].tolist(), values, strict=True):
        by_number[number] = None if value != value else float(f"{value:.6g}")
    return {"values": by_number, "names": name == "base"}, legend


def trouble(error: Exception) -> Any:
    """Return what is shown in the place of something that cannot be."""
    return html.P(str(error), className="trouble", role="alert")
