"""What travels, and its digest."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from backends.azureml import SNAPSHOT_LIMITS
from trainer.errors import ConfigError, RefusedError, UsageError
from trainer.snapshot import (
    Limits,
    Snapshot,
    build_snapshot,
    check_limits,
    default_script,
    is_default_script,
    script_path,
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "train.py").write_text("print(1)\n")
    (folder / "sub" / "helper.py").write_text("X = 1\n")
    return folder


def own(snapshot: Snapshot) -> list[str]:
    return [file.path for file in snapshot.files if not file.path.startswith("_trainer_job/")]


class TestContents:
    def test_our_script_travels_alone(self) -> None:
        snapshot = build_snapshot(default_script())
        assert own(snapshot) == ["chainer_mnist.py"]

    def test_the_runtime_travels_whole_and_nothing_else_of_the_package(self) -> None:
        paths = {file.path for file in build_snapshot(default_script()).files}
        root = default_script().parent / "trainer"
        modules = {path.relative_to(root).as_posix() for path in (root / "runtime").rglob("*.py")}
        assert paths - {"chainer_mnist.py"} == {f"_trainer_job/trainer/{name}" for name in {"__init__.py", *modules}}

    def test_another_script_travels_with_its_directory(self, project: Path) -> None:
        assert own(build_snapshot(project / "train.py")) == ["sub/helper.py", "train.py"]

    def test_or_with_the_directory_that_was_named(self, project: Path) -> None:
        script = project / "sub" / "helper.py"
        assert own(build_snapshot(script)) == ["helper.py"]
        assert own(build_snapshot(script, source=project)) == ["sub/helper.py", "train.py"]
        assert script_path(script, project) == "sub/helper.py"

    def test_a_script_outside_that_directory(self, project: Path) -> None:
        with pytest.raises(UsageError, match="does not lie in"):
            build_snapshot(project / "train.py", source=project / "sub")

    def test_our_script_named_as_a_file_is_ours(self) -> None:
        assert is_default_script(Path(os.path.relpath(default_script())))

    def test_an_ignored_script_is_refused(self, project: Path) -> None:
        (project / ".amlignore").write_text("*.py\n")
        with pytest.raises(UsageError, match=r"train\.py would not travel: it falls under \.amlignore"):
            build_snapshot(project / "train.py")

    def test_the_name_of_our_folder_is_refused(self, project: Path) -> None:
        (project / "_trainer_job").mkdir()
        (project / "_trainer_job" / "x").touch()
        with pytest.raises(UsageError, match="jobs need for themselves"):
            build_snapshot(project / "train.py")

    def test_a_neighbour_called_trainer_travels(self, project: Path) -> None:
        (project / "trainer.py").touch()
        assert "trainer.py" in own(build_snapshot(project / "train.py"))

    def test_data_and_what_to_resume_from_have_their_places(self, project: Path, tmp_path: Path) -> None:
        (tmp_path / "f").write_text("f")
        snapshot = build_snapshot(project / "train.py").with_dataset("digits", {"images": tmp_path / "f"})
        snapshot = snapshot.with_resume({"a/b.npz": tmp_path / "f"})
        paths = [file.path for file in snapshot.files]
        assert "_trainer_job/data/digits/images" in paths
        assert "_trainer_job/resume/a/b.npz" in paths
        again = snapshot.with_resume({"c": tmp_path / "f"}).with_dataset("other", {"i": tmp_path / "f"})
        assert [file.path for file in again.files if "/trainer/" not in file.path][:2] == [
            "_trainer_job/data/other/i",
            "_trainer_job/resume/c",
        ]


class TestDigest:
    def test_is_the_documented_one(self, project: Path) -> None:
        (project / "train.py").chmod(0o755)
        snapshot = build_snapshot(project / "train.py")
        lines = []
        for path in sorted((file.path for file in snapshot.files), key=str.encode):
            file = next(file for file in snapshot.files if file.path == path)
            content = hashlib.sha256(file.source.read_bytes()).hexdigest()
            lines.append(f"{content} {'x' if path == 'train.py' else '-'} {path}\n")
        assert snapshot.digest == hashlib.sha256("".join(lines).encode()).hexdigest()

    @pytest.mark.parametrize("change", ["content", "name", "mode"])
    def test_changes_with(self, project: Path, change: str) -> None:
        before = build_snapshot(project / "train.py").digest
        helper = project / "sub" / "helper.py"
        if change == "content":
            helper.write_text("X = 2\n")
        elif change == "name":
            helper.rename(project / "sub" / "other.py")
        else:
            helper.chmod(0o755)
        assert build_snapshot(project / "train.py").digest != before

    def test_does_not_change_with_times_place_or_other_permissions(self, project: Path) -> None:
        before = build_snapshot(project / "train.py").digest
        os.utime(project / "train.py", (0, 0))
        (project / "train.py").chmod(0o600)
        moved = project.rename(project.with_name("elsewhere"))
        assert build_snapshot(moved / "train.py").digest == before


class TestStaging:
    def test_gives_the_same_snapshot_back(self, project: Path, tmp_path: Path) -> None:
        (project / "train.py").chmod(0o750)
        snapshot = build_snapshot(project / "train.py")
        (tmp_path / "staged").mkdir()
        snapshot.stage(tmp_path / "staged")
        loaded = Snapshot.load(tmp_path / "staged")
        assert loaded.digest == snapshot.digest
        assert loaded.size == snapshot.size
        assert [file.executable for file in loaded.files if file.path == "train.py"] == [True]
        # Not every way to a node keeps that, so it is written down beside.
        manifest = tmp_path / "staged" / "_trainer_job" / "executables.json"
        assert json.loads(manifest.read_text()) == ["train.py"]

    @pytest.mark.parametrize("change", ["changed", "vanished"])
    def test_a_file_that_changes_meanwhile_leaves_nothing(self, project: Path, tmp_path: Path, change: str) -> None:
        snapshot = build_snapshot(project / "train.py")
        if change == "changed":
            (project / "train.py").write_text("print(2)\n")
        else:
            (project / "train.py").unlink()
        (tmp_path / "runs" / "staged").mkdir(parents=True)
        with pytest.raises(UsageError):
            snapshot.stage(tmp_path / "runs" / "staged")
        assert [path.name for path in (tmp_path / "runs").rglob("*")] == ["staged"]

    def test_never_over_something_else(self, project: Path, tmp_path: Path) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "x").touch()
        with pytest.raises(ConfigError):
            build_snapshot(project / "train.py").stage(tmp_path / "full")
        assert [path.name for path in (tmp_path / "full").iterdir()] == ["x"]


class TestLimits:
    def test_are_azure_mls(self) -> None:
        constants = pytest.importorskip("azureml._restclient.constants")
        assert SNAPSHOT_LIMITS.files == constants.SNAPSHOT_MAX_FILES
        assert SNAPSHOT_LIMITS.size == constants.SNAPSHOT_MAX_SIZE_BYTES

    def test_what_fits_passes(self, project: Path) -> None:
        snapshot = build_snapshot(project / "train.py")
        check_limits(snapshot, Limits("It", len(snapshot.files), snapshot.size))

    def test_too_many_files(self, project: Path) -> None:
        snapshot = build_snapshot(project / "train.py")
        with pytest.raises(RefusedError, match=r"files, and It takes 1") as caught:
            check_limits(snapshot, Limits("It", 1, snapshot.size))
        assert ".amlignore" in caught.value.hint

    def test_too_many_bytes_name_the_largest(self, project: Path, tmp_path: Path) -> None:
        snapshot = build_snapshot(project / "train.py")
        large = replace(snapshot.files[-1], path="_trainer_job/data/d/images", size=10**9)
        with pytest.raises(
            RefusedError, match=r"1,000\.\d MB, .* _trainer_job/data/d/images \(1,000\.0 MB\)"
        ) as caught:
            check_limits(replace(snapshot, files=(*snapshot.files, large)), SNAPSHOT_LIMITS)
        assert "--dataset" in caught.value.hint
