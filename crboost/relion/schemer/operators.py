"""The operators of RELION's schemes: the nodes that compute, wait, look at files, or end a run.

Names and meanings are RELION's (`schemer.h`, `SchemerOperator::performOperation`). Two of
RELION's slips are not repeated: a plain number as second input counts as that number (RELION
takes 0), and the n-th word counts from the back for a negative n (RELION finds none).
"""

from __future__ import annotations

import glob
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from crboost.errors import FileFormatError, SchemerError
from crboost.relion.scheme import UNDEFINED, Operator, Scheme
from crboost.relion.schemer.substitute import format_variable, substitute_job_names
from crboost.relion.star import read_star

BOOL, FLOAT, STRING, NUMBER = "boolean", "number", "string", "number or number variable"

# What each operator needs: (output, input1, input2); "" is not checked.
SIGNATURES: dict[str, tuple[str, str, str]] = {
    "bool=set": (BOOL, BOOL, ""),
    "bool=and": (BOOL, BOOL, BOOL),
    "bool=or": (BOOL, BOOL, BOOL),
    "bool=not": (BOOL, BOOL, ""),
    "bool=gt": (BOOL, FLOAT, NUMBER),
    "bool=lt": (BOOL, FLOAT, NUMBER),
    "bool=ge": (BOOL, FLOAT, NUMBER),
    "bool=le": (BOOL, FLOAT, NUMBER),
    "bool=eq": (BOOL, FLOAT, NUMBER),
    "bool=file_exists": (BOOL, STRING, ""),
    "bool=read_star": (BOOL, STRING, ""),
    "float=set": (FLOAT, FLOAT, ""),
    "float=plus": (FLOAT, FLOAT, NUMBER),
    "float=minus": (FLOAT, FLOAT, NUMBER),
    "float=mult": (FLOAT, FLOAT, NUMBER),
    "float=divide": (FLOAT, FLOAT, NUMBER),
    "float=round": (FLOAT, FLOAT, ""),
    "float=count_images": (FLOAT, STRING, ""),
    "float=count_words": (FLOAT, STRING, ""),
    "float=read_star": (FLOAT, STRING, ""),
    "float=star_table_max": (FLOAT, STRING, ""),
    "float=star_table_min": (FLOAT, STRING, ""),
    "float=star_table_avg": (FLOAT, STRING, ""),
    "string=set": (STRING, STRING, ""),
    "string=join": (STRING, STRING, STRING),
    "string=before_first": (STRING, STRING, STRING),
    "string=after_first": (STRING, STRING, STRING),
    "string=before_last": (STRING, STRING, STRING),
    "string=after_last": (STRING, STRING, STRING),
    "string=read_star": (STRING, STRING, ""),
    "string=glob": (STRING, STRING, ""),
    "string=nth_word": (STRING, STRING, NUMBER),
    "touch_file": ("", STRING, ""),
    "copy_file": ("", STRING, STRING),
    "move_file": ("", STRING, STRING),
    "delete_file": ("", STRING, ""),
    "wait": ("", FLOAT, ""),
    "email": ("", "", ""),
    "exit_maxtime": ("", FLOAT, ""),
    "exit": ("", "", ""),
}


def check_operator(name: str, operator: Operator, scheme: Scheme) -> None:
    """Refuse an operator whose type is unknown or whose variables do not exist.

    Raises:
        SchemerError: names the operator, the field and its value.
    """
    where = f"{scheme.directory}scheme.star: operator {name}"
    if operator.type not in SIGNATURES:
        raise SchemerError(
            f"{where}: there is no operator type {operator.type!r} here",
            hint=f"known are: {', '.join(SIGNATURES)}",
        )
    fields = ("output", "input1", "input2")
    for field, kind in zip(fields, SIGNATURES[operator.type], strict=True):
        value = getattr(operator, field)
        if kind and not _fits(value, kind, scheme):
            raise SchemerError(f"{where} ({operator.type}): {field} {value!r} is not a {kind}")


def _fits(value: str, kind: str, scheme: Scheme) -> bool:
    if kind == BOOL:
        return value in scheme.bools
    if kind == STRING:
        return value in scheme.strings
    return value in scheme.floats or (kind == NUMBER and _as_number(value) is not None)


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


class OperatorRunner:
    """Performs operators on a scheme's variables; remembers the times that `wait` counts from.

    Args:
        project_dir: what paths are relative to.
        say: takes each line of output.
        abort_requested: asked while waiting.
        jobs_of: another scheme's jobs, see `substitute_job_names`.
    """

    def __init__(
        self,
        project_dir: Path,
        *,
        say: Callable[[str], None],
        abort_requested: Callable[[], bool],
        jobs_of: Callable[[str], Mapping[str, str]],
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._project_dir = project_dir
        self._say = say
        self._abort_requested = abort_requested
        self._jobs_of = jobs_of
        self._clock = clock
        self._sleep = sleep
        self._last_wait: float | None = None
        self._exit_time: float | None = None

    def perform(self, node: str, scheme: Scheme) -> bool:
        """Perform the operator `node`, changing the scheme's variables; False ends the run.

        Raises:
            SchemerError: the operator cannot be performed.
        """
        operator = scheme.operators[node]
        check_operator(node, operator, scheme)
        goes_on = self._perform(operator, scheme, node)
        if (value := scheme.value_of(operator.output)) is not None:
            self._say(f" + {node}: {operator.output} -> {format_variable(value)}")
        return goes_on

    def _perform(self, operator: Operator, scheme: Scheme, node: str) -> bool:
        kind = operator.type
        if kind == "exit":
            self._say(" + The scheme has reached an exit point. Exiting ...")
            return False
        if kind == "exit_maxtime":
            return self._before_exit_time(scheme.floats[operator.input1].value)
        if kind == "wait":
            self._wait(scheme.floats[operator.input1].value, operator, scheme)
        elif kind == "email":
            self._email(operator, scheme)
        elif kind.endswith("_file"):
            self._change_files(kind, operator, scheme, node)
        elif kind.startswith("bool="):
            scheme.bools[operator.output].value = self._bool(operator, scheme, node)
        elif kind.startswith("float="):
            scheme.floats[operator.output].value = self._float(operator, scheme, node)
        else:
            scheme.strings[operator.output].value = self._string(operator, scheme, node)
        return True

    # --- values ----------------------------------------------------------------------------

    def _bool(self, operator: Operator, scheme: Scheme, node: str) -> bool:
        kind = operator.type
        if kind == "bool=file_exists":
            return (self._project_dir / self._text(operator.input1, scheme, node)).exists()
        if kind == "bool=read_star":
            return self._star_value(operator, scheme, node) not in ("0", "False", "false")
        if kind in ("bool=set", "bool=not", "bool=and", "bool=or"):
            first = scheme.bools[operator.input1].value
            if kind == "bool=set":
                return first
            if kind == "bool=not":
                return not first
            second = scheme.bools[operator.input2].value
            return (first and second) if kind == "bool=and" else (first or second)
        difference = scheme.floats[operator.input1].value - _number(operator.input2, scheme)
        return {
            "bool=gt": difference > 0,
            "bool=lt": difference < 0,
            "bool=ge": difference >= 0,
            "bool=le": difference <= 0,
            "bool=eq": abs(difference) < 1e-8,
        }[kind]

    def _float(self, operator: Operator, scheme: Scheme, node: str) -> float:
        kind = operator.type
        if kind == "float=count_images":
            return float(self._count_images(operator, scheme, node))
        if kind == "float=count_words":
            return float(count_words(self._text(operator.input1, scheme, node)))
        if kind == "float=read_star":
            return _parse_number(self._star_value(operator, scheme, node), node)
        if kind.startswith("float=star_table_"):
            column = [_parse_number(v, node) for v in self._star_column(operator, scheme, node)]
            if not column:
                raise SchemerError(f"{node}: the table has no rows")
            if kind == "float=star_table_avg":
                return sum(column) / len(column)
            return max(column) if kind == "float=star_table_max" else min(column)
        first = scheme.floats[operator.input1].value
        if kind == "float=set":
            return first
        if kind == "float=round":
            return float(int(first + 0.5) if first >= 0 else int(first - 0.5))
        second = _number(operator.input2, scheme)
        if kind == "float=divide" and second == 0:
            raise SchemerError(f"{node}: cannot divide {operator.input1} by {operator.input2} = 0")
        return {
            "float=plus": lambda: first + second,
            "float=minus": lambda: first - second,
            "float=mult": lambda: first * second,
            "float=divide": lambda: first / second,
        }[kind]()

    def _string(self, operator: Operator, scheme: Scheme, node: str) -> str:
        kind = operator.type
        first = self._text(operator.input1, scheme, node)
        if kind == "string=set":
            return first
        if kind == "string=read_star":
            return self._star_value(operator, scheme, node)
        if kind == "string=glob":
            found = sorted(self._glob(first))
            return ",".join(found) or UNDEFINED
        if kind == "string=nth_word":
            return nth_word(first, round(_number(operator.input2, scheme)))
        second = self._text(operator.input2, scheme, node)
        if kind == "string=join":
            return first + second
        return split_at(first, second, kind.removeprefix("string="))

    def _text(self, variable: str, scheme: Scheme, node: str) -> str:
        """A string variable's value with job names replaced."""
        value = scheme.strings[variable].value
        replaced = substitute_job_names(value, scheme, self._jobs_of)
        if replaced != value:
            self._say(f" + {node}: {value} -> {replaced}")
        return replaced

    def _glob(self, pattern: str) -> list[str]:
        # Path.glob refuses absolute patterns, which the variables may hold.
        return glob.glob(pattern, root_dir=self._project_dir)  # noqa: PTH207

    # --- STAR files ------------------------------------------------------------------------

    def _count_images(self, operator: Operator, scheme: Scheme, node: str) -> int:
        path = self._project_dir / self._text(operator.input1, scheme, node)
        if not path.exists():
            return 0
        table = scheme.strings[operator.input2].value if operator.input2 in scheme.strings else ""
        return len(read_star(path).records(table or "particles"))

    def _star_column(self, operator: Operator, scheme: Scheme, node: str) -> tuple[str, ...]:
        text = self._text(operator.input1, scheme, node)
        parts = text.split(",")
        if len(parts) < 3:
            raise SchemerError(f"{node}: {operator.input1} is {text!r}, not FILE,TABLE,LABEL")
        path = self._project_dir / parts[0]
        try:
            block = read_star(path).get(parts[1])
        except FileNotFoundError:
            raise SchemerError(f"{node}: {path} does not exist") from None
        if block is None or not block.has(parts[2]):
            raise FileFormatError(path, f"no column {parts[2]} in a block data_{parts[1]}")
        return block.column(parts[2])

    def _star_value(self, operator: Operator, scheme: Scheme, node: str) -> str:
        column = self._star_column(operator, scheme, node)
        variable = scheme.floats.get(operator.input2)
        row = round(variable.value) if variable is not None else 0
        if not 0 <= row < len(column):
            raise SchemerError(f"{node}: row {row} of a table with {len(column)} rows")
        return column[row]

    # --- files -----------------------------------------------------------------------------

    def _change_files(self, kind: str, operator: Operator, scheme: Scheme, node: str) -> None:
        first = self._text(operator.input1, scheme, node)
        if kind == "touch_file":
            self._say(f" + Touching: {first}")
            (self._project_dir / first).touch()
            return
        sources = [self._project_dir / name for name in self._glob(first)]
        if kind == "delete_file":
            self._say(f" + Deleting: {first}")
            for source in sources:
                if source.is_file() or source.is_symlink():
                    source.unlink()
            return
        second = self._text(operator.input2, scheme, node)
        self._say(f" + {'Copying' if kind == 'copy_file' else 'Moving'}: {first} to {second}")
        target = self._project_dir / second
        parent = target if second.endswith("/") else target.parent
        parent.mkdir(parents=True, exist_ok=True)
        if not sources:
            self._say(f" WARNING: {node}: there is no file {first}")
        for source in sources:
            if kind == "copy_file":
                shutil.copy(source, target)
            else:
                shutil.move(source, target)

    # --- time ------------------------------------------------------------------------------

    def _wait(self, seconds: float, operator: Operator, scheme: Scheme) -> None:
        """Wait until `seconds` have passed since this was last reached; not at all at first."""
        if self._last_wait is not None:
            elapsed = self._clock() - self._last_wait
            if operator.output in scheme.floats:
                scheme.floats[operator.output].value = float(int(elapsed))
            if elapsed >= seconds:
                self._say(f" + Not waiting, as more than {seconds:g} seconds have passed.")
            else:
                self._say(f" + Waiting for {seconds - elapsed:g} seconds ...")
                self._sleep_until(self._last_wait + seconds)
                self._say(" + Finished waiting.")
        self._last_wait = self._clock()

    def _sleep_until(self, then: float) -> None:
        while (left := then - self._clock()) > 0:
            if self._abort_requested():
                self._say(" + Interrupted waiting due to a abort signal.")
                return
            self._sleep(min(left, 1.0))

    def _before_exit_time(self, hours: float) -> bool:
        now = self._clock()
        if self._exit_time is None:
            self._exit_time = now + hours * 3600
            self._say(f" + Setting exit time at: {time.asctime(time.gmtime(self._exit_time))}")
            return True
        if now < self._exit_time:
            return True
        self._say(f" + It is now: {time.asctime(time.gmtime(now))}")
        self._say(" + The scheme has reached its exit time. Exiting ...")
        return False

    def _email(self, operator: Operator, scheme: Scheme) -> None:
        """Only logged: a compute node rarely can send mail, and notices are the service's."""
        known = ((name, scheme.value_of(name)) for name in (operator.input1, operator.input2))
        values = [f"{name} = {format_variable(v)}" for name, v in known if v is not None]
        self._say(" + Not sending e-mail, only logging it: " + "; ".join(values))


def _number(name: str, scheme: Scheme) -> float:
    if name in scheme.floats:
        return scheme.floats[name].value
    return _as_number(name) or 0.0


def _parse_number(text: str, node: str) -> float:
    number = _as_number(text)
    if number is None:
        raise SchemerError(f"{node}: {text!r} in the STAR file is not a number")
    return number


def count_words(text: str) -> int:
    """How many comma-separated words; none in `undefined`."""
    return 0 if text == UNDEFINED else len([word for word in text.split(",") if word])


def nth_word(text: str, position: int) -> str:
    """The comma-separated word at `position`: 1 is the first, -1 the last; else `undefined`."""
    words = [word for word in text.split(",") if word]
    index = len(words) + position if position < 0 else position - 1
    return words[index] if 0 <= index < len(words) else UNDEFINED


def split_at(text: str, separator: str, which: str) -> str:
    """The part of `text` before_first, after_first, before_last or after_last `separator`.

    All of it when the separator is not there.
    """
    if separator not in text or not separator:
        return text
    side, _, end = which.partition("_")
    before, _, after = text.partition(separator) if end == "first" else text.rpartition(separator)
    return before if side == "before" else after
