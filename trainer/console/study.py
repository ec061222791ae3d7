"""How a study is shown: while it runs, as a summary, and as one JSON object."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from trainer.console.output import (
    BOLD,
    GREEN,
    RED,
    YELLOW,
    clean,
    duration,
    facts,
    inline,
    moment,
    note,
    number,
    paint,
    print_json,
    say,
    shows_colours,
    table,
    width,
    wrapped,
)
from trainer.runfolder import RunFolder
from trainer.tune.sampling import grid_size, point
from trainer.tune.space import Value, arguments
from trainer.tune.study import SERVICE, Outcome, StudyDefinition, StudyFolder, Trial, TrialState, best_of, why_no_best
from trainer.tune.trials import curve_of

if TYPE_CHECKING:
    from trainer.home import Home
    from trainer.job import TrainingJob
    from trainer.records import Stopped
    from trainer.tune.driver import Driver

_SPARKS = "▁▂▃▄▅▆▇█"
_ROWS = 12
# In the live table: the end of a longer name tells more than its beginning, validation/main/.
_METRIC_MAX = 14
_STATE_LEAST = 12
_REDRAW_SECONDS = 0.25
_COLOURS = {
    TrialState.COMPLETED: GREEN,
    TrialState.FAILED: RED,
    TrialState.STOPPED: YELLOW,
    TrialState.CANCELED: YELLOW,
    TrialState.INTERRUPTED: YELLOW,
}


class PlainStudyView:
    """One line per trial that begins and per trial that ends, on standard error.

    Args:
        study: The study.
        trials: How many trials it is to have, where a command says so anew.
        parallel: How many at once, likewise.
    """

    def __init__(self, study: StudyFolder, *, trials: int | None = None, parallel: int | None = None) -> None:
        self._study = study
        definition = study.definition()
        self._definition = msgspec.structs.replace(
            definition,
            trials=trials or study_size(definition, study.trials(), study.outcome()),
            parallel=parallel or definition.parallel,
        )
        self._driver: Driver | None = None
        self._line(f"{study.study_id}  {describe(self._definition)}")

    def started(self, trial: Trial) -> None:
        """Print the trial and its values."""
        self._line(f"trial {trial.number}  {values_text(trial.values)}  started, run {trial.run_id}")

    def ended(self, trial: Trial, best: Trial | None) -> None:
        """Print what the trial came to, the best so far and the time left."""
        parts = [f"trial {trial.number}  {values_text(trial.values)}  {ended_text(trial, self._definition.metric)}"]
        if best is not None:
            parts.append(f"best {number(best.value)} (trial {best.number})")
        # What it says now: the last look was before this end.
        if left := self._driver.seconds_left if self._driver else None:
            parts.append(f"{duration(left)} left")
        self._line("  ".join(parts))

    def tick(self, driver: Driver) -> None:
        """Remember the driver, which knows the time left."""
        self._driver = driver

    def note(self, text: str) -> None:
        """Print it."""
        self._line(text)

    def close(self) -> None:
        """Do nothing: no resource is held."""

    def _line(self, text: str) -> None:
        note(text)


class LiveStudyView(PlainStudyView):
    """A table of the trials under way and the latest that ended, redrawn in place.

    Args:
        study: The study.
        trials: How many trials it is to have, where a command says so anew.
        parallel: How many at once, likewise.
    """

    def __init__(self, study: StudyFolder, *, trials: int | None = None, parallel: int | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn = 0.0
        super().__init__(study, trials=trials, parallel=parallel)
        self._live.start()

    def started(self, trial: Trial) -> None:
        """The table shows it."""

    def ended(self, trial: Trial, best: Trial | None) -> None:  # noqa: ARG002
        """The table shows it; a failure is also printed, so that it stays."""
        if trial.state is TrialState.FAILED:
            self._line(
                f"trial {trial.number}  {values_text(trial.values)}  {ended_text(trial, self._definition.metric)}"
            )

    def tick(self, driver: Driver) -> None:
        """Redraw the table, a few times per second."""
        super().tick(driver)
        if time.monotonic() - self._drawn < _REDRAW_SECONDS:
            return
        self._live.update(self._table(driver), refresh=True)
        self._drawn = time.monotonic()

    def close(self) -> None:
        """Remove the table."""
        self._live.stop()

    def _table(self, driver: Driver) -> Any:  # noqa: ANN401  # rich is imported when it is used
        trials, best = driver.trials, driver.best
        shown = [*sorted(trials)[-_ROWS:]] if len(trials) > _ROWS else sorted(trials)
        shown += [n for n in driver.running if n not in shown]
        if best is not None and best.number not in shown:
            shown.append(best.number)
        names = [each.name for each in self._definition.space]
        rows, styles = [], []
        for row in sorted(shown):
            trial, curve = trials[row], driver.curves.get(row, [])
            running = driver.running.get(row)
            latest = trial.value if trial.state.finished else next((v for v in reversed(curve) if v is not None), None)
            state = f"stopping ({running.stopped.by})" if running and running.stopped else _state(trial)
            if running and not running.stopped:
                state = str(running.status)
            cells = [str(row), *(inline(short(trial.values[name])) for name in names)]
            rows.append([*cells, "" if latest is None else number(latest), spark(curve), state])
            styles.append("green" if best is not None and row == best.number else "dim" if trial.state.finished else "")
        grid = self._grid([*map(inline, names)], rows, styles)
        done = sum(trial.state.finished for trial in trials.values())
        left = driver.seconds_left
        line = f"{done}/{driver.total} trials, {len(driver.running)} running"
        if best is not None:
            line += f"; best {number(best.value)}: trial {best.number}, {inline(values_text(best.values))}"
        if left is not None:
            line += f"; {duration(left)} left"
        from rich.table import Table
        from rich.text import Text

        outer = Table.grid()
        outer.add_row(grid)
        outer.add_row(Text(line, style="bold"))
        return outer

    def _grid(self, names: list[str], rows: list[list[str]], styles: list[str]) -> Any:  # noqa: ANN401
        """Return the table, made to fit: it is cut at its end first, then the last parameters are left out."""
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        metric = inline(self._definition.metric).upper()
        head = ["TRIAL", *names, metric if len(metric) <= _METRIC_MAX else f"…{metric[1 - _METRIC_MAX :]}"]
        head += ["SO FAR", "STATE"]
        columns = [[name, *(row[at] for row in rows)] for at, name in enumerate(head)]
        widths = [max(map(cell_len, column)) + 2 for column in columns]
        widths[-1] = min(widths[-1], _STATE_LEAST)
        kept = list(range(len(columns)))
        for at in range(len(names), 1, -1):
            if sum(widths[each] for each in kept) > self._console.width:
                kept.remove(at)
        grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for at in kept:
            justify: Any = "right" if at <= len(names) else "left"
            # Only the state, and the curve, may be cut.
            least = None if at >= len(columns) - 2 else widths[at] - 2
            grid.add_column(Text(head[at]), no_wrap=True, justify=justify, min_width=least)
        for row, style in zip(rows, styles, strict=True):
            grid.add_row(*(Text(row[at]) for at in kept), style=style)
        return grid

    def _line(self, text: str) -> None:
        from rich.text import Text

        text = wrapped(clean(text, colours=shows_colours(sys.stderr)), width(sys.stderr))
        self._console.print(Text.from_ansi(text), soft_wrap=True)


def make_view(study: StudyFolder, *, trials: int | None = None, parallel: int | None = None) -> PlainStudyView:
    """Return the view that fits standard error.

    Args:
        study: The study.
        trials: How many trials it is to have, where a command says so anew.
        parallel: How many at once, likewise.
    """
    kind = LiveStudyView if sys.stderr.isatty() else PlainStudyView
    return kind(study, trials=trials, parallel=parallel)


def study_size(definition: StudyDefinition, known: Mapping[int, Trial], outcome: Outcome | None) -> int:
    """Return how many trials a study has or is to have: by its last command's word, else by its definition."""
    return max(len(known), (outcome.trials if outcome else 0) or definition.trials)


def describe(definition: StudyDefinition) -> str:
    """Return what a study does, in a line."""
    parts = [
        f"{definition.trials} trial{'s' * (definition.trials != 1)}, {definition.parallel} at once",
        f"sampler {definition.sampler}" + (f", seed {definition.seed}" if definition.driver != SERVICE else ""),
        f"{definition.goal} {definition.metric} ({definition.best})",
    ]
    if definition.stop is not None:
        parts.append(f"stop {definition.stop.describe()}")
    where = f"{definition.backend}, driven by its service" if definition.driver == SERVICE else definition.backend
    return "; ".join([*parts, where])


def values_text(values: Mapping[str, Value]) -> str:
    """Return a trial's values in a line."""
    return " ".join(f"{name}={short(value)}" for name, value in values.items())


def short(value: Value) -> str:
    """Return a value in few digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ended_text(trial: Trial, metric: str) -> str:
    """Return what became of a trial."""
    parts = [str(trial.state).lower()]
    if trial.stopped is not None:
        parts = [stopped_text(trial.stopped, metric)]
    elif trial.value is not None:
        parts.append(f"{metric} {number(trial.value)}")
    elif trial.state is TrialState.COMPLETED:
        parts.append(f"{metric} not finite")
    if trial.reason:
        parts.append(trial.reason)
    return "  ".join(parts)


def stopped_text(stopped: Stopped, metric: str) -> str:
    """Return by what a trial was stopped, when, and against which bound."""
    value, bound = ("-" if each is None else f"{each:.6g}" for each in (stopped.value, stopped.bound))
    against = "" if stopped.bound is None else f", bound {bound}"
    return f"stopped by {stopped.by} at step {stopped.step}: {metric} {value}{against}"


def spark(curve: Sequence[float | None], width: int = 12) -> str:
    """Return a curve as a few characters; values that are not finite are left out."""
    values = [value for value in curve if value is not None]
    if not values:
        return ""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / (width - 1))] for i in range(width)]
    low, high = min(values), max(values)
    if high <= low:
        return _SPARKS[3] * len(values)
    return "".join(_SPARKS[int((value - low) / (high - low) * (len(_SPARKS) - 1))] for value in values)


def study_object(study: StudyFolder, home: Home, *, trials: bool = True) -> dict[str, Any]:
    """Return a study as one JSON object.

    Args:
        study: The study.
        home: Where its runs are.
        trials: With every trial and what it logged.
    """
    definition, known, outcome = study.definition(), study.trials(), study.outcome()
    best = best_of(definition, known)
    found: dict[str, Any] = {
        "study": study.study_id,
        "status": study.status,
        "reason": outcome.reason if outcome else "",
        "backend": definition.backend,
        "driver": definition.driver,
        "created": definition.created,
        "metric": definition.metric,
        "goal": definition.goal,
        "best": None if best is None else msgspec.to_builtins(best),
        "model": None if outcome is None or outcome.model is None else msgspec.to_builtins(outcome.model),
        "counts": {state: sum(t.state is state for t in known.values()) for state in TrialState},
        "snapshot": definition.snapshot,
        "service": None if definition.driver != SERVICE or (there := study.service()) is None else there.run,
        "path": str(study.path),
    }
    if trials:
        found["definition"] = msgspec.to_builtins(definition)
        found["trials"] = [
            {
                **msgspec.to_builtins(trial),
                "curve": curve_of(RunFolder(home.runs / trial.run_id).metrics(), definition.metric),
            }
            for trial in known.values()
        ]
    return found


def print_study(study: StudyFolder, home: Home, *, detailed: bool = False) -> None:
    """Print what a study came to.

    Args:
        study: The study.
        home: Where its runs are.
        detailed: With every trial, the history and the parallel coordinates.
    """
    definition, known = study.definition(), study.trials()
    facts(list(_rows(study, definition, known, detailed=detailed)))
    if not detailed or not known:
        return
    say()
    names = [each.name for each in definition.space]
    rows = []
    for trial in known.values():
        curve = curve_of(RunFolder(home.runs / trial.run_id).metrics(), definition.metric)
        said = stopped_text(trial.stopped, definition.metric) if trial.stopped else trial.reason
        value = "" if trial.value is None else number(trial.value)
        took = "" if trial.ended is None else duration(trial.ended - trial.started)
        values = [short(trial.values[name]) for name in names]
        rows.append((str(trial.number), *values, value, spark(curve), trial.state, took, trial.run_id, said))
    head = ("TRIAL", *names, definition.metric.upper(), "CURVE", "STATE", "TOOK", "RUN", "WHY")
    table(head, rows, right=("TRIAL", *names, "TOOK"), drop=("TOOK", "CURVE"), whole=("RUN",))
    from trainer.tune.plots import history_text, parallel_text

    for text in (history_text(definition, known), parallel_text(definition, known)):
        if text:
            say()
            say(text)


def print_plan(definition: StudyDefinition, *, as_json: bool) -> None:
    """Print what a study would do: its space and the values of its first trials."""
    first = list(_first_points(definition))
    if as_json:
        print_json({"definition": msgspec.to_builtins(definition), "first": first})
        return
    rows = [("Study", describe(definition))]
    rows += [("Space", "\n".join(each.describe() for each in definition.space))]
    rows += [("Script", definition.job.script)]
    if trial := _trial_text(definition.job):
        rows += [("Each trial", trial)]
    rows += [("Snapshot", f"sha256 {definition.snapshot}")]
    if first:
        rows.append(("First", "\n".join(" ".join(arguments(values)) for values in first)))
    facts(rows)


def _trial_text(job: TrainingJob) -> str:
    """What is not as usual about the runs of a study."""
    restarts = job.max_restarts
    said = (
        f"{job.ranks} ranks, {job.processes_per_node} on each of {job.nodes} nodes" if job.nodes > 1 else "",
        f"{job.ranks} ranks" if job.nodes == 1 < job.ranks else "",
        "" if restarts is None else f"up to {restarts} restart{'s' * (restarts != 1)}",
        f"continues from {job.checkpoints}" if job.checkpoints else "",
        f"kernels {job.kernels}" if job.kernels else "",
    )
    return "; ".join(filter(None, said))


def _first_points(definition: StudyDefinition, most: int = 5) -> Iterator[dict[str, Value]]:
    yield from definition.tries[:most]
    if definition.sampler == "tpe" or definition.driver == SERVICE:
        return
    count = min(definition.trials, most)
    if definition.sampler == "grid":
        count = min(count, len(definition.tries) + grid_size(definition.space))
    for index in range(max(0, count - len(definition.tries))):
        yield point(definition.sampler, definition.space, definition.seed, index)


def _rows(
    study: StudyFolder, definition: StudyDefinition, known: Mapping[int, Trial], *, detailed: bool
) -> Iterator[tuple[str, str]]:
    status, outcome = study.status, study.outcome()
    colour = {"Completed": GREEN, "Failed": RED, "Interrupted": YELLOW, "Canceled": YELLOW}.get(status, BOLD)
    took = f" in {duration(outcome.seconds)}" if outcome and outcome.status == status else ""
    yield "Study", f"{study.study_id}  {paint(status, colour)}{took} ({definition.backend})"
    if outcome and outcome.reason and status != "Running":
        yield "Reason", inline(outcome.reason)
    counts = [(state, sum(trial.state is state for trial in known.values())) for state in TrialState]
    said = ", ".join(f"{count} {str(state).lower()}" for state, count in counts if count) or "none yet"
    yield "Trials", f"{len(known)} of {study_size(definition, known, outcome)}: {said}"
    if detailed:
        yield "Created", moment(definition.created)
        yield "Search", describe(definition)
        yield "Space", "\n".join(inline(each.describe()) for each in definition.space)
        yield "Snapshot", f"sha256 {definition.snapshot}"
    best = best_of(definition, known)
    if best is not None:
        at = f" at step {best.step}" if best.step and definition.best == "any" else ""
        yield "Best", f"trial {best.number}: {inline(definition.metric)} {paint(number(best.value), BOLD)}{at}"
        yield "Values", inline(" ".join(arguments(best.values)))
        yield "Run", best.run_id
    elif known and outcome and status == "Completed":
        yield "Best", f"none: {why_no_best(known)}"
    if outcome and outcome.model:
        model = outcome.model
        yield "Model", f"{paint(f'{model.name}:{model.version}', BOLD)}  sha256 {model.sha256[:16]}..."
    if status == "Interrupted":
        yield "Next", f"trainer tune --resume {study.study_id}"
    elif status == "Running" and definition.driver == SERVICE:
        yield "Next", f"trainer attach {study.study_id}"
    elif status == "Completed" and outcome and outcome.reason and definition.driver != SERVICE:  # its time was over
        yield "Next", f"trainer tune --resume {study.study_id}"
    elif not detailed and status == "Completed":
        yield "Next", f"trainer show {study.study_id}"


def _state(trial: Trial) -> str:
    return f"stopped by {trial.stopped.by} at {trial.stopped.step}" if trial.stopped else str(trial.state).lower()
