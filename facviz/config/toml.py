"""TOML, or any mapping of plain values, into the config dataclasses: unknown keys and wrong types named."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from facviz.config.checks import check_ranges, validate_run
from facviz.config.stages import DatasetConfig, RunConfig
from facviz.errors import InputError

T = TypeVar("T")
_KINDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def load_run_config(path: Path) -> RunConfig:
    """Read and validate a TOML file; paths are relative to it and `${NAME}` is taken from the environment."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no configuration file {path}; give the path of a TOML file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error}); give the path of a TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not valid TOML: {error}.") from error
    config = from_mapping(RunConfig, raw, where=path.name)
    datasets = tuple(_resolve_path(d, path.parent) for d in config.datasets)
    sae = config.sae
    if sae.path:
        sae = dataclasses.replace(sae, path=str(_beside(sae.path, path.parent)))
    backbone = config.backbone
    if backbone.name != "default" and (beside := _beside(backbone.name, path.parent)).exists():
        backbone = dataclasses.replace(backbone, name=str(beside))
    config = dataclasses.replace(config, datasets=datasets, sae=sae, backbone=backbone)
    validate_run(config)
    return config


def from_mapping(cls: type[T], raw: Mapping[str, Any], *, where: str) -> T:
    """Build a config dataclass from plain values, refusing unknown keys and wrong types by name."""
    hints = typing.get_type_hints(cls)
    for key in raw:
        if key not in hints:
            near = difflib.get_close_matches(key, list(hints), n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"known keys: {', '.join(hints)}."
            raise InputError(f"{where}: unknown key `{key}`; {hint}")
    values = {key: _convert(hints[key], value, f"{where}: `{key}`") for key, value in raw.items()}
    required = [f.name for f in dataclasses.fields(cls) if _is_required(f)]  # type: ignore[arg-type]
    for name in required:
        if name not in values:
            raise InputError(f"{where}: `{name}` is missing; add it.")
    config = cls(**values)
    check_ranges(config, where)
    return config


def _is_required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{where} must be a table.")
        return from_mapping(typing.cast(type, hint), value, where=where)
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            raise InputError(f"{where} is {value!r}; choose one of {', '.join(repr(a) for a in get_args(hint))}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where} must be a list.")
        return tuple(_convert(get_args(hint)[0], v, where) for v in value)
    if origin in (typing.Union, types.UnionType):
        options = [a for a in get_args(hint) if a is not type(None)]
        return None if value is None else _convert(options[0], value, where)
    return _convert_plain(hint, value, where)


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**63 else float("inf")
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{where} is {value!r}; it must be {_KINDS[hint]}.")
    return _expand(value, where) if isinstance(value, str) else value


def _expand(value: str, where: str) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise InputError(f"{where} needs the environment variable {name}, which is not set; set it and try again.")
        found = Path(os.environ[name])
        # A relative folder in a variable is meant from where the command runs, not from where the TOML file lies.
        return str(found.resolve()) if match.start() == 0 and found.is_dir() else os.environ[name]

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", replace, value)


def _resolve_path(dataset: DatasetConfig, base: Path) -> DatasetConfig:
    if not dataset.path:
        return dataset
    return dataclasses.replace(dataset, path=str(_beside(dataset.path, base)))


def _beside(path: str, base: Path) -> Path:
    try:
        return (base / Path(path).expanduser()).resolve()
    except RuntimeError as error:
        raise InputError(f"The home folder in {path} does not exist; write the path without `~`.") from error
