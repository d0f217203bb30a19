"""The contract of whichever tool a step belongs to."""

from __future__ import annotations

import json

import pytest

from crboost.builders.contracts import problems_of
from crboost.builders.step import Step
from crboost.errors import ParameterError

MATCH = (
    "pytom_match_template.py", "--template", "t.mrc", "--mask", "m.mrc", "--tomogram", "v.mrc",
    "--gpu-ids", "0",
)  # fmt: skip
PREDICT = {"path": "m.tar.gz", "even": "e.mrc", "odd": "o.mrc", "n_tiles": [1, 1, 1], "output": "d"}


def cryocare(config: object, *words: str) -> Step:
    argv = ("cryoCARE_predict.py", *(words or ("--conf", "c.json")))
    return Step("predict", argv, files={"c.json": json.dumps(config)})


@pytest.mark.parametrize(
    ("step", "tool"),
    [
        (Step("x", ("WarpTools", "ts_ctf", "--settings", "s")), "WarpTools"),
        (Step("x", MATCH), "pytom-match-pick"),
        (Step("x", ("/opt/bin/" + MATCH[0], "-t", "t", "-m", "m", "-v", "v", "-g", "0")),
         "pytom-match-pick"),
        (cryocare(PREDICT), "cryoCARE"),
        (Step("x", ("membrain", "segment", "--tomogram-path", "a", "--ckpt-path", "b")),
         "membrain-seg"),
        (Step("x", ("AreTomo2", "-InMrc", "a", "-OutMrc", "b")), "AreTomo2"),
        (Step("x", ("AreTomo3", "-InPrefix", "a")), "AreTomo3"),
        (Step("x", ("submfg", "align.com")), "IMOD"),
        (Step("x", ("python", "-m", "crboost.cpu", "--whatever")), ""),
    ],
)  # fmt: skip
def test_a_right_step_passes(step: Step, tool: str) -> None:
    assert problems_of(step, None) == (tool, [])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Step("x", ("WarpTools", "ts_ctf", "--settings", "s", "--nope", "1")),
         "ts_ctf: ts_ctf has no option --nope"),
        (Step("x", ("WarpTools",)), "WarpTools: no command is given"),
        (Step("x", (*MATCH, "--tilt-angle", "a.tlt")), "has no option --tilt-angle"),
        (Step("x", (*MATCH, "-t", "u.mrc")), "--template is given twice"),
        (Step("x", (*MATCH, "--low-pass", "-x")), "--low-pass takes a value, not 0"),
        (cryocare({**PREDICT, "tiles": 4}), "knows no 'tiles'"),
        (cryocare({**PREDICT, "n_tiles": "444"}), "n_tiles = '444' is no int[]"),
        (cryocare({}), "needs 'path'"),
        (cryocare(PREDICT, "--config", "c.json"), "takes --conf and the name of a file"),
        (cryocare(PREDICT, "--conf", "d.json"), "there will be no file d.json"),
        (Step("x", ("cryoCARE_train.py", "--conf", "c"), files={"c": "{"}), "c is no JSON"),
        (Step("x", ("membrain", "segment", "--tomogram", "a")), "has no option --tomogram"),
        (Step("x", ("AreTomo2", "-InMrc", "a", "-OutMrc", "b", "-Patches", "1")),
         "has no option -Patches"),
        (Step("x", ("newstack", "a")), "needs 2 files or more"),
    ],
)  # fmt: skip
def test_a_wrong_step_is_told(step: Step, message: str) -> None:
    _, found = problems_of(step, None)
    assert any(message in problem for problem in found), found


def test_warps_version_matters_to_its_own_steps_alone() -> None:
    assert problems_of(Step("x", ("submfg", "align.com")), "newest") == ("IMOD", [])
    with pytest.raises(ParameterError, match=r"tools\.warp\.version"):
        problems_of(Step("x", ("WarpTools", "ts_ctf")), "newest")
