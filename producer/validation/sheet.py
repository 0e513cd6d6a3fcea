"""The worst pairs on one page: a file of its own, which needs nothing else to be read."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from string import Template

from producer.references import public_uri
from producer.validation.pictures import Picture, Pictures
from producer.validation.scores import Scored
from producer.validation.tally import Tally

_HEAD = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data: file: http: https:; style-src 'unsafe-inline'">
<title>The worst of $pairs pairs</title>
<style>
:root { color-scheme: light dark; --ink: #1a1a1a; --page: #fafafa; --card: #fff; --line: #ccc;
  --quiet: #555; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eee; --page: #161616; --card: #222; --line: #444; --quiet: #aaa; --bad: #ff8a80; }
}
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: var(--ink);
  background: var(--page); font: 1rem/1.5 system-ui, sans-serif; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem;
  list-style: none; padding: 0; }
li { border: 1px solid var(--line); border-radius: .5rem; background: var(--card);
  overflow: hidden; }
figure { margin: 0; }
img, .absent { display: block; box-sizing: border-box; width: 100%; height: 12rem;
  object-fit: contain; background: var(--page); color: var(--quiet); }
.absent { margin: 0; padding: 1rem; }
figcaption { padding: .75rem 1rem; overflow-wrap: anywhere; }
blockquote { margin: 0 0 .5rem; font-weight: 600; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .75rem; margin: 0; font-size: .875rem; }
dt { color: var(--quiet); }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
dd.below { color: var(--bad); font-weight: 600; }
.name { margin: .5rem 0 0; font-size: .875rem; color: var(--quiet); }
a { color: inherit; }
</style>
</head>
<body>
<main>
<h1>The worst of $pairs pairs</h1>
<p>$below of them have an ITM probability below $min_itm. Here are the $shown with the lowest,
lowest first.</p>
<ol role="list">
""")
_FOOT = "</ol>\n</main>\n</body>\n</html>\n"
_ABSENT = (
    '<p class="absent">Not shown: it is large, or cannot be read from where this was made.</p>'
)


def write_sheet(tally: Tally, pictures: Pictures, path: Path) -> None:
    """Write the page of a tally's worst pairs.

    Raises:
        OSError: it cannot be written.
    """
    with path.open("w", encoding="utf-8") as file:
        file.writelines(_page(tally, pictures))


def _page(tally: Tally, pictures: Pictures) -> Iterator[str]:
    worst = tally.worst
    yield _HEAD.substitute(
        pairs=f"{tally.pairs:,}",
        below=f"{tally.below:,}",
        min_itm=f"{tally.min_itm:g}",
        shown=len(worst),
    )
    for place, pair in enumerate(worst, start=1):
        yield _card(place, pair, pictures.of(pair), tally.min_itm)
    yield _FOOT


def _card(place: int, pair: Scored, picture: Picture, min_itm: float) -> str:
    """One pair. Its caption is no alternative text: it may well be wrong."""
    name = escape(public_uri(pair.image) if "://" in pair.image else pair.image)
    image = _ABSENT
    if picture.shown is not None:
        image = (
            f'<img src="{escape(picture.shown)}" alt="Image {place}: {name}" loading="lazy" '
            'decoding="async" referrerpolicy="no-referrer">'
        )
    if picture.link is not None:
        name = f'<a href="{escape(picture.link)}" rel="noreferrer">{name}</a>'
    return (
        f"<li><figure>{image}\n"
        f'<figcaption><blockquote dir="auto">{escape(pair.caption)}</blockquote>\n'
        f"<dl>{''.join(_scores(pair, min_itm))}</dl>\n"
        f'<p class="name">{name}</p></figcaption></figure></li>\n'
    )


def _scores(pair: Scored, min_itm: float) -> Iterator[str]:
    below = ' class="below"' if pair.itm_probability < min_itm else ""
    yield f"<dt>ITM probability</dt><dd{below}>{pair.itm_probability:.4f}</dd>"
    yield f"<dt>ITC cosine</dt><dd>{pair.itc_cosine:.3f}</dd>"
    yield f"<dt>Score</dt><dd>{pair.score:.3f}</dd>"
    if pair.calibrated_probability is not None:
        yield f"<dt>Calibrated</dt><dd>{pair.calibrated_probability:.3f}</dd>"
    if pair.decision is not None:
        yield f"<dt>Decision</dt><dd>{escape(pair.decision.replace('_', ' '))}</dd>"
