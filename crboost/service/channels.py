"""Whether messages can be sent to the channels of `service.notify` at all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from crboost.errors import ParameterError
from crboost.settings import ChannelSettings, settings_file

#: Prefect variable that says why the automations could not be made; "": they could.
PROBLEM_VARIABLE = "crboost_notify_problem"


def check_address(channel: ChannelSettings) -> None:
    """See that Apprise knows this kind of address.

    Raises:
        ParameterError: it does not, or the address cannot be read. The message does not show the
            address, which holds secrets.
    """
    from apprise import Apprise  # slow to import

    if Apprise.instantiate(channel.address(), suppress_exceptions=True) is None:
        kind = channel.address().partition(":")[0]
        raise ParameterError(
            f"service.notify: channel {channel.name!r}: this is no address that Apprise can send "
            f"to (it begins with {kind}:)",
            hint=f"docs/notifications.md shows some; correct it in {settings_file()}",
        )


def channel_problems(channels: Iterable[ChannelSettings]) -> dict[str, str]:
    """The channels that nothing can be sent to, by name, and why."""
    found = {}
    for channel in channels:
        try:
            check_address(channel)
        except ParameterError as error:
            found[channel.name] = error.message
    return found


def address_digest(channel: ChannelSettings) -> str:
    """Changes with the address, also where that stands in a file; does not give it away."""
    try:
        address = channel.address()
    except ParameterError:
        return "not to be read"
    return hashlib.sha256(address.encode()).hexdigest()
