"""The doubles of pytom-match-pick: `pytom_match_template.py` and `pytom_extract_candidates.py`.

They take every option of the contract, and nothing else (the real ones' argparse would take any
abbreviation). As the real ones they end with 2 on wrong options, files that are not there and GPUs
that CUDA does not show, with 1 and a trace on any other error, and with 0 and an empty table where
there is no candidate. DOUBLES_FAIL names tomograms to fail on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from doubles.pytom_maps import refuse

from crboost.builders.pytom_contract import check, parsed


def main(program: str, words: Sequence[str]) -> int:
    """What a program does with its arguments; its exit code."""
    argv = [program, *words]
    problems = check(argv)
    if problems:
        refuse(program, problems[0])
    if program == "pytom_extract_candidates.py":
        from doubles.pytom_extract import extract

        return extract(parsed(argv))
    from doubles.pytom_match import match

    return match(parsed(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
