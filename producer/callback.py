"""How a job asks to be told of: a request to a URL of its submitter's, signed."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from producer.options import Model

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Of secrets and of the API keys that own jobs."""


def _web_url(url: str) -> str:
    if any(char.isspace() or not char.isprintable() or char == "\\" for char in url):
        raise ValueError("a callback URL holds no spaces, control characters or backslashes")
    try:
        parts = urlsplit(url)
        named = parts.hostname
    except ValueError as exc:
        raise ValueError(f"not a URL: {exc}") from None
    if parts.scheme.lower() not in ("https", "http") or not named:
        raise ValueError("a callback URL begins with https:// and names a host")
    return url


class Callback(Model):
    """Where a job's result is sent when it has ended, signed as Standard Webhooks says.

    The secret is named, never carried: workers hold it, by this id.
    """

    url: Annotated[str, Field(max_length=2_048), AfterValidator(_web_url)] = Field(
        description="https:// unless the workers are set to allow http:// as well",
        examples=["https://app.example.com/hooks/captions"],
    )
    secret_id: Annotated[str, Field(pattern=ID_PATTERN)] = Field(
        "default", description="Which of the workers' CALLBACK_SECRETS signs it"
    )
