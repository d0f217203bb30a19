"""What a job of a run is submitted by, and the script that submits it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from crboost.errors import CrboostError
from crboost.relion.job import external_job as make_job
from crboost.relion.job import read_job, write_job
from crboost.scheduler.resources import Resources
from crboost.scheduler.submission import (
    find_template,
    setup_lines,
    submit_script,
    template_name,
    write_submission,
)
from crboost.scheduler.submitted import (
    find_in_queue,
    read_started,
    read_submitted,
    scheduler_job_id,
    submission_id,
)
from crboost.settings import Settings

RUN = "Schemes/run_1"


def site(**scheduler: object) -> Settings:
    return Settings.model_validate(
        {
            "scheduler": {"kind": "slurm", **scheduler},
            "tools": {"relion": {"image": "/images/relion.sif"}},
            "relion": {"environment": {"RELION_CTFFIND_EXECUTABLE": "/bin/ctffind"}},
        }
    )


class TestTemplates:
    def test_which_one(self) -> None:
        assert template_name(site(), native=False, gpus=False) == "slurm_cpu.sh"
        assert template_name(site(), native=False, gpus=True) == "slurm_gpu.sh"
        assert template_name(site(), native=True, gpus=True) == "slurm_relion.sh"
        own = site(template_gpu="/site/gpu.sh")
        assert template_name(own, native=False, gpus=True) == "/site/gpu.sh"

    def test_a_machine_without_a_scheduler_has_none(self, tmp_path: Path) -> None:
        local = Settings()
        assert write_submission(tmp_path, RUN, "tsAlignment", Resources(), local) is None
        with pytest.raises(CrboostError, match="jobs are not submitted"):
            template_name(local, native=False, gpus=False)

    def test_the_projects_own_goes_first(self, tmp_path: Path) -> None:
        (tmp_path / "qsub").mkdir()
        (tmp_path / "qsub" / "slurm_cpu.sh").write_text("mine")
        assert find_template("slurm_cpu.sh", tmp_path) == tmp_path / "qsub" / "slurm_cpu.sh"
        assert find_template("slurm_gpu.sh", tmp_path).parent.name == "qsub"
        with pytest.raises(CrboostError, match=r"no submission template x\.sh"):
            find_template("x.sh", tmp_path)


class TestWrite:
    def test_a_driver(self, tmp_path: Path) -> None:
        resources = Resources(cpus=8, memory_gb=32, partition="cpu", time_limit_minutes=60)
        made = write_submission(tmp_path, RUN, "tsAlignment", resources, site())
        assert made is not None
        assert made.command == "Schemes/run_1/submit"
        assert made.template == "Schemes/run_1/submit_tsAlignment.sh"
        assert list(made.extras) == ["cpu", "", "1", "1", "8", "", "32G", "01:00:00"]
        assert (made.queue, made.min_dedicated) == ("cpu", 8)
        text = (tmp_path / made.template).read_text()
        assert "--constraint" not in text
        assert "--mem=XXXextra7XXX" in text
        assert "\nbash -e -s <<" in text
        assert os.access(tmp_path / made.command, os.X_OK)

    def test_relions_own_command(self, tmp_path: Path) -> None:
        resources = Resources(tasks=4, gpus=1)
        made = write_submission(tmp_path, RUN, "refine", resources, site(), native=True)
        assert made is not None
        text = (tmp_path / made.template).read_text()
        assert (
            "apptainer exec --cleanenv --no-home --env XDG_CACHE_HOME=/tmp "
            "--env RELION_CTFFIND_EXECUTABLE=/bin/ctffind "
            f"--nv --bind {tmp_path} --pwd {tmp_path} /images/relion.sif bash -e -s <<"
        ) in text
        assert "\nmpirun -n XXXmpinodesXXX XXXcommandXXX\n" in text
        assert 'export "APPTAINERENV_$name=${!name}"' in text
        assert "--gres=XXXextra6XXX" in text

    def test_relions_container_sees_the_files_of_the_parameters(self, tmp_path: Path) -> None:
        for name in ("project", "disk", "refs"):
            (tmp_path / name).mkdir()
        (tmp_path / "disk" / "gain.mrc").touch()
        gain = tmp_path / "refs" / "gain.mrc"
        gain.symlink_to(tmp_path / "disk" / "gain.mrc")
        made = write_submission(
            tmp_path / "project", RUN, "a", Resources(), site(), native=True, files=[str(gain)]
        )
        assert made is not None
        text = (tmp_path / "project" / made.template).read_text()
        binds = [f"--bind {tmp_path / name}" for name in ("disk", "project", "refs")]
        assert " ".join(binds) in text

    def test_again_with_more_memory(self, tmp_path: Path) -> None:
        write_submission(tmp_path, RUN, "a", Resources(), site())
        made = write_submission(tmp_path, RUN, "a", Resources(memory_gb=9), site())
        assert made is not None
        assert made.extras[6] == "9G"
        assert "--mem=" in (tmp_path / made.template).read_text()

    def test_a_template_that_would_not_work(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.sh"
        bad.write_text("#!/bin/sh\napptainer exec x XXXcommandXXX\n")
        with pytest.raises(CrboostError, match=r"bad\.sh: line 2: RELION drops"):
            write_submission(tmp_path, RUN, "a", Resources(), site(template=str(bad)))

    def test_a_job_file_can_hold_it(self, tmp_path: Path) -> None:
        made = write_submission(tmp_path, RUN, "a", Resources(cpus=2), site())
        write_job(tmp_path / "job.star", make_job("driver", submission=made))
        options = read_job(tmp_path / "job.star").options
        assert options["qsub"] == "Schemes/run_1/submit"
        assert (options["qsub_extra1"], options["qsub_extra5"]) == ("", "2")
        assert options["do_queue"] == "Yes"

    def test_setup(self) -> None:
        own = site(modules=["apptainer/1.4", "a b"], setup=["ulimit -c 0"])
        assert setup_lines(own, in_container=False) == [
            "module load apptainer/1.4",
            "module load 'a b'",
            "ulimit -c 0",
        ]

    def test_a_container_sees_the_gpus_that_slurm_gave(self) -> None:
        script = "\n".join(setup_lines(site(), in_container=True)) + "\nenv"
        done = subprocess.run(
            ["bash", "-c", script],
            env={"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "1,3", "TZ": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "APPTAINERENV_CUDA_VISIBLE_DEVICES=1,3" in done.stdout.splitlines()
        assert "APPTAINERENV_TZ=" in done.stdout.splitlines()
        assert "APPTAINERENV_OMP_NUM_THREADS" not in done.stdout


SBATCH = """#!/bin/sh
case $(cat "$1") in
  *nope*) echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1 ;;
esac
echo 'Submitted batch job 29'
"""


class TestSubmit:
    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        project = tmp_path / "my project's $HOME"
        (project / "External" / "job001").mkdir(parents=True)
        (project / "bin").mkdir()
        (project / "bin" / "sbatch").write_text(SBATCH)
        (project / "bin" / "sbatch").chmod(0o755)
        return project

    def submit(self, project: Path, text: str) -> subprocess.CompletedProcess[str]:
        (project / "External/job001/run_submit.script").write_text(text)
        (project / "submit").write_text(submit_script([str(project / "bin/sbatch")], "slurm"))
        # As RELION calls it: by the shell, in the project directory.
        return subprocess.run(
            ["sh", "-c", "sh ./submit External/job001/run_submit.script"],
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_the_answer_is_kept(self, project: Path) -> None:
        job = project / "External" / "job001"
        (job / "submission_started.json").write_text('{"id": "1", "started_unix": 1, "host": "n"}')
        (job / "failure.json").write_text("{}")
        done = self.submit(project, "fine")
        assert (done.returncode, done.stdout) == (0, "Submitted batch job 29\n")
        kept = read_submitted(job)
        assert kept is not None
        assert (kept.job_id, kept.answer) == ("29", "Submitted batch job 29")
        assert scheduler_job_id(job) == "29"
        assert read_started(job) is None
        assert sorted(path.name for path in job.iterdir()) == [
            "run_submit.script",
            "submission.txt",
        ]

    def test_a_refused_job_fails_with_the_schedulers_words(self, project: Path) -> None:
        job = project / "External" / "job001"
        done = self.submit(project, "nope")
        assert done.returncode == 1
        assert (job / "RELION_JOB_EXIT_FAILURE").exists()
        assert "invalid partition specified: nope" in (job / "run.err").read_text()
        kept = read_submitted(job)
        assert kept is not None
        assert kept.job_id is None
        assert scheduler_job_id(job) is None

    def test_a_scheduler_that_is_not_there(self, project: Path) -> None:
        (project / "bin" / "sbatch").unlink()
        self.submit(project, "fine")
        assert (project / "External/job001/RELION_JOB_EXIT_FAILURE").exists()


class TestNumbers:
    @pytest.mark.parametrize(
        ("kind", "answer", "number"),
        [
            ("slurm", "sbatch: warning: x 12\nSubmitted batch job 29\n", "29"),
            ("slurm", "27\n", "27"),
            ("slurm", "27;cluster\n", "27"),
            ("slurm", "sbatch: error: 12 of them\n", None),
            ("pbs", "1234.server.local\n", "1234.server.local"),
            ("sge", 'Your job 77 ("x") has been submitted\n', "77"),
            ("lsf", "Job <88> is submitted to queue <normal>.\n", "88"),
        ],
    )
    def test_in_an_answer(self, kind: str, answer: str, number: str | None) -> None:
        assert submission_id(answer, kind) == number  # type: ignore[arg-type]

    def test_a_job_that_was_started_again_by_hand(self, tmp_path: Path) -> None:
        head = "scheduler: slurm\ntime: {}\nexit code: 0\nanswer:\nSubmitted batch job 5\n"
        started = '{"id": "9", "started_unix": 200, "host": "n"}'
        (tmp_path / "submission_started.json").write_text(started)
        (tmp_path / "submission.txt").write_text(head.format(100))
        assert scheduler_job_id(tmp_path) == "9"
        (tmp_path / "submission.txt").write_text(head.format(300))
        assert scheduler_job_id(tmp_path) == "5"

    def test_a_job_without_a_submission(self, tmp_path: Path) -> None:
        assert scheduler_job_id(tmp_path) is None

    def test_in_the_queue_by_its_script(self, tmp_path: Path) -> None:
        from slurm_texts import NO_CONTROLLER, Slurm

        from crboost.scheduler.ask import Answer

        script = tmp_path / "run_submit.script"
        row = "{0}|{0}|{0}|N/A|PENDING|Priority|0:00|1:00|cpu||External/job001/|2026-11-22T2{1}|{2}"
        lines = [
            row.format(7, "1:00:00", script),
            row.format(8, "1:05:00", script),
            row.format(9, "1:09:00", "/elsewhere/run_submit.script"),
        ]
        queue = Slurm(squeue=Answer(0, "\n".join(lines), ""))
        assert find_in_queue(tmp_path, queue) == "8"
        assert find_in_queue(tmp_path / "other", queue) is None
        assert find_in_queue(tmp_path, Slurm(**NO_CONTROLLER)) is None
