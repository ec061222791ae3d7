"""The page in a real browser."""

import time
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.cli.conftest import Project

ROWS = "[...document.querySelectorAll('#table tbody tr')].map(row => row.innerText)"
LONG = "validation/main/" + "a_very_long_name_of_a_metric/" * 5 + "x" * 60
HEADS = "[...document.querySelectorAll('#table th button')].map(button => button.textContent)"


def column(browser: Browser, title: str) -> list[str]:
    at = browser.value(HEADS).index(title) + 2
    found: list[str] = browser.value(
        f"[...document.querySelectorAll('#table tbody td:nth-child({at})')].map(cell => cell.textContent)"
    )
    return found


def shows(browser: Browser, title: str, cells: list[str]) -> None:
    """Wait until a column has these cells."""
    end = time.monotonic() + 120
    while (found := column(browser, title)) != cells:
        assert time.monotonic() < end, found
        time.sleep(0.05)


def click(browser: Browser, selector: str) -> None:
    browser.value(f"document.querySelector({selector!r}).click()")


def test_the_address_loses_its_token_and_nothing_goes_wrong(browser: Browser) -> None:
    browser.until("document.querySelectorAll('canvas').length >= 2")
    assert "token" not in browser.value("location.href")
    assert browser.value("document.cookie") == ""
    assert browser.console == []
    assert browser.until("document.title") == "trainer: runs", "what scripts print and raise is text"


def test_sorting(browser: Browser) -> None:
    assert browser.value(HEADS)[:5] == ["Run", "Status", "Accuracy", "Loss", "Best Accuracy"]
    click(browser, "[data-sort='Accuracy']")
    shows(browser, "Accuracy", ["0.9500", "0.9000", "0.8200"])
    browser.until("document.querySelector('th[aria-sort]').getAttribute('aria-sort') === 'descending'")
    click(browser, "[data-sort='Accuracy']")
    shows(browser, "Accuracy", ["0.8200", "0.9000", "0.9500"])
    click(browser, "[data-sort='param:lr']")
    shows(browser, "lr", ["0.25", "0.5", "0.9"])


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 3), ("failed", 1), ("status=completed", 2), ("accuracy>0.89 lr<0.4", 1), ("status!=failed accuracy<0.92", 1)],
)
def test_filtering(browser: Browser, text: str, count: int) -> None:
    browser.value(
        f"(() => {{ const box = document.getElementById('filter'); box.value = {text!r};"
        "box.dispatchEvent(new Event('input')); })()"
    )
    browser.until(f"{ROWS}.length === {count}")


def test_choosing_curves(browser: Browser) -> None:
    browser.until("document.querySelectorAll('.u-legend .u-series').length === 8")
    captions = "[...document.querySelectorAll('#charts figcaption')].map(caption => caption.textContent.trim())"
    assert browser.value(captions) == ["Accuracy", "Loss"]
    click(browser, "#table tbody input")
    browser.until("document.querySelectorAll('.u-legend .u-series').length === 6")
    assert "#runs=" in browser.value("location.href")
    click(browser, "#none")
    browser.until("document.querySelectorAll('canvas').length === 0 && !document.getElementById('hint').hidden")


def test_a_chart_says_what_it_shows(browser: Browser) -> None:
    browser.until("document.querySelectorAll('canvas').length >= 2")
    label = "document.querySelector('figure [role=img]')?.getAttribute('aria-label')"
    said = browser.until(f"{label}?.includes('last 0.9500, best 0.9500') && {label}")
    assert said.startswith("Accuracy: ")


def test_a_runs_page(browser: Browser) -> None:
    click(browser, "#table tbody tr:last-child .open")
    browser.until("document.getElementById('output').textContent.includes('trained with 0.25 <b>bold</b>')")
    browser.until("document.getElementById('facts').textContent.includes('script.py --lr 0.25')")
    assert browser.until("document.querySelector('#pictures img')?.naturalWidth") == 9
    browser.until("[...document.querySelectorAll('#files a')].map(a => a.textContent).at(-1) === 'plots/a b.svg'")
    assert browser.console == []


def test_by_keyboard(browser: Browser) -> None:
    browser.key("/")
    browser.until("document.activeElement.id === 'filter'")
    browser.value("document.querySelector('#table .open').focus()")
    browser.value("document.activeElement.click()")
    browser.until("!document.getElementById('detail').hidden")
    browser.key("Escape")
    browser.until("document.getElementById('detail').hidden")
    browser.until("document.activeElement.className === 'open'")


def test_everything_has_a_name(browser: Browser) -> None:
    nameless = """[...document.querySelectorAll('button, input, select, a, img')].filter(element =>
        !(element.textContent.trim() || element.getAttribute('aria-label') || element.alt || element.title ||
          element.labels?.length)).map(element => element.outerHTML)"""
    assert browser.value(nameless) == []


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_width_is_too_narrow(browser: Browser, width: int) -> None:
    browser.size(width, 800)
    browser.until("document.querySelectorAll('canvas').length >= 2")
    assert browser.until(f"document.documentElement.scrollWidth <= {width}")


def test_a_status_says_why(browser: Browser) -> None:
    why = "[...document.querySelectorAll('td.Failed')].map(cell => cell.title)"
    assert browser.value(why) == ["ValueError: too large <img src=x onerror=document.title='owned'>"]


def test_dark(browser: Browser) -> None:
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = browser.value("getComputedStyle(document.documentElement).backgroundColor")
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    assert dark != browser.value("getComputedStyle(document.documentElement).backgroundColor")


def test_a_run_is_followed_live(browser: Browser, project: Project, tmp_path: Path) -> None:
    script = tmp_path / "live.py"
    begin, go = tmp_path / "begin", tmp_path / "go"
    script.write_text(f"""
import os, time
from trainer import runtime as rt
rt.report({{"Loss": 3.5, {LONG!r}: 1}}, epoch=1, epochs=3)
while not os.path.exists({str(begin)!r}): time.sleep(0.05)
print("first", flush=True)
while not os.path.exists({str(go)!r}): time.sleep(0.05)
rt.report({{"Loss": 2.5, {LONG!r}: 2}}, epoch=2, epochs=3)
print("second", flush=True)
""")
    run_id = project.trainer("run", "--detach", "--script", str(script), "--no-register").stdout.strip()
    try:
        browser.until(f"!!document.querySelector('[data-key=\"pick-{run_id}\"]')")
        browser.value(f"document.querySelector('[data-key=\"open-{run_id}\"]').click()")
        browser.until("document.getElementById('output').textContent === 'The script has printed nothing yet.'")
        begin.touch()
        browser.until("document.getElementById('output').textContent === 'first\\n'")
        browser.until(f"{ROWS}[0].includes('Running')")
        go.touch()
        browser.until("document.getElementById('output').textContent === 'first\\nsecond\\n'")
        browser.until(f"{ROWS}[0].includes('Completed') && {ROWS}[0].includes('2.500')")
        browser.value(f"document.querySelector('[data-key=\"pick-{run_id}\"]').click()")
        browser.size(360, 800)
        values = "[...document.querySelectorAll('#facts dd')].map(value => value.getBoundingClientRect().width)"
        browser.until(f"document.getElementById('facts').textContent.includes({LONG!r}) && Math.min(...{values}) > 120")
        browser.until(f"[...document.querySelectorAll('figcaption')].some(each => each.textContent.includes({LONG!r}))")
        assert browser.until("document.documentElement.scrollWidth <= 360"), "however long a metric's name is"
    finally:
        project.trainer("cancel", run_id)
        project.trainer("delete", run_id)
    browser.until(f"!document.querySelector('[data-key=\"pick-{run_id}\"]')")
