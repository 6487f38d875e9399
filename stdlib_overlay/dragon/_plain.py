"""Start method "dragon" under plain python3: whoever asks for it is told how to get it."""

from __future__ import annotations

from multiprocessing import context

_TEXT = (
    "cannot find context for 'dragon': the start method is part of the dragon executable; run the "
    "program with `dragon` in place of `python3`"
)


class _MissingContext(context.BaseContext):
    """Stands where the context would be, as those of the library do that a system lacks."""

    _name = "dragon"

    def _check_available(self) -> None:
        raise ValueError(_TEXT)


def install() -> None:
    """Have ``set_start_method("dragon")`` and ``get_context("dragon")`` say how to run it."""
    contexts = context._concrete_contexts  # type: ignore[attr-defined]  # typeshed lacks it
    contexts.setdefault("dragon", _MissingContext())
