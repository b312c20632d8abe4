"""What goes wrong is said on the page, and what a model writes is text there, whatever it is."""

from __future__ import annotations

import threading
from collections.abc import Callable

from browser import Gate, begin, opened
from browsers import Browser
from fakes import FakeEngine
from selenium.webdriver.common.keys import Keys
from server_helper import SHEET, embedded
from test_reply import STYLE

from hogwild_local import Hogwild
from hogwild_local.engine.default_model import default_model_path

HOSTILE = (
    '<img src=x onerror="document.title=1"><script>document.title=2</script>[a](javascript:document.title=3)\x1b[31m'
)


def writing(text: str) -> Callable[[], Hogwild]:
    """All that a model like this writes is this text; a reply follows the work."""

    def load() -> Hogwild:
        fake = FakeEngine(filler=ord("x"))
        script = [*fake.model.tokenize(text, add_special=False, parse_special=False), 257]
        return Hogwild("m.gguf", prompts=STYLE, engine=FakeEngine(script, script, script).engine)

    return load


def test_what_a_model_writes_is_text_whatever_it_is(browser: Browser) -> None:
    gate = Gate(writing(HOSTILE))
    with opened(browser, gate) as page:
        page.until(lambda: page["numbers"].text)
        page.send(HOSTILE.replace("\x1b", ""))
        gate.let(60)
        page.until(lambda: any("<script>" in text for text in page.texts(".step")))
        gate.let()
        page.until(lambda: page["send"].text == "Send" and len(page.texts("#messages .body")) == 2)
        page.until(lambda: "onerror" in page.texts("#messages .assistant .body")[0])
        page.all("summary")[0].click()
        page.until(lambda: "<img" in page.texts("details")[0])
        assert page.all("#scroll img, #scroll script, #scroll a[href^=javascript]") == []
        assert "hogwild-local" in page.driver.title


def test_a_key_is_asked_for_and_a_wrong_one_again(browser: Browser) -> None:
    with opened(browser, Gate(), api_keys=["secret"]) as page:
        page.expected.append("401")
        page.until(lambda: page.all("#key"))
        page.press("wrong", Keys.ENTER)
        page.until(lambda: page.texts("#key-fault") == ["That key is wrong."])
        page["key-value"].clear()
        page["key-value"].send_keys("secret", Keys.ENTER)
        page.until(lambda: page["model"].text == "default" and not page.all("#key"))
        page.driver.refresh()
        page.until(lambda: page["model"].text == "default")
        assert not page.all("#key, #fault")


def test_without_a_key_the_page_says_that_it_wants_one(browser: Browser) -> None:
    with opened(browser, Gate(), api_keys=["secret"]) as page:
        page.expected.append("401")
        page.until(lambda: page.all("#key"))
        page.press(Keys.ESCAPE)
        page.until(lambda: page["fault"].text == "This server wants an API key.")


def test_a_prompt_that_does_not_fit_is_given_back_with_the_reason(browser: Browser) -> None:
    gate = Gate(lambda: Hogwild(default_model_path(), trust=True, n_ctx=64))
    with opened(browser, gate) as page:
        page.expected.append("400")
        page.until(lambda: page["numbers"].text)
        page.send(SHEET * 9)
        page.until(lambda: "tokens of context: there are" in page["fault"].text)
        assert page["message"].get_attribute("value") == SHEET * 9
        assert page["send"].text == "Send"


def test_a_server_that_has_gone_is_missed(browser: Browser) -> None:
    gate = Gate()
    with opened(browser, gate) as page:
        page.expected.append("net::ERR_")
        page.until(lambda: page["numbers"].text)
        begin(page, gate)
        gate.let()
        page.server.stop()
        page.until(lambda: page["send"].text == "Send")
        page.send("a=11+22")
        page.until(lambda: "The server does not answer" in page["fault"].text)
        assert "a=11+22" in (page["message"].get_attribute("value") or "")


def test_the_page_waits_while_the_model_is_loaded(browser: Browser) -> None:
    may_load = threading.Event()

    def load() -> Hogwild:
        may_load.wait()
        return embedded()

    with opened(browser, Gate(load), waits=False) as page:
        page.expected.append("503")
        page.until(lambda: page["numbers"].text == "The model is being loaded")
        may_load.set()
        page.until(lambda: page["numbers"].text == "Room for 6144 tokens")
        assert not page.all("#fault")
