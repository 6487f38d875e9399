"""The functions of multiprocessing.sharedctypes follow the context, as multiprocessing's own do.

``install`` runs when ``multiprocessing.sharedctypes`` has been loaded. From then on its ``Value``
and the others are ours where their ``ctx``, or else the current start method, is "dragon". Where it
is another one they are what they were; they call each other then, so they get a name space in which
they find themselves. Nothing of ours is imported before it is needed.

Source: Lib/multiprocessing/{sharedctypes,context}.py of CPython 3.11.
"""

from __future__ import annotations

import functools
import importlib
from multiprocessing import context
from types import FunctionType, ModuleType
from typing import Any

_NAMES = ("Array", "RawArray", "RawValue", "Value", "copy", "synchronized")


def install(module: ModuleType) -> None:
    """Make the functions of ``multiprocessing.sharedctypes``, just loaded, look at the context."""
    stock = _among_themselves(module)
    for name, function in stock.items():
        setattr(module, name, _dispatcher(function))
    # The stock contexts call these two without saying for which context.
    for name in ("RawArray", "RawValue"):
        setattr(context.BaseContext, name, _method(getattr(context.BaseContext, name), stock[name]))


def _among_themselves(module: ModuleType) -> dict[str, Any]:
    """The functions, where each finds the others under their names."""
    names = dict(vars(module))
    functions = {}
    for name in _NAMES:
        function = names[name]
        own = FunctionType(function.__code__, names, name, function.__defaults__)
        own.__kwdefaults__ = function.__kwdefaults__
        functions[name] = own
    names.update(functions)
    return functions


def _dispatcher(stock: Any) -> Any:
    @functools.wraps(stock)
    def function(*args: Any, **kwargs: Any) -> Any:
        if not _is_dragon(kwargs.get("ctx")):
            return stock(*args, **kwargs)
        ours = importlib.import_module("dragon_overlay.sharedctypes")
        return getattr(ours, stock.__name__)(*args, **kwargs)

    return function


def _method(of_context: Any, stock: Any) -> Any:
    @functools.wraps(of_context)
    def method(_: Any, *args: Any, **kwargs: Any) -> Any:
        return stock(*args, **kwargs)

    return method


def _is_dragon(chosen: Any) -> bool:
    """Whether it, or else the current context, is "dragon". That does not choose one for good."""
    if chosen is None:
        default: Any = context._default_context
        chosen = default._actual_context or default._default_context
    name_of = getattr(chosen, "get_start_method", str)  # any object with an RLock() will do
    return bool(name_of() == "dragon")
