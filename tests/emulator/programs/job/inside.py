"""A script that uses its run and its workspace from inside of the job."""

import sys
from pathlib import Path

from azureml.core import Model, Run

run = Run.get_context(allow_offline=False)
workspace = run.experiment.workspace
assert workspace.name == "emulator-ws"
assert Path.cwd() == Path(__file__).parent.resolve()
assert sys.argv == ["inside.py"]

run.log("Loss", 0.5)
run.tag("from", "inside")
Path("logs").mkdir(exist_ok=True)
Path("logs/live.txt").write_text("streamed")
# Uploaded by the script, so it may not lie in ./outputs too: the service does not overwrite.
Path("early.txt").write_text("early")
run.upload_file("outputs/early.txt", "early.txt")
Path("outputs/late.txt").write_text("late")
run.register_model("inside", model_path="outputs/early.txt")
assert Model(workspace, "inside").version >= 1
with run.child_run() as child:
    child.log("Child", 1)
