"""Parameters of template matching and candidate extraction with pytom-match-pick."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from crboost.parameters.base import SchemaKeywords, field, number_text
from crboost.parameters.job_base import JobParameters
from crboost.parameters.shaped_text import RANGE_PATTERN, WHOLE_NUMBER, parse_range

#: Point groups; C groups about z are pytom's own, the others are searched by an angle list.
Symmetry = Literal[
    "C1", "C2", "C3", "C4", "C5", "C6", "D2", "D3", "D4", "D5", "D6", "T", "O", "I1", "I2"
]


SPLIT_PATTERN = rf"^(?:auto|\s*{WHOLE_NUMBER}(?:[:xX ]+{WHOLE_NUMBER}){{2}}\s*)$"


def _band(text: str) -> str:
    try:
        low_pass, high_pass = parse_range(text)
    except ValueError as error:
        raise ValueError(f'must be "low-pass:high-pass" in Å, like "20:500": {error}') from None
    if low_pass >= high_pass:
        raise ValueError(
            'must be the low-pass filter first, then the high-pass one, in Å: did you mean "'
            f'{number_text(high_pass)}:{number_text(low_pass)}"?'
        )
    return f"{number_text(low_pass)}:{number_text(high_pass)}"


def _split(text: str) -> str:
    if text == "auto":
        return text
    parts = re.split("[:xX ]+", text.strip())
    if not re.search(SPLIT_PATTERN, text):
        if len(parts) == 3 and any(re.fullmatch("0+", part) for part in parts):
            raise ValueError("every number must be at least 1")
        raise ValueError('must be "auto" or three whole numbers, like "2:2:1"')
    return ":".join(str(int(part)) for part in parts)


Band = Annotated[str, AfterValidator(_band), SchemaKeywords(pattern=RANGE_PATTERN)]
GpuSplit = Annotated[str, AfterValidator(_split), SchemaKeywords(pattern=SPLIT_PATTERN)]


class TemplateMatching(JobParameters):
    """Score maps of one template in every tomogram."""

    job_type: ClassVar[str] = "templateMatching"
    uses: ClassVar[frozenset[str]] = frozenset(
        {
            "microscope.acceleration_voltage_kv",
            "microscope.spherical_aberration_mm",
            "microscope.amplitude_contrast",
        }
    )

    tool: Literal["pytom"] = field(
        "pytom", title="Tool", description="The program that does the work."
    )
    input_tomograms: str | None = field(
        None,
        title="Input",
        description="Tomograms' STAR file, relative to the project; None: the newest that fits.",
        file=True,
    )
    template_path: str = field(
        "",
        title="Template",
        description="Map of the template (.mrc) with the tomograms' pixel size and contrast.",
        file=True,
    )
    mask_path: str = field(
        "",
        title="Mask",
        description="Mask of the template (.mrc), in a box of the same size.",
        file=True,
    )
    angular_search: float = field(
        12.0,
        title="Angular step",
        description="Largest step between orientations.",
        unit="°",
        ge=0.5,
        le=90,
    )
    symmetry: Symmetry = field(
        "C1",
        title="Symmetry",
        description="Point group of the template, with RELION's axes.",
    )
    defocus_weight: bool = field(
        True, title="CTF weighting", description="Weight the template with each tilt's CTF."
    )
    dose_weight: bool = field(
        True, title="Dose weighting", description="Damp the template by each tilt's dose."
    )
    tomogram_ctf_model: Literal["none", "phase-flip"] = field(
        "none",
        title="CTF of the tomogram",
        description="How the tomograms' CTF was corrected: not at all, or by flipping phases.",
    )
    spectral_whitening: bool = field(
        False, title="Whitening", description="Whiten tomogram and template, for sharper peaks."
    )
    random_phase_correction: bool = field(
        False,
        title="Phase randomisation",
        description="Subtract the scores of a template with random phases.",
    )
    rng_seed: int = field(
        321,
        title="Random seed",
        description="Start of the random phases, so that a job can be repeated.",
        ge=1,
        le=2**31 - 1,
    )
    non_spherical_mask: bool = field(
        False,
        title="Mask not spherical",
        description="The mask is no sphere: it is turned with the template, in twice the time.",
    )
    bandpass_filter: Band | None = field(
        None,
        title="Band-pass",
        description='Low-pass and high-pass resolution of the search, "20:500"; None: all.',
        unit="Å",
    )
    gpu_split: GpuSplit = field(
        "auto",
        title="Parts on the GPU",
        description='Parts of the tomogram in x, y and z that fit the GPU, "2:2:1"; auto: 2:2:1.',
        resource=True,
    )
    use_gpu: bool = field(
        True, title="Use GPUs", description="pytom-match-pick needs one.", resource=True
    )
    array_throttle: int = field(
        4,
        title="Array limit",
        description="Tilt series that a scheduler may run at the same time.",
        ge=1,
        le=64,
        resource=True,
    )

    @property
    def volume_split(self) -> tuple[int, int, int]:
        """`gpu_split` as numbers (x, y, z)."""
        text = "2:2:1" if self.gpu_split == "auto" else self.gpu_split
        first, second, third = (int(part) for part in text.split(":"))
        return first, second, third

    @property
    def low_and_high_pass_angstrom(self) -> tuple[float, float] | None:
        """`bandpass_filter` as numbers."""
        return None if self.bandpass_filter is None else parse_range(self.bandpass_filter)


class ExtractCandidates(JobParameters):
    """Particles at the highest places of score maps."""

    job_type: ClassVar[str] = "extractCandidates"

    tool: Literal["pytom"] = field(
        "pytom", title="Tool", description="The program that does the work."
    )
    input_scores: str | None = field(
        None,
        title="Input",
        description="Output of a template matching, relative to the project; None: the newest.",
        file=True,
    )
    particle_diameter_ang: float = field(
        200.0,
        title="Particle diameter",
        description="Diameter of the particle; two candidates are never closer than half of it.",
        unit="Å",
        ge=10,
        le=5000,
    )
    apix_score_map: float | None = field(
        None,
        title="Pixel size of the scores",
        description="Pixel size of the score maps, which the diameter is measured with; None: what "
        "the template matching recorded.",
        unit="Å",
        ge=0.1,
        le=100,
    )
    max_num_particles: int = field(
        1500,
        title="Most particles",
        description="Most candidates in one tomogram.",
        ge=1,
        le=1_000_000,
    )
    cutoff_method: Literal["NumberOfFalsePositives", "ManualCutOff"] = field(
        "NumberOfFalsePositives",
        title="Cut-off",
        description="Where to stop: at an expected number of false positives, or at a score.",
    )
    cc_threshold: float = field(
        0.1,
        title="Lowest score",
        description="Lowest correlation of a candidate, for ManualCutOff.",
        ge=0,
        le=1,
    )
    expected_false_positives: float = field(
        1.0,
        title="False positives",
        description="Expected in one tomogram, for NumberOfFalsePositives.",
        ge=0.001,
        le=10_000,
    )
    score_filter_method: Literal["None", "tophat"] = field(
        "None", title="Score filter", description="tophat: only sharp peaks."
    )
    tophat_connectivity: int = field(
        1, title="Tophat connectivity", description="1 is the strictest.", ge=1, le=3
    )
    tophat_bins: int = field(
        50, title="Tophat bins", description="Of the scores' histogram.", ge=10, le=10_000
    )
    use_gpu: bool = field(
        True,
        title="Use GPUs",
        description="The work needs none, but pytom-match-pick does not start without a GPU's "
        "driver.",
        resource=True,
    )
    array_throttle: int = field(
        16,
        title="Array limit",
        description="Tilt series that a scheduler may run at the same time.",
        ge=1,
        le=64,
        resource=True,
    )
