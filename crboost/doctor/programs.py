"""The programs that a tool is known by, how its version is learned, and which versions we know.

A program is not always asked itself: some do not start on a machine without a GPU's driver, and
some have no word for their version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Program:
    """A program by which a tool is known.

    Attributes:
        version: its arguments for telling its version; empty: it is only looked for.
    """

    name: str
    version: tuple[str, ...] = ()


#: What the builders of each tool call. The first is what the settings' `executable` replaces.
PROGRAMS: Mapping[str, tuple[Program, ...]] = {
    "cpu": (Program("python3", ("-c", "import crboost.cpu; print(crboost.__version__)")),),
    "relion": (Program("relion_schemer", ("--version",)), Program("relion_refine", ("--version",))),
    "warp": (Program("WarpTools"),),
    "aretomo2": (Program("AreTomo2"),),
    "aretomo3": (Program("AreTomo3"),),
    "imod": (Program("newstack"), Program("batchruntomo"), Program("submfg")),
    "cryocare": (
        Program("cryoCARE_extract_train_data.py"),
        Program("cryoCARE_train.py"),
        Program("cryoCARE_predict.py"),
    ),
    "pytom": (Program("pytom_match_template.py"), Program("pytom_extract_candidates.py")),
    "membrain": (Program("membrain"),),
    "ctffind": (Program("ctffind"),),
}

#: What a tool itself calls for some of its work, and the value of a parameter that needs it.
#: It calls them where it runs: in its own image.
HELPERS: Mapping[str, Mapping[str, str]] = {
    "warp": {
        "AreTomo2": "alignment_method aretomo2",
        "AreTomo3": "alignment_method aretomo3",
        "batchruntomo": "alignment_method etomo_patches and etomo_fiducials",
        "submfg": "alignment_method etomo_patches and etomo_fiducials",
    }
}

#: The Python package that a tool's first program comes from.
PACKAGES: Mapping[str, str] = {
    "cryocare": "cryoCARE",
    "pytom": "pytom-match-pick",
    "membrain": "membrain-seg",
}

# The interpreter that a script names knows the package it came with.
_ASK_PACKAGE = (
    'p=$(command -v "$1") || exit 127; i=$(sed -n "1s/^#! *//p" "$p"); '
    "exec ${i:-python3} -c \"from importlib.metadata import version; print(version('$2'))\""
)
# `WarpTools --version` says 2.0.0, whatever release it is; the conda package knows better.
_ASK_WARP = (
    'p=$(command -v "$1") || exit 127; '
    'for f in "${p%/*}"/../conda-meta/warp-*.json; do n=${f##*/warp-}; echo "${n%%-*}"; done'
)
_ASK_ITSELF = '"$1" --version'
_ASK_IMOD = 'cat "${IMOD_DIR:-$(dirname "$(command -v "$1")")/..}/VERSION"'

#: What AreTomo calls itself at the commits that crboost/builders/aretomo.py was written against,
#: and one release before, which has all the options that we give.
_ARETOMO = {"aretomo2": ("1.1.2", "1.1.3"), "aretomo3": ("2.2.2", "2.3.1")}

#: The series of RELION's releases whose job options are known (crboost/builders/relion.py).
_RELION = ("5.0", "5.1")


def version_question(tool: str, program: str) -> list[str] | None:
    """The command that tells a tool's version without running its work; None: there is none."""
    if tool in PACKAGES:
        return ["sh", "-c", _ASK_PACKAGE, "sh", program, PACKAGES[tool]]
    scripts = {
        "warp": _ASK_WARP,
        "aretomo2": _ASK_ITSELF,
        "aretomo3": _ASK_ITSELF,
        "imod": _ASK_IMOD,
    }
    return ["sh", "-c", scripts[tool], "sh", program] if tool in scripts else None


def version_in(text: str) -> str:
    """The version in what a program said; empty if there is none."""
    match = re.search(r"\d+\.\d+[\w.+-]*", text)
    return match[0] if match and not text.startswith("/") else ""


def known_versions(tool: str) -> Sequence[str]:
    """The versions of a tool whose options or configuration were read; empty: not told apart."""
    if tool == "warp":
        from crboost.builders.contract import contract

        return list(contract().versions)
    if tool == "pytom":
        from crboost.builders import pytom_contract

        return list(pytom_contract.contract()["source"]["versions"])
    if tool == "cryocare":
        from crboost.builders import cryocare

        return list(cryocare.contract()["source"]["versions"])
    if tool == "membrain":
        from crboost.builders import membrain_contract

        return list(membrain_contract.contract()["source"]["versions"])
    return _RELION if tool == "relion" else _ARETOMO.get(tool, ())


def is_known(tool: str, version: str) -> bool:
    """Whether the commands for this version are known to be right.

    WarpTools' releases come between those that were read; a version between two known ones counts.
    Of RELION a whole series of releases is known: 5.0 means 5.0.0, 5.0.1 and so on.
    """
    known = known_versions(tool)
    if tool == "relion":
        return any(re.match(rf"{re.escape(one)}(?![0-9])", version) for one in known)
    if tool != "warp":
        return not known or version in known
    numbers = [_dev_number(one) for one in known]
    number = _dev_number(version)
    return number is not None and min(filter(None, numbers)) <= number <= max(filter(None, numbers))


def _dev_number(version: str) -> int | None:
    match = re.fullmatch(r"2\.0\.0dev(\d+)(?:-\d+)?", version)
    return int(match[1]) if match else None
