"""job.star, the command and the submission script of an External job; nodes and markers."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from relion_golden import EXTRAS, GOLDEN

from crboost.errors import FileFormatError, SchemerError
from crboost.relion.job import (
    Submission,
    complete_external,
    external_command,
    external_inputs,
    external_job,
    extra_environment,
    fill_submission_script,
    format_job,
    local_shell_line,
    read_job,
    write_job,
)
from crboost.relion.ledger import Node
from crboost.relion.markers import (
    ABORT_NOW,
    Marker,
    clear_markers,
    read_marker,
    request_abort,
    write_marker,
)
from crboost.relion.nodes import index_node, read_output_nodes, write_output_nodes

DONE = GOLDEN / "external_local/External/job002"


def test_an_external_job_is_complete_for_relion() -> None:
    job = external_job(
        "./ext.sh",
        inputs={"in_mov": "External/job001/out.star"},
        parameters={"fail": "no"},
    ).with_options(qsubscript="qsub.sh", queuename="cpu")
    assert format_job(job) == (DONE / "job.star").read_text()


def test_a_submitted_job_is_complete_for_relion() -> None:
    submission = Submission("sbatch", "qsub.sh", queue="cpu", extras=("1", "512M"))
    job = external_job("./ext.sh", parameters={"sleep": "0"}, submission=submission)
    golden = GOLDEN / "external_queue/External/job001/job.star"
    assert format_job(job) == golden.read_text()


def test_a_minimal_job_is_completed() -> None:
    raw = read_job(GOLDEN / "external_local/Schemes/x/ext1/job.star")
    job = complete_external(raw, {})
    done = read_job(GOLDEN / "external_local/External/job001/job.star")
    assert sorted(job.options) == sorted(done.options)
    assert job.options["param1_value"] == "$$nap"
    queued = read_job(GOLDEN / "external_queue/Schemes/x/ext1/job.star")
    assert "qsub_extra1" not in complete_external(queued, {}).options
    assert complete_external(queued, EXTRAS).options["qsub_extra2"] == "512M"
    assert extra_environment(["Nodes", "Memory"]) == EXTRAS
    site = {"RELION_QUEUE_USE": "yes", "RELION_QUEUE_NAME": "gpu", "RELION_QSUB_TEMPLATE": "t.sh"}
    bare = complete_external(external_job("x"), {})
    assert not bare.do_queue
    completed = complete_external(type(bare)(bare.type_label), site)
    assert completed.do_queue
    assert (completed.option("queuename"), completed.option("qsubscript")) == ("gpu", "t.sh")


def test_job_files_survive(tmp_path: Path) -> None:
    job = external_job(
        "a program", parameters={"text": 'it\'s "quoted" # not a comment', "empty": ""}
    )
    write_job(tmp_path / "job.star", job)
    assert read_job(tmp_path / "job.star") == job
    (tmp_path / "job.star").write_text("data_job\n_rlnJobIsContinue 0\n")
    with pytest.raises(FileFormatError, match="no rlnJobTypeLabel"):
        read_job(tmp_path / "job.star")


def test_what_relion_cannot_hold_is_refused() -> None:
    with pytest.raises(SchemerError, match="no input in_tomo"):
        external_job("x", inputs={"in_tomo": "a.star"})
    with pytest.raises(SchemerError, match="takes 10 parameters, not 11"):
        external_job("x", parameters={str(n): "" for n in range(11)})


def golden_commands() -> list[tuple[Path, str]]:
    found = []
    for note in sorted(GOLDEN.rglob("note.txt")):
        text = note.read_text()
        command = text.rpartition("command(s): \n")[2].partition("\n ++++")[0]
        job = note.parent / "job.star"
        if "relion.external" in job.read_text():
            found.append((job, command))
    return found


@pytest.mark.parametrize(("path", "command"), golden_commands(), ids=lambda x: str(x)[-60:])
def test_commands_as_relion_built_them(path: Path, command: str) -> None:
    assert external_command(read_job(path), f"External/{path.parent.name}/") == command


def test_every_input_and_argument_in_relions_order() -> None:
    job = external_job(
        "exe",
        inputs={
            name: f"{name}.star"
            for name in ("in_mask", "in_3dref", "in_coords", "in_part", "in_mic", "in_mov")
        },
        parameters={"b": "2", "a": "1"},
        nr_threads=4,
        other_args="--x y",
    )
    assert external_command(job, "External/job007/") == (
        "exe --o External/job007/ --in_movies in_mov.star --in_mics in_mic.star"
        " --in_parts in_part.star --in_coords in_coords.star --in_3dref in_3dref.star"
        " --in_mask in_mask.star --b 2 --a 1 --j 4 --x y"
    )
    labels = {node.name: node.label for node in external_inputs(job)}
    assert labels["in_mic.star"] == "MicrographGroupMetadata.star.relion"
    assert len(labels) == 6
    with pytest.raises(SchemerError, match="no fn_exe"):
        external_command(external_job(""), "External/job001/")


def test_output_is_appended_unless_the_command_redirects() -> None:
    assert local_shell_line("a", "d/") == "a >> d/run.out 2>> d/run.err"
    assert local_shell_line("a > b", "d/") == "a > b"


@pytest.mark.parametrize(
    ("scenario", "environ"), [("external_queue", EXTRAS), ("external_queue_relion_name", {})]
)
@pytest.mark.parametrize("number", ["001", "002"])
def test_submission_scripts_as_relion_filled_them(
    scenario: str, environ: dict[str, str], number: str
) -> None:
    directory = GOLDEN / scenario / f"External/job{number}"
    job = read_job(directory / "job.star")
    name = f"External/job{number}/"
    template = (GOLDEN / scenario / "qsub.sh").read_text()
    script = fill_submission_script(template, job, name, external_command(job, name), environ)
    assert script == (directory / "run_submit.script").read_text()


def test_placeholders_and_the_whole_line_rule() -> None:
    template = (
        "c=XXXcoresXXX d=XXXdedicatedXXX n=XXXnodesXXX XXXextra1XXX XXXextra3XXX\n"
        "wrap XXXcommandXXX end"
    )
    submission = Submission("sbatch", "q", min_dedicated=4, extras=("1", "2", "3"))
    job = external_job("x", nr_threads=6, submission=submission)
    environ = {"RELION_QSUB_EXTRA_COUNT": "1", "RELION_QSUB_EXTRA1": "one"}
    script = fill_submission_script(template, job, "d/", "./driver", environ)
    assert script == "c=6 d=4 n=2 1 XXXextra3XXX\n./driver\n\n"
    script = fill_submission_script(template, job, "d/", "relion_x", environ)
    assert script.splitlines()[1] == "wrap relion_x end"
    with pytest.raises(SchemerError, match="nr_threads is 'many'"):
        fill_submission_script(template, job.with_options(nr_threads="many"), "d/", "x", {})


# --- nodes and markers ---------------------------------------------------------------------------


def test_output_nodes(tmp_path: Path) -> None:
    (node,) = read_output_nodes(DONE)
    assert node == Node("External/job002/out.star", "TomogramGroupMetadata.star.relion.tomo.import")
    assert read_output_nodes(tmp_path) == []
    write_output_nodes(tmp_path, [node])
    assert read_output_nodes(tmp_path) == [node]
    (tmp_path / "RELION_OUTPUT_NODES.star").write_text("data_output_nodes\nloop_\n_a #1\nx\n")
    with pytest.raises(FileFormatError, match="needs rlnPipeLineNodeName"):
        read_output_nodes(tmp_path)


def test_the_node_index(tmp_path: Path) -> None:
    node = Node("External/job001/o.star", "Particles.star.relion", 2)
    assert not index_node(tmp_path, node)
    (tmp_path / "External/job001").mkdir(parents=True)
    (tmp_path / node.name).touch()
    assert index_node(tmp_path, node)
    found = [str(p.relative_to(tmp_path)) for p in (tmp_path / ".Nodes").rglob("o.star")]
    assert sorted(found) == [
        ".Nodes/Particles.star/External/job001/o.star",
        ".Nodes/Particles/External/job001/o.star",
    ]


def test_markers(tmp_path: Path) -> None:
    assert read_marker(tmp_path) is None
    write_marker(tmp_path, Marker.ABORTED)
    write_marker(tmp_path, Marker.FAILURE)
    request_abort(tmp_path)
    assert read_marker(tmp_path) is Marker.FAILURE
    write_marker(tmp_path, Marker.SUCCESS)
    assert read_marker(tmp_path) is Marker.SUCCESS
    assert (tmp_path / ABORT_NOW).exists()
    clear_markers(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("beginning", [0, 40])
def test_a_job_file_that_is_being_written_is_read_when_it_is_whole(
    tmp_path: Path, beginning: int
) -> None:
    """RELION writes in place: at first there is nothing, or no more than the beginning."""
    path = tmp_path / "job.star"
    job = external_job(".crboost/driver", parameters={"node": "tsAlignment"})
    whole = format_job(job)
    path.write_text(whole[:beginning])
    writer = threading.Timer(0.3, path.write_text, [whole])
    writer.start()
    assert read_job(path) == job
    writer.join()


def test_a_job_file_that_has_long_been_damaged_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "job.star"
    path.touch()
    os.utime(path, (1, 1))
    begun = time.monotonic()
    with pytest.raises(FileFormatError, match="no rlnJobTypeLabel"):
        read_job(path)
    assert time.monotonic() - begun < 0.2
