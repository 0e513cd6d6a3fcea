"""A batch that mixes packs, and rows of none, gives each row what it is alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.blip_checkpoints import noise_images
from worker.blip import Caption, CaptionOptions, Engine, Pack
from worker.blip import captioning as captioning_module
from worker.blip.adapter_files import TENSOR_FILE
from worker.blip.lexicon import Lexicon, in_order, runs
from worker.blip.mixed_search import alike
from worker.blip.random_pack import PackShape, write_random_pack
from worker.blip.steps import Steps

SHAPES = {
    "own words": PackShape(words=150, rank=4),
    "others": PackShape(words=310, rank=7, targets=r".*\.(query|value)"),
    "the model's words": PackShape(rank=2, strength=0.6),
    "its words too": PackShape(rank=3, targets=r".*(crossattention|intermediate|output).*"),
    "the last layer": PackShape(words=110, rank=1, targets=r".*layer\.1\..*|.*transform.*"),
    "images alone": PackShape(words=150, rank=5, targets=r".*crossattention\.self\.(key|value)"),
}
OPTIONS = [
    CaptionOptions(num_beams=1),
    CaptionOptions(num_beams=1, prompt="a b c", max_new_tokens=9),
    CaptionOptions(num_beams=1, bad_words=["a", "word30"], repetition_penalty=1.5),
    CaptionOptions(num_beams=1, max_chars=18, prefix="b"),
    CaptionOptions(do_sample=True, seed=3, stop_strings=["a"], top_k=9),
    CaptionOptions(num_beams=3),
    CaptionOptions(num_beams=3, max_new_tokens=6, prompt="c", num_return_sequences=2),
    CaptionOptions(num_beams=3, length_penalty=2.0, early_stopping=True, stop_strings=["1", "b"]),
    CaptionOptions(do_sample=True, num_return_sequences=3, seed=9, temperature=1.4),
]
IMAGES = noise_images(4, seed=6)


@dataclass(frozen=True)
class Packs:
    engine: Engine
    known: Sequence[Pack | None]
    alone: dict[tuple[int, int, int], list[Caption]]

    def one(self, image: int, pack: int, options: int) -> list[Caption]:
        """What a row is by itself; asked once."""
        key = image, pack, options
        if key not in self.alone:
            [found] = self.engine.caption(IMAGES[image], OPTIONS[options], self.known[pack])
            self.alone[key] = found
        return self.alone[key]


@pytest.fixture(scope="module")
def packs(tiny: Any, tiny_engine: Engine, tmp_path_factory: Any) -> Packs:
    folder = tmp_path_factory.mktemp("packs")
    known = [
        tiny_engine.load_pack(write_random_pack(folder / str(seed), tiny, "p", shape, seed))
        for seed, shape in enumerate(SHAPES.values())
    ]
    return Packs(tiny_engine, [None, *known], {})


ROWS = st.lists(
    st.tuples(
        st.integers(0, len(IMAGES) - 1),
        st.integers(0, len(SHAPES)),
        st.integers(0, len(OPTIONS) - 1),
    ),
    min_size=2,
    max_size=7,
)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS)
def test_given_any_mix_of_packs_and_options_then_each_row_is_what_it_is_alone(
    packs: Packs, rows: list[tuple[int, int, int]]
) -> None:
    found = packs.engine.caption(
        [IMAGES[image] for image, _, _ in rows],
        [OPTIONS[options] for _, _, options in rows],
        [packs.known[pack] for _, pack, _ in rows],
    )
    for row, captions in zip(rows, found, strict=True):
        expected = packs.one(*row)
        assert [c.text for c in captions] == [c.text for c in expected]
        assert [c.token_ids for c in captions] == [c.token_ids for c in expected]
        for ours, theirs in zip(captions, expected, strict=True):
            assert ours.finish_reason == theirs.finish_reason
            assert ours.token_logprobs == pytest.approx(theirs.token_logprobs, abs=1e-4)


def test_given_packs_then_they_say_different_things(packs: Packs) -> None:
    said = {tuple(packs.one(0, pack, 5)[0].token_ids) for pack in range(len(packs.known))}
    assert len(said) == len(packs.known)


def test_given_a_pack_whose_numbers_overflow_then_the_rows_of_others_are_what_they_are_alone(
    packs: Packs, tiny: Any, tmp_path: Any
) -> None:
    folder = write_random_pack(tmp_path / "pack", tiny, "p", SHAPES["own words"], seed=9)
    state = load_file(folder / TENSOR_FILE)
    large = {n: 2e37 * t if n.endswith("lora_A.weight") else t for n, t in state.items()}
    save_file(large, folder / TENSOR_FILE)
    overflowing = packs.engine.load_pack(folder)
    chosen = [packs.known[1], None, overflowing]
    found = packs.engine.caption(IMAGES[:3], OPTIONS[5], chosen)
    assert [c.text for c in found[0]] == [c.text for c in packs.one(0, 1, 5)]
    assert [c.text for c in found[1]] == [c.text for c in packs.one(1, 0, 5)]


def test_given_images_of_mixed_grids_then_a_mix_masks_them(packs: Packs) -> None:
    sizes = (200, 160), (160, 96), (60, 300), (96, 96)
    images = [noise_images(1, size=size)[0] for size in sizes]
    chosen = [packs.known[1], None, packs.known[2], packs.known[1]]
    found = packs.engine.caption(images, packs=chosen, mode="native")
    for row, image, pack in zip(found, images, chosen, strict=True):
        [alone] = packs.engine.caption(image, packs=pack, mode="native")
        assert row[0].token_ids == alone[0].token_ids


def test_given_one_pack_or_none_then_nothing_is_mixed(
    packs: Packs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("one vocabulary needs no mixture")

    monkeypatch.setattr(captioning_module, "mixed_decoder", refuse)
    assert len(packs.engine.caption(IMAGES[:3])) == 3
    assert len(packs.engine.caption(IMAGES[:3], packs=[None, None, None])) == 3
    assert len(packs.engine.caption(IMAGES[:3], packs=packs.known[1])) == 3
    with pytest.raises(AssertionError, match="no mixture"):
        packs.engine.caption(IMAGES[:2], packs=packs.known[:2])


def test_given_static_shapes_as_on_a_gpu_then_batches_with_packs_take_their_steps_as_they_come(
    packs: Packs, tiny: Any, tmp_path: Any
) -> None:
    engine = Engine.load(tiny, tasks=["caption"])
    decoder = engine._modules.decoder
    assert decoder is not None
    engine._steps = Steps(decoder, static=True, capture=False)
    shape = next(iter(SHAPES.values()))
    pack = engine.load_pack(write_random_pack(tmp_path / "pack", tiny, "p", shape, seed=0))
    for chosen in ([pack, pack, pack], [pack, None, pack]):
        found = engine.caption(IMAGES[:3], packs=chosen)
        for row, image, one in zip(found, IMAGES, chosen, strict=False):
            [alone] = packs.engine.caption(image, packs=one and packs.known[1])
            assert row[0].token_ids == alone[0].token_ids
        assert not engine._steps._kept
    engine.caption(IMAGES[:3])
    assert len(engine._steps._kept) == 1


def test_given_packs_then_the_checkpoints_own_weights_are_held_once_and_stay_as_they_are(
    packs: Packs,
) -> None:
    decoder = packs.engine._modules.decoder
    pack = packs.known[1]
    assert decoder is not None
    assert pack is not None
    assert pack.decoder is not None
    own = {id(tensor) for tensor in [*decoder.parameters(), *decoder.buffers()]}
    others = [t for t in [*pack.decoder.parameters(), *pack.decoder.buffers()] if id(t) not in own]
    lora = sum(low.bytes for low in pack.lora.values())
    size = sum(t.numel() * t.element_size() for t in others)
    assert pack.bytes == size + lora
    before = packs.engine.caption(IMAGES[:2], num_beams=1)
    packs.engine.caption(IMAGES[:2], num_beams=1, packs=packs.known[:2])
    assert packs.engine.caption(IMAGES[:2], num_beams=1) == before


def test_given_rows_then_equal_vocabularies_follow_each_other_and_among_them_equal_packs(
    packs: Packs,
) -> None:
    decoder = packs.engine._modules.decoder
    assert decoder is not None
    _, one, two, plain, others, *_ = packs.known
    rows = [one, None, two, plain, one, others, None, plain]
    lexicons = [Lexicon.of(pack, packs.engine._tokenizer, decoder) for pack in rows]
    order = in_order(rows, lexicons)
    assert order == [0, 4, 1, 6, 3, 7, 5, 2]
    assert runs([rows[at] for at in order]) == [
        (one, slice(0, 2)),
        (None, slice(2, 4)),
        (plain, slice(4, 6)),
        (others, slice(6, 7)),
        (two, slice(7, 8)),
    ]
    assert [at for _, at in runs([lexicons[at] for at in order])] == [
        slice(0, 2),
        slice(2, 7),
        slice(7, 8),
    ]


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({}, True),
        ({"prompt": "a", "repetition_penalty": 2.0, "num_beams": 1}, True),
        ({"do_sample": True, "top_k": 3, "seed": 1}, True),
        ({"prefix": "a"}, False),
        ({"bad_words": ["a"]}, False),
        ({"stop_strings": ["a"]}, False),
        ({"max_chars": 125}, False),
        ({"no_repeat_ngram_size": 1}, False),
    ],
    ids=str,
)
def test_given_options_that_read_tokens_as_text_then_vocabularies_are_searched_apart(
    packs: Packs, options: dict[str, Any], same: bool
) -> None:
    decoder = packs.engine._modules.decoder
    assert decoder is not None
    rows = [CaptionOptions(max_new_tokens=9), CaptionOptions(**options)]
    lexicons = [Lexicon.of(pack, packs.engine._tokenizer, decoder) for pack in packs.known[:2]]
    assert alike(rows, lexicons) is same


def test_given_no_gradients_are_asked_for_then_none_are_kept(packs: Packs) -> None:
    pack = packs.known[1]
    assert pack is not None
    assert pack.decoder is not None
    assert not any(parameter.requires_grad for parameter in pack.decoder.parameters())
    assert all(not low.up.requires_grad for low in pack.lora.values())
