"""A folder of runs that two machines share: a run belongs to the one that started it, the other only reads."""

import json
import os
import sys
from pathlib import Path

import msgspec
import pytest

from backends.local import LocalBackend
from backends.local_workdir import working_directory
from tests.backends.local_runs import SECONDS, SLEEP, gone, start, supervisor, until, worker
from tests.drills import another_host
from trainer.home import Home
from trainer.host import is_here, this_host
from trainer.job import TrainingJob
from trainer.listing import list_infos, open_run
from trainer.records import Host, RunStatus
from trainer.runfolder import RunFolder

TRAINER = (sys.executable, "-m", "trainer")
ELSEWHERE = Host(name="far-away", machine="another", boot="another")


def test_a_run_belongs_to_a_machine(home: Home) -> None:
    here = this_host()
    assert here.name == os.uname().nodename
    assert is_here(None)
    assert is_here(here)
    assert is_here(msgspec.structs.replace(here, boot="before the restart"))
    assert is_here(msgspec.structs.replace(here, name="renamed"))  # the same kernel, whatever it is called
    assert not is_here(ELSEWHERE)
    assert not is_here(msgspec.structs.replace(here, name="a container of the same image", boot="another"))
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
    assert folder.info().host == here


@pytest.mark.parametrize("status", [RunStatus.NOT_STARTED, RunStatus.RUNNING, RunStatus.FINALIZING])
def test_a_run_on_another_machine_is_only_read(home: Home, status: RunStatus) -> None:
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
    before = folder.update(status=status, host=ELSEWHERE)
    for info in (LocalBackend(home, {}).refresh(folder), open_run(home, "latest").info()):
        assert info == before == folder.info()
    listing = list_infos(home)
    assert listing.infos == (before,)
    assert listing.problems == (f"{folder.run_id}: showing the last known status; it runs on far-away.",)


def test_a_record_of_an_earlier_version_counts_as_this_machines(home: Home) -> None:
    folder = RunFolder.create(home.runs, TrainingJob(script="x.py"), backend="local", snapshot="0" * 64)
    folder.update(status=RunStatus.RUNNING, host=None)
    assert LocalBackend(home, {}).refresh(folder).status is RunStatus.FAILED


def test_a_second_machine_reads_a_living_run_and_can_cancel_it(home: Home, tmp_path: Path) -> None:
    if not another_host.possible():
        pytest.skip("this system lets nobody make namespaces")
    run = start(home, tmp_path / "job", SLEEP)
    until(lambda: run.folder.read_log(), "the script's first word")
    pids = [worker(run).pid, supervisor(run).pid]

    def there(*words: str) -> tuple[str, str]:
        scratch = tmp_path / "-".join(words)
        scratch.mkdir()
        done = another_host.run_there([*TRAINER, *words], home.path, scratch)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    listed, said = there("runs", "--json")
    assert [found["status"] for found in json.loads(listed)] == ["Running"]
    assert f"{run.run_id}: showing the last known status; it runs on {os.uname().nodename}." in said
    shown, _ = there("show", "latest", "--json")
    assert json.loads(shown)["status"] == "Running"
    there("doctor", "--repair")
    assert run.status() is RunStatus.RUNNING
    assert not any(gone(pid) for pid in pids)
    assert working_directory(run.folder).is_dir()
    there("cancel", "latest")
    assert run.wait(SECONDS).status is RunStatus.CANCELED
