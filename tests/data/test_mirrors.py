"""Fetching from mirrors that fail in every way they are known to, over real HTTP."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainer.data import mirrors as asking
from trainer.data import transfer
from trainer.data.cache import Cache
from trainer.data.catalogue import CatalogueEntry
from trainer.data.mirrors import Patience
from trainer.data.resolution import ensure
from trainer.data.transfer import MirrorError
from trainer.errors import ConfigError

QUICK = Patience(probe=5.0, connect=2.0, read=2.0, window=30.0, attempts=4)
IMAGES = "train-images-idx3-ubyte"
Mirrors = Callable[..., Any]


def sizes(folder: Path) -> list[int]:
    """Sizes of what has been fetched in part so far; a file that is whole meanwhile has another name."""
    found = []
    for part in folder.glob("*.part"):
        with suppress(FileNotFoundError):
            found.append(part.stat().st_size)
    return found


def dead_url() -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/"


@pytest.fixture
def fetch(entry: CatalogueEntry, tmp_path: Path, told: Any) -> Callable[..., Path]:
    """Fetches the training images into one folder."""
    folder = tmp_path / "folder"
    folder.mkdir()

    def run(*urls: str, patience: Patience = QUICK) -> Path:
        return transfer.fetch(entry.files[0], folder, urls, patience=patience, progress=told)

    return run


def leftovers(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "folder").iterdir())


def test_a_good_mirror_gives_the_file_and_leaves_nothing_else(
    mirrors: Mirrors, fetch: Any, contents: Any, told: Any, tmp_path: Path
) -> None:
    mirror = mirrors()
    path = fetch(mirror.url)
    assert gzip.decompress(path.read_bytes()) == contents[IMAGES]
    assert leftovers(tmp_path) == [f"{IMAGES}.gz"]
    size = len(mirror.files[f"{IMAGES}.gz"])
    assert told.bars == [(f"{IMAGES}.gz", size)]
    assert told.sizes == [size]


def test_a_dead_mirror_is_passed_over(mirrors: Mirrors, fetch: Any, told: Any) -> None:
    assert fetch(dead_url(), mirrors().url).exists()
    assert "no connection" in told.lines[0]


def test_a_mirror_that_accepts_and_says_nothing_is_passed_over(mirrors: Mirrors, fetch: Any, told: Any) -> None:
    silent = mirrors(silent={f"{IMAGES}.gz"})
    assert fetch(silent.url, mirrors().url).exists()
    assert "nothing came in time" in told.lines[0]


def test_a_mirror_that_trickles_is_given_up(mirrors: Mirrors, fetch: Any, told: Any) -> None:
    slow = mirrors(trickle=0.02)
    patience = replace(QUICK, window=1.5, window_bytes=1 << 20)
    assert fetch(slow.url, mirrors().url, patience=patience).exists()
    assert "bytes in 1.5 seconds" in told.lines[0]


def test_a_broken_transfer_goes_on_where_it_broke(mirrors: Mirrors, fetch: Any, contents: Any) -> None:
    mirror = mirrors(cut={f"{IMAGES}.gz": 100_000}, cuts=2)
    path = fetch(mirror.url)
    assert gzip.decompress(path.read_bytes()) == contents[IMAGES]
    assert mirror.asked(f"{IMAGES}.gz") == ["", "bytes=100000-", "bytes=200000-"]


def test_a_mirror_that_always_cuts_and_knows_no_ranges_is_passed_over(
    mirrors: Mirrors, fetch: Any, told: Any, contents: Any
) -> None:
    cutting = mirrors(cut={f"{IMAGES}.gz": 1000}, ranges=False)
    path = fetch(cutting.url, mirrors().url)
    assert gzip.decompress(path.read_bytes()) == contents[IMAGES]
    assert "the connection broke" in told.lines[0]


def test_a_truncated_file_is_refused(mirrors: Mirrors, fetch: Any, tmp_path: Path, contents: Any) -> None:
    short = mirrors()
    short.files[f"{IMAGES}.gz"] = gzip.compress(contents[IMAGES])[:-5000]
    with pytest.raises(MirrorError, match="cut off"):
        fetch(short.url)
    assert leftovers(tmp_path) == []


def test_a_wrong_file_is_refused_and_the_next_mirror_asked(
    mirrors: Mirrors, fetch: Any, told: Any, contents: Any
) -> None:
    wrong = mirrors()
    wrong.files[f"{IMAGES}.gz"] = gzip.compress(contents[IMAGES][:-1] + b"\0")
    assert gzip.decompress(fetch(wrong.url, mirrors().url).read_bytes()) == contents[IMAGES]
    assert "another SHA-256" in told.lines[0]


def test_nothing_takes_the_name_of_a_file_that_no_mirror_has(mirrors: Mirrors, fetch: Any, tmp_path: Path) -> None:
    missing = mirrors(status={f"{IMAGES}.gz": 404})
    with pytest.raises(MirrorError, match="404"):
        fetch(missing.url, dead_url())
    assert leftovers(tmp_path) == []


def test_a_redirect_is_followed(mirrors: Mirrors, fetch: Any) -> None:
    mirror = mirrors(redirect="/old")
    assert fetch(mirror.url + "old/").exists()
    assert [path for path, _ in mirror.requests] == [f"/old/{IMAGES}.gz", f"/{IMAGES}.gz"]


def test_a_redirect_without_end_is_an_error(mirrors: Mirrors, fetch: Any) -> None:
    mirror = mirrors()
    mirror.location = f"{mirror.url}again"
    with pytest.raises(MirrorError, match="too many redirects"):
        fetch(mirror.url)


def test_the_second_start_resumes_the_first(mirrors: Mirrors, fetch: Any, contents: Any, tmp_path: Path) -> None:
    mirror = mirrors(cut={f"{IMAGES}.gz": 100_000})
    with pytest.raises(MirrorError):
        fetch(mirror.url, patience=replace(QUICK, attempts=1))
    assert len(leftovers(tmp_path)) == 2  # the part and its validator
    mirror.cut.clear()
    assert gzip.decompress(fetch(mirror.url).read_bytes()) == contents[IMAGES]
    assert mirror.asked(f"{IMAGES}.gz") == ["", "bytes=100000-"]
    assert leftovers(tmp_path) == [f"{IMAGES}.gz"]


@pytest.mark.parametrize("etag", ['"2"', ""])
def test_a_file_that_changed_between_two_starts_is_fetched_whole(
    mirrors: Mirrors, fetch: Any, contents: Any, etag: str
) -> None:
    mirror = mirrors(cut={f"{IMAGES}.gz": 100_000}, etag='"1"' if etag else "")
    mirror.files[f"{IMAGES}.gz"] = gzip.compress(contents[IMAGES], 1)
    with pytest.raises(MirrorError):
        fetch(mirror.url, patience=replace(QUICK, attempts=1))
    mirror.cut.clear()
    # The same content, compressed differently: the two halves don't fit.
    mirror.files[f"{IMAGES}.gz"] = gzip.compress(contents[IMAGES], 0)
    mirror.etag = etag
    assert gzip.decompress(fetch(mirror.url).read_bytes()) == contents[IMAGES]


def test_a_part_that_was_complete_is_no_obstacle(mirrors: Mirrors, fetch: Any, contents: Any, tmp_path: Path) -> None:
    mirror = mirrors(cut={f"{IMAGES}.gz": 1000})
    with pytest.raises(MirrorError):
        fetch(mirror.url, patience=replace(QUICK, attempts=1))
    part = next(path for path in (tmp_path / "folder").iterdir() if path.suffix == ".part")
    part.write_bytes(mirror.files[f"{IMAGES}.gz"])
    mirror.cut.clear()
    assert gzip.decompress(fetch(mirror.url).read_bytes()) == contents[IMAGES]


def test_a_mirror_that_sends_without_end_is_stopped(mirrors: Mirrors, fetch: Any, tmp_path: Path) -> None:
    endless = mirrors()
    endless.files[f"{IMAGES}.gz"] = b"\x1f\x8b" + bytes(3_000_000)
    with pytest.raises(MirrorError, match="sends more than"):
        fetch(endless.url)
    assert leftovers(tmp_path) == []


def test_a_gzip_bomb_is_left_when_it_grows_too_long(mirrors: Mirrors, fetch: Any, tmp_path: Path) -> None:
    bomb = mirrors()
    bomb.files[f"{IMAGES}.gz"] = gzip.compress(bytes(30_000_000), 9)
    with pytest.raises(MirrorError, match="more than the expected"):
        fetch(bomb.url)
    assert leftovers(tmp_path) == []


def test_content_encoding_is_not_undone(mirrors: Mirrors, fetch: Any, contents: Any) -> None:
    mirror = mirrors(headers={"Content-Encoding": "gzip", "Content-Type": "application/x-gzip"})
    path = fetch(mirror.url)
    assert path.read_bytes() == mirror.files[f"{IMAGES}.gz"]


def test_what_a_server_has_unpacked_is_named_for_what_it_is(mirrors: Mirrors, fetch: Any, contents: Any) -> None:
    mirror = mirrors()
    mirror.files[f"{IMAGES}.gz"] = contents[IMAGES]
    path = fetch(mirror.url)
    assert path.name == IMAGES
    assert path.read_bytes() == contents[IMAGES]


def test_a_full_disk_is_said_as_such(mirrors: Mirrors, entry: CatalogueEntry, told: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match="Can't write the data cache"):
        transfer.fetch(entry.files[0], tmp_path / "file", [mirrors().url], patience=QUICK, progress=told)


def test_proxies_of_the_environment_are_used(mirrors: Mirrors, fetch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = mirrors()
    monkeypatch.setenv("http_proxy", proxy.url)
    assert fetch("http://mirror.invalid/mnist/").exists()
    assert proxy.requests[0][0] == f"http://mirror.invalid/mnist/{IMAGES}.gz"


def test_only_mirrors_that_answer_rightly_are_asked_quickest_first(
    mirrors: Mirrors, entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = "t10k-labels-idx1-ubyte.gz"
    good, silent, portal = mirrors(), mirrors(silent={labels}), mirrors()
    portal.files = dict.fromkeys(portal.files, b"<html>Please sign in</html>")
    urls = [silent.url, dead_url(), portal.url, good.url]
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", ", ".join(urls))
    assert asking.answering(entry, QUICK) == [good.url]


def test_no_mirror_answers(mirrors: Mirrors, entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = mirrors(silent={"t10k-labels-idx1-ubyte.gz"})
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", f"{silent.url} {dead_url()}")
    assert asking.answering(entry, replace(QUICK, probe=0.3)) == []


def test_mirrors_are_set_by_the_environment(entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", "https://a.example/{name}, http://b.example/x/")
    assert asking.mirrors_of(entry) == ("https://a.example/mnist/", "http://b.example/x/")
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", "off")
    assert asking.mirrors_of(entry) == ()
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", "")
    assert asking.mirrors_of(entry) == entry.mirrors


@pytest.mark.parametrize("url", ["file:///etc/", "mirror.example", "ftp://x/", "http:///"])
def test_a_mirror_that_is_no_web_address_is_refused(
    entry: CatalogueEntry, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", url)
    with pytest.raises(ConfigError, match="no http or https URL"):
        asking.mirrors_of(entry)


def test_a_password_in_a_mirrors_address_is_never_shown(
    entry: CatalogueEntry, cache: Cache, told: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_DATA_MIRRORS", dead_url().replace("http://", "http://user:hunter2@"))
    with pytest.raises(ConfigError) as caught:
        ensure(entry, cache, told, QUICK)
    assert "127.0.0.1" in caught.value.message
    with pytest.raises(MirrorError) as caught_too:
        transfer.fetch(entry.files[0], cache.root.parent, asking.mirrors_of(entry), patience=QUICK, progress=told)
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {caught_too.value} {told.lines}"


@pytest.fixture
def another_process(contents: Any, tmp_path: Path, write: Any) -> Callable[[str], subprocess.Popen[str]]:
    """Starts a process that says it is ready, waits for a line, and then fetches the set."""
    source = write(tmp_path / "source", contents)
    program = textwrap.dedent("""
        import hashlib, sys
        from pathlib import Path
        from trainer.data.cache import Cache
        from trainer.data.catalogue import CatalogueEntry, CatalogueFile
        from trainer.data.mirrors import Patience
        from trainer.data.transfer import Silent
        from trainer.data.resolution import ensure
        from trainer.runtime.datasets import FILES

        contents = {name: Path(sys.argv[1], name).read_bytes() for name in FILES}
        files = tuple(CatalogueFile(n, hashlib.sha256(d).hexdigest(), len(d)) for n, d in contents.items())
        entry = CatalogueEntry("mnist", "", "", 400, 100, ("http://replaced.invalid/",), files)
        print("ready", flush=True)
        sys.stdin.readline()
        print(ensure(entry, Cache.from_environment(), Silent(), Patience()).digest)
    """)

    def start(url: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(source)],
            env=os.environ | {"TRAINER_DATA_MIRRORS": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    return start


def test_two_processes_at_once_fetch_each_file_once(mirrors: Mirrors, another_process: Any) -> None:
    mirror = mirrors(trickle=0.0001)
    processes = [another_process(mirror.url) for _ in range(2)]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    digests = {process.communicate(timeout=600)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(digests) == 1
    assert mirror.asked(f"{IMAGES}.gz") == [""]


def test_what_a_killed_process_had_fetched_is_not_lost(
    mirrors: Mirrors, another_process: Any, entry: CatalogueEntry, cache: Cache, told: Any
) -> None:
    mirror = mirrors(cut={f"{IMAGES}.gz": 200_000}, hold={f"{IMAGES}.gz"})
    process = another_process(mirror.url)
    process.stdin.write("go\n")
    process.stdin.flush()
    folder = cache.folder(entry)
    while 200_000 not in sizes(folder):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    mirror.cut.clear()
    found = ensure(entry, cache, told, QUICK, [mirror.url])
    assert found.digest == entry.digest
    assert mirror.asked(f"{IMAGES}.gz") == ["", "bytes=200000-"]
