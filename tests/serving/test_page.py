"""The page for a browser, in a real one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, Browser

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


def draw(browser: Browser, *points: tuple[float, float]) -> None:
    """Draw in the field; points are parts of its sides."""
    x, y, side = browser.value("(b => [b.x, b.y, b.width])(document.querySelector('#field').getBoundingClientRect())")
    browser.drag(*((x + side * right, y + side * down) for right, down in points))


def bars(browser: Browser) -> tuple[list[float], str | None]:
    """What is said of each class, and the best one's name: read at once, as the page scores while it is drawn on."""
    found, best = browser.value(
        "[[...document.querySelectorAll('#bars .fill')].map(bar => parseFloat(bar.style.width)), "
        "document.querySelector('li.best span')?.textContent ?? null]"
    )
    return found, best


def test_a_digit_is_drawn_and_scored(serve: Any, browser: Browser) -> None:
    served = serve("digits")
    browser.open(served.url)
    browser.until("!document.querySelector('#ask').hidden")
    browser.until("document.querySelector('#problem').textContent === 'The server asks for a key.'")
    browser.click("#key")
    browser.type("wrong")
    browser.click("#ask button")
    browser.until("document.querySelector('#problem').textContent.includes('does not take this key')")
    browser.value("document.querySelector('#key').value = ''")
    browser.click("#key")
    browser.type(served.key)
    browser.click("#ask button")
    browser.until("document.querySelector('#ask').hidden")
    draw(browser, (0.3, 0.2), (0.5, 0.2), (0.7, 0.2), (0.6, 0.5), (0.45, 0.85))
    browser.until("document.querySelector('#answer').textContent")
    browser.until("document.querySelector('#model').textContent === 'Scored by digits:1.'")
    found, best = bars(browser)
    assert len(found) == 10
    assert sum(found) == pytest.approx(100, abs=0.1)
    assert best == str(found.index(max(found)))
    assert browser.value("document.querySelector('#problem').textContent") == ""
    browser.click("#clear")
    browser.until("document.querySelector('#answer').textContent === ''")
    assert bars(browser) == ([0] * 10, None)
    served.wait_for("POST /score 200")
    unexpected = [line for line in browser.console if "401" not in line]
    assert unexpected == []


def test_the_key_in_the_fragment_is_used_and_hidden(serve: Any, browser: Browser) -> None:
    served = serve("digits")
    browser.open(f"{served.url}/#key={served.key}")
    draw(browser, (0.5, 0.2), (0.5, 0.8))
    browser.until("document.querySelector('#answer').textContent")
    assert browser.value("location.href") == f"{served.url}/"
    assert browser.value("document.querySelector('#ask').hidden")
    assert browser.console == []
    assert served.key not in served.said
