"""Messages to people: real events, a really failed run, a real webhook, a real SMTP server."""

from __future__ import annotations

import email
import http.server
import json
import shutil
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message as Mail
from pathlib import Path
from typing import Any

import pytest
from browser.service import Service
from prefect import settings as prefect_settings
from prefect.client.orchestration import get_client

from crboost.errors import ParameterError
from crboost.files import write_json
from crboost.project import Project
from crboost.service.api import Api
from crboost.settings import ChannelSettings, load_settings
from flows import notifications
from flows.events import FAILED_TOO_MANY, FINISHED, QUIET, STUCK, Event, send
from flows.stale_runs import StaleRuns


@dataclass
class Received:
    """What a receiver got, and where it listens."""

    port: int
    items: list[Any] = field(default_factory=list)


class _Webhook(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.items.append(json.loads(body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class _Smtp(socketserver.StreamRequestHandler):
    """The receiving half of RFC 5321, without extensions."""

    def handle(self) -> None:
        self.wfile.write(b"220 test ESMTP\r\n")
        for line in self.rfile:
            verb = line.split(b" ")[0].strip().upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go\r\n")
                lines = []
                for text in self.rfile:
                    if text == b".\r\n":
                        break
                    lines.append(text.removeprefix(b"."))
                self.server.received.items.append(  # type: ignore[attr-defined]
                    email.message_from_bytes(b"".join(lines))
                )
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                break


def _serve(server: socketserver.BaseServer) -> Iterator[Received]:
    received = Received(server.server_address[1])
    server.received = received  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield received
    server.shutdown()
    server.server_close()


@pytest.fixture
def webhook() -> Iterator[Received]:
    yield from _serve(http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Webhook))


@pytest.fixture
def mailbox() -> Iterator[Received]:
    yield from _serve(socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp))


def mail_url(mailbox: Received) -> str:
    to = "scientist@example.org"
    return f"mailto://127.0.0.1:{mailbox.port}?from=crboost@example.org&to={to}"


def text_of(mail: Mail) -> str:
    content = mail.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content.decode()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write the site's settings file."""

    def write(text: str) -> Path:
        path = tmp_path / "site.toml"
        path.write_text(text)
        monkeypatch.setenv("CRBOOST_SETTINGS", str(path))
        return path

    return write


def channel(name: str = "chat", url: str = "json://127.0.0.1:1/", **more: Any) -> ChannelSettings:
    return ChannelSettings(name=name, url=url, **more)


def test_each_kind_of_news_goes_to_the_channels_that_want_it() -> None:
    from uuid import uuid4

    chat, mail = uuid4(), uuid4()
    made = notifications.automations(
        [channel("chat", news=["failed-run", "quiet"]), channel("mail", news=["failed-run"])],
        {"chat": chat, "mail": mail},
    )

    assert sorted(made) == [
        "crboost: a run failed", "crboost: new data cannot be taken in", "crboost: no new data",
    ]  # fmt: skip
    told = made["crboost: a run failed"].actions
    assert [one.block_document_id for one in told] == [chat, mail]
    assert notifications.automations([], {}) == {}
    assert notifications.automations([channel()], {"chat": chat}).keys() == {
        notifications.PREFIX + one.title for one in notifications.MESSAGES
    }


def test_a_channel_is_checked_when_the_settings_are_read(site: Callable[[str], Path]) -> None:
    site('[[service.notify]]\nname = "chat"\nurl_file = "/nowhere/secret"\n')
    (one,) = load_settings().service.notify
    assert one.news == ["failed-run", "failed-tilt-series", "quiet", "stuck", "finished"]
    with pytest.raises(ParameterError, match=r"/nowhere/secret cannot be read"):
        one.address()
    once = 'name = "x"\nurl = "a://b"\n'
    for wrong, message in [
        ('name = "chat"', "needs either url or url_file"),
        ('name = "chat"\nurl = "a://b"\nurl_file = "/c"', "needs either url or url_file"),
        ('name = "My Chat"\nurl = "a://b"', "My Chat"),
        ('name = "chat"\nurl = "a://b"\nnews = ["weather"]', "weather"),
        (f"{once}[[service.notify]]\n{once}", "two channels"),
    ]:
        site(f"[[service.notify]]\n{wrong}\n")
        with pytest.raises(ParameterError, match=message):
            load_settings()


def test_crboost_notify_sends_and_says_what_could_not_be_sent(
    webhook: Received,
    mailbox: Received,
    site: Callable[[str], Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    site(
        f'[[service.notify]]\nname = "chat"\nurl = "json://127.0.0.1:{webhook.port}/"\n'
        f'[[service.notify]]\nname = "mail"\nurl = "{mail_url(mailbox)}"\nnews = ["quiet"]\n'
        '[[service.notify]]\nname = "wrong"\nurl = "carrier-pigeon://hidden@loft"\n'
        '[[service.notify]]\nname = "dead"\nurl = "json://127.0.0.1:1/hidden"\n'
    )

    assert notifications.main(["--test"]) == 2

    said = capfd.readouterr()
    assert said.out == "chat: sent\nmail: sent\n"
    assert "wrong: not sent: service.notify" in said.err and "\ndead: not sent: " in said.err
    assert "hidden" not in said.err
    assert webhook.items[0]["title"] == "crboost: a test message"
    (mail,) = mailbox.items
    assert mail["To"] == "scientist@example.org"
    assert mail["Subject"] == "crboost: a test message"
    assert text_of(mail).strip() == "This channel gets: quiet."


@pytest.mark.prefect
@pytest.mark.slow
def test_people_are_told_of_a_failed_run_and_of_a_session(
    deployed: Service,
    worker: Path,
    example_data: Path,
    webhook: Received,
    mailbox: Received,
    site: Callable[[str], Path],
    tmp_path: Path,
    eventually: Callable[..., Any],
) -> None:
    settings_file = site(
        f'[[service.notify]]\nname = "chat"\nurl = "json://127.0.0.1:{webhook.port}/"\n'
        f'[[service.notify]]\nname = "mail"\nurl = "{mail_url(mailbox)}"\n'
        'news = ["failed-run", "quiet"]\n'
        '[[service.notify]]\nname = "wrong"\nurl = "carrier-pigeon://loft"\n'
    )
    arguments = ("-m", "flows.notifications")
    environment = {"CRBOOST_SETTINGS": str(settings_file)}
    for _ in range(2):  # twice, and each is there once
        made = deployed.run(*arguments, cwd=tmp_path, **environment)
        assert made.returncode == 1 and "channel 'wrong'" in made.stderr, made.stderr
    assert our_automations(deployed) == sorted(
        notifications.PREFIX + one.title for one in notifications.MESSAGES
    )

    # A run that fails: no movie can be read.
    broken = broken_project(example_data, tmp_path / "data", tmp_path / "broken")
    run = start(deployed, "process-project", {"project_dir": str(broken)})
    eventually(lambda: webhook.items and mailbox.items, 120)
    (said,), (mail,) = webhook.items, mailbox.items
    assert said["title"] == "crboost: broken: failed"
    assert mail["Subject"] == said["title"]
    for text in (said["message"], text_of(mail)):
        lines = [line.strip() for line in text.strip().splitlines()]
        assert "importmovies (External/job001) failed" in text
        assert f"Project: {broken}" in lines
        assert f"Flow run: process-project, {deployed.url}/runs/flow-run/{run}" in lines
        assert f"On the headnode: crboost log '{broken}'" in lines

    # What is tried every few minutes is told once.
    for _ in range(2):
        run = start(deployed, "ingest", {"project_dir": str(broken)})
        eventually(lambda run=run: state_of(deployed, run) == "FAILED", 90)
    eventually(lambda: len(webhook.items) == 2 and len(mailbox.items) == 2, 30)
    assert webhook.items[1]["title"] == "crboost: new data cannot be taken in"
    assert f"{broken} has no active session" in webhook.items[1]["message"]

    # Nobody is told of runs that `crboost down` ends: what comes after is told, they are not.
    stopped = abandon_a_run(deployed, tmp_path)
    state = deployed.call("GET", f"/flow_runs/{stopped}")["state"]
    assert (state["type"], state["name"], state["message"]) == ("CRASHED", "Stopped", "on purpose")

    project = tmp_path / "TS"
    news = {
        QUIET: {"minutes": 30},
        FINISHED: {"complete": 7, "partial": 1, "left_out": ["TS_09"]},
        STUCK: {"minutes": 10, "reason": "/raw is not a directory"},
        FAILED_TOO_MANY: {"failed": 3, "threshold": 2, "names": ["TS_01", "TS_02", "TS_07"]},
    }
    with told_to(deployed), get_client(sync_client=True) as client:
        send(client, [Event("x", name, project, "TS", what) for name, what in news.items()])
    eventually(lambda: len(webhook.items) == 6 and len(mailbox.items) == 3, 60)
    by_title = {one["title"]: one["message"] for one in webhook.items[2:]}
    assert set(by_title) == {
        "crboost: TS: no new data", "crboost: TS: session finished",
        "crboost: TS: 3 tilt series failed", "crboost: TS: data are not taken in",
    }  # fmt: skip
    finished = by_title["crboost: TS: session finished"]
    assert "Taken in: 7 complete tilt series, 1 partial ones.\n" in finished
    assert "still being written: TS_09\nWhat has not" in finished
    assert "10 minutes" in by_title["crboost: TS: data are not taken in"]
    assert "/raw is not a directory" in by_title["crboost: TS: data are not taken in"]
    assert "TS_01, TS_02, TS_07" in by_title["crboost: TS: 3 tilt series failed"]
    assert mailbox.items[2]["Subject"] == "crboost: TS: no new data"
    assert text_of(mailbox.items[2]).startswith("No new data for 30 minutes.")
    assert f"crboost status '{project}'" in text_of(mailbox.items[2])

    # What a person pauses stays paused; what the settings drop goes, with its secrets.
    (quiet,) = [one for one in automations(deployed) if one["name"].endswith("no new data")]
    deployed.call("PATCH", f"/automations/{quiet['id']}", {"enabled": False})
    site('[[service.notify]]\nname = "chat"\nurl = "json://127.0.0.1:1/"\nnews = ["quiet"]\n')
    assert deployed.run(*arguments, cwd=tmp_path, **environment).returncode == 0
    (left,) = [one for one in automations(deployed) if one["name"].startswith("crboost: ")]
    assert (left["id"], left["enabled"]) == (quiet["id"], False)
    blocks = deployed.call("POST", "/block_documents/filter", {})
    assert [one["name"] for one in blocks if one["name"].startswith("crboost-")] == ["crboost-chat"]

    site("")
    assert deployed.run(*arguments, cwd=tmp_path, **environment).returncode == 0
    assert our_automations(deployed) == []


def abandon_a_run(service: Service, directory: Path) -> str:
    """A run of process-project that is stopped as `crboost down` does; its id."""
    deployment = service.deployments()["process-project/headnode"]["id"]
    body = {"parameters": {"project_dir": "/p"}, "state": {"type": "RUNNING"}}
    path = f"/deployments/{deployment}/create_flow_run"
    run = str(service.call("POST", path, body)["id"])
    memory = directory / "flow_runs.json"
    write_json(memory, [run])  # it had a process
    url = f"{service.url}/api"
    stale = StaleRuns(Api(url, service.login), url, "headnode", memory)
    assert [line for line in stale.abandon("on purpose") if run in line]
    return run


def broken_project(example: Path, data: Path, directory: Path) -> Path:
    """A project of the example data, whose movies are all damaged."""
    shutil.copytree(example, data)
    made = Project.create(
        directory, movies=[str(data / "frames" / "*")], mdocs=[str(data / "*.mdoc")]
    )
    for movie in (data / "frames").iterdir():
        movie.write_bytes(b"no movie" * 1000)
    return made.project.directory


def start(service: Service, flow: str, parameters: dict[str, Any]) -> str:
    """Have the worker run a deployment; the flow run's id."""
    deployment = service.deployments()[f"{flow}/headnode"]["id"]
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return str(service.call("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])


def state_of(service: Service, run: str) -> str:
    return str(service.call("GET", f"/flow_runs/{run}")["state_type"])


def automations(service: Service) -> list[dict[str, Any]]:
    return list(service.call("POST", "/automations/filter", {}))


def our_automations(service: Service) -> list[str]:
    return sorted(
        one["name"] for one in automations(service) if one["name"].startswith(notifications.PREFIX)
    )


def told_to(service: Service) -> Any:
    """Prefect's settings for this process: that server."""
    return prefect_settings.temporary_settings(
        {
            prefect_settings.PREFECT_API_URL: service.environment["PREFECT_API_URL"],
            prefect_settings.PREFECT_API_AUTH_STRING: service.login,
        }
    )
