"""Commands in containers: what `apptainer exec` is given, and nothing that it does not need.

`wrap` and what it uses decide without looking at a file; `real_locations`, `image_digest`,
`slurm_client_binds` and `relion_launch` look. Everything stays an argv list: quoting for a shell
happens once, where a list becomes a line of a script (`crboost.scheduler.template`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost.errors import CrboostError, ParameterError
from crboost.files import read_json, write_json
from crboost.relion.job import extra_environment
from crboost.scheduler.resources import extra_labels
from crboost.settings import BindSetting, ContainerSettings, Settings

#: What an outer container, or a user's shell, would have an inner one do.
_LEAKING = re.compile(
    r"(APPTAINER|SINGULARITY)_(BIND|BINDPATH|MOUNT|NAME|CONTAINER|COMMAND|ENVIRONMENT|NV|ROCM)$"
    r"|(APPTAINER|SINGULARITY)ENV_"
)
# `--bind` splits at commas and colons, loses carets, and trims blanks (apptainer's
# ParseBindPath); `--mount` takes CSV and keeps them.
_PLAIN_PATH = re.compile(r"[^,:^\"\\]*")
#: Slurm's commands that a schemer, or somebody who looks after it, calls.
_SLURM_COMMANDS = ("sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct")


@dataclass(frozen=True)
class Bind:
    """A path of the host that a container sees, under its own name unless told otherwise."""

    source: Path
    destination: Path | None = None
    read_only: bool = False

    @classmethod
    def of(cls, given: Bind | BindSetting | Path | str) -> Bind:
        """From a path or from the settings."""
        if isinstance(given, Bind):
            return given
        if isinstance(given, BindSetting):
            return cls(given.source, given.destination, given.read_only)
        return cls(Path(given))


# --- argv ------------------------------------------------------------------------------------


def wrap(
    argv: Sequence[str],
    tool: str,
    settings: Settings,
    *,
    cwd: Path,
    binds: Iterable[Bind | Path] = (),
    gpus: bool = False,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """The command that runs `argv` in the tool's container; `argv` itself for a native tool.

    Args:
        tool: which of `settings.tools`.
        cwd: working directory, absolute, the same inside and outside.
        binds: what the command needs to see: project, raw data (`needed_binds`).
        gpus: whether GPUs were asked for.
        environment: variables to set inside, over those of the tool's settings. The host's own
            do not get in.

    Raises:
        ParameterError: the tool is not in the settings, or a path cannot be bound.
    """
    where = settings.tool(tool)
    containers = settings.containers
    if where.image is None or containers.engine == "none":
        return list(argv)
    if not cwd.is_absolute():
        raise ParameterError(f"the working directory of {tool} is {cwd}; it must be absolute")
    variables = {**where.environment, **(environment or {})}
    every = [Bind.of(one) for one in (*binds, *containers.binds, *where.binds)]
    return [
        containers.command,
        "exec",
        "--cleanenv",
        *([] if containers.mount_home else ["--no-home"]),
        *environment_arguments(variables),
        *([containers.gpu_flag] if gpus else []),
        *bind_arguments(every),
        "--pwd",
        str(cwd),
        *containers.extra_args,
        str(where.image),
        *argv,
    ]


def bind_arguments(binds: Iterable[Bind]) -> list[str]:
    """`--bind`, or `--mount` where a path has characters that `--bind` takes for its own.

    Raises:
        ParameterError: a path is not absolute, is `/`, or has a line break.
    """
    arguments: list[str] = []
    for bind in dict.fromkeys(binds):
        source = str(bind.source)
        destination = str(bind.destination or bind.source)
        for path in (source, destination):
            if not path.startswith("/") or re.search(r"[\x00\r\n]", path):
                raise ParameterError(
                    f"{path!r} cannot be shown to a container: "
                    "it must be an absolute path without line breaks"
                )
        if destination == "/":
            raise ParameterError(
                "/ cannot be bound into a container: the image's own files would be hidden",
                hint="name the directories that the tool needs",
            )
        if all(_is_plain(path) for path in (source, destination)):
            parts = [source]
            if destination != source or bind.read_only:
                parts.append(destination)
            if bind.read_only:
                parts.append("ro")
            arguments += ["--bind", ":".join(parts)]
        else:
            fields = ["type=bind", _csv(f"source={source}"), _csv(f"destination={destination}")]
            if bind.read_only:
                fields.append("ro")
            arguments += ["--mount", ",".join(fields)]
    return arguments


def _is_plain(path: str) -> bool:
    return _PLAIN_PATH.fullmatch(path) is not None and path == path.strip()


def _csv(field: str) -> str:
    """One field of a CSV line, quoted where it has to be."""
    if any(character in field for character in ',"\n'):
        return '"' + field.replace('"', '""') + '"'
    return field


def environment_arguments(variables: Mapping[str, str]) -> list[str]:
    """`--env` for each variable; its values arrive as they are.

    Raises:
        ParameterError: a name is not a name, or a value has a carriage return or NUL.
    """
    arguments: list[str] = []
    evaluated = False
    for name, value in variables.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ParameterError(f"{name!r} is not the name of an environment variable")
        if "\r" in value or "\0" in value:
            raise ParameterError(f"environment variable {name} = {value!r}: control character")
        arguments += ["--env", _env_argument(name, value)]
        evaluated = evaluated or any(character in value for character in '$`"\\')
    # Without it apptainer lets a shell evaluate the values.
    return [*(["--no-eval"] if evaluated else []), *arguments]


def _env_argument(name: str, value: str) -> str:
    """One variable as `--env` takes it.

    With one `=` in it the argument is taken as it is, but loses double quotes at its ends; with
    more it is read as a line of CSV (spf13/pflag, stringToString). A second variable forces CSV.
    """
    argument = f"{name}={value}"
    if '"' in value:
        return f"CRBOOST_CONTAINER=1,{_csv(argument)}"
    return argument if "=" not in value else _csv(argument)


def allowed_environment(
    environ: Mapping[str, str], containers: ContainerSettings
) -> dict[str, str]:
    """The variables of `environ` that the site lets into its containers."""
    return {name: environ[name] for name in containers.environment if name in environ}


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what an outer container or a user's shell would do to an inner one."""
    return {name: value for name, value in environ.items() if not _LEAKING.match(name)}


def needed_binds(paths: Iterable[Path]) -> list[Path]:
    """The fewest of these absolute paths that have all others below them, sorted.

    `/` is never among them: a path directly below it is bound itself.
    """
    chosen: list[Path] = []
    for path in sorted({Path(os.path.normpath(path)) for path in paths}):
        if path != Path("/") and not any(path.is_relative_to(one) for one in chosen):
            chosen.append(path)
    return chosen


# --- what is on disk -------------------------------------------------------------------------


def real_locations(
    project_dir: Path,
    *,
    links_in: Sequence[str] = ("frames", "mdoc"),
    others: Iterable[Path] = (),
) -> list[Path]:
    """Where a project and its raw data are: the binds that its jobs need.

    A container follows a link by itself, so that every place on the way must be there under the
    name that the link uses: the directory of each link's target, and where that really is.

    Args:
        project_dir: absolute.
        links_in: directories of the project that hold links to raw data.
        others: further files or directories, such as a gain reference; absolute, or relative to
            the project.

    Returns:
        Places that exist: a container does not start where one to be bound is not there.
    """
    places = {project_dir, Path(os.path.realpath(project_dir))}
    seen: set[str] = set()
    for name in links_in:
        directory = project_dir / name
        if not directory.is_dir():
            continue
        places |= _steps(directory, seen)
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_symlink():
                    places |= _steps(Path(entry.path), seen)
    for other in others:
        places |= _way_to(Path(os.path.normpath(project_dir / other)), project_dir, seen)
    return needed_binds(place for place in places if place.exists())


def _way_to(path: Path, project_dir: Path, seen: set[str]) -> set[Path]:
    """What a container that sees the project has to see besides, so that `path` is there."""
    places: set[Path] = set()
    for _ in range(40):  # as many links as Linux itself follows
        if not path.is_relative_to(project_dir):
            return places | _steps(path, seen) | {_shown(path)}
        # In the project's tree a link stays one; a place that is bound by its name does not.
        between = [one for one in reversed(path.parents) if one.is_relative_to(project_dir)][1:]
        link = next((one for one in between if one.is_symlink()), None)
        if link is None:
            break
        places |= _steps(link, seen)
        target = os.path.normpath(link.parent / link.readlink())
        path = Path(target) / path.relative_to(link)
    return places | _steps(path, seen)


def _shown(path: Path) -> Path:
    """What to bind so that `path` is there: its directory, unless that is `/`."""
    return path if path.is_dir() or path.parent == Path("/") else path.parent


def _steps(path: Path, seen: set[str]) -> set[Path]:
    """The directories on the way from a link to the file that it leads to."""
    places: set[Path] = set()
    for _ in range(40):  # as many links as Linux itself follows
        if not path.is_symlink():
            break
        target = Path(os.path.normpath(path.parent / path.readlink()))
        if str(target.parent) not in seen:
            seen.add(str(target.parent))
            places.add(_shown(target))
            real = Path(os.path.realpath(target.parent))
            places.add(real if real != Path("/") else _shown(target))
        path = target
    return places


def check_image(tool: str, settings: Settings) -> Path | None:
    """The tool's image; None if it runs natively.

    Raises:
        ParameterError: the tool is not in the settings.
        CrboostError: the image, or the program that runs images, is not there.
    """
    where = settings.tool(tool)
    if where.image is None or settings.containers.engine == "none":
        return None
    if not where.image.exists():
        raise CrboostError(
            f"tools.{tool}.image = {where.image}: there is no such image on this machine",
            hint="correct the path; compute nodes need to see it too",
        )
    if shutil.which(settings.containers.command) is None:
        raise CrboostError(
            f"{settings.containers.command}, which runs container images, cannot be found",
            hint="set containers.executable to its absolute path",
        )
    return where.image


def image_digest(image: Path, cache: Path) -> str:
    """`sha256:...` of an image file; of a sandbox directory, of its definition.

    Args:
        cache: JSON file of digests known, by path, size and time of change.

    Raises:
        CrboostError: there is no such image.
    """
    try:
        status = image.stat()
    except OSError as error:
        raise CrboostError(f"{image}: cannot read the image: {error.strerror}") from error
    if image.is_dir():
        labels = image / ".singularity.d" / "labels.json"
        content = labels.read_bytes() if labels.is_file() else b""
        return f"sandbox-labels-sha256:{hashlib.sha256(content).hexdigest()}"
    key = f"{image}:{status.st_size}:{status.st_mtime_ns}"
    known = read_json(cache) if cache.is_file() else {}
    if key not in known:
        with image.open("rb") as stream:
            known[key] = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
        write_json(cache, known)
    return str(known[key])


# --- the schemer in its container ------------------------------------------------------------


@dataclass(frozen=True)
class RelionLaunch:
    """How `relion_schemer` is started: the arguments of `RelionEngine`."""

    argv_prefix: list[str]
    program: str
    environ: dict[str, str]


def relion_launch(
    settings: Settings,
    project_dir: Path,
    *,
    environ: Mapping[str, str],
    client_binds: Iterable[Bind] | None = None,
    project_binds: Iterable[Path] | None = None,
    files: Iterable[str] = (),
) -> RelionLaunch:
    """How to start relion_schemer on a project so that it can submit jobs from its container.

    Args:
        environ: this process's environment.
        client_binds: the scheduler's client; default: what the settings name, else what
            `slurm_client_binds` finds.
        project_binds: default: `real_locations` of the project and of `files`.
        files: what the parameters of the run's jobs name: where jobs are not submitted, they run
            in this container.

    Raises:
        ParameterError: the settings have no tools.relion.
        CrboostError: its image is not there.
    """
    relion = settings.tool("relion")
    variables = schemer_environment(settings)
    program = relion.executable or "relion_schemer"
    if check_image("relion", settings) is None:
        return RelionLaunch([], program, {**clean_environment(environ), **variables})
    if client_binds is None:
        client_binds = _client_binds(settings)
    if project_binds is None:
        project_binds = real_locations(project_dir, others=[Path(file) for file in files])
    prefix = wrap(
        [],
        "relion",
        settings,
        cwd=project_dir,
        binds=[*(Bind.of(place) for place in project_binds), *client_binds],
        environment=variables,
    )
    return RelionLaunch(prefix, program, clean_environment(environ))


def schemer_environment(settings: Settings) -> dict[str, str]:
    """The variables that relion_schemer itself needs."""
    scheduler = settings.scheduler
    variables = dict(settings.relion.environment)
    if scheduler.kind != "local":
        variables |= extra_environment(extra_labels(scheduler))
        variables |= {"RELION_QSUB_COMMAND": scheduler.submit}
    if scheduler.kind == "slurm":
        # Keeps the container's own PATH and LD_LIBRARY_PATH out of the jobs.
        variables |= {"SBATCH_EXPORT": "NONE"}
    return variables


def _client_binds(settings: Settings) -> list[Bind]:
    if settings.relion.client_binds is not None:
        return [Bind.of(one) for one in settings.relion.client_binds]
    return slurm_client_binds() if settings.scheduler.kind == "slurm" else []


def slurm_client_binds(path: str | None = None) -> list[Bind]:
    """What of this host's Slurm a container needs so that sbatch works in it.

    Args:
        path: where to look for the commands; default: PATH.

    Raises:
        CrboostError: there is no sbatch.
    """
    found = [which for name in _SLURM_COMMANDS if (which := shutil.which(name, path=path))]
    if not any(Path(one).name == "sbatch" for one in found):
        raise CrboostError(
            "sbatch cannot be found on this machine, so a schemer could not submit jobs",
            hint="run crboost where sbatch is, or set relion.client_binds",
        )
    candidates = [Path(one) for one in found]
    configuration = os.environ.get("SLURM_CONF")
    if configuration:
        candidates.append(Path(configuration).parent)
    candidates += [
        Path(one)
        for one in (
            "/etc/slurm",
            "/etc/slurm-llnl",
            "/run/slurm",  # configuration of a cluster without slurm.conf files
            "/run/munge",
            "/var/run/munge",
            "/etc/passwd",
            "/etc/group",
            "/var/lib/sss/pipes",  # users that are known to a directory server only
        )
    ]
    for library in _libraries(Path(found[0])):
        if "slurm" in library.parent.name:
            candidates.append(library.parent)  # with its plug-ins
        elif "slurm" in library.name:
            candidates += [library, *_plugin_directories(library.parent)]
        for directory in (library.parent, library.parent.parent):
            candidates += sorted(directory.glob("libmunge.so.*"))
    # /var/run is a link to /run: one of the two is enough in a container without the link.
    unique: dict[str, Path] = {}
    for candidate in candidates:
        if candidate.exists():
            unique.setdefault(os.path.realpath(candidate) + candidate.name, candidate)
    kept = needed_binds(unique.values())
    return [Bind(one) for one in kept]


def _plugin_directories(library_dir: Path) -> list[Path]:
    return [one for one in (library_dir / "slurm", library_dir / "slurm-wlm") if one.is_dir()]


def _libraries(program: Path) -> list[Path]:
    """The shared libraries of a program, as the dynamic linker finds them."""
    try:
        done = subprocess.run(
            ["ldd", str(program)], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [Path(one) for one in re.findall(r"=> (/\S+)", done.stdout)]
