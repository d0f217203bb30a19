"""UseTilt in Warp's XML: which tilt images are left out of what Warp makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from crboost.errors import FileFormatError
from crboost.translate.defocus import Defocus
from crboost.translate.keep_tilts import keep_tilts, main
from crboost.translate.warp_tilt_series import (
    WarpTilt,
    WarpTiltSeries,
    read_warp_tilt_series,
    warp_ctf_output,
    write_warp_tilt_series,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A series of three tilts as `ts_ctf` leaves it."""
    tilts = tuple(
        WarpTilt(f"../frames/{name}.tif", angle, 3.0 * i, defocus=Defocus(3.0 + i, 0.1, 45.0))
        for i, (name, angle) in enumerate([("a", 3.0), ("b", 0.0), ("c", -3.0)])
    )
    write_warp_tilt_series(tmp_path / "TS.xml", WarpTiltSeries("TS", tilts))
    return tmp_path / "TS.xml"


def test_excluded_tilt_keeps_the_others_in_place(tmp_path: Path, path: Path) -> None:
    keep_tilts(path, tmp_path / "kept.xml", {"a", "c"})
    series = read_warp_tilt_series(tmp_path / "kept.xml")
    assert [(tilt.name, tilt.use) for tilt in series.tilts] == [
        ("a", True),
        ("b", False),
        ("c", True),
    ]
    assert [tilt.name for tilt in series.used] == ["a", "c"]
    table = [
        {"rlnMicrographMovieName": f"frames/{name}.tif", "rlnTomoNominalStageTiltAngle": 0.0}
        for name in "cba"
    ]
    output = warp_ctf_output(table, series)
    assert [row["rlnDefocusU"] for row in output.rows] == pytest.approx([50500, 30500])
    with pytest.raises(FileFormatError, match="has no tilt image z"):
        keep_tilts(path, tmp_path / "kept.xml", {"z"})


def test_rejecting_a_tilt_changes_nothing_else(tmp_path: Path, path: Path) -> None:
    import xml.etree.ElementTree as ET

    text = path.read_text(encoding="utf-8-sig")
    unheard = '<Unheard Of="1"><Param Name="x" Value="ä" /></Unheard><CTF>'
    path.write_text(text.replace("<CTF>", unheard, 1), encoding="utf-8")
    keep_tilts(path, tmp_path / "kept.xml", {"a", "b"})

    def flat(file: Path) -> list[tuple[str, dict[str, str], str]]:
        return [
            (node.tag, dict(node.attrib), (node.text or "").strip())
            for node in ET.parse(file).getroot().iter()
            if node.tag != "UseTilt"
        ]

    assert flat(tmp_path / "kept.xml") == flat(path)


def test_as_a_program(tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new" / "TS.xml"
    assert main([str(path), str(target), "--", "a", "b"]) == 0
    assert [tilt.name for tilt in read_warp_tilt_series(target).used] == ["a", "b"]
    assert main([str(path), str(target), "--", "-z"]) == 2
    assert "has no tilt image -z" in capsys.readouterr().err
    assert main([str(tmp_path / "none.xml"), str(target), "--", "a"]) == 2
