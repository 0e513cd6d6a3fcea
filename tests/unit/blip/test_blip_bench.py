"""The benchmark runs, without Pillow too, and prints what it promises."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from worker.blip import Engine
from worker.blip.bench import Result, command, explain, languages, main, match, sized, timing
from worker.blip.bench.compare import Stage
from worker.blip.bench.explain import measure_explain
from worker.blip.bench.languages import measure_languages
from worker.blip.bench.match import MatchResult, different_texts, measure_match
from worker.blip.bench.peak import Peak, caption_peak
from worker.blip.bench.report import HEADER, row
from worker.blip.bench.timing import medians
from worker.blip.hardware import Hardware, hardware
from worker.blip.options import CaptionOptions
from worker.blip.random_pack import PackShape, write_random_pack

WITHOUT_PILLOW = """
import sys; sys.modules["PIL"] = None
from worker.blip import bench
if __name__ == "__main__":
    bench.main()
"""
RESULT = Result(
    model="tiny",
    device="cpu",
    dtype="bfloat16",
    reference_dtype="float32",
    batch=4,
    beams=3,
    tokens=2,
    rounds=1,
    images_per_s=30.0,
    transformers_images_per_s=12.0,
    ratio=2.5,
    same_token_ids=1.0,
    tflops=0.5,
    gemm_peak_tflops=1.0,
    gemm_peak_of="fc1, packed",
    gemm_fraction=0.5,
    stages={"preprocess": Stage(1.0, 0.0), "vision": Stage(99.5, 0.7)},
    peak_memory_bytes=1_500_000_000,
    batch_memory_bytes=500_000_000,
    hardware=Hardware("abacus", 2, "2.13", "5.23"),
)


def test_given_a_checkpoint_and_no_pillow_when_measured_then_json_has_all_the_figures(
    tiny: Path,
) -> None:
    options = ["--batch", "2", "--beams", "2", "--tokens", "4", "--rounds", "2", "--device", "cpu"]
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_PILLOW, "--model", str(tiny), *options, "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    result = json.loads(run.stdout)
    assert run.stderr == ""
    assert result["same_token_ids"] == 1.0
    assert result["ratio"] == pytest.approx(
        result["images_per_s"] / result["transformers_images_per_s"]
    )
    assert 0 < result["gemm_fraction"] < 1
    assert result["gemm_fraction"] == pytest.approx(result["tflops"] / result["gemm_peak_tflops"])
    assert list(result["stages"]) == ["preprocess", "vision", "cross", "decode"]
    assert all(stage["ms"] > 0 for stage in result["stages"].values())
    assert 0 <= result["batch_memory_bytes"] < result["peak_memory_bytes"]
    assert set(result["hardware"]) == {"device", "threads", "torch", "transformers"}


def test_given_a_checkpoint_when_matching_is_measured_then_transformers_says_the_same_slower(
    tiny: Path,
) -> None:
    result = measure_match("tiny", tiny, texts=24, repeats=2, device="cpu")
    assert result.largest_difference < 1e-4
    assert result.over_parts == pytest.approx(result.match_ms / (result.text_ms + result.encode_ms))
    assert result.times_faster == pytest.approx(result.transformers_ms / result.match_ms)
    assert result.times_faster > 1
    assert min(result.cached_ms, result.text_ms, result.transformers_batched_ms) > 0


def test_given_a_wrong_answer_when_matching_is_measured_then_the_difference_tells(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = match.MatchReference.match

    def wrong(*arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
        logits, cosines = scores(*arguments)
        return logits, cosines + 0.25 * (torch.arange(len(cosines)) == 3)

    monkeypatch.setattr(match.MatchReference, "match", wrong)
    result = measure_match("tiny", tiny, texts=6, repeats=1, device="cpu")
    assert result.largest_difference == pytest.approx(0.25, abs=1e-4)


def test_texts_to_match_are_distinct_and_of_many_lengths() -> None:
    texts = different_texts(64)
    assert len(set(texts)) == 64
    assert {len(text.split()) for text in texts} == {*range(4, 15)}


def test_given_the_command_when_matching_is_measured_then_lines_or_json_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = MatchResult(
        model="tiny",
        device="cpu",
        dtype="float32",
        texts=64,
        repeats=3,
        match_ms=3000.0,
        cached_ms=2000.0,
        text_ms=2500.0,
        encode_ms=500.0,
        over_parts=1.0,
        transformers_ms=60_000.0,
        transformers_batched_ms=30_000.0,
        times_faster=20.0,
        times_faster_batched=10.0,
        largest_difference=1e-6,
        hardware=Hardware("abacus", 2, "2.13", "5.23"),
    )
    asked = []
    monkeypatch.setattr(match, "measure_match", lambda *words: asked.append(words) or found)
    assert match.main(["--size", "bundled", "--texts", "8", "--dtype", "bfloat16"]) == 0
    assert asked == [("bundled", sized.BUNDLED, "bfloat16", 8, 3, "auto", True)]
    assert capsys.readouterr().out.splitlines() == [
        "tiny, float32 on cpu: 1 image x 64 texts, medians of 3",
        "(abacus, 2 threads, torch 2.13, transformers 5.23)",
        "match 3000 ms; 2000 ms where the texts' embeddings are known",
        (
            "text side alone 2500 ms, image encode 500 ms: match takes 1.00 times their sum "
            "(at most 1.3)"
        ),
        (
            "transformers, both heads, a text a call 60000 ms: 20.0 times as long (at least 5); "
            "16 texts a call 30000 ms: 10.0 times"
        ),
        "largest difference of a logit or cosine 1.0e-06",
    ]
    match.main(["--size", "bundled", "--json"])
    assert json.loads(capsys.readouterr().out)["times_faster"] == 20.0


def test_given_a_checkpoint_when_explaining_is_measured_then_each_method_is_beside_captions(
    tiny: Path,
) -> None:
    methods = ("attention", "rollout", "gradcam")
    result = measure_explain("tiny", tiny, batch=2, tokens=4, repeats=2, methods=methods)
    assert tuple(result.times) == methods
    for method in methods:
        assert result.times[method] == pytest.approx(
            result.explained_ms[method] / result.caption_ms
        )
    told = explain.lines(replace(result, caption_ms=40.4, explained_ms={"attention": 60.6}))
    assert told.splitlines()[2:] == [
        "greedy captions 40 ms",
        f"explained by attention 61 ms: {result.times['attention']:.2f} times (at most 2)",
    ]


def test_given_packs_when_languages_are_measured_then_shares_are_of_one_packs_throughput(
    tiny: Path, tmp_path: Path
) -> None:
    shape = PackShape(rank=2, words=150)
    engine = Engine.load(tiny, tasks=["caption"])
    packs = [
        engine.load_pack(write_random_pack(tmp_path / f"{seed}", tiny, "p", shape, seed))
        for seed in range(2)
    ]
    result = measure_languages("tiny", engine, packs, shape, batch=3, beams=1, tokens=3, repeats=2)
    assert result.mixed_share == pytest.approx(result.single_ms / result.mixed_ms)
    assert result.grouped_share == pytest.approx(result.single_ms / result.grouped_ms)
    told = languages.lines(replace(result, plain_ms=40.4, mixed_ms=60.6, mixed_share=0.876))
    assert told.splitlines()[2:4] == [
        f"no pack 40 ms, one pack {result.single_ms:.0f} ms",
        "2 packs in one batch 61 ms: 88% of the throughput (at least 85%)",
    ]


def test_given_the_command_when_languages_are_measured_then_json_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = "--size bundled --batch 3 --tokens 2 --repeats 1 --targets query-value --json"
    assert languages.main([*words.split(), "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["packs"], told["targets"]) == (3, r".*\.(query|value)")
    assert told["mixed_ms"] > 0


def test_given_the_command_when_explaining_is_measured_then_json_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = "--size bundled --batch 2 --tokens 3 --repeats 1 --device cpu --json"
    assert explain.main(words.split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result["times"]) == ["attention", "gradcam"]


def test_given_no_reference_when_matching_is_measured_then_transformers_is_not_run(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(match, "MatchReference", None)
    result = measure_match("tiny", tiny, texts=2, repeats=1, device="cpu", reference=False)
    assert result.match_ms > 0
    assert (result.times_faster, result.largest_difference) == (None, None)
    assert len(match.lines(result).splitlines()) == 4


def test_given_no_reference_when_measured_then_transformers_is_not_run(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.blip.bench.compare.Reference", None)
    monkeypatch.setattr("worker.blip.bench.compare.caption_peak", lambda *_: Peak(2, 1))
    options = ["--batch", "1", "--beams", "1", "--tokens", "2", "--rounds", "1", "--device", "cpu"]
    assert main(["--model", str(tiny), *options, "--no-reference", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["images_per_s"] > 0
    assert (result["ratio"], result["transformers_images_per_s"]) == (None, None)
    assert (result["peak_memory_bytes"], result["batch_memory_bytes"]) == (2, 1)


def test_given_no_json_when_measured_then_a_few_lines_are_printed(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "measure", lambda _: RESULT)
    main(["--model", str(tiny)])
    assert capsys.readouterr().out.splitlines() == [
        "tiny, bfloat16 on cpu, batch 4, 3 beams, 2 tokens",
        "(abacus, 2 threads, torch 2.13, transformers 5.23)",
        "30.00 images/s, 0.500 TFLOP/s: 50% of the GEMM peak, 1.000 TFLOP/s (fc1, packed)",
        "preprocess 1.0 ms, vision 99.5 ms (0.700 TFLOP/s)",
        "peak memory 1.50 GB, 0.50 GB of it for the batch",
        "transformers in float32 12.00 images/s: ratio 2.50, 100% of captions the same",
    ]


def test_given_a_table_when_measured_then_each_case_is_a_row_as_wide_as_the_header(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = []
    monkeypatch.setattr(command, "measure", lambda case: cases.append(case) or RESULT)
    main(["--model", str(tiny), "--table"])
    asked = [(case.dtype, case.reference_dtype, case.beams) for case in cases]
    assert asked == list(command.TABLE)
    title, rule, *rows, _, last = capsys.readouterr().out.splitlines()
    assert f"{title}\n{rule}" == HEADER
    assert rows == [row(RESULT)] * len(cases)
    assert {line.count("|") for line in (title, rule, *rows)} == {14}
    assert "abacus" in last

    cases.clear()
    main(["--model", str(tiny), "--table", "--no-reference"])
    assert [(case.dtype, case.beams) for case in cases] == [
        ("bfloat16", 1),
        ("bfloat16", 5),
        ("float32", 1),
        ("float32", 5),
    ]
    assert "none" in row(replace(RESULT, ratio=None, transformers_images_per_s=None))


def test_given_a_profile_then_kernels_and_their_shares_are_printed_slowest_first(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--model", str(tiny), "--profile", "--batch", "2", "--tokens", "4", "--device", "cpu"])
    told = [line.split("%  ") for line in capsys.readouterr().out.splitlines()]
    shares = [float(share) for share, _ in told]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100.5
    assert any("linear" in kernel for _, kernel in told)


@pytest.mark.parametrize(
    "words",
    [["--batch", "0"], ["--rounds", "-1"], ["--dtype", "float8"], ["--beams", "11"]],
)
def test_given_an_option_out_of_range_then_usage_and_status_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_given_many_images_then_the_batch_is_told_from_interpreter_libraries_and_weights(
    tiny: Path,
) -> None:
    options = CaptionOptions(num_beams=3, min_new_tokens=8, max_new_tokens=8)
    peak = caption_peak(tiny, "cpu", "float32", options, 512)
    cross = 512 * 2 * 2 * 17 * 64 * 4  # images, layers, keys and values, tokens, width, bytes
    assert peak.batch_bytes > cross
    assert peak.total_bytes - peak.batch_bytes > 50_000_000


def test_given_sides_they_take_turns_in_going_first_and_the_median_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s, order = [0.0], []
    took = {"ours": iter([1.0, 2.0, 9.0]), "theirs": iter([5.0, 7.0, 6.0])}

    def side(name: str) -> None:
        order.append(name)
        now_s[0] += next(took[name])

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now_s[0])
    sides = {name: lambda name=name: side(name) for name in took}
    assert medians(sides, 3, torch.device("cpu")) == {"ours": 2.0, "theirs": 6.0}
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


def test_the_projection_is_what_captions_start_from(tiny_engine: Engine) -> None:
    images = torch.zeros(2, 3, *tiny_engine.image_size, dtype=torch.uint8)
    cross = tiny_engine.project_images(tiny_engine.encode(images))
    assert cross.shape[2] == 2
    assert cross.equal(tiny_engine.project_images(images))


def test_hardware_names_the_processor_and_the_libraries() -> None:
    found = hardware(torch.device("cpu"))
    assert found.device
    assert found.torch == torch.__version__
    assert found.threads == torch.get_num_threads()
