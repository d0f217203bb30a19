"""One task of a job's array: one tilt series, or a few side by side on one GPU.

Runs on the compute node, in the project directory. What it makes is what the driver of the whole
job would have made: tables and `results/<tilt series>.json`. Where it cannot, `failure.json` in
the task's own directory says why; the job's directory is the coordinator's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from crboost.array_directory import Batch, read_batch, read_round, result_times, series_lock
from crboost.driver import (
    Aborted,
    Request,
    ended,
    open_job,
    run_series,
    series_fingerprint,
    with_signals,
)
from crboost.errors import CrboostError
from crboost.job_directory import FAILURE_FILE
from crboost.process import Runner
from crboost.relion.markers import ABORT_NOW, clear_markers
from crboost.results import missing_outputs, read_results
from crboost.stages import SeriesInput

Log = Callable[[str], None]


def run_task(request: Request, directory: str, task: int, *, log: Log = print) -> int:
    """Do the tilt series of one task. Returns 0 for success, 1 for failure, 2 when aborted.

    A tilt series that fails is a result, not a failure of the task.

    Args:
        request: as the coordinator got it; `workers` are those of the task.
        directory: of the batch, project-relative.
        task: its number.

    Raises:
        CrboostError: there is no such task.
    """
    batch = read_batch(request.project / directory)
    if not 0 <= task < len(batch.tasks):
        raise CrboostError(f"{directory} has {len(batch.tasks)} tasks: there is no number {task}")
    own = request.project / directory / str(task)
    own.mkdir(exist_ok=True)
    clear_markers(own)
    (own / FAILURE_FILE).unlink(missing_ok=True)
    runner = Runner()
    names = batch.tasks[task]
    return ended(
        own,
        f"{request.node}: {', '.join(names)}",
        lambda: with_signals(runner, lambda: _do(request, batch, task, runner, log)),
        log,
    )


def _do(request: Request, batch: Batch, task: int, runner: Runner, log: Log) -> None:
    if (request.directory / ABORT_NOW).exists():
        raise Aborted
    names = batch.tasks[task]
    job = open_job(request, len(names), batch.resources)
    series = job.stage.inputs(job.context)
    absent = [name for name in names if name not in series]
    if absent:
        raise CrboostError(f"{request.input_star} has no tilt series {', '.join(absent)}")
    log(f"{request.node} in {request.job}, task {task}: {', '.join(names)}")
    with ExitStack() as locks:
        for name in sorted(names):  # in one order, so that no two tasks wait for each other
            locks.enter_context(series_lock(request.directory, name, log))
        done = _done_by_others(request, names, series)
        for name in done:
            log(f"{name}: another task has done it")
        todo = [series[name] for name in names if name not in done]
        run_series(request, job, todo, runner, log)


def _done_by_others(
    request: Request, names: Sequence[str], series: Mapping[str, SeriesInput]
) -> list[str]:
    """Tilt series that have a result of the present round already: a task was started twice."""
    now = read_round(request.directory)
    stale = now.stale if now is not None else {}
    results = read_results(request.directory)
    times = result_times(request.directory, names)
    return [
        name
        for name in names
        if name in results
        and times.get(name) != stale.get(name)
        and results[name].fingerprint == series_fingerprint(request, series[name])
        and not missing_outputs(request.project, [results[name]])
    ]
