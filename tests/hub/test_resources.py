import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from nervus import about, resources
from nervus.resources import ResourceNotFoundError


@pytest.mark.parametrize("name", resources.NAMES)
def test_a_checkout_finds_each_resource_at_its_top(name: str) -> None:
    assert resources.find(name) == Path(__file__).parents[2] / name


def test_an_installed_wheel_finds_resources_inside_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site-packages" / "nervus" / "_resources"
    shutil.copytree(resources.find("schemas"), installed / "schemas")
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(resources, "_INSTALLED", installed)
    assert (resources.find("schemas") / "topics.json").is_file()


def test_a_missing_folder_names_every_place_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(resources, "_INSTALLED", tmp_path / "_resources")
    with pytest.raises(ResourceNotFoundError, match="_resources/firmware") as caught:
        resources.find("firmware")
    assert "install the package again" in str(caught.value)


def test_an_unknown_resource_is_told_the_known_ones() -> None:
    with pytest.raises(ResourceNotFoundError, match="schemas, firmware, boards, drivers"):
        resources.find("sources")


@pytest.mark.req("S0-1")
def test_name_tagline_and_version_come_from_the_package_description() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'description = "{about.TAGLINE}"' in project
    assert f'name = "{about.NAME.lower()}"' in project
    assert version("nervus") == about.VERSION
