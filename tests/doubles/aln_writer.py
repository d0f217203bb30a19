"""Writing AreTomo's `.aln`, as the doubles of AreTomo do; crboost only reads such files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crboost.errors import CrboostError
from crboost.translate.alignment import TiltAlignment
from crboost.translate.aln import AlnFile, AlnTilt, DarkFrame
from crboost.translate.image_stack import ImageStack


def write_aln(path: Path, aln: AlnFile, *, first_section: int = 0) -> None:
    """Write an `.aln` file as AreTomo2 1.3 (`first_section` 0) or AreTomo3 (1) does."""
    width, height = aln.stack_size_px or (0, 0)
    lines = [
        "# AreTomo Alignment / Priims bprmMn",
        f"# RawSize = {width} {height} {aln.images}",
        f"# NumPatches = {aln.patches}",
    ]
    lines += [
        f"# DarkFrame =  {d.order:4d} {d.section + first_section:4d} {d.tilt_deg + 0.0:8.2f}"
        for d in aln.darks
    ]
    if aln.alpha_offset_deg is not None:
        lines.append(f"# AlphaOffset = {aln.alpha_offset_deg:8.2f}")
    if aln.beta_offset_deg is not None:
        lines.append(f"# BetaOffset = {aln.beta_offset_deg:8.2f}")
    if aln.thickness_px is not None:
        lines.append(f"# Thickness = {aln.thickness_px}")
    lines.append(
        "# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     "
        "BASE     TILT"
    )
    for t in aln.tilts:
        x, y = t.shift_px
        lines.append(
            f"{t.section + first_section:5d}  {t.axis_deg:9.4f}  {1.0:9.5f}  {x:9.3f}  {y:9.3f}"
            f"  {1.0:7.2f}  {1.0:7.2f}  {1.0:7.2f}  {0.0:7.2f}  {t.tilt_deg:8.2f}"
        )
    if aln.local:
        lines.append("# Local Alignment")
        lines += [
            f"{s.tilt:4d} {s.patch:3d} {s.position_px[0]:8.2f}  {s.position_px[1]:8.2f}"
            f"  {s.shift_px[0]:8.2f}  {s.shift_px[1]:8.2f}  {s.good:4.1f}"
            for s in aln.local
        ]
    path.write_text("\n".join(lines) + "\n")


def aln_file(
    alignments: Sequence[TiltAlignment | None],
    stack: ImageStack,
    stack_size_px: tuple[int, int],
    angles_deg: Sequence[float],
    *,
    angle_sign: int = 1,
) -> AlnFile:
    """The way back: the `.aln` of a stack, from the alignment of each of its images.

    Args:
        alignments: in stack order; None for an image to be left out: it becomes a dark frame.
        angles_deg: the stack's own angles, for the dark frames.
        angle_sign: -1 for a stack whose angles have Warp's sign.

    Raises:
        CrboostError: an alignment has an x-tilt, which an `.aln` cannot carry.
    """
    tilts, dark_sections = [], []
    for section, alignment in enumerate(alignments):
        if alignment is None:
            dark_sections.append(section)
            continue
        if abs(alignment.x_tilt_deg) > 1e-6:
            raise CrboostError(f"rlnTomoXTilt is {alignment.x_tilt_deg}: an .aln cannot say that")
        shift = stack.offset_px((alignment.x_shift_angstrom, alignment.y_shift_angstrom))
        tilts.append(
            AlnTilt(section, alignment.z_rot_deg, shift, angle_sign * alignment.y_tilt_deg)
        )
    by_angle = sorted(range(len(angles_deg)), key=lambda section: angles_deg[section])
    order = {section: place for place, section in enumerate(by_angle)}
    darks = sorted(
        (DarkFrame(order[section], section, angles_deg[section]) for section in dark_sections),
        key=lambda dark: dark.order,
    )
    return AlnFile(
        len(alignments),
        stack_size_px,
        tuple(sorted(tilts, key=lambda tilt: (tilt.tilt_deg, tilt.section))),
        tuple(darks),
    )
