"""From the images a job works on back to the job that binned the movies. Pure, and in plans."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from crboost.catalogue import CATALOGUE
from crboost.history import PastJob
from crboost.images import image_binnings, recorded_binning
from crboost.parameters import ProjectParameters
from crboost.plan import Plan, WantedJob, plan

PROJECT = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC)).with_values(
    {
        "microscope.pixel_size_angstrom": 0.675,
        "acquisition.detector_dimensions_px": "11520x8184",
        "jobs.motionCorr.bin_factor": 2,
    }
)
MOTION = {"bin_factor": "2"}


def past(number: int, node: str, inputs: tuple[str, ...] = (), **parameters: str) -> PastJob:
    name = node.partition("__")[0]
    native = CATALOGUE[name].is_native
    job = f"{'Native' if native else 'External'}/job{number:03d}/"
    return PastJob(
        job=job,
        status="Succeeded",
        relion_type=CATALOGUE[name].relion_type,
        inputs=inputs,
        outputs=tuple((f"{job}{one.file}", one.label) for one in CATALOGUE[name].outputs),
        job_type=name,
        node=None if native else node,
        fingerprint=f"{node}-a",
        parameters=parameters,
    )


def chain(*nodes: tuple[str, dict[str, str]]) -> list[PastJob]:
    """Jobs that each take what the one before made."""
    made: list[PastJob] = []
    for number, (node, parameters) in enumerate(nodes, start=1):
        inputs = (made[-1].outputs[0][0],) if made else ()
        made.append(past(number, node, inputs, **parameters))
    return made


def wanted(*nodes: str) -> list[WantedJob]:
    return [
        WantedJob(node, CATALOGUE[node.partition("__")[0]], f"{node}-a", parameters={"x": "1"})
        for node in nodes
    ]


def binnings(history: list[PastJob], *nodes: str) -> dict[str, float]:
    return image_binnings(plan(history, wanted(*nodes)), history, PROJECT, nodes)


def test_parameters_alone_go_by_rank() -> None:
    by_relion = replace_jobs("motionCorr", "ctfFind", "tsAlignment", "reconstructTomograms")
    assert by_relion.effective("motionCorr").image_binning == 1
    assert by_relion.effective("importmovies").image_binning == 1
    seen = by_relion.effective("reconstructTomograms")
    assert (seen.image_pixel_size_angstrom, seen.image_size_px) == (1.35, (5760, 4092))
    # The later of two in the catalogue, of the job's own instance first.
    assert PROJECT.effective("reconstructTomograms").image_binning == 1
    two = PROJECT.with_values({"jobs.motionCorr__2.bin_factor": 3})
    assert two.effective("reconstructTomograms__2").image_binning == 3
    warp = {"jobs.fsMotionAndCtf.movie_binning": 2}
    assert PROJECT.with_values(warp).effective("tsAlignment").image_binning == 1
    warp["jobs.fsMotionAndCtf.tool"] = "warp"  # type: ignore[assignment]
    assert PROJECT.with_values(warp).effective("tsAlignment").image_binning == 2


def replace_jobs(*nodes: str) -> ProjectParameters:
    raw = PROJECT.dump()
    raw["jobs"] = {node: raw["jobs"].get(node, {}) for node in nodes}
    return ProjectParameters.load(raw)


def test_a_run_is_followed_to_its_own_maker() -> None:
    nodes = ("importmovies", "motionCorr", "ctfFind", "tsAlignment", "reconstructTomograms")
    found = binnings([], *nodes)
    assert found["reconstructTomograms"] == found["tsAlignment"] == found["ctfFind"] == 2
    assert "motionCorr" not in found


def test_the_ledger_is_followed_where_the_run_ends() -> None:
    history = chain(
        ("importmovies", {}), ("motionCorr", MOTION), ("ctfFind", {}), ("tsAlignment", {})
    )
    assert binnings(history, "reconstructTomograms") == {"reconstructTomograms": 2}
    # Averages that were made since, and that nobody has aligned, do not count.
    newer = past(9, "motionCorr", ("External/job001/tilt_series.star",), bin_factor="1")
    assert binnings([*history, newer], "reconstructTomograms") == {"reconstructTomograms": 2}
    assert binnings([*history, newer], "ctfFind", "reconstructTomograms")["ctfFind"] == 1


def test_what_is_up_to_date_or_not_in_the_run_goes_by_its_own_past() -> None:
    history = chain(
        *(("importmovies", {}), ("motionCorr", MOTION), ("ctfFind", {}), ("tsAlignment", {})),
        ("reconstructTomograms", {"x": "1"}),
    )
    nodes = ["reconstructTomograms"]
    made = plan(history, wanted(*nodes))
    assert made.is_empty
    assert image_binnings(made, history, PROJECT, nodes) == {"reconstructTomograms": 2}
    assert image_binnings(Plan((), ()), history, PROJECT, nodes) == {"reconstructTomograms": 2}


def test_a_ledger_that_leads_nowhere_says_nothing() -> None:
    alone = past(4, "tsAlignment", ("Gui/job001/x.star",))
    loop = replace(alone, inputs=(alone.outputs[0][0],))
    for job in (alone, loop):
        assert binnings([job], "reconstructTomograms") == {}


@pytest.mark.parametrize(
    ("node", "parameters", "binning"),
    [
        ("motionCorr", {"bin_factor": "1.5"}, 1.5),
        ("motionCorr", {}, 1),
        ("fsMotionAndCtf", {"tool": "warp", "movie_binning": "4"}, 4),
        ("fsMotionAndCtf", {"tool": "cpu", "movie_binning": "4"}, 1),
        ("ctfFind", {}, None),
    ],
)
def test_what_a_job_of_the_past_recorded(
    node: str, parameters: dict[str, str], binning: float | None
) -> None:
    assert recorded_binning(past(1, node, **parameters)) == binning
