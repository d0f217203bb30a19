"""The embedded walker against RELION 5.1: the same schemes in, the same files out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from relion_golden import EXTRAS, GOLDEN, assert_like_golden, mask_times

from crboost.errors import CrboostError, SchemerError
from crboost.relion.job import external_job, read_job, write_job
from crboost.relion.ledger import Status, read_ledger
from crboost.relion.markers import Marker, read_marker
from crboost.relion.scheme import (
    JobMode,
    Operator,
    Scheme,
    SchemeEdge,
    SchemeJob,
    Variable,
    make_linear_scheme,
    read_scheme,
    scheme_dir,
    write_scheme,
)
from crboost.relion.schemer import verbs
from crboost.relion.schemer.walker import Outcome, Walker, WalkerOptions

MakeProject = Callable[[str], Path]


class Run:
    """A walker's options, and what it printed."""

    def __init__(self, environ: dict[str, str], **changes: object) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.options = WalkerOptions(
            environ=environ, say=self.lines.append, warn=self.warnings.append, poll_s=2.0
        )
        self.options = replace(self.options, **changes)  # type: ignore[arg-type]

    def __call__(self, project_dir: Path, scheme_name: str = "x") -> Outcome:
        return Walker(project_dir, scheme_name, self.options).run()

    @property
    def text(self) -> str:
        return mask_times("\n".join(self.lines) + "\n")


def golden_stdout(scenario: str) -> str:
    text = (GOLDEN / scenario / "schemer.stdout").read_text()
    return mask_times(text.partition("\nreal")[0])


def test_success(project: MakeProject, environ: dict[str, str]) -> None:
    run, directory = Run(environ), project("external_local")
    assert run(directory) is Outcome.FINISHED
    assert_like_golden(directory, "external_local")
    job = directory / "External/job002"
    assert (job / "run.out").read_text().startswith("argv: --o External/job002/ --in_movies")
    assert (job / "run.err").read_text() == "to stderr\n"
    assert (directory / ".pipeline_has_changed").exists()
    index = directory / ".Nodes/TomogramGroupMetadata/External/job001/out.star"
    assert index.exists()
    assert not list(directory.glob(".relion_lock*"))


def test_failure(project: MakeProject, environ: dict[str, str]) -> None:
    run, directory = Run({**environ, **EXTRAS}), project("scenario_fail_local")
    assert run(directory) is Outcome.JOB_FAILED
    assert_like_golden(directory, "scenario_fail_local")
    assert run.text.strip() == golden_stdout("scenario_fail_local").strip()


def test_queue(project: MakeProject, environ: dict[str, str]) -> None:
    run, directory = Run({**environ, **EXTRAS}), project("external_queue")
    assert run(directory) is Outcome.FINISHED
    assert_like_golden(directory, "external_queue")
    assert run.lines.count("Submitted batch job 25") == 2


def test_queue_without_extras_and_with_a_relion_command(
    project: MakeProject, environ: dict[str, str]
) -> None:
    run, directory = Run(environ), project("external_queue_relion_name")
    assert run(directory) is Outcome.FINISHED
    assert_like_golden(directory, "external_queue_relion_name")


def test_rerun_after_failure_in_place(project: MakeProject, environ: dict[str, str]) -> None:
    run, directory = Run({**environ, **EXTRAS}), project("scenario_fail_queue")
    path = scheme_dir(directory, "x") / "ext2/job.star"
    mended = path.read_text()
    write_job(path, read_job(path).with_options(param1_value="yes"))
    assert run(directory) is Outcome.JOB_FAILED
    path.write_text(mended)
    assert run(directory) is Outcome.FINISHED
    assert_like_golden(directory, "scenario_fail_queue")
    with pytest.raises(SchemerError, match="already at its end"):
        run(directory)
    assert not list(directory.glob(".relion_lock*"))


def test_reset_and_copy(project: MakeProject, environ: dict[str, str]) -> None:
    environ |= EXTRAS
    directory = project("scheme_reset_copy")
    for path in (directory / "Schemes/x2").rglob("*.star"):
        path.unlink()
    assert Run(environ)(directory) is Outcome.JOB_FAILED
    verbs.reset(directory, "x")
    assert read_scheme(directory, "x").current_node == "WAIT"
    assert Run(environ)(directory) is Outcome.JOB_FAILED
    verbs.copy(directory, "x", "x2", environ)
    assert_like_golden(directory, "scheme_reset_copy")


def test_abort(project: MakeProject, environ: dict[str, str]) -> None:
    directory = project("scenario_abort_local")
    run = Run({**environ, **EXTRAS})
    thread = threading.Thread(target=run, args=(directory,))
    thread.start()
    wait_until(lambda: (directory / "External/job001/note.txt").exists())
    said: list[str] = []
    verbs.abort(directory, "x", said.append)
    thread.join(20)
    assert not thread.is_alive()
    assert_like_golden(directory, "scenario_abort_local")
    assert run.text.strip() == golden_stdout("scenario_abort_local").strip()
    assert said[0] == " + Aborting scheme while at: ext1"


def test_two_schemers_in_one_project(project: MakeProject, environ: dict[str, str]) -> None:
    directory = project("two_schemers")
    code = (
        "import sys; from pathlib import Path;"
        "from crboost.relion.schemer.walker import Walker;"
        "print(Walker(Path(sys.argv[1]), sys.argv[2]).run())"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(directory), name],
            env={**environ, **EXTRAS},
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("x", "y")
    ]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert [output.splitlines()[-1] for output in outputs] == ["finished", "finished"]
    ledger = read_ledger(directory)
    assert ledger.counter == 5
    assert [process.name for process in ledger.processes] == [
        f"External/job00{n}/" for n in (1, 2, 3, 4)
    ]
    assert {process.status for process in ledger.processes} == {Status.SUCCEEDED}
    for name in ("x", "y"):
        jobs = read_scheme(directory, name).jobs
        (read,) = ledger.inputs_of(jobs["ext2"].current_name)
        assert read.name == f"{jobs['ext1'].current_name}out.star"


# --- where RELION hangs ------------------------------------------------------------------------


def linear(directory: Path, **scripts: str) -> Path:
    """A project with a linear scheme `run`; each job runs the given shell lines with $o."""
    directory.mkdir(exist_ok=True)
    for node, script in scripts.items():
        path = directory / f"{node}.sh"
        path.write_text(f"#!/bin/bash\no=$2; d=${{o}}RELION_JOB_EXIT_\n{script}\n")
        path.chmod(0o755)
        write_job(scheme_dir(directory, "run") / node / "job.star", external_job(f"./{node}.sh"))
    write_scheme(directory, make_linear_scheme("run", list(scripts)))
    return directory


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 3", "ended with exit code 3 and left no RELION_JOB_EXIT_ file"),
        ("exit 0", "ended with exit code 0 and left no"),
        ("kill -9 $$", "killed by SIGKILL"),
        ("nonsense-command", "ended with exit code 127"),
    ],
)
def test_a_job_that_dies_silently_has_failed(
    tmp_path: Path, environ: dict[str, str], script: str, said: str
) -> None:
    directory = linear(tmp_path / "p", a=script)
    started = time.monotonic()
    assert Run(environ)(directory, "run") is Outcome.JOB_FAILED
    assert time.monotonic() - started < 1.5
    assert said in (directory / "External/job001/run.err").read_text()
    assert read_marker(directory / "External/job001") is Marker.FAILURE
    assert read_ledger(directory).processes[0].status is Status.FAILED


def test_a_refused_submission_has_failed(project: MakeProject, environ: dict[str, str]) -> None:
    directory = project("external_queue")
    path = scheme_dir(directory, "x") / "ext1/job.star"
    write_job(path, read_job(path).with_options(queuename="nope"))
    assert Run(environ)(directory) is Outcome.JOB_FAILED
    text = (directory / "External/job001/run.err").read_text()
    assert "invalid partition specified: nope" in text
    assert "exit code 1" in text


def test_a_submitted_job_that_the_scheduler_lost_has_failed(
    project: MakeProject, environ: dict[str, str]
) -> None:
    directory = project("scenario_silentdeath")
    asked: list[str] = []

    def alive(number: str) -> bool:
        asked.append(number)
        return len(asked) < 2

    run = Run({**environ, **EXTRAS}, poll_s=0.1, submission_poll_s=0.2, submission_alive=alive)
    assert run(directory) is Outcome.JOB_FAILED
    assert asked == ["25", "25"]
    text = (directory / "External/job001/run.err").read_text()
    assert "the scheduler no longer has job 25" in text


def test_the_end_is_noticed_at_once(tmp_path: Path, environ: dict[str, str]) -> None:
    scripts = dict.fromkeys("abcdefgh", "touch ${d}SUCCESS")
    directory = linear(tmp_path / "p", **scripts)
    started = time.monotonic()
    assert Run(environ, poll_s=60.0)(directory, "run") is Outcome.FINISHED
    assert time.monotonic() - started < 4.0  # RELION: at least 8 s


def test_a_job_outlives_the_marker_and_the_next_start_waits(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    script = "echo run >> ${o}runs; touch ${d}FAILURE; sleep 1; echo end >> ${o}runs"
    directory = linear(tmp_path / "p", a=script)
    assert Run(environ)(directory, "run") is Outcome.JOB_FAILED
    assert Run(environ)(directory, "run") is Outcome.JOB_FAILED
    text = (directory / "External/job001/runs").read_text()
    assert text.startswith("run\nend\nrun\n"), "two starts of one job ran at once"


# --- modes, forks, substitution ----------------------------------------------------------------

OK = (
    "touch ${o}out.star; printf 'data_output_nodes\\nloop_\\n_rlnPipeLineNodeName #1\\n"
    "_rlnPipeLineNodeTypeLabel #2\\n%s K.star.relion.x\\n' ${o}out.star"
    " > ${o}RELION_OUTPUT_NODES.star; touch ${d}SUCCESS"
)


@pytest.mark.parametrize(
    ("mode", "jobs", "is_continue"), [(JobMode.CONTINUE, 1, True), (JobMode.NEW, 3, False)]
)
def test_a_loop_in_both_modes(
    tmp_path: Path, environ: dict[str, str], mode: JobMode, jobs: int, is_continue: bool
) -> None:
    directory = linear(tmp_path / "p", a=OK)
    scheme = Scheme(
        "run",
        "a",
        floats={"n": Variable(0.0, 0.0)},
        bools={"enough": Variable(False, False)},
        operators={
            "COUNT": Operator("float=plus", "n", "n", "1"),
            "ENOUGH": Operator("bool=ge", "enough", "n", "3"),
            "EXIT": Operator("exit"),
        },
        jobs={"a": SchemeJob("a", mode)},
        edges=[
            SchemeEdge("a", "COUNT"),
            SchemeEdge("COUNT", "ENOUGH"),
            SchemeEdge("ENOUGH", "a", True, "EXIT", "enough"),
        ],
    )
    write_scheme(directory, scheme)
    run = Run(environ)
    assert run(directory, "run") is Outcome.FINISHED
    ledger = read_ledger(directory)
    assert len(ledger.processes) == jobs
    notes = [(directory / p.name / "note.txt").read_text() for p in ledger.processes]
    assert sum(text.count("Executing new job") for text in notes) == 3
    assert read_job(directory / ledger.processes[-1].name / "job.star").is_continue is is_continue
    after = read_scheme(directory, "run")
    assert after.floats["n"].value == 3
    assert after.bools["enough"].value is True
    assert " + COUNT: n -> 2" in run.lines
    assert " + ENOUGH: enough -> False" in run.lines


def test_variables_and_job_names_are_replaced(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = linear(tmp_path / "p", a=OK, b=OK)
    path = scheme_dir(directory, "run") / "b/job.star"
    job = external_job(
        "./b.sh",
        inputs={"in_mic": "Schemes/run/a/out.star"},
        parameters={"node": "$$who and $$size A", "half": "$$half"},
    )
    write_job(path, job)
    scheme = read_scheme(directory, "run")
    scheme.floats = {"size": Variable(4.0, 4.0), "half": Variable(0.5, 0.5)}
    scheme.strings = {"who": Variable("me", "me")}
    write_scheme(directory, scheme)
    run = Run(environ)
    assert run(directory, "run") is Outcome.FINISHED
    done = read_job(directory / "External/job002/job.star")
    assert done.option("in_mic") == "External/job001/out.star"
    assert done.option("param1_value") == "me and 4 A"
    assert done.option("param2_value") == "0.5"
    assert " + b: Schemes/run/a/out.star -> External/job001/out.star" in run.lines
    assert read_job(path) == job, "the scheme's own job file stays as it is"
    ledger = read_ledger(directory)
    assert [node.name for node in ledger.inputs_of("External/job002/")] == [
        "External/job001/out.star"
    ]
    assert ledger.newest_producer("K.star") is not None


def test_a_file_in_the_schemes_directory_keeps_its_path(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    directory = linear(tmp_path / "p", a=OK)
    (directory / "a.sh").rename(scheme_dir(directory, "run") / "driver")
    path = scheme_dir(directory, "run") / "a/job.star"
    write_job(path, external_job("Schemes/run/driver"))
    assert Run(environ)(directory, "run") is Outcome.FINISHED
    assert list(read_scheme(directory, "run").jobs) == ["a"]


def test_another_schemes_job(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = linear(tmp_path / "p", a=OK)
    assert Run(environ)(directory, "run") is Outcome.FINISHED
    job = external_job("./a.sh", inputs={"in_mic": "Schemes/run/a/out.star"})
    write_job(scheme_dir(directory, "two") / "b/job.star", job)
    write_scheme(directory, make_linear_scheme("two", ["b"]))
    assert Run(environ)(directory, "two") is Outcome.FINISHED
    done = read_job(directory / "External/job002/job.star")
    assert done.option("in_mic") == "External/job001/out.star"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"in_mic": "Schemes/run/b/out.star"}, "the job b has not run yet"),
        ({"param1_label": "x", "param1_value": "$$nobody"}, "there is no variable nobody"),
        ({"fn_exe": ""}, "no fn_exe"),
        ({"do_queue": "Yes", "qsubscript": "missing.sh"}, "cannot read the submission template"),
        ({"in_mic": "nothing.star"}, "its input nothing.star does not exist"),
    ],
)
def test_what_cannot_run_is_refused_before_it_starts(
    tmp_path: Path, environ: dict[str, str], change: dict[str, str], said: str
) -> None:
    directory = linear(tmp_path / "p", a=OK, b=OK)
    path = scheme_dir(directory, "run") / "a/job.star"
    write_job(path, read_job(path).with_options(**change))
    run = Run(environ, input_wait_s=0.01)
    with pytest.raises(SchemerError, match=said):
        run(directory, "run")
    assert not list(directory.glob(".relion_lock*")), "no lock stays behind"
    assert not list(directory.glob("External/*/note.txt")), "nothing was started"


def test_native_jobs_need_relion(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = linear(tmp_path / "p", a=OK)
    path = scheme_dir(directory, "run") / "a/job.star"
    write_job(path, replace(read_job(path), type_label="relion.motioncorr.own"))
    with pytest.raises(SchemerError, match=r"relion\.motioncorr\.own needs RELION"):
        Run(environ)(directory, "run")


def test_a_missing_scheme_and_a_missing_job(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = linear(tmp_path / "p", a=OK)
    with pytest.raises(SchemerError, match="there is no such scheme"):
        Run(environ)(directory, "nope")
    (scheme_dir(directory, "run") / "a/job.star").unlink()
    with pytest.raises(CrboostError, match="has no job file"):
        Run(environ)(directory, "run")


def test_a_job_that_was_numbered_but_not_started_keeps_its_number(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    directory = linear(tmp_path / "p", a=OK)
    path = scheme_dir(directory, "run") / "a/job.star"
    write_job(path, read_job(path).with_options(in_mic="late.star"))
    with pytest.raises(SchemerError):
        Run(environ, input_wait_s=0.01)(directory, "run")
    (directory / "late.star").touch()
    assert Run(environ)(directory, "run") is Outcome.FINISHED
    assert [p.name for p in read_ledger(directory).processes] == ["External/job001/"]


def test_abort_between_jobs(tmp_path: Path, environ: dict[str, str]) -> None:
    abort = "touch Schemes/run/RELION_JOB_ABORT_NOW; "
    directory = linear(tmp_path / "p", a=abort + OK, b=OK)
    assert Run(environ)(directory, "run") is Outcome.ABORTED
    assert len(read_ledger(directory).processes) == 1
    assert read_scheme(directory, "run").current_node == "b"
    path = directory / "a.sh"
    path.write_text(path.read_text().replace(abort, ""))
    assert Run(environ)(directory, "run") is Outcome.FINISHED
    assert len(read_ledger(directory).processes) == 2


def test_jobs_survive_the_schemer(tmp_path: Path, environ: dict[str, str]) -> None:
    directory = linear(tmp_path / "p", a="sleep 0.6; " + OK)
    code = (
        "import sys; from pathlib import Path;"
        "from crboost.relion.schemer.walker import Walker;"
        "Walker(Path(sys.argv[1]), 'run').run()"
    )
    walker = subprocess.Popen([sys.executable, "-c", code, str(directory)], env=environ)
    wait_until(lambda: (directory / "External/job001/note.txt").exists())
    os.kill(walker.pid, signal.SIGKILL)
    walker.wait()
    assert read_marker(directory / "External/job001") is None
    wait_until(lambda: read_marker(directory / "External/job001") is Marker.SUCCESS)
    assert read_ledger(directory).processes[0].status is Status.RUNNING
    assert read_scheme(directory, "run").jobs["a"].has_started
