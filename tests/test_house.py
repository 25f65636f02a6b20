"""Rules of the house that a program can check: light imports, honest public names, small files, one glossary."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import facviz

PACKAGE = Path(facviz.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
HEAVY = ("torch", "streamlit", "duckdb", "pandas", "transformers", "anthropic", "sentence_transformers")
MAX_LINES, MAX_FUNCTION_LINES = 400, 60
FORBIDDEN = re.compile(r"neuron|latent|hookpoint|d_hide|NeuronID|FinalDecision", re.IGNORECASE)


def loaded_after(run_python, program: str) -> set[str]:
    """Which heavy packages a fresh process holds after running a program text."""
    report = f"\nimport sys\nprint('LOADED', *(name for name in {HEAVY!r} if name in sys.modules))"
    return set(run_python(program + report).splitlines()[-1].split()[1:])


def test_the_import_check_sees_what_is_loaded(run_python):
    assert loaded_after(run_python, "import duckdb") >= {"duckdb"}


def test_importing_facviz_loads_nothing_heavy(run_python):
    assert loaded_after(run_python, "import facviz") == set()


def test_asking_for_help_loads_nothing_heavy_and_names_the_commands(run_python):
    program = """
import runpy, sys
sys.argv = ["facviz", "--help"]
try:
    runpy.run_module("facviz", run_name="__main__", alter_sys=True)
except SystemExit as stopped:
    assert not stopped.code, stopped.code
"""
    assert loaded_after(run_python, program) == set()
    assert "coverage" in run_python(program)


def test_measuring_coverage_needs_no_torch(run_python):
    assert "torch" not in loaded_after(run_python, "import facviz.coverage\nfacviz.compute_fac")


def test_every_public_name_resolves():
    assert len(facviz.__all__) == len(set(facviz.__all__)) > 10
    for name in facviz.__all__:
        assert getattr(facviz, name) is not None
    assert set(dir(facviz)) == set(facviz.__all__)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no public name 'compute_fax'"):
        _ = facviz.compute_fax


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_says_what_it_owns_and_stays_small(path):
    assert ast.get_docstring(TREES[path]), "no module docstring"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    functions = [n for n in ast.walk(TREES[path]) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: n for f in functions if (n := (f.end_lineno or 0) - f.lineno + 1) > MAX_FUNCTION_LINES}
    assert long == {}


def identifiers(tree: ast.Module) -> Iterator[str]:
    """Every name a file binds or uses; strings and comments are no identifiers."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value
        if isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names


def test_the_identifier_walk_sees_every_kind_of_name():
    program = """
import a.b as c
from d import e as f
def g(h, *i, j=1, **k) -> l:
    global m
    n.o = p[q]
    r(s=t)
class u(v): w: x = 1
try: ...
except y as z: ...
lambda aa: aa
"""
    found = set(identifiers(ast.parse(program)))
    assert found >= {*"cdefghijklmnopqrstuvwxyz", "a.b", "aa"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_identifiers_keep_to_the_glossary(path):
    assert {n for n in identifiers(TREES[path]) if FORBIDDEN.search(n)} == set()
