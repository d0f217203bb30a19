"""The GPUs of a job: which it has, how many tilt series share them, which of them each is shown.

Pure. A job's GPUs are those that the scheduler granted, by the names that CUDA_VISIBLE_DEVICES has
for them; a program sees the ones that it is shown, and numbers them from 0 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crboost.catalogue import GpusPerSeries

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Share:
    """What tilt series that are worked on side by side get.

    Attributes:
        workers: processes of each.
        devices: GPUs of each, by their names for CUDA_VISIBLE_DEVICES; as many entries as there
            are tilt series side by side.
    """

    workers: int
    devices: tuple[tuple[str, ...], ...]

    @property
    def at_once(self) -> int:
        """Tilt series side by side."""
        return len(self.devices)


def granted(gpus: int, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that a job may use.

    Args:
        gpus: how many it asked for.
        environment: of the job. A scheduler that gives out single GPUs names them in
            CUDA_VISIBLE_DEVICES; where it is not set, those that can be seen count from 0 on.
    """
    if VISIBLE not in environment:
        return tuple(str(number) for number in range(gpus))
    names = [name.strip() for name in environment[VISIBLE].split(",")]
    # CUDA itself ignores all from the first invalid one on; -1 and Slurm's NoDevFiles are such.
    seen: list[str] = []
    for name in names:
        if not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            break
        seen.append(name)
    return tuple(seen[:gpus])


def share(
    workers: int,
    devices: Sequence[str],
    *,
    one_by_one: bool,
    uses_gpu: bool,
    gpus_per_series: GpusPerSeries = "one",
    per_gpu: int = 1,
    side_by_side: int | None = None,
) -> Share:
    """How many tilt series are worked on at once, and with what.

    Where a tool computes on GPUs these alone limit how many: no GPU ever has more than `per_gpu`.

    Args:
        workers: processes of the job.
        devices: its GPUs.
        one_by_one: without a GPU, the tool itself uses the workers, on one tilt series.
        uses_gpu: whether the tool can use a GPU.
        per_gpu: tilt series that a GPU may have at once.
        side_by_side: so many at once, whatever else is said: the tilt series of an array's task.
    """
    workers = max(1, workers)
    mine = tuple(devices) if uses_gpu else ()
    on_gpu = uses_gpu and gpus_per_series != "none"
    if not on_gpu:
        at_once = 1 if one_by_one else workers
    elif gpus_per_series == "all":
        at_once = per_gpu
    else:  # without a GPU that is known, there may be one all the same
        at_once = per_gpu * max(1, len(mine))
    at_once = at_once if side_by_side is None else max(1, side_by_side)
    each = [mine] * at_once
    if gpus_per_series == "one" and mine:
        each = [(mine[number % len(mine)],) for number in range(at_once)]
    return Share(max(1, workers // at_once), tuple(each))


def shown(devices: Sequence[str]) -> dict[str, str]:
    """The variable by which a program is shown these GPUs; none where there are none to show."""
    return {VISIBLE: ",".join(devices)} if devices else {}
