"""What each job type does with one tilt series: which input, which commands, which output rows.

This table joins catalogue, builders and translators; the driver walks it.
"""

from __future__ import annotations

from crboost.errors import ProjectError
from crboost.stages.base import Context, SeriesInput, Stage
from crboost.stages.cpu import CpuAlign, CpuFrames, CpuReconstruct
from crboost.stages.cryocare import CryoCarePredict, CryoCareTrain
from crboost.stages.import_movies import ImportMovies
from crboost.stages.membrain import MembrainSegment
from crboost.stages.pytom import PytomExtract, PytomMatch
from crboost.stages.stack_align import AreTomoAlign, ImodAlign
from crboost.stages.tilt_filter import CpuTiltFilter
from crboost.stages.warp import WarpAlign, WarpCtf, WarpFrames, WarpImport, WarpReconstruct
from crboost.stages.warp_particles import WarpExtract

__all__ = ["STAGES", "Context", "SeriesInput", "Stage", "stage_for"]

#: (job type, tool) -> how it is done.
STAGES: dict[tuple[str, str], Stage] = {
    ("importmovies", "cpu"): ImportMovies(),
    ("fsMotionAndCtf", "cpu"): CpuFrames(),
    ("tiltFilter", "cpu"): CpuTiltFilter(),
    ("tsAlignment", "cpu"): CpuAlign(),
    ("tsReconstruct", "cpu"): CpuReconstruct(),
    ("fsMotionAndCtf", "warp"): WarpFrames(),
    ("tsImport", "warp"): WarpImport(),
    ("tsAlignment", "warp"): WarpAlign(),
    ("tsAlignment", "aretomo2"): AreTomoAlign(2),
    ("tsAlignment", "aretomo3"): AreTomoAlign(3),
    ("tsAlignment", "imod"): ImodAlign(),
    ("tsCtf", "warp"): WarpCtf(),
    ("tsReconstruct", "warp"): WarpReconstruct(),
    ("denoiseTrain", "cryocare"): CryoCareTrain(),
    ("denoisePredict", "cryocare"): CryoCarePredict(),
    ("membraneSegmentation", "membrain"): MembrainSegment(),
    ("templateMatching", "pytom"): PytomMatch(),
    ("extractCandidates", "pytom"): PytomExtract(),
    ("subtomoExtraction", "warp"): WarpExtract(),
}


def stage_for(job_type: str, tool: str) -> Stage:
    """The stage that does `job_type` with `tool`.

    Raises:
        ProjectError: there is none.
    """
    if (job_type, tool) not in STAGES:
        tools = ", ".join(name for kind, name in STAGES if kind == job_type) or "no tool"
        raise ProjectError(f"{job_type} cannot be done with {tool}; it can with {tools}")
    return STAGES[job_type, tool]
