"""What a script writes outside its outputs, by the rule that travels with the job. Ends of real runs: test_everyday."""

import os
from pathlib import Path

import pytest

from trainer.runtime.collecting import collect, limits_of, state_of


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working directory in which a script is about to start."""
    work = tmp_path / "work"
    (work / "outputs").mkdir(parents=True)
    for name in ("train.py", "data.txt"):
        (work / name).write_text("came with the job")
    return work


def write(work: Path, *names: str, size: int = 1) -> None:
    for name in names:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name[0] * size)


def outputs(work: Path) -> list[str]:
    top = work / "outputs"
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if not path.is_dir())


class TestWhatIsCollected:
    def test_new_and_changed_files_at_their_own_paths(self, work: Path) -> None:
        before = state_of(work)
        write(work, "result/log", "result/deep/plot.png", "model.npz", "logs/mine.txt", ".hydra/config.yaml")
        (work / "data.txt").write_text("changed by the script")
        assert collect(work, work / "outputs", before) == []
        assert outputs(work) == [
            *(".hydra/config.yaml", "data.txt", "logs/mine.txt"),
            *("model.npz", "result/deep/plot.png", "result/log"),
        ]
        assert (work / "outputs" / "data.txt").read_text() == "changed by the script"

    def test_nothing_of_ours_no_caches_no_core_dumps_no_mnist(self, work: Path) -> None:
        before = state_of(work)
        write(work, "_trainer_job/trainer/x", "__pycache__/a.pyc", "a.pyc", "sub/.cache/x", "core", "core.123")
        write(work, "azureml-logs/x.txt", "logs/metrics.jsonl", "logs/azureml/x.log", "data/train-images-idx3-ubyte.gz")
        os.mkfifo(work / "fifo")
        assert collect(work, work / "outputs", before) == []
        assert outputs(work) == []

    def test_again_after_a_kill_nothing_is_there_twice(self, work: Path) -> None:
        before = state_of(work)
        write(work, "result/log", "result/plot.png")
        for _ in range(2):
            assert collect(work, work / "outputs", before) == []
        assert outputs(work) == ["result/log", "result/plot.png"]

    def test_files_are_copied_where_there_are_no_hard_links(self, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", refuse)
        before = state_of(work)
        write(work, "result/log", size=3_000_000)
        for _ in range(2):
            assert collect(work, work / "outputs", before) == []
        assert outputs(work) == ["result/log"]
        assert (work / "outputs/result/log").stat().st_size == 3_000_000
        assert (work / "outputs/result/log").stat().st_nlink == 1


class TestNamesThatAreTaken:
    def test_what_the_script_put_among_its_outputs_stays(self, work: Path) -> None:
        before = state_of(work)
        write(work, "log.txt", "plots/a.png", "args/x", "args/y")
        write(work / "outputs", "log.txt", "plots", "args~")
        write(work / "outputs", "args", size=7)
        assert collect(work, work / "outputs", before) == []
        assert (work / "outputs/args").read_text() == "a" * 7
        assert outputs(work) == sorted(
            ["log.txt", "log~.txt", "plots", "plots~/a.png", "args", "args~", "args~~/x", "args~~/y"]
        )

    def test_links_among_the_outputs_are_not_followed(self, work: Path, tmp_path: Path) -> None:
        before = state_of(work)
        (tmp_path / "elsewhere").mkdir()
        (work / "outputs" / "result").symlink_to(tmp_path / "elsewhere")
        write(work, "result/log")
        assert collect(work, work / "outputs", before) == []
        assert list((tmp_path / "elsewhere").iterdir()) == []
        assert (work / "outputs" / "result~" / "log").read_text() == "r"

    def test_a_link_to_what_is_collected_makes_way_for_it(self, work: Path) -> None:
        before = state_of(work)
        write(work, "result/log", "best.txt")
        (work / "outputs" / "result").symlink_to("../result")
        (work / "outputs" / "best.txt").symlink_to("../best.txt")
        assert collect(work, work / "outputs", before) == []
        assert outputs(work) == ["best.txt", "result/log"]
        assert not (work / "outputs" / "result").is_symlink()
        assert not (work / "outputs" / "best.txt").is_symlink()


class TestLinks:
    def test_to_collected_files_are_made_again_and_no_others(self, work: Path, tmp_path: Path) -> None:
        before = state_of(work)
        (tmp_path / "secret").write_text("secret")
        write(work, "result/snapshot_iter_2", "top")
        for name, target in {
            **{"result/latest": "snapshot_iter_2", "result/up": "../top", "down": "result/snapshot_iter_2"},
            **{"out": "../secret", "absolute": str(tmp_path / "secret"), "unchanged": "data.txt", "loop": "loop"},
            **{"folder": "result", "nothing": "nowhere"},
        }.items():
            (work / name).symlink_to(target)
        for _ in range(2):
            assert collect(work, work / "outputs", before) == []
        assert outputs(work) == ["down", "result/latest", "result/snapshot_iter_2", "result/up", "top"]
        assert (work / "outputs/result/up").read_text() == "t"

    def test_outputs_that_are_a_link_into_the_working_directory(self, work: Path) -> None:
        before = state_of(work)
        (work / "outputs").rmdir()
        write(work, "result/log", "beside")
        (work / "outputs").symlink_to("result")
        assert collect(work, work / "outputs", before) == []
        assert sorted(path.name for path in (work / "result").iterdir()) == ["beside", "log"]


class TestLimits:
    def test_small_files_come_first_then_the_newest_and_the_rest_is_named(self, work: Path) -> None:
        before = state_of(work)
        write(work, "result/log", "result/args")
        for epoch in range(1, 6):
            write(work, f"result/snapshot_{epoch}", size=2_000_000)
            os.utime(work / f"result/snapshot_{epoch}", (epoch, epoch))
        write(work, "result/huge", size=4_000_000)
        os.utime(work / "result/log", (0, 0))
        (said,) = collect(work, work / "outputs", before, "6MB")
        assert outputs(work) == ["result/args", "result/log", "result/snapshot_4", "result/snapshot_5"]
        assert said == (
            "4 files, 10.0 MB, written outside outputs/ were not kept: result/huge (4.0 MB), result/snapshot_1 "
            "(2.0 MB), result/snapshot_2 (2.0 MB), .... A run keeps up to 1,000 such files, 6.0 MB in all and 3.0 MB "
            "each. To keep more, write below outputs/, for example with -- --out outputs, or give --collect a size or "
            "all."
        )

    def test_number_of_files(self, work: Path) -> None:
        before = state_of(work)
        for number in range(1010):
            (work / f"{number:04}").touch()
        (said,) = collect(work, work / "outputs", before)
        assert len(outputs(work)) == 1000
        assert said.startswith("10 files, 0 bytes, written outside outputs/ were not kept: ")
        assert collect(work, work / "outputs", before, "all") == []
        assert len(outputs(work)) == 1010

    def test_off_says_what_is_not_kept(self, work: Path) -> None:
        before = state_of(work)
        write(work, "result/log")
        (said,) = collect(work, work / "outputs", before, "off")
        assert outputs(work) == []
        assert said == (
            "1 file, 1 byte, written outside outputs/ was not kept: result/log (1 byte). Collecting is off. To keep "
            "it, write below outputs/, for example with -- --out outputs, or leave out --collect off."
        )

    def test_what_cannot_be_read_is_named(self, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = state_of(work)
        write(work, "a", "b\n\udcff")

        def refuse(*_: object, **__: object) -> None:
            raise OSError(13, "Permission denied")

        monkeypatch.setattr(os, "link", refuse)
        monkeypatch.setattr("builtins.open", refuse)
        assert collect(work, work / "outputs", before) == [
            "2 files, 2 bytes, written outside outputs/ were not kept: a (1 byte), b\\n\\xff (1 byte). "
            "Permission denied."
        ]

    @pytest.mark.parametrize(
        ("setting", "size"), [("off", 0), ("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("10B", 10)]
    )
    def test_settings(self, setting: str, size: int) -> None:
        assert limits_of(setting).size == size

    @pytest.mark.parametrize("setting", ["", "yes", "-1MB", "5", "1XB", "9999999GB", "1MB "])
    def test_what_is_no_setting(self, setting: str) -> None:
        with pytest.raises(ValueError, match="is not off, all, or a size"):
            limits_of(setting)
