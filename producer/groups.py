"""Options of the command line in groups: what several commands have in common."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all options of those of its parameters that are groups, dataclasses of
    options, such as RunFlags.

    Typer makes one option of one parameter: it is shown those of the groups in their place.
    """
    signature = inspect.signature(command)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if is_dataclass(parameter.annotation)
    }
    shown: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            shown += inspect.signature(groups[name]).parameters.values()
        else:
            shown.append(parameter)
    shown = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shown]

    @wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{one.name: given.pop(one.name) for one in fields(group)})
        command(**given)

    called.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in shown}
    return called
