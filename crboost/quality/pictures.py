"""The summary picture of one tilt series: one page that says whether it is any good.

Left the central slice of the tomogram, right the CTF fit, the defocus and the motion of each
tilt image, the shifts of its frames, and the tilt scheme. What a stage has not made yet is left
out and named.

matplotlib's object interface only: no backend is chosen, no display needed, nothing global.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crboost.errors import FileFormatError
from crboost.quality.details import CtfCurve
from crboost.quality.series import SeriesReport, TiltReport, TiltState
from crboost.quality.summary import headline

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCH = (12.0, 8.0)
DPI = 100
SLAB_NM = 10.0

INK, FAINT, GRID = "#1f2933", "#6b7785", "#e4e8ec"
BLUE, ORANGE, RED = "#1f6f9f", "#d9730d", "#b4232a"
COLOURS: dict[TiltState, str] = {
    "used": BLUE,
    "excluded": ORANGE,
    "failed": RED,
    "missing": RED,
}
MARKERS: dict[TiltState, str] = {"used": "o", "excluded": "s", "failed": "X", "missing": "x"}


@dataclass(frozen=True)
class Slice:
    """A slab through the middle of a tomogram.

    Attributes:
        image: [y, x], the mean over the slab.
        pixel_size_angstrom: of the image; None when the file does not say.
        thickness_nm: of the slab.
        summed: how many volumes were added up: 2 for the halves of a tomogram.
    """

    image: npt.NDArray[np.float32]
    pixel_size_angstrom: float | None
    thickness_nm: float | None
    summed: int = 1


def central_slice(volumes: Sequence[Path], pixel_size_angstrom: float | None = None) -> Slice:
    """Read the middle of an MRC tomogram, averaged over 10 nm; the rest is not read.

    Args:
        volumes: one, or the halves of one, which are added up.
        pixel_size_angstrom: where it is known better than from the file's header.

    Raises:
        FileFormatError: a file is no MRC volume, or the halves differ in size.
    """
    slabs = [_slab(volume, pixel_size_angstrom) for volume in volumes]
    first = slabs[0]
    for volume, slab in zip(volumes, slabs, strict=True):
        if slab.image.shape != first.image.shape:
            raise FileFormatError(volume, f"is not of the size of {volumes[0].name}")
    image = first.image
    for slab in slabs[1:]:
        image = image + slab.image
    return replace(first, image=image, summed=len(slabs))


def _slab(path: Path, pixel_size_angstrom: float | None) -> Slice:
    import mrcfile
    import numpy as np

    try:
        with (
            warnings.catch_warnings(action="ignore"),  # other people's headers; we check the data
            mrcfile.mmap(path, mode="r", permissive=True) as volume,
        ):
            data = volume.data
            if data is None or data.ndim != 3:
                raise FileFormatError(path, "is not an MRC volume")
            pixel_size = pixel_size_angstrom or float(volume.voxel_size.x)
            slices = max(1, round(SLAB_NM * 10 / pixel_size)) if pixel_size > 0 else 1
            slices = min(slices, data.shape[0])
            start = (data.shape[0] - slices) // 2
            image = np.asarray(data[start : start + slices], np.float32).mean(axis=0)
    except (ValueError, OSError) as error:
        raise FileFormatError(path, f"cannot be read as MRC: {error}") from error
    known = pixel_size > 0
    return Slice(
        image,
        pixel_size if known else None,
        slices * pixel_size / 10 if known else None,
    )


def contrast_limits(image: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Grey values for black and white: the median, 5 robust standard deviations either way.

    Percentiles would do for ice and cells, but a few gold beads would make everything else grey.
    """
    import numpy as np

    values = image[np.isfinite(image)]
    if values.size == 0:
        return 0.0, 1.0
    middle = float(np.median(values))
    spread = 5 * 1.4826 * float(np.median(np.abs(values - middle)))
    return (middle - spread, middle + spread) if spread > 0 else (middle - 1.0, middle + 1.0)


def scale_bar_nm(width_nm: float) -> float:
    """A round length of about a fifth of the picture's width: 1, 2 or 5 times a power of ten."""
    target = width_nm / 5
    power = 1e-3
    while power * 10 <= target:
        power *= 10
    return float(max(step * power for step in (1, 2, 5) if step * power <= target))


def draw(report: SeriesReport, tomogram: Slice | None, *, source: str = "") -> bytes:
    """The picture as PNG.

    Args:
        tomogram: None when there is none yet.
        source: kept in the file's `Source` text; identifies what the picture was made from.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCH, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    _title(figure, report)
    _tomogram(figure, report, tomogram)
    panels = figure.add_gridspec(
        3, 2, left=0.565, right=0.975, top=0.845, bottom=0.075, hspace=0.62, wspace=0.30
    )
    _ctf(figure.add_subplot(panels[0, :]), report)
    _defocus(figure.add_subplot(panels[1, 0]), report.tilts)
    _scheme(figure.add_subplot(panels[1, 1]), report.tilts)
    _motion(figure.add_subplot(panels[2, 0]), report.tilts)
    _shifts(figure.add_subplot(panels[2, 1]), report.tilts)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Source": source, "Software": "crboost"})
    return stream.getvalue()


def _title(figure: Figure, report: SeriesReport) -> None:
    figure.text(
        0.035,
        0.955,
        report.name,
        fontsize=19,
        fontweight="bold",
        color=INK,
        va="center",
        parse_math=False,
    )
    words = headline(report.metrics) or "no results yet"
    figure.text(0.035, 0.908, words, fontsize=11, color=FAINT, va="center")
    figure.text(
        0.975,
        0.955,
        "   ".join(report.jobs),
        fontsize=8,
        color=FAINT,
        va="center",
        ha="right",
        parse_math=False,
    )


def _tomogram(figure: Figure, report: SeriesReport, tomogram: Slice | None) -> None:
    axes = figure.add_axes((0.035, 0.185, 0.44, 0.66))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if tomogram is None:
        _nothing(axes, "no tomogram" if report.problem else "no tomogram yet")
        axes.set_facecolor("#f4f6f8")
        below = 0.165
    else:
        low, high = contrast_limits(tomogram.image)
        axes.imshow(tomogram.image, cmap="gray", vmin=low, vmax=high, origin="lower")
        axes.set_anchor("NW")
        _scale_bar(axes, tomogram)
        words = "Central slice of the tomogram"
        if report.halves:
            words = "Central slice, sum of both halves"
            if tomogram.summed == 1:
                words = "Central slice of one half"
        if tomogram.thickness_nm:
            words += (
                f", {tomogram.thickness_nm:.0f} nm thick, "
                f"{tomogram.pixel_size_angstrom:.1f} Å per pixel; tilt axis upright"
            )
        axes.set_title(words, loc="left", fontsize=9, color=FAINT, pad=5)
        height, width = tomogram.image.shape
        below = 0.845 - 0.66 * min(1.0, height / width) - 0.02
    _remarks(figure, report, below)


def _scale_bar(axes: Axes, tomogram: Slice) -> None:
    from matplotlib.patches import Rectangle

    if not tomogram.pixel_size_angstrom:
        return
    height, width = tomogram.image.shape
    length_nm = scale_bar_nm(width * tomogram.pixel_size_angstrom / 10)
    length = length_nm * 10 / tomogram.pixel_size_angstrom
    margin, thickness = 0.04 * width, 0.012 * height
    box = (margin - 0.02 * width, margin - 0.02 * height)
    axes.add_patch(
        Rectangle(
            box, length + 0.04 * width, 0.095 * height, facecolor="black", alpha=0.55, linewidth=0
        )
    )
    axes.add_patch(Rectangle((margin, margin), length, thickness, facecolor="white", linewidth=0))
    axes.text(
        margin + length / 2,
        margin + 1.6 * thickness,
        f"{length_nm:g} nm",
        color="white",
        fontsize=10,
        ha="center",
        va="bottom",
    )


def remarks(report: SeriesReport, *, width: int = 84, lines: int = 5) -> list[str]:
    """The problem and the warnings as lines of text; says how many did not fit."""
    texts = ([report.problem] if report.problem else []) + list(report.warnings)
    shown: list[str] = []
    for position, text in enumerate(texts):
        wrapped = textwrap.wrap(f"• {text}", width, subsequent_indent="  ", max_lines=2)
        rest = len(texts) - position
        if len(shown) + len(wrapped) > lines - (rest > 1):
            shown.append(f"  and {rest} more: see crboost status")
            break
        shown += wrapped
    return shown


def _remarks(figure: Figure, report: SeriesReport, top: float) -> None:
    figure.text(
        0.035,
        top,
        "\n".join(remarks(report)),
        fontsize=8.5,
        color=INK,
        va="top",
        linespacing=1.45,
        parse_math=False,
    )


def _ctf(axes: Axes, report: SeriesReport) -> None:
    tilt = report.central_tilt
    _panel(axes, "CTF fit" if tilt is None else f"CTF fit at {tilt.angle_deg:.1f}°")
    if tilt is None or tilt.ctf_curve is None:
        measured = any(one.defocus_um is not None for one in report.tilts)
        words = "fitted, but the tool left no curve to show" if measured else "no CTF yet"
        _nothing(axes, words)
        return
    curve = tilt.ctf_curve
    frequency = curve.frequency_per_angstrom
    axes.plot(frequency, curve.power, color=BLUE, linewidth=1.0, label="spectrum")
    axes.plot(frequency, curve.fit, color=ORANGE, linewidth=1.4, label="fit")
    resolution = tilt.ctf_resolution_angstrom
    if resolution:
        axes.axvline(1 / resolution, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{resolution:.1f} Å",
            (1 / resolution, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 0),
            textcoords="offset points",
            ha="right",
            fontsize=8.5,
            color=FAINT,
        )
    axes.set_xlim(frequency[0], frequency[-1])
    bottom, top = curve_limits(curve)
    axes.set_ylim(bottom, top)
    axes.set_yticks([])
    axes.set_xlabel("spatial frequency (1/Å)")
    axes.legend(
        frameon=False,
        fontsize=8.5,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        handlelength=1.4,
        borderpad=0,
    )


def curve_limits(curve: CtfCurve) -> tuple[float, float]:
    """The range of the fit and of most of the spectrum, whose ends may shoot out of any scale."""
    ordered = sorted(curve.power)
    edge = len(ordered) // 20
    low = min(ordered[edge], *curve.fit)
    high = max(ordered[-1 - edge], *curve.fit)
    margin = 0.1 * (high - low) or 1.0
    return low - margin, high + margin


def _defocus(axes: Axes, tilts: Sequence[TiltReport]) -> None:
    _panel(axes, "Defocus (µm)")
    known = [(tilt, tilt.defocus_um) for tilt in tilts if tilt.defocus_um is not None]
    _by_angle(axes, known, "no defocus yet", limits_of(known, at_least=0.2))


def _motion(axes: Axes, tilts: Sequence[TiltReport]) -> None:
    _panel(axes, "Motion per tilt image (Å)")
    known = [(tilt, tilt.motion_angstrom) for tilt in tilts if tilt.motion_angstrom is not None]
    _, top = limits_of(known, at_least=0.5)
    _by_angle(axes, known, "no motion yet", (0.0, top), stems=True)


def _shifts(axes: Axes, tilts: Sequence[TiltReport]) -> None:
    """The path of each movie's frames; the one nearest to zero degrees stands out."""
    _panel(axes, "Frame shifts (Å)")
    known = [(tilt, tilt.shifts_angstrom) for tilt in tilts if tilt.shifts_angstrom]
    used = [(tilt, track) for tilt, track in known if tilt.state == "used"]
    if not used:
        _nothing(axes, "no frame shifts")
        return
    central, _ = min(used, key=lambda one: abs(one[0].angle_deg))
    for tilt, track in used:
        strong = tilt is central
        axes.plot(
            *zip(*track, strict=True),
            color=ORANGE if strong else BLUE,
            linewidth=1.6 if strong else 0.8,
            alpha=1 if strong else 0.35,
            zorder=3,
        )
    axes.plot(0, 0, marker="o", markersize=3, color=INK, zorder=4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    axes.set_xlabel(f"from the first frame; orange: {central.angle_deg:.0f}°")


def limits_of(
    points: Sequence[tuple[TiltReport, float]], *, at_least: float
) -> tuple[float, float]:
    """The range that shows the tilt images in use; one that is not must not flatten the rest.

    Args:
        at_least: the smallest range, so that the noise of a flat curve is not blown up.
    """
    values = [value for tilt, value in points if tilt.state == "used"]
    values = values or [value for _, value in points] or [0.0]
    low, high = min(values), max(values)
    half = max(0.6 * (high - low), at_least / 2)
    return (low + high) / 2 - half, (low + high) / 2 + half


def _by_angle(
    axes: Axes,
    points: Sequence[tuple[TiltReport, float]],
    otherwise: str,
    limits: tuple[float, float],
    *,
    stems: bool = False,
) -> None:
    """One value per tilt image over the tilt angle; images that are not used stand out.

    A value outside the limits is drawn at the edge, with the number beside it.
    """
    if not points:
        _nothing(axes, otherwise)
        return
    ordered = sorted(points, key=lambda point: point[0].angle_deg)
    angles = [tilt.angle_deg for tilt, _ in ordered]
    values = [value for _, value in ordered]
    if stems:
        axes.vlines(angles, 0, values, color=BLUE, linewidth=1.0, alpha=0.45)
    else:
        inside = [(tilt.angle_deg, value) for tilt, value in ordered if tilt.state == "used"]
        axes.plot(*zip(*inside, strict=True), color=BLUE, linewidth=0.9, alpha=0.35)
    low, high = limits
    for tilt, value in ordered:
        shown = min(max(value, low), high)
        axes.plot(tilt.angle_deg, shown, clip_on=False, **_marker(tilt.state, 3.4))
        if shown != value:
            axes.annotate(
                f"{value:.3g}",
                (tilt.angle_deg, shown),
                xytext=(5, -3 if value > high else 1),
                textcoords="offset points",
                fontsize=8,
                color=COLOURS[tilt.state],
            )
    axes.set_ylim(low, high)
    axes.set_xlabel("tilt angle (°)")


def _scheme(axes: Axes, tilts: Sequence[TiltReport]) -> None:
    doses = [tilt.pre_exposure_e_per_a2 for tilt in tilts if tilt.pre_exposure_e_per_a2 is not None]
    _panel(axes, "Tilt scheme")
    if not tilts:
        _nothing(axes, "no tilt images")
        return
    orders = [tilt.order + 1 for tilt in tilts]
    axes.plot(orders, [tilt.angle_deg for tilt in tilts], color=BLUE, linewidth=0.7, alpha=0.3)
    labelled: set[str] = set()
    for tilt in tilts:
        style = _marker(tilt.state, 4.0 if tilt.state == "used" else 5.0)
        if tilt.state != "used" and tilt.state not in labelled:
            style["label"] = tilt.state
            labelled.add(tilt.state)
        axes.plot(tilt.order + 1, tilt.angle_deg, **style)
    if labelled:
        axes.legend(frameon=False, fontsize=8.5, loc="upper left", handletextpad=0.3, borderpad=0)
    dose = f" (0 to {max(doses):.0f} e/Å²)" if doses else ""
    axes.set_xlabel(f"order of acquisition{dose}")
    axes.set_ylabel("tilt angle (°)")


def _marker(state: TiltState, size: float) -> dict[str, Any]:
    colour = COLOURS[state]
    hollow = state == "excluded"
    return {
        "marker": MARKERS[state],
        "markersize": size if state == "used" else size + 1.5,
        "color": colour,
        "markerfacecolor": "white" if hollow else colour,
        "markeredgewidth": 1.4 if state in ("excluded", "missing") else 0.0,
        "linestyle": "none",
        "zorder": 3 if state == "used" else 4,
    }


def _panel(axes: Axes, title: str) -> None:
    """The look that all plots share."""
    axes.set_title(title, loc="left", fontsize=10.5, fontweight="bold", color=INK, pad=7)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=8.5, length=0)
    axes.xaxis.label.set(color=FAINT, fontsize=9)
    axes.yaxis.label.set(color=FAINT, fontsize=9)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c3cad1")


def _nothing(axes: Axes, words: str) -> None:
    axes.grid(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(
        0.5,
        0.5,
        textwrap.fill(words, 46),
        transform=axes.transAxes,
        ha="center",
        va="center",
        color=FAINT,
        fontsize=10,
        parse_math=False,
    )
