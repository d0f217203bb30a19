"""The parameters of a project: microscope, acquisition, computing and every job type.

`read_parameters` and `write_parameters` are the file; `ProjectParameters.with_values` changes
values and keeps where they came from; `ProjectParameters.effective(node)` is what a job sees.
"""

from crboost.parameters.acquisition import DEFAULT_EER_FRAMES_PER_FRACTION, Acquisition
from crboost.parameters.base import FieldFacts, ParameterModel, field_facts
from crboost.parameters.computing import Computing
from crboost.parameters.data import DataSources
from crboost.parameters.denoise_jobs import DenoisePredict, DenoiseTrain
from crboost.parameters.effective import EffectiveParameters
from crboost.parameters.errors import ParameterProblemsError, Problem
from crboost.parameters.job_base import JobParameters
from crboost.parameters.jobs import (
    DEFAULT_JOBS,
    JOB_MODELS,
    FsMotionAndCtf,
    ImportMovies,
    TsAlignment,
    TsReconstruct,
    job_type_of,
    unused_by_tool,
)
from crboost.parameters.membrain_jobs import MembraneSegmentation
from crboost.parameters.microscope import Microscope
from crboost.parameters.origin import Origin
from crboost.parameters.project import (
    ProjectParameters,
    read_parameters,
    write_parameters,
)
from crboost.parameters.relion_jobs import (
    Class3d,
    CtfFind,
    MotionCorr,
    ReconstructParticle,
    ReconstructTomograms,
    Refine3d,
    RelionJobParameters,
    SubtomoExtraction,
)
from crboost.parameters.schema import ParameterRow, describe, json_schema
from crboost.parameters.template_matching_jobs import ExtractCandidates, TemplateMatching
from crboost.parameters.tilt_filter_jobs import TiltFilter
from crboost.parameters.warp_jobs import TsCtf, TsImport

__all__ = [
    "DEFAULT_EER_FRAMES_PER_FRACTION",
    "DEFAULT_JOBS",
    "JOB_MODELS",
    "Acquisition",
    "Class3d",
    "Computing",
    "CtfFind",
    "DataSources",
    "DenoisePredict",
    "DenoiseTrain",
    "EffectiveParameters",
    "ExtractCandidates",
    "FieldFacts",
    "FsMotionAndCtf",
    "ImportMovies",
    "JobParameters",
    "MembraneSegmentation",
    "Microscope",
    "MotionCorr",
    "Origin",
    "ParameterModel",
    "ParameterProblemsError",
    "ParameterRow",
    "Problem",
    "ProjectParameters",
    "ReconstructParticle",
    "ReconstructTomograms",
    "Refine3d",
    "RelionJobParameters",
    "SubtomoExtraction",
    "TemplateMatching",
    "TiltFilter",
    "TsAlignment",
    "TsCtf",
    "TsImport",
    "TsReconstruct",
    "describe",
    "field_facts",
    "job_type_of",
    "json_schema",
    "read_parameters",
    "unused_by_tool",
    "write_parameters",
]
