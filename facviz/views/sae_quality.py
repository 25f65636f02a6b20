"""What was measured of SAEs beyond their rows: evaluations by kind, fit to the model, several side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from facviz.store.queries import Queries
from facviz.views.format import UNKNOWN, count, number, percent, short
from facviz.views.sae import Encoding, Row, SaeRow, densities, list_encodings
from facviz.views.sae_charts import DensityCurve, FitPoint

BADGES = {"fits": ("✓", ":material/check_circle:"), "plausible": ("~", ":material/help:")}
BADGES["does not fit"] = ("✗", ":material/cancel:")
"""A sign for tables and an icon for each verdict; the words always stand beside it."""

_MEASURING = ("eval", "heldout")
_EDGES = np.linspace(-7.0, 0.0, 29)  # those that evaluations are stored with


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of an SAE on a data set; `measures` as its kind has them."""

    kind: str
    dataset: str
    at: str
    measures: Row


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether an SAE fits its model, why, and the FVU of every layer and rendering tried, best first."""

    verdict: str
    sentence: str
    table: tuple[FitPoint, ...]
    dataset: str
    n_tokens: int | None

    @property
    def words(self) -> str:
        """Sign and verdict."""
        return f"{BADGES.get(self.verdict, ('', ''))[0]} {self.verdict}".strip()


@dataclass(frozen=True, slots=True)
class Match:
    """How well the features of SAE `a` are found again in `b`."""

    a: str
    b: str
    method: str
    mean_max_cosine: float
    share_matched: float
    n: int


Evaluations = Mapping[str, Sequence[Evaluation]]


def list_evaluations(queries: Queries) -> dict[str, list[Evaluation]]:
    """By sae_id, the newest first; a row whose measures cannot be read is passed over."""
    found: dict[str, list[Evaluation]] = {}
    for row in sorted(queries.rows("sae_evaluations", sae_id=None), key=lambda r: str(r["at"]), reverse=True):
        try:
            measures = json.loads(row["measures"])
        except ValueError:
            continue
        if isinstance(measures, dict):
            made = Evaluation(row["kind"], row["dataset"], str(row["at"]), measures)
            found.setdefault(row["sae_id"], []).append(made)
    return found


def newest(evaluations: Sequence[Evaluation], *kinds: str) -> Evaluation | None:
    """The newest of any of these kinds."""
    return next((e for e in evaluations if e.kind in kinds), None)


def measured(evaluations: Evaluations) -> dict[str, Row]:
    """What `list_saes` takes for SAEs that no training measured: the newest evaluation of each."""
    found = {sae_id: newest(own, *_MEASURING) for sae_id, own in evaluations.items()}
    return {sae_id: e.measures for sae_id, e in found.items() if e is not None}


def fit_of(evaluations: Sequence[Evaluation]) -> Fit | None:
    """The newest health check; None when there was none."""
    check = newest(evaluations, "health")
    if check is None:
        return None
    given, table = check.measures.get("given") or {}, check.measures.get("table") or []
    place = (given.get("layer"), given.get("template"))
    points = [
        FitPoint(
            int(row["layer"]), bool(row["template"]), float(row["fvu"]), row.get("low"), row.get("high"),
            is_given=(row["layer"], row["template"]) == place,
        )
        for row in table
    ]  # fmt: skip
    return Fit(
        str(check.measures.get("verdict", UNKNOWN)),
        str(check.measures.get("sentence", "")),
        tuple(sorted(points, key=lambda p: p.fvu)),
        check.dataset,
        check.measures.get("n_tokens"),
    )


def loss_words(evaluations: Sequence[Evaluation]) -> tuple[str, str]:
    """ΔCE in nats and the CE score against mean-ablation, as a table shows them."""
    found = newest(evaluations, "fidelity")
    if found is None:
        return UNKNOWN, UNKNOWN
    return number(found.measures.get("delta_ce")), percent(found.measures.get("ce_score_mean"))


def side_by_side(rows: Sequence[SaeRow], evaluations: Evaluations) -> list[dict[str, str]]:
    """One row a measure, one column an SAE, on one data set where all were measured on one.

    A measure that nobody took of any of them is left out.
    """
    table, found = [], _comparable([evaluations.get(row.sae_id, ()) for row in rows])
    for label, cell in _MEASURES:
        cells = {row.name: cell(row, own) for row, own in zip(rows, found)}
        if any(value != UNKNOWN for value in cells.values()):
            table.append({"Measure": label, **cells})
    return table


def _comparable(evaluations: Sequence[Sequence[Evaluation]]) -> list[list[Evaluation]]:
    """The same, without measurements of other kinds or on other data sets than the newest that they share."""
    measurements = [[(e.kind, e.dataset) for e in own if e.kind in _MEASURING] for own in evaluations]
    shared = set(measurements[0]).intersection(*measurements[1:])
    kept = next((key for kind in _MEASURING for key in measurements[0] if key in shared and key[0] == kind), None)
    if kept is None:
        return [list(own) for own in evaluations]
    return [[e for e in own if e.kind not in _MEASURING or (e.kind, e.dataset) == kept] for own in evaluations]


def density_curves(
    queries: Queries, rows: Sequence[SaeRow], evaluations: Evaluations, dataset: str
) -> list[DensityCurve]:
    """How often the features of each SAE fire on one data set; SAEs that nobody ran over it are left out."""
    found = []
    for row in rows:
        encoding = next((e for e in list_encodings(queries, row.sae_id) if e.dataset == dataset), None)
        if encoding is not None:
            found.append(_from_stats(queries, row, encoding))
        elif counted := _counted(evaluations.get(row.sae_id, ()), dataset):
            found.append(_from_counts(row, counted))
    return found


def density_datasets(queries: Queries, rows: Sequence[SaeRow], evaluations: Evaluations) -> list[str]:
    """Data sets on which densities of at least one of these SAEs are known, those of most of them first."""
    names = [e.dataset for row in rows for e in list_encodings(queries, row.sae_id)]
    names += [
        e.dataset for row in rows for e in evaluations.get(row.sae_id, ()) if e.measures.get("density_counts")
    ]  # fmt: skip
    return sorted(dict.fromkeys(names), key=lambda name: -names.count(name))


def probing_table(evaluations: Sequence[Evaluation]) -> list[dict[str, str]]:
    """Accuracy of k-sparse probes by label, beside what guessing the larger class and the text's length reach."""
    probed = newest(evaluations, "probing")
    labels = probed.measures.get("labels") or {} if probed else {}
    table = []
    for label, found in labels.items():
        row = {"Label": short(str(label), 60)}
        for k, probe in (found.get("k") or {}).items():
            row[f"{k} feature{'s' * (str(k) != '1')}"] = percent(probe.get("accuracy"))
        length = percent((found.get("length") or {}).get("accuracy"))
        table.append(row | {"Larger class": percent(found.get("majority")), "Length": length})
    return table


def find_match(results: Sequence[tuple[Sequence[str], Row]], a: str, b: str) -> Match | None:
    """The newest finished matching of these two SAEs, whichever was named first; `results` newest first."""
    for arguments, result in results:
        if set(arguments[2:4]) == {a, b} and "mean_max_cosine" in result:
            first, second = arguments[2:4]
            method = short(str(result.get("method", "")), 60)
            shares = (float(result["mean_max_cosine"]), float(result.get("share_matched", 0)))
            return Match(first, second, method, *shares, int(result.get("n", 0)))
    return None


def _counted(evaluations: Sequence[Evaluation], dataset: str) -> Row | None:
    found = (e.measures.get("density_counts") for e in evaluations if e.dataset == dataset)
    return next((counts for counts in found if counts), None)


def _from_stats(queries: Queries, row: SaeRow, encoding: Encoding) -> DensityCurve:
    values = densities(queries, row.sae_id, encoding.dataset_id)
    alive = np.log10(np.clip(values[values > 0], 10 ** _EDGES[0], 1))
    counts = np.histogram(alive, _EDGES)[0]
    return DensityCurve(row.name, _EDGES.tolist(), counts.tolist(), int((values <= 0).sum()))


def _from_counts(row: SaeRow, counted: Row) -> DensityCurve:
    return DensityCurve(row.name, list(counted["edges"]), list(counted["counts"]), int(counted.get("n_dead", 0)))


_Cell = Callable[[SaeRow, Sequence[Evaluation]], str]


def _of(key: str, shown: Callable[[Any], str], *kinds: str) -> _Cell:
    def cell(_: SaeRow, evaluations: Sequence[Evaluation]) -> str:
        found = newest(evaluations, *(kinds or _MEASURING))
        value = found.measures.get(key) if found else None
        return shown(value) if isinstance(value, int | float) else UNKNOWN

    return cell


def _health(_: SaeRow, evaluations: Sequence[Evaluation]) -> str:
    fit = fit_of(evaluations)
    return fit.words if fit else UNKNOWN


def _own(key: str, shown: Callable[[Any], str], stated: Callable[[SaeRow], Any]) -> _Cell:
    """A measure that a training states of its SAE too, on the texts it held out."""

    def cell(row: SaeRow, evaluations: Sequence[Evaluation]) -> str:
        found = newest(evaluations, *_MEASURING)
        return shown(found.measures.get(key) if found else stated(row))

    return cell


def _dead(row: SaeRow, evaluations: Sequence[Evaluation]) -> str:
    found = newest(evaluations, *_MEASURING)
    n_dead = found.measures.get("dead") if found else row.n_dead
    return f"{count(n_dead)} ({percent(n_dead / row.d_sae)})" if n_dead else count(n_dead)


def _where(row: SaeRow, evaluations: Sequence[Evaluation]) -> str:
    found = newest(evaluations, *_MEASURING)
    if found is None:
        return UNKNOWN if row.fvu is None else "held-out texts"
    held_out = "held-out texts of " if found.kind == "heldout" and found.dataset else ""
    return f"{held_out}{found.dataset or 'held-out texts'}, {count(found.measures.get('n_eval_tokens'))} tokens"


_MEASURES: tuple[tuple[str, _Cell], ...] = (
    ("Layer", lambda row, _: f"{row.layer} · {row.site}"),
    ("Measured on", _where),
    ("FVU", _own("fvu", number, lambda row: row.fvu)),
    ("Explained variance", _of("explained_variance", percent)),
    ("Normalised MSE", _of("normalised_mse", number)),
    ("L0", _own("l0", number, lambda row: row.l0)),
    ("Dead features", _dead),
    ("Always-on features", _own("n_always_on", count, lambda row: row.n_always_on)),
    ("Length of reconstructions", _of("l2_ratio", number)),
    ("Reconstruction bias", _of("reconstruction_bias", number)),
    ("Features with a duplicate", _of("duplicates", count)),
    ("ΔCE, nats", _of("delta_ce", number, "fidelity")),
    ("CE score against zero", _of("ce_score_zero", percent, "fidelity")),
    ("CE score against the mean", _of("ce_score_mean", percent, "fidelity")),
    ("Fits the model", _health),
    ("Training tokens", lambda row, _: count(row.n_tokens)),
)
