"""The package stays within the limits of `benchmarks/house.py`: order of imports, lengths, docstrings, examples."""

from statistics import median

import pytest

from benchmarks import house

MODULES = house.read_modules()
FOLDERS = sorted({module.folder for module in MODULES if module.folder != house.TOP})


def test_every_folder_has_its_level() -> None:
    assert {module.level for module in MODULES} == {*house.ORDER, "__init__"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_lead_downwards(folder: str) -> None:
    assert house.upward_imports([module for module in MODULES if module.folder == folder]) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_public_has_a_docstring(folder: str) -> None:
    modules = [module for module in MODULES if module.folder == folder]
    missing = [f"{module.path}: {name}" for module in modules for name in module.undocumented()]
    assert house.share_documented(modules) >= house.DOCUMENTED, missing


def test_most_classes_and_functions_have_an_example() -> None:
    """Those of commands are described by their ``--help``."""
    modules = [module for module in MODULES if module.folder != "cli"]
    missing = {str(module.path): module.without_example() for module in modules if module.without_example()}
    assert house.share_with_example(modules) >= house.WITH_EXAMPLE, missing


def test_functions_are_short() -> None:
    found = house.lengths(MODULES)
    assert median(found) <= house.MEDIAN
    assert house.percentile_95(found) <= house.PERCENTILE_95


def test_files_fit_in_the_head() -> None:
    assert {str(module.path): module.lines for module in MODULES if module.lines > house.LONGEST_FILE} == {}


def test_few_modules_are_very_small() -> None:
    small = [str(module.path) for module in house.small_modules(MODULES)]
    assert len(small) <= house.MOST_SMALL_FILES, small


def test_few_files_lie_at_the_top() -> None:
    top = [path.name for path in house.PACKAGE.iterdir() if path.is_file()]
    assert len(top) <= house.MOST_TOP_FILES, top


def test_callables_take_few_arguments() -> None:
    many = {f"{module.path}: {name}": n for module in MODULES for name, n in module.callables if n > 8}
    assert many == {}


def test_measures_on_a_small_package(tmp_path: house.Path) -> None:
    """Counted by hand."""
    (tmp_path / "svm").mkdir()
    (tmp_path / "svm" / "svm.py").write_text(
        '"""A module."""\n'
        "from torch_svm_seg.expansion.expander import SVMExpander\n"
        "import torch_svm_seg.tensors\n"
        "class SVM:\n"
        '    """A class.\n\n    >>> SVM()\n    """\n'
        "    def __init__(self, a, *, b=1): pass\n"
        "    def fit(self, x, y):\n"
        '        """Fit\n        two lines."""\n'
        "        return x\n"
        "    def _hidden(self): pass\n"
        "def gap(x):\n"
        "    return x\n"
    )
    modules = house.read_modules(tmp_path)
    (module,) = modules
    assert module.lines == 16 and module.folder == module.level == "svm"
    assert module.undocumented() == ["gap"] and house.share_documented(modules) == 3 / 4
    assert module.without_example() == ["gap"]
    assert house.lengths(modules) == [2, 1, 2, 1]  # gap, __init__, fit, _hidden
    assert dict(module.callables) == {"SVM.__init__": 2, "SVM.fit": 2, "gap": 1}
    assert house.upward_imports(modules) == ["svm/svm.py imports expansion"]
    assert house.percentile_95(list(range(1, 101))) == 95
