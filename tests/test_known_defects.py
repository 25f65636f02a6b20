"""Every defect of the published code that this loop must not repeat has a test that carries its number."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DEFECTS = {
    1: "missing is a set difference on activations",
    2: "coverage is measured at the SAE's own sparsity",
    3: "no sample counts unless its target fires, by words of its own, and no test holds it",
    4: "texts and features join by key",
    5: "a failed pair is a state",
    6: "no missing feature is dropped silently",
    7: "anchor and seed passes never overwrite each other",
    8: "an error is never mistaken for the early stop",
    9: "no mark of the generator reaches the model or a classifier",
    10: "real positives, generated negatives and a probe show whether a class is only its origin",
    16: "a task says which sign its features have",
    20: "one seed feeds every draw",
    21: "a span contains its peak",
    22: "content is found from the template's offsets",
    23: "an explanation is kept whole",
    24: "cannot tell is an outcome, never a text to look for",
    25: "one frame for all judges, the rubric its only variable",
    26: "a verdict that cannot be read is a state of its own",
    27: "text that mentions Human: is not parsed again",
    28: "no row is lost to a lone quote",
    29: "a pair needs contrast, and no corpus span takes its place",
    30: "what belongs to a sample is a typed field",
    31: "proper roles, a generation prompt and seeds; headers and prefixes never leak into texts",
    32: "examples pass the checks of what they are examples of",
    33: "replies are validated, never cut or split into shape",
    34: "failures are recorded by what made them",
    35: "always-on features are left out",
    36: "training follows its own length, names its metrics and keeps its end",
    37: "one number names one layer everywhere",
    43: "retries end, and a dead key ends them at once",
    44: "activations are written in whole shards, of any family of models",
    45: "a corpus is only read, to its last character",
    46: "a model is hooked, never rewritten",
    47: "judges are named and their answers kept",
    48: "a checkpoint runs no code",
}


def named_tests(folder: Path) -> dict[int, list[str]]:
    """Defect number to the tests named after it, each of which must assert or raise something."""
    found: dict[int, list[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_defect_"):
                number = int(node.name.split("_")[2])
                checks = [n for n in ast.walk(node) if isinstance(n, ast.Assert) or "raises" in ast.unparse(n)]
                assert checks, f"{node.name} in {path.name} checks nothing"
                found.setdefault(number, []).append(node.name)
    return found


@pytest.mark.parametrize("number", DEFECTS, ids=[f"{number}: {what}" for number, what in DEFECTS.items()])
def test_a_known_defect_has_a_test_named_after_it(number):
    assert named_tests(TESTS).get(number), f"write a test named test_defect_{number}_… that shows: {DEFECTS[number]}"


def test_the_search_finds_only_tests_with_checks(tmp_path):
    (tmp_path / "test_a.py").write_text("def test_defect_99_x():\n    assert 1 == 1\n")
    assert named_tests(tmp_path) == {99: ["test_defect_99_x"]}
    (tmp_path / "test_b.py").write_text("def test_defect_98_y():\n    pass\n")
    with pytest.raises(AssertionError, match="checks nothing"):
        named_tests(tmp_path)
