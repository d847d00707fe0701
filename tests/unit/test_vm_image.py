# SPDX-License-Identifier: Apache-2.0
"""The guest's image: its name in the cache, what is found broken, what is told when it cannot be made."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness import image
from harness.errors import VmError
from harness.recipe import PACKAGES, Recipe, files, requirements

CHECKOUT = Path(__file__).resolve().parent.parent.parent
RECIPE = Recipe("bookworm", ("click>=8",))


def complete(folder: Path) -> Path:
    """An image as the cache keeps it, in small."""
    folder.mkdir(parents=True)
    for part in image.PARTS:
        (folder / part).write_bytes(part.encode() * 100)
    manifest = {part: image.digest(folder / part) for part in image.PARTS}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_the_same_recipe_has_the_same_name_and_another_one_another() -> None:
    assert RECIPE.key() == Recipe("bookworm", ("click>=8",)).key()
    assert RECIPE.key().startswith("bookworm-")
    others = {replace(RECIPE, release="trixie").key(), replace(RECIPE, wheels=("click>=9",)).key()}
    assert len({RECIPE.key(), *others}) == 3


def test_the_wheels_are_those_that_an_installation_asks_for() -> None:
    wanted = requirements((CHECKOUT / "pyproject.toml").read_text())
    assert any(word.startswith("numpy") for word in wanted)
    assert not any(word.startswith("pytest") for word in wanted)


@pytest.mark.parametrize("group", ["RUN_PACKAGES", "BUILD_PACKAGES"])
def test_the_image_has_every_package_that_an_installation_asks_for(group: str) -> None:
    asked = re.search(rf"^{group}=\((.*)\)$", (CHECKOUT / "appliance").read_text(), re.MULTILINE)
    assert asked is not None
    assert set(asked[1].split()) <= set(PACKAGES)


def test_pip_in_the_guest_asks_no_network() -> None:
    assert "no-index = true" in files()["/etc/pip.conf"]


def test_a_whole_image_is_taken_from_the_cache(tmp_path: Path) -> None:
    folder = complete(tmp_path / RECIPE.key())
    found = image.cached(RECIPE, print, tmp_path)
    assert found.disk == folder / "disk.raw"


@pytest.mark.parametrize("part", image.PARTS)
def test_a_flipped_bit_in_a_cached_image_is_found(tmp_path: Path, part: str) -> None:
    folder = complete(tmp_path / "x")
    content = bytearray((folder / part).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / part).write_bytes(content)
    assert part in str(image.damage(folder))


@pytest.mark.parametrize("harm", ["short", "long", "gone", "no manifest", "cut manifest", "a list"])
def test_a_half_written_image_is_found(tmp_path: Path, harm: str) -> None:
    folder = complete(tmp_path / "x")
    assert image.damage(folder) is None
    disk, manifest = folder / "disk.raw", folder / "manifest.json"
    if harm == "short":
        os.truncate(disk, 10)
    elif harm == "long":
        os.truncate(disk, 1 << 20)
    elif harm == "gone":
        disk.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "cut manifest":
        os.truncate(manifest, 20)
    else:
        manifest.write_text("[]")
    assert image.damage(folder) is not None


def test_a_broken_image_is_told_removed_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = complete(tmp_path / RECIPE.key())
    (folder / "initrd").unlink()
    told: list[str] = []

    def make(recipe: Recipe, making: Path, say: object) -> None:
        making.rmdir()
        complete(making)

    monkeypatch.setattr(image, "make", make)
    monkeypatch.setattr(image, "NEEDED_BYTES", 0)
    found = image.cached(RECIPE, told.append, tmp_path)
    assert image.damage(found.folder) is None
    assert "broken" in told[0]
    assert "initrd" in told[0]


def test_an_image_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(recipe: Recipe, making: Path, say: object) -> None:
        (making / "disk.raw").write_text("half")
        raise VmError("no mirror")

    monkeypatch.setattr(image, "make", make)
    with pytest.raises(VmError, match="no mirror"):
        image.cached(RECIPE, print, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]


def test_no_space_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    with pytest.raises(VmError) as told:
        image.room(tmp_path, 1 << 60)
    assert "no space" in str(told.value)
    assert "MiB are free" in str(told.value)
    assert str(tmp_path) in str(told.value)


def test_what_killed_builds_left_and_old_images_go_and_the_wanted_one_stays(tmp_path: Path) -> None:
    for age, name in enumerate(("making-1", "newest", "newer", "old", "wanted")):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    image.tidy(tmp_path, "wanted")
    assert {entry.name for entry in tmp_path.iterdir()} == {"newest", "newer", "wanted"}


def test_holes_of_a_sparse_file_count_for_what_it_is(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x")
    other.write_bytes(b"x")
    os.truncate(one, 1 << 20)
    os.truncate(other, 1 << 21)
    assert image.digest(one) != image.digest(other)


def test_zeros_are_zeros_whether_written_or_a_hole(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x" + bytes((3 << 20) - 2) + b"y")
    with other.open("wb") as file:
        file.write(b"x")
        file.seek((3 << 20) - 1)
        file.write(b"y")
    assert image.digest(one) == image.digest(other)
    other.write_bytes(b"x" + bytes((3 << 20) - 3) + b"yy")
    assert image.digest(one) != image.digest(other)
