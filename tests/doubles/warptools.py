"""The double of WarpTools: its options, its files, its manners, with the embedded CPU tools inside.

What it shares with the real one (source at the commits that `warptools_cli.json` names):

- Arguments that the real parser refuses get the help text and exit code 0.
- An item that fails is listed in `failed_items.json`, its XML says UnselectManual, and the exit
  code stays 0 unless all items fail; later commands pass over it.
- Tilt angles of a tilt series are Warp's: RELION's with the other sign.
- One bad movie makes `ts_import` refuse the tilt series.

DOUBLES_FAIL names items to fail on; DOUBLES_WARP_VERSION is the version to be (2.0.0dev36).
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import mrcfile
import numpy as np
from doubles.aln_writer import aln_file, write_aln
from doubles.failing import is_to_fail

from crboost.builders.contract import check, contract
from crboost.cpu.fourier import bin_image
from crboost.cpu.io import apply_gain, read_gain, read_movie, read_mrc
from crboost.translate.alignment import TiltAlignment
from crboost.translate.defocus import Defocus
from crboost.translate.image_stack import ImageStack
from crboost.translate.imod import imod_files, read_angles, read_xf, tlt_text, xf_text
from crboost.translate.tomostar import TomostarTilt, read_tomostar, write_tomostar
from crboost.translate.warp_frame_series import (
    FrameSeries,
    read_frame_series,
    write_frame_series,
)
from crboost.translate.warp_tilt_series import (
    WarpTilt,
    WarpTiltSeries,
    read_warp_tilt_series,
    warp_alignments,
    write_warp_tilt_series,
)
from crboost.translate.warp_xml import Grid, movie_stem

Options = dict[str, Any]


def embedded(name: str) -> Callable[..., None]:
    """One of the embedded tools, loaded when it is called: most commands compute nothing."""

    def run(*arguments: Any) -> None:
        from crboost.cpu import commands

        getattr(commands, name)(*arguments)

    return run


run_align, run_frames, run_reconstruct = map(
    embedded, ("run_align", "run_frames", "run_reconstruct")
)


def parsed(command: str, words: Sequence[str]) -> Options:
    """Options of an argv that the contract accepts, with the tool's defaults."""
    known = contract().commands[command]
    options: Options = {name: False if o.is_switch else o.default for name, o in known.items()}
    name = None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            option = known[name]
            options[name] = True if option.is_switch else [value] if equals else []
        elif name is not None and not known[name].is_switch:
            options[name].append(word)
    for name, option in known.items():
        if isinstance(options[name], list):
            convert = {"int": int, "float": float}.get(option.value_type, str)
            values = [convert(value) for value in options[name]]
            options[name] = values if option.takes_many else values[0]
    return options


@dataclass
class Job:
    """The settings and folders of one command."""

    settings: dict[str, str]
    data: Path
    processing_in: Path
    processing_out: Path
    items: list[Path]

    @property
    def binning(self) -> float:
        return float(2 ** float(self.settings["BinTimes"]))

    @property
    def pixel(self) -> float:
        """Of the averages: the movies' times the binning."""
        return round(float(self.settings["PixelSize"]) * self.binning, 6)

    @property
    def tomogram_px(self) -> tuple[int, int, int]:
        """In pixels of the averages; the settings have pixels of the movies."""
        x, y, z = (round(int(self.settings[f"Dimensions{a}"]) / self.binning) for a in "XYZ")
        return x, y, z


def opened(options: Options) -> Job:
    """What `--settings` and the folder options say; an error if there is no item."""
    path = Path(options["settings"])
    if not path.is_file():
        raise FileNotFoundError(f"settings file {path} does not exist")
    settings = {p.get("Name", ""): p.get("Value", "") for p in ET.parse(path).iter("Param")}
    base = path.parent
    data = base / settings["DataFolder"]
    own = base / settings["ProcessingFolder"]
    before = Path(options["input_processing"]) if options["input_processing"] else own
    after = Path(options["output_processing"]) if options["output_processing"] else before
    if options["input_data"]:
        items = sorted(Path(one) for one in options["input_data"])
    else:
        items = sorted(p for p in data.glob("*") if fnmatch.fnmatch(p.name, settings["Extension"]))
    items = [item for item in items if not deselected(before / f"{item.stem}.xml")]
    if not items:
        raise ValueError("No input items found")
    after.mkdir(parents=True, exist_ok=True)
    return Job(settings, data, before, after, items)


def deselected(xml: Path) -> bool:
    return xml.is_file() and ET.fromstring(xml.read_bytes()).get("UnselectManual") == "True"


def each(job: Job, work: Callable[[Path], None], failed: Callable[[Path], None]) -> int:
    """Do all items; the tool's own view of success."""
    bad = []
    for item in job.items:
        try:
            if is_to_fail(item.stem):
                raise RuntimeError("DOUBLES_FAIL")
            work(item)
        except Exception as error:
            print(f"Failed to process {item.name}: {error}", file=sys.stderr)
            failed(item)
            bad.append(item)
    for name, items, status in (
        ("processed_items.json", [i for i in job.items if i not in bad], 1),
        ("failed_items.json", bad, 5),
    ):
        listed = [{"Path": item.name, "ProcessingStatus": status} for item in items]
        (job.processing_out / name).write_text(json.dumps(listed))
    if len(bad) == len(job.items):
        print("All items failed", file=sys.stderr)
        return 1
    return 0


def computed(
    command: Callable[..., None], spec: Mapping[str, Any], where: Path
) -> Mapping[str, Any]:
    """The result of one of the embedded tools."""
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    (where / "spec.json").write_text(json.dumps(spec))
    command(where / "spec.json", where, 1, lambda *_: None)
    result: Mapping[str, Any] = json.loads((where / "result.json").read_text())
    return result


def create_settings(o: Options) -> int:
    if o["bin"] is not None and o["bin_angpix"] is not None:
        raise ValueError("Cannot specify both --bin and --bin_angpix")
    exponent = o["bin"] or 0.0
    if o["bin_angpix"] is not None:
        exponent = float(np.log2(o["bin_angpix"] / float(o["angpix"])))
    root = ET.Element("Settings")
    dimensions = (o["tomo_dimensions"] or "0x0x0").split("x")
    values = {
        "DataFolder": o["folder_data"],
        "ProcessingFolder": o["folder_processing"] or o["folder_data"],
        "Extension": o["extension"] or "*",
        "PixelSize": o["angpix"],
        "BinTimes": exponent,
        "GainPath": o["gain_path"] or "",
        "GainFlipX": o["gain_flip_x"],
        "GainFlipY": o["gain_flip_y"],
        "GainTranspose": o["gain_transpose"],
        "DosePerAngstromFrame": o["exposure"],
        "EERGroupFrames": o["eer_ngroups"],
        **{f"Dimensions{axis}": size for axis, size in zip("XYZ", dimensions, strict=True)},
    }
    for name, value in values.items():
        ET.SubElement(root, "Param", {"Name": name, "Value": str(value)})
    Path(o["output"]).write_bytes(ET.tostring(root))
    return 0


def fs_motion_and_ctf(o: Options) -> int:
    job = opened(o)
    o["pixel_size"] = job.pixel
    out = job.processing_out
    folders = [out / "average", out / "powerspectrum"]
    folders += [out / "average" / half for half in ("even", "odd")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    flip_x, flip_y, transpose = (
        job.settings[f"Gain{what}"] == "True" for what in ("FlipX", "FlipY", "Transpose")
    )
    gain = job.settings["GainPath"]
    if gain.endswith(".gain"):  # Warp reads it upside down, the embedded tools do not
        flip_y = not flip_y
    if transpose:  # Warp transposes last, the embedded tools first
        flip_x, flip_y = flip_y, flip_x
    groups = int(job.settings["EERGroupFrames"])
    factor = round(job.binning)
    if abs(factor - job.binning) > 1e-3:
        raise ValueError(f"this double bins by whole numbers, not by {job.binning}")

    def binned(item: Path, where: Path) -> Path:
        """The movie with its gain applied and every frame binned, for the embedded tools."""
        movie = read_movie(item, eer_fractions_per_frame=-groups if item.suffix == ".eer" else None)
        if gain:
            reference = job.data.parent / gain
            turned = read_gain(reference, flip_x=flip_x, flip_y=flip_y, transpose=transpose)
            movie = apply_gain(movie, turned, item)
        frames = np.stack([bin_image(np.asarray(frame, np.float32), factor) for frame in movie])
        where.mkdir(parents=True, exist_ok=True)
        made = where / f"{item.stem}.mrc"
        with mrcfile.new(made, overwrite=True) as stack:
            stack.set_data(frames.astype(np.float32))
            stack.voxel_size = job.pixel
        return made

    optics = {
        "pixel_size_angstrom": job.pixel,
        "voltage_kv": o["c_voltage"],
        "spherical_aberration_mm": o["c_cs"],
        "amplitude_contrast": o["c_amplitude"],
    }

    def base(item: Path, defocus: Defocus | None) -> FrameSeries:
        return FrameSeries(
            item.stem,
            defocus=defocus,
            voltage_kv=o["c_voltage"],
            spherical_aberration_mm=o["c_cs"],
            amplitude_contrast=o["c_amplitude"],
            pixel_size_angstrom=job.pixel,
        )

    def work(item: Path) -> None:
        small = out / f".{item.stem}_binned"
        spec = {
            "tilt_series": item.stem,
            **optics,
            "dose_per_tilt_e_per_a2": float(job.settings["DosePerAngstromFrame"]),
            "gain_reference": str(job.data.parent / gain) if gain and factor == 1 else None,
            "gain_flip_x": flip_x,
            "gain_flip_y": flip_y,
            "gain_transpose": transpose,
            "eer_frames_per_fraction": -groups if item.suffix == ".eer" and factor == 1 else None,
            "motion_bfactor_a2": o["m_bfac"],
            "motion_resolution_angstrom": [o["m_range_min"], o["m_range_max"]],
            "ctf_window_px": o["c_window"],
            "ctf_resolution_angstrom": [o["c_range_min"], o["c_range_max"]],
            "ctf_defocus_um": [o["c_defocus_min"], o["c_defocus_max"]],
            "skip_first_frames": o["out_skip_first"] or 0,
            "skip_last_frames": o["out_skip_last"] or 0,
            "write_halves": o["out_average_halves"],
            "tilts": [
                {
                    "name": item.stem,
                    "movie": str(item if factor == 1 else binned(item, small)),
                    "tilt_angle_deg": 0.0,
                    "pre_exposure_e_per_a2": 0.0,
                    "nominal_defocus_um": None,
                }
            ],
        }
        where = out / f".{item.stem}"
        found = computed(run_frames, spec, where)["tilts"][0]
        if found["status"] != "done":
            raise RuntimeError(found["reason"])
        for key, folder in zip(("average", "power_spectrum", "even", "odd"), folders, strict=True):
            if found.get(key):
                (where / found[key]).replace(folder / f"{item.stem}.mrc")
        shutil.rmtree(where)
        shutil.rmtree(small, ignore_errors=True)
        track = np.array(found["shifts_px"]) * job.pixel
        (out / "average" / f"{item.stem}_motion.json").write_text(
            json.dumps({"0": {"x": track[:, 1].tolist(), "y": track[:, 0].tolist()}})
        )
        average, _ = read_mrc(out / "average" / f"{item.stem}.mrc")
        u, v = found["defocus_u_angstrom"], found["defocus_v_angstrom"]
        defocus = Defocus((u + v) / 2e4, (u - v) / 1e4, found["defocus_angle_deg"])
        steps = np.hypot(*np.diff(track, axis=0).T)
        write_frame_series(
            out / f"{item.stem}.xml",
            replace(
                base(item, defocus),
                grid_ctf_defocus_um=local_defocus_um(average.astype(np.float32), (u + v) / 2, o),
                ctf_resolution_angstrom=found["ctf_max_resolution_angstrom"],
                mean_frame_movement_angstrom=float(steps[: max(1, len(steps) // 3)].mean()),
            ),
        )

    def failed(item: Path) -> None:
        write_frame_series(
            out / f"{item.stem}.xml",
            replace(base(item, None), deselected=True, motion_corrected=False),
        )

    return each(job, work, failed)


def local_defocus_um(image: np.ndarray, mean_angstrom: float, o: Options) -> Grid | None:
    """The defocus over an image as the plane that its four halves fit; None with a 1x1 grid."""
    width, height, _ = (int(n) for n in o["c_grid"].split("x"))
    if width * height == 1:
        return None
    from crboost.cpu.ctf import Optics, fit_ctf, power_spectrum

    optics = Optics(o["c_voltage"], o["c_cs"], o["c_amplitude"])
    middle = [length // 2 for length in image.shape]
    halves = (image[:, middle[1] :], image[:, : middle[1]], image[middle[0] :], image[: middle[0]])

    def fitted(half: np.ndarray) -> float:
        return fit_ctf(
            power_spectrum(half, min(half.shape)),
            o["pixel_size"],
            optics,
            resolution_angstrom=(o["c_range_min"], o["c_range_max"]),
            defocus_range_angstrom=(mean_angstrom - 1500, mean_angstrom + 1500),
        ).defocus_angstrom

    right, left, top, bottom = map(fitted, halves)
    values = tuple(
        (mean_angstrom + 2 * (x - 0.5) * (right - left) + 2 * (y - 0.5) * (top - bottom)) / 1e4
        for y in np.linspace(0, 1, height)
        for x in np.linspace(0, 1, width)
    )
    return Grid(width, height, 1, values)


def ts_import(o: Options) -> int:
    output = Path(o["output"])
    output.mkdir(parents=True, exist_ok=True)
    frames = Path(o["frameseries"])
    mdocs = sorted(Path(o["mdocs"]).glob(o["pattern"]))
    if not mdocs:
        raise FileNotFoundError("No mdoc files found")
    for mdoc in mdocs:
        sections = []
        for part in mdoc.read_text(encoding="utf-8").split("[ZValue")[1:]:
            pairs = (line.partition("=") for line in part.splitlines()[1:])
            sections.append({key.strip(): value.strip() for key, _, value in pairs if value})
        sections.sort(key=lambda one: one["DateTime"])
        tilts = []
        for rank, one in enumerate(sections):
            movie = PurePosixPath(one["SubFramePath"].replace("\\", "/")).name
            xml = frames / f"{movie_stem(movie)}.xml"
            if not xml.is_file() or deselected(xml):
                print(f"{mdoc.name}: {movie} was not processed; skipping tilt series")
                break
            with mrcfile.open(frames / "average" / f"{movie_stem(movie)}.mrc") as image:
                level = float(np.median(image.data.ravel()[::10].astype(np.float32)))
            tilts.append(
                TomostarTilt(
                    os.path.relpath(frames / movie, output),
                    float(one["TiltAngle"]) * (1 if o["dont_invert"] else -1),
                    float(o["override_axis"] or 0.0),
                    rank * float(o["tilt_exposure"]),
                    level,
                    0.0,
                )
            )
        else:
            tilts.sort(key=lambda tilt: tilt.angle_deg)
            tilts = bright_enough(tilts, float(o["min_intensity"] or 0))
            write_tomostar(output / f"{mdoc.stem.removesuffix('.mrc')}.tomostar", tilts)
    return 0


def bright_enough(tilts: list[TomostarTilt], least: float) -> list[TomostarTilt]:
    """The tilts from the brightest of the ten lowest to the first on either side that is too dark.

    Nothing is cut where 0 is asked for, unless it is darker than nothing.
    """
    level = [tilt.average_intensity or 0.0 for tilt in tilts]
    lowest = sorted(range(len(tilts)), key=lambda i: abs(tilts[i].angle_deg))[:10]
    middle = max(lowest, key=lambda i: level[i])
    top = level[middle]

    def is_bright(tilt: TomostarTilt) -> bool:
        expected = least * np.cos(np.radians(tilt.angle_deg)) * top * 0.999
        return bool((tilt.average_intensity or 0.0) >= expected)

    first, last = middle, middle
    while first > 0 and is_bright(tilts[first - 1]):
        first -= 1
    while last < len(tilts) - 1 and is_bright(tilts[last + 1]):
        last += 1
    return tilts[first : last + 1]


def image_of(item: Path, tilt: WarpTilt | TomostarTilt, half: str = "") -> Path:
    """The average of a tilt, found by its movie's path, as Warp finds it."""
    movie = item.parent / tilt.movie
    return movie.parent / "average" / half / f"{movie.stem}.mrc"


def size_of(path: Path) -> tuple[int, int]:
    with mrcfile.open(path, header_only=True) as image:
        return int(image.header.nx), int(image.header.ny)


def read_item(job: Job, item: Path) -> WarpTiltSeries:
    """The item's XML, or what its `.tomostar` says where there is none yet."""
    xml = job.processing_in / f"{item.stem}.xml"
    if xml.is_file():
        return read_warp_tilt_series(xml)
    tilts = tuple(
        WarpTilt(t.movie, t.angle_deg, t.dose_e_per_a2, axis_deg=t.axis_deg)
        for t in read_tomostar(item)
    )
    return WarpTiltSeries(item.stem, tilts)


def fail_item(job: Job) -> Callable[[Path], None]:
    def failed(item: Path) -> None:
        write_warp_tilt_series(
            job.processing_out / f"{item.stem}.xml", replace(read_item(job, item), deselected=True)
        )

    return failed


def mean_axis(angles: Sequence[float]) -> float:
    """Of the items' tilt axes: the mean direction, of more than three the geometric median."""
    vectors = np.array([(np.cos(a), np.sin(a)) for a in np.radians(angles)])
    middle = vectors.mean(axis=0)
    for _ in range(100 if len(vectors) > 3 else 0):
        weights = 1 / np.maximum(np.linalg.norm(vectors - middle, axis=1), 1e-9)
        middle = (vectors * weights[:, None]).sum(axis=0) / weights.sum()
    return float(np.degrees(np.arctan2(middle[1], middle[0])))


def ts_aretomo(o: Options, *, local: str = ".st.aln", mode: str = "auto") -> int:
    job = opened(o)
    axes: dict[str, float] = {}

    def aligned(item: Path, axis: float | None) -> dict[str, TiltAlignment]:
        tilts = read_item(job, item).tilts
        axis = tilts[0].axis_deg if axis is None else axis
        spec = {
            "tilt_series": item.stem,
            "pixel_size_angstrom": job.pixel,
            "alignment_pixel_size_angstrom": o["angpix"],
            "tilt_axis_deg": axis,
            "sample_thickness_nm": (o.get("alignz") or 1000) / 10,
            "method": mode,
            "fiducial_diameter_nm": o.get("fiducial_size") or 10,
            "dark_threshold": 0.0,
            "tilts": [
                {
                    "name": tilt.name,
                    "image": str(image_of(item, tilt)),
                    "tilt_angle_deg": -tilt.angle_deg,
                }
                for tilt in tilts
            ],
        }
        result = computed(run_align, spec, job.processing_out / f".{item.stem}")
        shutil.rmtree(job.processing_out / f".{item.stem}")
        axes[item.stem] = result["tilt_axis_deg"]
        return {
            tilt["name"]: TiltAlignment(
                tilt["x_tilt_deg"],
                tilt["y_tilt_deg"],
                tilt["z_rot_deg"],
                tilt["x_shift_angstrom"],
                tilt["y_shift_angstrom"],
            )
            for tilt in result["tilts"]
            if tilt["status"] == "aligned"
        }

    given = o.get("axis") if o.get("axis") is not None else o.get("initial_axis")
    rounds = o.get("axis_iter") or int(bool(o.get("do_axis_search")))
    lost: set[Path] = set()
    for number in range(rounds):
        # Every item begins with its nominal axis, and keeps that where it fails.
        used = job.items[: o.get("axis_batch") or None]
        if given is None:
            given = mean_axis([read_item(job, item).tilts[0].axis_deg for item in job.items])
        print(f"Current tilt axis angle: {given:.3f} °")
        print(f"Running iteration {number + 1} of tilt axis refinement:")
        for item in used:
            axes.setdefault(item.stem, read_item(job, item).tilts[0].axis_deg)
            try:
                if is_to_fail(item.stem):
                    raise RuntimeError("DOUBLES_FAIL")
                aligned(item, given)
            except Exception as error:
                print(f"Failed to process {item}, marked as unselected.\n{error}", file=sys.stderr)
                lost.add(item)
        if len(lost) == len(used):
            raise RuntimeError("All items failed to process. Check logs for more info.")
        given = mean_axis([axes[item.stem] for item in used])

    def work(item: Path) -> None:
        if item in lost:  # aligned in the end or not, it stays deselected
            raise RuntimeError("it failed before")
        series = read_item(job, item)
        found = aligned(item, given)
        size = size_of(image_of(item, series.tilts[0]))
        axis = next(iter(found.values())).z_rot_deg
        whole = [
            # A tilt without an alignment stays in Warp's stack, where it was.
            found.get(t.name) or TiltAlignment(0.0, -t.angle_deg, axis, 0.0, 0.0)
            for t in series.tilts
        ]
        if rounds and given is not None:
            whole = [replace(one, z_rot_deg=given) for one in whole]
        odd = [(length % 2) / 2 * job.pixel for length in size]
        tilts = tuple(
            replace(
                tilt,
                angle_deg=-one.y_tilt_deg,
                axis_deg=one.z_rot_deg,
                offset_angstrom=(one.x_shift_angstrom - odd[0], one.y_shift_angstrom - odd[1]),
            )
            for tilt, one in zip(series.tilts, whole, strict=True)
        )
        stack = job.processing_out / "tiltstack" / item.stem
        stack.mkdir(parents=True, exist_ok=True)
        angles = [tilt.angle_deg for tilt in series.tilts]
        (stack / f"{item.stem}.rawtlt").write_text(tlt_text(angles))
        if local:
            small = tuple(round(length * job.pixel / o["angpix"]) for length in size)
            # Fourier cropping leaves the middle of pixel 0 where it was; AreTomo counts from n / 2.
            ratio = size[0] / small[0]
            origin = tuple(
                (n / 2 * ratio - length // 2) * job.pixel
                for n, length in zip(small, size, strict=True)
            )
            geometry = ImageStack(ratio * job.pixel, (origin[0], origin[1]))
            made = aln_file(whole, geometry, small, angles, angle_sign=-1)
            write_aln(stack / f"{item.stem}{local}", made, first_section=int(local == ".aln"))
        else:
            files = imod_files(whole, ImageStack.plain(o["angpix"]), angle_sign=-1)
            (stack / f"{item.stem}.xf").write_text(xf_text(files.transforms))
            (stack / f"{item.stem}.tlt").write_text(tlt_text(files.angles_deg))
        volume = tuple(length * job.pixel for length in job.tomogram_px)
        write_warp_tilt_series(
            job.processing_out / f"{item.stem}.xml",
            replace(
                series,
                tilts=tilts,
                image_angstrom=tuple(length * job.pixel for length in size),
                volume_angstrom=volume,
            ),
        )

    return each(job, work, fail_item(job))


def alignment_file(directory: Path, name: str, kind: str) -> Path | None:
    """An `.xf` or `.tlt` of a tilt series where WarpTools looks for it, the first that there is."""
    folders = ("", "..", f"{name}_Imod", f"{name}_aligned_Imod", f"../{name}_Imod")
    stems = (name, name.replace(".mrc", ""), f"{name}_st", f"{name.replace('.mrc', '')}_st")
    paths = (directory / folder / f"{stem}.{kind}" for folder in folders for stem in stems)
    return next((path for path in paths if path.is_file()), None)


def in_view(tilt: WarpTilt, size_px: tuple[int, int], job: Job) -> float:
    """How much of the tomogram's middle plane a tilt image shows."""
    nx, ny, _ = job.tomogram_px
    steps = np.linspace(-0.5, 0.5, 50)
    x, y = np.meshgrid(steps * nx * job.pixel, steps * ny * job.pixel)
    x = x * np.cos(np.radians(tilt.angle_deg))  # the tilt axis is y
    axis = np.radians(tilt.axis_deg)
    seen_x = np.cos(axis) * x - np.sin(axis) * y + tilt.offset_angstrom[0]
    seen_y = np.sin(axis) * x + np.cos(axis) * y + tilt.offset_angstrom[1]
    half_x, half_y = (length * job.pixel / 2 for length in size_px)
    return float(((abs(seen_x) <= half_x) & (abs(seen_y) <= half_y)).mean())


def ts_import_alignments(o: Options) -> int:
    """IMOD's files of each tilt series, as `TiltSeries.ImportAlignments` takes them.

    Their lines are those of the tilts in use; where the numbers differ, all tilts come into use
    again. A `.tlt` of another length, or of zeros, is passed over without a word.
    """
    job = opened(o)
    if o["alignment_angpix"] <= 0:
        raise ValueError("--alignment_angpix can't be 0 or lower")
    if o["min_fov"] > 1:
        raise ValueError("--min_fov can't be higher than 1")

    def work(item: Path) -> None:
        series = read_item(job, item)
        directory = Path(o["alignments"]) / item.stem
        xf, tlt = (alignment_file(directory, item.stem, kind) for kind in ("xf", "tlt"))
        if xf is None or tlt is None:
            raise FileNotFoundError(f"Could not find {item.stem}.{'tlt' if xf else 'xf'}")
        transforms = read_xf(xf)
        tilts = list(series.tilts)
        if len(transforms) != len(series.used):
            tilts = [replace(tilt, use=True) for tilt in tilts]
        if len(transforms) != sum(tilt.use for tilt in tilts):
            raise ValueError(f"{len(tilts)} tilts in series, but {len(transforms)} lines in {xf}")
        angles = read_angles(tlt)
        if len(angles) != len(transforms) or not any(angles):
            angles = [tilt.angle_deg for tilt in tilts if tilt.use]
        size = size_of(image_of(item, tilts[0]))
        lines = iter(zip(transforms, angles, strict=True))
        for number, tilt in enumerate(tilts):
            if not tilt.use:
                continue
            t, angle = next(lines)
            axis = float(np.degrees(np.arctan2(t.a12 - t.a21, t.a11 + t.a22)))
            x = -(t.a11 * t.dx + t.a21 * t.dy) * o["alignment_angpix"]
            y = -(t.a12 * t.dx + t.a22 * t.dy) * o["alignment_angpix"]
            tilt = replace(tilt, angle_deg=angle, axis_deg=axis, offset_angstrom=(x, y))
            tilts[number] = replace(tilt, use=in_view(tilt, size, job) >= o["min_fov"])
        nx, ny, _ = (length * job.pixel for length in job.tomogram_px)
        write_warp_tilt_series(
            job.processing_out / f"{item.stem}.xml",
            replace(
                series,
                tilts=tuple(tilts),
                image_angstrom=tuple(length * job.pixel for length in size),
                volume_angstrom=(nx, ny, 1.0),  # as the real one leaves it
            ),
        )

    return each(job, work, fail_item(job))


def hand_correlation(job: Job, item: Path) -> float:
    """How the defocus gradients across the images go with the depths of the specimen's ends."""
    if is_to_fail(item.stem):
        raise RuntimeError("DOUBLES_FAIL")
    series = read_warp_tilt_series(job.processing_in / f"{item.stem}.xml")
    size = size_of(image_of(item, series.tilts[0]))
    alignments = warp_alignments(series, size, job.tomogram_px, job.pixel)
    width, height = (length * job.pixel for length in job.tomogram_px[:2])
    first_y: list[float] = []
    measured, assumed = [], []
    for tilt in series.used:
        movie = item.parent / tilt.movie
        grid = read_frame_series(movie.with_name(f"{movie.stem}.xml")).grid_ctf_defocus_um
        if grid is None or len(grid.values) < 2:
            raise RuntimeError(
                "One or more tilt movies don't have local defocus information. Please run fs_ctf "
                "on all individual tilt movies using a 2x2x1 grid."
            )
        one = alignments[tilt.name]
        assert isinstance(one, TiltAlignment)
        turned = np.asarray(one.rotation()) @ np.array([[-width / 2, 0, 0], [width / 2, 0, 0]]).T
        x = (turned[0] + one.x_shift_angstrom) / width + 0.5
        y = (turned[1] + one.y_shift_angstrom) / height + 0.5
        first_y = first_y or y.tolist()  # Warp takes the y of the first tilt for all
        ends = [interpolated(grid, x[end], first_y[end]) for end in (0, 1)]
        measured.append(ends[1] - ends[0])
        assumed.append((turned[2][1] - turned[2][0]) / 1e4)
    return float(np.mean(normalized(measured) * normalized(assumed)))


def interpolated(grid: Grid, x: float, y: float) -> float:
    """A grid's value at a place in [0, 1] of the image, between its nodes or at its edge."""
    values = np.array(grid.values).reshape(grid.depth, grid.height, grid.width)[0]
    for length in (grid.height, grid.width):  # y, then x
        at = np.clip((y if values.ndim == 2 else x) * (length - 1), 0, length - 1)
        low = min(int(at), length - 2) if length > 1 else 0
        high = min(low + 1, length - 1)
        values = values[low] + (at - low) * (values[high] - values[low])
    return float(values)


def normalized(values: Sequence[float]) -> np.ndarray:
    """With mean 0 and standard deviation 1."""
    all_of_them = np.array(values)
    return (all_of_them - all_of_them.mean()) / all_of_them.std()


def ts_defocus_hand(o: Options) -> int:
    ways = ("check", "set_auto", "set_flip", "set_noflip", "set_switch")
    if sum(bool(o[way]) for way in ways) != 1:
        raise ValueError("Choose exactly 1 of the options")
    job = opened(o)
    automatic = False
    if o["check"] or o["set_auto"]:
        print("Checking defocus handedness for all tilt series...")
        # The first that cannot be told from ends the command.
        mean = float(np.mean([hand_correlation(job, item) for item in job.items]))
        print(f"Average correlation: {mean:.3f}")
        if not mean < 0 and not mean > 0:
            raise ValueError("The average correlation is 0, which shouldn't happen")
        automatic = mean < 0
        sign, hand = ("negative", "flip") if automatic else ("positive", "no flip")
        print(
            f"The average correlation is {sign}, which means that the defocus handedness should "
            f"be set to '{hand}'"
        )
        if o["check"]:
            return 0
        print(f"Setting defocus handedness to '{hand}' for all tilt series...")

    def work(item: Path) -> None:
        xml = job.processing_in / f"{item.stem}.xml"
        series = read_warp_tilt_series(xml)
        flip = not series.are_angles_inverted if o["set_switch"] else o["set_flip"] or automatic
        write_warp_tilt_series(
            job.processing_out / xml.name, replace(series, are_angles_inverted=flip)
        )

    return each(job, work, fail_item(job))


def ts_ctf(o: Options) -> int:
    job = opened(o)

    def work(item: Path) -> None:
        xml = job.processing_in / f"{item.stem}.xml"
        series = read_warp_tilt_series(xml)
        tilts, resolutions = [], []
        for tilt in series.tilts:
            movie = item.parent / tilt.movie
            frames = read_frame_series(movie.with_name(f"{movie.stem}.xml"))
            if frames.defocus is None:
                raise RuntimeError(f"{movie.stem} has no CTF")
            low, high = o["defocus_min"], o["defocus_max"]
            value = min(max(frames.defocus.defocus_um, low), high)
            tilts.append(replace(tilt, defocus=replace(frames.defocus, defocus_um=value)))
            resolutions.append(frames.ctf_resolution_angstrom or o["range_low"])
        made = replace(
            series,
            tilts=tuple(tilts),
            ctf_resolution_angstrom=float(np.median(resolutions)),
            voltage_kv=o["voltage"],
            spherical_aberration_mm=o["cs"],
            amplitude_contrast=o["amplitude"],
        )
        write_warp_tilt_series(job.processing_out / xml.name, made)

    return each(job, work, fail_item(job))


def ts_reconstruct(o: Options) -> int:
    job = opened(o)
    out = job.processing_out / "reconstruction"

    def work(item: Path) -> None:
        series = read_warp_tilt_series(job.processing_in / f"{item.stem}.xml")
        size = size_of(image_of(item, series.tilts[0]))
        alignments = warp_alignments(series, size, job.tomogram_px, job.pixel)
        halves = o["halfmap_frames"]
        tilts = []
        for tilt in series.used:
            one = alignments[tilt.name]
            assert isinstance(one, TiltAlignment)
            tilts.append(
                {
                    "name": tilt.name,
                    "image": str(image_of(item, tilt)),
                    "even": str(image_of(item, tilt, "even")) if halves else None,
                    "odd": str(image_of(item, tilt, "odd")) if halves else None,
                    "pre_exposure_e_per_a2": tilt.dose_e_per_a2,
                    "dose_e_per_a2": 0.0,
                    "x_tilt_deg": one.x_tilt_deg,
                    "y_tilt_deg": one.y_tilt_deg,
                    "z_rot_deg": one.z_rot_deg,
                    "x_shift_angstrom": one.x_shift_angstrom,
                    "y_shift_angstrom": one.y_shift_angstrom,
                }
            )
        spec = {
            "tilt_series": item.stem,
            "pixel_size_angstrom": job.pixel,
            "tomogram_pixel_size_angstrom": o["angpix"],
            "tomogram_size_px": list(job.tomogram_px),
            "halves": halves,
            "dose_weight": False,
            "tilts": tilts,
        }
        where = out / f".{item.stem}"
        found = computed(run_reconstruct, spec, where)
        name = f"{item.stem}_{o['angpix']:.2f}Apx.mrc"
        for key, folder in (("tomogram", out), ("half1", out / "even"), ("half2", out / "odd")):
            if found.get(key):
                folder.mkdir(parents=True, exist_ok=True)
                if not o["dont_invert"]:
                    with mrcfile.open(where / found[key], "r+") as volume:
                        volume.set_data(-volume.data)
                (where / found[key]).replace(folder / name)
        shutil.rmtree(where)
        if job.processing_in != job.processing_out:
            write_warp_tilt_series(job.processing_out / f"{item.stem}.xml", series)

    return each(job, work, fail_item(job))


def ts_export_particles(o: Options) -> int:
    from doubles.warptools_particles import ts_export_particles as export

    return export(o)


COMMANDS: dict[str, Callable[[Options], int]] = {
    "create_settings": create_settings,
    "fs_motion_and_ctf": fs_motion_and_ctf,
    "ts_import": ts_import,
    "ts_aretomo": ts_aretomo,
    "ts_aretomo3": lambda o: ts_aretomo(o, local=".aln"),
    "ts_etomo_patches": lambda o: ts_aretomo(o, local="", mode="coarse"),
    "ts_etomo_fiducials": lambda o: ts_aretomo(o, local="", mode="beads"),
    "ts_import_alignments": ts_import_alignments,
    "ts_defocus_hand": ts_defocus_hand,
    "ts_ctf": ts_ctf,
    "ts_reconstruct": ts_reconstruct,
    "ts_export_particles": ts_export_particles,
}


def main(words: Sequence[str]) -> int:
    """What the program does with its arguments; its exit code."""
    version = os.environ.get("DOUBLES_WARP_VERSION", "2.0.0dev36")
    problems = check(["WarpTools", *words], version)
    for problem in problems:
        print(f"ERROR(S):\n  {problem.message}", file=sys.stderr)
    if any(problem.effect == "exits_0" for problem in problems):
        return 0
    if any(problem.effect == "fails" for problem in problems):
        return 1
    if words[0] not in COMMANDS:
        print(f"this double does not do {words[0]}", file=sys.stderr)
        return 1
    try:
        return COMMANDS[words[0]](parsed(words[0], words[1:]))
    except Exception as error:
        print(f"Unhandled exception. {type(error).__name__}: {error}", file=sys.stderr)
        return 134


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
