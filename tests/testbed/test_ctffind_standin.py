"""The stand-in for ctffind: asked as RELION asks, right about a spectrum whose defocus is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from testbed.fixtures import RelionImage

from crboost.cpu.ctf import Optics, phase

STAND_IN = Path(__file__).parent / "standins" / "ctffind_standin.py"
DEFOCUS_ANGSTROM = 25000.0
PIXEL_ANGSTROM = 2.0


def tilt_image(size: int = 512) -> np.ndarray:
    """White noise seen through a microscope with a known defocus."""
    noise = np.random.default_rng(1).normal(size=(size, size))
    frequency = np.hypot(
        np.fft.fftfreq(size, PIXEL_ANGSTROM)[:, None], np.fft.rfftfreq(size, PIXEL_ANGSTROM)[None]
    )
    chi = phase(frequency**2, DEFOCUS_ANGSTROM, Optics(300, 2.7, 0.1))
    image = np.fft.irfft2(np.fft.rfft2(noise) * np.sin(chi), s=(size, size))
    return (image + 0.3 * np.random.default_rng(2).normal(size=image.shape)).astype(np.float32)


def amplitude_spectrum(image: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.fftshift(np.fft.fft2(image - image.mean()))).astype(np.float32)


def answers(image: str) -> str:
    lines = [image, "out.ctf", PIXEL_ANGSTROM, 300, 2.7, 0.1, 512, 30, 5, 15000, 35000, 500]
    lines += ["no", "no", "yes", 100, "no", "no", "no"]
    return "\n".join(map(str, lines)) + "\n"


def check_summary(directory: Path, log: str) -> None:
    summary = next(line for line in log.splitlines() if line.startswith("Summary of results"))
    lines = (directory / summary.split()[-1]).read_text().splitlines()
    # The words that RELION counts in the line with the optics.
    optics = next(line for line in lines if "acceleration voltage:" in line).split()
    assert [float(optics[n]) for n in (3, 8, 13, 18)] == [PIXEL_ANGSTROM, 300, 2.7, 0.1]
    values = [float(word) for word in lines[-1].split()]
    assert len(values) == 7
    assert values[1] >= values[2]
    assert abs((values[1] + values[2]) / 2 - DEFOCUS_ANGSTROM) < 250
    assert values[6] < 8
    curves = (directory / "out_avrot.txt").read_text().splitlines()
    rows = [line.split() for line in curves if not line.startswith("#")]
    assert len(rows) == 6
    assert len({len(row) for row in rows}) == 1
    with mrcfile.open(directory / "out.ctf", permissive=True) as diagnostic:
        assert diagnostic.data.ndim == 2
        assert np.isfinite(diagnostic.data).all()


@pytest.mark.parametrize("given_spectrum", [False, True])
def test_finds_the_defocus(tmp_path: Path, given_spectrum: bool) -> None:
    image = tilt_image()
    mrcfile.write(tmp_path / "in.mrc", amplitude_spectrum(image) if given_spectrum else image)
    options = ["--amplitude-spectrum-input"] if given_spectrum else []
    done = subprocess.run(
        [sys.executable, str(STAND_IN), *options],
        input=answers("in.mrc"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "stand-in" in done.stdout
    check_summary(tmp_path, done.stdout)


@pytest.mark.parametrize(
    ("text", "said"),
    [("missing.mrc\n", "missing.mrc"), ("in.mrc\nout.ctf\ntwo\n", "'two' is no number")],
)
def test_bad_answers_are_named(tmp_path: Path, text: str, said: str) -> None:
    mrcfile.write(tmp_path / "in.mrc", np.zeros((8, 8), np.float32))
    done = subprocess.run(
        [sys.executable, str(STAND_IN)],
        input=text,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert said in done.stderr


@pytest.mark.relion
def test_the_image_has_it_and_relion_reads_it(relion_sif: RelionImage, tmp_path: Path) -> None:
    mrcfile.write(tmp_path / "in.mrc", tilt_image())
    (tmp_path / "in.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName #1\n_rlnOpticsGroup #2\n_rlnVoltage #3\n"
        "_rlnSphericalAberration #4\n_rlnAmplitudeContrast #5\n_rlnMicrographPixelSize #6\n"
        f"one 1 300.0 2.7 0.1 {PIXEL_ANGSTROM}\n\n"
        "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\nin.mrc 1\n"
    )
    relion_sif.run(
        [
            *("relion_run_ctffind", "--i", "in.star", "--o", "CtfFind/job001/", "--is_ctffind4"),
            *("--ctffind_exe", relion_sif.stand_ins["ctffind"], "--ctfWin", "-1", "--Box", "512"),
            *("--ResMin", "30", "--ResMax", "5", "--dFMin", "15000", "--dFMax", "35000"),
            *("--FStep", "500", "--dAst", "100"),
        ],
        tmp_path,
    )
    table = (tmp_path / "CtfFind/job001/micrographs_ctf.star").read_text().splitlines()
    columns = [line.split()[0] for line in table if line.startswith("_rln")]
    columns = columns[columns.index("_rlnMicrographName") :]
    row = next(line for line in table if line.split()[:1] == ["in.mrc"]).split()
    values = dict(zip(columns, row, strict=True))
    mean = (float(values["_rlnDefocusU"]) + float(values["_rlnDefocusV"])) / 2
    assert abs(mean - DEFOCUS_ANGSTROM) < 250
    assert float(values["_rlnCtfMaxResolution"]) < 8
    assert float(values["_rlnCtfIceRingDensity"]) >= 0
