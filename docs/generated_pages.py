"""Pages of the site that are made each time it is built: start, commands, API and tutorials.

MkDocs calls `on_files` before it reads the pages. The start is the README; commands come from the parsers, the API from
the public names of the modules, tutorials from scripts that the tests run: none of them can fall behind the code.
"""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from torch_svm_seg.cli import evaluate, expand, label, train

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "torch_svm_seg"
SCRIPTS = {"expand.py": expand, "train.py": train, "evaluate.py": evaluate, "label.py": label}
FOLDERS = {
    "svm": "The SVM, on tensors alone",
    "expansion": "Per-image SVMs on feature maps",
    "refine": "Refinement of probabilities",
    "cam": "Class activation maps",
    "irn": "Class boundaries learned from maps",
    "pixel_classifier": "One classifier of the pixels of all images",
    "segmenters": "Segmentation networks",
    "backbones": "Feature maps of networks",
    "evaluation": "Scores",
    "data": "Data sets and files",
    "training": "Training",
    "pipeline": "Runs over a data set",
    "report": "The report",
    "label": "The page on which strokes become masks",
}
"""Folders of the package in the order of the API reference. Those of the command line are described by the commands."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"index.md": start_page((REPOSITORY / "README.md").read_text(encoding="utf-8"))}
    pages |= {name: (REPOSITORY / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "CHANGELOG.md")}
    pages |= {"commands.md": commands_page(), "api.md": api_page()}
    for script in sorted((REPOSITORY / "docs" / "tutorials").glob("*.py")):
        pages[f"tutorials/{script.stem}.md"] = tutorial_page(script.read_text(encoding="utf-8"))
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def start_page(readme: str) -> str:
    """Return the README with its links as they are from the folder of the pages.

    Examples:
        >>> start_page("[Data](docs/data.md#voc), [first](docs/tutorials/first.py)")
        '[Data](data.md#voc), [first](tutorials/first.md)'
    """
    local = re.compile(r"\]\(docs/([\w/]+)\.(md|py|png)(#[\w-]+)?\)")
    return local.sub(lambda link: f"]({link[1]}.{_page(link[2])}{link[3] or ''})", readme)


def commands_page() -> str:
    """Return the page of all commands and their options."""
    parts = [
        "# Commands",
        "Installed, they are called `torch-svm-seg-expand` and so on.",
    ]
    for script, command in SCRIPTS.items():
        parts += [f"## {script}", *_sections(command.build_parser(), script)]
    return "\n\n".join(parts) + "\n"


def api_page() -> str:
    """Return the page of all public classes and functions, folder by folder."""
    missing = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {*FOLDERS, "cli"}
    if missing:
        raise ValueError(f"folders without a place in the API reference: {', '.join(sorted(missing))}")
    parts = ["# API", "Names that are most used can be imported from the top: `from torch_svm_seg import SVM`."]
    for folder, title in FOLDERS.items():
        parts.append(f"## {title}")
        for path in sorted((PACKAGE / folder).glob("*.py")):
            parts += _public_names(path)
    return "\n\n".join(parts) + "\n"


def tutorial_page(script: str) -> str:
    r"""Return the Markdown of a script: its comments between statements are text, the rest is code.

    Examples:
        >>> print(tutorial_page("# # Title\n#\n# Text.\n\nx = 1\n"))
        # Title
        <BLANKLINE>
        Text.
        <BLANKLINE>
        ```python
        x = 1
        ```
        <BLANKLINE>
    """
    parts: list[str] = []
    for block in script.strip().split("\n\n"):
        lines = block.splitlines()
        if all(line.startswith("#") for line in lines):
            parts.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in lines))
        else:
            parts.append(f"```python\n{block}\n```")
    return "\n\n".join(parts).replace("\n```\n\n```python\n", "\n\n") + "\n"


def _page(ending: str) -> str:
    return "md" if ending == "py" else ending


def _sections(parser: argparse.ArgumentParser, title: str) -> Iterator[str]:
    """Text, usage and options of a parser, and of those of its commands."""
    yield _text(parser.description or "")
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        for group in parser._action_groups:
            yield from _table(group)
    for action in nested:
        for name, command in action.choices.items():
            yield f"### {title} {name}"
            yield from _sections(command, f"{title} {name}")
    if parser.epilog:
        yield _text(parser.epilog)


def _table(group: argparse._ArgumentGroup) -> Iterator[str]:
    """Title, description and options of a group."""
    actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
    if not actions:
        return
    yield f"**{group.title}**"
    if group.description:
        yield _text(group.description)
    rows = ["| option | meaning |", "|---|---|"]
    for action in actions:
        flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
        required = "Required. " if action.required else ""
        rows.append(f"| {flags} {_values(action)} | {required}{_cell(_expanded(action))} |")
    yield "\n".join(rows)


def _values(action: argparse.Action) -> str:
    """Name or choices of an option's values."""
    if action.nargs == 0:
        return ""
    choices = "{" + ",".join(map(str, action.choices or ())) + "}"
    names = action.metavar or (choices if action.choices else action.dest.upper())
    shown = " ".join(names) if isinstance(names, tuple) else names
    return f"`{shown}{' ...' if action.nargs == '+' else ''}`".replace("|", "\\|")


def _expanded(action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": ""}


def _text(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|").replace("\n", " ")


def _public_names(path: Path) -> Iterator[str]:
    """A directive for each public class and function of a module."""
    module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield f"::: {module}.{node.name}"
