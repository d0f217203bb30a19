"""The installation: which schemer drives the queue, where RELION is. One site, one file.

Read from, in this order: `CRBOOST_*` environment variables, the TOML file that
`CRBOOST_SETTINGS` names (else `~/.config/crboost/settings.toml`), defaults. The defaults need
nothing but Python. `examples/settings.toml` shows every field.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from crboost.errors import CrboostError

EngineName = Literal["embedded", "relion"]


class Settings(BaseSettings):
    """What this installation uses to run jobs."""

    model_config = SettingsConfigDict(env_prefix="CRBOOST_", extra="forbid")

    schemer: Literal["auto", "embedded", "relion"] = Field(
        default="auto",
        description="Who walks the scheme: the embedded schemer, or relion_schemer. auto: "
        "relion_schemer if relion_command is set, else embedded.",
    )
    relion_command: list[str] = Field(
        default_factory=list,
        description="What to put before `relion_schemer`, such as an `apptainer exec` command.",
    )
    python: str = Field(
        default_factory=lambda: sys.executable,
        description="The Python interpreter with crboost that compute nodes can run.",
    )

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
        return "relion" if self.relion_command else "embedded"


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
        CrboostError: a value is not valid, or `relion` is asked for and cannot be found.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
        raise CrboostError(
            f"settings are not valid: {problems}",
            hint=f"look at {settings_file()} and at CRBOOST_* environment variables",
        ) from error
    if settings.engine == "relion":
        program = (settings.relion_command or ["relion_schemer"])[0]
        if shutil.which(program) is None:
            raise CrboostError(
                f"the relion schemer is chosen, but {program} cannot be found",
                hint="set CRBOOST_RELION_COMMAND, or CRBOOST_SCHEMER=embedded",
            )
    return settings
