"""The next version of the contract: this one, with a schema version that is one more.

Imported before `producer.contract` is used, it makes a process a worker of the next version.
"""

import sys
from importlib.util import find_spec, module_from_spec

WHERE = "producer.result"
THIS = "SCHEMA_VERSION = 1\n"
NEXT = "SCHEMA_VERSION = 2\n"


def install() -> None:
    """Put the next contract in the place of this one. Raises RuntimeError when that is too late."""
    if "producer.contract" in sys.modules:
        raise RuntimeError("producer.contract is imported already")
    # All that took it from there, in the order in which they build on each other.
    for name in (WHERE, "producer.jobs", "producer.chunk_jobs", "producer.contract"):
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            raise RuntimeError(f"there is no {name}")
        source = spec.loader.get_source(name)  # type: ignore[attr-defined]
        if name == WHERE and source.count(THIS) != 1:
            raise RuntimeError(f"{name} does not say {THIS.strip()!r} once")
        module = sys.modules[name] = module_from_spec(spec)
        exec(compile(source.replace(THIS, NEXT), str(spec.origin), "exec"), module.__dict__)
