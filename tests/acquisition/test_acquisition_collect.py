"""A session from files on disk: values, their sources, warnings, and what is left out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile

from crboost.acquisition.collect import Session, collect, conclude
from crboost.acquisition.completeness import CompletenessState
from crboost.acquisition.mdoc import parse_mdoc
from crboost.acquisition.movies import MovieFile, find_movies
from crboost.acquisition.tilt_series import tilt_series_from_mdoc
from crboost.errors import FileFormatError, ProjectError
from crboost.parameters.project import ProjectParameters

ANGLES = (0.0, 3.0, -3.0)


@pytest.fixture
def session(tmp_path, mdoc_text):
    """Write series (name -> mdoc changes) and all of their movies, and collect them."""

    def write(*series: tuple[str, dict], shape=(8, 48, 64), without=(), gain=None) -> Session:
        frames = tmp_path / "frames"
        frames.mkdir(exist_ok=True)
        for name, changes in series:
            (tmp_path / f"{name}.mdoc").write_text(mdoc_text(stem=name, **changes))
            for z, angle in enumerate(changes.get("angles", ANGLES)):
                with mrcfile.new(frames / f"{name}_{z:03d}_{angle:.1f}.mrc") as file:
                    file.set_data(np.zeros(shape, np.int8))
        for name in without:
            (frames / name).unlink()
        return collect(tmp_path.glob("*.mdoc"), find_movies([frames]), gain)

    return write


def values(found: Session) -> dict[str, object]:
    return {finding.path: finding.value for finding in found.findings}


def test_a_plain_session(session, tmp_path):
    found = session(("TS_01", {}), ("TS_02", {}))
    assert [one.name for one in found.series] == ["TS_01", "TS_02"]
    assert values(found) == {
        "microscope.pixel_size_angstrom": 1.35,
        "microscope.acceleration_voltage_kv": 300,
        "acquisition.dose_per_tilt_e_per_a2": 3.0,
        "acquisition.tilt_axis_degrees": 85.3,
        "acquisition.detector_dimensions_px": (64, 48),
        "acquisition.acquisition_software": "SerialEM",
        "acquisition.nominal_magnification": 42000,
    }
    pixel = found.finding("microscope.pixel_size_angstrom")
    assert pixel.detail == "TS_01.mdoc:1 PixelSpacing (the same in all 2 mdocs)"
    dose = found.finding("acquisition.dose_per_tilt_e_per_a2")
    assert dose.detail == "TS_01.mdoc:15 ExposureDose, median of 6 tilts"
    assert found.finding("acquisition.detector_dimensions_px").detail.startswith("header of TS_01_")
    assert found.finding("no.such.parameter") is None
    assert found.warnings == ()
    assert found.orphans == ()
    movie = found.series[0].movies["TS_01_000_0.0.mrc"]
    assert movie == tmp_path / "frames" / "TS_01_000_0.0.mrc"
    assert all(one.completeness.complete for one in found.series)


def test_every_finding_is_a_parameter_that_accepts_it(session, tmp_path):
    gain = tmp_path / "gain.mrc"
    with mrcfile.new(gain) as file:
        file.set_data(np.zeros((64, 48), np.float32))
    found = session(("TS_01", {"section": {"DoseRate": "1"}}), gain=gain)
    eer = [MovieFile(Path("a.eer"), "EER", 1, 4096, 4096)]
    more, _ = conclude([one.acquisition for one in found.series], eer)
    paths = {finding.path for finding in (*found.findings, *more)}
    assert {
        "acquisition.gain_reference_path",
        "acquisition.gain_transpose",
        "acquisition.eer_frames_per_fraction",
        "acquisition.camera_name",
    } <= paths
    parameters = ProjectParameters.new("test", datetime(2026, 5, 1, tzinfo=UTC))
    for finding in (*found.findings, *more):
        changed = parameters.with_values(
            {finding.path: finding.value}, source="mdoc", detail=finding.detail
        )
        assert changed.value(finding.path) == finding.value


def test_disagreements_name_files_and_values(session):
    found = session(
        ("TS_01", {}),
        ("TS_02", {}),
        (
            "TS_03",
            {
                "header": {"PixelSpacing": "2.7", "Voltage": "200"},
                "section": {"Magnification": "64000", "PixelSpacing": "2.7", "ExposureDose": "4"},
                "titles": ("[T = SerialEM: x]", "[T = Tilt axis angle = -94.7, binning = 1]"),
            },
        ),
    )
    assert values(found)["microscope.pixel_size_angstrom"] == 1.35
    pixel = found.finding("microscope.pixel_size_angstrom")
    assert pixel.detail.endswith("(2 of 3 mdocs)")
    text = "\n".join(found.warnings)
    assert "pixel size: 1.35 A in TS_01.mdoc, TS_02.mdoc; 2.7 A in TS_03.mdoc" in text
    assert "voltage: 300 kV in TS_01.mdoc, TS_02.mdoc; 200 kV in TS_03.mdoc" in text
    assert "tilt axis: 85.3 deg in TS_01.mdoc, TS_02.mdoc; -94.7 deg in TS_03.mdoc" in text
    assert "magnification: 42000 in TS_01.mdoc, TS_02.mdoc; 64000 in TS_03.mdoc" in text
    assert "varies from 3.00 to 4.00 e/A^2; medians: 3.0 in TS_01.mdoc, TS_02.mdoc; 4.0" in text
    assert values(found)["acquisition.dose_per_tilt_e_per_a2"] == 3.0


def test_dose_is_the_median_not_the_last(session):
    doses = {z: {"ExposureDose": text} for z, text in enumerate(["2", "3", "9"])}
    found = session(("TS_01", {"sections": doses}))
    assert values(found)["acquisition.dose_per_tilt_e_per_a2"] == 3.0
    assert any("varies from 2.00 to 9.00" in w for w in found.warnings)


def test_unknown_dose_is_not_invented(session):
    found = session(("TS_01", {"section": {"ExposureDose": "0"}}))
    assert "acquisition.dose_per_tilt_e_per_a2" not in values(found)
    assert any("no mdoc tells the dose" in warning for warning in found.warnings)


def test_missing_movies_and_tilt_counts(session):
    found = session(
        ("TS_01", {}),
        ("TS_02", {}),
        ("TS_03", {"angles": (0.0, 3.0)}),
        without=["TS_01_002_-3.0.mrc"],
    )
    states = [one.completeness.state for one in found.series]
    assert states == [
        CompletenessState.MISSING_MOVIES,
        CompletenessState.COMPLETE,
        CompletenessState.PARTIAL,
    ]
    assert [tilt.tilt_angle_deg for tilt in found.series[0].missing] == [-3.0]
    text = "\n".join(found.warnings)
    assert "TS_01.mdoc: 1 of 3 movies are missing: TS_01_002_-3.0.mrc (-3.0 deg)" in text
    assert "number of tilts: 3 in TS_01.mdoc, TS_02.mdoc; 2 in TS_03.mdoc" in text


def test_broken_and_orphaned_movies(session, tmp_path):
    session(("TS_01", {}))
    frames = tmp_path / "frames"
    (frames / "TS_01_000_0.0.mrc").write_bytes(b"")
    path = frames / "TS_01_001_3.0.mrc"
    path.write_bytes(path.read_bytes()[:-1])
    (frames / "atlas.mrc").write_bytes(b"")
    found = collect(tmp_path.glob("*.mdoc"), find_movies([frames]))
    text = "\n".join(found.warnings)
    assert "2 of 3 movies cannot be used: TS_01_000_0.0.mrc (the file is empty)" in text
    assert "TS_01_001_3.0.mrc (truncated" in text
    assert "1 movies are named by no tilt series: atlas.mrc" in text
    assert [p.name for p in found.orphans] == ["atlas.mrc"]
    assert len(found.series[0].completeness.usable) == 1


def test_mdocs_that_are_no_tilt_series_are_listed(session, tmp_path, mdoc_text):
    frame = "Voltage = 300\n[FrameSet = 0]\nGainReference = D:\\g.dm4\nDateTime = x\n"
    (tmp_path / "TS_01_000_0.0.mrc.mdoc").write_text(frame)
    (tmp_path / "map.mdoc").write_text(
        mdoc_text(sections={z: {"PieceCoordinates": f"{z} 0 0"} for z in range(3)})
    )
    (tmp_path / "broken.mdoc").write_text("[ZValue = 0]\nTiltAngle = 1\nnonsense\nDateTime = x\n")
    (tmp_path / "empty.mdoc").touch()
    (tmp_path / "TS_01_override.mdoc").write_text(mdoc_text())
    found = session(("TS_01", {}))
    assert [one.name for one in found.series] == ["TS_01"]
    reasons = {entry.path.name: entry.reason for entry in found.skipped}
    assert "one movie" in reasons["TS_01_000_0.0.mrc.mdoc"]
    assert "montage" in reasons["map.mdoc"]
    assert reasons["broken.mdoc"].startswith("line 3:")
    assert "empty" in reasons["empty.mdoc"]
    assert "copy of TS_01" in reasons["TS_01_override.mdoc"]
    text = "\n".join(found.warnings)
    assert all(name in text for name in reasons)
    assert "gain reference g.dm4" in text


def test_many_single_movie_mdocs_make_one_warning(session, tmp_path):
    for number in range(50):
        path = tmp_path / f"movie_{number:02d}.tif.mdoc"
        path.write_text("Voltage = 300\n[FrameSet = 0]\nDateTime = x\n")
    found = session(("TS_01", {}))
    assert len(found.skipped) == 50
    (warning,) = found.warnings
    assert "and 45 more: skipped: describes one movie" in warning


def test_unfinished_mdoc_is_kept_and_told(session, tmp_path):
    session(("TS_01", {}))
    path = tmp_path / "TS_01.mdoc"
    path.write_text(path.read_text()[:-40])
    found = collect([path], find_movies([tmp_path / "frames"]))
    assert len(found.series[0].acquisition.tilts) == 2
    assert found.series[0].completeness.state is CompletenessState.INCOMPLETE_MDOC
    assert any(w.startswith("TS_01.mdoc: incomplete: ") for w in found.warnings)


def test_two_mdocs_of_one_name(session, tmp_path, mdoc_text):
    (tmp_path / "TS_01.mrc.mdoc").write_text(mdoc_text())
    with pytest.raises(
        ProjectError, match=r"both tilt series TS_01: .*TS_01\.mdoc and .*mrc\.mdoc"
    ):
        session(("TS_01", {}))


def test_two_series_naming_the_same_movies(session, tmp_path, mdoc_text):
    (tmp_path / "copy.mdoc").write_text(mdoc_text())
    found = session(("TS_01", {}))
    assert any(
        "TS_01.mdoc and copy.mdoc name the same 3 movies: TS_01_000_0.0.mrc" in warning
        for warning in found.warnings
    )


def test_nothing_to_collect():
    found = collect([], [])
    assert found.series == ()
    assert found.findings == ()
    assert found.warnings == ()


def test_an_mdoc_that_is_not_there(tmp_path):
    found = collect([tmp_path / "TS_01.mdoc"], [])
    assert "cannot be read: No such file" in found.skipped[0].reason


class TestPixelSizeOfBinnedImages:
    BINNED: dict = {  # noqa: RUF012
        "header": {"PixelSpacing": "5.4", "ImageSize": "16 12"},
        "section": {"Binning": "4", "PixelSpacing": "5.4"},
    }

    def test_movies_four_times_as_large(self, session):
        found = session(("TS_01", self.BINNED))
        pixel = found.finding("microscope.pixel_size_angstrom")
        assert pixel.value == 1.35
        assert "movies are 64 x 48 px and have 1.35 A" in pixel.detail
        assert any("have 1.35 A" in warning for warning in found.warnings)

    def test_movies_on_their_side(self, session):
        found = session(("TS_01", self.BINNED), shape=(8, 64, 48))
        assert found.finding("microscope.pixel_size_angstrom").value == 1.35
        assert found.finding("acquisition.detector_dimensions_px").value == (48, 64)

    def test_without_movies_the_mdoc_is_believed_with_a_warning(self, session, tmp_path):
        session(("TS_01", self.BINNED))
        found = collect(tmp_path.glob("*.mdoc"), [])
        assert found.finding("microscope.pixel_size_angstrom").value == 5.4
        assert any("unbinned movies have 1.35 A" in warning for warning in found.warnings)

    def test_sizes_that_do_not_fit(self, session):
        found = session(("TS_01", {}), shape=(8, 50, 50))
        assert found.finding("microscope.pixel_size_angstrom").value == 1.35
        assert any("do not fit images of 64 x 48 px" in warning for warning in found.warnings)


def test_movies_of_two_sizes_and_frame_counts(session, tmp_path):
    session(("TS_01", {}))
    odd = tmp_path / "frames" / "TS_01_000_0.0.mrc"
    with mrcfile.new(odd, overwrite=True) as file:
        file.set_data(np.zeros((5, 24, 32), np.int8))
    found = collect(tmp_path.glob("*.mdoc"), find_movies([tmp_path / "frames"]))
    text = "\n".join(found.warnings)
    assert "most are 64 x 48 px, but TS_01_000_0.0.mrc is 32 x 24" in text
    assert "TS_01_000_0.0.mrc has 5 frames, NumSubFrames is 8" in text


def test_frames_of_tiff_movies_are_counted_once_per_series(tmp_path, mdoc_text):
    (tmp_path / "TS_01.mdoc").write_text(mdoc_text(extension="tif"))
    for name in ("TS_01_000_0.0.tif", "TS_01_001_3.0.tif", "TS_01_002_-3.0.tif"):
        pixels = np.zeros((6, 48, 64), np.uint8)
        tifffile.imwrite(tmp_path / name, pixels, photometric="minisblack", compression="lzw")
    found = collect([tmp_path / "TS_01.mdoc"], find_movies([tmp_path]))
    (warning,) = found.warnings
    assert "TS_01_000_0.0.tif has 6 frames, NumSubFrames is 8" in warning
    assert values(found)["acquisition.detector_dimensions_px"] == (64, 48)


class TestEer:
    def mdoc(self, mdoc_text, extension):
        text = mdoc_text(extension=extension, header={"ImageSize": "4096 4096"})
        return tilt_series_from_mdoc(parse_mdoc(text.encode(), Path("TS_01.mdoc")))

    def test_by_the_movies_content(self, mdoc_text):
        movies = [MovieFile(Path("a.eer"), "EER", 1, 4096, 4096)]
        found = {f.path: f.value for f in conclude([self.mdoc(mdoc_text, "mrc")], movies)[0]}
        assert found["acquisition.eer_frames_per_fraction"] == 32
        assert found["acquisition.camera_name"] == "Falcon 4"

    def test_by_the_mdoc_where_movies_are_not_there_yet(self, mdoc_text):
        found = {f.path: f.value for f in conclude([self.mdoc(mdoc_text, "eer")], [])[0]}
        assert found["acquisition.eer_frames_per_fraction"] == 32
        assert found["acquisition.camera_name"] == "Falcon 4"

    def test_not_by_the_detector_size(self, mdoc_text):
        found = {f.path for f in conclude([self.mdoc(mdoc_text, "tif")], [])[0]}
        assert "acquisition.eer_frames_per_fraction" not in found


def test_tomo5_session(session, tomo5_titles):
    found = session(("Position_1", {"titles": tomo5_titles, "section": {"RotationAngle": "86.20"}}))
    assert values(found)["acquisition.tilt_axis_degrees"] == 86.2
    assert values(found)["acquisition.acquisition_software"] == "Tomo5"


class TestGain:
    def write(self, path: Path, shape) -> Path:
        tifffile.imwrite(path, np.ones(shape, np.float32))
        return path

    def test_fits(self, session, tmp_path):
        gain = self.write(tmp_path / "gain.gain", (48, 64))
        found = session(("TS_01", {}), gain=gain)
        assert values(found)["acquisition.gain_reference_path"] == str(gain)
        assert "acquisition.gain_transpose" not in values(found)
        assert found.warnings == ()

    def test_transposed(self, session, tmp_path):
        gain = self.write(tmp_path / "gain.tif", (64, 48))
        found = session(("TS_01", {}), gain=gain)
        assert values(found)["acquisition.gain_transpose"] is True
        assert any("transpose" in warning for warning in found.warnings)

    def test_of_another_camera(self, session, tmp_path):
        gain = self.write(tmp_path / "gain.tif", (40, 40))
        found = session(("TS_01", {}), gain=gain)
        assert any("does not belong" in warning for warning in found.warnings)

    def test_unreadable(self, session, tmp_path):
        (tmp_path / "gain.tif").write_text("no")
        with pytest.raises(FileFormatError, match="gain"):
            session(("TS_01", {}), gain=tmp_path / "gain.tif")
