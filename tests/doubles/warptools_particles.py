"""The double of `WarpTools ts_export_particles`: boxes really cut at the particles' places.

2D: out of the tilt images, inverted, multiplied by CTF and dose weight; in the tables of the real
one, which has a dummy for the tilt series. Versions up to 2.0.0dev36 write the images of all
tilts, later ones those of the visible ones. 3D: out of a tomogram made for it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from doubles.warptools import Options, computed, each, fail_item, image_of, opened, size_of
from scipy import ndimage

from crboost.cpu.commands import run_reconstruct
from crboost.cpu.ctf import Optics, phase
from crboost.cpu.dose import exposure_weight
from crboost.cpu.fourier import frequency_grid, resample
from crboost.cpu.geometry import TiltAlignment as Turned
from crboost.cpu.geometry import project
from crboost.relion.star import Block, list_block, loop_block, read_star, write_star
from crboost.translate.alignment import TiltAlignment
from crboost.translate.warp_tilt_series import (
    WarpTiltSeries,
    read_warp_tilt_series,
    warp_alignments,
)

_VISIBLE_ONLY = "2.0.0dev39-92"


def ts_export_particles(o: Options) -> int:
    if bool(o["2d"]) == bool(o["3d"]):
        raise ValueError("Choose either --2d or --3d as the export type")
    if (o["coords_angpix"] is None) == (not o["normalized_coords"]) or o["normalized_coords"]:
        raise ValueError("this double wants --coords_angpix")
    if o["box"] % 2 or o["box"] < 2:
        raise ValueError("Output box size must be an even, positive number.")
    job = opened(o)
    star = Path.cwd() / o["output_star"]
    if not o["relative_output_paths"]:
        raise ValueError("this double wants --relative_output_paths")
    rows = read_star(Path(o["input_star"])).blocks[0].records()
    tables: dict[str, Any] = {}

    def work(item: Path) -> None:
        series = read_warp_tilt_series(job.processing_in / f"{item.stem}.xml")
        mine = [row for row in rows if row["rlnTomoName"] == item.name]
        if not mine or any(tilt.defocus is None for tilt in series.tilts):
            print(f"no particles, or no CTF metadata, found for {item.name}, skipping...")
            return
        places = np.array(
            [[float(row[f"rlnCoordinate{axis}"]) for axis in "XYZ"] for row in mine]
        ) * float(o["coords_angpix"])
        angles = [[row[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")] for row in mine]
        cut = _stacks if o["2d"] else _volumes
        made = cut(o, job, item, series, places)
        tables[item.stem] = (series, places, angles, made)

    code = each(job, work, fail_item(job))
    if not tables:
        raise ValueError("No particles to write out.")
    blocks = _tables_2d(o, job, star, tables) if o["2d"] else _table_3d(o, star, tables)
    write_star(star, blocks)
    return code


def _alignments(job: Any, item: Path, series: WarpTiltSeries) -> list[Turned]:
    size = size_of(image_of(item, series.tilts[0]))
    found = warp_alignments(series, size, job.tomogram_px, job.pixel)
    turned = []
    for tilt in series.tilts:
        one = found[tilt.name]
        assert isinstance(one, TiltAlignment)
        turned.append(
            Turned(
                one.x_tilt_deg,
                one.y_tilt_deg,
                one.z_rot_deg,
                one.x_shift_angstrom,
                one.y_shift_angstrom,
            )
        )
    return turned


def _stacks(o: Options, job: Any, item: Path, series: WarpTiltSeries, places: Any) -> Any:
    """(stack, visible by tilt) of each particle."""
    box, angpix = o["box"], o["output_angpix"]
    size = np.array(size_of(image_of(item, series.tilts[0])))
    centre = np.array(job.tomogram_px) // 2
    fy, fx = frequency_grid((box, box), angpix)
    squared = fx**2 + fy**2
    optics = Optics(series.voltage_kv, series.spherical_aberration_mm, series.amplitude_contrast)
    images = np.zeros((len(places), len(series.tilts), box, box), np.float32)
    visible = np.zeros(images.shape[:2], bool)
    for number, (tilt, turned) in enumerate(
        zip(series.tilts, _alignments(job, item, series), strict=True)
    ):
        with mrcfile.open(image_of(item, tilt)) as average:
            image = -np.asarray(average.data, np.float32)
        image = (image - image.mean()) / image.std()
        seen = project(places / job.pixel - centre, turned, job.pixel)
        weight = exposure_weight(np.sqrt(squared), tilt.dose_e_per_a2, series.voltage_kv)
        assert tilt.defocus is not None
        for particle, (x, y, depth) in enumerate(seen):
            boxed = resample(
                image, 0.0, (x, y), shape=(box, box), scale=angpix / job.pixel, order=3
            )
            defocus = tilt.defocus.defocus_um * 1e4 + series.hand * depth * job.pixel
            ctf = np.sin(phase(squared, defocus, optics))
            images[particle, number] = np.fft.irfft2(
                np.fft.rfft2(boxed) * ctf * weight, s=(box, box)
            )
            place = (np.array([x, y]) + size // 2) * job.pixel
            edge = o["diameter"] / 2
            inside = (place > edge).all() and (place < size * job.pixel - edge).all()
            visible[particle, number] = bool(tilt.use and inside)
    folder = job.processing_out / "particleseries" / item.stem
    folder.mkdir(parents=True, exist_ok=True)
    compact = os.environ.get("DOUBLES_WARP_VERSION") == _VISIBLE_ONLY
    made = []
    for particle, stack in enumerate(images):
        path = folder / f"{item.stem}_{angpix:.2f}A_{particle + 1:06d}.mrcs"
        kept = stack[visible[particle]] if compact else stack
        if len(kept):
            with mrcfile.new(path, overwrite=True) as file:
                file.set_data(kept.astype(np.float16))
                file.set_image_stack()
                file.voxel_size = angpix
        made.append((path, visible[particle]))
    return made


def _volumes(o: Options, job: Any, item: Path, series: WarpTiltSeries, places: Any) -> Any:
    """(subtomogram, its CTF) of each particle."""
    box, angpix = o["box"], o["output_angpix"]
    spec = {
        "tilt_series": item.stem,
        "pixel_size_angstrom": job.pixel,
        "tomogram_pixel_size_angstrom": angpix,
        "tomogram_size_px": list(job.tomogram_px),
        "halves": False,
        "dose_weight": False,
        "tilts": [
            {
                "name": tilt.name,
                "image": str(image_of(item, tilt)),
                "even": None,
                "odd": None,
                "pre_exposure_e_per_a2": tilt.dose_e_per_a2,
                "dose_e_per_a2": 0.0,
                "x_tilt_deg": turned.x_tilt_deg,
                "y_tilt_deg": turned.y_tilt_deg,
                "z_rot_deg": turned.z_rot_deg,
                "x_shift_angstrom": turned.x_shift_angstrom,
                "y_shift_angstrom": turned.y_shift_angstrom,
            }
            for tilt, turned in zip(series.tilts, _alignments(job, item, series), strict=True)
        ],
    }
    where = job.processing_out / f".{item.stem}"
    found = computed(run_reconstruct, spec, where)
    with mrcfile.open(where / found["tomogram"]) as opened_volume:
        volume = -np.asarray(opened_volume.data, np.float32)
    shutil.rmtree(where)
    volume = (volume - volume.mean()) / volume.std()
    folder = job.processing_out / "subtomo" / item.stem
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for particle, place in enumerate(places):
        corner = place[::-1] / angpix - box // 2
        cut = ndimage.affine_transform(
            volume, np.eye(3), offset=corner, output_shape=(box,) * 3, order=1
        )
        paths = [
            folder / f"{item.stem}_{particle:07d}_{kind}{angpix:.2f}A.mrc" for kind in ("", "ctf_")
        ]
        ctf = np.ones((box, box, box // 2 + 1))
        for path, data in zip(paths, (cut, ctf), strict=True):
            with mrcfile.new(path, overwrite=True) as file:
                file.set_data(data.astype(np.float16))
                file.voxel_size = angpix
        made.append(tuple(paths))
    return made


def _relative(path: Path, star: Path) -> str:
    return os.path.relpath(path.absolute(), star.parent)


def _tables_2d(o: Options, job: Any, star: Path, tables: dict[str, Any]) -> list[Block]:
    optics, particles, tomograms = [], [], []
    for group, (name, (series, places, angles, made)) in enumerate(tables.items(), start=1):
        optics.append(
            (
                str(group),
                f"opticsGroup{group}",
                f"{series.spherical_aberration_mm:.3f}",
                f"{series.voltage_kv:.3f}",
                f"{float(job.settings['PixelSize']):.5f}",
                "0" if o["dont_premultiply"] else "1",
                "2",
                f"{o['output_angpix'] / float(job.settings['PixelSize']):.5f}",
                f"{o['output_angpix']:.5f}",
                str(o["box"]),
                f"{series.amplitude_contrast:.3f}",
            )
        )
        for number, (place, angle, (path, visible)) in enumerate(
            zip(places, angles, made, strict=True), start=1
        ):
            if (~visible).sum() > o["max_missing_tilts"] or not visible.any():
                continue
            particles.append(
                (
                    f"{name}.tomostar",
                    str(number),
                    *(f"{value / o['output_angpix']:.3f}" for value in place),
                    *(f"{float(value):.3f}" for value in angle),
                    f"{name}/{number}",
                    str(group),
                    _relative(path, star),
                    *("0.0", "0.0", "0.0"),
                    f"[{','.join(str(int(flag)) for flag in visible)}]",
                )
            )
        size = (str(round(length)) for length in job.tomogram_px)
        tomograms.append((f"{name}.tomostar", "dummy_tiltseries.mrc", *size, "-1.0"))
    with mrcfile.new(star.parent / "dummy_tiltseries.mrc", overwrite=True) as dummy:
        dummy.set_data(np.zeros((2, 2, 2), np.float16))
    columns = [
        *("rlnTomoName", "rlnTomoTiltSeriesName", "rlnTomoSizeX", "rlnTomoSizeY", "rlnTomoSizeZ"),
        "rlnTomoHand",
    ]
    write_star(
        star.with_name(f"{star.stem}_tomograms.star"),
        [loop_block("global", columns, tomograms)],
    )
    pairs = {
        "rlnTomoParticlesFile": star.name,
        "rlnTomoTomogramsFile": f"{star.stem}_tomograms.star",
    }
    write_star(
        star.with_name(f"{star.stem}_optimisation_set.star"),
        [list_block("", pairs)],
    )
    return [
        list_block("general", {"rlnTomoSubTomosAre2DStacks": "1"}),
        loop_block(
            "optics",
            [
                *("rlnOpticsGroup", "rlnOpticsGroupName", "rlnSphericalAberration", "rlnVoltage"),
                *("rlnTomoTiltSeriesPixelSize", "rlnCtfDataAreCtfPremultiplied"),
                *("rlnImageDimensionality", "rlnTomoSubtomogramBinning", "rlnImagePixelSize"),
                *("rlnImageSize", "rlnAmplitudeContrast"),
            ],
            optics,
        ),
        loop_block(
            "particles",
            [
                *("rlnTomoName", "rlnTomoParticleId"),
                *("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"),
                *("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnTomoParticleName"),
                *("rlnOpticsGroup", "rlnImageName"),
                *("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst", "rlnTomoVisibleFrames"),
            ],
            particles,
        ),
    ]


def _table_3d(o: Options, star: Path, tables: dict[str, Any]) -> list[Block]:
    rows = [
        (
            *(f"{value / o['output_angpix']:.3f}" for value in place),
            *angle,
            f"{name}.tomostar",
            *("10000.0", f"{o['output_angpix']:.5f}"),
            _relative(volume, star),
            _relative(ctf, star),
            f"{o['output_angpix']:.5f}",
        )
        for name, (_, places, angles, made) in tables.items()
        for place, angle, (volume, ctf) in zip(places, angles, made, strict=True)
    ]
    columns = [
        *("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"),
        *("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnMicrographName"),
        *("rlnMagnification", "rlnDetectorPixelSize", "rlnImageName", "rlnCtfImage"),
        "rlnPixelSize",
    ]
    return [loop_block("", columns, rows)]
