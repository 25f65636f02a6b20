import json

import pyarrow as pa
import pytest

from facviz.store.manifest import Scope
from facviz.store.schema import TABLES, rows_to_arrow
from facviz.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.create(tmp_path / "ws")


@pytest.fixture
def dataset_rows():
    """A `dataset` table of these names."""

    def build(*names):
        return rows_to_arrow("dataset", [{"dataset_id": f"id-{n}", "name": n} for n in names])

    return build


@pytest.fixture
def names_in():
    """Names of the datasets a fresh reader sees, in its order."""

    def read(workspace):
        with workspace.reader() as reader:
            return [row["name"] for row in reader.rows("datasets")]

    return read


@pytest.fixture
def full_workspace(workspace):
    """Two shards with two rows each in every table, of values that differ by row."""
    for table, schema in TABLES.items():
        for shard in range(2):
            rows = [{f.name: value_of(f.type, f.name, 2 * shard + i) for f in schema} for i in range(2)]
            workspace.manifest.write_shard(
                Scope("stage", table, "f" * 16), table, str(shard), rows_to_arrow(table, rows)
            )
    return workspace


def value_of(kind, name, i):
    if pa.types.is_list(kind):
        return [value_of(kind.value_type, name, i), value_of(kind.value_type, name, i + 1)]
    if pa.types.is_struct(kind):
        return {f.name: value_of(f.type, f.name, i) for f in kind}
    if pa.types.is_boolean(kind):
        return i % 2 == 0
    if name == "gates":  # a query looks inside
        return json.dumps({"credited": [i]})
    if pa.types.is_string(kind):
        return "id" if name.endswith("_id") or name in ("mode", "task") else f"{name} 'é' {i}"
    return i + 0.5 if pa.types.is_floating(kind) else i
