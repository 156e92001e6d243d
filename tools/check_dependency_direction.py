"""Refuse imports that point upward, and heavy libraries in the runtime.

    promptray.cli -> calibrate -> export -> runtime          promptray/__init__ -> runtime

Every import statement counts, also inside a function or under TYPE_CHECKING: the runtime must
work where torch cannot be installed.

usage: check_dependency_direction.py [ROOT]
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

# Part of the product -> the parts it may import. The front door is promptray/ without its cli.
MAY_IMPORT = {
    "promptray.runtime": {"promptray.runtime"},
    "promptray.export": {"promptray.export", "promptray.runtime"},
    "promptray.calibrate": {"promptray.calibrate", "promptray.export", "promptray.runtime"},
    "promptray": {"promptray", "promptray.runtime"},
    "promptray.__main__": {"promptray.cli"},
    "promptray.cli": {
        "promptray.cli",
        "promptray",
        "promptray.calibrate",
        "promptray.export",
        "promptray.runtime",
    },
}
FOLDERS = ("runtime", "export", "calibrate")
OUTSIDE = ("tests", "tools", "examples", "benchmarks", "reference")

# What the runtime may import beside the standard library: the edge install, and the libraries of
# its optional back-ends. An allow-list, so that a new heavy library is refused before anyone lists it.
RUNTIME_LIBRARIES = {
    "PIL",
    "filelock",
    "ftfy",
    "jpeg_ls",
    "msgspec",
    "numpy",
    "onnxruntime",
    "openjpeg",
    "openvino",
    "platformdirs",
    "pydicom",
    "pylibjpeg",
    "rle",
    "safetensors",
    "simplejpeg",
    "tensorrt",
    "tensorrt_rtx",
    "tensorrt_rtx_bindings",
    "tokenizers",
}
# The front door and the command line start on the edge, too.
EDGE_LIBRARIES = RUNTIME_LIBRARIES | {"click", "tabulate", "tqdm", "wcwidth"}


def part_of(module: str) -> str:
    """The part of the product that a module belongs to, or "" for a module of others."""
    parts = sorted(MAY_IMPORT, key=len, reverse=True)
    return next((part for part in parts if module == part or module.startswith(f"{part}.")), "")


def module_name(path: Path) -> str:
    """The name under which a file of the repository is installed."""
    names = list(path.with_suffix("").parts)
    if names[0] in FOLDERS:
        names.insert(0, "promptray")
    return ".".join(names)


def imported(tree: ast.AST, module: str) -> Iterator[tuple[int, str]]:
    """Every (line, absolute name) that the file `module` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                # `from promptray import export` imports the part; other names live in the module.
                yield node.lineno, name if name in MAY_IMPORT else base
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = ast.unparse(node.func)
            if function in {"__import__", "import_module", "importlib.import_module"}:
                yield node.lineno, str(node.args[0].value)


def complaint(module: str, target: str) -> str | None:
    """Say what is wrong with `module` importing `target`, or None."""
    source, top = part_of(module), target.split(".")[0]
    if top in FOLDERS:
        return f"imports {target}: it is installed as promptray.{target}"
    if not source:
        return None
    if part := part_of(target):
        return None if part in MAY_IMPORT[source] else f"{source} must not import {target}"
    allowed = {"promptray.runtime": RUNTIME_LIBRARIES, "promptray": EDGE_LIBRARIES}.get(source)
    if allowed is None or top in allowed or top in sys.stdlib_module_names:
        return None
    return f"{source} must not import {top}: it is not in the edge install"


def check(root: Path) -> list[str]:
    """One line for every import under `root` that breaks a rule."""
    found = []
    for folder in ("promptray", *FOLDERS, *OUTSIDE):
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root)
            module = module_name(relative)
            for line, target in imported(ast.parse(path.read_text("utf-8"), str(path)), module):
                if message := complaint(module, target):
                    found.append(f"{relative}:{line}: {message}")
    return found


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    found = check(root)
    print("\n".join(found) if found else "imports point one way: cli -> calibrate -> export -> runtime")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
