"""The model registry through the real SDK."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.emulator.clients import PROGRAMS, Http, Sdk, SdkError


@pytest.fixture(scope="module")
def trained(sdk: Sdk) -> str:
    """A run with outputs/model.npz."""
    run_id: str = sdk.submit(source=str(PROGRAMS / "job"), arguments=["--epochs", 1])
    assert sdk.wait(run_id=run_id) == "Completed"
    return run_id


def test_versions_rise_and_are_not_reused(sdk: Sdk, trained: str) -> None:
    first = sdk.register(run_id=trained, name="rising", tags={"stage": "one"})
    second = sdk.register(run_id=trained, name="rising", properties={"sha": "0"})
    assert (first, second) == ("rising:1", "rising:2")
    assert sdk.model(name="rising")["id"] == "rising:2"
    assert sdk.model(name="rising", version=1)["tags"] == {"stage": "one"}
    sdk.delete_model(name="rising", version=2)
    assert sdk.model(name="rising")["id"] == "rising:1"
    assert sdk.register(run_id=trained, name="rising") == "rising:3"


def test_a_model_that_is_not_there(sdk: Sdk) -> None:
    for query in ({"name": "nothing"}, {"name": "nothing", "version": 7}, {"id": "nothing:1"}):
        with pytest.raises(SdkError, match=r"WebserviceException(.|\n)*ModelNotFound"):
            sdk.model(**query)


def test_models_are_found_by_filter(sdk: Sdk, trained: str, tmp_path: Path) -> None:
    local = tmp_path / "weights.npz"
    local.write_bytes(b"weights")
    for tags in ({"kind": "a"}, {"kind": "b", "extra": "1"}):
        sdk.register_local(path=str(local), name="filtered", tags=tags)
    sdk.register(run_id=trained, name="from-run")
    assert sdk.models(name="filtered") == ["filtered:2", "filtered:1"]
    assert sdk.models(name="filtered", latest=True) == ["filtered:2"]
    assert sdk.models(tags=[["kind", "a"]]) == ["filtered:1"]
    assert sdk.models(tags=["extra"]) == ["filtered:2"]
    assert "from-run:1" in sdk.models(run_id=trained)


def test_a_model_s_description_changes(sdk: Sdk, trained: str) -> None:
    sdk.register(run_id=trained, name="changing")
    sdk.change_model(name="changing")
    found = sdk.model(name="changing")
    assert (found["tags"], found["properties"], found["description"]) == ({"b": "2"}, {"p": "q"}, "described")


def test_a_model_comes_back_as_it_went(sdk: Sdk, trained: str, tmp_path: Path) -> None:
    sdk.register(run_id=trained, name="fetched")
    path = sdk.download_model(name="fetched", target=str(tmp_path))
    with np.load(path, allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["l1/W"], np.arange(6.0).reshape(2, 3))
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text(name)
    sdk.register_local(path=str(folder), name="a-folder")
    back = Path(sdk.download_model(name="a-folder", target=str(tmp_path / "back")))
    assert sorted(path.name for path in back.rglob("*.txt")) == ["a.txt", "b.txt"]


def test_long_lists_come_in_pages(sdk: Sdk, http: Http) -> None:
    base = f"/modelmanagement/v1.0{http.workspace}"
    asset = http("POST", f"{base}/assets", json={"name": "many", "artifacts": []}).json()["id"]

    def register(_: int) -> int:
        answer = http("POST", f"{base}/models", json={"name": "many", "url": f"aml://asset/{asset}"})
        return int(answer.json()["version"])

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(register, range(260)))
    assert sorted(versions) == list(range(1, 261)), "two registrations got the same version"
    assert len(sdk.models(name="many")) == 260
