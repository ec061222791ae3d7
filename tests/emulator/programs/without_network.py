"""One run on an emulator, in a network namespace where only loopback can be up."""

import fcntl
import socket
import struct
import sys
from pathlib import Path

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1

with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    request = struct.pack("16sH14s", b"lo", 0, b"")
    flags = struct.unpack("16sH14s", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
    fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | IFF_UP, b""))

sys.path.insert(0, str(Path(__file__).parents[3]))
from azureml_emulator import Emulator  # noqa: E402
from tests.emulator.clients import PROGRAMS, Sdk  # noqa: E402

directory = Path(sys.argv[1])
with Emulator(directory / "state") as emulator:
    sdk = Sdk(emulator, directory)
    run_id = sdk.submit(source=str(PROGRAMS / "job"), arguments=["--epochs", 1])
    status = sdk.wait(run_id=run_id)
    print(status, sdk.metrics(run_id=run_id), sdk.files(run_id=run_id))
    sdk.close()
    assert emulator.unknown_requests() == []
