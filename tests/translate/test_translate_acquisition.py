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


def test_the_detectors_mtf_is_named_where_it_is_known(series: TiltSeriesAcquisition) -> None:
    assert "rlnMtfFileName" not in imported(series, effective()).global_columns
    told = effective(**{"acquisition.mtf_file": "/refs/mtf_k3.star"})
    assert imported(series, told).global_columns["rlnMtfFileName"] == "/refs/mtf_k3.star"


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


PIXEL, VOLTAGE = "microscope.pixel_size_angstrom", "microscope.acceleration_voltage_kv"
GROUPS = "jobs.importmovies.optics_groups"


def optics(output: SeriesOutput) -> tuple[object, ...]:
    names = ("rlnOpticsGroupName", "rlnMicrographOriginalPixelSize", "rlnVoltage")
    return tuple(output.global_columns[name] for name in names)


def by_mdoc_and_user(
    told: dict[str, object], set_by_user: dict[str, object]
) -> EffectiveParameters:
    new = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    return new.with_values(told, source="mdoc").with_values(set_by_user).effective("importmovies")


@pytest.mark.parametrize(
    ("values", "expected", "told"),
    [
        ({PIXEL: 4, VOLTAGE: 300}, ("opticsGroup1", 4, 300), 0),
        ({PIXEL: 4.01, VOLTAGE: 300}, ("opticsGroup1", 4.01, 300), 0),
        ({PIXEL: 2, VOLTAGE: 300}, ("opticsGroup1_4A", 4, 300), 1),
        ({PIXEL: 2, VOLTAGE: 200}, ("opticsGroup1_4A_300kV", 4, 300), 2),
        ({PIXEL: 2, "jobs.importmovies.optics_group_name": "mine"}, ("mine_4A", 4, 300), 1),
    ],
)
def test_a_series_that_was_taken_otherwise_gets_an_optics_group_of_its_own(
    series: TiltSeriesAcquisition,
    values: dict[str, object],
    expected: tuple[object, ...],
    told: int,
) -> None:
    output = imported(series, effective("mdoc", **values))
    assert optics(output) == expected
    assert sum("optics group of its own" in one for one in output.warnings) == told


def test_what_somebody_chose_wins_over_the_mdoc(series: TiltSeriesAcquisition) -> None:
    for source in ("user", "preset"):
        output = imported(series, effective(source, **{PIXEL: 2, VOLTAGE: 200}))
        assert optics(output) == ("opticsGroup1", 2, 200)


def test_the_pixel_size_is_that_of_the_movies(series: TiltSeriesAcquisition) -> None:
    """Super-resolution movies have half of the pixel size of the images in the mdoc."""
    fine = {name: replace(one, width_px=1024, height_px=1024) for name, one in MOVIES.items()}
    same = imported(series, effective("mdoc", **{PIXEL: 2}), fine)
    assert optics(same)[:2] == ("opticsGroup1", 2)
    other = imported(series, effective("mdoc", **{PIXEL: 4}), fine)
    assert optics(other)[:2] == ("opticsGroup1_2A", 2)


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("TS_0?: near", ("near", 4, 300)),
        ("TS_01: near; *: far", ("near", 4, 300)),
        ("TS_02: near; T*: far acceleration_voltage_kv=200", ("far", 4, 200)),
        ("*: far pixel_size_angstrom=3.5", ("far", 3.5, 300)),
        ("ts_01: near", ("opticsGroup1", 4, 300)),
    ],
)
def test_the_user_makes_groups(
    series: TiltSeriesAcquisition, groups: str, expected: tuple[object, ...]
) -> None:
    seen = by_mdoc_and_user({PIXEL: 4, VOLTAGE: 300}, {GROUPS: groups})
    assert optics(imported(series, seen)) == expected


def test_a_users_group_of_two_pixel_sizes_is_two_groups(series: TiltSeriesAcquisition) -> None:
    seen = by_mdoc_and_user({PIXEL: 2}, {GROUPS: "TS*: near"})
    assert optics(imported(series, seen))[:2] == ("near_4A", 4)


def test_an_impossible_pixel_size_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "TS_01.mdoc"
    path.write_text(MDOC.replace("PixelSpacing = 4", "PixelSpacing = 40"))
    output = imported(read_tilt_series(path), effective("mdoc", **{PIXEL: 4}))
    assert optics(output)[:2] == ("opticsGroup1", 4)
    assert any("40 A is not possible; taken as 4 A" in one for one in output.warnings)
