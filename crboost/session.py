"""A session: one stay at the microscope, with what is watched, for which project, and how.

It lives in its project (`.crboost/session.json`). Which sessions this machine has to serve is told
by the service directory: `sessions/<id>.json` names the project of each. A session is active, then
draining (it has been stopped, and the series that had begun come to their end), then ended; the
service knows it until what it brought has been processed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError, field_validator

from crboost.acquisition.arrivals import Patience
from crboost.errors import FileFormatError, ParameterError, ProjectError
from crboost.files import locked, read_json, write_json
from crboost.parameters import job_type_of
from crboost.presets import Preset, SessionRules, find_preset, problem_text
from crboost.project import STATE, Project, check_apart
from crboost.service.directory import ServiceDirectory

if TYPE_CHECKING:
    from crboost.acquisition.watch import Rhythm
    from crboost.settings import Settings

SESSION_FILE = "session.json"
SESSIONS = "sessions"


class Session(SessionRules):
    """One stay at the microscope.

    Attributes:
        id: never used for another session.
        watch: directories where mdocs and movies arrive, absolute.
        preset: name of the preset that it was started with.
        started, ended: UTC; a session that has not ended is active.
        draining: it has ended, but the tilt series that had begun are waited for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    watch: list[Path] = Field(min_length=1)
    preset: str | None = None
    started: AwareDatetime
    ended: AwareDatetime | None = None
    draining: bool = False

    @field_validator("watch")
    @classmethod
    def _absolute(cls, value: list[Path]) -> list[Path]:
        for path in value:
            if not path.is_absolute():
                raise ValueError(f"{path}: must be an absolute path")
        return value

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.ended is None

    @property
    def is_watched(self) -> bool:
        """Whether its data are still taken in."""
        return self.active or self.draining

    @property
    def state(self) -> Literal["active", "draining", "ended"]:
        """How it stands, in a word."""
        if self.active:
            return "active"
        return "draining" if self.draining else "ended"

    @property
    def watcher_patience(self) -> Patience:
        """How long the watcher waits for what."""
        return Patience(**self.patience.model_dump())

    @property
    def rhythm(self) -> Rhythm:
        """How often the watcher does what."""
        from crboost.acquisition.watch import Rhythm

        if self.poll_seconds is None:
            return Rhythm(batch_seconds=self.batch_seconds)
        return Rhythm(batch_seconds=self.batch_seconds, poll_seconds=self.poll_seconds)


@dataclass(frozen=True, slots=True)
class ActiveSession:
    """An entry of the service directory: a session that the service has to serve."""

    id: str
    project: Path


def session_file(project: Project) -> Path:
    """Where a project keeps its session."""
    return project.directory / STATE / SESSION_FILE


def read_session(project: Project) -> Session | None:
    """The project's session, active or ended; None if it never had one.

    Raises:
        FileFormatError: the file holds something else; names field and value.
    """
    path = session_file(project)
    try:
        value = read_json(path)
    except FileNotFoundError:
        return None
    try:
        return Session.model_validate(value)
    except ValidationError as error:
        raise FileFormatError(
            path,
            f"not a session: {problem_text(error)}",
            hint="correct it, or remove it and start the session again",
        ) from None


def write_session(project: Project, session: Session) -> None:
    """Write the project's session, whole or not at all."""
    write_json(session_file(project), session.model_dump(mode="json"))


def start_session(
    project_dir: Path,
    *,
    watch: Sequence[Path],
    preset: str | None,
    settings: Settings,
    now: datetime,
    rules: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
    name: str | None = None,
    gain: Path | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> Session:
    """Start a session; its project is made if there is none.

    Starting the same session again changes nothing but makes sure that the service knows of it.
    One that is draining makes way.

    Args:
        project_dir: a project, or where to make one.
        watch: directories where mdocs and movies arrive.
        preset: name of a preset.
        settings: where presets and the service directory are.
        now: with time zone.
        rules: fields of `SessionRules` that are not as in the preset, such as
            `{"jobs": [...], "patience": {"expected_tilts": 41}}`.
        values: parameters of the user, dotted name to value.
        name, gain: of a new project.
        notice: takes a line on what was not done.

    Raises:
        ProjectError: a directory is none, it and the project lie in each other, or the project's
            active session is another one.
        ParameterError: there is no such preset, or a value is not allowed. Then nothing is
            changed.
    """
    directory = Path(project_dir).expanduser().absolute()
    chosen = find_preset(preset, settings.service.presets) if preset else None
    session = Session(
        **_merged(chosen, rules or {}).model_dump(),
        id=f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        watch=list(dict.fromkeys(one.expanduser().resolve() for one in watch)),
        preset=chosen.name if chosen else None,
        started=now.astimezone(UTC),
    )
    check_apart(directory, session.watch)
    with _session_lock(directory):
        if Project.exists(directory):
            project = Project.open(directory)
            known = read_session(project)
            if known is not None and known.active:
                _check_same(project, known, session)
                session = known
            elif known is not None:
                if known.draining:
                    notice(f"session {known.id} has been waiting for its last tilt series")
                _entry(settings.service.directory, known).unlink(missing_ok=True)
            for what, given in (("name", name), ("gain reference", gain)):
                if given is not None:
                    notice(f"{directory} exists already: its {what} is left as it is")
            if chosen is not None:
                for path in project.apply_preset(chosen):
                    notice(f"{path} keeps the user's value, not that of preset {chosen.name}")
            if values:
                project.set_values(values, detail="crboost session start")
        else:
            project = Project.create_empty(
                directory,
                watch=session.watch,
                name=name,
                gain=gain,
                preset=chosen,
                values=values,
            )
        write_session(project, session)
    _register(settings.service.directory, session, project)
    return session


def end_session(project: Project, *, now: datetime, drain: bool = True) -> Session:
    """End the project's session; what has arrived stays, and jobs at work go on.

    Args:
        now: with time zone.
        drain: take in the tilt series that have begun, as soon as they are whole; otherwise they
            are left out. Ending a session that is draining without it ends that too.

    Raises:
        ProjectError: it has none, or it has ended.
    """
    with _session_lock(project.directory):
        session = read_session(project)
        if session is None:
            raise ProjectError(
                f"{project.directory} has no session", hint="start one with `crboost session start`"
            )
        if not session.is_watched:
            raise ProjectError(
                f"the session of {project.directory} ended at {session.ended:%Y-%m-%d %H:%M} UTC"
            )
        ended = now.astimezone(UTC) if session.active else session.ended
        session = session.model_copy(update={"ended": ended, "draining": drain})
        write_session(project, session)
    return session


def end_draining(project: Project, session: Session) -> None:
    """A session that has been stopped waits for nothing any more; another one is left alone."""
    with _session_lock(project.directory):
        known = read_session(project)
        if known is not None and known.id == session.id and known.draining:
            write_session(project, known.model_copy(update={"draining": False}))


def forget_session(project: Project, session: Session, *, settings: Settings) -> None:
    """What an ended session brought has been processed: the service need not serve it."""
    _entry(settings.service.directory, session).unlink(missing_ok=True)


def active_sessions(
    service_directory: Path, notice: Callable[[str], None] = lambda _: None
) -> list[ActiveSession]:
    """The sessions whose data are taken in, active or draining, by id; as `served_sessions`."""
    return [one for one, session in _served(service_directory, notice) if session.is_watched]


def served_sessions(
    service_directory: Path, notice: Callable[[str], None] = lambda _: None
) -> list[ActiveSession]:
    """The sessions that the service has to serve, by id; some have ended, and are processed.

    Args:
        service_directory: `settings.service.directory`.
        notice: takes a line for each entry that is skipped: its project is gone or cannot be read.
    """
    return [one for one, _ in _served(service_directory, notice)]


def _served(
    service_directory: Path, notice: Callable[[str], None]
) -> list[tuple[ActiveSession, Session]]:
    found = []
    for path in sorted((service_directory / SESSIONS).glob("*.json")):
        try:
            project = Project.open(_project_of(path))
            session = read_session(project)
        except FileNotFoundError:  # forgotten just now
            continue
        except (ProjectError, FileFormatError, OSError) as error:
            notice(f"session {path.stem} is skipped: {error}")
            continue
        if session is None or session.id != path.stem:
            notice(
                f"session {path.stem} is skipped: {project.directory} has "
                f"{f'session {session.id}' if session else 'no session'} now; remove {path}"
            )
        else:
            found.append((ActiveSession(session.id, project.directory), session))
    return found


def failed_series(project: Project) -> dict[str, str]:
    """The project's tilt series that failed in the newest job of a stage, and why."""
    from crboost import standing

    return standing.failed_series(standing.latest(project.history()))


def _merged(preset: Preset | None, rules: Mapping[str, Any]) -> SessionRules:
    """A preset's rules with others on top.

    Raises:
        ParameterError: a rule is not allowed.
    """
    base = preset.session.model_dump() if preset else SessionRules().model_dump()
    patience = {**base["patience"], **rules.get("patience", {})}
    try:
        merged = SessionRules.model_validate({**base, **rules, "patience": patience})
    except ValidationError as error:
        raise ParameterError(f"session: {problem_text(error)}") from None
    for node in merged.jobs:
        job_type_of(node)
    return merged


def _check_same(project: Project, known: Session, wanted: Session) -> None:
    """Refuse a second, different session.

    Raises:
        ProjectError: names the first difference.
    """
    own = {"id", "started", "ended", "draining"}
    before, after = known.model_dump(mode="json"), wanted.model_dump(mode="json")
    for field in before:
        if field not in own and before[field] != after[field]:
            raise ProjectError(
                f"{project.directory} has an active session, {known.id}, whose {field} is "
                f"{_shown(before[field])}, not {_shown(after[field])}",
                hint=f"end it first: crboost session stop {project.directory}",
            )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "empty"
    return "none" if value is None else str(value)


def session_entry(service_directory: Path, id: str) -> Path:
    """The file by which the service knows a session."""
    return service_directory / SESSIONS / f"{id}.json"


def _entry(service_directory: Path, session: Session) -> Path:
    return session_entry(service_directory, session.id)


def _register(service_directory: Path, session: Session, project: Project) -> None:
    ServiceDirectory(service_directory).prepare()
    write_json(_entry(service_directory, session), {"project": str(project.directory)})


def _project_of(entry: Path) -> Path:
    value = read_json(entry)
    if not isinstance(value, dict) or not isinstance(value.get("project"), str):
        raise FileFormatError(entry, "must be an object with the project's path", hint="remove it")
    return Path(value["project"])


@contextmanager
def _session_lock(project: Path) -> Iterator[None]:
    """Two starts at once make one session."""
    existed = project.exists()
    lock = project / STATE / "session.lock"
    try:
        with locked(lock):
            yield
    except BaseException:
        if not existed and not Project.exists(project):
            # Nothing was made: leave nothing behind.
            lock.unlink(missing_ok=True)
            for directory in (lock.parent, project):
                if directory.is_dir() and not any(directory.iterdir()):
                    directory.rmdir()
        raise
