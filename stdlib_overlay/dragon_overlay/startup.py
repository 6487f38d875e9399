"""What a started process does on its way to its target: it takes its name as its title."""

from __future__ import annotations

from typing import Any

import _dragon_launch


def arrive(process_obj: Any) -> None:
    """In the child: it has main and its process object, and is about to run."""
    _dragon_launch.set_title(f"dragon: {process_obj.name}")
