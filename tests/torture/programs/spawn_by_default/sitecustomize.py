"""Makes "spawn" the start method of programs that choose none, as it is on other systems."""

from multiprocessing import context

context._default_context._default_context = context._concrete_contexts["spawn"]
