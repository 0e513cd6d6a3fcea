"""The gateway's page on a whole house: real uploads, a real worker, true captions."""

from base64 import b64encode
from collections.abc import Iterator
from itertools import pairwise
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.actions import interaction
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.keys import Keys

from producer import CaptionJob, Client
from producer.errors import PUBLIC_TEXT, ErrorCode
from producer.gateway.app import create_app
from producer.gateway.keys import new_key, write
from tests.browser.conftest import needs_chromium, resize
from tests.browser.desk import Desk, Person, open_desk
from tests.house import PNG, SCENE
from tests.node import evaluated
from tests.servers import Reply
from tests.serving import serving
from worker.training import scenes

needs_chromium()

SIDE = 300
SHAPE = scenes.Shape("circle", "red", "large", (0.06, 0.5, 0.5, 0.94), (220, 30, 30))
DRAWN = scenes.Scene((SHAPE,), "white", (248, 248, 248), None)
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with open_desk(tmp_path_factory.mktemp("desk")) as opened:
        opened.house.web.routes["/slow.png"] = [Reply(200, PNG, delay_s=3)]
        yield opened


@pytest.fixture
def person(chromium: webdriver.Chrome, desk: Desk) -> Person:
    chromium.execute_script("if (location.origin !== 'null') sessionStorage.clear()")
    resize(chromium, 1280)
    return Person(chromium, desk.url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A picture of a large red circle at the lower left, half as wide again as it is high."""
    path = tmp_path / "circle <b>.png"
    scenes.draw(DRAWN, side=SIDE, canvas=(1.4, 1.0)).save(path)
    return path


def web(desk: Desk, path: str = "/ok.png") -> str:
    return desk.house.web.url(path)


def in_the_circle(x: float, y: float) -> bool:
    left, top, right, bottom = (value * SIDE for value in SHAPE.box)
    return left <= x <= right and top <= y <= bottom


def test_given_a_url_when_it_is_submitted_then_its_states_and_its_true_caption_are_seen(
    person: Person, desk: Desk
) -> None:
    person.ask(web(desk, "/slow.png"))
    person.until(lambda: person.shows("#steps .now[data-step=running]"))
    assert person.text("#state").startswith("A worker is at it")
    assert person.shows("#cancel")

    status = person.result()

    [caption] = status["result"]["captions"]
    assert status["result"]["image_ref"] == web(desk, "/slow.png")
    assert SCENE.shapes[0].kind in caption["text"]
    assert [word.text.split("\n")[0] for word in person.words()] == caption["text"].split()
    sure = [round(100 * exp(word["logprob"])) for word in caption["explanation"]["words"]]
    shown = [word.text.split("\n")[1] for word in person.words()]
    assert all(f"{s}%" == t or t in (">99%", "<1%") for s, t in zip(sure, shown, strict=True))
    assert not person.shows("#steps")
    assert person.one("#shown").get_attribute("src").startswith("data:image/jpeg;base64,")
    assert person.browser.current_url.endswith(f"#/jobs/{status['job_id']}")
    person.assert_kept_to_itself()


def test_given_a_file_when_it_is_chosen_then_it_is_uploaded_captioned_and_listed_with_a_picture(
    person: Person, desk: Desk, file: Path
) -> None:
    person.one("#file").send_keys(str(file))
    assert person.text("#chosen-name") == file.name
    person.ask()

    result = person.result()["result"]

    assert "red circle" in result["captions"][0]["text"]
    name = result["image_ref"].removeprefix("s3://photos/uploads/")
    assert (desk.house.bucket / "uploads" / name).read_bytes() == file.read_bytes()
    row = person.until(lambda: person.all('.job[aria-current="true"] img.thumb'))[0]
    assert row.get_attribute("src").startswith("data:image/jpeg")
    assert "Done" in person.text('.job[aria-current="true"]')
    person.assert_kept_to_itself()


def test_given_a_word_when_it_is_pointed_at_then_its_map_lies_over_the_image_where_the_shape_is(
    person: Person, file: Path
) -> None:
    person.one("#file").send_keys(str(file))
    person.ask()
    person.result()
    before: np.ndarray[Any, Any] | None = None
    assert not person.shows("#map")

    for word in person.words():
        person.hover(word)

        now = person.map()
        assert before is None or (now != before).any(axis=2).mean() > 0.002
        before = now
        pressed = [one.get_attribute("aria-pressed") for one in person.words()]
        assert pressed == ["true" if one == word else "false" for one in person.words()]
        letters = word.text.split("\n")[0]
        assert person.text("#looked").startswith(f"{letters}: ")
        assert word.accessible_name == letters
        if letters in ("red", "circle"):
            red, green, blue = np.moveaxis(now[..., :3].astype(int), 2, 0)
            glow = red + green - blue  # most where the map is bright; marks are black and white
            y, x = np.unravel_index(glow.argmax(), glow.shape)
            assert glow[y, x] > 300
            assert in_the_circle(*(value * 1.4 * SIDE / now.shape[1] for value in (x, y)))
            assert person.text("#looked").endswith(" left")
    over, image = (person.one(selector).rect for selector in ("#map", "#shown"))
    assert over == pytest.approx(image)
    person.assert_kept_to_itself()


def test_given_a_keyboard_then_tab_reaches_the_words_arrows_go_between_them_and_escape_leaves(
    person: Person, desk: Desk
) -> None:
    person.ask(web(desk))
    person.result()
    words = person.words()

    def focused() -> int:
        return words.index(person.browser.switch_to.active_element)

    person.browser.execute_script("document.querySelector('#result').focus()")
    person.press(Keys.TAB)
    assert focused() == 0
    assert words[0].value_of_css_property("outline-style") == "solid"
    for key, place in (
        (Keys.ARROW_RIGHT, 1),
        (Keys.ARROW_DOWN, 2),
        (Keys.END, len(words) - 1),
        (Keys.ARROW_RIGHT, len(words) - 1),
        (Keys.ARROW_LEFT, len(words) - 2),
        (Keys.HOME, 0),
    ):
        person.press(key)
        assert focused() == place
        assert person.map().any()
        told = person.one("[aria-live=polite]#looked").text
        assert told.startswith(f"{words[place].accessible_name}: ")
        assert " sure, looked " in told

    person.press(Keys.ESCAPE)
    assert not person.shows("#map")
    assert person.text("#looked").startswith("Point at a word")
    person.press(Keys.TAB)
    assert person.browser.switch_to.active_element not in words  # one stop for all of them


def test_given_a_finger_when_it_taps_a_word_then_its_map_is_shown_and_stays(
    person: Person, desk: Desk
) -> None:
    person.ask(web(desk))
    person.result()
    finger = ActionBuilder(person.browser, mouse=PointerInput(interaction.POINTER_TOUCH, "finger"))
    finger.pointer_action.move_to(person.words()[2]).pointer_down().pointer_up()
    finger.perform()
    assert person.map().any()
    assert person.words()[2].get_attribute("aria-pressed") == "true"


@pytest.mark.parametrize(
    ("path", "code"),
    [("/missing.png", ErrorCode.HTTP_4XX), ("/damaged.png", ErrorCode.IMAGE_CORRUPT)],
)
def test_given_a_job_that_fails_then_its_code_its_text_and_what_to_do_are_shown(
    person: Person, desk: Desk, path: str, code: ErrorCode
) -> None:
    person.ask(web(desk, path))
    person.result()

    said = person.text(".failed")
    advice = evaluated("return (await load('advice.js')).ADVICE[failed];", failed=code.value)
    for words in (code.value, PUBLIC_TEXT[code], "What to do", *advice):
        assert words in said
    assert person.shows("#again")
    person.until(lambda: code.value in person.text('.job[aria-current="true"]'))
    person.assert_kept_to_itself()


def test_given_texts_then_each_match_has_a_bar_and_numbers_and_its_own_words(
    person: Person, file: Path
) -> None:
    person.one("#file").send_keys(str(file))
    person.ask(task="match", texts="a blue star\na large red circle on white\n\n")
    matches = person.result()["result"]["matches"]

    assert matches[0]["text"] == "a large red circle on white"
    rows = person.all(".one")
    assert [row.text.split("\n")[0] for row in rows] == [one["text"] for one in matches]
    widths = [row.find_element("css selector", "rect").size["width"] for row in rows]
    whole = rows[0].find_element("css selector", "svg").size["width"]
    expected = [one["itm_probability"] for one in matches]
    assert [width / whole for width in widths] == pytest.approx(expected, abs=0.02)
    assert f"cosine {matches[1]['itc_cosine']:.3f}" in rows[1].text
    rows[1].click()
    assert [word.text for word in person.words()] == ["a", "blue", "star"]
    person.hover(person.words()[1])
    assert person.text("#looked").startswith("blue: looked ")


def test_given_words_to_explain_then_markup_in_them_is_text_and_nothing_of_it_runs(
    person: Person, desk: Desk
) -> None:
    nasty = "<img src=x onerror=alert(1)> red"
    person.ask(web(desk), task="explain", texts=f"{nasty}\na circle")
    result = person.result()["result"]

    assert [one["text"] for one in result["explanations"]] == [nasty, "a circle"]
    assert "<img src=x" in person.text("#answer")
    assert not person.all("img[src=x]")
    person.assert_kept_to_itself()


def test_given_sampling_and_a_language_then_several_captions_are_chosen_from(
    person: Person, desk: Desk
) -> None:
    person.click("summary")
    person.one("#language").send_keys("German")
    person.one("#method").send_keys("Sampling")
    assert not person.shows("#beams")
    person.write("#count", "10")
    person.write("#temperature", "5")
    person.ask(web(desk))
    result = person.result()["result"]

    assert result["pack"]["language"] == "de"
    assert person.one(".caption").get_attribute("lang") == "de"
    texts = [one["text"] for one in result["captions"]]
    assert len(texts) > 1
    assert [row.text.split("\n")[0] for row in person.all(".one")] == texts
    person.all(".one")[1].click()
    assert [word.text.split("\n")[0] for word in person.words()] == texts[1].split()


@pytest.mark.parametrize(("language", "name"), [("ar", "Arabic"), ("zh", "Chinese")])
def test_given_another_script_then_words_are_side_by_side_in_its_direction_and_so_are_arrows(
    person: Person, desk: Desk, language: str, name: str
) -> None:
    person.one("#language").send_keys(name)
    person.ask(web(desk))
    text = person.result()["result"]["captions"][0]["text"]

    words = person.words()
    assert "".join(word.text.split("\n")[0] for word in words) == text.replace(" ", "")
    boxes = [word.rect for word in words]
    left = sorted(boxes, key=lambda box: (box["y"], box["x"]))
    assert (left == boxes) == (language == "zh")
    for one, other in pairwise(left):
        assert one["y"] < other["y"] or one["x"] + one["width"] <= other["x"] + 5
    on = Keys.ARROW_LEFT if language == "ar" else Keys.ARROW_RIGHT
    person.browser.execute_script("arguments[0].focus()", words[0])
    person.press(on)
    assert person.browser.switch_to.active_element == words[1]
    assert person.text("#looked").startswith(words[1].text.split("\n")[0])


def test_given_a_form_that_cannot_be_sent_then_it_says_why_and_goes_to_the_field(
    person: Person,
) -> None:
    for fill, words, field in (
        ("", "Choose an image", "uri"),
        ("ftp://a.example/b", "begins with https://", "uri"),
    ):
        person.write("#uri", fill)
        person.click("#submit")
        assert words in person.text("#ask-fault")
        assert person.browser.switch_to.active_element.get_attribute("id") == field
    person.ask("https://a.example/b.png", task="match")
    assert "at least one text" in person.text("#ask-fault")
    person.write("#texts", "\n".join("abcdefghijklmnopq"))
    person.click("#submit")
    assert "17 texts" in person.text("#ask-fault")
    assert person.one("#texts").get_attribute("aria-invalid") == "true"


def test_given_a_file_that_is_too_large_then_it_is_said_before_it_is_sent(
    chromium: webdriver.Chrome, desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "large.png").write_bytes(PNG + bytes(5_000))
    with serving(create_app(desk.settings(max_upload_bytes=4_000))) as url:
        person = Person(chromium, url)
        person.one("#file").send_keys(str(tmp_path / "large.png"))
        person.click("#submit")
        assert "at most 4 kB" in person.text("#ask-fault")
        assert person.shows("#ghost")


def test_given_a_job_that_runs_when_it_is_cancelled_then_that_is_how_it_ended(
    person: Person, desk: Desk
) -> None:
    person.ask(web(desk, "/slow.png"))
    person.until(lambda: person.shows("#cancel"))
    person.click("#cancel")
    person.result()
    assert person.text(".failed h3") == "Cancelled"
    assert "job_cancelled" in person.text(".failed")


def test_given_a_job_s_address_then_the_page_opens_with_it_and_back_goes_back(
    person: Person, desk: Desk
) -> None:
    person.ask(web(desk))
    first = person.result()["job_id"]
    person.browser.refresh()
    person.until(person.words)
    assert person.status()["job_id"] == first
    assert not person.shows("#again")  # the page does not know what was asked
    person.until(lambda: len(person.all(".job")) > 1)
    other = next(row for row in person.all(".job") if row.get_attribute("data-id") != first)
    other.click()
    person.until(lambda: person.status() and person.status()["job_id"] != first)
    person.browser.back()
    person.until(lambda: (person.status() or {}).get("job_id") == first)
    person.browser.back()
    person.until(lambda: person.shows("#ghost"))
    assert not person.words()


@pytest.mark.parametrize("place", ["%zz", "..%2Fservice", "a/%2e%2e/b", ""])
def test_given_an_address_that_names_no_job_then_the_page_says_so_and_asks_for_nothing(
    person: Person, place: str
) -> None:
    person.browser.execute_script("location.hash = arguments[0]", f"#/jobs/{place}")

    person.until(lambda: "No such job" in person.text("#answer"))
    person.assert_kept_to_itself()


def test_given_a_file_when_an_address_is_written_then_that_is_the_image(
    person: Person, file: Path
) -> None:
    person.one("#file").send_keys(str(file))
    assert person.shows("#chosen")
    person.write("#uri", "https://example.com/cat.jpg")

    assert not person.shows("#chosen")
    assert person.one("#uri").get_attribute("value") == "https://example.com/cat.jpg"


def test_given_what_is_pasted_or_dropped_then_it_is_the_image(person: Person, desk: Desk) -> None:
    give = """
      const [kind, what, text] = arguments;
      const data = new DataTransfer();
      if (what) data.items.add(new File([Uint8Array.from(atob(what), (c) => c.charCodeAt(0))],
        'given.png', { type: 'image/png' }));
      else { data.setData('text/plain', text); data.setData('text/uri-list', text); }
      document.body.dispatchEvent(kind === 'paste'
        ? new ClipboardEvent('paste', { clipboardData: data, bubbles: true })
        : new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
    """
    image = b64encode(PNG).decode()
    for kind in ("paste", "drop"):
        person.browser.execute_script(give, kind, image, "")
        assert person.text("#chosen-name") == "given.png"
        person.click("#remove")
        assert not person.shows("#chosen")
        person.browser.execute_script(give, kind, "", web(desk))
        assert person.one("#uri").get_attribute("value") == web(desk)
        person.one("#uri").clear()
    person.browser.execute_script(give, "drop", image, "")
    person.ask()
    assert SCENE.shapes[0].kind in person.result()["result"]["captions"][0]["text"]


def test_given_a_caption_then_it_and_its_json_can_be_copied(person: Person, desk: Desk) -> None:
    person.browser.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": desk.url},
    )
    person.ask(web(desk))
    text = person.result()["result"]["captions"][0]["text"]
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done)"
    person.click("#copy")
    person.until(lambda: person.text("#copied") == "Copied.")
    assert person.browser.execute_async_script(read) == text
    person.click("#copy-json")
    person.until(lambda: person.text("#copied") == "Copied as JSON.")
    assert f'"text": "{text}"' in person.browser.execute_async_script(read)


def test_given_no_streams_of_events_then_the_page_asks_until_the_job_has_ended(
    chromium: webdriver.Chrome, desk: Desk
) -> None:
    with serving(create_app(desk.settings(max_streams=0))) as url:
        person = Person(chromium, url)
        person.ask(web(desk))
        assert person.result()["state"] == "succeeded"
        assert person.words()


def test_given_keys_then_the_page_asks_for_one_and_keeps_it_in_its_tab_alone(
    chromium: webdriver.Chrome, desk: Desk, tmp_path: Path
) -> None:
    key, entry = new_key("person", ("submit", "read", "upload"), 100)
    write(tmp_path / "keys.json", [entry])
    with serving(create_app(desk.settings(api_keys=tmp_path / "keys.json"))) as url:
        person = Person(chromium, url)
        assert person.shows("#key-form")
        assert person.browser.switch_to.active_element.get_attribute("id") == "key"
        person.write("#key", f"cq_person_nothing{Keys.ENTER}")
        person.until(lambda: "not known here" in person.text("#key-why"))
        person.write("#key", key + Keys.ENTER)
        person.until(lambda: not person.shows("#key-form"))

        person.ask(web(desk))
        assert person.result()["state"] == "succeeded"
        assert [row.get_attribute("data-id") for row in person.all(".job")] == [
            person.status()["job_id"]
        ]
        kept = person.browser.execute_script(
            "return [Object.values(sessionStorage), localStorage.length, document.cookie]"
        )
        assert kept == [[key], 0, ""]
        person.click("#forget-key")
        person.until(lambda: person.shows("#key-form"))
        assert person.browser.execute_script("return sessionStorage.length") == 0


def test_given_a_key_that_may_only_look_then_nothing_can_be_submitted_before_or_behind_a_job(
    chromium: webdriver.Chrome, desk: Desk, tmp_path: Path
) -> None:
    key, entry = new_key("person", ("read",), 100)
    write(tmp_path / "keys.json", [entry])
    job = CaptionJob(image=web(desk), owner="person")
    with Client(desk.house.broker.url) as client:
        job_id = client.submit(job).job_id
    with serving(create_app(desk.settings(api_keys=tmp_path / "keys.json"))) as url:
        person = Person(chromium, url)
        person.write("#key", key + Keys.ENTER)
        person.until(lambda: "may look at jobs" in person.text("#ask-fault"))
        assert not person.one("#submit").is_enabled()
        person.browser.execute_script("location.hash = arguments[0]", f"#/jobs/{job_id}")
        person.result()

        assert not person.one("#submit").is_enabled()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_given_each_state_and_scheme_then_axe_finds_no_violation_and_360_px_are_enough(
    person: Person, desk: Desk, file: Path, scheme: str
) -> None:
    person.prefers(color_scheme=scheme, reduced_motion="reduce")  # no colour is half-way
    dark = person.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, dark.strip("rgb()").split(","))) < 150) == (scheme == "dark")

    def looked_at(state: str) -> None:
        for width in (1280, 360):
            resize(person.browser, width)
            assert person.violations() == [], (state, width)
            assert not person.scrolls_sideways(), (state, width)
        resize(person.browser, 1280)

    looked_at("empty")
    person.click("#submit")
    looked_at("a fault in the form")
    person.ask(web(desk, "/slow.png"))
    person.until(lambda: person.shows("#steps .now[data-step=running]"))
    looked_at("running")
    person.result()
    person.hover(person.words()[1])
    looked_at("result")
    person.one("#file").send_keys(str(file))
    person.ask(task="match", texts="a large red circle on white\na blue star")
    person.until(lambda: person.all(".one"))
    looked_at("match")
    person.click("#remove")
    person.ask(web(desk, "/missing.png"))
    person.until(lambda: person.all(".failed"))
    person.until(lambda: "http_4xx" in person.text("#jobs"))
    looked_at("failure")


def test_given_a_person_who_wants_little_motion_then_nothing_is_animated(
    person: Person, desk: Desk
) -> None:
    person.prefers(reduced_motion="reduce")
    person.ask(web(desk, "/slow.png"))
    person.until(lambda: person.shows("#steps .now[data-step=running]"))
    assert person.browser.execute_script("return document.getAnimations().length") == 0
    person.result()


def test_given_a_result_that_comes_then_nothing_that_was_there_jumps(
    person: Person, desk: Desk
) -> None:
    person.browser.execute_script(
        "window.shifts = []; new PerformanceObserver((list) => { for (const one of list"
        ".getEntries()) if (!one.hadRecentInput) shifts.push([one.value, one.sources.map("
        "(source) => source.node && (source.node.id || source.node.className))]); })"
        ".observe({ type: 'layout-shift', buffered: true })"
    )
    person.ask(web(desk, "/slow.png"))
    person.result()
    shifts = person.browser.execute_script("return shifts")
    assert sum(value for value, _ in shifts) < 0.05, shifts
