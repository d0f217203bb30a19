"""Which tilt images are kept: rules, a classifier, a person. Pure."""

from __future__ import annotations

import math
from typing import Any

import pytest

from crboost.parameters import TiltFilter
from crboost.tilt_overrides import Override
from crboost.tilt_rules import Classified, Judgement, judge, tilt_values

PIXEL_SIZE = 2.0


def row(name: str, angle: float = 0.0, **columns: object) -> dict[str, object]:
    return {
        "rlnMicrographMovieName": f"frames/{name}.tif",
        "rlnTomoNominalStageTiltAngle": angle,
        "rlnDefocusU": 31000.0,
        "rlnDefocusV": 29000.0,
        "rlnCtfMaxResolution": 8.0,
        "rlnAccumMotionTotal": 3.0,
        "rlnMicrographPreExposure": 30.0,
        **columns,
    }


def judged(
    rows: list[dict[str, object]],
    counts: dict[str, float] | None = None,
    classified: dict[str, Classified] | None = None,
    overrides: dict[str, Override] | None = None,
    **rules: object,
) -> Judgement:
    values = tilt_values(rows, PIXEL_SIZE, counts or {})
    return judge(values, TiltFilter.model_validate(rules), classified, overrides or {})


def kept(judgement: Judgement) -> list[str]:
    return [verdict.name for verdict in judgement.verdicts if verdict.keep]


def test_without_rules_everything_is_kept() -> None:
    made = judged([row("a"), row("b")])
    assert kept(made) == ["a", "b"]
    assert made.warnings == ()
    assert [verdict.by for verdict in made.verdicts] == [None, None]


@pytest.mark.parametrize(
    ("parameter", "bound", "column", "value", "words"),
    [
        ("defocus_min_um", 2.0, "rlnDefocusU", 2000.0, "defocus 1.55 um"),
        ("defocus_max_um", 4.0, "rlnDefocusU", 90000.0, "defocus 5.95 um"),
        ("ctf_resolution_max_angstrom", 10, "rlnCtfMaxResolution", 22.0, "CTF resolution 22 A"),
        ("motion_max_angstrom", 10, "rlnAccumMotionTotal", 5.5, "motion 11 A"),
        ("dose_max_e_per_a2", 100, "rlnMicrographPreExposure", 101.0, "dose 101 e/A2"),
        ("tilt_max_deg", 50, "rlnTomoNominalStageTiltAngle", -54.0, "tilt angle -54 deg"),
    ],
)
def test_each_rule_rejects_what_is_beyond_it_and_says_so(
    parameter: str, bound: float, column: str, value: float, words: str
) -> None:
    """Motion is in pixels in the table (as RELION writes it), defocus the mean of both axes."""
    rules: dict[str, Any] = {parameter: bound}
    made = judged([row("good"), row("bad", **{column: value})], **rules)
    assert kept(made) == ["good"]
    verdict = made.verdicts[1]
    assert verdict.by == "rule"
    assert verdict.reason == f"{words} ({parameter} = {bound:g})"


def test_a_value_at_the_bound_is_kept() -> None:
    made = judged([row("a")], ctf_resolution_max_angstrom=8.0, motion_max_angstrom=6.0)
    assert kept(made) == ["a"]


def test_intensity_is_relative_to_the_cosine_of_the_tilt() -> None:
    rows = [row(f"t{angle}", float(angle)) for angle in (-60, -30, 0, 30, 60)]
    counts = {f"t{a}": 100 * math.cos(math.radians(a)) for a in (-60, -30, 0, 30, 60)}
    counts["t30"] *= 0.3
    made = judged(rows, counts, intensity_min_fraction=0.5)
    assert kept(made) == ["t-60", "t-30", "t0", "t60"]
    assert made.verdicts[3].values.intensity_fraction == pytest.approx(0.3)
    assert made.verdicts[0].values.intensity_fraction == pytest.approx(1.0)
    assert kept(judged(rows, counts, intensity_min_counts_per_px=40)) == [
        "t-60",
        "t-30",
        "t0",
        "t60",
    ]


def test_b28_nan_is_a_reason_and_a_missing_column_is_not() -> None:
    """B28: NaN rows went on unseen; a table without the column must not lose every tilt."""
    rows = [row("a"), row("b", rlnCtfMaxResolution=math.nan)]
    made = judged(rows, ctf_resolution_max_angstrom=10)
    assert kept(made) == ["a"]
    assert made.verdicts[1].reason == "no CTF resolution (ctf_resolution_max_angstrom = 10)"
    assert made.verdicts[1].values.measured()["ctf_resolution_angstrom"] is None
    for one in rows:
        del one["rlnAccumMotionTotal"]
    made = judged(rows, motion_max_angstrom=1)
    assert kept(made) == ["a", "b"]
    assert made.warnings == ("rule motion_max_angstrom not applied: no tilt image has a motion",)


def test_a_classifier_rejects_but_does_not_save_from_a_rule() -> None:
    said = {"a": Classified(False, 0.9, "ice"), "b": Classified(True, 0.9), "c": Classified(False)}
    rows = [row("a"), row("b", 60.0), row("c")]
    made = judged(rows, classified=said, tilt_max_deg=50)
    assert kept(made) == []
    assert [verdict.by for verdict in made.verdicts] == ["classifier", "rule", "classifier"]
    assert made.verdicts[0].reason == "the classifier calls it bad (probability 0.90): ice"


@pytest.mark.parametrize(("unsure", "left"), [("keep", ["a", "b"]), ("reject", [])])
def test_an_unsure_classifier_has_no_verdict(unsure: str, left: list[str]) -> None:
    made = judged(
        [row("a"), row("b")],
        classified={"a": Classified(False, 0.55)},
        classifier_min_probability=0.7,
        classifier_unsure=unsure,
    )
    assert kept(made) == left


def test_a_person_has_the_last_word_either_way() -> None:
    said = {
        "a": Override("TS", "a", "reject", "ice", "ada"),
        "b": Override("TS", "b", "keep"),
        "z": Override("TS", "z", "keep"),
    }
    made = judged([row("a"), row("b", 60.0)], overrides=said, tilt_max_deg=50)
    assert kept(made) == ["b"]
    assert made.verdicts[0].reason == "rejected by ada: ice"
    assert made.verdicts[1].reason == (
        "kept by a person (against tilt angle 60 deg (tilt_max_deg = 50))"
    )
    assert made.warnings == ("tilt_overrides.star speaks of z, not among these tilt images",)
