"""The coordinator of an array: what it decides, and what it makes of files and Slurm's answers.

On a real Slurm: tests/cluster/test_cluster_array.py. Here Slurm's answers are written by hand.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crboost.array_directory import (
    Batch,
    batches_of,
    new_batch,
    new_round,
    read_round,
    series_lock,
    submission_environment,
    task_script,
    void_batch,
    write_round,
)
from crboost.array_driver import (
    Coordinator,
    end_leftover_tasks,
    grouped,
    judge,
    task_command,
    tasks_to_cancel,
)
from crboost.driver import Aborted, Request
from crboost.errors import CrboostError
from crboost.failure import Failure
from crboost.files import write_json, write_text
from crboost.relion.markers import request_abort
from crboost.resources import resource_directory
from crboost.results import SeriesResult, read_results, write_result
from crboost.scheduler.array import ArraySpec
from crboost.scheduler.ask import Answer
from crboost.scheduler.resources import Resources
from crboost.scheduler.slurm_text import SACCT_FIELDS
from crboost.scheduler.template import Filling, fill_template
from crboost.settings import SchedulerSettings, Settings

JOB = "External/job003"
SITE = SchedulerSettings(kind="slurm", max_memory_gb=16, max_time_limit_minutes=100)
ASKED = Resources(cpus=2, memory_gb=8, time_limit_minutes=60)
FINGERPRINTS = {"TS_01": "a", "TS_02": "b", "TS_03": "c"}


# --- deciding ------------------------------------------------------------------------------------


class TestJudge:
    def verdict(self, kind: str, tries: int = 1, asked: Resources = ASKED) -> object:
        failure = Failure(kind, "why\nmore")  # type: ignore[arg-type]
        return judge(failure, asked, tries=tries, retries=1, scheduler=SITE)

    @pytest.mark.parametrize(
        ("kind", "memory_gb", "minutes"), [("out_of_memory", 16, 60), ("time_limit", 8, 100)]
    )
    def test_a_limit_is_raised(self, kind: str, memory_gb: int, minutes: int) -> None:
        again = self.verdict(kind).again  # type: ignore[attr-defined]
        assert (again.memory_gb, again.time_limit_minutes) == (memory_gb, minutes)

    @pytest.mark.parametrize("kind", ["node_failure", "preempted", "killed"])
    def test_bad_luck_is_tried_again_as_it_was(self, kind: str) -> None:
        assert self.verdict(kind).again == ASKED  # type: ignore[attr-defined]
        last = self.verdict(kind, tries=2)
        assert (last.again, last.redo, last.words) == (None, True, "why")  # type: ignore[attr-defined]

    @pytest.mark.parametrize("kind", ["tool_error", "bad_input", "bug", "no_space"])
    def test_what_would_fail_again_is_not_tried(self, kind: str) -> None:
        verdict = self.verdict(kind)
        assert (verdict.again, verdict.redo) == (None, False)  # type: ignore[attr-defined]

    def test_somebodys_scancel_is_respected_once(self) -> None:
        verdict = self.verdict("aborted")
        assert (verdict.again, verdict.redo) == (None, True)  # type: ignore[attr-defined]

    def test_the_site_allows_no_more(self) -> None:
        verdict = self.verdict("out_of_memory", asked=Resources(memory_gb=16))
        assert verdict.again is None  # type: ignore[attr-defined]
        assert verdict.words == "why; the site allows no more"  # type: ignore[attr-defined]
        assert not verdict.redo  # type: ignore[attr-defined]


def test_tasks_on_what_has_changed_are_cancelled() -> None:
    batch = Batch("1", 1, [["TS_01", "TS_02"], ["TS_03"]], FINGERPRINTS, ASKED)
    assert tasks_to_cancel(batch, FINGERPRINTS) == set()
    assert tasks_to_cancel(batch, {"TS_03": "c"}) == set()  # the others are done
    assert tasks_to_cancel(batch, {**FINGERPRINTS, "TS_02": "new"}) == {0}


def test_series_of_tasks() -> None:
    assert grouped(["a", "b", "c"], 2) == [["a", "b"], ["c"]]


def test_the_shell_line_of_a_task(tmp_path: Path) -> None:
    line = task_command(request_in(tmp_path), "/soft ware/python", f"{JOB}/tasks/1", 4)
    assert line == (
        "'/soft ware/python' -P -m crboost job series "
        "--snapshot Schemes/run_1/project_params.json --o External/job003/ --node tsAlignment "
        "--fingerprint f00 --in_mics External/job002/tilt_series_ctf.star "
        "--in_3dref maps/a.mrc --j 4 --batch External/job003/tasks/1"
    )


def test_a_jobs_own_environment_is_not_the_tasks() -> None:
    inside = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "5", "SBATCH_ACCOUNT": "x", "HOME": "/h",
              "SLURM_CONF": "/c", "SBATCH_EXPORT": "ALL"}  # fmt: skip
    assert submission_environment(inside) == {
        "HOME": "/h",
        "SLURM_CONF": "/c",
        "SBATCH_EXPORT": "NONE",
    }


def test_the_script_is_made_of_the_sites_template() -> None:
    """With its own lines; each task has its own directory, which is no file name to Slurm."""
    settings = Settings.model_validate({"scheduler": {"kind": "slurm"}})
    text = (resource_directory("qsub") / "slurm_cpu.sh").read_text()
    text = text.replace("#SBATCH --no-requeue", "#SBATCH --no-requeue\n#SBATCH --account=em")
    extras = ["cpu", "", "1", "1", "2", "", "8G", "01:00:00"]
    template = fill_template(text, Filling(extras=extras))
    asked = Resources(cpus=2, memory_gb=8, time_limit_minutes=60, partition="cpu")
    batch = Batch("1", 1, [["TS_01"], ["TS_02"]], {"TS_01": "a", "TS_02": "b"}, asked)
    spec = ArraySpec(5, 1, 2, ASKED)
    script = task_script(template, f"{JOB}/tasks/1", batch, spec, settings, "do it")
    lines = script.split("\n")
    assert lines[:2] == ["#!/bin/bash", "#SBATCH --array=0-1%5"]
    for line in (
        "#SBATCH --account=em",
        "#SBATCH --mem=8G",
        "#SBATCH --cpus-per-task=2",
        f"#SBATCH --output={JOB}/tasks/1/%a/run.out",
        f"job={JOB}/tasks/1/${{SLURM_ARRAY_TASK_ID}}/",
        "do it",
    ):
        assert line in lines
    assert "XXX" not in script.replace("XXX...XXX", "")


# --- doing ---------------------------------------------------------------------------------------


def request_in(project: Path) -> Request:
    return Request(
        project=project,
        job=JOB,
        snapshot=project / "Schemes/run_1/project_params.json",
        node="tsAlignment",
        fingerprint="f00",
        input_star="External/job002/tilt_series_ctf.star",
        workers=4,
        python=sys.executable,
        other_inputs={"in_3dref": "maps/a.mrc"},
    )


def made(name: str, status: str = "done") -> SeriesResult:
    return SeriesResult(
        tilt_series=name,
        status=status,  # type: ignore[arg-type]
        fingerprint=FINGERPRINTS[name],
        input_fingerprint="",
        reason=None if status == "done" else "no beads",
    )


@dataclass
class Controller:
    """Slurm's answers: tasks that are alive, and how the others ended.

    Attributes:
        alive: `array_task` of all that wait or run.
        ended: `array_task` -> sacct's word.
    """

    alive: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    silent: int = 0

    def __call__(self, argv: Sequence[str]) -> Answer:
        if argv[0] == "scancel":
            names = argv[2:]
            self.cancelled += names
            self.alive = {
                one for one in self.alive if one not in names and one.split("_")[0] not in names
            }
            return Answer(0, "", "")
        if argv[0] == "squeue":
            if self.silent:
                self.silent -= 1
                return Answer(1, "", "Unable to contact slurm controller")
            rows = [one.split("_") for one in sorted(self.alive)]
            return Answer(0, "".join(f"{a}_{t}|9{t}|{a}|{t}|RUNNING|None|0:01|1:00|cpu|n1|x\n"
                                     for a, t in rows), "")  # fmt: skip
        if argv[0] == "sacct":
            number = next(one for one in argv if one.startswith("--jobs=")).removeprefix("--jobs=")
            if number in self.ended:
                row = f"{number}|9|x|cpu|{self.ended[number]}|0:9|0:0|None|00:01|01:00|8G||n1|||"
                head = SACCT_FIELDS.replace(",", "|")
                return Answer(0, f"{head}\n{row}|/p\n", "")
            return Answer(0, "", "")
        return Answer(1, "", "slurm_load_jobs error: Invalid job id specified")


@dataclass
class Bench:
    """A job directory, a controller, and an sbatch that only counts."""

    project: Path
    slurm: Controller = field(default_factory=Controller)
    log: list[str] = field(default_factory=list)
    now: float = 0.0

    @property
    def job(self) -> Path:
        return self.project / JOB

    def coordinator(self, series: dict[str, str], run: str = "run_1") -> Coordinator:
        sbatch = self.project / "sbatch"
        write_text(sbatch, '#!/bin/sh\nn=$(cat "$0.n" 2>/dev/null || echo 100)\n'
                   'n=$((n + 1)); echo $n >"$0.n"\n'
                   '[ ! -e "$0.refuse" ] || { cat "$0.refuse"; rm "$0.refuse"; exit 1; }\n'
                   'echo "Submitted batch job $n"\n')  # fmt: skip
        sbatch.chmod(0o755)
        template = ".crboost/runs/run_1/submit_x.tasks.sh"
        write_text(self.project / template, "#!/bin/bash\nXXXcommandXXX\n")
        settings = Settings.model_validate(
            {
                "scheduler": {
                    "kind": "slurm",
                    "submit_command": str(sbatch),
                    "max_memory_gb": 16,
                    "poll_s": 1,
                }
            }
        )
        request = request_in(self.project)
        snapshot = self.project / "Schemes" / run / "project_params.json"
        request = Request(**{**request.__dict__, "snapshot": snapshot})
        return Coordinator(
            request,
            ArraySpec(2, 1, 2, ASKED, template),
            settings,
            series,
            dict.fromkeys(series, "input"),
            1,
            self.log.append,
            ask=self.slurm,
            clock=lambda: self.now,
            sleep=self.sleep,
            max_size=10,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def batch(self, number: int, tasks: list[list[str]], answer: str | None) -> Batch:
        """An array that an earlier driver has submitted, with sbatch's answer."""
        batch = new_batch(self.job, number, tasks, FINGERPRINTS, ASKED)
        if answer is not None:
            head = "scheduler: slurm\ntime: 5\nexit code: 0\nanswer:\n"
            text = f"{head}Submitted batch job {answer}\n"
            write_text(batch.directory(self.job) / "submission.txt", text)
        return batch


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / JOB).mkdir(parents=True)
    return Bench(tmp_path)


def test_an_array_at_work_is_waited_for(bench: Bench) -> None:
    """A driver was killed: the next one submits nothing, and takes what the tasks leave."""
    write_round(bench.job, new_round(bench.job, "run_0", FINGERPRINTS, None))
    bench.batch(1, [["TS_01"], ["TS_02"], ["TS_03"]], "50")
    write_result(bench.job, made("TS_01", "failed"))
    bench.slurm.alive = {"50_1", "50_2"}
    bench.slurm.silent = 2
    coordinator = bench.coordinator(FINGERPRINTS)
    opened = coordinator.begin()
    before = read_round(bench.job)
    assert before is not None
    assert (opened, before.run) == (before.opened, "run_0")

    def finish(seconds: float, ends: float = 20.0) -> None:
        bench.now += seconds
        if bench.now > ends and bench.slurm.alive:
            write_result(bench.job, made("TS_02"))
            write_result(bench.job, made("TS_03"))
            bench.slurm.alive = set()

    coordinator.sleep = finish
    coordinator.work()
    assert len(batches_of(bench.job, 1)) == 1
    closed = read_round(bench.job)
    assert closed is not None
    assert closed.closed == "done"
    assert any("TS_01 failed: no beads" in line for line in bench.log)
    assert any("[3/3]" in line for line in bench.log)


def test_what_failed_long_ago_is_tried_by_another_run(bench: Bench) -> None:
    """Nothing of the old round is alive, and another run asks: its failures count no more."""
    write_round(bench.job, new_round(bench.job, "run_0", FINGERPRINTS, None))
    bench.batch(1, [["TS_01"], ["TS_02"], ["TS_03"]], "50")
    write_result(bench.job, made("TS_01", "failed"))
    coordinator = bench.coordinator({"TS_01": "a"})
    coordinator.begin()

    def finish(seconds: float) -> None:
        bench.now += seconds
        write_result(bench.job, made("TS_01"))

    coordinator.sleep = finish
    coordinator.work()
    (batch,) = batches_of(bench.job, 2)
    assert batch.tasks == [["TS_01"]]
    assert read_results(bench.job)["TS_01"].status == "done"


def test_tasks_on_an_input_that_has_changed_are_cancelled(bench: Bench) -> None:
    write_round(bench.job, new_round(bench.job, "run_0", FINGERPRINTS, None))
    bench.batch(1, [["TS_01"], ["TS_02"], ["TS_03"]], "50")
    bench.slurm.alive = {"50_1", "50_2"}
    coordinator = bench.coordinator({**FINGERPRINTS, "TS_02": "new"})
    coordinator.begin()
    assert bench.slurm.cancelled == ["50_1"]
    now = read_round(bench.job)
    assert now is not None
    assert now.series == {**FINGERPRINTS, "TS_02": "new"}


def test_what_was_never_submitted_is_no_try(bench: Bench) -> None:
    """A driver was killed before sbatch: its batch is none, and Slurm is asked by the script."""
    write_round(bench.job, new_round(bench.job, "run_1", {"TS_01": "a"}, None))
    bench.batch(1, [["TS_01"]], None)
    coordinator = bench.coordinator({"TS_01": "a"})
    coordinator.begin()

    def finish(seconds: float) -> None:
        bench.now += seconds
        write_result(bench.job, made("TS_01"))

    coordinator.sleep = finish
    coordinator.work()
    (batch,) = batches_of(bench.job, 1)
    assert batch.name == "2"


def test_a_lost_task_is_tried_once_more_and_then_has_failed(bench: Bench) -> None:
    bench.slurm.ended = {"101_0": "NODE_FAIL", "102_0": "NODE_FAIL"}
    coordinator = bench.coordinator({"TS_01": "a"})
    coordinator.begin()
    coordinator.work()
    assert [one.name for one in batches_of(bench.job, 1)] == ["1", "2"]
    result = read_results(bench.job)["TS_01"]
    assert (result.status, result.redo) == ("failed", True)
    assert result.reason == (
        f"Slurm job 102_0 (NODE_FAIL) was lost: the node n1 failed (log: {JOB}/tasks/2/0/run.err)"
    )
    assert bench.now >= 30  # a result may be slow to be seen
    assert any("101_0 (NODE_FAIL)" in line and "tried again" in line for line in bench.log)


def test_a_tasks_own_words_count(bench: Bench) -> None:
    """The kernel killed its tool, and the task could say so; Slurm may call that anything."""
    coordinator = bench.coordinator({"TS_01": "a"})
    coordinator.begin()

    def die(seconds: float) -> None:
        bench.now += seconds
        failure = {"kind": "out_of_memory", "message": "TS_01: align was killed for its memory"}
        for batch in batches_of(bench.job, 1):
            write_json(batch.task_directory(bench.job, 0) / "failure.json", failure)

    coordinator.sleep = die
    coordinator.work()
    first, second = batches_of(bench.job, 1)
    assert (first.resources.memory_gb, second.resources.memory_gb) == (8, 16)
    assert str(read_results(bench.job)["TS_01"].reason).startswith("TS_01: align was killed for")


def test_too_many_for_an_association_are_halved(bench: Bench) -> None:
    coordinator = bench.coordinator(FINGERPRINTS)
    said = "sbatch: error: AssocMaxSubmitJobLimit\nJob violates accounting/QOS policy\n"
    write_text(bench.project / "sbatch.refuse", said)
    coordinator.begin()

    def finish(seconds: float) -> None:
        bench.now += seconds
        for batch in batches_of(bench.job, 1):
            for name in batch.series:
                write_result(bench.job, made(name))

    coordinator.sleep = finish
    coordinator.work()
    assert [one.tasks for one in batches_of(bench.job, 1)] == [
        [["TS_01"]],
        [["TS_02"]],
        [["TS_03"]],
    ]


def test_a_refusal_is_told_in_sbatchs_words(bench: Bench) -> None:
    coordinator = bench.coordinator(FINGERPRINTS)
    write_text(bench.project / "sbatch.refuse", "sbatch: error: invalid partition specified: x\n")
    coordinator.begin()
    with pytest.raises(CrboostError, match="invalid partition specified: x"):
        coordinator.work()
    closed = read_round(bench.job)
    assert closed is not None
    assert closed.closed == "failed"


def test_an_end_leaves_the_tasks_and_an_abort_does_not(bench: Bench) -> None:
    bench.slurm.alive = {"101_0", "101_1", "101_2"}
    coordinator = bench.coordinator(FINGERPRINTS)
    coordinator.begin()
    coordinator.stopped = lambda: bench.now > 5
    with pytest.raises(InterruptedError):
        coordinator.work()
    assert bench.slurm.cancelled == []
    request_abort(bench.job)
    again = bench.coordinator(FINGERPRINTS)
    with pytest.raises(Aborted):
        again.begin()
        again.work()
    assert bench.slurm.cancelled == ["101"]
    closed = read_round(bench.job)
    assert closed is not None
    assert closed.closed == "aborted"


def test_nothing_is_submitted_once_an_abort_was_asked_for(bench: Bench) -> None:
    request_abort(bench.job)
    coordinator = bench.coordinator(FINGERPRINTS)
    coordinator.begin()
    with pytest.raises(Aborted):
        coordinator.work()
    assert batches_of(bench.job, 1) == []


@pytest.mark.parametrize(
    ("word", "cancelled"), [("CANCELLED by 7", ["101"]), ("TIMEOUT", []), ("RUNNING", [])]
)
def test_a_cancelled_coordinator_takes_its_tasks_along(
    bench: Bench, word: str, cancelled: list[str]
) -> None:
    """Somebody's scancel is meant for all of it; a time limit is not."""
    bench.slurm.alive = {"101_0"}
    bench.slurm.ended = {"77": word}
    coordinator = bench.coordinator({"TS_01": "a"})
    coordinator.own_job = "77"
    coordinator.begin()
    coordinator.stopped = lambda: bench.now > 5
    with pytest.raises(InterruptedError):
        coordinator.work()
    assert bench.slurm.cancelled == cancelled


def test_a_job_that_does_them_itself_ends_tasks_first(bench: Bench) -> None:
    write_round(bench.job, new_round(bench.job, "run_0", FINGERPRINTS, None))
    bench.batch(1, [["TS_01"]], "50")
    bench.slurm.alive = {"50_0"}
    end_leftover_tasks(request_in(bench.project), bench.log.append, bench.slurm)
    assert bench.slurm.cancelled == ["50"]
    closed = read_round(bench.job)
    assert closed is not None
    assert closed.closed == "cancelled"
    end_leftover_tasks(request_in(bench.project), bench.log.append, bench.slurm)
    assert bench.slurm.cancelled == ["50"]


def test_directories_of_batches(bench: Bench) -> None:
    first = new_batch(bench.job, 1, [["TS_01"]], FINGERPRINTS, ASKED)
    void_batch(bench.job, first)
    second = new_batch(bench.job, 1, [["TS_01"], ["TS_02"]], FINGERPRINTS, ASKED)
    assert (second.name, dict(second.series)) == ("2", {"TS_01": "a", "TS_02": "b"})
    assert batches_of(bench.job, 1) == [second]
    assert sorted(one.name for one in second.directory(bench.job).iterdir()) == [
        "0",
        "1",
        "batch.json",
    ]


def test_a_tilt_series_has_one_holder(bench: Bench) -> None:
    """A second task waits, and says so."""
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with series_lock(bench.job, "TS_01", said.append):
            order.append("second")

    with series_lock(bench.job, "TS_01", said.append):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 60
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]
    assert said == ["TS_01: another task is at work on it; waiting"]
