"""A project directory: create it, open it, ask it what has run, plan what to run next.

A project is an ordinary RELION project plus `project_params.json`. Raw data are linked, never
copied and never written to.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crboost.errors import PlanError, ProjectError
from crboost.files import locked, write_text
from crboost.found_values import contradiction, with_found_values
from crboost.history import PastJob
from crboost.images import image_binnings
from crboost.parameters import (
    ProjectParameters,
    read_parameters,
    write_parameters,
)
from crboost.past_jobs import past_job
from crboost.plan import Mode, Plan, plan
from crboost.prerequisites import check_frames, with_prerequisites
from crboost.raw_data import FRAMES, MDOCS, make_link
from crboost.relion.ledger import (
    LEDGER_FILE,
    Ledger,
    Status,
    read_ledger,
    write_ledger,
)
from crboost.tilt_name import plain_name
from crboost.wanted import left_out, wanted_job

if TYPE_CHECKING:
    from crboost.acquisition.collect import ParameterFinding
    from crboost.presets import Preset
    from crboost.settings import Settings

PARAMETERS_FILE = "project_params.json"
STATE = ".crboost"

#: Mdocs and movies.
_RawData = tuple[list[Path], list[Path]]


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

    @staticmethod
    def exists(path: Path | str) -> bool:
        """Whether there is a project at `path`."""
        return (Path(path).expanduser() / PARAMETERS_FILE).is_file()

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

        directory = _new_directory(path)
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
        _check_gain(gain)
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
        parameters, doubts = with_found_values(parameters, session.findings)
        warnings += [*doubts, *parameters.warnings()]
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

    @classmethod
    def create_empty(
        cls,
        path: Path | str,
        *,
        watch: Sequence[Path],
        gain: Path | None = None,
        name: str | None = None,
        preset: Preset | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> Project:
        """Make a project for data that are still to come.

        What arrives is linked by `crboost.acquisition.intake`, series by series; so there are no
        patterns of movies and mdocs in it.

        Args:
            path: the new directory, as in `create`.
            watch: the directories where data will arrive; the project must not lie in one.
            gain: gain reference.
            name: what people call the project; default: the directory's name.
            preset: parameters of the microscope.
            values: parameters of the user, dotted name to value; they win over the preset.

        Raises:
            ProjectError: there is a project already, or it would lie where data arrive.
            FileFormatError: the gain reference cannot be read.
            ParameterError: a value is not allowed. Then nothing has been made.
        """
        directory = _new_directory(path)
        check_apart(directory, watch)
        _check_gain(gain)
        parameters = ProjectParameters.new(name or directory.name, datetime.now(UTC))
        if gain is not None:
            parameters = parameters.with_values(
                {"data.gain_reference": str(gain.absolute())}, detail="crboost session start"
            )
        if preset is not None:
            parameters = preset.applied_to(parameters)
        if values:
            parameters = parameters.with_values(values, detail="crboost session start")
        project = cls(directory)
        project._lay_out()
        write_parameters(directory / PARAMETERS_FILE, parameters)
        return project

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
        with locked(self.directory / STATE / "parameters.lock"):
            changed = self.parameters().with_values(changes, source="user", detail=detail)
            write_parameters(self.directory / PARAMETERS_FILE, changed)

    def apply_preset(self, preset: Preset) -> list[str]:
        """Take the preset's values where the user has set none; names of those not taken.

        Raises:
            ParameterError: a value is not allowed; nothing is changed then.
        """
        with locked(self.directory / STATE / "parameters.lock"):
            parameters = self.parameters()
            write_parameters(self.directory / PARAMETERS_FILE, preset.applied_to(parameters))
        return preset.overruled(parameters)

    def add_found_values(self, found: Iterable[ParameterFinding]) -> list[str]:
        """Take values that mdocs tell, where nobody has chosen one; what was not taken, in words.

        Only of use before the first tilt series is there: later ones do not change parameters.
        """
        with locked(self.directory / STATE / "parameters.lock"):
            parameters, warnings = with_found_values(self.parameters(), found)
            write_parameters(self.directory / PARAMETERS_FILE, parameters)
        return warnings

    def contradictions(self, found: Iterable[ParameterFinding]) -> list[str]:
        """Values that data tell and that are not those of the parameters, in words."""
        parameters = self.parameters()
        return [text for one in found for text in contradiction(parameters, one)]

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
        """Mdocs and movies that fit the project's patterns and are not linked yet.

        None while a session is at work: what has arrived is then for the watcher to say.
        """
        mdocs, movies = self._unlinked_and_all()[0]
        return [*mdocs, *movies]

    def link_new_data(self) -> list[str]:
        """Link what came since the project was made; the names of the links.

        Movies that no tilt series names are left alone.
        """
        from crboost.acquisition.collect import collect

        new, (mdocs, movies) = self._unlinked_and_all()
        if not any(new):
            return []
        session = collect(mdocs, movies)
        return self._link(
            [path for one in session.series for path in one.movies.values()],
            [one.acquisition.mdoc_path for one in session.series],
        )

    def _unlinked_and_all(self) -> tuple[_RawData, _RawData]:
        """What fits the patterns: what is not linked yet, and all of it."""
        from crboost.acquisition.movies import find_movies
        from crboost.session import read_session

        session = read_session(self)
        if session is not None and session.is_watched:
            return ([], []), ([], [])
        data = self.parameters().data
        linked = {
            path.name for folder in (MDOCS, FRAMES) for path in (self.directory / folder).glob("*")
        }
        every = _matching(data.mdocs), [path.absolute() for path in find_movies(data.movies)]
        mdocs, movies = (
            [path for path in found if plain_name(path.name) not in linked] for found in every
        )
        return (mdocs, movies), every

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
        return [
            plain_name(path.name)
            for folder, paths in ((FRAMES, movies), (MDOCS, mdocs))
            for path in paths
            if make_link(self.directory / folder, path)
        ]

    # --- history ---------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """RELION's ledger as it is now.

        Raises:
            ProjectError: it is gone, although there are jobs: their numbers would be given again.
        """
        if not (self.directory / LEDGER_FILE).exists():
            jobs = sorted(self.directory.glob("*/job[0-9][0-9][0-9]*"))
            if jobs:
                newest = max(jobs, key=lambda path: path.name)
                raise ProjectError(
                    f"{self.directory / LEDGER_FILE} is missing, but there are {len(jobs)} jobs, "
                    f"such as {newest.relative_to(self.directory)}",
                    hint=f"each job keeps a copy from its start: take the newest, "
                    f"{newest.relative_to(self.directory)}/{LEDGER_FILE}, and check it in RELION",
                )
        return read_ledger(self.directory)

    def history(self, settings: Settings | None = None) -> list[PastJob]:
        """Every job in the ledger, with what its directory tells.

        Args:
            settings: to ask the scheduler whether a job that has said nothing still runs.
        """
        ledger = self.ledger()
        return [past_job(self.directory, ledger, process, settings) for process in ledger.processes]

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

    # --- planning --------------------------------------------------------------------------

    def plan(
        self,
        jobs: Sequence[str] | None = None,
        parameters: ProjectParameters | None = None,
        mode: Mode = "new",
        *,
        retry_failed: bool | None = None,
        settings: Settings | None = None,
    ) -> Plan:
        """What a run of `jobs` (default: all that have parameters) would do. Changes nothing.

        Args:
            retry_failed: see `crboost.plan.plan`.
            settings: the installation; without it nothing is said of what it lacks.

        Raises:
            PlanError: an input cannot be resolved, or nothing here can run a job.
            ParameterError: a job is not known.
        """
        chosen = parameters or self.parameters()
        nodes = list(dict.fromkeys(jobs or chosen.jobs))
        if not nodes:
            raise PlanError(
                "the parameters have no jobs, so there is nothing to plan",
                hint="name the jobs, such as `crboost plan PROJECT importmovies`",
            )
        nodes = with_prerequisites(nodes, chosen)
        check_frames(nodes, chosen)
        history = self.history(settings)
        wanted = {
            node: wanted_job(self.directory, node, chosen, settings if node in nodes else None)
            for node in with_prerequisites([*nodes, *chosen.jobs], chosen)
        }
        made = plan(history, [wanted[node] for node in nodes], mode=mode, retry_failed=retry_failed)
        natives = [node for node, job in wanted.items() if job.job_type.is_native]
        rescaled = {
            node: wanted_job(
                self.directory, node, chosen, settings if node in nodes else None, binning=binning
            )
            for node, binning in image_binnings(made, history, chosen, natives).items()
            if binning != chosen.effective(node).image_binning
        }
        if rescaled:
            wanted |= rescaled
            queue = [wanted[node] for node in nodes]
            made = plan(history, queue, mode=mode, retry_failed=retry_failed)
        made = replace(made, warnings=(*made.warnings, *left_out(history, wanted, nodes, mode)))
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


def _new_directory(path: Path | str) -> Path:
    """Where a new project will be.

    Raises:
        ProjectError: there is one already, or a file.
    """
    directory = Path(path).expanduser().absolute()
    if (directory / PARAMETERS_FILE).exists():
        raise ProjectError(
            f"{directory} already holds a project",
            hint="open it (`crboost status`), or choose another directory",
        )
    if directory.exists() and not directory.is_dir():
        raise ProjectError(f"{directory} is a file", hint="choose another directory")
    return directory


def _check_gain(gain: Path | None) -> None:
    from crboost.acquisition.gain import read_gain

    if gain is None:
        return
    if not gain.is_file():
        raise ProjectError(f"gain reference {gain}: no such file")
    read_gain(gain)


def check_apart(project: Path, watch: Sequence[Path]) -> None:
    """A project's own movies and tomograms must not look like new data.

    Raises:
        ProjectError: a watched directory is none, or it and the project lie in each other.
    """
    own = project.resolve()
    for directory in watch:
        watched = directory.expanduser().resolve()
        if not watched.is_dir():
            raise ProjectError(
                f"{directory} is not a directory", hint="it must exist before it can be watched"
            )
        if own == watched or watched in own.parents or own in watched.parents:
            raise ProjectError(
                f"the project {project} and the watched directory {directory} lie in each other",
                hint="put the project elsewhere: raw data are linked, not copied",
            )


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
