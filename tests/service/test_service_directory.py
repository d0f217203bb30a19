from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from crboost.errors import CrboostError
from crboost.relion.lock import ProcessId
from crboost.service.directory import ServiceDirectory
from crboost.service.status import Part, ServiceStatus, is_up, read_status, write_status


@pytest.fixture
def directory(tmp_path: Path) -> ServiceDirectory:
    made = ServiceDirectory(tmp_path / "state" / "crboost")
    made.prepare()
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_its_user_can_look_into_it(directory: ServiceDirectory) -> None:
    directory.path.chmod(0o755)
    directory.prepare()
    login = directory.make_login()
    directory.write_environment({"A": "it's 1"})
    assert mode(directory.path) == 0o700
    assert {mode(directory.login_file), mode(directory.environment_file)} == {0o600}
    assert login.startswith("crboost:") and len(login) > 30
    assert directory.make_login() == login == directory.login()
    shown = subprocess.run(
        ["bash", "-c", f". '{directory.environment_file}'; printf %s \"$A\""],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert shown == "it's 1"


def test_there_is_one_supervisor_and_its_lock_goes_with_it(directory: ServiceDirectory) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from crboost.service.directory import ServiceDirectory\n"
        "with ServiceDirectory(Path(sys.argv[1])).supervising() as alone:\n"
        "    print(alone, flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", script, str(directory.path)]
    assert not directory.supervised()
    first = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdin is not None
    assert first.stdout.readline() == "True\n"
    assert directory.supervised()
    second = subprocess.run(argv, input="", capture_output=True, text=True, check=True)
    assert second.stdout == "False\n"
    first.kill()
    first.wait()
    first.stdout.close()
    first.stdin.close()
    assert not directory.supervised()
    with directory.supervising() as alone:
        assert alone


def test_the_status_is_read_as_it_was_written(directory: ServiceDirectory) -> None:
    me = ProcessId.of(os.getpid())
    status = ServiceStatus(
        "up", "http://127.0.0.1:4200", me, "then", "now", {"crboost": "1"},
        parts=(Part("server", "running", me, "then", 2), Part("watcher", "absent")),
    )  # fmt: skip
    assert read_status(directory) is None
    write_status(directory, status)
    assert read_status(directory) == status
    assert status.part("server") == status.parts[0] and status.part("worker") is None
    assert not is_up(directory)  # nobody holds the lock: it is an old story


def test_a_status_of_another_version_says_what_to_do(directory: ServiceDirectory) -> None:
    directory.status_file.write_text('{"state": "up", "parts": []}')
    with pytest.raises(CrboostError, match="status of this version") as told:
        read_status(directory)
    assert "crboost down" in str(told.value)
