#!/usr/bin/python3
"""A stand-in for ctffind 4: its questions and its files, the defocus fitted by crboost's own code.

Debian's ctffind crashes on real images. This one is asked the same way (answers on standard input,
one a line), computes its answer from the image or amplitude spectrum that it is given, and writes
what `relion_run_ctffind` reads. It is not ctffind and says so in its log.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# The one place where the image keeps the project's modules that this needs.
sys.path.append("/opt/crboost-standins")

import numpy as np
import numpy.typing as npt

from crboost.cpu.ctf import (
    CtfFit,
    Optics,
    display_spectrum,
    fit_ctf,
    phase,
    power_spectrum,
    window_size,
)

Floats = npt.NDArray[np.floating]
VERSION = "stand-in (crboost CTF fit)"
MRC_TYPES = {0: "<i1", 1: "<i2", 2: "<f4", 6: "<u2", 12: "<f2"}


@dataclass(frozen=True)
class Request:
    """The answers to ctffind's questions."""

    image: str
    diagnostic: str
    pixel_size_angstrom: float
    optics: Optics
    box_px: int
    resolution_angstrom: tuple[float, float]
    defocus_range_angstrom: tuple[float, float]
    step_angstrom: float


class Answers:
    """Reads one answer after the other and repeats question and answer, as ctffind does."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def text(self, question: str) -> str:
        """The next answer; exits with a message when there is none."""
        answer = next(self._lines, None)
        if answer is None:
            sys.exit(f"ctffind stand-in: no answer to: {question}")
        print(f"{question:<51}: {answer.strip()}")
        return answer.strip()

    def number(self, question: str) -> float:
        """The next answer as a number."""
        answer = self.text(question)
        try:
            return float(answer)
        except ValueError:
            sys.exit(f"ctffind stand-in: {question}: {answer!r} is no number")

    def yes(self, question: str) -> bool:
        """The next answer as yes or no."""
        return self.text(question).lower().startswith("y")


def ask(answers: Answers, sections: object) -> Request:
    """Ask what ctffind 4 asks, in its order."""
    assert callable(sections)
    image = answers.text("Input image file name")
    if sections(image) > 1 and answers.yes("Input is a movie (stack of frames)"):
        sys.exit("ctffind stand-in: movies are not for it; give it the average")
    diagnostic = answers.text("Output diagnostic image file name")
    pixel = answers.number("Pixel size")
    optics = Optics(
        answers.number("Acceleration voltage"),
        answers.number("Spherical aberration"),
        answers.number("Amplitude contrast"),
    )
    box = int(answers.number("Size of amplitude spectrum to compute"))
    resolution = answers.number("Minimum resolution"), answers.number("Maximum resolution")
    defocus = answers.number("Minimum defocus"), answers.number("Maximum defocus")
    step = answers.number("Defocus search step")
    if answers.yes("Do you know what astigmatism is present?"):
        answers.number("Known astigmatism")
        answers.number("Known astigmatism angle")
    else:
        answers.yes("Slower, more exhaustive search?")
        if answers.yes("Use a restraint on astigmatism?"):
            answers.number("Expected (tolerated) astigmatism")
    if answers.yes("Find additional phase shift?"):
        sys.exit("ctffind stand-in: phase plates are not for it")
    answers.yes("Do you want to set expert options?")
    return Request(image, diagnostic, pixel, optics, box, resolution, defocus, step)


def read_mrc(path: str) -> Floats:
    """First section of an MRC file, `[y, x]`."""
    data = Path(path).read_bytes()
    width, height, _, mode = struct.unpack_from("<4i", data)
    if mode not in MRC_TYPES:
        sys.exit(f"ctffind stand-in: {path}: MRC mode {mode} is not read")
    (extended,) = struct.unpack_from("<i", data, 92)
    flat = np.frombuffer(data, MRC_TYPES[mode], width * height, 1024 + extended)
    return flat.reshape(height, width).astype(np.float32)


def mrc_sections(path: str) -> int:
    """Number of sections of an MRC file."""
    try:
        with Path(path).open("rb") as file:
            return int(struct.unpack("<3i", file.read(12))[2])
    except (OSError, struct.error) as error:
        sys.exit(f"ctffind stand-in: {path}: {error}")


def write_mrc(path: str, image: Floats, pixel_size_angstrom: float) -> None:
    """One image as MRC mode 2."""
    height, width = image.shape
    header = bytearray(1024)
    struct.pack_into("<10i", header, 0, width, height, 1, 2, 0, 0, 0, width, height, 1)
    lengths = (width * pixel_size_angstrom, height * pixel_size_angstrom, pixel_size_angstrom)
    struct.pack_into("<6f", header, 40, *lengths, 90, 90, 90)
    struct.pack_into("<3i", header, 64, 1, 2, 3)
    struct.pack_into("<3f", header, 76, image.min(), image.max(), image.mean())
    struct.pack_into("<4s4B", header, 208, b"MAP ", 0x44, 0x44, 0, 0)
    struct.pack_into("<f", header, 216, image.std())
    Path(path).write_bytes(bytes(header) + image.astype("<f4").tobytes())


def spectrum_of(image: Floats, request: Request, given_spectrum: bool) -> Floats:
    """Power spectrum as an `rfft2`: of the image, or from the amplitudes given instead."""
    if not given_spectrum:
        return power_spectrum(image, window_size(image.shape, request.box_px))
    size = min(image.shape) // 2 * 2
    return np.fft.ifftshift(image[:size, :size])[:, : size // 2 + 1].astype(float) ** 2


def rotational_average(spectrum: Floats, pixel_size_angstrom: float) -> tuple[Floats, Floats]:
    """Frequencies to the corner of the spectrum in 1/A, and the mean amplitude at each."""
    size = spectrum.shape[0]
    rows, columns = np.fft.fftfreq(size, 1 / size)[:, None], np.arange(size // 2 + 1)[None]
    radius = np.rint(np.hypot(rows, columns)).astype(int).ravel()
    sums = np.bincount(radius, np.sqrt(spectrum).ravel())
    return (
        np.arange(len(sums)) / (size * pixel_size_angstrom),
        sums / np.maximum(np.bincount(radius), 1),
    )


def diagnostic_image(spectrum: Floats, fit: CtfFit, request: Request) -> Floats:
    """The measured spectrum, its left half replaced by the fitted |CTF|, each about one."""
    measured = display_spectrum(spectrum)
    size = measured.shape[0]
    frequency, average = rotational_average(spectrum, request.pixel_size_angstrom)
    rows, columns = np.indices(measured.shape) - size // 2
    distance = np.hypot(rows, columns) / (size * request.pixel_size_angstrom)
    smooth = np.convolve(np.pad(average, 8, "edge"), np.ones(17) / 17, "valid")
    normalised = measured / np.maximum(np.interp(distance, frequency, smooth), 1e-12)
    angle = np.arctan2(rows, columns) - np.deg2rad(fit.defocus_angle_deg)
    defocus = fit.defocus_angstrom + 0.5 * fit.astigmatism_angstrom * np.cos(2 * angle)
    model = np.abs(np.sin(phase(distance**2, defocus, request.optics)))
    shown = np.clip(normalised, 0, 2)
    shown[:, : size // 2] = model[:, : size // 2]
    return shown


def write_tables(request: Request, fit: CtfFit, spectrum: Floats) -> tuple[Path, Path]:
    """ctffind's summary and its radial curves."""
    root = Path(request.diagnostic).with_suffix("")
    summary, curves = root.with_name(root.name + ".txt"), root.with_name(root.name + "_avrot.txt")
    optics, size = request.optics, spectrum.shape[0]
    low, high = request.resolution_angstrom
    least, most = request.defocus_range_angstrom
    head = (
        f"# Output from CTFFind version {VERSION.replace(' ', '_')}, "
        f"run on {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
        f"# Input file: {request.image} ; Number of micrographs: 1\n"
        f"# Pixel size: {request.pixel_size_angstrom:.3f} Angstroms ; "
        f"acceleration voltage: {optics.voltage_kv:.1f} keV ; "
        f"spherical aberration: {optics.spherical_aberration_mm:.2f} mm ; "
        f"amplitude contrast: {optics.amplitude_contrast:.2f}\n"
        f"# Box size: {size} pixels ; min. res.: {low:.1f} Angstroms ; "
        f"max. res.: {high:.1f} Angstroms ; min. def.: {least:.1f} um; max. def. {most:.1f} um"
    )
    summary.write_text(
        f"{head}\n"
        "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; "
        "#4 - azimuth of astigmatism; #5 - additional phase shift [radians]; "
        "#6 - cross correlation; #7 - spacing (in Angstroms) up to which CTF rings were fit "
        "successfully\n"
        f"1.000000 {fit.defocus_u_angstrom:.6f} {fit.defocus_v_angstrom:.6f} "
        f"{fit.defocus_angle_deg:.6f} 0.000000 {fit.figure_of_merit:.6f} "
        f"{fit.max_resolution_angstrom:.6f}\n"
    )
    frequency, average = rotational_average(spectrum, request.pixel_size_angstrom)
    smooth = np.convolve(np.pad(average, 8, "edge"), np.ones(17) / 17, "valid")
    relative = average / np.maximum(smooth, 1e-12) - 1
    model = np.abs(np.sin(phase(frequency**2, fit.defocus_angstrom, optics)))
    agreement = (frequency <= 1 / fit.max_resolution_angstrom).astype(float)
    rows = (frequency, relative, relative, model, agreement, np.zeros_like(frequency))
    lines = "\n".join(" ".join(f"{value:.6f}" for value in row) for row in rows)
    curves.write_text(
        f"{head}; num. frames averaged: 1\n"
        "# 6 lines per micrograph: #1 - spatial frequency (1/Angstroms); #2 and #3 - 1D rotational "
        "average of spectrum over its background; #4 - CTF fit; #5 - 1 up to the resolution of "
        f"the fit; #6 - not computed\n{lines}\n"
    )
    return summary, curves


def main() -> int:
    """Ask, fit, write."""
    print(f"\n\n        **   ctffind {VERSION}   **\n")
    given_spectrum = "--amplitude-spectrum-input" in sys.argv[1:]
    request = ask(Answers(iter(sys.stdin)), mrc_sections)
    spectrum = spectrum_of(read_mrc(request.image), request, given_spectrum)
    fit = fit_ctf(
        spectrum,
        request.pixel_size_angstrom,
        request.optics,
        resolution_angstrom=request.resolution_angstrom,
        defocus_range_angstrom=request.defocus_range_angstrom,
    )
    write_mrc(
        request.diagnostic, diagnostic_image(spectrum, fit, request), request.pixel_size_angstrom
    )
    summary, curves = write_tables(request, fit, spectrum)
    print(
        f"\n\nEstimated defocus values        : {fit.defocus_u_angstrom:.2f} , "
        f"{fit.defocus_v_angstrom:.2f} Angstroms\n"
        f"Estimated azimuth of astigmatism: {fit.defocus_angle_deg:.2f} degrees\n"
        f"Score                           : {fit.figure_of_merit:.5f}\n"
        f"Pixel size for fitting          : {request.pixel_size_angstrom:.3f} Angstroms\n"
        f"Thon rings with good fit up to  : {fit.max_resolution_angstrom:.1f} Angstroms\n\n\n"
        f"Summary of results                          : {summary}\n"
        f"Diagnostic images                           : {request.diagnostic}\n"
        f"Detailed results, including 1D fit profiles : {curves}\n\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
