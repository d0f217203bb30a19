"""`job.star`: a RELION job's type and options, and what RELION runs for a `relion.external` job."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crboost.errors import FileFormatError, SchemerError
from crboost.files import write_text
from crboost.relion.ledger import Node
from crboost.relion.nodes import EXTERNAL_INPUT_LABELS
from crboost.relion.star import (
    StarDocument,
    format_star,
    list_block,
    loop_block,
    read_whole,
)

JOB_FILE = "job.star"
SUBMIT_SCRIPT = "run_submit.script"
EXTERNAL = "relion.external"
EXTERNAL_DIRECTORY = "External"
MAX_PARAMETERS = 10

# The argument under which RELION passes each input of an External job, in RELION's order.
_INPUT_ARGUMENTS = {
    "in_mov": "--in_movies",
    "in_mic": "--in_mics",
    "in_part": "--in_parts",
    "in_coords": "--in_coords",
    "in_3dref": "--in_3dref",
    "in_mask": "--in_mask",
}

_DEFAULT_EXTRA_COUNT = 2


@dataclass(frozen=True, slots=True)
class Job:
    """A `job.star`. Option values are strings; switches are `Yes` and `No`."""

    type_label: str
    options: Mapping[str, str] = field(default_factory=dict)
    is_continue: bool = False
    is_tomo: bool = False

    def option(self, name: str) -> str:
        """An option's value; empty when it is not set."""
        return self.options.get(name, "")

    def with_options(self, **changes: str) -> Job:
        """The job with some options changed."""
        return replace(self, options={**self.options, **changes})

    @property
    def do_queue(self) -> bool:
        """Whether the job is submitted to a scheduler."""
        return self.option("do_queue") == "Yes"


@dataclass(frozen=True, slots=True)
class Submission:
    """How a job goes to the scheduler.

    Attributes:
        command: what submits a script, such as `sbatch`.
        template: the submission script's template, a path relative to the project directory.
        extras: values of XXXextra1XXX, XXXextra2XXX, ... RELION uses them only when
            RELION_QSUB_EXTRA_COUNT and RELION_QSUB_EXTRAn are set: see `extra_environment`.
    """

    command: str
    template: str
    queue: str = "openmpi"
    min_dedicated: int = 1
    extras: Sequence[str] = ()


def extra_environment(labels: Sequence[str]) -> dict[str, str]:
    """The environment that makes RELION (and this schemer) fill XXXextra1XXX, XXXextra2XXX, ..."""
    named = {f"RELION_QSUB_EXTRA{n}": label for n, label in enumerate(labels, 1)}
    return {"RELION_QSUB_EXTRA_COUNT": str(len(labels)), **named}


# --- making and completing -----------------------------------------------------------------


def external_job(
    fn_exe: str,
    *,
    inputs: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    nr_threads: int = 1,
    other_args: str = "",
    submission: Submission | None = None,
    is_tomo: bool = True,
) -> Job:
    """A complete `relion.external` job, with every option that RELION 5.1 writes.

    Args:
        fn_exe: the program, as the shell in the project directory finds it.
        inputs: by RELION's field: in_mov, in_mic, in_part, in_coords, in_3dref, in_mask.
        parameters: up to ten; passed as `--label value` in this order.
        submission: None runs the job on this machine.

    Raises:
        SchemerError: an unknown input, or more than ten parameters.
    """
    unknown = set(inputs or {}) - set(_INPUT_ARGUMENTS)
    if unknown:
        raise SchemerError(
            f"relion.external has no input {', '.join(sorted(unknown))}",
            hint=f"it has {', '.join(_INPUT_ARGUMENTS)}",
        )
    if len(parameters or {}) > MAX_PARAMETERS:
        raise SchemerError(
            f"relion.external takes {MAX_PARAMETERS} parameters, not {len(parameters or {})}"
        )
    options = {"fn_exe": fn_exe, "nr_threads": str(nr_threads), "other_args": other_args}
    options |= dict(inputs or {})
    for index, (label, value) in enumerate((parameters or {}).items(), 1):
        options |= {f"param{index}_label": label, f"param{index}_value": value}
    extras: Sequence[str] = ()
    if submission is not None:
        options |= {
            "do_queue": "Yes",
            "qsub": submission.command,
            "qsubscript": submission.template,
            "queuename": submission.queue,
            "min_dedicated": str(submission.min_dedicated),
        }
        extras = submission.extras
    job = complete_external(Job(EXTERNAL, options, is_tomo=is_tomo), {})
    return job.with_options(**{f"qsub_extra{n}": value for n, value in enumerate(extras, 1)})


def complete_external(job: Job, environ: Mapping[str, str]) -> Job:
    """The job with RELION's default for each option that it leaves out, and none unknown to RELION.

    Args:
        environ: where RELION finds site defaults (RELION_QUEUE_NAME, RELION_QSUB_TEMPLATE, ...)
            and whether the extra submission options exist at all.
    """
    defaults = {
        "fn_exe": "",
        **dict.fromkeys(_INPUT_ARGUMENTS, ""),
        **{f"param{n}_{part}": "" for n in range(1, 11) for part in ("label", "value")},
        "nr_threads": environ.get("RELION_QSUB_NRTHREADS", "1"),
        "other_args": "",
        "do_queue": "Yes" if _is_true(environ.get("RELION_QUEUE_USE", "no")) else "No",
        "queuename": environ.get("RELION_QUEUE_NAME", "openmpi"),
        "qsub": environ.get("RELION_QSUB_COMMAND", "sbatch"),
        "qsubscript": environ.get("RELION_QSUB_TEMPLATE", ""),
        "min_dedicated": environ.get("RELION_MINIMUM_DEDICATED", "1"),
    }
    for number in range(1, _extra_count(environ) + 1):
        if f"RELION_QSUB_EXTRA{number}" in environ:
            default = environ.get(f"RELION_QSUB_EXTRA{number}_DEFAULT", "")
            defaults[f"qsub_extra{number}"] = default
    return replace(job, options={k: job.options.get(k, default) for k, default in defaults.items()})


def _extra_count(environ: Mapping[str, str]) -> int:
    text = environ.get("RELION_QSUB_EXTRA_COUNT", str(_DEFAULT_EXTRA_COUNT))
    return int(text) if text.isdigit() else 0


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("yes", "true", "1", "y")


# --- files ---------------------------------------------------------------------------------


def format_job(job: Job) -> str:
    """A `job.star`'s text as RELION 5.1 writes it: options sorted by name."""
    head = {
        "rlnJobTypeLabel": job.type_label,
        "rlnJobIsContinue": str(int(job.is_continue)),
        "rlnJobIsTomo": str(int(job.is_tomo)),
    }
    options = loop_block(
        "joboptions_values",
        ("rlnJobOptionVariable", "rlnJobOptionValue"),
        sorted(job.options.items()),
    )
    return format_star(StarDocument((list_block("job", head), options)))


def write_job(path: Path, job: Job) -> None:
    """Write a `job.star` atomically."""
    write_text(path, format_job(job))


def read_job(path: Path) -> Job:
    """Read a `job.star`, also while RELION writes it.

    Raises:
        FileFormatError: not a job file; names what is missing.
        FileNotFoundError: there is no such file.
    """
    return read_whole(path, _parse_job)


def _parse_job(document: StarDocument, path: Path) -> Job:
    block = document.get("job")
    head = block.pairs() if block is not None else {}
    label = head.get("rlnJobTypeLabel", "")
    if not label:
        raise FileFormatError(
            path,
            "no rlnJobTypeLabel in data_job",
            hint="RELION 3.0 and older wrote job files that are not supported",
        )
    options = {}
    for row in document.records("joboptions_values"):
        if "rlnJobOptionVariable" not in row or "rlnJobOptionValue" not in row:
            raise FileFormatError(
                path, "data_joboptions_values needs rlnJobOptionVariable and rlnJobOptionValue"
            )
        options[row["rlnJobOptionVariable"]] = row["rlnJobOptionValue"]
    return Job(
        label,
        options,
        is_continue=head.get("rlnJobIsContinue", "0") == "1",
        is_tomo=head.get("rlnJobIsTomo", "0") == "1",
    )


# --- what RELION runs ----------------------------------------------------------------------


def external_command(job: Job, output_dir: str) -> str:
    """The shell command of a `relion.external` job, as RELION builds it.

    Args:
        output_dir: the job's directory with a trailing slash, such as `External/job003/`.

    Raises:
        SchemerError: `fn_exe` is empty.
    """
    if not job.option("fn_exe"):
        raise SchemerError(
            f"{output_dir}: the job has no fn_exe, so there is nothing to run",
            hint="set fn_exe in the scheme's job.star",
        )
    parts = [job.option("fn_exe"), f"--o {output_dir}"]
    parts += [
        f"{argument} {job.option(name)}"
        for name, argument in _INPUT_ARGUMENTS.items()
        if job.option(name)
    ]
    for number in range(1, MAX_PARAMETERS + 1):
        if label := job.option(f"param{number}_label"):
            parts.append(f"--{label} {job.option(f'param{number}_value')}")
    parts.append(f"--j {job.option('nr_threads')}")
    command = " ".join(parts) + f" {job.option('other_args')}"
    if "relion_" in command:
        command += f" --pipeline_control {output_dir}"
    return command


def external_inputs(job: Job) -> list[Node]:
    """The input nodes of a `relion.external` job, labelled by the field that they are given in."""
    return [
        Node(job.option(name), EXTERNAL_INPUT_LABELS[name])
        for name in _INPUT_ARGUMENTS
        if job.option(name)
    ]


def local_shell_line(command: str, output_dir: str) -> str:
    """The command with its output appended to run.out and run.err, unless it redirects itself."""
    if ">" in command:
        return command
    return f"{command} >> {output_dir}run.out 2>> {output_dir}run.err"


def fill_submission_script(
    template: str, job: Job, output_dir: str, command: str, environ: Mapping[str, str]
) -> str:
    """The submission script that RELION makes of a template.

    XXXcommandXXX is replaced in its line only when the command contains `relion_`; any other
    command replaces the whole line. XXXextraNXXX is replaced only when the environment declares
    the extra option.

    Raises:
        SchemerError: nr_threads or min_dedicated is not a whole number above 0.
    """
    threads = _positive(job, "nr_threads", output_dir)
    dedicated = _positive(job, "min_dedicated", output_dir)
    replacing = {
        "XXXcoresXXX": str(threads),
        "XXXdedicatedXXX": str(dedicated),
        "XXXerrfileXXX": f"{output_dir}run.err",
        "XXXmpinodesXXX": "1",
        "XXXnameXXX": output_dir,
        "XXXnodesXXX": str(math.ceil(threads / dedicated)),
        "XXXoutfileXXX": f"{output_dir}run.out",
        "XXXqueueXXX": job.option("queuename"),
        "XXXthreadsXXX": str(threads),
    }
    for number in range(1, _extra_count(environ) + 1):
        if f"qsub_extra{number}" in job.options:
            replacing[f"XXXextra{number}XXX"] = job.option(f"qsub_extra{number}")
    lines = []
    # splitlines() would also break at characters that a path may hold.
    for line in template.removesuffix("\n").split("\n"):
        for placeholder, value in sorted(replacing.items()):
            line = line.replace(placeholder, value)
        if "XXXcommandXXX" in line:
            line = line.replace("XXXcommandXXX", command, 1) if "relion_" in command else command
        lines.append(line)
    return "\n".join([*lines, "", ""])


def _positive(job: Job, name: str, output_dir: str) -> int:
    text = job.option(name)
    try:
        value = int(float(text))
    except ValueError:
        value = 0
    if value < 1:
        raise SchemerError(f"{output_dir}: {name} is {text!r}; it must be a whole number above 0")
    return value
