"""`captionq mcp`: tools for agents."""

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from producer.exits import EXIT_CODES, exit_codes, read_settings
from producer.index.search_command import IndexAt

MCP_EXAMPLES = (
    "Examples:\n\n"
    "captionq mcp\n\n"
    "captionq mcp --root ~/Pictures\n\n"
    "captionq mcp --root /data/photos --index /data/index --timeout 120\n\n"
    "captionq mcp --port 8765\n\n"
    "An agent starts it by its configuration; most read JSON such as:\n\n"
    '{"mcpServers": {"captionq": {"command": "captionq", "args": ["mcp", "--root", '
    '"/home/me/Pictures"]}}}\n\n'
    "docs/agents.md has more of them.\n\n" + EXIT_CODES
)


def serve_tools(
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Let agents name files below this folder; otherwise URLs and s3:// alone. Workers "
            "read them by their paths, or from CAPTIONQ_UPLOAD_URL when that is set.",
        ),
    ] = None,
    index: IndexAt = None,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout", min=1, metavar="SECONDS", help="Longest wait of a call for its job."
        ),
    ] = 50,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65_535,
            help="Serve http://127.0.0.1:PORT/mcp (streamable HTTP) in place of stdin and stdout: "
            "to whoever is on this machine.",
        ),
    ] = None,
) -> None:
    """Offer caption, match, explain and search to agents, by the Model Context Protocol.

    It speaks on stdin and stdout, and logs to stderr. A worker has to serve the same broker; search
    needs an index (captionq index build) and a worker with a matching model. A call that its agent
    cancels cancels its job.
    """
    with exit_codes():
        try:
            from producer.agents import run
        except ModuleNotFoundError as exc:
            package = (exc.name or "mcp").partition(".")[0]
            raise ValueError(
                f"Tools for agents need {package}: pip install 'captionq[mcp]'"
            ) from exc
        settings = read_settings()
        folder = root.expanduser() if root is not None else None
        if folder is not None and not folder.is_dir():
            raise ValueError(f"There is no folder {root}.")
        if port is not None:
            typer.echo(f"captionq mcp serves http://127.0.0.1:{port}/mcp", err=True)
        run.serve(settings, folder, index, timeout_s, port, _version())


def _version() -> str:
    try:
        return metadata.version("captionq")
    except metadata.PackageNotFoundError:
        return "0"
