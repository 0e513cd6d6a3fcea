"""Every valid file within the limits is decoded, to the pixels that its specification means."""

import numpy as np
import pytest

from tests.images.sample import Sample
from tests.images.valid import samples
from worker.image import ImageLimits, decode

SAMPLES = samples()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_given_a_valid_file_when_decoded_then_the_picture_is_the_one_that_is_meant(
    sample: Sample,
) -> None:
    decoded = decode(sample.data, ImageLimits())
    facts = decoded.facts
    assert (facts.format, (facts.width, facts.height)) == (sample.format, sample.size)
    [pixels] = decoded.images
    wanted = sample.opaque_as_pillow_reads_it if sample.pixels is None else sample.pixels
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, wanted)
