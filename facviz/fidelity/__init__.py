"""An SAE in its model: what splicing its reconstructions in costs, and whether it belongs there."""

from facviz.fidelity.health import check_health, health_table
from facviz.fidelity.splice import Fidelity, measure_fidelity, replaced_acts

__all__ = ["Fidelity", "check_health", "health_table", "measure_fidelity", "replaced_acts"]
