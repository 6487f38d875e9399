"""Memory of the default pool for the heap of start method "dragon"."""

from dragon_overlay.heap import DragonArena

__all__ = ["DragonArena"]
