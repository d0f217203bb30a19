"""Deployments on a real server: made twice, and what they refuse."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from jsonschema.exceptions import best_match
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from prefect_api import ask

from crboost.parameters import DEFAULT_JOBS, JOB_MODELS, ParameterModel, field_facts
from crboost.parameters.base import field
from flows.housekeeping import disk_rows, disks_of
from flows.local_server import LocalServer
from flows.parameters import (
    ALL_JOBS,
    GROUPS,
    changes_to,
    form_fields,
    overrides_of,
    parameter_changes,
)
from flows.service import ProcessChanges, process_project

ROOT = Path(__file__).parents[2]
DEPLOYED = {
    "process-project/headnode", "import/headnode", "preprocess/headnode", "align/headnode",
    "reconstruct/headnode", "plan-project/headnode", "ingest/headnode", "housekeeping/headnode",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server of its own, with the services that move runs on."""
    server = LocalServer(tmp_path_factory.mktemp("prefect"))
    for service in ("SCHEDULER", "FOREMAN"):
        server.environment.pop(f"PREFECT_SERVER_SERVICES_{service}_ENABLED", None)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def deployed(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the second `python -m flows.deploy` printed."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for _ in range(2):
        made = command(server, "-m", "flows.deploy", "--runs-at-once", "4", cwd=elsewhere)
        assert made.returncode == 0, made.stdout + made.stderr
        # An earlier version limited the pool, and so all of its queues together.
        pool = call(server, "GET", "/work_pools/headnode").json()
        assert pool["concurrency_limit"] is None
        limit = call(server, "PATCH", "/work_pools/headnode", {"concurrency_limit": 8})
        assert limit.is_success
    return made.stdout


def command(
    server: LocalServer, *argv: str, cwd: Path, timeout: float = 90
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], cwd=cwd, env=server.environment, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


def post(server: LocalServer, path: str, body: Mapping[str, Any]) -> httpx.Response:
    return call(server, "POST", path, body)


def call(
    server: LocalServer, method: str, path: str, body: Mapping[str, Any] | None = None
) -> httpx.Response:
    login = server.environment["PREFECT_API_AUTH_STRING"]
    return ask(method, f"{server.api_url}{path}", login, body)


def deployments(server: LocalServer) -> dict[str, dict[str, Any]]:
    flows = {one["id"]: one["name"] for one in post(server, "/flows/filter", {}).json()}
    found = post(server, "/deployments/filter", {}).json()
    return {f"{flows[one['flow_id']]}/{one['name']}": one for one in found}


@pytest.mark.parametrize("model", [*GROUPS.values(), *JOB_MODELS.values()])
def test_a_form_has_the_fields_bounds_and_choices_of_the_model(
    model: type[ParameterModel],
) -> None:
    form = changes_to(model, "Title")
    properties = form.model_json_schema()["properties"]
    names = form_fields(model)

    assert list(properties) == names
    assert set(names) <= set(model.model_fields)
    for position, name in enumerate(names):
        facts, shown = field_facts(model, name), properties[name]
        assert shown["position"] == position
        assert (shown.get("minimum"), shown.get("maximum")) == (facts.minimum, facts.maximum)
        choices = (True, False) if facts.kind is bool else facts.choices
        assert tuple(shown.get("enum", ())) == choices
        assert facts.bounds.lower() in shown["description"].lower()
        assert facts.unit is None or f"({facts.unit})" in shown["title"]
        assert "default" not in shown and "anyOf" not in shown
    assert form().model_dump() == {}


class _Tools(ParameterModel):
    tool: Literal["cpu", "imod"] = field("cpu", title="Tool", description="Does it.")
    general: int | None = field(None, title="General", description="Of all jobs; None: many.")


class _Job(_Tools):
    patch: int = field(2, title="Patch", description="Size.", unit="nm", ge=1, tools=["imod"])
    useless: int = field(2, title="Useless", description="Nobody's.", tools=["aretomo"])


class _CpuJob(_Job):
    tool: Literal["cpu"] = field("cpu", title="Tool", description="Does it.")


def test_a_form_shows_what_can_be_chosen_and_has_an_effect() -> None:
    assert form_fields(_Job) == ["tool", "patch", "general"]
    assert form_fields(_CpuJob) == ["general"]
    shown = changes_to(_Job, "Title").model_json_schema()["properties"]
    assert shown["patch"]["description"] == "Size. At least 1 nm. Only with imod. Default: 2."
    assert shown["general"]["description"] == "Of all jobs; if it was never set: many."


def test_the_groups_of_a_form_begin_with_the_science() -> None:
    schema = parameter_changes("SomeChanges", ["tsAlignment"]).model_json_schema()

    titles = [one["title"] for one in schema["properties"].values()]
    assert titles == ["Microscope", "Acquisition", "Job parameters", "Computing"]


def test_a_form_has_the_parameters_of_every_job_type() -> None:
    for job, model in JOB_MODELS.items():
        name = form_fields(model)[-1]
        value = field_facts(model, name).default
        given = {"jobs": {job: {name: value}, f"{job}__2": {name: value}}}
        assert schema_refuses(given) == ""
        expected = {f"jobs.{node}.{name}": value for node in given["jobs"] if value is not None}
        assert overrides_of(ProcessChanges.model_validate(given)) == expected
    assert list(ALL_JOBS[:4]) == list(DEFAULT_JOBS) and set(ALL_JOBS) == set(JOB_MODELS)


@pytest.mark.parametrize("name", ["tsAlignment__1", "tsAlignment__", "alignment", "class3d__x"])
def test_only_jobs_that_can_be_have_parameters(name: str) -> None:
    given: dict[str, Any] = {"jobs": {name: {}}}
    assert name in schema_refuses(given)
    with pytest.raises(ValueError, match=name):
        ProcessChanges.model_validate(given)
    assert name in schema_refuses(None, jobs=[name])


@functools.cache
def schema_of_process_project() -> dict[str, Any]:
    return parameter_schema(process_project.fn).model_dump()


def schema_refuses(changes: dict[str, Any] | None, **more: Any) -> str:
    """What Prefect's server says to these parameters; "" if it takes them."""
    given = {"project_dir": "/p", **({"parameters": changes} if changes else {}), **more}
    error = best_match(validate(given, schema_of_process_project()))
    return f"{error.json_path}: {error.message}" if error is not None else ""


SHAPES: dict[str, tuple[list[Any], list[Any]]] = {
    "fsMotionAndCtf.m_range_min_max": (
        ["500:10", " 30 : 6.5", "1e2:.5", "+30:6."],
        ["500-10", "500", "0:5", "-5:3", "a:b", "3:0.0"],
    ),
    "fsMotionAndCtf.c_defocus_min_max": (["1.1:8"], ["1.1", "1_1:8", "inf:2", ""]),
    "fsMotionAndCtf.m_grid": (["1x1x3", "2X2 x 1"], ["1x1", "1x1x0", "1x1x3x1", "axbxc"]),
    "reconstructTomograms.tomo_dimensions": (["4096x4096x2048"], ["4096,4096,2048"]),
    "templateMatching.bandpass_filter": (["20:500"], ["20-500"]),
    "templateMatching.gpu_split": (["auto", "2:2:1", "2x2 1"], ["2:2", "0:1:1", "all"]),
    "class3d.symmetry": (["C1", "d7", "O", "I2", "Ci", "c2v"], ["X1", "C0", "C", "I9", ""]),
    "refine3d.relax_symmetry": (["", "C2"], ["Z2"]),
    "ctfFind.box_px": ([512], [511]),
    "subtomoExtraction.crop_size": ([-1, 16, 224], [0, 14, 225]),
    "membraneSegmentation.sliding_window_size_px": ([160], [161]),
    "importmovies.do_at_most": ([-1, 1], [0]),
    "tiltFilter.classifier_command": (["run it"], [" "]),
}  # fmt: skip


@pytest.mark.parametrize("path", SHAPES)
def test_the_schema_and_the_models_refuse_the_same_shapes(path: str) -> None:
    job, name = path.split(".")
    good, bad = SHAPES[path]
    for value in good:
        assert schema_refuses({"jobs": {job: {name: value}}}) == ""
        JOB_MODELS[job].model_validate({name: value})
    for value in bad:
        assert f"jobs.{job}.{name}" in schema_refuses({"jobs": {job: {name: value}}}), value
        with pytest.raises(ValueError, match=name):
            JOB_MODELS[job].model_validate({name: value})


def test_only_what_is_set_becomes_an_override() -> None:
    form = parameter_changes("SomeChanges", ["tsAlignment"])

    changes = form.model_validate(
        {"microscope": {"pixel_size_angstrom": 2, "amplitude_contrast": None},
         "jobs": {"tsAlignment": {"dark_threshold": 0}}}
    )  # fmt: skip

    assert overrides_of(changes) == {
        "microscope.pixel_size_angstrom": 2.0,
        "jobs.tsAlignment.dark_threshold": 0,
    }
    assert overrides_of(None) == {} == overrides_of(form())
    assert overrides_of({"microscope.pixel_size_angstrom": 2}) == {
        "microscope.pixel_size_angstrom": 2
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"microscope": {"pixel_size_angstrom": 0.1}},
        {"microscope": {"pixel_size_angstrom": True}},
        {"acquisition": {"detector_dimensions_px": "4096"}},
        {"jobs": {"fsMotionAndCtf": {"c_range_min_max": "6:30"}}},
        {"jobs": {"tsAlignment": {}}},
    ],
)
def test_a_form_refuses_what_the_models_refuse(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        parameter_changes("SomeChanges", ["fsMotionAndCtf"]).model_validate(changes)


def test_a_disk_is_reported_in_gb(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    disk, gone = disks_of([tmp_path, tmp_path / "nowhere", inside])  # a disk once

    row, missing = disk_rows([disk, gone])

    assert gone.missing and missing["directory"] == f"{tmp_path / 'nowhere'} (missing)"
    assert 0 <= disk.free <= disk.total
    assert row["directory"] == str(tmp_path)
    assert row["size GB"] == pytest.approx(disk.total / 1e9, abs=0.06)


@pytest.mark.prefect
@pytest.mark.slow
def test_deploying_twice_makes_each_deployment_once(server: LocalServer, deployed: str) -> None:
    found = deployments(server)

    assert set(found) == DEPLOYED
    assert all(one["enforce_parameter_schema"] for one in found.values())
    upkeep = {"ingest/headnode", "plan-project/headnode", "housekeeping/headnode"}
    queues = {name: one["work_queue_name"] for name, one in found.items()}
    assert queues == {name: "upkeep" if name in upkeep else "headnode" for name in DEPLOYED}
    queues = post(server, "/work_pools/headnode/queues/filter", {}).json()
    limited = {one["name"]: (one["priority"], one["concurrency_limit"]) for one in queues}
    assert limited["upkeep"] == (1, None)  # these never wait for those
    assert limited["headnode"] == (2, 4)
    assert all("crboost" in one["tags"] and one["description"] for one in found.values())
    assert [one["active"] for one in found["housekeeping/headnode"]["schedules"]] == [False]
    assert [one["active"] for one in found["ingest/headnode"]["schedules"]] == [True]
    automations = post(server, "/automations/filter", {}).json()
    (trigger,) = (
        one["trigger"] for one in automations if "crboost.tilt-series.arrived" in str(one)
    )
    assert trigger["for_each"] == ["prefect.resource.id"]
    limits = {name: one["global_concurrency_limit"]["limit"] for name, one in found.items()}
    assert limits["housekeeping/headnode"] == 1
    assert limits["process-project/headnode"] == 12


@pytest.mark.prefect
@pytest.mark.slow
def test_a_checkout_deploys_the_same_from_its_root(server: LocalServer, deployed: str) -> None:
    """`prefect.yaml` at the root is the file of the package."""

    def facts() -> dict[str, Any]:
        kept = ("id", "entrypoint", "tags", "work_queue_name", "parameter_openapi_schema")
        return {name: [one[key] for key in kept] for name, one in deployments(server).items()}

    before = facts()
    for _ in range(2):
        made = command(server, "-m", "prefect", "--no-prompt", "deploy", "--all", cwd=ROOT)
        assert made.returncode == 0, made.stdout + made.stderr
        assert facts() == before
    automations = post(server, "/automations/filter", {}).json()
    assert len([one for one in automations if "crboost.tilt-series.arrived" in str(one)]) == 1


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({}, "project_dir"),
        ({"project_dir": "relative"}, "relative"),
        ({"project_dir": "/p", "jobs": ["fsMotionAndCTF"]}, "fsMotionAndCTF"),
        ({"project_dir": "/p", "mode": "again"}, "again"),
        ({"project_dir": "/p", "parameters": {"microscope": {"pixel_size_angstrom": 0.1}}}, "0.1"),
        ({"project_dir": "/p", "parameters": {"microscope": {"pixel_size": 1}}}, "pixel_size"),
        (
            {"project_dir": "/p", "parameters": {"jobs": {"tsAlignment": {"dark_threshold": 1.5}}}},
            "1.5",
        ),
        (
            {"project_dir": "/p", "parameters": {"jobs": {"fsMotionAndCtf": {"m_grid": "1x3"}}}},
            "m_grid",
        ),
        (
            {"project_dir": "/p", "parameters": {"jobs": {"refine3d": {"symmetry": "X1"}}}},
            "refine3d.symmetry",
        ),
        (
            {"project_dir": "/p", "parameters": {"jobs": {"class3d__2": {"symmetry": "X1"}}}},
            "class3d__2.symmetry",
        ),
        ({"project_dir": "/p", "jobs": ["tsAlignment__1"]}, "tsAlignment__1"),
    ],
)
def test_the_server_refuses_before_a_run_exists(
    server: LocalServer, deployed: str, parameters: dict[str, Any], word: str
) -> None:
    deployment = deployments(server)["process-project/headnode"]["id"]

    answer = post(server, f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})

    assert answer.status_code in (409, 422)
    assert word in answer.text
    assert post(server, "/flow_runs/count", {"deployments": {"id": {"any_": [deployment]}}}).json(
    ) == 0  # fmt: skip
