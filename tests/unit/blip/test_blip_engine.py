"""The engine's public API."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.blip_checkpoints import BOTH, TINY, Retriever, noise_images, write_random_checkpoint
from worker.blip import (
    BlipError,
    CaptionOptions,
    CheckpointError,
    DeviceUnavailable,
    Engine,
    InputError,
)
from worker.blip.checkpoint import Checkpoint
from worker.blip.hub import resolve
from worker.blip.options import MAX_BEAMS
from worker.blip.text import TextModel
from worker.blip.vision import VisionModel


def ids(rows: list[list[Any]]) -> list[list[int]]:
    return [caption.token_ids for row in rows for caption in row]


def test_given_a_checkpoint_when_loaded_then_the_engine_says_what_it_is(tiny: Path) -> None:
    engine = Engine.load(tiny, device="auto", dtype="auto")
    assert engine.tasks == {"caption", "match"}
    assert engine.image_size == (32, 32)
    assert engine.resample == Image.Resampling.BICUBIC
    assert engine.model_id == tiny.name
    assert len(engine.revision) == 12
    on_gpu = torch.cuda.is_available()
    assert torch.device(engine.device).type == ("cuda" if on_gpu else "cpu")
    assert engine.dtype == ("bfloat16" if on_gpu else "float32")


def test_given_each_form_of_an_image_when_captioned_then_the_caption_is_the_same(
    tiny_engine: Engine, tmp_path: Path
) -> None:
    images = noise_images(2, size=(32, 32))
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    arrays = [np.asarray(image) for image in images]
    tensor = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    expected = ids(tiny_engine.caption(images))
    forms: list[Any] = [
        paths,
        [str(path) for path in paths],
        arrays,
        np.stack(arrays),
        tensor,
        tiny_engine.normalised(tensor),
        [paths[0], arrays[1]],
        tiny_engine.encode(images),
    ]
    for form in forms:
        assert ids(tiny_engine.caption(form)) == expected
    for one in (images[1], paths[1], str(paths[1]), arrays[1]):
        assert ids(tiny_engine.caption(one)) == expected[1:]


def test_given_a_caption_then_its_scores_its_tokens_and_its_end_agree(
    tiny_engine: Engine,
) -> None:
    options = CaptionOptions(num_beams=5, num_return_sequences=5, min_new_tokens=1)
    reasons = set()
    for row in tiny_engine.caption(noise_images(12), options):
        assert len(row) == 5
        scores = [caption.mean_logprob for caption in row]
        assert scores == sorted(scores, reverse=True)
        for caption in row:
            assert len(caption.tokens) == len(caption.token_ids) == len(caption.token_logprobs)
            assert caption.logprob == pytest.approx(sum(caption.token_logprobs))
            assert caption.mean_logprob == pytest.approx(caption.logprob / len(caption.token_ids))
            assert (caption.tokens[-1] == "[SEP]") == (caption.finish_reason == "stop")
            assert "[" not in caption.text
            assert "[SEP]" not in caption.tokens[:-1]
            reasons.add(caption.finish_reason)
    assert reasons == {"stop", "length"}


def test_given_names_of_options_when_captioned_then_they_override_the_options(
    tiny_engine: Engine,
) -> None:
    image = noise_images(1)
    options = CaptionOptions(num_beams=3, max_new_tokens=6)
    assert ids(tiny_engine.caption(image, options, num_beams=1)) == ids(
        tiny_engine.caption(image, num_beams=1, max_new_tokens=6)
    )
    assert len(ids(tiny_engine.caption(image, max_new_tokens=4))[0]) <= 4


def test_given_a_prompt_as_ids_when_captioned_then_special_tokens_round_it_do_not_matter(
    tiny_engine: Engine,
) -> None:
    tokenizer = tiny_engine._tokenizer
    content = tokenizer.prompt("a b c")[1:]
    expected = ids(tiny_engine.caption(noise_images(2), prompt="a b c"))
    for prompt in (content, tokenizer.prompt("a b c"), [*tokenizer.text("a b c"), 0, 0]):
        assert ids(tiny_engine.caption(noise_images(2), prompt=prompt)) == expected


def test_given_texts_as_ids_when_matched_then_they_are_as_their_words(
    tiny_engine: Engine,
) -> None:
    words = ["a b", "word7"]
    token_ids = [tiny_engine._tokenizer.text(text) for text in words]
    images = noise_images(2)
    assert tiny_engine.match(images, token_ids) == tiny_engine.match(images, words)
    assert tiny_engine.embed(texts=token_ids).equal(tiny_engine.embed(texts=words))


def test_given_enc_in_the_tokenizer_when_matched_then_itm_reads_it_and_itc_does_not(
    tiny: Path, tiny_engine: Engine
) -> None:
    images, texts = noise_images(3), ["a b c", "word7"]
    [default, enc, cls] = [
        tiny_engine.match(images, texts, position_zero=choice) for choice in (None, "enc", "cls")
    ]
    assert default == enc
    assert [m.itc_cosine for r in enc for m in r] == [m.itc_cosine for r in cls for m in r]
    assert [m.itm_logit for r in enc for m in r] != [m.itm_logit for r in cls for m in r]

    retriever = Retriever(tiny, images)
    enc_id = retriever.tokenizer.convert_tokens_to_ids("[ENC]")
    encoded = retriever.tokenizer(texts[0], return_tensors="pt").input_ids
    encoded[:, 0] = enc_id
    with torch.inference_mode():
        logits = retriever.model(
            input_ids=encoded.expand(3, -1), pixel_values=retriever.pixels
        ).itm_score
    assert [row[0].itm_logit for row in enc] == pytest.approx(logits[:, 1].tolist(), abs=1e-4)
    assert [row[0].itm_probability for row in enc] == pytest.approx(
        logits.softmax(-1)[:, 1].tolist(), abs=1e-4
    )


def test_given_images_and_texts_when_embedded_then_their_products_are_the_itc_cosines(
    tiny_engine: Engine,
) -> None:
    images, texts = noise_images(3), ["a b", "c", "word7 word8"]
    left, right = tiny_engine.embed(images), tiny_engine.embed(texts=texts)
    assert left.shape == right.shape == (3, 256)
    assert left.dtype == right.dtype == torch.float32
    assert left.norm(dim=1).tolist() == pytest.approx([1.0] * 3)
    found = tiny_engine.match(images, texts)
    cosines = torch.tensor([[match.itc_cosine for match in row] for row in found])
    assert (left @ right.T - cosines).abs().max() < 1e-5


def test_given_nothing_when_asked_then_nothing_is_answered(tiny_engine: Engine) -> None:
    assert tiny_engine.caption([]) == []
    assert tiny_engine.match([], ["a"]) == []
    assert tiny_engine.match(noise_images(2), []) == [[], []]
    assert tiny_engine.match(noise_images(2), [[], ["a"]])[0] == []
    assert tiny_engine.rank(noise_images(2), [], 1) == [[], []]
    assert tiny_engine.rank(noise_images(2), [[], ["a"]], 1)[0] == []
    assert tiny_engine.embed(texts=[]).shape == (0, 256)
    assert tiny_engine.embed([]).shape == (0, 256)


def test_given_no_images_then_no_layer_runs_on_a_gpu_either(tiny: Path) -> None:
    """On torch's meta device, which like a GPU is no CPU: kernels of a GPU refuse empty batches."""
    checkpoint = Checkpoint(resolve(tiny), ["caption"])
    with torch.device("meta"):
        vision, text = VisionModel(checkpoint.vision), TextModel(checkpoint.text)
    for layer in vision.layers:
        layer.register_forward_pre_hook(fails)
    text.cross_key_values[0].register_forward_pre_hook(fails)
    embeddings = vision(torch.empty(0, 3, 32, 32, device="meta"))
    assert embeddings.shape == (0, 17, 64)
    assert text.project_images(embeddings).shape == text.cache_shape(0, 17)


def fails(*_: Any) -> None:
    raise AssertionError("a layer ran")


def test_given_a_batch_when_warmed_up_then_the_worst_case_ran(
    tiny_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[int, int, int]] = []
    caption = Engine.caption

    def watched(self: Engine, images: torch.Tensor, options: CaptionOptions) -> Any:
        found = caption(self, images, options)
        tokens = min(len(one.token_ids) for row in found for one in row)
        ran.append((len(found), options.num_beams, tokens))
        return found

    monkeypatch.setattr(Engine, "caption", watched)
    tiny_engine.warmup(2)
    assert ran == [(2, MAX_BEAMS, 20)]


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_given_a_half_precision_when_captioned_and_matched_then_scores_stay_near(
    tiny: Path, tiny_engine: Engine, dtype: str
) -> None:
    engine = Engine.load(tiny, dtype=dtype)
    images, texts = noise_images(4), ["a b", "word7 word8"]
    assert all(row[0].token_ids for row in engine.caption(images))
    for ours, exact in zip(
        engine.match(images, texts), tiny_engine.match(images, texts), strict=True
    ):
        for half, full in zip(ours, exact, strict=True):
            assert half.itc_cosine == pytest.approx(full.itc_cosine, abs=0.05)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.caption(noise_images(2), [CaptionOptions()]), "1 options for 2 images"),
        (lambda e: e.caption(noise_images(1), num_beams=11), "num_beams must be 1 to 10"),
        (lambda e: e.match(noise_images(1), [["a"], ["b"]]), "2 lists of texts for 1 images"),
        (lambda e: e.match(noise_images(2), [["a"], "b"]), "one list for all images"),
        (lambda e: e.match(noise_images(1), ["a"], position_zero="x"), "position_zero"),
        (lambda e: e.rank(noise_images(1), ["a"], 0), "k must be at least 1, not 0"),
        (lambda e: e.rank(noise_images(1), [["a"], ["b"]], 1), "2 lists of texts for 1 images"),
        (lambda e: e.embed(), "one of the two"),
        (lambda e: e.embed(noise_images(1), ["a"]), "one of the two"),
    ],
)
def test_given_a_wrong_argument_when_called_then_the_error_names_it(
    tiny_engine: Engine, call: Callable[[Engine], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(tiny_engine)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.caption(noise_images(1), prompt="a " * 600), "621 tokens, .* 512 positions"),
        (lambda e: e.caption(noise_images(1), max_new_tokens=512), "513 tokens, .* 512 positions"),
        (lambda e: e.caption(noise_images(1), prompt=[100000]), "token ids must be 0 to 199"),
        (lambda e: e.match(noise_images(1), ["a", "a " * 600]), "602 tokens, .* 512 positions"),
        (lambda e: e.match(noise_images(1), [[7] * 511]), "513 tokens, .* 512 positions"),
        (lambda e: e.embed(texts=["a " * 600]), "602 tokens, .* 512 positions"),
    ],
)
def test_given_what_the_checkpoint_can_never_take_when_called_then_an_input_error_names_the_limit(
    tiny_engine: Engine, call: Callable[[Engine], Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call(tiny_engine)
    assert isinstance(caught.value, BlipError)
    assert isinstance(caught.value, ValueError)


def test_given_a_prompt_that_just_fits_when_captioned_then_it_is_taken(tiny_engine: Engine) -> None:
    [[caption]] = tiny_engine.caption(noise_images(1), prompt=[105] * 507, max_new_tokens=4)
    assert 1 <= len(caption.token_ids) <= 4


def test_given_a_text_alone_then_it_is_one_text(tiny_engine: Engine) -> None:
    images = noise_images(2)
    assert tiny_engine.match(images, "a cat") == tiny_engine.match(images, ["a cat"])
    assert tiny_engine.embed(texts="a cat").equal(tiny_engine.embed(texts=["a cat"]))


def test_given_no_such_device_when_loaded_then_one_sentence_says_so(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device in ("cuda", "cuda:7"):
        with pytest.raises(DeviceUnavailable, match=f"no device {device}: torch finds 0 CUDA"):
            Engine.load(tiny, device=device)
    with pytest.raises(DeviceUnavailable, match="auto, cpu, cuda or cuda:N, not 'gpu'"):
        Engine.load(tiny, device="gpu")


def test_given_an_unknown_option_when_called_then_it_is_no_argument(tiny_engine: Engine) -> None:
    with pytest.raises(TypeError, match="no_such_option"):
        tiny_engine.caption(noise_images(1), no_such_option=1)


def test_given_one_task_when_loaded_then_the_other_is_refused(tiny: Path) -> None:
    captioner = Engine.load(tiny, tasks=["caption"])
    assert captioner.tasks == {"caption"}
    with pytest.raises(CheckpointError, match="loaded for caption, not match"):
        captioner.match(noise_images(1), ["a"])
    with pytest.raises(CheckpointError, match="not match"):
        captioner.embed(texts=["a"])
    with pytest.raises(CheckpointError, match="not match"):
        captioner.rank(noise_images(1), ["a"], 1)
    matcher = Engine.load(tiny, tasks=["match"])
    with pytest.raises(CheckpointError, match="loaded for match, not caption"):
        matcher.caption(noise_images(1))


@pytest.mark.parametrize(
    ("dtype", "message"), [("float64", "dtype must be"), ("float16", "float16 is for a GPU")]
)
def test_given_a_dtype_that_is_not_for_a_cpu_when_loaded_then_it_is_refused(
    tiny: Path, dtype: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Engine.load(tiny, dtype=dtype)


def test_given_a_matching_checkpoint_alone_when_loaded_then_it_matches(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path, TINY, ["match"])
    engine = Engine.load(folder)
    assert engine.tasks == {"match"}
    assert len(engine.match(noise_images(1), ["a", "b"])[0]) == 2


def test_given_both_tasks_over_one_vit_then_one_pass_of_it_serves_them(
    tiny: Path, tiny_engine: Engine
) -> None:
    engine, images = Engine.load(tiny), noise_images(2)
    assert engine.tasks == set(BOTH)
    passes: list[int] = []
    engine._modules.vision.post_layernorm.register_forward_hook(lambda *_: passes.append(1))
    encoded = engine.encode(images)
    assert engine.caption(encoded) == tiny_engine.caption(images)
    tiny_engine.text_cache.clear()  # a text's last bits follow from the batch it was embedded in
    assert engine.match(encoded, ["a b"]) == tiny_engine.match(images, ["a b"])
    assert passes == [1]
