"""Presets: those that come with crboost, a site's own, and what is refused in one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from crboost.errors import CrboostError, FileFormatError, ParameterError
from crboost.parameters import ProjectParameters
from crboost.presets import find_preset, preset_files, read_preset

NEW = ProjectParameters.new("demo", datetime(2026, 5, 1, tzinfo=UTC))
#: What depends on magnification and alignment is for the mdocs to tell.
NOT_FOR_PRESETS = {
    "microscope.pixel_size_angstrom",
    "acquisition.dose_per_tilt_e_per_a2",
    "acquisition.tilt_axis_degrees",
    "acquisition.detector_dimensions_px",
}


def write(directory: Path, text: str, name: str = "ours") -> Path:
    path = directory / f"{name}.toml"
    path.write_text(text)
    return path


def test_those_that_come_with_crboost_are_valid_and_leave_the_rest_to_the_mdocs() -> None:
    files = preset_files(None)
    assert {"krios-k3", "krios-falcon4i-eer", "glacios-falcon4i-eer"} <= set(files)
    for name, path in files.items():
        preset = read_preset(path)
        assert preset.name == name
        assert preset.description
        assert preset.parameters
        assert not NOT_FOR_PRESETS & preset.parameters.keys()
        applied = preset.applied_to(NEW)
        for parameter in preset.parameters:
            origin = applied.origin(parameter)
            assert (origin.source, origin.detail) == ("preset", name)
        assert applied.warnings() == []


def test_the_users_values_stay_and_those_from_mdocs_give_way(tmp_path: Path) -> None:
    preset = read_preset(
        write(
            tmp_path,
            "[parameters]\n"
            "microscope.spherical_aberration_mm = 2.7\n"
            "microscope.acceleration_voltage_kv = 200\n"
            "jobs.tsAlignment.alignment_mode = 'coarse'\n"
            "[session]\nquiet_minutes = 10\n[session.patience]\nexpected_tilts = 41\n",
        )
    )
    before = NEW.with_values({"microscope.spherical_aberration_mm": 0.01}).with_values(
        {"microscope.acceleration_voltage_kv": 300}, source="mdoc", detail="TS_01.mdoc"
    )
    after = preset.applied_to(before)
    assert after.microscope.spherical_aberration_mm == 0.01
    assert after.microscope.acceleration_voltage_kv == 200
    assert after.value("jobs.tsAlignment.alignment_mode") == "coarse"
    assert preset.overruled(before) == ["microscope.spherical_aberration_mm"]
    assert preset.session.patience.expected_tilts == 41
    assert preset.session.quiet_minutes == 10


def test_what_a_preset_chooses_wins_over_a_series_own_mdoc(tmp_path: Path) -> None:
    preset = read_preset(write(tmp_path, "[parameters]\nacquisition.tilt_axis_degrees = 84.2\n"))
    chosen = preset.applied_to(NEW)
    found = NEW.with_values({"acquisition.tilt_axis_degrees": 84.2}, source="mdoc")
    assert chosen.effective("importmovies").decisive() != found.effective("importmovies").decisive()
    assert chosen.origin("acquisition.tilt_axis_degrees").is_chosen
    assert not found.origin("acquisition.tilt_axis_degrees").is_chosen


def test_a_sites_presets_win_over_those_that_come_with_crboost(tmp_path: Path) -> None:
    mine = write(tmp_path, "description = 'Ours'", "krios-k3")
    write(tmp_path, "description = 'New'", "polara")
    assert preset_files(tmp_path)["krios-k3"] == mine
    assert find_preset("krios-k3", tmp_path).description == "Ours"
    assert find_preset("polara", tmp_path).description == "New"
    with pytest.raises(ParameterError, match=r"no preset 'polar'; did you mean polara\?"):
        find_preset("polar", tmp_path)
    with pytest.raises(CrboostError, match=r"service\.presets = .*nowhere: no such directory"):
        preset_files(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[parameters]\nmicroscope.pixel_size = 1.0\n",
            r"\[parameters\]: microscope\.pixel_size: no such parameter; did you mean",
        ),
        (
            "[parameters.microscope]\nacceleration_voltage_kv = 3\n",
            r"microscope\.acceleration_voltage_kv = 3 kV: must be at least 80 kV",
        ),
        ("[parameters]\njobs.tsAligment.patch_x = 4\n", "tsAligment"),
        ("[session]\nquiet = 5\n", r"session\.quiet: there is no such field"),
        ("[session]\nquiet_minutes = -5\n", r"session\.quiet_minutes = -5: .*greater than 0"),
        ("[session]\njobs = ['tsAlignmen']\n", r"session\.jobs: .*tsAlignmen"),
        (
            "[session.patience]\npartial_after_seconds = 5\n",
            r"session\.patience: partial_after_seconds = 5 must not be less",
        ),
        ("[sesion]\n", "sesion: there is no such field"),
        ("parameters = 3\n", "parameters = 3: must be a table"),
        ("description = 3\n", "description = 3: must be text"),
    ],
)
def test_a_wrong_preset_is_refused_with_file_and_field(
    tmp_path: Path, text: str, says: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ParameterError, match=says) as caught:
        read_preset(path)
    assert str(path) in caught.value.message


def test_the_example_of_the_documentation_is_a_preset(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "sessions.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    preset = read_preset(write(tmp_path, example))
    assert preset.parameters["jobs.tsReconstruct.rescale_angpixs"] == 10
    assert preset.session.patience.expected_tilts == 41


def test_what_is_not_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"ours\.toml: not valid TOML: .*line 1"):
        read_preset(write(tmp_path, "description = \n"))
