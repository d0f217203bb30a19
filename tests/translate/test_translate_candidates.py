"""Candidates of pytom-match-pick as RELION 5 particles: places and orientations, by geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import starfile
from scipy.spatial.transform import Rotation

from crboost.cpu.geometry import TiltAlignment, project
from crboost.errors import FileFormatError
from crboost.translate.candidates import (
    particle_rows,
    read_candidates,
    write_optimisation_set,
    write_particles,
)
from crboost.translate.tables import Row

GLOBAL = {
    "rlnTomoName": "TS_01",
    "rlnTomoTiltSeriesPixelSize": 4.0,
    "rlnTomoTomogramBinning": 4.0,
    "rlnTomoSizeX": 512,
    "rlnTomoSizeY": 480,
    "rlnTomoSizeZ": 200,
}


def pytom_angles(z1: float, x: float, z2: float) -> tuple[float, float, float]:
    """What pytom writes for its orientation (radians): see `extract_particles`, `convert_euler`."""
    rot, tilt, psi = Rotation.from_euler("ZXZ", [-z1, -x, -z2]).as_euler("ZYZ", degrees=True)
    return float(rot), float(tilt), float(psi)


def relion_matrix(row: dict[str, float]) -> np.ndarray:
    """From the particle to the tomogram, written out as in `Euler::anglesToMatrix3`."""
    phi, theta, chi = (np.deg2rad(row[f"rlnAngle{name}"]) for name in ("Rot", "Tilt", "Psi"))
    sp, cp, st, ct = np.sin(phi), np.cos(phi), np.sin(theta), np.cos(theta)
    sc, cc = np.sin(chi), np.cos(chi)
    return np.array(
        [
            [cc * ct * cp - sc * sp, cc * ct * sp + sc * cp, -cc * st],
            [-sc * ct * cp - cc * sp, -sc * ct * sp + cc * cp, sc * st],
            [st * cp, st * sp, ct],
        ]
    )


def about_z(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def about_x(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def candidate(voxel: tuple[float, float, float], angles: tuple[float, float, float]) -> Row:
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
    return {
        **{f"rlnCoordinate{axis}": value for axis, value in zip("XYZ", voxel, strict=True)},
        **dict(zip(names, pytom_angles(*angles), strict=True)),
        "rlnLCCmax": 0.4,
        "rlnCutOff": 0.1,
        "rlnSearchStd": 0.02,
        "rlnDetectorPixelSize": 16.0,
        "rlnMicrographName": "TS_01",
    }


@pytest.mark.parametrize("angles", [(0.3, 0.7, 5.1), (2.0, 2.9, 0.1), (0.0, 0.0, 1.0), (6, 1, 4)])
def test_the_orientation_is_the_one_that_pytom_turned_the_template_by(
    angles: tuple[float, float, float],
) -> None:
    """pytom takes a template's point t to Rz(z2) Rx(x) Rz(z1) t: voltools' rzxz, inverted."""
    (row,) = particle_rows([candidate((1, 2, 3), angles)], "TS_01", GLOBAL)
    z1, x, z2 = angles
    np.testing.assert_allclose(
        relion_matrix(row), about_z(z2) @ about_x(x) @ about_z(z1), atol=1e-9
    )


def test_a_particle_lands_in_the_images_where_its_voxel_does() -> None:
    """Seen through RELION's model, from the row that we write and from the tomogram's voxel."""
    voxel = (50, 61, 20)
    (row,) = particle_rows([candidate(voxel, (0.1, 0.2, 0.3))], "TS_01", GLOBAL)
    centred = [row[f"rlnCenteredCoordinate{axis}Angst"] for axis in "XYZ"]
    # The voxel: unbinned coordinate = voxel times binning; the centre is half of the size.
    expected = (np.array(voxel) * 4 - np.array([512, 480, 200]) / 2) * 4.0
    np.testing.assert_allclose(centred, expected)
    for tilt in (-48.0, 0.0, 30.0):
        alignment = TiltAlignment(0.0, tilt, 85.0, 12.0, -20.0)
        (seen,) = project(np.array([centred]) / 4.0, alignment, 4.0)[:, :2]
        by_hand = _relion_projection(np.array(voxel) * 4.0, tilt)
        np.testing.assert_allclose(seen, by_hand, atol=1e-6)


def _relion_projection(unbinned: np.ndarray, tilt_deg: float) -> np.ndarray:
    """`Tomogram::setProjectionMatrix` written out, image coordinates from the image's centre."""
    x, y, z = unbinned - np.array([256, 240, 100])
    t, a = np.deg2rad(tilt_deg), np.deg2rad(85.0)
    turned = x * np.cos(t) + z * np.sin(t)
    return np.array(
        [
            turned * np.cos(a) - y * np.sin(a) + 12.0 / 4.0,
            turned * np.sin(a) + y * np.cos(a) - 20.0 / 4.0,
        ]
    )


def test_the_pixel_size_of_a_particle_is_the_tilt_series_own(tmp_path: Path) -> None:
    """pytom 0.10 writes the tomogram's voxel size as rlnTomoTiltSeriesPixelSize; we do not."""
    rows = particle_rows([candidate((1, 1, 1), (0, 0, 0))] * 2, "01", GLOBAL)
    write_particles(tmp_path / "candidates.star", rows)
    read = starfile.read(
        tmp_path / "candidates.star", always_dict=True, parse_as_string=["rlnTomoName"]
    )
    assert list(read) == ["particles"]
    assert list(read["particles"]["rlnTomoTiltSeriesPixelSize"]) == [4.0, 4.0]
    assert list(read["particles"]["rlnTomoParticleName"]) == ["01/1", "01/2"]
    assert list(read["particles"]["rlnTomoName"]) == ["01", "01"]


def test_pytoms_table_is_read_also_when_it_is_empty(tmp_path: Path) -> None:
    import pandas as pd

    columns = list(candidate((1, 1, 1), (0, 0, 0)))
    for rows in ([], [candidate((1, 2, 3), (0, 0, 0))]):
        frame = pd.DataFrame([list(row.values()) for row in rows], columns=columns)
        starfile.write({"particles": frame}, tmp_path / "p.star", overwrite=True)
        assert len(read_candidates(tmp_path / "p.star")) == len(rows)


def test_a_table_that_is_not_pytoms_is_refused(tmp_path: Path) -> None:
    import pandas as pd

    starfile.write({"particles": pd.DataFrame({"rlnCoordinateX": [1.0]})}, tmp_path / "p.star")
    with pytest.raises(FileFormatError, match="has no column rlnCoordinateY"):
        read_candidates(tmp_path / "p.star")


@pytest.mark.parametrize("value", ["abc", "nan", "inf"])
@pytest.mark.parametrize("column", ["rlnAnglePsi", "rlnLCCmax", "rlnCutOff"])
def test_a_cell_that_is_no_number_is_named(tmp_path: Path, column: str, value: str) -> None:
    row = {**candidate((1, 2, 3), (0, 0, 0)), "rlnCutOff": 0.1, column: value}
    labels = "".join(f"_{name}\n" for name in row)
    cells = " ".join(str(cell) for cell in row.values())
    (tmp_path / "p.star").write_text(f"data_particles\n\nloop_\n{labels}{cells}\n")
    with pytest.raises(FileFormatError, match=rf"p\.star: row 1: {column} is not a number"):
        read_candidates(tmp_path / "p.star")


def test_an_optimisation_set_names_its_two_tables(tmp_path: Path) -> None:
    write_optimisation_set(tmp_path / "o.star", "J/candidates.star", "J/tomograms.star")
    text = (tmp_path / "o.star").read_text()
    assert "\ndata_\n" in text
    read = starfile.read(tmp_path / "o.star")
    assert read == {
        "rlnTomoParticlesFile": "J/candidates.star",
        "rlnTomoTomogramsFile": "J/tomograms.star",
    }


def test_both_half_sets_are_filled_and_stay_as_they_are() -> None:
    """RELION 5.1 makes half maps of half sets only."""
    table = dict.fromkeys(("rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"), 100)
    table |= {"rlnTomoTiltSeriesPixelSize": 2.0, "rlnTomoTomogramBinning": 4.0}
    one = dict.fromkeys(
        [f"rlnCoordinate{axis}" for axis in "XYZ"]
        + [f"rlnAngle{name}" for name in ("Rot", "Tilt", "Psi")],
        1.0,
    )

    def halves(name: str, count: int) -> list[int]:
        return [row["rlnRandomSubset"] for row in particle_rows([one] * count, name, table)]

    assert sorted(halves("TS_01", 6)) == [1, 1, 1, 2, 2, 2]
    assert halves("TS_01", 6)[:4] == halves("TS_01", 4)
    assert {halves(f"TS_{number:02}", 1)[0] for number in range(1, 9)} == {1, 2}
