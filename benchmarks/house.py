"""How easy the package is to find one's way in: docstrings, examples, lengths and imports, folder by folder.

    python -m benchmarks.house                           # the table, and what lies outside of the limits
    python -m benchmarks.house --package DIR/torch_svm_seg   # of another version

Everything is read from the source, nothing is imported. Public is a name without a leading underscore, at the top of a
module or in a public class; a class has an example if it or one of its methods has one. A function is as long as its
lines without its docstring. `tests/test_house.py` holds the package to the limits.
"""

import argparse
import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

PACKAGE = Path(__file__).parents[1] / "torch_svm_seg"
TOP = "(top)"

ORDER = (
    "cli",
    "label",
    "report",
    "pipeline",
    "segmenters",
    "irn",
    "pixel_classifier",
    "cam",
    "expansion",
    "refine",
    "training",
    "backbones",
    "evaluation",
    "data",
    "svm",
    "tensors",
)
"""Folders from the top down: each imports from those below it, and from itself."""

MEDIAN, PERCENTILE_95 = 7, 30
LONGEST_FILE, SMALL_FILE, MOST_SMALL_FILES, MOST_TOP_FILES, MOST_ARGUMENTS = 300, 60, 10, 3, 8
DOCUMENTED, WITH_EXAMPLE = 0.98, 0.6

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass(frozen=True)
class Module:
    """A module of the package.

    Attributes:
        path: Path from the package.
        tree: Its syntax tree.
        lines: Number of its lines.
    """

    path: Path
    tree: ast.Module
    lines: int

    @property
    def folder(self) -> str:
        """The folder at the top of the package that the module lies in."""
        return self.path.parts[0] if len(self.path.parts) > 1 else TOP

    @property
    def level(self) -> str:
        """The module's name in the order of imports."""
        return self.path.parts[0].removesuffix(".py")

    @property
    def imports(self) -> Iterator[str]:
        """Names of the levels that the module imports from."""
        for node in ast.walk(self.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            yield from (name.split(".")[1] for name in names if name.startswith("torch_svm_seg."))

    @property
    def functions(self) -> list[Function]:
        """All functions and methods, nested ones too."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    @property
    def public(self) -> list[Definition]:
        """The public classes and functions at the top of the module."""
        return [node for node in self.tree.body if isinstance(node, Definition) and _is_public(node)]

    @property
    def public_parts(self) -> list[ast.Module | Definition]:
        """Everything that needs a docstring: the module, its public classes and functions, and their methods."""
        methods = [part for node in self.public if isinstance(node, ast.ClassDef) for part in _public_methods(node)]
        return [self.tree, *self.public, *methods]

    @property
    def callables(self) -> Iterator[tuple[str, int]]:
        """Name and number of arguments of each public function, method and constructor."""
        for node in self.public:
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    if isinstance(method, Function) and (_is_public(method) or method.name == "__init__"):
                        yield f"{node.name}.{method.name}", _number_of_arguments(method) - 1
            else:
                yield node.name, _number_of_arguments(node)

    def undocumented(self) -> list[str]:
        """Return the names of what has no docstring."""
        return [getattr(part, "name", "module") for part in self.public_parts if not ast.get_docstring(part)]

    def without_example(self) -> list[str]:
        """Return the names of public classes and functions without an example."""
        return [node.name for node in self.public if not _has_example(node)]


def read_modules(package: Path = PACKAGE) -> list[Module]:
    """Return the modules of a package, in the order of their paths."""
    paths = sorted(package.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return [
        Module(path.relative_to(package), ast.parse(text), len(text.splitlines()))
        for path, text in zip(paths, texts, strict=True)
    ]


def length_of(function: Function, with_docstring: bool = False) -> int:
    """Return the number of a function's lines, without its decorators."""
    docstring = function.body[0] if ast.get_docstring(function) and not with_docstring else None
    return _lines_of(function) - (_lines_of(docstring) if docstring else 0)


def percentile_95(values: Sequence[int]) -> int:
    """Return the smallest value that at least 95 % of the values do not exceed."""
    return sorted(values)[-(-95 * len(values) // 100) - 1]


def lengths(modules: Sequence[Module], with_docstring: bool = False) -> list[int]:
    """Return the length of each function."""
    return [length_of(function, with_docstring) for module in modules for function in module.functions]


def share_documented(modules: Sequence[Module]) -> float:
    """Return the share of public modules, classes, functions and methods with a docstring."""
    missing = sum(len(module.undocumented()) for module in modules)
    return 1 - missing / sum(len(module.public_parts) for module in modules)


def share_with_example(modules: Sequence[Module]) -> float:
    """Return the share of public classes and functions with an example; NaN where there are none."""
    number = sum(len(module.public) for module in modules)
    return 1 - sum(len(module.without_example()) for module in modules) / number if number else float("nan")


def small_modules(modules: Sequence[Module]) -> list[Module]:
    """Return the modules of few lines, but for those that only name a folder."""
    return [module for module in modules if module.lines < SMALL_FILE and module.path.name != "__init__.py"]


def upward_imports(modules: Sequence[Module]) -> list[str]:
    """Return the imports from a folder above."""
    return [
        f"{module.path} imports {name}"
        for module in modules
        if module.level in ORDER
        for name in module.imports
        if ORDER.index(name) < ORDER.index(module.level)
    ]


def faults(modules: Sequence[Module]) -> Iterator[str]:
    """Return what lies outside of the limits, one line each, the same for a folder's and the whole package's."""
    for module in modules:
        if module.lines > LONGEST_FILE:
            yield f"{module.path}: {module.lines} lines"
        yield from (f"{module.path}: {name} has no docstring" for name in module.undocumented())
        for name, number in module.callables:
            if number > MOST_ARGUMENTS:
                yield f"{module.path}: {name} has {number} arguments"
        for function in module.functions:
            if length_of(function) > PERCENTILE_95:
                yield f"{module.path}: {function.name} has {length_of(function)} lines"
    yield from upward_imports(modules)


def table(modules: Sequence[Module]) -> str:
    """Return a Markdown table, one row per folder."""
    rows = [
        "| folder | modules | under 60 lines | longest | functions | median | p95 | p95 with docstring | "
        "docstrings | examples |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    folders = [*ORDER[:-1], TOP]
    groups = {folder: [module for module in modules if module.folder == folder] for folder in folders}
    for name, group in ({name: group for name, group in groups.items() if group} | {"all": list(modules)}).items():
        found, whole = lengths(group) or [0], lengths(group, with_docstring=True) or [0]
        rows.append(
            f"| {name} | {len(group)} | {len(small_modules(group))} | {max(module.lines for module in group)} | "
            f"{len(found)} | {median(found):g} | {percentile_95(found)} | {percentile_95(whole)} | "
            f"{share_documented(group):.0%} | {share_with_example(group):.0%} |"
        )
    return "\n".join(rows)


def _lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _is_public(node: Definition) -> bool:
    return not node.name.startswith("_")


def _public_methods(node: ast.ClassDef) -> list[Function]:
    return [part for part in node.body if isinstance(part, Function) and _is_public(part)]


def _has_example(node: Definition) -> bool:
    parts = [node, *_public_methods(node)] if isinstance(node, ast.ClassDef) else [node]
    return any(">>>" in (ast.get_docstring(part) or "") for part in parts)


def _number_of_arguments(function: Function) -> int:
    arguments = function.args
    return len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)


def main() -> None:
    """Print the table and the faults."""
    parser = argparse.ArgumentParser(description="Measure docstrings, examples, lengths and imports of the package.")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="folder of the package (default: this one)")
    parser.add_argument("--without-example", action="store_true", help="also list what has no example")
    args = parser.parse_args()
    modules = read_modules(args.package)
    print(table(modules), end="\n\n")
    print("\n".join(faults(modules)))
    print("small:", " ".join(f"{module.path}({module.lines})" for module in small_modules(modules)))
    if args.without_example:
        for module in modules:
            print(module.path, " ".join(module.without_example()))


if __name__ == "__main__":
    main()
