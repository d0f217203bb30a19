"""What the deployments on a server were made of, to know when to make them anew."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from crboost import __version__
from crboost.resources import resource_directory
from crboost.service.channels import address_digest
from crboost.settings import ServiceSettings

#: Prefect variable that holds the fingerprint, in the database that holds the deployments.
VARIABLE = "crboost_deployed"


def versions() -> dict[str, str]:
    """The versions that a service runs."""
    return {
        "crboost": __version__,
        "prefect": importlib.metadata.version("prefect"),
        "python": sys.version.split()[0],
    }


def deployment_fingerprint(service: ServiceSettings) -> str:
    """Of the installed flows, forms and definitions, and of the service's settings.

    The server's address does not count: it may be given on the command line. Those of channels
    do, also where they stand in files.
    """
    digest = hashlib.sha256()
    for text in (*versions().values(), sys.executable):
        digest.update(text.encode() + b"\0")
    digest.update(service.model_dump_json(exclude={"host", "port"}).encode())
    for channel in service.notify:
        digest.update(address_digest(channel).encode() + b"\0")
    for path in _sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    """What decides how a deployment and its form look."""
    found = [resource_directory("deployments") / "prefect.yaml"]
    flows = importlib.util.find_spec("flows")
    directories = [Path(__file__).parents[1] / "parameters"]
    if flows is not None and flows.origin is not None:
        directories.append(Path(flows.origin).parent)
    for directory in directories:
        found += sorted(directory.rglob("*.py"))
    return found
