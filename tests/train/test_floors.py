"""The floors of train: a module imports only from floors below its own, so there is no circle."""

import ast
from pathlib import Path

import train

ROOT = Path(train.__file__).parent
FLOORS = [
    ("drn",),
    ("distributed", "schedules", "networks", "device"),
    (
        "records",
        "batch_norm",
        "optim",
        "signals",
        "features",
        "saliency.loss",
        "recipe_program",
        "detect.voc",
        "detect.masks",
        "detect.statistics",
    ),
    ("detect.objects", "detect.network", "detect.coco"),
    ("detect.voc_layout", "detect.coco_layout", "detect.photos", "detect.config"),
    ("safetensors", "saliency.network", "saliency.workers"),
    ("checkpoint", "foreign", "monitor", "neighbours", "method", "saliency.config"),
    ("export_formats", "writer", "ranks"),
    ("export", "saliency.photos", "saliency.average"),
    ("saliency.stages", "detect.trunk"),
    ("saliency.trainer", "detect.trainer"),
    ("saliency.training", "detect.training"),
    ("saliency.__main__", "detect.__main__"),
    ("methods.moco", "methods.byol", "methods.swav", "methods.rotnet", "methods.supervised", "methods.probe"),
    ("methods",),
    ("config",),
    ("initial", "trainer", "import_weights", "check"),
    ("checkpointer", "speed"),
    ("loop", "health"),
    ("evaluate.backbone", "evaluate.labels", "evaluate.heads", "evaluate.background_gap", "__main__"),
    ("evaluate.summary", "evaluate.robustness.protocol", "evaluate.robustness.results"),
    (
        "evaluate.robustness.imagenet",
        "evaluate.robustness.scores",
        "evaluate.robustness.fgsm",
        "evaluate.robustness.run",
    ),
    ("evaluate.robustness.source",),
    (
        "evaluate.robustness.class_folders",
        "evaluate.robustness.real",
        "evaluate.robustness.objectnet",
        "evaluate.robustness.corrupted",
        "evaluate.robustness.cue_conflict",
    ),
    ("evaluate.robustness.sets",),
    ("evaluate.classifier",),
    ("evaluate.fast", "evaluate.probe"),
    ("evaluate.robustness.networks",),
    ("evaluate.report.columns", "evaluate.report.recipes"),
    ("evaluate.report.runs",),
    ("evaluate.report.results", "evaluate.report.paper"),
    ("evaluate.report.table",),
    ("evaluate.report.page", "evaluate.report.picture"),
    ("evaluate.report.program",),
    ("evaluate.robustness.command",),
    ("evaluate.__main__",),
]


def _imports(path: Path, modules: set[str]) -> set[str]:
    """The modules of train that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in members if name.removeprefix("train.") in modules} or {node.module}
    return {name.removeprefix("train.") for name in found if name.startswith("train.")}


def test_modules_import_from_lower_floors_only() -> None:
    floors = {module: number for number, floor in enumerate(FLOORS) for module in floor}
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in ROOT.rglob("*.py")
    }
    modules = {
        module: path
        for module, path in paths.items()
        if module
        not in ("__init__", "evaluate", "evaluate.report", "evaluate.robustness", "saliency", "detect")
    }
    assert set(modules) == set(floors)
    edges = {(module, other) for module, path in modules.items() for other in _imports(path, set(modules))}
    assert len(edges) > 100
    upward = {f"{module} imports {other}" for module, other in edges if floors[module] <= floors[other]}
    assert upward == set()


def test_the_loop_knows_nothing_of_evaluation() -> None:
    found = _imports(ROOT / "loop.py", set())
    assert "trainer" in found
    assert not any(name.startswith("evaluate") for name in found)
