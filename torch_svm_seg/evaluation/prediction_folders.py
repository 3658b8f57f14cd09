"""The folders of predicted masks, and their names."""

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from torch_svm_seg.data.errors import InputError
from torch_svm_seg.evaluation.tables import PAPER_TABLE_1


def find_folders(paths: Sequence[Path], ids: Sequence[str]) -> dict[str, Path]:
    """Find the folders that hold masks: those given, or else their subfolders, seeds and the paper's features first.

    Args:
        paths: Folders of masks, or folders of such folders.
        ids: Ids of the images.

    Returns:
        Each folder by its own name, with as many parents before it as it takes to tell all apart.

    Raises:
        InputError: A path is no folder, or neither it nor a folder in it holds a PNG.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> for name in ("F3", "seed"):
        ...     (run / name).mkdir()
        ...     (run / name / "2007_000032.png").touch()
        >>> list(find_folders([run], ["2007_000032"]))
        ['seed', 'F3']
    """
    folders = list(dict.fromkeys(Path(os.path.abspath(found)) for path in paths for found in _expanded(path, ids)))
    depth = next(depth for depth in count(1) if len({folder.parts[-depth:] for folder in folders}) == len(folders))
    return {"/".join(folder.parts[-depth:]): folder for folder in folders}


def _expanded(folder: Path, ids: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder")
    # The ids, for a folder of runs may hold images of its own, and "birds/17" lies in a subfolder itself.
    if any((folder / f"{id}.png").is_file() for id in ids):
        return [folder]
    if holders := [path for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.png"))]:
        return sorted(holders, key=_paper_order)
    if any(folder.glob("*.png")):
        return [folder]  # all of its predictions are missing, which the summary tells
    raise InputError(f"{folder}: neither it nor a folder in it holds a PNG")


def _paper_order(folder: Path) -> tuple[int, str]:
    known = ["seed", "ppmg", *PAPER_TABLE_1]
    base = folder.name.split("+")[0]  # of refined masks, such as F3+crf
    return (known.index(base) if base in known else len(known), folder.name)
