"""The end of a run of the expansion: a table of scores, what was skipped, and an overview of the first images."""

import shutil

from torch_svm_seg.data.channels import as_colours
from torch_svm_seg.data.dataset import ImageDataset
from torch_svm_seg.data.io import read_mask, write_atomically
from torch_svm_seg.data.notes import first_few
from torch_svm_seg.evaluation.panels import PanelRow, panel
from torch_svm_seg.evaluation.scoring import is_readable, score_readable
from torch_svm_seg.evaluation.tables import Row, text_table
from torch_svm_seg.pipeline.expansion_run import ExpansionRun
from torch_svm_seg.pipeline.image_run import Outcome, print_changed
from torch_svm_seg.pipeline.run_folder import Progress, print_notes, print_skipped

ROWS = 4
TABLE_NOTE = (
    "\n\nIoU in percent over the whole data set, void left out; mean: over the classes present; s/image: fit, "
    "prediction and refinement, without the backbone and the activation maps.\n"
)


def summarize(dataset: ImageDataset, run: ExpansionRun, outcome: Outcome) -> None:
    """Print the table, what was skipped and where everything lies; draw ``overview.png``.

    Args:
        dataset: All images of the run.
        run: The run.
        outcome: What it did.
    """
    total = outcome.total
    done = dataset.subset(index for index, id in enumerate(dataset.ids) if id not in total.skipped)
    if len(done):
        scored = done.subset(index for index in range(len(done)) if done.has_mask(index))
        if len(scored):
            print(_score_table(scored, run, total) + TABLE_NOTE)
        overview = panel(_overview_rows(done, run), run.names, dataset.class_names)
        write_atomically(run.out / "overview.png", lambda stream: overview.save(stream, "png"))
    print_skipped(total.skipped)
    if run.fit_on and (reasons := run.fit_on.reasons):
        print(f"--fit-on: {len(reasons)} of {len(run.fit_on.dataset)} images cannot be used: {first_few(reasons)}")
    print_notes(dataset.notes.general, total.notes)
    print_changed(outcome.changed)
    if total.unseeded:
        print(f"objects that images are labelled with, but no pixel of their seed shows: {total.unseeded}")
    restored = [f"{name} {number}" for name, number in total.restored.items() if number]
    if restored:
        print(f"classes restored from their seed: {', '.join(restored)}")
    written = f"; masks in {run.out}/NAME/ID.png, images in {run.out}/overview.png" if len(done) else ""
    images, skipped = outcome.now.images, len(total.skipped)
    print(f"{images} images expanded, {len(done) - images} were there, {skipped} skipped{written}")


def _score_table(dataset: ImageDataset, run: ExpansionRun, progress: Progress) -> str:
    """Return a table like the paper's Table 1: one row for the masks of each name, one column for each class."""
    rows, seconds = [], progress.seconds_per_image()
    scores, unreadable = score_readable(dataset, [run.out / name for name in run.names])
    for name, score in zip(run.names, scores, strict=True):
        extra = {"s/image": f"{seconds.get(name, 0.0):.2f}", "images": str(score.images)}
        rows.append(Row(name, score.per_class.tolist(), score.miou, extra))
    table = text_table(rows, dataset.class_names, shutil.get_terminal_size(fallback=(200, 24)).columns)
    reasons = [f"{id} ({reason})" for id, reason in unreadable.items()]
    return f"{table}\n\nnot scored, without a readable mask: {first_few(reasons)}" if reasons else table


def _overview_rows(dataset: ImageDataset, run: ExpansionRun) -> list[PanelRow]:
    """Return the first images with their masks, and the sampled pixels, as in the paper's Figures 6 and 7."""
    rows = []
    for index, id in enumerate(dataset.ids[:ROWS]):
        supervised = run.supervision.read(dataset, index)
        masks = [read_mask(path) for path in run.paths(id)]
        truth = dataset.mask(index) if is_readable(dataset, index) else None
        rows.append(PanelRow(as_colours(supervised.image), masks, truth, run.training_pixels(supervised)))
    return rows
