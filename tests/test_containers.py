"""argv in containers: exact arguments, and what survives the way to the tool."""

from __future__ import annotations

import csv
import io
import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crboost import containers
from crboost.containers import (
    Bind,
    allowed_environment,
    bind_arguments,
    check_image,
    clean_environment,
    environment_arguments,
    image_digest,
    needed_binds,
    real_locations,
    relion_launch,
    slurm_client_binds,
    wrap,
)
from crboost.errors import CrboostError, ParameterError
from crboost.settings import ContainerSettings, SchedulerSettings, Settings, ToolSettings

PROJECT = Path("/data/project")
IMAGE = Path("/images/relion.sif")


def settings(image: Path = IMAGE, **changes: object) -> Settings:
    given = ContainerSettings.model_validate(changes)
    return Settings(containers=given, tools={"relion": ToolSettings(image=image)})


class TestWrap:
    def test_the_whole_command(self) -> None:
        argv = wrap(
            ["relion_refine", "--i", "a b"],
            "relion",
            settings(),
            cwd=PROJECT,
            binds=[PROJECT, Path("/raw")],
            environment={"OMP_NUM_THREADS": "4"},
        )
        assert argv == [
            "apptainer",
            "exec",
            "--cleanenv",
            "--no-home",
            "--env",
            "OMP_NUM_THREADS=4",
            "--bind",
            "/data/project",
            "--bind",
            "/raw",
            "--pwd",
            "/data/project",
            "/images/relion.sif",
            "relion_refine",
            "--i",
            "a b",
        ]

    def test_gpus_only_when_asked_for(self) -> None:
        assert "--nv" not in wrap(["x"], "relion", settings(), cwd=PROJECT)
        assert "--nv" in wrap(["x"], "relion", settings(), cwd=PROJECT, gpus=True)
        amd = settings(gpu_flag="--rocm")
        assert "--rocm" in wrap(["x"], "relion", amd, cwd=PROJECT, gpus=True)

    def test_what_the_site_says(self) -> None:
        site = settings(
            engine="singularity",
            executable="/opt/bin/singularity",
            binds=["/scratch", {"source": "/refs", "destination": "/r", "read_only": True}],
            extra_args=["--ipc"],
            mount_home=True,
        )
        argv = wrap(["x"], "relion", site, cwd=PROJECT)
        assert argv[:3] == ["/opt/bin/singularity", "exec", "--cleanenv"]
        assert "--no-home" not in argv
        assert argv[3:7] == ["--bind", "/scratch", "--bind", "/refs:/r:ro"]
        assert argv[-3:] == ["--ipc", str(IMAGE), "x"]

    def test_what_the_tool_says(self) -> None:
        tool = ToolSettings.model_validate(
            {"image": IMAGE, "binds": ["/lib/x"], "environment": {"A": "tool", "B": "tool"}}
        )
        site = Settings(tools={"imod": tool})
        argv = wrap(["x"], "imod", site, cwd=PROJECT, environment={"B": "job"})
        assert argv[4:10] == ["--env", "A=tool", "--env", "B=job", "--bind", "/lib/x"]

    def test_a_native_tool_is_left_alone(self) -> None:
        native = Settings(tools={"aretomo2": ToolSettings(executable="/opt/AreTomo2")})
        assert wrap(["/opt/AreTomo2", "-x"], "aretomo2", native, cwd=PROJECT) == [
            "/opt/AreTomo2",
            "-x",
        ]

    def test_without_an_engine_everything_is_native(self) -> None:
        assert wrap(["x"], "relion", settings(engine="none"), cwd=PROJECT) == ["x"]

    def test_a_tool_without_settings_never_runs_natively(self) -> None:
        with pytest.raises(ParameterError, match=r"no tools\.aretomo2, which this job") as told:
            wrap(["AreTomo2"], "aretomo2", settings(), cwd=PROJECT)
        assert "settings.toml" in str(told.value)

    def test_a_relative_working_directory_is_refused(self) -> None:
        with pytest.raises(ParameterError, match="must be absolute"):
            wrap(["x"], "relion", settings(), cwd=Path("project"))


class TestBinds:
    def test_each_once(self) -> None:
        assert bind_arguments([Bind(Path("/a")), Bind(Path("/a"))]) == ["--bind", "/a"]

    def test_elsewhere_and_read_only(self) -> None:
        assert bind_arguments([Bind(Path("/a"), Path("/b"))]) == ["--bind", "/a:/b"]
        assert bind_arguments([Bind(Path("/a"), read_only=True)]) == ["--bind", "/a:/a:ro"]

    @pytest.mark.parametrize("name", ["a,b", "a:b", "a^b", 'a"b', "a\\b", "blank at end "])
    def test_paths_that_bind_cannot_take(self, name: str) -> None:
        flag, value = bind_arguments([Bind(Path("/data") / name, read_only=True)])
        assert flag == "--mount"
        assert next(csv.reader([value])) == [
            "type=bind",
            f"source=/data/{name}",
            f"destination=/data/{name}",
            "ro",
        ]

    @pytest.mark.parametrize("path", ["relative", "/line\nbreak", "/carriage\rreturn"])
    def test_paths_that_nothing_can_take(self, path: str) -> None:
        with pytest.raises(ParameterError, match="absolute path without line breaks"):
            bind_arguments([Bind(Path(path))])

    def test_the_root_would_hide_the_image(self) -> None:
        with pytest.raises(ParameterError, match="/ cannot be bound"):
            bind_arguments([Bind(Path("/"))])

    @given(st.text(st.characters(exclude_characters="/\0\n\r", codec="utf-8"), min_size=1))
    def test_every_name_arrives(self, name: str) -> None:
        path = f"/data/x{name}"
        flag, value = bind_arguments([Bind(Path(path))])
        if flag == "--bind":
            # apptainer's own expression for the parts of a bind (ParseBindPath)
            assert [part.strip() for part in re.findall(r"[^,^:]+:?", value)] == [path]
        else:
            fields = next(csv.reader(io.StringIO(value)))
            assert fields == ["type=bind", f"source={path}", f"destination={path}"]


class TestEnvironment:
    def test_plain_values(self) -> None:
        assert environment_arguments({"A": "1", "B": "x y"}) == ["--env", "A=1", "--env", "B=x y"]

    def test_values_that_a_shell_would_change_are_not_evaluated(self) -> None:
        assert environment_arguments({"A": "$HOME"})[0] == "--no-eval"

    @given(st.text(st.characters(exclude_characters="\0\r", codec="utf-8")))
    def test_every_value_arrives(self, value: str) -> None:
        argument = environment_arguments({"NAME": value})[-1]
        # What spf13/pflag does with a map of strings.
        if argument.count("=") == 1:
            pairs = [argument.strip('"')]
        else:
            pairs = next(csv.reader(io.StringIO(argument, newline="")))
        assert dict(pair.split("=", 1) for pair in pairs)["NAME"] == value

    def test_bad_names_and_values(self) -> None:
        with pytest.raises(ParameterError, match="not the name"):
            environment_arguments({"A B": "1"})
        with pytest.raises(ParameterError, match="control character"):
            environment_arguments({"A": "1\0"})

    def test_only_what_the_site_allows_gets_in(self) -> None:
        environ = {"CUDA_VISIBLE_DEVICES": "1", "SECRET": "x", "HOME": "/root"}
        assert allowed_environment(environ, ContainerSettings()) == {"CUDA_VISIBLE_DEVICES": "1"}

    def test_an_outer_containers_binds_stay_out(self) -> None:
        environ = {"APPTAINER_BIND": "/x", "APPTAINERENV_A": "1", "PATH": "/bin"}
        environ["APPTAINER_CACHEDIR"] = "/cache"
        assert clean_environment(environ) == {"PATH": "/bin", "APPTAINER_CACHEDIR": "/cache"}


class TestLocations:
    def test_the_fewest(self) -> None:
        paths = [Path("/a/b/c"), Path("/a/b"), Path("/a/bc"), Path("/d/../a/b/x"), Path("/")]
        assert needed_binds(paths) == [Path("/a/b"), Path("/a/bc")]

    def test_every_place_on_the_way_to_the_raw_data(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk7" / "session"
        disk.mkdir(parents=True)
        (disk / "a.tif").touch()
        (tmp_path / "by_name").mkdir()
        (tmp_path / "by_name" / "monday").symlink_to(disk)
        (tmp_path / "inbox").mkdir()
        (tmp_path / "inbox" / "a.tif").symlink_to(tmp_path / "by_name" / "monday" / "a.tif")
        project = tmp_path / "project"
        (project / "frames").mkdir(parents=True)
        (project / "frames" / "a.tif").symlink_to("../../inbox/a.tif")
        found = real_locations(project)
        assert set(found) == {project, tmp_path / "inbox", tmp_path / "by_name" / "monday", disk}

    def test_a_project_behind_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "real" / "frames").mkdir(parents=True)
        (tmp_path / "link").symlink_to("real")
        assert set(real_locations(tmp_path / "link")) == {tmp_path / "link", tmp_path / "real"}

    def test_a_directory_that_is_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "raw").mkdir()
        (tmp_path / "project").mkdir()
        (tmp_path / "project" / "frames").symlink_to(tmp_path / "raw")
        assert tmp_path in real_locations(tmp_path / "project")

    def test_many_movies_of_one_directory_are_one_place(self, tmp_path: Path) -> None:
        (tmp_path / "raw").mkdir()
        (tmp_path / "project" / "frames").mkdir(parents=True)
        for number in range(20):
            (tmp_path / "raw" / f"{number}.tif").touch()
            target = tmp_path / "raw" / f"{number}.tif"
            (tmp_path / "project" / "frames" / f"{number}.tif").symlink_to(target)
        assert real_locations(tmp_path / "project") == [tmp_path / "project", tmp_path / "raw"]

    def test_what_is_not_there_is_left_out(self, tmp_path: Path) -> None:
        """No container starts with it; without it, the tool says which file is missing."""
        project = tmp_path / "project"
        (project / "frames").mkdir(parents=True)
        (project / "frames" / "a.tif").symlink_to(tmp_path / "gone" / "a.tif")
        gone = tmp_path / "gone" / "refs" / "gain.mrc"
        assert real_locations(project, others=[gone]) == [project]

    def test_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "refs").mkdir()
        (tmp_path / "refs" / "gain.mrc").touch()
        project = tmp_path / "project"
        (project / "frames").mkdir(parents=True)
        found = real_locations(project, others=[tmp_path / "refs" / "gain.mrc", Path("inside.mrc")])
        assert found == [project, tmp_path / "refs"]
        beside = Path("../refs/gain.mrc")
        assert real_locations(project, others=[beside]) == [project, tmp_path / "refs"]

    def test_another_file_behind_links(self, tmp_path: Path) -> None:
        for name in ("disk", "by_name"):
            (tmp_path / name).mkdir()
        (tmp_path / "disk" / "gain.mrc").touch()
        (tmp_path / "by_name" / "newest.mrc").symlink_to(tmp_path / "disk" / "gain.mrc")
        project = tmp_path / "project"
        project.mkdir()
        (project / "gain.mrc").symlink_to("../by_name/newest.mrc")
        both = [tmp_path / "by_name", tmp_path / "disk", project]
        assert real_locations(project, others=[Path("gain.mrc")]) == both
        assert real_locations(project, others=[tmp_path / "by_name" / "newest.mrc"]) == both

    def test_another_file_in_a_directory_that_is_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "disk" / "maps").mkdir(parents=True)
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "mask.mrc").touch()
        (tmp_path / "disk" / "maps" / "mask.mrc").symlink_to("../../store/mask.mrc")
        project = tmp_path / "project"
        project.mkdir()
        (project / "maps").symlink_to("../disk/maps")
        found = real_locations(project, others=[Path("maps/mask.mrc")])
        assert set(found) == {tmp_path / "disk", tmp_path / "store", project}


class TestImages:
    def test_an_image_that_is_not_there(self, tmp_path: Path) -> None:
        gone = settings(tmp_path / "gone.sif")
        with pytest.raises(CrboostError, match=r"tools\.relion\.image = .*gone\.sif: there is no"):
            check_image("relion", gone)

    def test_an_engine_that_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "r.sif").touch()
        with pytest.raises(CrboostError, match=r"no-such-engine.*cannot be found"):
            check_image("relion", settings(tmp_path / "r.sif", executable="no-such-engine"))

    def test_digest_is_kept_until_the_image_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image, cache = tmp_path / "r.sif", tmp_path / "state" / "digests.json"
        image.write_bytes(b"one")
        first = image_digest(image, cache)
        assert first == ("sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed")
        monkeypatch.setattr(containers.hashlib, "file_digest", None)  # not computed again
        assert image_digest(image, cache) == first
        monkeypatch.undo()
        image.write_bytes(b"three")
        assert image_digest(image, cache) != first

    def test_digest_of_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(CrboostError, match="cannot read the image"):
            image_digest(tmp_path / "gone.sif", tmp_path / "digests.json")


class TestRelion:
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Path:
        engine = tmp_path / "apptainer"
        engine.write_text("#!/bin/sh\n")
        engine.chmod(0o755)
        return engine

    def test_in_its_container(self, tmp_path: Path, engine: Path) -> None:
        (tmp_path / "r.sif").touch()
        project = tmp_path / "project"
        (project / "frames").mkdir(parents=True)
        site = Settings(
            containers=ContainerSettings(executable=str(engine)),
            tools={"relion": ToolSettings(image=tmp_path / "r.sif")},
            scheduler=SchedulerSettings(kind="slurm"),
        )
        launch = relion_launch(
            site,
            project,
            environ={"PATH": "/bin", "APPTAINER_BIND": "/x"},
            client_binds=[Bind(Path("/etc/slurm"))],
        )
        prefix = launch.argv_prefix
        assert launch.program == "relion_schemer"
        assert launch.environ == {"PATH": "/bin"}
        assert prefix[-3:] == ["--pwd", str(project), str(tmp_path / "r.sif")]
        assert prefix[prefix.index(str(project)) - 1] == "--bind"
        assert "/etc/slurm" in prefix
        inside = {argument for flag, argument in itertools.pairwise(prefix) if flag == "--env"}
        assert {
            "SBATCH_EXPORT=NONE",
            "RELION_QSUB_EXTRA_COUNT=8",
            "RELION_QSUB_EXTRA1=Partition",
            "RELION_QSUB_EXTRA8=Time limit",
        } <= inside

    def test_files_of_the_runs_jobs_are_seen(self, tmp_path: Path, engine: Path) -> None:
        """Jobs that are not submitted run in the schemer's container."""
        for name in ("project", "refs"):
            (tmp_path / name).mkdir()
        for name in ("r.sif", "refs/gain.mrc"):
            (tmp_path / name).touch()
        site = Settings(
            containers=ContainerSettings(executable=str(engine)),
            tools={"relion": ToolSettings(image=tmp_path / "r.sif")},
        )
        gain = str(tmp_path / "refs" / "gain.mrc")
        launch = relion_launch(site, tmp_path / "project", environ={}, files=[gain])
        assert str(tmp_path / "refs") in launch.argv_prefix

    def test_on_the_machine_itself(self, tmp_path: Path) -> None:
        site = Settings(
            tools={"relion": ToolSettings(executable="/opt/relion/bin/relion_schemer")},
            scheduler=SchedulerSettings(kind="slurm"),
        )
        launch = relion_launch(site, tmp_path, environ={"PATH": "/bin"})
        assert (launch.argv_prefix, launch.program) == ([], "/opt/relion/bin/relion_schemer")
        assert launch.environ["RELION_QSUB_EXTRA_COUNT"] == "8"

    def test_the_schedulers_client(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        for name in ("sbatch", "squeue"):
            program = tmp_path / "bin" / name
            shutil.copy(shutil.which("true") or "/bin/true", program)
        found = [bind.source for bind in slurm_client_binds(str(tmp_path / "bin"))]
        assert tmp_path / "bin" / "sbatch" in found
        assert tmp_path / "bin" / "squeue" in found
        assert Path("/etc/passwd") in found
        assert all(path.exists() for path in found)

    def test_no_client(self, tmp_path: Path) -> None:
        with pytest.raises(CrboostError, match="sbatch cannot be found"):
            slurm_client_binds(str(tmp_path))


# A stand-in for the engine: keeps what it was given, then runs the command after the image.
_ENGINE = r"""#!/bin/bash
printf '%s\0' "$@" >"${0%/*}/seen"
while [ $# -gt 0 ]; do case $1 in *.sif) shift; break ;; esac; shift; done
exec "$@"
"""


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    engine = tmp_path_factory.mktemp("engine") / "apptainer"
    engine.write_text(_ENGINE)
    engine.chmod(0o755)
    return engine


@pytest.mark.parametrize(
    "argument",
    [
        "a b",
        "it's",
        'say "so"',
        "$HOME `id` $(id)",
        "back\\slash",
        "ü Å µ",
        "*?[a]",
        "-x",
        "",
        "\n",
    ],
)
def test_arguments_arrive_as_they_are(recorder: Path, tmp_path: Path, argument: str) -> None:
    site = settings(executable=str(recorder))
    argv = wrap(["printf", "%s\\0", argument], "relion", site, cwd=tmp_path)
    done = subprocess.run(argv, capture_output=True, check=True, env=dict(os.environ))
    assert done.stdout.decode() == f"{argument}\0"
    seen = (recorder.parent / "seen").read_bytes().decode().split("\0")
    assert seen[:-1] == argv[1:]
