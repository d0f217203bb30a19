"""A simulated specimen and microscope, for example data with a known truth.

The specimen is a slab of ice with barrel-shaped blobs the size of a large protein complex and
gold beads. A tilt image is the projection of point scatterers (blobs), spheres (beads) and random
ice, each seen through the CTF of its own depth, shifted, and counted with shot noise. Geometry is
`geometry.project`; contrast is that of real images: protein and gold are dark.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import scipy.fft as sfft
from scipy.spatial.transform import Rotation

from crboost.cpu.arrays import Complexes, Floats, Movie
from crboost.cpu.ctf import Optics, phase
from crboost.cpu.fourier import frequency_grid, shift_phases
from crboost.cpu.geometry import TiltAlignment, specimen_rotation

#: Scatterers per blob, and the shape of a blob: a barrel, in Angstrom.
ATOMS_PER_BLOB = 300
BARREL_RADIUS_ANGSTROM = 55.0
BARREL_WALL_ANGSTROM = 8.0
BARREL_HALF_HEIGHT_ANGSTROM = 60.0
#: Blobs per (100 nm)^2 of the slab's face.
BLOBS_PER_100_NM_SQUARED = 35.0
ATOM_SIGMA_ANGSTROM = 5.0
ATOM_CONTRAST = 0.5
ICE_CONTRAST = 0.12
GOLD_CONTRAST = 0.8
#: Gold absorbs; its amplitude contrast is far above protein's.
GOLD_AMPLITUDE_CONTRAST = 0.6
#: Envelope at zero dose, and what each e/A^2 adds to it.
BFACTOR_A2 = 150.0
BFACTOR_PER_DOSE_A2 = 4.0
INELASTIC_MEAN_FREE_PATH_ANGSTROM = 3000.0
#: Share of the beam that is left when the beam is blanked.
BLANK_TRANSMISSION = 0.002
#: Images are computed this much larger than the camera, so that nothing wraps around.
MARGIN = 1.25
#: Depths are told apart in this many steps across the field (defocus gradient of a tilted slab).
DEPTH_STEPS = 7


@dataclass(frozen=True)
class Specimen:
    """What is in the slab, in pixels from its centre, (x, y, z).

    Attributes:
        beads: (n, 3), inside the field of the untilted view.
        outer_beads: beads outside it, which come into view at high tilt.
        atoms: scatterers of the blobs.
        thickness_px: of the slab.
        bead_radius_angstrom: of all beads.
    """

    beads: Floats
    outer_beads: Floats
    atoms: Floats
    thickness_px: float
    bead_radius_angstrom: float


@dataclass(frozen=True)
class Exposure:
    """The truth about one tilt.

    Attributes:
        order: 0 for the first tilt taken.
        tilt_deg: stage tilt.
        shift_xy_px: of the specimen in the image, at the mean frame position.
        drift_xy_px: (frames, 2) position of every frame against the first.
        defocus_u_angstrom, defocus_v_angstrom, defocus_angle_deg: at the specimen's centre.
        dead: the beam was blanked.
    """

    order: int
    tilt_deg: float
    shift_xy_px: tuple[float, float]
    drift_xy_px: Floats = field(repr=False)
    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_deg: float
    dead: bool = False

    @property
    def defocus_angstrom(self) -> float:
        """Mean of U and V."""
        return 0.5 * (self.defocus_u_angstrom + self.defocus_v_angstrom)


@dataclass(frozen=True)
class Camera:
    """Sampling, dose and geometry that all tilts of a series share.

    Attributes:
        size_px: of the square image.
        hand: +1 if defocus grows with the depth z of `geometry.project`, -1 if it falls
            (rlnTomoHand).
    """

    size_px: int
    pixel_size_angstrom: float
    frames: int
    dose_per_tilt_e_per_a2: float
    tilt_axis_deg: float
    optics: Optics
    hand: int


def make_specimen(
    rng: np.random.Generator,
    size_px: int,
    pixel_size_angstrom: float,
    *,
    beads: int,
    thickness_angstrom: float,
    bead_diameter_angstrom: float = 100.0,
) -> Specimen:
    """Scatter beads and blobs through a slab that fills the field at every tilt."""
    thickness = thickness_angstrom / pixel_size_angstrom
    apart = max(0.1 * size_px, 2 * bead_diameter_angstrom / pixel_size_angstrom)
    inner: list[Floats] = []
    for _ in range(100000):
        if len(inner) == beads:
            break
        place = rng.uniform(-1, 1, 3) * (0.4 * size_px, 0.4 * size_px, 0.45 * thickness)
        if all(np.hypot(*(place - other)[:2]) > apart for other in inner):
            inner.append(place)
    outer: list[Floats] = []
    while len(outer) < beads // 2:
        place = rng.uniform(-1, 1, 3) * (1.2 * size_px, 0.7 * size_px, 0.45 * thickness)
        if abs(place[0]) > 0.6 * size_px or abs(place[1]) > 0.6 * size_px:
            outer.append(place)
    half = np.array([1.25 * size_px, 0.75 * size_px, 0.4 * thickness])
    area = 4 * half[0] * half[1] * (pixel_size_angstrom / 1000) ** 2
    count = int(BLOBS_PER_100_NM_SQUARED * area)
    centres = rng.uniform(-1, 1, (count, 3)) * half
    turns = Rotation.from_quat(rng.standard_normal((count, 4))).as_matrix()
    atoms = np.einsum("nij,kj->nki", turns, _barrel(rng) / pixel_size_angstrom)
    return Specimen(
        beads=np.array(inner),
        outer_beads=np.array(outer).reshape(-1, 3),
        atoms=(atoms + centres[:, None]).reshape(-1, 3),
        thickness_px=thickness,
        bead_radius_angstrom=bead_diameter_angstrom / 2,
    )


def _barrel(rng: np.random.Generator) -> Floats:
    angle = rng.uniform(0, 2 * np.pi, ATOMS_PER_BLOB)
    radius = BARREL_RADIUS_ANGSTROM + BARREL_WALL_ANGSTROM * rng.standard_normal(ATOMS_PER_BLOB)
    height = rng.uniform(-1, 1, ATOMS_PER_BLOB) * BARREL_HALF_HEIGHT_ANGSTROM
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def dose_symmetric(range_deg: float, step_deg: float) -> list[float]:
    """Tilt angles in the order of Hagen et al. (2017): 0, +, -, -, +, +, ... outwards."""
    count = int(range_deg / step_deg + 1e-6)
    positive = [step_deg * index for index in range(count + 1)]
    negative = [-step_deg * index for index in range(1, count + 1)]
    order = [positive.pop(0)]
    if positive:
        order.append(positive.pop(0))
    source, other = negative, positive
    while source or other:
        order += source[:2]
        del source[:2]
        source, other = other, source
    return order


def make_exposures(
    rng: np.random.Generator,
    tilts_deg: list[float],
    frames: int,
    *,
    defocus_um: float,
    shift_sigma_px: float,
    drift_sigma_px: float,
    dead_tilt_deg: float | None,
) -> list[Exposure]:
    """Draw shifts, drift and defocus of every tilt, in the order of acquisition."""
    exposures = []
    for order, tilt in enumerate(tilts_deg):
        sigma = shift_sigma_px if order else shift_sigma_px / 3
        shift = np.clip(rng.normal(0, sigma, 2), -2.5 * shift_sigma_px, 2.5 * shift_sigma_px)
        settling = np.exp(-np.arange(frames - 1) / 3)[:, None]
        steps = rng.normal(0, drift_sigma_px, 2) * settling
        steps = steps + rng.normal(0, drift_sigma_px / 4, (frames - 1, 2))
        drift = np.vstack([np.zeros((1, 2)), np.cumsum(steps, axis=0)])
        defocus = defocus_um * 1e4 + rng.normal(0, 400)
        exposures.append(
            Exposure(
                order=order,
                tilt_deg=tilt,
                shift_xy_px=(float(shift[0]), float(shift[1])),
                drift_xy_px=drift,
                defocus_u_angstrom=defocus + 250,
                defocus_v_angstrom=defocus - 250,
                defocus_angle_deg=40.0,
                dead=dead_tilt_deg is not None and abs(tilt - dead_tilt_deg) < 1e-6,
            )
        )
    return exposures


def expose(
    rng: np.random.Generator, specimen: Specimen, exposure: Exposure, camera: Camera
) -> Movie:
    """Take one movie: electron counts [frame, y, x]."""
    size = sfft.next_fast_len(int(camera.size_px * MARGIN), real=True)
    size += size % 2
    spectrum = _image_spectrum(rng, specimen, exposure, camera, size)
    thickness = specimen.thickness_px * camera.pixel_size_angstrom
    path = thickness / np.cos(np.deg2rad(exposure.tilt_deg))
    transmission = float(np.exp(-path / INELASTIC_MEAN_FREE_PATH_ANGSTROM))
    if exposure.dead:
        transmission = BLANK_TRANSMISSION
    electrons = camera.dose_per_tilt_e_per_a2 * camera.pixel_size_angstrom**2 / camera.frames
    first = size // 2 - camera.size_px // 2
    window = slice(first, first + camera.size_px)
    positions = exposure.drift_xy_px - exposure.drift_xy_px.mean(axis=0) + exposure.shift_xy_px
    frames = np.empty((camera.frames, camera.size_px, camera.size_px), np.uint16)
    for index, (x, y) in enumerate(positions):
        moved = spectrum * shift_phases((size, size), (float(y), float(x)))
        contrast = sfft.irfft2(moved, s=(size, size))[window, window]
        expected = np.clip(1 + contrast, 0.02, None) * (transmission * electrons)
        frames[index] = rng.poisson(expected)
    return frames


def _image_spectrum(
    rng: np.random.Generator,
    specimen: Specimen,
    exposure: Exposure,
    camera: Camera,
    size: int,
) -> Complexes:
    """`rfft2` of the image contrast of the unshifted specimen, on a field larger than the camera.

    Everything is sorted into layers of equal depth, each with the CTF of its depth.
    """
    pixel = camera.pixel_size_angstrom
    view = specimen_rotation(TiltAlignment(0, exposure.tilt_deg, camera.tilt_axis_deg, 0, 0))
    atoms = specimen.atoms @ view.T
    beads = np.vstack([specimen.beads, specimen.outer_beads]) @ view.T
    fy, fx = frequency_grid((size, size), pixel)
    squared = fx**2 + fy**2
    angle = np.arctan2(np.broadcast_to(fy, squared.shape), np.broadcast_to(fx, squared.shape))
    astigmatism = 0.5 * (exposure.defocus_u_angstrom - exposure.defocus_v_angstrom)
    defocus = exposure.defocus_angstrom + astigmatism * np.cos(
        2 * (angle - np.deg2rad(exposure.defocus_angle_deg))
    )
    dose = exposure.order * camera.dose_per_tilt_e_per_a2
    envelope = np.exp(-(BFACTOR_A2 + BFACTOR_PER_DOSE_A2 * dose) * squared / 4)
    atom_shape = np.exp(-2 * np.pi**2 * ATOM_SIGMA_ANGSTROM**2 * squared)
    # -sin(chi + turn of the layer's depth) for every layer, without another sine: exp(i chi) times
    # a phase factor. Gold differs from protein by a constant phase only.
    transfer = np.exp(1j * phase(squared, defocus, camera.optics)).astype(np.complex64)
    transfer *= -envelope
    golden_turn = np.arcsin(GOLD_AMPLITUDE_CONTRAST) - np.arcsin(camera.optics.amplitude_contrast)
    per_pixel = np.pi * camera.optics.wavelength_angstrom * camera.hand * pixel * squared
    ice = rng.standard_normal((size, size), dtype=np.float32) * (
        ICE_CONTRAST / np.sqrt(np.cos(np.deg2rad(exposure.tilt_deg)))
    )
    depth_of_ice = _slab_depth(size, exposure.tilt_deg, camera.tilt_axis_deg)
    sphere = _sphere(size, pixel, specimen.bead_radius_angstrom)
    edges = _layer_edges(camera.size_px, exposure.tilt_deg)
    total = np.zeros(squared.shape, np.complex64)
    for low, high in pairwise(edges):
        local = transfer * np.exp(1j * (per_pixel * _middle(low, high))).astype(np.complex64)
        in_layer = (atoms[:, 2] >= low) & (atoms[:, 2] < high)
        scatterers = sfft.rfft2(_scatter(atoms[in_layer, :2], size)) * (atom_shape * ATOM_CONTRAST)
        frozen = sfft.rfft2(np.where((depth_of_ice >= low) & (depth_of_ice < high), ice, 0))
        total += (scatterers + frozen) * local.imag
        golden = beads[(beads[:, 2] >= low) & (beads[:, 2] < high), :2]
        if len(golden):
            local *= np.complex64(np.exp(1j * golden_turn))
            total += _places(golden, size) * (sphere * local.imag)
    return total


def _slab_depth(size: int, tilt_deg: float, axis_deg: float) -> Floats:
    """Depth of the slab's middle under every pixel."""
    y, x = np.mgrid[:size, :size] - size // 2
    axis = np.deg2rad(axis_deg)
    across = x * np.cos(axis) + y * np.sin(axis)
    depth: Floats = -across * np.tan(np.deg2rad(tilt_deg))
    return depth


def _layer_edges(size_px: int, tilt_deg: float) -> Floats:
    reach = 0.5 * size_px * abs(np.tan(np.deg2rad(tilt_deg)))
    if reach < 0.02 * size_px:
        return np.array([-np.inf, np.inf])
    inner = np.linspace(-reach, reach, DEPTH_STEPS + 1)[1:-1]
    return np.concatenate([[-np.inf], inner, [np.inf]])


def _middle(low: float, high: float) -> float:
    if np.isinf(low) and np.isinf(high):
        return 0.0
    if np.isinf(low) or np.isinf(high):
        # The outermost layers reach as far beyond their edge as the others are thick.
        edge = high if np.isinf(low) else low
        return float(edge * DEPTH_STEPS / (DEPTH_STEPS - 2))
    return 0.5 * (low + high)


def _scatter(points_xy: Floats, size: int) -> Floats:
    """Points onto a grid with its centre at size // 2, each shared among its four neighbours."""
    place = points_xy + size // 2
    corner = np.floor(place).astype(int)
    inside = ((corner >= 0) & (corner < size - 1)).all(axis=1)
    corner = corner[inside]
    right, up = (place[inside] - corner).T
    index = corner[:, 1] * size + corner[:, 0]
    indices = np.concatenate([index, index + 1, index + size, index + size + 1])
    weights = np.concatenate(
        [(1 - right) * (1 - up), right * (1 - up), (1 - right) * up, right * up]
    )
    image = np.bincount(indices, weights, size * size)
    return image.reshape(size, size).astype(np.float32)


def _sphere(size: int, pixel: float, radius: float) -> Floats:
    """`rfft2` of a projected sphere of gold at the origin (its analytic form factor)."""
    fy, fx = frequency_grid((size, size), pixel)
    q = 2 * np.pi * radius * np.maximum(np.sqrt(fx**2 + fy**2), 1e-9)
    form = np.where(q < 1e-2, 1.0, 3 * (np.sin(q) - q * np.cos(q)) / q**3)
    # Mean contrast GOLD_CONTRAST through the middle of the sphere.
    sphere: Floats = form * (4 / 3 * np.pi * radius**3 / pixel**2 / (2 * radius) * GOLD_CONTRAST)
    return sphere


def _places(centres_xy_px: Floats, size: int) -> Complexes:
    """Sum of the phase ramps that put the origin at each of the places inside the field."""
    total = np.zeros((size, size // 2 + 1), np.complex64)
    for x, y in centres_xy_px:
        if max(abs(x), abs(y)) < 0.5 * size:
            total += shift_phases((size, size), (float(y) + size // 2, float(x) + size // 2))
    return total
