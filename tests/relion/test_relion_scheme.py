"""Schemes: their model, what can be done to them, substitution and operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from relion_golden import GOLDEN

from crboost.errors import FileFormatError, SchemerError
from crboost.relion.job import external_job, read_job, write_job
from crboost.relion.scheme import (
    EXIT_NODE,
    Operator,
    Scheme,
    SchemeEdge,
    SchemeJob,
    Variable,
    format_scheme,
    make_linear_scheme,
    read_scheme,
    scheme_dir,
    write_scheme,
)
from crboost.relion.schemer import verbs
from crboost.relion.schemer.operators import (
    SIGNATURES,
    OperatorRunner,
    check_operator,
    nth_word,
    split_at,
)
from crboost.relion.schemer.substitute import substitute_job_names, substitute_variables

# RELION's own scheme for on-the-fly processing uses these.
PREP_OPERATORS = {"exit_maxtime", "wait"}


def test_a_linear_scheme(tmp_path: Path) -> None:
    scheme = make_linear_scheme("run_1", ["b", "a"])
    assert scheme.current_node == "b"
    assert [(e.input, e.output) for e in scheme.edges] == [("b", "a"), ("a", EXIT_NODE)]
    assert scheme.operators == {EXIT_NODE: Operator("exit")}
    assert {job.mode for job in scheme.jobs.values()} == {"continue"}
    write_scheme(tmp_path, scheme)
    text = (tmp_path / "Schemes/run_1/scheme.star").read_text()
    assert "_rlnSchemeName                       Schemes/run_1/\n" in text
    assert text.index("         a          a   continue            0 \n") > 0
    again = read_scheme(tmp_path, "run_1")
    assert format_scheme(again) == text
    assert (again.next_node(), again.next_node("a")) == ("a", EXIT_NODE)


@pytest.mark.parametrize("nodes", [[], ["a", "a"], ["EXIT"], ["a b"], ["a/b"], [""], ["$a"]])
def test_schemes_that_relion_cannot_hold(nodes: list[str]) -> None:
    with pytest.raises(SchemerError):
        make_linear_scheme("run", nodes)


def test_forks_follow_their_variable() -> None:
    scheme = Scheme(
        "s",
        "a",
        bools={"yes": Variable(True, False)},
        edges=[SchemeEdge("a", "b", True, "c", "yes"), SchemeEdge("b", "d")],
    )
    assert scheme.next_node() == "c"
    scheme.bools["yes"].value = False
    assert scheme.next_node() == "b"
    assert scheme.next_node("d") == "undefined"
    scheme.bools.clear()
    with pytest.raises(SchemerError, match="needs the boolean variable yes"):
        scheme.next_node()


def test_a_scheme_without_current_node_starts_at_its_first_edge(tmp_path: Path) -> None:
    scheme = make_linear_scheme("s", ["a"])
    scheme.current_node = "undefined"
    write_scheme(tmp_path, scheme)
    assert read_scheme(tmp_path, "s").current_node == "a"


def test_damaged_schemes_are_named(tmp_path: Path) -> None:
    with pytest.raises(SchemerError, match="there is no such scheme"):
        read_scheme(tmp_path, "s")
    write_scheme(tmp_path, make_linear_scheme("s", ["a"]))
    path = tmp_path / "Schemes/s/scheme.star"
    text = path.read_text()
    path.write_text(text.replace("_rlnSchemeJobMode", "_rlnOther"))
    with pytest.raises(FileFormatError, match="rlnSchemeJobMode is missing"):
        read_scheme(tmp_path, "s")
    path.write_text("")
    with pytest.raises(FileFormatError, match="no rlnSchemeName"):
        read_scheme(tmp_path, "s")


def test_a_file_that_relion_took_for_a_job_does_no_harm(tmp_path: Path) -> None:
    """relion_schemer enters `driver` as a job when a job's fn_exe is Schemes/s/driver."""
    scheme = make_linear_scheme("s", ["a"])
    scheme.jobs["driver"] = SchemeJob("", "", False)
    write_scheme(tmp_path, scheme)
    write_job(scheme_dir(tmp_path, "s") / "a/job.star", external_job("Schemes/s/driver"))
    assert read_scheme(tmp_path, "s").jobs["driver"].current_name == ""
    verbs.copy(tmp_path, "s", "t", {})
    assert list(read_scheme(tmp_path, "t").jobs) == ["a"]
    copied = read_job(scheme_dir(tmp_path, "t") / "a/job.star")
    assert copied.option("fn_exe") == "Schemes/t/driver"


# --- verbs ---------------------------------------------------------------------------------------


@pytest.fixture
def project_dir(tmp_path: Path) -> Path:
    scheme = make_linear_scheme("s", ["a", "b"])
    scheme.floats["n"] = Variable(1.0, 2.0)
    scheme.bools["flag"] = Variable(True, False)
    scheme.strings["text"] = Variable("x", "Schemes/s/a/y")
    scheme.jobs["a"] = SchemeJob("External/job001/", has_started=True)
    scheme.current_node = "b"
    write_scheme(tmp_path, scheme)
    return tmp_path


def test_verbs(project_dir: Path) -> None:
    before = (project_dir / "Schemes/s/scheme.star").read_text()
    verbs.set_var(project_dir, "s", "n", "7", "8")
    assert (project_dir / "Schemes/s/scheme.star.bck").read_text() == before
    verbs.set_var(project_dir, "s", "flag", "False", "1")
    verbs.set_var(project_dir, "s", "text", "hello there")
    verbs.set_job_mode(project_dir, "s", "b", "new")
    verbs.set_has_started(project_dir, "s", "b", True)
    verbs.set_current_node(project_dir, "s", "EXIT")
    scheme = read_scheme(project_dir, "s")
    assert scheme.floats["n"] == Variable(7.0, 8.0)
    assert scheme.bools["flag"] == Variable(False, True)
    assert scheme.strings["text"] == Variable("hello there", "Schemes/s/a/y")
    assert scheme.jobs["b"] == SchemeJob("b", "new", True)
    assert scheme.current_node == "EXIT"
    verbs.reset(project_dir, "s")
    scheme = read_scheme(project_dir, "s")
    assert scheme.floats["n"].value == 8
    assert scheme.strings["text"].value == "Schemes/s/a/y"
    assert scheme.jobs["a"] == SchemeJob("a", "continue", False)
    assert scheme.current_node == "a"
    assert not list(project_dir.glob(".relion_lock*"))


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        (verbs.set_current_node, ("c",), "no node c"),
        (verbs.set_has_started, ("EXIT", True), "no job EXIT"),
        (verbs.set_job_mode, ("a", "often"), "'often' is no job mode"),
        (verbs.set_var, ("m", "1"), "no variable m"),
        (verbs.set_var, ("n", "many"), "'many' is none"),
        (verbs.set_var, ("flag", "maybe"), "neither true nor false"),
        (verbs.copy, ("s",), "there is a scheme of this name"),
        (verbs.copy, ("t",), "has no job file"),
    ],
)
def test_verbs_refuse(project_dir: Path, verb: Any, arguments: tuple[Any, ...], said: str) -> None:
    before = (project_dir / "Schemes/s/scheme.star").read_text()
    with pytest.raises(SchemerError, match=said):
        verb(project_dir, "s", *arguments)
    assert (project_dir / "Schemes/s/scheme.star").read_text() == before
    assert not list(project_dir.glob(".relion_lock*"))


# --- substitution --------------------------------------------------------------------------------


def scheme_with_values() -> Scheme:
    return Scheme(
        "s",
        floats={
            "n": Variable(4.0, 4.0),
            "half": Variable(0.5, 0.5),
            "big": Variable(1234567.0, 0.0),
            "zero": Variable(0.0, 0.0),
        },
        bools={"yes": Variable(True, True), "no": Variable(False, False)},
        strings={
            "word": Variable("text", ""),
            "words": Variable("a,b,c", ""),
            "file": Variable("Schemes/s/a/out.star", ""),
            "loop": Variable("$$loop", ""),
            "none": Variable("undefined", ""),
            "dot": Variable(".", ""),
            "path": Variable("x/y.tar.gz", ""),
        },
        jobs={"a": SchemeJob("External/job003/", has_started=True), "b": SchemeJob("b")},
    )


@pytest.mark.parametrize(
    ("value", "option", "expected"),
    [
        ("$$n", "param1_value", "4"),
        ("$$half", "param1_value", "0.5"),
        ("$$big", "param1_value", "1.23457e+06"),
        ("--a $$n --b $$word", "other_args", "--a 4 --b text"),
        ("$$yes", "do_queue", "Yes"),
        ("$$no", "do_queue", "No"),
        ("$$n", "nr_threads", "4"),
        ("nothing", "fn_exe", "nothing"),
        ("dir/$$word", "in_mic", "dir/text"),
    ],
)
def test_variables(value: str, option: str, expected: str) -> None:
    assert substitute_variables(value, scheme_with_values(), option) == expected


@pytest.mark.parametrize(
    ("value", "option"),
    [
        ("$$yes", "param1_value"),
        ("$$n", "do_queue"),
        ("$$word", "do_queue"),
        ("$$word", "nr_threads"),
        ("$$missing", "param1_value"),
        ("$$ ", "param1_value"),
        ("$$loop", "param1_value"),
    ],
)
def test_variables_that_do_not_fit(value: str, option: str) -> None:
    with pytest.raises(SchemerError, match=f"option {option}"):
        substitute_variables(value, scheme_with_values(), option)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Schemes/s/a/out.star", "External/job003/out.star"),
        ("Schemes/s/driver", "Schemes/s/driver"),
        ("Schemes/t/c/out.star", "Import/job001/out.star"),
        ("frames/a.star", "frames/a.star"),
        ("Schemes/s/b/out.star", "bout.star"),
    ],
)
def test_job_names(value: str, expected: str) -> None:
    def other(name: str) -> dict[str, str]:
        assert name == "t"
        return {"c": "Import/job001"}

    assert substitute_job_names(value, scheme_with_values(), other) == expected
    with pytest.raises(SchemerError, match="the scheme t has no job d"):
        substitute_job_names("Schemes/t/d/out.star", scheme_with_values(), other)


# --- operators -----------------------------------------------------------------------------------


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Bench:
    """A runner with its own clock, on a scheme with variables of every kind."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.scheme = scheme_with_values()
        self.clock = Clock()
        self.lines: list[str] = []
        self.aborted = False
        self.runner = OperatorRunner(
            directory,
            say=self.lines.append,
            abort_requested=lambda: self.aborted,
            jobs_of=lambda _name: {},
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def __call__(
        self, kind: str, output: str = "undefined", one: str = "undefined", two: str = "undefined"
    ) -> bool:
        self.scheme.operators["OP"] = Operator(kind, output, one, two)
        return self.runner.perform("OP", self.scheme)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("kind", "output", "one", "two", "expected"),
    [
        ("bool=set", "no", "yes", "", True),
        ("bool=and", "yes", "yes", "no", False),
        ("bool=or", "no", "yes", "no", True),
        ("bool=not", "yes", "yes", "", False),
        ("bool=gt", "no", "n", "half", True),
        ("bool=gt", "yes", "n", "10", False),
        ("bool=lt", "no", "half", "n", True),
        ("bool=ge", "no", "n", "4", True),
        ("bool=le", "no", "n", "4", True),
        ("bool=eq", "no", "n", "4.000000001", True),
        ("bool=eq", "yes", "n", "4.1", False),
        ("float=set", "half", "n", "", 4.0),
        ("float=plus", "half", "n", "half", 4.5),
        ("float=minus", "half", "n", "1", 3.0),
        ("float=mult", "half", "n", "half", 2.0),
        ("float=divide", "half", "n", "8", 0.5),
        ("float=round", "n", "half", "", 1.0),
        ("float=count_words", "n", "words", "", 3.0),
        ("float=count_words", "n", "none", "", 0.0),
        ("string=set", "word", "words", "", "a,b,c"),
        ("string=set", "word", "file", "", "External/job003/out.star"),
        ("string=join", "word", "words", "dot", "a,b,c."),
        ("string=before_first", "word", "path", "dot", "x/y"),
        ("string=after_first", "word", "path", "dot", "tar.gz"),
        ("string=before_last", "word", "path", "dot", "x/y.tar"),
        ("string=after_last", "word", "path", "dot", "gz"),
        ("string=nth_word", "word", "words", "2", "b"),
        ("string=nth_word", "word", "words", "-1", "c"),
        ("string=nth_word", "word", "words", "n", "undefined"),
    ],
)
def test_computing(
    bench: Bench, kind: str, output: str, one: str, two: str, expected: float | bool | str
) -> None:
    assert bench(kind, output, one, two or "undefined") is True
    assert bench.scheme.value_of(output) == expected
    assert bench.lines[-1].startswith(f" + OP: {output} -> ")


def test_files(bench: Bench) -> None:
    strings, directory = bench.scheme.strings, bench.directory
    strings |= {name: Variable(name, "") for name in ("one.txt", "sub/two.txt", "*.txt")}
    bench("bool=file_exists", "yes", "one.txt")
    assert bench.scheme.bools["yes"].value is False
    bench("touch_file", one="one.txt")
    bench("bool=file_exists", "yes", "one.txt")
    assert bench.scheme.bools["yes"].value is True
    bench("copy_file", one="one.txt", two="sub/two.txt")
    assert (directory / "sub/two.txt").exists()
    bench("string=glob", "word", "*.txt")
    assert bench.scheme.strings["word"].value == "one.txt"
    bench("delete_file", one="*.txt")
    assert not (directory / "one.txt").exists()
    bench("move_file", one="sub/two.txt", two="one.txt")
    assert (directory / "one.txt").exists() and not (directory / "sub/two.txt").exists()
    bench("copy_file", one="path", two="one.txt")
    assert "there is no file x/y.tar.gz" in bench.lines[-1]
    bench("string=glob", "word", "sub/two.txt")
    assert bench.scheme.strings["word"].value == "undefined"


def test_star_files(bench: Bench) -> None:
    table = "data_micrographs\n\nloop_\n_rlnName #1\n_rlnValue #2\na 1.5\nb 4\nc -1\n"
    (bench.directory / "m.star").write_text(table)
    strings = bench.scheme.strings
    strings["star"] = Variable("m.star", "")
    strings["table"] = Variable("micrographs", "")
    strings["column"] = Variable("m.star,micrographs,rlnValue", "")
    strings["names"] = Variable("m.star,micrographs,rlnName", "")
    strings["wrong"] = Variable("m.star,micrographs,rlnNothing", "")
    floats = bench.scheme.floats
    bench("float=count_images", "n", "star", "table")
    assert floats["n"].value == 3
    bench("float=count_images", "n", "star")  # no block called particles
    assert floats["n"].value == 0
    bench("float=count_images", "n", "path")  # no such file
    assert floats["n"].value == 0
    bench("float=read_star", "n", "column")
    assert floats["n"].value == 1.5
    for which, expected in (("max", 4.0), ("min", -1.0), ("avg", 1.5)):
        bench(f"float=star_table_{which}", "n", "column")
        assert floats["n"].value == expected
    floats["row"] = Variable(2.0, 0.0)
    bench("string=read_star", "word", "names", "row")
    assert strings["word"].value == "c"
    for one, said in (("wrong", "no column rlnNothing"), ("star", "not FILE,TABLE,LABEL")):
        with pytest.raises((SchemerError, FileFormatError), match=said):
            bench("float=read_star", "n", one)
    with pytest.raises(SchemerError, match="'a' in the STAR file is not a number"):
        bench("float=read_star", "n", "names")


def test_wait_counts_from_the_last_time(bench: Bench) -> None:
    bench.scheme.floats["n"].value = 180.0
    bench("wait", "half", "n")
    assert bench.clock.slept == [], "the first time it only remembers"
    bench.clock.now += 100
    bench("wait", "half", "n")
    assert sum(bench.clock.slept) == pytest.approx(80)
    assert bench.scheme.floats["half"].value == 100
    assert " + Waiting for 80 seconds ..." in bench.lines
    bench.clock.now += 200
    bench("wait", "undefined", "n")
    assert " + Not waiting, as more than 180 seconds have passed." in bench.lines
    bench.aborted = True
    before = bench.clock.now
    bench("wait", "undefined", "n")
    assert bench.clock.now == before
    assert " + Interrupted waiting due to a abort signal." in bench.lines


def test_the_exits(bench: Bench) -> None:
    assert bench("exit") is False
    assert bench.lines == [" + The scheme has reached an exit point. Exiting ..."]
    bench.scheme.floats["n"].value = 48.0
    assert bench("exit_maxtime", one="n") is True
    assert bench.lines[-1] == " + Setting exit time at: Wed Jan 14 13:46:40 1970"
    bench.clock.now += 47 * 3600
    assert bench("exit_maxtime", one="n") is True
    bench.clock.now += 3600
    assert bench("exit_maxtime", one="n") is False


def test_mail_is_only_logged(bench: Bench) -> None:
    assert bench("email", one="word", two="yes") is True
    assert bench.lines[-1].endswith("word = text; yes = True")


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        (Operator("float=sqrt", "n", "n"), "no operator type 'float=sqrt'"),
        (Operator("float=plus", "word", "n", "n"), "output 'word' is not a number"),
        (Operator("float=plus", "n", "word", "n"), "input1 'word' is not a number"),
        (Operator("float=plus", "n", "n", "word"), "input2 'word' is not a number or number"),
        (Operator("bool=and", "yes", "yes", "n"), "input2 'n' is not a boolean"),
        (Operator("touch_file", "", "n"), "input1 'n' is not a string"),
    ],
)
def test_operators_that_cannot_work_are_named(operator: Operator, said: str) -> None:
    with pytest.raises(SchemerError, match=said) as caught:
        check_operator("OP", operator, scheme_with_values())
    assert "operator OP" in str(caught.value)


def test_division_by_zero_is_an_error(bench: Bench) -> None:
    with pytest.raises(SchemerError, match="cannot divide n by zero = 0"):
        bench("float=divide", "n", "n", "zero")


def test_the_operators_of_relions_prep_scheme_are_known() -> None:
    assert set(SIGNATURES) >= PREP_OPERATORS
    golden = read_scheme(GOLDEN / "external_local", "x")
    for name, operator in golden.operators.items():
        check_operator(name, operator, golden)


def test_words_and_parts() -> None:
    assert nth_word("a,,b", 2) == "b"
    assert nth_word("a", 0) == "undefined"
    assert split_at("abc", "x", "before_first") == "abc"
