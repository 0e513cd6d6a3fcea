"""torch and transformers by name alone, so that a worker process is up within a second.

The worker's own modules are imported as they are; what they would compute with is never called,
because the engine is a stand-in. Imported before any of them.
"""

import sys
from types import ModuleType


class Absent(ModuleType):
    """A module in which every public name is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {})
        setattr(self, name, made)
        return made


for absent in ("torch", "transformers"):
    sys.modules.setdefault(absent, Absent(absent))
