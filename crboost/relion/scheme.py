"""`scheme.star`: RELION's scheme - variables, operators, jobs, and the edges between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Generic, TypeVar

from crboost.errors import FileFormatError, SchemerError
from crboost.files import write_text
from crboost.relion.star import (
    Block,
    StarDocument,
    format_float,
    format_star,
    list_block,
    loop_block,
    read_whole,
)

SCHEMES_DIR = "Schemes"
SCHEME_FILE = "scheme.star"
UNDEFINED = "undefined"
EXIT_NODE = "EXIT"

Value = TypeVar("Value", float, bool, str)


class JobMode(StrEnum):
    """Whether a job that is reached again gets a new number or goes on in its directory."""

    NEW = "new"
    CONTINUE = "continue"


@dataclass(slots=True)
class Variable(Generic[Value]):
    """A variable's value now, and the one that a reset gives it."""

    value: Value
    original: Value


@dataclass(frozen=True, slots=True)
class Operator:
    """A node that computes; `type` is RELION's name such as `float=plus`."""

    type: str
    output: str = UNDEFINED
    input1: str = UNDEFINED
    input2: str = UNDEFINED


@dataclass(slots=True)
class SchemeJob:
    """A job node: its directory once it has one (`External/job003/`), its mode, has it started."""

    current_name: str
    mode: str = JobMode.CONTINUE
    has_started: bool = False


@dataclass(frozen=True, slots=True)
class SchemeEdge:
    """From one node to the next; a fork goes to `output_if_true` while `condition` is true."""

    input: str
    output: str
    is_fork: bool = False
    output_if_true: str = UNDEFINED
    condition: str = UNDEFINED


@dataclass(slots=True)
class Scheme:
    """A scheme. `name` is its directory's name, without `Schemes/`."""

    name: str
    current_node: str = UNDEFINED
    floats: dict[str, Variable[float]] = field(default_factory=dict)
    bools: dict[str, Variable[bool]] = field(default_factory=dict)
    strings: dict[str, Variable[str]] = field(default_factory=dict)
    operators: dict[str, Operator] = field(default_factory=dict)
    jobs: dict[str, SchemeJob] = field(default_factory=dict)
    edges: list[SchemeEdge] = field(default_factory=list)

    @property
    def directory(self) -> str:
        """The scheme's directory as RELION writes it: `Schemes/NAME/`."""
        return f"{SCHEMES_DIR}/{self.name}/"

    def is_job(self, node: str) -> bool:
        """Whether the node is a job."""
        return node in self.jobs

    def is_operator(self, node: str) -> bool:
        """Whether the node is an operator."""
        return node in self.operators

    def value_of(self, variable: str) -> float | bool | str | None:
        """A variable's value; None when the scheme has no such variable."""
        if variable in self.strings:
            return self.strings[variable].value
        if variable in self.bools:
            return self.bools[variable].value
        return self.floats[variable].value if variable in self.floats else None

    def next_node(self, node: str | None = None) -> str:
        """The node after `node` (default: the current one), forks decided; `undefined` at the end.

        Of several edges from one node the last counts, as in RELION.

        Raises:
            SchemerError: a fork on a variable that the scheme does not have.
        """
        start = self.current_node if node is None else node
        result = UNDEFINED
        for edge in self.edges:
            if edge.input != start:
                continue
            if not edge.is_fork:
                result = edge.output
                continue
            if edge.condition not in self.bools:
                raise SchemerError(
                    f"{self.directory}{SCHEME_FILE}: the fork at {edge.input} needs the boolean"
                    f" variable {edge.condition}, which the scheme does not have"
                )
            result = edge.output_if_true if self.bools[edge.condition].value else edge.output
        return result

    def reset(self) -> None:
        """Every variable to its original value, every job not started, back to the first node."""
        for variable in self.floats.values():
            variable.value = variable.original
        for flag in self.bools.values():
            flag.value = flag.original
        for text in self.strings.values():
            text.value = text.original
        for name, job in self.jobs.items():
            job.current_name = name
            job.has_started = False
        self.current_node = self.edges[0].input if self.edges else UNDEFINED


def make_linear_scheme(name: str, nodes: Sequence[str], mode: JobMode = JobMode.CONTINUE) -> Scheme:
    """A queue of jobs that ends in EXIT.

    Raises:
        SchemerError: no jobs, a job twice, or a name that RELION cannot use.
    """
    if not nodes:
        raise SchemerError(f"{SCHEMES_DIR}/{name}/: a scheme needs at least one job")
    for text in (name, *nodes):
        if not text or any(character in text for character in "/ \t\n\"'#$"):
            raise SchemerError(
                f"{text!r} cannot name a scheme or a job in one",
                hint="use letters, digits, dots, dashes and underscores",
            )
    if len({*nodes, EXIT_NODE}) != len(nodes) + 1:
        raise SchemerError(f"{SCHEMES_DIR}/{name}/: job names must differ: {', '.join(nodes)}")
    chain = [*nodes, EXIT_NODE]
    return Scheme(
        name,
        current_node=nodes[0],
        operators={EXIT_NODE: Operator("exit")},
        jobs={node: SchemeJob(node, mode) for node in nodes},
        edges=[SchemeEdge(a, b) for a, b in pairwise(chain)],
    )


# --- files ---------------------------------------------------------------------------------


def scheme_dir(project_dir: Path, scheme_name: str) -> Path:
    """The directory of a scheme."""
    return project_dir / SCHEMES_DIR / scheme_name


def write_scheme(project_dir: Path, scheme: Scheme) -> None:
    """Write `Schemes/NAME/scheme.star` atomically."""
    write_text(scheme_dir(project_dir, scheme.name) / SCHEME_FILE, format_scheme(scheme))


def read_scheme(project_dir: Path, scheme_name: str) -> Scheme:
    """Read `Schemes/NAME/scheme.star`.

    Raises:
        SchemerError: there is no such scheme.
        FileFormatError: the file cannot be read as a scheme.
    """
    path = scheme_dir(project_dir, scheme_name) / SCHEME_FILE
    try:
        return read_whole(path, parse_scheme)
    except FileNotFoundError:
        raise SchemerError(
            f"{path}: there is no such scheme",
            hint=f"the schemes are the directories in {project_dir / SCHEMES_DIR}",
        ) from None


def format_scheme(scheme: Scheme) -> str:
    """A scheme file's text, byte for byte as RELION 5.1 writes it."""
    return format_star(StarDocument(tuple(_blocks(scheme))))


def parse_scheme(document: StarDocument, path: Path | str) -> Scheme:
    """The scheme in a document.

    Raises:
        FileFormatError: a block, column or value is not what it must be.
    """
    rows = _Rows(path)
    general = document.records("scheme_general")
    if not general or "rlnSchemeName" not in general[0]:
        raise FileFormatError(path, "no rlnSchemeName in data_scheme_general")
    name = general[0]["rlnSchemeName"].rstrip("/").removeprefix(f"{SCHEMES_DIR}/")
    scheme = Scheme(name, general[0].get("rlnSchemeCurrentNodeName", UNDEFINED))
    for row in document.records("scheme_floats"):
        scheme.floats[rows.text(row, "rlnSchemeFloatVariableName")] = Variable(
            rows.number(row, "rlnSchemeFloatVariableValue"),
            rows.number(row, "rlnSchemeFloatVariableResetValue"),
        )
    for row in document.records("scheme_bools"):
        scheme.bools[rows.text(row, "rlnSchemeBooleanVariableName")] = Variable(
            rows.flag(row, "rlnSchemeBooleanVariableValue"),
            rows.flag(row, "rlnSchemeBooleanVariableResetValue"),
        )
    for row in document.records("scheme_strings"):
        scheme.strings[rows.text(row, "rlnSchemeStringVariableName")] = Variable(
            rows.text(row, "rlnSchemeStringVariableValue"),
            rows.text(row, "rlnSchemeStringVariableResetValue"),
        )
    for row in document.records("scheme_operators"):
        scheme.operators[rows.text(row, "rlnSchemeOperatorName")] = Operator(
            rows.text(row, "rlnSchemeOperatorType"),
            rows.text(row, "rlnSchemeOperatorOutput"),
            rows.text(row, "rlnSchemeOperatorInput1"),
            rows.text(row, "rlnSchemeOperatorInput2"),
        )
    for row in document.records("scheme_jobs"):
        scheme.jobs[rows.text(row, "rlnSchemeJobNameOriginal")] = SchemeJob(
            rows.text(row, "rlnSchemeJobName"),
            rows.text(row, "rlnSchemeJobMode"),
            rows.flag(row, "rlnSchemeJobHasStarted"),
        )
    for row in document.records("scheme_edges"):
        scheme.edges.append(
            SchemeEdge(
                rows.text(row, "rlnSchemeEdgeInputNodeName"),
                rows.text(row, "rlnSchemeEdgeOutputNodeName"),
                rows.flag(row, "rlnSchemeEdgeIsFork"),
                rows.text(row, "rlnSchemeEdgeOutputNodeNameIfTrue"),
                rows.text(row, "rlnSchemeEdgeBooleanVariable"),
            )
        )
    if scheme.current_node == UNDEFINED and scheme.edges:
        scheme.current_node = scheme.edges[0].input
    return scheme


class _Rows:
    """Values of rows, with errors that name file and column."""

    def __init__(self, path: Path | str) -> None:
        self._path = path

    def text(self, row: dict[str, str], column: str) -> str:
        if column not in row:
            raise FileFormatError(self._path, f"the column {column} is missing")
        return row[column]

    def number(self, row: dict[str, str], column: str) -> float:
        text = self.text(row, column)
        try:
            return float(text)
        except ValueError:
            raise FileFormatError(self._path, f"{column} is {text!r}, not a number") from None

    def flag(self, row: dict[str, str], column: str) -> bool:
        return self.number(row, column) != 0


def _blocks(scheme: Scheme) -> list[Block]:
    general = {
        "rlnSchemeName": scheme.directory,
        "rlnSchemeCurrentNodeName": scheme.current_node,
    }
    return [
        list_block("scheme_general", general),
        _variables(
            "floats",
            "Float",
            [
                (name, format_float(variable.value), format_float(variable.original))
                for name, variable in scheme.floats.items()
            ],
        ),
        _variables(
            "bools",
            "Boolean",
            [
                (name, str(int(variable.value)), str(int(variable.original)))
                for name, variable in scheme.bools.items()
            ],
        ),
        _variables(
            "strings",
            "String",
            [
                (name, variable.value, variable.original)
                for name, variable in scheme.strings.items()
            ],
        ),
        loop_block(
            "scheme_operators",
            (
                "rlnSchemeOperatorName",
                "rlnSchemeOperatorType",
                "rlnSchemeOperatorOutput",
                "rlnSchemeOperatorInput1",
                "rlnSchemeOperatorInput2",
            ),
            [
                (name, operator.type, operator.output, operator.input1, operator.input2)
                for name, operator in sorted(scheme.operators.items())
            ],
        ),
        loop_block(
            "scheme_jobs",
            (
                "rlnSchemeJobNameOriginal",
                "rlnSchemeJobName",
                "rlnSchemeJobMode",
                "rlnSchemeJobHasStarted",
            ),
            [
                (name, job.current_name, job.mode, str(int(job.has_started)))
                for name, job in sorted(scheme.jobs.items())
            ],
        ),
        loop_block(
            "scheme_edges",
            (
                "rlnSchemeEdgeInputNodeName",
                "rlnSchemeEdgeOutputNodeName",
                "rlnSchemeEdgeIsFork",
                "rlnSchemeEdgeOutputNodeNameIfTrue",
                "rlnSchemeEdgeBooleanVariable",
            ),
            [
                (e.input, e.output, str(int(e.is_fork)), e.output_if_true, e.condition)
                for e in scheme.edges
            ],
        ),
    ]


def _variables(block: str, kind: str, rows: list[tuple[str, str, str]]) -> Block:
    columns = tuple(
        f"rlnScheme{kind}Variable{column}" for column in ("Name", "Value", "ResetValue")
    )
    return loop_block(f"scheme_{block}", columns, sorted(rows))
