"""Candidates of one tilt series -> the exact command of WarpTools, and the file that it reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from crboost.builders.contract import check, contract
from crboost.builders.series_values import TiltSeries
from crboost.builders.step import Step
from crboost.builders.warp_particles import export_particles
from crboost.errors import ParameterError
from crboost.parameters import ProjectParameters, SubtomoExtraction
from crboost.relion.star import parse_star

OUT = "External/job009/warp/TS_01"
IMPORTED = "External/job003/warp/TS_01"
WITH_CTF = "External/job005/warp/TS_01/warp_tiltseries"
SIZE = {"rlnTomoSizeX": 4096, "rlnTomoSizeY": 4000, "rlnTomoSizeZ": 1001}
SERIES = TiltSeries(
    "TS_01",
    {"rlnMicrographOriginalPixelSize": 0.675, "rlnTomoTiltSeriesPixelSize": 1.35, **SIZE},
    [],
)


def candidate(**values: float) -> dict[str, Any]:
    places = {f"rlnCenteredCoordinate{axis}Angst": 0.0 for axis in "XYZ"}
    angles = {"rlnAngleRot": 10.0, "rlnAngleTilt": 20.0, "rlnAnglePsi": -30.0}
    return {"rlnTomoName": "TS_01", "rlnTomoParticleName": "TS_01/1", **places, **angles, **values}


def export(*candidates: dict[str, Any], **values: object) -> Step:
    changes = {"tool": "warp", **values}
    new = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC))
    seen = new.with_values(
        {f"jobs.subtomoExtraction.{name}": value for name, value in changes.items()}
    ).effective("subtomoExtraction")
    job = seen.job_as(SubtomoExtraction)
    (step,) = export_particles(SERIES, seen, job, OUT, IMPORTED, WITH_CTF, candidates)
    return step


def read(step: Step) -> list[dict[str, str]]:
    (text,) = step.files.values()
    return parse_star(text).blocks[0].records()


def test_the_command_for_stacks() -> None:
    step = export(candidate(), binning=2)
    assert step.argv == (
        *("WarpTools", "ts_export_particles"),
        *("--settings", "../../../job003/warp/TS_01/warp_tiltseries.settings"),
        *("--input_processing", "../../../job005/warp/TS_01/warp_tiltseries"),
        *("--output_processing", "warp_tiltseries", "--input_star", "candidates.star"),
        *("--coords_angpix", "1", "--output_star", "particles.star", "--relative_output_paths"),
        *("--output_angpix", "2.7", "--box", "224", "--diameter", "605"),
        *("--2d", "--max_missing_tilts", "5", "--perdevice", "1"),
    )
    assert (step.directory, step.tool) == (OUT, "warp")
    assert step.creates == (f"{OUT}/particles.star",)
    assert list(step.files) == [f"{OUT}/candidates.star"]


@pytest.mark.parametrize("version", [*contract().versions])
@pytest.mark.parametrize("stacks", [True, False])
def test_the_command_keeps_to_the_contract_of_every_version(version: str, stacks: bool) -> None:
    values = {"do_stack2d": stacks, "particle_diameter": 250.5, "crop_size": -1, "perdevice": 0}
    argv = export(candidate(), **values).argv
    assert check(argv, version) == []
    assert ("--2d" in argv, "--3d" in argv) == (stacks, not stacks)
    assert ("--max_missing_tilts" in argv) == stacks
    assert argv[argv.index("--box") + 1] == "384"
    assert argv[argv.index("--diameter") + 1] == "251"


def test_candidates_are_given_in_angstrom_from_voxel_0() -> None:
    shift = {"rlnOriginXAngst": 2.5, "rlnOriginYAngst": 0.0, "rlnOriginZAngst": -1.0}
    moved = {"rlnCenteredCoordinateXAngst": -100.0, "rlnCenteredCoordinateZAngst": 50.0}
    rows = read(export(candidate(), candidate(**moved, **shift)))
    assert {row["rlnTomoName"] for row in rows} == {"TS_01.tomostar"}
    places = [[float(row[f"rlnCoordinate{axis}"]) for axis in "XYZ"] for row in rows]
    half = [4096 / 2 * 1.35, 4000 / 2 * 1.35, 1001 / 2 * 1.35]
    assert places[0] == pytest.approx(half, abs=1e-3)
    assert places[1] == pytest.approx([half[0] - 102.5, half[1], half[2] + 51.0], abs=1e-3)
    angles = [float(rows[1][f"rlnAngle{name}"]) for name in ("Rot", "Tilt", "Psi")]
    assert angles == [10.0, 20.0, -30.0]


def test_what_warptools_cannot_know_is_refused() -> None:
    with pytest.raises(ParameterError, match="rlnTomoSubtomogramRot"):
        export(candidate(rlnTomoSubtomogramRot=3.0))
    assert read(export(candidate(rlnTomoSubtomogramRot=0.0)))
    with pytest.raises(ParameterError, match="TS_01/1 has no rlnCenteredCoordinateXAngst"):
        old = candidate()
        del old["rlnCenteredCoordinateXAngst"]
        export(old)


@pytest.mark.parametrize("words", ["--3d", "--input_star x.star", "--output_processing x"])
def test_what_is_ours_to_say_is_not_the_users(words: str) -> None:
    with pytest.raises(ParameterError, match="is not for you to give"):
        export(candidate(), warp_arguments=words)
    assert "--dont_normalize_input" in export(warp_arguments="--dont_normalize_input").argv
