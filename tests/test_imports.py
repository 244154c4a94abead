"""Imports only go down, or stay in their own folder: circles cannot appear."""

import ast
from pathlib import Path

import pytest

import kd_lightning

ROOT = Path(kd_lightning.__file__).parent
LAYERS = {
    "base": 0,
    "losses": 1, "uncertainty": 1, "config": 1, "records": 1,
    "models": 2, "data": 2, "trackers": 2, "launchers": 2, "reports": 2,
    "methods": 3, "callbacks": 3, "teachers": 3,
    "teacher_cache": 4, "evaluation": 4, "students": 4,
    "running": 5, "exports": 5, "predictions": 5,
    "sweeps": 6,
}  # fmt: skip
COMMANDS = 7
FOR_METHODS = {  # no net
    f"models.{name}" for name in ("outputs", "stochastic", "classifier", "layer_outputs", "modes")
} | {"models.net_stages"}
FOR_METHODS |= {f"models.{name}" for name in ("feature_pyramid", "map_layers", "stage_branches")}
FOR_METHODS |= {"models.diffusion", "models.denoisers"}
FOR_METHODS |= {f"models.{name}" for name in ("areas", "feature_policy", "map_operations")}
FOR_METHODS |= {f"models.{name}" for name in ("map_regressor", "net_stages", "relaxed_policy")}
FOR_METHODS |= {"models.review_fusion", "models.averages"}
FILES = sorted(ROOT.rglob("*.py"))


def folder_and_layer(module):
    """Of a module, by its dotted name below kd_lightning ("" is the package itself)."""
    folder, inside, _ = module.partition(".")
    if folder in LAYERS:
        return folder, LAYERS[folder]
    assert not inside, f"the folder {folder} has no layer yet: give it one in LAYERS"
    if module == "":
        return "base", LAYERS["base"]
    assert '__name__ == "__main__"' in (ROOT / f"{module}.py").read_text(), (
        f"{module}.py is no command: the root holds commands alone"
    )
    return "commands", COMMANDS


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path):
    """The modules of ours that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, name = name.partition(".")
            if package == "kd_lightning":
                yield name if is_module(name) else name.rpartition(".")[0]


def fault(module, imported):
    """Why ``module`` may not import ``imported``; None if it may."""
    folder, layer = folder_and_layer(module)
    target, target_layer = folder_and_layer(imported)
    if module == "" and imported in ("running.run", "students.load"):
        return None  # kd_lightning.distill and load, imported when they are first asked for
    if folder in ("base", "losses", "uncertainty") and target != folder:
        return f"{folder} imports nothing of ours from elsewhere"
    if target_layer >= layer and target != folder:
        return "an import upwards or sideways"
    if folder == "methods" and (
        target == "data" or (target == "models" and imported not in FOR_METHODS)
    ):
        return "methods know neither data nor a concrete net"
    return None


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_go_down(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__")
    module = module.removesuffix(".")
    faults = {name: fault(module, name) for name in imports(path)}
    assert not {name: why for name, why in faults.items() if why}


@pytest.mark.parametrize(
    ("module", "imported", "allowed"),
    [
        ("losses.features", "base.errors", False),
        ("losses.features", "losses.labels", True),
        ("uncertainty.samples", "losses.features", False),
        ("models.timm_nets", "models.outputs", True),
        ("models.timm_nets", "data.loading.batches", False),
        ("data.digits", "methods.base", False),
        ("data.digits", "base.streams", True),
        ("methods.kd", "methods.base", True),
        ("methods.kd", "losses.soft_targets", True),
        ("methods.kd", "models.timm_nets", False),
        ("methods.kd", "models", False),
        ("methods.kd", "data.loading.batches", False),
        ("base.errors", "data.digits", False),
    ],
)
def test_faults_are_found(module, imported, allowed):
    assert (fault(module, imported) is None) == allowed


def test_the_root_holds_few_files():
    assert len(list(ROOT.glob("*.py"))) <= 12


def test_all_forms_of_import_are_seen(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(
        "import kd_lightning.base.errors\nfrom kd_lightning.base import streams\n"
        "from kd_lightning import __version__\n"
        "def f():\n    from kd_lightning.data.digits import Digits\n    import torch\n"
    )
    assert sorted(imports(path)) == ["", "base.errors", "base.streams", "data.digits"]
