"""Built-in module of the executable; see launcher/overlay.c."""

start_method: str | None
version: str

def find(name: str, /) -> tuple[str, bool, bytes, bytes] | None: ...
def child_options() -> list[str]: ...
