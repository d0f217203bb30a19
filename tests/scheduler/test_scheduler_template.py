"""Templates: what is open in them, and what a shell makes of them once they are filled."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from crboost.containers import Bind, wrap
from crboost.errors import ParameterError
from crboost.relion.job import Job, extra_environment, fill_submission_script
from crboost.resources import resource_directory
from crboost.scheduler.template import (
    RELION_PLACEHOLDERS,
    Filling,
    fill_template,
    placeholders,
    template_problems,
)
from crboost.settings import DEFAULT_EXTRA, ContainerSettings, Settings, ToolSettings

SHIPPED = sorted(resource_directory("qsub").glob("*.sh"))
ALL = [f"extra{number}" for number in range(1, 9)]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
class TestShipped:
    def test_nothing_is_wrong_with_it(self, path: Path) -> None:
        kind = path.stem.partition("_")[0]
        count = len(DEFAULT_EXTRA[kind])  # type: ignore[index]
        assert template_problems(path.read_text(), count) == []

    def test_a_shell_can_read_it(self, path: Path) -> None:
        text = fill_template(path.read_text(), Filling(extras=ALL, setup=["ulimit -c 0"]))
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)

    def test_only_relions_placeholders_are_left(self, path: Path) -> None:
        filling = Filling(setup=["true"], container=["apptainer"], launcher=["mpirun"])
        left = placeholders(fill_template(path.read_text(), filling))
        assert {one for one in left if not one.startswith("XXXextra")} <= RELION_PLACEHOLDERS


def test_problems_are_named_with_their_lines() -> None:
    template = (
        "#SBATCH --mem=XXXextra9XXX\n"
        "#SBATCH --partition=XXXpartitionXXX\n"
        "apptainer exec image XXXcommandXXX\n"
        "# XXXcommandXXX\n"
    )
    assert template_problems(template, 8) == [
        "line 1: does not begin with #!, so the scheduler refuses the script",
        "line 1: XXXextra9XXX: scheduler.extra has only 8 fields",
        "line 2: XXXpartitionXXX is no placeholder that anything fills",
        "line 3: RELION drops 'apptainer exec image' for commands without `relion_`; "
        "put XXXcommandXXX on a line of its own, in a here-document",
        "line 4: RELION drops '#' for commands without `relion_`; "
        "put XXXcommandXXX on a line of its own, in a here-document",
        "XXXcommandXXX stands in 2 lines; it must stand in exactly one",
    ]


def test_a_directive_without_a_value_is_left_out() -> None:
    template = "#SBATCH --constraint=XXXextra2XXX\n#SBATCH --mem=XXXextra1XXX\necho XXXextra2XXX\n"
    filled = fill_template(template, Filling(extras=["32G", ""]))
    assert filled == "#SBATCH --mem=XXXextra1XXX\necho XXXextra2XXX\n"
    assert fill_template(template, Filling()) == template


def test_setup_lines() -> None:
    filled = fill_template("a\nXXXsetupXXX\nb\n", Filling(setup=["module load x", "ulimit -n 9"]))
    assert filled == "a\nmodule load x\nulimit -n 9\nb\n"
    assert fill_template("a\nXXXsetupXXX\nb\n", Filling()) == "a\nb\n"


def test_container_and_launcher_leave_no_blank_behind() -> None:
    line = "XXXcontainerXXX bash -s\nXXXlauncherXXX XXXcommandXXX\n"
    assert fill_template(line, Filling()) == "bash -s\nXXXcommandXXX\n"
    filling = Filling(container=["apptainer", "a b"], launcher=["mpirun", "-n", "XXXmpinodesXXX"])
    assert fill_template(line, filling) == (
        "apptainer 'a b' bash -s\nmpirun -n XXXmpinodesXXX XXXcommandXXX\n"
    )


@pytest.mark.parametrize("bad", ["/data/XXXnameXXX", "line\nbreak"])
def test_what_relion_would_spoil_is_refused(bad: str) -> None:
    with pytest.raises(ParameterError):
        fill_template("XXXcontainerXXX bash\n", Filling(container=["apptainer", bad]))


# --- through a shell -------------------------------------------------------------------------

# Keeps what it was given and runs the command after the image, as the real one does.
ENGINE = r"""#!/bin/bash
printf '%s\0' "$@" >"$SEEN/engine.args"
while [ $# -gt 0 ]; do case $1 in *.sif) shift; break ;; esac; shift; done
exec "$@"
"""
TOOL = '#!/bin/bash\nprintf \'%s\\0\' "$PWD" "$@" >"$SEEN/tool.args"\n'
NAMES = st.text(
    st.characters(exclude_characters="/\0\n\r", codec="utf-8"), min_size=1, max_size=12
).filter(lambda name: name not in (".", ".."))
ARGUMENTS = st.lists(
    st.text(st.characters(exclude_characters="\0\n\r", codec="utf-8"), max_size=12), max_size=4
)


def run_script(
    project: Path, template: str, command: str, seen: Path, filling: Filling, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Fill the template as crboost and RELION do, and run it as a scheduler does."""
    options = {f"qsub_extra{n}": str(value) for n, value in enumerate(filling.extras or (), 1)}
    job = Job("relion.external", {"nr_threads": "1", "min_dedicated": "1", **options})
    text = fill_submission_script(
        fill_template((resource_directory("qsub") / template).read_text(), filling),
        job,
        "External/job001/",
        command,
        extra_environment(list(options)),
    )
    (project / "External" / "job001").mkdir(parents=True, exist_ok=True)
    environ = {**os.environ, "SEEN": str(seen), "SLURM_JOB_ID": "7", **environment}
    environ["PATH"] = f"{seen}:{environ['PATH']}"
    return subprocess.run(
        ["bash"],
        input=text,
        cwd=project,
        env=environ,
        text=True,
        capture_output=True,
        check=False,
        timeout=30,
    )


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("seen")
    for name, text in (("apptainer", ENGINE), ("relion_tool", TOOL), ("tool", TOOL)):
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    return directory


def strings(path: Path) -> list[str]:
    return path.read_bytes().decode().split("\0")[:-1]


@example(name="\x0c", arguments=[])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=NAMES, arguments=ARGUMENTS)
def test_relions_own_command_in_its_container(
    seen: Path, tmp_path_factory: pytest.TempPathFactory, name: str, arguments: list[str]
) -> None:
    project = tmp_path_factory.mktemp("p") / name
    try:
        project.mkdir()
    except OSError:  # longer than a name may be, in bytes
        return
    if len(name.splitlines()) != 1:
        return  # one of the line breaks that are not \n
    site = Settings(
        containers=ContainerSettings(executable=str(seen / "apptainer")),
        tools={"relion": ToolSettings(image=Path("/images/r.sif"))},
    )
    binds = [Bind(project), Bind(Path("/raw data/a,b"))]
    argv = wrap([], "relion", site, cwd=project, binds=binds, gpus=True)
    command = "`which relion_tool` " + shlex.join(arguments)
    if len(command.splitlines()) != 1:
        return
    filling = Filling(extras=ALL, container=argv)
    done = run_script(project, "slurm_relion.sh", command, seen, filling)
    assert strings(seen / "engine.args") == [*argv[1:], "bash", "-e", "-s"], done.stderr
    assert strings(seen / "tool.args") == [str(project), *arguments]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(arguments=ARGUMENTS)
def test_a_drivers_command(
    seen: Path, tmp_path_factory: pytest.TempPathFactory, arguments: list[str]
) -> None:
    command = "tool " + shlex.join(arguments)
    if len(command.splitlines()) != 1 or "relion_" in command:
        return
    project = tmp_path_factory.mktemp("p q")
    done = run_script(project, "slurm_cpu.sh", command, seen, Filling(extras=ALL))
    assert strings(seen / "tool.args") == [str(project), *arguments], done.stderr


class TestTheEnd:
    @pytest.fixture
    def job(self, tmp_path: Path) -> Path:
        return tmp_path / "External" / "job001"

    @pytest.mark.parametrize("template", ["slurm_cpu.sh", "slurm_gpu.sh", "slurm_relion.sh"])
    def test_a_job_that_says_how_it_ended(
        self, tmp_path: Path, seen: Path, job: Path, template: str
    ) -> None:
        command = "touch External/job001/RELION_JOB_EXIT_SUCCESS"
        done = run_script(tmp_path, template, command, seen, Filling(extras=ALL))
        assert (done.returncode, done.stderr) == (0, "")
        assert not (job / "RELION_JOB_EXIT_FAILURE").exists()
        assert '"id": "7"' in (job / "submission_started.json").read_text()

    def test_a_job_that_dies_silently(self, tmp_path: Path, seen: Path, job: Path) -> None:
        done = run_script(tmp_path, "slurm_cpu.sh", "exit 3", seen, Filling(extras=ALL))
        assert done.returncode == 3
        assert "crboost schemer: the job's command ended with exit code 3" in done.stderr
        assert (job / "RELION_JOB_EXIT_FAILURE").exists()

    def test_a_job_that_is_killed(self, tmp_path: Path, seen: Path, job: Path) -> None:
        done = run_script(
            tmp_path, "slurm_cpu.sh", "bash -c 'kill -9 $$'", seen, Filling(extras=ALL)
        )
        assert done.returncode == 137
        assert "(killed by SIGKILL) and left no RELION_JOB_EXIT_ file" in done.stderr
        assert (job / "RELION_JOB_EXIT_FAILURE").exists()

    def test_a_job_that_was_to_abort(self, tmp_path: Path, seen: Path, job: Path) -> None:
        command = "touch External/job001/RELION_JOB_ABORT_NOW; exit 1"
        run_script(tmp_path, "slurm_cpu.sh", command, seen, Filling(extras=ALL))
        assert (job / "RELION_JOB_EXIT_ABORTED").exists()
        assert not (job / "RELION_JOB_EXIT_FAILURE").exists()

    def test_a_command_that_succeeds_without_a_word(
        self, tmp_path: Path, seen: Path, job: Path
    ) -> None:
        run_script(tmp_path, "slurm_cpu.sh", "true", seen, Filling(extras=ALL))
        assert (job / "RELION_JOB_EXIT_FAILURE").exists()

    def test_the_first_of_several_commands_that_fails_ends_the_job(
        self, tmp_path: Path, seen: Path, job: Path
    ) -> None:
        command = "false\ntouch External/job001/RELION_JOB_EXIT_SUCCESS"
        run_script(tmp_path, "slurm_cpu.sh", command, seen, Filling(extras=ALL))
        assert (job / "RELION_JOB_EXIT_FAILURE").exists()

    def test_a_command_does_not_read_the_script(
        self, tmp_path: Path, seen: Path, job: Path
    ) -> None:
        command = "cat\ntouch External/job001/RELION_JOB_EXIT_SUCCESS"
        done = run_script(tmp_path, "slurm_cpu.sh", command, seen, Filling(extras=ALL))
        assert done.stdout == ""
        assert (job / "RELION_JOB_EXIT_SUCCESS").exists()

    def test_a_signal_reaches_the_command_and_its_last_words_count(
        self, tmp_path: Path, seen: Path, job: Path
    ) -> None:
        # As Slurm does at a time limit: SIGTERM to the script, which is the parent here.
        command = (
            "bash -c 'trap \"sleep 0.5; echo stopped > External/job001/words; "
            'touch External/job001/RELION_JOB_EXIT_ABORTED; exit 2" TERM; '
            "(sleep 0.3; kill -TERM $SCRIPT) & for i in $(seq 100); do sleep 0.1; done'"
        )
        script = f"export SCRIPT=$$\n{command}"
        filling = Filling(extras=ALL, setup=["export SCRIPT=$$"])
        done = run_script(tmp_path, "slurm_cpu.sh", script.splitlines()[1], seen, filling)
        assert (job / "words").read_text() == "stopped\n"
        assert (job / "RELION_JOB_EXIT_ABORTED").exists()
        assert not (job / "RELION_JOB_EXIT_FAILURE").exists()
        assert done.returncode != 0

    def test_setup_is_seen_by_the_command(self, tmp_path: Path, seen: Path) -> None:
        done = run_script(
            tmp_path,
            "slurm_cpu.sh",
            'echo "$HERE ${APPTAINER_BIND-none}"',
            seen,
            Filling(extras=ALL, setup=["export HERE=yes"]),
            APPTAINER_BIND="/outer",
        )
        assert done.stdout == "yes none\n"
