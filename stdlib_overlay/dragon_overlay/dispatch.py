"""The standard library's classes, made to look at their context when they are constructed.

A program's own ``import dragon`` asks for this (``install``): ``multiprocessing.queues.Queue`` and
those of ``synchronize`` stay the objects they are, so that names that were bound earlier, pickles
and isinstance go on working, but get a ``__new__`` and an ``__init__`` of ours. So does
``pool.Pool``, whether asked for or not (``install_pool``): a manager makes one by its class, and
the standard library's, with a context of "dragon", would wait for ever for what a worker that has
died was doing.
Constructed with a stock context they are what they were. With that of "dragon" the result is one of
``dragon_overlay``'s, which are subclasses. Without a context, which the standard library refuses,
the current one counts.

A program's subclass works for both. Under "dragon" the object is of a class that is made here, a
*variant*: it has the program's class and ours as bases, in this order, so that ``super()`` leads
from one to the other. The C types need room in their objects, and which context it will be is often
known only when the program's ``__init__`` calls the standard library's. Then the object begins as
the *open* variant, which has the room, behaves as the standard library's, and may change its class.

Source: Lib/multiprocessing/{queues,synchronize,pool}.py of CPython 3.11.
"""

from __future__ import annotations

import copyreg
import functools
import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

from dragon_overlay.reduction import Shared

#: Module of the standard library -> its classes that ``dragon_overlay`` has, too, by their names
#: there.
MODULES = {
    "multiprocessing.queues": {
        "Queue": "Queue",
        "JoinableQueue": "JoinableQueue",
        "SimpleQueue": "SimpleQueue",
    },
    "multiprocessing.synchronize": {
        "Lock": "Lock",
        "RLock": "RLock",
        "Semaphore": "Semaphore",
        "BoundedSemaphore": "BoundedSemaphore",
        "Condition": "Condition",
        "Event": "Event",
        "Barrier": "Barrier",
    },
    "multiprocessing.pool": {"Pool": "DragonPool"},
}

#: Modules that a program need not import to name them as attributes of ``multiprocessing``.
_OFFERED = (
    "connection",
    "heap",
    "managers",
    "pool",
    "queues",
    "shared_memory",
    "sharedctypes",
    "synchronize",
    "util",
)

#: Where ours are, if not in a module of the same name in ``dragon_overlay``.
_HOMES = {"multiprocessing.pool": "dragon_overlay.pool.dragon_pool"}

#: Those of them that a program asks for.
ASKED_FOR = ("multiprocessing.queues", "multiprocessing.synchronize")

#: What objects of ours keep in ``__dict__`` and need in another process.
_OWN_ATTRIBUTES = frozenset({"_maxsize"})


def install(module: ModuleType) -> None:
    """Make the classes of a module that was asked for look at their context."""
    for name in MODULES[module.__name__]:
        stock = getattr(module, name)
        dispatch(stock)
        stock.__init__ = _init(stock.__init__)


def offer_modules(package: ModuleType) -> None:
    """Have ``multiprocessing.queues`` and others imported by whoever names them."""

    def offer(name: str) -> Any:
        if name not in _OFFERED:
            raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")
        return importlib.import_module(f"{package.__name__}.{name}")

    package.__getattr__ = offer  # type: ignore[method-assign]


def dispatch(cls: Any) -> None:
    """Have cls, of the standard library, make objects of ours if it is given "dragon" as ctx."""

    def new(cls: Any, *args: Any, ctx: Any = None, **kwargs: Any) -> Any:
        return _new(cls, ctx)

    new.__signature__ = inspect.signature(cls.__init__)  # type: ignore[attr-defined]
    cls.__new__ = new


# ---- contexts ----


def _is_dragon(context: Any) -> bool:
    """Whether context, or what it stands for (as ``multiprocessing`` itself does), is "dragon"."""
    from dragon_overlay.context import DragonContext

    if not isinstance(context, DragonContext) and hasattr(context, "get_context"):
        context = context.get_context()
    return isinstance(context, DragonContext)


def _current(*, chooses: bool) -> Any:
    """The current context. chooses: and it is that from now on, as in the standard library."""
    default: Any = sys.modules["multiprocessing.context"]._default_context
    if chooses:
        return default.get_context()
    return default._actual_context or default._default_context


# ---- construction ----


def _new(cls: Any, context: Any) -> Any:
    if issubclass(cls, Shared):
        return _allocate(cls)
    if context is not None:
        return _allocate(_variant(cls, "dragon") if _is_dragon(context) else cls)
    is_known = cls.__init__ is _stock_of(cls).__init__
    if is_known and not _is_dragon(_current(chooses=False)):
        return _allocate(cls)
    # Also for pickles, which come without arguments: right for objects of any context.
    return _allocate(_variant(cls, "open"))


def _allocate(cls: Any) -> Any:
    return _room(cls).__new__(cls)


def _room(cls: Any) -> Any:
    """The C type that says how large objects of cls are."""
    return next((base for base in cls.__mro__ if base.__module__ == "_dragon"), object)


def _init(stock_init: Any) -> Any:
    @functools.wraps(stock_init)
    def init(self: Any, *args: Any, ctx: Any = None, **kwargs: Any) -> None:
        context = _current(chooses=True) if ctx is None else ctx
        base = vars(type(self)).get("_dragon_base")
        is_dragon = _is_dragon(context)
        if base is not None and is_dragon != isinstance(self, Shared):
            self.__class__ = _variant(base, "dragon" if is_dragon else "open")
        if is_dragon and isinstance(self, Shared):
            _ours(_stock_of(type(self))).__init__(self, *args, ctx=context, **kwargs)
        else:
            stock_init(self, *args, ctx=context, **kwargs)

    return init


def install_pool(module: ModuleType) -> None:
    """Make ``multiprocessing.pool.Pool`` look at its context."""
    stock = module.Pool
    stock_init = stock.__init__
    # joblib's pools, ThreadPool, and others have parts of their own for these.
    parts = {name for name in vars(stock) if name.startswith("_") and not name.endswith("__")}
    parts.add("Process")

    def is_machinery_stock(cls: Any) -> bool:
        return all(_definer(cls, name) is stock for name in parts)

    @functools.wraps(stock_init)
    def init(
        self: Any,
        processes: Any = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: Any = None,
        context: Any = None,
    ) -> None:
        arguments = (processes, initializer, initargs, maxtasksperchild)
        if is_machinery_stock(type(self)):
            context = context or _current(chooses=True)
            if _is_dragon(context):
                self.__class__ = _variant(type(self), "dragon")
                _ours(stock).__init__(self, *arguments, context=context)
                return
        stock_init(self, *arguments, context=context)

    stock.__init__ = init


def _definer(cls: Any, name: str) -> Any:
    """The class that cls has the attribute from."""
    return next(base for base in cls.__mro__ if name in vars(base))


# ---- classes ----


class _Variant(type):
    """The metaclass of variants: it tells pickle what they are made of."""


def _reduce_variant(variant: Any) -> Any:
    base = vars(variant).get("_dragon_base")
    if base is None:  # a subclass that a program has made
        return variant.__qualname__
    is_ours = issubclass(variant, Shared)
    return _variant, (base, "dragon" if is_ours else "open")


copyreg.pickle(_Variant, _reduce_variant)


class _First:
    """The first base of each variant: the program's ``__init_subclass__`` does not see it.

    Without slots, so that a variant and what it is made of can be exchanged where no C type is in
    either, as in pools.
    """

    def __init_subclass__(cls) -> None:
        pass


class _Open:
    """The last Python base of open variants: their room is nothing that must be pickled."""

    __slots__ = ()

    def __getstate__(self) -> Any:
        return self.__dict__


def _variant(cls: Any, kind: str) -> Any:
    """Return the variant of a class: of kind "dragon" or "open".

    That of a class of the standard library is, for "dragon", our class itself. Of a class that
    cannot have a variant, with slots or a metaclass of its own, it is that class itself: its
    objects are the standard library's, with locks of ours.
    """
    name = f"_dragon_{kind}"
    variant = vars(cls).get(name)
    if variant is None:
        variant = _make_variant(cls, kind)
        setattr(cls, name, variant)
    return variant


def _make_variant(cls: Any, kind: str) -> Any:
    stock = _stock_of(cls)
    ours = _ours(stock)
    if kind == "dragon" and cls is stock:
        return ours
    bases = (_First, cls, *((ours,) if kind == "dragon" else (_Open, _room(ours))))
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "_dragon_base": cls,
    }
    if any("__getstate__" in vars(c) for c in stock.__mro__[:-1]):
        namespace["_dragon_travelling"] = _OWN_ATTRIBUTES
    try:
        return _Variant(cls.__name__, bases, namespace)
    except TypeError:
        return cls


def _stock_of(cls: Any) -> Any:
    """The class of the standard library that cls is or derives from."""
    for base in cls.__mro__:
        if base.__name__ in MODULES.get(base.__module__, ()) and type(base) is not _Variant:
            return base
    raise TypeError(f"{cls!r} is no class of multiprocessing")


def _ours(stock: Any) -> Any:
    theirs = stock.__module__
    home = _HOMES.get(theirs, theirs.replace("multiprocessing", "dragon_overlay"))
    return getattr(importlib.import_module(home), MODULES[theirs][stock.__name__])
