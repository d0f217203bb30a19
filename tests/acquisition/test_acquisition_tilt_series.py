"""What a tilt series' mdoc is taken to mean: order, dose, axis, defocus, names."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crboost.acquisition.mdoc import parse_mdoc, read_mdoc
from crboost.acquisition.tilt_series import (
    TiltSeriesAcquisition,
    guess_camera,
    movie_name,
    parse_date_time,
    read_tilt_series,
    series_name,
    tilt_series_from_mdoc,
)
from crboost.errors import FileFormatError

SERIALEM = "[T = SerialEM: Digitized on a Krios   30-Nov-15  15:14:20    ]"


def series(text: str, name: str = "TS_01.mdoc") -> TiltSeriesAcquisition:
    return tilt_series_from_mdoc(parse_mdoc(text.encode(), Path(name)))


def test_plain_serialem_series(mdoc_text):
    found = series(mdoc_text())
    assert found.name == "TS_01"
    assert found.software == "SerialEM"
    assert found.pixel_size_angstrom == 1.35
    assert found.voltage_kv == 300
    assert found.tilt_axis_deg == 85.3
    assert found.detector_px == (64, 48)
    assert found.magnification == 42000
    assert found.incomplete is None
    assert found.warnings == ()
    assert found.sources["pixel_size_angstrom"] == "TS_01.mdoc:1 PixelSpacing"
    assert found.sources["dose"] == "TS_01.mdoc:15 ExposureDose"
    tilt = found.tilts[1]
    assert tilt.z_value == 1
    assert tilt.tilt_angle_deg == 3.0
    assert tilt.movie_name == "TS_01_001_3.0.mrc"
    assert tilt.acquired == datetime(2015, 11, 30, 15, 21, 38)
    assert tilt.dose_e_per_a2 == 3.0
    assert tilt.nominal_defocus_um == 4.0
    assert tilt.frame_count == 8
    assert tilt.image_shift == (-0.01, -0.12)
    assert tilt.exposure_time_s == 0.8
    assert [t.pre_exposure_e_per_a2 for t in found.tilts] == [0.0, 3.0, 6.0]


def test_pixel_size_of_the_sections_where_the_header_has_none(mdoc_text):
    text = mdoc_text().split("\n", 1)[1]  # without the header's PixelSpacing
    found = series(text)
    assert found.pixel_size_angstrom == 1.35
    assert found.sources["pixel_size_angstrom"].endswith("PixelSpacing")


def test_decimal_commas_everywhere(mdoc_text):
    text = mdoc_text(
        header={"PixelSpacing": "1,35"},
        section={"ExposureDose": "2,5", "TargetDefocus": "-3,5", "ImageShift": "-0,01 0,12"},
        titles=(SERIALEM, "[T =     Tilt axis angle = 85,3, binning = 1  spot = 8]"),
    ).replace("TiltAngle = 3.0000", "TiltAngle = 3,0000")
    found = series(text)
    assert found.pixel_size_angstrom == 1.35
    assert found.tilt_axis_deg == 85.3
    assert found.tilts[1].tilt_angle_deg == 3.0
    assert found.tilts[1].pre_exposure_e_per_a2 == 2.5
    assert found.tilts[1].nominal_defocus_um == 3.5
    assert found.tilts[1].image_shift == (-0.01, 0.12)


class TestNames:
    @pytest.mark.parametrize(
        ("file", "name"),
        [
            ("TS_01.mdoc", "TS_01"),
            ("TS_01.mrc.mdoc", "TS_01"),
            ("TS_01.st.mdoc", "TS_01"),
            ("TS_01.b.mdoc", "TS_01.b"),
            ("lam8_2.5A.v1.mrc.mdoc", "lam8_2.5A.v1"),
            ("Position_1.MDOC", "Position_1"),
            ("area 5-A ts [2].mrc.mdoc", "area 5-A ts [2]"),
            (".mdoc", ".mdoc"),
        ],
    )
    def test_series_name(self, file, name):
        assert series_name(Path("x") / file) == name

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            (r"D:\DATA\Flo\frames\TS_01_000_0.0.mrc", "TS_01_000_0.0.mrc"),
            (r"\\192.168.10.81\Storage\\TemScripting\EF-Falcon\a_-0.0.mrc", "a_-0.0.mrc"),
            ("/data/frames/TS_01 [1]_-3.0.tif", "TS_01 [1]_-3.0.tif"),
            (r"X:\mixed/separators\b.eer", "b.eer"),
            ("plain.tiff", "plain.tiff"),
            ('"quoted.tiff"', "quoted.tiff"),
        ],
    )
    def test_movie_name(self, path, name):
        assert movie_name(path) == name


class TestOrder:
    def test_by_time_not_by_z_value(self, mdoc_text):
        text = mdoc_text(
            (-3.0, 0.0, 3.0),
            sections={
                0: {"DateTime": "30-Nov-15  15:30:00", "ExposureDose": "1"},
                1: {"DateTime": "30-Nov-15  15:10:00", "ExposureDose": "2"},
                2: {"DateTime": "30-Nov-15  15:20:00", "ExposureDose": "4"},
            },
        )
        found = series(text)
        assert [t.tilt_angle_deg for t in found.tilts] == [0.0, 3.0, -3.0]
        assert [t.z_value for t in found.tilts] == [1, 2, 0]
        assert [t.pre_exposure_e_per_a2 for t in found.tilts] == [0.0, 2.0, 6.0]
        assert found.warnings == ()

    def test_across_midnight(self, mdoc_text):
        text = mdoc_text(
            (0.0, 3.0),
            sections={
                0: {"DateTime": "01-Dec-15  00:00:10"},
                1: {"DateTime": "30-Nov-15  23:59:50"},
            },
        )
        assert [t.z_value for t in series(text).tilts] == [1, 0]

    def test_same_second_keeps_the_file_order(self, mdoc_text):
        text = mdoc_text(section={"DateTime": "30-Nov-15  15:30:00"})
        assert [t.z_value for t in series(text).tilts] == [0, 1, 2]

    def test_by_prior_dose_without_times(self, mdoc_text):
        text = mdoc_text(
            section={"DateTime": None},
            sections={z: {"PriorRecordDose": str(6 - 3 * z)} for z in range(3)},
        )
        found = series(text)
        assert [t.z_value for t in found.tilts] == [2, 1, 0]
        assert any("PriorRecordDose" in warning for warning in found.warnings)

    def test_by_z_value_with_a_warning_where_nothing_tells(self, mdoc_text):
        found = series(mdoc_text(sections={1: {"DateTime": "yesterday"}}))
        assert [t.z_value for t in found.tilts] == [0, 1, 2]
        assert found.tilts[1].acquired is None
        assert any("need not be the order" in warning for warning in found.warnings)

    def test_year_first_dates_of_one_session(self, mdoc_text):
        """30-Nov-21 and 01-Dec-21 are one night, if the year is not the first number."""
        times = ["21-Nov-30  23:58:00", "21-Dec-01  00:02:00", "21-Nov-30  23:50:00"]
        found = series(mdoc_text(sections={z: {"DateTime": t} for z, t in enumerate(times)}))
        assert [t.z_value for t in found.tilts] == [2, 0, 1]
        assert found.tilts[0].acquired == datetime(2021, 11, 30, 23, 50)

    @given(st.permutations(range(9)))
    def test_any_order_of_sections_gives_the_same_tilts(self, order):
        start = datetime(2026, 5, 1, 23, 55)
        blocks = [
            f"[ZValue = {z}]\nTiltAngle = {3 * z}\nExposureDose = {z + 1}\n"
            f"SubFramePath = X:\\m_{z}.mrc\n"
            f"DateTime = {start + timedelta(minutes=z):%d-%b-%y  %H:%M:%S}\n"
            for z in range(9)
        ]
        text = f"PixelSpacing = 1\n{SERIALEM}\n[T = Tilt axis angle = 85, b]\n"
        found = series(text + "".join(blocks[z] for z in order))
        assert [t.z_value for t in found.tilts] == list(range(9))
        assert found.tilts[-1].pre_exposure_e_per_a2 == sum(range(1, 9))
        assert found.tilts[0].pre_exposure_e_per_a2 == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30-Nov-15  15:21:38", datetime(2015, 11, 30, 15, 21, 38)),
        ("01-Aug-2022  18:58:35", datetime(2022, 8, 1, 18, 58, 35)),
        ("1-May-25 7:05:09", datetime(2025, 5, 1, 7, 5, 9)),
        ("01-MAY-2025  10:00:00", datetime(2025, 5, 1, 10)),
        ("2025-05-01 10:00:00", datetime(2025, 5, 1, 10)),
        ("2025-05-01T10:00:00.123Z", datetime(2025, 5, 1, 10)),
        ("03-Dez-24  10:00:00", datetime(2024, 12, 3, 10)),
        ("03-Mär-24  10:00:00", datetime(2024, 3, 3, 10)),
        ("15-July-20  16:44:02", datetime(2020, 7, 15, 16, 44, 2)),
        ("01-May-25  12:00:00 AM", datetime(2025, 5, 1, 0)),
        ("01-May-25  01:30:00 PM", datetime(2025, 5, 1, 13, 30)),
        ("31-Feb-25  10:00:00", None),
        ("01-Xyz-25  10:00:00", None),
        ("01-May-25  25:00:00", None),
        ("10:00:00", None),
        ("", None),
    ],
)
def test_date_times(text, expected):
    assert parse_date_time(text) == expected


@given(st.text(max_size=30))
def test_no_text_breaks_the_date_reader(text):
    parse_date_time(text)
    parse_date_time(text, year_first=True)


class TestDose:
    def dose(self, mdoc_text, **keys):
        return series(mdoc_text(section=keys))

    def test_nothing_is_multiplied_in(self, mdoc_text):
        keys = {"DividedBy2": "1", "CountsPerElectron": "17.25"}
        assert self.dose(mdoc_text, **keys).tilts[0].dose_e_per_a2 == 3.0

    def test_frame_doses_where_the_exposure_dose_is_zero(self, mdoc_text):
        found = self.dose(mdoc_text, ExposureDose="0", FrameDosesAndNumber="0.4 3 0.5 2")
        assert found.tilts[0].dose_e_per_a2 == pytest.approx(2.2)

    def test_dose_rate_is_per_unbinned_pixel(self, mdoc_text):
        keys = {"ExposureDose": "0", "DoseRate": "10", "ExposureTime": "2", "PixelSpacing": "4"}
        found = self.dose(mdoc_text, Binning="2", **keys)
        assert found.tilts[0].dose_e_per_a2 == pytest.approx(10 * 2 / (4 / 2) ** 2)
        assert any("received more" in warning for warning in found.warnings)
        assert found.sources["dose"].endswith("DoseRate * ExposureTime")

    def test_zero_is_unknown_and_said(self, mdoc_text):
        found = self.dose(mdoc_text, ExposureDose="0", FrameDosesAndNumber="0 7  0 3")
        assert [t.dose_e_per_a2 for t in found.tilts] == [None] * 3
        assert [t.pre_exposure_e_per_a2 for t in found.tilts] == [0.0, None, None]
        assert any("3 of 3 tilts" in warning for warning in found.warnings)
        assert "dose" not in found.sources

    def test_pre_exposure_is_unknown_only_after_the_gap(self, mdoc_text):
        found = series(mdoc_text(sections={1: {"ExposureDose": "0"}}))
        assert [t.pre_exposure_e_per_a2 for t in found.tilts] == [0.0, 3.0, None]


class TestTiltAxis:
    def axis(self, mdoc_text, titles, rotation):
        found = series(mdoc_text(titles=titles, section={"RotationAngle": rotation}))
        return found.tilt_axis_deg, found

    def test_serialem_title_wins(self, mdoc_text):
        title = "[T = Tilt axis angle = -86.7, binning = 1  spot = 7  camera = 1]"
        assert self.axis(mdoc_text, (SERIALEM, title), "10")[0] == -86.7

    @pytest.mark.parametrize(
        ("rotation", "axis"), [("175.3", 85.3), ("3.34915", -86.65085), ("-95", 175.0)]
    )
    def test_serialem_without_the_title(self, mdoc_text, rotation, axis):
        found = self.axis(mdoc_text, (SERIALEM,), rotation)
        assert found[0] == pytest.approx(axis)
        assert "RotationAngle - 90" in found[1].sources["tilt_axis_deg"]

    @pytest.mark.parametrize(
        ("title", "rotation", "axis"),
        [
            ("-176.20", "86.20", 86.2),  # the title as Tomography 5 has it
            ("-173.94", "83.94", 83.94),
            ("-91.81", "1.81", 1.81),
            ("5.5", "-95.5", -95.5),  # the same rule, negative rotation
            ("-3.8", "86.2", -3.8),  # as SerialEM writes it
            ("3.8", "86.2", -3.8),  # the same with the opposite sign
            ("-176.20", None, 86.2),
            (None, "86.20", 86.2),
        ],
    )
    def test_tomo5_rules_of_imod(self, mdoc_text, title, rotation, axis):
        titles = ["[T = Tomography: TITAN52330000    13-Jan-2025  17:15:32]"]
        if title is not None:
            titles.append(f"[T =   TiltAxisAngle = {title}  Binning = 1  SpotSize = 6]")
        found = self.axis(mdoc_text, tuple(titles), rotation)
        assert found[1].software == "Tomo5"
        assert found[0] == pytest.approx(axis)
        assert not any("contradict" in warning for warning in found[1].warnings)

    def test_tomo5_contradiction_is_told(self, mdoc_text):
        titles = ("[T = Tomography: X]", "[T = TiltAxisAngle = 12.0 Binning = 1 SpotSize = 6]")
        angle, found = self.axis(mdoc_text, titles, "86.2")
        assert angle == 86.2
        assert any("contradict" in warning for warning in found.warnings)

    def test_unknown_software_is_not_guessed(self, mdoc_text):
        angle, found = self.axis(mdoc_text, ("[T = something else]",), "175.3")
        assert angle is None
        assert found.software == "unknown"
        assert any("no tilt axis" in warning for warning in found.warnings)


class TestDefocus:
    @pytest.mark.parametrize(
        ("target", "reading", "expected"),
        [("-4", "2.7", 4.0), (None, "-3.5", 3.5), (None, "2.7", None), (None, None, None)],
    )
    def test_underfocus_is_positive(self, mdoc_text, target, reading, expected):
        found = series(mdoc_text(section={"TargetDefocus": target, "Defocus": reading}))
        assert found.tilts[0].nominal_defocus_um == expected


class TestDoublets:
    def test_same_movie_twice_uses_the_later(self, mdoc_text):
        found = series(mdoc_text(sections={2: {"SubFramePath": r"D:\TS_01_001_3.0.mrc"}}))
        assert [t.z_value for t in found.tilts] == [0, 2]
        assert found.tilts[1].pre_exposure_e_per_a2 == 6.0  # the lost exposure was a dose, too
        assert any("same movie" in warning for warning in found.warnings)

    def test_same_z_value_twice_keeps_both(self, mdoc_text):
        text = mdoc_text().replace("[ZValue = 2]", "[ZValue = 1]")
        found = series(text)
        assert len(found.tilts) == 3
        assert any("[ZValue = 1] occurs twice" in warning for warning in found.warnings)

    def test_same_angle_twice_keeps_both(self, mdoc_text):
        found = series(mdoc_text((0.0, 3.0, 3.02)))
        assert len(found.tilts) == 3
        assert any("two exposures at 3.0 deg" in warning for warning in found.warnings)


class TestProblems:
    def test_a_section_without_angle_is_told(self, mdoc_text):
        found = series(mdoc_text(sections={1: {"TiltAngle": None}}))
        assert len(found.tilts) == 2
        assert any("[ZValue = 1] has no TiltAngle" in warning for warning in found.warnings)

    def test_no_movies_at_all(self, mdoc_text):
        with pytest.raises(FileFormatError, match="SubFramePath"):
            series(mdoc_text(section={"SubFramePath": None}))

    @pytest.mark.parametrize("key", ["TiltAngle", "ExposureDose", "TargetDefocus", "NumSubFrames"])
    def test_bad_values_name_the_line(self, mdoc_text, key):
        text = mdoc_text(sections={1: {key: "wrong"}})
        with pytest.raises(FileFormatError, match=f"{key} = wrong") as caught:
            series(text)
        assert text.split("\n")[caught.value.line - 1] == f"{key} = wrong"

    def test_bad_z_value(self, mdoc_text):
        with pytest.raises(FileFormatError, match="ZValue = two"):
            series(mdoc_text().replace("[ZValue = 2]", "[ZValue = two]"))

    def test_montage_and_single_movies(self, mdoc_text):
        with pytest.raises(FileFormatError, match="montage"):
            series(mdoc_text(sections={z: {"PieceCoordinates": f"{z} 0 0"} for z in range(3)}))
        with pytest.raises(FileFormatError, match="one movie"):
            series("[FrameSet = 0]\nTiltAngle = 1\nDateTime = x\n")

    def test_values_changing_within_the_series(self, mdoc_text):
        found = series(mdoc_text(sections={1: {"Magnification": "64000"}}))
        (warning,) = found.warnings
        assert "Magnification changes" in warning
        assert "42000 (line 14), 64000 (line 30)" in warning

    def test_the_first_image_still_being_written(self, mdoc_text):
        text = mdoc_text()
        with pytest.raises(FileFormatError, match=r"nothing to use yet: .*\[ZValue = 0\]"):
            series(text[: text.index("Magnification")])

    def test_incomplete_is_passed_on(self, mdoc_text):
        found = series(mdoc_text(sections={2: {"DateTime": None}}))
        assert found.incomplete is not None
        assert len(found.tilts) == 2


def test_cut_at_every_byte_never_loses_tilts_silently(mdoc_text):
    """Refused, incomplete, or ending exactly where a tilt ends; and never with other values."""
    text = mdoc_text()
    whole = series(text)
    ends = {text.index(f"[ZValue = {z}]") for z in (1, 2)}
    for length in range(len(text)):
        try:
            cut = series(text[:length])
        except FileFormatError:
            continue
        assert cut.tilts == whole.tilts[: len(cut.tilts)], length
        if cut.incomplete is None and len(cut.tilts) < len(whole.tilts):
            assert any(0 <= end - length <= 1 for end in ends), length


@pytest.mark.parametrize(
    ("size", "binning", "camera"),
    [
        ((5760, 4092), 1, "Gatan K3"),
        ((4092, 5760), 1, "Gatan K3"),
        ((11520, 8184), 0.5, "Gatan K3"),
        ((2880, 2046), 2, "Gatan K3"),
        ((3838, 3710), 1, "Gatan K2"),
        ((3708, 3838), 1, "Gatan K2"),
        ((924, 958), 4, "Gatan K2"),
        ((4096, 4096), 1, "Falcon"),
        ((512, 512), 1, None),
        (None, None, None),
    ],
)
def test_camera_by_size(size, binning, camera):
    assert guess_camera(size, binning) == camera


def test_camera_by_eer():
    assert guess_camera((4096, 4096), 1, ["a_EER.eer"]) == "Falcon 4"


REAL_TILT_SERIES = {
    # file: tilts, axis, pixel size, camera, dose of the first tilt
    "test_1.mdoc": (11, 83.8, 1.94, "Falcon", 5.45454 * 1.49179 / 1.94**2),
    "TS_01.mrc.mdoc": (41, 85.3, 5.4, "Gatan K2", None),
    "tilt_series.mdoc": (41, 85.3, 5.4, "Gatan K2", None),
    "foo-TS_run1.mdoc": (5, 84.7, 3.3702, "Gatan K2", 2.35936),
    "close-TS_run1.mdoc": (9, 84.7, 3.3702, "Gatan K2", 2.35936),
}


class TestRealFiles:
    def test_values(self, real_mdoc):
        if real_mdoc.name not in REAL_TILT_SERIES:
            with pytest.raises(FileFormatError, match="not a tilt series"):
                read_tilt_series(real_mdoc)
            return
        tilts, axis, pixel_size, camera, dose = REAL_TILT_SERIES[real_mdoc.name]
        found = read_tilt_series(real_mdoc)
        assert len(found.tilts) == tilts
        assert found.tilt_axis_deg == axis
        assert found.pixel_size_angstrom == pixel_size
        assert found.camera == camera
        assert found.software == "SerialEM"
        first = found.tilts[0]
        assert first.dose_e_per_a2 == (None if dose is None else pytest.approx(dose))
        assert first.pre_exposure_e_per_a2 == 0
        assert abs(first.tilt_angle_deg) < 0.1  # all of them start untilted
        assert all("\\" not in t.movie_name for t in found.tilts)

    def test_serialem_writes_the_axis_as_rotation_minus_90(self, real_mdoc):
        """The rule for mdocs without a title, checked on every file that has both."""
        mdoc = read_mdoc(real_mdoc)
        title = next((t for t in mdoc.titles if "Tilt axis angle" in t.text), None)
        if title is None:
            pytest.skip("no tilt axis in the titles")
        axis = float(title.text.split("=")[1].split(",")[0])
        rotation = mdoc.sections[0].number("RotationAngle")
        assert math.isclose(rotation - 90, axis, abs_tol=0.06)
