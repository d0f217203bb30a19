"""One tilt series through all stages, as a picture shows it. Pure: results in, report out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from crboost.quality.metrics import LOST, mean_motion, update_motions
from crboost.quality.stages import StageResults

TiltState = Literal["used", "excluded", "failed", "missing"]


@dataclass(frozen=True)
class CtfCurve:
    """A radial power spectrum and its fit, both without background.

    Attributes:
        frequency_per_angstrom, power, fit: same length.
    """

    frequency_per_angstrom: tuple[float, ...]
    power: tuple[float, ...]
    fit: tuple[float, ...]


@dataclass(frozen=True)
class TiltReport:
    """One tilt image.

    Attributes:
        order: 0 for the first one taken.
        state: used in the tomogram (or still in the running), excluded by the alignment, failed
            in a stage, or without a movie.
        defocus_um: mean of both axes; positive is underfocus.
    """

    name: str
    angle_deg: float
    order: int
    state: TiltState = "used"
    reason: str | None = None
    pre_exposure_e_per_a2: float | None = None
    motion_angstrom: float | None = None
    defocus_um: float | None = None
    ctf_resolution_angstrom: float | None = None
    ctf_curve: CtfCurve | None = None


@dataclass(frozen=True)
class SeriesReport:
    """One tilt series.

    Attributes:
        tilts: in order of acquisition.
        metrics: of all stages together.
        tomogram: project-relative path.
        problem: why it got no further; None when it did not fail.
        warnings: of all stages, each once.
        jobs: the RELION jobs that the report is made from.
    """

    name: str
    tilts: tuple[TiltReport, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tomogram: str | None = None
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()

    @property
    def central_tilt(self) -> TiltReport | None:
        """The tilt nearest to zero that has a CTF curve."""
        curved = [tilt for tilt in self.tilts if tilt.ctf_curve is not None]
        return min(curved, key=lambda tilt: abs(tilt.angle_deg), default=None)


def series_report(
    name: str,
    stages: Mapping[str, StageResults],
    frames: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
) -> SeriesReport:
    """Put together what all stages say of one tilt series.

    Args:
        stages: by job type, in the order in which they follow each other.
        frames: specification and result of `crboost.cpu frames` for this series, if it ran.
    """
    tilts: dict[str, TiltReport] = {}
    metrics: dict[str, Any] = {}
    motions: dict[str, float] = {}
    warnings: list[str] = []
    problem = None
    for stage in stages.values():
        result = stage.results.get(name)
        if result is None:
            continue
        warnings += result.warnings
        if result.status != "done":
            problem = f"{stage.job_type}: {result.reason}"
            continue
        problem = None
        # Later stages count what the earlier ones left; the total is what was acquired.
        total = metrics.get("tilts_total", result.metrics.get("tilts_total"))
        metrics |= {**result.metrics, "tilts_total": total}
        update_motions(motions, result.tilts)
        for record in result.tilts:
            known = tilts.get(record["name"])
            tilts[record["name"]] = _with_record(known, record, len(tilts))
    if frames is not None:
        _add_frames(tilts, *frames)
    metrics["motion_angstrom"] = mean_motion(motions, metrics)
    return SeriesReport(
        name,
        tuple(sorted(tilts.values(), key=lambda tilt: tilt.order)),
        metrics,
        metrics.get("tomogram"),
        problem,
        tuple(dict.fromkeys(warnings)),
        tuple(stage.job for stage in stages.values() if name in stage.results),
    )


def _with_record(known: TiltReport | None, record: Mapping[str, Any], position: int) -> TiltReport:
    """A tilt with what one stage says of it; a tilt once lost stays lost."""
    tilt = known or TiltReport(
        record["name"], float(record["tilt_angle_deg"]), int(record.get("order", position))
    )
    state = _state(str(record["status"]))
    if state != "used" and tilt.state == "used":
        tilt = replace(tilt, state=state, reason=record.get("reason"))
    return replace(
        tilt,
        motion_angstrom=record.get("motion_total_angstrom", tilt.motion_angstrom),
        ctf_resolution_angstrom=record.get(
            "ctf_max_resolution_angstrom", tilt.ctf_resolution_angstrom
        ),
    )


def _state(status: str) -> TiltState:
    """A stage's word for a tilt in ours."""
    if status in LOST:
        return status  # type: ignore[return-value]
    return "used"


def _add_frames(
    tilts: dict[str, TiltReport], specification: Mapping[str, Any], result: Mapping[str, Any]
) -> None:
    """Add what only the embedded tool's own files tell: dose, defocus, curves."""
    exposures = {
        tilt["name"]: tilt.get("pre_exposure_e_per_a2") for tilt in specification.get("tilts", ())
    }
    for tilt in result.get("tilts", ()):
        known = tilts.get(tilt["name"])
        if known is None:
            continue
        known = replace(known, pre_exposure_e_per_a2=exposures.get(tilt["name"]))
        if tilt.get("status") == "done":
            known = replace(
                known,
                defocus_um=(tilt["defocus_u_angstrom"] + tilt["defocus_v_angstrom"]) / 2e4,
                ctf_curve=_curve(tilt.get("ctf_curve")),
            )
        tilts[tilt["name"]] = known


def _curve(curve: Mapping[str, Any] | None) -> CtfCurve | None:
    if not curve or not curve.get("frequency_per_angstrom"):
        return None
    return CtfCurve(
        tuple(curve["frequency_per_angstrom"]), tuple(curve["power"]), tuple(curve["fit"])
    )
