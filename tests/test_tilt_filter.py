"""The tilt filter in a real project: through the schemer and the driver, with real images."""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from crboost.cpu.example_data import make_example_data
from crboost.project import Project
from crboost.relion.star import read_star
from crboost.results import SeriesResult, read_results
from crboost.run import Run
from crboost.settings import Settings
from crboost.tilt_name import tilt_name
from crboost.translate.tables import read_tilt_series

NOW = datetime(2026, 5, 1, 10, 0, 0, tzinfo=UTC)
TO_CTF = ["importmovies", "fsMotionAndCtf"]
WITH_FILTER = [*TO_CTF, "tiltFilter", "tsAlignment"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tiny tilt series of 11 tilts; TS_03 has a dead tilt."""
    directory = tmp_path_factory.mktemp("tilts")
    make_example_data(directory, size_px=128, frames=2, tilt_step_deg=12)
    return directory


@pytest.fixture
def project(tmp_path: Path, data: Path) -> Project:
    made = Project.create(
        tmp_path / "P", movies=[str(data / "frames")], mdocs=[str(data / "*.mdoc")]
    ).project
    made.set_values({"acquisition.sample_thickness_nm": "80", "computing.workers": "2"})
    return made


def run(project: Project, jobs: list[str]) -> list[str]:
    """Do what the plan says, through the real schemer; the nodes that ran."""
    plan = project.plan(jobs)
    if plan.is_empty:
        return []
    made = Run.create(project, plan, project.parameters(), Settings(), now=NOW)
    code = "import sys; from crboost.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "schemer", "run", str(project.directory), made.name],
        check=True,
        capture_output=True,
    )
    assert [made.job_state(node).phase for node in made.nodes] == ["succeeded"] * len(made.nodes)
    return made.nodes


def tilts(project: Project, word: str, *rest: str, code: int = 0) -> CompletedProcess[str]:
    """`crboost tilts`, as a user types it."""
    argv = [sys.executable, "-m", "crboost", "tilts", word, str(project.directory), *rest]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def newest(project: Project, node: str) -> Path:
    jobs = [past for past in project.history() if past.node == node]
    return project.directory / max(jobs, key=lambda past: past.number).name


def tilts_in(project: Project, job: Path, table: str) -> dict[str, list[str]]:
    tables = read_tilt_series(job / table, project.directory)
    return {name: [tilt_name(row) for row in rows] for name, (_, rows) in tables.items()}


def aligned(project: Project, series: str) -> list[str]:
    """The tilt images that the alignment's tool was given."""
    spec = json.loads((newest(project, "tsAlignment") / "cpu" / series / "align.json").read_text())
    return [tilt["name"] for tilt in spec["tilts"]]


def filtered(project: Project) -> dict[str, SeriesResult]:
    return read_results(newest(project, "tiltFilter"))


def test_b9_rejected_tilts_never_reach_the_next_tool_and_come_back(project: Project) -> None:
    """B9: what a filter rejects must not be used by anything after it; and B28's other half."""
    project.set_values(
        {"jobs.tiltFilter.tilt_max_deg": "40", "jobs.tiltFilter.intensity_min_fraction": "0.5"}
    )
    assert run(project, WITH_FILTER) == WITH_FILTER
    before = tilts_in(project, newest(project, "fsMotionAndCtf"), "tilt_series_ctf.star")
    job = newest(project, "tiltFilter")
    after = tilts_in(project, job, "selected_tilt_series.star")
    steep = {
        tilt["name"]
        for tilt in filtered(project)["TS_01"].tilts
        if abs(tilt["tilt_angle_deg"]) > 40
    }
    assert steep
    assert set(before["TS_01"]) - set(after["TS_01"]) == steep
    assert [past.inputs for past in project.history() if past.node == "tsAlignment"] == [
        ("External/job003/selected_tilt_series.star",)
    ]
    for name in before:
        assert aligned(project, name) == after[name]

    # Recorded: which, why, and the values, in the results and in one table.
    result = filtered(project)["TS_03"]
    (dead,) = [tilt for tilt in result.tilts if "intensity" in (tilt["reason"] or "")]
    assert (dead["status"], dead["by"]) == ("excluded", "rule")
    assert dead["values"]["intensity_fraction"] < 0.5
    assert "intensity_min_fraction = 0.5" in dead["reason"]
    assert result.metrics["tilts"] == len(after["TS_03"])
    assert result.metrics["tilts_rejected"] == len(before["TS_03"]) - len(after["TS_03"])
    table = read_star(job / "tilt_filter.star").records("tilt_filter")
    assert len(table) == sum(len(tilts) for tilts in before.values())
    rejected = {row["crbTiltImage"] for row in table if row["crbVerdict"] == "reject"}
    assert rejected == {
        name for series in before for name in before[series] if name not in after[series]
    }

    # Another rule: a new job, and the tilts are back.
    project.set_values({"jobs.tiltFilter.tilt_max_deg": "none"})
    assert run(project, WITH_FILTER) == ["tiltFilter", "tsAlignment"]
    assert newest(project, "tiltFilter") != job
    assert aligned(project, "TS_01") == before["TS_01"]
    assert dead["name"] not in aligned(project, "TS_03")
    assert tilts_in(project, job, "selected_tilt_series.star") == after


def test_a_person_overrules_and_only_that_series_is_done_again(project: Project) -> None:
    project.set_values({"jobs.tiltFilter.tilt_max_deg": "40"})
    run(project, WITH_FILTER)
    first = {name: one.started for name, one in filtered(project).items()}
    alignments = read_results(newest(project, "tsAlignment"))
    steep = next(tilt for tilt in filtered(project)["TS_01"].tilts if tilt["status"] == "excluded")
    flat = next(tilt for tilt in filtered(project)["TS_01"].tilts if tilt["tilt_angle_deg"] == 0)
    assert project.plan(WITH_FILTER).is_empty

    said = tilts(project, "keep", "TS_01", steep["name"], "--reason", "it looks fine")
    assert said.stdout.startswith("keep: 1 tilt image")
    tilts(project, "reject", "TS_01", f"*{flat['name'][-8:]}", "--reason", "crystalline ice")
    wrong = tilts(project, "keep", "TS_01", "nobody", code=2)
    assert "TS_01 has no tilt image nobody" in wrong.stderr
    assert "no tilt series TS_09 has a CTF" in tilts(project, "keep", "TS_09", "*", code=2).stderr
    plan = project.plan(WITH_FILTER)
    assert [job.node for job in plan.jobs] == ["tiltFilter", "tsAlignment"]
    assert "TS_01 changed" in plan.jobs[0].reason
    assert plan.jobs[0].continue_of == "External/job003/"
    assert run(project, WITH_FILTER) == ["tiltFilter", "tsAlignment"]
    assert steep["name"] in aligned(project, "TS_01")
    assert flat["name"] not in aligned(project, "TS_01")
    records = {tilt["name"]: tilt for tilt in filtered(project)["TS_01"].tilts}
    kept, left = records[steep["name"]], records[flat["name"]]
    assert (kept["by"], kept["status"]) == ("person", "done")
    user = getpass.getuser()
    assert kept["reason"].startswith(f"kept by {user}: it looks fine (against tilt angle")
    assert left["status"] == "excluded"
    assert left["reason"] == f"rejected by {user}: crystalline ice"
    assert filtered(project)["TS_01"].metrics["tilts_overruled"] == 2
    again = read_results(newest(project, "tsAlignment"))
    assert again["TS_02"] == alignments["TS_02"]
    assert again["TS_01"].fingerprint != alignments["TS_01"].fingerprint
    assert filtered(project)["TS_02"].started == first["TS_02"]
    assert project.plan(WITH_FILTER).is_empty

    shown = json.loads(tilts(project, "show", "TS_01", "--json").stdout)
    (row,) = [tilt for tilt in shown["tilts"] if tilt["tilt"] == flat["name"]]
    assert (row["verdict"], row["by"], row["person"]) == ("reject", "person", "reject")
    table = tilts(project, "show", "--rejected").stdout
    assert flat["name"] in table
    assert steep["name"] not in table
    assert "2 verdicts taken back" in tilts(project, "forget", "TS_01", "*").stdout
    assert "nobody has said anything" in tilts(project, "forget", "TS_01", "*", code=2).stderr
    assert run(project, WITH_FILTER) == ["tiltFilter", "tsAlignment"]
    assert steep["name"] not in aligned(project, "TS_01")
    assert flat["name"] in aligned(project, "TS_01")


CLASSIFIER = """
import csv, sys
import mrcfile
source, target = sys.argv[-2:]
with open(source, newline="") as given, open(target, "w", newline="") as made:
    writer = csv.writer(made)
    writer.writerow(["tilt", "verdict", "probability", "reason"])
    for row in csv.DictReader(given):
        with mrcfile.open(row["image"], permissive=True) as image:
            mean = float(image.data.astype("f4").mean())
        sure = 0.95 if float(row["tilt_angle_deg"]) > -50 else 0.4
        bad = mean < 5 or float(row["tilt_angle_deg"]) < -30
        writer.writerow([row["tilt"], "bad" if bad else "good", sure, "seen"])
"""


def test_an_external_classifier_is_asked_and_its_certainty_counts(
    project: Project, tmp_path: Path
) -> None:
    script = tmp_path / "classify it.py"
    script.write_text(CLASSIFIER)
    project.set_values(
        {
            "jobs.tiltFilter.classifier_command": f"{sys.executable} '{script}'",
            "jobs.tiltFilter.classifier_min_probability": "0.5",
        }
    )
    run(project, [*TO_CTF, "tiltFilter"])
    records = filtered(project)["TS_01"].tilts
    assert {tilt["status"] for tilt in records if tilt["tilt_angle_deg"] < -50} == {"done"}
    out = [tilt for tilt in records if -50 < tilt["tilt_angle_deg"] < -30]
    assert out
    assert {(tilt["by"], tilt["reason"]) for tilt in out} == {
        ("classifier", "the classifier calls it bad (probability 0.95): seen")
    }
    assert filtered(project)["TS_01"].commands[0][:2] == [sys.executable, str(script)]


def test_a_classifier_that_fails_fails_the_series_and_says_why(
    project: Project, tmp_path: Path
) -> None:
    script = tmp_path / "broken.py"
    script.write_text("import sys; open(sys.argv[-1], 'w').write('tilt,verdict\\nx,maybe\\n')")
    project.set_values({"jobs.tiltFilter.classifier_command": f"{sys.executable} {script}"})
    run(project, TO_CTF)
    with pytest.raises(AssertionError):
        run(project, ["tiltFilter"])
    reason = filtered(project)["TS_01"].reason or ""
    assert "classifier_output.csv:2: verdict 'maybe'" in reason


def test_a_series_with_too_few_tilts_left_is_given_up(project: Project) -> None:
    project.set_values(
        {"jobs.tiltFilter.dose_max_e_per_a2": "9.5", "jobs.tiltFilter.min_tilts": "5"}
    )
    run(project, TO_CTF)
    with pytest.raises(AssertionError):
        run(project, ["tiltFilter"])
    reason = filtered(project)["TS_01"].reason or ""
    assert reason.startswith("4 of 11 tilt images are kept, min_tilts = 5: 7 by rule")
