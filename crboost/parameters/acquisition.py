"""How the data were taken: dose, tilt scheme, camera, sample."""

from __future__ import annotations

from typing import Literal

from crboost.parameters.base import ParameterModel, field
from crboost.parameters.shaped_text import ImageSize

DEFAULT_EER_FRAMES_PER_FRACTION = 32
"""Taken for EER movies when `acquisition.eer_frames_per_fraction` is None."""


class Acquisition(ParameterModel):
    """How the tilt series were taken, and what the sample is."""

    dose_per_tilt_e_per_a2: float = field(
        3.0,
        title="Dose per tilt",
        description="Electron dose on the sample during one tilt, before its calibration.",
        unit="e/Å²",
        ge=0.1,
        le=9,
    )
    dose_calibration_factor: float = field(
        1.0,
        title="Dose calibration",
        description="Every dose is multiplied by this: true dose divided by recorded dose.",
        ge=0.1,
        le=10,
    )
    frame_dose_e_per_a2: float | None = field(
        None,
        title="Dose per frame",
        description="Electron dose in one movie frame, where it was recorded.",
        unit="e/Å²",
        ge=0,
        le=9,
    )
    tilt_axis_degrees: float = field(
        -95.0,
        title="Tilt axis",
        description="Nominal angle of the tilt axis, counter-clockwise from the image's y axis.",
        unit="°",
        ge=-180,
        le=180,
    )
    invert_tilt_angles: bool = field(
        False,
        title="Invert tilt angles",
        description="Take every recorded tilt angle with the opposite sign.",
    )
    invert_defocus_hand: bool = field(
        True,
        title="Invert defocus hand",
        description="Defocus grows the other way along the tilted sample (rlnTomoHand -1).",
    )
    sample_thickness_nm: float = field(
        300.0,
        title="Sample thickness",
        description="Expected thickness of the ice or lamella.",
        unit="nm",
        ge=50,
        le=2000,
    )
    reconstruction_binning: int = field(
        4,
        title="Binning of tomograms",
        description="Tomograms and aligned stacks have this many times the movies' pixel size.",
        ge=1,
        le=32,
    )
    detector_dimensions_px: ImageSize = field(
        (4096, 4096),
        title="Detector size",
        description="Width and height of one movie frame, as recorded.",
        unit="px",
    )
    eer_frames_per_fraction: int | None = field(
        None,
        title="EER frames per fraction",
        description="Raw EER frames summed into one movie frame; None: "
        f"{DEFAULT_EER_FRAMES_PER_FRACTION} for EER movies, nothing for others.",
        ge=1,
        le=100,
    )
    gain_reference_path: str | None = field(
        None,
        title="Gain reference",
        description="The gain reference that jobs apply; None: the one that came with the data.",
        follows="data.gain_reference",
        file=True,
    )
    gain_flip_x: bool = field(
        False, title="Flip gain in x", description="Mirror the gain reference left to right."
    )
    gain_flip_y: bool = field(
        False, title="Flip gain in y", description="Mirror the gain reference top to bottom."
    )
    gain_transpose: bool = field(
        False, title="Transpose gain", description="Swap x and y of the gain reference."
    )
    mtf_file: str | None = field(
        None,
        title="MTF",
        description="STAR file with the detector's modulation transfer function; RELION weights "
        "particles with it.",
        file=True,
    )
    acquisition_software: Literal["SerialEM", "Tomo5", "unknown"] = field(
        "unknown",
        title="Acquisition software",
        description="The program that wrote the mdocs; it decides how a tilt axis is read.",
    )
    nominal_magnification: float | None = field(
        None, title="Magnification", description="Nominal magnification, as recorded.", ge=1
    )
    spot_size: int | None = field(
        None, title="Spot size", description="Spot size, as recorded.", ge=1, le=11
    )
    camera_name: str | None = field(
        None, title="Camera", description="Name of the camera, as recorded."
    )
    binning: float = field(
        1.0,
        title="Camera binning",
        description="Binning of the camera, as recorded; 0.5 is super-resolution.",
        ge=0.25,
        le=16,
    )
