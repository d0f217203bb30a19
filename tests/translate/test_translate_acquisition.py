"""mdoc and movies -> RELION's import rows, with the user's values winning over the mdoc."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crboost.acquisition.movies import MovieFile
from crboost.acquisition.tilt_series import TiltSeriesAcquisition, read_tilt_series
from crboost.parameters import EffectiveParameters, ProjectParameters
from crboost.translate.acquisition import import_output
from crboost.translate.output import SeriesOutput

MDOC = """PixelSpacing = 4
Voltage = 300
ImageFile = TS_01.mrc
ImageSize = 512 512

[T = SerialEM: test]

[T =     Tilt axis angle = 85.2, binning = 1  spot = 8  camera = 0]

[ZValue = 0]
TiltAngle = -3
ExposureDose = 2
TargetDefocus = -3
SubFramePath = X:\\frames\\b.tif
DateTime = 01-May-25  10:01:00

[ZValue = 1]
TiltAngle = 0
ExposureDose = 2
TargetDefocus = -3
SubFramePath = X:\\frames\\a.tif
DateTime = 01-May-25  10:00:00

[ZValue = 2]
TiltAngle = 3
ExposureDose = 2
TargetDefocus = -3
SubFramePath = X:\\frames\\c.tif
DateTime = 01-May-25  10:02:00
"""
MOVIES = {
    name: MovieFile(Path(name), "TIFF", 1000, 512, 512, 5) for name in ("a.tif", "b.tif", "c.tif")
}


@pytest.fixture
def series(tmp_path: Path) -> TiltSeriesAcquisition:
    path = tmp_path / "TS_01.mdoc"
    path.write_text(MDOC)
    return read_tilt_series(path)


def effective(source: str = "user", **changes: object) -> EffectiveParameters:
    new = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    return new.with_values(changes, source=source).effective("importmovies")  # type: ignore[arg-type]


def imported(
    series: TiltSeriesAcquisition,
    parameters: EffectiveParameters,
    movies: dict[str, MovieFile] = MOVIES,
) -> SeriesOutput:
    paths = {name: f"frames/{name}" for name in movies}
    return import_output("TS_01", series, movies, paths, parameters)


def test_rows_are_in_the_order_of_dose(series: TiltSeriesAcquisition) -> None:
    rows = imported(series, effective()).rows
    assert [row["rlnMicrographMovieName"] for row in rows] == [
        "frames/a.tif",
        "frames/b.tif",
        "frames/c.tif",
    ]
    assert [row["rlnMicrographPreExposure"] for row in rows] == [0.0, 2.0, 4.0]
    assert [row["rlnTomoNominalStageTiltAngle"] for row in rows] == [0.0, -3.0, 3.0]
    assert {row["rlnTomoNominalDefocus"] for row in rows} == {-3.0}
    assert {row["rlnTomoTiltMovieFrameCount"] for row in rows} == {5}


def test_the_mdoc_tells_axis_and_dose_unless_the_user_does(
    series: TiltSeriesAcquisition,
) -> None:
    named = {"acquisition.tilt_axis_degrees": 80, "acquisition.dose_per_tilt_e_per_a2": 3}
    other_mdoc = imported(series, effective("mdoc", **named)).rows
    assert {row["rlnTomoNominalTiltAxisAngle"] for row in other_mdoc} == {85.2}
    assert [row["rlnMicrographPreExposure"] for row in other_mdoc] == [0.0, 2.0, 4.0]
    user = imported(series, effective("user", **named)).rows
    assert {row["rlnTomoNominalTiltAxisAngle"] for row in user} == {80.0}
    assert [row["rlnMicrographPreExposure"] for row in user] == [0.0, 3.0, 6.0]


def test_calibration_sign_and_hand(series: TiltSeriesAcquisition) -> None:
    output = imported(
        series,
        effective(
            **{
                "acquisition.dose_calibration_factor": 1.5,
                "acquisition.invert_tilt_angles": True,
                "acquisition.invert_defocus_hand": False,
            }
        ),
    )
    assert [row["rlnMicrographPreExposure"] for row in output.rows] == [0.0, 3.0, 6.0]
    assert [row["rlnTomoNominalStageTiltAngle"] for row in output.rows] == [0.0, 3.0, -3.0]
    assert output.global_columns["rlnTomoHand"] == 1.0


def test_missing_and_broken_movies_leave_the_table_and_are_named(
    series: TiltSeriesAcquisition,
) -> None:
    broken = replace(MOVIES["c.tif"], problem="the file is empty")
    output = imported(series, effective(), {"a.tif": MOVIES["a.tif"], "c.tif": broken})
    assert len(output.rows) == 1
    assert [(tilt["name"], tilt["status"]) for tilt in output.tilts] == [
        ("a", "done"),
        ("b", "missing"),
        ("c", "failed"),
    ]
    assert "tilt 2 (-3.0 deg): movie b.tif is missing" in output.warnings
    assert "tilt 3 (+3.0 deg): movie c.tif cannot be used: the file is empty" in output.warnings
    assert (output.metrics["tilts"], output.metrics["tilts_total"]) == (1, 3)
