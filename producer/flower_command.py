"""`captionq flower`: Flower, set up for this service."""

import atexit
import importlib.util
import os
import sys
from typing import Annotated, Any, NoReturn

import typer
from celery import Celery

from producer import embedded
from producer.celery_app import celery_app
from producer.exits import EXIT_CODES, exit_codes, read_settings
from producer.loopback import is_loopback
from producer.publisher import CONNECT_TIMEOUT_S, SOCKET_TIMEOUT_S
from producer.queues import DEFAULT_QUEUE, queues_served
from producer.rabbitmq import queue_named
from producer.settings import ProducerSettings

COLUMNS = "name,state,kwargs,result,retries,exception,runtime,worker,received,uuid"
"""What the page of tasks shows, in this order."""

LOGINS = "FLOWER_BASIC_AUTH"
OPEN_API = "FLOWER_UNAUTHENTICATED_API"

FLOWER_EXAMPLES = (
    "Examples:\n\n"
    "FLOWER_BASIC_AUTH=operator:$(openssl rand -hex 16) captionq flower\n\n"
    "captionq flower --address 0.0.0.0 --port 5555 --read-only\n\n"
    "captionq flower --without-login\n\n"
    "docs/flower.md says what to watch, and what to do.\n\n" + EXIT_CODES
)


def flower(
    address: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 5_555,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="No buttons: nobody ends workers or revokes tasks there."),
    ] = False,
    max_tasks: Annotated[
        int, typer.Option(min=100, help="Tasks that are remembered; each takes a few kB.")
    ] = 20_000,
    without_login: Annotated[
        bool,
        typer.Option(
            "--without-login",
            help="Show whoever is on this machine, without a password; on loopback alone, and "
            "without what buttons do.",
        ),
    ] = False,
) -> None:
    """Watch workers, tasks and queues in a browser, by Flower.

    Needs the extra "flower", and a broker as every producer (CAPTIONQ_BROKER_URL).
    Whoever may look is named by FLOWER_BASIC_AUTH, user:password, several with
    commas between: without it Flower does not start. Its /metrics and
    /healthcheck ask for no password: let only your network reach them. Other
    settings of Flower are read from FLOWER_* as ever.
    """
    with exit_codes():
        if importlib.util.find_spec("flower") is None:
            raise ValueError("Flower is not installed: pip install 'captionq[flower]'")
        check_login(os.environ, address, without_login)
        settings = read_settings()
        watched = watching(settings, settings.broker_url or embedded.ensure(settings.home))
        options = [f"--address={address}", f"--port={port}", f"--max_tasks={max_tasks}"]
        options += [f"--tasks_columns={COLUMNS}", "--inspect_timeout=3000"]
        # Else it would run whatever flowerconfig.py lies in the folder that it is started in.
        options += [f"--conf={os.environ.get('FLOWER_CONF', os.devnull)}"]
        try:
            watched.start(["flower", *options, *(["--read_only=True"] if read_only else [])])
        except SystemExit as ended:
            _leave(ended.code)
        _leave(0)


def _leave(status: object) -> NoReturn:
    """End the process now, after what is to be done at exit. Python itself would first wait for all
    that Flower's threads still ask of a broker, which may be away."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def check_login(environment: Any, address: str, without_login: bool) -> None:
    """Refuse to show the service to anybody who comes.

    Raises:
        ValueError: what to do instead.
    """
    logins = environment.get(LOGINS, "")
    if logins:
        if any(not all(one.partition(":")[::2]) for one in logins.split(",")):
            raise ValueError(f"{LOGINS} is user:password, several with commas between.")
        if not logins.isascii():  # Flower compares no others: nobody would ever get in
            raise ValueError(f"{LOGINS} has a letter that is none of ASCII's.")
    elif environment.get("FLOWER_AUTH"):  # by OAuth, which Flower sees to itself
        return
    elif not without_login:
        raise ValueError(
            f"Flower does not start without a login: set {LOGINS}=user:password, or, for this "
            "machine alone, give --without-login."
        )
    elif not is_loopback(address):
        raise ValueError(
            f"--without-login serves this machine alone, not {address}: set {LOGINS}=user:password."
        )
    elif environment.get(OPEN_API):  # with its answers open to pages from anywhere
        raise ValueError(f"--without-login shows alone: unset {OPEN_API}, or set {LOGINS}.")


def watching(settings: ProducerSettings, broker_url: str) -> Celery:
    """The Celery app of one who only looks on."""
    names = queues_served([("caption", None), ("match", None)])
    times = {
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
    }
    app = celery_app(
        broker_url, settings.sentinel_master, times, backend="disabled://", set_as_current=False
    )
    app.conf.update(
        accept_content=["json"],
        task_default_queue=DEFAULT_QUEUE,
        task_queues=[
            queue_named(name, broker_url, settings.rabbitmq_queues) for name in dict.fromkeys(names)
        ],
        broker_connection_retry_on_startup=True,
    )
    return app
