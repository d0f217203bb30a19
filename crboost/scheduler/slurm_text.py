"""What Slurm's commands print, read into records. Pure; what a state means is `state`'s business.

`sacct` is asked with `SACCT_FIELDS` and read by its header; `squeue` with `SQUEUE_FORMAT`;
`scontrol show job` without --oneliner, so that paths with blanks keep a line of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: WorkDir last: a directory's name may hold the separator.
SACCT_FIELDS = (
    "JobID,JobIDRaw,JobName,Partition,State,ExitCode,DerivedExitCode,Reason,Elapsed,Timelimit,"
    "ReqMem,MaxRSS,NodeList,Submit,Start,End,WorkDir"
)
#: Number, raw number, array's number, task, state, reason, elapsed, limit, partition, nodes,
#: name, time of submission, script.
SQUEUE_FORMAT = "%i|%A|%F|%K|%T|%r|%M|%l|%P|%N|%j|%V|%o"

_NOTHING = frozenset(("", "(null)", "N/A", "None", "Unknown", "None assigned", "n/a"))
_CANCELLED_BY = re.compile(r"CANCELLED by (\S+)")
# In `scontrol show job` these have a line of their own, to its end.
_WHOLE_LINE = re.compile(r"(Command|WorkDir|StdErr|StdIn|StdOut|Comment|AdminComment)=(.*)")


@dataclass(frozen=True)
class Record:
    """What Slurm said of one job, one task of an array, or one step of either.

    Attributes:
        job_id: as Slurm shows it: `29`, `9_4`, `9_[5-7%2]`.
        raw_id: the job's own number, which a task of an array has too.
        step: `batch`, `extern`, `0`, ...; empty for the job itself.
        array_id, task: of a task of an array; several tasks that wait are one: `5-7%2`.
        state: one word: RUNNING, CANCELLED, ...
        by: who cancelled it (a user's number or name).
        reason: why it waits, or how it ended; empty if Slurm gives none.
        exit_code, signal: of the batch script; signal 125 stands for out of memory.
        derived_signal: the highest of its steps.
        memory: what was asked for; memory_used: the most that a step used.
        script: the file that was submitted.
    """

    job_id: str
    raw_id: str
    state: str
    step: str = ""
    array_id: str = ""
    task: str = ""
    name: str = ""
    by: str = ""
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    derived_signal: int | None = None
    partition: str = ""
    nodes: str = ""
    elapsed: str = ""
    time_limit: str = ""
    memory: str = ""
    memory_used: str = ""
    submitted: str = ""
    ended: str = ""
    work_dir: str = ""
    script: str = ""


def parse_sacct(text: str) -> list[Record]:
    """The records of `sacct --parsable2` with a header; lines that are none are left out."""
    header: list[str] = []
    records: list[Record] = []
    for line in text.splitlines():
        if not header:
            if line.startswith("JobID|"):
                header = line.split("|")
            continue
        cells = line.split("|", len(header) - 1)
        if len(cells) == len(header):
            records.append(_sacct_record(dict(zip(header, cells, strict=True))))
    return records


def _sacct_record(row: dict[str, str]) -> Record:
    shown, _, step = row["JobID"].partition(".")
    raw = row.get("JobIDRaw", shown).partition(".")[0]
    array_id, task = _array_task(shown)
    state, by = _state(row["State"])
    exit_code, signal = _exit(row.get("ExitCode", ""))
    return Record(
        job_id=shown,
        raw_id=raw,
        state=state,
        step=step,
        array_id=array_id,
        task=task,
        name=row.get("JobName", ""),
        by=by,
        reason=_some(row.get("Reason", "")),
        exit_code=exit_code,
        signal=signal,
        derived_signal=_exit(row.get("DerivedExitCode", ""))[1],
        partition=row.get("Partition", ""),
        nodes=_some(row.get("NodeList", "")),
        elapsed=row.get("Elapsed", ""),
        time_limit=_some(row.get("Timelimit", "")),
        memory=_size(row.get("ReqMem", "")),
        memory_used=_some(row.get("MaxRSS", "")),
        submitted=_some(row.get("Submit", "")),
        ended=_some(row.get("End", "")),
        work_dir=row.get("WorkDir", ""),
    )


def _size(text: str) -> str:
    """A size; empty for what sacct prints until the database has heard of it: `16?`, `0n`."""
    return text if re.fullmatch(r"\d*[1-9]\d*(\.\d+)?[KMGTPE]?[nc]?", text) else ""


def parse_scontrol(text: str) -> list[Record]:
    """The records of `scontrol show job`."""
    return [
        _scontrol_record(_pairs(block))
        for block in re.split(r"\n(?=JobId=)", text.strip())
        if block.startswith("JobId=")
    ]


def _pairs(block: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in (line.strip() for line in block.splitlines()):
        whole = _WHOLE_LINE.match(line)
        if whole:
            values[whole[1]] = whole[2]
            continue
        if line.startswith("JobId=") and " JobName=" in line:  # a name may hold blanks
            line, _, values["JobName"] = line.partition(" JobName=")
        values |= {key: value for key, _, value in (one.partition("=") for one in line.split())}
    return values


def _scontrol_record(values: dict[str, str]) -> Record:
    raw = values["JobId"]
    array_id, task = values.get("ArrayJobId", ""), values.get("ArrayTaskId", "")
    state, by = _state(values.get("JobState", ""))
    exit_code, signal = _exit(values.get("ExitCode", ""))
    memory = re.search(r"\bmem=([^,]+)", values.get("TRES", "") or values.get("ReqTRES", ""))
    return Record(
        job_id=f"{array_id}_{task}" if array_id else raw,
        raw_id=raw,
        state=state,
        array_id=array_id,
        task=task,
        name=values.get("JobName", ""),
        by=by,
        reason=_some(values.get("Reason", "")).replace("_", " "),
        exit_code=exit_code,
        signal=signal,
        derived_signal=_exit(values.get("DerivedExitCode", ""))[1],
        partition=values.get("Partition", ""),
        nodes=_some(values.get("NodeList", "")),
        elapsed=values.get("RunTime", ""),
        time_limit=_some(values.get("TimeLimit", "")),
        memory=memory[1] if memory else "",
        submitted=_some(values.get("SubmitTime", "")),
        ended=_some(values.get("EndTime", "")),
        work_dir=values.get("WorkDir", ""),
        script=_some(values.get("Command", "")),
    )


def parse_squeue(text: str) -> list[Record]:
    """The records of `squeue --noheader` with `SQUEUE_FORMAT`, or its first eleven columns."""
    records: list[Record] = []
    for line in text.splitlines():
        cells = line.split("|", 12)
        if len(cells) < 11:
            continue
        shown, raw, array, task, state, reason, elapsed, limit, partition, nodes, name = cells[:11]
        word, by = _state(state)
        is_task = task not in _NOTHING
        records.append(
            Record(
                job_id=shown,
                raw_id=raw,
                state=word,
                array_id=array if is_task else "",
                task=task if is_task else "",
                name=name,
                by=by,
                reason=_some(reason),
                partition=partition,
                nodes=_some(nodes),
                elapsed=elapsed,
                time_limit=_some(limit),
                submitted=_some(cells[11]) if len(cells) > 11 else "",
                script=_some(cells[12]) if len(cells) > 12 else "",
            )
        )
    return records


def parse_config(text: str) -> dict[str, str]:
    """`scontrol show config`: value by name."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _state(text: str) -> tuple[str, str]:
    """(word, who cancelled it). Of several words joined by + the first is the state."""
    cancelled = _CANCELLED_BY.match(text)
    if cancelled:
        return "CANCELLED", cancelled[1]
    words = re.split(r"[ +,]", text.strip())
    return words[0].upper(), ""


def _exit(text: str) -> tuple[int | None, int | None]:
    """(exit code, signal) of `0:15`."""
    match = re.fullmatch(r"(\d+):(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (None, None)


def _array_task(job_id: str) -> tuple[str, str]:
    """(array, task) of `9_4` or `9_[5-7%2]`."""
    match = re.fullmatch(r"(\d+)_(?:\[(.+)\]|(\d+))", job_id)
    return (match[1], match[2] or match[3]) if match else ("", "")


def _some(text: str) -> str:
    return "" if text in _NOTHING else text
