"""The installation: schemer, containers, tools, scheduler, service. One site, one file.

Read from, in this order: `CRBOOST_*` environment variables (`CRBOOST_TOOLS__RELION__IMAGE=...`),
the TOML file that `CRBOOST_SETTINGS` names (else `~/.config/crboost/settings.toml`), defaults.
The defaults need nothing but Python. `examples/settings.toml` shows every field.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from crboost.errors import CrboostError, FileFormatError, ParameterError

#: Fields whose value is not shown when it is wrong.
_SECRETS = ("database_url",)

EngineName = Literal["embedded", "relion"]
SchedulerKind = Literal["local", "slurm", "pbs", "sge", "lsf"]

#: The programs that jobs can need. The embedded CPU tools need no entry; with one, they run in
#: that image.
KNOWN_TOOLS = (
    "cpu",
    "relion",
    "warp",
    "aretomo2",
    "aretomo3",
    "imod",
    "cryocare",
    "pytom",
    "membrain",
    "ctffind",
)

#: What XXXextra1XXX, XXXextra2XXX, ... stand for, unless the site says otherwise. The templates
#: that come with crboost are written for these.
DEFAULT_EXTRA: Mapping[SchedulerKind, tuple[str, ...]] = {
    "local": (),
    "slurm": ("partition", "constraint", "nodes", "ntasks", "cpus", "gres", "mem", "time"),
    "pbs": ("partition", "nodes", "cpus", "ntasks", "mem", "gpus", "time"),
    "sge": ("partition", "cpus", "mem_per_cpu", "gpus", "time"),
    "lsf": ("partition", "cpus", "mem", "gpus", "time"),
}
DEFAULT_SUBMIT_COMMAND: Mapping[SchedulerKind, str] = {
    "local": "",
    "slurm": "sbatch",
    "pbs": "qsub",
    "sge": "qsub",
    "lsf": "bsub",
}


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BindSetting(_Group):
    """A path of the host that a container sees. A string is a path seen under its own name."""

    source: Path = Field(description="Path on the host, absolute.")
    destination: Path | None = Field(
        default=None, description="Path in the container; default: the same."
    )
    read_only: bool = Field(default=False, description="The container may not write there.")

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("source", "destination")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value


class ContainerSettings(_Group):
    """How tools that come as container images are run."""

    engine: Literal["apptainer", "singularity", "none"] = Field(
        default="apptainer", description="none: images are ignored, every tool runs natively."
    )
    executable: str | None = Field(
        default=None,
        description="Path of apptainer where jobs run; default: the engine's name, from PATH.",
    )
    binds: list[BindSetting] = Field(
        default_factory=list,
        description="What every container sees besides the project and the raw data.",
    )
    environment: list[str] = Field(
        default=[
            "CUDA_VISIBLE_DEVICES",
            "GPU_DEVICE_ORDINAL",
            "ROCR_VISIBLE_DEVICES",
            "OMP_NUM_THREADS",
            "TZ",
        ],
        description="Variables of the job that its containers see; no other gets in.",
    )
    extra_args: list[str] = Field(
        default_factory=list, description="Further arguments of `apptainer exec`."
    )
    mount_home: bool = Field(
        default=False,
        description="Show the user's home directory (and the Python packages in it) to containers.",
    )
    gpu_flag: str = Field(default="--nv", description="Gives a container the GPUs; AMD: --rocm.")

    @field_validator("environment")
    @classmethod
    def _names(cls, value: list[str]) -> list[str]:
        for name in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is not the name of an environment variable")
        return value

    @property
    def command(self) -> str:
        """The program that runs containers."""
        return self.executable or self.engine


class ToolSettings(_Group):
    """Where one tool is: in an image, or on the machines themselves."""

    image: Path | None = Field(default=None, description="Container image, absolute path.")
    executable: str | None = Field(
        default=None,
        description="Its program; in the image, if there is one. Of relion: its relion_schemer.",
    )
    version: str | None = Field(default=None, description="For the record, and for doctor.")
    binds: list[BindSetting] = Field(
        default_factory=list, description="What this tool's containers see in addition."
    )
    environment: dict[str, str] = Field(
        default_factory=dict, description="Variables that this tool needs."
    )

    @field_validator("image")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.expanduser().is_absolute():
            raise ValueError("must be an absolute path")
        return value.expanduser() if value is not None else None

    @model_validator(mode="after")
    def _somewhere(self) -> ToolSettings:
        if self.image is None and not self.executable:
            raise ValueError("needs an image or an executable")
        return self


class ResourceRequest(_Group):
    """What to ask a scheduler for. What is not set is left to what comes before, or to it."""

    partition: str | None = Field(default=None, description="Partition or queue.")
    constraint: str | None = Field(default=None, description="Features of the node.")
    nodes: int | None = Field(default=None, ge=1, description="Nodes of one job.")
    tasks: int | None = Field(default=None, ge=1, description="Tasks (MPI processes).")
    cpus: int | None = Field(default=None, ge=1, description="CPUs of each task.")
    gpus: int | None = Field(default=None, ge=0, description="GPUs of each node.")
    memory_gb: int | None = Field(default=None, ge=1, description="Memory of each node, GB.")
    time_limit_minutes: int | None = Field(default=None, ge=1, description="Wall time, minutes.")
    array: bool | None = Field(
        default=None,
        description="Run each tilt series as a task of its own; the rest is then what one of these "
        "tasks asks for.",
    )
    per_gpu: int | None = Field(
        default=None, ge=1, description="Tilt series side by side on one GPU; 1 where nobody says."
    )
    site: dict[str, str] = Field(
        default_factory=dict,
        description="Fields of the site's own that `extra` names: account, qos, ...",
    )


class SchedulerSettings(_Group):
    """Who runs the jobs, and with which resources."""

    kind: SchedulerKind = Field(default="local", description="local: on this machine.")
    submit_command: str | None = Field(
        default=None, description="Default: sbatch, qsub or bsub, from PATH."
    )
    template: str | None = Field(
        default=None,
        description="Submission template of drivers: a file of qsub/ or an absolute path. "
        "Default: slurm_cpu.sh, pbs.sh, ...",
    )
    template_gpu: str | None = Field(default=None, description="The same for jobs with GPUs.")
    template_relion: str | None = Field(
        default=None, description="The same for jobs whose command is RELION's own."
    )
    extra: list[str] | None = Field(
        default=None,
        description="What XXXextra1XXX, XXXextra2XXX, ... stand for in the templates, in order.",
    )
    gpu_resource: str = Field(
        default="gpu:{gpus}", description="How GPUs are asked for in Slurm's --gres."
    )
    defaults: ResourceRequest = Field(
        default_factory=ResourceRequest, description="Resources of every job."
    )
    gpu_defaults: ResourceRequest = Field(
        default_factory=ResourceRequest, description="On top of that: of jobs with GPUs."
    )
    jobs: dict[str, ResourceRequest] = Field(
        default_factory=dict, description="On top of that: by job type."
    )
    array: bool | Literal["auto"] = Field(
        default="auto",
        description="Run tilt series as tasks of a Slurm job array. auto: the jobs whose resources "
        "say so, or whose array limit the user has set.",
    )
    coordinator: ResourceRequest = Field(
        default_factory=ResourceRequest,
        description="Resources of the job that submits such an array and waits for it.",
    )
    modules: list[str] = Field(
        default_factory=list, description="Environment modules to load in every job."
    )
    setup: list[str] = Field(
        default_factory=list, description="Shell lines at the start of every job."
    )
    max_memory_gb: int = Field(
        default=512, ge=1, description="A retry after out-of-memory asks for no more."
    )
    max_time_limit_minutes: int = Field(
        default=7 * 24 * 60, ge=1, description="A retry after a time limit asks for no more."
    )
    poll_s: float = Field(
        default=30.0, gt=0, description="How often the scheduler is asked for a job, seconds."
    )

    @field_validator("gpu_resource")
    @classmethod
    def _has_number(cls, value: str) -> str:
        if "{gpus}" not in value:
            raise ValueError("must contain {gpus}, the number of GPUs")
        return value

    @field_validator("modules", "setup")
    @classmethod
    def _one_line(cls, value: list[str], info: ValidationInfo) -> list[str]:
        for line in value:
            if "\n" in line or "XXX" in line:
                raise ValueError(f"{line!r}: one line each, without XXX")
        return value

    @property
    def fields(self) -> tuple[str, ...]:
        """What XXXextra1XXX, XXXextra2XXX, ... stand for."""
        return tuple(self.extra) if self.extra is not None else DEFAULT_EXTRA[self.kind]

    @property
    def submit(self) -> str:
        """The command that submits a script."""
        return self.submit_command or DEFAULT_SUBMIT_COMMAND[self.kind]


class RelionSettings(_Group):
    """What RELION itself needs to be told."""

    environment: dict[str, str] = Field(
        default_factory=dict,
        description="Variables of the schemer and of RELION's own jobs, such as "
        "RELION_CTFFIND_EXECUTABLE.",
    )
    client_binds: list[BindSetting] | None = Field(
        default=None,
        description="What a schemer in a container needs to submit jobs: the scheduler's programs, "
        "libraries, configuration and sockets. Default: found on the host.",
    )
    mpirun: list[str] = Field(
        default=["mpirun", "-n", "XXXmpinodesXXX"],
        description="Goes before the commands of RELION jobs with more than one MPI process.",
    )


def default_service_directory() -> Path:
    """`crboost` in `$XDG_STATE_HOME`, or in `~/.local/state`."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "crboost"


News = Literal["failed-run", "failed-tilt-series", "quiet", "stuck", "finished"]


class ChannelSettings(_Group):
    """One place where the service sends messages: a Slack channel, e-mail addresses, ..."""

    name: str = Field(
        pattern="^[a-z0-9][a-z0-9-]*$", description="What it is called: small letters, digits, -."
    )
    url: str | None = Field(
        default=None,
        repr=False,
        description="Slack's webhook, mailto://SMTP_HOST?from=...&to=..., or what else Apprise "
        "knows.",
    )
    url_file: Path | None = Field(
        default=None, description="File with the url, for whom settings are not secret enough."
    )
    news: list[News] = Field(
        default_factory=lambda: list(get_args(News)),
        min_length=1,
        description="What is sent there. Default: everything.",
    )

    @model_validator(mode="after")
    def _one_address(self) -> ChannelSettings:
        if (self.url is None) == (self.url_file is None):
            raise ValueError(f"channel {self.name!r} needs either url or url_file")
        return self

    def address(self) -> str:
        """The url, from wherever it stands.

        Raises:
            ParameterError: `url_file` cannot be read, or has not one line.
        """
        if self.url is not None:
            return self.url
        assert self.url_file is not None
        path = self.url_file.expanduser()
        try:
            lines = path.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(
                f"service.notify: channel {self.name!r}: url_file = {path} cannot be read: {error}"
            ) from None
        if len(lines) != 1:
            raise ParameterError(
                f"service.notify: channel {self.name!r}: {path} must hold one line, the url"
            )
        return lines[0]


class ServiceSettings(_Group):
    """What `crboost up` keeps running on a headnode: Prefect's server, a worker, the watcher."""

    directory: Path = Field(
        default_factory=default_service_directory,
        description="State of the service (database, password, logs, sessions), absolute path on a "
        "local disk. Default: ~/.local/state/crboost.",
    )
    host: str = Field(
        default="127.0.0.1", description="Address that the server listens on; 0.0.0.0: all."
    )
    port: int = Field(default=4200, ge=1, le=65535, description="Port of server and web page.")
    auth: bool = Field(
        default=True, description="Ask for a login, which is made when the service first starts."
    )
    database_url: str | None = Field(
        default=None,
        repr=False,
        description="postgresql+asyncpg://user:password@host/database. Default: SQLite, in the "
        "directory.",
    )
    runs_at_once: int = Field(
        default=12,
        ge=1,
        description="Flow runs at the same time that process projects, of all projects together; "
        "up to three of one project.",
    )
    restart_seconds: float = Field(
        default=1.0,
        gt=0,
        le=300,
        description="Pause before what has died is started again; doubled each time it dies "
        "early, up to a minute.",
    )
    presets: Path | None = Field(
        default=None, description="Directory with the site's own session presets, absolute path."
    )
    notify: list[ChannelSettings] = Field(
        default_factory=list, description="Who is told of failures, silence and ends of sessions."
    )

    @field_validator("notify")
    @classmethod
    def _names_differ(cls, value: list[ChannelSettings]) -> list[ChannelSettings]:
        names = [channel.name for channel in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two channels are called {name!r}")
        return value

    @field_validator("directory", "presets")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        if not value.expanduser().is_absolute():
            raise ValueError("must be an absolute path")
        return value.expanduser()

    @field_validator("database_url")
    @classmethod
    def _asynchronous(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("postgresql+asyncpg://"):
            raise ValueError("must begin with postgresql+asyncpg://; leave it out for SQLite")
        return value

    @model_validator(mode="after")
    def _closed(self) -> ServiceSettings:
        if not self.auth and not is_loopback(self.host):
            raise ValueError(
                f"host {self.host} without a login would let anybody run jobs: auth = true, or "
                "host = 127.0.0.1"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Settings(BaseSettings):
    """What this installation uses to run jobs."""

    model_config = SettingsConfigDict(
        env_prefix="CRBOOST_", env_nested_delimiter="__", extra="forbid"
    )

    schemer: Literal["auto", "embedded", "relion"] = Field(
        default="auto",
        description="Who walks the scheme: the embedded schemer, or relion_schemer. auto: "
        "relion_schemer if tools.relion is there, else embedded.",
    )
    python: str = Field(
        default_factory=lambda: sys.executable,
        description="The Python interpreter with crboost that compute nodes can run.",
    )
    containers: ContainerSettings = Field(default_factory=ContainerSettings)
    tools: dict[str, ToolSettings] = Field(
        default_factory=dict, description=f"By name: {', '.join(KNOWN_TOOLS)}."
    )
    scheduler: SchedulerSettings = Field(default_factory=SchedulerSettings)
    relion: RelionSettings = Field(default_factory=RelionSettings)
    # Not for runs, whose settings are frozen into the project for others to read.
    service: ServiceSettings = Field(default_factory=ServiceSettings, exclude=True)

    @field_validator("tools")
    @classmethod
    def _known(cls, value: dict[str, ToolSettings]) -> dict[str, ToolSettings]:
        for name in value:
            if name not in KNOWN_TOOLS:
                close = difflib.get_close_matches(name, KNOWN_TOOLS, 1)
                meant = f"did you mean {close[0]}?" if close else f"known: {', '.join(KNOWN_TOOLS)}"
                raise ValueError(f"there is no tool {name!r}; {meant}")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over the site's file."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=settings_file())
        return init_settings, env_settings, toml

    @property
    def engine(self) -> EngineName:
        """The schemer engine that `schemer` stands for here."""
        if self.schemer != "auto":
            return self.schemer
        return "relion" if "relion" in self.tools else "embedded"

    def tool(self, name: str) -> ToolSettings:
        """The settings of one tool.

        Raises:
            ParameterError: this installation has none.
        """
        if name not in self.tools:
            raise ParameterError(
                f"the settings have no tools.{name}, which this job needs",
                hint=f"add [tools.{name}] with an image or an executable to {settings_file()}, "
                "or choose another tool",
            )
        return self.tools[name]


def settings_file() -> Path:
    """The site's settings file, whether or not it exists."""
    named = os.environ.get("CRBOOST_SETTINGS")
    if named:
        return Path(named)
    config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(config).expanduser() / "crboost" / "settings.toml"


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        ParameterError: values that are not allowed; names file or variable, field and value.
        FileFormatError: the file is not TOML; names the line.
        CrboostError: `relion` is asked for and cannot be found; CRBOOST_SETTINGS names no file.
    """
    if os.environ.get("CRBOOST_SETTINGS") and not settings_file().is_file():
        raise CrboostError(
            f"CRBOOST_SETTINGS = {settings_file()}: no such file",
            hint="correct the variable, or unset it to work with the defaults",
        )
    try:
        settings = Settings()
    except ValidationError as error:
        problems = [_problem(each) for each in error.errors(include_url=False)]
        raise ParameterError(
            "the settings are not valid:\n" + "\n".join(f"  {each}" for each in problems),
            hint="examples/settings.toml shows every field",
        ) from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise FileFormatError(
            settings_file(), f"not valid TOML: {error}", line=int(line[1]) if line else None
        ) from None
    _check_relion(settings)
    return settings


def _problem(error: Any) -> str:
    """`where: field = value: what is wrong` of one of pydantic's errors."""
    location = [str(part) for part in error["loc"]]
    variable = next(
        (
            name
            for end in range(len(location), 0, -1)
            for name in os.environ
            if name.upper() == "CRBOOST_" + "__".join(location[:end]).upper()
        ),
        None,
    )
    where = f"environment variable {variable}" if variable else str(settings_file())
    given = error.get("input")
    hidden = isinstance(given, Mapping) or bool(set(location) & set(_SECRETS))
    value = "" if hidden else f" = {given!r}"
    if error["type"] == "extra_forbidden":
        return f"{where}: {'.'.join(location)}: there is no such setting"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {'.'.join(location)}{value}: {message}"


def _check_relion(settings: Settings) -> None:
    """The relion engine needs a RELION that is there."""
    if settings.engine != "relion":
        return
    if "relion" not in settings.tools:
        raise CrboostError(
            "schemer = relion, but the settings have no tools.relion",
            hint="set CRBOOST_TOOLS__RELION__IMAGE, or CRBOOST_SCHEMER=embedded",
        )
    relion = settings.tools["relion"]
    if relion.image is not None and settings.containers.engine != "none":
        if not relion.image.exists():
            raise CrboostError(
                f"tools.relion.image = {relion.image}: there is no such image",
                hint="correct the path, or set CRBOOST_SCHEMER=embedded",
            )
        program = settings.containers.command
    else:
        program = relion.executable or "relion_schemer"
    if shutil.which(program) is None:
        raise CrboostError(
            f"the relion schemer is chosen, but {program} cannot be found",
            hint="set containers.executable or tools.relion, or CRBOOST_SCHEMER=embedded",
        )
