"""`crboost notify`: who is told what."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crboost.cli.app import app


@pytest.fixture
def channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    path = tmp_path / "site.toml"
    monkeypatch.setenv("CRBOOST_SETTINGS", str(path))
    path.write_text("")
    return path.write_text


def test_it_shows_the_channels_without_their_secrets(channels: Any) -> None:
    silent = CliRunner().invoke(app, ["notify"])
    assert silent.exit_code == 0
    assert "Nobody is told anything" in silent.output

    channels('[[service.notify]]\nname = "chat"\nurl = "json://u:secret@h/"\nnews = ["quiet"]\n')
    shown = CliRunner().invoke(app, ["notify"])
    assert shown.output == "chat: quiet\n"
    as_json = CliRunner().invoke(app, ["notify", "--json"])
    assert json.loads(as_json.output) == [{"name": "chat", "news": ["quiet"]}]
    assert "secret" not in shown.output + as_json.output


@pytest.mark.slow
def test_a_test_message_arrives(channels: Any, tmp_path: Path) -> None:
    got: list[Any] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        channels(
            f'[[service.notify]]\nname = "chat"\nurl = "json://127.0.0.1:{server.server_port}"'
        )
        done = subprocess.run(
            [sys.executable, "-m", "crboost", "notify", "--test"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        server.shutdown()

    assert (done.returncode, done.stdout) == (0, "chat: sent\n"), done.stderr
    assert [one["title"] for one in got] == ["crboost: a test message"]
