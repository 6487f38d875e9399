"""Pools of workers (docs/pool.md): DragonPool, dragon.futures' executor, and what a worker runs.

Empty: a worker imports this package and needs nothing of the program's side.
"""
