"""From the microscope to tomograms without any human act: real server, worker and watcher."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from ingest_bench import ENDED, Service, end_what_is_left, service, until

from crboost.acquisition.microscope_simulation import Mishaps, Pace, run, schedule
from crboost.cpu.example_data import make_example_data
from crboost.project import Project
from crboost.results import read_results
from crboost.session import served_sessions
from crboost.turn import holder, waiting
from flows.stale_runs import flow_processes

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

# A whole run of two tilt series takes some ten seconds on two cores.
ENOUGH = 600.0
PACE = Pace(tilt_seconds=10, series_seconds=20, write_seconds=8, pieces=3)
JOBS = ("External/job001", "External/job002", "External/job003", "External/job004")
LAST = JOBS[-1]
NODES = ("importmovies", "fsMotionAndCtf", "tsAlignment", "tsReconstruct")

_INTERPRETER = """\
#!/bin/bash
# The compute node's Python; notes which job starts when.
arguments=("$@")
if [ "$4" = job ] && [ "$5" = run ]; then
  while [ $# -gt 0 ]; do
    case "$1" in --o) job="${{2%/}}" ;; --node) node="$2" ;; esac
    shift
  done
  echo "$node" >> starts.txt
  if [ -f "behaviour/$node.sh" ]; then . "behaviour/$node.sh"; fi
fi
exec {python} "${{arguments[@]}}"
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tilt series of nine tilts; two of them are copies of the first."""
    directory = tmp_path_factory.mktemp("recorded")
    made = make_example_data(
        directory, series=1, size_px=256, frames=2, tilt_range_deg=40, tilt_step_deg=10,
        defects=False,
    )  # fmt: skip
    (first,) = made.series
    for name in ("TS_02", "TS_03"):
        text = first.mdoc.read_text().replace(first.name, name)
        (directory / f"{name}.mdoc").write_text(text)
        for movie in first.movies:
            movie.with_name(movie.name.replace(first.name, name)).write_bytes(movie.read_bytes())
    return directory


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("site")
    interpreter = directory / "interpreter"
    interpreter.write_text(_INTERPRETER.format(python=sys.executable))
    interpreter.chmod(interpreter.stat().st_mode | stat.S_IXUSR)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRBOOST_SETTINGS", str(directory / "settings.toml"))
        (directory / "settings.toml").touch()
        with service(directory, interpreter) as made:
            made.start_worker()
            made.start_watcher()
            yield made


def microscope(
    recorded: Path, data: Path, *series: str, mishaps: Mishaps | None = None, speed: float = 100.0
) -> Thread:
    """Write tilt series as a microscope would."""
    mdocs = [recorded / f"{name}.mdoc" for name in series]
    actions = schedule(mdocs, recorded / "frames", PACE, mishaps)
    thread = Thread(target=run, args=(actions, data), kwargs={"speed": speed})
    thread.start()
    return thread


def done(project: Project, job: str = LAST) -> set[str]:
    """The tilt series that a job has done."""
    found = read_results(project.directory / job)
    return {name for name, one in found.items() if one.status == "done"}


def started(project: Project, job: str) -> dict[str, str]:
    """When each tilt series of a job was worked on."""
    return {name: one.started for name, one in read_results(project.directory / job).items()}


def starts(project: Project) -> list[str]:
    path = project.directory / "starts.txt"
    return path.read_text().split() if path.exists() else []


def behave(project: Project, node: str, script: str) -> None:
    """Have a job do a shell script before the driver; with `exit`, in its place."""
    path = project.directory / "behaviour" / f"{node}.sh"
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)


def at_rest(site: Service, project: Project) -> bool:
    """Whether nothing of a project is at work or about to be."""
    runs = site.flow_runs("process-project", project.directory)
    ended = all(run["state"]["type"] in ENDED for run in runs)
    return ended and holder(project.directory) is None


def runs_of(site: Service, project: Project) -> list[dict[str, Any]]:
    return site.flow_runs("process-project", project.directory)


def settle(site: Service, project: Project, series: set[str], job: str = LAST) -> None:
    """Wait until all these series are through, and nothing is at work."""
    until(
        lambda: done(project, job) == series and at_rest(site, project), ENOUGH,
        f"{done(project, job)} {[run['state'] for run in runs_of(site, project)]}",
    )  # fmt: skip


def test_a_burst_is_one_run_and_a_late_movie_redoes_its_series_in_the_same_jobs(
    site: Service, recorded: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    project = site.start_session(tmp_path / "project", data, batch_seconds=6.0)
    late = sorted((recorded / "frames").glob("TS_01*"))[4]

    lost = Mishaps({}, frozenset({late.name}), {})
    microscope(recorded, data, "TS_01", "TS_02", mishaps=lost).join()
    settle(site, project, {"TS_01", "TS_02"})

    assert len(runs_of(site, project)) == 1
    (arrived,) = site.events("crboost.tilt-series.arrived", project.directory)
    assert arrived["payload"]["names"] == ["TS_01", "TS_02"]
    (partial,) = site.events("crboost.tilt-series.partial", project.directory)
    assert partial["payload"]["missing"] == [late.name]
    assert partial["resource"]["prefect.resource.name"] == "project"
    assert len(site.events("crboost.session.started", project.directory)) == 1
    imported = read_results(project.directory / JOBS[0])["TS_01"]
    assert any(late.name in warning for warning in imported.warnings)
    assert starts(project) == list(NODES)
    before = {job: started(project, job) for job in JOBS}

    time.sleep(1.1)  # results tell whole seconds
    (data / "frames" / late.name).write_bytes(late.read_bytes())
    until(lambda: len(runs_of(site, project)) == 2, ENOUGH)
    settle(site, project, {"TS_01", "TS_02"})

    assert len(site.events("crboost.tilt-series.reopened", project.directory)) == 1
    assert starts(project) == list(NODES) * 2
    assert sorted(path.name for path in project.directory.glob("External/job*")) == [
        Path(job).name for job in JOBS
    ]
    for job in JOBS:
        after = started(project, job)
        assert after["TS_02"] == before[job]["TS_02"], job
        assert after["TS_01"] > before[job]["TS_01"], job
        assert read_results(project.directory / job)["TS_01"].status == "done"
    assert read_results(project.directory / LAST)["TS_01"].metrics["tilts"] == 9

    # The end is told when the last series are in; then nothing is left to do for the schedule,
    # which forgets the session.
    site.end_session(project)
    until(lambda: site.events("crboost.session.finished", project.directory))
    (finished,) = site.events("crboost.session.finished", project.directory)
    assert (finished["payload"]["complete"], finished["payload"]["left_out"]) == (2, [])
    known = served_sessions(site.settings.service.directory)
    assert [one.project for one in known] == [project.directory]
    ended = site.run("ingest", project_dir=str(project.directory))
    assert ended["state"]["message"] == "1 sessions, nothing to start"
    assert served_sessions(site.settings.service.directory) == []


def test_parameters_changed_in_mid_session_make_new_jobs_which_later_data_go_to(
    site: Service, recorded: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    project = site.start_session(tmp_path / "project", data)
    microscope(recorded, data, "TS_01").join()
    settle(site, project, {"TS_01"})

    project.set_values({"jobs.tsAlignment.dark_threshold": 0.2})
    microscope(recorded, data, "TS_02").join()
    settle(site, project, {"TS_01", "TS_02"}, "External/job006")
    microscope(recorded, data, "TS_03").join()
    settle(site, project, {"TS_01", "TS_02", "TS_03"}, "External/job006")

    assert done(project, "External/job003") == done(project, LAST) == {"TS_01"}
    assert set(started(project, "External/job002")) == {"TS_01", "TS_02", "TS_03"}
    assert set(started(project, "External/job005")) == {"TS_01", "TS_02", "TS_03"}
    assert not (project.directory / "External/job007").exists()
    site.end_session(project)


def test_what_comes_while_the_server_is_away_is_told_when_it_is_back(
    site: Service, recorded: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    # The run has the jobs of the session.
    project = site.start_session(tmp_path / "project", data, jobs=["importmovies"])
    until(lambda: site.events("crboost.session.started", project.directory))

    site.kill("server")
    microscope(recorded, data, "TS_01").join()
    until(lambda: "could not be dealt with" in site.log("watcher"))
    assert (project.directory / "mdoc/TS_01.mdoc").exists()
    site.start_server()

    settle(site, project, {"TS_01"}, JOBS[0])
    assert len(site.events("crboost.tilt-series.complete", project.directory)) == 1
    assert starts(project) == ["importmovies"]
    site.end_session(project)


DYING = """
import os, sys, signal
import flows.session_watch as session_watch, flows.watcher as watcher
name = sys.argv.pop(1)
def dying(*args, **more):
    result = original(*args, **more)
    if name == "take_in" or any(one.name.endswith("arrived") for one in args[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return result
original = getattr(session_watch, name)
setattr(session_watch, name, dying)
sys.exit(watcher.main())
"""


@pytest.mark.parametrize("after", ["take_in", "send"])
def test_a_watcher_that_is_killed_tells_the_same_again(
    site: Service, recorded: Path, tmp_path: Path, after: str
) -> None:
    data = tmp_path / "data"
    site.kill("watcher")
    project = site.start_session(tmp_path / "project", data, jobs=["importmovies"])
    dying = site.start("watcher", "-c", DYING, after)
    microscope(recorded, data, "TS_01").join()
    dying.wait(timeout=60)
    assert dying.returncode == -signal.SIGKILL
    assert (project.directory / "mdoc/TS_01.mdoc").exists()
    pending = json.loads((project.directory / ".crboost/arrivals.json").read_text())["pending"]
    assert [one["name"] for one in pending] == ["TS_01"]

    site.start_watcher()

    state = project.directory / ".crboost/arrivals.json"
    until(lambda: json.loads(state.read_text())["pending"] == [])
    settle(site, project, {"TS_01"}, JOBS[0])
    assert len(site.events("crboost.tilt-series.complete", project.directory)) == 1
    assert len(site.events("crboost.tilt-series.arrived", project.directory)) == 1
    assert starts(project) == ["importmovies"]
    site.end_session(project)


def test_projects_go_side_by_side_and_runs_of_one_project_one_after_the_other(
    site: Service, recorded: Path, tmp_path: Path
) -> None:
    one, two = (site.start_session(tmp_path / name, tmp_path / f"{name}-data")
                for name in ("one", "two"))  # fmt: skip
    behave(one, "fsMotionAndCtf", "while [ ! -e go ]; do sleep 0.2; done\n")
    microscope(recorded, tmp_path / "one-data", "TS_01").join()
    until(lambda: starts(one) == list(NODES[:2]), ENOUGH)

    microscope(recorded, tmp_path / "two-data", "TS_01").join()
    microscope(recorded, tmp_path / "one-data", "TS_02").join()
    settle(site, two, {"TS_01"})
    assert starts(one) == list(NODES[:2])
    until(lambda: len(runs_of(site, one)) == 2)
    until(lambda: runs_of(site, one)[1]["state"]["name"] == "Waiting")
    first, second = runs_of(site, one)
    assert second["state"]["message"].startswith(f"for one ({first['id'][:8]})")

    # A third one would find nothing that the second does not.
    third = site.run(
        "process-project", project_dir=str(one.directory), mode="continue", retry_failed=False
    )
    assert third["state"]["type"] == "COMPLETED"
    waits = f"one ({second['id'][:8]}) is waiting and will take it; "
    assert third["state"]["message"].startswith(waits)
    # One that sets a parameter waits on its own account, and can be cancelled.
    own = site.create_run(
        "process-project", project_dir=str(one.directory), mode="continue",
        parameters={"jobs": {"tsAlignment": {"dark_threshold": 0.1}}},
    )  # fmt: skip
    until(lambda: site.flow_run(own)["state"]["name"] == "Waiting")
    # Two wait: further ones do so without a process and a slot, and come back.
    later = site.create_run("process-project", project_dir=str(one.directory), mode="continue")
    until(lambda: site.flow_run(later)["state"]["name"] == "Waiting")
    state = site.flow_run(later)["state"]
    assert state["type"] == "SCHEDULED"
    assert state["message"].startswith("2 runs wait for this project already; this one comes back")
    assert state["state_details"]["scheduled_time"] > state["timestamp"]
    assert [claim.id for claim in waiting(one.directory)] == [second["id"], own]
    until(lambda: later not in flow_processes(site.environment["PREFECT_API_URL"]), 30)
    site.cancel(own)
    until(lambda: site.flow_run(own)["state"]["type"] == "CANCELLED")

    site.post(f"/flow_runs/{later}/set_state", {"state": {"type": "SCHEDULED"}})  # now
    until(lambda: site.flow_run(later)["state"]["type"] == "RUNNING")
    (one.directory / "go").touch()
    settle(site, one, {"TS_01", "TS_02"})
    assert starts(one) == list(NODES) * 2
    until(lambda: site.flow_run(later)["state"]["message"] == "everything is up to date")
    assert one.parameters().value("jobs.tsAlignment.dark_threshold") != 0.1
    for project in (one, two):
        site.end_session(project)


def test_ingest_goes_on_after_the_machine_has_died_and_nothing_runs_twice(
    site: Service, recorded: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    project = site.start_session(tmp_path / "project", data, batch_seconds=6.0)
    behave(project, "tsAlignment", "while [ ! -e go ]; do sleep 0.2; done\n")
    microscope(recorded, data, "TS_01", "TS_02").join()
    until(lambda: starts(project) == list(NODES[:3]), ENOUGH)
    before = {job: started(project, job) for job in JOBS[:2]}

    site.kill("worker")
    flow_run = holder(project.directory)
    assert flow_run is not None
    os.kill(flow_run.pid, signal.SIGKILL)
    end_what_is_left(project.directory)  # schemer and driver
    until(lambda: holder(project.directory) is None, 60)
    (project.directory / "go").touch()
    site.start_worker()

    until(
        lambda: "started: " in site.run("ingest", project_dir=str(project.directory))["state"][
            "message"
        ],
        ENOUGH,
    )  # fmt: skip
    until(lambda: done(project) == {"TS_01", "TS_02"} and holder(project.directory) is None, ENOUGH)
    assert {job: started(project, job) for job in JOBS[:2]} == before
    assert starts(project) == [*NODES[:3], *NODES[2:]]
    site.end_session(project)


def test_ingest_does_without_a_watcher_and_leaves_alone_what_fails_again_and_again(
    site: Service, recorded: Path, tmp_path: Path
) -> None:
    site.kill("watcher")
    try:
        project = site.start_session(tmp_path / "project", tmp_path / "data")
        where = str(project.directory)
        behave(
            project,
            "tsAlignment",
            'echo \'{"kind": "bad_input", "message": "every tilt is dark"}\' '
            "> $job/failure.json\ntouch $job/RELION_JOB_EXIT_FAILURE\nexit 1\n",
        )
        microscope(recorded, tmp_path / "data", "TS_01").join()
        until(lambda: site.run("ingest", project_dir=where) and runs_of(site, project), ENOUGH)
        until(lambda: runs_of(site, project)[-1]["state"]["type"] == "FAILED", ENOUGH)
        assert starts(project) == list(NODES[:3])

        for _ in range(2):
            said = site.run("ingest", project_dir=where)["state"]["message"]
            assert said == "1 sessions, nothing to start"
        assert len(runs_of(site, project)) == 1

        (project.directory / "behaviour/tsAlignment.sh").unlink()
        project.set_values({"jobs.tsAlignment.dark_threshold": 0.2})
        said = site.run("ingest", project_dir=where)["state"]["message"]
        assert said.startswith("1 sessions, started: project (")
        until(lambda: at_rest(site, project), ENOUGH)
        assert runs_of(site, project)[-1]["state"]["type"] == "COMPLETED"

        (tmp_path / "data").rename(tmp_path / "unmounted")
        ended = site.run("ingest", project_dir=where)
        assert ended["state"]["type"] == "FAILED"
        assert "data is not a directory" in ended["state"]["message"]
        (tmp_path / "unmounted").rename(tmp_path / "data")
        site.end_session(project)
    finally:
        site.start_watcher()


def test_too_many_failed_series_are_told_once_for_each_growth(
    site: Service, recorded: Path, tmp_path: Path
) -> None:
    from prefect import settings

    from flows.afterwards import tell_failures

    project = site.start_session(
        tmp_path / "project", tmp_path / "data", jobs=["importmovies"], failed_series_threshold=1
    )
    microscope(recorded, tmp_path / "data", "TS_01", "TS_02", "TS_03").join()
    settle(site, project, {"TS_01", "TS_02", "TS_03"}, JOBS[0])
    access = {
        settings.PREFECT_API_URL: site.environment["PREFECT_API_URL"],
        settings.PREFECT_API_AUTH_STRING: site.environment["PREFECT_API_AUTH_STRING"],
    }
    told = []
    with settings.temporary_settings(access):
        for name in ("", "TS_02", "TS_02", "TS_03"):
            if name:
                path = project.directory / JOBS[0] / "results" / f"{name}.json"
                path.write_text(path.read_text().replace('"done"', '"failed"'))
            tell_failures(project)

            def events() -> list[Any]:
                found = site.events("crboost.tilt-series.failed-too-many", project.directory)
                return [one["payload"]["names"] for one in found]

            if name:
                until(events)
                time.sleep(1)
            told.append(len(events()))
    assert told[:3] == [0, 1, 1]
    until(lambda: events() == [["TS_02"], ["TS_02", "TS_03"]])
    site.end_session(project)
