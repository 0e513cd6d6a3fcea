"""Embed, rank and filters through a real house: what a client gets, and what it may rely on."""

import random

import pytest
from celery import Celery

from producer import (
    CaptionChunk,
    CaptionFilter,
    CaptionJob,
    CaptionOptions,
    EmbedChunk,
    EmbedJob,
    JobState,
    MatchChunk,
    MatchJob,
    RankChunk,
    RankJob,
)
from tests.house import House, picture
from worker.training import scenes

SEEDS = range(40, 46)


@pytest.fixture(scope="module")
def drawn(house: House) -> dict[str, scenes.Scene]:
    """Six scenes as files that the worker reads, by URI."""
    found = {}
    for seed in SEEDS:
        data, scene = picture(seed)
        path = house.files / f"match-{seed}.png"
        path.write_bytes(data)
        found[path.as_uri()] = scene
    return found


def test_given_images_and_texts_when_embedded_then_each_text_is_nearest_to_its_own_image(
    house: House, drawn: dict[str, scenes.Scene]
) -> None:
    images = tuple(drawn)
    texts = tuple(scene.caption for scene in drawn.values())
    chunk = house.client.submit(EmbedChunk(images=images, encoding="float16")).result(60)
    words = house.client.submit(EmbedJob(texts=texts)).result(60).raise_for_state()
    assert chunk.counts == {"succeeded": len(images)}
    assert words.image_ref is None
    for index, text in enumerate(words.embeddings or ()):
        cosines = [text.cosine(item.embeddings[0]) for item in chunk.items or () if item.embeddings]
        assert len(cosines) == len(images)
        assert cosines.index(max(cosines)) == index


def test_given_a_text_and_images_when_ranked_then_the_right_one_is_first_and_faults_stay_apart(
    house: House, drawn: dict[str, scenes.Scene]
) -> None:
    images = (*drawn, "file://" + str(house.files / "nowhere.png"))
    for index, scene in enumerate(drawn.values()):
        job = RankChunk(images=images, text=scene.caption, k=3)
        result = house.client.submit(job).result(60).raise_for_state()
        ranking = result.ranking or ()
        assert len(ranking) == 3
        assert (ranking[0].index, ranking[0].image_ref) == (index, images[index])
        assert [one.score for one in ranking] == sorted(
            (one.score for one in ranking), reverse=True
        )
        assert result.counts == {"succeeded": len(drawn), "file_not_found": 1}


def test_given_an_image_and_texts_when_ranked_then_its_own_is_first(
    house: House, drawn: dict[str, scenes.Scene]
) -> None:
    uri, scene = next(iter(drawn.items()))
    rng = random.Random(7)
    others = {scenes.sample(rng, 1).caption for _ in range(40)} - {scene.caption}
    texts = (*sorted(others), scene.caption)
    result = house.client.submit(RankJob(image=uri, texts=texts, k=5)).result(60)
    ranking = result.raise_for_state().ranking or ()
    assert len(ranking) == 5
    assert (ranking[0].text, ranking[0].index) == (scene.caption, len(texts) - 1)


def test_given_texts_of_each_images_own_then_pairs_are_told_apart(
    house: House, drawn: dict[str, scenes.Scene]
) -> None:
    captions = [scene.caption for scene in drawn.values()]
    shifted = [*captions[1:], captions[0]]
    texts = tuple(zip(captions, shifted, strict=True))
    result = house.client.submit(MatchChunk(images=tuple(drawn), texts_per_image=texts)).result(60)
    for item, own in zip(result.items or (), captions, strict=True):
        best = (item.matches or ())[0]
        assert (best.text, best.index) == (own, 0)


def test_given_a_filter_and_embed_then_one_caption_job_does_all_of_it(
    house: House, drawn: dict[str, scenes.Scene]
) -> None:
    uri, scene = next(iter(drawn.items()))
    options = CaptionOptions(num_beams=5, num_return_sequences=5)
    job = CaptionJob(image=uri, options=options, filter=CaptionFilter(), embed="list")
    result = house.client.submit(job).result(60).raise_for_state()
    captions = result.captions or ()
    assert captions[0].text == scene.caption
    assert captions[0].rejected is False
    assert result.abstained is False
    assert result.match_model is not None
    [embedding] = result.embeddings or ()
    [alone] = house.client.submit(EmbedJob(image=uri)).result(60).embeddings or ()
    assert embedding.cosine(alone) == pytest.approx(1, abs=1e-5)


def test_given_a_filter_that_nothing_passes_then_the_chunk_succeeds_and_its_items_abstain(
    house: House, drawn: dict[str, scenes.Scene]
) -> None:
    rules = CaptionFilter(banned_words=("on",))
    chunk = CaptionChunk(images=tuple(drawn)[:2], filter=rules)
    result = house.client.submit(chunk).result(60).raise_for_state()
    assert [item.state for item in result.items or ()] == [JobState.SUCCEEDED] * 2
    assert all(item.abstained for item in result.items or ())
    for item in result.items or ():
        assert all("banned_word" in one.reject_reasons for one in item.captions or ())


def test_given_a_celery_client_then_embeddings_come_as_plain_json(house: House) -> None:
    app = Celery(broker=house.broker.url, backend=house.broker.url)
    job = {"texts": ["a small red circle on white"]}
    found = app.send_task("captionq.embed", kwargs={"job": job}).get(timeout=60)
    [embedding] = found["embeddings"]
    assert len(embedding["vector"]) == 256
    assert sum(value * value for value in embedding["vector"]) == pytest.approx(1, abs=1e-4)
    app.close()


def test_given_texts_in_any_order_then_their_matches_come_best_first(
    house: House, drawn: dict[str, scenes.Scene]
) -> None:
    uri, scene = next(iter(drawn.items()))
    texts = ("a large green star on black", scene.caption, "a small blue ring on beige")
    result = house.client.submit(MatchJob(image=uri, texts=texts)).result(60)
    matches = result.raise_for_state().matches or ()
    assert (matches[0].index, matches[0].text) == (1, scene.caption)
