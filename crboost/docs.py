"""docs/jobs.md: every job type from its model, the catalogue and its own commands.

    python -m crboost.docs > docs/jobs.md

A test holds the file against what this makes.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crboost.builders.relion import relion_options
from crboost.builders.step import Step
from crboost.catalogue import CATALOGUE, InputSlot, JobType, Needs, producers_of
from crboost.errors import ParameterError
from crboost.parameters import (
    JOB_MODELS,
    EffectiveParameters,
    FieldFacts,
    ParameterModel,
    ProjectParameters,
    field_facts,
)
from crboost.parameters.base import number_text
from crboost.parameters.groups import GROUPS
from crboost.stages import STAGES, Context, SeriesInput, stage_for
from crboost.stages.base import DatasetStage

HEAD = """\
# Job types
Made by `python -m crboost.docs > docs/jobs.md` from the parameter models, the catalogue and the
builders; not to be edited. Labels stand for their refinements too: `...tomo.aligntiltseries` is
also `...tomo.aligntiltseries.ctf`. `...` is `TomogramGroupMetadata.star.relion.`.

A further job of a type is called `tsAlignment__2`. Parameters are set with
`crboost set PROJECT jobs.tsAlignment.tool=warp`.
How a job type is added: [adding-a-tool.md](adding-a-tool.md).
"""
_SHORT = "TomogramGroupMetadata.star.relion."

#: What must be set before there is a command.
EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "membraneSegmentation": {"model_path": "<model>"},
    "templateMatching": {"template_path": "<template>", "mask_path": "<mask>"},
}
#: The field that says which of a tool's methods is used.
METHOD_FIELD = {"tsAlignment": "alignment_method"}


def jobs_page() -> str:
    """The page, as Markdown."""
    parts = [HEAD, _overview(), *(_section(job_type) for job_type in CATALOGUE.values()), _groups()]
    return "\n".join(parts)


# --- the table of all ------------------------------------------------------------------------


def _overview() -> str:
    rows = [
        (
            f"[{one.name}](#{one.name.lower()})",
            ", ".join(_tools(one)),
            _inputs(one.inputs) or "-",
            "<br>".join(f"`{node.file}`" for node in one.outputs),
            "<br>".join(f"`{_short(node.label)}`" for node in one.outputs),
        )
        for one in CATALOGUE.values()
    ]
    return _table(("job type", "tools", "takes", "makes", "label"), rows)


def _tools(job_type: JobType) -> list[str]:
    own = ["relion"] if job_type.is_native else []
    return [*own, *(tool for name, tool in STAGES if name == job_type.name)]


#: JobType.gpus_per_series, for people.
_WITH_GPUS = {
    "one": "each tilt series on one of them, `per_gpu` (1) at once on each",
    "all": "each tilt series on all of them, `per_gpu` (1) at once",
    "none": "their driver is all that is needed",
}


def _uses_gpu(job_type: str, tool: str) -> bool:
    job = _effective(job_type, {"tool": tool, **EXAMPLES.get(job_type, {})}).job
    return bool(getattr(job, "use_gpu", False))


def _inputs(slots: Sequence[InputSlot]) -> str:
    return "<br>".join(
        " or ".join(f"`{_short(label)}`" for label in slot.accepts)
        + (" (optional)" if slot.optional else "")
        for slot in slots
    )


def _short(label: str) -> str:
    return label.replace(_SHORT, "...", 1)


# --- one job type ----------------------------------------------------------------------------


def _section(job_type: JobType) -> str:
    model = JOB_MODELS[job_type.name]
    parts = [f"## {job_type.name}\n**{job_type.title}.** {job_type.summary}\n"]
    parts.append(_facts(job_type))
    parts.append(_parameters(model))
    uses = sorted(model.uses)
    if uses:
        parts.append(f"Its results also depend on {', '.join(f'`{name}`' for name in uses)}.\n")
    if job_type.is_native:
        parts.append(_relion_options(job_type))
    parts.append(_commands(job_type))
    return "\n".join(parts)


def _facts(job_type: JobType) -> str:
    lines = [
        f"- RELION job: `{job_type.relion_type}`" + (", our driver" * (not job_type.is_native))
    ]
    lines += [
        f"- with {tool}: `{job_type.for_tool(tool).relion_type}`, our driver"
        for tool in sorted(job_type.external_with)
    ]
    lines += [f"- takes {line}" for line in _slot_lines(job_type.inputs)]
    for tool, slots in job_type.inputs_with.items():
        lines += [f"- with {tool} takes {line}" for line in _slot_lines(slots)]
    lines += [f"- makes `{node.file}`, `{_short(node.label)}`" for node in job_type.outputs]
    for tool, nodes in job_type.outputs_with.items():
        further = [node for node in nodes if node not in job_type.outputs]
        lines += [f"- with {tool} makes `{n.file}`, `{_short(n.label)}`, too" for n in further]
    if not job_type.is_native:
        over = (
            "several tilt series at once"
            if job_type.parallel_over == "series"
            else ("one tilt series after another, the tool uses the workers")
        )
        lines.append(f"- {over}")
        if any(_uses_gpu(job_type.name, tool) for tool in _tools(job_type)):
            lines.append(f"- with GPUs: {_WITH_GPUS[job_type.gpus_per_series]}")
    lines.append(f"- asks a scheduler for {_needs(job_type)}")
    if job_type.is_prerequisite:
        lines.append("- added to a run by the planner, where another job needs it")
    if job_type.mpi > 1:
        lines.append(f"- at least {job_type.mpi} MPI processes")
    if not job_type.can_continue:
        lines.append("- done anew each time, never continued")
    return "\n".join(lines) + "\n"


def _needs(job_type: JobType) -> str:
    """What it asks for where neither the site nor the user says otherwise."""
    plain = _needs_words(job_type.needs)
    model = JOB_MODELS[job_type.name]
    tools = [bool(getattr(model(tool=tool), "use_gpu", False)) for tool in _tools(job_type)]
    if not any(tools):
        return plain
    with_gpu = f"1 GPU, {_needs_words(job_type.needs_of(uses_gpu=True))}"
    return with_gpu if all(tools) else f"{with_gpu}; without GPUs {plain}"


def _needs_words(needs: Needs) -> str:
    words = [f"{needs.cpus} CPU{'s' * (needs.cpus != 1)}", f"{needs.memory_gb} GB"]
    if needs.minutes is not None:
        words.append(f"{needs.minutes} min{' for each tilt series' * needs.per_series}")
    return ", ".join(words)


def _slot_lines(slots: Sequence[InputSlot]) -> Iterator[str]:
    for slot in slots:
        accepted = " or ".join(f"`{_short(label)}`" for label in slot.accepts)
        makers = dict.fromkeys(one for label in slot.accepts for one in producers_of(label))
        optional = ", optional" if slot.optional else ""
        made = f"; made by {', '.join(makers)}" if makers else ""
        yield f"{slot.name} ({accepted}; RELION's `{slot.relion_field}`{optional}{made})"


def _parameters(model: type[ParameterModel]) -> str:
    facts = [field_facts(model, name) for name in model.model_fields]
    rows = [
        (
            f"`{one.name}`",
            one.unit or "",
            _allowed(one),
            _default(one),
            _only(one),
            one.description,
        )
        for one in facts
    ]
    return _table(("parameter", "unit", "allowed", "default", "only for", "what it is"), rows)


def _allowed(one: FieldFacts) -> str:
    if one.choices:
        return ", ".join(f"`{choice}`" for choice in one.choices)
    if one.kind is bool:
        return "true, false"
    unit = f" {one.unit}" if one.unit else ""
    return one.bounds.removesuffix(unit) or {int: "whole number", float: "number"}.get(one.kind, "")


def _default(one: FieldFacts) -> str:
    if one.follows:
        return " x ".join(f"`{name}`" for name in one.follows)
    if one.default is None or one.default == "":
        return "-"
    if isinstance(one.default, bool):
        return str(one.default).lower()
    if isinstance(one.default, float):
        return number_text(one.default)
    text = json.dumps(one.default) if isinstance(one.default, list | tuple) else str(one.default)
    return f"`{text}`" if one.kind is str else text


def _only(one: FieldFacts) -> str:
    parts = [*(one.tools or ()), *(f"method {name}" for name in one.methods or ())]
    return ", ".join([*parts, *(["speed only"] if one.resource else [])])


# --- commands --------------------------------------------------------------------------------


def _commands(job_type: JobType) -> str:
    parts = []
    for tool in _tools(job_type):
        if job_type.for_tool(tool).is_native:
            continue
        for words, steps in _variants(job_type.name, tool):
            if steps:
                parts.append(f"Commands with {words}:\n\n{_shell(steps)}")
            else:
                parts.append(f"With {words} nothing is started: the driver does it itself.\n")
    return "\n".join(parts)


def _variants(job_type: str, tool: str) -> Iterator[tuple[str, list[Step]]]:
    """The commands of each method of a tool, with default parameters."""
    values: dict[str, Any] = {"tool": tool, **EXAMPLES.get(job_type, {})}
    name = METHOD_FIELD.get(job_type)
    plain = _effective(job_type, values)
    if name is None or plain.job.method is None:
        yield tool, _steps(job_type, tool, plain)
        return
    for method in field_facts(type(plain.job), name).choices:
        try:
            steps = _steps(job_type, tool, _effective(job_type, {**values, name: method}))
        except ParameterError:  # not a method of this tool
            continue
        yield f"{tool}, method {method}", steps


def _effective(job_type: str, values: Mapping[str, Any]) -> EffectiveParameters:
    new = ProjectParameters.new("example", datetime(2000, 1, 1, tzinfo=UTC)).with_job(job_type)
    changes = {f"jobs.{job_type}.{name}": value for name, value in values.items()}
    return new.with_values(changes).effective(job_type)


def _steps(job_type: str, tool: str, effective: EffectiveParameters) -> list[Step]:
    stage = stage_for(job_type, tool)
    gpus = int(getattr(effective.job, "use_gpu", False))
    context = Context(Path("/project"), "<job>", effective, None, "python", 4, gpus=gpus)
    series = SeriesInput("<tilt series>", "", {}, [])
    once: Sequence[Step] = ()
    if isinstance(stage, DatasetStage):
        once = stage.dataset_steps(context, {series.name: series})
    return [*once, *stage.steps(context, series)]


def _shell(steps: Sequence[Step]) -> str:
    lines = ["```sh"]
    where = "."
    for step in steps:
        if step.directory != where:
            where = step.directory
            lines.append(f"# in {where}")
        lines.append(_line(step.argv))
        if "--conf" in step.argv:
            text = step.files[step.argv[step.argv.index("--conf") + 1]]
            lines += [f"# {json.dumps(json.loads(text))}"]
    return "\n".join([*lines, "```", ""])


def _line(argv: Sequence[str]) -> str:
    """For a person: what is in angle brackets stands for something, and is not quoted."""
    return " ".join(word if "<" in word else shlex.quote(word) for word in argv)


def _relion_options(job_type: JobType) -> str:
    effective = _effective(job_type.name, {})
    try:
        options = relion_options(job_type.name, effective, ctffind_executable="ctffind")
    except ParameterError as error:
        return f"RELION's options are not shown: {error}\n"
    words = ", ".join(f"`{name}={value}`" for name, value in sorted(options.items()))
    return f"RELION's options with default parameters: {words}.\n"


# --- the rest --------------------------------------------------------------------------------


def _groups() -> str:
    parts = ["## Parameters of the whole project\n"]
    for name, model in GROUPS.items():
        parts.append(f"### {name}\n\n{_parameters(model)}")
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [cell.replace("|", "\\|").replace("\n", " ") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the page."""
    sys.stdout.write(jobs_page())


if __name__ == "__main__":
    main()
