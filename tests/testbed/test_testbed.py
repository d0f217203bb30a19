"""The testbed itself: RELION in its image, submission from inside it, Slurm's verdicts."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from testbed.fixtures import Apptainer, RelionImage, SlurmCluster

EXTERNAL_JOB = """\
#!/bin/bash
# Notes where it runs, passes its input on, declares the output and marks itself as done.
while [ $# -gt 0 ]; do
  case $1 in --o) out=$2; shift;; --in_mics) input=$2; shift;; esac
  shift
done
echo "job $SLURM_JOB_ID partition $SLURM_JOB_PARTITION memory $SLURM_MEM_PER_NODE" \\
  > "${out}where.txt"
env > "${out}environment.txt"
{ [ -z "$input" ] || cat "$input"; echo "$out"; } > "${out}out.star"
columns='_rlnPipeLineNodeName #1\\n_rlnPipeLineNodeTypeLabel #2'
printf "data_output_nodes\\nloop_\\n$columns\\n%s %s\\n" \\
  "${out}out.star" MicrographsData.star.relion > "${out}RELION_OUTPUT_NODES.star"
touch "${out}RELION_JOB_EXIT_SUCCESS"
"""
TEMPLATE = """\
#!/bin/bash
#SBATCH --job-name=XXXnameXXX
#SBATCH --partition=XXXqueueXXX
#SBATCH --mem=XXXextra1XXX
#SBATCH --ntasks=XXXmpinodesXXX
#SBATCH --cpus-per-task=XXXthreadsXXX
#SBATCH --output=XXXoutfileXXX
#SBATCH --error=XXXerrfileXXX
XXXcommandXXX
"""
SCHEME = """
data_scheme_general

_rlnSchemeName                       Schemes/two/
_rlnSchemeCurrentNodeName            first

data_scheme_operators

loop_
_rlnSchemeOperatorName #1
_rlnSchemeOperatorType #2
_rlnSchemeOperatorOutput #3
_rlnSchemeOperatorInput1 #4
_rlnSchemeOperatorInput2 #5
EXIT exit undefined undefined undefined

data_scheme_jobs

loop_
_rlnSchemeJobNameOriginal #1
_rlnSchemeJobName #2
_rlnSchemeJobMode #3
_rlnSchemeJobHasStarted #4
first first continue 0
second second continue 0

data_scheme_edges

loop_
_rlnSchemeEdgeInputNodeName #1
_rlnSchemeEdgeOutputNodeName #2
_rlnSchemeEdgeIsFork #3
_rlnSchemeEdgeOutputNodeNameIfTrue #4
_rlnSchemeEdgeBooleanVariable #5
first second 0 undefined undefined
second EXIT 0 undefined undefined
"""
EATS_MEMORY = "python3 -c 'import time; x = bytearray(300 << 20); time.sleep(20)'"


def job_star(options: Mapping[str, str]) -> str:
    rows = "".join(f'{name} "{value}"\n' for name, value in options.items())
    return (
        "\ndata_job\n\n_rlnJobTypeLabel relion.external\n_rlnJobIsContinue 0\n_rlnJobIsTomo 1\n\n"
        "data_joboptions_values\n\nloop_\n_rlnJobOptionVariable #1\n_rlnJobOptionValue #2\n" + rows
    )


def two_job_project(directory: Path, partition: str) -> Path:
    """A project whose scheme `two` submits `first`, then `second` on the output of `first`."""
    project = directory / "project"
    scheme = project / "Schemes" / "two"
    queue = {
        "do_queue": "Yes",
        "qsub": "sbatch",
        "qsubscript": "qsub.sh",
        "queuename": partition,
        "min_dedicated": "1",
        "qsub_extra1": "300M",
        "nr_threads": "1",
        "fn_exe": "./external.sh",
    }
    for name, given in (("first", ""), ("second", "Schemes/two/first/out.star")):
        (scheme / name).mkdir(parents=True)
        (scheme / name / "job.star").write_text(job_star({**queue, "in_mic": given}))
    (scheme / "scheme.star").write_text(SCHEME)
    (project / "qsub.sh").write_text(TEMPLATE)
    (project / "external.sh").write_text(EXTERNAL_JOB)
    (project / "external.sh").chmod(0o755)
    (project / ".gui_projectdir").touch()
    return project


@pytest.mark.relion
def test_relion_answers_in_the_image(relion_sif: RelionImage, tmp_path: Path) -> None:
    said = relion_sif.run(["relion_refine", "--version"], tmp_path).stdout
    assert relion_sif.version.startswith("5.")
    assert relion_sif.version in said
    scheme = relion_sif.run(["relion_schemer", "--help"], tmp_path, check=False)
    assert "--set_current_node" in scheme.stdout + scheme.stderr


@pytest.mark.relion
def test_exec_keeps_paths_and_exit_codes_and_drops_the_environment(
    apptainer: Apptainer,
    relion_sif: RelionImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_HOST", "1")
    directory = tmp_path / "with $blank, 'quotes' and Ångström"
    directory.mkdir()
    script = 'pwd > here; echo "$GIVEN" "${SECRET_OF_THE_HOST-none}" >> here; exit 7'
    done = subprocess.run(
        # A comma separates binds: such a directory is bound by its parent.
        [
            str(apptainer.command),
            *("exec", "--cleanenv", "--bind", str(tmp_path), "--pwd", str(directory)),
            *("--env", "GIVEN=a b", str(relion_sif.image), "sh", "-c", script),
        ],
        check=False,
        timeout=60,
    )
    assert done.returncode == 7
    assert (directory / "here").read_text() == f"{directory}\na b none\n"


@pytest.mark.relion
@pytest.mark.slurm
def test_schemer_in_the_image_submits_both_jobs_of_a_scheme(
    relion_sif: RelionImage, slurm: SlurmCluster, tmp_path: Path
) -> None:
    project = two_job_project(tmp_path, slurm.default_partition)
    relion_sif.run(
        ["relion_schemer", "--scheme", "two", "--run", "--verb", "2"],
        project,
        submits=True,
        environment={"RELION_QSUB_EXTRA_COUNT": "1", "RELION_QSUB_EXTRA1": "Memory"},
    )
    ledger = (project / "default_pipeline.star").read_text()
    for job in ("External/job001/", "External/job002/"):
        row = next(line for line in ledger.splitlines() if line.startswith(job))
        assert row.split()[-1] == "Succeeded"
        where = (project / job / "where.txt").read_text().split()
        assert slurm.wait(int(where[1])) == "COMPLETED"
        assert where[2:] == ["partition", slurm.default_partition, "memory", "300"]
        environment = (project / job / "environment.txt").read_text()
        assert "APPTAINER" not in environment
    passed_on = (project / "External/job002/out.star").read_text().split()
    assert passed_on == ["External/job001/", "External/job002/"]


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm_memory_limit")
def test_slurm_tells_out_of_memory_from_time_limit_and_failure(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    greedy = slurm.submit(EATS_MEMORY, tmp_path, "--mem=100M")
    failing = slurm.submit("exit 3", tmp_path)
    slow = slurm.submit("sleep 300", tmp_path, "--time=1")
    slurm.wait(slow, until="RUNNING")
    slurm.expire(slow)

    assert slurm.wait(greedy) == "OUT_OF_MEMORY"
    assert slurm.wait(failing) == "FAILED"
    assert slurm.wait(slow) == "TIMEOUT"
    reasons = [slurm.fields(job)["Reason"] for job in (greedy, failing, slow)]
    assert reasons == ["OutOfMemory", "NonZeroExitCode", "TimeLimit"]
    assert slurm.fields(failing)["ExitCode"] == "3:0"
    if slurm.accounting:
        said = subprocess.run(
            [
                *("sacct", "--allocations", "--parsable2", "--noheader"),
                *("--jobs", f"{greedy},{failing},{slow}", "--format=JobID,State"),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert set(said.split()) == {
            f"{greedy}|OUT_OF_MEMORY",
            f"{failing}|FAILED",
            f"{slow}|TIMEOUT",
        }


@pytest.mark.slurm
def test_a_gpu_job_sees_its_gpu_and_only_two_fit(slurm: SlurmCluster, tmp_path: Path) -> None:
    options = ("--partition=gpu", "--gres=gpu:1", "--output=gpu.out", "--open-mode=append")
    jobs = [
        slurm.submit("echo $CUDA_VISIBLE_DEVICES; sleep 300", tmp_path, *options) for _ in range(3)
    ]
    for job in jobs[:2]:
        slurm.wait(job, until="RUNNING")
    assert slurm.fields(jobs[2])["JobState"] == "PENDING"
    seen: set[str] = set()
    end = time.monotonic() + 60
    while seen != {"0", "1"} and time.monotonic() < end:
        time.sleep(0.1)
        seen = set((tmp_path / "gpu.out").read_text().split())
    assert seen == {"0", "1"}
    slurm.cancel_all()
    assert {slurm.wait(job) for job in jobs} == {"CANCELLED"}


@pytest.mark.relion
@pytest.mark.slurm
@pytest.mark.usefixtures("slurm_memory_limit")
def test_a_container_in_a_job_is_held_to_the_jobs_memory(
    relion_sif: RelionImage, slurm: SlurmCluster, tmp_path: Path
) -> None:
    inside = relion_sif.argv(["bash", "-c", EATS_MEMORY], tmp_path)
    job = slurm.submit(shlex.join(inside), tmp_path, "--mem=150M")
    assert slurm.wait(job) == "OUT_OF_MEMORY"
