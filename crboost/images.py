"""Which job made the images that a job works on, and by how much it binned them. Pure.

Options of RELION's own jobs are decided before anything runs, when no table can be asked yet. So
the inputs are followed back, through the plan and then through RELION's ledger, to the job that
averaged the movies: ours, or one that somebody ran from RELION's GUI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from crboost.history import PastJob
from crboost.parameters import ProjectParameters
from crboost.plan import Plan, PlannedInput


def image_binnings(
    made: Plan, history: Sequence[PastJob], parameters: ProjectParameters, nodes: Iterable[str]
) -> dict[str, float]:
    """Binning of the images that each of `nodes` works on, as a multiple of the movies' pixel.

    A node that is not in the plan goes by its newest job in the ledger. Nodes whose inputs do not
    lead to such a job are left out.
    """
    planned = {job.node: job.inputs for job in made.jobs}
    satisfied = {job.node: job.job for job in made.satisfied}
    newest_first = sorted(history, key=lambda past: past.number, reverse=True)
    by_job = {past.job: past for past in history}
    by_output = {file: past for past in history for file, _ in past.outputs}

    def of_inputs(inputs: Sequence[PlannedInput]) -> float | None:
        return _first(
            of_node(given.node) if given.node in planned else of_file(given.path or "")
            for given in inputs
        )

    def of_node(node: str | None) -> float | None:
        assert node is not None
        own = parameters.effective(node).job.image_binning
        return own if own is not None else of_inputs(planned[node])

    def of_file(path: str, seen: frozenset[str] = frozenset()) -> float | None:
        past = by_output.get(path)
        if past is None or past.job in seen:
            return None
        own = recorded_binning(past)
        return own if own is not None else of_past(past, seen)

    def of_past(past: PastJob, seen: frozenset[str] = frozenset()) -> float | None:
        return _first(of_file(path, seen | {past.job}) for path in past.inputs)

    found: dict[str, float] = {}
    for node in nodes:
        past = by_job.get(satisfied.get(node, "")) or next(
            (one for one in newest_first if one.node == node or _is_native(one, node)), None
        )
        binning = None
        if node in planned:
            binning = of_inputs(planned[node])
        elif past is not None:
            binning = of_past(past)
        if binning is not None:
            found[node] = binning
    return found


def recorded_binning(past: PastJob) -> float | None:
    """How much a job of the past binned the movies; None: it averaged none."""
    given: Mapping[str, str] = past.parameters
    if past.job_type == "motionCorr":
        return float(given.get("bin_factor") or 1)
    if past.job_type == "fsMotionAndCtf":
        return float(given.get("movie_binning") or 1) if given.get("tool") == "warp" else 1.0
    return None


def _is_native(past: PastJob, node: str) -> bool:
    """Whether a job without a node's name, as RELION's are, may be this one."""
    return past.node is None and past.job_type == node.partition("__")[0]


def _first(found: Iterable[float | None]) -> float | None:
    return next((one for one in found if one is not None), None)
