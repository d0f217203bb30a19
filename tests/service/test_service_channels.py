"""Channels of `service.notify`: which nothing can be sent to, and when one has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crboost.errors import ParameterError
from crboost.service.channels import channel_problems, check_address
from crboost.service.deployed import deployment_fingerprint
from crboost.settings import ChannelSettings, ServiceSettings


def channel(name: str = "chat", url: str = "json://127.0.0.1:1/", **more: Any) -> ChannelSettings:
    return ChannelSettings(name=name, url=url, **more)


def test_an_address_that_nobody_knows_is_refused_without_showing_it() -> None:
    with pytest.raises(ParameterError, match=r"'chat'.*begins with carrier-pigeon:") as caught:
        check_address(channel(url="carrier-pigeon://secret@loft"))
    assert "secret" not in str(caught.value)
    check_address(channel(url="https://hooks.slack.com/services/T0A/B0B/abc"))
    check_address(channel(url="mailto://smtp.example.org?from=a@b.org&to=c@d.org"))


def test_all_channels_with_a_problem_are_named(tmp_path: Path) -> None:
    lost = ChannelSettings(name="lost", url_file=tmp_path / "nowhere")
    problems = channel_problems([channel(), channel("bird", "carrier-pigeon://loft"), lost])
    assert list(problems) == ["bird", "lost"]
    assert "cannot be read" in problems["lost"]


def test_the_url_may_stand_in_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("json://127.0.0.1:1/\n")
    one = ChannelSettings(name="chat", url_file=path)
    assert one.address() == "json://127.0.0.1:1/"
    path.write_text("two words")
    with pytest.raises(ParameterError, match="one line"):
        one.address()


def test_a_new_address_in_the_same_file_is_a_change(tmp_path: Path) -> None:
    path = tmp_path / "url"
    service = ServiceSettings(
        directory=tmp_path / "state", notify=[ChannelSettings(name="chat", url_file=path)]
    )
    missing = deployment_fingerprint(service)
    path.write_text("json://127.0.0.1:1/old\n")
    old = deployment_fingerprint(service)
    assert old == deployment_fingerprint(service)
    path.write_text("json://127.0.0.1:1/new\n")
    assert len({missing, old, deployment_fingerprint(service)}) == 3
