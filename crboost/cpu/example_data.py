"""Example data: simulated tilt series as a microscope leaves them, with the truth beside them.

`make_example_data` writes movies (`frames/`), SerialEM mdocs and `truth.json`. One of the series
lacks a movie that its mdoc names, one has a dead tilt (blank beam): both happen at every session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crboost.cpu.ctf import Optics
from crboost.cpu.io import write_mrc, write_tiff_movie
from crboost.cpu.simulate import (
    Camera,
    Exposure,
    Specimen,
    dose_symmetric,
    expose,
    make_exposures,
    make_specimen,
)
from crboost.cpu.workers import run_tasks
from crboost.errors import ParameterError
from crboost.files import write_bytes, write_json

#: Called with a line of text, movies written so far, and movies in all.
Progress = Callable[[str, int, int], None]

NOMINAL_TILT_AXIS_DEG = 85.0
#: The true axis differs from the one in the mdoc, series by series, as at a real microscope.
TILT_AXIS_ERRORS_DEG = (0.4, -0.6, 0.8)
NOMINAL_DEFOCUS_UM = (3.0, 3.5, 4.0)
VOLTAGE_KV = 300.0
SPHERICAL_ABERRATION_MM = 2.7
AMPLITUDE_CONTRAST = 0.1
#: rlnTomoHand of the simulated microscope: RELION's default.
HAND = -1
BEAD_DIAMETER_NM = 10.0
#: Of the slab, and at most this share of the field of view, so that beads stay in view.
THICKNESS_NM = 80.0
THICKNESS_SHARE = 0.4
FIRST_EXPOSURE = datetime(2026, 5, 1, 10, 0, 0)
SECONDS_PER_TILT = 60
#: Index of the series written as MRC movies; the others are LZW TIFF.
MRC_SERIES = 1
MISSING_MOVIE_SERIES = 1
DEAD_TILT_SERIES = 2


@dataclass(frozen=True)
class ExampleSeries:
    """One example tilt series.

    Attributes:
        name: such as TS_01.
        mdoc: its SerialEM metadata.
        movies: the movies on disk, in the order of acquisition.
        missing: name of the movie that the mdoc names and that is not there, or None.
        dead: name of the movie that was taken with a blank beam, or None.
    """

    name: str
    mdoc: Path
    movies: tuple[Path, ...]
    missing: str | None
    dead: str | None


@dataclass(frozen=True)
class ExampleData:
    """What `make_example_data` wrote.

    Attributes:
        directory: that holds everything.
        series: the tilt series.
        truth: path of `truth.json`; see `docs/conventions.md` for its fields.
        pixel_size_angstrom, voltage_kv, spherical_aberration_mm, amplitude_contrast,
        dose_per_tilt_e_per_a2, tilt_axis_deg, thickness_nm: what a user would set.
    """

    directory: Path
    series: tuple[ExampleSeries, ...]
    truth: Path
    pixel_size_angstrom: float
    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float
    dose_per_tilt_e_per_a2: float
    tilt_axis_deg: float
    thickness_nm: float

    @property
    def frames_directory(self) -> Path:
        """Where the movies are."""
        return self.directory / "frames"

    @property
    def mdocs(self) -> tuple[Path, ...]:
        """The mdocs, one per series."""
        return tuple(series.mdoc for series in self.series)


@dataclass(frozen=True)
class _Job:
    """One movie to simulate; small, so that it travels to a worker process quickly."""

    series: int
    exposure: Exposure
    path: Path


def make_example_data(
    directory: Path,
    *,
    seed: int = 2026,
    series: int = 3,
    size_px: int = 512,
    frames: int = 5,
    pixel_size_angstrom: float = 4.0,
    tilt_range_deg: float = 60.0,
    tilt_step_deg: float = 3.0,
    dose_per_tilt_e_per_a2: float = 3.0,
    defects: bool = True,
    workers: int = 2,
    progress: Progress | None = None,
) -> ExampleData:
    """Simulate tilt series and write them as a microscope would.

    The files depend on the arguments only, not on `workers`.

    Args:
        directory: to write to; created.
        seed: of all random numbers.
        series: number of tilt series, TS_01 onwards. TS_02 is written as MRC movies and lacks
            one; TS_03 has a dead tilt.
        size_px: side of the square images, at least 128.
        frames: per movie, at least 2.
        pixel_size_angstrom: of the images.
        tilt_range_deg, tilt_step_deg: dose-symmetric from -range to +range.
        dose_per_tilt_e_per_a2: exposure of each tilt.
        defects: whether to leave out a movie and blank a tilt at all.
        workers: processes.
        progress: called after every movie.

    Raises:
        ParameterError: an argument out of its bounds.
    """
    _check(series, size_px, frames, tilt_range_deg, tilt_step_deg)
    angles = dose_symmetric(tilt_range_deg, tilt_step_deg)
    thickness_nm = min(THICKNESS_NM, THICKNESS_SHARE * size_px * pixel_size_angstrom / 10)
    (directory / "frames").mkdir(parents=True, exist_ok=True)
    jobs: list[_Job] = []
    cameras: list[Camera] = []
    specimens: list[Specimen] = []
    described: list[ExampleSeries] = []
    truths: list[dict[str, Any]] = []
    for index in range(series):
        name = f"TS_{index + 1:02d}"
        defocus_um = _cycle(NOMINAL_DEFOCUS_UM, index)
        camera = Camera(
            size_px=size_px,
            pixel_size_angstrom=pixel_size_angstrom,
            frames=frames,
            dose_per_tilt_e_per_a2=dose_per_tilt_e_per_a2,
            tilt_axis_deg=NOMINAL_TILT_AXIS_DEG + _cycle(TILT_AXIS_ERRORS_DEG, index),
            optics=Optics(VOLTAGE_KV, SPHERICAL_ABERRATION_MM, AMPLITUDE_CONTRAST),
            hand=HAND,
        )
        specimen = make_specimen(
            np.random.default_rng([seed, index]),
            size_px,
            pixel_size_angstrom,
            beads=12 if size_px >= 384 else 8,
            thickness_angstrom=thickness_nm * 10,
            bead_diameter_angstrom=BEAD_DIAMETER_NM * 10,
        )
        missing_deg = _defect(angles, 0.4) if defects and index == MISSING_MOVIE_SERIES else None
        dead_deg = _defect(angles, -0.6) if defects and index == DEAD_TILT_SERIES else None
        exposures = make_exposures(
            np.random.default_rng([seed, index, 0]),
            angles,
            frames,
            defocus_um=defocus_um,
            shift_sigma_px=10.0 * size_px / 512,
            drift_sigma_px=1.0,
            dead_tilt_deg=dead_deg,
        )
        suffix = "mrc" if index == MRC_SERIES else "tif"
        movies = [
            directory
            / "frames"
            / f"{name}_{exposure.order + 1:03d}_{exposure.tilt_deg:.1f}.{suffix}"
            for exposure in exposures
        ]
        kept = [
            _Job(index, exposure, movie)
            for exposure, movie in zip(exposures, movies, strict=True)
            if exposure.tilt_deg != missing_deg
        ]
        jobs += kept
        cameras.append(camera)
        specimens.append(specimen)
        missing = next(
            (m.name for e, m in zip(exposures, movies, strict=True) if e.tilt_deg == missing_deg),
            None,
        )
        dead = next((m.name for e, m in zip(exposures, movies, strict=True) if e.dead), None)
        mdoc = directory / f"{name}.mdoc"
        described.append(ExampleSeries(name, mdoc, tuple(job.path for job in kept), missing, dead))
        truths.append(_truth(name, camera, specimen, exposures, movies, missing, defocus_um))
        write_bytes(mdoc, _mdoc(name, camera, exposures, movies, defocus_um).encode("latin-1"))
    task = partial(_take_movie, seed=seed, cameras=cameras, specimens=specimens)
    for done, (index, text) in enumerate(run_tasks(task, jobs, workers), start=1):
        if progress is not None:
            progress(f"{jobs[index].path.name}: {text}", done, len(jobs))
    truth = directory / "truth.json"
    write_json(truth, {"seed": seed, "hand": HAND, "series": truths})
    return ExampleData(
        directory=directory,
        series=tuple(described),
        truth=truth,
        pixel_size_angstrom=pixel_size_angstrom,
        voltage_kv=VOLTAGE_KV,
        spherical_aberration_mm=SPHERICAL_ABERRATION_MM,
        amplitude_contrast=AMPLITUDE_CONTRAST,
        dose_per_tilt_e_per_a2=dose_per_tilt_e_per_a2,
        tilt_axis_deg=NOMINAL_TILT_AXIS_DEG,
        thickness_nm=thickness_nm,
    )


def _check(
    series: int, size_px: int, frames: int, tilt_range_deg: float, tilt_step_deg: float
) -> None:
    for name, value, good, wanted in (
        ("series", series, series >= 1, "at least 1"),
        ("size_px", size_px, size_px >= 128 and size_px % 2 == 0, "even and at least 128"),
        ("frames", frames, frames >= 2, "at least 2"),
        ("tilt_range_deg", tilt_range_deg, 0 < tilt_range_deg <= 70, "above 0, at most 70"),
        ("tilt_step_deg", tilt_step_deg, tilt_step_deg > 0, "above 0"),
    ):
        if not good:
            raise ParameterError(f"{name} is {value}, must be {wanted}")


def _cycle(values: tuple[float, ...], index: int) -> float:
    return values[index % len(values)]


def _defect(angles: list[float], fraction: float) -> float:
    """The tilt angle nearest to a fraction of the highest one, never the untilted one."""
    target = fraction * max(angles)
    return min((angle for angle in angles if angle != 0), key=lambda angle: abs(angle - target))


def _take_movie(job: _Job, *, seed: int, cameras: list[Camera], specimens: list[Specimen]) -> str:
    camera = cameras[job.series]
    # One generator per movie: the result does not depend on who takes it, or when.
    rng = np.random.default_rng([seed, job.series, 1, job.exposure.order])
    movie = expose(rng, specimens[job.series], job.exposure, camera)
    if job.path.suffix == ".mrc":
        # Mode 0, as electron-counting cameras write it; in MRC2014 that is signed.
        data = np.minimum(movie, 127).astype(np.int8)
        write_mrc(job.path, data, camera.pixel_size_angstrom)
    else:
        data = np.minimum(movie, 255).astype(np.uint8)
        write_tiff_movie(job.path, data, camera.pixel_size_angstrom)
    return f"{job.exposure.tilt_deg:+.1f} deg, {movie.sum() / movie[0].size:.1f} counts per pixel"


def _truth(
    name: str,
    camera: Camera,
    specimen: Specimen,
    exposures: list[Exposure],
    movies: list[Path],
    missing: str | None,
    nominal_defocus_um: float,
) -> dict[str, Any]:
    return {
        "name": name,
        "nominal_defocus_um": nominal_defocus_um,
        "size_px": camera.size_px,
        "pixel_size_angstrom": camera.pixel_size_angstrom,
        "tilt_axis_deg": camera.tilt_axis_deg,
        "thickness_px": specimen.thickness_px,
        "beads_xyz_px": specimen.beads.tolist(),
        "outer_beads_xyz_px": specimen.outer_beads.tolist(),
        "bead_diameter_angstrom": 2 * specimen.bead_radius_angstrom,
        "tilts": [
            {
                "name": movie.stem,
                "movie": movie.name,
                "on_disk": movie.name != missing,
                "dead": exposure.dead,
                "tilt_angle_deg": exposure.tilt_deg,
                "order": exposure.order,
                "pre_exposure_e_per_a2": exposure.order * camera.dose_per_tilt_e_per_a2,
                "shift_xy_px": list(exposure.shift_xy_px),
                "drift_xy_px": exposure.drift_xy_px.tolist(),
                "defocus_u_angstrom": exposure.defocus_u_angstrom,
                "defocus_v_angstrom": exposure.defocus_v_angstrom,
                "defocus_angle_deg": exposure.defocus_angle_deg,
            }
            for exposure, movie in zip(exposures, movies, strict=True)
        ],
    }


def _mdoc(
    name: str,
    camera: Camera,
    exposures: list[Exposure],
    movies: list[Path],
    defocus_um: float,
) -> str:
    """An mdoc as SerialEM writes it for frames saved beside a tilt series."""
    pixel = f"{camera.pixel_size_angstrom:g}"
    size = camera.size_px
    stamp = FIRST_EXPOSURE.strftime("%d-%b-%y  %H:%M:%S")
    lines = [
        f"PixelSpacing = {pixel}",
        f"Voltage = {camera.optics.voltage_kv:.0f}",
        f"ImageFile = {name}.mrc",
        f"ImageSize = {size} {size}",
        "DataMode = 1",
        "",
        f"[T = SerialEM: Simulated example data, no microscope        {stamp}    ]",
        "",
        f"[T =     Tilt axis angle = {NOMINAL_TILT_AXIS_DEG:.1f}, binning = 1  spot = 8  "
        "camera = 0]",
        "",
    ]
    dose = camera.dose_per_tilt_e_per_a2
    for exposure, movie in zip(exposures, movies, strict=True):
        time = FIRST_EXPOSURE + timedelta(seconds=SECONDS_PER_TILT * (exposure.order + 1))
        x, y = (shift * camera.pixel_size_angstrom * 1e-4 for shift in exposure.shift_xy_px)
        lines += [
            f"[ZValue = {exposure.order}]",
            f"TiltAngle = {exposure.tilt_deg:g}",
            "StagePosition = 0 0",
            "StageZ = 0",
            "Magnification = 33000",
            "Intensity = 0.11",
            f"ExposureDose = {dose:g}",
            f"PixelSpacing = {pixel}",
            "SpotSize = 8",
            f"Defocus = {-defocus_um:g}",
            f"ImageShift = {x:.5f} {y:.5f}",
            f"RotationAngle = {NOMINAL_TILT_AXIS_DEG + 90:g}",
            "ExposureTime = 1",
            "Binning = 1",
            "CameraIndex = 0",
            "DividedBy2 = 0",
            "MagIndex = 26",
            "CountsPerElectron = 1",
            f"TargetDefocus = {-defocus_um:g}",
            f"SubFramePath = X:\\example\\frames\\{movie.name}",
            f"NumSubFrames = {camera.frames}",
            f"FrameDosesAndNumber = {dose / camera.frames:g} {camera.frames}",
            f"DateTime = {time.strftime('%d-%b-%y  %H:%M:%S')}",
            "",
        ]
    return "\n".join(lines) + "\n"
