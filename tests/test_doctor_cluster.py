"""What doctor makes of a cluster and of what jobs ask of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crboost.doctor.cluster import (
    ClusterFacts,
    absent_commands,
    judge_cluster,
    judge_commands,
    minutes_of,
    parse_gres,
    parse_nodes,
)
from crboost.doctor.findings import Finding
from crboost.doctor.requests import (
    gpu_request,
    judge_job_names,
    judge_job_types,
    judge_requests,
    requests,
)
from crboost.doctor.submission import (
    TemplateFacts,
    judge_command_inside,
    judge_dry_run,
    judge_inside,
    judge_template,
    script_of,
    templates,
)
from crboost.scheduler.ask import Answer
from crboost.scheduler.cluster import Limits
from crboost.settings import DEFAULT_EXTRA, SchedulerSettings, Settings

TEXTS = Path(__file__).parent / "scheduler" / "texts"
OK = Answer(0, "", "")
FINE = {"partition": "cpu", "memory_gb": 8, "cpus": 4, "time_limit_minutes": 60}


def sinfo(name: str = "sinfo_partitions") -> str:
    """What a real sinfo printed."""
    lines = (TEXTS / f"{name}.txt").read_text().splitlines()
    return "\n".join(line for line in lines if not line.startswith("# "))


def site(defaults: dict[str, Any] = FINE, **more: Any) -> SchedulerSettings:
    """Slurm settings whose retries stay within the recorded cluster."""
    limits = {"max_memory_gb": 15, "max_time_limit_minutes": 600}
    return SchedulerSettings.model_validate(
        {"kind": "slurm", "defaults": defaults, **limits, **more}
    )


def judged(scheduler: SchedulerSettings, text: str | None = None) -> list[Finding]:
    """Findings on the requests of a site."""
    kinds = parse_nodes(sinfo() if text is None else text)
    return judge_requests(requests(scheduler), kinds, scheduler)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("infinite", None),
        ("1:00", 1),
        ("30", 30),
        ("2:30:00", 150),
        ("1-00:00:00", 1440),
        ("2-12", 3600),
        ("n/a", None),
    ],
)
def test_times(text: str, minutes: int | None) -> None:
    assert minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("gpu:2", {"": 2}),
        ("gpu:a100:4(S:0-1)", {"a100": 4}),
        ("gpu:a100:4(S:0,2),gpu:v100:2,shard:8", {"a100": 4, "v100": 2}),
        ("(null)", {}),
    ],
)
def test_gres(text: str, gpus: dict[str, int]) -> None:
    assert parse_gres(text) == gpus


def test_gpu_request() -> None:
    assert gpu_request("gpu:2") == ("", 2)
    assert gpu_request("gpu:a100:3") == ("a100", 3)


def test_recorded_partitions() -> None:
    kinds = {kind.partition: kind for kind in parse_nodes(sinfo())}
    cpu, short = kinds["cpu"], kinds["short"]
    assert (cpu.is_default, cpu.cpus, cpu.memory_mb, cpu.gpus) == (True, 8, 16000, {"": 2})
    assert (short.is_default, short.time_limit_minutes) == (False, 1)
    drained = {kind.partition: kind for kind in parse_nodes(sinfo("sinfo_partitions_drained"))}
    assert (drained["cpu"].usable, drained["spare"].usable) == (True, False)


def test_what_can_be_had() -> None:
    (finding,) = judged(site())
    assert (finding.check, finding.status) == ("scheduler.requests", "ok")


@pytest.mark.parametrize(
    ("changes", "check", "found", "fix"),
    [
        ({"partition": "cpus"}, "scheduler.partition", "no partition cpus", "did you mean cpu?"),
        ({"partition": "cpu,nope"}, "scheduler.partition", "no partition nope", "spare"),
        ({"memory_gb": 16}, "scheduler.memory_gb", "no node of partition cpu", "15 or less"),
        ({"cpus": 9}, "scheduler.cpus", "cpus = 9", "8 or less"),
        ({"partition": "short"}, "scheduler.time_limit_minutes", "short allows 1", "1 or less"),
    ],
)
def test_what_cannot(changes: dict[str, Any], check: str, found: str, fix: str) -> None:
    finding = judged(site({**FINE, **changes}))[0]
    assert (finding.check, finding.status) == (check, "failed")
    assert found in finding.found
    assert finding.found.startswith("scheduler.defaults: ")
    assert fix in finding.fix


def test_a_mistake_in_the_defaults_is_told_once() -> None:
    scheduler = site({**FINE, "partition": "nope"}, jobs={"tsAlignment": {"cpus": 2}})
    (finding,) = judged(scheduler)
    assert finding.found.startswith("scheduler.defaults, scheduler.jobs.tsAlignment: ")


def test_gpus() -> None:
    assert judged(site(gpu_defaults={"partition": "gpu", "gpus": 2}))[0].status == "ok"
    many = judged(site(gpu_defaults={"partition": "gpu", "gpus": 3}))[0]
    assert (many.check, "gpu x 2" in many.found) == ("scheduler.gpus", True)
    typed = site(gpu_defaults={"gpus": 1}, gpu_resource="gpu:a100:{gpus}")
    assert "1 GPUs of type a100" in judged(typed)[0].found
    none = judged(site(jobs={"fsMotionAndCtf": {"partition": "spare", "gpus": 1, "memory_gb": 2,
                                                "cpus": 1}}))[0]  # fmt: skip
    assert "nodes of partition spare have none" in none.found


def test_a_partition_without_nodes() -> None:
    small = {"partition": "spare", "memory_gb": 1, "cpus": 1}
    finding = judged(site(small), sinfo("sinfo_partitions_drained"))[0]
    assert (finding.status, "(drained)" in finding.found) == ("failed", True)


def test_no_default_partition() -> None:
    scheduler = site({"memory_gb": 1, "cpus": 1})
    assert judged(scheduler)[0].status == "ok"
    finding = judged(scheduler, sinfo().replace("cpu*", "cpu"))[0]
    assert (finding.status, "no default one" in finding.found) == ("failed", True)


def test_retries_stay_within_the_cluster() -> None:
    (_, memory) = judged(site(max_memory_gb=512))
    assert (memory.status, memory.fix) == ("warning", "scheduler.max_memory_gb = 15")
    short = site({**FINE, "partition": "short", "time_limit_minutes": 1})
    assert judged(short)[1].fix == "scheduler.max_time_limit_minutes = 1"


def test_job_types_that_need_more_than_there_is() -> None:
    """Only where the settings leave it to them, and they are told apart from the settings."""
    kinds = parse_nodes(sinfo())

    def told(scheduler: SchedulerSettings) -> list[Finding]:
        return judge_job_types(kinds, scheduler, requests(scheduler))

    assert told(site()) == []
    found = told(site({"partition": "cpu"}))
    assert {one.status for one in found} == {"warning"}
    text = "\n".join(one.found for one in found)
    assert "class3d, refine3d: memory_gb = 64: no node of partition cpu has more than 15 GB" in text
    assert "memory_gb = 32" not in text  # that of most types is told of scheduler.defaults
    small = {name: {"memory_gb": 8} for name in ("class3d", "REFINE3D")}
    assert not any("class3d" in one.found for one in told(site({"partition": "cpu"}, jobs=small)))


def test_job_names() -> None:
    (finding,) = judge_job_names(site(jobs={"tsAlignement": {"cpus": 2}}))
    assert (finding.status, finding.fix) == ("warning", "did you mean tsAlignment?")
    assert judge_job_names(site(jobs={"tsalignment": {"cpus": 2}})) == []


# --- the controller --------------------------------------------------------------------------


def test_a_controller_that_is_away() -> None:
    answer = Answer(1, "", "slurm_load_partitions: Unable to contact slurm controller")
    (finding,) = judge_cluster(ClusterFacts(answer, None, None), 30)
    assert (finding.check, finding.status) == ("scheduler.answers", "failed")
    assert "Unable to contact" in finding.found


@pytest.mark.parametrize(
    ("limits", "sacct", "statuses"),
    [
        (Limits(3600, 1001, True), OK, ["ok", "ok", "ok"]),
        (Limits(300, 1001, False), Answer(1, "", "disabled"), ["ok", "ok", "warning"]),
        (Limits(10, 1001, False), Answer(1, "", "disabled"), ["ok", "warning", "warning"]),
        (Limits(10, 1001, True), OK, ["ok", "ok", "ok"]),
        (None, OK, ["ok", "warning", "warning"]),
    ],
)
def test_limits(limits: Limits | None, sacct: Answer, statuses: list[str]) -> None:
    facts = ClusterFacts(Answer(0, sinfo(), ""), limits, sacct)
    assert [one.status for one in judge_cluster(facts, 30)] == statuses


def test_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    absent = absent_commands(site())
    assert absent == ["squeue", "scontrol", "scancel", "sinfo"]
    assert judge_commands(site(), absent).status == "failed"
    assert absent_commands(SchedulerSettings(kind="pbs")) == ["qsub"]
    wrapper = site(submit_command=f"{tmp_path}/sbatch --export=NONE")
    assert "sbatch" not in " ".join(absent_commands(wrapper))


# --- templates and submission ----------------------------------------------------------------


def slurm(**scheduler: Any) -> Settings:
    """An installation with Slurm."""
    return Settings.model_validate({"scheduler": {"kind": "slurm", **scheduler}})


@pytest.mark.parametrize("kind", ["slurm", "pbs", "sge", "lsf"])
def test_our_templates_are_fine(kind: str) -> None:
    settings = Settings.model_validate(
        {
            "tools": {"relion": {"executable": "relion_schemer"}},
            "scheduler": {"kind": kind, "defaults": FINE},
        }
    )
    every = requests(settings.scheduler)
    found = templates(settings, None)
    assert found
    for one in found:
        assert [each.status for each in judge_template(one, settings, every)] == ["ok"]


def test_a_template_with_an_unknown_placeholder(tmp_path: Path) -> None:
    path = tmp_path / "ours.sh"
    path.write_text(
        "#!/bin/bash\n#SBATCH --qos=XXXqosXXX\n#SBATCH -t XXXextra9XXX\nXXXcommandXXX\n"
    )
    settings = slurm(template=str(path))
    (finding,) = judge_template(templates(settings, None)[0], settings, [])
    assert (finding.check, finding.status) == ("scheduler.template", "failed")
    assert "line 2: XXXqosXXX is no placeholder" in finding.found
    assert "line 3: XXXextra9XXX: scheduler.extra has only 8 fields" in finding.found


def test_a_template_that_is_not_there() -> None:
    settings = slurm(template_gpu="ours.sh")
    found = {one.setting: one for one in templates(settings, None)}
    (finding,) = judge_template(found["template_gpu"], settings, [])
    assert (finding.check, finding.status) == ("scheduler.template_gpu", "failed")
    assert "looked for" in finding.found


def test_a_field_that_never_reaches_the_scheduler() -> None:
    settings = slurm(
        extra=[*DEFAULT_EXTRA["slurm"], "account"],
        defaults={**FINE, "site": {"account": "cryo"}},
    )
    facts = templates(settings, None)[0]
    (finding,) = judge_template(facts, settings, requests(settings.scheduler))
    assert finding.status == "warning"
    assert "no place for account" in finding.found
    mended = TemplateFacts(
        facts.setting,
        facts.name,
        facts.path,
        facts.text.replace("#SBATCH --no-req", "#SBATCH --account=XXXextra9XXX\n#SBATCH --no-req"),
    )
    (finding,) = judge_template(mended, settings, requests(settings.scheduler))
    assert finding.status == "ok"


def test_the_script_is_the_one_of_a_job() -> None:
    settings = slurm(defaults=FINE)
    script = script_of(requests(settings.scheduler)[0], settings, None)
    for line in ("--partition=cpu", "--cpus-per-task=4", "--mem=8G", "--time=01:00:00"):
        assert f"#SBATCH {line}\n" in script
    assert "XXX" not in "\n".join(line for line in script.splitlines() if line[:7] == "#SBATCH")


def test_what_sbatch_refuses() -> None:
    (request,) = requests(site())
    assert judge_dry_run([(request, OK)]).status == "ok"
    refused = Answer(1, "", "sbatch: error: invalid partition specified: nope\n")
    finding = judge_dry_run([(request, refused)])
    assert (finding.status, "scheduler.defaults.partition" in finding.fix) == ("failed", True)
    account = Answer(1, "", "sbatch: error: Invalid account or account/partition combination\n")
    assert "scheduler.defaults.site" in judge_dry_run([(request, account)]).fix


@pytest.mark.parametrize(
    ("said", "lacks"),
    [
        ("sbatch: error: Unable to establish configuration source", "/etc/slurm"),
        ("error: Munge encode failed: Failed to access \"/run/munge\"", "/run/munge"),
        ("sbatch: error while loading shared libraries: libslurmfull.so: cannot open", "library"),
        ("FATAL: stat /usr/bin/sbatch: no such file or directory: not found", "bind sbatch"),
        ("sbatch: error: Invalid user id", "/etc/passwd"),
    ],
)  # fmt: skip
def test_what_sbatch_lacks_in_a_container(said: str, lacks: str) -> None:
    finding = judge_inside(Answer(1, "", said), OK)
    assert (finding.status, lacks in finding.fix) == ("failed", True)
    # Not the controller's word, even if both machines say it.
    assert judge_inside(Answer(1, "", said), Answer(1, "", said)).status == "failed"


def test_the_controller_is_reached_also_where_it_refuses() -> None:
    refused = Answer(1, "", "allocation failure: Invalid partition name specified")
    assert judge_inside(refused, refused).status == "ok"
    assert judge_inside(refused, OK).status == "failed"
    assert judge_inside("no sbatch here", None).status == "failed"


def test_schedulers_that_are_not_asked() -> None:
    """Their command in the container is not found by itself: only Slurm's client is."""
    settings = Settings.model_validate({"scheduler": {"kind": "pbs"}})
    assert judge_command_inside(settings, Answer(0, "/opt/pbs/bin/qsub", "")).status == "ok"
    finding = judge_command_inside(settings, Answer(127, "", ""))
    assert (finding.status, "relion.client_binds" in finding.fix) == ("failed", True)
