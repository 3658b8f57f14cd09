"""Label a folder of images by strokes, in a page on this machine: the mask of the image is there after each stroke.

How to run:

    python label.py images                                          background and object
    python label.py images --classes background cat dog --out runs/labels

Then open the address that it prints. What is drawn is written at once: masks, points and scribbles, which ``expand.py``
reads, lie in the folder ``--out``. The same command continues.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch_svm_seg.cli.command import exit_code_of
from torch_svm_seg.cli.options.backbone import BackboneOptions
from torch_svm_seg.cli.options.option import Parser, add_options, group, option, read_options
from torch_svm_seg.cli.options.run import choose_device
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.data.folder import folder
from torch_svm_seg.data.io import remove_unfinished
from torch_svm_seg.data.lists import read_lines
from torch_svm_seg.expansion.expander import SVMExpander
from torch_svm_seg.expansion.normalization import fused_stages
from torch_svm_seg.label.annotations import AnnotationFolder
from torch_svm_seg.label.labeller import FeatureCache, InteractiveLabeller
from torch_svm_seg.label.server import LabelServer
from torch_svm_seg.label.session import Session
from torch_svm_seg.svm.svm import SVM

DEFAULT_CLASSES = ("background", "object")
DEFAULT_FEATURES = "F3+F4+F5"


@dataclass(frozen=True)
class LabelPageOptions:
    """The images to label, and the page's address."""

    title: ClassVar = "labelling"

    classes: tuple[str, ...] | None = option(
        None, metavar="NAME", help="names of the classes, background first (default: background object)"
    )
    out: Path | None = option(
        None, metavar="DIR", help="folder of masks, points and scribbles (default: IMAGES-labels beside IMAGES)"
    )
    port: int = option(0, metavar="N", at_least=0, help="port to listen on (default: any that is free)")


@dataclass(frozen=True)
class PageFeatureOptions(BackboneOptions):
    """The features of the SVM."""

    title: ClassVar = "features"

    features: str = option(DEFAULT_FEATURES, metavar="STAGES", help="stages of the backbone, joined by + where fused")
    device: str = option("auto", help="cpu, cuda, cuda:N (default: a GPU where there is one)")


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    page: LabelPageOptions = group()
    features: PageFeatureOptions = group()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="label.py",
        description="Label images by strokes in a page on this machine, which nothing else can reach. After each "
        "stroke, an SVM of the image's own pixels labels all others.",
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of images")
    add_options(parser, Settings)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = build_parser().parse_args(argv)
    out = args.out or args.images.resolve().with_name(f"{args.images.resolve().name}-labels")

    def work(rank: int, processes: int) -> int:
        for folder_of_files in (out, *(path for path in out.iterdir() if path.is_dir())):
            remove_unfinished(folder_of_files)
        server = open_server(args.images, out, read_options(Settings, args))
        print(f"labelling {len(server.session.dataset)} images: open {server.address}", flush=True)
        try:
            server.serve_forever()
        finally:
            server.server_close()
        return 0

    return exit_code_of("label.py", work, "all is saved, and the same command continues", out)


def open_server(images: Path, out: Path, settings: Settings) -> LabelServer:
    """Build the server of a folder of images, whose annotations go to another one.

    Raises:
        InputError: The folder, the classes or the features cannot be used.
        OSError: The folder of annotations cannot be written, or the port is taken.
    """
    names = out / "class_names.txt"
    known = tuple(read_lines(names)) if names.is_file() else DEFAULT_CLASSES
    dataset = folder(images)
    annotations = AnnotationFolder(out, settings.page.classes or known)
    backbone = settings.features.load()
    stages = fused_stages(settings.features.features)
    if not set(stages) <= set(backbone.stage_names):
        raise InputError(f"--features: there are {' '.join(backbone.stage_names)}, got {settings.features.features}")
    device = choose_device(settings.features.device)
    features = FeatureCache(dataset, backbone.to(device), stages, device)
    labeller = InteractiveLabeller(features, _expander().to(device))
    return LabelServer(Session(dataset, annotations, labeller), settings.page.port)


def _expander() -> SVMExpander:
    """Return an SVM that is quick: few pixels of each class, and a loss that is solved in few steps."""
    return SVMExpander(SVM(kernel="linear", C=0.1, loss="squared_hinge", tol=1e-2), samples_per_class=200)
