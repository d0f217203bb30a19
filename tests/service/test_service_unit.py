"""The systemd unit of examples/ starts what there is."""

from __future__ import annotations

import configparser
import shlex

from typer.main import get_command

from crboost.cli.app import app
from crboost.resources import resource_directory


def test_the_unit_starts_the_service_and_spares_the_jobs() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    assert unit.read(resource_directory("examples") / "crboost.service")
    service = unit["Service"]
    program, command, *options = shlex.split(service["ExecStart"])
    assert program.endswith("/crboost")
    up = get_command(app).commands[command]  # type: ignore[attr-defined]
    known = {name for parameter in up.params for name in parameter.opts}
    assert options == ["--foreground"] and set(options) <= known
    # The default would end the schemers and drivers that live in the unit's group.
    assert service["KillMode"] == "process"
    assert service["Restart"] == "on-failure"
    assert unit["Install"]["WantedBy"] == "default.target"
