"""python studies/benchmarks/board.py [--candidates 10000] [--looks 5] [--search 200]

How fast is the board where there is much to show, and what does it cost a search? Opens a run of the ready-made study with
candidates whose readings are drawn in a headless Chromium: prints when the first view is drawn, how long a slider, a colour
and a new candidate take from the event until it is drawn, and the server's time and the size of its answer for each. With
--search, runs that many trials alone and with a board open that is looked at, in turn, and prints both times.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from slimfront.search.loop import search
from slimfront.spaces.candidate import Candidate
from slimfront.studies.board.app import make_server
from slimfront.studies.records import Record, RecordFile, read_records
from slimfront.studies.run_folder import RECORDS_FILE
from slimfront.studies.study import Study, load_study

TOOK = "X-Milliseconds"
MEASURED = 6  # trials of the real run
SMALL = 300  # bytes of an answer that has no news
FLAGS = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--enable-unsafe-swiftshader")
POINTS = "document.body.dataset.candidates > 0"
AXES = "[...document.querySelectorAll('.plot')].every(plot => plot.ruled)"
REACTION = """([what, value]) => new Promise((done, fail) => {
    setTimeout(() => fail(new Error(`${what} at ${value} draws nothing`)), 20000);
    const canvas = document.querySelector('#speed-quality-plot').querySelector('canvas');
    const began = performance.now();
    const drawn = () => requestAnimationFrame(() => done(performance.now() - began));
    canvas.addEventListener('painted', drawn, { once: true });
    const element = document.getElementById(what);
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(element), 'value').set.call(element, value);
    for (const event of ['input', 'change']) element.dispatchEvent(new Event(event, { bubbles: true }));
})"""


def main() -> None:
    """Draw candidates, open the board, and print the tables."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--candidates", type=int, default=10_000)
    flags.add_argument("--looks", type=int, default=5, help="how often each is measured")
    flags.add_argument("--search", type=int, default=0, help="trials of the searches that are compared")
    flags.add_argument("--pairs", type=int, default=3, help="of searches")
    flags.add_argument("--browser", default=shutil.which("chromium") or "chromium")
    arguments = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = load_study("painting")
        run = Path(folder) / "run"
        search(study, trials=MEASURED, run_dir=run)
        grow(run, study, arguments.candidates)
        began = time.perf_counter()
        with board(run) as address:
            print(
                f"{arguments.candidates:,} candidates, read in {time.perf_counter() - began:.1f} s before the board is told of"
            )
            look(address, run, arguments.browser, arguments.looks, study)
        if arguments.search:
            compare(arguments.search, arguments.pairs, Path(folder), arguments.browser)


def drawn(study: Study, number: int) -> Candidate:
    """Return a candidate of a study's space."""
    draw = np.random.default_rng(number)
    layers = {name: choices[draw.integers(len(choices))] for name, choices in study.space.choices.items()}
    groups = {name: float(draw.choice(list(ratios))) for name, ratios in study.space.ratios.items()}
    return Candidate(layers, groups)


def records(study: Study, number: int, like: Sequence[Record]) -> list[Record]:
    """Return a drawn candidate's records, made like those of the reference."""
    candidate, draw = drawn(study, number), np.random.default_rng(number)
    small, fast, worse = (
        draw.random(),
        draw.random(),
        draw.exponential(),
    )  # who is small or fast is worse, and some at that
    size, speed = 5e6 * 32.0**-small, 20.0**fast
    quality = 36.0 - 4.0 * small**2 - 4.0 * fast**2 - worse
    values: dict[str, float] = {
        "size_bytes": round(size),
        "psnr_db": quality,
        "fidelity_db": quality,
        "speedup": speed,
    }
    found = []
    for record in like:
        readings = {
            name: reading | ({"value": values[name]} if name in values else {})
            for name, reading in record.readings.items()
        }
        if "speedup" in readings:
            readings["speedup"] |= {"low": 0.98 * speed, "high": 1.02 * speed}
        known = {"trial": number, "key": candidate.key, "readings": readings, "label": "", "sha256": f"{number:064x}"}
        told = {"candidate": candidate.to_json() if record.stage == "build" else None}
        found.append(Record(**{**{name: getattr(record, name) for name in Record.__slots__}, **known, **told}))
    return found


def grow(run: Path, study: Study, count: int) -> None:
    """Add drawn candidates to a run until it has so many."""
    known = list(read_records(run / RECORDS_FILE))
    like = [record for record in known if record.trial == 0 and record.stage in ("build", "quality", "timing")]
    first = 1 + max(record.trial for record in known)
    with RecordFile(run / RECORDS_FILE) as file:
        file.append(*(record for number in range(first, count) for record in records(study, number, like)))


@contextmanager
def board(run: Path) -> Iterator[str]:
    """Serve a board in a process of its own; give its address."""
    spawn = multiprocessing.get_context("spawn")
    told, tell_ = spawn.Pipe(duplex=False)
    server = spawn.Process(target=serve, args=(run, tell_), daemon=True)
    server.start()
    try:
        yield told.recv()
    finally:
        server.terminate()
        server.join()


def serve(run: Path, tell_: Any) -> None:
    """Serve a board whose answers say how long they took, and tell its address."""
    served = make_server([run], "127.0.0.1", 0)
    served.server.app = timed(served.server.app)
    tell_.send(served.address())
    served.server.serve_forever()


def timed(app: Callable[..., Any]) -> Callable[..., Any]:
    """Return a WSGI application that tells in a header how long it has taken."""

    def answer(environ: Any, start: Callable[..., Any]) -> Any:
        began = time.perf_counter()

        def begin(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            return start(status, [*headers, (TOOK, f"{1e3 * (time.perf_counter() - began):.1f}")], *more)

        return app(environ, begin)

    return answer


def look(address: str, run: Path, browser: str, looks: int, study: Study) -> None:
    """Print how fast a board is."""
    from playwright.sync_api import sync_playwright

    print("| what | seconds until it is drawn | server, ms | answer, kB |\n|---|---|---|---|")
    with sync_playwright() as playwright:
        answers: list[tuple[str, float, int]] = []
        views: dict[str, list[float]] = {}
        for _ in range(looks):
            chromium = playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
            page = chromium.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(120_000)
            page.on("response", lambda answer: note(answers, answer))
            for which in (
                "that has just started",
                "at a second visit",
                "at a third",
            ):  # a browser keeps scripts as it needs them
                answers.clear()
                began = time.perf_counter()
                page.goto(address)
                for what, there in (("points", POINTS), ("axes too", AXES)):
                    page.wait_for_function(there)
                    views.setdefault(f"first view, {what}, in a browser {which}", []).append(
                        time.perf_counter() - began
                    )
                page.wait_for_timeout(3000)
            if len(next(iter(views.values()))) < looks:
                chromium.close()
        for what, times in views.items():
            tell(what, times, [answer for answer in answers if answer[0] == "rows" and answer[2] > SMALL])
        for what, element, values, output in (
            ("budget moved", "max_size", range(90, 30, -5), "fitting"),
            ("colour chosen", "colour-choice", colours_of(page), "column"),
        ):
            page.evaluate(REACTION, [element, str(values[-1])])
            page.wait_for_timeout(1000)
            answers.clear()
            times = []
            for value in list(values)[:looks]:
                times.append(page.evaluate(REACTION, [element, str(value)]) / 1e3)
                page.wait_for_timeout(300)
            tell(what, times, [answer for answer in answers if answer[0].startswith(output)])
        count = int(page.evaluate("document.body.dataset.candidates"))
        like = [record for record in read_records(run / RECORDS_FILE) if record.trial == 0]
        like = [record for record in like if record.stage in ("build", "quality", "timing")]
        answers.clear()
        times = []
        for number in range(count, count + looks):
            with RecordFile(run / RECORDS_FILE) as file:
                file.append(*records(study, number, like))
            began = time.perf_counter()
            page.wait_for_function(f"document.body.dataset.candidates > {number}")
            times.append(time.perf_counter() - began)
        tell(
            "new candidate (looked for every 2 to 5 s)",
            times,
            [answer for answer in answers if answer[0] == "rows" and answer[2] > SMALL],
        )
        chromium.close()


def note(answers: list[tuple[str, float, int]], answer: Any) -> None:
    """Note what was asked, the server's time in milliseconds, and the bytes of its answer."""
    what = urlsplit(answer.url).path.rsplit("/", 1)[-1]
    if what == "_dash-update-component":
        what = json.loads(answer.request.post_data)["output"]
    elif what not in ("rows", "column", "fitting"):
        return
    answers.append((what, float(answer.headers[TOOK.lower()]), int(answer.headers.get("content-length", 0))))


def colours_of(page: Any) -> list[str]:
    """Return the columns that points can be coloured by and that the page has to ask for: a layer's bits."""
    options = page.eval_on_selector_all("#colour-choice option", "all => all.map(one => one.value)")
    return [name for name in options if name.startswith("layer:")]


def tell(what: str, seconds: Sequence[float], answers: Sequence[tuple[str, float, int]]) -> None:
    """Print a row."""
    server = statistics.median(answer[1] for answer in answers) if answers else float("nan")
    size = statistics.median(answer[2] for answer in answers) / 1e3 if answers else float("nan")
    print(
        f"| {what} | {statistics.median(seconds):.2f} ({max(seconds):.2f} at most) | {server:.0f} | {size:.1f} |",
        flush=True,
    )


def compare(trials: int, pairs: int, folder: Path, browser: str) -> None:
    """Print how long searches take alone and with a board that is looked at, in pairs, the first of which changes."""
    searched(MEASURED, folder / "warm", None)  # statistics and the predictor's calibration are made once
    print("| pair | alone, s | with a board, s |\n|---|---|---|")
    ratios = []
    for pair in range(pairs):
        order = (False, True) if pair % 2 == 0 else (True, False)  # what drifts hits both
        took = {
            watched: searched(trials, folder / f"{pair}-{watched}", browser if watched else None) for watched in order
        }
        ratios.append(took[True] / took[False])
        print(f"| {pair + 1} | {took[False]:.0f} | {took[True]:.0f} |", flush=True)
    cost = 100 * (statistics.mean(ratios) - 1)
    spread = 100 * statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    print(f"the board costs {cost:+.1f} % (standard error {spread:.1f} %)")


def searched(trials: int, run: Path, browser: str | None) -> float:
    """Return the seconds of a search, with a board open in a browser where there is one."""
    from playwright.sync_api import sync_playwright

    command = [
        sys.executable,
        "-m",
        "slimfront.cli",
        "search",
        "painting",
        "--trials",
        str(trials),
        "--run",
        str(run),
        "-q",
    ]
    environment = {**os.environ, "SLIMFRONT_CACHE": str(run.parent / "cache")}
    began = time.perf_counter()
    searching = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    if browser:
        while not (run / "run.json").exists() and searching.poll() is None:
            time.sleep(0.1)
        shown = [sys.executable, "-m", "slimfront.cli", "board", str(run), "--port", "0", "--json"]
        with (
            subprocess.Popen(shown, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as serving,
            sync_playwright() as playwright,
        ):
            assert serving.stdout is not None
            address = next(line for line in map(bytes.decode, serving.stdout) if "http" in line).split('"')[3]
            chromium = playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
            chromium.new_page().goto(address)
            searching.wait()
            seconds = time.perf_counter() - began
            chromium.close()
            serving.terminate()
    else:
        searching.wait()
        seconds = time.perf_counter() - began
    if searching.returncode:
        raise SystemExit(f"a search has failed: {shlex.join(command)}")
    return seconds


if __name__ == "__main__":
    main()
