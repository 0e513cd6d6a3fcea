"""The next version of the contract: this one, with a schema version that is one more.

Imported before `producer.contract` is, it makes a process a worker of the next version.
"""

import sys
from importlib.util import find_spec, module_from_spec

NAME = "producer.contract"
THIS = "SCHEMA_VERSION = 1\n"
NEXT = "SCHEMA_VERSION = 2\n"


def install() -> None:
    """Put the next contract in the place of this one. Raises RuntimeError when that is too late."""
    if NAME in sys.modules:
        raise RuntimeError(f"{NAME} is imported already")
    spec = find_spec(NAME)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"there is no {NAME}")
    source = spec.loader.get_source(NAME)  # type: ignore[attr-defined]
    if source.count(THIS) != 1:
        raise RuntimeError(f"{NAME} does not say {THIS.strip()!r} once")
    module = sys.modules[NAME] = module_from_spec(spec)
    exec(compile(source.replace(THIS, NEXT), str(spec.origin), "exec"), module.__dict__)
