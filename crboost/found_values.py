"""Parameter values that the raw data tell, beside those that somebody has chosen. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from crboost.errors import ParameterError
from crboost.parameters import ProjectParameters
from crboost.parameters.origin import plain

if TYPE_CHECKING:
    from crboost.acquisition.collect import ParameterFinding

#: Values of a parameter are the same that differ by less than this part of them.
SAME_VALUE = 0.005

#: What the mdoc of a tilt series may say of it alone, unless somebody has chosen a value.
OF_OPTICS_GROUP = ("microscope.pixel_size_angstrom", "microscope.acceleration_voltage_kv")


def with_found_values(
    parameters: ProjectParameters, found: Iterable[ParameterFinding]
) -> tuple[ProjectParameters, list[str]]:
    """Parameters with the values that mdocs tell, and warnings of those that were not taken.

    A value that a user or a preset has chosen stays.
    """
    warnings: list[str] = []
    for one in found:
        if one.path == "acquisition.gain_reference_path":
            continue  # it follows data.gain_reference
        try:
            if parameters.origin(one.path).is_chosen:
                warnings += contradiction(parameters, one)
                continue
            parameters = parameters.with_values(
                {one.path: one.value}, source="mdoc", detail=one.detail
            )
        except ParameterError as error:  # one odd mdoc value must not stop the import
            warnings.append(f"{one.detail}: not taken: {error}")
    return parameters, warnings


def contradiction(parameters: ProjectParameters, found: ParameterFinding) -> list[str]:
    """A word on a value that the data do not agree with."""
    chosen = parameters.value(found.path)
    if isinstance(chosen, str):  # names: a camera's is only guessed
        return []
    if isinstance(chosen, float) and isinstance(found.value, int | float):
        same = math.isclose(chosen, found.value, rel_tol=SAME_VALUE)
    else:
        same = plain(chosen) == plain(found.value)
    if same:
        return []
    origin = parameters.origin(found.path)
    if not origin.is_chosen and found.path in OF_OPTICS_GROUP:
        return [
            f"{found.detail} says {found.value}, the project has {found.path} = {chosen}: the tilt "
            "series gets an optics group of its own"
        ]
    return [f"{found.path} stays {chosen} ({origin}), but {found.detail} says {found.value}"]
