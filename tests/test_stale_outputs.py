"""What RELION's jobs would take for done although it is out of date."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crboost.stale_outputs import remove_stale_outputs

MOTION, CTF = "MotionCorr/job002/", "CtfFind/job003/"
TABLE = """
data_TS_01

loop_
_rlnMicrographMovieName #1
_rlnMicrographName #2
_rlnMicrographNameEven #3
_rlnCtfImage #4
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two tilts, corrected and fitted; each file is younger than what it was made from."""
    rows = ""
    for number in (1, 2):
        names = [
            f"frames/{number}.tif",
            f"{MOTION}frames/{number}.mrc",
            f"{MOTION}frames/{number}_EVN.mrc",
            f"{CTF}frames/{number}_PS.ctf",
        ]
        rows += f"{names[0]} {names[1]} {names[2]} {names[3]}:mrc\n"
        for age, name in enumerate([*names, f"{CTF}frames/{number}_PS.txt"]):
            touch(tmp_path / name, 1000 + age)
    for job in (MOTION, CTF):
        (tmp_path / job / "tilt_series").mkdir()
        (tmp_path / job / "tilt_series" / "TS_01.star").write_text(TABLE + rows)
    return tmp_path


def touch(file: Path, seconds: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    os.utime(file, (seconds, seconds))


def both(project: Path) -> list[str]:
    return [
        *remove_stale_outputs(project, MOTION, "relion.motioncorr.own"),
        *remove_stale_outputs(project, CTF, "relion.ctffind.ctffind4"),
    ]


def test_nothing_is_stale(project: Path) -> None:
    assert both(project) == []


def test_a_movie_written_again_makes_all_that_follows_stale(project: Path) -> None:
    touch(project / "frames" / "2.tif", 5000)
    assert both(project) == [
        f"{MOTION}frames/2.mrc",
        f"{MOTION}frames/2_EVN.mrc",
        f"{CTF}frames/2_PS.ctf",
        f"{CTF}frames/2_PS.txt",
    ]
    assert (project / MOTION / "frames" / "1.mrc").is_file()
    assert (project / "frames" / "2.tif").is_file()


def test_a_movie_that_is_gone_is_no_change(project: Path) -> None:
    (project / "frames" / "1.tif").unlink()
    assert both(project) == []


def test_other_jobs_are_left_alone(project: Path) -> None:
    touch(project / "frames" / "2.tif", 5000)
    assert remove_stale_outputs(project, MOTION, "relion.external") == []


def test_nothing_outside_the_job_is_removed(project: Path) -> None:
    """A job's table also names the outputs of the jobs before it."""
    touch(project / MOTION / "frames" / "1.mrc", 5000)
    assert remove_stale_outputs(project, CTF, "relion.ctffind.ctffind4") == [
        f"{CTF}frames/1_PS.ctf",
        f"{CTF}frames/1_PS.txt",
    ]
    assert (project / MOTION / "frames" / "1_EVN.mrc").is_file()
