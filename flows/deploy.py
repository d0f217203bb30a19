"""`python -m flows.deploy`: what crboost needs on the server of `PREFECT_API_URL`.

Work pool, queue, deployments, and the automations that notify people. Doing it again changes
nothing but what has changed in `deployments/prefect.yaml` and in the settings. That somebody
cannot be notified does not keep anything from being processed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import traceback
from collections.abc import Sequence

from crboost.resources import resource_directory

POOL = "headnode"
#: Each has its own slots: runs that follow jobs for hours, and wait for one another, do not stop
#: those that are done in seconds. The name, what it is for, its priority (1 is first).
QUEUES = (
    ("upkeep", "ingest, plans, housekeeping: done in seconds", 1),
    ("headnode", "runs that process a project", 2),
)
#: The queue whose runs are limited.
LIMITED = "headnode"

#: Prefect has the log of a run. Its terminal is a pipe to the worker: a run that wrote to it would
#: die with the worker.
RUN_ENVIRONMENT = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.deploy", description=__doc__)
    parser.add_argument(
        "--runs-at-once",
        type=int,
        metavar="N",
        help="runs at the same time that process projects, of all projects together",
    )
    arguments = parser.parse_args(argv)
    file = resource_directory("deployments") / "prefect.yaml"
    make_pool_and_queues(arguments.runs_at_once)
    command = ["-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(file)]
    code = subprocess.run([sys.executable, *command], check=False).returncode
    if code == 0:
        remember(make_automations())
    return code


def make_automations() -> str:
    """Make those that notify people; what cannot be made is said, and nothing more.

    Returns:
        Why the server has not got them; "" if it has. A channel with a wrong address is left out,
        and `crboost up --check` sees that by itself.
    """
    from flows import notifications  # imports Prefect, which takes seconds

    try:
        notifications.main([])
    except Exception as error:  # of Prefect's client, of the server, of Apprise
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"[:1000]
    return ""


def remember(problem: str) -> None:
    """Leave with the deployments what they were made of, for `crboost up`.

    Args:
        problem: what `make_automations` said.
    """
    from prefect.variables import Variable

    from crboost.service.channels import PROBLEM_VARIABLE
    from crboost.service.deployed import VARIABLE, deployment_fingerprint
    from crboost.settings import load_settings

    Variable.set(PROBLEM_VARIABLE, problem, overwrite=True)
    Variable.set(VARIABLE, deployment_fingerprint(load_settings().service), overwrite=True)


def make_pool_and_queues(runs_at_once: int | None) -> None:
    """The work pool and queues, where they are missing; the limit only when one is given."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    template["variables"]["properties"]["env"]["default"] = RUN_ENVIRONMENT
    with get_client(sync_client=True) as client:
        pool = WorkPoolCreate(
            name=POOL,
            type="process",
            description="Flow runs of crboost: they follow jobs, they compute nothing.",
            base_job_template=template,
        )
        try:
            client.create_work_pool(pool)
        except ObjectAlreadyExists:
            client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))
            if runs_at_once is not None:  # a limit of the pool would be one of all queues
                client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=None))
        path = f"/work_pools/{POOL}/queues"
        known = {
            queue["name"] for queue in client.request("POST", f"{path}/filter", json={}).json()
        }
        for name, description, priority in QUEUES:
            body = {"name": name, "description": description, "priority": priority}
            if name not in known:
                client.request("POST", path, json=body)
            if name == LIMITED and runs_at_once is not None:
                limit = {"concurrency_limit": runs_at_once}
                client.request("PATCH", f"{path}/{name}", json=limit)


if __name__ == "__main__":
    sys.exit(main())
