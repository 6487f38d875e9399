"""First Python code of `dragon`: makes the embedded modules importable.

Frozen into the executable and imported right after the interpreter's start, before the program. It
runs at every start, so it imports only what is loaded already; whatever is needed later is imported
when it is needed.
"""

import marshal
import sys
from _frozen_importlib import ModuleSpec, _call_with_frames_removed  # type: ignore[attr-defined]

import _dragon_launch

MYPY = False  # type checkers take it for True; `typing` is not loaded yet
if MYPY:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from types import CodeType, ModuleType, TracebackType

_ROOT = "<dragon>/"
_PACKAGES = ("dragon", "dragon_overlay")


class EmbeddedLoader:
    """Loader of the modules that the executable carries.

    It also gives their source, which `traceback`, `inspect` and `pdb` ask for.
    """

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Let the import system make the module."""

    @staticmethod
    def exec_module(module: "ModuleType") -> None:
        """Run the module's code."""
        _show_overlay_source()
        code = EmbeddedLoader.get_code(module.__name__)
        _call_with_frames_removed(exec, code, module.__dict__)

    @staticmethod
    def get_code(name: str) -> "CodeType":
        """Return the code; the embedded one holds asserts and docstrings, so not under -O."""
        path, _, source, marshalled = _entry(name)
        if sys.flags.optimize:
            return compile(source, _ROOT + path, "exec", dont_inherit=True)
        code: CodeType = marshal.loads(marshalled)
        return code

    @staticmethod
    def get_source(name: str) -> str:
        """Return the source text."""
        return _entry(name)[2].decode()

    @staticmethod
    def get_filename(name: str) -> str:
        """Return what `__file__` is set to."""
        return _ROOT + _entry(name)[0]

    @staticmethod
    def is_package(name: str) -> bool:
        """Return whether the module is a package."""
        return _entry(name)[1]


class EmbeddedFinder:
    """Entry of sys.meta_path, before all others: `dragon` is never another folder of that name."""

    @staticmethod
    def find_spec(
        name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> ModuleSpec | None:
        """Find an embedded module, or the stdlib module that is completed after its load."""
        if name.partition(".")[0] in _PACKAGES:
            return _embedded_spec(name)
        if name in _COMPLETED:
            return _completed_spec(name, path, target)
        return None


def _entry(name: str) -> tuple[str, bool, bytes, bytes]:
    entry = _dragon_launch.find(name)
    if entry is None:
        raise ImportError(f"dragon carries no module {name!r}", name=name)
    return entry


def _embedded_spec(name: str) -> ModuleSpec | None:
    entry = _dragon_launch.find(name)
    if entry is None:
        return None
    path, is_package, _, _ = entry
    spec = ModuleSpec(name, EmbeddedLoader, origin=_ROOT + path, is_package=is_package)  # type: ignore[arg-type]
    spec.has_location = True
    if is_package:
        spec.submodule_search_locations = [_ROOT + name.replace(".", "/")]
    return spec


def _completed_spec(
    name: str, path: "Sequence[str] | None", target: "ModuleType | None"
) -> ModuleSpec | None:
    """Find a module of the standard library as ever, and complete it once it has been loaded.

    Finders before ours have been asked, and one of them may be asking us.
    """
    finders = sys.meta_path
    if EmbeddedFinder in finders:
        finders = finders[finders.index(EmbeddedFinder) + 1 :]
    for finder in finders:
        find_spec = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find_spec(name, path, target) if find_spec else None
        if spec is not None and spec.loader is not None:
            _call_after_exec(spec.loader, _COMPLETED[name])
            return spec
    return None


def _call_after_exec(loader: "Loader", then: "Callable[[ModuleType], None]") -> None:
    """Have `then(module)` called when the loader has run its module, once.

    The loader stays the module's own, so that everything which looks at it finds what it expects.
    """
    exec_module = loader.exec_module

    def exec_module_then(module: "ModuleType") -> None:
        del loader.exec_module
        exec_module(module)
        then(module)

    loader.exec_module = exec_module_then  # type: ignore[method-assign]


def _add_start_method(context: "ModuleType") -> None:
    """In time: `multiprocessing/__init__` takes the methods of the default context afterwards."""
    from dragon_overlay.context import install

    install(context, _dragon_launch.start_method)


def _add_waiting(connection: "ModuleType") -> None:
    from dragon_overlay.waiting import install

    install(connection)


def _add_by_value(futures: "ModuleType") -> None:
    from dragon_overlay.futures import install

    install(futures)


def _share_temporary_directory(util: "ModuleType") -> None:
    from dragon_overlay.temporary import install

    install(util)


def _complete_shared_memory(shared_memory: "ModuleType") -> None:
    from dragon_overlay import shm_room
    from dragon_overlay.shared_memory import install

    install(shared_memory)
    shm_room.install(shared_memory)


def _follow_context(sharedctypes: "ModuleType") -> None:
    from dragon_overlay.sharedctypes_functions import install

    install(sharedctypes)


def _complete_managers(managers: "ModuleType") -> None:
    from dragon_overlay import manager_ends
    from dragon_overlay.managers import install

    install(managers)
    manager_ends.install(managers)


def _complete_pool(pool: "ModuleType") -> None:
    from dragon_overlay import dispatch, stock_pool

    stock_pool.install(pool)
    dispatch.install_pool(pool)


#: Modules of the standard library that are completed, and what does it.
_COMPLETED = {
    "multiprocessing.context": _add_start_method,
    "multiprocessing.connection": _add_waiting,
    "multiprocessing.managers": _complete_managers,
    "multiprocessing.pool": _complete_pool,
    "multiprocessing.shared_memory": _complete_shared_memory,
    "multiprocessing.sharedctypes": _follow_context,
    "multiprocessing.util": _share_temporary_directory,
    "concurrent.futures.process": _add_by_value,
}


def complete(name: str, then: "Callable[[ModuleType], None]") -> None:
    """Have `then(module)` called whenever the module has been loaded; now, if it has been."""
    _COMPLETED[name] = then
    if name in sys.modules:
        then(sys.modules[name])


def _show_overlay_source() -> None:
    """Have uncaught exceptions show the source of embedded modules.

    The interpreter's own printer looks for files only, and would take a file of the same name from
    sys.path. Since 3.13 it asks the loader. Both names are set, because programs compare them to
    learn whether somebody has put a hook of his own there.
    """
    if sys.excepthook is _stock_excepthook and sys.version_info < (3, 13):
        sys.excepthook = sys.__excepthook__ = _excepthook


_stock_excepthook = sys.excepthook


def _excepthook(
    kind: type[BaseException], value: BaseException, traceback: "TracebackType | None"
) -> None:
    if sys.stderr is None or not _is_overlay_involved(value, traceback):
        _stock_excepthook(kind, value, traceback)
        return
    from traceback import print_exception

    print_exception(kind, value, traceback)
    if kind is KeyboardInterrupt and getattr(sys, "last_value", None) is value:
        _note_interrupt()


def _note_interrupt() -> None:
    """Have the interpreter end by SIGINT again: it is about to end with an uncaught interrupt.

    It notes that when an interrupt leaves a piece of code, and forgets it when it runs the next
    piece: `traceback` imports modules that run some.
    """
    from contextlib import suppress

    with suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")


def _is_overlay_involved(value: BaseException, traceback: "TracebackType | None") -> bool:
    """Return whether the traceback, or that of a cause, has a frame of an embedded module."""
    seen: set[int] = set()
    pending = [(value, traceback)]
    while pending:
        error, frames = pending.pop()
        seen.add(id(error))
        while frames is not None:
            if frames.tb_frame.f_code.co_filename.startswith(_ROOT):
                return True
            frames = frames.tb_next
        for other in (error.__cause__, error.__context__):
            if other is not None and id(other) not in seen:
                pending.append((other, other.__traceback__))
    return False


def _start() -> None:
    sys.meta_path.insert(0, EmbeddedFinder)
    # A .pth file may have loaded multiprocessing before us.
    for name, complete in _COMPLETED.items():
        if name in sys.modules:
            complete(sys.modules[name])


_start()
