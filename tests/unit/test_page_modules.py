"""What the page says and does, as far as it needs no browser."""

import re
from base64 import b64decode
from math import exp

import numpy as np
import pytest

from producer.errors import ErrorCode
from tests.explained import MODES, at, explained, grid_on
from tests.node import PAGE, evaluated
from worker.blip.geometry import Mode
from worker.maps import words_explained
from worker.pictures.mapping import mapping
from worker.pictures.saying import where
from worker.settings import WorkerSettings


def test_given_any_error_code_then_the_page_says_what_to_do_about_it() -> None:
    advice = evaluated("return (await load('advice.js')).ADVICE;")

    assert advice.keys() == {code.value for code in ErrorCode}
    for code, lines in advice.items():
        assert 1 <= len(lines) <= 3, code
        assert all(line.endswith(".") for line in lines), code


def test_given_settings_in_its_advice_then_workers_have_them() -> None:
    named = set(
        re.findall(r"\b[A-Z]{2,}_[A-Z_]+\b|\((?:PACKS)\)", (PAGE / "advice.js").read_text())
    )
    known = {name.upper() for name in WorkerSettings.model_fields}
    assert {name.strip("()") for name in named} <= known
    assert len(named) > 8


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("a red cat", ["a", "red", "cat"],
         [[0, "a"], [-1, " "], [1, "red"], [-1, " "], [2, "cat"]]),
        ("A red cat.", ["a", "red", "cat"],
         [[0, "A"], [-1, " "], [1, "red"], [-1, " "], [2, "cat"], [-1, "."]]),
        ("一只猫", ["一只", "猫"], [[0, "一只"], [1, "猫"]]),
        ("a a", ["a", "a"], [[0, "a"], [-1, " "], [1, "a"]]),
        ("<b>", ["<b>"], [[0, "<b>"]]),
        ("a cat", ["a", "dog"], None),
        ("", [], []),
    ],
)  # fmt: skip
def test_given_a_caption_and_its_words_then_each_is_found_in_it_in_order(
    text: str, words: list[str], expected: list[list[object]] | None
) -> None:
    code = "return (await load('words.js')).pieces(text, words.map((text) => ({ text })));"
    assert evaluated(code, text=text, words=words) == expected


def test_given_a_place_then_it_is_called_as_the_explain_page_calls_it() -> None:
    points = [(x, y) for x in (0, 40, 99, 100, 150, 299, 300) for y in (0, 59, 60, 61, 119, 180)]
    code = (
        "const { where } = await load('say.js'); return points.map((at) => where(at, [300, 180]));"
    )
    for point, said in zip(points, evaluated(code, points=points), strict=True):
        expected = where(point, 300, 180)
        assert said == ("in the middle" if expected == "the middle" else f"at the {expected}")


def test_given_numbers_then_they_are_said_so_that_nothing_is_surer_than_it_is() -> None:
    code = """
      const { percent, level, size, seconds, named } = await load('say.js');
      const upload = 's3://photos/k/5f1c2a9be04d4f36a1f04a6a0c1b7d22.jpg';
      return [
        [0, 0.001, 0.005, 0.5, 0.994, 0.999, 1].map(percent),
        [1, 0.9, 0.89, 0.6, 0.3, 0.29, 0].map(level),
        [999, 48213, 20971520].map(size),
        [145.3, 2140].map(seconds),
        ['https://a.example/b/cat.jpg?x=1#y', upload, 's3://b/', ''].map(named),
      ];
    """
    percents, levels, sizes, times, names = evaluated(code)
    assert percents == ["0%", "<1%", "1%", "50%", "99%", ">99%", "100%"]
    assert levels == [4, 4, 3, 3, 2, 1, 1]
    assert sizes == ["999 bytes", "48 kB", "21.0 MB"]
    assert times == ["145 ms", "2.1 s"]
    assert names == ["cat.jpg", "upload 5f1c2a9b.jpg", "b", "texts"]


def test_given_a_word_then_its_sentence_says_how_sure_and_where() -> None:
    word = {"text": "circle", "logprob": -0.0726, "peak": [10, 170]}
    code = "return (await load('say.js')).saying(word, [300, 180]);"
    sure = round(100 * exp(-0.0726))
    assert evaluated(code, word=word) == f"circle: {sure}% sure, looked at the lower left"
    assert evaluated(code, word=word | {"logprob": None}) == "circle: looked at the lower left"


@pytest.mark.parametrize("cut", [1, 5, 1000])
def test_given_events_in_any_pieces_then_each_state_is_told_once_and_the_gateways_farewell_is_not(
    cut: int,
) -> None:
    text = (
        'retry: 2000\n\nid: queued\nevent: queued\ndata: {"job_id":"a","state":"queued"}\n\n'
        ": still here\n\nevent: leaving\r\ndata: {}\r\n\r\n"
        'event: result\ndata: {"job_id":"a","state":"succeeded","result":{"say":"ü"}}\n\n'
    )
    code = """
      globalThis.sessionStorage = { getItem: () => 'cq_x_y' };
      const bytes = new TextEncoder().encode(text);
      const asked = [];
      globalThis.fetch = async (path, how) => {
        asked.push([path, how.method, how.headers.Authorization, how.credentials]);
        const pieces = [];
        for (let at = 0; at < bytes.length; at += cut) pieces.push(bytes.slice(at, at + cut));
        const start = (to) => { pieces.forEach((one) => to.enqueue(one)); to.close(); };
        return new Response(new ReadableStream({ start }));
      };
      const told = [];
      const { follow } = await load('api.js');
      await follow('up/a b', (status) => told.push(status), new AbortController().signal);
      return [told, asked];
    """
    told, asked = evaluated(code, text=text, cut=cut)
    assert [one["state"] for one in told] == ["queued", "succeeded"]
    assert told[1]["result"]["say"] == "ü"
    assert asked == [["v1/jobs/up/a%20b/events", "GET", "Bearer cq_x_y", "omit"]]


def test_given_no_events_then_the_job_is_asked_for_until_it_has_ended() -> None:
    code = """
      globalThis.sessionStorage = { getItem: () => null };
      const states = [['queued'], 'away', ['running'], ['failed']];
      globalThis.fetch = async (path) => {
        if (path.endsWith('/events')) return new Response('{}', { status: 503 });
        const next = states.shift();
        if (next === 'away') throw new TypeError('Failed to fetch');
        return new Response(JSON.stringify({ job_id: 'a', state: next[0] }));
      };
      globalThis.setTimeout = (done) => done();
      const told = [];
      const tell = (status) => told.push(status && status.state);
      await (await load('api.js')).follow('a', tell, new AbortController().signal);
      return told;
    """
    assert evaluated(code) == ["queued", None, "running", "failed"]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_given_a_job_that_may_not_be_seen_then_that_is_told_at_once(status: int) -> None:
    code = """
      globalThis.sessionStorage = { getItem: () => null };
      const said = '{"code": "job_unknown", "title": "No such job"}';
      globalThis.fetch = async () => new Response(said, { status });
      try { await (await load('api.js')).follow('a', () => {}, new AbortController().signal); }
      catch (problem) { return [problem.status, problem.code, problem.title]; }
    """
    assert evaluated(code, status=status) == [status, "job_unknown", "No such job"]


PAINTED = """
  const { fit, paint } = await load('heatmap.js');
  const canvas = { clientWidth: 0, getContext: () => pen };
  let picture = null;
  const marks = [];
  const pen = {
    createImageData: (width, height) => ({ data: new Uint8ClampedArray(4 * width * height) }),
    putImageData: (made) => { picture = made.data; },
    strokeRect: (...box) => marks.push(box),
    arc: (...ring) => marks.push(ring),
    beginPath() {},
    stroke() {},
  };
  fit(canvas, ...size);
  canvas.clientWidth = canvas.width;
  return found.words.map((word) => {
    marks.length = 0;
    paint(canvas, size, found, word);
    const data = Buffer.from(picture).toString('base64');
    return [canvas.width, canvas.height, data, marks.slice(0, 2)];
  });
"""


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_given_any_mode_then_a_map_is_painted_where_its_cells_are_and_what_was_cropped_is_dark(
    mode: Mode, size: tuple[int, int]
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
    some = whole[:: len(whole) // 4]
    found = explained([f"w{n}" for n in range(len(some))], [at(on.grid, *c) for c, _ in some])
    said = words_explained(found, found.text, on, None, 100_000)

    painted = evaluated(PAINTED, found=said.model_dump(mode="json"), size=size)

    left, top, right, bottom = said.map_box or (0, 0, 0, 0)
    for (_, extent), (width, height, data, marks) in zip(some, painted, strict=True):
        pixels = np.frombuffer(b64decode(data), np.uint8).reshape(height, width, 4)
        scale = width / size[0]
        x, y = ((extent[0] + extent[2]) / 2 * scale, (extent[1] + extent[3]) / 2 * scale)
        assert pixels[int(y), int(x)] == pytest.approx([252, 255, 164, 0.82 * 255], abs=40)
        away = np.hypot(*np.ogrid[-y : height - y, -x : width - x])
        far = away > 1.5 * scale * np.hypot(wide, high)
        inside = np.zeros((height, width), bool)
        rows = slice(max(0, round(top * scale)), round(bottom * scale))
        inside[rows, max(0, round(left * scale)) : round(right * scale)] = True
        assert (pixels[far & inside] == [0, 0, 4, 128]).all(axis=1).mean() > 0.95
        assert (mode == "crop") == (not inside.all())
        if mode == "crop":
            assert (pixels[~inside] == [0, 0, 0, 204]).all(axis=1).mean() > 0.98
        (box_left, box_top, *_), ring = marks
        assert ring[:2] == pytest.approx([x, y], abs=1)
        assert (box_left, box_top) == pytest.approx(
            (max(2, extent[0] * scale), max(2, extent[1] * scale)), abs=2
        )
