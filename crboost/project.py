"""A project directory: create it, open it, ask it what has run, plan what to run next.

A project is an ordinary RELION project plus `project_params.json`. Raw data are linked, never
copied and never written to.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crboost.catalogue import CATALOGUE, NATIVE_TYPES, JobType, label_matches
from crboost.errors import ParameterError, PlanError, ProjectError
from crboost.failure import classify
from crboost.files import write_text
from crboost.history import PastJob, SeriesRecord
from crboost.job_directory import is_driver_alive, read_failure, read_job_file, tail
from crboost.parameters import (
    EffectiveParameters,
    ProjectParameters,
    job_type_of,
    read_parameters,
    write_parameters,
)
from crboost.plan import Mode, Plan, WantedJob, plan
from crboost.relion.job import Job, read_job
from crboost.relion.ledger import (
    LEDGER_FILE,
    Ledger,
    Process,
    Status,
    read_ledger,
    write_ledger,
)
from crboost.relion.markers import Marker, read_marker
from crboost.relion.nodes import read_output_nodes
from crboost.relion.star import read_star
from crboost.results import fingerprint_of, missing_outputs, read_results, table_fingerprint
from crboost.tilt_name import plain_name

if TYPE_CHECKING:
    from crboost.scheduler.resources import Resources
    from crboost.settings import Settings

PARAMETERS_FILE = "project_params.json"
FRAMES = "frames"
MDOCS = "mdoc"
STATE = ".crboost"


@dataclass(frozen=True)
class Created:
    """A new project, and what its creation had to say."""

    project: Project
    tilt_series: tuple[str, ...]
    warnings: tuple[str, ...]


class Project:
    """A project directory.

    Attributes:
        directory: absolute.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @classmethod
    def open(cls, path: Path | str) -> Project:
        """The project at `path`.

        Raises:
            ProjectError: there is none.
        """
        directory = Path(path).expanduser().absolute()
        if not (directory / PARAMETERS_FILE).is_file():
            what = "holds no crboost project" if directory.is_dir() else "does not exist"
            raise ProjectError(
                f"{directory} {what} ({PARAMETERS_FILE} is missing)",
                hint="create one with `crboost init PROJECT --movies ... --mdocs ...`",
            )
        return cls(directory)

    @classmethod
    def create(
        cls,
        path: Path | str,
        *,
        movies: Sequence[str],
        mdocs: Sequence[str],
        gain: Path | None = None,
        name: str | None = None,
    ) -> Created:
        """Make a project from what the microscope wrote.

        Args:
            path: the new directory; it may exist, also as a RELION project, but not hold a
                crboost project.
            movies, mdocs: files or glob patterns.
            gain: gain reference.
            name: what people call the project; default: the directory's name.

        Raises:
            ProjectError: nothing fits the patterns, no mdoc is a tilt series, or there is a
                project already. Then nothing has been made.
        """
        from crboost.acquisition.collect import collect
        from crboost.acquisition.movies import find_movies

        directory = Path(path).expanduser().absolute()
        if (directory / PARAMETERS_FILE).exists():
            raise ProjectError(
                f"{directory} already holds a project",
                hint="open it (`crboost status`), or choose another directory",
            )
        if directory.exists() and not directory.is_dir():
            raise ProjectError(f"{directory} is a file", hint="choose another directory")
        movie_files = [one.absolute() for one in find_movies(movies)]
        mdoc_files = _matching(mdocs)
        for what, files, patterns in (
            ("movie", movie_files, movies),
            ("mdoc", mdoc_files, mdocs),
        ):
            if not files:
                raise ProjectError(
                    f"no {what} fits {' '.join(map(str, patterns)) or 'an empty pattern'}",
                    hint="quote patterns, and check the path",
                )
        if gain is not None and not gain.is_file():
            raise ProjectError(f"gain reference {gain}: no such file")
        session = collect(mdoc_files, movie_files, gain.absolute() if gain else None)
        if not session.series:
            reasons = "; ".join(f"{one.path.name}: {one.reason}" for one in session.skipped[:5])
            raise ProjectError(
                f"none of {len(mdoc_files)} mdocs is a tilt series. {reasons}",
                hint="give the tilt series' mdocs, not those of single movies or maps",
            )
        parameters = ProjectParameters.new(name or directory.name, datetime.now(UTC))
        parameters = parameters.with_values(
            {
                "data.movies": _as_patterns(movie_files),
                "data.mdocs": _as_patterns(mdoc_files),
                **({"data.gain_reference": str(gain.absolute())} if gain else {}),
            },
            detail="crboost init",
        )
        warnings = [*session.warnings]
        for found in session.findings:
            if found.path == "acquisition.gain_reference_path":
                continue  # it follows data.gain_reference
            try:
                parameters = parameters.with_values(
                    {found.path: found.value}, source="mdoc", detail=found.detail
                )
            except ParameterError as error:  # one odd mdoc value must not stop the import
                warnings.append(f"{found.detail}: not taken: {error}")
        warnings += parameters.warnings()
        project = cls(directory)
        project._lay_out()
        project._link(
            [path for one in session.series for path in one.movies.values()],
            [one.acquisition.mdoc_path for one in session.series],
        )
        write_parameters(directory / PARAMETERS_FILE, parameters)
        return Created(
            project, tuple(one.name for one in session.series), tuple(dict.fromkeys(warnings))
        )

    @property
    def name(self) -> str:
        """What people call the project."""
        return self.parameters().project_name

    # --- parameters ------------------------------------------------------------------------

    def parameters(self) -> ProjectParameters:
        """The parameters as they are on disk now.

        Raises:
            ParameterError: the file holds values that are not allowed.
        """
        return read_parameters(self.directory / PARAMETERS_FILE)

    def set_values(self, changes: Mapping[str, Any], *, detail: str = "crboost set") -> None:
        """Change parameters, all of them or none.

        Raises:
            ParameterError: lists every unknown path and every value that is not allowed.
        """
        changed = self.parameters().with_values(changes, source="user", detail=detail)
        write_parameters(self.directory / PARAMETERS_FILE, changed)

    def snapshot_parameters(self, overrides: Mapping[str, Any] | None = None) -> ProjectParameters:
        """Parameters for a run: those on disk with `overrides` made, kept on disk.

        Raises:
            ParameterError: an override is not allowed; nothing is kept then.
        """
        if overrides:
            self.set_values(overrides, detail="given to the run")
        return self.parameters()

    # --- data ------------------------------------------------------------------------------

    def new_data(self) -> list[Path]:
        """Mdocs and movies that fit the project's patterns and are not linked yet."""
        from crboost.acquisition.movies import find_movies

        data = self.parameters().data
        linked = {
            path.name for folder in (MDOCS, FRAMES) for path in (self.directory / folder).iterdir()
        }
        found = [*_matching(data.mdocs), *(path.absolute() for path in find_movies(data.movies))]
        return [path for path in found if plain_name(path.name) not in linked]

    def link_new_data(self) -> list[str]:
        """Link what came since the project was made; the names of the links.

        Movies that no tilt series names are left alone.
        """
        from crboost.acquisition.collect import collect
        from crboost.acquisition.movies import find_movies

        if not self.new_data():
            return []
        data = self.parameters().data
        session = collect(_matching(data.mdocs), [p.absolute() for p in find_movies(data.movies)])
        return self._link(
            [path for one in session.series for path in one.movies.values()],
            [one.acquisition.mdoc_path for one in session.series],
        )

    def _lay_out(self) -> None:
        for name in (FRAMES, MDOCS, "Schemes", "qsub", STATE):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        if not (self.directory / LEDGER_FILE).exists():
            write_ledger(self.directory / LEDGER_FILE, Ledger())
        # RELION's GUI asks no question about a directory that has this file.
        (self.directory / ".gui_projectdir").touch()
        for template in _qsub_templates():
            target = self.directory / "qsub" / template.name
            if not target.exists():
                write_text(target, template.read_text(encoding="utf-8"))

    def _link(self, movies: Iterable[Path], mdocs: Iterable[Path]) -> list[str]:
        """Link files under plain names; names of the links that were made.

        Raises:
            ProjectError: two files would get the same name.
        """
        made = []
        for folder, paths in ((FRAMES, movies), (MDOCS, mdocs)):
            for path in paths:
                link = self.directory / folder / plain_name(path.name)
                target = path.absolute()
                if link.is_symlink() or link.exists():
                    if not link.exists() or not link.samefile(target):
                        raise ProjectError(
                            f"{link} is {link.readlink() if link.is_symlink() else 'a file'}, "
                            f"and {target} would get the same name",
                            hint="rename one of them, or make two projects",
                        )
                    continue
                link.symlink_to(target)
                made.append(link.name)
        return made

    # --- history ---------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """RELION's ledger as it is now."""
        return read_ledger(self.directory)

    def history(self, settings: Settings | None = None) -> list[PastJob]:
        """Every job in the ledger, with what its directory tells.

        Args:
            settings: to ask the scheduler whether a job that has said nothing still runs.
        """
        ledger = self.ledger()
        return [self._past_job(ledger, process, settings) for process in ledger.processes]

    def reconcile(self) -> list[str]:
        """Book jobs that ended while nobody was watching, as RELION's GUI does when it opens.

        A job that is `Running` in the ledger and has an exit marker gets the marker's status and
        its output nodes. Returns what was booked.
        """
        from crboost.relion.schemer.walker import settle

        before = {process.name: process.status for process in self.ledger().processes}
        if Status.RUNNING not in before.values():
            return []
        after = settle(self.directory).processes
        return [
            f"{process.name.rstrip('/')}: {process.status}"
            for process in after
            if before.get(process.name) not in (None, process.status)
        ]

    def _past_job(self, ledger: Ledger, process: Process, settings: Settings | None) -> PastJob:
        directory = self.directory / process.name
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
        status, outputs = process.status, ledger.outputs_of(process.name)
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
            if not node.label.startswith("LogFile") and not (self.directory / node.name).exists()
        ]
        message = ""
        if status == Status.FAILED:
            log = tail(directory / "run.err")
            message = classify(read_failure(directory), log, process.name.rstrip("/")).message
        node = given.get("node")
        native = NATIVE_TYPES.get(process.type_label)
        if native is not None:
            series = self._native_series(directory, native) if status == Status.SUCCEEDED else {}
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
            missing=(*gone, *missing_outputs(self.directory, results.values())),
            job_type=job_type_of(node) if node else native,
            node=node,
            fingerprint=given.get("fingerprint"),
            run=record.get("run"),
            parameters=values,
            series=series,
            failure=message.splitlines()[0] if message else None,
            alive=alive,
        )

    def _native_series(self, directory: Path, native: str) -> dict[str, SeriesRecord]:
        """The tilt series in a native RELION job's output: all that it did are done."""
        path = directory / CATALOGUE[native].main_output.file
        if not path.is_file() or path.suffix != ".star":
            return {}
        return {
            row["rlnTomoName"]: SeriesRecord(
                "done", table_fingerprint(self.directory / row["rlnTomoTiltSeriesStarFile"]), ""
            )
            for row in read_star(path).records("global")
            if "rlnTomoName" in row and "rlnTomoTiltSeriesStarFile" in row
        }

    # --- planning --------------------------------------------------------------------------

    def plan(
        self,
        jobs: Sequence[str] | None = None,
        parameters: ProjectParameters | None = None,
        mode: Mode = "new",
        *,
        retry_failed: bool = False,
        settings: Settings | None = None,
    ) -> Plan:
        """What a run of `jobs` (default: all that have parameters) would do. Changes nothing.

        Args:
            settings: the installation; without it nothing is said of what it lacks.

        Raises:
            PlanError: an input cannot be resolved, or nothing here can run a job.
            ParameterError: a job is not known.
        """
        chosen = parameters or self.parameters()
        nodes = list(dict.fromkeys(jobs or chosen.jobs))
        history = self.history(settings)
        wanted = {
            node: self._wanted(node, chosen, settings)
            for node in dict.fromkeys((*nodes, *chosen.jobs))
        }
        made = plan(history, [wanted[node] for node in nodes], mode=mode, retry_failed=retry_failed)
        made = replace(made, warnings=(*made.warnings, *_left_out(history, wanted, nodes, mode)))
        for planned in made.jobs:
            for given in planned.inputs:
                if given.reason == "given by the user":
                    path = self.directory / str(given.path)
                    if not path.is_file():
                        raise PlanError(
                            f"jobs.{planned.node}.input_{given.slot} = {given.path}: no such file",
                            hint="paths are relative to the project directory",
                        )
        return made

    def _wanted(
        self, node: str, parameters: ProjectParameters, settings: Settings | None
    ) -> WantedJob:
        from crboost.stages import Context, SeriesInput, stage_for

        job_type = CATALOGUE[job_type_of(node)]
        effective = parameters.effective(node)
        if job_type.is_native:
            return _wanted_native(node, job_type, effective, settings)
        stage = stage_for(job_type.name, effective.job.tool)
        resources = _resource_words(effective, job_type, settings)
        workers = int(resources["workers"])
        context = Context(self.directory, "<job>", effective, None, "python", workers)
        example = SeriesInput("<tilt series>", "", {}, [])
        data: dict[str, str] = {}
        if not job_type.inputs:
            data = {name: one.fingerprint for name, one in stage.inputs(context).items()}
        return WantedJob(
            node=node,
            job_type=job_type,
            fingerprint=parameters.fingerprint(node),
            parameters={key: str(value) for key, value in effective.decisive().items()},
            overrides=_overrides(effective, job_type),
            commands=tuple(step.argv for step in stage.steps(context, example)),
            resources=resources,
            data=data,
        )


def _wanted_native(
    node: str, job_type: JobType, effective: EffectiveParameters, settings: Settings | None
) -> WantedJob:
    """A job that RELION turns into commands itself."""
    from crboost.builders.relion import relion_options

    if settings is not None and settings.engine == "embedded":
        raise PlanError(
            f"{node} is a job of RELION's own ({job_type.relion_type}), and no RELION is set up",
            hint="set up tools.relion (see `crboost doctor`), or take a job with embedded tools",
        )
    ctffind = settings.tools.get("ctffind") if settings is not None else None
    executable = ctffind.executable if ctffind is not None else None
    options = relion_options(job_type.name, effective, ctffind_executable=executable or "ctffind")
    return WantedJob(
        node=node,
        job_type=job_type,
        fingerprint=fingerprint_of(options),
        parameters=options,
        overrides=_overrides(effective, job_type),
        resources=_resource_words(effective, job_type, settings),
    )


def _left_out(
    history: Sequence[PastJob], wanted: Mapping[str, WantedJob], nodes: Sequence[str], mode: Mode
) -> list[str]:
    """A word on earlier jobs that are out of date, but are not part of the run."""
    asked = [wanted[node].job_type for node in nodes]
    made = {output.label for job_type in asked for output in job_type.outputs}
    open_inputs = [
        slot
        for job_type in asked
        for slot in job_type.inputs
        if not any(label_matches(label, one) for label in made for one in slot.accepts)
    ]
    if not open_inputs:
        return []
    last = max(list(CATALOGUE).index(job_type.name) for job_type in asked)
    before = [
        job
        for node, job in wanted.items()
        if node in nodes or list(CATALOGUE).index(job.job_type.name) < last
    ]
    try:
        full = plan(history, before, mode=mode)
    except PlanError:
        return []
    return [
        f"{job.node} is not part of this run, although it is out of date: {job.reason}"
        for job in full.jobs
        if job.node not in nodes
    ]


def job_resources(
    effective: EffectiveParameters, job_type: JobType, settings: Settings
) -> Resources:
    """What a job asks the machine or the scheduler for."""
    from crboost.scheduler.resources import resources_for

    computing = effective.computing
    set_by_user = {
        name
        for name in type(computing).model_fields
        if effective.origin(f"computing.{name}").source == "user"
    }
    return resources_for(
        job_type.name,
        computing,
        settings.scheduler,
        uses_gpu=bool(getattr(effective.job, "use_gpu", False)),
        tasks=job_type.mpi,
        explicit=set_by_user,
    )


def _resource_words(
    effective: EffectiveParameters, job_type: JobType, settings: Settings | None
) -> dict[str, str]:
    """What a plan shows of the resources; `workers` is what the job gets as `--j`."""
    workers = effective.computing.workers
    if settings is None or settings.scheduler.kind == "local":
        return {"workers": str(workers or len(os.sched_getaffinity(0)))}
    asked = job_resources(effective, job_type, settings)
    words = {
        "cpus": asked.cpus,
        "memory": f"{asked.memory_gb} GB" if asked.memory_gb else None,
        "time": f"{asked.time_limit_minutes} min" if asked.time_limit_minutes else None,
        "gpus": asked.gpus or None,
        "partition": asked.partition,
    }
    shown = {name: str(value) for name, value in words.items() if value is not None}
    return {"workers": str(workers or asked.cpus), **shown}


def _overrides(effective: EffectiveParameters, job_type: JobType) -> dict[str, str]:
    """Inputs that the user insists on: `input_<slot>` of the job."""
    given = {
        slot.name: getattr(effective.job, f"input_{slot.name}", None) for slot in job_type.inputs
    }
    return {slot: path for slot, path in given.items() if path}


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


def _matching(patterns: Iterable[str]) -> list[Path]:
    """Files that the patterns (or plain paths) name, absolute, sorted, each once."""
    found: set[Path] = set()
    for pattern in patterns:
        path = Path(pattern).expanduser()
        # Path.glob takes no absolute patterns.
        names = [path] if path.exists() else glob.glob(str(path), recursive=True)  # noqa: PTH207
        for name in names:
            one = Path(name).absolute()
            found.update(one.glob("*.mdoc") if one.is_dir() else [one])
    return sorted(found)


def _as_patterns(files: Sequence[Path]) -> list[str]:
    """Glob patterns for files that a shell has already expanded.

    A directory's files of one kind become `directory/*.kind` if none is left out, so that
    movies which come later are found; otherwise each file is named.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in files:
        groups.setdefault((path.parent, path.suffix), []).append(path)
    patterns: list[str] = []
    for (parent, suffix), members in groups.items():
        everything = {one for one in parent.iterdir() if one.suffix == suffix}
        if everything == set(members):
            patterns.append(f"{glob.escape(str(parent))}/*{suffix}")
        else:
            patterns += [glob.escape(str(one)) for one in members]
    return patterns


def _qsub_templates() -> list[Path]:
    """The submission templates that come with crboost."""
    from crboost.resources import resource_directory

    return sorted(resource_directory("qsub").glob("*.sh"))
