"""Train the networks of weak supervision, before and after the masks, and apply them.

How to run:

    python train.py classify --root /data --out runs/sipe            a SIPE classifier on VOC 2012 train
    python train.py classify --images images --labels labels.json --class-names classes.txt --out runs/custom
    torchrun --nproc-per-node 4 train.py classify --root /data --split train_aug --out runs/sipe
    python train.py cams --checkpoint runs/sipe/checkpoint.pt --root /data --out runs/sipe/cams
    python train.py cams --clip ViT-B-16 --clip-weights clip.pt --root /data --out runs/clip     maps of CLIP, untrained
    python train.py irn --cams runs/sipe/cams --root /data --out runs/irn
    python train.py propagate --irn runs/irn/checkpoint.pt --cams runs/sipe/cams --root /data --out runs/irn/cams
    python train.py pixels --cams runs/sipe/cams --root /data --out runs/pixels
    python train.py posterior --pixels runs/pixels/checkpoint.pt --cams runs/sipe/cams --root /data --out runs/maps
    python train.py segment --root /data --masks runs/weak/F4 --val-split val --out runs/network
    python train.py weak --root /data --val-split val --out runs/weak   all of them, by a recipe
    python train.py predict --checkpoint runs/network/checkpoint.pt --root /data --split val --out runs/network/val
"""

import argparse
from collections.abc import Sequence
from types import ModuleType

from torch_svm_seg.cli import weak
from torch_svm_seg.cli.command import exit_code_of
from torch_svm_seg.cli.options.option import Parser, add_options, read_options
from torch_svm_seg.cli.steps import TRAIN

COMMANDS: dict[str, ModuleType] = {**TRAIN, "weak": weak}
"""Each has ``HELP``, ``DESCRIPTION``, its ``Settings``, and ``run(settings, rank, processes)``."""
EXIT_CODES = (
    "exit code: 0 if done; 1 if images were skipped for bad files, which the summary lists; 2 if the arguments or the "
    "data cannot be used, or writing failed; 130 if interrupted"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(description=(__doc__ or "").split("\n")[0])
    parsers = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        own = parsers.add_parser(name, help=command.HELP, description=command.DESCRIPTION, epilog=EXIT_CODES)
        add_options(own, command.Settings)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = build_parser().parse_args(argv)
    command = COMMANDS[args.command]

    def work(rank: int, processes: int) -> int:
        exit_code: int = command.run(read_options(command.Settings, args), rank, processes)
        return exit_code

    again = "add --resume to continue" if "resume" in args else "the same command continues"
    return exit_code_of("train.py", work, f"{again} ({args.out})", args.out)
