"""The repository's own rules: what a reviewer would otherwise have to say again and again."""

import ast
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nervus import about

ROOT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {
    *("pyproject.toml", "firmware", "hub", "drivers", "boards", "schemas", "tools", "tests", "hil"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "SECURITY.md"),
    *(".ci", ".gitignore", ".editorconfig"),
}
PROSE_OR_CODE = {".py", ".sh", ".md", ".toml", ".js", ".mjs", ".html", ".css", ""}
HOSTS = {"json-schema.org", "keepachangelog.com", "semver.org", "www.apache.org"}
RESERVED = (".example", ".home")  # names that belong to nobody: what examples are written with
LOCKS = ("run", "test")


def tracked() -> list[Path]:
    """Every file that git tracks, paths from the root; not what a run has left behind."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    ).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def read(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def generated() -> set[Path]:
    settings = tomllib.loads(read(Path("pyproject.toml")))
    return {Path(name) for name in settings["tool"]["ruff"]["extend-exclude"]}


def written() -> Iterator[Path]:
    """Text that people wrote: neither data, nor generated, nor the licence."""
    excepted = generated() | {Path("LICENSE")}
    return (p for p in tracked() if p.suffix in PROSE_OR_CODE and p not in excepted)


def test_top_level_is_as_agreed() -> None:
    assert {path.parts[0] for path in tracked()} == TOP_LEVEL


def test_every_folder_that_people_enter_has_a_readme_of_a_page() -> None:
    folders = {Path(name) for name in TOP_LEVEL if (ROOT / name).is_dir()} - {Path(".ci")}
    folders |= {p.parent for p in tracked() if p.match("hub/nervus/*/__init__.py")}
    folders |= {Path("firmware/simulator"), Path("firmware/lib/spinal")}
    files = set(tracked())
    assert {str(folder) for folder in folders if folder / "README.md" not in files} == set()
    pages = {str(p): len(read(p).splitlines()) for p in files if p.name == "README.md"}
    limit = 120  # of the front page
    assert {
        name: lines
        for name, lines in pages.items()
        if lines > (limit if name == "README.md" else 60)
    } == {}


def test_no_written_file_is_longer_than_500_lines() -> None:
    lengths = {str(path): len(read(path).splitlines()) for path in written()}
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


@pytest.mark.parametrize("name", ["boot.py", "main.py"])
def test_what_a_board_starts_with_stays_short(name: str) -> None:
    assert 0 < len(read(Path("firmware") / name).splitlines()) < 40


@pytest.mark.req("S0-1")
def test_name_and_tagline_can_be_replaced_in_one_place() -> None:
    in_project_file = tomllib.loads(read(Path("pyproject.toml")))["project"]
    assert (in_project_file["name"], in_project_file["description"]) == (
        about.NAME.lower(),
        about.TAGLINE,
    )
    code = [path for path in tracked() if path.suffix == ".py" and path.parts[0] != "tests"]
    spelled = {
        f"{path}:{node.lineno}"
        for path in code
        if path != Path("hub/nervus/about.py")
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value in (about.NAME, about.TAGLINE)
    }
    assert spelled == set()


@pytest.mark.req("S0-98")
def test_readme_carries_the_final_name_and_tagline() -> None:
    assert read(Path("README.md")).startswith(f"# {about.NAME}\n")
    assert about.TAGLINE in " ".join(read(Path("README.md")).split())


@pytest.mark.req("S0-106")
def test_glossary_explains_the_terms() -> None:
    glossary = read(Path("README.md")).partition("\n## Glossary\n")[2]
    explained = set(re.findall(r"^\| \*\*(.+?)\*\* \| \S.{20,} \|$", glossary, re.MULTILINE))
    assert {"Plane", "Afferent", "Efferent", "RelayBundle", "Reflex", "HLC"} <= explained


def test_every_link_between_documents_leads_somewhere() -> None:
    link = re.compile(r"\]\((?!https?://|#)([^)#]+)")
    broken = [
        f"{path}: {target}"
        for path in tracked()
        if path.suffix == ".md"
        for target in link.findall(read(path))
        if not (ROOT / path.parent / target).exists()
    ]
    assert broken == []


def texts() -> list[Path]:
    """What git tracks but what a compiler wrote."""
    return [path for path in tracked() if path.suffix != ".binpb"]


def test_no_host_is_named_but_those_of_standards() -> None:
    # Where packages come from is the machine's own setting, a mirror as a rule.
    url = re.compile(r"https?://([A-Za-z0-9.-]+\.[A-Za-z]{2,})")
    bare = re.compile(r"\b((?:[a-z0-9-]+\.)+(?:org|com|io|net|dev))\b")
    named = {}
    for path in texts():
        text = read(path)
        hosts = set(url.findall(text))
        if path.suffix not in {".py", ".json"}:
            hosts |= set(bare.findall(text))
        foreign = sorted(host for host in hosts - HOSTS if not host.endswith(RESERVED))
        if foreign:
            named[str(path)] = foreign
    assert named == {}


def test_no_key_is_in_the_repository() -> None:
    secret = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{20}")
    assert [str(path) for path in texts() if secret.search(read(path))] == []


def test_commands_can_be_run_and_ci_runs_the_tests() -> None:
    commands = [ROOT / "tools" / name for name in ("setup", "demo", "test", "requirements", "lock")]
    assert all(os.access(command, os.X_OK) for command in (*commands, ROOT / ".ci" / "run"))
    lines = [line for line in read(Path(".ci/run")).splitlines() if not line.startswith("#")]
    assert lines[-1].endswith('/tools/test"')


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_the_hashes_of_several_files(name: str) -> None:
    # A wheel and a source archive at least: one hash alone would be one machine's own build.
    for entry in locked(name).values():
        assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)) > 1, entry.splitlines()[0]


@pytest.mark.parametrize("name", LOCKS)
def test_lock_fulfils_what_the_project_asks_for(name: str) -> None:
    project = tomllib.loads(read(Path("pyproject.toml")))
    wanted = project["project"]["dependencies"] + project["build-system"]["requires"]
    if name == "test":
        wanted += project["project"]["optional-dependencies"]["dev"]
    versions = {key: entry.split()[0].partition("==")[2] for key, entry in locked(name).items()}
    for requirement in map(Requirement, wanted):
        version = versions[re.sub(r"[-_.]+", "-", requirement.name).lower()]
        assert requirement.specifier.contains(version), f"{requirement}; run tools/lock --keep"


def test_tests_run_on_the_versions_that_people_run() -> None:
    run, test = ({key: e.split()[0] for key, e in locked(n).items()} for n in LOCKS)
    assert run.items() <= test.items()


def locked(name: str) -> dict[str, str]:
    """Package → its entry in a lock file."""
    entries = re.split(r"\n(?=[a-z0-9])", read(Path(f"tools/locks/{name}.lock")))
    assert all("==" in entry.split()[0] for entry in entries)
    return {entry.partition("==")[0]: entry for entry in entries}
