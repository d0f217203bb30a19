"""Where a value came from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Source = Literal["default", "mdoc", "preset", "user"]

BY_HAND = "edited in the file"


class Origin(BaseModel):
    """Where a value came from.

    `value` is the value that it had then: a value that was edited in the file since is the
    user's, whatever is recorded here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Source
    detail: str = ""
    value: Any = None

    @property
    def is_chosen(self) -> bool:
        """Whether a person chose the value, as a user or for a preset: no mdoc overrules it."""
        return self.source in ("preset", "user")

    def __str__(self) -> str:
        return f"{self.source} ({self.detail})" if self.detail else self.source


def plain(value: Any) -> Any:
    """`value` as JSON would give it back."""
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value
