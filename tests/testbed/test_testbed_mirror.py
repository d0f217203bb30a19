"""A mirror that does not deliver is told from everything else that can go wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from bringup import image, packages
from bringup.layout import Layout
from bringup.shell import MIRROR_WORDS, MirrorError, TestbedError, run


@pytest.mark.parametrize(
    "said",
    [
        "E: Failed to fetch http://mirror/debian/dists/sid/InRelease  Connection refused",
        "E: Unable to locate package relion",
        "The following packages have unmet dependencies:\n relion : Depends: libtiff7",
        "E: Package 'relion' has no installation candidate",
        "Err:1 http://mirror/debian sid InRelease\n  Could not connect to mirror:80",
        "E: The repository 'http://mirror/debian sid Release' does not have a Release file.",
        "Err:2 http://mirror/debian sid/main amd64 Packages\n  404  Not Found [IP: 10.0.0.1 80]",
        "Err:2 http://mirror/debian sid/main amd64 Packages\n  503  Service Unavailable",
    ],
)
def test_words_of_a_mirror_that_does_not_deliver(said: str) -> None:
    assert MIRROR_WORDS.search(said)


@pytest.mark.parametrize(
    "said",
    [
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 12 (apt-get)",
        "dpkg: error processing archive x.deb: No space left on device",
        "FATAL:   While performing build: while creating SIF: no space left on device",
        "slurmd: error: Unable to bind listen port (16818): Address already in use",
    ],
)
def test_words_of_other_failures(said: str) -> None:
    assert not MIRROR_WORDS.search(said)


def test_a_failing_command_shows_its_words_and_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log" / "step.log"
    with pytest.raises(TestbedError, match=r"exit code 3 .*step\.log") as caught:
        run(["sh", "-c", "echo the reason; exit 3"], log)
    assert not isinstance(caught.value, MirrorError)
    assert "the reason" in str(caught.value)
    with pytest.raises(TestbedError, match="no such command"):
        run(["surely-no-such-command"], log)


@pytest.mark.relion
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mmdebstrap") is None,
    reason="needs root and mmdebstrap, as `python tests/testbed up` does",
)
def test_a_dead_mirror_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    sources = tmp_path / "sources.list"
    dead = "http://127.0.0.1:9/debian"  # the discard port: nobody listens
    sources.write_text(f"deb {dead} {release['VERSION_CODENAME']} main\n")
    configuration = tmp_path / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "/dev/null";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert packages.mirror() == dead
    layout = Layout(tmp_path / "testbed")
    layout.root.mkdir()
    with pytest.raises(MirrorError, match="mmdebstrap"):
        image.make_rootfs(layout)
    with pytest.raises(MirrorError, match="apt-get"):
        packages.download_from_sid(["apptainer"], tmp_path / "debs", layout, layout.log("x"))
