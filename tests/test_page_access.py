"""The page for everybody: on a phone, in the dark, by the keyboard alone, and read aloud."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from browser import NEW_LINE, Gate, Page, begin, finish
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.keys import Keys
from server_helper import SHEET

CONTRAST = 4.5
"""At least, of text: WCAG 2, level AA."""
OUTSIDE = """
return [...document.querySelectorAll("body *")].filter((each) => {
  if (!each.checkVisibility() || each.closest(".hidden, .skip, dialog")) return false;
  const { left, right } = each.getBoundingClientRect();
  return left < -0.5 || right > innerWidth + 0.5;
}).map((each) => each.outerHTML.slice(0, 80));
"""
COLOURS = """
const back = (each) => {
  for (; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor;
    if (!/^rgba.*, 0\\)$/.test(colour)) return colour;
  }
};
return [...document.querySelectorAll("body *")]
  .filter((each) => each.checkVisibility() && !each.disabled)
  .filter((each) => [...each.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
  .map((each) => [each.textContent.slice(0, 40), getComputedStyle(each).color, back(each)]);
"""
FOCUSED = "return document.activeElement"


def test_nothing_is_cut_off_on_a_phone(page: Page, gate: Gate) -> None:
    page.browser.resize(400, 800)
    assert page.run(OUTSIDE) == []
    begin(page, gate, 4, 30)
    page.until(lambda: page.texts("#history li"))
    assert page.run(OUTSIDE) == []
    assert page.run("return document.documentElement.scrollWidth") == 400
    shown = {"list-button", "numbers", "history", "workers", "message", "send", "stop", "add"}
    for name in shown:
        box = page[name].rect
        assert box["height"] > 0, name
        assert 0 <= box["y"] <= 800 - box["height"], name
    assert len({each.rect["y"] for each in page.all(".worker")}) == 2
    bottom = page["workers"].rect["y"] + page["workers"].rect["height"]
    assert all(each.rect["y"] + each.rect["height"] <= bottom for each in page.all(".worker"))
    assert not page.all("#list")
    page.click("Conversations")
    page.until(lambda: page.all("#list li"))
    assert page.run(OUTSIDE) == []
    page.press(Keys.ESCAPE)
    assert not page.all("#list")
    assert page["list-button"].get_attribute("aria-expanded") == "false"
    finish(page, gate)
    assert page.run(OUTSIDE) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_and_are_told_apart(page: Page, gate: Gate, scheme: str) -> None:
    page.browser.prefer(scheme)
    begin(page, gate, 4, 30)
    page.until(lambda: page.texts("#history li"))
    page.run("document.getAnimations().forEach((each) => each.finish())")
    back = luminance(page.run("return getComputedStyle(document.body).backgroundColor"))
    assert back > 0.5 if scheme == "light" else back < 0.1
    seen = page.run(COLOURS)
    assert len(seen) > 20
    faint = {text: (front, behind) for text, front, behind in seen if contrast(front, behind) < CONTRAST}
    assert faint == {}
    page.browser.prefer("light")


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """WCAG's, of "rgb(1, 2, 3)"."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_keyboard_alone_reaches_everything_and_shows_where_it_is(page: Page, gate: Gate) -> None:
    begin(page, gate)
    finish(page, gate)
    gate.hold()
    begin(page, gate)
    page.until(lambda: page.texts("#chats small") == ["working…"])
    wanted = set(page.all("button, input, select, textarea, summary"))
    reached: list[Any] = []
    page["message"].click()
    for _ in range(3 * len(wanted)):
        focused = page.tab()
        if focused not in reached and focused.tag_name != "body":
            reached.append(focused)
            assert page.run("return getComputedStyle(arguments[0]).outlineStyle", focused) != "none"
    assert wanted <= set(reached), [each.accessible_name for each in wanted - set(reached)]


def test_a_whole_run_is_made_by_tab_and_enter(page: Page, gate: Gate) -> None:
    page.press(SHEET.strip().replace("\n", NEW_LINE))
    tab_to(page, "Workers")
    page.press(Keys.ARROW_UP)
    page.until(lambda: page["n-workers"].get_attribute("value") == "3")
    tab_to(page, "Send")
    page.press(Keys.ENTER)
    gate.let(6)
    page.until(lambda: len(page.all(".worker")) == 3)
    tab_to(page, "Stop Bob")
    page.press(Keys.ENTER)
    page.until(lambda: gate.let(1) or page.texts(".worker small")[1] == "stopped")
    tab_to(page, "Message")
    page.press("e=11+22")
    tab_to(page, "Say")
    page.press(Keys.ENTER)
    page.until(lambda: gate.let(1) or page.texts("#history .said") == ["You to all: e=11+22"])
    tab_to(page, "Stop all")
    page.press(Keys.ENTER)
    finish(page, gate)
    tab_to(page, "Send")  # the same again
    page.press(Keys.ENTER)
    page.until(lambda: page["send"].text == "Send" and len(page.texts("#messages .body")) == 2)
    tab_to(page, "Branch behind message 2")
    page.press(Keys.ENTER)
    page.until(lambda: len(page.all("#chats li")) == 2)


def tab_to(page: Page, label: str) -> None:
    """Tab is pressed until what is called so has the focus."""
    passed = []
    while len(passed) < 80:
        passed.append(page.tab().accessible_name.strip())
        if passed[-1] == label:
            return
    raise AssertionError(f"Tab never comes to {label}, only to {passed}")


def test_enter_sends_and_shift_enter_is_a_new_line(page: Page, gate: Gate) -> None:
    assert page.run(FOCUSED) == page["message"]
    page.press("a=11+22", NEW_LINE, "b=a+33")
    assert page["message"].get_attribute("value") == "a=11+22\nb=a+33"
    page.press(Keys.ENTER)
    finish(page, gate)
    page.until(lambda: page.texts("#messages .body") == ["a=11+22\nb=a+33", "The results are a = 33 and b = 66."])
    assert page.run(FOCUSED) == page["message"]


def tree(page: Page) -> list[tuple[str, str]]:
    """Role and name, as the browser tells them to a screen reader, of all that it is given."""
    there = page.run("return [...document.querySelectorAll('body *')].filter((each) => each.checkVisibility())")
    told = []
    for each in there:
        with contextlib.suppress(StaleElementReferenceException):  # a step is shown anew
            told.append((each.aria_role, each.accessible_name.strip()))
    return told


def test_every_control_has_a_name_and_every_part_is_a_landmark(page: Page, gate: Gate) -> None:
    begin(page, gate)
    seen = tree(page)
    controls = [name for role, name in seen if role in ("button", "textbox", "spinbutton", "combobox")]
    assert len(controls) >= 8
    assert "" not in controls
    assert {"Stop Alice", "Stop Bob", "Stop all", "Add a worker", "Say", "Message", "To"} <= set(controls)
    assert {("navigation", "Conversations"), ("list", "Messages"), ("region", "Work")} <= set(seen)
    assert {("region", "Alice"), ("region", "Bob"), ("log", "What happened")} <= set(seen)
    assert {"banner", "main", "contentinfo"} <= {role for role, _ in seen}
    finish(page, gate)
    controls = [name for role, name in tree(page) if role == "button"]
    assert {"Edit message 1", "Again message 2", "Branch behind message 2"} <= set(controls)
    assert len(controls) == len(set(controls))


def test_steps_and_the_reply_are_read_aloud_and_tokens_are_not(page: Page, gate: Gate) -> None:
    live = (
        "return [...document.querySelectorAll('[aria-live], [role=log], [role=status], [role=alert]')].map((e) => e.id)"
    )
    assert set(page.run(live)) == {"told", "note", "fault"}
    told = "return [...document.getElementById('told').children].map((each) => each.textContent)"
    begin(page, gate, 3, 12)
    page.until(lambda: "A:a27" in page.texts(".step")[0])
    assert page.run(told) == []
    gate.let(10)
    page.until(lambda: page.run(told) == page.texts("#history li") != [])
    finish(page, gate)
    heard = page.run(told)
    assert heard[-1] == "Reply: The results are a = 85, b = 72, c = 33 and d = 63."
    assert len(heard) == len(set(heard))


def test_the_history_is_followed_unless_the_user_has_scrolled_up(page: Page, gate: Gate) -> None:
    page.browser.resize(1280, 500)
    at_end = "const s = document.getElementById('scroll'); return s.scrollHeight - s.scrollTop - s.clientHeight < 2"
    begin(page, gate, 2, 30, SHEET + "e=11+22\nf=33+44\n")
    page.until(lambda: page.texts("#history li"))
    page.until(lambda: page.run(at_end))
    page.run("document.getElementById('scroll').scrollTop = 0")
    page.until(lambda: page.all("#latest"))
    gate.let(30)
    page.until(lambda: len(page.run("return [...document.querySelectorAll('#history li')].map((e) => 1)")) > 3)
    assert page.run("return document.getElementById('scroll').scrollTop") == 0
    page.click("↓ Latest")
    page.until(lambda: page.run(at_end) and not page.all("#latest"))
