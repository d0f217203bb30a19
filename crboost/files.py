"""Writing files so that nobody ever sees half of one."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write `text` to `path` under a temporary name in the same directory, then rename it.

    A reader sees the old file or the new one. A file's permissions follow the umask, as
    they would from a plain `open`, or are `mode`.
    """
    write_bytes(path, text.encode("utf-8"), mode=mode)


def write_bytes(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write `data` to `path` under a temporary name in the same directory, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o666 & ~_umask() if mode is None else mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, with the guarantee of `write_text`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileFormatError: the file is not JSON in UTF-8; names the line.
    """
    from crboost.errors import FileFormatError

    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise FileFormatError(path, f"not valid JSON: {error.msg}", line=error.lineno) from error
    except UnicodeDecodeError as error:
        raise FileFormatError(path, f"not UTF-8 text: byte {error.start} is not") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`: for a read, a change and a write that belong together.

    The kernel gives it back, however its holder ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _umask() -> int:
    """The process's umask, read from /proc: os.umask() would have to set it to tell it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
