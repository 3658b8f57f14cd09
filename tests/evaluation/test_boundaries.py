"""The band around boundaries, against every pair of pixels, and the scores near and far."""

from pathlib import Path

import pytest
import torch

from torch_svm_seg.cli.evaluate import main
from torch_svm_seg.data.constants import VOID
from torch_svm_seg.data.io import save_mask
from torch_svm_seg.data.voc import voc2012
from torch_svm_seg.evaluation.boundaries import boundary_band, far_from_boundaries, near_boundaries


@pytest.mark.parametrize("width", [1, 2, 5])
def test_band_is_where_another_id_is_near(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.tensor([0, 3, 15, VOID])[torch.randint(0, 4, (3, 4), generator=generator)]
    mask = coarse.repeat_interleave(6, 0).repeat_interleave(5, 1)
    height, width_of_mask = mask.shape
    for y in range(height):
        for x in range(width_of_mask):
            window = mask[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
            assert bool(boundary_band(mask, width)[y, x]) == (len(window.unique()) > 1)


def test_near_and_far_share_the_mask_out() -> None:
    mask = torch.zeros(12, 20, dtype=torch.long)
    mask[4:, 9:] = 8
    near, far = near_boundaries(mask, 2), far_from_boundaries(mask, 2)
    assert bool(((near == VOID) != (far == VOID)).all())
    assert torch.equal(torch.where(near == VOID, far, near), mask)


def test_evaluate_shows_where_errors_lie(tiny_voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Predictions that are wrong in the band alone are perfect beyond it."""
    dataset = voc2012(tiny_voc, "train")
    for place, id in enumerate(dataset.ids):
        mask = dataset.mask(place)
        save_mask(tmp_path / f"{id}.png", torch.where(boundary_band(mask, 3), 0, mask))
    arguments = ["--root", str(tiny_voc), "--split", "train", "--predictions", str(tmp_path), "--boundary"]
    assert main([*arguments, "3"]) == 0
    heads, row = (line.split() for line in capsys.readouterr().out.splitlines()[:2])
    assert " ".join(heads).endswith("images up to 3 px over 3 px")
    assert float(row[-1]) == 100 and float(row[-2]) < 60
    assert main([*arguments, "0"]) == 2
    assert "--boundary: expected at least 1, got 0" in capsys.readouterr().err
