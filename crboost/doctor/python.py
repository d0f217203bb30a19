"""Python, the packages, and whether Prefect and its server can be used."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crboost import __version__
from crboost.doctor.findings import Finding, failed, ok, warning

OLDEST_PYTHON = (3, 11)
#: Below these, file events are lost or refused.
LEAST_INOTIFY_WATCHES = 8192
LEAST_INOTIFY_INSTANCES = 64


@dataclass(frozen=True)
class Requirement:
    """A package that crboost needs: `fastapi`, `>=0.139,<0.151`, and what is installed."""

    name: str
    bounds: str
    installed: str | None


@dataclass(frozen=True)
class PythonFacts:
    """What this process's Python has.

    Attributes:
        flows: whether the flows can be imported.
        inotify: watches and instances that one user may have; None where Linux does not tell.
    """

    version: tuple[int, ...]
    executable: str
    requirements: Sequence[Requirement]
    flows: bool
    inotify: tuple[int, int] | None


def python_facts() -> PythonFacts:
    """Of this process. Imports none of the packages."""
    found = importlib.util.find_spec("prefect"), importlib.util.find_spec("flows")
    return PythonFacts(
        tuple(sys.version_info[:3]),
        sys.executable,
        [_requirement(text) for text in _requirements()],
        all(found),
        _inotify(Path("/proc/sys/fs/inotify")),
    )


def _requirements() -> list[str]:
    try:
        texts = importlib.metadata.requires("crboost") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [text for text in texts if "extra ==" not in text]


def _requirement(text: str) -> Requirement:
    match = re.match(r"[A-Za-z0-9._-]+", text)
    assert match is not None, text
    bounds = re.sub(r"\s|;.*", "", text[match.end() :])
    try:
        installed: str | None = importlib.metadata.version(match[0])
    except importlib.metadata.PackageNotFoundError:
        installed = None
    return Requirement(match[0], bounds, installed)


def _inotify(directory: Path) -> tuple[int, int] | None:
    try:
        watches = int((directory / "max_user_watches").read_text())
        instances = int((directory / "max_user_instances").read_text())
    except (OSError, ValueError):
        return None
    return watches, instances


def judge_python(facts: PythonFacts) -> list[Finding]:
    """Findings on Python, packages and file events."""
    return [
        _judge_version(facts),
        _judge_packages(facts),
        _judge_inotify(facts.inotify),
    ]


def _judge_version(facts: PythonFacts) -> Finding:
    version = ".".join(map(str, facts.version))
    said = f"Python {version}, crboost {__version__} ({facts.executable})"
    if facts.version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return failed("python.version", said, f"install crboost with Python {oldest} or newer")
    return ok("python.version", said)


def _judge_packages(facts: PythonFacts) -> Finding:
    check = "python.packages"
    repair = "install again: pip install -c constraints.txt . (in crboost's source directory)"
    if not facts.requirements:
        return failed(check, "crboost is not installed as a package", repair)
    wrong = [
        f"{one.name} {one.installed or 'is missing'} (needs {one.bounds or 'any version'})"
        for one in facts.requirements
        if one.installed is None or not within(one.installed, one.bounds)
    ]
    if wrong:
        why = ""
        if any(one.startswith("fastapi ") for one in wrong):
            why = "; Prefect's server does not start with another fastapi"
        return failed(check, "; ".join(wrong) + why, repair)
    if not facts.flows:
        return failed(check, "prefect or flows cannot be found by Python", repair)
    versions = {one.name: one.installed for one in facts.requirements}
    shown = [f"{name} {versions[name]}" for name in ("prefect", "fastapi") if name in versions]
    return ok(check, f"all {len(versions)} within their bounds ({', '.join(shown)})")


def within(version: str, bounds: str) -> bool:
    """Whether a version such as `3.8.8` is within `>=3.8.8,<4`."""
    given = _numbers(version)
    for bound in filter(None, bounds.split(",")):
        match = re.fullmatch(r"(>=|<=|==|!=|<|>|~=)(.+)", bound)
        if match is None:
            continue
        limit = _numbers(match[2])
        width = max(len(given), len(limit))
        left = given + (0,) * (width - len(given))
        right = limit + (0,) * (width - len(limit))
        holds = {
            ">=": left >= right,
            "<=": left <= right,
            "==": left == right,
            "!=": left != right,
            "<": left < right,
            ">": left > right,
            "~=": left >= right and left[: len(limit) - 1] == limit[:-1],
        }
        if not holds[match[1]]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _judge_inotify(limits: tuple[int, int] | None) -> Finding:
    check = "python.file_events"
    if limits is None:
        return ok(check, "Linux does not tell the limits of inotify")
    watches, instances = limits
    said = f"inotify: {watches} watches, {instances} instances per user"
    if watches < LEAST_INOTIFY_WATCHES or instances < LEAST_INOTIFY_INSTANCES:
        return warning(
            check,
            f"{said}; several runs at once will see their jobs' progress late",
            "as root: sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512",
        )
    return ok(check, said)


# --- Prefect's server ------------------------------------------------------------------------


@dataclass(frozen=True)
class ApiAnswer:
    """What the Prefect API said.

    Attributes:
        code: of HTTP; None if nobody answered.
        message: why not.
        version: of the server, where it tells.
    """

    url: str
    code: int | None
    message: str = ""
    version: str = ""


def ask_api(url: str, environ: Mapping[str, str] = os.environ) -> ApiAnswer:
    """Ask the Prefect API whether it is there."""
    headers = {}
    if environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {environ['PREFECT_API_KEY']}"
    elif environ.get("PREFECT_API_AUTH_STRING"):
        import base64

        secret = base64.b64encode(environ["PREFECT_API_AUTH_STRING"].encode()).decode()
        headers["Authorization"] = f"Basic {secret}"
    if not url.startswith(("http://", "https://")):
        return ApiAnswer(url, None, "not an http:// or https:// address")
    answers = []
    for path in ("/health", "/admin/version"):
        request = urllib.request.Request(url.rstrip("/") + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                answers.append(response.read(200).decode(errors="replace").strip('" \n'))
        except urllib.error.HTTPError as error:
            if path == "/health":
                return ApiAnswer(url, error.code, str(error.reason))
        except (OSError, ValueError) as error:
            return ApiAnswer(url, None, str(getattr(error, "reason", error)))
    return ApiAnswer(url, 200, version=answers[1] if len(answers) > 1 else "")


def judge_api(answer: ApiAnswer | None, installed: str) -> Finding:
    """The finding on the Prefect API.

    Args:
        answer: None if PREFECT_API_URL is not set.
        installed: the version of Prefect here.
    """
    check = "prefect.api"
    if answer is None:
        return ok(check, "PREFECT_API_URL is not set: each run starts a server of its own")
    if answer.code is None:
        return failed(
            check,
            f"{answer.url} cannot be reached: {answer.message}",
            "start it (prefect server start), or correct PREFECT_API_URL; it ends in /api",
        )
    if answer.code in (401, 403):
        return failed(
            check,
            f"{answer.url} refuses us: {answer.code} {answer.message}",
            "set PREFECT_API_AUTH_STRING (own server) or PREFECT_API_KEY (Prefect Cloud)",
        )
    if answer.code != 200:
        return failed(
            check,
            f"{answer.url}/health answers {answer.code} {answer.message}",
            "PREFECT_API_URL must be the API's address, such as http://HOST:4200/api",
        )
    said = f"{answer.url} answers" + (f", Prefect {answer.version}" if answer.version else "")
    if answer.version and _numbers(answer.version)[:2] < _numbers(installed)[:2]:
        return warning(
            check,
            f"{said}; here is the newer {installed}",
            "give the server the same version of Prefect, or a newer one",
        )
    return ok(check, said)
