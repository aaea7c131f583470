"""Who may import whom: beat_schedule → acp_tasks → middleware → operations → store → core, never back.

What they share stands as low as core does, and core is pure: no clock, no IO, no randomness.
"""

import ast
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
# All that core may import besides its own kind: it computes, from what it is given alone.
PURE = (
    "bisect",
    "collections",
    "dataclasses",
    "datetime",
    "decimal",
    "enum",
    "fnmatch",
    "fractions",
    "functools",
    "hashlib",
    "hmac",
    "json",
    "math",
    "operator",
    "re",
    "typing",
    "zoneinfo",
)
# What asks the world although no such import is needed, or one that is pure otherwise.
IMPURE_CALLS = ("open", "input", "print", "eval", "exec", "__import__", "now", "utcnow", "today")


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


def calls(path: Path) -> Iterator[str]:
    """What is called, by its last name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr


def layer(module: str) -> int | None:
    if module in SHARED:
        return 0
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
            if top not in ("governance", *PURE):
                found.append(f"{module} imports {name}: of what is not governance's, core imports only what is pure")
            if top == "governance" and not name.startswith(("governance.core", "governance.errors")):
                found.append(f"{module} imports {name}: of governance, core imports governance.errors only")
    return found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_down(path: Path) -> None:
    assert violations(name_of(path), set(imports(path))) == []


@pytest.mark.parametrize("path", [path for path in modules() if name_of(path).startswith(ORDER[0])], ids=name_of)
def test_core_asks_nobody_for_the_time_or_a_file(path: Path) -> None:
    assert set(calls(path)) & set(IMPURE_CALLS) == set()


def test_what_is_called_is_found(tmp_path: Path) -> None:
    asking = tmp_path / "asking.py"
    asking.write_text("from datetime import UTC, datetime\n\n\ndef f():\n    return open(str(datetime.now(UTC)))\n")
    assert set(calls(asking)) & set(IMPURE_CALLS) == {"open", "now"}


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("governance.core.admit", "governance.store.engine"),
        ("governance.core.admit", "sqlalchemy"),
        ("governance.core.admit", "governance.clock"),
        *(
            ("governance.core.admit", name)
            for name in ("io", "os.path", "pathlib", "random", "socket", "sqlite3", "time")
        ),
        ("governance.config", "governance.store.engine"),
        ("governance.policy_model.rules", "governance.operations.submit"),
        ("governance.clock", "beat_schedule"),
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
    homeless = [n for n in map(name_of, modules()) if layer(n) is None and n != "governance"]
    assert homeless == []
