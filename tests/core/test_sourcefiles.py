"""What of a directory travels; git itself is asked where git's rules are followed."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.errors import UsageError
from trainer.sourcefiles import check_name, source_files


def tree(top: Path, *files: str, **contents: str) -> None:
    for name in files:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents.get(name, name))


def names(top: Path) -> list[str]:
    return list(source_files(top).files)


class TestIgnoreFiles:
    def test_amlignore_replaces_gitignore(self, tmp_path: Path) -> None:
        tree(tmp_path, "a.py", "b.txt", "c.log")
        (tmp_path / ".gitignore").write_text("b.txt\n")
        assert names(tmp_path) == ["a.py", "c.log"]
        assert source_files(tmp_path).ignore_file == ".gitignore"
        (tmp_path / ".amlignore").write_text("*.log\n")
        assert names(tmp_path) == ["a.py", "b.txt"]
        assert source_files(tmp_path).ignore_file == ".amlignore"

    def test_without_one_everything_travels_but_what_never_does(self, tmp_path: Path) -> None:
        never = [
            ".git/HEAD",
            ".venv/x",
            "__pycache__/x.pyc",
            "p/__pycache__/y",
            ".trainer/runs/x",
            "y.pyc",
            "outputs/m",
        ]
        tree(tmp_path, "a.py", "data/outputs/kept", "model.npz", *never)
        assert names(tmp_path) == ["a.py", "data/outputs/kept", "model.npz"]
        assert source_files(tmp_path).ignore_file is None

    def test_a_virtual_environment_stays_behind_under_any_name(self, tmp_path: Path) -> None:
        tree(tmp_path, "a.py", "env39/pyvenv.cfg", "env39/lib/x.py")
        assert names(tmp_path) == ["a.py"]

    def test_excluded_directories_stay_behind(self, tmp_path: Path) -> None:
        tree(tmp_path, "a.py", "home/runs/x")
        assert list(source_files(tmp_path, exclude=[tmp_path / "home"]).files) == ["a.py"]

    def test_secrets_stay_behind_and_it_is_said(self, tmp_path: Path) -> None:
        tree(tmp_path, "a.py", ".env", "sub/.env.local", ".netrc")
        found = source_files(tmp_path)
        assert list(found.files) == ["a.py"]
        assert len(found.notes) == 3

    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_gitignore_means_what_git_means(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        top = tmp_path_factory.mktemp("git")
        words = st.sampled_from(["a", "b", "c.py", "d.txt"])
        paths = data.draw(st.lists(st.lists(words, min_size=1, max_size=3).map("/".join), min_size=1, max_size=8))
        for path in paths:
            try:
                tree(top, path)
            except OSError:
                continue  # a file where another path has a directory
        parts = st.sampled_from(["a", "b", "*", "*.py", "c.py", "?", "[ab]"])
        path = st.lists(parts, min_size=1, max_size=2).map("/".join)
        ignored = st.builds("{}{}{}".format, st.sampled_from(["", "/", "**/"]), path, st.sampled_from(["", "/", "/**"]))
        kept = ignored.map("!{}".format)
        pattern = st.one_of(ignored, ignored, kept)
        for folder in [top, *[path for path in sorted(top.rglob("*")) if path.is_dir()]]:
            lines = data.draw(st.lists(pattern, max_size=3))
            if lines:
                (folder / ".gitignore").write_text("\n".join(lines) + "\n")
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        subprocess.run(["git", "init", "-q"], cwd=top, check=True, env=environment)
        listed = subprocess.run(
            ["git", "ls-files", "--others", "--exclude-standard"],
            cwd=top,
            check=True,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout.splitlines()
        assert names(top) == sorted(name for name in listed if not name.endswith(".gitignore"))


class TestOddFiles:
    def test_links_inside_travel_by_content(self, tmp_path: Path) -> None:
        tree(tmp_path, "real/x.txt")
        (tmp_path / "file").symlink_to("real/x.txt")
        (tmp_path / "folder").symlink_to("real")
        assert names(tmp_path) == ["file", "folder/x.txt", "real/x.txt"]

    def test_links_that_lead_elsewhere_stay_behind_and_it_is_said(self, tmp_path: Path) -> None:
        top, outside = tmp_path / "top", tmp_path / "outside"
        tree(top, "a.py", "sub/b.py")
        tree(outside, "secret")
        (top / "out").symlink_to(outside)
        (top / "file").symlink_to(outside / "secret")
        (top / "nowhere").symlink_to("missing")
        (top / "self").symlink_to("self")
        (top / "sub" / "up").symlink_to("..")
        found = source_files(top)
        assert list(found.files) == ["a.py", "sub/b.py"]
        assert [note.partition(" ")[0] for note in found.notes] == ["file", "nowhere", "out", "self", "sub/up"]

    def test_links_that_multiply_end(self, tmp_path: Path) -> None:
        # a/to_b -> b, b/to_a -> a: each directory is entered once on any way down.
        tree(tmp_path, "a/x", "b/y")
        (tmp_path / "a" / "to_b").symlink_to("../b")
        (tmp_path / "b" / "to_a").symlink_to("../a")
        assert names(tmp_path) == ["a/to_b/y", "a/x", "b/to_a/x", "b/y"]

    def test_sockets_and_pipes_stay_behind_and_it_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tree(tmp_path, "a.py")
        os.mkfifo(tmp_path / "pipe")
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
            found = source_files(tmp_path)
        assert list(found.files) == ["a.py"]
        assert len(found.notes) == 2

    def test_no_directory(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="not a directory"):
            source_files(tmp_path / "missing")

    def test_a_pattern_that_cannot_be_read(self, tmp_path: Path) -> None:
        tree(tmp_path, "a.py")
        (tmp_path / ".gitignore").write_text("!\n")
        with pytest.raises(UsageError, match="pattern that can't be read"):
            source_files(tmp_path)

    @pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\x7f"[:1] + "\x00", b"\xff".decode("utf-8", "surrogateescape")])
    def test_names_that_cannot_be_sent(self, name: str) -> None:
        with pytest.raises(UsageError, match="can't be sent"):
            check_name(name)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        tree(tmp_path, "sub/a.py")
        (tmp_path / "sub").chmod(0)
        try:
            with pytest.raises(UsageError, match="Can't read sub/"):
                source_files(tmp_path)
        finally:
            (tmp_path / "sub").chmod(0o700)
