"""cryoCARE 0.3: job parameters and tomograms -> steps. Pure.

Its programs read one JSON file each (`--conf`); the keys are those that
`cryocare/scripts/cryoCARE_*.py` read, see `cryocare_config.json`. Paths are project-relative: the
programs run in the project directory.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from crboost.builders.step import Step
from crboost.errors import ParameterError
from crboost.parameters import DenoisePredict, DenoiseTrain

EXTRACT = "cryoCARE_extract_train_data.py"
TRAIN = "cryoCARE_train.py"
PREDICT = "cryoCARE_predict.py"

MODEL_NAME = "denoising_model"
#: Tensorflow otherwise takes the whole GPU, and breaks its memory into pieces.
ENVIRONMENT = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "TF_GPU_ALLOCATOR": "cuda_malloc_async"}

#: cryoCARE never takes more samples for its normalization than this, or than it has.
MOST_NORMALIZATION_SAMPLES = 2000

#: Along edges longer than this a tomogram is cut into twice as many tiles, but not into more.
LONG_EDGE_PX = 1000
MOST_DOUBLED_TILES = 8


@functools.cache
def contract() -> dict[str, Any]:
    """`source`: where it was read from; `programs`: program -> key -> type."""
    text = (files("crboost.builders") / "cryocare_config.json").read_text(encoding="utf-8")
    known: dict[str, Any] = json.loads(text)
    return known


def check(program: str, config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a configuration, one sentence each; empty if nothing is."""
    keys = contract()["programs"].get(program)
    if keys is None:
        return [f"cryoCARE has no program {program!r}"]
    problems = [f"{program} knows no {key!r}" for key in config if key not in keys]
    problems += [
        f"{program} needs {key!r}"
        for key, known in keys.items()
        if known["required"] and key not in config
    ]
    problems += [
        f"{key} = {config[key]!r} is no {known['type']}"
        for key, known in keys.items()
        if key in config and not _is(config[key], known["type"])
    ]
    return problems


def check_command(argv: Sequence[str], texts: Mapping[str, str]) -> list[str]:
    """What is wrong with a command of cryoCARE and its configuration; empty if nothing is.

    Args:
        argv: program and all; its path does not matter.
        texts: the files that there will be, path to content, the configuration among them.
    """
    program = argv[0].rpartition("/")[2] if argv else ""
    if program not in contract()["programs"]:
        return [f"cryoCARE has no program {program!r}"]
    if len(argv) != 3 or argv[1] != "--conf":
        return [f"{program} takes --conf and the name of a file, not {' '.join(argv[1:])!r}"]
    if argv[2] not in texts:
        return [f"{program}: there will be no file {argv[2]}"]
    try:
        config = json.loads(texts[argv[2]])
    except ValueError as error:
        return [f"{argv[2]} is no JSON: {error}"]
    return check(program, config)


def smallest_tomogram_px(job: DenoiseTrain) -> int:
    """Every edge of a tomogram must be longer than this (asserted by cryoCARE)."""
    return 2 * job.subvolume_dimensions


def train(
    halves: Sequence[tuple[str, str]], job: DenoiseTrain, directory: str, gpus: int
) -> list[Step]:
    """One model from the halves of all tomograms.

    Args:
        halves: (even, odd) of each tomogram, project-relative.
        directory: project-relative; gets `denoising_model.tar.gz`.
        gpus: how many it is shown.

    Raises:
        ParameterError: the network cannot halve the subvolumes as often as it must.
    """
    size = job.subvolume_dimensions
    if size % 2**job.unet_n_depth:
        raise ParameterError(
            f"subvolume_dimensions = {size} px is no multiple of {2**job.unet_n_depth}, which a "
            f"network with unet_n_depth = {job.unet_n_depth} needs"
        )
    each = int(job.number_training_subvolumes * job.training_split) - 1
    data = f"{directory}/train_data"
    extraction = {
        "even": [even for even, _ in halves],
        "odd": [odd for _, odd in halves],
        "patch_shape": [size] * 3,
        "num_slices": job.number_training_subvolumes,
        "split": job.training_split,
        "tilt_axis": "Y",
        "n_normalization_samples": min(MOST_NORMALIZATION_SAMPLES, max(1, len(halves)) * each),
        "path": data,
        "overwrite": True,
    }
    training = {
        "train_data": data,
        "epochs": job.epochs,
        "steps_per_epoch": job.steps_per_epoch,
        "batch_size": job.batch_size,
        "unet_kern_size": job.unet_kern_size,
        "unet_n_depth": job.unet_n_depth,
        "unet_n_first": job.unet_n_first,
        "learning_rate": job.learning_rate,
        "model_name": MODEL_NAME,
        "path": directory,
        "gpu_id": _gpu_ids(gpus),
    }
    return [
        _step(
            EXTRACT,
            extraction,
            f"{directory}/train_data_config.json",
            (f"{data}/train_data.npz", f"{data}/val_data.npz"),
        ),
        _step(
            TRAIN,
            training,
            f"{directory}/train_config.json",
            (f"{directory}/{MODEL_NAME}.tar.gz",),
        ),
    ]


def tiles_for(count: int, edge_px: int) -> int:
    """The tiles along an edge: twice those asked for, up to 8, where it is long.

    A tile of a large tomogram would not fit the GPU; the result is the same, but at tiles' seams.
    """
    return max(count, min(2 * count, MOST_DOUBLED_TILES)) if edge_px > LONG_EDGE_PX else count


def predict(
    even: str,
    odd: str,
    model: str,
    job: DenoisePredict,
    directory: str,
    gpus: int,
    size_px: tuple[int, int, int] | None = None,
) -> Step:
    """One tomogram, denoised; it is written to `directory` under the name of its even half.

    Args:
        size_px: (x, y, z) of the tomogram; None where a plan only wants an example.
    """
    tiles = [job.ntiles_x, job.ntiles_y, job.ntiles_z]
    if size_px is not None:
        tiles = [tiles_for(count, edge) for count, edge in zip(tiles, size_px, strict=True)]
    config = {
        "path": model,
        "even": even,
        "odd": odd,
        "n_tiles": tiles[::-1],
        "output": directory,
        "overwrite": True,
        "gpu_id": _gpu_ids(gpus),
    }
    return _step(PREDICT, config, f"{directory}/predict_config.json", (predicted(even, directory),))


def predicted(even: str, directory: str) -> str:
    """Where cryoCARE writes the denoised tomogram."""
    return f"{directory}/{even.rpartition('/')[2]}"


def _step(program: str, config: Mapping[str, Any], path: str, creates: tuple[str, ...]) -> Step:
    return Step(
        name=program.removesuffix(".py"),
        argv=(program, "--conf", path),
        files={path: json.dumps(config, indent=1, ensure_ascii=False) + "\n"},
        creates=creates,
        environment=ENVIRONMENT,
    )


def _gpu_ids(gpus: int) -> list[int] | int:
    """cryoCARE wants a number or a list; a GPU that is not there only makes it warn."""
    return list(range(gpus)) if gpus > 1 else 0


def _is(value: Any, kind: str) -> bool:
    if "|" in kind:
        return any(_is(value, one) for one in kind.split("|"))
    if kind.endswith("[]"):
        return isinstance(value, list) and all(_is(one, kind[:-2]) for one in value)
    types: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
    }
    return isinstance(value, types[kind]) and (kind == "bool" or not isinstance(value, bool))
