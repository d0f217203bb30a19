"""The three commands of `python -m crboost.cpu`: spec in, files and `result.json` out.

`docs/architecture.md` ("The CPU tools' contract") says what the specs and results hold.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from crboost.cpu.align import coarse_alignment, dead_tilts, prepare
from crboost.cpu.arrays import Floats
from crboost.cpu.beads import BeadAlignment, align_on_beads
from crboost.cpu.ctf import Optics
from crboost.cpu.frames import FrameSettings, TiltMovie, process_tilt
from crboost.cpu.geometry import TiltAlignment
from crboost.cpu.io import read_mrc, write_mrc
from crboost.cpu.reconstruct import TiltImage, TomogramGrid, reconstruct, tomogram_grid
from crboost.cpu.spec import Fields, read_spec
from crboost.cpu.workers import run_tasks
from crboost.errors import CrboostError, FileFormatError, ParameterError
from crboost.files import write_json

Report = Callable[[str], None]

#: The slab searched for beads is this much thicker than the sample is said to be.
BEAD_SLAB_MARGIN = 1.3
#: Fewer images than this are no tilt series.
MIN_TILTS = 3


def versions() -> dict[str, str]:
    """Of everything that has a hand in the numbers."""
    names = ("crboost", "numpy", "scipy", "mrcfile", "tifffile", "imagecodecs")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def run_frames(spec_path: Path, directory: Path, workers: int, report: Report) -> None:
    """Motion correction and CTF of one tilt series; see `frames` in docs/architecture.md.

    Raises:
        CrboostError: the spec or the gain reference is bad; a bad movie fails its tilt only.
    """
    spec = read_spec(spec_path)
    name = spec.text("tilt_series")
    settings = _frame_settings(spec)
    if settings.gain_reference is not None and not settings.gain_reference.exists():
        raise FileFormatError(settings.gain_reference, "the gain reference is missing")
    movies = [
        TiltMovie(
            name=tilt.text("name"),
            movie=tilt.path("movie"),
            tilt_angle_deg=tilt.number("tilt_angle_deg"),
            nominal_defocus_um=tilt.optional_number("nominal_defocus_um"),
        )
        for tilt in spec.objects("tilts")
    ]
    _check_unique([movie.name for movie in movies], spec)
    directory.mkdir(parents=True, exist_ok=True)
    entries: list[dict[str, Any]] = [{} for _ in movies]
    task = partial(process_tilt, settings=settings, directory=directory)
    for done, (index, entry) in enumerate(run_tasks(task, movies, workers), start=1):
        entries[index] = entry
        angle = movies[index].tilt_angle_deg
        report(f"{name} tilt {done}/{len(movies)} {angle:+.1f} deg: {_frame_summary(entry)}")
    result = {"tilt_series": name, "versions": versions(), "tilts": entries}
    write_json(directory / "result.json", result)


def _frame_settings(spec: Fields) -> FrameSettings:
    resolution = spec.numbers("motion_resolution_angstrom", 2, default=[500, 10])
    ctf_resolution = spec.numbers("ctf_resolution_angstrom", 2, default=[30, 6])
    defocus = spec.numbers("ctf_defocus_um", 2, default=[1.1, 8.0])
    for field, (first, second), falling in (
        ("motion_resolution_angstrom", resolution, True),
        ("ctf_resolution_angstrom", ctf_resolution, True),
        ("ctf_defocus_um", defocus, False),
    ):
        if not (first > second > 0 if falling else 0 < first < second):
            order = "[low, high] resolution, the larger number first" if falling else "[min, max]"
            raise ParameterError(
                f"{spec.where}: field {field!r} is [{first:g}, {second:g}], must be {order}"
            )
    fractions = spec.has("eer_fractions_per_frame")
    return FrameSettings(
        pixel_size_angstrom=spec.number("pixel_size_angstrom", above=0),
        optics=Optics(
            voltage_kv=spec.number("voltage_kv", above=0),
            spherical_aberration_mm=spec.number("spherical_aberration_mm", at_least=0),
            amplitude_contrast=_amplitude_contrast(spec),
        ),
        dose_per_tilt_e_per_a2=spec.number("dose_per_tilt_e_per_a2", at_least=0),
        gain_reference=spec.optional_path("gain_reference"),
        gain_flip_x=spec.flag("gain_flip_x", default=False),
        gain_flip_y=spec.flag("gain_flip_y", default=False),
        gain_transpose=spec.flag("gain_transpose", default=False),
        eer_fractions_per_frame=(
            spec.integer("eer_fractions_per_frame", at_least=1) if fractions else None
        ),
        motion_bfactor_a2=spec.number("motion_bfactor_a2", default=-500),
        motion_resolution_angstrom=(resolution[0], resolution[1]),
        ctf_window_px=spec.integer("ctf_window_px", default=512, at_least=32),
        ctf_resolution_angstrom=(ctf_resolution[0], ctf_resolution[1]),
        ctf_defocus_um=(defocus[0], defocus[1]),
        skip_first_frames=spec.integer("skip_first_frames", default=0),
        skip_last_frames=spec.integer("skip_last_frames", default=0),
        write_halves=spec.flag("write_halves", default=True),
    )


def _amplitude_contrast(spec: Fields) -> float:
    contrast = spec.number("amplitude_contrast", at_least=0)
    if contrast >= 1:
        raise ParameterError(
            f"{spec.where}: field 'amplitude_contrast' is {contrast:g}, must be below 1"
        )
    return contrast


def _frame_summary(entry: dict[str, Any]) -> str:
    if entry["status"] == "failed":
        return f"failed: {' '.join(str(entry['reason']).split())}"
    text = f"motion {entry['motion_total_angstrom']:.1f} A"
    if entry["defocus_u_angstrom"] is None:
        return f"{text}, no CTF"
    defocus = (entry["defocus_u_angstrom"] + entry["defocus_v_angstrom"]) / 2e4
    resolution = entry["ctf_max_resolution_angstrom"]
    return f"{text}, defocus {defocus:.2f} um, CTF fit {resolution:.1f} A"


@dataclass(frozen=True)
class _Loaded:
    """One image of `align`, or why there is none."""

    name: str
    tilt_deg: float
    image: Floats | None
    mean: float
    reason: str | None
    shape: tuple[int, int]


def run_align(spec_path: Path, directory: Path, workers: int, report: Report) -> None:
    """Alignment of one tilt series; see `align` in docs/architecture.md.

    Raises:
        CrboostError: the spec is bad, fewer than three images are usable, or `method` is `beads`
            and there are too few.
    """
    spec = read_spec(spec_path)
    name = spec.text("tilt_series")
    pixel_size = spec.number("pixel_size_angstrom", above=0)
    wanted = spec.number("alignment_pixel_size_angstrom", default=pixel_size, above=0)
    nominal_axis = spec.number("tilt_axis_deg")
    thickness_nm = spec.number("sample_thickness_nm", default=100, above=0)
    method = spec.choice("method", ("auto", "coarse", "beads"), default="auto")
    diameter_nm = spec.number("fiducial_diameter_nm", default=10, above=0)
    threshold = spec.number("dark_threshold", default=0.3, at_least=0)
    binning = max(1, round(wanted / pixel_size))
    tilts = spec.objects("tilts")
    _check_unique([tilt.text("name") for tilt in tilts], spec)
    directory.mkdir(parents=True, exist_ok=True)

    loaded = _exclude_dark(
        [
            _load_for_alignment(
                tilt.text("name"), tilt.path("image"), tilt.number("tilt_angle_deg"), binning
            )
            for tilt in tilts
        ],
        threshold,
    )
    used = [index for index, one in enumerate(loaded) if one.reason is None]
    for one in loaded:
        if one.reason is not None:
            report(f"{name} {one.name}: excluded: {' '.join(one.reason.split())}")
    if len(used) < MIN_TILTS:
        raise ParameterError(
            f"{spec.where}: {len(used)} of {len(loaded)} images of {name} can be used, "
            f"{MIN_TILTS} are needed; the first problem: "
            + next((str(one.reason) for one in loaded if one.reason), "too few images given")
        )
    images = [image for index in used if (image := loaded[index].image) is not None]
    angles = [loaded[index].tilt_deg for index in used]
    report(f"{name}: coarse alignment of {len(images)} images, binned {binning}x")
    shifts, axis = coarse_alignment(images, angles, nominal_axis)
    beads: BeadAlignment | None = None
    if method != "coarse":
        report(f"{name}: looking for beads of {diameter_nm:g} nm")
        thickness = int(thickness_nm * 10 / (pixel_size * binning) * BEAD_SLAB_MARGIN) // 8 * 8
        beads = align_on_beads(
            images,
            angles,
            shifts,
            axis,
            bead_radius_px=diameter_nm * 5 / (pixel_size * binning),
            thickness_px=max(16, thickness),
        )
    if method == "beads" and beads is None:
        raise CrboostError(
            f"{name}: fewer than three beads of {diameter_nm:g} nm could be followed",
            hint="set method to auto or coarse, or correct fiducial_diameter_nm",
        )
    if beads is not None:
        shifts, axis = beads.shifts, beads.axis_deg
    note = _alignment_note(method, beads, [loaded[index].name for index in used])
    entries = _alignment_entries(loaded, used, shifts * pixel_size * binning, axis)
    residual = None if beads is None else round(beads.residual_px * binning, 4)
    result = {
        "tilt_series": name,
        "versions": versions(),
        "method": "coarse" if beads is None else "beads",
        "tilt_axis_deg": round(axis, 4),
        "beads": 0 if beads is None else len(beads.beads_xyz),
        "residual_px": residual,
        "note": note,
        "tilts": entries,
    }
    write_json(directory / "result.json", result)
    quality = "coarse" if beads is None else f"{len(beads.beads_xyz)} beads, {residual:.2f} px"
    report(f"{name}: aligned {len(used)}/{len(loaded)} tilts, axis {axis:.2f} deg, {quality}")


def _load_for_alignment(name: str, path: Path, tilt_deg: float, binning: int) -> _Loaded:
    try:
        image = np.asarray(read_mrc(path)[0], np.float32)
    except CrboostError as error:
        return _Loaded(name, tilt_deg, None, 0.0, str(error), (0, 0))
    if image.ndim != 2:
        reason = f"{path}: not an image but of shape {image.shape}"
        return _Loaded(name, tilt_deg, None, 0.0, reason, (0, 0))
    shape = (image.shape[0], image.shape[1])
    mean = float(image.mean())
    if not np.isfinite(mean) or float(image.std()) == 0:
        return _Loaded(name, tilt_deg, None, mean, f"{path}: the image has no contrast", shape)
    return _Loaded(name, tilt_deg, prepare(image, binning), mean, None, shape)


def _exclude_dark(loaded: Sequence[_Loaded], threshold: float) -> list[_Loaded]:
    """Give every image that is too dark, or differs in size from the rest, its reason."""
    result = list(loaded)
    usable = [index for index, one in enumerate(result) if one.reason is None]
    shapes = [result[index].shape for index in usable]
    common = max(set(shapes), key=shapes.count) if shapes else (0, 0)
    for index in usable:
        one = result[index]
        if one.shape != common:
            reason = (
                f"{one.name}: {one.shape[1]} x {one.shape[0]} px, the rest of the series "
                f"{common[1]} x {common[0]}"
            )
            result[index] = _Loaded(one.name, one.tilt_deg, None, one.mean, reason, one.shape)
    usable = [index for index in usable if result[index].reason is None]
    ratios = dead_tilts(
        [result[index].mean for index in usable],
        [result[index].tilt_deg for index in usable],
        threshold,
    )
    for index, ratio in zip(usable, ratios, strict=True):
        if np.isnan(ratio):
            continue
        one = result[index]
        reason = (
            f"dark: mean intensity {one.mean:.3g}, expected {one.mean / max(ratio, 1e-9):.3g} from "
            f"its neighbours ({100 * ratio:.1f} %, below dark_threshold {100 * threshold:g} %)"
        )
        result[index] = _Loaded(one.name, one.tilt_deg, None, one.mean, reason, one.shape)
    return result


def _alignment_note(method: str, beads: BeadAlignment | None, names: Sequence[str]) -> str | None:
    if beads is None:
        if method == "coarse":
            return None
        return (
            "fewer than three beads could be followed; kept the coarse alignment, which is good "
            "to several pixels only"
        )
    if beads.tilts_without_beads:
        listed = ", ".join(names[index] for index in beads.tilts_without_beads)
        return f"fewer than two beads seen in, coarse shift kept for: {listed}"
    return None


def _alignment_entries(
    loaded: Sequence[_Loaded], used: Sequence[int], shifts_angstrom: Floats, axis_deg: float
) -> list[dict[str, Any]]:
    empty = dict.fromkeys(
        ("x_tilt_deg", "y_tilt_deg", "z_rot_deg", "x_shift_angstrom", "y_shift_angstrom")
    )
    entries: list[dict[str, Any]] = [
        {"name": one.name, "status": "excluded", "reason": one.reason, **empty} for one in loaded
    ]
    for row, index in enumerate(used):
        entries[index] = {
            "name": loaded[index].name,
            "status": "aligned",
            "reason": None,
            "x_tilt_deg": 0.0,
            "y_tilt_deg": loaded[index].tilt_deg,
            "z_rot_deg": round(axis_deg, 4),
            "x_shift_angstrom": round(float(shifts_angstrom[row, 0]), 4),
            "y_shift_angstrom": round(float(shifts_angstrom[row, 1]), 4),
        }
    return entries


def run_reconstruct(spec_path: Path, directory: Path, workers: int, report: Report) -> None:
    """Weighted back-projection of one tilt series; see `reconstruct` in docs/architecture.md.

    Raises:
        CrboostError: the spec or an image is bad.
    """
    spec = read_spec(spec_path)
    name = spec.text("tilt_series")
    pixel_size = spec.number("pixel_size_angstrom", above=0)
    wanted = spec.number("tomogram_pixel_size_angstrom", default=pixel_size, above=0)
    thickness_nm = spec.number("sample_thickness_nm", default=100, above=0)
    size = None
    if spec.has("tomogram_size_px"):
        x, y, z = (round(side) for side in spec.numbers("tomogram_size_px", 3))
        if min(x, y, z) < 1:
            raise ParameterError(f"{spec.where}: field 'tomogram_size_px' must be positive")
        size = (x, y, z)
    halves = spec.flag("halves", default=True)
    tilts = spec.objects("tilts")
    sources = _sources(tilts, spec.flag("dose_weight", default=True), halves)
    first = read_mrc(sources[0].images["tomogram"])[0]
    grid = tomogram_grid(
        (int(first.shape[-1]), int(first.shape[-2])),
        sources[0].alignment.z_rot_deg,
        pixel_size,
        wanted,
        thickness_nm,
        size,
    )
    if min(grid.shape) < 1:
        raise ParameterError(
            f"{spec.where}: a tomogram of {grid.size_px} px (x, y, z) vanishes at a binning of "
            f"{grid.binning:g}"
        )
    directory.mkdir(parents=True, exist_ok=True)
    outputs = {"tomogram": f"{name}.mrc"}
    if halves:
        outputs |= {"half1": f"{name}_half1.mrc", "half2": f"{name}_half2.mrc"}
    task = _Reconstruction(
        sources, grid, pixel_size, spec.number("voltage_kv", default=300.0, above=0), directory
    )
    depth, height, width = grid.shape
    report(f"{name}: {len(tilts)} tilts into {width} x {height} x {depth} voxels")
    for index, _ in run_tasks(task, list(outputs.items()), workers):
        report(f"{name}: {list(outputs)[index]} done")
    result = {
        "tilt_series": name,
        "versions": versions(),
        "tomogram": outputs["tomogram"],
        "half1": outputs.get("half1"),
        "half2": outputs.get("half2"),
        "size_px": list(grid.size_px),
        "binning": grid.binning,
        "tomogram_pixel_size_angstrom": pixel_size * grid.binning,
    }
    write_json(directory / "result.json", result)


@dataclass(frozen=True)
class _Source:
    """The files of one tilt, per output, and what to do with them."""

    images: dict[str, Path]
    alignment: TiltAlignment
    exposure_e_per_a2: float | None


def _sources(tilts: Sequence[Fields], dose_weight: bool, halves: bool) -> list[_Source]:
    sources = []
    for tilt in tilts:
        images = {"tomogram": tilt.path("image")}
        if halves:
            images |= {"half1": tilt.path("even"), "half2": tilt.path("odd")}
        exposure = None
        if dose_weight:
            # The specimen has had half of the tilt's own dose in the middle of the tilt.
            before = tilt.number("pre_exposure_e_per_a2", at_least=0)
            exposure = before + tilt.number("dose_e_per_a2", default=0, at_least=0) / 2
        alignment = TiltAlignment(
            x_tilt_deg=tilt.number("x_tilt_deg", default=0),
            y_tilt_deg=tilt.number("y_tilt_deg"),
            z_rot_deg=tilt.number("z_rot_deg"),
            x_shift_angstrom=tilt.number("x_shift_angstrom"),
            y_shift_angstrom=tilt.number("y_shift_angstrom"),
        )
        sources.append(_Source(images, alignment, exposure))
    return sources


@dataclass(frozen=True)
class _Reconstruction:
    """Reconstructs one of the outputs; a class so that a worker process can be given it."""

    sources: list[_Source]
    grid: TomogramGrid
    pixel_size_angstrom: float
    voltage_kv: float
    directory: Path

    def __call__(self, output: tuple[str, str]) -> None:
        kind, file_name = output
        try:
            volume = reconstruct(
                self._images(kind), self.grid, self.pixel_size_angstrom, self.voltage_kv
            )
        except ValueError as error:
            raise ParameterError(f"{file_name}: {error}") from error
        write_mrc(
            self.directory / file_name,
            volume,
            self.pixel_size_angstrom * self.grid.binning,
            is_volume=True,
        )

    def _images(self, kind: str) -> Iterator[TiltImage]:
        for source in self.sources:
            path = source.images[kind]
            image = read_mrc(path)[0]
            if image.ndim != 2:
                raise FileFormatError(path, f"not an image but of shape {image.shape}")
            yield TiltImage(image, source.alignment, source.exposure_e_per_a2)


def _check_unique(names: Sequence[str], spec: Fields) -> None:
    for name in names:
        if "/" in name or names.count(name) > 1:
            problem = "contains a slash" if "/" in name else "is used twice"
            raise ParameterError(f"{spec.where}: tilt name {name!r} {problem}")
