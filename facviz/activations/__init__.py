"""Model activations: read at a layer, encoded by an SAE, or captured to train one."""

from facviz.activations.encoder import ALL_ROLES, RENDER_CHUNK, PooledStates, SaeEncoder
from facviz.activations.forward import (
    ContentActs,
    activations_at_layer,
    activations_at_layers,
    content_activations,
    faster_dtype,
    length_batches,
)
from facviz.activations.shards import (
    ActivationShards,
    CapturePlan,
    LiveActivations,
    PackedShards,
    TrainingActivations,
    capture,
    is_held_out,
    plan_capture,
)

__all__ = [
    "ALL_ROLES",
    "RENDER_CHUNK",
    "ActivationShards",
    "CapturePlan",
    "ContentActs",
    "LiveActivations",
    "PackedShards",
    "PooledStates",
    "SaeEncoder",
    "TrainingActivations",
    "activations_at_layer",
    "activations_at_layers",
    "capture",
    "content_activations",
    "faster_dtype",
    "is_held_out",
    "length_batches",
    "plan_capture",
]
