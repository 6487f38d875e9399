"""Turn Python modules into a C table: the step of the build that embeds them.

Run by the very Python that is linked into the executable, since marshalled code only fits that one.

    freeze.py modules OUT.c ROOT FILE...    table of the overlay; names from the paths below ROOT
    freeze.py frozen OUT.c BOOT NAME...     table of frozen modules; NAMEs from the standard library

Bytes are written as string literals: compilers read those many times faster than lists of numbers.
"""

import importlib.util
import marshal
import sys
from pathlib import Path
from typing import NamedTuple

LITERAL_BYTES = 80

HEADER = """\
/* Made by stdlib_overlay/boot/freeze.py; do not edit. */

#include "overlay.h"
"""


class Module(NamedTuple):
    """One module to embed.

    Attributes:
        name: Dotted name.
        path: What `struct dragon_overlay_module` calls path.
        filename: co_filename of the code.
        is_package: Whether it is the __init__ of a package.
        source: The bytes of its file.
        keeps_source: Whether the source is embedded as well.
    """

    name: str
    path: str
    filename: str
    is_package: bool
    source: bytes
    keeps_source: bool


def overlay_module(root: Path, file: Path) -> Module:
    """Describe a file of the overlay, named by where it lies below root."""
    path = file.relative_to(root)
    is_package = path.name == "__init__.py"
    parts = path.parent.parts if is_package else path.with_suffix("").parts
    filename = f"<dragon>/{path.as_posix()}"
    return Module(".".join(parts), path.as_posix(), filename, is_package, file.read_bytes(), True)


def boot_module(file: Path) -> Module:
    """Describe the boot module, which Python imports as a frozen one."""
    path = f"boot/{file.name}"
    return Module(file.stem, path, f"<dragon>/{path}", False, file.read_bytes(), False)


def stdlib_module(name: str) -> Module:
    """Describe a module of the standard library; its tracebacks go on naming its file."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or not spec.has_location:
        raise SystemExit(f"freeze.py: the standard library has no source of {name}")
    is_package = spec.submodule_search_locations is not None
    source = Path(spec.origin).read_bytes()
    return Module(name, spec.origin, spec.origin, is_package, source, False)


def compiled(module: Module) -> bytes:
    """Compile a module without optimization; -O and -OO compile the embedded source at run time."""
    code = compile(module.source, module.filename, "exec", dont_inherit=True, optimize=0)
    return marshal.dumps(code)


def literal(data: bytes) -> str:
    """Write bytes as C string literals, a line each; every odd byte as three octal digits."""
    plain = set(range(0x20, 0x7F)) - set(b'"\\?')
    lines = []
    for start in range(0, len(data), LITERAL_BYTES):
        chunk = data[start : start + LITERAL_BYTES]
        lines.append("".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in chunk))
    return "\n".join(f'    "{line}"' for line in lines or [""])


def array(name: str, data: bytes) -> str:
    """Define a constant array that holds the data and a terminating zero."""
    return f"static const unsigned char {name}[{len(data) + 1}] =\n{literal(data)};\n"


def row(index: int, module: Module, code_size: int) -> str:
    """Write the initializer of one `struct dragon_overlay_module`."""
    source = (f"source_{index}", len(module.source)) if module.keeps_source else ("0", 0)
    fields = [
        f'"{module.name}"',
        f'"{module.path}"',
        "true" if module.is_package else "false",
        *map(str, source),
        f"code_{index}",
        str(code_size),
    ]
    return f"    {{{', '.join(fields)}}},\n"


def table(variable: str, modules: list[Module]) -> str:
    """Write the whole C file: `dragon_overlay_<variable>` and its length, sorted by name."""
    text = [HEADER]
    rows = []
    for index, module in enumerate(sorted(modules)):
        code = compiled(module)
        if module.keeps_source:
            text.append(array(f"source_{index}", module.source))
        text.append(array(f"code_{index}", code))
        rows.append(row(index, module, len(code)))
    # C knows no empty array, and a table without modules is a legal build.
    entries = "".join(rows) or '    {"", "", false, 0, 0, 0, 0},\n'
    text.append(
        f"const struct dragon_overlay_module dragon_overlay_{variable}[] = {{\n{entries}}};"
    )
    text.append(f"const size_t dragon_overlay_n_{variable} = {len(rows)};\n")
    return "\n".join(text)


def main(arguments: list[str]) -> None:
    """Write the table that the command line asks for."""
    variable, out, first, *rest = arguments
    if variable == "modules":
        modules = [overlay_module(Path(first).resolve(), Path(file).resolve()) for file in rest]
    elif variable == "frozen":
        modules = [boot_module(Path(first)), *map(stdlib_module, rest)]
    else:
        raise SystemExit(f"freeze.py: no table {variable}")
    Path(out).write_text(table(variable, modules))


if __name__ == "__main__":
    main(sys.argv[1:])
