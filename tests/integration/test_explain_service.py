"""Where the model looked, through a real house: words on the original image, and maps in a sink."""

import io
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from producer import (
    CaptionJob,
    CaptionOptions,
    Client,
    ErrorCode,
    ExplainJob,
    ExplainOptions,
    JobState,
    MatchJob,
)
from producer.contract import WordsExplained
from producer.embedded import RedisServer
from tests.worker_process import WorkerProcess
from worker.training import scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("explain")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    (folder / "maps").mkdir()
    with RedisServer(folder / "redis") as broker:
        environment = {
            "CAPTIONQ_BROKER_URL": broker.url,
            "CAPTIONQ_FILE_ROOT": str(folder),
            "CAPTIONQ_SINK_ALLOW": f"{(folder / 'maps').as_uri()}/",
            "CAPTIONQ_MAX_BATCH": "4",
        }
        with WorkerProcess(folder / "worker.log", environment), Client(broker.url) as made:
            yield made


WIDTH, HEIGHT = 960, 480
SHAPE = scenes.Shape("circle", "red", "large", (0.06, 0.55, 0.48, 0.97), (220, 30, 30))
SCENE = scenes.Scene((SHAPE,), "white", (248, 248, 248), None)


def drawn(folder: Path, width: int) -> str:
    """An image whose one shape lies at the lower left."""
    path = folder / f"{width}.png"
    scenes.draw(SCENE, side=HEIGHT, canvas=(width / HEIGHT, 1.0)).save(path)
    return path.as_uri()


@pytest.fixture(scope="module")
def uri(folder: Path) -> str:
    return drawn(folder, WIDTH)


def place_of(found: WordsExplained | None, word: str) -> tuple[float, float]:
    assert found is not None
    [peak] = [one.peak for one in found.words if one.text == word]
    return peak


def inside(peak: tuple[float, float]) -> bool:
    left, top, right, bottom = (value * HEIGHT for value in SHAPE.box)
    return left <= peak[0] <= right and top <= peak[1] <= bottom


@pytest.mark.parametrize(("mode", "width"), [("stretch", 560), ("native", WIDTH)])
def test_given_an_image_that_is_not_square_then_the_shapes_word_points_at_it_on_the_original(
    client: Client, folder: Path, mode: str, width: int
) -> None:
    uri = drawn(folder, width)
    job = CaptionJob(image=uri, mode=mode, explain=ExplainOptions())  # type: ignore[arg-type]
    result = client.submit(job).result(60).raise_for_state()
    [caption] = result.captions or ()
    assert "red circle" in caption.text
    assert inside(place_of(caption.explanation, "circle"))
    told = [word.text for word in caption.explanation.words] if caption.explanation else []
    assert told == caption.text.split()


def test_given_a_sink_then_the_maps_are_there_and_the_result_says_where(
    client: Client, folder: Path, uri: str
) -> None:
    how = ExplainOptions(sink=f"{(folder / 'maps').as_uri()}/")
    job = ExplainJob(image=uri, texts=("a large red circle on white", "a blue star"), explain=how)
    result = client.submit(job).result(60).raise_for_state()
    assert [len(one.words) for one in result.explanations or ()] == [6, 3]
    for one, name in zip(result.explanations or (), ("npz", "caption-2.npz"), strict=True):
        assert one.maps == f"{(folder / 'maps').as_uri()}/{result.job_id}.{name}"
        path = folder / "maps" / f"{result.job_id}.{name}"
        with np.load(io.BytesIO(path.read_bytes())) as file:
            assert str(file["text"]) == one.text
            assert file["maps"].shape[0] == len(one.words)
            assert file["maps"].astype(np.float32).sum(axis=(1, 2)) == pytest.approx(1, abs=0.01)
            assert list(file["size"]) == [WIDTH, HEIGHT]


def test_given_pictures_then_they_are_of_the_original_beside_its_maps(
    client: Client, folder: Path, uri: str
) -> None:
    maps = folder / "maps"
    how = ExplainOptions(sink=f"{maps.as_uri()}/", pictures=True)
    options = CaptionOptions(num_beams=3, num_return_sequences=2)
    job = CaptionJob(job_id="pictured", image=uri, mode="native", options=options, explain=how)
    captions = client.submit(job).result(60).raise_for_state().captions or ()
    assert len(captions) == 2
    words = len(captions[0].explanation.words) if captions[0].explanation else 0
    overlays = sorted(maps.glob("pictured.word-*.png"))
    assert len(overlays) == words > 0
    for overlay in overlays:
        with Image.open(overlay) as picture:
            assert picture.size == (800, 400)
    page = (maps / "pictured.html").read_text()
    assert captions[0].text.split()[0] in page
    for name in ("sheet.png", "caption-2.sheet.png", "caption-2.npz"):
        assert (maps / f"pictured.{name}").stat().st_size > 100


@pytest.mark.parametrize(("mode", "width"), [("stretch", 560), ("crop", 560), ("native", WIDTH)])
def test_given_inline_then_the_result_alone_shows_the_image_and_where_the_word_points(
    client: Client, folder: Path, mode: str, width: int
) -> None:
    job = ExplainJob(
        image=drawn(folder, width),
        texts=("a large red circle on white",),
        mode=mode,  # type: ignore[arg-type]
        explain=ExplainOptions(inline=True),
    )
    result = client.submit(job).result(60).raise_for_state()

    [found] = result.explanations or ()
    word = [one.text for one in found.words].index("circle")
    cells = np.frombuffer(found.words[word].cells(), np.uint8).reshape(found.map_grid or ())
    row, column = np.unravel_index(cells.argmax(), cells.shape)
    left, top, right, bottom = found.map_box or (0, 0, 0, 0)
    x = left + (column + 0.5) * (right - left) / cells.shape[1]
    y = top + (row + 0.5) * (bottom - top) / cells.shape[0]
    assert inside((x, y))
    assert found.words[word].peak == pytest.approx((x, y), abs=2 * (right - left) / len(cells))
    assert result.preview is not None
    with Image.open(io.BytesIO(b64decode(result.preview.data))) as shown:
        assert shown.size == (result.preview.width, result.preview.height)
        scale = 512 / width
        assert shown.size == (512, round(HEIGHT * scale))
        red, green, _ = shown.getpixel((int(x * scale), int(y * scale)))  # type: ignore[misc]
        assert red > 150
        assert green < 100
    whole = len(result.model_dump_json())
    assert whole < 30_000


def test_given_a_sink_that_is_not_allowed_then_the_job_fails_before_anything_is_run(
    client: Client, uri: str
) -> None:
    how = ExplainOptions(sink="file:///elsewhere/")
    result = client.submit(CaptionJob(image=uri, explain=how)).result(60)
    assert result.state is JobState.FAILED
    assert result.error is not None
    assert result.error.code is ErrorCode.SINK_NOT_ALLOWED


def test_given_a_match_then_the_words_that_itm_read_are_placed_as_well(
    client: Client, uri: str
) -> None:
    job = MatchJob(image=uri, texts=("a large red circle on white",), explain=ExplainOptions())
    [match] = client.submit(job).result(60).raise_for_state().matches or ()
    assert match.explanation is not None
    assert [word.text for word in match.explanation.words] == match.text.split()
