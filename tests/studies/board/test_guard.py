"""Nothing gets in: foreign names and sites, writes without the token, paths outside the run, markup."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from slimfront.spaces.errors import InputError
from slimfront.studies.board.deciding import bundle_folder
from slimfront.studies.board.guard import is_local

PAGE = {
    "output": "..page.children...problem.hidden..",
    "outputs": [{"id": "page", "property": "children"}, {"id": "problem", "property": "hidden"}],
    "inputs": [{"id": "place", "property": "pathname", "value": "/"}],
    "changedPropIds": ["place.pathname"],
    "state": [],
}


def ask(address: str, body: object = None, **headers: str) -> tuple[int, str, dict[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(address, data, {"Content-Type": "application/json", **names})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode("utf-8", "replace"), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace"), dict(error.headers)


@pytest.fixture
def address(finished_run: Path, serve: Callable) -> str:
    return serve(finished_run).rstrip("/")


def cookie(address: str) -> str:
    return ask(f"{address}/")[2]["Set-Cookie"].split(";")[0]


def test_whoever_asks_by_another_name_gets_nothing(address: str):
    assert ask(f"{address}/")[0] == 200
    for name in ("evil.example", "evil.example:8050", "127.0.0.1.evil.example"):
        assert ask(f"{address}/", Host=name)[0] == 403


def test_nothing_is_asked_of_the_answers_without_the_sessions_token(address: str):
    assert ask(f"{address}/_dash-update-component", PAGE)[0] == 403
    name = cookie(address).split("=")[0]
    assert ask(f"{address}/_dash-update-component", PAGE, Cookie=f"{name}=guess")[0] == 403
    status, text, _ = ask(f"{address}/_dash-update-component", PAGE, Cookie=cookie(address))
    assert status == 200 and json.loads(text)["response"]["page"]["children"]


def test_pages_of_other_sites_are_refused_even_with_the_token(address: str):
    known = cookie(address)
    foreign = {"Origin": "http://evil.example"}
    assert ask(f"{address}/_dash-update-component", PAGE, Cookie=known, **foreign)[0] == 403
    assert ask(f"{address}/_dash-update-component", PAGE, Cookie=known, Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(f"{address}/_dash-update-component", PAGE, Cookie=known, Origin=address)[0] == 200
    for origin in ("http://[", "null", address.replace("http:", "https:")):
        assert ask(f"{address}/_dash-update-component", PAGE, Cookie=known, Origin=origin)[0] == 403


def test_other_sites_may_lead_to_a_page_but_start_no_work(address: str):
    foreign = {"Sec_Fetch_Site": "cross-site", "Cookie": cookie(address)}
    assert ask(f"{address}/run/0", Sec_Fetch_Mode="navigate", **foreign)[0] == 200
    for path in ("/run/0/rows?since=0", "/run/0/report.html", "/run/0/candidates.csv", "/run/0/picture/0/0.webp"):
        assert ask(f"{address}{path}", Sec_Fetch_Mode="no-cors", **foreign)[0] == 403
        assert ask(f"{address}{path}", Sec_Fetch_Mode="navigate", **foreign)[0] == 403


def test_the_token_is_a_cookie_that_other_sites_cannot_use(address: str):
    told = ask(f"{address}/")[2]["Set-Cookie"]
    assert "HttpOnly" in told and "SameSite=Strict" in told


def test_pages_load_nothing_from_elsewhere(address: str):
    headers = ask(f"{address}/")[2]
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe-inline'; img" in headers["Content-Security-Policy"]  # of styles alone
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"


def test_a_board_that_other_machines_reach_demands_the_token(finished_run: Path, serve: Callable):
    address = serve(finished_run, host="0.0.0.0").replace("0.0.0.0", "127.0.0.1")
    base, _ = address.split("/?token=")
    for path in ("/", "/run/0/candidates.csv", "/run/0/picture/0/0.webp", "/_dash-layout"):
        assert ask(base + path)[0] == 403
    assert ask(f"{base}/?token=wrong")[0] == 403
    known = ask(address)[2]["Set-Cookie"].split(";")[0]
    assert ask(f"{base}/run/0/candidates.csv", Cookie=known)[0] == 200


@pytest.mark.parametrize("path", ["/run/0/picture/0/99.webp", "/run/0/picture/77/0.webp", "/run/5/candidates.csv"])
def test_what_is_not_there_is_not_found(address: str, path: str):
    status, text, _ = ask(address + path)
    assert status == 404 and "there is no" in text


@pytest.mark.parametrize(
    "path", ["/assets/../app.py", "/assets/%2e%2e/app.py", "/run/0/../../etc/passwd", "/etc/passwd"]
)
def test_paths_lead_nowhere_else(address: str, path: str):
    status, text, _ = ask(address + path)
    assert "make_app" not in text and "root:" not in text
    assert status in (200, 404)


@pytest.mark.parametrize("name", ["", "..", "../x", "/etc", "a/b", "a\\b", ".hidden", "x" * 200, "a\0b", "dot."])
def test_a_bundle_goes_nowhere_but_into_the_run(name: str):
    with pytest.raises(InputError, match="name"):
        bundle_folder(Path("run"), name)


def test_a_bundles_name_may_be_an_ordinary_one():
    assert bundle_folder(Path("run"), "phone v1.2") == Path("run/bundles/phone v1.2")


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("me.example", False)],
)
def test_only_loopback_is_local(host: str, local: bool):
    assert is_local(host) is local


def test_a_studys_name_with_markup_is_text(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run))
    page.wait_for_selector("h1")
    assert page.inner_text("h1").startswith("<img src=x onerror=")
    page.wait_for_function("document.body.dataset.candidates > 0")
    assert page.title() == "slimfront board"
    assert page.locator("main img[src=x]").count() == 0


@pytest.mark.parametrize(
    "question",
    [
        "rows?since=abc",
        "rows?since=-1",
        "rows?since=99999999999999999999",
        "column?name=nonsense",
        "column?name=layer:conv0&since=x",
        "fitting",
        "fitting?budgets=[]&ranges=[]",
        "fitting?budgets=[]&ranges=" + "[" * 3000,
    ],
)
def test_a_question_that_no_page_asks_is_told_so(address: str, question: str):
    status, text, _ = ask(f"{address}/run/0/{question}")
    assert status == 400 and "Traceback" not in text
    assert ask(f"{address}/run/7/{question.split('?')[0]}")[0] == 404


def test_a_column_holds_what_was_asked_for(address: str):
    told = json.loads(ask(f"{address}/run/0/column?name=layer:conv0")[1])
    assert len(told["trial"]) == len(told["values"]) > 0
    later = json.loads(ask(f"{address}/run/0/column?name=layer:conv0&since={told['version']}")[1])
    assert later == {"version": told["version"], "trial": [], "values": []}
