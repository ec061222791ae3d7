"""Damaged records: each is refused by name, and nothing else is lost with it. tests.drills does it by the thousand."""

from pathlib import Path

import pytest

from tests.drills.flips import FORMATS, KINDS, Scene, fuzz, make_scene, read_everything, replaced


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"))


def test_whole_records_are_not_refused(scene: Scene) -> None:
    for name in FORMATS:
        assert not read_everything(scene, name)


def test_mutations(scene: Scene) -> None:
    refused = fuzz(scene, 400)
    # Those formats without which there is no run or no version.
    assert all(refused[name] > 0 for name in ("status.json", "job.json", "version.json"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FORMATS)
def test_something_else_in_a_files_place(scene: Scene, name: str, kind: str) -> None:
    if kind == "unreadable" and _reads_everything(scene.files[name]):
        pytest.skip("root can read everything")
    with replaced(scene.files[name], kind):
        read_everything(scene, name)


def _reads_everything(path: Path) -> bool:
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        path.read_bytes()
        return True
    except PermissionError:
        return False
    finally:
        path.chmod(mode)
