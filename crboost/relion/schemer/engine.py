"""The two engines that can run a scheme: the walker in this process, and `relion_schemer`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from crboost.errors import SchemerError
from crboost.process import dying_with_us
from crboost.relion.schemer import verbs
from crboost.relion.schemer.walker import Walker, WalkerOptions


class Engine(Protocol):
    """Runs schemes.

    The exit code says only whether the scheme could be run: it is 0 also after a job failed or
    was aborted, as `relion_schemer` does it. What became of the jobs stands in the ledger and
    in their markers.
    """

    @property
    def name(self) -> str:
        """`embedded` or `relion`."""
        ...

    def argv(self, scheme_name: str) -> list[str]:
        """What this engine runs, for the record."""
        ...

    def run(
        self,
        project_dir: Path,
        scheme_name: str,
        *,
        on_start: Callable[[int], None] | None = None,
    ) -> int:
        """Run the scheme to its end; output goes to this process's stdout and stderr.

        Args:
            on_start: called with the process id of the engine once it runs.

        Raises:
            CrboostError: it could not be run; a message for a person.
        """
        ...

    def abort(self, project_dir: Path, scheme_name: str) -> None:
        """Ask the running job, and then the schemer, to stop."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddedEngine:
    """The walker, in the calling process."""

    options: WalkerOptions = field(default_factory=WalkerOptions)

    @property
    def name(self) -> str:
        """`embedded`."""
        return "embedded"

    def argv(self, scheme_name: str) -> list[str]:
        """What this engine runs, for the record."""
        return ["crboost", "schemer", "walk", scheme_name]

    def run(
        self,
        project_dir: Path,
        scheme_name: str,
        *,
        on_start: Callable[[int], None] | None = None,
    ) -> int:
        """See `Engine`."""
        if on_start is not None:
            on_start(os.getpid())
        Walker(project_dir, scheme_name, self.options).run()
        return 0

    def abort(self, project_dir: Path, scheme_name: str) -> None:
        """See `Engine`."""
        verbs.abort(project_dir, scheme_name)


#: As often as relion_schemer itself looks.
WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class RelionEngine:
    """`relion_schemer`, on this machine or in a container.

    Attributes:
        argv_prefix: what comes before `relion_schemer`, such as `apptainer exec IMAGE`.
        environ: its whole environment. SBATCH_EXPORT=NONE keeps a container's variables out of
            submitted jobs; `job.extra_environment` makes it fill XXXextraNXXX.
        watch: called every second with project and scheme while relion_schemer runs; it ends
            jobs that relion_schemer would wait for in vain.
    """

    argv_prefix: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    program: str = "relion_schemer"
    watch: Callable[[Path, str], None] | None = None

    @property
    def name(self) -> str:
        """`relion`."""
        return "relion"

    def argv(self, scheme_name: str) -> list[str]:
        """What this engine runs."""
        verb = ["--scheme", scheme_name, "--run", "--verb", "2"]
        return [*self.argv_prefix, self.program, *verb]

    def run(
        self,
        project_dir: Path,
        scheme_name: str,
        *,
        on_start: Callable[[int], None] | None = None,
    ) -> int:
        """See `Engine`."""
        argv = self.argv(scheme_name)
        try:
            process = subprocess.Popen(
                argv,
                cwd=project_dir,
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                # Without its holder it would be a writer that nobody knows of (its jobs go on).
                preexec_fn=dying_with_us(),
            )
        except OSError as error:
            raise SchemerError(
                f"cannot run {argv[0]}: {error.strerror}",
                hint="the settings name the schemer engine and its command",
            ) from error
        if on_start is not None:
            on_start(process.pid)
        try:
            while True:
                try:
                    return process.wait(timeout=WATCH_S if self.watch is not None else None)
                except subprocess.TimeoutExpired:
                    assert self.watch is not None
                    self.watch(project_dir, scheme_name)
        except BaseException:
            process.terminate()
            process.wait()
            raise

    def abort(self, project_dir: Path, scheme_name: str) -> None:
        """See `Engine`; touches the same files as `relion_schemer --abort`."""
        verbs.abort(project_dir, scheme_name)
