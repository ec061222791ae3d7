"""Names of outputs: whatever a script calls its files, the run ends as it ended, with all that could be brought."""

from __future__ import annotations

from pathlib import Path

import pytest

from azureml_emulator import Endpoint
from backends.azureml import AzureMLBackend
from tests.backends import sdk_warnings
from trainer.home import Home
from trainer.records import RunStatus
from trainer.submission import JobRequest, prepare, submit

pytestmark = sdk_warnings.IGNORED
SCRIPT = Path(__file__).parent / "scripts" / "names.py"
AS_THEY_ARE = ("a#1.png", "a?.png", "a_%41.txt", "a=1%2F3.txt", "dir#1/b c%.txt", "{x}.txt", "é;&+.txt")
RENAMED = {
    r"two\nlines.txt": "two%0Alines.txt",
    "back\\slash.txt": "back%5Cslash.txt",
    r"latin-\xe9.txt": "latin-%E9.txt",
    r"\xe9" * 200: "%E9" * 80,
}


@pytest.mark.slow
def test_awkward_names_come_home_and_what_had_to_be_renamed_is_named(
    azure: AzureMLBackend, azure_home: Home, service: Endpoint
) -> None:
    run = submit(prepare(JobRequest(script=SCRIPT, dataset="none"), azure_home), azure, azure_home)
    info = run.wait(timeout=600)
    assert info.status is RunStatus.COMPLETED, (info, list(run.logs()))
    assert info.model is not None
    for name in AS_THEY_ARE:
        assert (run.folder.outputs / name).read_bytes() == name.encode()
    for old, new in RENAMED.items():
        assert (run.folder.outputs / new).read_bytes() == b"renamed"
        assert any(f"The output {old} was renamed to {new}: " in text for text in info.warnings), old
        assert any(f"the output {old} was renamed to {new}: " in line for line in run.logs()), old
    assert len(run.files()) == len(AS_THEY_ARE) + len(RENAMED) + len(("model.npz", "environment.json"))
