"""Doubles of what works on a stack: newstack, batchruntomo and submfg of IMOD, AreTomo2 and 3.

They read and write the real formats, hold their options against the contract that comes with the
package (`stack_programs_cli.json`), and align with the embedded tool. As the real ones: an AreTomo
that fails ends with 0 and leaves no `.aln`, and batchruntomo aborts a data set with exit code 0.
DOUBLES_FAIL names data sets to fail on.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
from doubles.aln_writer import aln_file, write_aln
from doubles.failing import is_to_fail

from crboost.builders.stack_contract import check, parsed
from crboost.translate.alignment import TiltAlignment
from crboost.translate.image_stack import ImageStack
from crboost.translate.imod import imod_files, read_angles, tlt_text, xf_text

ARETOMO = {"-TiltAxis", "-AlignZ", "-TiltCor", "-DarkTol", "-Gpu", "-VolZ", "-OutImod"}
#: The options that the doubles follow, or that make no difference to what they write.
FOLLOWED = {
    "AreTomo2": ARETOMO | {"-InMrc", "-OutMrc", "-AngFile", "-OutBin", "-Patch"},
    "AreTomo3": ARETOMO
    | {"-InPrefix", "-InSuffix", "-OutDir", "-PixSize", "-kV", "-Cs", "-AtPatch", "-ExtZ"}
    | {"-Cmd", "-Serial", "-CorrCTF"},
    "newstack": {"-ModeToOutput", "-ShrinkByFactor"},
    "batchruntomo": {"-DirectiveFile", "-CurrentLocation", "-RootName", "-EndingStep"},
    "submfg": set(),
}


def read_arguments(program: str, words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(options by their long names with their values, words besides).

    Ends the program at what the contract does not know, where an AreTomo would pass over it, and
    at an option that the double does not follow: a test would take it for done.
    """
    argv = [program, *words]
    problems = check(argv)
    options, rest = ({}, []) if problems else parsed(argv)
    problems += [f"the double has no {name}" for name in options if name not in FOLLOWED[program]]
    if problems:
        sys.exit("\n".join(f"ERROR: {program.upper()} - {problem}" for problem in problems))
    return options, rest


def newstack(words: Sequence[str]) -> int:
    options, rest = read_arguments("newstack", words)
    (mode,) = options.get("-ModeToOutput", ["2"])
    if mode != "2":
        sys.exit(f"ERROR: NEWSTACK - the double has no mode {mode}")
    shrink = float(options.get("-ShrinkByFactor", ["1"])[0])
    *inputs, output = rest
    images = []
    pixel = 1.0
    for path in inputs:
        with mrcfile.open(path) as opened:
            images.append(np.asarray(opened.data, dtype=np.float32))
            pixel = float(opened.voxel_size.x)
    if shrink > 1:
        images = [shrunk(image, shrink) for image in images]
    with mrcfile.new(output, np.stack(images), overwrite=True) as made:
        made.voxel_size = pixel * shrink
    return 0


def shrunk(image: np.ndarray, shrink: float) -> np.ndarray:
    """An antialiased smaller image, trimmed as newstack.f90, getReducedSize, does."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(image, shrink / 2.5)
    axes = []
    for old in image.shape:
        new = int(old / shrink)
        left_over = (old - new * shrink) / 2
        # The middles of the new pixels, where those lie among the old ones.
        axes.append(left_over + (np.arange(new) + 0.5) * shrink - 0.5)
    grid = np.meshgrid(*axes, indexing="ij")
    sampled: np.ndarray = ndimage.map_coordinates(smooth, grid, order=3, mode="nearest")
    return sampled.astype(np.float32)


def aligned(
    stack: Path, angles: Sequence[float], axis: float, dark: float, mode: str = "auto"
) -> tuple[list[TiltAlignment | None], tuple[int, int], float, dict[str, Any]]:
    """(alignment of each image, size, pixel size, the tool's own result)."""
    from crboost.cpu.commands import run_align

    with mrcfile.open(stack) as opened:
        images = np.asarray(opened.data, dtype=np.float32)
        pixel = float(opened.voxel_size.x)
    if len(images) != len(angles):
        sys.exit(f"{stack} holds {len(images)} images, there are {len(angles)} angles")
    with tempfile.TemporaryDirectory(dir=".") as name:
        where = Path(name)
        tilts = []
        for index, (image, angle) in enumerate(zip(images, angles, strict=True)):
            with mrcfile.new(where / f"{index}.mrc", image) as made:
                made.voxel_size = pixel
            tilts.append(
                {
                    "name": str(index),
                    "image": str(where / f"{index}.mrc"),
                    "tilt_angle_deg": angle,
                }
            )
        spec = {
            "tilt_series": stack.stem,
            "pixel_size_angstrom": pixel,
            "tilt_axis_deg": axis,
            "method": mode,
            "dark_threshold": dark,
            "tilts": tilts,
        }
        (where / "spec.json").write_text(json.dumps(spec))
        run_align(where / "spec.json", where, 1, lambda *_: None)
        result = json.loads((where / "result.json").read_text())
    keys = ("x_tilt_deg", "y_tilt_deg", "z_rot_deg", "x_shift_angstrom", "y_shift_angstrom")
    found = [
        TiltAlignment(*(tilt[key] for key in keys)) if tilt["status"] == "aligned" else None
        for tilt in result["tilts"]
    ]
    size = (images.shape[2], images.shape[1])
    return found, size, pixel, result


def aretomo(version: int, words: Sequence[str]) -> int:
    options, _ = read_arguments(f"AreTomo{version}", words)
    if version == 2:
        stack = Path(options["-InMrc"][0])
        angles = read_angles(Path(options["-AngFile"][0]))
        name = stack.name
    else:
        name = options["-InPrefix"][0]
        stack = Path(name + options["-InSuffix"][0])
        lines = Path(f"{name}_TLT.txt").read_text().split("\n")
        angles = [float(line.split()[0]) for line in lines if line]
    if is_to_fail(name):
        print("Error: GPU memory allocation failed.", file=sys.stderr)
        return 0
    axis, refine = (float(word) for word in options["-TiltAxis"])
    dark = float(options["-DarkTol"][0])
    found, size, pixel, _ = aligned(stack, angles, axis, dark)
    if refine < 0:  # the axis is what it was given as
        found = [
            one and TiltAlignment(0.0, one.y_tilt_deg, axis, one.x_shift_angstrom,
                                  one.y_shift_angstrom)
            for one in found
        ]  # fmt: skip
    geometry = ImageStack.shrunk(size, pixel, 1.0, centre="half")
    made = aln_file(found, geometry, size, angles)
    write_aln(Path(f"{name}.aln"), made, first_section=0 if version == 2 else 1)
    return 0


def batchruntomo(words: Sequence[str]) -> int:
    options, _ = read_arguments("batchruntomo", words)
    name = options["-RootName"][0]
    directives = dict(
        line.split(" = ", 1) for line in Path(options["-DirectiveFile"][0]).read_text().splitlines()
    )
    if is_to_fail(name) or not Path(f"{name}.rawtlt").is_file():
        print(f"ABORT SET: {name}")
        return 0
    is_beads = "setupset.copyarg.gold" in directives
    com = {
        "name": name,
        "axis": float(directives["setupset.copyarg.rotation"]),
        "mode": "beads" if is_beads else "coarse",
    }
    Path("align.com").write_text(json.dumps(com))
    return 0


def submfg(words: Sequence[str]) -> int:
    _, (command_file, *_) = read_arguments("submfg", words)
    com = json.loads(Path(command_file).read_text())
    name = com["name"]
    angles = read_angles(Path(f"{name}.rawtlt"))
    found, size, pixel, result = aligned(Path(f"{name}.st"), angles, com["axis"], 0.0, com["mode"])
    axis = result["tilt_axis_deg"]
    # tiltalign knows no dark images: what it cannot see stays where it was.
    whole = [
        one or TiltAlignment(0.0, angle, axis, 0.0, 0.0)
        for one, angle in zip(found, angles, strict=True)
    ]
    geometry = ImageStack.shrunk(size, pixel, 1.0, centre="middle")
    files = imod_files(whole, geometry)
    Path(f"{name}.xf").write_text(xf_text(files.transforms))
    Path(f"{name}.tlt").write_text(tlt_text(files.angles_deg))
    residual = result["residual_px"]
    if residual is not None:
        Path("align.log").write_text(f" Residual error mean and sd:   {residual:8.3f}    0.100\n")
    return 0


PROGRAMS = {
    "newstack": newstack,
    "batchruntomo": batchruntomo,
    "submfg": submfg,
    "AreTomo2": lambda words: aretomo(2, words),
    "AreTomo3": lambda words: aretomo(3, words),
}

if __name__ == "__main__":
    sys.exit(PROGRAMS[sys.argv[1]](sys.argv[2:]))
