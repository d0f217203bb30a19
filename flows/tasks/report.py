"""What came out: a table of all tilt series and a picture of each, as Prefect artifacts."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE

from crboost.overview import cells
from flows.tasks.keys import artifact_key

if TYPE_CHECKING:
    from crboost.overview import Overview
    from crboost.project import Project

# The pictures become part of a row in Prefect's database: small ones, and not a whole session.
PICTURE_WIDTH_PX = 1000
PICTURE_QUALITY = 80
SHOWN = 12


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report(project: Project) -> list[Path]:
    """Write the pictures, show table and pictures in Prefect; returns the pictures' paths."""
    from crboost import quality
    from crboost.overview import read_overview

    log = get_run_logger()
    progress = progress_rows(read_overview(project))
    if progress:
        create_table_artifact(
            progress,
            key=artifact_key(project.directory, "tilt-series"),
            description=f"Tilt series of {project.name}: how far each is",
        )
    rows = table_rows(quality.series_table(project))
    if rows:
        create_table_artifact(
            rows,
            key=artifact_key(project.directory, "results"),
            description=f"Tilt series of {project.name}",
        )
    pictures = quality.write_reports(project)
    if pictures:
        create_markdown_artifact(
            pictures_markdown([(picture, data_uri(picture)) for picture in pictures[:SHOWN]])
            + rest_markdown(pictures[SHOWN:]),
            key=artifact_key(project.directory, "pictures"),
            description=f"Tilt series of {project.name}: tomogram, CTF, motion, tilt scheme",
        )
        log.info("%d pictures in %s", len(pictures), pictures[0].parent)
    return pictures


def progress_rows(overview: Overview) -> list[dict[str, str]]:
    """Tilt series by stage, as `crboost status` shows them."""
    headings, rows = cells(overview.stages, overview.rows)
    return [dict(zip(headings, row, strict=True)) for row in rows]


def pictures_markdown(pictures: Sequence[tuple[Path, str]]) -> str:
    """A heading and the picture itself for each; a picture is a path and its data URI."""
    return "".join(
        f"### {path.stem}\n\n![{path.stem}]({uri})\n\n`{path}`\n\n" for path, uri in pictures
    )


def rest_markdown(pictures: Sequence[Path]) -> str:
    """Where the pictures are that are not shown."""
    if not pictures:
        return ""
    return f"### {len(pictures)} more\n\n" + "".join(f"- `{path}`\n" for path in pictures)


def table_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str | int | float]]:
    """The table as Prefect shows it: plain values, rounded, nothing where nothing is known."""
    return [{name: _cell(value) for name, value in row.items()} for row in rows]


def _cell(value: Any) -> str | int | float:
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real) and math.isfinite(value):
        return float(f"{float(value):.4g}")
    return str(value)


def data_uri(picture: Path) -> str:
    """The picture as a small JPEG inside a data URI: a browser elsewhere has no other way to it."""
    from PIL import Image

    with Image.open(picture) as image:
        small = image.convert("RGB")
        small.thumbnail((PICTURE_WIDTH_PX, PICTURE_WIDTH_PX))
        stream = io.BytesIO()
        small.save(stream, format="JPEG", quality=PICTURE_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
