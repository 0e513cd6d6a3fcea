"""`captionq serve`: the HTTP gateway."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from producer.exits import EXIT_CODES, exit_codes, named_settings

SERVE_EXAMPLES = (
    "Examples:\n\n"
    "captionq serve\n\n"
    "captionq serve --port 9000 --keys /etc/captionq/keys.json\n\n"
    "captionq serve --host 0.0.0.0 --keys keys.json\n\n"
    "Then: curl -H 'Content-Type: application/json' localhost:8000/v1/jobs "
    '-d \'{"task": "caption", "image": "https://example.com/cat.jpg"}\'\n\n'
    "docs/http.md has all routes, settings and limits.\n\n" + EXIT_CODES
)


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="0 takes a free one; it is printed.")
    ] = 8_000,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="API keys, as 'captionq keys new' writes them; otherwise CAPTIONQ_API_KEYS. It is "
            "read again when it changes.",
        ),
    ] = None,
    without_keys: Annotated[
        bool,
        typer.Option(
            "--without-keys",
            help="Serve other machines although there are no keys: whoever reaches it may submit, "
            "see and cancel everything.",
        ),
    ] = False,
) -> None:
    """Take jobs over HTTP, for senders in any language, and for people the page at /.

    Needs the extra "gateway", and a broker as every producer (CAPTIONQ_BROKER_URL). Without API
    keys it serves this machine alone. It speaks HTTP/1.1: TLS is for the proxy before it. Ends on
    SIGTERM when what is under way is answered.
    """
    with exit_codes():
        try:
            from producer.gateway import app, server
            from producer.gateway.settings import GatewaySettings
        except ModuleNotFoundError as exc:
            raise ValueError(
                f"The gateway needs {exc.name}: pip install 'captionq[gateway]'"
            ) from exc
        logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
        given = {} if keys is None else {"api_keys": keys}
        settings = named_settings(GatewaySettings, **given)
        server.check_exposure(host, settings.api_keys is not None, without_keys)

        def say(url: str) -> None:
            typer.echo(f"captionq serves {url}")
            typer.echo(f"  jobs         POST {url}/v1/jobs")
            typer.echo(f"  page         {url}/")
            typer.echo(f"  OpenAPI      {url}/openapi.json")
            who = f"keys of {settings.api_keys}" if settings.api_keys else "no keys: anyone"
            typer.echo(f"  access       {who}{'' if settings.api_keys else ' who reaches it'}")

        served = app.create_app(settings)
        served.state.service.access.this_machine_alone = not without_keys
        server.serve(served, host, port, say)
