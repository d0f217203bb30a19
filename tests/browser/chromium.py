"""A real Chromium, driven as a user's hands would: what is typed and clicked are input events.

Debian's `chromium` and the Chrome DevTools Protocol over the `websockets` that Prefect brings; a
driver of its own (Playwright, Selenium) would download a browser or a driver program.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")

_OPTIONS = (
    "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage", "--disable-gpu",
    "--mute-audio", "--hide-scrollbars", "--password-store=basic",
    # A desk with a mouse: without one, pages show what they have for telephones.
    "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,"
    "availablePointerTypes=4",
    # Nothing but this machine: a page that needs the internet fails here as on a headnode.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",
)  # fmt: skip

# What a user takes for the thing called `text`: the smallest visible element that says just that.
_FIND = """
(text, kinds) => {
  const visible = e => {
    const box = e.getBoundingClientRect(), style = getComputedStyle(e);
    return box.width > 0 && box.height > 0 && style.visibility !== 'hidden';
  };
  const plain = s => (s || '').replace(/\\s+/g, ' ').trim();
  const said = e => [e.innerText, e.getAttribute('aria-label'), e.placeholder].map(plain);
  const all = [...document.querySelectorAll(kinds)].filter(visible);
  const exact = all.filter(e => said(e).includes(text));
  const found = exact.length ? exact : all.filter(e => said(e).some(s => s.startsWith(text)));
  return found.find(e => !found.some(o => o !== e && e.contains(o)));
}
"""

# The control of a field: what its label is for, else the first control after it. Prefect's forms
# end the labels of fields that can be left empty in "(Optional)".
_FIELD = """
(label, group) => {
  const plain = s => (s || '').replace(/\\s+/g, ' ').replace(/ \\(Optional\\)$/, '').trim();
  const labels = [...document.querySelectorAll('label, .p-label__label, legend')]
    .filter(e => e.getBoundingClientRect().height > 0);
  const after = group === null ? null : labels.find(e => plain(e.innerText) === group);
  if (group !== null && !after) return null;
  const follows = (a, b) => a.compareDocumentPosition(b) & Node.DOCUMENT_POSITION_FOLLOWING;
  const named = labels.find(e => plain(e.innerText) === label && (!after || follows(after, e)));
  if (!named) return null;
  const controls = 'input, textarea, select, button[role=combobox], [contenteditable=true], '
    + '.p-select-button, .p-combobox, .p-code-input';
  const own = named.htmlFor && document.getElementById(named.htmlFor);
  if (own && own.matches(controls)) return own;
  return [...(own || document).querySelectorAll(controls)]
    .filter(e => e.getBoundingClientRect().height > 0).find(e => follows(named, e)) || null;
}
"""


class BrowserError(AssertionError):
    """The page does not do what was asked; the message ends with what it shows."""


def chromium_program() -> str | None:
    """The Chromium of this machine; None without one."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Chromium:
    """One headless Chromium process with a profile of its own."""

    def __init__(self, program: str, profile: Path) -> None:
        """Start it.

        Args:
            program: path of Chromium.
            profile: an empty directory for its profile and its log.
        """
        argv = [program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        if os.geteuid() == 0:
            argv.insert(1, "--no-sandbox")  # Chromium's sandbox refuses root
        self._log = profile / "chromium.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "HOME": str(profile), "XDG_CONFIG_HOME": str(profile)},
            )  # fmt: skip
        self.url = self._wait_for_address(profile / "DevToolsActivePort")

    def _wait_for_address(self, file: Path, timeout: float = 60) -> str:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            lines = file.read_text().split() if file.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            time.sleep(0.05)
        self.stop()
        raise BrowserError(f"Chromium did not start:\n{self._log.read_text(errors='replace')}")

    def stop(self) -> None:
        """End it and all its processes."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()

    @contextmanager
    def page(self, width: int = 1280, height: int = 900) -> Iterator[Browser]:
        """A page of a private window: no cookies, no logins of any other page."""
        with connect(self.url, max_size=None, compression=None) as socket:
            link = _Link(socket)
            context = link.call("Target.createBrowserContext")["browserContextId"]
            target = link.call("Target.createTarget", url="about:blank", browserContextId=context)
            attached = link.call(
                "Target.attachToTarget", targetId=target["targetId"], flatten=True
            )  # fmt: skip
            link.session = attached["sessionId"]
            browser = Browser(link)
            for domain in ("Page", "Runtime", "Network", "Log"):
                link.call(f"{domain}.enable")
            browser.resize(width, height)
            try:
                yield browser
            finally:
                link.session = None
                link.call("Target.disposeBrowserContext", browserContextId=context)


class _Link:
    """The protocol's calls and events, of one page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.session: str | None = None
        self.problems: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what a developer would see in red in the browser's console."""
        said = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            thrown = details.get("exception", {}).get("description", "")
            self.problems.append(f"{details['text']} {thrown}".strip())
        elif event.get("method") == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.problems.append(f"{said['entry']['text']} {said['entry'].get('url', '')}".strip())
        elif event.get("method") == "Network.responseReceived":
            response = said["response"]
            if response["status"] >= 500:
                self.problems.append(f"{response['status']} {response['url']}")


class Browser:
    """One page of Chromium; every wait fails with what the page shows instead.

    Attributes:
        problems: errors on the page's console and answers of 500 and more, so far.
    """

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._logged_in: set[str] = set()

    @property
    def problems(self) -> list[str]:
        self.evaluate("0")  # takes in what has happened
        return self._link.problems

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Size of the page in CSS pixels; `scale` device pixels each."""
        self._link.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=False,
        )  # fmt: skip

    def open(self, url: str, login: str | None = None, timeout: float = 60) -> None:
        """Go to a page and wait until it has loaded.

        Args:
            url: where.
            login: the Prefect server's auth string ("crboost:..."), for its login page; typed
                there once for each server.
            timeout: seconds.
        """
        deadline = time.monotonic() + timeout
        parts = urlsplit(url)
        server = f"{parts.scheme}://{parts.netloc}"
        if login is not None and server not in self._logged_in:
            self._go(f"{server}/login?redirect={parts.path}", timeout)
            field = "document.querySelector('input[type=password]')"
            self.wait_for(field, deadline - time.monotonic())
            self._type_into(field, login)
            self._press("Enter")
            self.wait_for(
                "!location.pathname.endsWith('/login')", max(1, deadline - time.monotonic())
            )
            self._logged_in.add(server)
        self._go(url, max(1, deadline - time.monotonic()))

    def _go(self, url: str, timeout: float) -> None:
        shown = self._link.call("Page.navigate", url=url)
        if shown.get("errorText"):
            raise BrowserError(f"{url}: {shown['errorText']}")
        self.wait_for("document.readyState === 'complete'", timeout)

    @property
    def url(self) -> str:
        """Where the page is now."""
        return str(self.evaluate("location.href"))

    def text(self) -> str:
        """All the text that is visible, as a user could copy it."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def wait_text(self, *texts: str, timeout: float = 60) -> str:
        """Wait until all of these are on the page (scrolled to or not); returns its text."""
        return self._wait(
            lambda: shown if all(one in (shown := self.text()) for one in texts) else "",
            f"the page never showed {' and '.join(map(repr, texts))}", timeout,
        )  # fmt: skip

    def wait_no_text(self, text: str, timeout: float = 60) -> None:
        """Wait until this is no longer on the page."""
        self._wait(lambda: text not in self.text(), f"the page still shows {text!r}", timeout)

    def wait_for(self, script: str, timeout: float = 60) -> Any:
        """Wait until a JavaScript expression is true; returns its value."""
        return self._wait(
            lambda: self.evaluate(
                f"(() => {{ try {{ const v = {script}; return v instanceof Node || v }} "
                "catch { } })()"
            ),
            f"never true: {script}", timeout,
        )  # fmt: skip

    def click(
        self, text: str, kinds: str = "button, a, [role], label, p, span, li, summary, h1, h2, td",
        timeout: float = 60,
    ) -> None:  # fmt: skip
        """Click what says this: text, placeholder or aria-label; a whole one before a beginning."""
        found = f"({_FIND})({json.dumps(text)}, {json.dumps(kinds)})"
        self.wait_for(f"Boolean({found})", timeout)
        self._click_element(found)

    def click_selector(self, selector: str, timeout: float = 60) -> None:
        """Click the first element that a CSS selector finds."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.wait_for(f"Boolean({found})", timeout)
        self._click_element(found)

    def fill(self, label: str, value: str, within: str | None = None, timeout: float = 60) -> None:
        """Type into the field with this label, in place of what is there.

        Args:
            label: the whole label, without "(Optional)".
            value: what to type.
            within: label of the group; the first field of that name after it is meant.
            timeout: seconds.
        """
        self._type_into(self._field(label, within, timeout), value)

    def value(self, label: str, within: str | None = None, timeout: float = 60) -> str:
        """What the field with this label shows."""
        found = self._field(label, within, timeout)
        return str(self.evaluate(f"(e => e.value ?? e.innerText)({found})")).strip()

    def choose(
        self, label: str, option: str, within: str | None = None, timeout: float = 60
    ) -> None:
        """Take one option of this field's list."""
        self._open_list(label, within, timeout)
        self.click(option, "[role=option]", timeout)
        self._press("Escape")  # a list of several choices stays open

    def options(self, label: str, within: str | None = None, timeout: float = 60) -> list[str]:
        """The options of this field's list."""
        self._open_list(label, within, timeout)
        shown = "[...document.querySelectorAll('[role=option]')].map(e => e.innerText.trim())"
        found = self.evaluate(shown)
        self._press("Escape")
        self.wait_for(f"{shown}.length === 0", timeout)
        return [str(one) for one in found]

    def _open_list(self, label: str, within: str | None, timeout: float) -> None:
        """With the keyboard: a click opens Prefect's lists, and closes them again at once."""
        field = self._field(label, within, timeout)
        self.evaluate(f"(e => (e.querySelector('button') || e).focus())({field})")
        self._press("ArrowDown")
        self.wait_for("document.querySelector('[role=option]')", timeout)

    def screenshot(self, path: Path, *, whole_page: bool = False, selector: str = "") -> Path:
        """Write a PNG of what is visible, of the whole page, or of one element."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": True}
        if selector:
            element = f"document.querySelector({json.dumps(selector)})"
            options["clip"] = {**self._box(element), "scale": 1}
        elif whole_page:
            size = self._link.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {**size, "scale": 1}
        shot = self._link.call("Page.captureScreenshot", **options)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; JSON only."""
        done = self._link.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            thrown = done["exceptionDetails"]
            raise BrowserError(thrown.get("exception", {}).get("description", thrown["text"]))
        return done["result"].get("value")

    def _field(self, label: str, within: str | None, timeout: float) -> str:
        found = f"({_FIELD})({json.dumps(label)}, {json.dumps(within)})"
        place = f" in {within!r}" if within else ""
        self._wait(
            lambda: self.evaluate(f"Boolean({found})"), f"no field {label!r}{place}", timeout
        )
        return found

    def _type_into(self, element: str, value: str) -> None:
        self._click_element(element)
        self.evaluate(f"(e => {{ e.focus(); if (e.select) e.select() }})({element})")
        if value:
            self._link.call("Input.insertText", text=value)
        else:
            self._press("Delete")
        self.evaluate(
            f"(e => e && e.dispatchEvent(new Event('change', {{bubbles: true}})))({element})"
        )

    def _press(self, key: str) -> None:
        code = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "Delete": 46}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self._link.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key,
                windowsVirtualKeyCode=code, **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def _box(self, element: str) -> dict[str, float]:
        """Where an element is on the page, in CSS pixels."""
        return dict(
            self.evaluate(
                f"(e => {{ const b = e.getBoundingClientRect(); return {{x: b.x + scrollX, "
                f"y: b.y + scrollY, width: b.width, height: b.height}} }})({element})"
            )
        )

    def _click_element(self, element: str, timeout: float = 60) -> None:
        """Scroll to it, and press the mouse in its middle; waits until it can be hit."""
        middle = (
            f"(e => {{ if (!e) return null; e.scrollIntoView({{block: 'center', "
            "behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "const x = b.x + b.width / 2, y = b.y + b.height / 2, "
            "hit = document.elementFromPoint(x, y); "
            f"return [x, y, Boolean(hit) && (e.contains(hit) || hit.contains(e))] }})({element})"
        )
        before = None
        deadline = time.monotonic() + timeout
        while True:
            point = self.evaluate(middle)
            if point is not None and point == before and point[2]:
                break
            if time.monotonic() > deadline:
                why = "it is gone" if point is None else "it is covered or never stands still"
                raise BrowserError(f"{why}: {element[-200:]}\n{_shortened(self.text())}")
            before = point
            time.sleep(0.05)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._link.call(
                "Input.dispatchMouseEvent", type=kind, x=point[0], y=point[1],
                button="none" if kind == "mouseMoved" else "left",
                clickCount=0 if kind == "mouseMoved" else 1,
            )  # fmt: skip

    def _wait(self, condition: Callable[[], Any], complaint: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise BrowserError(
                    f"{complaint} ({timeout:g} s)\n{self.url} shows:\n{_shortened(self.text())}\n"
                    f"problems: {self._link.problems[-10:]}"
                )
            time.sleep(0.1)


def _shortened(text: str, length: int = 4000) -> str:
    """The beginning and, of what does not fit, the end: messages are at the end of a page."""
    return text if len(text) <= length else f"{text[: length // 2]}\n...\n{text[-length // 2 :]}"
