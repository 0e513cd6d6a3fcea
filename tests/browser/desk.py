"""A person at the gateway's page: what they do, what they see, and what the page must not do."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from producer.gateway.app import create_app
from producer.gateway.settings import GatewaySettings
from tests.house import House, open_house
from tests.serving import serving

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Desk:
    """A gateway on a real house."""

    url: str
    house: House

    def settings(self, **more: Any) -> GatewaySettings:
        return GatewaySettings(
            broker_url=self.house.broker.url,
            upload_to="s3://photos/uploads/",
            s3_endpoint_url=self.house.environment["CAPTIONQ_S3_ENDPOINT_URL"],
            **more,
        )


@contextmanager
def open_desk(folder: Path) -> Iterator[Desk]:
    with open_house(folder) as house, pytest.MonkeyPatch.context() as patched:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            patched.setenv(name, house.environment[name])
        with serving(create_app(Desk("", house).settings())) as url:
            yield Desk(url, house)


class Person:
    """At the page of `url`, with a browser."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        self.url = url
        browser.get(f"{url}/")
        self.until(lambda: "Asking" not in self.text("#service-said"))

    def until(self, true: Callable[[], Any]) -> Any:
        """Wait for it, and return it."""
        over = time.monotonic() + PATIENCE_S
        while not (found := true()):
            assert time.monotonic() < over, self.text("body")
            time.sleep(0.03)
        return found

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def shows(self, selector: str) -> bool:
        return any(element.is_displayed() for element in self.all(selector))

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def write(self, selector: str, words: str) -> None:
        self.one(selector).clear()
        self.one(selector).send_keys(words)

    def ask(self, uri: str = "", task: str = "caption", texts: str = "") -> None:
        """Fill the form and send it; with no URI, of the image that is chosen already."""
        self.one(f"input[value={task}]").click()
        if texts:
            self.write("#texts", texts)
        if uri:
            self.write("#uri", uri)
        self.click("#submit")

    def result(self) -> dict[str, Any]:
        """Wait for the end of what was asked; the gateway's answer about the job shown."""
        self.until(lambda: self.one("#result").get_attribute("aria-busy") == "false")
        return self.status()

    def status(self) -> dict[str, Any]:
        """What the gateway says of the job in the page's address."""
        found: dict[str, Any] = self.browser.execute_async_script(
            "const done = arguments[0]; import('./page/result.js')"
            ".then(({ showing }) => done(JSON.parse(JSON.stringify(showing.status))));"
        )
        return found

    def words(self) -> list[WebElement]:
        return self.all(".word")

    def hover(self, element: WebElement) -> None:
        ActionChains(self.browser).move_to_element(element).perform()

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def map(self) -> NDArray[np.uint8]:
        """RGBA of what lies over the image: uint8 [H, W, 4]."""
        url: str = self.browser.execute_script("return document.querySelector('#map').toDataURL()")
        return np.asarray(Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))))

    def prefers(self, **wishes: str) -> None:
        """Media features, e.g. color_scheme="dark"."""
        features = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in wishes.items()
        ]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def violations(self) -> list[str]:
        """What axe-core finds wrong with the page as it stands, by rule and element."""
        script = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        self.browser.execute_script(script)
        found = self.browser.execute_async_script(
            "const done = arguments[0]; axe.run(document, { resultTypes: ['violations'] })"
            ".then((found) => done(found.violations), (fault) => done([{ id: String(fault),"
            " nodes: [] }]));"
        )
        return [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in found]

    def scrolls_sideways(self) -> bool:
        wide: bool = self.browser.execute_script(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return wide

    def assert_kept_to_itself(self) -> None:
        """Nothing was asked of anybody but the gateway, refused by the policy, or complained of."""
        said = [entry["message"] for entry in self.browser.get_log("browser")]
        assert [one for one in said if "favicon" not in one] == []
        messages = [json.loads(one["message"]) for one in self.browser.get_log("performance")]
        asked = [
            one["message"]["params"]["request"]["url"]
            for one in messages
            if one["message"]["method"] == "Network.requestWillBeSent"
        ]
        own = (f"{self.url}/", "data:", f"blob:{self.url}", "about:blank")
        assert [url for url in asked if not url.startswith(own)] == []
        assert any(url.startswith(self.url) for url in asked)
