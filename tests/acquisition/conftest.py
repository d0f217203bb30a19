"""Builders of mdocs and movies for the tests of acquisition/."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SERIALEM_TITLES = (
    "[T = SerialEM: Digitized on a Krios                       30-Nov-15  15:14:20    ]",
    "[T =     Tilt axis angle = 85.3, binning = 1  spot = 8  camera = 2]",
)
TOMO5_TITLES = (
    "[T = Tomography: TITAN52330000    13-Jan-2025  17:15:32]",
    "[T =   TiltAxisAngle = -176.20  Binning = 1  SpotSize = 6]",
)
MdocBuilder = Callable[..., str]


def build_mdoc(
    angles: tuple[float, ...] = (0.0, 3.0, -3.0),
    *,
    stem: str = "TS_01",
    extension: str = "mrc",
    titles: tuple[str, ...] = SERIALEM_TITLES,
    header: dict[str, str] | None = None,
    section: dict[str, str | None] | None = None,
    sections: dict[int, dict[str, str | None]] | None = None,
) -> str:
    """A SerialEM mdoc; `header`, `section` and `sections[z]` change keys, None removes one."""
    lines = [
        f"{key} = {value}"
        for key, value in (
            {"PixelSpacing": "1.35", "Voltage": "300", "ImageFile": f"{stem}.mrc"}
            | {"ImageSize": "64 48", "DataMode": "1"}
            | (header or {})
        ).items()
    ]
    for title in titles:
        lines += ["", title]
    for z, angle in enumerate(angles):
        keys: dict[str, str | None] = {
            "TiltAngle": f"{angle:.4f}",
            "StagePosition": "20.7936 155.287",
            "Magnification": "42000",
            "ExposureDose": "3.0",
            "PixelSpacing": "1.35",
            "Defocus": "2.68",
            "ImageShift": "-0.01 -0.12",
            "RotationAngle": "175.3",
            "ExposureTime": "0.8",
            "Binning": "1",
            "TargetDefocus": "-4",
            "SubFramePath": rf"D:\DATA\frames\{stem}_{z:03d}_{angle:.1f}.{extension}",
            "NumSubFrames": "8",
            "DateTime": f"30-Nov-15  15:{20 + z:02d}:38",
        }
        keys |= section or {}
        keys |= (sections or {}).get(z, {})
        lines += ["", f"[ZValue = {z}]"]
        lines += [f"{key} = {value}" for key, value in keys.items() if value is not None]
    return "\n".join(lines) + "\n"


@pytest.fixture
def mdoc_text() -> MdocBuilder:
    return build_mdoc


@pytest.fixture
def tomo5_titles() -> tuple[str, ...]:
    return TOMO5_TITLES


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise `real_mdoc` with every mdoc below CRBOOST_REAL_FIXTURES; skip without one."""
    if "real_mdoc" not in metafunc.fixturenames:
        return
    root = os.environ.get("CRBOOST_REAL_FIXTURES")
    found = sorted(Path(root).rglob("*.mdoc")) if root else []
    if found:
        ids = ["/".join(path.parts[-3:]) for path in found]
        metafunc.parametrize("real_mdoc", found, ids=ids)
    else:
        skip = pytest.mark.skip(reason="CRBOOST_REAL_FIXTURES names no directory with mdocs")
        metafunc.parametrize("real_mdoc", [pytest.param(None, marks=skip)])
