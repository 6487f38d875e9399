"""Pools of workers of start method "dragon"."""

from dragon_overlay.pool.dragon_pool import DragonPool

__all__ = ["DragonPool"]
