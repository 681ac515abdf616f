"""Two candidates' pictures of one image under a slider, their difference, and the quality of each image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dash import dcc, html

from ..pictures import difference_factor
from ..texts import number_text
from .albums import Album, worst_tile
from .parts import aria, data, table

if TYPE_CHECKING:
    from ..trial import Trial


def stage(index: int, trial: Trial, other: Trial, left: str, image: int, albums: tuple[Album, Album]) -> Any:
    """Return two candidates' pictures of one image under a slider, and their difference.

    Args:
        index: of the run.
        trial: the candidate, on the right.
        other: on the left.
        left: what that is called.
        image: which.
        albums: of both.
    """
    one, two = (album.pictures[image] for album in albums)
    tile, times = worst_tile(one, two), difference_factor(albums[0].pictures, [albums[1].pictures])
    place = {name: f"{100 * getattr(tile, name):.3f}%" for name in ("top", "left", "height", "width")}
    address = f"/run/{index}/picture"
    height, width = one.shape[:2]
    shape = {"aspectRatio": f"{width} / {height}", "maxWidth": f"{max(2 * width, 360)}px"}
    full = 255 / times
    return html.Div(
        [
            html.Div(
                [
                    html.Figure(
                        [
                            html.Div(
                                [
                                    _image(
                                        f"{address}/{other.number}/{image}.webp?v={other.sha256[:12]}",
                                        f"image {image + 1}, {left}",
                                    ),
                                    html.Div(
                                        _image(
                                            f"{address}/{trial.number}/{image}.webp?v={trial.sha256[:12]}",
                                            f"image {image + 1}, trial {trial.number}",
                                        ),
                                        className="cover",
                                    ),
                                    html.Div(html.Div(className="tile", style=place), className="frame"),
                                    html.Div(className="divider"),
                                ],
                                className="pane",
                                style=shape,
                                tabIndex="0",
                                role="group",
                                **aria(label="pictures: arrows move, plus and minus zoom, 0 shows all"),
                            ),
                            html.Figcaption(
                                [html.Span(f"◀ {left}"), html.Span(f"trial {trial.number} ▶")], className="sides"
                            ),
                        ]
                    ),
                    html.Figure(
                        [
                            html.Div(
                                [
                                    _image(
                                        f"{address}/{other.number}/{trial.number}/{image}/difference.webp"
                                        f"?v={other.sha256[:12]}-{trial.sha256[:12]}",
                                        f"difference of image {image + 1}",
                                    ),
                                    html.Div(html.Div(className="tile", style=place), className="frame"),
                                ],
                                className="pane",
                                style=shape,
                                tabIndex="0",
                                role="group",
                                **aria(label="difference: arrows move, plus and minus zoom, 0 shows all"),
                            ),
                            html.Figcaption(
                                [
                                    html.Span("difference: 0"),
                                    html.Span(className="scale"),
                                    html.Span(
                                        f"{full:.0f} of 255 and above ({times}× amplified); the frame is the worst tile"
                                    ),
                                ],
                                className="scale-row",
                            ),
                        ]
                    ),
                ],
                className="panes",
            ),
            html.Div(
                [
                    html.Label(f"{left} – trial {trial.number}", htmlFor="split"),
                    dcc.Input(id="split", type="range", min=0, max=100, step=1, value=50),
                    html.Button("+", **data(act="in"), **aria(label="zoom in")),
                    html.Button("−", **data(act="out"), **aria(label="zoom out")),
                    html.Button("whole picture", **data(act="whole")),
                    html.Button("worst tile", **data(act="tile")),
                ],
                className="row controls",
            ),
        ],
        className="stage",
        id="stage",
    )


def _image(address: str, text: str) -> Any:
    return html.Img(src=address, alt=text, className="zoomed", draggable="false")


def image_table(albums: tuple[Album, Album], shown: int, names: tuple[str, str], notes: Mapping[int, str]) -> Any:
    """Return the quality of each image of two albums, the worst of the first one first, with buttons that show it.

    Args:
        albums: of a candidate and of another.
        shown: the image whose pictures are shown.
        names: what the two are called.
        notes: on some images.
    """
    one, two = albums
    rows = [
        html.Tr(
            [
                html.Td(
                    [
                        html.Button(
                            f"image {image + 1}",
                            id={"type": "image", "image": image},
                            className="link",
                            **aria(pressed="true" if image == shown else "false"),
                        ),
                        html.Small(f" {notes[image]}" if image in notes else ""),
                    ]
                ),
                html.Td(number_text(one.psnr_db[image])),
                html.Td(number_text(two.psnr_db[image])),
                html.Td(number_text(one.psnr_db[image] - two.psnr_db[image], sign=True)),
                html.Td(number_text(one.ssim[image], 4)),
                html.Td(number_text(two.ssim[image], 4)),
            ],
            className="selected" if image == shown else "",
        )
        for image in sorted(range(len(one.psnr_db)), key=lambda image: float(one.psnr_db[image]))
    ]
    heads = ["image", *(f"PSNR, {name}" for name in names), "change, dB", *(f"SSIM, {name}" for name in names)]
    return table(heads, rows, "Quality of each image")
