"""A board over real runs of a tiny model, served on loopback, and a real headless Chromium to look at it with."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (  # nothing is asked of the network, and WebGL is drawn by the processor
    "--no-sandbox",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-swiftshader",
)
NASTY = '<img src=x onerror="document.title=1"><script>document.title=2</script>&amp; name'
TOLERATED = ("GPU stall", "willReadFrequently", "WebGL")  # warnings of a browser without a graphics card


def make_run(
    folder: Path, model: Path, pictures: Callable, trials: int = 9, name: str = NASTY, target: bool = True
) -> Path:
    """Search a study, with targets unless told otherwise, whose name holds markup."""
    from slimfront.search.loop import search
    from slimfront.studies.study import Study

    evaluation = (pictures(3, 2), pictures(3, 3)) if target else pictures(3, 2)
    study = Study(model, pictures(4, 1), evaluation, name=name.replace("/", ""))
    search(study, trials=trials, run_dir=folder, sampler="random")
    return folder


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pictures: Callable) -> Path:
    """A finished run that no test writes into."""
    return make_run(tmp_path_factory.mktemp("finished") / "run", tiny_model, pictures)


@pytest.fixture(scope="session")
def untargeted_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pictures: Callable) -> Path:
    """A finished run of a study without targets."""
    return make_run(tmp_path_factory.mktemp("untargeted") / "run", tiny_model, pictures, trials=7, target=False)


@pytest.fixture
def run_folder(tmp_path: Path, finished_run: Path) -> Path:
    """A copy of it that a test may write into."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """A function that serves a board of run folders and returns its address."""
    from slimfront.studies.board.app import make_server

    servers = []

    def start(*folders: Path, host: str = "127.0.0.1", judge: bool = False) -> str:
        served = make_server(folders, host, 0)
        threading.Thread(target=served.server.serve_forever, daemon=True).start()
        servers.append(served.server)
        return served.address(judge)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """A headless Chromium."""
    if BROWSER is None:
        pytest.skip("there is no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=BROWSER, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """A function that opens an address in a page of some width; at the end its console must have told no error."""
    opened = []

    def open_(address: str, width: int = 1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(60_000)
        told: list[str] = []
        page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto(address)
        opened.append((page, told))
        return page

    yield open_
    for page, told in opened:
        page.close()
        assert [text for text in told if not any(known in text for known in TOLERATED)] == []


@pytest.fixture(scope="session")
def keep() -> Callable:
    """A function that keeps a picture of a page under a name, where the tests are told of a folder for that."""

    def keep_(page, name: str) -> None:
        folder = os.environ.get("SLIMFRONT_SCREENSHOTS")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)

    return keep_
