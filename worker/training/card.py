"""The model card of a checkpoint trained on scenes: what it is, what it is worth, its log."""

from worker.training.evaluate import report
from worker.training.scenes import BACKGROUNDS, COLOURS, HELD_OUT, KINDS, RELATIONS, SIZES

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-to-text
tags: [blip, image-captioning, image-text-matching, synthetic]
---

# BLIP on drawn scenes

A small BLIP (Li et al. 2022, https://arxiv.org/abs/2201.12086) that captions pictures of one or
two shapes: "{example}".
captionq ships it so that every path of the service can run, and be tested, without a download.
**It knows nothing of photographs**: on anything but such scenes its
captions mean nothing. Use `Salesforce/blip-image-captioning-base` and the like for real images.

One ViT (4 layers of 128, MLP 256, 4 heads, 8 x 8 patches of 12 pixels) serves a text decoder that
captions (3 layers, alike), the image and text projections of the contrastive task (ITC, 256
dimensions), and an image-grounded text encoder with the matching head (ITM). The file has the key
names of `BlipForConditionalGeneration` and of `BlipForImageTextRetrieval`: both load it with
`from_pretrained`, each leaving what is the other's. Weights are float32.

## The scenes

- Kinds: {kinds}.
- Colours: {colours}.
- Sizes: {sizes}. Backgrounds: {backgrounds}.
- Relations: {relations}. The left or the upper shape comes first, so that each scene has one
  right caption.

`worker/training/scenes.py` draws them, with the box of each shape. Of the 96 combinations of size,
colour and kind these never occur in training, neither drawn nor in a false caption:

{held_out}

## Figures

Of the file beside this card, run by the engine in float32, on 2,000 scenes of a seed that
training does not use, six in ten with two shapes; shares are 0 to 1:

```
{figures}
```

- `caption_exact`: the greedy caption is the scene's caption, letter for letter. `..._held_out`:
  1,000 more scenes, each with at least one combination that training never showed.
- `itm_auc`: ROC AUC of the matching head ([ENC] at position 0, as in BLIP's own evaluation)
  between true captions and captions with one attribute changed; then by what was changed.
- `itc_recall_at_1`: an image's caption found among 100 distinct ones by cosine; the mean over
  up to ten such pools.

`python -m worker.training.evaluate` prints these figures.

`calibration.json` makes ITM's answer a calibrated probability, and says from where on it is a
match. `make calibrate-bundled` fits it, on clean scenes of a seed of its own, each with its
caption and one with one attribute changed, and asks for a precision of 0.98; its figures are in
the file. It holds for such scenes and such captions, half of them false.

## Training

`python -m worker.training.pretrain -o worker/checkpoints/scenes --steps {steps} --batch {batch}
--seed {seed}`; scenes are drawn on the fly, every batch follows from the seed and the step.

- The sum of BLIP's three losses: ITC with soft targets where captions are equal, ITM with hard
  negatives, language modelling. Encoder and decoder share all but self-attention.
- ITM's negatives: the caption with one attribute changed, and another image of the batch, drawn
  by ITC similarity. ITC is shown the false captions too. Half the ITM texts begin with [ENC], as
  in BLIP, half with [CLS], which is what transformers leaves there: both work.
- Half the captions follow the prompt "a picture of", which is not in the loss: captioning works
  with the prompt and from [DEC] alone.
- An auxiliary loss has linear heads on the ViT's patches tell the kind, colour, size and place
  in the caption (first or second) of the shape there, the relation, the background, and the
  shape's outline in 6 x 6 cells, all from the scene itself. The heads are not in the file. The
  published BLIPs have nothing of the kind; it is there to fit the training into an hour on two
  cores. Cross-attention was never supervised: where the model looks was learned from captions.
- Five parts, in steps of a run of 6,300. To 1,000 all losses together; to 3,000 the ViT alone,
  by the auxiliary loss, at a third of a step's time; to 5,000 all together, the auxiliary loss
  falling to nothing at 4,250; to 5,600 the ViT alone, with further scenes whose shapes have
  colours without a name; to the end all together and those further scenes, with three in ten
  colour words replaced in what the decoder reads (not in what it is to say). Before the second
  part half the kinds of shapes were right, but 96 % of the colours. After the third, held-out
  combinations were at 0.81, for the ViT told kinds by colour too: hence the last two. So the
  recipe, though no weight, was made with an eye on the held-out split.
- AdamW (0.9, 0.98), weight decay 0.05 on matrices, clip 1.0; the rate rises to 1.2e-3, stays
  until step 2,500, falls to nothing at 5,000, and again from 6e-4 to the end. One-shape scenes
  first (seven in ten), then seven in ten with two.
- Position embeddings of the ViT begin as 2-D sine-cosine waves times 0.5.

## Limits

Ids, positions and image size are this checkpoint's own: 64 text positions, of which training
used 19; 96 x 96 pixels. Letters, digits and punctuation are in the vocabulary so that no ASCII
text becomes [UNK], but their embeddings were not trained.

## Log

Losses are means over 100 steps; the lines between them are figures on 200 scenes of another seed.

```
{log}
```
"""


def model_card(figures: dict[str, float], log: str, settings: dict[str, int]) -> str:
    """The card as Markdown; `settings` are steps, batch and seed of the training run."""
    return CARD.format(
        example="a small blue star left of a large green ring on gray",
        kinds=", ".join(KINDS),
        colours=", ".join(COLOURS),
        sizes=", ".join(SIZES),
        backgrounds=", ".join(BACKGROUNDS),
        relations=", ".join(RELATIONS),
        held_out="\n".join(f"- {' '.join(combination)}" for combination in HELD_OUT),
        figures=report(figures),
        log=log.strip(),
        **settings,
    )
