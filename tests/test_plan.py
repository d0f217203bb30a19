"""The planner: what runs, on what, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crboost.catalogue import (
    CATALOGUE,
    TOMO_ALIGN,
    TOMO_CTFFIND,
    TOMO_IMPORT,
    TOMO_RECONSTRUCT,
)
from crboost.errors import PlanError
from crboost.history import PastJob, SeriesRecord
from crboost.plan import WantedJob, plan

OUTPUTS = {
    "importmovies": ("tilt_series.star", TOMO_IMPORT),
    "fsMotionAndCtf": ("tilt_series_ctf.star", TOMO_CTFFIND),
    "tsAlignment": ("aligned_tilt_series.star", TOMO_ALIGN),
    "tsReconstruct": ("tomograms.star", TOMO_RECONSTRUCT),
}
CHAIN = list(OUTPUTS)


def wanted(node: str, fingerprint: str = "a", **changes: object) -> WantedJob:
    job_type = CATALOGUE[node.partition("__")[0]]
    job = WantedJob(node, job_type, f"{node}-{fingerprint}", parameters={"patch_x": fingerprint})
    return replace(job, **changes)  # type: ignore[arg-type]


def past(number: int, node: str, inputs: tuple[str, ...] = (), **changes: object) -> PastJob:
    file, label = OUTPUTS[node]
    job = f"External/job{number:03d}/"
    record = PastJob(
        job=job,
        status="Succeeded",
        inputs=inputs,
        outputs=((f"{job}{file}", label),),
        job_type=node,
        node=node,
        fingerprint=f"{node}-a",
        parameters={"patch_x": "a"},
        series={"TS_01": SeriesRecord("done", f"{node}-TS_01", "raw-TS_01")},
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def succeeded_chain() -> list[PastJob]:
    """All four jobs of a project, done."""
    history: list[PastJob] = []
    before = "raw"
    for number, node in enumerate(CHAIN, start=1):
        inputs = (history[-1].outputs[0][0],) if history else ()
        series = {"TS_01": SeriesRecord("done", f"{node}-TS_01", f"{before}-TS_01")}
        history.append(past(number, node, inputs, series=series))
        before = node
    return history


def all_wanted(**data: str) -> list[WantedJob]:
    jobs = [wanted(node) for node in CHAIN]
    jobs[0] = replace(jobs[0], data=data or {"TS_01": "raw-TS_01"})
    return jobs


def test_an_empty_project_runs_everything_in_order() -> None:
    made = plan([], list(reversed(all_wanted())))
    assert [job.node for job in made.jobs] == CHAIN
    assert made.jobs[0].reason == "has not run yet"
    align = made.jobs[2].inputs[0]
    assert (align.path, align.node, align.file) == (None, "fsMotionAndCtf", "tilt_series_ctf.star")


def test_what_succeeded_is_not_run_again() -> None:
    made = plan(succeeded_chain(), all_wanted())
    assert made.is_empty
    assert [(job.node, job.job) for job in made.satisfied] == [
        (node, f"External/job{number:03d}/") for number, node in enumerate(CHAIN, start=1)
    ]


def test_a_changed_parameter_reruns_the_job_and_what_follows_with_new_numbers() -> None:
    jobs = all_wanted()
    jobs[2] = wanted("tsAlignment", "b")
    made = plan(succeeded_chain(), jobs)
    assert [(job.node, job.continue_of) for job in made.jobs] == [
        ("tsAlignment", None),
        ("tsReconstruct", None),
    ]
    assert made.jobs[0].reason == "other parameters than External/job003: patch_x a -> b"
    assert made.jobs[0].inputs[0].path == "External/job002/tilt_series_ctf.star"
    assert made.jobs[1].inputs[0].node == "tsAlignment"


def test_going_back_to_old_parameters_finds_the_old_job_not_the_newest() -> None:
    history = succeeded_chain()
    history.append(past(5, "tsAlignment", history[1].outputs[0][:1], fingerprint="tsAlignment-b"))
    made = plan(history, all_wanted())
    assert made.is_empty
    assert {job.node: job.job for job in made.satisfied}["tsAlignment"] == "External/job003/"


def test_the_newest_succeeded_producer_wins_even_if_relions_gui_made_it() -> None:
    history = succeeded_chain()[:3]
    native = PastJob(
        "AlignTiltSeries/job007/",
        "Succeeded",
        "relion.aligntiltseries",
        outputs=(("AlignTiltSeries/job007/aligned_tilt_series.star", TOMO_ALIGN),),
    )
    failed = replace(native, job="AlignTiltSeries/job008/", status="Failed")
    made = plan([*history, native, failed], [wanted("tsReconstruct")])
    assert made.jobs[0].inputs[0].path == "AlignTiltSeries/job007/aligned_tilt_series.star"
    assert "newest succeeded" in made.jobs[0].inputs[0].reason


def test_an_override_wins() -> None:
    job = wanted("tsReconstruct", overrides={"tilt_series": "mine.star"})
    made = plan(succeeded_chain(), [job])
    assert made.jobs[0].inputs[0].path == "mine.star"


def test_an_unresolvable_input_names_the_job_to_add() -> None:
    with pytest.raises(PlanError, match="add tsAlignment to the run") as caught:
        plan(succeeded_chain()[:2], [wanted("tsReconstruct")])
    assert "tilt_series" in caught.value.message


def test_an_unresolvable_input_tells_what_became_of_the_producers() -> None:
    history = succeeded_chain()[:3]
    gone = replace(history[2], missing=("External/job003/aligned_tilt_series.star",))
    failed = past(4, "tsAlignment", status="Failed")
    with pytest.raises(PlanError) as caught:
        plan([*history[:2], gone, failed], [wanted("tsReconstruct")])
    assert "External/job003 made External/job003/aligned_tilt_series.star, but" in str(caught.value)
    assert "External/job004 (tsAlignment) is failed" in str(caught.value)


def test_a_lost_output_is_made_again_in_its_place_and_its_readers_follow() -> None:
    history = succeeded_chain()
    lost = "External/job003/aligned_tilt_series.star"
    history[2] = replace(history[2], missing=(lost,))
    made = plan(history, all_wanted())
    assert [(job.node, job.continue_of) for job in made.jobs] == [
        ("tsAlignment", "External/job003/"),
        ("tsReconstruct", "External/job004/"),
    ]
    assert made.jobs[0].reason == f"{lost} of External/job003 is missing"
    assert made.jobs[1].inputs[0].path == lost


def test_a_failed_job_goes_on_where_it_stopped() -> None:
    history = succeeded_chain()[:3]
    history[2] = replace(history[2], status="Failed", outputs=(), failure="no beads")
    made = plan(history, all_wanted())
    assert made.jobs[0].continue_of == "External/job003/"
    assert "failed: no beads" in made.jobs[0].reason


def test_a_dead_running_job_goes_on_and_a_living_one_is_not_started_twice() -> None:
    history = succeeded_chain()[:3]
    history[2] = replace(history[2], status="Running", outputs=())
    made = plan(history, all_wanted())
    assert made.jobs[0].continue_of == "External/job003/"
    assert "was interrupted" in made.jobs[0].reason
    history[2] = replace(history[2], alive=True)
    with pytest.raises(PlanError, match="tsAlignment is running in External/job003"):
        plan(history, all_wanted())


def test_new_data_make_a_new_import_or_continue_the_old_one() -> None:
    jobs = all_wanted(TS_01="raw-TS_01", TS_02="raw-TS_02")
    fresh = plan(succeeded_chain(), jobs)
    assert [job.continue_of for job in fresh.jobs] == [None] * 4
    assert fresh.jobs[0].reason.startswith("TS_02 new since External/job001")
    going_on = plan(succeeded_chain(), jobs, mode="continue")
    assert [job.continue_of for job in going_on.jobs] == [
        f"External/job{number:03d}/" for number in range(1, 5)
    ]


def test_a_job_that_has_not_seen_all_of_its_input_continues() -> None:
    history = succeeded_chain()
    for number in (0, 1, 2):
        name = CHAIN[number]
        before = "raw" if number == 0 else CHAIN[number - 1]
        more = {"TS_02": SeriesRecord("done", f"{name}-TS_02", f"{before}-TS_02")}
        history[number] = replace(history[number], series={**history[number].series, **more})
    made = plan(history, all_wanted(TS_01="raw-TS_01", TS_02="raw-TS_02"))
    assert [(job.node, job.continue_of) for job in made.jobs] == [
        ("tsReconstruct", "External/job004/")
    ]
    assert made.jobs[0].reason == "TS_02 new since External/job004"


def test_failed_series_are_named_and_redone_only_when_asked() -> None:
    history = succeeded_chain()
    failed = SeriesRecord("failed", "x", "fsMotionAndCtf-TS_02", "no tilt image is left")
    history[2] = replace(history[2], series={**history[2].series, "TS_02": failed})
    made = plan(history, all_wanted())
    assert made.is_empty
    assert made.warnings == (
        "tsAlignment: tilt series TS_02 failed in External/job003: no tilt image is left "
        "(tried again with --mode continue)",
    )
    again = plan(history, all_wanted(), retry_failed=True)
    assert [job.continue_of for job in again.jobs] == ["External/job003/", "External/job004/"]
    by_hand = plan(history, all_wanted(), mode="continue")
    assert by_hand.jobs == again.jobs
    assert not by_hand.keep_failed
    by_itself = plan(history, all_wanted(), mode="continue", retry_failed=False)
    assert by_itself.is_empty
    assert by_itself.keep_failed


def test_series_that_failed_for_a_reason_outside_them_are_tried_again() -> None:
    history = succeeded_chain()
    killed = SeriesRecord("failed", "x", "fsMotionAndCtf-TS_02", "ended by SIGKILL", redo=True)
    history[2] = replace(history[2], series={**history[2].series, "TS_02": killed})
    made = plan(history, all_wanted())
    assert made.jobs[0].reason == "TS_02 failed in External/job003"
    assert made.jobs[0].continue_of == "External/job003/"


def test_instances_of_one_type_keep_to_their_own_kind() -> None:
    jobs = [
        *all_wanted()[:2],
        wanted("tsAlignment"),
        wanted("tsAlignment__2", "b"),
        wanted("tsReconstruct"),
        wanted("tsReconstruct__2", "b"),
    ]
    made = plan([], jobs)
    inputs = {job.node: job.inputs[0].node for job in made.jobs if job.inputs}
    assert inputs["tsReconstruct"] == "tsAlignment"
    assert inputs["tsReconstruct__2"] == "tsAlignment__2"


def test_the_plan_reads_well() -> None:
    jobs = all_wanted()
    jobs[2] = wanted("tsAlignment", "b")
    text = plan(succeeded_chain(), jobs).to_markdown()
    assert "**2 jobs to run.**" in text
    assert "| tsAlignment | run | new | External/job002/tilt_series_ctf.star" in text
    assert "Everything is up to date" in plan(succeeded_chain(), all_wanted()).to_markdown()


def test_a_native_job_is_known_by_the_options_that_its_relion_has() -> None:
    """A job.star has what RELION 5.0 and what 5.1 wants; RELION keeps what is its own."""
    aligned = past(3, "tsAlignment")
    values = {"box_size": "64", "box_size_angst": "86.4", "max_dose": "-1"}
    source = "External/job004/optimisation_set.star"
    job = WantedJob(
        "subtomoExtraction",
        CATALOGUE["subtomoExtraction"],
        "f",
        parameters=values,
        overrides={"optimisation_set": source},
    )
    done = PastJob(
        job="Extract/job005/",
        status="Succeeded",
        inputs=(source,),
        relion_type="relion.pseudosubtomo",
        job_type="subtomoExtraction",
        parameters={"box_size_angst": "86.4", "max_dose": "-1", "nr_threads": "4"},
    )
    assert plan([aligned, done], [job]).is_empty
    older = replace(done, parameters={"box_size": "64", "max_dose": "-1"})
    assert plan([aligned, older], [job]).is_empty
    other = replace(done, parameters={"box_size_angst": "172.8", "max_dose": "-1"})
    (planned,) = plan([aligned, other], [job]).jobs
    assert planned.reason == ("other parameters than Extract/job005: box_size_angst 172.8 -> 86.4")
    assert not plan([aligned, replace(done, parameters={})], [job]).is_empty
    by_driver = replace(done, relion_type="relion.external")
    assert not plan([aligned, by_driver], [job]).is_empty
