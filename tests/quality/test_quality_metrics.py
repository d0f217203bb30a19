"""The table of a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from crboost.catalogue import TOMO_ALIGN, TOMO_CTFFIND, TOMO_IMPORT, TOMO_MOTIONCORR
from crboost.history import PastJob
from crboost.quality import series_notes, series_table
from crboost.quality.stages import newest_jobs
from crboost.quality.summary import headline, markdown, number, table, tilts

if TYPE_CHECKING:
    from conftest import Files


def test_one_row_per_series_with_the_numbers_of_all_stages(project: Files) -> None:
    first, second = series_table(project)
    tomogram = str(project.directory / "External/job004/cpu/TS_01/TS_01.mrc")
    assert first == {
        "tilt_series": "TS_01",
        "tilts": 9,
        "tilts_total": 11,
        "motion_angstrom": pytest.approx((10 * 2.0 + 4.5 - 2.6) / 9),
        "defocus_um": 3.02,
        "ctf_resolution_angstrom": 11.0,
        "alignment_residual_px": 0.31,
        "tilt_axis_deg": 85.02,
        "beads": 12,
        "tomogram": tomogram,
        "problem": None,
    }
    assert second["tilts"] == 11
    assert second["tomogram"] is None
    assert second["problem"] == "tsAlignment failed: all tilt images are dark"


def test_a_tool_that_tells_no_motion_per_tilt_has_its_own_mean(project: Files) -> None:
    assert series_table(project)[1]["motion_angstrom"] == 4.0


def test_a_project_without_jobs_has_an_empty_table(project: Files) -> None:
    project.past.clear()
    assert series_table(project) == []


def test_the_newest_succeeded_job_stands_for_its_stage(project: Files) -> None:
    project.add("tsAlignment", "External/job005/")
    project.write("tsAlignment", "TS_01", metrics={"alignment_residual_px": 0.12, "tilts": 8})
    project.add("tsAlignment", "External/job006/", status="Failed")
    row = series_table(project)[0]
    assert row["alignment_residual_px"] == 0.12
    assert row["tilts"] == 9  # the reconstruction's count: the last stage that this series reached


def test_the_newest_job_that_made_a_stages_node_stands_for_it() -> None:
    past = [
        PastJob("External/job010/", "Succeeded", job_type="tsAlignment"),
        PastJob("External/job009/", "Succeeded", job_type="tsAlignment"),
        PastJob("Import/job011/", "Succeeded", job_type="importmovies"),
        PastJob(
            "MotionCorr/job012/",
            "Succeeded",
            relion_type="relion.motioncorr.own",
            outputs=(("MotionCorr/job012/corrected_tilt_series.star", TOMO_MOTIONCORR),),
        ),
        PastJob("External/job013/", "Running", job_type="tsReconstruct"),
        PastJob("Select/job014/", "Succeeded", relion_type="relion.select"),
    ]
    assert [(label, job.name) for label, job in newest_jobs(past).items()] == [
        (TOMO_IMPORT, "Import/job011"),
        (TOMO_MOTIONCORR, "MotionCorr/job012"),
        (TOMO_ALIGN, "External/job010"),
    ]


def test_one_job_that_does_motion_and_ctf_replaces_an_older_motion_correction() -> None:
    older = PastJob(
        "MotionCorr/job002/", "Succeeded", "relion.motioncorr.own", job_type="motionCorr"
    )
    both = PastJob("External/job003/", "Succeeded", job_type="fsMotionAndCtf")
    newer = PastJob(
        "MotionCorr/job004/", "Succeeded", "relion.motioncorr.own", job_type="motionCorr"
    )
    assert list(newest_jobs([older, both])) == [TOMO_CTFFIND]
    assert list(newest_jobs([older, both, newer])) == [TOMO_MOTIONCORR, TOMO_CTFFIND]


def test_notes_name_series_and_tilt_once(project: Files) -> None:
    project.write(
        "tsReconstruct", "TS_02", warnings=["the same", "the same", "another"], metrics={}
    )
    notes = series_notes(project)
    assert [name for name, _ in notes] == ["TS_01", "TS_01", "TS_02", "TS_02"]
    assert notes[0][1].startswith("tilt 5 (+6.0 deg): movie TS_01_005_6.0.tif")
    assert notes[1][1].endswith("is excluded: dark")


@pytest.mark.parametrize(
    ("value", "digits", "unit", "expected"),
    [(3.04, 1, "Å", "3.0 Å"), (None, 1, "Å", "-"), (float("nan"), 2, "", "-"), (0, 2, "", "0.00")],
)
def test_numbers(value: float | None, digits: int, unit: str, expected: str) -> None:
    assert number(value, digits, unit) == expected


def test_tilts_without_a_total() -> None:
    assert tilts({"tilts": 3, "tilts_total": None}) == "3"
    assert tilts({"tilts": None, "tilts_total": 41}) == "-"


def test_the_markdown_table_has_as_many_cells_as_headings(project: Files) -> None:
    headings, cells = table(series_table(project))
    lines = markdown(series_table(project)).splitlines()
    assert len(lines) == 2 + len(cells)
    assert {line.count("|") for line in lines} == {len(headings) + 1}
    assert "tsAlignment failed: all tilt images are dark" in lines[-1]


def test_a_headline_says_only_what_is_known() -> None:
    assert headline({}) == ""
    assert headline({"tilts": 9, "tilts_total": 11, "defocus_um": 3.021, "beads": 0}) == (
        "9 of 11 tilts  ·  defocus 3.02 µm"
    )


def test_nothing_is_written_by_looking(project: Files) -> None:
    def files() -> list[Path]:
        return sorted(project.directory.rglob("*"))

    before = files()
    series_table(project)
    assert files() == before
