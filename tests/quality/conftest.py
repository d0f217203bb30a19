"""A project after all four stages: real result files, real MRC volumes, small numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from crboost.history import PastJob
from crboost.results import SeriesResult, write_result

JOBS = {
    "importmovies": "External/job001/",
    "fsMotionAndCtf": "External/job002/",
    "tsAlignment": "External/job003/",
    "tsReconstruct": "External/job004/",
}
ANGLES = [0, 3, -3, -6, 6, 9, -9, -12, 12, 15, -15]
MISSING, DEAD = 4, 7


@dataclass
class Files:
    """A directory with a ledger in memory: what quality asks of a project."""

    directory: Path
    past: list[PastJob] = field(default_factory=list)

    def history(self) -> Sequence[PastJob]:
        """Every process in the ledger."""
        return self.past

    def add(self, job_type: str, job: str, status: str = "Succeeded") -> None:
        """One more process."""
        self.past.append(PastJob(job, status, job_type=job_type, node=job_type))

    def write(self, job_type: str, name: str, **values: Any) -> None:
        """One more tilt-series result in the newest job of that type."""
        job = next(past.name for past in reversed(self.past) if past.job_type == job_type)
        values = {"status": "done", "fingerprint": "f", "input_fingerprint": "i", **values}
        write_result(self.directory / job, SeriesResult(tilt_series=name, **values))


def tilt_names(name: str) -> list[str]:
    """Names in order of acquisition."""
    return [f"{name}_{order:03d}_{angle:.1f}" for order, angle in enumerate(ANGLES, start=1)]


def curve(defocus_um: float) -> dict[str, list[float]]:
    """|CTF| of a defocus at 300 kV, and a noisy copy of it."""
    frequency = np.linspace(1 / 40, 1 / 8, 160)
    fit = np.abs(np.sin(math.pi * 0.0197 * defocus_um * 1e4 * frequency**2 + 0.1)) - 0.5
    power = fit + np.random.default_rng(1).normal(0, 0.15, fit.size)
    return {
        "frequency_per_angstrom": frequency.tolist(),
        "power": power.tolist(),
        "fit": fit.tolist(),
    }


def add_series(project: Files, name: str) -> None:
    """All four stages of one tilt series: one movie is missing, one tilt is dead."""
    names = tilt_names(name)
    records = [
        {"name": tilt, "tilt_angle_deg": float(angle), "status": "done", "reason": None}
        for tilt, angle in zip(names, ANGLES, strict=True)
    ]
    imported = [dict(record, order=order) for order, record in enumerate(records)]
    imported[MISSING] |= {"status": "missing", "reason": f"movie {names[MISSING]}.tif is missing"}
    warning = f"tilt {MISSING + 1} (+6.0 deg): movie {names[MISSING]}.tif is missing"
    total = {"tilts": 10, "tilts_total": 11}
    project.write("importmovies", name, metrics=total, tilts=imported, warnings=[warning])
    present = [record for position, record in enumerate(records) if position != MISSING]
    # The dead tilt's "motion" is noise; the tool's own mean counts it.
    motions = [
        600.0 if record["name"] == names[DEAD] else 2.0 + 0.1 * position
        for position, record in enumerate(present)
    ]
    measured = [
        dict(record, motion_total_angstrom=motion, ctf_max_resolution_angstrom=11.0)
        for record, motion in zip(present, motions, strict=True)
    ]
    metrics = {"motion_angstrom": 60.0, "defocus_um": 3.02, "ctf_resolution_angstrom": 11.0}
    project.write(
        "fsMotionAndCtf", name, metrics=metrics | {"tilts": 10, "tilts_total": 10}, tilts=measured
    )
    tool = project.directory / "External/job002/cpu" / name
    tool.mkdir(parents=True)
    frames = [
        {
            "name": record["name"],
            "status": "done",
            "defocus_u_angstrom": 30300.0 + 10 * position,
            "defocus_v_angstrom": 30100.0,
            "ctf_curve": curve(3.02),
        }
        for position, record in enumerate(present)
    ]
    (tool / "result.json").write_text(json.dumps({"tilt_series": name, "tilts": frames}))
    exposures = [
        {"name": record["name"], "pre_exposure_e_per_a2": 3.0 * position}
        for position, record in enumerate(present)
    ]
    (tool / "frames.json").write_text(json.dumps({"tilts": exposures}))
    aligned = [dict(record, status="aligned") for record in present]
    dead = next(record for record in aligned if record["name"] == names[DEAD])
    dead |= {"status": "excluded", "reason": "dark"}
    project.write(
        "tsAlignment",
        name,
        metrics={
            "tilts": 9,
            "tilts_total": 10,
            "alignment_residual_px": 0.31,
            "tilt_axis_deg": 85.02,
            "beads": 12,
        },
        tilts=aligned,
        warnings=[f"tilt image {names[DEAD]} (-12.0 deg) is excluded: dark"],
    )
    tomogram = f"External/job004/cpu/{name}/{name}.mrc"
    write_tomogram(project.directory / tomogram)
    project.write(
        "tsReconstruct",
        name,
        metrics={"tilts": 9, "tomogram": tomogram, "tomogram_pixel_size_angstrom": 16.0},
        tilts=[record for record in aligned if record["status"] == "aligned"],
    )


def write_tomogram(path: Path) -> None:
    """Beads in noise, [24, 96, 128] at 16 A."""
    generator = np.random.default_rng(3)
    volume = generator.normal(0, 1, (24, 96, 128)).astype(np.float32)
    z, y, x = np.ogrid[:24, :96, :128]
    for centre in generator.uniform((8, 8, 8), (16, 88, 120), (12, 3)):
        distance = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2
        volume -= 12 * np.exp(-distance / 6)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, volume) as file:
        file.voxel_size = 16.0


@pytest.fixture
def project(tmp_path: Path) -> Files:
    """Two tilt series: TS_01 went all the way, TS_02 failed in the alignment."""
    made = Files(tmp_path)
    for job_type, job in JOBS.items():
        made.add(job_type, job)
    add_series(made, "TS_01")
    made.write("importmovies", "TS_02", metrics={"tilts": 11, "tilts_total": 11})
    made.write("fsMotionAndCtf", "TS_02", metrics={"motion_angstrom": 4.0, "tilts": 11})
    made.write("tsAlignment", "TS_02", status="failed", reason="all tilt images are dark")
    return made
