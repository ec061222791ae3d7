"""Runs scenarios with the real SDK v2 in a process of its own, as ../sdk_worker.py does with SDK v1."""

import contextlib
import io
import json
import logging
import os
import sys

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import scenarios_v2  # noqa: E402

# Only after the import, which sets it again.
logging.getLogger("azure.ai.ml").setLevel(logging.ERROR)

print(json.dumps({"value": "ready", "output": ""}), file=answers, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    output = io.StringIO()
    answer = {}
    try:
        with contextlib.redirect_stdout(output):
            answer["value"] = getattr(scenarios_v2, request["call"])(**request["arguments"])
    except Exception as error:
        answer["error"] = type(error).__name__
        answer["message"] = str(error)
    print(json.dumps(answer | {"output": output.getvalue()}, default=str), file=answers, flush=True)
