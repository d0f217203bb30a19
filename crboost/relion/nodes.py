"""Output nodes: what a job says it made (`RELION_OUTPUT_NODES.star`), and RELION's file index."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from crboost.errors import FileFormatError
from crboost.relion.ledger import Node
from crboost.relion.star import loop_block, read_star, write_star

OUTPUT_NODES_FILE = "RELION_OUTPUT_NODES.star"
NODE_INDEX_DIR = ".Nodes"

# The label that RELION gives to an External job's input, by the field it was given in.
EXTERNAL_INPUT_LABELS = {
    "in_mov": "MicrographMovieGroupMetadata.star.relion",
    "in_mic": "MicrographGroupMetadata.star.relion",
    "in_part": "ParticleGroupMetadata.star.relion",
    "in_coords": "MicrographCoordsGroup.star.relion",
    "in_3dref": "DensityMap.mrc",
    "in_mask": "Mask3D.mrc",
}


def read_output_nodes(job_dir: Path) -> list[Node]:
    """The nodes that a job declares; empty when it declares none.

    Raises:
        FileFormatError: the file is there but cannot be read.
    """
    path = job_dir / OUTPUT_NODES_FILE
    try:
        document = read_star(path)
    except FileNotFoundError:
        return []
    nodes = []
    for row in document.records("output_nodes"):
        if "rlnPipeLineNodeName" not in row or "rlnPipeLineNodeTypeLabel" not in row:
            raise FileFormatError(
                path, "data_output_nodes needs rlnPipeLineNodeName and rlnPipeLineNodeTypeLabel"
            )
        depth = row.get("rlnPipeLineNodeTypeLabelDepth", "1")
        if not depth.isdigit():
            raise FileFormatError(path, f"rlnPipeLineNodeTypeLabelDepth is {depth!r}, not a number")
        nodes.append(Node(row["rlnPipeLineNodeName"], row["rlnPipeLineNodeTypeLabel"], int(depth)))
    return nodes


def write_output_nodes(job_dir: Path, nodes: Iterable[Node]) -> None:
    """Declare what the job made; node names are relative to the project directory."""
    write_star(
        job_dir / OUTPUT_NODES_FILE,
        [
            loop_block(
                "output_nodes",
                ("rlnPipeLineNodeName", "rlnPipeLineNodeTypeLabel"),
                ((node.name, node.label) for node in nodes),
            )
        ],
    )


def index_node(project_dir: Path, node: Node) -> bool:
    """Enter a node into `.Nodes/`, from which RELION's GUI offers inputs; False if it is missing.

    A node in an aliased job is entered under its own name, which the GUI finds as well.
    """
    if not (project_dir / node.name).exists():
        return False
    parts = node.label.split(".")
    for depth in {1, node.depth}:
        entry = project_dir / NODE_INDEX_DIR / ".".join(parts[:depth]) / node.name
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.touch()
    return True
