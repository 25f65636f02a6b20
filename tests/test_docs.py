"""The docs say what is there: every flag, every setting, the tree of the README, and no link into nothing."""

import argparse
import dataclasses
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from facviz import config
from facviz.cli.parser import build_parser
from facviz.config import RunConfig, load_run_config
from facviz.prompts import task_names

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(
    {*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), REPOSITORY / "data/README.md", REPOSITORY / "benchmarks/README.md"}
)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TREE_LINE = re.compile(r"(?P<indent> *)(?P<names>\S+(?: \S+)*?)(?:  +.*)?")
CONFIGS = [value for name in config.__all__ if dataclasses.is_dataclass(value := getattr(config, name))]


def commands(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All sub-commands with their parsers, `sae train` included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield f"{path}{name}", inner
                yield from commands(inner, f"{path}{name} ")


COMMANDS = dict(commands(build_parser()))


def section_of(page: str, heading: str) -> str:
    """The text below a heading, up to the next of the same or a higher level."""
    parts = re.split(r"^(#+ .+)$", page, flags=re.MULTILINE)
    for title, text in zip(parts[1::2], parts[2::2]):
        if title.lstrip("# ").strip() == heading:
            return text
    raise AssertionError(f"no heading {heading!r}")


def anchors_of(page: str) -> set[str]:
    """What `#…` links on the page may name, by GitHub's rule."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in HEADING.findall(page)}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_command_line_page_explains_every_sub_command_and_flag(command):
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    section = section_of(page, f"facviz {command.split()[0]}")
    assert f"facviz {command}" in page
    for action in COMMANDS[command]._actions:
        for flag in action.option_strings:
            common = flag in ("-h", "--help", "--workspace", "--json", "--wait", "--quiet", "--rng-seed")
            text = page if common or command == "synthesize" else section
            assert flag == "-h" or re.search(rf"`{flag}[` ]", text), f"{command} {flag}"
        for choice in action.choices or () if action.option_strings else ():
            assert f"`{choice}`" in section or command == "synthesize", f"{command} {choice}"


def test_the_command_line_page_names_no_flag_that_does_not_exist():
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    known = {flag for parser in COMMANDS.values() for action in parser._actions for flag in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page)) <= known | {"--version"}
    assert {heading.split()[1] for heading in HEADING.findall(page) if heading.startswith("facviz ")} == {
        command.split()[0] for command in COMMANDS
    }


def test_the_command_line_page_names_environment_and_exit_codes():
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for name in ("FACVIZ_WORKSPACE", "FACVIZ_CACHE", "HF_HUB_OFFLINE", "OMP_WAIT_POLICY"):
        assert name in section_of(page, "Environment")
    assert re.findall(r"^\| (\d) \|", section_of(page, "Exit codes"), re.MULTILINE) == ["0", "1", "2"]


def table_of(cls: type) -> dict[str, str]:
    """Setting to default, as the configuration page shows them for one config class."""
    stages = {f.name for f in dataclasses.fields(RunConfig)} - {"task", "datasets"}
    headings = {f"{name.title()}Config": f"`[{name}]`" for name in stages}
    headings |= {"ScoreConfig": "`facviz score`"}
    headings |= {"DatasetConfig": "`[[datasets]]`", "SampleConfig": "`[datasets.sample]`", "RunConfig": "Top level"}
    section = section_of((DOCS / "configuration.md").read_text(encoding="utf-8"), headings[cls.__name__])
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", section, re.MULTILINE)
    return {key: default.strip("`") for keys, default in rows for key in re.findall(r"`(\w+)`", keys)}


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_the_configuration_page_explains_every_setting_in_its_table(cls):
    assert set(table_of(cls)) == {f.name for f in dataclasses.fields(cls)}


def test_all_configurations_are_looked_at():
    assert len(CONFIGS) == 13


@pytest.mark.parametrize("cls", CONFIGS, ids=lambda cls: cls.__name__)
def test_the_configuration_page_shows_the_defaults_in_force(cls):
    for f in dataclasses.fields(cls):
        shown = table_of(cls)[f.name]
        if isinstance(f.default, bool):
            assert shown == str(f.default).lower(), f.name
        elif isinstance(f.default, (int, float)):
            assert float(Fraction(shown)) == f.default, f.name
        elif isinstance(f.default, str) and f.default:
            assert shown.strip('"') == f.default, f.name
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            assert shown == "–", f.name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_every_relative_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors_of(file.read_text(encoding="utf-8")), target


def tree_entries() -> Iterator[str]:
    """Paths of the README's tree; deeper entries are indented by two spaces a level."""
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"```\n(.*?)```", section_of(page, "What is where"), re.DOTALL)
    above: list[str] = []
    for line in tree[1].splitlines():
        match = TREE_LINE.fullmatch(line)
        del above[len(match["indent"]) // 2 :]
        names = match["names"].split()
        yield from ("".join([*above, name]) for name in names)
        above.append(names[-1])


def test_the_tree_of_the_readme_is_on_disk_and_complete():
    entries = set(tree_entries())
    assert len(entries) > 30
    for entry in entries:
        path = REPOSITORY / entry
        assert path.is_dir() if entry.endswith("/") else path.is_file(), entry
    package = REPOSITORY / "facviz"
    for path in package.iterdir():
        if path.is_dir() and any(path.glob("*.py")):
            assert f"facviz/{path.name}/" in entries
        elif path.suffix == ".py":
            assert f"facviz/{path.name}" in entries


def test_every_decision_record_is_listed_and_has_its_number():
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    records = sorted((DOCS / "adr").glob("*.md"))
    for number, record in enumerate(records, start=1):
        assert record.name.startswith(f"{number:04d}-")
        assert record.read_text(encoding="utf-8").startswith(f"# {number}. ")
        assert f"(adr/{record.name})" in page


def test_the_architecture_page_names_every_table_and_layer():
    from facviz.store.schema import TABLES

    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert not [table for table in TABLES if f"`{table}`" not in page]
    layers = re.search(r'name = "Layers:.*?layers = \[(.*?)\]', (REPOSITORY / "pyproject.toml").read_text(), re.DOTALL)
    drawn = section_of(page, "Layers")
    for layer in re.findall(r'"([^"]+)"', layers[1]):
        assert layer.replace("facviz.", "") in drawn, layer


@pytest.mark.parametrize("name", ["small", "toxicity"])
def test_an_example_is_a_valid_configuration(name, monkeypatch, tmp_path):
    monkeypatch.setenv("FACVIZ_DATA", str(tmp_path))
    run = load_run_config(DOCS / "examples" / f"{name}.toml")
    assert run.task in task_names()
    assert f"{name}.toml" in (DOCS / "examples" / "README.md").read_text(encoding="utf-8")
