"""A defocus as Warp keeps it -> RELION's three columns. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from crboost.translate.tables import Row

ANGSTROM_PER_UM = 1e4
#: Warp keeps phase shifts in units of pi.
DEGREES_PER_PHASE_UNIT = 180.0


@dataclass(frozen=True)
class Defocus:
    """A fitted defocus in Warp's terms.

    Attributes:
        defocus_um: the mean of both axes, positive for underfocus.
        delta_um: the astigmatism, long axis minus short axis. Warp's own export to RELION is
            U, V = defocus +- delta / 2 (`ExportParticlesTiltseries.cs`); its model too:
            defocus + delta / 2 cos 2(angle - axis) (`CTF.cs`, `Get2D`).
        angle_deg: of the long axis, counter-clockwise from +x.
        phase_shift_deg: of a phase plate.
    """

    defocus_um: float
    delta_um: float
    angle_deg: float
    phase_shift_deg: float = 0.0

    @property
    def u_angstrom(self) -> float:
        return (self.defocus_um + abs(self.delta_um) / 2) * ANGSTROM_PER_UM

    @property
    def v_angstrom(self) -> float:
        return (self.defocus_um - abs(self.delta_um) / 2) * ANGSTROM_PER_UM

    @property
    def u_angle_deg(self) -> float:
        """The angle of U, in [0, 180): a negative delta means that the angle is V's."""
        return (self.angle_deg + (90.0 if self.delta_um < 0 else 0.0)) % 180.0

    def columns(self) -> Row:
        columns: Row = {
            "rlnDefocusU": self.u_angstrom,
            "rlnDefocusV": self.v_angstrom,
            "rlnCtfAstigmatism": self.u_angstrom - self.v_angstrom,
            "rlnDefocusAngle": self.u_angle_deg,
        }
        if self.phase_shift_deg:
            columns["rlnPhaseShift"] = self.phase_shift_deg
        return columns
