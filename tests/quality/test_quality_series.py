"""One tilt series through all stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crboost.quality.details import frame_details, read_details
from crboost.quality.series import series_report
from crboost.quality.stages import read_stages

if TYPE_CHECKING:
    from conftest import Files

MISSING, DEAD = 4, 7


def report_of(project: Files, name: str):  # type: ignore[no-untyped-def]
    stages = read_stages(project)
    return series_report(name, stages, read_details(project.directory, stages, name))


def test_each_tilt_keeps_what_every_stage_said_of_it(project: Files) -> None:
    report = report_of(project, "TS_01")
    assert [tilt.order for tilt in report.tilts] == list(range(11))
    states = {tilt.order: tilt.state for tilt in report.tilts if tilt.state != "used"}
    assert states == {MISSING: "missing", DEAD: "excluded"}
    assert report.tilts[DEAD].reason == "dark"
    first = report.tilts[0]
    assert (first.pre_exposure_e_per_a2, first.motion_angstrom) == (0.0, 2.0)
    assert first.defocus_um == 3.02
    assert report.tilts[MISSING].defocus_um is None


def test_the_total_is_what_was_acquired(project: Files) -> None:
    metrics = report_of(project, "TS_01").metrics
    assert (metrics["tilts"], metrics["tilts_total"]) == (9, 11)


def test_the_ctf_is_shown_at_the_tilt_nearest_to_zero(project: Files) -> None:
    tilt = report_of(project, "TS_01").central_tilt
    assert tilt is not None
    assert tilt.angle_deg == 0.0


def test_a_failure_is_the_problem_until_a_later_stage_succeeds(project: Files) -> None:
    assert report_of(project, "TS_02").problem == "tsAlignment: all tilt images are dark"
    project.write("tsReconstruct", "TS_02", metrics={"tilts": 11})
    assert report_of(project, "TS_02").problem is None


def test_warnings_of_all_stages_appear_once(project: Files) -> None:
    warnings = report_of(project, "TS_01").warnings
    assert len(warnings) == len(set(warnings)) == 2
    assert warnings[0].startswith("tilt 5 (+6.0 deg)")


def test_shifts_undo_the_drift_as_in_relion() -> None:
    """The embedded tool says where frames lie, in (y, x); RELION by how much it moved them."""
    tilt = {
        "name": "a",
        "status": "done",
        "shifts_px": [[1.0, 1.0], [2.0, -1.0]],
        "defocus_u_angstrom": 3e4,
        "defocus_v_angstrom": 3e4,
    }
    details = dict(frame_details({"pixel_size_angstrom": 2.0}, {"tilts": [tilt]}))
    assert details["a"].shifts_angstrom == ((0.0, 0.0), (4.0, -2.0))
