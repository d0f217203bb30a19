"""The form of a deployment, as a scientist meets it in Prefect's page."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser.chromium import Browser
from browser.service import Service

from crboost.project import Project
from flows.parameters import ALL_JOBS

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

#: What closes a message of Prefect's page.
CLOSE = ".p-toast__close-btn"


def submit(browser: Browser, seen: Callable[[], Any], seconds: float = 120) -> Any:
    """Send the form, and wait until something is seen of it.

    As a person does: where the form stays and says nothing more (a busy server refused the
    request, a click met a moving page), its messages are closed and it is sent again. While a
    request is under way, the page takes no second one.
    """
    form = browser.url
    deadline = time.monotonic() + seconds
    again = 0.0
    while not (found := seen()):
        assert time.monotonic() < deadline, f"nothing came of it: {browser.text()[-500:]}"
        if browser.url == form and time.monotonic() > again:
            # Several lie over each other and over the button: all at once, not by the mouse.
            browser.evaluate(f"document.querySelectorAll({CLOSE!r}).forEach(e => e.click())")
            browser.wait_for(f"!document.querySelector({CLOSE!r})")
            browser.click("Submit")
            again = time.monotonic() + 10
        time.sleep(0.2)
    return found


def open_form(browser: Browser, service: Service, flow: str) -> None:
    """Open the form that starts a run."""
    deployment = service.deployments()[f"{flow}/headnode"]["id"]
    browser.open(f"{service.url}/deployments/deployment/{deployment}/run", login=service.login)
    browser.wait_text("Project directory", "Validate parameters")


def test_the_form_says_what_a_value_is(browser: Browser, deployed: Service) -> None:
    open_form(browser, deployed, "process-project")

    expected = [
        "Project directory",
        "Jobs (Optional)",
        "Mode (Optional)",
        "Parameters to change (Optional)",
        "what is left empty stays as it is",
        "Microscope (Optional)",
        "Pixel size (Å) (Optional)",
        "Pixel size of the movies as they are on disk, before any binning. 0.5 to 10 Å.",
        "Voltage (kV) (Optional)",
        "Acquisition (Optional)",
        "Dose per tilt (e/Å²) (Optional)",
        "Job parameters (Optional)",
        "Import movies (Optional)",
        "Frame motion and CTF (Optional)",
        "Defocus range (µm) (Optional)",
        "Tilt-series alignment (Optional)",
        "Tomogram reconstruction (Optional)",
        "Motion correction (RELION) (Optional)",
        "3D auto-refine (Optional)",
        "Computing (Optional)",
    ]
    text = browser.wait_text(*expected)
    places = [text.index(one) for one in expected]
    assert places == sorted(places)  # all there, and in this order
    assert browser.options("Mode") == ["new", "continue"]
    assert browser.options("Model", within="Microscope") == [
        "Krios_G3", "Krios_G4", "Glacios", "Talos", "Custom",
    ]  # fmt: skip
    assert browser.options("Invert tilt angles", within="Acquisition") == ["true", "false"]
    assert browser.options("Jobs") == list(ALL_JOBS)
    assert browser.value("Mode") == "new"
    assert browser.value("Pixel size (Å)", within="Microscope") == ""


def test_the_form_refuses_and_then_starts_a_run(
    browser: Browser,
    deployed: Service,
    worker: Path,
    simulated_project: Project,
    eventually: Callable[..., Any],
) -> None:
    def runs() -> list[dict[str, Any]]:
        found = deployed.flow_runs("process-project")
        where = str(simulated_project.directory)
        return [run for run in found if run["parameters"].get("project_dir") == where]

    def shown(*texts: str) -> bool:
        return all(text in browser.text() for text in texts)

    open_form(browser, deployed, "process-project")
    submit(browser, lambda: shown("'project_dir' is a required property"))

    browser.fill("Project directory", str(simulated_project.directory))
    browser.choose("Jobs", "importmovies")
    browser.fill("Amplitude contrast", "7", within="Microscope")
    submit(
        browser,
        lambda: shown("microscope.amplitude_contrast", "7 is greater than the maximum of 1"),
    )
    assert runs() == []
    browser.wait_no_text("7 is greater than the maximum")  # the message covers the button

    # The list first: while it closes it may lie over the button.
    browser.choose("Invert tilt angles", "true", within="Acquisition")
    browser.fill("Amplitude contrast", "0.08", within="Microscope")
    # What nobody runs by default is folded up.
    assert "Group frames" not in browser.text()
    browser.click("Motion correction (RELION)")
    browser.fill("Group frames", "4")
    (run,) = submit(browser, runs)
    assert (run["parameters"]["jobs"], run["parameters"]["mode"]) == (["importmovies"], "new")
    assert run["parameters"]["parameters"] == {
        "microscope": {"amplitude_contrast": 0.08},
        "acquisition": {"invert_tilt_angles": True},
        "jobs": {"motionCorr": {"group_frames": 4}},
    }

    browser.open(f"{deployed.url}/runs/flow-run/{run['id']}", login=deployed.login)
    browser.wait_text("project: importmovies")
    eventually(lambda: runs()[0]["state_type"] == "COMPLETED", 120)
    browser.wait_text("1 jobs succeeded: External/job001")
    values = simulated_project.parameters()
    assert values.microscope.amplitude_contrast == 0.08
    assert values.acquisition.invert_tilt_angles is True
    assert values.value("jobs.motionCorr.group_frames") == 4
    job = simulated_project.directory / "External/job001"
    assert (job / "RELION_JOB_EXIT_SUCCESS").exists()
