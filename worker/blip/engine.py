"""The engine: images in, captions, matches and embeddings out. A library of its own."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from worker.blip.attention import Explainer, Row, Seen, Way
from worker.blip.captioning import Asked, caption_images
from worker.blip.checkpoint import Checkpoint, Modules
from worker.blip.device import DTYPES, device_named
from worker.blip.encoded import EncodedImages
from worker.blip.errors import CheckpointError, device_errors
from worker.blip.explanation import DEFAULT_METHOD, Explanation, Method, Position
from worker.blip.framing import Framing
from worker.blip.geometry import Mode
from worker.blip.hub import resolve
from worker.blip.image_encoder import ImageEncoder
from worker.blip.images import Images
from worker.blip.inputs import Inputs, texts_read
from worker.blip.options import MAX_BEAMS, REFERENCE, CaptionOptions
from worker.blip.pack import Pack
from worker.blip.pack import load as load_pack
from worker.blip.pack_files import PackFiles
from worker.blip.pack_rows import by_pack, packs_of
from worker.blip.readers import CaptionReader, MatchReader, Reader
from worker.blip.results import Caption, Match, Ranked, matches, ranked
from worker.blip.rows import rows_of
from worker.blip.sampling import seeded
from worker.blip.scorers import Scorers
from worker.blip.scoring import Scorer, shortlists
from worker.blip.steps import Steps, row_sizes
from worker.blip.text_cache import TextCache, TokenIds
from worker.blip.tokenizer import Text, Tokenizer, texts_per_image

_WARMUP_TEXT = 38  # with [CLS] and [SEP] the 40 tokens that BLIP was trained on
WORST_CASE = CaptionOptions(num_beams=MAX_BEAMS, min_new_tokens=20, max_new_tokens=20)


@dataclass(frozen=True)
class _Pairs:
    """What is to be matched: N images, and each one's texts as given and as token ids.

    first: the id that takes [CLS]'s place for ITM, or None.
    """

    scorer: Scorer
    encoded: EncodedImages
    texts: Sequence[Sequence[Text]]
    token_ids: Sequence[Sequence[TokenIds]]
    first: int | None

    def cosines(self) -> Tensor:
        """Scorer.cosines."""
        return self.scorer.cosines(self.encoded.embeddings, self.token_ids)

    def itm_logits(self, token_ids: Sequence[Sequence[TokenIds]]) -> Tensor:
        """Scorer.itm_logits of these texts, all or some of each image's own."""
        encoded = self.encoded
        return self.scorer.itm_logits(encoded.embeddings, token_ids, self.first, encoded.key_mask)


class Engine:
    """A BLIP checkpoint on one device. Not thread-safe: one thread calls it.

    A call is one batch; the caller bounds its size. Errors: ValueError for a wrong argument,
    InputError (a ValueError) for a prompt or text that this checkpoint can never take,
    CheckpointError for a task that it was not loaded for, OutOfMemory, DeviceLost.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: str, device: torch.device) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be {', '.join(DTYPES)}, not {dtype!r}")
        if dtype == "int8" and device.type != "cpu":
            raise ValueError(f"int8 is for a CPU, not {device}: take bfloat16 or float16 there")
        if dtype == "float16" and device.type == "cpu":
            raise ValueError("float16 is for a GPU: take float32 or bfloat16 on a CPU")
        self._device = device
        with device_errors(device):
            self._modules: Modules = checkpoint.build(DTYPES[dtype], device)
        decoder = self._modules.decoder
        on_gpu = device.type == "cuda"
        self._steps = None if decoder is None else Steps(decoder, static=on_gpu, capture=on_gpu)
        self._images = ImageEncoder(checkpoint, self._modules.vision, device)
        self._text = checkpoint.text
        self._tokenizer = checkpoint.tokenizer
        self._pack_files = PackFiles(checkpoint)
        self.text_cache = TextCache()
        matcher = self._modules.matcher
        own = (self._tokenizer, self.text_cache)
        self._scorers = None if matcher is None else Scorers(matcher, *own)
        self.tasks: frozenset[str] = checkpoint.tasks
        self.model_id: str = checkpoint.model_id
        self.revision: str = checkpoint.revision
        self.text_layers: int = checkpoint.text.num_layers
        self.image_size: tuple[int, int] = checkpoint.preprocessing.size  # (height, width)
        self.resample: int = checkpoint.preprocessing.resample  # PIL.Image.Resampling
        self.dtype = dtype
        self.device = str(device)

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str = "cpu",
        dtype: str = "float32",
        revision: str | None = None,
        tasks: Iterable[str] | None = None,
    ) -> "Engine":
        """Load a folder or a hub id.

        device: "cpu", "cuda", "cuda:0", or "auto" (a GPU where there is one). dtype: of the
        weights and the arithmetic; "auto" is float32 on a CPU, bfloat16 on a GPU; "int8" rounds the
        weights (CPU only, linear.py). tasks: "caption" and "match"; None takes what the checkpoint
        has. Raises CheckpointError, DeviceUnavailable.
        """
        on = device_named(device)
        if dtype == "auto":
            dtype = "float32" if on.type == "cpu" else "bfloat16"
        return cls(Checkpoint(resolve(model, revision), tasks), dtype, on)

    @property
    def position_zero(self) -> Literal["enc", "cls"]:
        """What ITM reads its answer from where `match` is not told: see there."""
        return "cls" if self._tokenizer.enc_id is None else "enc"

    @property
    def digest(self) -> str:
        """SHA-256 over the checkpoint's tensors, by which packs know it; reads all, the first time.

        Any thread may ask.
        """
        return self._pack_files.digest()

    def load_pack(self, folder: str | Path) -> Pack:
        """A language or a domain beside this checkpoint, for `packs` and `pack` of its calls.

        Any thread may ask. Raises PackError for a folder that is no pack, or is one of another
        checkpoint; OutOfMemory.
        """
        size = 0 if self._scorers is None else self._scorers.own.width
        with device_errors(self._device):
            return load_pack(self._pack_files.read(Path(folder), size), self._modules)

    def token_ids(self, text: str, pack: Pack | None = None) -> TokenIds:
        """A text as `match`, `rank` and `embed` take it in place of the text; any thread may ask.

        pack: the one that they will be called with. Raises InputError for a text that the model has
        no room for.
        """
        return self._inputs(pack).text(text)

    def tell(self, progress: Callable[[], None]) -> None:
        """Call `progress` whenever a part of a long call is done: of texts there may be many."""
        if self._scorers is not None:
            self._scorers.tell(progress)

    def share_vision(self, other: "Engine") -> bool:
        """Run on the other's vision encoder from now on, if it is the same to the last bit.

        Then images that either has encoded are the other's as well. Returns whether it is so.
        """
        alike = (self.device, self.dtype) == (other.device, other.dtype)
        same = alike and self._images.same_as(other._images)
        if same:
            self._modules = replace(self._modules, vision=other._modules.vision)
            self._images.vision = other._images.vision
        return same

    def framing(self, mode: Mode = "stretch", resolution: int | None = None) -> Framing:
        """How images become pixels: a plain value, for framing them elsewhere.

        mode: "stretch" (squash to the checkpoint's size, the reference), "pad" (letterbox), "crop"
        (centre), "native" (the patch grid nearest in aspect ratio, of no more patches).
        resolution: the side of the square that takes the place of the checkpoint's size, a
        multiple of its patch size, up to four times its patches. Raises InputError.
        """
        return self._images.framing(mode, resolution)

    @torch.inference_mode()
    def encode(
        self,
        images: Images | EncodedImages,
        mode: Mode = "stretch",
        resolution: int | None = None,
    ) -> EncodedImages:
        """Run the ViT once, for several calls on the same images; framed as `framing` says.

        Encoded ones are given back.
        """
        if isinstance(images, EncodedImages):
            return images
        return self._images.encode(images, mode, resolution)

    def normalised(
        self, images: Images, mode: Mode = "stretch", resolution: int | None = None
    ) -> Tensor:
        """Images as the ViT gets them: float32 [N, 3, H, W] on the device, BLIP's pixel_values.

        Raises ValueError when native mode gives them more than one size.
        """
        groups = self._images.groups(images, mode, resolution)
        if len(groups) != 1:
            raise ValueError("these images have no one size: normalise them apart, or encode them")
        return groups[0].pixels

    @torch.inference_mode()
    def project_images(self, images: Images | EncodedImages) -> Tensor:
        """The caption decoder's cross-attention keys and values: TextModel.project_images."""
        if self._modules.decoder is None:
            raise self._lacks("caption")
        embeddings = self.encode(images).embeddings
        with device_errors(self._device):
            return self._modules.decoder.text.project_images(embeddings)

    @torch.inference_mode()
    def caption(
        self,
        images: Images | EncodedImages,
        options: CaptionOptions | Sequence[CaptionOptions] | None = None,
        packs: Pack | Sequence[Pack | None] | None = None,
        *,
        mode: Mode = "stretch",
        resolution: int | None = None,
        **names: Any,
    ) -> list[list[Caption]]:
        """Caption each image, `num_return_sequences` times, best first.

        options: one for all images, or one per image; `names` are CaptionOptions' fields and
        override them. packs: one for all images, or one per image, None where the checkpoint itself
        is to caption; prompts and all words of options are read by the pack's tokenizer. mode,
        resolution: how images are framed, see `framing`; encoded ones are so already.

        Images that differ in `num_beams`, or in how many samples are drawn, are decoded apart,
        others together. Equal captions of one image are given once.
        """
        steps = self._steps
        if steps is None:
            raise self._lacks("caption")
        encoded = self.encode(images, mode, resolution)
        rows = [seeded(row) for row in rows_of(options, names, len(encoded))]
        chosen = packs_of(packs, len(encoded), steps.decoder)
        prompts = [self._inputs(p).prompt(row) for p, row in zip(chosen, rows, strict=True)]
        with device_errors(self._device):
            asked = Asked(rows, prompts, chosen)
            return caption_images(steps, self._tokenizer, encoded, asked)

    @torch.inference_mode()
    def match(
        self,
        images: Images | EncodedImages,
        texts: str | Sequence[Text] | Sequence[Sequence[Text]],
        position_zero: Literal["enc", "cls"] | None = None,
        *,
        pack: Pack | None = None,
        mode: Mode = "stretch",
        resolution: int | None = None,
    ) -> list[list[Match]]:
        """Match each image with its texts: one text or list for all images, or one list per image.

        A text is a str or its token ids. position_zero: what ITM reads its answer from; "enc" as
        in the paper's code, "cls" as in transformers; None is "enc" where the tokenizer has it.
        pack: a match pack, in whose domain the pairs are. mode, resolution: how images are framed,
        see `framing`.
        """
        pairs = self._pairs(images, texts, position_zero, pack, mode, resolution)
        if not any(pairs.token_ids):
            return [[] for _ in pairs.texts]
        with device_errors(self._device):
            logits, cosines = pairs.itm_logits(pairs.token_ids), pairs.cosines()
        return matches(logits, cosines, pairs.texts, self._inputs(pack).tokenizer)

    def explain(
        self,
        images: Images | EncodedImages,
        captions: Sequence[Sequence[Caption | Text]],
        options: CaptionOptions | Sequence[CaptionOptions] | None = None,
        packs: Pack | Sequence[Pack | None] | None = None,
        *,
        method: Method = DEFAULT_METHOD,
        layers: int | Sequence[int] | None = None,
        heads: int | Sequence[int] | None = None,
        position: Position = "predicting",
        raw: bool = False,
        mode: Mode = "stretch",
        resolution: int | None = None,
    ) -> list[list[Explanation]]:
        """Where the model looked for each word of captions that were made before; in their order.

        captions: of each image, as `caption` answers; or texts, or their token ids, for what it
        would have looked at in saying those. options: those that the captions were made with, of
        which prompt and prefix are read: the captions continue these. packs: those that the
        captions were made with, as in `caption`. method, layers, heads, position, raw:
        attention.Way. "rollout" and "occlusion" start from pixels: they take no encoded images.
        mode, resolution: how images are framed, see `framing`; encoded ones are so already. An
        image takes one pass of the decoder for all its captions.
        """
        decoder = self._modules.decoder
        if decoder is None:
            raise self._lacks("caption")
        way = Way(method=method, layers=layers, heads=heads, position=position, raw=raw)
        if any(isinstance(of_image, str) for of_image in captions):
            raise ValueError("captions is a list of captions, or of texts, for each image")
        seen = self._images.seen(images, mode, resolution)
        if (count := sum(len(one.places) for one in seen)) != len(captions):
            raise ValueError(f"{len(captions)} lists of texts to explain for {count} images")
        asked = rows_of(options, {}, len(captions))
        chosen = packs_of(packs, len(captions), decoder)
        rows = [
            [self._inputs(pack).caption_row(caption, row) for caption in of_image]
            for of_image, row, pack in zip(captions, asked, chosen, strict=True)
        ]
        answers: list[list[Explanation]] = [[] for _ in rows]
        for pack, members in by_pack(chosen).items():
            tokenizer = self._inputs(pack).tokenizer
            reader = CaptionReader((pack and pack.decoder) or decoder, tokenizer.pad_id)
            found = self._explain(seen, rows, reader, tokenizer, way, members)
            for place in members:
                answers[place] = found[place]
        return answers

    def check_explanation(
        self, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
    ) -> None:
        """Pass layers and heads that `explain` and `explain_match` can take. Raises ValueError."""
        way = Way(layers=layers, heads=heads)
        way.layers_of(self._text.num_layers)
        way.heads_of(self._text.num_heads)

    def raw_numbers(self, tokens: int, resolution: int | None = None) -> int:
        """How many numbers `raw` is of so many tokens: for every layer, head and patch."""
        seen = self.framing("stretch", resolution)
        rows, columns = (side // seen.patch_size for side in seen.size)
        return self._text.num_layers * self._text.num_heads * tokens * rows * columns

    def explain_match(
        self,
        images: Images | EncodedImages,
        texts: str | Sequence[Text] | Sequence[Sequence[Text]],
        position_zero: Literal["enc", "cls"] | None = None,
        *,
        pack: Pack | None = None,
        method: Method = DEFAULT_METHOD,
        layers: int | Sequence[int] | None = None,
        heads: int | Sequence[int] | None = None,
        position: Position = "predicting",
        raw: bool = False,
        mode: Mode = "stretch",
        resolution: int | None = None,
    ) -> list[list[Explanation]]:
        """Where ITM looked for each word of texts, in their order.

        texts, position_zero, pack: as in `match`; the rest as in `explain`. "occlusion" has one map
        for all words of a text: what hiding a patch takes from the logit of "match".
        """
        matcher = self._matching(pack).matcher
        way = Way(method=method, layers=layers, heads=heads, position=position, raw=raw)
        inputs = self._inputs(pack)
        first = inputs.position_zero(position_zero)
        seen = self._images.seen(images, mode, resolution)
        per_image = texts_per_image(texts, sum(len(one.places) for one in seen))
        rows = [[inputs.match_row(text, first) for text in of_image] for of_image in per_image]
        reader = MatchReader(matcher, inputs.tokenizer.pad_id)
        return self._explain(seen, rows, reader, inputs.tokenizer, way)

    @torch.inference_mode()
    def rank(
        self,
        images: Images | EncodedImages,
        texts: str | Sequence[Text] | Sequence[Sequence[Text]],
        k: int,
        position_zero: Literal["enc", "cls"] | None = None,
        *,
        pack: Pack | None = None,
        mode: Mode = "stretch",
        resolution: int | None = None,
    ) -> list[list[Ranked]]:
        """Each image's texts by the paper's two stages: the k best by ITC cosine are matched.

        The answers are in the order of the texts. k: at least 1; with as many texts or fewer, all
        are matched. texts, position_zero, pack, mode, resolution: as in `match`.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        pairs = self._pairs(images, texts, position_zero, pack, mode, resolution)
        if not any(pairs.token_ids):
            return [[] for _ in pairs.texts]
        with device_errors(self._device):
            cosines = pairs.cosines()
            kept = shortlists(cosines, [len(row) for row in pairs.texts], k)
            chosen = zip(pairs.token_ids, kept, strict=True)
            logits = pairs.itm_logits([[row[i] for i in best] for row, best in chosen])
        return ranked(logits, cosines, kept, pairs.texts, self._inputs(pack).tokenizer)

    @torch.inference_mode()
    def embed(
        self,
        images: Images | EncodedImages | None = None,
        texts: str | Sequence[Text] | None = None,
        *,
        pack: Pack | None = None,
        mode: Mode = "stretch",
        resolution: int | None = None,
    ) -> Tensor:
        """ITC projections of images or of texts: float32 unit vectors [N, 256], on the CPU.

        pack: a match pack, whose vectors compare with one another alone. mode, resolution: how
        images are framed, see `framing`.
        """
        scorer = self._matching(pack)
        if (images is None) == (texts is None):
            raise ValueError("embed takes images or texts, one of the two")
        if images is not None:
            embeddings = self.encode(images, mode, resolution).embeddings
            with device_errors(self._device):
                return scorer.embed_images(embeddings)
        rows = [texts] if isinstance(texts, str) else texts or ()
        inputs = self._inputs(pack)
        token_ids = [inputs.text(text) for text in rows]
        with device_errors(self._device):
            return scorer.embed_texts(token_ids)

    def warmup(self, batch: int, options: CaptionOptions = WORST_CASE) -> None:
        """Run the real forward on `batch` grey images, with the largest options to be expected."""
        height, width = self.image_size
        images = torch.full((batch, 3, height, width), 128, dtype=torch.uint8)
        if "caption" in self.tasks:
            self.caption(images, replace(options, min_new_tokens=options.max_new_tokens))
        if "match" in self.tasks:
            longest = min(_WARMUP_TEXT, self._text.max_positions - 2)
            self.match(images, [[self._tokenizer.sep_id] * longest])
            self.text_cache.clear()  # another batch is to do the same work, and jobs are to count

    @torch.inference_mode()
    def capture(self, batch: int) -> None:
        """Record the decoding of batches up to `batch`, by the reference's options and greedily.

        On a GPU these are CUDA graphs (steps.py), and no job then waits for one of them to be made;
        those of other options are recorded when they are first asked for. A CPU has none.
        """
        if self._steps is None or not self._steps.static:
            return
        self._steps.clear()  # the search for the batch size has tried larger ones
        height, width = self.image_size
        [grey] = self.encode(torch.full((1, 3, height, width), 128, dtype=torch.uint8)).embeddings
        for rows in reversed(row_sizes(batch)):  # the largest first: the others share its buffers
            # No more than there will be: a shape's last rows take no part of their own.
            images = EncodedImages(grey.expand(min(rows, batch), -1, -1))
            for options in (REFERENCE, replace(REFERENCE, num_beams=1)):
                self.caption(images, options)

    def _pairs(
        self,
        images: Images | EncodedImages,
        texts: str | Sequence[Text] | Sequence[Sequence[Text]],
        position_zero: Literal["enc", "cls"] | None,
        pack: Pack | None,
        mode: Mode,
        resolution: int | None,
    ) -> _Pairs:
        scorer, inputs = self._matching(pack), self._inputs(pack)
        encoded = self.encode(images, mode, resolution)
        per_image = texts_per_image(texts, len(encoded))
        first = inputs.position_zero(position_zero)
        return _Pairs(scorer, encoded, per_image, texts_read(per_image, inputs), first)

    def _explain(
        self,
        seen: Sequence[Seen],
        rows: Sequence[Sequence[Row]],
        reader: Reader,
        tokenizer: Tokenizer,
        way: Way,
        members: Sequence[int] | None = None,
    ) -> list[list[Explanation]]:
        """Rows of images; of `members` alone, where they are named, the others' answers are []."""
        if members is not None and len(members) < len(rows):
            seen = [one.some(members) for one in seen]
        explainer = Explainer(reader, self._images.vision, tokenizer, way)
        with device_errors(self._device):
            return explainer.explain(seen, rows)

    def _inputs(self, pack: Pack | None) -> Inputs:
        tokenizer = self._tokenizer if pack is None else pack.tokenizer
        return Inputs(tokenizer, self._text.max_positions)

    def _matching(self, pack: Pack | None) -> Scorer:
        if self._scorers is None:
            raise self._lacks("match")
        return self._scorers.of(pack)

    def _lacks(self, task: str) -> CheckpointError:
        return CheckpointError(f"{self.model_id} is loaded for {', '.join(self.tasks)}, not {task}")
