"""Who may import whom: beat_schedule → acp_tasks → middleware → operations → store → core, never back."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = (
    "governance.core",
    "governance.store",
    "governance.operations",
    "governance.middleware",
    "acp_tasks",
    "beat_schedule",
)
SHARED = (
    "governance.errors",
    "governance.clock",
    "governance.config",
    "governance.faults",
    "governance.directory_file",
    "governance.policy_file",
    "governance.policy_model",
    "governance.policy_model.budgets",
    "governance.policy_model.models",
    "governance.policy_model.rules",
    "governance.policy_model.streams",
    "governance.policy_model.values",
    "governance.policy_problems",
    "governance.price_table",
    "governance.tracing",
    "governance.yaml_document",
    "governance.cel",
)


def modules() -> list[Path]:
    found = [*ROOT.glob("governance/**/*.py"), *ROOT.glob("acp_tasks/**/*.py"), ROOT / "beat_schedule.py"]
    return [path for path in found if "versions" not in path.parts]


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int | None:
    return next((ORDER.index(name) for name in ORDER if module == name or module.startswith(f"{name}.")), None)


def violations(module: str, imported: set[str]) -> list[str]:
    found = []
    mine = layer(module)
    for name in sorted(imported):
        theirs = layer(name)
        if mine is not None and theirs is not None and theirs > mine:
            found.append(f"{module} imports {name}, which stands above it")
        if module.startswith("governance") and name.split(".")[0] in ("celery", "kombu", "acp_tasks"):
            found.append(f"{module} imports {name}: governance knows no Celery")
        if module.startswith("acp_tasks.cli") and (name == "governance.store" or name.startswith("governance.store.")):
            found.append(f"{module} imports {name}: the command line calls operations, never the store")
        if module.startswith("governance.core"):
            top = name.split(".")[0]
            if top != "governance" and top not in sys.stdlib_module_names:
                found.append(f"{module} imports {name}: core imports the standard library only")
            if top == "governance" and not name.startswith(("governance.core", "governance.errors")):
                found.append(f"{module} imports {name}: of governance, core imports governance.errors only")
    return found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    assert violations(name_of(path), set(imports(path))) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("governance.core.admit", "governance.store.engine"),
        ("governance.core.admit", "sqlalchemy"),
        ("governance.core.admit", "governance.clock"),
        ("governance.operations.admit", "celery"),
        ("governance.store.engine", "governance.operations.submit"),
        ("acp_tasks.app", "beat_schedule"),
        ("acp_tasks.cli.actions", "governance.store.actions"),
        ("acp_tasks.cli.actions", "governance.store"),
    ],
)
def test_the_rule_finds_what_it_forbids(module: str, imported: str) -> None:
    assert violations(module, {imported})


def test_every_module_has_a_place() -> None:
    homeless = [n for n in map(name_of, modules()) if layer(n) is None and n not in SHARED and n != "governance"]
    assert homeless == []
