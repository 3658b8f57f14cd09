"""Damaged files of every kind end in a right value or in one named error; `benchmarks/fuzz.py` tries 10,000."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about tags of TIFF
@pytest.mark.parametrize("kind", fuzz.kinds(), ids=lambda kind: kind.name)
@settings(max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_damage_is_noticed_or_harmless(tmp_path: Path, kind: fuzz.Kind, seed: int) -> None:
    ((outcome, why),) = fuzz.outcomes(kind, tmp_path, 1, random.Random(seed))
    assert outcome != fuzz.FAULT, why


@pytest.mark.parametrize("kind", fuzz.kinds(), ids=lambda kind: kind.name)
def test_an_undamaged_file_is_read(tmp_path: Path, kind: fuzz.Kind) -> None:
    kind.write(tmp_path / kind.file)
    before = fuzz._plain(kind.read(tmp_path / kind.file))
    assert fuzz._outcome(kind, tmp_path / kind.file, before) == (fuzz.SAME, "")


def test_a_reader_that_lets_anything_through_is_a_fault(tmp_path: Path) -> None:
    """Of a traceback, of other values under a checksum, and of a message that names no file."""
    path = tmp_path / "a.bin"
    path.write_bytes(b"other")
    for read in (lambda path: 1 // 0, lambda path: path.read_bytes(), lambda path: _refuse("it names no file")):
        kind = fuzz.Kind("any", "a.bin", lambda path: None, read, is_checked=True)
        assert fuzz._outcome(kind, path, "before")[0] == fuzz.FAULT


def _refuse(message: str) -> None:
    raise fuzz.InputError(message)
