"""Jobs that the planner adds, and commands that a plan refuses before anything starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crboost.builders import warp
from crboost.builders.series_values import TiltSeries
from crboost.builders.step import Step
from crboost.catalogue import CATALOGUE, TOMO_ALIGN, TOMO_CTFFIND, TOMO_IMPORT, TOMO_WARP_IMPORT
from crboost.errors import PlanError
from crboost.history import PastJob, SeriesRecord
from crboost.parameters import (
    FsMotionAndCtf,
    ProjectParameters,
    TsAlignment,
    TsCtf,
    TsImport,
    TsReconstruct,
    job_type_of,
)
from crboost.plan import Plan, WantedJob, plan
from crboost.prerequisites import check_frames, type_as_done, with_prerequisites
from crboost.project import Project
from crboost.settings import Settings
from crboost.stages import STAGES, Context, SeriesInput

CHAIN = ("importmovies", "fsMotionAndCtf", "tsAlignment", "tsCtf", "tsReconstruct")


def parameters(*nodes: str, **changes: object) -> ProjectParameters:
    new = ProjectParameters.new("test", datetime(2026, 1, 1, tzinfo=UTC), jobs=nodes or CHAIN)
    return new.with_values(changes)


def with_warp(*nodes: str, **changes: object) -> ProjectParameters:
    """Every job that WarpTools can do is done with it."""
    every = nodes or CHAIN
    tools = {f"jobs.{node}.tool": "warp" for node in every if node.partition("__")[0] in
             ("fsMotionAndCtf", "tsAlignment", "tsReconstruct")}  # fmt: skip
    return parameters(*every, **{**tools, **changes})


def planned(
    nodes: Sequence[str], given: ProjectParameters, history: Sequence[PastJob] = ()
) -> Plan:
    wanted = [
        WantedJob(node, type_as_done(node, given), given.fingerprint(node))
        for node in with_prerequisites(nodes, given)
    ]
    return plan(history, wanted)


def inputs(made: Plan, node: str) -> dict[str, str | None]:
    """Input slot -> the job of this run that makes it, or the file."""
    (job,) = (job for job in made.jobs if job.node == node)
    return {one.slot: one.node or one.path for one in job.inputs}


def test_a_tilt_filter_in_the_run_stands_before_the_alignment() -> None:
    """It could take tsCtf's table too; in one run that comes after it."""
    nodes = [*CHAIN[:2], "tiltFilter", *CHAIN[2:]]
    made = planned(nodes, with_warp(*nodes))
    assert inputs(made, "tiltFilter") == {"tilt_series": "fsMotionAndCtf"}
    assert inputs(made, "tsImport") == {"tilt_series": "tiltFilter"}


def test_the_import_for_warp_is_added_where_warp_aligns() -> None:
    made = planned(CHAIN, with_warp())
    assert [job.node for job in made.jobs] == [
        *("importmovies", "fsMotionAndCtf", "tsImport", "tsAlignment", "tsCtf", "tsReconstruct"),
    ]
    assert inputs(made, "tsImport") == {"tilt_series": "fsMotionAndCtf"}
    assert inputs(made, "tsAlignment") == {"tilt_series": "tsImport"}
    assert inputs(made, "tsCtf") == {"tilt_series": "tsAlignment", "warp_import": "tsImport"}
    assert inputs(made, "tsReconstruct") == {"tilt_series": "tsCtf", "warp_import": "tsImport"}


def test_nothing_is_added_where_no_job_is_warps() -> None:
    nodes = ("importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct")
    made = planned(nodes, parameters(*nodes))
    assert [job.node for job in made.jobs] == list(nodes)
    assert inputs(made, "tsAlignment") == {"tilt_series": "fsMotionAndCtf"}
    assert inputs(made, "tsReconstruct") == {"tilt_series": "tsAlignment"}
    direct = parameters(*nodes, **{"jobs.tsAlignment.tool": "aretomo2"})
    assert "tsImport" not in with_prerequisites(nodes, direct)


def test_warp_reconstructs_what_another_tool_has_aligned() -> None:
    nodes = ("importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct")
    mixed = with_warp(*nodes, **{"jobs.tsAlignment.tool": "aretomo2"})
    made = planned(nodes, mixed)
    assert inputs(made, "tsAlignment") == {"tilt_series": "fsMotionAndCtf"}
    assert inputs(made, "tsReconstruct") == {
        "tilt_series": "tsAlignment",
        "warp_import": "tsImport",
    }


def test_rejected_tilts_are_out_before_warp_sees_them() -> None:
    nodes = ("importmovies", "fsMotionAndCtf", "tiltFilter", "tsAlignment")
    made = planned(nodes, with_warp(*nodes))
    assert inputs(made, "tsImport") == {"tilt_series": "tiltFilter"}
    assert inputs(made, "tsAlignment") == {"tilt_series": "tsImport"}


def test_one_import_serves_several_alignments_unless_there_are_more() -> None:
    nodes = ("tsAlignment", "tsAlignment__2")
    assert with_prerequisites(nodes, with_warp(*nodes)) == ["tsImport", *nodes]
    two = with_warp(*nodes, "tsImport__2")
    assert with_prerequisites(nodes, two) == [
        *("tsImport", "tsAlignment", "tsImport__2", "tsAlignment__2"),
    ]


def test_an_input_that_the_user_names_needs_no_import() -> None:
    own = with_warp(**{"jobs.tsAlignment.input_tilt_series": "External/job009/x.star"})
    assert with_prerequisites(["tsAlignment"], own) == ["tsAlignment"]


def history(given: ProjectParameters) -> list[PastJob]:
    """Import, movies and Warp's import have run, with `given`."""
    made: list[PastJob] = []
    labels = {
        "importmovies": ("tilt_series.star", TOMO_IMPORT),
        "fsMotionAndCtf": ("tilt_series_ctf.star", TOMO_CTFFIND),
        "tsImport": ("warp_tilt_series.star", TOMO_WARP_IMPORT),
    }
    for number, (node, (file, label)) in enumerate(labels.items(), start=1):
        made.append(
            PastJob(
                job=f"External/job{number:03}/",
                status="Succeeded",
                inputs=(made[-1].outputs[0][0],) if made else (),
                outputs=((f"External/job{number:03}/{file}", label),),
                job_type=node,
                node=node,
                fingerprint=given.fingerprint(node),
                series={"TS_01": SeriesRecord("done", f"{node}-TS_01", "")},
            )
        )
    return made


def test_an_import_that_is_up_to_date_is_not_run_again() -> None:
    given = with_warp()
    made = planned(["tsAlignment"], given, history(given))
    assert [(job.node, job.job) for job in made.satisfied] == [("tsImport", "External/job003/")]
    (job,) = made.jobs
    assert job.inputs[0].path == "External/job003/warp_tilt_series.star"
    larger = with_warp(**{"jobs.tsAlignment.patch_x": 4, "jobs.tsAlignment.patch_y": 4})
    assert [job.node for job in planned(["tsAlignment"], larger, history(given)).jobs] == [
        "tsAlignment"
    ]


def test_a_change_of_the_import_runs_it_and_what_follows() -> None:
    before = history(with_warp())
    given = with_warp(*CHAIN, "tsImport", **{"jobs.tsImport.tomo_dimensions": "4096x4096x1024"})
    made = planned(["tsAlignment"], given, before)
    assert [job.node for job in made.jobs] == ["tsImport", "tsAlignment"]


def test_a_second_input_does_not_pass_for_news() -> None:
    """Tilt series have the same names in all jobs: only the first input is what is worked on."""
    given = with_warp()
    before = history(given)
    aligned = PastJob(
        job="External/job004/",
        status="Succeeded",
        inputs=("External/job003/warp_tilt_series.star",),
        outputs=(("External/job004/aligned_tilt_series.star", TOMO_ALIGN),),
        job_type="tsAlignment",
        node="tsAlignment",
        fingerprint=given.fingerprint("tsAlignment"),
        series={"TS_01": SeriesRecord("done", "aligned", "tsImport-TS_01")},
    )
    fitted = PastJob(
        job="External/job005/",
        status="Succeeded",
        inputs=("External/job004/aligned_tilt_series.star", before[2].outputs[0][0]),
        outputs=(("External/job005/ts_ctf_tilt_series.star", f"{TOMO_ALIGN}.ctf"),),
        job_type="tsCtf",
        node="tsCtf",
        fingerprint=given.fingerprint("tsCtf"),
        series={"TS_01": SeriesRecord("done", "fitted", "aligned")},
    )
    made = planned(["tsAlignment", "tsCtf"], given, [*before, aligned, fitted])
    assert made.is_empty
    assert [job.node for job in made.satisfied] == ["tsImport", "tsAlignment", "tsCtf"]


def test_the_import_takes_warps_averages_only() -> None:
    given = with_warp(**{"jobs.fsMotionAndCtf.tool": "cpu"})
    nodes = with_prerequisites(CHAIN, given)
    with pytest.raises(PlanError, match=r"jobs\.fsMotionAndCtf\.tool = cpu") as told:
        check_frames(nodes, given)
    assert "set jobs.fsMotionAndCtf.tool=warp" in str(told.value)
    check_frames(nodes, with_warp())
    check_frames(["tsImport"], given)  # whatever made the averages is not part of the run


def test_a_tools_inputs_belong_to_the_catalogue() -> None:
    for job_type in CATALOGUE.values():
        for tool, slots in job_type.inputs_with.items():
            assert job_type.for_tool(tool).inputs == slots
            fields = [slot.relion_field for slot in slots]
            assert len(set(fields)) == len(fields)
        assert job_type.for_tool("cpu").inputs == job_type.inputs


# --- the contract in the plan --------------------------------------------------------------------


class Commands:
    """A stage as a plan sees it: the real builders' commands, and nothing that runs them."""

    def steps(self, context: Context, series: SeriesInput) -> list[Step]:
        seen, out = context.parameters, context.tool_directory(series.name)
        one = TiltSeries(series.name, series.global_row, series.rows)
        imported = aligned = "<tsImport>"
        made: dict[str, Callable[[], list[Step]]] = {
            "fsMotionAndCtf": lambda: warp.frames(one, seen, seen.job_as(FsMotionAndCtf), out),
            "tsImport": lambda: warp.ts_import(one, seen, seen.job_as(TsImport), out),
            "tsAlignment": lambda: warp.align(one, seen, seen.job_as(TsAlignment), out, imported),
            "tsCtf": lambda: warp.ctf(
                one, seen, seen.job_as(TsCtf), out, imported, aligned, flip=True
            ),
            "tsReconstruct": lambda: warp.reconstruct(
                one, seen, seen.job_as(TsReconstruct), out, imported, aligned
            ),
        }
        return made[job_type_of(seen.node)]()


@pytest.fixture
def project(tmp_path: Path, example_data: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose jobs are done with WarpTools, as far as a plan is concerned."""
    for name in ("fsMotionAndCtf", "tsImport", "tsAlignment", "tsCtf", "tsReconstruct"):
        monkeypatch.setitem(STAGES, (name, "warp"), Commands())  # type: ignore[arg-type]
    made = Project.create(
        tmp_path / "P", movies=[str(example_data / "frames")], mdocs=[str(example_data / "*.mdoc")]
    ).project
    made.set_values(
        {
            "jobs.fsMotionAndCtf.tool": "warp",
            "jobs.tsAlignment.tool": "warp",
            "jobs.tsCtf.range_min_max": "30:9",
            "jobs.tsReconstruct.tool": "warp",
        }
    )
    return made


def settings(version: str | None = None) -> Settings:
    warp_tool = {"executable": "WarpTools", "version": version}
    return Settings.model_validate({"tools": {"warp": warp_tool}})


@pytest.mark.parametrize("version", [None, "2.0.0dev29", "2.0.0dev36", "2.0.0"])
def test_a_plan_shows_warps_commands(project: Project, version: str | None) -> None:
    made = project.plan(settings=settings(version))
    assert [job.node for job in made.jobs] == [
        *("importmovies", "fsMotionAndCtf", "tsImport", "tsAlignment", "tsCtf", "tsReconstruct"),
    ]
    commands = list(itertools.chain.from_iterable(job.command for job in made.jobs))
    assert [argv[1] for argv in commands] == [
        *("create_settings", "fs_motion_and_ctf", "ts_import", "create_settings", "ts_aretomo"),
        *("ts_defocus_hand", "ts_ctf", "ts_reconstruct"),
    ]
    assert "WarpTools ts_aretomo" in made.to_markdown()


def test_bug_b37_wrong_options_stop_the_plan(project: Project) -> None:
    """B37: WarpTools takes wrong options for a wish to see its help, and says that all is well."""
    project.set_values({"jobs.tsCtf.warp_arguments": "--windw 256 --strict"})
    with pytest.raises(PlanError) as told:
        project.plan(settings=settings("2.0.0dev29"))
    message = str(told.value)
    assert "tsCtf: WarpTools would not do what it is told" in message
    assert "ts_ctf has no option --windw (did you mean --window?)" in message
    assert "WarpTools 2.0.0dev29 has no option --strict of ts_ctf" in message
    assert "correct jobs.tsCtf.warp_arguments" in message


def test_a_method_that_the_installed_version_lacks_stops_the_plan(project: Project) -> None:
    project.set_values({"jobs.tsAlignment.alignment_method": "aretomo3"})
    with pytest.raises(PlanError, match=r"WarpTools 2\.0\.0dev29 has no command ts_aretomo3"):
        project.plan(settings=settings("2.0.0dev29"))
    with pytest.raises(PlanError, match=r"say in the settings which one you have"):
        project.plan(settings=settings())
    assert not project.plan(settings=settings("2.0.0dev36")).is_empty


def test_parameters_that_warp_refuses_stop_the_plan(project: Project) -> None:
    project.set_values({"jobs.tsCtf.range_min_max": "30:6"})
    with pytest.raises(PlanError, match=r"images of 4 Å per pixel end at 8 Å"):
        project.plan(settings=settings())


def test_a_job_outside_the_run_may_wait_with_its_mistakes(project: Project) -> None:
    project.set_values({"jobs.tsCtf.warp_arguments": "--nonsense"})
    made = project.plan(["importmovies", "fsMotionAndCtf"], settings=settings())
    assert [job.node for job in made.jobs] == ["importmovies", "fsMotionAndCtf"]


def test_a_version_that_is_none_is_told(project: Project) -> None:
    with pytest.raises(PlanError, match=r"tools\.warp\.version = 'newest' is not a version"):
        project.plan(settings=settings("newest"))
