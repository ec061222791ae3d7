"""A loopback emulator in place of Azure, found or started for one project.

The emulator is a program of its own: it is started by name, with this interpreter, and known by what it leaves for
its clients: ``endpoint.json``, ``client/config.json``, and the variables of ``--print-env``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from trainer.errors import ConfigError, MissingExtraError, SignInError

DOES_NOT_PROVE = (
    "This is the emulator on 127.0.0.1, not Azure. It proves the calls, and nothing about sign-in, quota, image "
    "builds or GPUs; the job runs on this machine."
)
_NEEDS = ("uvicorn", "fastapi", "cryptography")
_MODULE = "azureml_emulator"
# One that was started for a run goes when for an hour nobody has asked it anything and no job is active.
_SETTINGS = json.dumps({"idle_exit": 3600.0})
_START_SECONDS = 90.0
_POLL_SECONDS = 0.1
_HEALTH_SECONDS = 10.0
# Ways to sign in are not for us: tokens are asked for over HTTP, and if the emulator is gone the SDK must
# not turn to login.microsoftonline.com, as it does when a managed identity doesn't answer.
_OTHER_SIGN_IN = ("MSI_ENDPOINT", "MSI_SECRET")
_SPARE_SECONDS = 120.0


@dataclass(frozen=True)
class EmulatorEndpoint:
    """A running emulator.

    Attributes:
        state: Its state directory.
        ca: Its certificate authority.
        environment: The variables with which the SDK finds it.
        subscription_id: Of its workspace.
        resource_group: Of its workspace.
        workspace_name: Its workspace.
        token_url: Where it gives bearer tokens, as a managed identity's endpoint does.
    """

    state: Path
    ca: Path
    environment: dict[str, str]
    subscription_id: str
    resource_group: str
    workspace_name: str
    token_url: str
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict, repr=False, compare=False)

    def token(self, audience: str) -> str:
        """A bearer token; asked for again before it ends.

        Raises:
            SignInError: The emulator gives none.
        """
        import requests

        token, ends = self._tokens.get(audience, ("", 0.0))
        if ends - time.time() > _SPARE_SECONDS:
            return token
        try:
            answer = requests.post(
                self.token_url,
                data={"resource": audience},
                headers={"Metadata": "true"},
                verify=str(self.ca),
                timeout=30,
            )
            answer.raise_for_status()
            found = answer.json()
            token, ends = str(found["access_token"]), float(found["expires_on"])
        except requests.RequestException:
            raise  # it is down or busy, which passes
        except (ValueError, KeyError, TypeError) as error:
            raise SignInError(
                f"The emulator gives no token: {error}.", f"See {self.state / 'emulator.log'}."
            ) from error
        self._tokens[audience] = token, ends
        return token


_lock = threading.Lock()
_known: dict[Path, EmulatorEndpoint] = {}


def running_emulator(state: Path) -> EmulatorEndpoint:
    """The emulator that keeps its state in a directory; started in the background if none runs.

    Raises:
        MissingExtraError: What it needs is not installed.
        ConfigError: It does not start.
    """
    state = state.resolve()
    with _lock:
        if not is_running(state):
            _known.pop(state, None)
            _start(state)
        if state not in _known:
            _known[state] = _describe(state)
        return _known[state]


def is_running(state: Path) -> bool:
    """Whether an emulator with that state directory answers."""
    import requests

    try:
        found = json.loads((state / "endpoint.json").read_bytes())
        url, ca = str(found["url"]), str(found["ca"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    with contextlib.suppress(requests.RequestException, OSError), requests.Session() as session:
        session.trust_env = False  # no proxy and no netrc has a part in talking to loopback
        return session.get(f"{url}/_emulator/health", verify=ca, timeout=_HEALTH_SECONDS).ok
    return False


def _start(state: Path) -> None:
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise MissingExtraError("The emulator", "emulator")
    state.mkdir(parents=True, exist_ok=True)
    output = state / "startup.log"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, "--state", str(state), "--settings", _SETTINGS],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in _OTHER_SIGN_IN},
        )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if is_running(state):
            # A rival that took the lock first is as good as ours, which has then ended.
            threading.Thread(target=process.wait, daemon=True).start()
            return
        if process.poll() not in (None, 4):  # 4: another serves this state, and will answer in a moment
            break
        time.sleep(_POLL_SECONDS)
    if process.poll() is None:
        process.terminate()
    lines = output.read_text("utf-8", "replace").strip().splitlines() or ["it says nothing"]
    raise ConfigError(f"The emulator did not start: {lines[0].removeprefix('error: ')}", f"See {output}.")


def _describe(state: Path) -> EmulatorEndpoint:
    try:
        answer = subprocess.run(
            [sys.executable, "-m", _MODULE, "--state", str(state), "--print-env"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        variables = _exported(answer.stdout)
        endpoint = json.loads((state / "endpoint.json").read_bytes())
        workspace = json.loads((state / "client" / "config.json").read_bytes())
        return EmulatorEndpoint(
            state=state,
            ca=Path(endpoint["ca"]),
            environment={name: value for name, value in variables.items() if name not in _OTHER_SIGN_IN},
            subscription_id=str(workspace["subscription_id"]),
            resource_group=str(workspace["resource_group"]),
            workspace_name=str(workspace["workspace_name"]),
            token_url=variables["MSI_ENDPOINT"],
        )
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"The emulator in {state} can't be used: {type(error).__name__}: {error}.",
            f"See {state / 'emulator.log'}; remove {state} to begin with an empty one.",
        ) from error


def _exported(text: str) -> dict[str, str]:
    """The variables of ``export NAME=value`` lines."""
    found = {}
    for line in text.splitlines():
        words = shlex.split(line)
        if len(words) == 2 and words[0] == "export":
            name, _, value = words[1].partition("=")
            found[name] = value
    return found
