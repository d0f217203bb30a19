"""A whole session: all tilt series, their movies, and the parameter values that they tell.

`collect` reads; what it concludes comes from pure functions on what was read. Nothing is
decided behind the user's back: values carry where they come from, disagreements are warnings
that name the files, and what is left out is listed with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from crboost.acquisition.completeness import Completeness, assess
from crboost.acquisition.gain import GainReference, fit_gain, read_gain
from crboost.acquisition.mdoc import Mdoc, read_mdoc
from crboost.acquisition.movies import MovieFile, MovieIndex, common_size, inspect_movie
from crboost.acquisition.tilt_series import (
    TiltAcquisition,
    TiltSeriesAcquisition,
    guess_camera,
    series_name,
    tilt_series_from_mdoc,
)
from crboost.errors import FileFormatError, ProjectError

# RELION's and Warp's usual grouping; at 250 frames/s it is about eight fractions a second.
EER_FRAMES_PER_FRACTION = 32
# Doses of tilts that differ more than this, relative to their median, are worth a word:
# exposure times that grow with the tilt need per-tilt doses in dose weighting.
DOSE_SPREAD = 0.1
# Images in an mdoc's stack may be cropped a little against their movies.
CROP_TOLERANCE = 0.03
OVERRIDE_SUFFIX = "_override"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ParameterFinding:
    """A parameter value that the acquisition tells.

    Args:
        path: the parameter, such as `microscope.pixel_size_angstrom`.
        value: in the parameter's unit.
        detail: where it comes from, such as `TS_01.mdoc:3 PixelSpacing`.
    """

    path: str
    value: object
    detail: str


@dataclass(frozen=True, slots=True)
class SkippedMdoc:
    """An mdoc that is no tilt series of this session, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class SessionSeries:
    """A tilt series and its movies.

    Args:
        acquisition: what the mdoc tells.
        movies: `TiltAcquisition.movie_name` -> file, for the movies that were found.
        completeness: what is there and what is missing.
    """

    acquisition: TiltSeriesAcquisition
    movies: Mapping[str, Path]
    completeness: Completeness

    @property
    def name(self) -> str:
        return self.acquisition.name

    @property
    def missing(self) -> tuple[TiltAcquisition, ...]:
        """The tilts whose movies were not found."""
        return self.completeness.missing


@dataclass(frozen=True, slots=True)
class Session:
    """What was collected.

    Args:
        series: sorted by name.
        findings: parameter values, each with its source.
        warnings: what a user should look at, each naming the files.
        skipped: mdocs left out.
        orphans: movies that no tilt series names.
        gain: the gain reference, if one was given.
    """

    series: tuple[SessionSeries, ...]
    findings: tuple[ParameterFinding, ...]
    warnings: tuple[str, ...]
    skipped: tuple[SkippedMdoc, ...]
    orphans: tuple[Path, ...]
    gain: GainReference | None

    def finding(self, path: str) -> ParameterFinding | None:
        """The finding for one parameter, or None."""
        return next((finding for finding in self.findings if finding.path == path), None)


def collect(
    mdoc_paths: Iterable[Path], movie_paths: Iterable[Path], gain: Path | None = None
) -> Session:
    """Read mdocs and movie headers and conclude what the session was.

    Of each series the first movie is read frame by frame, of the others only the first header.

    Args:
        mdoc_paths: mdocs of tilt series; others among them are skipped and listed.
        movie_paths: movie files, from `find_movies`.
        gain: gain reference.

    Raises:
        ProjectError: two mdocs would both be the tilt series of one name; two movies have the
            same name.
        FileFormatError: the gain reference cannot be read.
    """
    paths = sorted(set(mdoc_paths))
    mdocs, skipped = _read_all(paths)
    acquisitions, more = _series_among(mdocs)
    skipped = sorted(skipped + more, key=lambda entry: entry.path)
    index = MovieIndex(movie_paths)

    series: list[SessionSeries] = []
    headers: list[MovieFile] = []
    most_tilts = _usual([len(one.tilts) for one in acquisitions])
    for acquisition in acquisitions:
        one, seen = _with_movies(acquisition, index, most_tilts)
        series.append(one)
        headers += seen

    warnings = _skips(skipped)
    warnings += _once([warning for one in series for warning in one.acquisition.warnings])
    for one in series:
        warnings += _gaps(one)
    warnings += _frame_counts(series, headers)
    warnings += shared_movies(acquisitions)

    named = {path for one in series for path in one.movies.values()}
    orphans = tuple(path for path in index.paths if path not in named)
    if orphans and series:
        warnings.append(
            f"{len(orphans)} movies are named by no tilt series: {_few([p.name for p in orphans])}"
        )
    reference = None if gain is None else read_gain(gain)
    findings, doubts = conclude(acquisitions, headers, reference)
    warnings += doubts
    if reference is None:
        warnings += _gain_hint(mdocs)
    return Session(
        tuple(series), tuple(findings), tuple(warnings), tuple(skipped), orphans, reference
    )


def conclude(
    series: Sequence[TiltSeriesAcquisition],
    movies: Sequence[MovieFile],
    gain: GainReference | None = None,
) -> tuple[list[ParameterFinding], list[str]]:
    """Parameter values that the tilt series tell together, and warnings where they disagree.

    The value of most series wins; the dose is the median over all tilts. Pure.
    """
    findings: list[ParameterFinding] = []
    warnings: list[str] = []

    def agree(
        path: str,
        field: str,
        value: Callable[[TiltSeriesAcquisition], T | None],
        label: str,
        unit: str = "",
    ) -> tuple[T, str] | None:
        """Add the value of most series; warn of the others."""
        told = [(one, found) for one in series if (found := value(one)) is not None]
        if not told:
            return None
        groups: dict[T, list[TiltSeriesAcquisition]] = {}
        for one, found in told:
            groups.setdefault(found, []).append(one)
        winner = max(groups, key=lambda found: len(groups[found]))
        if len(groups) > 1:
            parts = [
                f"{_text(found)}{unit} in {_few([one.mdoc_path.name for one in group])}"
                for found, group in groups.items()
            ]
            warnings.append(f"mdocs disagree about the {label}: {'; '.join(parts)}")
        source = groups[winner][0].sources.get(field, groups[winner][0].mdoc_path.name)
        detail = source if len(series) == 1 else f"{source} ({_share(len(groups[winner]), series)})"
        findings.append(ParameterFinding(path, winner, detail))
        return winner, detail

    movie_size = common_size(movies)
    pixel = agree(
        "microscope.pixel_size_angstrom",
        "pixel_size_angstrom",
        lambda one: one.pixel_size_angstrom,
        "pixel size",
        " A",
    )
    if pixel is not None:
        told = next(one for one in series if one.pixel_size_angstrom == pixel[0])
        scaled, note = movie_pixel_size(told, movie_size)
        if scaled is not None:
            findings[-1] = ParameterFinding(findings[-1].path, scaled, f"{pixel[1]}, {note}")
        if note:
            warnings.append(f"{told.mdoc_path.name}: {note}")
    agree(
        "microscope.acceleration_voltage_kv",
        "voltage_kv",
        lambda one: one.voltage_kv,
        "acceleration voltage",
        " kV",
    )
    findings_dose, doubts = _dose(series)
    findings += findings_dose
    warnings += doubts
    agree(
        "acquisition.tilt_axis_degrees",
        "tilt_axis_deg",
        lambda one: None if one.tilt_axis_deg is None else round(one.tilt_axis_deg, 1),
        "tilt axis",
        " deg",
    )
    size = agree(
        "acquisition.detector_dimensions_px",
        "detector_px",
        lambda one: one.detector_px,
        "image size",
    )
    if movie_size is not None:
        first = next(m for m in movies if (m.width_px, m.height_px) == movie_size)
        finding = ParameterFinding(
            "acquisition.detector_dimensions_px", movie_size, f"header of {first.path.name}"
        )
        if size is not None:
            findings.pop()
        findings.append(finding)
        others = [m for m in movies if m.width_px and (m.width_px, m.height_px) != movie_size]
        if others:
            warnings.append(
                f"movies differ in size: most are {movie_size[0]} x {movie_size[1]} px, but "
                + _few([f"{m.path.name} is {m.width_px} x {m.height_px}" for m in others])
            )
    eer = next((m.path.name for m in movies if m.format == "EER"), None) or next(
        (t.movie_name for one in series for t in one.tilts if _is_eer(t.movie_name)), None
    )
    if eer is not None and not any(m.format in ("MRC", "TIFF") for m in movies):
        findings.append(
            ParameterFinding(
                "acquisition.eer_frames_per_fraction",
                EER_FRAMES_PER_FRACTION,
                f"movies are EER ({eer}); the usual grouping",
            )
        )
    agree(
        "acquisition.acquisition_software",
        "software",
        lambda one: None if one.software == "unknown" else one.software,
        "software",
    )
    agree(
        "acquisition.nominal_magnification",
        "magnification",
        lambda one: one.magnification,
        "magnification",
    )
    camera = guess_camera(movie_size, 1.0, [] if eer is None else [eer]) if movies else None
    if camera is not None and movie_size is not None:
        findings.append(
            ParameterFinding(
                "acquisition.camera_name",
                camera,
                f"guessed from movies of {movie_size[0]} x {movie_size[1]} px",
            )
        )
    else:
        found = agree("acquisition.camera_name", "detector_px", lambda one: one.camera, "camera")
        if found is not None:
            findings[-1] = ParameterFinding(
                "acquisition.camera_name", found[0], f"guessed from {found[1]}"
            )
    tilts = {one.mdoc_path.name: len(one.tilts) for one in series}
    if len(set(tilts.values())) > 1:
        warnings.append(f"the tilt series differ in their number of tilts: {_by_value(tilts)}")
    if gain is not None:
        gain_findings, doubts = _gain(gain, movie_size or (size[0] if size else None))
        findings += gain_findings
        warnings += doubts
    return findings, warnings


def movie_pixel_size(
    series: TiltSeriesAcquisition, movie_size_px: tuple[int, int] | None
) -> tuple[float | None, str | None]:
    """The movies' pixel size, where the mdoc's is that of binned or enlarged images.

    `PixelSpacing` belongs to images of `ImageSize`. Movies twice as large (say) have half of it.

    Returns:
        The movies' pixel size, or None to keep the mdoc's, and what to tell the user, or None.
    """
    spacing, size = series.pixel_size_angstrom, series.detector_px
    if spacing is None or size is None:
        return None, None
    if movie_size_px is None:
        if series.binning is not None and series.binning > 1:
            return None, (
                f"PixelSpacing {spacing:g} A is that of images binned by {series.binning:g}; "
                f"unbinned movies have {spacing / series.binning:g} A"
            )
        return None, None
    # A movie may lie on its side against the images.
    ratios = [a / b for a, b in zip(sorted(movie_size_px), sorted(size), strict=True)]
    for factor in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16):
        if all(abs(ratio / factor - 1) <= CROP_TOLERANCE for ratio in ratios):
            if factor == 1:
                return None, None
            scaled = round(spacing / factor, 6)
            return scaled, (
                f"PixelSpacing {spacing:g} A is that of images of {size[0]} x {size[1]} px; the "
                f"movies are {movie_size_px[0]} x {movie_size_px[1]} px and have {scaled:g} A"
            )
    return None, (
        f"movies of {movie_size_px[0]} x {movie_size_px[1]} px do not fit images of {size[0]} x "
        f"{size[1]} px; check the pixel size {spacing:g} A"
    )


def shared_movies(series: Sequence[TiltSeriesAcquisition]) -> list[str]:
    """A warning for each pair of tilt series that name the same movies."""
    owner: dict[str, TiltSeriesAcquisition] = {}
    pairs: dict[tuple[str, str], list[str]] = {}
    for one in series:
        for tilt in one.tilts:
            other = owner.setdefault(tilt.movie_name, one)
            if other is not one:
                pair = (other.mdoc_path.name, one.mdoc_path.name)
                pairs.setdefault(pair, []).append(tilt.movie_name)
    return [
        f"{first} and {second} name the same {len(names)} movies: {_few(names)}"
        for (first, second), names in pairs.items()
    ]


def _read_all(paths: Sequence[Path]) -> tuple[list[Mdoc], list[SkippedMdoc]]:
    mdocs: list[Mdoc] = []
    skipped: list[SkippedMdoc] = []
    for path in paths:
        try:
            mdocs.append(read_mdoc(path))
        except FileFormatError as error:
            skipped.append(SkippedMdoc(path, _reason(error)))
        except OSError as error:
            skipped.append(SkippedMdoc(path, f"cannot be read: {error.strerror or error}"))
    return mdocs, skipped


def _series_among(
    mdocs: Sequence[Mdoc],
) -> tuple[list[TiltSeriesAcquisition], list[SkippedMdoc]]:
    """The tilt series among the mdocs, sorted by name, and the mdocs that are none."""
    names = {series_name(mdoc.path) for mdoc in mdocs}
    series: dict[str, TiltSeriesAcquisition] = {}
    skipped: list[SkippedMdoc] = []
    for mdoc in mdocs:
        name = series_name(mdoc.path)
        original = name.removesuffix(OVERRIDE_SUFFIX)
        if original != name and original in names:
            skipped.append(SkippedMdoc(mdoc.path, f"a copy of {original}, which is used"))
            continue
        try:
            found = tilt_series_from_mdoc(mdoc)
        except FileFormatError as error:
            skipped.append(SkippedMdoc(mdoc.path, _reason(error)))
            continue
        if name in series:
            raise ProjectError(
                f"two mdocs are both tilt series {name}: {series[name].mdoc_path} and {mdoc.path}",
                hint="give one of them, or rename it; a tilt series is known by its mdoc's name",
            )
        series[name] = found
    return [series[name] for name in sorted(series)], skipped


def _with_movies(
    acquisition: TiltSeriesAcquisition, index: MovieIndex, expected_tilts: int | None
) -> tuple[SessionSeries, list[MovieFile]]:
    """Find and look at the movies of one tilt series."""
    found: dict[str, Path] = {}
    for tilt in acquisition.tilts:
        path = index.find(tilt.movie_name)
        if path is not None:
            found[tilt.movie_name] = path
    headers: list[MovieFile] = []
    sizes: dict[str, int] = {}
    problems: dict[str, str] = {}
    for number, (name, path) in enumerate(found.items()):
        try:
            header = inspect_movie(path, count_frames=number == 0)
        except OSError as error:
            problems[name], sizes[name] = f"cannot be read: {error.strerror or error}", 0
            continue
        headers.append(header)
        sizes[name] = header.size_bytes
        if header.problem is not None:
            problems[name] = header.problem
    completeness = assess(acquisition, sizes, problems=problems, expected_tilts=expected_tilts)
    return SessionSeries(acquisition, found, completeness), headers


def _skips(skipped: Sequence[SkippedMdoc]) -> list[str]:
    """One warning per reason: SerialEM writes an mdoc beside each movie."""
    groups: dict[str, list[str]] = {}
    for entry in skipped:
        groups.setdefault(entry.reason, []).append(entry.path.name)
    return [f"{_few(names)}: skipped: {reason}" for reason, names in groups.items()]


def _once(warnings: Sequence[str]) -> list[str]:
    """Warnings of the form `file: text`, each text once with all of its files."""
    groups: dict[str, list[str]] = {}
    for warning in warnings:
        file, _, text = warning.partition(": ")
        groups.setdefault(text, []).append(file)
    return [f"{_few(files)}: {text}" for text, files in groups.items()]


def _gaps(series: SessionSeries) -> list[str]:
    """What one series lacks, in one line each."""
    found = series.completeness
    name, total = series.acquisition.mdoc_path.name, len(series.acquisition.tilts)
    warnings = []
    if series.acquisition.incomplete:
        warnings.append(f"{name}: incomplete: {series.acquisition.incomplete}")
    if found.missing:
        tilts = [f"{tilt.movie_name} ({tilt.tilt_angle_deg:.1f} deg)" for tilt in found.missing]
        warnings.append(f"{name}: {len(tilts)} of {total} movies are missing: {_few(tilts)}")
    if found.broken:
        told = [f"{movie} ({problem})" for movie, problem in found.broken.items()]
        warnings.append(f"{name}: {len(told)} of {total} movies cannot be used: {_few(told)}")
    return warnings


def _frame_counts(series: Sequence[SessionSeries], headers: Sequence[MovieFile]) -> list[str]:
    """Movies that do not have the frames that their mdoc promises."""
    counts = {h.path: h.frame_count for h in headers if h.problem is None and h.frame_count}
    wrong = [
        f"{tilt.movie_name} has {counts[path]} frames, NumSubFrames is {tilt.frame_count}"
        for one in series
        for tilt in one.acquisition.tilts
        if (path := one.movies.get(tilt.movie_name)) in counts
        and tilt.frame_count is not None
        # What an mdoc counts in EER movies may be frames or fractions.
        and not _is_eer(path.name)
        and counts[path] != tilt.frame_count
    ]
    return [f"{len(wrong)} movies differ from their mdocs: {_few(wrong)}"] if wrong else []


def _dose(series: Sequence[TiltSeriesAcquisition]) -> tuple[list[ParameterFinding], list[str]]:
    """The dose per tilt: the median over all tilts, with a warning where it varies."""
    doses = [
        dose for one in series for tilt in one.tilts if (dose := tilt.dose_e_per_a2) is not None
    ]
    if not doses:
        if not series:
            return [], []
        return [], [
            "no mdoc tells the dose; set acquisition.dose_per_tilt_e_per_a2 to what was used"
        ]
    middle = median(doses)
    source = next(one.sources["dose"] for one in series if "dose" in one.sources)
    finding = ParameterFinding(
        "acquisition.dose_per_tilt_e_per_a2",
        round(middle, 4),
        f"{source}, median of {len(doses)} tilts",
    )
    warnings = []
    if max(doses) - min(doses) > DOSE_SPREAD * middle:
        medians = {
            one.mdoc_path.name: round(median(own), 2)
            for one in series
            if (own := [t.dose_e_per_a2 for t in one.tilts if t.dose_e_per_a2 is not None])
        }
        if len(set(medians.values())) > 1:
            spread = f"; medians: {_by_value(medians)}"
        else:
            spread = f" within {_few(list(medians))}"
        warnings.append(
            f"the dose per tilt varies from {min(doses):.2f} to {max(doses):.2f} e/A^2{spread}"
        )
    return [finding], warnings


def _gain(
    gain: GainReference, images_px: tuple[int, int] | None
) -> tuple[list[ParameterFinding], list[str]]:
    findings = [
        ParameterFinding(
            "acquisition.gain_reference_path",
            str(gain.path),
            f"{gain.format}, {gain.width_px} x {gain.height_px} px",
        )
    ]
    if images_px is None:
        return findings, []
    fit = fit_gain(gain, images_px)
    if fit.fits and fit.transpose:
        findings.append(
            ParameterFinding("acquisition.gain_transpose", True, fit.message or gain.path.name)
        )
    return findings, [fit.message] if fit.message else []


def _gain_hint(mdocs: Sequence[Mdoc]) -> list[str]:
    """Frames saved without gain correction name their gain reference in their own mdoc."""
    named = {
        (value.replace("\\", "/").rsplit("/", 1)[-1], mdoc.path.name)
        for mdoc in mdocs
        for section in (mdoc.header, *mdoc.sections)
        if (value := section.text("GainReference"))
    }
    return [
        f"{source}: frames need the gain reference {name}, and none was given"
        for name, source in sorted(named)[:1]
    ]


def _is_eer(name: str) -> bool:
    return name.lower().endswith(".eer")


def _reason(error: FileFormatError) -> str:
    return error.problem if error.line is None else f"line {error.line}: {error.problem}"


def _usual(counts: Sequence[int]) -> int | None:
    """The most frequent number, the larger one of a tie; None for fewer than two series."""
    if len(counts) < 2:
        return None
    return max(counts, key=lambda count: (counts.count(count), count))


def _share(agreeing: int, series: Sequence[object]) -> str:
    if agreeing == len(series):
        return f"the same in all {len(series)} mdocs"
    return f"{agreeing} of {len(series)} mdocs"


def _by_value(values: Mapping[str, object]) -> str:
    """`41 in a.mdoc, b.mdoc; 39 in c.mdoc`."""
    groups: dict[object, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return "; ".join(f"{value} in {_few(names)}" for value, names in groups.items())


def _few(names: Sequence[str], most: int = 5) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return " x ".join(str(part) for part in value)
    return str(value)
