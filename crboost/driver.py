"""The driver: what an External job's `fn_exe` is. Runs on the compute node, in the project
directory, inside one RELION job.

It reads the run's frozen parameters, runs the tool on one tilt series after another (or several
at once), writes one result file per tilt series, then the RELION tables, the output nodes, and,
last, one marker. A tilt series that fails is named with its reason and does not fail the job. A
series that was done before, with the same parameters and the same input, is not done again.
"""

from __future__ import annotations

import errno
import os
import platform
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

from crboost import __version__
from crboost.builders.step import Step
from crboost.catalogue import CATALOGUE, JobType
from crboost.errors import CrboostError, ToolError
from crboost.files import read_json, write_json, write_text
from crboost.generate import RESOURCES_FILE
from crboost.gpus import Share, granted, share, shown
from crboost.job_directory import FAILURE_FILE, JOB_FILE, driver_lock
from crboost.parameters import EffectiveParameters, job_type_of, read_parameters
from crboost.plan import PLAN_FILE
from crboost.process import Finished, Runner
from crboost.relion.ledger import Node
from crboost.relion.markers import ABORT_NOW, Marker, write_marker
from crboost.relion.nodes import write_output_nodes
from crboost.results import (
    SeriesResult,
    fingerprint_of,
    missing_outputs,
    read_results,
    write_result,
)
from crboost.scheduler.memory import oom_kill_count
from crboost.scheduler.resources import Resources, per_gpu
from crboost.settings import SchedulerSettings, Settings
from crboost.stages import Context, SeriesInput, Stage, stage_for
from crboost.stages.base import DatasetStage, FinishingStage
from crboost.step_files import prepare
from crboost.tool_commands import ToolCommands, frozen_settings
from crboost.translate.tables import Row, write_table

Log = Callable[[str], None]

#: In the job's directory: what was done once, with all tilt series.
DATASET_FILE = "dataset.json"


@dataclass(frozen=True)
class Request:
    """What RELION's command line and the run's snapshot ask of the driver.

    Attributes:
        project: project directory, absolute.
        job: job directory, project-relative, without trailing slash.
        snapshot: the run's frozen `project_params.json`.
        node: the job's name in the scheme.
        fingerprint: the plan's fingerprint of the job's parameters.
        input_star: project-relative global table; None for the import.
        workers: RELION's `--j`.
        python: interpreter for the embedded tools.
        other_inputs: the further inputs: RELION's field (`in_3dref`) -> project-relative file.
    """

    project: Path
    job: str
    snapshot: Path
    node: str
    fingerprint: str
    input_star: str | None
    workers: int
    python: str
    other_inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """The job directory, absolute."""
        return self.project / self.job

    @property
    def run(self) -> str:
        """The run's name: the directory that holds the snapshot."""
        return self.snapshot.parent.name


class _StepFailed(ToolError):
    """A command failed; `redo`: for a reason that lies outside the tilt series."""

    def __init__(self, message: str, *, redo: bool) -> None:
        super().__init__(message)
        self.redo = redo


class Aborted(Exception):
    """Somebody asked the job to stop."""


class OutOfMemory(Exception):
    """The scheduler's memory limit hit a tool: the job must ask for more, not the series fail."""


def run_job(request: Request, *, log: Log = print) -> int:
    """Do one RELION job. Returns 0 for success, 1 for failure, 2 when it was aborted.

    Whatever happens, exactly one marker is written, last; only a kill leaves none.
    """
    request.directory.mkdir(parents=True, exist_ok=True)
    with driver_lock(request.directory, log) as waited:
        if waited and (request.directory / Marker.SUCCESS.value).exists():
            log(f"{request.job}: another driver has just finished this job; nothing to do")
            return 0
        for marker in Marker:  # but never an abort request, which may have come before us
            (request.directory / marker).unlink(missing_ok=True)
        (request.directory / FAILURE_FILE).unlink(missing_ok=True)
        runner = Runner()
        return ended(
            request.directory,
            request.job,
            lambda: with_signals(runner, lambda: _do(request, runner, log)),
            log,
        )


def ended(directory: Path, name: str, work: Callable[[], None], log: Log) -> int:
    """Do `work`; leave in `directory` how it ended, and return the exit code for that."""
    try:
        work()
    except Aborted:
        log(f"{name}: aborted")
        write_marker(directory, Marker.ABORTED)
        return 2
    except CrboostError as error:
        kind = "tool_error" if isinstance(error, ToolError) else "bad_input"
        return _fail(directory, name, kind, str(error), log)
    except OutOfMemory as error:
        return _fail(directory, name, "out_of_memory", str(error), log)
    except InterruptedError as error:
        return _fail(directory, name, "killed", str(error), log)
    except Exception as error:
        _fail(directory, name, "bug", f"{type(error).__name__}: {error}", log)
        raise
    write_marker(directory, Marker.SUCCESS)
    return 0


@dataclass(frozen=True)
class OpenJob:
    """What is to be done in a job, and with what.

    Attributes:
        share: what tilt series side by side get.
        devices: the job's GPUs, by their names for CUDA_VISIBLE_DEVICES.
        settings: the installation, as the run froze it.
    """

    job_type: JobType
    stage: Stage
    context: Context
    tools: ToolCommands
    share: Share
    devices: tuple[str, ...]
    settings: Settings | None


def open_job(
    request: Request, side_by_side: int | None = None, resources: Resources | None = None
) -> OpenJob:
    """Make out what a request asks for.

    Args:
        side_by_side: tilt series at once, which share the workers; None: as the job type is.
        resources: what this process was given; None: what the job asked for.
    """
    settings = frozen_settings(request.snapshot)
    effective = read_parameters(request.snapshot).effective(request.node)
    job_type = CATALOGUE[job_type_of(request.node)].for_tool(effective.job.tool)
    uses_gpu = bool(getattr(effective.job, "use_gpu", False))
    gpus = _gpus_asked(request, effective) if resources is None else resources.gpus
    devices = granted(gpus if uses_gpu else 0, os.environ)
    scheduler = settings.scheduler if settings is not None else SchedulerSettings()
    shared = share(
        request.workers,
        devices,
        one_by_one=job_type.parallel_over == "tilts",
        uses_gpu=uses_gpu,
        gpus_per_series=job_type.gpus_per_series,
        per_gpu=per_gpu(job_type.name, scheduler),
        side_by_side=side_by_side,
    )
    context = Context(
        request.project,
        request.job,
        effective,
        request.input_star,
        request.python,
        shared.workers,
        _by_slot(request, job_type),
        len(shared.devices[0]),
    )
    stage = stage_for(job_type.name, effective.job.tool)
    tools = ToolCommands(request.project, settings, effective.files())
    return OpenJob(job_type, stage, context, tools, shared, devices, settings)


def _gpus_asked(request: Request, effective: EffectiveParameters) -> int:
    """How many GPUs the run asked for, for this job."""
    path = request.snapshot.parent / request.node / RESOURCES_FILE
    if path.is_file():
        return Resources.from_dict(read_json(path)).gpus
    return effective.computing.gpu_count


def _do(request: Request, runner: Runner, log: Log) -> None:
    started = time.monotonic()
    job = open_job(request)
    job_type, stage, context = job.job_type, job.stage, job.context
    effective = context.parameters
    series = stage.inputs(context)
    description = _describe(request, effective, job_type, list(series))
    description["image"] = job.tools.image_of(effective.job.tool)
    write_json(request.directory / JOB_FILE, description)
    kept, kept_failed = _still_good(request, series)
    description["kept_failed"] = sorted(kept_failed)
    todo = [one for name, one in series.items() if name not in kept | kept_failed]
    log(
        f"{request.node} in {request.job}: {len(series)} tilt series, "
        f"{len(kept)} done before, "
        + (f"{len(kept_failed)} failed before, " if kept_failed else "")
        + f"{len(todo)} to do"
    )
    if isinstance(stage, DatasetStage):
        _run_dataset(request, job, stage, series, runner, log)
    todo = _by_array(request, job, todo, runner, description, log)
    run_series(request, job, todo, runner, log)
    _finish(request, job_type, stage, context, series)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    description["resources"] = {
        "wall_seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "largest_process_mb": round(usage.ru_maxrss / 1024),
        "workers": request.workers,
        "gpus": list(job.devices),
    }
    write_json(request.directory / JOB_FILE, description)


def _by_array(
    request: Request,
    job: OpenJob,
    todo: list[SeriesInput],
    runner: Runner,
    description: dict[str, object],
    log: Log,
) -> list[SeriesInput]:
    """Do the tilt series as tasks of a Slurm array, if the run wants that.

    Returns:
        Those that are still to be done, here.
    """
    from crboost.array_driver import array_of, end_leftover_tasks, run_array

    spec = array_of(request.snapshot, request.node)
    if spec is None or job.settings is None:
        end_leftover_tasks(request, log)
        return todo
    tasks = [one for one in todo if not (one.problem or one.skip)]

    def begun(opened: str) -> None:
        # What another driver of this job has counted since then counts.
        description["started"] = min(str(description["started"]), opened)
        description["array"] = spec.to_dict()
        write_json(request.directory / JOB_FILE, description)

    run_array(
        request,
        spec,
        job.settings,
        series={one.name: series_fingerprint(request, one) for one in tasks},
        inputs={one.name: one.fingerprint for one in tasks},
        retries=job.job_type.retries,
        stopped=lambda: runner.stopped,
        begun=begun,
        log=log,
        own_job=os.environ.get("SLURM_JOB_ID"),
    )
    return [one for one in todo if one.problem or one.skip]


def run_series(
    request: Request, job: OpenJob, todo: list[SeriesInput], runner: Runner, log: Log
) -> None:
    """Work through the tilt series, as many at a time as the job's share says; stop when told to.

    Each has the GPUs of its place among them for itself, until it is done.
    """
    left_out = _left_out_of_dataset(request)
    places: SimpleQueue[tuple[str, ...]] = SimpleQueue()
    for devices in job.share.devices:
        places.put(devices)

    def work(series: SeriesInput) -> SeriesResult:
        devices = places.get()
        try:
            return _one(request, job, series, devices, runner, left_out.get(series.name))
        finally:
            places.put(devices)

    with (
        _stopped_by_abort(request, runner),
        ThreadPoolExecutor(max_workers=job.share.at_once) as pool,
    ):
        futures = [pool.submit(work, one) for one in todo]
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                result = future.result()
                end = f": {result.reason}" if result.reason else ""
                log(
                    f"[{number}/{len(todo)}] {result.tilt_series} {result.status}{end} "
                    f"({result.seconds:.1f} s)"
                )
        except BaseException:
            runner.stop()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _run_dataset(
    request: Request,
    job: OpenJob,
    stage: DatasetStage,
    series: Mapping[str, SeriesInput],
    runner: Runner,
    log: Log,
) -> None:
    """What the job does once with all tilt series, unless that is done already.

    Raises:
        ToolError: a step failed; so does the job then.
    """
    usable = {name: one for name, one in series.items() if not (one.problem or one.skip)}
    if not usable:
        return
    context = replace(job.context, gpus=len(job.devices))
    steps = stage.dataset_steps(context, usable)
    if not steps:
        return
    inputs = {name: one.fingerprint for name, one in usable.items()}
    fingerprint = fingerprint_of([request.fingerprint, inputs])
    record = request.directory / DATASET_FILE
    if _is_dataset_done(request, fingerprint):
        log(f"{', '.join(dict.fromkeys(step.name for step in steps))}: done before")
        return
    record.unlink(missing_ok=True)
    commands: list[list[str]] = []
    made: list[str] = []
    left_out: dict[str, str] = {}
    clock = time.monotonic()
    with _stopped_by_abort(request, runner):
        for step in steps:
            name = step.tilt_series
            if name in left_out:
                continue
            log(f"{step.name}: {name or f'{len(usable)} tilt series'}")
            subject = name or "all tilt series"
            try:
                _run_step(request, job, step, job.devices, runner, commands, subject)
            except CrboostError as error:
                if name is None:
                    raise
                left_out[name] = str(error)
                continue
            made += step.creates
    found = stage.dataset_output(context, usable)
    left_out = {**found.left_out, **left_out}
    for name, reason in left_out.items():
        log(f"{name} is left out: {reason}")
    write_json(
        record,
        {
            "fingerprint": fingerprint,
            "tilt_series": list(usable),
            "seconds": round(time.monotonic() - clock, 2),
            "commands": commands,
            "outputs": [*made, *found.outputs],
            "left_out": left_out,
        },
    )


def _is_dataset_done(request: Request, fingerprint: str) -> bool:
    """Whether that was done with these parameters and inputs, and all that it made is there."""
    path = request.directory / DATASET_FILE
    if not path.is_file():
        return False
    record = read_json(path)
    made = record.get("outputs") or []
    is_there = bool(made) and all((request.project / name).exists() for name in made)
    return is_there and record.get("fingerprint") == fingerprint


def _left_out_of_dataset(request: Request) -> Mapping[str, str]:
    """Tilt series that had no part in what was done with all of them -> why."""
    path = request.directory / DATASET_FILE
    known: Mapping[str, str] = read_json(path).get("left_out", {}) if path.is_file() else {}
    return known


@contextmanager
def _stopped_by_abort(request: Request, runner: Runner) -> Iterator[None]:
    """End the tools when RELION asks for it; InterruptedError becomes `Aborted` then."""
    stop = threading.Event()
    aborted = threading.Event()

    def watch() -> None:
        while not stop.wait(0.5):
            if (request.directory / ABORT_NOW).exists():
                aborted.set()
                runner.stop()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except InterruptedError:
        if aborted.is_set():
            raise Aborted from None
        raise
    finally:
        stop.set()
        watcher.join()


def _one(
    request: Request,
    job: OpenJob,
    series: SeriesInput,
    devices: Sequence[str],
    runner: Runner,
    left_out: str | None,
) -> SeriesResult:
    """One tilt series from input to result file. Its failure is a result, not an exception.

    Args:
        devices: the GPUs that its commands are shown.
        left_out: why it had no part in what was done with all tilt series.
    """
    stage, context = job.stage, job.context
    started = datetime.now(UTC)
    clock = time.monotonic()
    fingerprint = series_fingerprint(request, series)
    commands: list[list[str]] = []

    def result(**values: object) -> SeriesResult:
        made = SeriesResult(
            tilt_series=series.name,
            fingerprint=fingerprint,
            input_fingerprint=series.fingerprint,
            started=started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - clock, 2),
            host=socket.gethostname(),
            commands=commands,
            **values,  # type: ignore[arg-type]
        )
        write_result(request.directory, made)
        return made

    if series.problem is not None:
        return result(status="failed", reason=series.problem, warnings=list(series.warnings))
    if series.skip is not None:
        return result(status="skipped", reason=series.skip, warnings=list(series.warnings))
    try:
        for step in stage.steps(context, series):
            _run_step(request, job, step, devices, runner, commands, series.name)
        output = stage.output(context, series)
        if not output.rows:
            why = "; ".join(output.warnings) or "no reason given"
            raise ToolError(f"no tilt image is left: {why}")
    except (CrboostError, OSError) as error:
        if isinstance(error, InterruptedError):
            raise
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        redo = isinstance(error, _StepFailed) and error.redo
        return result(status="failed", reason=str(error), redo=redo or full)
    table = f"{request.job}/tilt_series/{series.name}.star"
    write_table(request.project / table, series.name, output.rows)
    return result(
        status="done",
        metrics=output.metrics,
        warnings=[
            *series.warnings,
            *([f"left out of what all tilt series decide together: {left_out}"] * bool(left_out)),
            *output.warnings,
        ],
        tilts=output.tilts,
        outputs=output.outputs,
        global_columns={**series.global_row, **output.global_columns},
        table=table,
    )


def _run_step(
    request: Request,
    job: OpenJob,
    step: Step,
    devices: Sequence[str],
    runner: Runner,
    commands: list[list[str]],
    subject: str,
) -> None:
    """Run one command and look for what it must have made; `commands` gets its argv.

    Args:
        devices: the GPUs that it is shown.

    Raises:
        _StepFailed: it failed, or left out a file.
    """
    step = replace(step, environment={**shown(devices), **step.environment})
    argv = job.tools.command(job.context.parameters.job, step)
    commands.append(argv)
    prepare(request.project, step)
    kills = oom_kill_count()
    finished = _run_command(request, runner, argv, step)
    if finished.code != 0 and kills != oom_kill_count():
        raise OutOfMemory(f"{subject}: {step.name} was killed for its memory")
    absent = [one for one in step.creates if not (request.project / one).exists()]
    if finished.code != 0 or absent:
        gone = f"; {absent[0]} was not written" if absent and not finished.code else ""
        redo = finished.code < 0 or _is_disk_full(finished.tail)
        raise _StepFailed(f"{step.name} failed with {finished.describe()}{gone}", redo=redo)


def _run_command(request: Request, runner: Runner, argv: list[str], step: Step) -> Finished:
    """Run a step's command; keep what it says in a file, where the step wants that."""
    directory = request.project / step.directory
    if step.stdout is None:
        return runner.run(argv, directory=directory, environment=step.environment)
    with tempfile.TemporaryFile() as said:
        finished = runner.run(argv, directory=directory, environment=step.environment, output=said)
        said.seek(0)
        text = said.read().decode(errors="replace")
    sys.stdout.write(text)
    if finished.code == 0:
        write_text(request.project / step.stdout, text)
    return finished


def _is_disk_full(words: Iterable[str]) -> bool:
    return any(os.strerror(errno.ENOSPC) in line for line in words)


def _finish(
    request: Request,
    job_type: JobType,
    stage: Stage,
    context: Context,
    series: dict[str, SeriesInput],
) -> None:
    """Write the global table of all done series and declare the output node.

    Raises:
        ToolError: not one tilt series is done.
    """
    results = read_results(request.directory)
    present = [results[name] for name in series if name in results]
    done = [one for one in present if one.status == "done"]
    if not done:
        reasons = "; ".join(f"{one.tilt_series}: {one.reason}" for one in present[:5])
        if not present:
            raise CrboostError(f"{request.node}: there is no tilt series to work on")
        raise ToolError(
            f"{request.node}: none of {len(present)} tilt series could be done. {reasons}"
        )
    rows: list[Row] = [
        {**one.global_columns, "rlnTomoTiltSeriesStarFile": one.table} for one in done
    ]
    main = job_type.main_output
    write_table(request.directory / main.file, "global", rows)
    if isinstance(stage, FinishingStage):
        stage.finish(context, done)
    nodes = [Node(f"{request.job}/{output.file}", output.label) for output in job_type.outputs]
    write_output_nodes(request.directory, nodes)


def _still_good(request: Request, series: dict[str, SeriesInput]) -> tuple[set[str], set[str]]:
    """Tilt series that are done already, with these parameters and this input; and those that
    failed with them, where the plan says that they need no other try."""
    results = read_results(request.directory)
    same = {
        name: results[name]
        for name, one in series.items()
        if name in results and results[name].fingerprint == series_fingerprint(request, one)
    }
    done = {
        name
        for name, result in same.items()
        if result.status == "done" and not missing_outputs(request.project, [result])
    }
    if not _keeps_failed(request):
        return done, set()
    return done, {name for name, one in same.items() if one.status == "failed" and not one.redo}


def _keeps_failed(request: Request) -> bool:
    path = request.snapshot.parent / PLAN_FILE
    return path.is_file() and bool(read_json(path).get("keep_failed"))


def series_fingerprint(request: Request, series: SeriesInput) -> str:
    return fingerprint_of([request.fingerprint, series.fingerprint])


def _by_slot(request: Request, job_type: JobType) -> dict[str, str]:
    """The further inputs, by the names that the catalogue gives them."""
    return {
        slot.name: request.other_inputs[slot.relion_field]
        for slot in job_type.inputs
        if slot.relion_field in request.other_inputs
    }


def _describe(
    request: Request, effective: EffectiveParameters, job_type: JobType, series: list[str]
) -> dict[str, object]:
    """The job's record: what runs here, with which parameters, on what."""
    return {
        "node": request.node,
        "job_type": job_type.name,
        "run": request.run,
        "fingerprint": request.fingerprint,
        "tool": effective.job.tool,
        "parameters": effective.decisive(),
        "input": request.input_star,
        "tilt_series": series,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"crboost": __version__, "python": platform.python_version()},
    }


def _fail(directory: Path, name: str, kind: str, message: str, log: Log) -> int:
    log(f"{name} failed: {message}")
    write_json(directory / FAILURE_FILE, {"kind": kind, "message": message})
    write_marker(directory, Marker.FAILURE)
    return 1


def with_signals(runner: Runner, work: Callable[[], None]) -> None:
    """Run `work`; SIGTERM and SIGINT end the tools and come out as InterruptedError."""
    received: list[int] = []

    def handle(number: int, _frame: object) -> None:
        received.append(number)
        threading.Thread(target=runner.stop, daemon=True).start()

    if threading.current_thread() is not threading.main_thread():
        work()
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        work()
    except InterruptedError:
        name = signal.Signals(received[0]).name if received else "a signal"
        raise InterruptedError(f"stopped by {name}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
