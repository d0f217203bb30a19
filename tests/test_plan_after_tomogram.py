"""The planner where several jobs make what one takes: filters, instances, models. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crboost.catalogue import CATALOGUE
from crboost.errors import PlanError
from crboost.history import PastJob, SeriesRecord
from crboost.plan import WantedJob, plan
from crboost.results import whole_fingerprint, with_extra


def wanted(node: str) -> WantedJob:
    return WantedJob(node, CATALOGUE[node.partition("__")[0]], f"{node}-a")


def past(number: int, node: str, inputs: tuple[str, ...] = (), **changes: object) -> PastJob:
    job = f"External/job{number:03d}/"
    name = node.partition("__")[0]
    made = PastJob(
        job=job,
        status="Succeeded",
        inputs=inputs,
        outputs=tuple((f"{job}{one.file}", one.label) for one in CATALOGUE[name].outputs),
        job_type=name,
        node=node,
        fingerprint=f"{node}-a",
        series={"TS_01": SeriesRecord("done", f"{number}-TS_01", "")},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


FRAMES = past(2, "fsMotionAndCtf", ("External/job001/tilt_series.star",))


def test_alignment_takes_the_filter_of_its_run_and_else_the_newest() -> None:
    run = plan([FRAMES], [wanted("tiltFilter"), wanted("tsAlignment")])
    assert [given.node for job in run.jobs for given in job.inputs] == [None, "tiltFilter"]
    filtered = past(3, "tiltFilter", ("External/job002/tilt_series_ctf.star",))
    (job,) = plan([FRAMES, filtered], [wanted("tsAlignment")]).jobs
    assert job.inputs[0].path == "External/job003/selected_tilt_series.star"
    (job,) = plan([FRAMES], [wanted("tsAlignment")]).jobs
    assert job.inputs[0].path == "External/job002/tilt_series_ctf.star"


def test_a_word_of_a_person_makes_only_the_filter_continue() -> None:
    series = {"TS_01": SeriesRecord("done", "3-TS_01", "2-TS_01")}
    filtered = past(3, "tiltFilter", ("External/job002/tilt_series_ctf.star",), series=series)
    job = wanted("tiltFilter")
    assert plan([FRAMES, filtered], [job]).is_empty
    (planned,) = plan([FRAMES, filtered], [replace(job, extras={"TS_01": "said"})]).jobs
    assert planned.continue_of == "External/job003/"
    assert "TS_01 changed" in planned.reason
    series = {"TS_01": SeriesRecord("done", "3-TS_01", with_extra("2-TS_01", "said"))}
    filtered = replace(filtered, series=series)
    assert plan([FRAMES, filtered], [replace(job, extras={"TS_01": "said"})]).is_empty
    assert not plan([FRAMES, filtered], [job]).is_empty


@pytest.mark.parametrize(("node", "number"), [("", 5), ("__2", 7), ("__3", 7)])
def test_each_template_goes_its_own_way_and_a_new_one_takes_the_newest(
    node: str, number: int
) -> None:
    history = [past(5, "templateMatching"), past(7, "templateMatching__2")]
    (job,) = plan(history, [wanted(f"extractCandidates{node}")]).jobs
    assert job.inputs[0].path == f"External/job{number:03d}/tomograms.star"
    both = [wanted(f"{name}{node}") for name in ("templateMatching", "extractCandidates")]
    tomograms = past(4, "tsReconstruct")
    run = plan([tomograms], [*both, wanted("templateMatching__4")])
    extraction = next(job for job in run.jobs if job.job_type == "extractCandidates")
    assert extraction.inputs[0].node == f"templateMatching{node}"


def test_a_model_made_anew_denoises_every_tomogram_anew() -> None:
    tomograms, model = past(4, "tsReconstruct"), past(5, "denoiseTrain")
    inputs = ("External/job004/tomograms.star", "External/job005/denoising_model.tar.gz")
    seen = with_extra("4-TS_01", whole_fingerprint(model.series))
    series = {"TS_01": SeriesRecord("done", "6-TS_01", seen)}
    denoised = past(6, "denoisePredict", inputs, series=series)
    assert plan([tomograms, model, denoised], [wanted("denoisePredict")]).is_empty
    trained = replace(model, series={"TS_01": SeriesRecord("done", "other", "")})
    (job,) = plan([tomograms, trained, denoised], [wanted("denoisePredict")]).jobs
    assert job.continue_of == "External/job006/"


def test_what_cannot_run_is_told_only_where_it_is_to_run() -> None:
    matched = past(5, "templateMatching", ("External/job004/tomograms.star",))
    history = [past(4, "tsReconstruct"), matched]
    broken = replace(wanted("templateMatching"), problem="no template")
    assert plan(history, [broken]).is_empty
    with pytest.raises(PlanError, match="templateMatching: no template"):
        plan(history[:1], [broken])


@pytest.mark.parametrize(
    ("node", "before"), [("subtomoExtraction", "extractCandidates"), ("tsCtf", "tsAlignment")]
)
def test_no_job_takes_what_its_own_kind_made(node: str, before: str) -> None:
    """Asked for alone once more it would go on from itself, without end."""
    made = [past(4, before), past(3, "tsImport")]
    slots = CATALOGUE[node].inputs
    (job,) = plan(made, [wanted(node)]).jobs
    paths = tuple(str(given.path) for given in job.inputs)
    assert len(paths) == len(slots)
    kind = CATALOGUE[node].relion_type
    done = past(5, node, paths, parameters={"x": "1"}, relion_type=kind)
    again = replace(wanted(node), parameters={"x": "1"})
    assert plan([*made, done], [again]).is_empty


def test_warps_extraction_takes_candidates_and_tilt_series_that_have_their_ctf() -> None:
    history = [
        *(past(3, "tsImport"), past(4, "tsAlignment"), past(5, "tsCtf")),
        *(past(8, "extractCandidates"), past(9, "tsAlignment")),
    ]
    job_type = CATALOGUE["subtomoExtraction"].for_tool("warp")
    job = WantedJob("subtomoExtraction", job_type, "subtomoExtraction-a")
    (planned,) = plan(history, [job]).jobs
    assert {given.slot: (given.relion_field, given.path) for given in planned.inputs} == {
        "optimisation_set": ("in_mic", "External/job008/optimisation_set.star"),
        "tilt_series": ("in_3dref", "External/job005/ts_ctf_tilt_series.star"),
        "warp_import": ("in_coords", "External/job003/warp_tilt_series.star"),
    }
    assert not planned.options
    average = plan(history, [job, wanted("reconstructParticle")]).jobs[1]
    assert (average.inputs[0].node, average.inputs[0].file) == (
        "subtomoExtraction",
        "optimisation_set.star",
    )
