"""Decoding over static shapes, as a GPU replays them, is decoding as a CPU does it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.blip_checkpoints import noise_images
from worker.blip import CaptionOptions, Engine
from worker.blip import steps as steps_module
from worker.blip.steps import StaticStep, Steps, StepShape, row_sizes, step_shape

MIXES: dict[str, list[CaptionOptions]] = {
    "greedy": [CaptionOptions(num_beams=1)] * 3,
    "beams": [CaptionOptions(prompt="a b c"), CaptionOptions(max_new_tokens=9), CaptionOptions()],
    "samples": [CaptionOptions(do_sample=True, num_return_sequences=4, seed=n) for n in range(3)],
    "widths": [CaptionOptions(num_beams=n, num_return_sequences=n) for n in (1, 10, 5)],
}


@pytest.fixture
def static(tiny: Path) -> Engine:
    """An engine that decodes as on a GPU, but for the capture."""
    engine = Engine.load(tiny, tasks=["caption"])
    assert engine._steps is not None
    engine._steps = Steps(engine._steps.decoder, static=True, capture=False)
    return engine


@pytest.mark.parametrize("rows", MIXES.values(), ids=MIXES)
def test_given_static_shapes_when_captioned_then_captions_are_the_dynamic_ones(
    static: Engine, tiny_engine: Engine, rows: list[CaptionOptions]
) -> None:
    images = noise_images(len(rows), seed=8)
    expected = tiny_engine.caption(images, rows)
    for _ in range(2):  # the second time over buffers that hold the first batch
        found = static.caption(images, rows)
        assert [[c.token_ids for c in row] for row in found] == [
            [c.token_ids for c in row] for row in expected
        ]
        for ours, theirs in zip(found, expected, strict=True):
            assert ours[0].logprob == pytest.approx(theirs[0].logprob, abs=1e-4)


def test_given_images_of_mixed_grids_then_static_shapes_mask_them_as_dynamic_ones_do(
    static: Engine, tiny_engine: Engine
) -> None:
    images = [noise_images(1, size=size)[0] for size in ((200, 160), (160, 96), (60, 300))]
    expected = tiny_engine.caption(images, mode="native")
    assert tiny_engine.encode(images, "native").valid is not None
    found = static.caption(images, mode="native")
    assert [row[0].token_ids for row in found] == [row[0].token_ids for row in expected]


def test_given_a_larger_batch_after_a_smaller_one_then_the_buffers_grow_and_both_are_right(
    static: Engine, tiny_engine: Engine
) -> None:
    for count in (2, 7, 2):
        images = noise_images(count, seed=count)
        found, expected = static.caption(images), tiny_engine.caption(images)
        assert [row[0].token_ids for row in found] == [row[0].token_ids for row in expected]


def test_given_batches_of_one_shape_then_one_step_serves_them(
    static: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[StepShape] = []
    original = StaticStep.__init__

    def counted(self: StaticStep, decoder: Any, shape: StepShape, *buffers: Any) -> None:
        made.append(shape)
        original(self, decoder, shape, *buffers)

    monkeypatch.setattr(StaticStep, "__init__", counted)
    for count in (5, 8, 6):
        static.caption(noise_images(count))
    assert made == [StepShape(rows=8, beams=3, columns=64, tokens=17, masked=False)]


def test_given_a_largest_batch_when_captured_then_no_usual_job_up_to_it_makes_a_step(
    static: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    static.capture(5)

    def fails(*_: Any) -> None:
        raise AssertionError("a step was made")

    monkeypatch.setattr(StaticStep, "__init__", fails)
    for count in (5, 3, 1):
        static.caption(noise_images(count))
        static.caption(noise_images(count), num_beams=1)
    with pytest.raises(AssertionError, match="a step was made"):
        static.caption(noise_images(9))


def test_given_a_largest_batch_when_captured_then_no_larger_one_is_decoded(
    static: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    begin = StaticStep.begin

    def counted(self: StaticStep, cross: torch.Tensor, *mask: Any) -> StaticStep:
        decoded.append(cross.shape[2])
        return begin(self, cross, *mask)

    monkeypatch.setattr(StaticStep, "begin", counted)
    static.capture(5)
    assert decoded == [5, 5, 4, 4, 2, 2, 1, 1]


class FakeCuda:
    """What a capture needs of torch.cuda, and what was done on which device and stream."""

    def __init__(self) -> None:
        self.on, self.stream_of = ["cuda:0"], ["default"]
        self.done: list[tuple[str, str, str]] = []

    def log(self, what: str) -> None:
        self.done.append((what, self.on[-1], self.stream_of[-1]))

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.on.append(str(device))
        yield
        self.on.pop()

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.stream_of.append(stream.name)
        yield
        self.stream_of.pop()

    @contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        with self.stream(stream):
            self.log("capture begins")
            yield
            self.log("capture ends")

    def Stream(self, device: torch.device) -> Any:  # noqa: N802 - torch's name
        return self._stream(f"side of {device}")

    def CUDAGraph(self) -> Any:  # noqa: N802
        return object()

    def current_stream(self) -> Any:
        self.log("current stream")
        return self._stream(self.stream_of[-1])

    def _stream(self, name: str) -> Any:
        waits = staticmethod(lambda _: self.log(f"{name} waits"))
        return type("Stream", (), {"name": name, "wait_stream": waits})()


def test_given_a_second_gpu_when_captured_then_all_of_it_is_on_that_device_and_one_stream(
    static: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch captures the current device, and would replay nothing of another one's work."""
    assert static._steps is not None
    decoder, fake = static._steps.decoder, FakeCuda()
    shape = StepShape(rows=1, beams=1, columns=32, tokens=17, masked=False)
    cross = torch.zeros(decoder.text.cache_shape(1, 17))
    step = StaticStep(decoder, shape, cross, torch.zeros(decoder.text.cache_shape(1, 32)))
    own = str(cross.device)
    forward = StaticStep._forward

    def logged(self: StaticStep) -> torch.Tensor:
        fake.log("forward")
        return forward(self)

    monkeypatch.setattr(StaticStep, "_forward", logged)
    monkeypatch.setattr(torch, "cuda", fake)
    steps_module._side_stream.cache_clear()
    step.capture((0, 1))
    steps_module._side_stream.cache_clear()
    assert {device for _, device, _ in fake.done} == {own}
    side = f"side of {own}"
    during = [(what, stream) for what, _, stream in fake.done if stream != "default"]
    assert during == [
        *[("forward", side)] * 2,
        ("capture begins", side),
        ("forward", side),
        ("capture ends", side),
    ]
    waits = [what for what, _, _ in fake.done if what.endswith("waits")]
    assert waits == [f"{side} waits", "default waits"]


@pytest.mark.parametrize(
    ("batch", "sizes"), [(1, [1]), (5, [1, 2, 4, 8]), (256, None), (999, None)]
)
def test_given_a_largest_batch_then_its_row_sizes_take_it(
    batch: int, sizes: list[int] | None
) -> None:
    found = row_sizes(batch)
    assert found == (sizes or sorted(found))
    assert found[-1] >= min(batch, 256)


@pytest.mark.parametrize(
    ("rows", "beams", "columns", "expected"),
    [
        (1, 1, 20, StepShape(1, 1, 32, 577, False)),
        (3, 3, 58, StepShape(4, 3, 64, 577, False)),
        (16, 5, 96, StepShape(16, 5, 96, 577, False)),
        (17, 5, 97, StepShape(24, 5, 128, 577, False)),
        (256, 1, 512, StepShape(256, 1, 512, 577, False)),
        (257, 1, 20, None),
        (1, 10, 513, None),
    ],
)
def test_given_a_batch_then_its_shape_is_the_next_that_takes_it(
    rows: int, beams: int, columns: int, expected: StepShape | None
) -> None:
    assert step_shape(rows, beams, columns, 577) == expected


def test_given_captures_that_fail_then_decoding_goes_on_without_and_says_so_three_times(
    static: Engine,
    tiny_engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    assert static._steps is not None
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(StaticStep, "capture", fails)
    static._steps = Steps(static._steps.decoder, static=True, capture=True)
    with caplog.at_level(logging.WARNING):
        found = [static.caption(noise_images(count)) for count in (1, 2, 4, 8)]
    expected = [tiny_engine.caption(noise_images(count)) for count in (1, 2, 4, 8)]
    for ours, theirs in zip(found, expected, strict=True):
        assert [row[0].token_ids for row in ours] == [row[0].token_ids for row in theirs]
    said = [record.message for record in caplog.records if record.name == steps_module.__name__]
    assert [message.split(":")[0] for message in said] == [
        f"no CUDA graph of {step_shape(rows, 3, 58, 17)}" for rows in (1, 2, 4)
    ]


def test_given_no_memory_for_a_capture_then_the_caller_is_told(
    static: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker.blip import OutOfMemory

    def fails(*_: Any) -> None:
        raise torch.OutOfMemoryError

    assert static._steps is not None
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(StaticStep, "capture", fails)
    static._steps = Steps(static._steps.decoder, static=True, capture=True)
    with pytest.raises(OutOfMemory):
        static.caption(noise_images(2))
