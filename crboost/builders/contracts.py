"""The contracts of all tools' command lines: what is wrong with a step, whichever program it runs.

A tool is added here when its contract is there (docs/adding-a-tool.md). Programs without one are
left alone: those of crboost itself, and what a user wants to be called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from crboost.builders import contract, cryocare, membrain_contract, pytom_contract, stack_contract
from crboost.builders.step import Step

WARP = "WarpTools"

Check = Callable[[Step], list[str]]


def problems_of(step: Step, warp_version: str | None) -> tuple[str, list[str]]:
    """(the tool whose program a step runs, what is wrong with the step); ("", []): no contract.

    Args:
        warp_version: `tools.warp.version` of the settings; None: any.

    Raises:
        ParameterError: that is no version, and the step is WarpTools'.
    """
    program = step.argv[0].rpartition("/")[2]
    if program == contract.PROGRAM:
        return WARP, _warp(step, warp_version)
    if program not in _checks():
        return "", []
    tool, check = _checks()[program]
    return tool, check(step)


def _warp(step: Step, configured: str | None) -> list[str]:
    command = step.argv[1] if len(step.argv) > 1 else contract.PROGRAM
    found = contract.check(step.argv, contract.known_version(configured))
    return [f"{command}: {problem.message} ({problem.hint})" for problem in found]


@functools.cache
def _checks() -> Mapping[str, tuple[str, Check]]:
    """Program -> (its tool, as people call it; its check)."""
    found: dict[str, tuple[str, Check]] = {
        "membrain": ("membrain-seg", lambda step: membrain_contract.check(step.argv))
    }
    for program in pytom_contract.contract()["programs"]:
        found[program] = ("pytom-match-pick", lambda step: pytom_contract.check(step.argv))
    for program in cryocare.contract()["programs"]:
        found[program] = ("cryoCARE", lambda step: cryocare.check_command(step.argv, step.files))
    for program in stack_contract.contract()["programs"]:
        tool = program if program.startswith("AreTomo") else "IMOD"
        found[program] = (tool, lambda step: stack_contract.check(step.argv))
    return found
