"""A second user of the machine who wants in. Standard library only; prints what was tried, and what gave something.

``intruder.py KNOWN.json UID``: what an onlooker may know of an emulator, and who to become.
"""

# It runs with whatever Python a second user has, and reports rather than raises.
# ruff: noqa: ANN001, ANN002, ANN003, ANN201, PTH110, PTH123, SIM115

import base64
import contextlib
import http.client
import json
import os
import re
import ssl
import sys
import time
from pathlib import Path

with open(sys.argv[1]) as file:
    known = json.load(file)
user = int(sys.argv[2])
os.setgroups([])
os.setgid(user)
os.setuid(user)

tried, got_in = 0, []
state = Path(known["state"])
host = re.sub("https://", "", known["url"])
context = ssl._create_unverified_context()  # an intruder has no need of the emulator's certificate


def attempt(name, result) -> None:
    """Count a try; ``result`` is what it gave, and nothing is expected."""
    global tried
    tried += 1
    if result:
        got_in.append(f"{name}: {str(result)[:200]}")


def allowed(action, *arguments):
    """Do something with files. Returns what it gives, or None if it is not allowed."""
    try:
        return action(*arguments) or "done"
    except OSError:
        return None


def ask(method, path, body=None, **headers):
    """Send a request. Returns the answer's status and text."""
    connection = http.client.HTTPSConnection(host, context=context, timeout=300)
    try:
        connection.request(method, path, body=body, headers={key.replace("_", "-"): v for key, v in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        with contextlib.suppress(OSError):
            connection.close()


def service(name, method, path, body=None, **headers):
    """Count a request; anything but a refusal is a way in."""
    status, text = ask(method, path, body, **headers)
    attempt(f"{name} {method} {path}", "" if status in (400, 401, 403, 404, 501) else f"{status} {text}")
    return text


# The state directory, and the processes that use it.
attempt("list", allowed(os.listdir, state))
for inside in (
    *("secret.key", "emulator.db", "emulator.db-wal", "emulator.log", "emulator.log.1", "endpoint.json", "startup.log"),
    *("tls/server.key", "tls/ca.pem", "client/config.json", "client/ca-bundle.pem", "lock"),
    *(f"jobs/{known['run']}/1/{name}" for name in ("spec.json", "outcome.json", "user_logs/std_log.txt", "work")),
    *(f"blobs/{name[:2]}/{name}" for name in known["blobs"]),
):
    attempt(f"read {inside}", allowed(lambda path: open(path, "rb").read(), state / inside))
    attempt(f"write {inside}", allowed(lambda path: open(path, "ab"), state / inside))
attempt("make a file", allowed(lambda: open(state / "planted", "w")))
attempt("rename the state", allowed(os.rename, state, f"{state}-mine"))
attempt("link into the state", allowed(os.link, state / "secret.key", "/tmp/emulator-key"))
for inside in ("environ", "mem", "cwd", "fd", "root"):
    look = os.readlink if inside in ("cwd", "root") else os.listdir if inside == "fd" else None
    path = f"/proc/{known['pid']}/{inside}"
    attempt(path, allowed(look or (lambda path: open(path, "rb").read(1)), path))
with open(f"/proc/{known['pid']}/cmdline", "rb") as file:
    line = file.read().decode("utf-8", "replace")
attempt("secrets on the command line", re.search(r"[0-9a-f]{32}|eyJ", line))

# Tokens: none, forged, guessed; and the identity that gives them.
workspace = known["workspace"]


def encode(part):
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


claims = encode({"iss": "azureml-emulator", "scope": "admin", "exp": int(time.time()) + 999, "aud": "emulator"})
tokens = {
    "no token": {},
    "empty": {"Authorization": "Bearer "},
    "guessed": {"Authorization": "Bearer secret"},
    "unsigned": {"Authorization": f"Bearer {encode({'alg': 'none', 'typ': 'JWT'})}.{claims}."},
    "wrong signature": {"Authorization": f"Bearer {encode({'alg': 'HS256', 'typ': 'JWT'})}.{claims}.AAAA"},
    "basic": {"Authorization": "Basic cm9vdDpyb290"},
}
configuration = {"Configuration": {"command": "id > /tmp/emulator-owned", "target": "cpu"}, "SnapshotId": "0"}
for name, headers in tokens.items():
    service(name, "GET", workspace, **headers)
    service(name, "GET", f"/history/v1.0{workspace}/runs/{known['run']}", **headers)
    service(
        name,
        "POST",
        f"/execution/v1.0{workspace}/experiments/e/snapshotrun?runId=intruder",
        json.dumps(configuration),
        Content_Type="application/json",
        **headers,
    )
    for method, path in (
        *(("GET", "requests"), ("DELETE", "requests"), ("GET", "unknown-requests"), ("GET", "faults")),
        *(("PUT", "faults"), ("POST", "shutdown"), ("POST", f"runs/{known['run']}/evict")),
    ):
        service(name, method, f"/_emulator/{path}", "{}", Content_Type="application/json", **headers)
for path in (
    "/msi/token",
    "/msi/token/",
    "/msi/secret/token",
    "/msi/unused/token",
    "/msi//token",
    "/msi/../msi/token/",
):
    for method in ("GET", "POST"):
        for headers in ({}, {"secret": ""}, {"secret": "unused"}, {"secret": "0" * 64}, {"Metadata": "true"}):
            service("identity", method, f"{path}?resource=r&api-version=2017-09-01", **headers)

# Blobs of others: signatures that are missing, made up, or for something else.
for name in known["blobs"]:
    for query in (
        "",
        "?sig=",
        "?sp=rcw&se=2999-01-01T00:00:00Z&sig=AAAA",
        "?sp=r&se=&sig=%00",
        "?comp=block&blockid=QQ==",
    ):
        service("blob", "GET", f"/blobs/{name}{query}")
        service("blob", "PUT", f"/blobs/{name}{query}", b"mine")
        status, _ = ask("HEAD", f"/blobs/{name}{query}")
        attempt(f"HEAD {name}{query}", status == 200)

attempt("a command of mine has run", os.path.exists("/tmp/emulator-owned"))
print(json.dumps({"uid": os.getuid(), "tried": tried, "got in": got_in}))
