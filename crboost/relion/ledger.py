"""`default_pipeline.star`, RELION's ledger: what ran, what it read, what it made.

`Ledger` is a value; its operations return a new one and follow RELION's pipeliner, so that a
ledger written here is the ledger that RELION would have written. `update_ledger` is the only
way to change the file: under RELION's lock, from the newest state on disk, atomically.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from crboost.errors import FileFormatError, SchemerError
from crboost.relion.lock import ledger_lock
from crboost.relion.star import (
    VERSION,
    Block,
    StarDocument,
    format_star,
    list_block,
    loop_block,
    read_whole,
    write_star,
)

LEDGER_FILE = "default_pipeline.star"
CHANGED_FILE = ".pipeline_has_changed"
NO_ALIAS = "None"

_JOB_NUMBER = re.compile(r"/job(\d+)/?$")


class Status(StrEnum):
    """The five states that RELION knows."""

    RUNNING = "Running"
    SCHEDULED = "Scheduled"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ABORTED = "Aborted"


# RELION 3 wrote numbers; the order is the same.
_STATUS_BY_NUMBER = dict(enumerate(Status))

# RELION 3's process types, as today's labels.
_TYPE_LABEL_BY_NUMBER = {
    0: "relion.import",
    1: "relion.motioncorr",
    2: "relion.ctffind",
    3: "relion.manualpick",
    4: "relion.autopick",
    5: "relion.extract",
    7: "relion.select",
    8: "relion.class2d",
    9: "relion.class3d",
    10: "relion.refine3d",
    12: "relion.maskcreate",
    13: "relion.joinstar",
    14: "relion.subtract",
    15: "relion.postprocess",
    16: "relion.localres",
    18: "relion.initialmodel",
    19: "relion.multibody",
    20: "relion.polish",
    21: "relion.ctfrefine",
    99: "relion.external",
}

# RELION 3's node types, as today's labels.
_NODE_LABEL_BY_NUMBER = {
    0: "MicrographMovieGroupMetadata.star.relion",
    1: "MicrographGroupMetadata.star.relion",
    2: "MicrographCoordsGroup.star.relion",
    3: "ParticleGroupMetadata.star.relion",
    5: "Image2DGroupMetadata.star.relion",
    6: "DensityMap.mrc",
    7: "Mask3D.mrc",
    8: "ProcessData.star.relion.model",
    9: "OptimiserData.star.relion",
    10: "DensityMap.mrc.halfmap",
    11: "DensityMap.mrc.relion.postprocess",
    12: "Image3D.mrc.localresmap",
    13: "LogFile.pdf.relion",
    14: "ProcessData.star.relion.postprocess",
    15: "ParamsData.txt.relion.polish",
}


# Parts of RELION 4's node labels and what RELION 5 calls them; the first that fits counts.
_RELION_4_LABELS = (
    ("ParticlesData", "ParticleGroupMetadata"),
    ("MicrographMoviesData", "MicrographMovieGroupMetadata"),
    ("MicrographsData", "MicrographGroupMetadata"),
    ("MicrographsCoords", "MicrographCoordsGroup"),
    ("ImagesData", "Image2DGroupMetadata"),
    ("OptimisationSet", "TomoOptimisationSet"),
    ("TomogramData", "TomogramGroupMetadata"),
    ("TrajectoryData", "TomoTrajectoryData"),
    (
        "ProcessData.star.relion.tomo.relion.tiltseries_set",
        "TomogramGroupMetadata.star.relion.tomo",
    ),
    (
        "ProcessData.star.relion.tomo.relion.tomogram_set",
        "TomogramGroupMetadata.star.relion.tomo",
    ),
)


@dataclass(frozen=True, slots=True)
class Process:
    """One job. `name` is its directory with a trailing slash, such as `External/job003/`."""

    name: str
    type_label: str
    status: Status
    alias: str = NO_ALIAS

    @property
    def number(self) -> int:
        """The job's number; -1 for a name without one."""
        match = _JOB_NUMBER.search(self.name)
        return int(match[1]) if match else -1


@dataclass(frozen=True, slots=True)
class Node:
    """One file that a job made or reads, with RELION's label for its kind.

    `depth` is how many parts of the label RELION's file browser shows.
    """

    name: str
    label: str
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Edge:
    """A node that is input to, or output of, a process."""

    process: str
    node: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """The whole pipeline; `counter` is the number of the next job and starts at 1."""

    counter: int = 1
    processes: tuple[Process, ...] = ()
    nodes: tuple[Node, ...] = ()
    input_edges: tuple[Edge, ...] = ()
    output_edges: tuple[Edge, ...] = ()

    # --- questions -------------------------------------------------------------------------

    def process(self, name: str) -> Process | None:
        """The job with this name (with or without the trailing slash) or alias."""
        wanted = _with_slash(name)
        for process in self.processes:
            if wanted in (process.name, _with_slash(process.alias)):
                return process
        return None

    def node(self, name: str) -> Node | None:
        """The node with this file name."""
        return next((node for node in self.nodes if node.name == name), None)

    def inputs_of(self, process_name: str) -> list[Node]:
        """The nodes that a job reads."""
        return self._nodes(self.input_edges, process_name)

    def outputs_of(self, process_name: str) -> list[Node]:
        """The nodes that a job made."""
        return self._nodes(self.output_edges, process_name)

    def producer_of(self, node_name: str) -> Process | None:
        """The job that made a node."""
        for edge in self.output_edges:
            if edge.node == node_name:
                return self.process(edge.process)
        return None

    def consumers_of(self, process_name: str) -> list[Process]:
        """The jobs that read anything that this job made."""
        made = {node.name for node in self.outputs_of(process_name)}
        names = {edge.process for edge in self.input_edges if edge.node in made}
        return [process for process in self.processes if process.name in names]

    def producers(self, label: str, *statuses: Status) -> list[tuple[Process, Node]]:
        """The jobs that made a node of this kind, newest job first, each with the node.

        A label also matches its refinements: `A.star.relion` finds `A.star.relion.tomo`.

        Args:
            statuses: only jobs with one of these; default Succeeded.
        """
        wanted = statuses or (Status.SUCCEEDED,)
        found = [
            (process, node)
            for process in self.processes
            if process.status in wanted
            for node in self.outputs_of(process.name)
            if label_matches(node.label, label)
        ]
        order = {process.name: index for index, process in enumerate(self.processes)}
        return sorted(found, key=lambda pair: (pair[0].number, order[pair[0].name]), reverse=True)

    def newest_producer(
        self, label: str, accept: Callable[[Process, Node], bool] = lambda _process, _node: True
    ) -> tuple[Process, Node] | None:
        """The newest Succeeded job that made a node of this kind which `accept` takes."""
        return next((pair for pair in self.producers(label) if accept(*pair)), None)

    def next_job_name(self, directory: str) -> str:
        """The name that the next job gets, such as `External/job003/`."""
        return f"{directory}/job{self.counter:03d}/"

    # --- operations ------------------------------------------------------------------------

    def add_process(self, process: Process) -> Ledger:
        """A new job takes the next number; a known one only gets the new status."""
        if self.process(process.name) is not None:
            return self.set_status(process.name, process.status)
        return replace(self, counter=self.counter + 1, processes=(*self.processes, process))

    def set_status(self, process_name: str, status: Status) -> Ledger:
        """The ledger with one job's status changed.

        Raises:
            KeyError: no such job.
        """
        known = self.process(process_name)
        if known is None:
            raise KeyError(process_name)
        changed = replace(known, status=status)
        return replace(self, processes=tuple(changed if p is known else p for p in self.processes))

    def add_input(self, process_name: str, node: Node) -> Ledger:
        """The ledger with `node` as an input of the job; a known node keeps its label.

        A node seen for the first time whose name lies in the directory of a known job is taken
        for that job's output, as RELION does.
        """
        ledger, node = self._resolve_alias(node)
        edge = Edge(process_name, node.name)
        if edge in ledger.input_edges:
            return ledger
        is_new = ledger.node(node.name) is None
        ledger = replace(ledger, input_edges=(*ledger.input_edges, edge))
        if is_new:
            ledger = replace(ledger, nodes=(*ledger.nodes, node))
            owner = next((p for p in ledger.processes if p.name in node.name), None)
            if owner is not None:
                made = Edge(owner.name, node.name)
                ledger = replace(ledger, output_edges=(*ledger.output_edges, made))
        return ledger

    def add_output(self, process_name: str, node: Node) -> Ledger:
        """The ledger with `node` as an output of the job; a known node stays what it is."""
        ledger, node = self._resolve_alias(node)
        if ledger.node(node.name) is not None:
            return ledger
        edge = Edge(process_name, node.name)
        return replace(
            ledger, nodes=(*ledger.nodes, node), output_edges=(*ledger.output_edges, edge)
        )

    def add_outputs(self, process_name: str, nodes: Iterable[Node]) -> Ledger:
        """`add_output` for each node."""
        ledger = self
        for node in nodes:
            ledger = ledger.add_output(process_name, node)
        return ledger

    def _resolve_alias(self, node: Node) -> tuple[Ledger, Node]:
        for process in self.processes:
            if process.alias != NO_ALIAS and process.alias in node.name:
                name = process.name + node.name.replace(process.alias, "", 1)
                return self, replace(node, name=name)
        return self, node

    def _nodes(self, edges: tuple[Edge, ...], process_name: str) -> list[Node]:
        name = _with_slash(process_name)
        found = (self.node(edge.node) for edge in edges if edge.process == name)
        return [node for node in found if node is not None]


def label_matches(label: str, wanted: str) -> bool:
    """Whether a node's label is `wanted` or a refinement of it."""
    return label == wanted or label.startswith(f"{wanted}.")


# --- text ----------------------------------------------------------------------------------


def ledger_blocks(ledger: Ledger) -> list[Block]:
    """The blocks of a ledger file; edges stand in the order of the processes, as in RELION."""
    order = {process.name: index for index, process in enumerate(ledger.processes)}

    def sorted_edges(edges: tuple[Edge, ...]) -> list[Edge]:
        return sorted((e for e in edges if e.process in order), key=lambda e: order[e.process])

    return [
        list_block("pipeline_general", {"rlnPipeLineJobCounter": str(ledger.counter)}),
        loop_block(
            "pipeline_processes",
            (
                "rlnPipeLineProcessName",
                "rlnPipeLineProcessAlias",
                "rlnPipeLineProcessTypeLabel",
                "rlnPipeLineProcessStatusLabel",
            ),
            ((p.name, p.alias, p.type_label, p.status.value) for p in ledger.processes),
        ),
        loop_block(
            "pipeline_nodes",
            (
                "rlnPipeLineNodeName",
                "rlnPipeLineNodeTypeLabel",
                "rlnPipeLineNodeTypeLabelDepth",
            ),
            ((n.name, n.label, str(n.depth)) for n in ledger.nodes),
        ),
        loop_block(
            "pipeline_input_edges",
            ("rlnPipeLineEdgeFromNode", "rlnPipeLineEdgeProcess"),
            ((e.node, e.process) for e in sorted_edges(ledger.input_edges)),
        ),
        loop_block(
            "pipeline_output_edges",
            ("rlnPipeLineEdgeProcess", "rlnPipeLineEdgeToNode"),
            ((e.process, e.node) for e in sorted_edges(ledger.output_edges)),
        ),
    ]


def format_ledger(ledger: Ledger) -> str:
    """A ledger file's text, byte for byte as RELION 5.1 writes it."""
    return format_star(StarDocument(tuple(ledger_blocks(ledger))))


def parse_ledger(document: StarDocument, path: Path | str) -> Ledger:
    """The ledger in a document read by `read_star`.

    Raises:
        FileFormatError: a block or column is missing, or a value cannot be what it should be.
    """
    general = document.get("pipeline_general")
    if general is None or "rlnPipeLineJobCounter" not in general.pairs():
        raise FileFormatError(
            path,
            "no rlnPipeLineJobCounter in data_pipeline_general",
            hint="the ledger is damaged; each job's directory has a copy of it from its start",
        )
    counter = general.pairs()["rlnPipeLineJobCounter"]
    if not counter.isdigit():
        raise FileFormatError(path, f"rlnPipeLineJobCounter is {counter!r}, not a whole number")
    return Ledger(
        counter=int(counter),
        processes=tuple(_process(row, path) for row in document.records("pipeline_processes")),
        nodes=tuple(
            _node(row, path, is_old=int(document.version or 0) < int(VERSION))
            for row in document.records("pipeline_nodes")
        ),
        input_edges=tuple(
            Edge(
                _value(row, "rlnPipeLineEdgeProcess", path),
                _value(row, "rlnPipeLineEdgeFromNode", path),
            )
            for row in document.records("pipeline_input_edges")
        ),
        output_edges=tuple(
            Edge(
                _value(row, "rlnPipeLineEdgeProcess", path),
                _value(row, "rlnPipeLineEdgeToNode", path),
            )
            for row in document.records("pipeline_output_edges")
        ),
    )


def _process(row: dict[str, str], path: Path | str) -> Process:
    name = _value(row, "rlnPipeLineProcessName", path)
    status_text = row.get("rlnPipeLineProcessStatusLabel")
    if status_text is None:
        status = _STATUS_BY_NUMBER.get(_number(row, "rlnPipeLineProcessStatus", path))
        status_text = row.get("rlnPipeLineProcessStatus", "")
    else:
        status = Status(status_text) if status_text in set(Status) else None
    if status is None:
        raise FileFormatError(
            path, f"{name} has status {status_text!r}; RELION knows {', '.join(Status)} (or 0-4)"
        )
    type_label = row.get("rlnPipeLineProcessTypeLabel")
    if type_label is None:
        number = _number(row, "rlnPipeLineProcessType", path)
        type_label = _TYPE_LABEL_BY_NUMBER.get(number, f"relion.type{number}")
    return Process(name, type_label, status, row.get("rlnPipeLineProcessAlias", NO_ALIAS))


def _node(row: dict[str, str], path: Path | str, *, is_old: bool) -> Node:
    label = row.get("rlnPipeLineNodeTypeLabel")
    if label is None:
        number = _number(row, "rlnPipeLineNodeType", path)
        label = _NODE_LABEL_BY_NUMBER.get(number, f"Unknown.type{number}")
    elif is_old:
        old, new = next((pair for pair in _RELION_4_LABELS if pair[0] in label), ("", ""))
        label = label.replace(old, new) if old else label
    depth = (
        _number(row, "rlnPipeLineNodeTypeLabelDepth", path)
        if "rlnPipeLineNodeTypeLabelDepth" in row
        else 1
    )
    return Node(_value(row, "rlnPipeLineNodeName", path), label, depth)


def _value(row: dict[str, str], column: str, path: Path | str) -> str:
    if column not in row:
        raise FileFormatError(path, f"the column {column} is missing")
    return row[column]


def _number(row: dict[str, str], column: str, path: Path | str) -> int:
    value = _value(row, column, path)
    try:
        return int(value)
    except ValueError:
        raise FileFormatError(path, f"{column} is {value!r}, not a whole number") from None


def _with_slash(name: str) -> str:
    return name if name.endswith("/") else f"{name}/"


# --- files ---------------------------------------------------------------------------------


def read_ledger(project_dir: Path) -> Ledger:
    """The project's ledger; an empty one when there is no file yet.

    Needs no lock: everyone here replaces the file in one step, and half a file of RELION's is read
    again.

    Raises:
        FileFormatError: the file is damaged.
    """
    path = project_dir / LEDGER_FILE
    try:
        return read_whole(path, parse_ledger)
    except FileNotFoundError:
        return Ledger()


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Write a ledger file atomically. Only for files that nobody else writes.

    The project's own ledger is changed by `update_ledger` alone.
    """
    write_star(path, ledger_blocks(ledger))


def update_ledger(
    project_dir: Path,
    change: Callable[[Ledger], Ledger],
    *,
    message: str = "crboost",
    timeout_s: float = 60.0,
) -> Ledger:
    """Read, change and write the project's ledger under RELION's lock; the new ledger.

    Args:
        change: gets the newest ledger; must be quick, the whole project waits for it. When it
            returns the ledger unchanged the file is left alone.
        message: what for, for people who find the lock.
        timeout_s: how long to wait for other programs.

    Raises:
        SchemerError: the lock stayed taken.
        FileFormatError: the ledger is damaged.
    """
    if not project_dir.is_dir():
        raise SchemerError(f"{project_dir}: there is no such project directory")
    path = project_dir / LEDGER_FILE
    with ledger_lock(project_dir, message, timeout_s=timeout_s):
        before = read_ledger(project_dir)
        after = change(before)
        if after is before and path.exists():
            return after
        write_ledger(path, after)
        (project_dir / CHANGED_FILE).touch()
        return after
