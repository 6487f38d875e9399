"""Processes of start method "dragon"."""

from dragon_overlay.process import DragonProcess

__all__ = ["DragonProcess"]
