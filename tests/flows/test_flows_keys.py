from __future__ import annotations

import re
from pathlib import Path

from flows.tasks.keys import artifact_key


def test_keys_are_what_prefect_accepts() -> None:
    key = artifact_key(Path("/data/2026 May/Lamella_Grid-3.b"), "tsAlignment__2", "Å plan")
    assert re.fullmatch(r"lamella-grid-3-b-[0-9a-f]{6}-tsalignment-2-plan", key)


def test_projects_of_one_name_in_two_places_stay_apart() -> None:
    assert artifact_key(Path("/a/demo"), "plan") != artifact_key(Path("/b/demo"), "plan")
    assert artifact_key(Path("/a/demo"), "plan") == artifact_key(Path("/a/x/../demo"), "plan")


def test_a_project_whose_name_has_no_letter_still_has_a_key() -> None:
    assert re.fullmatch(r"[0-9a-f]{6}-plan", artifact_key(Path("/data/___"), "plan"))
