"""A real Chromium without a window, driven by its own chromedriver; neither is ever downloaded."""

import os
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def needs_chromium() -> None:
    """Leave a file of tests out where there is no browser, unless one is required."""
    if BROWSER is None or DRIVER is None:
        missing = "no tests in a browser: apt-get install chromium chromium-driver"
        if os.environ.get("CAPTIONQ_BROWSER") == "required":
            raise FileNotFoundError(missing)
        pytest.skip(missing, allow_module_level=True)


@pytest.fixture(scope="session")
def _chromium() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in (
        "--headless=new",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # root has none to give up
    ):
        options.add_argument(argument)
    with webdriver.Chrome(options, Service(DRIVER)) as started:
        yield started


@pytest.fixture
def chromium(_chromium: webdriver.Chrome) -> webdriver.Chrome:
    """The browser on an empty page, in a window of 900 x 900, in light colours."""
    _chromium.get("about:blank")
    _chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    resize(_chromium, 900)
    for kind in ("browser", "performance"):
        _chromium.get_log(kind)
    return _chromium


def resize(browser: webdriver.Chrome, width: int) -> None:
    """Make the window as wide as that, even if it is a telephone's."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
