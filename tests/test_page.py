"""The server's page in real browsers: what a user sees and does, with the embedded model held between passes."""

from __future__ import annotations

from browser import NEW_LINE, Gate, Page, begin, finish, names, opened
from browsers import Browser
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select
from server_helper import SHEET, embedded

REPLY = "The results are a = 85, b = 72, c = 33 and d = 63."
OTHER, OTHERS_REPLY = "a=11+22\nb=a+33\n", "The results are a = 33 and b = 66."


def test_workers_write_side_by_side_and_their_steps_move_into_the_history(page: Page, gate: Gate) -> None:
    assert page.all("#welcome")
    begin(page, gate, 3, 12)
    assert names(page) == ["Alice", "Bob", "Carol"]
    page.until(lambda: page.texts(".step") == ["A:a27+58=158;", "B:ba", "C:c11+22=033;"])
    tops = {each.rect["y"] for each in page.all(".worker")}
    heights = [each.rect["height"] for each in page.all(".worker")]
    assert len(tops) == 1
    assert page.texts("#history li") == []
    gate.let(20)
    page.until(lambda: page.texts("#history li")[:2] == ["A:a27+58=158;a=85", "C:c11+22=033;c=33"])
    assert [each.rect["height"] for each in page.all(".worker")] == heights
    assert "room for" in page["numbers"].text
    finish(page, gate)
    assert page.texts("#messages .body") == [SHEET.strip(), REPLY]
    assert not page.all("#workers")
    page.click("New conversation")
    page.until(lambda: page["title"].text == "New conversation" and page.all("#welcome"))


def test_a_reload_in_mid_run_goes_on_where_it_was(page: Page, gate: Gate) -> None:
    begin(page, gate, 3, 30)
    shown = ["A:d45-12=033;33", "B:ba85-13=027;72^40", "C:?a85b"]  # after all 30 passes: nothing comes meanwhile
    page.until(lambda: len(page.texts("#history li")) == 2 and page.texts(".step") == shown)
    before = page.texts("#history li, .step, #messages .body")
    page.driver.refresh()
    page.until(lambda: page.texts("#history li, .step, #messages .body") == before)
    assert page["n-workers"].get_attribute("value") == "3"
    finish(page, gate)
    assert page.texts("#messages .body") == [SHEET.strip(), REPLY]


def test_two_conversations_go_on_at_once_and_each_shows_its_own(page: Page, gate: Gate) -> None:
    begin(page, gate, 2, 8)
    page.until(lambda: page.texts(".step")[0].startswith("A:a27"))
    page.click("New conversation")
    page.until(lambda: not page.all("#workers"))
    begin(page, gate, 3, 8, OTHER)
    page.until(lambda: len(page.all("#chats li")) == 2)
    assert page.texts("#chats small") == ["working…", "working…"]
    page.all("#chats li > button:first-child")[1].click()
    page.until(lambda: names(page) == ["Alice", "Bob"] and page.texts("#messages .body") == [SHEET.strip()])
    page.driver.back()
    page.until(lambda: names(page) == ["Alice", "Bob", "Carol"] and page.texts("#messages .body") == [OTHER.strip()])
    finish(page, gate)
    assert page.texts("#messages .body") == [OTHER.strip(), OTHERS_REPLY]
    page.until(lambda: "working…" not in page.texts("#chats small"))  # also of the one that is not looked at
    page.all("#chats li > button:first-child")[0].click()
    page.until(lambda: REPLY in page.texts("#messages .body") or OTHERS_REPLY in page.texts("#messages .body"))


def test_what_is_said_to_the_workers_stands_in_the_history(page: Page, gate: Gate) -> None:
    begin(page, gate)
    page.until(lambda: page["send"].text == "Say")
    page.send("e=11+22")
    Select(page["to"]).select_by_visible_text("Bob")
    page.send("f=33+44")
    gate.let(6)
    page.until(lambda: page.texts("#history .said") == ["You to all: e=11+22", "You to Bob: f=33+44"])
    assert page["message"].get_attribute("value") == ""
    finish(page, gate)


def test_a_model_without_words_for_it_cannot_be_spoken_to(browser: Browser) -> None:
    gate = Gate()
    with opened(browser, gate) as page:
        page.until(lambda: page["numbers"].text)
        begin(page, gate)
        assert "cannot be spoken to" in page["hint"].text
        assert not page["send"].is_enabled()
        page.send("hello")
        assert "hello" in (page["message"].get_attribute("value") or "")
        assert not page.all("#to, #fault")
        finish(page, gate)


def test_one_worker_is_stopped_and_another_added(page: Page, gate: Gate) -> None:
    begin(page, gate)
    page.click("Stop Bob")
    page.click("Add a worker")
    gate.let(3)
    page.until(lambda: page.texts(".worker small")[1:] == ["stopped", "step 1"])
    assert names(page) == ["Alice", "Bob", "Carol"]
    assert [each.accessible_name for each in page.all(".worker button")] == ["Stop Alice", "Stop Carol"]
    assert [each.text for each in Select(page["to"]).options] == ["all", "Alice", "Carol"]
    page.click("Stop all")  # without Bob's part they may not end
    finish(page, gate)


def test_escape_stops_all_and_what_was_said_is_not_lost(page: Page, gate: Gate) -> None:
    begin(page, gate)
    page.press(Keys.ESCAPE)
    finish(page, gate)
    page.until(lambda: "cancelled" in page["note"].text)
    assert page["message"].get_attribute("value") == SHEET.strip()
    assert page.texts(".worker small") == ["cancelled", "cancelled"]
    page.press(Keys.ENTER)  # the same again
    page.until(lambda: page.texts("#messages .body") == [SHEET.strip(), REPLY])


def test_branches_edits_and_again_are_turns(page: Page, gate: Gate) -> None:
    gate.let()
    page.send(SHEET.strip())
    page.until(lambda: page.texts("#messages .body") == [SHEET.strip(), REPLY])
    page.click("Branch behind message 2")
    page.until(lambda: page.texts("#chats small")[0].startswith("branch"))
    page.click("Edit message 1")
    page.press(Keys.ESCAPE)
    assert page.texts("#messages .body") == [SHEET.strip(), REPLY]
    page.click("Edit message 1")
    page.press(Keys.CONTROL + "a" + Keys.CONTROL, "a=11+22" + NEW_LINE + "b=a+33" + Keys.ENTER)
    page.until(lambda: page.texts("#messages .body") == [OTHER.strip(), OTHERS_REPLY])
    page.click("Again message 2")
    page.until(lambda: page["send"].text == "Send" and page.texts("#messages .body") == [OTHER.strip(), OTHERS_REPLY])
    page.until(lambda: len(page.all("#chats li")) == 2)
    page.until(lambda: page.all("#chats li > button:first-child")[1].click() is None)
    page.until(lambda: page.texts("#messages .body") == [SHEET.strip(), REPLY])
    page.all("summary")[0].click()
    page.until(lambda: "a27+58=158;a=85" in page.texts("details")[0])


def test_a_conversation_is_called_otherwise(page: Page, gate: Gate) -> None:
    gate.let()
    page.send(SHEET.strip())
    page.until(lambda: REPLY in page.texts("#messages .body"))
    before = page["title"].text
    page.click("Rename")
    page.press("Sums", Keys.ESCAPE)
    assert (page["title"].text, page.driver.switch_to.active_element) == (before, page["rename"])
    page.click("Rename")
    page.press(" ", Keys.ENTER)  # that is no title
    assert page["title"].text == before
    page.click("Rename")
    page.press("Sums of <b>mine</b>", Keys.ENTER)
    page.until(lambda: page.texts("#chats button:first-child")[0].startswith("Sums of <b>mine</b>"))
    assert page["title"].text == "Sums of <b>mine</b>"
    page.driver.refresh()
    page.until(lambda: page["title"].text == "Sums of <b>mine</b>")


def test_a_conversation_is_exported_and_deleted(page: Page, gate: Gate) -> None:
    gate.let()
    page.send(SHEET.strip())
    page.until(lambda: REPLY in page.texts("#messages .body"))
    page.click("Export")
    folder = page.browser.downloads
    page.until(lambda: folder.exists() and [path.suffix for path in folder.iterdir()] == [".md"])
    text = next(folder.iterdir()).read_text()
    assert text.startswith(f"## user\n\n{SHEET.strip()}\n\n## assistant\n\n> ")
    assert text.endswith(f"\n\n{REPLY}\n")
    label = page.all("#chats li > button:last-child")[0].accessible_name
    page.click(label)
    page.click("Keep it")
    assert len(page.all("#chats li")) == 1
    page.click(label)
    page.click("Delete")
    page.until(lambda: not page.all("#chats li, #messages li"))
    assert page["title"].text == "New conversation"


def test_an_example_is_there_to_begin_with(page: Page) -> None:
    page.click("Try example 2")
    assert page["message"].get_attribute("value") == embedded().examples[1]
    assert page.driver.switch_to.active_element.get_attribute("id") == "message"
