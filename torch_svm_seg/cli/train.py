"""Train the networks of weak supervision, before and after the masks, and apply them.

How to run:

    python train.py classify --root /data --out runs/sipe            a SIPE classifier on VOC 2012 train
    python train.py classify --images photos --labels labels.json --class-names classes.txt --out runs/mine
    torchrun --nproc-per-node 4 train.py classify --root /data --split train_aug --out runs/sipe
    python train.py cams --checkpoint runs/sipe/checkpoint.pt --root /data --out runs/sipe/cams
    python train.py irn --cams runs/sipe/cams --root /data --out runs/irn
    python train.py propagate --irn runs/irn/checkpoint.pt --cams runs/sipe/cams --root /data --out runs/irn/cams
    python train.py segment --root /data --masks runs/weak/F4 --val-split val --out runs/network
    python train.py predict --checkpoint runs/network/checkpoint.pt --root /data --split val --out runs/network/val
"""

import argparse
import sys
from collections.abc import Sequence

from torch_svm_seg.cli import cams, classify, irn, predict, propagate, segment
from torch_svm_seg.data.errors import InputError
from torch_svm_seg.training.distributed import processes

COMMANDS = {
    "classify": classify,
    "cams": cams,
    "irn": irn,
    "propagate": propagate,
    "segment": segment,
    "predict": predict,
}
EXIT_CODES = (
    "exit code: 0 if done; 1 if images were skipped for bad files, which the summary lists; 2 if the arguments or the "
    "data cannot be used, or writing failed; 130 if interrupted"
)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parsers = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(
            parsers.add_parser(name, help=command.HELP, description=command.DESCRIPTION, epilog=EXIT_CODES)
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        with processes() as (rank, number):
            exit_code: int = COMMANDS[args.command].run(args, rank, number)
            return exit_code
    except (InputError, OSError) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = "add --resume to continue" if "resume" in args else "the same command continues"
        print(f"train.py: interrupted; {again} ({args.out})", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
