"""CAM files: what is written comes back, what others wrote is understood, what is malicious or broken is refused."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from torch_svm_seg.cam.activation import ActivationMaps
from torch_svm_seg.cam.io import cam_path, read_cams, save_cams
from torch_svm_seg.data.errors import InputError

NAMES = ("background", "cat", "dog", "sofa")
SIZE = (50, 61)


def maps(background: bool = False) -> ActivationMaps:
    values = torch.rand(3, 13, 16, generator=torch.Generator().manual_seed(0))
    return ActivationMaps((1, 3), values[:2], SIZE, values[2] if background else None)


def arrays() -> dict[str, np.ndarray]:
    """The content of a good file, to be spoiled."""
    half = maps().maps.half().numpy()
    return {"classes": np.array([1, 3]), "names": np.array(["cat", "sofa"]), "maps": half, "size": np.array(SIZE)}


def foreign(folder: Path, content: object) -> ActivationMaps:
    np.save(folder / "a.npy", content, allow_pickle=True)
    return read_cams(folder, "a", SIZE, NAMES)


@pytest.mark.parametrize("background", [False, True])
def test_what_is_written_comes_back_in_half_precision(tmp_path: Path, background: bool) -> None:
    save_cams(cam_path(tmp_path / "new", "b/a"), maps(background), NAMES)
    read = read_cams(tmp_path / "new", "b/a", SIZE, NAMES)
    assert read.classes == (1, 3) and read.size == SIZE and read.maps.dtype == torch.float32
    torch.testing.assert_close(read.maps, maps().maps, atol=5e-4, rtol=0)
    assert (read.background is not None) == background
    if read.background is not None:
        torch.testing.assert_close(read.background, maps(True).background, atol=5e-4, rtol=0)


def test_the_format_is_plain_arrays(tmp_path: Path) -> None:
    save_cams(tmp_path / "a.npz", maps(True), NAMES)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        kinds = {name: (archive[name].dtype.kind, archive[name].shape) for name in archive.files}
    assert kinds == {
        "classes": ("i", (2,)),
        "names": ("U", (2,)),
        "maps": ("f", (2, 13, 16)),
        "size": ("i", (2,)),
        "background": ("f", (13, 16)),
    }


def spoiled(name: str) -> dict[str, np.ndarray]:
    good = arrays()
    nan, high = good["maps"].copy(), good["maps"].copy()
    nan[0, 2, 2], high[0, 2, 2] = np.nan, 3
    return {
        "nan": good | {"maps": nan},
        "infinite": good | {"background": np.full((13, 16), np.inf, np.float16)},
        "above 1": good | {"maps": high},
        "other size": good | {"size": np.array([50, 60])},
        "other class": good | {"names": np.array(["cat", "dog"])},
        "class count": good | {"classes": np.array([1, 9])},
        "maps missing": {key: value for key, value in good.items() if key != "maps"},
        "too few maps": good | {"maps": good["maps"][:1]},
        "background's shape": good | {"background": np.zeros((3, 3), np.float16)},
    }[name]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "not a finite number"),
        ("infinite", "not a finite number"),
        ("above 1", "activation from .* to 3, expected 0 to 1"),
        ("other size", "of an image of 60x50 pixels, but the image has 61x50"),
        ("other class", "of the classes cat, dog, expected cat, sofa"),
        ("class count", "class ids .* up to 3"),
        ("maps missing", "not a file of class activation maps"),
        ("too few maps", "maps: expected"),
        ("background's shape", "background: expected"),
    ],
)
def test_bad_files_are_named_with_the_reason(tmp_path: Path, name: str, message: str) -> None:
    np.savez(tmp_path / "a.npz", **spoiled(name))
    with pytest.raises(InputError, match=f"a.npz: .*{message}"):
        read_cams(tmp_path, "a", SIZE, NAMES)


@pytest.mark.parametrize("keep", [0, 30, 400])
def test_a_cut_file_is_named(tmp_path: Path, keep: int) -> None:
    save_cams(tmp_path / "a.npz", maps(), NAMES)
    content = (tmp_path / "a.npz").read_bytes()
    assert len(content) > keep
    (tmp_path / "a.npz").write_bytes(content[:keep])
    with pytest.raises(InputError, match=r"a\.npz: not a file"):
        read_cams(tmp_path, "a", SIZE, NAMES)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.npz: no class activation maps"):
        read_cams(tmp_path, "a", SIZE, NAMES)


def test_objects_in_an_npz_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays() | {"maps": np.array([Malicious(tmp_path / "run")], dtype=object)})
    with pytest.raises(InputError, match=r"a\.npz: not a file"):
        read_cams(tmp_path, "a", SIZE, NAMES)
    assert not (tmp_path / "run").exists()


FULL, QUARTER = np.random.default_rng(0).random((2, *SIZE), np.float32), np.random.default_rng(1).random((2, 13, 16))


def test_irn_files_hold_tensors_and_count_classes_from_0(tmp_path: Path) -> None:
    content = {"keys": torch.tensor([0, 2]), "cam": torch.from_numpy(QUARTER), "high_res": FULL}
    read = foreign(tmp_path, content)
    assert read.classes == (1, 3) and read.background is None
    torch.testing.assert_close(read.maps, torch.from_numpy(FULL))
    del content["high_res"]
    assert foreign(tmp_path, content).maps.shape == (2, 13, 16)


def test_sipe_files_have_a_background_channel(tmp_path: Path) -> None:
    read = foreign(tmp_path, {"keys": np.array([0, 2]), "IS_CAM": FULL})
    assert read.classes == (2,)
    torch.testing.assert_close(read.maps[0], torch.from_numpy(FULL[1]))
    torch.testing.assert_close(read.background, torch.from_numpy(FULL[0]))


def test_psa_files_are_dictionaries_of_classes(tmp_path: Path) -> None:
    read = foreign(tmp_path, {2: FULL[0], np.int64(0): FULL[1].astype(np.float16)})
    assert read.classes == (1, 3)
    torch.testing.assert_close(read.maps, torch.from_numpy(FULL[::-1].copy()), atol=5e-4, rtol=0)


def test_arrays_of_any_order_come_back_alike(tmp_path: Path) -> None:
    for variant in (FULL[0].astype(">f4"), np.asfortranarray(FULL[0]), FULL[0][::-1][::-1], FULL[0].astype(np.float64)):
        torch.testing.assert_close(foreign(tmp_path, {1: variant}).maps[0], torch.from_numpy(FULL[0]))
    view = torch.from_numpy(FULL).transpose(1, 2).contiguous().transpose(1, 2)[1:]
    torch.testing.assert_close(foreign(tmp_path, {"keys": [1], "cam": view}).maps, torch.from_numpy(FULL[1:]))


def test_other_ranges_are_brought_to_0_and_1(tmp_path: Path) -> None:
    read = foreign(tmp_path, {0: FULL[0] * 4 - 2, 1: FULL[1]})
    assert read.maps.min() == 0 and read.maps[0].max() == 1
    torch.testing.assert_close(read.maps[1], torch.from_numpy(FULL[1]))


def test_this_project_s_file_goes_before_others(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", {0: FULL[0]}, allow_pickle=True)
    assert read_cams(tmp_path, "a", SIZE, NAMES).classes == (1,)
    save_cams(tmp_path / "a.npz", maps(), NAMES)
    assert read_cams(tmp_path, "a", SIZE, NAMES).classes == (1, 3)


class Malicious:
    """Makes a file when unpickled."""

    def __init__(self, target: Path, function=os.mkdir) -> None:
        self.target, self.function = target, function

    def __reduce__(self):
        return self.function, (str(self.target),)


class Storage:
    """Hides a malicious pickle where a tensor's storage is expected."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.content,)


def test_malicious_files_run_nothing(tmp_path: Path) -> None:
    target = tmp_path / "run"
    bad = Malicious(target)
    for content in (bad, {"keys": [0], "cam": bad}, {0: bad}, {"keys": np.array([bad], dtype=object), "cam": FULL[:1]}):
        with pytest.raises(InputError, match=r"a\.npy: not read \(holds (posix|nt)\.mkdir, which could run code\)"):
            foreign(tmp_path, content)
    for content in (
        {0: Storage(pickle.dumps(bad, 2))},
        {0: Malicious("1 + 1", eval)},
        {0: Malicious("os", __import__)},
    ):
        with pytest.raises(InputError, match=r"a\.npy: not read"):
            foreign(tmp_path, content)
    assert not target.exists()
    np.save(tmp_path / "a.npy", {0: bad}, allow_pickle=True)
    np.load(tmp_path / "a.npy", allow_pickle=True)
    assert target.exists()  # NumPy itself runs it: these files do harm


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"keys": [0], "cam": FULL}, "1 keys for 2 maps"),
        ({"keys": [0, 1], "other": FULL}, "not a dictionary of class activation maps that is known"),
        ({"cat": FULL[0]}, "class 'cat'"),
        ({0.5: FULL[0]}, "class 0.5"),
        ({0: 3.0}, "a float in place of an array"),
        ({}, "holds a dict"),
        ({0: FULL[0, :, :40]}, "maps of 40x50 places, no fraction of the image's 61x50 pixels"),
        ({0: FULL[0] * np.nan}, "not a finite number"),
        ({7: FULL[0]}, "class ids .* up to 3"),
        ({"keys": [1, 1], "cam": FULL}, "class ids"),
        ({"keys": [0], "IS_CAM": FULL[:1]}, "maps: expected"),
        ({"keys": np.array(["cat"]), "cam": FULL[:1]}, "holds an array of type 'U3'"),
        ({0: np.array([{}, 1])}, "not read"),
        (OrderedDict(keys="ab", cam=FULL), "a str in place of an array"),
        (FULL, "an array of float32"),
        ([FULL, 1], "not a dictionary"),
    ],
)
def test_other_content_is_refused_with_the_reason(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=rf"a\.npy: .*{message}"):
        foreign(tmp_path, np.array(content, dtype=object) if isinstance(content, list) else content)


@pytest.mark.parametrize("keep", [0, 5, 100, 300])
def test_a_cut_pickle_is_named(tmp_path: Path, keep: int) -> None:
    foreign(tmp_path, {0: FULL[0]})
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:keep])
    with pytest.raises(InputError, match=r"a\.npy: not read"):
        read_cams(tmp_path, "a", SIZE, NAMES)
