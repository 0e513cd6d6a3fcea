"""The tools, and the server that offers them, on the `mcp` package."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Literal

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

from producer.agents.answers import Captions, Explanations, ImagesFound, Matches
from producer.agents.failures import told
from producer.agents.image import Images
from producer.agents.jobs import Jobs
from producer.contract import (
    CaptionJob,
    CaptionOptions,
    Embedding,
    EmbedJob,
    ExplainJob,
    ExplainOptions,
    JobResult,
    MatchJob,
)
from producer.contract import Job as AnyJob
from producer.index.filters import where
from producer.index.place import Place
from producer.index.table import Hit, NoIndex, VectorIndex

MAX_TEXTS = 64
INSTRUCTIONS = (
    "Looks at images with a BLIP model: captions them, weighs texts against them, says where in "
    "them each word is, and finds images by words. Images are named by URL, by s3:// URI, or by a "
    "path of a file that may be read. It describes; it reads no text and identifies nobody."
)
READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=True
)

Image = Annotated[
    str,
    Field(
        description="https://..., http://..., s3://bucket/key, or the path of a file in the folder "
        "that was allowed",
        min_length=1,
        max_length=2_048,
    ),
]
Language = Annotated[
    str | None,
    Field(description="BCP 47, e.g. de; workers need a pack for it. Absent, the model's own"),
]
Text = Annotated[str, Field(min_length=1, max_length=2_000)]


class Tools:
    """The tools. Each raises ToolError with what `failures.told` says.

    Args:
        place: where the index lies that `search` looks into.
    """

    def __init__(self, jobs: Jobs, images: Images, place: Place) -> None:
        self._jobs = jobs
        self._images = images
        self._place = place

    async def caption(
        self,
        image: Image,
        ctx: Context,
        language: Language = None,
        style: Annotated[
            Literal["alt_text", "short", "long"] | None,
            Field(
                description="alt_text: for a screen reader, at most 125 characters; short: 3 to 10 "
                "tokens; long: 20 to 50"
            ),
        ] = None,
        prompt: Annotated[
            str | None,
            Field(description='Words that the caption goes on from, e.g. "a photo of"'),
        ] = None,
        count: Annotated[int, Field(ge=1, le=5, description="How many captions")] = 1,
    ) -> Captions:
        """Say in a sentence what an image shows, and how sure the model is."""
        async with _failing_as_told():
            job = CaptionJob(
                image=await self._uri(image),
                language=language,
                options=CaptionOptions(
                    style=style,
                    prompt=prompt,
                    num_beams=max(3, count),
                    num_return_sequences=count,
                ),
            )
            return Captions.of(await self._run(job, ctx))

    async def match(
        self,
        image: Image,
        texts: Annotated[
            list[Text],
            Field(
                min_length=1,
                max_length=MAX_TEXTS,
                description="Short descriptions, e.g. 'a cat on a sofa', to be weighed",
            ),
        ],
        ctx: Context,
        language: Language = None,
    ) -> Matches:
        """Say how well each of some texts fits an image: to choose among labels, or to check a
        claim about it (with one text: see its probability)."""
        async with _failing_as_told():
            job = MatchJob(image=await self._uri(image), texts=tuple(texts), language=language)
            return Matches.of(await self._run(job, ctx))

    async def explain(
        self,
        image: Image,
        ctx: Context,
        texts: Annotated[
            list[Text] | None,
            Field(
                max_length=16,
                description="Texts to find in the image, word by word; absent, its caption",
            ),
        ] = None,
        language: Language = None,
    ) -> Explanations:
        """Say where in an image the model looks for each word: of its own caption, or of texts that
        are given. It gives a point and a box for each word; they are where it looked, not outlines
        of things."""
        async with _failing_as_told():
            uri = await self._uri(image)
            job: AnyJob = (
                ExplainJob(image=uri, texts=tuple(texts), language=language)
                if texts
                else CaptionJob(image=uri, explain=ExplainOptions(), language=language)
            )
            return Explanations.of(await self._run(job, ctx))

    async def search(
        self,
        query: Annotated[Text, Field(description="What the images are to show, in words")],
        ctx: Context,
        k: Annotated[int, Field(ge=1, le=50, description="How many images")] = 10,
        caption_contains: Annotated[
            list[str] | None,
            Field(max_length=8, description="Only images whose captions have each of these in it"),
        ] = None,
        source: Annotated[
            str | None,
            Field(description="Only images whose URI begins so, e.g. s3://photos/2026/"),
        ] = None,
    ) -> ImagesFound:
        """Find images by words among those that were captioned into the index here."""
        async with _failing_as_told():
            table = VectorIndex(self._place)
            if await anyio.to_thread.run_sync(table.space) is None:
                raise NoIndex(self._place.uri)
            job = EmbedJob(texts=(query,), encoding="float32")
            (embedding,) = (await self._run(job, ctx)).embeddings or ()
            return ImagesFound.of(
                await anyio.to_thread.run_sync(
                    _nearest, table, embedding, k, caption_contains or (), source
                )
            )

    async def _uri(self, named: str) -> str:
        return await anyio.to_thread.run_sync(self._images.uri, named)

    async def _run(self, job: AnyJob, ctx: Context) -> JobResult:
        async def report(waited_s: float, most_s: float, state: str) -> None:
            await ctx.report_progress(round(waited_s, 1), most_s, f"{state} for {waited_s:.0f} s")

        return (await self._jobs.run(job, report)).raise_for_state()


def _nearest(
    table: VectorIndex, embedding: Embedding, k: int, words: Sequence[str], source: str | None
) -> list[Hit]:
    return table.nearest(embedding, k, where(words, source), exact=False)


@asynccontextmanager
async def _failing_as_told() -> AsyncIterator[None]:
    """Errors that were to be expected become the tool's; the others are the server's to log."""
    try:
        yield
    except Exception as exc:
        if (words := told(exc)) is None:
            raise
        raise ToolError(words) from exc


def server_of(tools: Tools, version: str) -> MCPServer:
    """The server that offers the tools. It logs to stderr alone."""
    server: MCPServer = MCPServer(
        "captionq",
        title="captionq: images in words",
        instructions=INSTRUCTIONS,
        version=version,
        log_level="WARNING",
    )
    for tool, title in (
        (tools.caption, "Caption an image"),
        (tools.match, "Weigh texts against an image"),
        (tools.explain, "Where in an image each word is"),
        (tools.search, "Find images by words"),
    ):
        server.add_tool(tool, title=title, annotations=READS)
    return server
