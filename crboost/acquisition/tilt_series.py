"""A tilt series as its mdoc tells it: microscope values, and the tilts in the order of dose.

Conventions, here and everywhere in crboost:

- **Tilt axis**: degrees counter-clockwise from the image's +y axis, as in IMOD, AreTomo, Warp
  and `rlnTomoNominalTiltAxisAngle`. Where it comes from, see `find_tilt_axis`.
- **Defocus**: micrometres, positive is underfocus; mdocs have the opposite sign.
- **Dose**: electrons per square angstrom at the specimen, as written; nothing is multiplied in.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal

from crboost.acquisition.mdoc import Mdoc, Section, parse_numbers, read_mdoc
from crboost.errors import FileFormatError

Software = Literal["SerialEM", "Tomo5", "unknown"]

# IMOD's tolerance (programs header and alignframes) when it compares the two angles of a
# Tomography 5 mdoc.
AXIS_TOLERANCE_DEG = 0.11
# Stages repeat to some hundredths of a degree; tilt steps are one degree or more.
SAME_TILT_DEG = 0.1
# No tilt series takes longer; if one seems to, its dates have been read the wrong way round.
LONGEST_SERIES = timedelta(days=3)

_CAMERAS = {
    # Full frames in pixels, the longer side first.
    (5760, 4092): "Gatan K3",
    (11520, 8184): "Gatan K3",
    (3838, 3710): "Gatan K2",
    (7676, 7420): "Gatan K2",
    (4096, 4096): "Falcon",
    (8192, 8192): "Falcon",
}
_TITLE_AXIS = re.compile(r"tilt\s*axis\s*angle\s*=\s*([+-]?[\d.,]*\d)", re.IGNORECASE)
_DATE_TIME = re.compile(
    r"^(?P<a>\d{1,4})[-./ ](?P<month>[^\W\d_]+|\d{1,2})\.?[-./ ](?P<b>\d{1,4})[ T]+"
    r"(?P<h>\d{1,2}):(?P<m>\d{2}):(?P<s>\d{2})(?:[.,]\d+)?\s*(?P<half>[AaPp][Mm])?Z?$"
)
_ENGLISH_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec"
_GERMAN_MONTHS = "jan feb mrz apr mai jun jul aug sep okt nov dez"
# Windows writes month names in the user's language.
_MONTHS = {
    name: number
    for names in (_ENGLISH_MONTHS, _GERMAN_MONTHS)
    for number, name in enumerate(names.split(), start=1)
} | {"mär": 3}


@dataclass(frozen=True, slots=True)
class TiltAcquisition:
    """One exposure of a tilt series.

    Args:
        z_value: the number of its section, which is not the order of acquisition.
        tilt_angle_deg: the stage's nominal tilt.
        movie_name: file name of the movie, without directories.
        acquired: the time stamp of the exposure, on the microscope's clock.
        dose_e_per_a2: dose of this exposure; None where the mdoc does not tell.
        pre_exposure_e_per_a2: dose before it, 0 for the first; None where it cannot be known.
        nominal_defocus_um: positive is underfocus; None where the mdoc does not tell.
        frame_count: frames of the movie as the microscope counted them.
        image_shift: beam-image shift, in micrometres (SerialEM).
        exposure_time_s: exposure time in seconds.
        line: the line of its section in the mdoc.
    """

    z_value: int
    tilt_angle_deg: float
    movie_name: str
    acquired: datetime | None
    dose_e_per_a2: float | None
    pre_exposure_e_per_a2: float | None
    nominal_defocus_um: float | None
    frame_count: int | None
    image_shift: tuple[float, float] | None
    exposure_time_s: float | None
    line: int


@dataclass(frozen=True, slots=True)
class TiltAxis:
    """The tilt axis, and where it comes from; `angle_deg` is None where nothing tells it."""

    angle_deg: float | None
    source: str
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class TiltSeriesAcquisition:
    """A tilt series as recorded.

    Args:
        name: the mdoc's name without `.mdoc`, `.mrc.mdoc` or `.st.mdoc`; its dots stay.
        mdoc_path: the mdoc.
        software: what wrote it.
        pixel_size_angstrom: of the images of `detector_px`, as the mdoc says; binned images
            have a larger one than their movies.
        voltage_kv: acceleration voltage.
        tilt_axis_deg: nominal tilt axis, counter-clockwise from +y.
        detector_px: width and height of the images (`ImageSize`).
        binning: of those images, relative to the camera's pixels.
        camera: guessed from the size, such as `Gatan K3`.
        magnification: nominal magnification.
        tilts: in the order of acquisition.
        incomplete: why the mdoc looks unfinished, or None.
        warnings: what a user should know, each naming the mdoc.
        sources: field name -> `TS_01.mdoc:3 PixelSpacing`.
    """

    name: str
    mdoc_path: Path
    software: Software
    pixel_size_angstrom: float | None
    voltage_kv: float | None
    tilt_axis_deg: float | None
    detector_px: tuple[int, int] | None
    binning: float | None
    camera: str | None
    magnification: int | None
    tilts: tuple[TiltAcquisition, ...]
    incomplete: str | None
    warnings: tuple[str, ...]
    sources: dict[str, str] = field(default_factory=dict)


def read_tilt_series(path: Path) -> TiltSeriesAcquisition:
    """Read the mdoc of a tilt series.

    Raises:
        FileFormatError: it cannot be read, or describes something else than a tilt series.
    """
    return tilt_series_from_mdoc(read_mdoc(path))


def series_name(path: Path) -> str:
    """The tilt series' name: `TS_01.mdoc`, `TS_01.mrc.mdoc` -> TS_01, `TS_01.b.mdoc` -> TS_01.b."""
    name = path.name
    for suffix in (".mdoc", ".mrc", ".st"):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
            if suffix == ".mrc":  # an image stack has one extension
                break
    return name


def tilt_series_from_mdoc(mdoc: Mdoc) -> TiltSeriesAcquisition:
    """Interpret an mdoc as a tilt series.

    Raises:
        FileFormatError: it is a map, belongs to a single movie, or names no movies; or a value
            cannot be read.
    """
    path = mdoc.path
    if not mdoc.sections and mdoc.incomplete is not None:
        raise FileFormatError(path, f"nothing to use yet: {mdoc.incomplete}")
    if mdoc.kind != "tilt series":
        raise FileFormatError(path, _NOT_A_SERIES[mdoc.kind])
    images = mdoc.of_type("ZValue")
    if not any(section.text("SubFramePath") for section in images):
        raise FileFormatError(
            path,
            "no section names its movie (SubFramePath)",
            hint="the frames were not saved, or this mdoc was made by a tool that drops them",
        )
    software = find_software(mdoc)
    first = images[0]
    warnings: list[str] = []
    sources: dict[str, str] = {}

    def from_header(name: str, key: str) -> Section:
        """The section to read `key` from: the global lines if they have it."""
        section = mdoc.header if mdoc.header.entry(key) else first
        if (entry := section.entry(key)) is not None:
            sources[name] = f"{path.name}:{entry.line} {key}"
        return section

    pixel_size = _positive(from_header("pixel_size_angstrom", "PixelSpacing"), "PixelSpacing")
    voltage = _positive(from_header("voltage_kv", "Voltage"), "Voltage")
    detector = image_size(from_header("detector_px", "ImageSize"))
    magnification = _positive(from_header("magnification", "Magnification"), "Magnification")
    binning = _positive(from_header("binning", "Binning"), "Binning")
    camera = guess_camera(detector, binning, [s.text("SubFramePath") or "" for s in images])
    axis = find_tilt_axis(mdoc, software)
    if axis.angle_deg is not None:
        sources["tilt_axis_deg"] = axis.source
    if axis.warning:
        warnings.append(axis.warning)
    warnings += _varying(images, path, ("PixelSpacing", "Magnification", "Binning"))

    tilts, problems = _tilts(images, pixel_size, path, sources)
    return TiltSeriesAcquisition(
        name=series_name(path),
        mdoc_path=path,
        software=software,
        pixel_size_angstrom=pixel_size,
        voltage_kv=voltage,
        tilt_axis_deg=axis.angle_deg,
        detector_px=detector,
        binning=binning,
        camera=camera,
        magnification=None if magnification is None else round(magnification),
        tilts=tilts,
        incomplete=mdoc.incomplete,
        warnings=tuple(warnings + problems),
        sources=sources,
    )


_NOT_A_SERIES = {
    "single movie": "describes one movie ([FrameSet]), not a tilt series",
    "montage": "describes a montage (a map), not a tilt series",
    "images": "describes images without tilts, not a tilt series",
}


def find_software(mdoc: Mdoc) -> Software:
    """Which program wrote the mdoc, from its titles and its Version line."""
    told = [title.text for title in mdoc.titles] + [mdoc.header.text("Version") or ""]
    if any("SerialEM" in text for text in told):
        return "SerialEM"
    if any(text.startswith("Tomography") or "TiltAxisAngle" in text for text in told):
        return "Tomo5"
    return "unknown"


def find_tilt_axis(mdoc: Mdoc, software: Software) -> TiltAxis:
    """The nominal tilt axis in degrees, counter-clockwise from the image's +y axis.

    SerialEM writes it in a title: `[T =  Tilt axis angle = 85.3, binning = 4 ...]`. Its
    `RotationAngle` is measured from another axis: the title's angle is RotationAngle - 90
    (175.3 and 85.3, 3.35 and -86.7 in real files), which is used where there is no title.

    Tomography 5 writes `[T = TiltAxisAngle = -176.2 Binning = 1 ...]` and `RotationAngle = 86.2`,
    and the title is wrong in all versions seen so far (Warp's ts_import warns of it too). IMOD
    (programs header and alignframes) compares the two, and so does this function:
    title = -(RotationAngle + 90): the axis is RotationAngle (86.2 here); title =
    RotationAngle - 90, SerialEM's convention: the axis is the title's; title =
    -(RotationAngle - 90): the axis is minus the title's. Where they fit no rule, or the title is
    absent, RotationAngle is taken with its sign; CryoBoost took its absolute value, which is the
    same for the angles seen. Where RotationAngle is absent, the first rule gives the axis.

    All are nominal: alignment refines the axis, and hand and 180 degrees are to be checked.
    """
    title: tuple[float, int] | None = None
    for candidate in mdoc.titles:
        match = _TITLE_AXIS.search(candidate.text)
        values = parse_numbers(match[1].rstrip(",."), count=1) if match else None
        if values:
            title = (values[0], candidate.line)
            break
    rotation: tuple[float, int] | None = None
    for section in mdoc.sections:
        entry = section.entry("RotationAngle")
        value = section.number("RotationAngle")
        if entry is not None and value is not None:
            rotation = (value, entry.line)
            break
    name = mdoc.path.name

    if software != "Tomo5":
        if title is not None:
            return TiltAxis(_wrap(title[0]), f"{name}:{title[1]} title, Tilt axis angle")
        if software == "SerialEM" and rotation is not None:
            return TiltAxis(
                _wrap(rotation[0] - 90), f"{name}:{rotation[1]} RotationAngle - 90 (SerialEM)"
            )
        return TiltAxis(None, "", f"{name}: no tilt axis; set acquisition.tilt_axis_degrees")

    if title is None and rotation is None:
        return TiltAxis(None, "", f"{name}: no tilt axis; set acquisition.tilt_axis_degrees")
    if rotation is None:
        assert title is not None
        return TiltAxis(
            _wrap(-title[0] - 90), f"{name}:{title[1]} -(TiltAxisAngle + 90) (Tomography 5)"
        )
    plain = TiltAxis(_wrap(rotation[0]), f"{name}:{rotation[1]} RotationAngle (Tomography 5)")
    if title is None or _same_angle(title[0], -(rotation[0] + 90)):
        return plain
    if _same_angle(title[0], rotation[0] - 90):
        return TiltAxis(_wrap(title[0]), f"{name}:{title[1]} title, TiltAxisAngle")
    if _same_angle(title[0], -(rotation[0] - 90)):
        return TiltAxis(_wrap(-title[0]), f"{name}:{title[1]} - TiltAxisAngle")
    return TiltAxis(
        plain.angle_deg,
        plain.source,
        f"{name}: TiltAxisAngle {title[0]:g} (line {title[1]}) and RotationAngle {rotation[0]:g} "
        f"(line {rotation[1]}) contradict each other; RotationAngle is used as the tilt axis",
    )


def find_dose(section: Section, pixel_size_angstrom: float | None) -> tuple[float | None, str]:
    """Dose of one exposure in e/A^2, and the keys that it comes from.

    `ExposureDose` and `FrameDosesAndNumber` are in e/A^2 at the specimen; 0 means that SerialEM
    had no calibration. Else `DoseRate`: electrons per unbinned camera pixel and second, so
    e/A^2 = DoseRate * ExposureTime / (PixelSpacing / Binning)^2. That one is measured behind the
    specimen and lacks the electrons which the specimen and the energy filter took away.

    Source: https://bio3d.colorado.edu/SerialEM/hlp/html/about_formats.htm
    """
    dose = section.number("ExposureDose")
    if dose is not None and dose > 0:
        return dose, "ExposureDose"
    pairs = section.numbers("FrameDosesAndNumber")
    if pairs and len(pairs) % 2 == 0:
        total = sum(each * frames for each, frames in zip(pairs[::2], pairs[1::2], strict=True))
        if total > 0:
            return total, "FrameDosesAndNumber"
    rate, seconds = section.number("DoseRate"), section.number("ExposureTime")
    spacing = _positive(section, "PixelSpacing") or pixel_size_angstrom
    if rate is None or seconds is None or spacing is None or rate <= 0 or seconds <= 0:
        return None, ""
    camera_pixel = spacing / (_positive(section, "Binning") or 1.0)
    return rate * seconds / camera_pixel**2, "DoseRate * ExposureTime"


def parse_date_time(text: str, *, year_first: bool = False) -> datetime | None:
    """A `DateTime` value, or None if it is in no known form.

    Known: `30-Nov-15  15:21:38` (SerialEM), `01-Aug-2022  18:58:35`, `2025-05-01 10:00:00`,
    German month names. A year of two digits is the last part, unless `year_first` is set.
    """
    match = _DATE_TIME.match(text.strip())
    if match is None:
        return None
    day, year = match["a"], match["b"]
    if len(day) == 4 or (year_first and len(year) <= 2):
        day, year = year, day
    word = match["month"].lower()
    month = int(word) if word.isdigit() else _MONTHS.get(word[:3])
    hour = int(match["h"])
    if match["half"]:
        hour = hour % 12 + (12 if match["half"].lower() == "pm" else 0)
    if month is None or len(year) == 3 or len(day) > 2:
        return None
    try:
        return datetime(
            int(year) + (2000 if len(year) <= 2 else 0),
            month,
            int(day),
            hour,
            int(match["m"]),
            int(match["s"]),
        )
    except ValueError:
        return None


def movie_name(sub_frame_path: str) -> str:
    """The file name in a SubFramePath, from Windows, a network share or POSIX."""
    return re.split(r"[\\/]", sub_frame_path.strip().strip('"').rstrip("\\/"))[-1]


def image_size(section: Section) -> tuple[int, int] | None:
    """`ImageSize` as width and height in pixels."""
    size = section.numbers("ImageSize", count=2)
    if size is None or size[0] < 1 or size[1] < 1:
        return None
    return int(size[0]), int(size[1])


def guess_camera(
    size: tuple[int, int] | None, binning: float | None = None, movie_names: Sequence[str] = ()
) -> str | None:
    """The camera that makes images of this size, whichever way round.

    Sizes of 4096 are the Falcons' (with EER movies, Falcon 4); None for an unknown size.

    Args:
        size: width and height in pixels.
        binning: of an image of that size relative to the camera's pixels (K3 in super
            resolution: 0.5).
        movie_names: the movies, for their extension.
    """
    if any(name.lower().endswith(".eer") for name in movie_names):
        return "Falcon 4"
    if size is None:
        return None
    factor = max(1.0, binning or 1.0)
    long, short = max(size) * factor, min(size) * factor
    for (width, height), camera in _CAMERAS.items():
        # 2 %: binned images and gain-corrected K2 movies lack a few rows.
        if abs(width - long) <= 0.02 * width and abs(height - short) <= 0.02 * height:
            return camera
    return None


def _tilts(
    images: Sequence[Section], pixel_size: float | None, path: Path, sources: dict[str, str]
) -> tuple[tuple[TiltAcquisition, ...], list[str]]:
    """The tilts in the order of acquisition, and warnings."""
    name = path.name
    warnings: list[str] = []
    usable: list[Section] = []
    for section in images:
        lacking = [key for key in ("TiltAngle", "SubFramePath") if not section.text(key)]
        if lacking:
            warnings.append(
                f"{name}:{section.line}: [ZValue = {section.name}] has no "
                f"{' and no '.join(lacking)} and is left out"
            )
        else:
            usable.append(section)
    if not usable:
        raise FileFormatError(path, "no section has both TiltAngle and SubFramePath")

    times = _times(usable)
    order, how = _acquisition_order(usable, times)
    if how != "DateTime":
        warnings.append(f"{name}: not every tilt has a readable DateTime; {how}")

    tilts: list[TiltAcquisition] = []
    dose_keys: Counter[str] = Counter()
    total: float | None = 0.0
    for index in order:
        section = usable[index]
        dose, keys = find_dose(section, pixel_size)
        if keys:
            dose_keys[keys] += 1
            key = keys.split(" ")[0]
            entry = section.entry(key)
            if "dose" not in sources and entry is not None:
                sources["dose"] = f"{name}:{entry.line} {keys}"
        angle = section.number("TiltAngle")
        if angle is None:
            raise FileFormatError(path, "TiltAngle is not a finite number", line=section.line)
        tilts.append(
            TiltAcquisition(
                z_value=_z_value(section),
                tilt_angle_deg=angle,
                movie_name=movie_name(section.text("SubFramePath") or ""),
                acquired=times[index],
                dose_e_per_a2=dose,
                pre_exposure_e_per_a2=total,
                nominal_defocus_um=_underfocus(section),
                frame_count=section.integer("NumSubFrames"),
                image_shift=_pair(section.numbers("ImageShift")),
                exposure_time_s=section.number("ExposureTime"),
                line=section.line,
            )
        )
        total = None if total is None or dose is None else total + dose

    untold = len(tilts) - dose_keys.total()
    if untold:
        warnings.append(
            f"{name}: the dose of {untold} of {len(tilts)} tilts is not told; pre-exposures "
            "after the first of them are unknown"
        )
    if dose_keys["DoseRate * ExposureTime"]:
        warnings.append(
            f"{name}: the dose is DoseRate * ExposureTime / pixel^2, which is measured behind the "
            "specimen: the specimen received more"
        )
    return _without_repeats(tilts, name, warnings), warnings


def _without_repeats(
    tilts: list[TiltAcquisition], name: str, warnings: list[str]
) -> tuple[TiltAcquisition, ...]:
    """Drop all but the last exposure into the same movie; warn of that and of other doublets."""
    last = {tilt.movie_name: tilt for tilt in tilts}
    kept = []
    for tilt in tilts:
        winner = last[tilt.movie_name]
        if winner is tilt:
            kept.append(tilt)
        else:
            warnings.append(
                f"{name}: lines {tilt.line} and {winner.line} name the same movie "
                f"{tilt.movie_name}; the later exposure (line {winner.line}) is used"
            )
    by_z: dict[int, TiltAcquisition] = {}
    for tilt in kept:
        twin = by_z.setdefault(tilt.z_value, tilt)
        if twin is not tilt:
            warnings.append(
                f"{name}: [ZValue = {tilt.z_value}] occurs twice, at lines {twin.line} and "
                f"{tilt.line}, with different movies; both are used"
            )
    ordered = sorted(kept, key=lambda tilt: tilt.tilt_angle_deg)
    for one, other in pairwise(ordered):
        if abs(one.tilt_angle_deg - other.tilt_angle_deg) < SAME_TILT_DEG:
            warnings.append(
                f"{name}: two exposures at {one.tilt_angle_deg:.1f} deg: {one.movie_name} (line "
                f"{one.line}) and {other.movie_name} (line {other.line}); both are used"
            )
    return tuple(kept)


def _times(sections: Sequence[Section]) -> list[datetime | None]:
    """When each section was acquired.

    `21-Nov-30` may be a day in 2030 or in 2021 (Tomography 5 on some systems writes the year
    first): a series that would take days the one way and hours the other was meant the other.
    """
    texts = [section.text("DateTime") or "" for section in sections]
    usual = [parse_date_time(text) for text in texts]
    swapped = [parse_date_time(text, year_first=True) for text in texts]
    if _span(swapped) < LONGEST_SERIES <= _span(usual):
        return swapped
    return usual


def _span(times: Sequence[datetime | None]) -> timedelta:
    known = [time for time in times if time is not None]
    if len(known) < len(times) or not known:
        return timedelta.max
    return max(known) - min(known)


def _acquisition_order(
    sections: Sequence[Section], times: Sequence[datetime | None]
) -> tuple[list[int], str]:
    """Indices of the sections in the order of acquisition, and what told it.

    Exposures within one second keep the order of the file.
    """
    indices = list(range(len(sections)))
    known = [time for time in times if time is not None]
    if len(known) == len(sections):
        return sorted(indices, key=known.__getitem__), "DateTime"
    doses = [section.number("PriorRecordDose") for section in sections]
    told = [dose for dose in doses if dose is not None]
    if len(told) == len(sections) and (len(set(told)) == len(told)):
        return sorted(indices, key=told.__getitem__), "ordered by PriorRecordDose"
    return (
        sorted(indices, key=lambda index: _z_value(sections[index])),
        "ordered by ZValue, which need not be the order of acquisition",
    )


def _z_value(section: Section) -> int:
    try:
        return int(section.name)
    except ValueError:
        raise FileFormatError(
            section.path, f"[ZValue = {section.name}] should have a whole number", line=section.line
        ) from None


def _underfocus(section: Section) -> float | None:
    """Nominal underfocus in micrometres, positive.

    `TargetDefocus` is what the user asked for. `Defocus` is the reading of the lens, whose zero
    is anywhere; it is used only where it can be an underfocus at all.
    """
    target = section.number("TargetDefocus")
    if target is not None:
        return -target
    reading = section.number("Defocus")
    return -reading if reading is not None and reading < 0 else None


def _positive(section: Section, key: str) -> float | None:
    value = section.number(key)
    return value if value is not None and value > 0 else None


def _pair(values: tuple[float, ...] | None) -> tuple[float, float] | None:
    return (values[0], values[1]) if values is not None and len(values) >= 2 else None


def _varying(images: Sequence[Section], path: Path, keys: Sequence[str]) -> list[str]:
    """A warning for each key whose value changes within the series."""
    warnings = []
    for key in keys:
        values: dict[float, int] = {}
        for section in images:
            entry, value = section.entry(key), section.number(key)
            if entry is not None and value is not None:
                values.setdefault(value, entry.line)
        if values and max(values) - min(values) > 1e-3 * abs(max(values)):
            seen = ", ".join(f"{value:g} (line {line})" for value, line in values.items())
            warnings.append(f"{path.name}: {key} changes within the series: {seen}")
    return warnings


def _wrap(angle_deg: float) -> float:
    """The same angle in (-180, 180], without the digits that adding 90 makes."""
    wrapped = round((angle_deg + 180.0) % 360.0 - 180.0, 6)
    return 180.0 if wrapped == -180.0 else wrapped


def _same_angle(one: float, other: float) -> bool:
    return abs(_wrap(one - other)) < AXIS_TOLERANCE_DEG
