"""One tilt series through all stages, as a picture shows it. Pure: results in, report out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from crboost.quality.details import CtfCurve, TiltDetail
from crboost.quality.metrics import mean_motion, update_motions
from crboost.quality.stages import LOST, StageResults

TiltState = Literal["used", "excluded", "failed", "missing"]


@dataclass(frozen=True)
class TiltReport:
    """One tilt image.

    Attributes:
        order: 0 for the first one taken.
        state: used in the tomogram (or still in the running), excluded by the alignment, failed
            in a stage, or without a movie.
        defocus_um: mean of both axes; positive is underfocus.
        shifts_angstrom: (x, y) of each frame, relative to the first one.
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
    shifts_angstrom: tuple[tuple[float, float], ...] | None = None


@dataclass(frozen=True)
class SeriesReport:
    """One tilt series.

    Attributes:
        tilts: in order of acquisition.
        metrics: of all stages together.
        tomogram: project-relative path.
        halves: project-relative paths, where there are only the two halves of a tomogram.
        problem: why it got no further; None when it did not fail.
        warnings: of all stages, each once.
        jobs: the RELION jobs that the report is made from.
    """

    name: str
    tilts: tuple[TiltReport, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    tomogram: str | None = None
    halves: tuple[str, ...] = ()
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
    details: Mapping[str, TiltDetail] | None = None,
) -> SeriesReport:
    """Put together what all stages say of one tilt series.

    Args:
        stages: by node label, in the order in which they follow each other.
        details: of its tilt images, by name.
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
    for tilt, detail in (details or {}).items():
        if tilt in tilts:
            tilts[tilt] = _with_detail(tilts[tilt], detail)
    metrics["motion_angstrom"] = mean_motion(motions, metrics)
    return SeriesReport(
        name,
        tuple(sorted(tilts.values(), key=lambda tilt: tilt.order)),
        metrics,
        metrics.get("tomogram"),
        tuple(metrics.get("tomogram_halves") or ()),
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
        pre_exposure_e_per_a2=record.get("pre_exposure_e_per_a2", tilt.pre_exposure_e_per_a2),
        defocus_um=record.get("defocus_um", tilt.defocus_um),
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


def _with_detail(tilt: TiltReport, detail: TiltDetail) -> TiltReport:
    """A tilt with the details that are known of it."""
    known = {name: value for name, value in vars(detail).items() if value is not None}
    return replace(tilt, **known)
