"""Runs scenarios with the real SDK in a process of its own, so that the SDK is imported once for many tests.

Reads one JSON object a line: ``{"call": NAME, "arguments": {...}}``. Answers one line:
``{"value": ..., "output": TEXT}``, or ``{"error": TYPE, "message": TEXT, "output": TEXT}``.
"""

import contextlib
import io
import json
import logging
import os
import sys

answers = os.fdopen(os.dup(1), "w")
# What libraries write to the descriptor itself may not mix with the answers.
os.dup2(2, 1)
logging.getLogger("azureml").setLevel(logging.ERROR)

import scenarios  # noqa: E402
import service_scenarios  # noqa: E402
import sweep_scenarios  # noqa: E402

modules = (scenarios, service_scenarios, sweep_scenarios)

print(json.dumps({"value": "ready", "output": ""}), file=answers, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    output = io.StringIO()
    answer = {}
    try:
        call = next(getattr(module, request["call"]) for module in modules if hasattr(module, request["call"]))
        with contextlib.redirect_stdout(output):
            answer["value"] = call(**request["arguments"])
    except Exception as error:
        answer["error"] = type(error).__name__
        answer["message"] = str(error)
    print(json.dumps(answer | {"output": output.getvalue()}, default=str), file=answers, flush=True)
