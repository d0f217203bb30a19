"""`python -m flows.notifications`: blocks and automations that tell people what happened.

What is told where stands in the settings (`service.notify`). One block per channel, one automation
per kind of news; doing it again changes what has changed, and takes away what is no longer wanted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.blocks.abstract import NotificationError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from pydantic import SecretStr

from crboost.errors import CrboostError, ParameterError
from crboost.service.channels import channel_problems, check_address
from crboost.settings import load_settings
from flows.events import FAILED_TOO_MANY, FINISHED, QUIET, STUCK
from flows.notification_channel import NotificationChannel

if TYPE_CHECKING:
    from crboost.settings import ChannelSettings, News

#: What the names of our automations begin with.
PREFIX = "crboost: "
_BLOCK_PREFIX = "crboost-"
_PROJECT = "crboost.project.*"


@dataclass(frozen=True)
class Message:
    """What is told of one kind of news, in Prefect's templates (Jinja).

    Attributes:
        news: the kind.
        title: of the automation, after `PREFIX`.
        expect: the events that are news.
        resource: whose events.
        tags: the flow run has one of them; none: the event is not of a flow run.
        for_each: what is told of by itself: a busy project does not hide news of another one.
        silence: after a message, nothing of the same is told for so long.
    """

    news: News
    title: str
    expect: frozenset[str]
    resource: str
    subject: str
    body: str
    tags: tuple[str, ...] = ()
    for_each: str = "prefect.resource.id"
    silence: timedelta = timedelta(0)


_LOOK = """
Project: {{ event.payload.project_dir }}
On the headnode: crboost status '{{ event.payload.project_dir }}'
"""

# Not `Stopped`: `crboost down` and upgrades end runs too.
_FAILED = frozenset({"prefect.flow-run.Failed", "prefect.flow-run.Crashed"})

MESSAGES: tuple[Message, ...] = (
    Message(
        news="failed-run",
        title="a run failed",
        expect=_FAILED,
        resource="prefect.flow-run.*",
        tags=("process", "stage", "plan", "housekeeping"),
        subject="crboost: {{ flow_run.name }}: {{ flow_run.state.name | lower }}",
        body="""\
{{ flow_run.state.message or "The run gave no reason." }}

{% if flow_run.parameters.project_dir -%}
Project: {{ flow_run.parameters.project_dir }}
{% endif -%}
Flow run: {{ flow.name }}, {{ flow_run | ui_url }}
{% if flow_run.parameters.project_dir -%}
On the headnode: crboost log '{{ flow_run.parameters.project_dir }}'
{% endif -%}
Start it again when the cause is mended: it repeats nothing that is done.
""",
    ),
    Message(
        news="failed-run",
        title="new data cannot be taken in",
        expect=_FAILED,
        resource="prefect.flow-run.*",
        tags=("ingest",),
        # It is tried every few minutes, and fails until somebody does something.
        for_each="related:flow:prefect.resource.id",
        silence=timedelta(hours=6),
        subject="crboost: new data cannot be taken in",
        body="""\
{{ flow_run.state.message or "The run gave no reason." }}

Flow run: {{ flow.name }}, {{ flow_run | ui_url }}
It is tried again every few minutes; this is told again in six hours.
""",
    ),
    Message(
        news="failed-tilt-series",
        title="many tilt series failed",
        expect=frozenset({FAILED_TOO_MANY}),
        resource=_PROJECT,
        subject="crboost: {{ event.payload.project }}: {{ event.payload.failed }} tilt series "
        "failed",
        body="{{ event.payload.failed }} tilt series of this session have failed (to be told from "
        "{{ event.payload.threshold }} on): {{ event.payload.names | join(', ') }}\n" + _LOOK,
    ),
    Message(
        news="quiet",
        title="no new data",
        expect=frozenset({QUIET}),
        resource=_PROJECT,
        subject="crboost: {{ event.payload.project }}: no new data",
        body="No new data for {{ event.payload.minutes }} minutes. Is the microscope still "
        "recording?\n" + _LOOK,
    ),
    Message(
        news="stuck",
        title="a session is stuck",
        expect=frozenset({STUCK}),
        resource=_PROJECT,
        subject="crboost: {{ event.payload.project }}: data are not taken in",
        body="For {{ event.payload.minutes }} minutes no data could be taken in:\n"
        "{{ event.payload.reason }}\n\n"
        "It is tried again and again, and nothing is lost; this is told once.\n" + _LOOK,
    ),
    Message(
        news="finished",
        title="a session finished",
        expect=frozenset({FINISHED}),
        resource=_PROJECT,
        subject="crboost: {{ event.payload.project }}: session finished",
        body="""\
The session has ended. Taken in: {{ event.payload.complete }} complete tilt series, \
{{ event.payload.partial }} partial ones.
{% if event.payload.left_out -%}
Left out, as they were still being written: {{ event.payload.left_out | join(', ') }}
{% endif -%}
What has not been processed yet goes on by itself.
"""
        + _LOOK,
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.notifications", description=__doc__)
    parser.add_argument("--test", action="store_true", help="send one message to each channel")
    arguments = parser.parse_args(argv)
    try:
        channels = load_settings().service.notify
        if arguments.test:
            return send_test(channels)
        with get_client(sync_client=True) as client:
            problems = apply(client, channels)
    except CrboostError as error:
        print(error, file=sys.stderr)
        return 1
    for problem in problems:
        print(problem, file=sys.stderr)
    return min(1, len(problems))


def apply(client: SyncPrefectClient, channels: Sequence[ChannelSettings]) -> list[str]:
    """Make the server's blocks and automations those of these channels.

    An automation that somebody has paused on Prefect's page stays paused. Channels that nothing
    can be sent to are left out.

    Returns:
        Why, for each of those.
    """
    problems = channel_problems(channels)
    channels = [one for one in channels if one.name not in problems]
    blocks = {channel.name: _save_block(client, channel) for channel in channels}
    wanted = automations(channels, blocks)
    known = {one.name: one for one in _our_automations(client)}
    for name, automation in wanted.items():
        if name in known:
            kept = automation.model_copy(update={"enabled": known[name].enabled})
            client.update_automation(known[name].id, kept)
        else:
            client.create_automation(automation)
    for name, stale in known.items():
        if name not in wanted:
            client.delete_automation(stale.id)
    _delete_other_blocks(client, set(blocks.values()))
    return list(problems.values())


def automations(
    channels: Sequence[ChannelSettings], blocks: Mapping[str, UUID]
) -> dict[str, AutomationCore]:
    """The automations for these channels, by name.

    Args:
        blocks: the block of each channel, by the channel's name.
    """
    made = {}
    for message in MESSAGES:
        told = [blocks[channel.name] for channel in channels if message.news in channel.news]
        if told:
            name = PREFIX + message.title
            made[name] = _automation(name, message, told)
    return made


def _automation(name: str, message: Message, blocks: Sequence[UUID]) -> AutomationCore:
    tags = [f"prefect.tag.{tag}" for tag in message.tags]
    related: dict[str, str | list[str]] = {"prefect.resource.id": tags} if tags else {}
    return AutomationCore(
        name=name,
        description="Made by crboost from service.notify in its settings.",
        trigger=EventTrigger(
            expect=set(message.expect),
            match=ResourceSpecification({"prefect.resource.id": message.resource}),
            match_related=ResourceSpecification(related),
            for_each={message.for_each},
            posture=Posture.Reactive,
            threshold=1,
            within=message.silence,
        ),
        actions=[
            SendNotification(block_document_id=block, subject=message.subject, body=message.body)
            for block in blocks
        ],
    )


def send_test(channels: Sequence[ChannelSettings]) -> int:
    """Send a message to each channel from this machine; returns how many could not be sent."""
    failed = 0
    for channel in channels:
        try:
            check_address(channel)
        except ParameterError as error:
            failed += 1
            print(f"{channel.name}: not sent: {error}", file=sys.stderr)
            continue
        block = NotificationChannel(url=SecretStr(channel.address()))
        news = ", ".join(channel.news)
        try:
            with block.raise_on_failure():
                block.notify(f"This channel gets: {news}.", "crboost: a test message")
        except NotificationError as error:
            failed += 1
            why = error.log.strip() or "Apprise gave no reason"
            print(f"{channel.name}: not sent: {why}", file=sys.stderr)
        else:
            print(f"{channel.name}: sent")
    return failed


def _save_block(client: SyncPrefectClient, channel: ChannelSettings) -> UUID:
    block = NotificationChannel(url=SecretStr(channel.address()))
    return UUID(str(block.save(_BLOCK_PREFIX + channel.name, overwrite=True)))


def _our_automations(client: SyncPrefectClient) -> list[_Known]:
    body = {
        "limit": 200,
        "automations": {"name": {"any_": [PREFIX + one.title for one in MESSAGES]}},
    }
    found = client.request("POST", "/automations/filter", json=body).json()
    return [_Known(UUID(one["id"]), one["name"], one["enabled"]) for one in found]


@dataclass(frozen=True)
class _Known:
    id: UUID
    name: str
    enabled: bool


def _delete_other_blocks(client: SyncPrefectClient, kept: set[UUID]) -> None:
    """Channels that the settings no longer name; their secrets go with them."""
    slug = {"slug": {"any_": [NotificationChannel.get_block_type_slug()]}}
    found = client.request("POST", "/block_documents/filter", json={"block_types": slug}).json()
    for one in found:
        if str(one["name"]).startswith(_BLOCK_PREFIX) and UUID(one["id"]) not in kept:
            client.delete_block_document(UUID(one["id"]))


if __name__ == "__main__":
    sys.exit(main())
