"""Pure parts of the console: log lines, epochs, sizes."""

import contextlib
import io
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.console import output
from trainer.console.epochs import Clock, Epochs, ordered
from trainer.records import Metric, Progress

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
HOSTILE = st.text(
    alphabet=st.one_of(st.characters(), st.sampled_from("\x1b[]0m;?HJ\x07\\\r\x9b\u202e\u2028\udcff")), max_size=60
)


def logged(*steps: float) -> list[Metric]:
    return [Metric(name="Loss", value=1.0, step=step, time=step) for step in steps]


@pytest.mark.parametrize(
    ("arguments", "steps", "shown"),
    [
        (("--epoch", "20", "--unit", "50"), (1, 2), (2, 20)),
        (("-e", "3"), (1, 2, 3), (3, 3)),
        (("--num-epochs=7",), (1,), (1, 7)),
        (("--max_epoch", "7"), (0.5,), (0.5, 7)),
        (("--epochs", "10"), (9, 10, 11), None),  # these are no epochs
        (("--epochs", "ten"), (1,), None),
        (("--epochs", "1e3"), (1,), None),
        (("--eval", "3", "--epochs-between", "2"), (1,), None),
        (("--epochs", "10"), (), None),
    ],
)
def test_epochs_that_the_command_line_asks_for(
    arguments: tuple[str, ...], steps: tuple[float, ...], shown: tuple[float, float] | None
) -> None:
    epochs = Epochs(arguments)
    epochs.add(logged(*steps), ended=False)
    found = epochs.progress(None)
    assert (None if found is None else (found.epoch, found.epochs)) == shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def harmful(text: str) -> list[str]:
    return [
        letter
        for letter in text
        if (unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\t\n")
        or unicodedata.bidirectional(letter) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        or letter in "\u2028\u2029"
    ]


@pytest.fixture(autouse=True)
def _colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


@given(HOSTILE)
def test_nothing_but_colour_of_a_log_reaches_a_terminal(line: str) -> None:
    shown = output.log_line(line, Terminal())
    assert not harmful(COLOUR.sub("", shown))
    assert output.clean(shown, colours=True) in (shown, shown + "\x1b[0m")
    assert not harmful(output.log_line(line, io.StringIO()))


@given(HOSTILE)
def test_nothing_but_colour_of_a_message_reaches_a_terminal(text: str) -> None:
    shown = output.clean(text, colours=True)
    assert not harmful(COLOUR.sub("", shown))
    assert output.clean(shown, colours=True) == shown
    assert not harmful(output.clean(text))


@given(HOSTILE)
def test_a_name_stays_in_its_line(text: str) -> None:
    shown = output.inline(text)
    assert not harmful(shown)
    assert not {"\t", "\n"} & set(shown)


@given(HOSTILE)
def test_json_says_the_same_and_holds_no_control(text: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        output.print_json({text: [text]})
    assert json.loads(printed.getvalue()) == {text: [text]}
    assert not harmful(printed.getvalue())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ü → 1\tx\ny", "ü → 1\tx\ny"),
        ("a\x1b]0;title\x07b", r"a\x1b]0;title\x07b"),
        ("\x1b[31mred\x1b[2Jx", "\x1b[31mred\\x1b[2Jx\x1b[0m"),
        ("\x1b[1mbold\x1b[0m", "\x1b[1mbold\x1b[0m"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_messages_cleaned(text: str, shown: str) -> None:
    assert output.clean(text, colours=True) == shown


def test_cells_of_a_table_keep_to_their_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("NAME", "N"), [("a\nb\x1b[31m", "1"), ("x", "2")])
    assert capsys.readouterr().out.splitlines() == ["NAME          N", r"a\nb\x1b[31m  1", "x             2"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain", "plain"),
        (" 10%\r 55%\r100%", "100%"),
        ("dos\r", "dos"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b[38;5;208morange", "\x1b[38;5;208morange"),
        ("\x9b2J\x90q\x9cx", "x"),
        ("\x1b(0\x1bcx\x1b_hidden\x1b\\", "x"),
        ("\x1b[2J\x1b[1;1Hx", "x"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\x", "x"),
        ("a\tb", "a\tb"),
        ("\x1b\x1b[2Jx", "x"),
    ],
)
def test_lines_made_printable(line: str, shown: str) -> None:
    assert output.log_line(line, Terminal()) == shown
    assert output.log_line(line, io.StringIO()) == COLOUR.sub("", shown)


def log(*values: tuple[str, float | None, float | None]) -> list[Metric]:
    return [Metric(name=name, value=value, step=step, time=1.0) for name, value, step in values]


def test_a_step_is_shown_once_and_whole() -> None:
    epochs = Epochs()
    first = log(("Epochs", 2, None), ("Loss", 0.5, 1), ("Accuracy", 0.8, 1))
    assert epochs.add(first[:2], ended=False) == []
    assert epochs.add(first, ended=False) == [], "another metric may follow"
    assert epochs.add(first, ended=False) == [(1, {"Loss": 0.5, "Accuracy": 0.8})]
    second = first + log(("Loss", 0.4, 2))
    assert epochs.add(second, ended=True) == [(2, {"Loss": 0.4})]
    assert epochs.add(second, ended=True) == []


def test_metrics_without_steps_are_counted() -> None:
    epochs = Epochs()
    metrics = log(("Batch size", 128, None), ("Epochs", 2, None), ("Loss", 0.5, None), ("mine", 7, None))
    metrics += log(("Loss", 0.4, None), ("mine", 8, None))
    assert epochs.add(metrics, ended=True) == [(1, {"Loss": 0.5, "mine": 7}), (2, {"Loss": 0.4, "mine": 8})]
    assert epochs.latest == {"Batch size": 128, "Epochs": 2, "Loss": 0.4, "mine": 8}
    progress = epochs.progress(None)
    assert progress is not None
    assert (progress.epoch, progress.epochs) == (2, 2)


_METRICS = st.lists(
    st.tuples(
        st.sampled_from(["Loss", "Accuracy", "x"]), st.one_of(st.none(), st.floats(allow_nan=False)), st.integers(1, 5)
    ),
    max_size=30,
)


@given(_METRICS, st.lists(st.integers(0, 5), max_size=30))
def test_however_the_looks_fall_no_step_is_lost_or_repeated(
    values: list[tuple[str, float | None, float]], looks: list[int]
) -> None:
    metrics = log(*sorted(values, key=lambda value: value[2]))
    epochs, shown, seen = Epochs(), [], 0
    for more in looks:
        seen = min(len(metrics), seen + more)
        shown += epochs.add(metrics[:seen], ended=False)
    shown += epochs.add(metrics, ended=True)
    steps = [step for step, _ in shown]
    assert steps == sorted(set(steps)) == sorted({metric.step for metric in metrics})


def test_known_metrics_come_first() -> None:
    metrics = {"b": 1.0, "Validation loss": 2.0, "Accuracy": 3.0, "Loss": None}
    assert [name for name, _ in ordered(metrics)] == ["Loss", "Accuracy", "Validation loss", "b"]


def test_the_clock_follows_the_pace() -> None:
    clock = Clock()
    assert clock.left(None) is None
    assert clock.left(Progress(epoch=0, epochs=10, time=100.0)) is None
    assert clock.left(Progress(epoch=2, epochs=10, time=120.0)) == pytest.approx(80)
    assert clock.left(Progress(epoch=10, epochs=10, time=200.0)) == 0


def test_the_clock_starts_with_the_first_progress() -> None:
    clock = Clock()
    assert clock.left(Progress(epoch=0.1, epochs=10, time=1000.0)) is None, "what came before is imports"
    assert clock.left(Progress(epoch=0.1, epochs=10, time=1001.0)) is None
    assert clock.left(Progress(epoch=1.1, epochs=10, time=1002.0)) == pytest.approx(17.8)


def test_the_clock_follows_a_change_of_pace() -> None:
    clock = Clock()
    for second in range(200):
        clock.left(Progress(epoch=second / 10, epochs=100, time=1000.0 + second))
    for second in range(1, 101):
        left = clock.left(Progress(epoch=19.9 + second / 50, epochs=100, time=1199.0 + second))
    assert left == pytest.approx((100 - 21.9) * 50, rel=0.05)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_700, "100 kB"), (3 * 10**6, "3.0 MB"), (10**10, "10.0 GB")],
)
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1:00"), (3600, "1:00:00"), (-3, "0 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_tables_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("A", "LONG"), [("wide cell", "1"), ("x", "22")], right=("LONG",))
    assert capsys.readouterr().out == "A          LONG\nwide cell     1\nx            22\n"


def test_an_id_is_whole_in_a_narrow_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "width", lambda _: 40)
    row = ("study-20261126-173248-zp2ecd", "a reason that is longer than the line")
    output.table(("STUDY", "WHY"), [row], whole=("STUDY",))
    shown = capsys.readouterr().out.splitlines()[1]
    assert shown.startswith("study-20261126-173248-zp2ecd  a reaso")
    assert len(shown) == 40


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("No studies. Start one: trainer tune --trials 12", 34, ["No studies. Start one:", "trainer tune --trials 12"]),
        ("for trainer serve and services on this machine", 30, ["for trainer serve and services", "on this machine"]),
        ("bin/trainer stays behind: it is a link", 30, ["bin/trainer stays behind: it", "is a link"]),
        ("See: trainer show RUN -- --name 'a b' x", 30, ["See:", "trainer show RUN -- --name \\", "  'a b' x"]),
        ("  try    curl -H \"A: b c\" -d '{}' url", 24, ["  try    curl \\", "  -H \"A: b c\" -d '{}' \\", "  url"]),
        ("Replace it: --overwrite    Or name it: --name N", 30, ["Replace it: --overwrite", "Or name it: --name N"]),
        ("手書き数字 手書き数字", 20, ["手書き数字", "手書き数字"]),
    ],
)
def test_lines_are_broken_so_that_commands_can_be_copied(text: str, columns: int, lines: list[str]) -> None:
    assert output.wrapped(text, columns).split("\n") == lines


@given(
    st.lists(
        st.sampled_from(["See: ", "trainer ", "show ", "'a b' ", "curl ", "-H ", "x, ", "手書き ", "or ", "word "])
    ),
    st.integers(1, 60),
)
def test_nothing_is_lost_where_lines_are_broken(words: list[str], columns: int) -> None:
    text = "".join(words)
    assert "".join(output.wrapped(text, columns).replace("\\\n", "").split()) == "".join(text.split())
