"""What doctor makes of facts, and what it finds on this machine."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crboost.doctor.directory import (
    DirectoryFacts,
    directory_facts,
    file_system_of,
    judge_directory,
)
from crboost.doctor.findings import Finding, counts, exit_code, failed, ok, skipped, warning
from crboost.doctor.probe import last_words, run
from crboost.doctor.python import (
    ApiAnswer,
    PythonFacts,
    Requirement,
    ask_api,
    judge_api,
    judge_python,
    python_facts,
    within,
)
from crboost.doctor.site import (
    SettingsFacts,
    ask_interpreter,
    judge_engine,
    judge_interpreter,
    judge_settings,
    read_site,
    sort_variables,
)
from crboost.scheduler.ask import NOT_FOUND, TIMED_OUT, Answer
from crboost.settings import Settings


def only(findings: list[Finding], check: str) -> Finding:
    """The finding on one point."""
    (found,) = [finding for finding in findings if finding.check == check]
    return found


# --- findings and probing --------------------------------------------------------------------


def test_exit_code() -> None:
    some = [ok("a.b", ""), warning("a.c", "", ""), skipped("a.d", "")]
    assert exit_code(some) == 0
    assert exit_code([*some, failed("a.e", "", "")]) == 1
    assert counts(some) == {"ok": 1, "warning": 1, "failed": 0, "skipped": 1}


def test_probe() -> None:
    assert run(["no-such-program"], timeout_s=5).code == NOT_FOUND
    assert run(["sleep", "20"], timeout_s=0.2).code == TIMED_OUT
    assert run(["cat"], timeout_s=5, given="x") == Answer(0, "x", "")
    assert last_words(Answer(3, "out", "a\n\nb\nc\n")) == "b c"
    assert last_words(Answer(3, "", "")) == "exit code 3"


# --- Python and Prefect ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "bounds", "holds"),
    [
        ("0.150.0", ">=0.139,<0.151", True),
        ("0.151.0", ">=0.139,<0.151", False),
        ("0.138.9", ">=0.139,<0.151", False),
        ("3.8.8", ">=3.8.8,<4", True),
        ("3.10", ">=3.9", True),
        ("4", "<4", False),
        ("4.0.0", "==4", True),
        ("2.5", "!=2.5", False),
        ("1.4.9", "~=1.4.2", True),
        ("1.5", "~=1.4.2", False),
        ("2.0rc1", ">=2", True),
        ("7", "", True),
    ],
)
def test_bounds(version: str, bounds: str, holds: bool) -> None:
    assert within(version, bounds) is holds


GOOD = PythonFacts((3, 12, 1), "/py", [Requirement("fastapi", "<0.151", "0.150")], True, None)


def test_this_installation_has_what_it_needs() -> None:
    facts = python_facts()
    names = {one.name for one in facts.requirements}
    assert {"prefect", "fastapi", "numpy"} <= names
    assert "pytest" not in names
    assert only(judge_python(facts), "python.packages").status == "ok"


def test_a_fastapi_that_breaks_prefect() -> None:
    facts = replace(GOOD, requirements=[Requirement("fastapi", "<0.151", "0.151.2")])
    finding = only(judge_python(facts), "python.packages")
    assert finding.status == "failed"
    assert "fastapi 0.151.2 (needs <0.151); Prefect's server does not start" in finding.found


def test_packages_that_are_missing() -> None:
    absent = replace(GOOD, requirements=[Requirement("scipy", ">=1.14", None)])
    assert "scipy is missing" in only(judge_python(absent), "python.packages").found
    assert only(judge_python(replace(GOOD, requirements=[])), "python.packages").status == "failed"
    assert only(judge_python(replace(GOOD, flows=False)), "python.packages").status == "failed"


def test_old_python_and_few_watches() -> None:
    assert (
        only(judge_python(replace(GOOD, version=(3, 10, 9))), "python.version").status == "failed"
    )
    few = only(judge_python(replace(GOOD, inotify=(1000, 128))), "python.file_events")
    assert (few.status, "sysctl" in few.fix) == ("warning", True)


@pytest.fixture
def api() -> Iterator[str]:
    """A server that answers as Prefect's does, or with the code that the path names."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            part = self.path.split("/")[1]
            code = int(part) if part.isdigit() else 200
            self.send_response(code)
            self.end_headers()
            self.wfile.write(b'"3.8.9"' if self.path.endswith("version") else b"true")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_prefect_api(api: str) -> None:
    assert ask_api(f"{api}/api") == ApiAnswer(f"{api}/api", 200, version="3.8.9")
    assert ask_api(f"{api}/401").code == 401
    assert ask_api(f"{api}/404").code == 404


def test_nobody_answers(api: str) -> None:
    port = int(api.rsplit(":", 1)[1])
    answer = ask_api(f"http://127.0.0.1:{1 if port != 1 else 2}/api")
    assert answer.code is None
    finding = judge_api(answer, "3.8.8")
    assert (finding.status, "refused" in finding.found) == ("failed", True)
    assert ask_api("localhost:4200/api").code is None


@pytest.mark.parametrize(
    ("answer", "status", "word"),
    [
        (None, "ok", "not set"),
        (ApiAnswer("u", 200, version="3.9.0"), "ok", "3.9.0"),
        (ApiAnswer("u", 200, version="3.7.1"), "warning", "newer"),
        (ApiAnswer("u", 401, "Unauthorized"), "failed", "401"),
        (ApiAnswer("u", 404, "Not Found"), "failed", "404"),
        (ApiAnswer("u", None, "timed out"), "failed", "timed out"),
    ],
)
def test_judge_api(answer: ApiAnswer | None, status: str, word: str) -> None:
    finding = judge_api(answer, "3.8.8")
    assert finding.status == status
    assert word in finding.found


# --- settings --------------------------------------------------------------------------------


def test_variables() -> None:
    environ = {
        "CRBOOST_SETTINGS": "x",
        "CRBOOST_SCHEMER": "embedded",
        "CRBOOST_SCHEDULER__KIND": "slurm",
        "CRBOOST_SCHEDULAR__KIND": "slurm",
        "CRBOOST_SCHEMERS": "embedded",
        "CRBOOST_TESTBED": "/x",
        "PATH": "/bin",
    }
    ours, strangers = sort_variables(environ)
    assert ours == ("CRBOOST_SCHEDULER__KIND", "CRBOOST_SCHEMER")
    assert strangers == ("CRBOOST_SCHEDULAR__KIND", "CRBOOST_SCHEMERS")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[scheduler]\nkind = 'slurn'", "scheduler.kind = 'slurn'"),
        ("[tools.warpp]\nexecutable = 'x'", "did you mean warp?"),
        ("[scheduler", "not valid TOML"),
        ("colour = 1", "colour: there is no such setting"),
    ],
)
def test_settings_that_cannot_be_read(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    monkeypatch.setenv("CRBOOST_SETTINGS", str(path))
    site = read_site(os.environ)
    assert site.settings is None
    finding = only(judge_settings(site.facts), "settings.file")
    assert finding.status == "failed"
    assert words in finding.found
    assert str(path) in finding.found
    assert finding.fix


def test_settings_that_are_named_and_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a whole site runs on the defaults because of one letter."""
    monkeypatch.setenv("CRBOOST_SETTINGS", str(tmp_path / "setings.toml"))
    finding = only(judge_settings(read_site(os.environ).facts), "settings.file")
    assert finding.status == "failed"
    assert "the defaults are used" in finding.found


def test_an_engine_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the installation is looked at all the same."""
    path = tmp_path / "settings.toml"
    path.write_text('[tools.relion]\nimage = "/no/relion.sif"\n')
    monkeypatch.setenv("CRBOOST_SETTINGS", str(path))
    site = read_site(os.environ)
    assert site.settings is not None
    assert only(judge_settings(site.facts), "settings.file").status == "ok"
    finding = judge_engine(site.settings, site.facts)
    assert finding.status == "failed"
    assert "/no/relion.sif" in finding.found


def test_engines() -> None:
    fine = SettingsFacts(Path("s.toml"), True, False)
    assert "embedded" in judge_engine(Settings(), fine).found
    relion = Settings.model_validate({"tools": {"relion": {"executable": "/r/relion_schemer"}}})
    assert "relion_schemer of this host" in judge_engine(relion, fine).found


def test_interpreter(tmp_path: Path) -> None:
    assert ask_interpreter(Settings()) is None
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 0.0.1\n")
    other.chmod(0o755)
    settings = Settings(python=str(other))
    finding = judge_interpreter(settings, ask_interpreter(settings), "0.1.0")
    assert (finding.status, "crboost 0.0.1, here is 0.1.0" in finding.found) == ("failed", True)
    absent = Settings(python="/no/python")
    assert judge_interpreter(absent, ask_interpreter(absent), "0.1.0").status == "failed"
    bare = Settings(python="python3")
    assert "absolute path" in judge_interpreter(bare, None, "0.1.0").fix


# --- the directory ---------------------------------------------------------------------------

MOUNTS = """\
/dev/a / ext4 rw 0 0
server:/data /data nfs4 rw 0 0
/dev/b /data/my\\040scratch xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/home/x", "ext4"),
        ("/data/p", "nfs4"),
        ("/data/my scratch/p", "xfs"),
        ("/database", "ext4"),
    ],
)
def test_file_system(directory: str, kind: str) -> None:
    assert file_system_of(Path(directory), MOUNTS) == kind


def test_a_directory_that_is_fine(tmp_path: Path) -> None:
    facts = directory_facts(tmp_path)
    assert (facts.problem, facts.lock_problem) == ("", "")
    assert not list(tmp_path.iterdir())
    assert {one.status for one in judge_directory(facts)} <= {"ok", "warning"}


def test_directories_that_are_not() -> None:
    absent = only(judge_directory(directory_facts(Path("/no/such"))), "project.writable")
    assert (absent.status, "no such directory" in absent.found) == ("failed", True)
    read_only = only(judge_directory(directory_facts(Path("/sys"))), "project.writable")
    assert (read_only.status, "chmod" in read_only.fix) == ("failed", True)


def test_locks_and_space() -> None:
    facts = DirectoryFacts(Path("/p"), True, lock_problem="flock: Function not implemented")
    findings = judge_directory(replace(facts, free_gb=7))
    assert "-o flock" in only(findings, "project.locks").fix
    assert only(findings, "project.space").status == "warning"
    assert only(judge_directory(facts), "project.space").status == "failed"


def test_json_of_a_finding() -> None:
    finding = failed("a.b", "x", "y")
    assert json.loads(json.dumps(finding.to_dict())) == {
        "check": "a.b", "status": "failed", "found": "x", "fix": "y",
    }  # fmt: skip
    assert finding.subject == "a"
