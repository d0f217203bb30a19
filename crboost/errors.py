"""The errors that crboost raises on purpose: each says what is wrong, where, and what to do.

A program that catches `CrboostError` has caught every error that is the input's, the
installation's or a tool's fault; anything else is a bug in crboost.
"""

from __future__ import annotations

from pathlib import Path


class CrboostError(Exception):
    """An error with a message for a person.

    Args:
        message: what is wrong, naming the file, field and value.
        hint: what to do about it; printed on a line of its own.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  -> {self.hint}" if self.hint else self.message


class FileFormatError(CrboostError):
    """A file cannot be read as what it should be; names the file and, if known, the line."""

    def __init__(
        self, path: Path | str, problem: str, *, line: int | None = None, hint: str | None = None
    ) -> None:
        where = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {problem}", hint=hint)
        self.path = Path(path)
        self.line = line
        self.problem = problem


class ParameterError(CrboostError):
    """A parameter has a value that it must not have; names field, value, bound and unit."""


class ProjectError(CrboostError):
    """A project directory is missing something, or is not what it should be."""


class PlanError(CrboostError):
    """What was asked for cannot run; raised before anything starts."""


class SchemerError(CrboostError):
    """A scheme cannot be run, or its schemer does not do what it must."""


class ToolError(CrboostError):
    """A tool failed on one tilt series, or left out a file that it must write."""
