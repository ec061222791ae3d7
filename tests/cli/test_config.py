"""Where a setting is from, and what is said of a wrong one."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.config import SETTINGS, load_config, user_file
from trainer.errors import ConfigError, UsageError
from trainer.home import Home


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("sys.platform", "linux")
    return Home(tmp_path / ".trainer", tmp_path)


def project_file(home: Home, text: str) -> Path:
    path = home.project / "pyproject.toml"
    path.write_text(text)
    return path


def users_file(text: str) -> Path:
    path = user_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_each_layer_hides_the_next(place: Home) -> None:
    users = users_file("epochs = 1\nunits = 1\nlr = 1\nbatchsize = 1\n")
    project = project_file(place, "[tool.trainer]\nepochs = 2\nunits = 2\nlr = 0.5\n")
    config = load_config(place, {"epochs": 4, "seed": None}, {"TRAINER_EPOCHS": "3", "TRAINER_UNITS": "3"})
    found = {name: config.values[name] for name in ("epochs", "units", "lr", "batchsize", "seed", "backend")}
    assert found == {
        "epochs": (4, "flag"),
        "units": (3, "TRAINER_UNITS"),
        "lr": (0.5, str(project)),
        "batchsize": (1, str(users)),
        "seed": (None, "default"),
        "backend": ("local", "default"),
    }
    assert config.training(flags_only=True) == {"epochs": 4}
    assert config.training() == {"epochs": 4, "batchsize": 1, "units": 3, "lr": 0.5}


def test_a_backends_table_is_for_that_backend(place: Home) -> None:
    project_file(place, '[tool.trainer]\nvm-size = "A"\n[tool.trainer.azureml]\nvm_size = "B"\nepochs = 7\n')
    assert "vm_size" not in load_config(place, {}, {}).values
    config = load_config(place, {"backend": "azureml"}, {})
    assert (config["vm_size"], config["epochs"]) == ("B", 7)
    assert load_config(place, {}, {"TRAINER_BACKEND": "azureml"})["vm_size"] == "B"
    assert config.options() == {"vm_size": "B"}


def test_paths_in_a_file_count_from_the_file(place: Home) -> None:
    project_file(place, '[tool.trainer]\nscript = "code/train.py"\nworkspace-config = "/etc/azure.json"\n')
    config = load_config(place, {"backend": "azureml"}, {"TRAINER_SOURCE": "code"})
    assert config["script"] == place.project / "code" / "train.py"
    assert config["workspace_config"] == Path("/etc/azure.json")
    assert config["source"] == Path("code")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("epoch = 3", ["unknown key 'epoch'", "Did you mean 'epochs'?"]),
        ("qqq = 3", ["unknown key 'qqq'", "Known keys: backend,"]),
        ('epochs = "3"', ["epochs must be a whole number of at least 1, not '3'."]),
        ("epochs = 0", ["epochs must be a whole number of at least 1, not 0."]),
        ("max-minutes = 0", ["max-minutes must be a whole number of at least 1"]),
        ("backend = 'azureml'\nemulator = 1", ["emulator must be true or false, not 1."]),
        ("backend = 'azureml'\n[azureml]\nmax-nodes = 0", ["azureml: max-nodes must be a whole number from 1 to"]),
        ("backend = 'azureml'\n[azureml]\nvm-sise = 'a'", ["azureml: unknown key 'vm-sise'", "'vm-size'?"]),
        ("backend = 3", ["backend must be a text"]),
        ("experiment = ''", ["experiment must be a text that is not empty"]),
        ("vm-size = 'a'\nvm_size = 'b'", ["given twice"]),
        ("epochs = ", ["is not TOML"]),
        ("[nowhere]\nepochs = 1", ["no backend 'nowhere'", "azureml, azureml-v2, local"]),
        ("[local]\nbackend = 'azureml'", ["'backend' has no meaning here"]),
    ],
)
def test_a_wrong_file_is_named(place: Home, text: str, named: list[str]) -> None:
    path = users_file(text)
    with pytest.raises(ConfigError) as caught:
        load_config(place, {}, {})
    said = f"{caught.value.message} {caught.value.hint}"
    assert [part for part in (str(path), *named) if part not in said] == []
    assert caught.value.exit_code == 3


def test_a_wrong_project_file_is_named_with_its_table(place: Home) -> None:
    path = project_file(place, "[tool.trainer]\nepochs = true\n")
    with pytest.raises(ConfigError) as caught:
        load_config(place, {}, {})
    assert caught.value.message == f"{path}, [tool.trainer]: epochs must be a whole number of at least 1, not True."


def test_a_wrong_variable_is_named(place: Home) -> None:
    for variable, value in (
        ("TRAINER_EPOCHS", "many"),
        ("TRAINER_EMULATOR", "perhaps"),
        ("TRAINER_LR", "fast"),
        ("TRAINER_AZUREML_MAX_NODES", "0"),
    ):
        with pytest.raises(ConfigError, match=f"{variable} must be .*, not '{value}'"):
            load_config(place, {"backend": "azureml"}, {variable: value})


def test_variables_as_shells_write_them(place: Home) -> None:
    for word, value in (("1", True), ("yes", True), ("FALSE", False), ("off", False)):
        assert load_config(place, {"backend": "azureml"}, {"TRAINER_EMULATOR": word})["emulator"] is value
    assert load_config(place, {}, {"TRAINER_EPOCHS": ""})["epochs"] is None
    assert load_config(place, {}, {"TRAINER_LR": "1e-3"})["lr"] == 0.001


@pytest.mark.parametrize(
    "text",
    [
        "[tool.trainer]\nepochs = 5",
        "[tool]\ntrainer = {epochs = 5}",
        "tool.trainer.epochs = 5",
        "[tool . 'trainer']\nepochs = 5",
    ],
)
def test_every_way_to_write_the_table(place: Home, text: str) -> None:
    project_file(place, text)
    assert load_config(place, {}, {})["epochs"] == 5


def test_files_of_others_are_not_read(place: Home) -> None:
    project_file(place, "this is not TOML, and nobody asked us\n")
    assert load_config(place, {}, {})["epochs"] is None


_OPTIONS = ("vm-size", "max_nodes", "emulator", "workspace_config")
_KEYS = st.sampled_from([*SETTINGS, *_OPTIONS, "zzz"])
_VALUES = st.one_of(st.integers(-5, 10**6), st.floats(allow_nan=False), st.booleans(), st.text(max_size=5))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.dictionaries(_KEYS, _VALUES, max_size=4))
def test_any_table_is_taken_or_refused_by_name(place: Home, table: dict[str, object]) -> None:
    # JSON's scalars are TOML's, but for surrogates and control characters, which json escapes the same way.
    path = users_file("".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()))
    try:
        config = load_config(place, {}, {})
    except ConfigError as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert str(path) in refused.message
        assert refused.hint
    else:
        taken = {name for name, value in config.values.items() if value.source == str(path)}
        # Another backend's options are left to it.
        of_others = {option.replace("-", "_") for option in _OPTIONS} - config.values.keys()
        assert {key.replace("-", "_") for key in table} <= taken | of_others


def test_of_two_options_that_exclude_each_other_the_one_nearer_to_the_command_line_counts(place: Home) -> None:
    azure = {"backend": "azureml-v2"}
    path = project_file(place, "[tool.trainer]\nworkspace-config = 'w.json'\n")
    assert load_config(place, {**azure, "emulator": True}, {}).options() == {"emulator": True}
    assert load_config(place, azure, {"TRAINER_EMULATOR": "1"}).options() == {"emulator": True}
    # Not to use the emulator says nothing of the workspace.
    config = load_config(place, azure, {"TRAINER_EMULATOR": "0"})
    assert (config["emulator"], config["workspace_config"]) == (False, path.parent / "w.json")
    given = load_config(place, {**azure, "workspace_config": "x.json"}, {"TRAINER_EMULATOR": "1"})
    assert given.options() == {"workspace_config": Path("x.json")}
    with pytest.raises(UsageError, match="--emulator and --workspace-config exclude each other"):
        load_config(place, {**azure, "workspace_config": "x.json", "emulator": True}, {})
    with pytest.raises(ConfigError, match="TRAINER_EMULATOR, TRAINER_WORKSPACE_CONFIG: emulator and"):
        load_config(place, azure, {"TRAINER_EMULATOR": "1", "TRAINER_WORKSPACE_CONFIG": "x.json"})
    # A backend's table goes before the one of all.
    project_file(place, "[tool.trainer]\nworkspace-config = 'w.json'\n[tool.trainer.azureml-v2]\nemulator = true\n")
    assert load_config(place, azure, {}).options() == {"emulator": True}
    project_file(place, "[tool.trainer.azureml-v2]\nworkspace-config = 'w.json'\nemulator = true\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml: emulator and workspace_config exclude"):
        load_config(place, azure, {})


def test_a_variable_for_one_backend_hides_the_plain_one(place: Home) -> None:
    project_file(place, "[tool.trainer.azureml]\nmax-nodes = 2\n")
    variables = {"TRAINER_AZUREML_MAX_NODES": "5", "TRAINER_MAX_NODES": "3", "TRAINER_COMPUTE": "small"}
    config = load_config(place, {"backend": "azureml"}, variables)
    assert config.options() == {"compute": "small", "max_nodes": 5}
    assert config.values["max_nodes"].source == "TRAINER_AZUREML_MAX_NODES"
    assert load_config(place, {"backend": "azureml"}, {})["max_nodes"] == 2
    assert load_config(place, {"backend": "local"}, variables).options() == {}


def test_a_table_of_another_backend_is_left_to_it(place: Home) -> None:
    users_file("[azureml]\nmax-nodes = 0\n")
    assert load_config(place, {}, {})["backend"] == "local"
    with pytest.raises(ConfigError, match="max-nodes"):
        load_config(place, {"backend": "azureml"}, {})
