"""The job types: what each takes, makes and needs. Data, not code paths.

A job type is described once, here; planner, scheme generator, driver and documentation read it.
Node labels are RELION 5's own (`pipeliner.cpp`, the `LABEL_TOMO_*` family), so that a job which
somebody ran from RELION's GUI counts as a producer, and RELION's jobs can consume ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

TOMO_IMPORT = "TomogramGroupMetadata.star.relion.tomo.import"
TOMO_MOTIONCORR = "TomogramGroupMetadata.star.relion.tomo.motioncorr"
TOMO_CTFFIND = "TomogramGroupMetadata.star.relion.tomo.ctffind"
TOMO_ALIGN = "TomogramGroupMetadata.star.relion.tomo.aligntiltseries"
TOMO_ALIGN_CTF = f"{TOMO_ALIGN}.ctf"
TOMO_RECONSTRUCT = "TomogramGroupMetadata.star.relion.tomo.reconstruct"
TOMO_EXCLUDE = "TomogramGroupMetadata.star.relion.tomo.excludeimages"
TOMO_DENOISE = "TomogramGroupMetadata.star.relion.tomo.denoise"
# RELION has no such jobs; its GUI takes these for what they are, tables of tilt series.
TOMO_DENOISE_TRAIN = "TomogramGroupMetadata.star.relion.tomo.denoisetrain"
TOMO_TEMPLATE_MATCHING = "TomogramGroupMetadata.star.relion.tomo.templatematching"
TOMO_MEMBRANES = "TomogramGroupMetadata.star.relion.tomo.membranesegmentation"
TOMO_CANDIDATES = "TomogramGroupMetadata.star.relion.tomo.candidates"
TOMO_PARTICLES = "TomogramGroupMetadata.star.relion.tomo.particles"
TOMO_WARP_IMPORT = "TomogramGroupMetadata.star.relion.tomo.warpimport"
DENOISING_MODEL = "ParamsData.targz.cryocare.model"
OPTIMISATION_SET = "TomoOptimisationSet.star.relion"
MAP = "DensityMap.mrc"
MASK = "Mask3D.mrc"

EXTERNAL = "relion.external"

#: How many of a job's GPUs the work on one tilt series takes: one; all of them, which its program
#: shares out by itself; or none of them, because the program only wants their driver.
GpusPerSeries = Literal["one", "all", "none"]


@dataclass(frozen=True)
class InputSlot:
    """What one input of a job accepts.

    Attributes:
        name: the slot's name in plans and messages.
        accepts: node labels, the preferred one first; a label stands for its refinements too.
        relion_field: the option of the RELION job that carries the path.
        optional: whether the job also runs without.
        from_all_series: one thing that all tilt series went into: when it is made anew, every tilt
            series is done again. The stage puts `crboost.results.whole_fingerprint` of the
            producer into its series' fingerprints.
        of_same_instance: what was made earlier by `<producer>__2` comes first for `<job>__2`.
    """

    name: str
    accepts: tuple[str, ...]
    relion_field: str = "in_mic"
    optional: bool = False
    of_same_instance: bool = False
    from_all_series: bool = False


@dataclass(frozen=True)
class OutputNode:
    """A file that a successful job leaves in its directory, and its node label."""

    file: str
    label: str


@dataclass(frozen=True)
class Needs:
    """What a job asks a scheduler for, where neither the site nor the user says otherwise.

    Attributes:
        cpus: of each task.
        memory_gb: of each node, GB.
        minutes: time limit; None: the partition's own.
        per_series: the limit is that of one tilt series: only tasks of an array have it.
    """

    cpus: int = 8
    memory_gb: int = 32
    minutes: int | None = None
    per_series: bool = False

    def time_limit_minutes(self, *, one_series: bool) -> int | None:
        """The time limit of a job, or of a task that does one tilt series."""
        return self.minutes if one_series or not self.per_series else None


@dataclass(frozen=True)
class JobType:
    """One kind of job.

    Attributes:
        name: the key in the parameters and the default node name in schemes.
        title: for people.
        summary: one sentence on what it does.
        inputs, outputs: see there.
        relion_type: RELION's label of the job. `relion.external` jobs run our driver; RELION
            turns the `job.star` of any other into commands itself.
        parallel_over: whether the driver gives its workers to one tilt series after another
            ("tilts": the tool itself uses them) or runs several tilt series at once ("series").
            Where a tool uses GPUs these say how many run at once (`crboost.gpus.share`).
        gpus_per_series: see there.
        retries: how often a run tries the job again after a failure that a retry can mend.
        has_threads: whether RELION's job knows `nr_threads`.
        mpi: MPI processes that it needs at least.
        inputs_with: what it takes instead when a certain tool does it.
        needs: what it asks a scheduler for.
        needs_with_gpu: what it asks for besides one GPU where its tool uses one; None: the same.
        outputs_with: what it makes instead; the driver's jobs make a tilt-series STAR first.
        external_with: tools of a job of RELION's own with which our driver does it.
        is_prerequisite: it prepares other jobs' input and nothing else: the planner adds it where
            one of them needs it.
        can_continue: whether starting it again in its directory goes on with what is there.
            RELION's refinements want a file to go on from instead; its tomogram reconstruction
            takes every tomogram for finished then, if halves are asked for (5.1).
        declared_only: files that RELION enters into its ledger as outputs, and never writes (5.1).
    """

    name: str
    title: str
    summary: str
    inputs: tuple[InputSlot, ...]
    outputs: tuple[OutputNode, ...]
    relion_type: str = EXTERNAL
    parallel_over: Literal["tilts", "series"] = "series"
    gpus_per_series: GpusPerSeries = "one"
    retries: int = 1
    has_threads: bool = True
    mpi: int = 1
    inputs_with: Mapping[str, tuple[InputSlot, ...]] = field(default_factory=dict, hash=False)
    needs: Needs = Needs()
    needs_with_gpu: Needs | None = None
    outputs_with: Mapping[str, tuple[OutputNode, ...]] = field(default_factory=dict, hash=False)
    external_with: frozenset[str] = frozenset()
    is_prerequisite: bool = False
    can_continue: bool = True
    declared_only: tuple[str, ...] = ()

    def for_tool(self, tool: str) -> JobType:
        """The job type as it is when `tool` does it."""
        return replace(
            self,
            inputs=self.inputs_with.get(tool, self.inputs),
            outputs=self.outputs_with.get(tool, self.outputs),
            relion_type=EXTERNAL if tool in self.external_with else self.relion_type,
        )

    def needs_of(self, *, uses_gpu: bool) -> Needs:
        """What a job asks a scheduler for."""
        return self.needs_with_gpu if uses_gpu and self.needs_with_gpu else self.needs

    @property
    def is_native(self) -> bool:
        """Whether RELION itself does the work."""
        return self.relion_type != EXTERNAL

    @property
    def main_output(self) -> OutputNode:
        """The tilt-series STAR that later jobs read."""
        return self.outputs[0]


IMPORT_MOVIES = JobType(
    name="importmovies",
    title="Import movies",
    summary="Reads the mdocs and matches them with the movies.",
    inputs=(),
    outputs=(OutputNode("tilt_series.star", TOMO_IMPORT),),
    needs=Needs(4, 8),
)
FS_MOTION_AND_CTF = JobType(
    name="fsMotionAndCtf",
    title="Frame motion and CTF",
    summary="Corrects beam-induced motion, sums the frames, fits the CTF of every tilt image.",
    inputs=(InputSlot("tilt_series", (TOMO_IMPORT,)),),
    outputs=(OutputNode("tilt_series_ctf.star", TOMO_CTFFIND),),
    parallel_over="tilts",
    needs_with_gpu=Needs(2, 24, 30, per_series=True),
    gpus_per_series="all",
)
TILT_FILTER = JobType(
    name="tiltFilter",
    title="Tilt filter",
    summary="Leaves out tilt images by rules, by a classifier's word, or by a person's.",
    inputs=(InputSlot("tilt_series", (TOMO_CTFFIND, TOMO_ALIGN_CTF)),),
    outputs=(OutputNode("selected_tilt_series.star", TOMO_EXCLUDE),),
    needs=Needs(4, 16),
)
TS_IMPORT = JobType(
    name="tsImport",
    title="Tilt series for Warp",
    summary="Tells Warp which images make a tilt series.",
    inputs=(InputSlot("tilt_series", (TOMO_CTFFIND, TOMO_EXCLUDE)),),
    outputs=(OutputNode("warp_tilt_series.star", TOMO_WARP_IMPORT),),
    is_prerequisite=True,
    needs=Needs(1, 4, 30, per_series=True),
)
TS_ALIGNMENT = JobType(
    name="tsAlignment",
    title="Tilt-series alignment",
    summary="Finds the shift of every tilt image and the tilt axis.",
    inputs=(InputSlot("tilt_series", (TOMO_CTFFIND, TOMO_EXCLUDE)),),
    outputs=(OutputNode("aligned_tilt_series.star", TOMO_ALIGN),),
    inputs_with={"warp": (InputSlot("tilt_series", (TOMO_WARP_IMPORT,)),)},
    needs_with_gpu=Needs(2, 16, 15, per_series=True),
)
#: What Warp needs besides an aligned tilt series: its own view of the images. RELION's field for
#: coordinates carries it; an External job has no better one.
ALIGNED_FOR_WARP = (
    InputSlot("tilt_series", (TOMO_ALIGN,)),
    InputSlot("warp_import", (TOMO_WARP_IMPORT,), "in_coords"),
)
TS_CTF = JobType(
    name="tsCtf",
    title="CTF of tilt series",
    summary="Fits the CTF of a tilt series as a whole, and settles the defocus hand.",
    inputs=ALIGNED_FOR_WARP,
    outputs=(OutputNode("ts_ctf_tilt_series.star", TOMO_ALIGN_CTF),),
    needs_with_gpu=Needs(2, 8, 10, per_series=True),
)
TS_RECONSTRUCT = JobType(
    name="tsReconstruct",
    title="Tomogram reconstruction",
    summary="Reconstructs a tomogram, and its two halves, from every aligned tilt series.",
    inputs=(InputSlot("tilt_series", (TOMO_ALIGN,)),),
    outputs=(OutputNode("tomograms.star", TOMO_RECONSTRUCT),),
    inputs_with={"warp": ALIGNED_FOR_WARP},
    needs_with_gpu=Needs(4, 64, 60, per_series=True),
)

MOTION_CORR = JobType(
    name="motionCorr",
    title="Motion correction (RELION)",
    summary="Corrects beam-induced motion with RELION's own implementation.",
    inputs=(InputSlot("tilt_series", (TOMO_IMPORT,), "input_star_mics"),),
    outputs=(OutputNode("corrected_tilt_series.star", TOMO_MOTIONCORR),),
    relion_type="relion.motioncorr.own",
)
CTF_FIND = JobType(
    name="ctfFind",
    title="CTF estimation (ctffind)",
    summary="Fits the CTF of every tilt image with ctffind, through RELION.",
    inputs=(InputSlot("tilt_series", (TOMO_MOTIONCORR,), "input_star_mics"),),
    outputs=(OutputNode("tilt_series_ctf.star", TOMO_CTFFIND),),
    relion_type="relion.ctffind.ctffind4",
    has_threads=False,
)
RECONSTRUCT_TOMOGRAMS = JobType(
    name="reconstructTomograms",
    title="Tomogram reconstruction (RELION)",
    summary="Reconstructs tomograms with RELION.",
    inputs=(InputSlot("tilt_series", (TOMO_ALIGN,), "in_tiltseries"),),
    outputs=(OutputNode("tomograms.star", TOMO_RECONSTRUCT),),
    relion_type="relion.reconstructtomograms",
    can_continue=False,
)
DENOISE_TRAIN = JobType(
    name="denoiseTrain",
    title="Denoising: training",
    summary="Trains one cryoCARE model on the halves of some tomograms.",
    inputs=(InputSlot("tomograms", (TOMO_RECONSTRUCT,)),),
    outputs=(
        OutputNode("training_tomograms.star", TOMO_DENOISE_TRAIN),
        OutputNode("denoising_model.tar.gz", DENOISING_MODEL),
    ),
    needs_with_gpu=Needs(4, 32, 120),
)
DENOISE_PREDICT = JobType(
    name="denoisePredict",
    title="Denoising",
    summary="Denoises tomograms with a trained cryoCARE model.",
    inputs=(
        InputSlot("tomograms", (TOMO_RECONSTRUCT,)),
        InputSlot("model", (DENOISING_MODEL,), "in_3dref", from_all_series=True),
    ),
    outputs=(OutputNode("tomograms.star", TOMO_DENOISE),),
    parallel_over="tilts",
    needs_with_gpu=Needs(4, 64, 240),
)
MEMBRANE_SEGMENTATION = JobType(
    name="membraneSegmentation",
    title="Membrane segmentation",
    summary="Finds the membranes of every tomogram with a trained network.",
    inputs=(InputSlot("tomograms", (TOMO_DENOISE, TOMO_RECONSTRUCT)),),
    outputs=(OutputNode("tomograms.star", TOMO_MEMBRANES),),
    parallel_over="tilts",
    needs_with_gpu=Needs(4, 32),
)
TEMPLATE_MATCHING = JobType(
    name="templateMatching",
    title="Template matching",
    summary="Looks for a template, in all orientations, everywhere in every tomogram.",
    inputs=(InputSlot("tomograms", (TOMO_DENOISE, TOMO_RECONSTRUCT)),),
    outputs=(OutputNode("tomograms.star", TOMO_TEMPLATE_MATCHING),),
    parallel_over="tilts",
    needs_with_gpu=Needs(4, 32, 90, per_series=True),
    gpus_per_series="all",
)
EXTRACT_CANDIDATES = JobType(
    name="extractCandidates",
    title="Candidate extraction",
    summary="Takes the best places of the score maps for particles.",
    inputs=(InputSlot("scores", (TOMO_TEMPLATE_MATCHING,), of_same_instance=True),),
    outputs=(
        OutputNode("tomograms.star", TOMO_CANDIDATES),
        OutputNode("optimisation_set.star", f"{OPTIMISATION_SET}.tomo.candidates"),
        OutputNode("candidates.star", "ParticleGroupMetadata.star.relion.tomo.candidates"),
    ),
    needs=Needs(2, 8, 15, per_series=True),
    gpus_per_series="none",
)
_EXTRACTED = (
    OutputNode("optimisation_set.star", f"{OPTIMISATION_SET}.tomo.extract"),
    OutputNode("particles.star", "ParticleGroupMetadata.star.relion.tomo.extract"),
)
SUBTOMO_EXTRACTION = JobType(
    name="subtomoExtraction",
    title="Pseudo-subtomograms",
    summary="Cuts particles out of the tilt series.",
    inputs=(
        InputSlot(
            "optimisation_set", (OPTIMISATION_SET,), "in_optimisation", of_same_instance=True
        ),
    ),
    outputs=_EXTRACTED,
    relion_type="relion.pseudosubtomo",
    needs=Needs(4, 16),
    needs_with_gpu=Needs(4, 16, 30, per_series=True),
    inputs_with={
        "warp": (
            InputSlot("optimisation_set", (OPTIMISATION_SET,), of_same_instance=True),
            # Warp exports nothing of a tilt series that has no CTF of its own.
            InputSlot("tilt_series", (TOMO_ALIGN_CTF,), "in_3dref"),
            InputSlot("warp_import", (TOMO_WARP_IMPORT,), "in_coords"),
        )
    },
    outputs_with={"warp": (OutputNode("tomograms.star", TOMO_PARTICLES), *_EXTRACTED)},
    external_with=frozenset({"warp"}),
)
RECONSTRUCT_PARTICLE = JobType(
    name="reconstructParticle",
    title="Particle reconstruction",
    summary="Averages particles straight from the tilt series.",
    inputs=(
        InputSlot("optimisation_set", (f"{OPTIMISATION_SET}.tomo.extract",), "in_optimisation"),
    ),
    outputs=(OutputNode("merged.mrc", f"{MAP}.relion.tomo.map.reconstruct"),),
    relion_type="relion.reconstructparticletomo",
    needs=Needs(4, 32, 120),
    declared_only=("optimisation_set.star",),
)
CLASS3D = JobType(
    name="class3d",
    title="3D classification",
    summary="Sorts particles into classes.",
    inputs=(
        InputSlot("optimisation_set", (f"{OPTIMISATION_SET}.tomo.extract",), "in_optimisation"),
        InputSlot("reference", (MAP,), "fn_ref"),
        InputSlot("mask", (MASK,), "fn_mask", optional=True),
    ),
    # NNN is the last iteration; the ledger tells. No job of the same run takes it.
    outputs=(OutputNode("run_itNNN_optimisation_set.star", f"{OPTIMISATION_SET}.class3d"),),
    relion_type="relion.class3d",
    can_continue=False,
    needs=Needs(8, 64, 480),
    declared_only=("run_optimisation_set.star",),
)
REFINE3D = JobType(
    name="refine3d",
    title="3D auto-refine",
    summary="Refines particles against one reference, in two halves.",
    inputs=(
        InputSlot("optimisation_set", (f"{OPTIMISATION_SET}.tomo.extract",), "in_optimisation"),
        InputSlot("reference", (MAP,), "fn_ref"),
        InputSlot("mask", (MASK,), "fn_mask", optional=True),
    ),
    outputs=(OutputNode("run_optimisation_set.star", f"{OPTIMISATION_SET}.refine3d"),),
    relion_type="relion.refine3d.tomo",
    mpi=3,
    can_continue=False,
    needs=Needs(8, 64),
)

#: Every job type by name, in the order in which they follow each other.
CATALOGUE: dict[str, JobType] = {
    job_type.name: job_type
    for job_type in (
        IMPORT_MOVIES,
        MOTION_CORR,
        CTF_FIND,
        FS_MOTION_AND_CTF,
        TILT_FILTER,
        TS_IMPORT,
        TS_ALIGNMENT,
        TS_CTF,
        RECONSTRUCT_TOMOGRAMS,
        TS_RECONSTRUCT,
        DENOISE_TRAIN,
        DENOISE_PREDICT,
        MEMBRANE_SEGMENTATION,
        TEMPLATE_MATCHING,
        EXTRACT_CANDIDATES,
        SUBTOMO_EXTRACTION,
        RECONSTRUCT_PARTICLE,
        CLASS3D,
        REFINE3D,
    )
}

#: RELION's label of a native job -> our name.
NATIVE_TYPES: dict[str, str] = {
    job_type.relion_type: name for name, job_type in CATALOGUE.items() if job_type.is_native
}


def label_matches(label: str, wanted: str) -> bool:
    """Whether a node's label is `wanted` or a refinement of it."""
    return label == wanted or label.startswith(f"{wanted}.")


def producers_of(label: str) -> list[str]:
    """Names of the job types that make a node with this label."""
    return [
        name
        for name, job_type in CATALOGUE.items()
        if any(label_matches(output.label, label) for output in job_type.outputs)
    ]
