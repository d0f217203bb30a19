"""The browser itself, on a page of its own and on Prefect's."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.chromium import Browser, BrowserError
from PIL import Image

_PAGE = b"""<!doctype html><title>x</title><style>.hidden {display: none}</style>
<button class=hidden onclick="said('hidden')">Go</button>
<div style="height: 3000px">tall</div>
<label for=a>Voltage (kV) (Optional)</label><input id=a value=200>
<h2><label>Second</label></h2>
<label for=b>Voltage (kV)</label><input id=b>
<button onclick="said(a.value + ' ' + b.value)">Go</button>
<button onclick="setTimeout(() => said('late'), 300)">Go later</button>
<button onclick="undefinedFunction()">Break</button>
<p id=out></p><script>function said(text) { out.innerText = text }</script>"""


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(_PAGE)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def page(browser: Browser) -> Iterator[Browser]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.open(f"http://127.0.0.1:{server.server_address[1]}/")
        yield browser
        server.shutdown()


def test_it_types_and_clicks_what_is_visible(page: Browser, tmp_path: Path) -> None:
    assert page.value("Voltage (kV)") == "200"
    page.fill("Voltage (kV)", "300")
    page.fill("Voltage (kV)", "80", within="Second")
    page.click("Go")
    page.wait_text("300 80")

    page.click("Go later")
    page.wait_text("late")

    page.screenshot(tmp_path / "page.png", whole_page=True)
    assert Image.open(tmp_path / "page.png").height > 3000
    page.screenshot(tmp_path / "button.png", selector="#a")
    assert Image.open(tmp_path / "button.png").height < 60
    assert page.problems == []


def test_what_does_not_happen_fails_with_what_the_page_shows(page: Browser) -> None:
    with pytest.raises(BrowserError, match=r"(?s)never showed 'Paradise'.*tall"):
        page.wait_text("Paradise", timeout=0.3)
    with pytest.raises(BrowserError, match="no field 'Energy'"):
        page.fill("Energy", "1", timeout=0.3)
    page.click("Break")
    assert "undefinedFunction is not defined" in page.problems[0]
    with pytest.raises(BrowserError):
        page.open("http://crboost.example/")  # no name but this machine's is known


@pytest.mark.prefect
@pytest.mark.slow
def test_it_logs_in_to_prefect(browser: Browser, service: Any) -> None:
    browser.open(f"{service.url}/automations", login=service.login)
    browser.wait_text("Create an automation")

    browser.open(f"{service.url}/deployments", login=service.login)  # it is logged in
    browser.wait_text("Create a deployment to get started")
