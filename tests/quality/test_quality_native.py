"""Native RELION jobs: tables that RELION 5.1 wrote, alone and mixed with our own stages."""

from __future__ import annotations

import math
import shutil
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mrcfile
import numpy as np
import pytest
from PIL import Image

from crboost.catalogue import TOMO_ALIGN, TOMO_CTFFIND, TOMO_IMPORT, TOMO_MOTIONCORR
from crboost.catalogue import TOMO_RECONSTRUCT as TOMO_REC
from crboost.errors import FileFormatError
from crboost.history import PastJob
from crboost.quality import series_notes, series_table, write_reports
from crboost.quality.details import avrot_file, read_avrot, read_details, read_shifts
from crboost.quality.native import native_results, number, tomogram_metrics
from crboost.quality.pictures import central_slice, curve_limits
from crboost.quality.series import series_report
from crboost.quality.stages import read_stages
from crboost.results import SeriesResult, write_result

if TYPE_CHECKING:
    from conftest import Files

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden" / "relion51"
JOBS = (
    ("Import/job001/", "relion.importtomo", "tilt_series.star", TOMO_IMPORT),
    ("MotionCorr/job002/", "relion.motioncorr.own", "corrected_tilt_series.star", TOMO_MOTIONCORR),
    ("CtfFind/job003/", "relion.ctffind.ctffind4", "tilt_series_ctf.star", TOMO_CTFFIND),
    ("AlignTiltSeries/job004/", "relion.aligntiltseries", "aligned_tilt_series.star", TOMO_ALIGN),
    ("Tomograms/job005/", "relion.reconstructtomograms", "tomograms.star", TOMO_REC),
)
#: rlnAccumMotionTotal of TS_01 in MotionCorr/job002: pixels of 2 A.
MOTION_PX = (4.430885, 4.158931, 4.730386, 4.165285, 4.201619)
#: The third tilt, without which a later stage goes on.
LEFT_OUT = "frames/TS_01_002_-3.0.mrc"


def past_job(job: str, relion_type: str, file: str, label: str) -> PastJob:
    return PastJob(job, "Succeeded", relion_type, outputs=((f"{job}{file}", label),))


@pytest.fixture
def native(project: Files, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """RELION's example: five native jobs, as its GUI would have run them."""
    directory = tmp_path_factory.mktemp("native")
    for tree in (GOLDEN, HERE / "relion51"):
        shutil.copytree(tree, directory, dirs_exist_ok=True)
    return type(project)(directory, [past_job(*job) for job in JOBS])


def write_halves(directory: Path, values: tuple[float, float] = (1.0, 2.0)) -> list[Path]:
    """The two halves of TS_01's tomogram, with a header that says another pixel size."""
    paths = []
    for half, value in enumerate(values, start=1):
        path = directory / f"Tomograms/job005/tomograms/rec_TS_01_half{half}.mrc"
        path.parent.mkdir(parents=True, exist_ok=True)
        with mrcfile.new(path, np.full((32, 128, 128), value, np.float32), overwrite=True) as file:
            file.voxel_size = 1.0
        paths.append(path)
    return paths


def remove_row(table: Path, word: str) -> None:
    lines = table.read_text().splitlines(keepends=True)
    kept = [line for line in lines if word not in line]
    assert len(kept) == len(lines) - 1
    table.write_text("".join(kept))


def test_the_table_of_a_project_that_relion_alone_processed(native: Files) -> None:
    first, second = series_table(native)
    assert first == {
        "tilt_series": "TS_01",
        "tilts": 5,
        "tilts_total": 5,
        "motion_angstrom": pytest.approx(2.0 * sum(MOTION_PX) / 5),
        "defocus_um": pytest.approx(2.5),
        "ctf_resolution_angstrom": 6.5,
        "alignment_residual_px": None,
        "tilt_axis_deg": 85.0,
        "beads": None,
        "tomogram": str(native.directory / "Tomograms/job005/tomograms/rec_TS_01_half1.mrc"),
        "problem": None,
    }
    assert second["tilt_series"] == "TS_02"
    assert series_notes(native) == []


def test_motion_is_the_length_of_the_track_of_frame_shifts(native: Files) -> None:
    """RELION counts rlnAccumMotionTotal in pixels: table and track agree only in angstrom."""
    stages = read_stages(native)
    report = series_report("TS_01", stages, read_details(native.directory, stages, "TS_01"))
    assert [tilt.angle_deg for tilt in report.tilts] == [0.0, 3.0, -3.0, 6.0, -6.0]
    for tilt in report.tilts:
        track = tilt.shifts_angstrom
        assert track is not None
        assert track[0] == (0.0, 0.0)
        length = sum(math.dist(one, other) for one, other in pairwise(track))
        assert tilt.motion_angstrom == pytest.approx(length, abs=1e-4)
    assert report.tilts[4].pre_exposure_e_per_a2 == 12.0
    assert report.tilts[0].defocus_um == 2.5
    assert report.metrics["tomogram_pixel_size_angstrom"] == 8.0


def test_tilts_that_a_later_table_leaves_out_count_no_more(native: Files) -> None:
    remove_row(native.directory / "AlignTiltSeries/job004/tilt_series/TS_01.star", LEFT_OUT)
    remove_row(native.directory / "Tomograms/job005/tilt_series/TS_01.star", LEFT_OUT)
    row = series_table(native)[0]
    assert (row["tilts"], row["tilts_total"]) == (4, 5)
    assert row["motion_angstrom"] == pytest.approx(2.0 * (sum(MOTION_PX) - MOTION_PX[2]) / 4)
    note = "tilt image TS_01_002_-3.0 (-3.0 deg) is not in the table of AlignTiltSeries/job004"
    assert series_notes(native) == [("TS_01", note)]
    states = {tilt.name: tilt.state for tilt in series_report("TS_01", read_stages(native)).tilts}
    assert [name for name, state in states.items() if state == "excluded"] == ["TS_01_002_-3.0"]


def test_an_older_table_says_nothing_of_tilts_that_came_later(native: Files) -> None:
    remove_row(native.directory / "CtfFind/job003/tilt_series/TS_01.star", LEFT_OUT)
    native.past = [past for past in native.past if past.number in (1, 3)]
    assert len(series_notes(native)) == 1
    native.past[0] = past_job("Import/job009/", *JOBS[0][1:])
    shutil.copytree(native.directory / "Import/job001", native.directory / "Import/job009")
    assert series_notes(native) == []


def own_result(directory: Path, job: str, **values: Any) -> None:
    write_result(directory / job, SeriesResult("TS_01", "done", "f", "i", **values))


def test_native_and_own_stages_in_one_table(native: Files) -> None:
    """Our alignment excludes a tilt between RELION's CTF fit and RELION's reconstruction."""
    native.past[3] = PastJob(
        "External/job004/",
        "Succeeded",
        job_type="tsAlignment",
        outputs=(("External/job004/aligned_tilt_series.star", TOMO_ALIGN),),
    )
    names = ("000_0.0", "001_3.0", "002_-3.0", "003_6.0", "004_-6.0")
    tilts = [
        {"name": f"TS_01_{name}", "tilt_angle_deg": 0.0, "status": "aligned", "reason": None}
        for name in names
    ]
    tilts[2] |= {"status": "excluded", "reason": "dark"}
    own_result(
        native.directory,
        "External/job004",
        metrics={"tilts": 4, "tilts_total": 5, "alignment_residual_px": 0.3, "beads": 7},
        tilts=tilts,
        warnings=["tilt image TS_01_002_-3.0 is excluded: dark"],
    )
    remove_row(native.directory / "Tomograms/job005/tilt_series/TS_01.star", LEFT_OUT)
    row = series_table(native)[0]
    assert (row["tilts"], row["tilts_total"], row["beads"]) == (4, 5, 7)
    assert row["alignment_residual_px"] == 0.3
    assert row["motion_angstrom"] == pytest.approx(2.0 * (sum(MOTION_PX) - MOTION_PX[2]) / 4)
    assert row["tomogram"].endswith("half1.mrc")
    assert len(series_notes(native)) == 1  # our reason, not again that RELION's table is shorter
    report = series_report("TS_01", read_stages(native))
    assert report.tilts[2].reason == "dark"
    assert report.jobs == (
        "Import/job001",
        "MotionCorr/job002",
        "CtfFind/job003",
        "External/job004",
        "Tomograms/job005",
    )


def test_motion_comes_from_the_newest_job_that_measured_it(native: Files) -> None:
    ours = PastJob("External/job006/", "Succeeded", job_type="fsMotionAndCtf")
    tilt = {"name": "TS_01_000_0.0", "tilt_angle_deg": 0.0, "status": "done"}
    own_result(
        native.directory,
        "External/job006",
        metrics={"motion_angstrom": 50.0, "defocus_um": 3.0},
        tilts=[{**tilt, "motion_total_angstrom": 50.0}],
    )
    native.past = [*native.past[:3], ours]
    row = series_table(native)[0]
    assert (row["motion_angstrom"], row["defocus_um"]) == (50.0, 3.0)
    native.past.append(past_job("MotionCorr/job007/", *JOBS[1][1:]))
    shutil.copytree(native.directory / "MotionCorr/job002", native.directory / "MotionCorr/job007")
    row = series_table(native)[0]
    assert row["motion_angstrom"] == pytest.approx(2.0 * sum(MOTION_PX) / 5)
    assert row["defocus_um"] == 3.0


def test_the_picture_shows_the_sum_of_the_halves(native: Files) -> None:
    paths = write_halves(native.directory)
    middle = central_slice(paths, 8.0)
    assert np.allclose(middle.image, 3.0)
    assert (middle.summed, middle.pixel_size_angstrom) == (2, 8.0)
    assert middle.thickness_nm == pytest.approx(9.6)  # 12 slices of 8 A
    before = {path: path.stat().st_mtime_ns for path in write_reports(native)}
    for path, time in before.items():
        with Image.open(path) as image:
            assert image.size == (1200, 800)
        assert time == path.stat().st_mtime_ns
    assert {path: path.stat().st_mtime_ns for path in write_reports(native)} == before
    write_halves(native.directory, (1.0, 5.0))
    after = {path: path.stat().st_mtime_ns for path in write_reports(native)}
    assert [after[path] != before[path] for path in before] == [True, False]


def test_halves_of_different_sizes_are_not_added(native: Files) -> None:
    paths = write_halves(native.directory)
    with mrcfile.new(paths[1], np.zeros((8, 16, 16), np.float32), overwrite=True):
        pass
    with pytest.raises(FileFormatError, match="half2"):
        central_slice(paths)


def test_a_whole_tomogram_goes_before_its_halves() -> None:
    row = {
        "rlnTomoReconstructedTomogram": "whole.mrc",
        "rlnTomoReconstructedTomogramHalf1": "one.mrc",
        "rlnTomoReconstructedTomogramHalf2": "two.mrc",
        "rlnTomoTiltSeriesPixelSize": "1.35",
        "rlnTomoTomogramBinning": "10.0",
    }
    metrics = tomogram_metrics(row, Path("tomograms.star"))
    assert metrics["tomogram"] == "whole.mrc"
    assert metrics["tomogram_halves"] is None
    assert metrics["tomogram_pixel_size_angstrom"] == pytest.approx(13.5)


def test_the_curve_that_ctffind_left(native: Files) -> None:
    image = native.directory / "CtfFind/job003/frames/TS_01_000_0_0_PS.ctf:mrc"
    curve = read_avrot(avrot_file(image), 6.5)
    assert curve is not None
    frequency = curve.frequency_per_angstrom
    assert 1 / 30 <= frequency[0] < frequency[-1] <= 1 / 5
    trusted = [one <= 1 / 6.5 for one in frequency]
    power, fit = (np.array(values)[trusted] for values in (curve.power, curve.fit))
    assert np.corrcoef(power, fit)[0, 1] > 0.5
    assert power.mean() == pytest.approx(fit.mean())
    low, high = curve_limits(curve)
    assert low < min(curve.fit) < max(curve.fit) < high
    stages = read_stages(native)
    tilt = series_report(
        "TS_01", stages, read_details(native.directory, stages, "TS_01")
    ).central_tilt
    assert tilt is not None
    assert (tilt.name, tilt.ctf_curve) == ("TS_01_000_0.0", curve)


@pytest.mark.parametrize("text", ["", "# Output\n1 2\n3 x\n", "0.1 0.2\n1 2\n"])
def test_what_is_no_radial_average_costs_the_panel_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x_avrot.txt"
    path.write_text(text)
    assert read_avrot(path) is None
    assert read_avrot(tmp_path / "none.txt") is None
    assert read_shifts(path, 2.0) is None


def test_tables_that_are_gone_or_broken(native: Files) -> None:
    output = native.directory / "CtfFind/job003/tilt_series_ctf.star"
    table = native.directory / "CtfFind/job003/tilt_series/TS_01.star"
    table.write_text(table.read_text().replace("25100.000000", "wide", 1))
    with pytest.raises(FileFormatError, match=r"TS_01\.star.*rlnDefocusU is 'wide'"):
        series_table(native)
    table.unlink()
    results = native_results(native.directory, output, TOMO_CTFFIND)
    assert results["TS_01"].warnings == [
        "CtfFind/job003/tilt_series/TS_01.star of tilt images is missing"
    ]
    assert results["TS_02"].metrics["tilts"] == 5
    output.unlink()
    assert native_results(native.directory, output, TOMO_CTFFIND) == {}


@pytest.mark.parametrize(
    ("text", "expected"), [("1.5", 1.5), ("nan", None), ("inf", None), ("None", None), ("", None)]
)
def test_numbers_of_tables(text: str, expected: float | None) -> None:
    assert number({"rlnDefocusU": text}, "rlnDefocusU", Path("x.star")) == expected
    assert number({}, "rlnDefocusU", Path("x.star")) is None
