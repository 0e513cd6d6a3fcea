"""Tokens back to words."""

from collections.abc import Sequence

from worker.blip.vocabulary import Vocabulary


def spans(token_ids: Sequence[int], vocabulary: Vocabulary) -> list[tuple[int, int]]:
    """The first and the last token of each word: a piece that continues one belongs to it.

    Tokens that a text does not show belong to none.
    """
    found: list[tuple[int, int]] = []
    for place, token_id in enumerate(token_ids):
        if vocabulary.silent[token_id]:
            continue
        if found and vocabulary.continues(token_id):
            found[-1] = found[-1][0], place
        else:
            found.append((place, place))
    return found
