"""Makes `warpylib_positions.json` beside it: where warpylib sees points of a specimen.

    python tests/golden/make_warpylib_positions.py WARPYLIB [--check]

WARPYLIB is a checkout of github.com/warpem/warpylib at f15aea5 (MIT), with what it needs (torch)
installed; its `testdata/00254.xml` is the tilt series. `--check` compares with the file instead of
writing it. The file is warpylib's word alone: crboost is not imported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

COMMIT = "f15aea5ccdf3854b52419ba57492f74b003a28bc"
TARGET = Path(__file__).with_name("warpylib_positions.json")
PIXEL_ANGSTROM = 2.17
TILTS = [0, 13, 20, 37]
POINTS_PX = [[100.0, 200.0, 300.0], [2500.0, 1500.0, 900.0], [3000.0, 3600.0, 10.0]]
STILL = [[0.0, 0.0]] * len(TILTS)
#: Sizes of image and tomogram, level angles x and y, AreAnglesInverted, and GridMovementX and Y of
#: the tilts: one node for each tilt, which is what Warp's splines give back there.
CASES: list[tuple[list[int], list[int], float, float, bool, list[list[float]]]] = [
    ([3838, 3710], [4000, 4000, 1000], 0.0, 0.0, True, STILL),
    ([3839, 3711], [3999, 4001, 1001], 1.5, -2.25, False, STILL),
    (
        [3839, 3710],
        [3999, 4000, 1001],
        1.5,
        -2.25,
        True,
        [[61.23, 21.02], [-20.04, -6.44], [0.73, 1.84], [30.64, -11.17]],
    ),
]


def main(words: list[str]) -> int:
    """Compute, then write or compare; returns the exit code."""
    source = Path(words[0])
    made = positions(source)
    if "--check" not in words:
        TARGET.write_text(json.dumps(made, indent=1) + "\n")
        return 0
    problems = list(differences(json.loads(TARGET.read_text()), made, ""))
    print("\n".join(problems) or "the same")
    return 1 if problems else 0


def positions(source: Path) -> dict[str, Any]:
    """The content of the file."""
    sys.path.insert(0, str(source))
    import torch
    from warpylib.cubic_grid import CubicGrid
    from warpylib.tilt_series import TiltSeries
    from warpylib.tilt_series.positions import get_positions_in_one_tilt

    points = torch.tensor(POINTS_PX) * PIXEL_ANGSTROM
    cases = []
    for image, tomogram, level_x, level_y, inverted, movement in CASES:
        series = TiltSeries(
            path=str(source / "testdata" / "00254.xml"),
            image_dimensions_physical=torch.tensor(image, dtype=torch.float32) * PIXEL_ANGSTROM,
            volume_dimensions_physical=torch.tensor(tomogram, dtype=torch.float32) * PIXEL_ANGSTROM,
        )
        series.level_angle_x, series.level_angle_y = level_x, level_y
        series.are_angles_inverted = inverted
        for axis, name in enumerate(("grid_movement_x", "grid_movement_y")):
            nodes = torch.zeros(series.n_tilts)
            for tilt, moved in zip(TILTS, movement, strict=True):
                nodes[tilt] = moved[axis]
            setattr(series, name, CubicGrid((1, 1, series.n_tilts), nodes))
        seen = [get_positions_in_one_tilt(series, points.clone(), tilt) for tilt in TILTS]
        cases.append(
            {
                "image_size_px": image,
                "tomogram_size_px": tomogram,
                "level_angle_x_deg": level_x,
                "level_angle_y_deg": level_y,
                "are_angles_inverted": inverted,
                "movement_angstrom": movement,
                "positions": [
                    [
                        [
                            round(float(x) / PIXEL_ANGSTROM, 4),
                            round(float(y) / PIXEL_ANGSTROM, 4),
                            round(float(z) * 1e4, 2),  # um
                        ]
                        for x, y, z in tilt
                    ]
                    for tilt in seen
                ],
            }
        )
    return {
        "source": f"github.com/warpem/warpylib {COMMIT} (MIT), warpylib/tilt_series/positions.py, "
        "get_positions_in_one_tilt, run on testdata/00254.xml",
        "units": "points and positions in pixels of pixel_size_angstrom from the corner; third "
        "number: defocus of the point in Angstrom",
        "pixel_size_angstrom": PIXEL_ANGSTROM,
        "points_px": POINTS_PX,
        "tilts": [
            {
                "index": tilt,
                "angle_deg": text(series.angles[tilt]),
                "axis_deg": text(series.tilt_axis_angles[tilt]),
                "offset_angstrom": [
                    text(series.tilt_axis_offset_x[tilt]),
                    text(series.tilt_axis_offset_y[tilt]),
                ],
                "defocus_um": text(series.grid_ctf_defocus.flat_values[tilt]),
            }
            for tilt in TILTS
        ],
        "cases": cases,
    }


def text(value: Any) -> float:
    """A 32-bit number with the digits that it has."""
    return float(f"{float(value):.8g}")


def differences(one: Any, two: Any, where: str) -> list[str]:
    """What is not the same within the file's rounding."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return [d for key in one for d in differences(one[key], two[key], f"{where}/{key}")]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        return [
            d
            for i, pair in enumerate(zip(one, two, strict=True))
            for d in differences(*pair, f"{where}/{i}")
        ]
    if isinstance(one, float) and isinstance(two, float):
        # 32-bit arithmetic: some thousandths of a pixel, some hundredths of an Angstrom
        near = abs(one - two) <= max(0.002, 3e-6 * abs(one))
        return [] if near else [f"{where}: {one} is {two} now"]
    return [] if one == two else [f"{where}: {one!r} is {two!r} now"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
