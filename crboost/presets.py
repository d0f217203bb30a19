"""Presets: what is the same in every session at one microscope. A TOML file each.

    description = "Titan Krios with Gatan K3"
    [parameters]                              # dotted names, or tables, as in `crboost set`
    microscope.spherical_aberration_mm = 2.7
    [session]                                 # the fields of `SessionRules`
    quiet_minutes = 60

Those in `presets/` come with crboost; a site has its own in `service.presets`, which win where
both have one of a name.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from crboost.errors import CrboostError, FileFormatError, ParameterError
from crboost.parameters import ProjectParameters, job_type_of
from crboost.parameters.base import closest
from crboost.resources import resource_directory


class _Rules(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SessionPatience(_Rules):
    """How long the watcher waits; see `crboost.acquisition.arrivals.Patience`."""

    stable_seconds: float = Field(
        30.0, ge=0, description="A movie is finished when it has not changed for so long."
    )
    mdoc_quiet_seconds: float = Field(
        180.0, ge=0, description="An mdoc has stopped growing when it has not changed for so long."
    )
    partial_after_seconds: float = Field(
        3600.0, ge=0, description="A series without anything new for so long is taken as it is."
    )
    expected_tilts: int | None = Field(
        None, ge=1, description="A series with fewer tilts is not complete; none: the mdoc decides."
    )

    @model_validator(mode="after")
    def _in_order(self) -> SessionPatience:
        longest = max(self.stable_seconds, self.mdoc_quiet_seconds)
        if self.partial_after_seconds < longest:
            raise ValueError(
                f"partial_after_seconds = {self.partial_after_seconds:g} must not be less than "
                f"stable_seconds and mdoc_quiet_seconds ({longest:g} s)"
            )
        return self


class SessionRules(_Rules):
    """How a session is dealt with."""

    jobs: list[str] = Field(
        default_factory=list, description="Jobs to run when data arrive; empty: all."
    )
    patience: SessionPatience = Field(default_factory=SessionPatience)
    batch_seconds: float = Field(
        60.0, ge=0, le=3600, description="What arrives within so long is processed together."
    )
    poll_seconds: float | None = Field(
        None, gt=0, le=3600, description="Look so often; none: file events where there are any."
    )
    quiet_minutes: float | None = Field(
        120.0, gt=0, description="No new data for so long is news; none: never."
    )
    failed_series_threshold: int | None = Field(
        5, ge=1, description="So many failed tilt series are news; none: never."
    )


@dataclass(frozen=True)
class Preset:
    """A preset.

    Attributes:
        name: the file's, without `.toml`.
        path: the file.
        parameters: dotted name to value, all of them valid.
        session: how its sessions are dealt with.
    """

    name: str
    path: Path
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    session: SessionRules = field(default_factory=SessionRules)

    def applied_to(self, parameters: ProjectParameters) -> ProjectParameters:
        """The parameters with the preset's values, but for those that the user has set.

        Raises:
            ParameterError: together with the others a value is not allowed.
        """
        for node in {path.split(".")[1] for path in self.parameters if path.startswith("jobs.")}:
            parameters = parameters.with_job(node)
        free = {
            path: value
            for path, value in self.parameters.items()
            if parameters.origin(path).source != "user"
        }
        return parameters.with_values(free, source="preset", detail=self.name)

    def overruled(self, parameters: ProjectParameters) -> list[str]:
        """Its parameters for which the user has set another value."""
        before = self.applied_to(parameters)
        return [path for path in self.parameters if before.origin(path).source == "user"]


def preset_files(site: Path | None) -> dict[str, Path]:
    """The presets there are, by name: the site's over those that come with crboost.

    Raises:
        CrboostError: the site's directory is not there.
    """
    if site is not None and not site.is_dir():
        raise CrboostError(
            f"service.presets = {site}: no such directory", hint="correct the settings, or make it"
        )
    directories = [resource_directory("presets"), *([site] if site else [])]
    found = {path.stem: path for one in directories for path in one.glob("*.toml")}
    return dict(sorted(found.items()))


def find_preset(name: str, site: Path | None) -> Preset:
    """The preset of that name.

    Args:
        site: `settings.service.presets`.

    Raises:
        ParameterError: there is none, or it holds a name or value that is not allowed.
        FileFormatError: its file is not TOML.
    """
    files = preset_files(site)
    if name not in files:
        guess = closest(name, files)
        meant = f"; did you mean {guess}?" if guess else ""
        raise ParameterError(
            f"there is no preset {name!r}{meant}", hint=f"there are: {', '.join(files)}"
        )
    return read_preset(files[name])


def read_preset(path: Path) -> Preset:
    """Read a preset and check all that it says.

    Raises:
        FileFormatError: it is not TOML.
        ParameterError: it holds a name or value that is not allowed; names file and field.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(path, f"not valid TOML: {error}") from None
    unknown = sorted(raw.keys() - {"description", "parameters", "session"})
    if unknown:
        raise ParameterError(
            f"{path}: {unknown[0]}: there is no such field",
            hint="a preset has description, [parameters] and [session]",
        )
    description = raw.get("description", "")
    if not isinstance(description, str):
        raise ParameterError(f"{path}: description = {description!r}: must be text")
    parameters = raw.get("parameters", {})
    if not isinstance(parameters, dict):
        raise ParameterError(f"{path}: parameters = {parameters!r}: must be a table")
    try:
        session = SessionRules.model_validate(raw.get("session", {}))
        for node in session.jobs:
            job_type_of(node)
    except ValidationError as error:
        raise ParameterError(f"{path}: session.{problem_text(error)}") from None
    except ParameterError as error:
        raise ParameterError(f"{path}: session.jobs: {error.message}", hint=error.hint) from None
    preset = Preset(path.stem, path, description, _dotted(parameters), session)
    try:
        preset.applied_to(ProjectParameters.new("preset", datetime(2000, 1, 1, tzinfo=UTC)))
    except ParameterError as error:
        raise ParameterError(f"{path}: [parameters]: {error.message}", hint=error.hint) from None
    return preset


def problem_text(error: ValidationError) -> str:
    """The problems in pydantic's error as `field = value: what is wrong`, joined by semicolons."""
    texts = []
    for one in error.errors(include_url=False):
        where = ".".join(str(part) for part in one["loc"]) or "its content"
        if one["type"] == "extra_forbidden":
            texts.append(f"{where}: there is no such field")
            continue
        given = one.get("input")
        value = "" if isinstance(given, Mapping | list) or one["type"] == "missing" else given
        shown = f" = {value!r}" if value != "" else ""
        texts.append(f"{where}{shown}: {one['msg'].removeprefix('Value error, ')}")
    return "; ".join(texts)


def _dotted(tables: Mapping[str, Any], head: str = "") -> dict[str, Any]:
    """Nested tables as dotted names."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        path = f"{head}{key}"
        if isinstance(value, Mapping):
            found |= _dotted(value, f"{path}.")
        else:
            found[path] = value
    return found
