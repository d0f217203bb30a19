"""The recipes in containers/: complete, pinned, and about the programs that doctor asks for."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from testbed.fixtures import RelionImage

from crboost.doctor.programs import PROGRAMS, is_known
from crboost.resources import resource_directory
from crboost.settings import KNOWN_TOOLS, Settings

DIRECTORY = resource_directory("containers")
RECIPES = sorted(DIRECTORY.glob("*.def"))
README = (DIRECTORY / "README.md").read_text(encoding="utf-8")
#: Sections that Apptainer knows, of those that we use.
SECTIONS = {"arguments", "files", "post", "environment", "test", "labels", "help"}
#: What a section of each tool's image is called after.
VERSIONS = {"pytom": "PYTOM", "membrain": "MEMBRAIN", "cryocare": "CRYOCARE", "warp": "WARP",
            "aretomo3": "ARETOMO3"}  # fmt: skip


def text(recipe: Path) -> str:
    return recipe.read_text(encoding="utf-8")


def sections(recipe: Path) -> list[tuple[str, str]]:
    """(name with its words, content) of every section, in order."""
    parts = re.split(r"^%(\w+.*)$", text(recipe), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def arguments(recipe: Path) -> dict[str, str]:
    """The defaults of the build arguments."""
    found = {}
    for name, content in sections(recipe):
        if name == "arguments":
            lines = [line.strip() for line in content.splitlines() if "=" in line]
            found |= dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    return found


def scripts(recipe: Path) -> list[str]:
    """The shell scripts, with the arguments' defaults in their places."""
    return [
        filled(content, arguments(recipe))
        for name, content in sections(recipe)
        if name in ("post", "environment", "test")
    ]


def filled(content: str, values: dict[str, str]) -> str:
    return re.sub(r"\{\{ (\w+) \}\}", lambda found: values[found[1]], content)


def tools(recipe: Path) -> list[str]:
    """The tools that its labels say it holds."""
    (label,) = re.findall(r"org\.crboost\.tool (.*)", text(recipe))
    return label.split(", ")


def test_there_is_a_recipe_for_every_tool_and_the_readme_names_it() -> None:
    held = {tool for recipe in RECIPES for tool in tools(recipe)}
    assert held == set(KNOWN_TOOLS) - {"cpu", "ctffind"}
    assert all(f"`{recipe.name}`" in README for recipe in RECIPES)
    named = set(re.findall(r"^\| `(\w+\.def)`", README, re.MULTILINE))
    assert named == {recipe.name for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_parts(recipe: Path) -> None:
    head = re.match(r"Bootstrap: \S.*\nFrom: \S.*\n", text(recipe))
    assert head
    names = [name.split()[0] for name, _ in sections(recipe)]
    assert set(names) <= SECTIONS
    assert {"arguments", "post", "environment", "test", "labels", "help"} <= set(names)
    stages = re.findall(r"^Stage: (\w+)$", text(recipe), re.MULTILINE)
    assert len(set(stages)) == len(stages)
    for name, _ in sections(recipe):
        if name.startswith("files from"):
            assert name.split()[2] in stages
    # What a person must know before they use it stands at the head.
    assert "Source" in text(recipe)
    assert "https://" in text(recipe)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_arguments_have_values_and_are_used(recipe: Path) -> None:
    """In each stage by itself: Apptainer does not hand arguments on."""
    for stage in re.split(r"^(?=Bootstrap: )", text(recipe), flags=re.MULTILINE)[1:]:
        given = set(re.findall(r"^    (\w+)=", stage.split("%post")[0], re.MULTILINE))
        used = set(re.findall(r"\{\{ (\w+) \}\}", stage))
        assert used == given
        assert stage.count("{{") == len(re.findall(r"\{\{ \w+ \}\}", stage))


@pytest.mark.relion
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_apptainer_itself_can_read_them(
    recipe: Path, relion_sif: RelionImage, tmp_path: Path
) -> None:
    """It reads the whole recipe before it does anything; then this base has no shell to go on."""

    def build(content: str) -> str:
        content = re.sub(r"^Bootstrap: .*$", "Bootstrap: localimage", content, flags=re.MULTILINE)
        content = re.sub(r"^From: .*$", "From: empty", content, flags=re.MULTILINE)
        (tmp_path / "x.def").write_text(content, encoding="utf-8")
        argv = [relion_sif.apptainer.command, "build", "--force", "--sandbox", "made", "x.def"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        return done.stderr

    (tmp_path / "empty" / "bin").mkdir(parents=True)
    assert "Starting build" in build(text(recipe))
    assert "invalid section" in build(text(recipe) + "\n%tset\n    true\n")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_scripts_are_shell(recipe: Path) -> None:
    for script in scripts(recipe):
        done = subprocess.run(
            ["sh", "-n"], input=script, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    for name, content in sections(recipe):
        if name in ("post", "test"):
            commands = [line.strip() for line in content.splitlines() if line.strip()]
            first = next(line for line in commands if not line.startswith("#"))
            assert first == "set -eu", f"%{name} would go on after an error"


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_everything_is_pinned(recipe: Path) -> None:
    values = arguments(recipe)
    for base in re.findall(r"^From: (\S.*)$", text(recipe), re.MULTILINE):
        image, _, tag = filled(base, values).rpartition(":")
        assert image and re.search(r"\d+\.\d+", tag), f"{base} names no version"
    assert "latest" not in text(recipe).lower().replace("latestimod", "")
    for script in scripts(recipe):
        for clone in re.findall(r"git clone (.*)", script):
            assert "--branch" in clone or "git checkout --quiet" in script
        for line in script.splitlines():
            for commit in re.findall(r"checkout --quiet '(\w+)'", line):
                assert len(commit) == 40


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_the_test_looks_for_what_doctor_asks_for(recipe: Path) -> None:
    (test,) = [filled(content, arguments(recipe)) for name, content in sections(recipe)
               if name == "test"]  # fmt: skip
    test = test.replace("$program", "extract_train_data train predict")
    for tool in tools(recipe):
        if tool == "imod" and recipe.stem == "aretomo3":
            continue
        absent = [
            one.name
            for one in PROGRAMS[tool]
            if one.name not in test and one.name.removeprefix("cryoCARE_")[:-3] not in test
        ]
        assert absent == []


@pytest.mark.parametrize(("tool", "argument"), VERSIONS.items())
def test_versions_are_those_that_the_commands_were_made_for(tool: str, argument: str) -> None:
    version = arguments(DIRECTORY / f"{tool}.def")[argument]
    assert is_known(tool, version)
    assert version in README


def test_the_readme_s_settings_are_allowed() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    settings = Settings.model_validate(tomllib.loads(block))
    assert is_known("warp", settings.tools["warp"].version or "")
