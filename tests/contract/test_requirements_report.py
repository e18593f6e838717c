import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.append(str(Path(__file__).parents[2] / "tools" / "checks"))

import requirement_report

pytestmark = pytest.mark.usefixtures("unmeasured")

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "requirements"
CONFIG = """
[tool.pytest.ini_options]
addopts = ["--strict-markers", "-p", "plugins.requirements_plugin", "-p", "no:cacheprovider"]
asyncio_default_fixture_loop_scope = "function"
testpaths = ["tests"]
"""
LISTED = {
    "documents": {"S0": "First", "S2": "Second"},
    "requirements": [
        {"id": "S0-1", "text": "one"},
        {"id": "S0-2", "text": "two"},
        {"id": "S2-1", "text": "three"},
    ],
}


class Report(NamedTuple):
    """What `tools/requirements` said."""

    status: int
    stdout: str
    stderr: str


class Project:
    """A small project with the plugin, a requirement list and tests of its own.

    pytest and the report run in this process: they begin a dozen times sooner than as programs.
    """

    def __init__(self, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
        self._pytester = pytester
        self._capsys = capsys
        self.root = pytester.path
        (self.root / "tests").mkdir()
        (self.root / "pyproject.toml").write_text(CONFIG)
        (self.root / "tests" / "requirements.json").write_text(json.dumps(LISTED))

    def write(self, name: str, *tests: str) -> None:
        (self.root / "tests" / name).write_text("import pytest\n\n" + "\n\n".join(tests) + "\n")

    def run(self, *arguments: str) -> pytest.RunResult:
        return self._pytester.runpytest_inprocess(*arguments)

    def report(self, *arguments: str) -> Report:
        self._capsys.readouterr()
        status = requirement_report.main(["--root", str(self.root), *arguments])
        return Report(status, *self._capsys.readouterr())

    def states(self) -> dict[str, str]:
        written = self.root / "report.json"
        result = self.report("--json", str(written))
        assert result.status == 0, result.stderr
        lines = json.loads(written.read_text())["requirements"]
        return {line["id"]: line["state"] for line in lines}


@pytest.fixture
def project(
    pytester: pytest.Pytester,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    monkeypatch.setenv("COLUMNS", "80")
    return Project(pytester, capsys)


def cites(name: str, body: str, *ids: str) -> str:
    marks = ", ".join(f'"{one}"' for one in ids)
    return f"@pytest.mark.req({marks})\ndef test_{name}():\n    {body}"


def test_passing_failing_and_absent_tests_are_told_apart(project: Project) -> None:
    project.write("test_a.py", cites("a", "assert True", "S0-1"), cites("b", "assert 0", "S2-1"))
    assert project.run().ret == 1
    assert project.states() == {"S0-1": "proven", "S0-2": "open", "S2-1": "cited"}


def test_one_failing_test_among_two_unproves_the_line(project: Project) -> None:
    project.write("test_a.py", cites("a", "assert True", "S0-1"), cites("b", "assert 0", "S0-1"))
    project.run()
    assert project.states()["S0-1"] == "cited"


@pytest.mark.parametrize(
    "body", ['pytest.skip("no")', 'pytest.xfail("known")'], ids=["skipped", "expected to fail"]
)
def test_test_that_did_not_run_through_proves_nothing(project: Project, body: str) -> None:
    project.write("test_a.py", cites("a", body, "S0-1"))
    assert project.run().ret == 0
    assert project.states()["S0-1"] == "cited"


def test_failing_teardown_proves_nothing(project: Project) -> None:
    fixture = "@pytest.fixture(autouse=True)\ndef broken():\n    yield\n    assert 0"
    project.write("test_a.py", fixture, cites("a", "assert True", "S0-1"))
    project.run()
    assert project.states()["S0-1"] == "cited"


def test_unknown_id_ends_the_collection_and_the_report(project: Project) -> None:
    project.write("test_a.py", cites("a", "assert True", "S0-1"), cites("b", "assert 1", "S0-9"))
    run = project.run()
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert "test_a.py::test_b: 'S0-9' is not a line of requirements.json" in run.stderr.str()
    report = project.report()
    assert report.status == 1
    assert re.search(r"tests/test_a\.py:\d+: S0-9 is no line", report.stderr)


def test_mark_without_an_id_ends_the_collection(project: Project) -> None:
    project.write("test_a.py", cites("a", "assert True"))
    run = project.run()
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    assert "req takes one id or more" in run.stderr.str()


def test_id_that_is_computed_is_refused_by_the_report(project: Project) -> None:
    project.write(
        "test_a.py", "ID = 'S0-1'\n\n@pytest.mark.req(ID)\ndef test_a():\n    assert True"
    )
    assert project.run().ret == 0
    report = project.report()
    assert report.status == 1
    assert "write the ids" in report.stderr


def test_run_of_a_part_keeps_what_the_others_proved(project: Project) -> None:
    project.write("test_a.py", cites("a", "assert True", "S0-1"))
    project.write("test_b.py", cites("b", "assert True", "S2-1"))
    project.run()
    project.write("test_b.py", cites("b", "assert 0", "S2-1"))
    project.run("tests/test_b.py")
    assert project.states() == {"S0-1": "proven", "S0-2": "open", "S2-1": "cited"}


def test_run_of_everything_forgets_tests_that_are_gone(project: Project) -> None:
    project.write("test_a.py", cites("old", "assert True", "S0-1"))
    project.run()
    project.write("test_a.py", cites("new", "assert 0", "S0-1"))
    project.run()
    assert project.states()["S0-1"] == "cited"


@pytest.mark.timeout(60)  # two workers are started, one after the other: 2 s of processor alone
def test_run_in_workers_proves_what_a_run_in_one_process_does(project: Project) -> None:
    project.write("test_two.py", cites("old", "assert True", "S2-1"))
    project.run()
    project.write("test_one.py", cites("a", "assert True", "S0-1"), cites("b", "assert 0", "S0-2"))
    project.write("test_two.py", cites("new", "assert 0", "S2-1"))
    assert project.run("-n", "1", "-k", "test_one").ret == 1
    assert project.states() == {"S0-1": "proven", "S0-2": "cited", "S2-1": "proven"}
    assert project.run("-n", "1").ret == 1
    assert project.states() == {"S0-1": "proven", "S0-2": "cited", "S2-1": "cited"}


def test_citation_taken_out_of_a_test_no_longer_proves(project: Project) -> None:
    project.write("test_a.py", cites("a", "assert True", "S0-1", "S0-2"))
    project.run()
    project.write("test_a.py", cites("a", "assert True", "S0-1"))
    assert project.states() == {"S0-1": "proven", "S0-2": "open", "S2-1": "open"}


def test_counts_and_lines_of_a_document_are_printed(project: Project) -> None:
    project.write("test_a.py", cites("a", "assert True", "S0-1"))
    project.run()
    counts = project.report().stdout
    assert re.search(r"S0 First +1 +0 +1 ", counts)
    assert re.search(r"S2 Second +0 +0 +1 ", counts)
    assert re.search(r"all +1 +0 +2 ", counts)
    listed = project.report("--list", "S0").stdout
    assert re.search(r"proven +S0-1 +one", listed)
    assert "tests/test_a.py::test_a" in listed
    assert re.search(r"open +S0-2 +two", listed)
    assert "S2-1" not in listed


def test_unknown_document_is_a_usage_error() -> None:
    command = [TOOL, "--list", "S7"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    assert result.returncode == 2
    assert "no document S7; there are S0, S1, S2, S3, S4" in result.stderr


def test_list_holds_every_line_of_the_five_documents() -> None:
    entries = json.loads((ROOT / "tests" / "requirements.json").read_text())["requirements"]
    lengths = {"S0": 107, "S1": 79, "S2": 88, "S3": 97, "S4": 89}
    expected = [f"{name}-{n}" for name, last in lengths.items() for n in range(1, last + 1)]
    assert [entry["id"] for entry in entries] == expected
    assert all(entry["text"] and entry["tags"] for entry in entries)
