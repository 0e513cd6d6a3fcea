"""Another language model's tokenizer and layers, as stand-ins of mBERT and XLM-R have them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    XLMRobertaConfig,
    XLMRobertaForCausalLM,
    XLMRobertaForMaskedLM,
)

from tests.blip_checkpoints import noise_images
from tests.finetuned import losses, request
from tests.tokenizer_stand_ins import TEXTS, cased_bert, xlm_roberta
from worker.blip import Engine
from worker.blip.checkpoint import Checkpoint
from worker.blip.hub import resolve
from worker.cli import main
from worker.settings import BUNDLED, model_path
from worker.training import vocabulary
from worker.training.borrowed_decoder import take_over
from worker.training.borrowed_tokenizer import borrowed
from worker.training.embeddings import initial_embeddings
from worker.training.finetune.run import finetune
from worker.training.languages import manifest

WIDTH, LAYERS = 128, 4  # the bundled checkpoint's width, and a layer more than it has
SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 8,
    "intermediate_size": 192,
    "initializer_range": 0.3,
}
KINDS: dict[str, tuple[Any, ...]] = {
    "bert": (cased_bert, BertConfig, BertForMaskedLM, BertLMHeadModel, 40),
    "xlm_roberta": (
        xlm_roberta, XLMRobertaConfig, XLMRobertaForMaskedLM, XLMRobertaForCausalLM, 42),
}  # fmt: skip


@pytest.fixture(scope="module")
def base() -> Checkpoint:
    return Checkpoint(resolve(model_path(BUNDLED)), ["caption"])


@pytest.fixture(scope="module", params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    make, config, model, _, positions = KINDS[request.param]
    torch.manual_seed(3)
    tokenizer = make()
    # As published: without [DEC] and [ENC], and embeddings of no more rows than pieces.
    rows = len(tokenizer) - 2
    ids = {"pad_token_id": tokenizer.pad_token_id}
    model(
        config(vocab_size=rows, max_position_embeddings=positions, **SHAPE, **ids)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _forget_tasks(folder)
    return folder


def _forget_tasks(folder: Path) -> None:
    """Take [DEC] and [ENC] from a saved tokenizer."""
    file = folder / "tokenizer.json"
    saved = json.loads(file.read_text())
    saved["added_tokens"] = [one for one in saved["added_tokens"] if one["content"] not in TASKS]
    file.write_text(json.dumps(saved))
    config = folder / "tokenizer_config.json"
    named = json.loads(config.read_text())
    for token_id, token in list(named.get("added_tokens_decoder", {}).items()):
        if token["content"] in TASKS:
            del named["added_tokens_decoder"][token_id]
    named.pop("extra_special_tokens", None)
    config.write_text(json.dumps(named))
    assert "[DEC]" not in AutoTokenizer.from_pretrained(folder).get_vocab()


TASKS = ("[DEC]", "[ENC]")


def test_given_a_tokenizer_when_borrowed_then_it_has_our_tokens_and_the_same_pieces(
    source: Path, tmp_path: Path
) -> None:
    theirs, made = AutoTokenizer.from_pretrained(source), borrowed(source)
    made.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)

    assert loaded.convert_tokens_to_ids(list(TASKS)) == [len(theirs), len(theirs) + 1]
    for text in TEXTS:
        assert loaded.tokenize(text) == theirs.tokenize(text)
        assert loaded(text)["input_ids"] == theirs(text)["input_ids"]


def test_given_chinese_then_it_comes_back_without_spaces(source: Path) -> None:
    tokenizer = borrowed(source)
    text = "白色背景上，一个小的红色圆形在左边。"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_given_a_decoder_when_taken_over_then_it_predicts_what_it_did_before(
    source: Path, base: Checkpoint, tmp_path: Path
) -> None:
    """Without cross-attention's part: those of BLIP's layers are silenced as new ones are."""
    found = take_over(source, base, tmp_path / "made")
    assert (found.layers, found.seeing) == (LAYERS, 3)
    file = tmp_path / "made" / "model.safetensors"
    state = load_file(file)
    for name in state:
        if "crossattention.output" in name:
            state[name] = torch.full_like(state[name], float(name.endswith("LayerNorm.weight")))
    save_file(state, file, metadata={"format": "pt"})

    engine = Engine.load(tmp_path / "made", tasks=["caption"])
    causal = _causal(source)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "made")
    image = noise_images(1)
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:12]
        [[caption]] = engine.caption(
            image, prompt=ids, num_beams=1, max_new_tokens=5, min_new_tokens=5
        )
        # [DEC] begins as [CLS] did; the rows of [DEC] and [ENC] are new.
        read = torch.tensor([[tokenizer.cls_token_id, *ids, *caption.token_ids]])
        with torch.inference_mode():
            logits = causal(input_ids=read).logits[0, len(ids) :]
        logits = torch.cat((logits, logits[:, [tokenizer.cls_token_id] * 2]), dim=1)
        expected = logits.log_softmax(-1)[torch.arange(5), caption.token_ids]
        assert caption.token_logprobs == pytest.approx(expected.tolist(), abs=2e-4)


def _causal(source: Path) -> Any:
    kind = (
        "bert"
        if json.loads((source / "config.json").read_text())["model_type"] == "bert"
        else ("xlm_roberta")
    )
    return KINDS[kind][3].from_pretrained(source, is_decoder=True).eval()


def test_given_a_taken_over_decoder_then_it_captions_and_what_it_sees_is_the_base_own(
    source: Path, base: Checkpoint, tmp_path: Path
) -> None:
    take_over(source, base, tmp_path / "made")
    ours, made = (
        load_file(base.folder / "model.safetensors"),
        load_file(tmp_path / "made" / "model.safetensors"),
    )
    vision = [name for name in ours if name.startswith("vision_model.")]
    assert all(torch.equal(ours[name], made[name]) for name in vision)
    cross = "text_decoder.bert.encoder.layer.{}.crossattention.self.key.weight"
    assert torch.equal(ours[cross.format(2)], made[cross.format(2)])
    assert made[cross.format(3)].std() == pytest.approx(0.02, rel=0.1)
    # Deep in the new layer the image has no effect yet; through BLIP's it has.
    engine = Engine.load(tmp_path / "made")
    first, second = engine.caption(noise_images(2), num_beams=1, max_new_tokens=6)
    assert first[0].token_logprobs != second[0].token_logprobs


def test_given_other_widths_then_all_cross_attention_is_new_and_the_image_without_effect(
    base: Checkpoint, tmp_path: Path
) -> None:
    source = tmp_path / "narrow"
    tokenizer = cased_bert()
    shape = {**SHAPE, "hidden_size": 64, "num_attention_heads": 4}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(source)
    tokenizer.save_pretrained(source)

    assert take_over(source, base, tmp_path / "made").seeing == 0
    engine = Engine.load(tmp_path / "made")
    first, second = engine.caption(noise_images(2), num_beams=1, max_new_tokens=6)
    assert first[0].token_logprobs == second[0].token_logprobs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2', not bert, xlm-roberta, roberta"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"hidden_size": None}, "does not state hidden_size"),
        ({"position_embedding_type": "relative_key"}, "not absolute"),
    ],
)
def test_given_another_model_then_it_is_refused(
    change: dict[str, Any], message: str, source: Path, base: Checkpoint, tmp_path: Path
) -> None:
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text()) | change
    config = {name: value for name, value in config.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        take_over(tmp_path, base, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_given_a_borrowed_tokenizer_for_a_pack_then_special_tokens_keep_their_embeddings(
    source: Path,
) -> None:
    old, new = vocabulary.tokenizer(), borrowed(source)
    table, bias = torch.randn(len(old), 8), torch.randn(len(old))
    embeddings, _ = initial_embeddings(old, new, table, bias)
    for role in ("pad_token_id", "sep_token_id", "cls_token_id"):
        assert torch.allclose(embeddings[getattr(new, role)], table[getattr(old, role)])
    dec = [one.get_vocab()["[DEC]"] for one in (old, new)]
    assert torch.allclose(embeddings[dec[1]], table[dec[0]])


def scenes(folder: Path) -> Path:
    return manifest.write(folder, ["de"], 16, "borrowed")


def test_given_a_taken_over_decoder_when_trained_whole_then_it_learns_and_is_served(
    source: Path, base: Checkpoint, tmp_path: Path
) -> None:
    take_over(source, base, tmp_path / "start")
    data, output = scenes(tmp_path / "data"), tmp_path / "made"

    names: dict[str, Any] = {"full": True, "steps": 15, "batch": 16, "rate": 3e-3}
    finetune(request(data, output, tmp_path / "start", **names), lambda: False)

    first, *_, last = [one["loss"] for one in losses(output)]
    assert last < first / 2
    [[caption]] = Engine.load(output).caption(noise_images(1), num_beams=1, max_new_tokens=12)
    assert set(caption.text) <= set("# ".join(TEXTS))


def test_given_a_borrowed_tokenizer_then_a_pack_has_it_and_is_served(
    source: Path, base: Checkpoint, tmp_path: Path
) -> None:
    borrowed(source).save_pretrained(tmp_path / "tokenizer")
    data, output = scenes(tmp_path / "data"), tmp_path / "made"

    names: dict[str, Any] = {"tokenizer": tmp_path / "tokenizer", "steps": 15, "batch": 16}
    finetune(request(data, output, base.folder, **names), lambda: False)

    first, *_, last = [one["loss"] for one in losses(output)]
    assert last < first / 2
    engine = Engine.load(base.folder, tasks=["caption"])
    pack = engine.load_pack(output)
    [[caption]] = engine.caption(noise_images(1), packs=pack, num_beams=1, max_new_tokens=20)
    assert caption.text
    assert set(caption.text) <= set("# ".join(TEXTS))  # as BERT writes a first "##k"
    assert pack.tokenizer.decode(pack.tokenizer.text(TEXTS[0])) == pack.tokenizer.decode(
        borrowed(source)(TEXTS[0])["input_ids"]
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "4 layers, cross-attention of 3 from scenes; written to "),
        (["--tokenizer-only"], " pieces, written to "),
    ],
)
def test_given_the_command_then_it_says_what_was_taken_over(
    options: list[str],
    said: str,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "made"
    command = ["captionq-worker", "take-over", str(source), "-o", str(output), *options]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="0"):
        main()
    assert said in capsys.readouterr().out
    assert (output / "model.safetensors").is_file() == (not options)
    assert "[DEC]" in AutoTokenizer.from_pretrained(output).get_vocab()
