"""RELION tables: real ones are read, ours are what starfile and RELION's layout ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.errors import FileFormatError
from crboost.translate.tables import read_table, read_tilt_series, write_blocks, write_table


def test_relions_own_tables_are_read(golden: Path) -> None:
    series = read_tilt_series(golden / "Tomograms/job005/tomograms.star", golden)
    row, tilts = series["TS_02"]
    assert row["rlnTomoTomogramBinning"] == 4.0
    assert [tilt["rlnTomoYTilt"] for tilt in tilts] == [-6.0, -3.0, 0.0, 3.0, 6.0]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [
        {"rlnTomoName": "01", "rlnVoltage": 300.0, "rlnTomoSizeX": 512},
        {"rlnTomoName": "02", "rlnVoltage": 300.0, "rlnTomoSizeX": 512},
    ]
    write_table(tmp_path / "a.star", "global", rows)
    assert read_table(tmp_path / "a.star") == rows
    first = (tmp_path / "a.star").read_bytes()
    write_table(tmp_path / "a.star", "global", rows)
    assert (tmp_path / "a.star").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["a.star"]


def test_a_number_that_some_rows_lack_is_not_written_as_0(tmp_path: Path) -> None:
    """RELION reads `<NA>` as 0: no phase plate is phase 0, but no CTF is not a resolution of 0."""
    nan = float("nan")
    rows = [
        {"rlnMicrographMovieName": "a.tif", "rlnCtfMaxResolution": 5.0, "rlnPhaseShift": 90.0},
        {"rlnMicrographMovieName": "b.tif", "rlnDefocusU": 3e4, "rlnTomoNominalDefocus": nan},
        {"rlnMicrographMovieName": "c.tif", "rlnPhaseShift": None, "rlnDefocusU": nan},
    ]
    write_table(tmp_path / "a.star", "TS", rows)
    assert "<NA>" not in (tmp_path / "a.star").read_text()
    assert read_table(tmp_path / "a.star") == [
        {"rlnMicrographMovieName": "a.tif", "rlnPhaseShift": 90.0},
        {"rlnMicrographMovieName": "b.tif", "rlnPhaseShift": 0.0},
        {"rlnMicrographMovieName": "c.tif", "rlnPhaseShift": 0.0},
    ]
    write_table(tmp_path / "b.star", "TS", [{"rlnDefocusU": 3e4}])
    assert read_table(tmp_path / "b.star") == [{"rlnDefocusU": 3e4}]


def test_a_mapping_becomes_a_list_of_values(tmp_path: Path) -> None:
    write_blocks(tmp_path / "m.star", {"general": {"rlnVoltage": 300.0}, "shift": [{"x": 1.0}]})
    text = (tmp_path / "m.star").read_text()
    assert "data_general" in text
    assert "_rlnVoltage\t\t\t300.0" in text
    assert "loop_\n_x #1" in text


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"none\.star: no such file"):
        read_table(tmp_path / "none.star")
    write_blocks(tmp_path / "two.star", {"a": [{"x": 1}], "b": [{"x": 1}]})
    with pytest.raises(FileFormatError, match="one table expected, found: a, b"):
        read_table(tmp_path / "two.star")
    write_table(tmp_path / "bad.star", "global", [{"rlnTomoName": "TS_01"}])
    with pytest.raises(FileFormatError, match="no column rlnTomoTiltSeriesStarFile"):
        read_tilt_series(tmp_path / "bad.star", tmp_path)


def test_a_tilt_series_named_twice_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "ts.star", "TS_01", [{"rlnMicrographMovieName": "a.tif"}])
    row = {"rlnTomoName": "TS_01", "rlnTomoTiltSeriesStarFile": "ts.star"}
    write_table(tmp_path / "all.star", "global", [row, row])
    with pytest.raises(FileFormatError, match="TS_01 twice"):
        read_tilt_series(tmp_path / "all.star", tmp_path)
