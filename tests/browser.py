"""A real browser on the server's page, and a model that waits between its passes until a test has seen enough."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from browsers import Browser
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from server_helper import SHEET, Served, embedded, served

from hogwild_local import Hogwild
from hogwild_local.prompts.tables import Said

ALL = 10**9
NEW_LINE = Keys.SHIFT + Keys.ENTER + Keys.SHIFT


class Gate:
    """Each run makes as many passes after its prompt as a test lets it: what is seen does not depend on speed. said:
    words for what the user says."""

    def __init__(self, load: Callable[[], Hogwild] = embedded, said: str = "") -> None:
        self._n_allowed, self._load, self._said = 0, load, said
        self._moved = threading.Condition()
        self._of_run = threading.local()  # each has a thread of its own

    def load(self) -> Hogwild:
        hogwild = self._load()
        if self._said:
            hogwild.prompts = replace(hogwild.prompts, said=Said(self._said))
        next_tokens, prefill = hogwild._cache.next_tokens, hogwild._cache.prefill

        def held(make: Any, views: Any, *options: Any, n: int = 1) -> Any:
            n_made = self._of_run.n_made = getattr(self._of_run, "n_made", 0) + n
            with self._moved:
                self._moved.wait_for(lambda: n_made <= self._n_allowed)
            return make(views, *options)

        # Each text of a prompt counts as a pass.
        hogwild._cache.next_tokens = partial(held, next_tokens)  # type: ignore[method-assign]
        hogwild._cache.prefill = lambda views, n: held(prefill, views, n, n=len(views))  # type: ignore[method-assign]
        return hogwild

    def hold(self) -> None:
        """From their beginning on."""
        self._n_allowed = 0

    def let(self, n_passes: int = ALL) -> None:
        with self._moved:
            self._n_allowed += n_passes
            self._moved.notify_all()


@contextlib.contextmanager
def opened(browser: Browser, gate: Gate, **options: Any) -> Iterator[Page]:
    """A page of a server of its own. Whatever is done, the console stays empty, and nothing is asked of others."""
    with served(gate.load, **options) as server:
        try:
            page = Page(browser, server)
            yield page
        finally:
            gate.let()  # a run that is held would hold the server
        page.leave()
        assert [each for each in browser.complaints() if not any(text in each for text in page.expected)] == []
        own = (server.address, "data:", f"blob:{server.address}", "about:")
        assert [url for url in browser.addresses() if not url.startswith(own)] == []


class Page:
    """The page in a browser, as a user has it. expected: what the console may be told."""

    def __init__(self, browser: Browser, server: Served) -> None:
        self.browser, self.driver, self.server = browser, browser.driver, server
        self.expected: list[str] = []
        self.browser.resize(1280, 800)
        self.leave()
        browser.complaints(), browser.addresses()  # those of the page before
        self.driver.get(server.address + "/")

    def leave(self) -> None:
        """Before the server goes: the page would look for it."""
        self.driver.get("about:blank")

    def __getitem__(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def all(self, selector: str) -> list[WebElement]:
        """Those that can be seen."""
        return [each for each in self.driver.find_elements(By.CSS_SELECTOR, selector) if each.is_displayed()]

    def texts(self, selector: str) -> list[str]:
        return [each.text for each in self.all(selector)]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, what: Callable[[], Any], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                if what():
                    return
            except (StaleElementReferenceException, IndexError):
                pass  # it is just being replaced
            assert time.monotonic() < end, (
                f"it did not happen; the page shows:\n{self.driver.find_element(By.TAG_NAME, 'body').text}"
            )
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Where the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def tab(self) -> WebElement:
        """Tab, which leads on to the page's beginning from its end: some browsers have their own buttons between."""
        before = self.driver.switch_to.active_element
        self.press(Keys.TAB)
        if self.driver.switch_to.active_element == before:
            self.run("const body = document.body; body.tabIndex = -1; body.focus(); body.removeAttribute('tabindex')")
        return self.driver.switch_to.active_element

    def send(self, text: str) -> None:
        self["message"].send_keys(text.replace("\n", NEW_LINE) + Keys.ENTER)

    def click(self, label: str) -> None:
        """A button, by what it is called."""

        def named() -> WebElement | None:
            found = [each for each in self.all("button") if label == each.accessible_name]
            return found[0] if found else None

        self.until(named)
        named().click()  # type: ignore[union-attr]


def workers(page: Page, n: int) -> None:
    page["n-workers"].clear()
    page["n-workers"].send_keys(str(n))


def names(page: Page) -> list[str]:
    return [each.get_attribute("aria-label") or "" for each in page.all(".worker")]


def begin(page: Page, gate: Gate, n_workers: int = 2, n_passes: int = 12, text: str = SHEET) -> None:
    """A run that has made so many passes."""
    workers(page, n_workers)
    page.send(text.strip())
    gate.let(n_passes)
    page.until(lambda: len(names(page)) == n_workers and "a second" in page["numbers"].text)


def finish(page: Page, gate: Gate) -> None:
    gate.let()
    page.until(lambda: page["send"].text == "Send")
