"""The history of a project, read from RELION's ledger and from each job's directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from crboost.catalogue import CATALOGUE, NATIVE_TYPES
from crboost.failure import classify
from crboost.history import PastJob, SeriesRecord
from crboost.job_directory import SCRIPTS, is_driver_alive, read_failure, read_job_file, tail
from crboost.parameters import job_type_of
from crboost.relion.job import Job, read_job
from crboost.relion.ledger import Ledger, Node, Process, Status
from crboost.relion.markers import Marker, read_marker
from crboost.relion.nodes import read_output_nodes
from crboost.relion.star import read_star
from crboost.results import missing_outputs, read_results, table_fingerprint

if TYPE_CHECKING:
    from crboost.settings import Settings


def past_job(project: Path, ledger: Ledger, process: Process, settings: Settings | None) -> PastJob:
    """One process of the ledger, with what its directory tells."""
    directory = project / process.name
    job = _read_job_star(directory)
    given = _parameters_of(job)
    marker = read_marker(directory)
    alive = is_driver_alive(directory)
    if (
        not alive
        and marker is None
        and process.status is Status.RUNNING
        and settings is not None
        and settings.scheduler.kind != "local"
    ):
        from crboost.scheduler.watch import job_alive

        alive = job_alive(settings.scheduler)(directory)
    native = NATIVE_TYPES.get(process.type_label)
    status, outputs = process.status, written_outputs(ledger.outputs_of(process.name), native)
    if status in (Status.RUNNING, Status.SCHEDULED) and marker is not None and not alive:
        status = _STATUS[marker]
        if marker is Marker.SUCCESS:
            outputs = [*outputs, *read_output_nodes(directory)]
    elif status == Status.SUCCEEDED and given.get("node") and marker is not Marker.SUCCESS:
        # Our own jobs always leave their marker: without it a restart was interrupted.
        status = Status.RUNNING
    results = read_results(directory) if given.get("node") else {}
    record = read_job_file(directory)
    # RELION declares a logfile.pdf even where it cannot make one.
    gone = [
        node.name
        for node in outputs
        if not node.label.startswith("LogFile") and not (project / node.name).exists()
    ]
    message = ""
    if status == Status.FAILED:
        log = tail(directory / "run.err")
        message = classify(read_failure(directory), log, process.name.rstrip("/")).message
    node = given.get("node")
    if native is not None:
        is_done = status == Status.SUCCEEDED
        series = _native_series(project, directory, native, job) if is_done else {}
        values = dict(job.options) if job else {}
    else:
        series = {name: result.record() for name, result in results.items()}
        values = {key: str(value) for key, value in record.get("parameters", {}).items()}
    return PastJob(
        job=process.name,
        status=status.value,
        relion_type=process.type_label,
        inputs=tuple(one.name for one in ledger.inputs_of(process.name)),
        outputs=tuple(dict.fromkeys((one.name, one.label) for one in outputs)),
        missing=(*gone, *missing_outputs(project, results.values())),
        job_type=job_type_of(node) if node else native,
        node=node,
        fingerprint=given.get("fingerprint"),
        run=_run_of(job) or record.get("run"),
        parameters=values,
        series=series,
        failure=message.splitlines()[0] if message else None,
        alive=alive,
    )


def _run_of(job: Job | None) -> str | None:
    """The run that a job was started for last, from what RELION starts; also before it works.

    A job that waits in a queue has no record of its own yet, and one of RELION's never has.
    """
    for option in ("fn_exe", "qsub"):
        path = PurePosixPath(job.option(option)) if job else PurePosixPath()
        if path.is_relative_to(SCRIPTS) and len(path.relative_to(SCRIPTS).parts) > 1:
            return path.relative_to(SCRIPTS).parts[0]
    return None


def written_outputs(nodes: Sequence[Node], native: str | None) -> list[Node]:
    """A job's output nodes without those that RELION declares and never writes.

    Args:
        native: the job type, if it is one of RELION's own.
    """
    absent = CATALOGUE[native].declared_only if native is not None else ()
    return [node for node in nodes if PurePosixPath(node.name).name not in absent]


def _native_series(
    project: Path, directory: Path, native: str, job: Job | None
) -> dict[str, SeriesRecord]:
    """The tilt series in a native RELION job's output: all that it did are done."""
    particles = job.option("in_optimisation") if job is not None else ""
    if particles:
        return _particle_series(project, directory, project / particles)
    path = directory / CATALOGUE[native].main_output.file
    if not path.is_file() or path.suffix != ".star":
        return {}
    return _series_in(project, path)


def _particle_series(
    project: Path, directory: Path, optimisation_set: Path
) -> dict[str, SeriesRecord]:
    """The tilt series of the particles that a job was given; none if they were made anew since.

    What RELION writes of particles does not name a tilt series without any.
    """
    marker = directory / Marker.SUCCESS.value
    if not optimisation_set.is_file() or not marker.is_file():
        return {}
    ended = marker.stat().st_mtime_ns
    if optimisation_set.stat().st_mtime_ns > ended:
        return {}
    found: dict[str, SeriesRecord] = {}
    for given in read_star(optimisation_set).records(""):
        particles = project / given.get("rlnTomoParticlesFile", "")
        if particles.is_file() and particles.stat().st_mtime_ns > ended:
            return {}
        tomograms = project / given.get("rlnTomoTomogramsFile", "")
        if tomograms.is_file():
            found |= _series_in(project, tomograms)
    return found


def _series_in(project: Path, table: Path) -> dict[str, SeriesRecord]:
    return {
        row["rlnTomoName"]: SeriesRecord(
            "done", table_fingerprint(project / row["rlnTomoTiltSeriesStarFile"]), ""
        )
        for row in read_star(table).records("global")
        if "rlnTomoName" in row and "rlnTomoTiltSeriesStarFile" in row
    }


_STATUS = {
    Marker.SUCCESS: Status.SUCCEEDED,
    Marker.FAILURE: Status.FAILED,
    Marker.ABORTED: Status.ABORTED,
}


def _read_job_star(directory: Path) -> Job | None:
    path = directory / "job.star"
    return read_job(path) if path.is_file() else None


def _parameters_of(job: Job | None) -> dict[str, str]:
    """The `--label value` parameters of an External job that crboost made; else nothing."""
    if job is None:
        return {}
    given = {
        job.option(f"param{number}_label"): job.option(f"param{number}_value")
        for number in range(1, 11)
    }
    given.pop("", None)
    return given if given.get("node") and given.get("fingerprint") else {}
