"""The page of an explained image in a real browser: by mouse, keyboard and touch; narrow, dark."""

import base64
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions import interaction
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.browser.conftest import needs_chromium, resize
from tests.explained import MODES, at, explained, gray, grid_on
from worker.blip.explanation import Explanation
from worker.blip.geometry import Mode
from worker.blip.placement import PlacedGrid
from worker.pictures.mapping import mapping
from worker.pictures.page import page

needs_chromium()

WORDS = ["a", "red", "circle", "left", "of", "a", "ring"]
SURE = [1.0, 0.9, 0.93, 0.5, 0.99, 1.0, 0.2]
TEXTS = """
const texts = [...document.querySelectorAll("main *")].filter((e) => e.checkVisibility() &&
  [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim()));
"""


def spread(words: Sequence[str] = WORDS, probabilities: Sequence[float] = SURE) -> Explanation:
    """Words that look at one cell each of 8 x 8, along the diagonal."""
    maps = [at((8, 8), place % 8, place % 8) for place in range(len(words))]
    return explained(words, maps, probabilities)


def open_page(
    browser: webdriver.Chrome,
    folder: Path,
    found: Sequence[Explanation] = (),
    on: PlacedGrid | None = None,
) -> list[WebElement]:
    """Open the page of an image; its words, of the caption that is shown."""
    on = on or grid_on(600, 400)
    file = folder / "page.html"
    file.write_bytes(page(gray(on), found or [spread()], on, "a photo.jpg"))
    browser.get(file.as_uri())
    return words(browser)


def words(browser: webdriver.Chrome) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, "section:not([hidden]) .words button")


def canvas(browser: webdriver.Chrome) -> NDArray[np.uint8]:
    """RGBA of the map over the image: uint8 [H, W, 4]."""
    url: str = browser.execute_script("return document.querySelector('canvas').toDataURL()")
    return np.asarray(Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))))


def said(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.ID, "said").text


def hover(browser: webdriver.Chrome, element: WebElement) -> None:
    ActionChains(browser).move_to_element(element).perform()


def press(browser: webdriver.Chrome, *keys: str) -> None:
    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def assert_nothing_was_asked_for(browser: webdriver.Chrome) -> None:
    """And nothing refused, failed or said on the console."""
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"].partition(",")[0]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {browser.current_url, "data:image/jpeg;base64", "data:", "about:blank"}
    assert browser.current_url in asked


def test_given_a_mouse_when_it_hovers_over_each_word_then_that_word_s_map_is_over_the_image(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    buttons = open_page(chromium, tmp_path)
    assert [button.text for button in buttons] == WORDS
    before = canvas(chromium)
    assert not before.any()
    over, image = (chromium.find_element(By.TAG_NAME, tag).rect for tag in ("canvas", "img"))
    assert over == pytest.approx(image)

    for place, button in enumerate(buttons):
        hover(chromium, button)

        now = canvas(chromium)
        assert (now != before).any(axis=2).mean() > 0.01
        height, width, _ = now.shape
        middle = ((np.array([place, place]) + 0.5) * (height, width) / 8).astype(int)
        assert now[tuple(middle)][3] > 0.7 * 255
        far = ((np.array([place + 4, place + 4]) % 8 + 0.5) * (height, width) / 8).astype(int)
        assert now[tuple(far)][3] == 0
        pressed = [one.get_attribute("aria-pressed") for one in buttons]
        assert pressed == ["true" if one is button else "false" for one in buttons]
        before = now
    assert_nothing_was_asked_for(chromium)
    assert chromium.save_screenshot(str(tmp_path / "hovered.png"))
    shot = np.asarray(Image.open(tmp_path / "hovered.png").convert("RGB"), np.int16)
    assert (np.ptp(shot, axis=2) > 100).sum() > 500  # the map's colours, on a gray image


def test_given_a_bar_when_it_is_hovered_over_then_its_word_is_shown(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    open_page(chromium, tmp_path)
    bars = chromium.find_elements(By.CSS_SELECTOR, ".bars li")
    assert [bar.text.split()[-1] for bar in bars] == [f"{sure:.2f}" for sure in SURE]

    hover(chromium, bars[2])

    assert said(chromium) == "circle: probability 0.93, looked at upper left"
    filled = [bar.find_element(By.TAG_NAME, "rect").size["width"] for bar in bars]
    whole = bars[0].find_element(By.TAG_NAME, "svg").size["width"]
    assert [width / whole for width in filled] == pytest.approx(SURE, abs=0.02)


def test_given_a_keyboard_then_tab_and_arrows_reach_every_word_and_escape_shows_the_image(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    buttons = open_page(chromium, tmp_path)
    seen: list[bytes] = []

    def focused() -> int:
        return buttons.index(chromium.switch_to.active_element)

    press(chromium, Keys.TAB)
    assert focused() == 0
    seen.append(canvas(chromium).tobytes())
    for keys, place in (
        ((Keys.TAB,), 1),
        ((Keys.ARROW_RIGHT,), 2),
        ((Keys.ARROW_DOWN,), 3),
        ((Keys.END,), 6),
        ((Keys.ARROW_RIGHT,), 6),
        ((Keys.ARROW_LEFT,), 5),
        ((Keys.ARROW_UP,), 4),
    ):
        press(chromium, *keys)
        assert focused() == place
        seen.append(canvas(chromium).tobytes())
        assert said(chromium).startswith(f"{WORDS[place]}: probability {SURE[place]:.2f}")
    press(chromium, Keys.HOME)
    assert focused() == 0
    assert canvas(chromium).tobytes() == seen[0]
    assert len(set(seen)) == len(seen) - 1  # one of them twice: the last word stays the last
    outline = buttons[0].value_of_css_property("outline-style")
    assert outline == "solid"

    press(chromium, Keys.ESCAPE)

    assert not canvas(chromium).any()
    assert said(chromium).startswith("Point at a word")
    assert_nothing_was_asked_for(chromium)


def test_given_words_from_right_to_left_then_the_left_arrow_goes_on(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    buttons = open_page(chromium, tmp_path, [spread(["قطة", "حمراء", "هنا"], [0.5] * 3)])
    assert buttons[0].location["x"] > buttons[1].location["x"]

    press(chromium, Keys.TAB, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_RIGHT)

    assert chromium.switch_to.active_element == buttons[1]
    assert said(chromium).startswith("حمراء: probability")


def test_given_a_finger_when_it_taps_a_word_then_its_map_is_shown_and_stays(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    buttons = open_page(chromium, tmp_path)
    finger = ActionBuilder(chromium, mouse=PointerInput(interaction.POINTER_TOUCH, "finger"))

    finger.pointer_action.move_to(buttons[3]).pointer_down().pointer_up()
    finger.perform()

    assert canvas(chromium).any()
    assert said(chromium) == "left: probability 0.50, looked at the middle"


def test_given_a_screen_reader_then_what_is_said_is_announced_politely(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    buttons = open_page(chromium, tmp_path)

    hover(chromium, buttons[6])

    region = chromium.find_element(By.CSS_SELECTOR, "[aria-live=polite]")
    assert region.text == "ring: probability 0.20, looked at lower right"
    assert [button.accessible_name for button in buttons] == WORDS
    assert {button.aria_role for button in buttons} == {"button"}


def test_given_several_captions_when_another_is_chosen_then_its_words_and_maps_take_their_place(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    other = explained(["blue", "square"], [at((8, 8), 7, 0), at((8, 8), 0, 7)], [0.4, 0.6])
    open_page(chromium, tmp_path, [spread(), other])

    chromium.find_elements(By.CSS_SELECTOR, "input[type=radio]")[1].click()
    buttons = words(chromium)
    assert [button.text for button in buttons] == ["blue", "square"]
    assert not canvas(chromium).any()
    hover(chromium, buttons[1])

    now = canvas(chromium)
    assert now[now.shape[0] // 16, -now.shape[1] // 16][3] > 0.7 * 255
    assert said(chromium) == "square: probability 0.60, looked at upper right"


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_any_mode_then_maps_lie_where_the_cells_do_and_what_was_cropped_off_is_dim(
    chromium: webdriver.Chrome, tmp_path: Path, mode: Mode, size: tuple[int, int]
) -> None:
    on = grid_on(*size, mode)
    wide, high = mapping(on).cell
    whole = [
        (cell, extent)
        for cell, extent in zip(np.ndindex(*on.grid), on.extents(), strict=True)
        if extent is not None
        and extent[2] - extent[0] > 0.99 * wide
        and extent[3] - extent[1] > 0.99 * high
    ]
    shown = whole[:: len(whole) // 4]
    found = explained(["x"] * len(shown), [at(on.grid, *cell) for cell, _ in shown])
    buttons = open_page(chromium, tmp_path, [found], on)

    for (_, (left, top, right, bottom)), button in zip(shown, buttons, strict=True):
        hover(chromium, button)

        now = canvas(chromium)
        scale = now.shape[1] / size[0]
        y, x = int((top + bottom) / 2 * scale), int((left + right) / 2 * scale)
        assert now[y, x, 3] > 0.95 * 0.8 * 255
        far = now[..., 3] > 0
        far[
            max(0, int((top - high / 2) * scale) - 2) : int((bottom + high / 2) * scale) + 3,
            max(0, int((left - wide / 2) * scale) - 2) : int((right + wide / 2) * scale) + 3,
        ] = False
        assert mode == "crop" or not far.any()
        if mode == "crop":
            assert now[0, 0].tolist() == [0, 0, 0, round(255 * 0.65)]
    assert_nothing_was_asked_for(chromium)


def test_given_a_word_then_its_peak_has_a_ring_and_half_of_its_map_a_frame(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    [button] = open_page(chromium, tmp_path, [explained(["x"], [at((8, 8), 3, 5)])])

    hover(chromium, button)

    now = canvas(chromium)
    white = (now == 255).all(axis=2)
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    height, width = white.shape
    frame = [columns[0] / width, rows[0] / height, columns[-1] / width, rows[-1] / height]
    assert frame == pytest.approx([5 / 8, 3 / 8, 6 / 8, 4 / 8], abs=0.006)
    y, x = int(3.5 / 8 * height), int(5.5 / 8 * width)
    assert not white[y, x]
    assert white[y, x : x + 12].any()
    assert white[y - 12 : y, x].any()


@pytest.mark.parametrize("width", [360, 320])
def test_given_a_telephone_then_nothing_is_wider_than_it(
    chromium: webdriver.Chrome, tmp_path: Path, width: int
) -> None:
    long = ["Donaudampfschifffahrtsgesellschaft", "一只红色的猫" * 9, "قطة", *WORDS * 3]
    found = spread(long, [0.5] * len(long))
    resize(chromium, width)
    buttons = open_page(chromium, tmp_path, [found, found], grid_on(3000, 600))

    for button in (buttons[0], buttons[1], buttons[-1]):
        hover(chromium, button)

    assert chromium.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [
        width,
        width,
    ]
    edges = chromium.execute_script(
        "return [...document.querySelectorAll('main *')].map("
        "(e) => [e.getBoundingClientRect().left, e.getBoundingClientRect().right])"
    )
    assert all(0 <= left <= right <= width for left, right in edges)
    sizes = chromium.execute_script(TEXTS + "return texts.map((e) => getComputedStyle(e).fontSize)")
    assert min(float(size.removesuffix("px")) for size in sizes) >= 14
    assert min(button.size["height"] for button in buttons) >= 32
    assert chromium.save_screenshot(str(tmp_path / "narrow.png"))


CONTRASTS = (
    TEXTS
    + """
const seen = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92
  : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (e) => { for (; e; e = e.parentElement) {
  const c = seen(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } };
return texts.map((e) => {
  const [a, b] = [light(seen(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05); });
"""
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_given_light_or_dark_colours_then_all_text_stands_out(
    chromium: webdriver.Chrome, tmp_path: Path, scheme: str
) -> None:
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    buttons = open_page(chromium, tmp_path, [spread(), spread()])
    hover(chromium, buttons[1])

    ground = chromium.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (sum(rgb(ground)) > 380) == (scheme == "light")
    contrasts = chromium.execute_script(CONTRASTS)
    assert len(contrasts) > 20
    assert min(contrasts) >= 4.5


def test_given_someone_who_wants_no_motion_then_nothing_moves(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    [button, *_] = open_page(chromium, tmp_path)
    assert button.value_of_css_property("transition-duration") != "0s"

    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    assert button.value_of_css_property("transition-duration") == "0s"


def test_given_captions_that_are_markup_then_nothing_of_them_runs(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    nasty = ["<script>window.ran=1</script>", '"><img src=x onerror="window.ran=1">', "</script>"]
    buttons = open_page(chromium, tmp_path, [spread(nasty, [0.5] * 3)])

    for button in buttons:
        hover(chromium, button)

    assert [button.text for button in buttons] == nasty
    assert said(chromium).startswith("</script>: probability")
    assert chromium.execute_script("return window.ran") is None
    assert_nothing_was_asked_for(chromium)


def rgb(colour: Any) -> list[float]:
    return [float(part) for part in str(colour).partition("(")[2].rstrip(")").split(",")[:3]]
