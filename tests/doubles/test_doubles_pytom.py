"""The doubles of pytom-match-pick take what the contract knows, and end as the real ones do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from doubles.pytom import main
from doubles.pytom_maps import save, volume

from crboost.builders.pytom_contract import contract

MATCH, EXTRACT = "pytom_match_template.py", "pytom_extract_candidates.py"
PLACES = np.array([[12, 10, 14], [28, 22, 14]])
GIVEN = ("--template", "t.mrc", "--mask", "m.mrc", "--tomogram", "TS_01.mrc", "--gpu-ids", "0")
WORDS = (*GIVEN, "--tilt-angles", "a.tlt", "--angular-search", "90", "--voxel-size-angstrom", "8")


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tomogram [40, 32, 28] with two blobs, and what is said of its tilt images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def blobs(shape: tuple[int, ...], places: np.ndarray) -> np.ndarray:
        grid = np.indices(shape)
        return sum(
            np.exp(-sum((a - p) ** 2 for a, p in zip(grid, place, strict=True)) / 4)
            for place in places
        )

    noise = np.random.default_rng(1).normal(size=(40, 32, 28)) * 0.05
    save(tmp_path / "TS_01.mrc", blobs((40, 32, 28), PLACES) + noise, 8.0)
    save(tmp_path / "t.mrc", blobs((9, 9, 9), np.array([[4, 4, 4]])), 8.0)
    save(tmp_path / "m.mrc", np.ones((9, 9, 9)), 8.0)
    half = np.zeros((40, 32, 28))
    half[:20] = 1
    save(tmp_path / "half.mrc", half, 8.0)
    (tmp_path / "a.tlt").write_text("-3\n0\n3\n")
    (tmp_path / "d.txt").write_text("1\n2\n3\n")
    (tmp_path / "two.txt").write_text("1\n2\n")
    (tmp_path / "more.tlt").write_text("-3 1\n0 2\n3 3\n")
    return tmp_path


def found(*words: str) -> np.ndarray:
    """Where candidates were found."""
    argv = ("--job-file", "TS_01_job.json", "--number-of-particles", "9", *words)
    assert main(EXTRACT, argv) == 0
    table = starfile.read("TS_01_particles.star", always_dict=True)["particles"]
    return table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy()


SOME = ("--particle-diameter", "64", "--cut-off", "0.1")


@pytest.mark.parametrize(
    "more",
    [
        (),
        ("--per-tilt-weighting", "--dose-accumulation", "d.txt"),
        ("--defocus", "d.txt", "--voltage", "300", "--spherical-aberration", "2.7",
         "--amplitude-contrast", "0.1", "--phase-shift", "90", "--tomogram-ctf-model",
         "phase-flip", "--defocus-handedness", "-1"),
        ("--volume-split", "2", "2", "1", "--tomogram-mask", "m40.mrc", "--log", "debug"),
        ("--low-pass", "20", "--high-pass", "400"),
        ("--non-spherical-mask", "--half-precision", "--z-axis-rotational-symmetry", "4"),
        ("--random-phase-correction", "--rng-seed", "7"),
    ],
)  # fmt: skip
def test_every_option_leads_to_the_blobs(files: Path, more: tuple[str, ...]) -> None:
    save(files / "m40.mrc", np.ones((40, 32, 28)), 8.0)
    assert main(MATCH, (*WORDS, *more)) == 0
    places = found(*SOME)
    assert sorted(map(tuple, places[:2].tolist())) == sorted(map(tuple, PLACES.tolist()))


def test_whitening_makes_peaks_sharper() -> None:
    def width() -> int:
        scores = volume("TS_01_scores.mrc")
        return int((scores > scores.max() / 2).sum())

    main(MATCH, WORDS)
    before = width()
    assert main(MATCH, (*WORDS, "--spectral-whitening")) == 0
    assert width() < before


def test_angles_may_come_otherwise(files: Path) -> None:
    plain = (*GIVEN, "--particle-diameter", "30", "--low-pass", "30")
    assert main(MATCH, (*plain, "--tilt-angles", "-60", "60")) == 0
    assert json.loads(Path("TS_01_job.json").read_text())["rotation_file"] == "57.295780"
    assert main(MATCH, (*plain, "--tilt-angles-first-column", "more.tlt")) == 0
    tilts = {"rlnTomoYTilt": [-3.0, 0.0, 3.0], "rlnMicrographName": ["a", "b", "c"]}
    starfile.write({"TS_01": pd.DataFrame(tilts)}, files / "tilts.star")
    row = {"rlnTomoName": ["TS_01"], "rlnTomoTiltSeriesStarFile": ["tilts.star"],
           "rlnTomoTiltSeriesPixelSize": [4.0], "rlnTomoTomogramBinning": [2.0]}  # fmt: skip
    starfile.write({"global": pd.DataFrame(row)}, files / "tomograms.star")
    assert main(MATCH, (*plain, "--relion5-tomograms-star", "tomograms.star")) == 0
    assert json.loads(Path("TS_01_job.json").read_text())["voxel_size"] == 8.0


def test_only_a_part_may_be_searched_and_taken() -> None:
    assert main(MATCH, (*WORDS, "--search-x", "20", "40")) == 0
    assert volume("TS_01_scores.mrc").shape == (20, 32, 28)
    assert found(*SOME)[0].tolist() == PLACES[1].tolist()
    main(MATCH, (*WORDS, "--tomogram-mask", "half.mrc", "--volume-split", "2", "1", "1"))
    assert found(*SOME)[:, 0].max() < 20
    main(MATCH, WORDS)
    assert len(found(*SOME, "--tomogram-mask", "half.mrc")) == 1
    assert len(found(*SOME, "--tomogram-mask", "half.mrc", "--ignore_tomogram_mask")) == 2


def test_how_candidates_are_chosen(files: Path) -> None:
    main(MATCH, WORDS)
    assert len(found(*SOME, "--tophat-filter", "--tophat-bins", "40", "--plot-bins", "9")) >= 2
    assert len(found("--particle-diameter", "64", "--number-of-false-positives", "0.1")) >= 2
    argv = ("-j", "TS_01_job.json", "-n", "1", "--particle-diameter", "64", "--relion5-compat")
    assert main(EXTRACT, argv) == 0
    table = starfile.read(files / "TS_01_particles.star", always_dict=True)["particles"]
    x = float(table["rlnCenteredCoordinateXAngst"].iloc[0])
    assert x in [(place[0] - 20) * 8.0 for place in PLACES]
    assert list(table["rlnTomoName"]) == ["TS_01"]


def test_where_there_is_nothing_the_table_is_empty_and_the_code_0(files: Path) -> None:
    main(MATCH, WORDS)
    assert len(found("--particle-diameter", "64", "--cut-off", "1")) == 0
    # The real one blanks edges of no width by blanking everything.
    assert len(found("--particle-diameter", "9", "--cut-off", "0.1")) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*WORDS, "--tilt-angle", "a.tlt"), "has no option --tilt-angle"),
        ((*WORDS, "--vol", "1", "1", "1"), "has no option --vol"),  # argparse would take it
        (WORDS[2:], "needs --template"),
        ((*WORDS, "--volume-split", "2", "2"), "--volume-split takes 3 values, not 2"),
        ((*WORDS, "--tomogram-ctf-model", "wiener"), "is none of"),
        ((*GIVEN, "--tilt-angles", "d.txt"), "not of the right format"),
        ((*GIVEN, "--tilt-angles", "more.tlt"), "more than one column"),
        ((*WORDS, "--destination", "nowhere"), "a directory path that does not exist"),
        (("-t", "no.mrc", *WORDS[2:]), "a file path that does not exist: no.mrc"),
    ],
)
def test_wrong_arguments_end_with_2_and_make_nothing(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(MATCH, words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(Path().glob("TS_01_*"))


def test_a_gpu_that_cuda_does_not_show_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert main(MATCH, (*WORDS[:6], "--gpu-ids", "0", "1", *WORDS[8:])) == 0
    with pytest.raises(SystemExit) as ended:
        main(MATCH, (*WORDS[:6], "--gpu-ids", "3", *WORDS[8:]))
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--dose-accumulation", "two.txt"), "differ in length"),
        (("--defocus", "d.txt"), "Cannot create 3D CTF weighting"),
        (("--tilt-angles-first-column", "more.tlt"), "Only one of"),
    ],
)
def test_what_does_not_fit_together_is_an_error(more: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        main(MATCH, (*WORDS, *more))


def test_it_fails_on_what_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOUBLES_FAIL", "TS_01")
    with pytest.raises(RuntimeError, match="stopped unexpectedly"):
        main(MATCH, WORDS)
    assert not Path("TS_01_scores.mrc").exists()


def test_the_doubles_are_the_contracts_programs() -> None:
    there = {path.name for path in (Path(__file__).parent / "bin").glob("pytom_*")}
    assert there == set(contract()["programs"])
