"""plan(history, wanted, mode) -> Plan: what would run and why. Pure: no file is touched.

Resolution is by artifact. An input is, in this order: an explicit override; what a job of this
run makes; the output of the newest succeeded job in RELION's ledger that has a fitting node
label and whose file is there. What already succeeded, with the same parameters and the same
inputs, is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from crboost.catalogue import CATALOGUE, InputSlot, JobType, label_matches, producers_of
from crboost.errors import PlanError
from crboost.history import PastJob
from crboost.results import whole_fingerprint, with_extra

Mode = Literal["new", "continue"]

#: Where a run keeps its plan, as JSON.
PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class WantedJob:
    """A job as the parameters ask for it.

    Attributes:
        node: its name in the parameters and in the scheme (`tsAlignment`, `tsAlignment__2`).
        fingerprint: of the parameters that change its result.
        parameters: those parameters, name to text; for a native RELION job the options of its
            `job.star` that we decide.
        overrides: input slot to a path that the user insists on.
        commands: the tool commands for one tilt series, for people to read.
        resources: what it asks of the machine.
        data: for a job that reads raw data: tilt series to fingerprint of what lies on disk.
        extras: for a job that reads more than its input: tilt series to fingerprint of the rest.
        problem: why it cannot run as it is.
    """

    node: str
    job_type: JobType
    fingerprint: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[tuple[str, ...], ...] = ()
    resources: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True)
class PlannedInput:
    """One input of a planned job.

    Attributes:
        path: project-relative file; None when a job of this run will make it.
        node: the job of this run that makes it or has made it.
        reason: why this one.
    """

    slot: str
    relion_field: str
    file: str
    path: str | None
    node: str | None
    reason: str


@dataclass(frozen=True)
class PlannedJob:
    """A job that will run.

    Attributes:
        continue_of: the RELION job whose directory and number it keeps; None for a new number.
        command: tool commands for one tilt series; none for a native RELION job.
        options: what a native RELION job's `job.star` says, inputs aside.
    """

    node: str
    job_type: str
    fingerprint: str
    reason: str
    inputs: tuple[PlannedInput, ...]
    command: tuple[tuple[str, ...], ...]
    resources: Mapping[str, str]
    continue_of: str | None
    retries: int
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SatisfiedJob:
    """A job that need not run, and the RELION job that stands for it."""

    node: str
    job_type: str
    job: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        keep_failed: a tilt series that failed stays failed, unless its parameters or input have
            changed, or what failed lay outside it.
    """

    jobs: tuple[PlannedJob, ...]
    satisfied: tuple[SatisfiedJob, ...]
    warnings: tuple[str, ...] = ()
    mode: Mode = "new"
    keep_failed: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether everything is up to date."""
        return not self.jobs

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def to_rows(self) -> list[dict[str, str]]:
        """One row per job, satisfied ones included, for a table."""
        rows = [
            {
                "job": job.node,
                "action": "up to date",
                "relion job": job.job.rstrip("/"),
                "inputs": "",
                "why": job.reason,
            }
            for job in self.satisfied
        ]
        rows += [
            {
                "job": job.node,
                "action": "continue" if job.continue_of else "run",
                "relion job": (job.continue_of or "new").rstrip("/"),
                "inputs": "; ".join(
                    f"{given.path or f'{given.file} of {given.node}'} ({given.reason})"
                    for given in job.inputs
                ),
                "why": job.reason,
            }
            for job in self.jobs
        ]
        return rows

    def to_markdown(self) -> str:
        """The plan for a person, also the flow's first artifact."""
        if self.is_empty:
            heading = "Everything is up to date: nothing to run."
        else:
            heading = f"{len(self.jobs)} job{'s' if len(self.jobs) > 1 else ''} to run."
        lines = [f"**{heading}**", "", "| job | action | RELION job | inputs | why |"]
        lines.append("|---|---|---|---|---|")
        for row in self.to_rows():
            cells = (text.replace("|", "\\|").replace("\n", " ") for text in row.values())
            lines.append("| " + " | ".join(cells) + " |")
        if self.warnings:
            lines += ["", "**Warnings**", "", *(f"- {warning}" for warning in self.warnings)]
        for job in self.jobs:
            resources = ", ".join(f"{name} {value}" for name, value in job.resources.items())
            lines += ["", f"**{job.node}** ({resources})" if resources else f"**{job.node}**", ""]
            if job.command:
                lines += ["```", *(" ".join(argv) for argv in job.command), "```"]
        return "\n".join(lines) + "\n"


def plan(
    history: Sequence[PastJob],
    wanted: Sequence[WantedJob],
    *,
    mode: Mode = "new",
    retry_failed: bool | None = None,
) -> Plan:
    """Decide which of the wanted jobs run, on what, and why.

    Args:
        history: every process in the ledger, any order.
        wanted: the jobs asked for; they are put in the catalogue's order.
        mode: "new" gives a job whose input changed a new number; "continue" lets the existing
            RELION job take what is new.
        retry_failed: run tilt series again that failed with the same parameters and inputs; None:
            in mode continue. False is for runs that nobody asked for: data have arrived.

    Raises:
        PlanError: an input cannot be resolved, or a job asked for is still running.
    """
    again = mode == "continue" if retry_failed is None else retry_failed
    newest_first = sorted(history, key=lambda past: past.number, reverse=True)
    order = {name: rank for rank, name in enumerate(CATALOGUE)}
    queue = sorted(wanted, key=lambda job: (order[job.job_type.name], job.node))
    planned: dict[str, PlannedJob] = {}
    satisfied: dict[str, tuple[SatisfiedJob, PastJob]] = {}
    warnings: list[str] = []
    for job in queue:
        inputs = tuple(
            _resolve(job, slot, planned, satisfied, newest_first)
            for slot in job.job_type.inputs
            if not slot.optional or job.overrides.get(slot.name)
        )
        verdict = _judge(job, inputs, planned, newest_first, mode, again)
        if verdict.satisfied_by is not None:
            past = verdict.satisfied_by
            satisfied[job.node] = (
                SatisfiedJob(job.node, job.job_type.name, past.job, verdict.reason),
                past,
            )
        elif job.problem is not None:
            raise PlanError(f"{job.node}: {job.problem}")
        else:
            planned[job.node] = PlannedJob(
                node=job.node,
                job_type=job.job_type.name,
                fingerprint=job.fingerprint,
                reason=verdict.reason,
                inputs=inputs,
                command=job.commands,
                resources=job.resources,
                continue_of=verdict.continue_of if job.job_type.can_continue else None,
                retries=job.job_type.retries,
                options=job.parameters if job.job_type.is_native else {},
            )
        warnings += verdict.warnings
    return Plan(
        tuple(planned.values()),
        tuple(record for record, _ in satisfied.values()),
        tuple(dict.fromkeys(warnings)),
        mode,
        keep_failed=retry_failed is False,
    )


@dataclass(frozen=True)
class _Verdict:
    reason: str
    satisfied_by: PastJob | None = None
    continue_of: str | None = None
    warnings: tuple[str, ...] = ()


def _resolve(
    job: WantedJob,
    slot: InputSlot,
    planned: Mapping[str, PlannedJob],
    satisfied: Mapping[str, tuple[SatisfiedJob, PastJob]],
    newest_first: Sequence[PastJob],
) -> PlannedInput:
    """Find the file for one input slot."""
    override = job.overrides.get(slot.name)
    if override:
        return PlannedInput(
            slot.name, slot.relion_field, override, override, None, "given by the user"
        )
    for node in _producers_in_run(job, slot, [*planned, *satisfied]):
        if node in planned:
            output = _output_of(planned[node].job_type, slot)
            kept = planned[node].continue_of
            return PlannedInput(
                slot.name,
                slot.relion_field,
                output,
                f"{kept}{output}" if kept else None,
                node,
                "made in this run",
            )
        past = satisfied[node][1]
        path = past.output_with_label(slot.accepts)
        if path is not None:
            reason = f"{node} is up to date in {past.name}"
            return PlannedInput(slot.name, slot.relion_field, path, path, node, reason)
    for past in _by_instance(job, slot, newest_first):
        path = past.output_with_label(slot.accepts)
        if past.status == "Succeeded" and path is not None and path not in past.missing:
            reason = f"newest succeeded job that made one: {past.name}"
            return PlannedInput(slot.name, slot.relion_field, path, path, None, reason)
    raise _unresolvable(job, slot, newest_first)


def _producers_in_run(job: WantedJob, slot: InputSlot, nodes: Sequence[str]) -> list[str]:
    """Jobs of this run that make what the slot accepts: the same instance first, then the last.

    Of a chain such as fsMotionAndCtf, tiltFilter the one nearest to the job counts.
    """
    types = {name for label in slot.accepts for name in producers_of(label)}
    types.discard(job.job_type.name)
    fitting = [node for node in nodes if node.partition("__")[0] in types]
    order = {name: rank for rank, name in enumerate(CATALOGUE)}
    instance = job.node.partition("__")[2]

    def rank(node: str) -> tuple[bool, int]:
        name, _, number = node.partition("__")
        return number != instance, -order[name]

    return sorted(fitting, key=rank)


def _by_instance(
    job: WantedJob, slot: InputSlot, newest_first: Sequence[PastJob]
) -> Sequence[PastJob]:
    """Past jobs in the order in which their outputs are taken.

    Never a job's own kind: subtomoExtraction takes any optimisation set, and makes one.
    """
    others = [past for past in newest_first if past.job_type != job.job_type.name]
    if not slot.of_same_instance:
        return others
    instance = job.node.partition("__")[2]
    return sorted(others, key=lambda past: (past.node or "").partition("__")[2] != instance)


def _output_of(job_type: str, slot: InputSlot) -> str:
    """The file name that a job type gives to what the slot accepts."""
    return next(
        output.file
        for label in slot.accepts
        for output in CATALOGUE[job_type].outputs
        if label_matches(output.label, label)
    )


def _unresolvable(job: WantedJob, slot: InputSlot, newest_first: Sequence[PastJob]) -> PlanError:
    """The error for an input that nothing provides, with what was found instead."""
    makers = [
        name for label in slot.accepts for name in producers_of(label) if not _refines(name, slot)
    ]
    lines = [
        f"{job.node}: nothing provides its input {slot.name!r} ({slot.accepts[0]}): "
        "no job in this run makes it, and no succeeded job in default_pipeline.star has."
    ]
    for past in newest_first:
        path = past.output_with_label(slot.accepts)
        if path is not None and path in past.missing:
            lines.append(f"{past.name} made {path}, but the file is gone.")
        elif past.job_type in makers and past.status != "Succeeded":
            lines.append(f"{past.name} ({past.node}) is {past.status.lower()}.")
    maker = " or ".join(makers) if makers else "a job that makes it"
    return PlanError("\n".join(lines), hint=f"add {maker} to the run")


def _refines(maker: str, slot: InputSlot) -> bool:
    """Whether a job type itself needs what the slot does: it is no way to come by it."""
    return any(
        label_matches(accepted, wanted)
        for own in CATALOGUE[maker].inputs
        for accepted in own.accepts
        for wanted in slot.accepts
    )


def _judge(
    job: WantedJob,
    inputs: tuple[PlannedInput, ...],
    planned: Mapping[str, PlannedJob],
    newest_first: Sequence[PastJob],
    mode: Mode,
    retry_failed: bool,
) -> _Verdict:
    """Decide whether a job runs, continues, or is satisfied by what ran before."""
    upstream_new = [given.node for given in inputs if given.path is None and given.node]
    if upstream_new:
        return _Verdict(f"its input {upstream_new[0]} runs in a new job")
    same_type = [past for past in newest_first if past.job_type == job.job_type.name]
    paths = {given.path for given in inputs}
    same = [
        past
        for past in same_type
        if _same_parameters(job, past) and (not inputs or set(past.inputs) == paths)
    ]
    if not same:
        return _Verdict(_why_new(job, paths, same_type))
    intact = (past for past in same if past.status == "Succeeded" and not past.missing)
    past = next(intact, same[0])
    if past.status in ("Running", "Scheduled") and past.alive:
        raise PlanError(
            f"{job.node} is running in {past.name}.", hint="wait for it, or abort it first"
        )
    if past.status != "Succeeded":
        detail = f": {past.failure}" if past.failure else ""
        word = "was interrupted" if past.status in ("Running", "Scheduled") else past.status.lower()
        return _Verdict(
            f"{past.name} {word}{detail}; what it had finished is kept", continue_of=past.job
        )
    upstream_again = [given.node for given in inputs if given.node in planned]
    if upstream_again:
        return _Verdict(
            f"its input {upstream_again[0]} continues in the same job", continue_of=past.job
        )
    if past.missing:
        more = f" and {len(past.missing) - 1} more" if len(past.missing) > 1 else ""
        return _Verdict(f"{past.missing[0]}{more} of {past.name} is missing", continue_of=past.job)
    news = _news(job, past, inputs, newest_first)
    if news:
        if mode == "new" and not inputs:
            return _Verdict(f"{news} (mode continue would add to {past.name})")
        return _Verdict(news, continue_of=past.job)
    failed = past.failed_series
    again = (
        failed
        if retry_failed
        else {name: reason for name, reason in failed.items() if past.series[name].redo}
    )
    if again:
        return _Verdict(f"{_names(again)} failed in {past.name}", continue_of=past.job)
    warnings = tuple(
        f"{job.node}: tilt series {name} failed in {past.name}: {reason} "
        "(tried again with --mode continue)"
        for name, reason in failed.items()
    )
    return _Verdict("same parameters and inputs, succeeded", satisfied_by=past, warnings=warnings)


def _same_parameters(job: WantedJob, past: PastJob) -> bool:
    """Whether a past job of this type had the parameters that are wanted now.

    A native RELION job is known by its options alone, whoever started it. Options that we leave
    to RELION do not count, nor those that only another version of RELION has: RELION completes its
    `job.star`, so that what is not in it is not among its options.
    """
    if job.job_type.is_native:
        own = [name for name in job.parameters if name in past.parameters]
        if past.relion_type != job.job_type.relion_type or not own:
            return False
        return all(past.parameters[name] == job.parameters[name] for name in own)
    return past.fingerprint == job.fingerprint


def _why_new(job: WantedJob, paths: set[str | None], same_type: Sequence[PastJob]) -> str:
    """Say what makes this job different from all that ran."""
    if not same_type:
        return "has not run yet"
    past = next((one for one in same_type if one.status == "Succeeded"), same_type[0])
    if _same_parameters(job, past):
        before = ", ".join(sorted(past.inputs)) or "nothing"
        return f"its input is {', '.join(sorted(str(p) for p in paths))}; {past.name} had {before}"
    changes = [
        f"{name} {past.parameters.get(name, 'unset')} -> {value}"
        for name, value in job.parameters.items()
        if past.parameters.get(name) != value
        and not (job.job_type.is_native and name not in past.parameters)
    ]
    if not changes or not past.parameters:
        return f"other parameters than {past.name}"
    return f"other parameters than {past.name}: {'; '.join(changes)}"


def _news(
    job: WantedJob,
    past: PastJob,
    inputs: tuple[PlannedInput, ...],
    newest_first: Sequence[PastJob],
) -> str | None:
    """What the job's input holds that the job has not seen, or None."""
    available = dict(job.data)
    for given in inputs[:1]:  # further inputs hold something else under the tilt series' names
        for producer in newest_first:
            if given.path in {file for file, _ in producer.outputs}:
                available |= {
                    name: record.fingerprint
                    for name, record in producer.series.items()
                    if record.status == "done"
                }
    whole = {slot.name for slot in job.job_type.inputs if slot.from_all_series}
    rest = [
        whole_fingerprint(producer.series)
        for given in inputs
        if given.slot in whole
        for producer in newest_first
        if given.path in {file for file, _ in producer.outputs}
    ]
    for name in available:
        for extra in (job.extras.get(name), *rest):
            available[name] = with_extra(available[name], extra)
    new = [name for name in available if name not in past.series]
    changed = [
        name
        for name, fingerprint in available.items()
        if name in past.series and past.series[name].input_fingerprint not in ("", fingerprint)
    ]
    parts = []
    if new:
        parts.append(f"{_names(new)} new")
    if changed:
        parts.append(f"{_names(changed)} changed")
    return " and ".join(parts) + f" since {past.name}" if parts else None


def _names(names: Sequence[str] | Mapping[str, str]) -> str:
    """`TS_01, TS_02`, or a count when there are many."""
    listed = list(names)
    if len(listed) > 5:
        return f"{len(listed)} tilt series ({', '.join(listed[:3])}, ...)"
    return ", ".join(listed)
