"""Which tilt images of a series are kept, and why the others are not. Pure.

Three may speak: the rules of the job's parameters, an external classifier, and a person. A tilt
image that a rule or the classifier rejects is left out; a person has the last word, either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from crboost.parameters import TiltFilter
from crboost.tilt_name import tilt_name
from crboost.tilt_overrides import Override

Row = Mapping[str, Any]

#: Nothing is expected to shine through a specimen on edge: cosines below this are taken for it.
SMALLEST_COSINE = 0.1


@dataclass(frozen=True)
class TiltValues:
    """What the rules look at; None: not known, NaN: measured, and nothing came of it.

    Attributes:
        defocus_um: mean of both axes; positive is underfocus.
        motion_angstrom: length of the path during the exposure.
        dose_e_per_a2: seen before the exposure.
        mean_counts_per_px: of the motion-corrected sum.
        intensity_fraction: `mean_counts_per_px` relative to what the series lets expect.
    """

    name: str
    tilt_angle_deg: float
    image: str | None = None
    defocus_um: float | None = None
    ctf_resolution_angstrom: float | None = None
    motion_angstrom: float | None = None
    dose_e_per_a2: float | None = None
    mean_counts_per_px: float | None = None
    intensity_fraction: float | None = None

    def measured(self) -> dict[str, float | None]:
        """The values by name, for records; NaN, which JSON does not know, as None."""
        values = {
            name: getattr(self, name)
            for name in (
                "defocus_um",
                "ctf_resolution_angstrom",
                "motion_angstrom",
                "dose_e_per_a2",
                "mean_counts_per_px",
                "intensity_fraction",
            )
        }
        return {
            name: None if value is None or math.isnan(value) else round(value, 4)
            for name, value in values.items()
        }


@dataclass(frozen=True)
class Classified:
    """What a classifier says of one tilt image; `probability` of its verdict."""

    keep: bool
    probability: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Verdict:
    """What becomes of one tilt image.

    Attributes:
        by: who decided; None where nobody had anything against it.
        reasons: all that was said against it, also where a person overruled that.
    """

    values: TiltValues
    keep: bool
    by: Literal["rule", "classifier", "person"] | None = None
    reasons: tuple[str, ...] = ()
    person: Override | None = None

    @property
    def name(self) -> str:
        """The tilt image's name."""
        return self.values.name

    @property
    def reason(self) -> str | None:
        """Why it is left out, or kept nevertheless, in one line."""
        if self.person is None:
            return "; ".join(self.reasons) or None
        said = "kept" if self.person.word == "keep" else "rejected"
        text = f"{said} by {self.person.user or 'a person'}"
        if self.person.reason:
            text += f": {self.person.reason}"
        if self.keep and self.reasons:
            text += f" (against {'; '.join(self.reasons)})"
        return text


@dataclass(frozen=True)
class Judgement:
    """One tilt series.

    Attributes:
        verdicts: of every tilt image, in the table's order.
        warnings: rules that could not be applied, verdicts on what is not there.
    """

    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...] = field(default=())


def tilt_values(
    rows: Sequence[Row], pixel_size_angstrom: float, counts: Mapping[str, float]
) -> list[TiltValues]:
    """What a series' table says of its tilt images.

    Args:
        rows: RELION's table of the tilt series.
        pixel_size_angstrom: of the images: RELION writes `rlnAccumMotionTotal` in pixels.
        counts: tilt image -> mean counts per pixel, where known.
    """
    values = [_values(row, pixel_size_angstrom, counts.get(tilt_name(row))) for row in rows]
    levels = [
        one.mean_counts_per_px / _cosine(one.tilt_angle_deg)
        for one in values
        if one.mean_counts_per_px is not None and math.isfinite(one.mean_counts_per_px)
    ]
    level = median(levels) if levels else None
    if level is None or level <= 0:
        return values
    return [_with_fraction(one, level) for one in values]


def judge(
    tilts: Sequence[TiltValues],
    rules: TiltFilter,
    classified: Mapping[str, Classified] | None,
    overrides: Mapping[str, Override],
) -> Judgement:
    """Decide on every tilt image of one series.

    Args:
        classified: the classifier's verdicts; None without a classifier.
        overrides: a person's verdicts, by tilt image.
    """
    warnings: list[str] = []
    active = [rule for rule in _RULES if getattr(rules, rule.parameter) is not None]
    usable = []
    for rule in active:
        if all(getattr(tilt, rule.value) is None for tilt in tilts):
            warnings.append(f"rule {rule.parameter} not applied: no tilt image has a {rule.words}")
        else:
            usable.append(rule)
    names = {tilt.name for tilt in tilts}
    for kind, given in (("tilt_overrides.star", overrides), ("the classifier", classified or {})):
        strangers = [name for name in given if name not in names]
        if strangers:
            warnings.append(
                f"{kind} speaks of {', '.join(strangers[:3])}"
                f"{' ...' if len(strangers) > 3 else ''}, not among these tilt images"
            )
    return Judgement(
        tuple(
            _verdict(tilt, rules, usable, classified, overrides.get(tilt.name)) for tilt in tilts
        ),
        tuple(warnings),
    )


def _verdict(
    tilt: TiltValues,
    rules: TiltFilter,
    usable: Sequence[_Rule],
    classified: Mapping[str, Classified] | None,
    person: Override | None,
) -> Verdict:
    by_rule = [
        complaint
        for rule in usable
        if (complaint := rule.complaint(getattr(tilt, rule.value), getattr(rules, rule.parameter)))
    ]
    by_classifier = [] if classified is None else _objections(tilt.name, rules, classified)
    reasons = (*by_rule, *by_classifier)
    if person is not None:
        return Verdict(tilt, person.word == "keep", "person", reasons, person)
    if by_rule:
        return Verdict(tilt, False, "rule", reasons)
    if by_classifier:
        return Verdict(tilt, False, "classifier", reasons)
    return Verdict(tilt, True)


def _objections(name: str, rules: TiltFilter, classified: Mapping[str, Classified]) -> list[str]:
    """What the classifier has against a tilt image."""
    said = classified.get(name)
    sure = said is not None and (
        said.probability is None or said.probability >= rules.classifier_min_probability
    )
    if said is None or not sure:
        if rules.classifier_unsure == "keep":
            return []
        return ["the classifier has no verdict" if said is None else "the classifier is unsure"]
    if said.keep:
        return []
    text = "the classifier calls it bad"
    if said.probability is not None:
        text += f" (probability {said.probability:.2f})"
    return [f"{text}: {said.reason}" if said.reason else text]


@dataclass(frozen=True)
class _Rule:
    """One parameter of the filter, the value that it bounds, and how."""

    parameter: str
    value: str
    words: str
    unit: str
    is_broken: Callable[[float, float], bool]

    def complaint(self, value: float | None, bound: float) -> str | None:
        if value is None or math.isnan(value):
            return f"no {self.words} ({self.parameter} = {bound:g})"
        if not self.is_broken(value, bound):
            return None
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.words} {value:.4g}{unit} ({self.parameter} = {bound:g})"


def _below(value: float, bound: float) -> bool:
    return value < bound


def _above(value: float, bound: float) -> bool:
    return value > bound


def _steeper(value: float, bound: float) -> bool:
    return abs(value) > bound


_RULES = (
    _Rule("defocus_min_um", "defocus_um", "defocus", "um", _below),
    _Rule("defocus_max_um", "defocus_um", "defocus", "um", _above),
    _Rule("ctf_resolution_max_angstrom", "ctf_resolution_angstrom", "CTF resolution", "A", _above),
    _Rule("motion_max_angstrom", "motion_angstrom", "motion", "A", _above),
    _Rule("intensity_min_fraction", "intensity_fraction", "relative intensity", "", _below),
    _Rule("intensity_min_counts_per_px", "mean_counts_per_px", "intensity", "counts/px", _below),
    _Rule("dose_max_e_per_a2", "dose_e_per_a2", "dose", "e/A2", _above),
    _Rule("tilt_max_deg", "tilt_angle_deg", "tilt angle", "deg", _steeper),
)


def needs_counts(rules: TiltFilter) -> bool:
    """Whether a rule looks at intensities."""
    return rules.intensity_min_fraction is not None or rules.intensity_min_counts_per_px is not None


def _values(row: Row, pixel_size_angstrom: float, counts: float | None) -> TiltValues:
    u, v = _number(row, "rlnDefocusU"), _number(row, "rlnDefocusV")
    motion = _number(row, "rlnAccumMotionTotal")
    image = row.get("rlnMicrographName")
    return TiltValues(
        name=tilt_name(row),
        tilt_angle_deg=float(row["rlnTomoNominalStageTiltAngle"]),
        image=str(image) if image else None,
        defocus_um=None if u is None else (u + (u if v is None else v)) / 2e4,
        ctf_resolution_angstrom=_number(row, "rlnCtfMaxResolution"),
        motion_angstrom=None if motion is None else motion * pixel_size_angstrom,
        dose_e_per_a2=_number(row, "rlnMicrographPreExposure"),
        mean_counts_per_px=counts,
    )


def _number(row: Row, column: str) -> float | None:
    value = row.get(column)
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _with_fraction(tilt: TiltValues, level: float) -> TiltValues:
    from dataclasses import replace

    if tilt.mean_counts_per_px is None:
        return tilt
    expected = level * _cosine(tilt.tilt_angle_deg)
    return replace(tilt, intensity_fraction=tilt.mean_counts_per_px / expected)


def _cosine(angle_deg: float) -> float:
    return max(SMALLEST_COSINE, math.cos(math.radians(angle_deg)))
