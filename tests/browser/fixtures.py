"""Fixture `browser`: a page of a real Chromium, for tests of what a user sees.

    def test_page(browser, tmp_path):
        browser.open("http://127.0.0.1:4200/deployments", login="crboost:secret")
        browser.wait_text("process-project")            # fails with what the page shows instead
        browser.click("Run")                            # by what it says
        browser.fill("Voltage (kV)", "300", within="Microscope")
        browser.choose("mode", "continue")
        browser.screenshot(tmp_path / "form.png", whole_page=True)

All methods: `browser.chromium.Browser`. One Chromium process serves a test session, every test
gets a private window of it. Chromium reaches this machine only. After a test that failed, what
the page showed is in `<test>.png` in its `tmp_path`, or in `CRBOOST_SCREENSHOTS`, when set.

Without Chromium (Debian: `apt-get install chromium`) the tests skip; with
`CRBOOST_BROWSER_REQUIRED=1` (as in CI) they fail instead.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from browser.chromium import Browser, Chromium, chromium_program

REQUIRED_VARIABLE = "CRBOOST_BROWSER_REQUIRED"
SCREENSHOTS_VARIABLE = "CRBOOST_SCREENSHOTS"
_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """The Chromium process of this test session."""
    program = chromium_program()
    if program is None:
        message = "no Chromium on PATH (Debian: apt-get install chromium)"
        if os.environ.get(REQUIRED_VARIABLE) == "1":
            pytest.fail(message)
        pytest.skip(message)
    process = Chromium(program, tmp_path_factory.mktemp("chromium"))
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture
def browser(
    chromium: Chromium, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Browser]:
    """A private window of Chromium; see above."""
    with chromium.page() as page:
        yield page
        if request.node.stash.get(_FAILED, False):
            directory = Path(os.environ.get(SCREENSHOTS_VARIABLE) or tmp_path)
            name = re.sub(r"\W+", "_", request.node.name) + ".png"
            with contextlib.suppress(Exception):
                directory.mkdir(parents=True, exist_ok=True)
                page.screenshot(directory / name, whole_page=True)
