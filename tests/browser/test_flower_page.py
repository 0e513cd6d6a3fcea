"""Flower's pages in a real browser: a login, workers, tasks by state, a code, a caption."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import needs_chromium

needs_chromium()

from selenium.webdriver import Chrome  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

from producer import CaptionJob  # noqa: E402
from producer.words import outcome  # noqa: E402
from tests.flower_process import LOGIN, TIMEOUT_S, flower_at  # noqa: E402
from tests.house import PNG, House  # noqa: E402
from tests.servers import Reply  # noqa: E402

WINDOW = (1_900, 600)


@pytest.fixture(scope="module")
def flower(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("flower")
    with flower_at(folder, {"CAPTIONQ_BROKER_URL": house.broker.url}) as url:
        yield url


def logged_in(browser: Chrome, url: str) -> str:
    """The URL as a browser takes it that has a login."""
    width, height = WINDOW
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    parts = urlsplit(url)
    return f"{parts.scheme}://{LOGIN}@{parts.netloc}"


def text(browser: Chrome) -> str:
    return str(browser.execute_script("return document.body.textContent"))  # type: ignore[no-untyped-call]


def shows(browser: Chrome, *words: str, without: str = "", again: bool = False) -> None:
    """Wait for all of these words, on a page that is asked for again or brings its own news."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while missing := [word for word in words if word not in text(browser)] + (
        [f"no {without}"] if without and without in text(browser) else []
    ):
        assert time.monotonic() < deadline_s, f"{missing} of: {text(browser)}"
        time.sleep(0.3)
        if again:
            browser.refresh()
            time.sleep(0.7)


def pick(browser: Chrome, state: str) -> None:
    browser.find_element(By.CSS_SELECTOR, f"button[data-task-state='{state}']").click()


def test_given_a_login_an_operator_sees_workers_tasks_by_state_codes_and_captions(
    house: House, flower: str, chromium: Chrome
) -> None:
    chromium.get(flower)
    assert "Flower" not in chromium.title

    home = logged_in(chromium, flower)
    chromium.get(f"{home}/workers")
    assert "Flower" in chromium.title
    shows(chromium, "test@localhost", "Online", again=True)

    good = house.client.submit(CaptionJob(image=house.web.url("/ok.png?X-Amz-Signature=5ec2e7")))
    house.web.routes["/again.png"] = [Reply(503), Reply(200, PNG)]
    again = house.client.submit(CaptionJob(image=house.web.url("/again.png")))
    bad = house.client.submit(CaptionJob(image=house.web.url("/missing.png")))
    damaged = house.client.submit(CaptionJob(image=house.web.url("/damaged.png")))
    said = outcome(good.result(TIMEOUT_S))
    for one in (bad, damaged, again):
        one.result(TIMEOUT_S)

    chromium.get(f"{home}/tasks")
    wanted = ("captionq.caption", said, "http_4xx", "image_corrupt")
    shows(chromium, *wanted, again=True)
    assert "5ec2e7" not in chromium.page_source
    if where := os.environ.get("CAPTIONQ_SCREENSHOTS"):
        chromium.save_screenshot(str(Path(where) / "flower.png"))

    pick(chromium, "FAILURE")
    shows(chromium, "http_4xx", without=said)
    pick(chromium, "SUCCESS")
    shows(chromium, said, without="http_4xx")

    chromium.get(f"{home}/task/{bad.job_id}")
    shows(chromium, "http_4xx", house.web.url("/missing.png"))

    chromium.get(f"{home}/task/{again.job_id}")
    shows(chromium, "SUCCESS", "Retries")
    row = "//dt[contains(., 'Retries')]/following-sibling::dd"
    assert chromium.find_element(By.XPATH, row).text.strip() == "1"

    chromium.get(f"{home}/broker")
    shows(chromium, "captionq.caption.bulk", again=True)
