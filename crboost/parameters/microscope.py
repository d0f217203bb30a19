"""What the microscope is: the same for every movie of a session."""

from __future__ import annotations

from typing import Literal

from crboost.parameters.base import ParameterModel, field, number_text

USUAL_VOLTAGES_KV = (100.0, 120.0, 200.0, 300.0)


class Microscope(ParameterModel):
    """The microscope and its optics."""

    microscope_type: Literal["Krios_G3", "Krios_G4", "Glacios", "Talos", "Custom"] = field(
        "Custom", title="Model", description="The model of the microscope."
    )
    pixel_size_angstrom: float = field(
        1.35,
        title="Pixel size",
        description="Pixel size of the movies as they are on disk, before any binning.",
        unit="Å",
        ge=0.5,
        le=10,
    )
    acceleration_voltage_kv: float = field(
        300.0,
        title="Voltage",
        description="Acceleration voltage. Warned about unless 100, 120, 200 or 300.",
        unit="kV",
        ge=80,
        le=1000,
    )
    spherical_aberration_mm: float = field(
        2.7,
        title="Spherical aberration",
        description="Spherical aberration (Cs) of the objective lens.",
        unit="mm",
        ge=0,
        le=10,
    )
    amplitude_contrast: float = field(
        0.1,
        title="Amplitude contrast",
        description="Fraction of amplitude contrast (Q0) in the CTF.",
        ge=0,
        le=1,
    )

    def warnings(self) -> list[str]:
        """What is allowed but unusual."""
        voltage = self.acceleration_voltage_kv
        if voltage in USUAL_VOLTAGES_KV:
            return []
        usual = ", ".join(number_text(kv) for kv in USUAL_VOLTAGES_KV)
        return [
            f"microscope.acceleration_voltage_kv = {number_text(voltage)} kV: "
            f"unusual (usual are {usual} kV)"
        ]
