"""The `crboost` command: one file per group of commands.

Modules here import at the top only what every command needs (typer, the errors); pydantic,
numpy, rich and the rest of crboost are imported by the command that uses them.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script and of `python -m crboost`."""
    from crboost.cli.app import app

    app(prog_name="crboost")
