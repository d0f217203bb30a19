"""Contrast transfer function: the model, and a fit of defocus to a tilt image's power spectrum.

Model: CTF(q) = -sin(chi) with chi = pi lambda df q^2 - pi/2 Cs lambda^3 q^4 + asin(amplitude
contrast), q in 1/A, df (Angstrom) positive for underfocus. Up to the sign, which a power spectrum
does not see, this is RELION's (`CTF::getCTF`): RELION calls protein bright, images have it dark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft as sfft
import scipy.ndimage as ndimage
from scipy.optimize import minimize, minimize_scalar

from crboost.cpu.arrays import Floats
from crboost.cpu.fourier import frequency_grid

#: Half width of the search around a nominal defocus.
SEARCH_AROUND_NOMINAL_UM = 1.2
SEARCH_STEP_ANGSTROM = 100.0
#: Degree of the polynomial that stands for the background under the Thon rings.
BACKGROUND_DEGREE = 5
#: Correlation of data and model at which the fit counts as lost (CTFFIND's value).
FIT_CORRELATION = 0.5
SECTORS = 24
#: Fits below this resolution times the pixel size see the corner of the spectrum only.
NYQUIST_MARGIN = 2.2


@dataclass(frozen=True)
class Optics:
    """What the CTF needs to know of the microscope."""

    voltage_kv: float
    spherical_aberration_mm: float
    amplitude_contrast: float

    @property
    def wavelength_angstrom(self) -> float:
        """Relativistic electron wavelength."""
        volts = self.voltage_kv * 1e3
        return float(12.2642596588 / np.sqrt(volts * (1 + 0.978475598e-6 * volts)))


@dataclass(frozen=True)
class CtfFit:
    """Defocus of one image.

    Attributes:
        defocus_u_angstrom, defocus_v_angstrom: larger and smaller defocus, underfocus positive.
        defocus_angle_deg: of U against the x axis, counter-clockwise, in (-90, 90].
        figure_of_merit: correlation of model and background-subtracted spectrum, at most 1.
        max_resolution_angstrom: up to where the rings follow the model.
        frequency_per_angstrom, power, fit: the radial curves for a plot: background-subtracted
            amplitude and the fitted |CTF|, both about zero.
    """

    defocus_u_angstrom: float
    defocus_v_angstrom: float
    defocus_angle_deg: float
    figure_of_merit: float
    max_resolution_angstrom: float
    frequency_per_angstrom: Floats
    power: Floats
    fit: Floats

    @property
    def defocus_angstrom(self) -> float:
        """Mean defocus."""
        return 0.5 * (self.defocus_u_angstrom + self.defocus_v_angstrom)

    @property
    def astigmatism_angstrom(self) -> float:
        """rlnCtfAstigmatism: U minus V."""
        return self.defocus_u_angstrom - self.defocus_v_angstrom


def phase(frequency_squared: Floats, defocus_angstrom: Floats | float, optics: Optics) -> Floats:
    """chi of the module's docstring; `frequency_squared` in 1/A^2."""
    wavelength = optics.wavelength_angstrom
    spherical = optics.spherical_aberration_mm * 1e7
    chi: Floats = (
        np.pi * wavelength * defocus_angstrom * frequency_squared
        - 0.5 * np.pi * spherical * wavelength**3 * frequency_squared**2
        + np.arcsin(optics.amplitude_contrast)
    )
    return chi


def power_spectrum(image: Floats, window_px: int) -> Floats:
    """Mean periodogram of half-overlapping Hann-windowed tiles, as an `rfft2` of `window_px`.

    Values beyond 4 standard deviations (gold) are clipped first.
    """
    height, width = image.shape
    taper = np.hanning(window_px).astype(np.float32)
    window = taper[:, None] * taper[None, :]
    centred = image - image.mean()
    limit = 4 * centred.std()
    clipped = np.clip(centred, -limit, limit).astype(np.float32)
    total = np.zeros((window_px, window_px // 2 + 1))
    count = 0
    for top in range(0, height - window_px + 1, window_px // 2):
        for left in range(0, width - window_px + 1, window_px // 2):
            tile = clipped[top : top + window_px, left : left + window_px]
            total += np.abs(sfft.rfft2((tile - tile.mean()) * window)) ** 2
            count += 1
    return total / max(count, 1)


def window_size(shape: tuple[int, int], wanted_px: int) -> int:
    """The tile size to use: even, and small enough for nine half-overlapping tiles."""
    return min(wanted_px, min(shape) // 2) // 2 * 2


def display_spectrum(spectrum: Floats) -> Floats:
    """Amplitude spectrum as a full image with the origin in the centre, for `_PS.mrc`."""
    size = spectrum.shape[0]
    amplitude = np.sqrt(spectrum)
    full = np.zeros((size, size), np.float32)
    full[:, : size // 2 + 1] = amplitude
    mirrored = amplitude[(-np.arange(size)) % size, 1 : size // 2][:, ::-1]
    full[:, size // 2 + 1 :] = mirrored
    centred: Floats = sfft.fftshift(full)
    return centred


def search_range_angstrom(
    nominal_defocus_um: float | None, allowed_um: tuple[float, float]
) -> tuple[float, float]:
    """Defocus range to search: about the nominal value where there is one, within what is allowed.

    A nominal value outside what is allowed is no help; the whole range is searched then.
    """
    low, high = allowed_um
    if nominal_defocus_um is not None:
        near_low = max(low, nominal_defocus_um - SEARCH_AROUND_NOMINAL_UM)
        near_high = min(high, nominal_defocus_um + SEARCH_AROUND_NOMINAL_UM)
        if near_low < near_high:
            low, high = near_low, near_high
    return low * 1e4, high * 1e4


def fit_ctf(
    spectrum: Floats,
    pixel_size_angstrom: float,
    optics: Optics,
    *,
    resolution_angstrom: tuple[float, float],
    defocus_range_angstrom: tuple[float, float],
) -> CtfFit:
    """Fit defocus to a power spectrum.

    The mean defocus comes from the rotational average: its background (a polynomial through the
    logarithm) is divided out, and the |CTF| that correlates best with the rest is found by a
    search and refined. Astigmatism is then fitted on 24 angular sectors; at the dose of one tilt
    it is an indication, no more.

    Args:
        spectrum: from `power_spectrum`.
        pixel_size_angstrom: of the image.
        optics: of the microscope.
        resolution_angstrom: (low, high) limits of the fit; clipped to what the pixels can hold.
        defocus_range_angstrom: to search.

    Raises:
        ValueError: fewer than ten radial bins between the resolution limits.
    """
    size = spectrum.shape[0]
    step = 1 / (size * pixel_size_angstrom)
    low = resolution_angstrom[0]
    high = max(resolution_angstrom[1], NYQUIST_MARGIN * pixel_size_angstrom)
    first, last = int(np.ceil(1 / low / step)), int(np.floor(1 / high / step))
    if last - first < 10:
        raise ValueError(
            f"only {max(0, last - first + 1)} radial bins between {low:g} and {high:g} A with a "
            f"window of {size} px of {pixel_size_angstrom:g} A"
        )
    bins = np.arange(first, last + 1, dtype=float)
    frequency = bins * step
    amplitude, counts = _polar_average(np.sqrt(spectrum), bins)
    radial = (amplitude * counts).sum(axis=0) / counts.sum(axis=0)
    position = frequency / frequency[-1]
    background = np.exp(
        np.polynomial.Chebyshev.fit(position, np.log(radial), BACKGROUND_DEGREE)(position)
    )
    detrend = _Detrend(position)
    data = detrend(radial / background - 1)
    weight = np.sqrt(counts.sum(axis=0))

    def model(defocus: Floats) -> Floats:
        chi = phase(frequency[None] ** 2, np.atleast_1d(defocus)[:, None], optics)
        return detrend(np.abs(np.sin(chi)))

    def score(defocus: Floats) -> Floats:
        return _correlation(model(defocus), data, weight)

    candidates = np.arange(
        defocus_range_angstrom[0], defocus_range_angstrom[1] + 1, SEARCH_STEP_ANGSTROM
    )
    best = float(candidates[int(np.argmax(score(candidates)))])
    refined = minimize_scalar(
        lambda defocus: -float(score(np.array([defocus]))[0]),
        bounds=(best - 2 * SEARCH_STEP_ANGSTROM, best + 2 * SEARCH_STEP_ANGSTROM),
        method="bounded",
    )
    defocus = float(refined.x)
    sectors = amplitude / background - 1
    half, angle_deg = _astigmatism(sectors, counts, frequency, defocus, optics)
    fitted = model(np.array([defocus]))[0]
    return CtfFit(
        defocus_u_angstrom=defocus + half,
        defocus_v_angstrom=defocus - half,
        defocus_angle_deg=angle_deg,
        figure_of_merit=-float(refined.fun),
        max_resolution_angstrom=_fit_resolution(frequency, data, fitted, defocus, optics),
        frequency_per_angstrom=frequency,
        power=data,
        fit=fitted * float((data @ fitted) / max(float(fitted @ fitted), 1e-12)),
    )


class _Detrend:
    """Takes the polynomial trend out of curves, the same for data and model."""

    def __init__(self, position: Floats) -> None:
        basis = np.polynomial.chebyshev.chebvander(2 * position - 1, BACKGROUND_DEGREE)
        self._basis = np.linalg.qr(basis)[0]

    def __call__(self, curves: Floats) -> Floats:
        flat: Floats = curves - (curves @ self._basis) @ self._basis.T
        return flat


def _correlation(models: Floats, data: Floats, weight: Floats) -> Floats:
    """Weighted correlation of each row of `models` with `data` (both free of their trend)."""
    above = (models * (weight * data)).sum(axis=-1)
    below = np.sqrt((weight * models**2).sum(axis=-1) * (weight * data**2).sum())
    correlation: Floats = above / np.maximum(below, 1e-12)
    return correlation


def _polar_average(amplitude: Floats, bins: Floats) -> tuple[Floats, Floats]:
    """Mean amplitude per (sector, radial bin), and the number of pixels in it (at least 1).

    Sector k is centred on the angle k * 180 / SECTORS degrees against the x axis.
    """
    size = amplitude.shape[0]
    fy, fx = frequency_grid((size, size), 1 / size)
    radius = np.rint(np.hypot(fy, fx)).astype(int)
    angle = np.arctan2(np.broadcast_to(fy, radius.shape), np.broadcast_to(fx, radius.shape))
    sector = np.rint(angle / np.pi * SECTORS).astype(int) % SECTORS
    inside = (radius >= bins[0]) & (radius <= bins[-1])
    index = sector[inside] * len(bins) + radius[inside] - int(bins[0])
    total = SECTORS * len(bins)
    counts = np.bincount(index, minlength=total).reshape(SECTORS, -1).astype(float)
    sums = np.bincount(index, amplitude[inside], minlength=total).reshape(SECTORS, -1)
    whole = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    mean = np.where(counts > 0, sums / np.maximum(counts, 1), whole)
    return mean, np.maximum(counts, 1e-3)


def _astigmatism(
    sectors: Floats, counts: Floats, frequency: Floats, defocus: float, optics: Optics
) -> tuple[float, float]:
    """Half of U - V, and the angle of U, with the mean defocus held."""
    theta = np.arange(SECTORS) * np.pi / SECTORS
    smooth = ndimage.gaussian_filter1d(sectors, 1.0, axis=0, mode="wrap")
    weight = counts / counts.sum()
    data = smooth - (weight * smooth).sum()
    squared = frequency[None] ** 2

    def cost(parameters: Floats) -> float:
        local = (defocus + parameters[0] * np.cos(2 * theta) + parameters[1] * np.sin(2 * theta))[
            :, None
        ]
        model = np.abs(np.sin(phase(squared, local, optics)))
        model = model - (weight * model).sum()
        norm = np.sqrt((weight * model**2).sum() * (weight * data**2).sum())
        penalty = 2e-5 * float(parameters @ parameters) / 500**2
        return -float((weight * model * data).sum() / max(norm, 1e-12)) + penalty

    found = minimize(
        cost,
        np.zeros(2),
        method="Nelder-Mead",
        options={
            "initial_simplex": [[0.0, 0.0], [200.0, 0.0], [0.0, 200.0]],
            "xatol": 5,
            "fatol": 1e-5,
            "maxiter": 120,
        },
    )
    along, across = (float(value) for value in found.x)
    return float(np.hypot(along, across)), float(np.rad2deg(0.5 * np.arctan2(across, along)))


def _fit_resolution(
    frequency: Floats, data: Floats, fitted: Floats, defocus: float, optics: Optics
) -> float:
    """Resolution up to which data and model correlate over a window of two rings."""
    last = frequency[0]
    rings = phase(frequency**2, defocus, optics) / np.pi
    for index in range(len(frequency)):
        near = np.abs(rings - rings[index]) <= 1.0
        if near.sum() < 5:
            near = np.abs(np.arange(len(frequency)) - index) <= 2
        one = data[near] - data[near].mean()
        two = fitted[near] - fitted[near].mean()
        correlation = (one @ two) / max(float(np.sqrt((one @ one) * (two @ two))), 1e-12)
        if correlation < FIT_CORRELATION:
            break
        last = frequency[index]
    return float(1 / last)
