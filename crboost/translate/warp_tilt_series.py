"""Warp's XML of one tilt series (`<processing>/<series>.xml`) and RELION's rows."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from crboost.errors import CrboostError, FileFormatError
from crboost.tilt_name import tilt_name
from crboost.translate.alignment import TiltAlignment
from crboost.translate.defocus import DEGREES_PER_PHASE_UNIT, Defocus
from crboost.translate.image_stack import ImageStack
from crboost.translate.imod import ImodFiles, imod_files
from crboost.translate.output import SeriesOutput, grouped
from crboost.translate.tables import Row
from crboost.translate.warp_xml import (
    Grid,
    WarpXml,
    add_grid,
    add_list,
    add_params,
    movie_stem,
    number_text,
    write_xml,
)

#: Warp's grids that move or turn parts of the specimen, with their unit: RELION's columns have no
#: place for them.
DEFORMATIONS = {
    **{f"GridVolumeWarp{axis}": "A" for axis in "XYZ"},
    **{f"GridAngle{axis}": "deg" for axis in "XYZ"},
}


@dataclass(frozen=True)
class WarpTilt:
    """One tilt image in Warp's terms.

    Attributes:
        movie: as in the file: relative to the `.tomostar`.
        angle_deg: Warp's tilt angle; RELION's has the other sign.
        dose_e_per_a2: before this tilt image.
        use: Warp's `UseTilt`; only these are in its stacks and tomograms.
        axis_deg: of the tilt axis, counter-clockwise from +y.
        offset_angstrom: where the specimen's centre lies, from the image's centre n / 2.
        movement_angstrom: what Warp takes off that (`GridMovementX`, `Y`), where it is one value
            per tilt.
        defocus: at the tomogram's centre; None when the CTF was not fitted.
    """

    movie: str
    angle_deg: float
    dose_e_per_a2: float
    use: bool = True
    axis_deg: float = 0.0
    offset_angstrom: tuple[float, float] = (0.0, 0.0)
    movement_angstrom: tuple[float, float] = (0.0, 0.0)
    defocus: Defocus | None = None

    @property
    def name(self) -> str:
        return movie_stem(self.movie)


@dataclass(frozen=True)
class WarpTiltSeries:
    """What Warp knows of one tilt series; the tilts in the order of the `.tomostar`.

    Attributes:
        deselected: Warp's `UnselectManual`; WarpTools sets it when processing failed.
        are_angles_inverted: Warp's defocus hand: True after `ts_defocus_hand --set_flip`.
        level_angle_x_deg, level_angle_y_deg: how Warp levels the specimen.
        ctf_resolution_angstrom: of the whole series; None before `ts_ctf`.
        image_angstrom, volume_angstrom: sizes; newer versions of Warp only.
        deformations: what RELION's rows go without: a grid that bends the specimen, or a corrected
            magnification, each with how much it is.
    """

    name: str
    tilts: tuple[WarpTilt, ...]
    are_angles_inverted: bool = False
    deselected: bool | None = None
    level_angle_x_deg: float = 0.0
    level_angle_y_deg: float = 0.0
    ctf_resolution_angstrom: float | None = None
    voltage_kv: float = 300.0
    spherical_aberration_mm: float = 2.7
    amplitude_contrast: float = 0.07
    image_angstrom: tuple[float, ...] | None = None
    volume_angstrom: tuple[float, ...] | None = None
    deformations: tuple[str, ...] = ()

    @property
    def used(self) -> tuple[WarpTilt, ...]:
        """The tilts of Warp's stack, `.rawtlt`, `.xf`, `.tlt`, `.aln`, in that order."""
        return tuple(tilt for tilt in self.tilts if tilt.use)

    @property
    def aligned(self) -> bool:
        """An alignment was imported: without one every offset is exactly zero."""
        return any(any(tilt.offset_angstrom) for tilt in self.tilts)

    @property
    def problem(self) -> str | None:
        """Why this tilt series cannot go on; None when it can."""
        if self.deselected:
            return "WarpTools deselected it: its processing failed"
        if not self.used:
            return "Warp uses none of its tilt images"
        return None

    @property
    def hand(self) -> float:
        """rlnTomoHand.

        Warp's defocus of a point is the tilt's plus its depth (`GetPositionInAllTilts`), or minus,
        when the angles are inverted; RELION's is the tilt's plus hand times the same depth
        (`Tomogram::getCtf`). Both have the same depth, as both have the same matrix.
        """
        return -1.0 if self.are_angles_inverted else 1.0


def read_warp_tilt_series(path: Path) -> WarpTiltSeries:
    """Read `<series>.xml`.

    Raises:
        FileFormatError: the file is missing, not such a file, or its lists do not have one value
            per tilt; names the element.
    """
    xml = WarpXml(path, "TiltSeries")
    angles = xml.numbers("Angles")
    if angles is None:
        raise FileFormatError(path, "has no element Angles")
    count = len(angles)
    movies = xml.texts("MoviePath")
    if movies is None or len(movies) != count or not all(movies):
        raise FileFormatError(path, f"MoviePath: {count} paths expected")
    zeros = [0.0] * count
    dose = xml.numbers("Dose", count) or zeros
    use = xml.flags("UseTilt", count) or [True] * count
    axis = xml.numbers("AxisAngle", count) or zeros
    offset_x = xml.numbers("AxisOffsetX", count) or zeros
    offset_y = xml.numbers("AxisOffsetY", count) or zeros
    movement_x, bent_x = _movement(xml, "GridMovementX", count)
    movement_y, bent_y = _movement(xml, "GridMovementY", count)
    defoci = _defoci(xml, count)
    tilts = tuple(
        WarpTilt(
            movies[i],
            angles[i],
            dose[i],
            use[i],
            axis[i],
            (offset_x[i], offset_y[i]),
            (movement_x[i], movement_y[i]),
            defoci[i],
        )
        for i in range(count)
    )
    names = [tilt.name for tilt in tilts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FileFormatError(path, f"MoviePath names {twice} twice")
    deformations = [
        f"{name}, up to {max(map(abs, grid.values)):.3g} {unit}"
        for name, unit in DEFORMATIONS.items()
        if (grid := xml.grid(name)) is not None and any(grid.values)
    ]
    deformations += [text for text in (bent_x, bent_y, _magnification(xml)) if text]
    resolution = xml.attribute("CTFResolutionEstimate", 0.0)
    return WarpTiltSeries(
        name=path.stem,
        tilts=tilts,
        are_angles_inverted=bool(xml.flag("AreAnglesInverted")),
        deselected=xml.flag("UnselectManual"),
        level_angle_x_deg=xml.attribute("LevelAngleX", 0.0),
        level_angle_y_deg=xml.attribute("LevelAngleY", 0.0),
        ctf_resolution_angstrom=resolution if resolution > 0 else None,
        voltage_kv=_or(xml.param("CTF", "Voltage"), 300.0),
        spherical_aberration_mm=_or(xml.param("CTF", "Cs"), 2.7),
        amplitude_contrast=_or(xml.param("CTF", "Amplitude"), 0.07),
        image_angstrom=xml.vector("ImageDimensionsAngstrom", 2),
        volume_angstrom=xml.vector("VolumeDimensionsAngstrom", 3),
        deformations=tuple(deformations),
    )


def write_warp_tilt_series(path: Path, series: WarpTiltSeries, *, encoding: str = "utf-8") -> None:
    """Write the XML of one tilt series in Warp's form, with what `WarpTiltSeries` knows.

    Raises:
        CrboostError: some tilts have a defocus and others do not: Warp's grids hold one for each.
    """
    root = ET.Element(
        "TiltSeries",
        {
            "DataDirectory": "",
            "AreAnglesInverted": str(series.are_angles_inverted),
            "PlaneNormal": "0, 0, 0",
            "LevelAngleX": number_text(series.level_angle_x_deg),
            "LevelAngleY": number_text(series.level_angle_y_deg),
            "Bfactor": "0",
            "Weight": "1",
            "MagnificationCorrection": "1, 0, 0, 1",
            "ImageDimensionsAngstrom": _vector_text(series.image_angstrom or (0.0, 0.0)),
            "VolumeDimensionsAngstrom": _vector_text(series.volume_angstrom or (0.0, 0.0, 0.0)),
            "UnselectFilter": "False",
            "UnselectManual": "" if series.deselected is None else str(series.deselected),
            "CTFResolutionEstimate": number_text(series.ctf_resolution_angstrom or 0.0),
        },
    )
    tilts = series.tilts
    add_list(root, "Angles", [number_text(t.angle_deg) for t in tilts])
    add_list(root, "Dose", [number_text(t.dose_e_per_a2) for t in tilts])
    add_list(root, "UseTilt", [str(t.use) for t in tilts])
    add_list(root, "AxisAngle", [number_text(t.axis_deg) for t in tilts])
    add_list(root, "AxisOffsetX", [number_text(t.offset_angstrom[0]) for t in tilts])
    add_list(root, "AxisOffsetY", [number_text(t.offset_angstrom[1]) for t in tilts])
    add_list(root, "MoviePath", [t.movie for t in tilts])
    add_list(root, "FOVFraction", ["1" for _ in tilts])
    defoci = [t.defocus for t in tilts if t.defocus is not None]
    fitted = len(defoci) == len(tilts) > 0
    if defoci and not fitted:
        without = next(tilt.name for tilt in tilts if tilt.defocus is None)
        raise CrboostError(f"{path}: tilt image {without} has no defocus, and others have one")
    if fitted:
        add_params(root, "OptionsCTF", {"Window": "512"})
    add_params(
        root,
        "CTF",
        {
            "Amplitude": number_text(series.amplitude_contrast),
            "DefocusDelta": number_text(defoci[0].delta_um if fitted else 0.0),
            "Defocus": number_text(_mean([d.defocus_um for d in defoci]) if fitted else 1.0),
            "Voltage": number_text(series.voltage_kv),
            "Cs": number_text(series.spherical_aberration_mm),
            "DefocusAngle": number_text(defoci[0].angle_deg if fitted else 0.0),
        },
    )
    nothing = Grid(1, 1, 1, (0.0,))
    for name, values in (
        ("GridCTF", [d.defocus_um for d in defoci]),
        ("GridCTFDefocusDelta", [d.delta_um for d in defoci]),
        ("GridCTFDefocusAngle", [d.angle_deg for d in defoci]),
        ("GridCTFPhase", [d.phase_shift_deg / DEGREES_PER_PHASE_UNIT for d in defoci]),
    ):
        add_grid(root, name, Grid.per_tilt(values) if fitted else nothing)
    for axis, name in enumerate(("GridMovementX", "GridMovementY")):
        movement = [t.movement_angstrom[axis] for t in tilts]
        add_grid(root, name, Grid.per_tilt(movement) if any(movement) else nothing)
    write_xml(path, root, encoding=encoding)


def warp_alignments(
    series: WarpTiltSeries,
    image_size_px: tuple[int, int],
    tomogram_size_px: tuple[int, int, int],
    pixel_size_angstrom: float,
) -> dict[str, TiltAlignment | str]:
    """Alignments from Warp's XML: tilt image -> alignment, or why it has none.

    Warp (`TiltSeries.GetPositionInAllTilts`) and RELION have the same matrix when YTilt =
    -(angle + LevelAngleY), ZRot = the axis angle, XTilt = LevelAngleX. The offsets are RELION's
    shifts but for the centres: Warp's is n / 2 for images and tomograms, RELION's n // 2.

    Args:
        image_size_px: of the full-size tilt image.
        tomogram_size_px: unbinned: what goes to rlnTomoSizeX, Y, Z and was given to Warp as
            `--tomo_dimensions`.
        pixel_size_angstrom: of the full-size tilt image.
    """
    alignments: dict[str, TiltAlignment | str] = {}
    for tilt in series.tilts:
        if not tilt.use:
            alignments[tilt.name] = "Warp does not use it (UseTilt is False)"
            continue
        turned = TiltAlignment(
            series.level_angle_x_deg,
            -(tilt.angle_deg + series.level_angle_y_deg),
            tilt.axis_deg,
            0.0,
            0.0,
        )
        x, y = _centre_difference(turned, image_size_px, tomogram_size_px, pixel_size_angstrom)
        alignments[tilt.name] = TiltAlignment(
            turned.x_tilt_deg,
            turned.y_tilt_deg,
            turned.z_rot_deg,
            tilt.offset_angstrom[0] - tilt.movement_angstrom[0] + x,
            tilt.offset_angstrom[1] - tilt.movement_angstrom[1] + y,
        )
    return alignments


def warp_import_files(
    alignments: Sequence[TiltAlignment],
    image_size_px: tuple[int, int],
    tomogram_size_px: tuple[int, int, int],
    pixel_size_angstrom: float,
    stack_pixel_size_angstrom: float,
) -> ImodFiles:
    """RELION alignments as the `.xf` and `.tlt` that `ts_import_alignments` turns back into them.

    WarpTools takes AxisAngle from the matrix, the offsets as -A^T d times `--alignment_angpix`,
    from n / 2 (`TiltSeries.ImportAlignments.cs`), and needs one line per tilt of its stack.

    Args:
        alignments: in the order of Warp's stack: `WarpTiltSeries.used`.
        image_size_px: of the full-size tilt image.
        tomogram_size_px: unbinned.
        pixel_size_angstrom: of the full-size tilt image.
        stack_pixel_size_angstrom: what `--alignment_angpix` says.

    Raises:
        CrboostError: an alignment has an x-tilt.
    """
    seen_by_warp = []
    for alignment in alignments:
        x, y = _centre_difference(alignment, image_size_px, tomogram_size_px, pixel_size_angstrom)
        seen_by_warp.append(
            replace(
                alignment,
                x_shift_angstrom=alignment.x_shift_angstrom - x,
                y_shift_angstrom=alignment.y_shift_angstrom - y,
            )
        )
    return imod_files(seen_by_warp, ImageStack.plain(stack_pixel_size_angstrom), angle_sign=-1)


def deformation_warnings(series: WarpTiltSeries) -> list[str]:
    """What of Warp's model RELION's rows go without."""
    if not series.deformations:
        return []
    return [
        "RELION's tables cannot say all of Warp's model, and go without "
        + "; ".join(series.deformations)
    ]


def warp_ctf_output(rows: Sequence[Row], series: WarpTiltSeries) -> SeriesOutput:
    """RELION rows with the CTF that `ts_ctf` fitted, and rlnTomoHand.

    Tilt images that Warp does not use leave the table; a person sees why.
    """
    output = SeriesOutput({"rlnTomoHand": series.hand}, [])
    problems: list[tuple[str, str]] = []
    by_name = {tilt.name: tilt for tilt in series.tilts}
    defoci = []
    for row in rows:
        name = tilt_name(row)
        angle = float(row["rlnTomoNominalStageTiltAngle"])
        tilt = by_name.get(name)
        reason = None
        if tilt is None:
            reason = "Warp's tilt series does not have it"
        elif not tilt.use:
            reason = "Warp does not use it (UseTilt is False)"
        elif tilt.defocus is None:
            reason = "Warp fitted no CTF to it"
        output.tilts.append(
            {
                "name": name,
                "tilt_angle_deg": angle,
                "status": "done" if reason is None else "excluded",
                "reason": reason,
            }
        )
        if reason is not None or tilt is None or tilt.defocus is None:
            problems.append((f"tilt image {name} ({angle:+.1f} deg)", f"excluded: {reason}"))
            continue
        columns = {**row, **tilt.defocus.columns()}
        if series.ctf_resolution_angstrom is not None:
            columns["rlnCtfMaxResolution"] = series.ctf_resolution_angstrom
        output.rows.append(columns)
        defoci.append(tilt.defocus.defocus_um)
    output.warnings.extend(grouped(problems))
    output.warnings.extend(deformation_warnings(series))
    output.metrics.update(
        tilts=len(output.rows),
        tilts_total=len(rows),
        defocus_um=median(defoci) if defoci else None,
        ctf_resolution_angstrom=series.ctf_resolution_angstrom,
    )
    return output


def _centre_difference(
    alignment: TiltAlignment,
    image_size_px: tuple[int, int],
    tomogram_size_px: tuple[int, int, int],
    pixel_size_angstrom: float,
) -> tuple[float, float]:
    """What turns Warp's offset into RELION's shift: half a pixel for every odd size."""
    volume = [(size % 2) / 2 * pixel_size_angstrom for size in tomogram_size_px]
    rotation = alignment.rotation()
    x, y = (
        (image_size_px[axis] % 2) / 2 * pixel_size_angstrom
        - sum(rotation[axis][i] * volume[i] for i in range(3))
        for axis in (0, 1)
    )
    return x, y


def _movement(xml: WarpXml, element: str, count: int) -> tuple[list[float], str | None]:
    """A movement per tilt, and what the grid holds beyond that; in Angstrom."""
    grid = xml.grid(element)
    if grid is None or not any(grid.values):
        return [0.0] * count, None
    layers = grid.layers()
    if len(layers) not in (1, count):
        most = max(map(abs, grid.values))
        return [0.0] * count, f"{element}, up to {most:.3g} A ({len(layers)} layers)"
    area = grid.width * grid.height
    off = max(abs(value - layers[i // area]) for i, value in enumerate(grid.values))
    bent = f"{element}, up to {off:.3g} A from the image's mean" if area > 1 else None
    return layers * count if len(layers) == 1 else layers, bent


def _magnification(xml: WarpXml) -> str | None:
    """Warp's anisotropic magnification, where it is not one."""
    matrix = xml.vector("MagnificationCorrection", 4)
    if matrix is None:
        return None
    off = max(abs(value - unit) for value, unit in zip(matrix, (1, 0, 0, 1), strict=True))
    if off < 1e-6:
        return None
    return f"MagnificationCorrection ({', '.join(map(number_text, matrix))}), up to {off:.2%}"


def _defoci(xml: WarpXml, count: int) -> list[Defocus | None]:
    """The defocus of every tilt from the grids of one value per tilt, by `Node Z`.

    Before `ts_ctf` the grids have one node, and mean nothing.
    """
    if not xml.has("OptionsCTF"):
        return [None] * count
    columns = []
    for element in ("GridCTF", "GridCTFDefocusDelta", "GridCTFDefocusAngle", "GridCTFPhase"):
        grid = xml.grid(element)
        layers = grid.layers() if grid is not None else [0.0]
        if len(layers) == 1 and element != "GridCTF":
            layers = layers * count
        if len(layers) != count:
            raise FileFormatError(
                xml.path, f"{element}: {count} layers expected, one per tilt, found {len(layers)}"
            )
        columns.append(layers)
    return [
        Defocus(um, delta, angle, phase * DEGREES_PER_PHASE_UNIT)
        for um, delta, angle, phase in zip(*columns, strict=True)
    ]


def _vector_text(values: Sequence[float]) -> str:
    return ", ".join(number_text(value) for value in values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
