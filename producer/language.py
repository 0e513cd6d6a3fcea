"""Languages and domains: how a job asks for a pack, and how a result says which one answered."""

from typing import Annotated

from pydantic import Field

from producer.options import Model

LANGUAGE_PATTERN = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$"
ADAPTER_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Language = Annotated[
    str | None,
    Field(
        max_length=35,  # BCP 47, section 4.4.1
        pattern=LANGUAGE_PATTERN,
        description="BCP 47: of the captions, or of the texts that are matched. The nearest that "
        "workers have answers (RFC 4647, lookup): de for de-AT. Absent, the model's own, or the "
        "adapter's",
    ),
]
Adapter = Annotated[
    str | None,
    Field(
        pattern=ADAPTER_PATTERN,
        description="The name of a pack, of a domain or a language, that workers have",
    ),
]


class PackFacts(Model):
    """Which pack answered, on top of the weights."""

    name: str
    language: str | None = Field(description="BCP 47; of a domain's pack, null")
    revision: str = Field(description="12 hex digits: other digits are another pack")


def space_of(revision: str, pack: PackFacts | None) -> str:
    """The revision that embeddings state: a pack for matching has a space of its own.

    >>> space_of("abc", PackFacts(name="medical", language=None, revision="012345"))
    'abc+medical.012345'
    """
    return revision if pack is None else f"{revision}+{pack.name}.{pack.revision}"
