"""Who may import whom, read from the syntax trees; and what an import pulls in, seen from a fresh process."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"lyra_core": "lyra_core", "lyra_tasks": "tasks/lyra_tasks", "lyra_worlds": "exts/lyra_worlds/lyra_worlds"}
BASE = {"", "types", "errors", "config", "backends", "camera", "io", "rays"}
STAGES = {"photo", "depth", "memory", "generate", "surface", "splats", "usd", "navigation", "physics", "scenes", "jobs", "batch",
          "report"}
JOINS = {"world", "build", "build_files", "segments", "stages", "pipeline", "variations", "training", "imports", "exports"}
TOP = {"cli", "commands", "models_command", "export_command", "import_command", "doctor", "demo", "ranks", "__main__"}
MAY_USE = {"lyra_core": {"lyra_core"}, "lyra_tasks": {"lyra_core", "lyra_tasks"}, "lyra_worlds": set(SOURCES)}
OMNIVERSE = {"omni", "carb", "isaacsim"}
HEAVY = {"torch", "pxr", "mujoco", "newton", "warp", "embreex", "open3d", "diffusers", "transformers", "imageio", "ovphysx"}
TORCH = {"torch", "diffusers", "transformers"}
TORCH_PACKAGES = ("lyra_core/generate/lyra2/", "lyra_core/training/")


def heavy_allowed(file: str) -> set[str]:
    """Return the heavy packages that a file may import at its top: those that it is about."""
    # Warp reads a kernel's source when its module is imported, so kernels need modules that import it at the top.
    if re.fullmatch(r"_warp_\w*kernels\.py", Path(file).name):
        return {"warp"}
    about_torch = file.startswith(TORCH_PACKAGES) or Path(file).name.startswith("_torch_")
    return TORCH if about_torch and not file.endswith("__init__.py") else set()


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, int]]:
    """Yield (absolute module, line) of every import anywhere in a module; package is what its relative imports start from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            # `from lyra_core import stages` names the module stages, not only its package.
            yield from ((f"{module}.{alias.name}" if module in SOURCES else module, node.lineno) for alias in node.names)


def module_level(tree: ast.Module) -> ast.Module:
    """Return the part that runs on import: function bodies and TYPE_CHECKING blocks are left out."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            if "TYPE_CHECKING" in ast.unparse(node.test):
                return [statement for part in node.orelse for statement in [self.visit(part)] if statement]
            return self.generic_visit(node)

    return Strip().visit(tree)


def layer(module: str) -> str:
    """Return the first name below the top package: 'lyra_core.usd.stage' -> 'usd'."""
    return (module.split(".") + [""])[1]


def core_fault(where: str, target: str) -> str | None:
    """Say why a module of layer ``where`` may not import layer ``target``, or None."""
    if target not in BASE | STAGES | JOINS | TOP:
        return None if target == "__version__" else f"unknown layer {target!r}; name it in this test"
    if where in BASE and target not in BASE:
        return "base imports only base"
    if where in STAGES and target not in BASE | {where}:
        return "stage packages import only base and themselves"
    if where in JOINS and target in TOP:
        return "the pipeline does not know the command line"
    return None


def faults(root: Path) -> list[str]:
    """Return every forbidden import below root as 'file:line: ...'."""
    found = []
    for package, folder in SOURCES.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = [package, *path.relative_to(root / folder).with_suffix("").parts]
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            tree = ast.parse(path.read_text(encoding="utf-8"))
            parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
            for target, line in imports(tree, parent):
                top = target.split(".")[0]
                at = f"{path.relative_to(root)}:{line}: imports {target}"
                if top in SOURCES and top not in MAY_USE[package]:
                    found.append(f"{at}: exts -> lyra_tasks -> lyra_core, never back")
                elif top in OMNIVERSE and package != "lyra_worlds":
                    found.append(f"{at}: only the extension imports Omniverse")
                elif package == top == "lyra_core" and name != package and (why := core_fault(layer(name), layer(target))):
                    found.append(f"{at}: {why}")
            allowed = heavy_allowed(str(path.relative_to(root)))
            for target, line in imports(module_level(tree), parent):
                if target.split(".")[0] in HEAVY - allowed:
                    found.append(f"{path.relative_to(root)}:{line}: imports {target} on import; do it inside the function")
                elif name == "lyra_core" and target.split(".")[0] == "lyra_core":
                    found.append(f"{path.relative_to(root)}:{line}: imports {target} on import; the package names it lazily")
    return found


def test_every_import_goes_down() -> None:
    assert faults(ROOT) == []


def test_every_module_has_a_layer() -> None:
    names = {path.name if path.is_dir() else path.stem for path in (ROOT / "lyra_core").iterdir() if path.suffix in ("", ".py")}
    names -= {"__pycache__", "__init__"}
    assert not names - (BASE | STAGES | JOINS | TOP), "name them in BASE, STAGES, JOINS or TOP of this test"


@pytest.mark.parametrize(("file", "code", "why"), [
    ("lyra_core/types.py", "from lyra_core.usd.stage import write_stage", "base imports only base"),
    ("lyra_core/io/x.py", "def f():\n    import lyra_core.pipeline", "base imports only base"),
    ("lyra_core/usd/x.py", "from lyra_core import navigation", "only base and themselves"),
    ("lyra_core/usd/x.py", "from ..surface import mesh", "only base and themselves"),
    ("lyra_core/usd/x.py", "from lyra_core.world import World", "only base and themselves"),
    ("lyra_core/pipeline.py", "from lyra_core.cli import main", "command line"),
    ("lyra_core/cli.py", "from lyra_tasks.play import play", "never back"),
    ("lyra_core/new_thing.py", "import lyra_core.another_thing", "unknown layer"),
    ("tasks/lyra_tasks/x.py", "def f():\n    from lyra_worlds import jobs", "never back"),
    ("tasks/lyra_tasks/x.py", "import carb", "only the extension"),
    ("lyra_core/usd/x.py", "from pxr import Usd", "inside the function"),
    ("lyra_core/usd/x.py", "try:\n    import torch\nexcept ImportError:\n    torch = None", "inside the function"),
    ("lyra_core/rays/_warp_kernels.py", "import torch", "inside the function"),
    ("lyra_core/__init__.py", "from lyra_core.pipeline import build_world", "lazily"),
    ("lyra_core/__init__.py", "from .types import Camera", "lazily"),
])
def test_planted_faults_are_found(tmp_path: Path, file: str, code: str, why: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    found = faults(tmp_path)
    assert found and all(why in text and file in text for text in found)


@pytest.mark.parametrize(("file", "code"), [
    ("lyra_core/usd/x.py", "def f():\n    from pxr import Usd"),
    ("lyra_core/usd/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pxr import Usd"),
    ("lyra_core/usd/x.py", "from lyra_core.types import Frame\nfrom lyra_core.usd import stage\nfrom . import stage"),
    ("lyra_core/pipeline.py", "from lyra_core import stages, __version__"),
    ("lyra_core/__init__.py", "if TYPE_CHECKING:\n    from lyra_core.pipeline import build_world"),
    ("lyra_core/cli.py", 'VERBS = {"play": "lyra_tasks.play:play"}'),
    ("lyra_core/rays/_warp_kernels.py", "import warp as wp"),
    ("tasks/lyra_tasks/x.py", "from lyra_core.usd.stage import write_stage"),
])
def test_allowed_imports_pass(tmp_path: Path, file: str, code: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert faults(tmp_path) == []


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that sees the packages."""
    paths = [str(ROOT), str(ROOT / "tasks"), str(ROOT / "exts/lyra_worlds")]
    setup = f"import sys; sys.path[:0] = {paths!r}\n"
    return subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True, timeout=120, cwd=ROOT)


@pytest.mark.parametrize("code", [
    "import lyra_core",
    "import lyra_core.world, lyra_core.config, lyra_core.backends",
    "from lyra_core.cli import main; main(['--help'])",
    "from lyra_core.cli import main\ntry:\n    main(['create', '--help'])\nexcept SystemExit:\n    pass",
    "import lyra_core.doctor, lyra_core.demo",
])
def test_import_and_help_stay_light(code: str) -> None:
    done = run_python(f"import json\n{code}\nprint(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    loaded = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & (HEAVY | {"cv2", "scipy", "skimage", "trimesh", "gymnasium"})


BLOCKED = ("pxr", "torch", "embreex", "newton", "mujoco", "usd_validation_nvidia")
MIRROR = f"""
import importlib.abc
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] in {BLOCKED!r} else real(name, package)
sys.meta_path.insert(0, Absent())
"""


def test_an_install_without_usd_torch_and_embree_imports_everything() -> None:
    walk = """
import importlib, json, pkgutil
import lyra_core, lyra_tasks
for package in (lyra_core, lyra_tasks):
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        about_torch = ".lyra2." in info.name or ".training." in info.name or "._torch_" in info.name
        if not about_torch and not info.name.endswith("__main__"):
            importlib.import_module(info.name)
print("all imported")
"""
    done = run_python(MIRROR + walk)
    assert done.returncode == 0, done.stderr
    assert "all imported" in done.stdout


def test_an_install_without_them_says_what_is_missing() -> None:
    done = run_python(MIRROR + "from lyra_core.cli import main; sys.exit(main(['doctor', '--json']))")
    assert done.returncode == 1, done.stderr  # no world can be made without OpenUSD
    checks = {(c["area"], c["name"]): c for c in json.loads(done.stdout)["checks"]}
    assert not checks["usd", "OpenUSD"]["works"] and checks["usd", "OpenUSD"]["install"] == "pip install 'lyra-worlds[standalone]'"
    assert not checks["rays", "embree"]["works"] and checks["rays", "embree"]["install"] == "pip install embreex"
    assert checks["rays", "warp"]["works"]


def test_create_without_usd_names_the_extra(tmp_path: Path) -> None:
    arguments = ["create", str(ROOT / "lyra_core/scenes/data/demo_room.jpg"), "-o", str(tmp_path / "w"), "--quiet"]
    done = run_python(MIRROR + f"from lyra_core.cli import main; sys.exit(main({arguments!r}))")
    assert done.returncode == 2
    assert "pip install 'lyra-worlds[standalone]'" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "w").exists()
