"""Counters in memory that the workers share, and their text for Prometheus.

Each worker writes to a row of its own, so nothing is locked; whoever is asked adds the rows up. A row outlives the
process that wrote it and is taken over by a later one, so counters never fall.
Format: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4.
"""

from __future__ import annotations

import mmap
import time

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STATUSES = (200, 400, 401, 403, 404, 405, 408, 413, 415, 431, 500, 503)
_OTHER = "other"
# Seconds.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# Places in a row.
_STATUS = 0
_BUCKET = _STATUS + len(STATUSES) + 1
_SECONDS = _BUCKET + len(BUCKETS) + 1
_INPUTS = _SECONDS + 1
_BYTES = _INPUTS + 1
_CPU = _BYTES + 1
_MEMORY = _CPU + 1
_IN_FLIGHT = _MEMORY + 1
_WIDTH = _IN_FLIGHT + 1
# Those that describe the process, and so end with it.
_GAUGES = (_MEMORY, _IN_FLIGHT)

_STATUS_PLACES = {status: _STATUS + place for place, status in enumerate(STATUSES)}


class SharedMetrics:
    """The table; made before the workers are forked.

    Args:
        rows: How many workers can write at once.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._memory = memoryview(mmap.mmap(-1, rows * _WIDTH * 8)).cast("d")
        self.started = time.time()

    def row(self, number: int) -> Row:
        """Return a worker's row."""
        return Row(self._memory[number * _WIDTH : (number + 1) * _WIDTH])

    def release(self, number: int) -> None:
        """Note that a row's worker has ended."""
        for place in _GAUGES:
            self._memory[number * _WIDTH + place] = 0.0

    def text(self, labels: dict[str, str]) -> str:
        """Return everything as Prometheus reads it.

        Args:
            labels: Of the model: its name and version.
        """
        total = [sum(self._memory[place::_WIDTH]) for place in range(_WIDTH)]
        lines: list[str] = []

        def add(name: str, kind: str, about: str, values: dict[str, float]) -> None:
            lines.extend([f"# HELP trainer_serve_{name} {about}", f"# TYPE trainer_serve_{name} {kind}"])
            lines.extend(f"trainer_serve_{name}{suffix} {_number(value)}" for suffix, value in values.items())

        names = [*map(str, STATUSES), _OTHER]
        counts = {f'{{code="{name}"}}': total[_STATUS + place] for place, name in enumerate(names)}
        add("requests_total", "counter", "Requests to /score by the status of their answer.", counts)
        add("request_seconds", "histogram", "Time from a request to /score to its answer.", _histogram(total))
        add("inputs_total", "counter", "Inputs scored; a body may hold many.", {"": total[_INPUTS]})
        add("request_bytes_total", "counter", "Bytes of the bodies received.", {"": total[_BYTES]})
        add("requests_in_flight", "gauge", "Requests to /score under way.", {"": total[_IN_FLIGHT]})
        add("cpu_seconds_total", "counter", "Processor time of the workers.", {"": total[_CPU]})
        add("resident_memory_bytes", "gauge", "Memory of the workers, shared pages included.", {"": total[_MEMORY]})
        add("start_time_seconds", "gauge", "When the service was started, since 1970.", {"": self.started})
        tags = ",".join(f'{name}="{_label(value)}"' for name, value in labels.items())
        add("model_info", "gauge", "The model that is served.", {f"{{{tags}}}": 1.0})
        return "\n".join([*lines, ""])


class Row:
    """What one worker counts."""

    def __init__(self, memory: memoryview[float]) -> None:
        self._memory = memory
        self._cpu_before = memory[_CPU] - time.process_time()

    def begin(self) -> None:
        """Count a request to /score that has come."""
        self._memory[_IN_FLIGHT] += 1

    def end(self, status: int, seconds: float, inputs: int, body: int) -> None:
        """Count its answer."""
        memory = self._memory
        memory[_IN_FLIGHT] -= 1
        memory[_STATUS_PLACES.get(status, _STATUS + len(STATUSES))] += 1
        place = 0
        for bound in BUCKETS:
            if seconds <= bound:
                break
            place += 1
        memory[_BUCKET + place] += 1
        memory[_SECONDS] += seconds
        memory[_INPUTS] += inputs
        memory[_BYTES] += body

    def sample(self) -> None:
        """Note the process's own time and memory."""
        self._memory[_CPU] = self._cpu_before + time.process_time()
        self._memory[_MEMORY] = _resident()


def _histogram(total: list[float]) -> dict[str, float]:
    found, running = {}, 0.0
    for place, bound in enumerate((*BUCKETS, None)):
        running += total[_BUCKET + place]
        found[f'_bucket{{le="{"+Inf" if bound is None else bound:}"}}'] = running
    return {**found, "_sum": total[_SECONDS], "_count": running}


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _resident() -> float:
    with open("/proc/self/statm", "rb") as stream:  # noqa: PTH123  # once per question of a scraper
        return int(stream.read().split()[1]) * float(mmap.PAGESIZE)
