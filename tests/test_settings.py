"""The settings: file, environment, defaults, and errors that say where and what."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from crboost.errors import CrboostError, FileFormatError, ParameterError
from crboost.settings import Settings, load_settings, settings_file

EXAMPLE = Path(__file__).parent.parent / "examples" / "settings.toml"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "settings.toml"
    path.touch()
    monkeypatch.setenv("CRBOOST_SETTINGS", str(path))
    return path


def test_the_defaults_need_nothing_but_python() -> None:
    settings = load_settings()
    assert (settings.engine, settings.scheduler.kind, settings.tools) == ("embedded", "local", {})
    assert settings.python == sys.executable


def test_a_whole_site(site: Path) -> None:
    site.write_text(
        """
        [containers]
        binds = ["/scratch", { source = "/refs", read_only = true }]
        [tools.warp]
        image = "/images/warp.sif"
        version = "2.0"
        [tools.aretomo2]
        executable = "/opt/AreTomo2"
        [scheduler]
        kind = "slurm"
        [scheduler.jobs.fsMotionAndCtf]
        gpus = 2
        memory_gb = 64
        """
    )
    settings = load_settings()
    assert settings.engine == "embedded"
    assert settings.tools["warp"].version == "2.0"
    assert [bind.read_only for bind in settings.containers.binds] == [False, True]
    assert settings.scheduler.jobs["fsMotionAndCtf"].gpus == 2
    assert settings.scheduler.submit == "sbatch"
    assert settings.scheduler.fields[0] == "partition"


def test_the_environment_goes_before_the_file(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.write_text('[scheduler]\nkind = "slurm"\n[scheduler.defaults]\npartition = "cpu"\n')
    monkeypatch.setenv("CRBOOST_SCHEDULER__DEFAULTS__PARTITION", "fast")
    monkeypatch.setenv("CRBOOST_TOOLS__IMOD__EXECUTABLE", "/opt/imod/bin/imod")
    settings = load_settings()
    assert (settings.scheduler.kind, settings.scheduler.defaults.partition) == ("slurm", "fast")
    assert settings.tools["imod"].executable == "/opt/imod/bin/imod"


def test_every_field_of_the_example_is_right(site: Path, tmp_path: Path) -> None:
    """The example as it is, and with all that is commented out."""
    text = EXAMPLE.read_text()
    site.write_text(text)
    assert load_settings() == Settings(_env_prefix="NONE_")  # type: ignore[call-arg]
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        is_setting = line.startswith("# ") and (bare.startswith("[") or " = " in bare)
        lines.append(bare if is_setting else line)
    image = tmp_path / "r.sif"
    image.touch()
    full = "\n".join(lines).replace("/software/images/relion-5.1.sif", str(image))
    site.write_text(full.replace("/usr/bin/apptainer", "/bin/true"))
    settings = load_settings()
    assert settings.engine == "relion"
    assert settings.scheduler.jobs["fsMotionAndCtf"].constraint == "a100"
    assert settings.scheduler.defaults.site == {"account": "cryoem"}
    assert settings.relion.client_binds is not None
    assert settings.service.presets is not None


class TestErrors:
    def test_a_value_in_the_file(self, site: Path) -> None:
        site.write_text('[scheduler]\nkind = "slrum"\n')
        with pytest.raises(ParameterError) as told:
            load_settings()
        assert f"{site}: scheduler.kind = 'slrum'" in str(told.value)

    def test_a_value_in_the_environment(self, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CRBOOST_SCHEDULER__POLL_S", "-1")
        with pytest.raises(ParameterError) as told:
            load_settings()
        words = "environment variable CRBOOST_SCHEDULER__POLL_S: scheduler.poll_s = '-1'"
        assert words in str(told.value)

    def test_all_at_once(self, site: Path) -> None:
        site.write_text(
            'schemer = "x"\n[tools.relion]\nimage = "r.sif"\n[containers]\nbinds = ["here"]\n'
        )
        with pytest.raises(ParameterError) as told:
            load_settings()
        for words in ("schemer = 'x'", "tools.relion.image = 'r.sif'", "containers.binds.0.source"):
            assert words in str(told.value)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("schemr = 1", "schemr: there is no such setting"),
            ("[scheduler]\nmemory = 1", "scheduler.memory: there is no such setting"),
            ("[tools.warpp]\nimage = '/x'", "did you mean warp?"),
            ("[tools.relion]\nversion = '5'", "needs an image or an executable"),
            ("[scheduler.defaults]\nmemory_gb = 0", "scheduler.defaults.memory_gb = 0"),
            ("[scheduler]\ngpu_resource = 'gpu'", "must contain {gpus}"),
            ('[scheduler]\nsetup = ["a\\nb"]', "one line each"),
            ("[containers]\nenvironment = ['A B']", "not the name of an environment variable"),
            ("schemer = 'relion'", "no tools.relion"),
            ("[service]\ndirectory = 'here'", "service.directory = 'here': must be an absolute"),
            ("[service]\nport = 99999", "service.port = 99999"),
            ("[service]\nauth = false\nhost = '0.0.0.0'", "host 0.0.0.0 without a login"),
            ("[service]\nauth = false\nhost = 'headnode'", "host headnode without a login"),
        ],
    )
    def test_what_is_wrong(self, site: Path, text: str, words: str) -> None:
        site.write_text(text)
        with pytest.raises(CrboostError) as told:
            load_settings()
        assert words in str(told.value)

    def test_a_password_is_not_shown(self, site: Path) -> None:
        site.write_text('[service]\ndatabase_url = "postgresql://me:secret@db/prefect"\n')
        with pytest.raises(ParameterError, match=r"must begin with postgresql\+asyncpg") as told:
            load_settings()
        assert "secret" not in str(told.value)

    def test_not_toml(self, site: Path) -> None:
        site.write_text("[scheduler]\nkind = slurm\n")
        with pytest.raises(FileFormatError) as told:
            load_settings()
        assert told.value.line == 2

    def test_an_image_that_is_not_there(self, site: Path, tmp_path: Path) -> None:
        site.write_text(f'[tools.relion]\nimage = "{tmp_path}/gone.sif"\n')
        with pytest.raises(CrboostError, match="there is no such image"):
            load_settings()

    def test_an_engine_that_is_not_there(self, site: Path, tmp_path: Path) -> None:
        (tmp_path / "r.sif").touch()
        site.write_text(
            f'[tools.relion]\nimage = "{tmp_path}/r.sif"\n[containers]\nexecutable = "/no/engine"\n'
        )
        with pytest.raises(CrboostError, match="/no/engine cannot be found"):
            load_settings()

    def test_a_tool_that_a_job_needs(self) -> None:
        with pytest.raises(ParameterError, match=r"no tools\.ctffind") as told:
            load_settings().tool("ctffind")
        assert str(settings_file()) in str(told.value)


def test_reading_them_is_no_wait() -> None:
    """`crboost status` pays for this import: processor time, since machines are busy."""
    code = (
        "from time import process_time; start = process_time(); import crboost.settings; "
        "print(process_time() - start)"
    )
    argv = [sys.executable, "-c", code]
    said = [subprocess.run(argv, capture_output=True, check=True).stdout for _ in range(3)]
    assert min(float(seconds) for seconds in said) < 0.4  # 0.15 s on a free machine


def test_a_settings_file_that_is_named_must_be_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CRBOOST_SETTINGS", str(tmp_path / "gone.toml"))
    with pytest.raises(CrboostError, match=r"gone\.toml: no such file"):
        load_settings()


class TestService:
    def test_its_directory_follows_the_user(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        assert load_settings().service.directory == tmp_path / ".local/state/crboost"
        monkeypatch.setenv("XDG_STATE_HOME", "/state")
        assert load_settings().service.directory == Path("/state/crboost")
        monkeypatch.setenv("CRBOOST_SERVICE__DIRECTORY", "~/service")
        assert load_settings().service.directory == tmp_path / "service"

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.1.1", "::1", "localhost"])
    def test_this_machine_needs_no_login(self, site: Path, host: str) -> None:
        site.write_text(f"[service]\nauth = false\nhost = '{host}'\n")
        assert not load_settings().service.auth

    def test_it_is_not_frozen_with_a_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A database's password does not belong into a project."""
        url = "postgresql+asyncpg://me:secret@db/prefect"
        monkeypatch.setenv("CRBOOST_SERVICE__DATABASE_URL", url)
        settings = load_settings()
        assert settings.service.database_url == url
        assert "secret" not in settings.model_dump_json() + repr(settings)
