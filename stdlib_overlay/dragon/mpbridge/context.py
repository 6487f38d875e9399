"""The context of start method "dragon"."""

from dragon_overlay.context import DragonContext

__all__ = ["DragonContext"]
