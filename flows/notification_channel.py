"""The block that a channel of notifications is: any address that Apprise can send to.

Prefect finds it by the entry point `prefect.collections` in every process that needs it, the
server too: it is the server that sends.
"""

from __future__ import annotations

from prefect.blocks.notifications import AppriseNotificationBlock
from pydantic import Field, SecretStr


class NotificationChannel(AppriseNotificationBlock):
    """Where crboost sends messages: Slack, e-mail, Teams, and all that Apprise knows."""

    _block_type_name = "crboost channel"
    _block_type_slug = "crboost-channel"
    _description = "Sends messages to Slack, by e-mail, and to whatever else Apprise knows."

    url: SecretStr = Field(
        title="Address",
        description="A Slack webhook, mailto://HOST?from=...&to=..., or another Apprise URL.",
        examples=["mailto://smtp.example.org:25?from=crboost@example.org&to=me@example.org"],
    )

    def block_initialization(self) -> None:
        """Take up the address; an e-mail is plain text unless the address says otherwise."""
        self._start_apprise_client(SecretStr(_as_text(self.url.get_secret_value())))


def _as_text(url: str) -> str:
    """Apprise sends e-mail as HTML, in which our lines would become one."""
    if not url.startswith(("mailto:", "mailtos:")) or "format=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}format=text"
