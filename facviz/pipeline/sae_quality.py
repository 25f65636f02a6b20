"""`facviz sae load`, `eval` and `match`: does an SAE fit its model, how good is it, and which features do two share?

Each measurement is a row of `sae_evaluation`, the newest of an SAE, kind and dataset counting; asked for again, it is
answered at once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facviz.config import fingerprint
from facviz.errors import FacvizError, InputError
from facviz.pipeline.sae import load, open_sae
from facviz.pipeline.sae_measures import (
    MEASURED,
    affordable_tokens,
    eval_measures,
    fidelity_measures,
    health_measures,
    probing_measures,
    write_evaluation,
)
from facviz.pipeline.session import CODE_VERSION, Session, load_documents, sae_row
from facviz.records import Document
from facviz.store.manifest import Scope
from facviz.store.schema import MODE
from facviz.store.workspace import Workspace

if TYPE_CHECKING:
    from facviz.records import Ints
    from facviz.sae.geometry import FeatureMatch
    from facviz.sae.model import SAE

FIDELITY_TOKENS = 8192
"""Content tokens on which the model is run four times to its end."""
CHUNK_DOCS = 512
N_PAIRS = 20
N_COMBINATIONS = 10
"""Layers times renderings of a health check, each of which encodes all of its tokens."""
_NO_NOTES = ("format", "recognised_by", "trainer")
_MAX_NOTES, _MAX_NOTE_CHARS = 20, 200


def load_and_check(
    session: Session, path: str | Path, format: str = "auto", *, check: bool = True, dataset: str | None = None
) -> dict[str, Any]:
    """Take a saved SAE in, say what its format was recognised by, and check its health; `dataset` None chooses one.

    `health` is null where nothing was checked; `health_note` then says why.

    Raises:
        FacvizError: the SAE cannot be read, or a dataset asked for cannot be used; of one chosen, `health_note` tells.
    """
    from facviz.sae.formats import identify

    located, name, why = identify(path, format)
    known = _known_datasets(session.workspace)
    if dataset is not None and dataset not in known:
        with session.workspace.reader() as reader:
            reader.dataset(dataset)  # refuses before the SAE is read
    loaded = load(session, located, name)
    said = json.loads(sae_row(session.workspace, loaded["sae_id"])["provenance"])["weights"]
    health, note = (
        _check(session, loaded["sae_id"], dataset, known) if check else (None, "The health check was left out.")
    )
    told = {"format": name, "recognised_by": why, "notes": _notes(said)}
    return loaded | told | {"health": health, "health_note": note}


def _known_datasets(workspace: Workspace) -> list[str]:
    """Names, anchor sets first."""
    with workspace.reader() as reader:
        rows = reader.rows("datasets")
    return [row["name"] for row in sorted(rows, key=lambda row: row["role"] != "anchor")]


def _check(
    session: Session, sae_id: str, dataset: str | None, known: Sequence[str]
) -> tuple[dict[str, Any] | None, str | None]:
    if dataset is not None:
        return _Subject(session, sae_id, dataset).health(), None
    if not known:
        return None, "This workspace has no dataset to check the SAE on; add one and run `facviz sae eval --health`."
    try:
        return _Subject(session, sae_id, known[0]).health(), None
    except FacvizError as error:
        return None, f"The SAE could not be checked on {known[0]}: {error}"


def _notes(provenance: Mapping[str, Any]) -> list[str]:
    """What a file did not say and was inferred, or was folded into the weights; it may quote the file."""
    stated = provenance.get("notes")
    notes = [str(note) for note in stated] if isinstance(stated, list) else []
    told = {k: v for k, v in provenance.items() if isinstance(v, str) and k not in _NO_NOTES}
    notes += [f"{name.replace('_', ' ')}: {value}" for name, value in told.items()]
    return ["".join(c for c in note if c.isprintable())[:_MAX_NOTE_CHARS] for note in notes[:_MAX_NOTES]]


def evaluate(
    session: Session,
    sae_id: str,
    dataset: str,
    *,
    fidelity: bool = False,
    probe: bool = False,
    health: bool = False,
) -> dict[str, Any]:
    """FVU, L0 and densities over all content tokens of a dataset, and under their own keys what else is asked for.

    Raises:
        InputError: there is no such dataset, or it has no labels to probe for.
    """
    subject = _Subject(session, sae_id, dataset)
    if probe:
        subject.refuse_without_labels()
    found = {"sae_id": sae_id, "dataset": dataset} | subject.evaluation()
    if health:
        found["health"] = subject.health()
    if fidelity:
        found["fidelity"] = subject.fidelity()
    if probe:
        found["probing"] = subject.probing()
    return found


class _Subject:
    """One SAE on one dataset; what a measurement needs is read when it is first needed."""

    def __init__(self, session: Session, sae_id: str, dataset: str) -> None:
        self._session, self._sae_id = session, sae_id
        with session.workspace.reader() as reader:
            self._dataset = reader.dataset(dataset)
        self._roles = tuple(self._dataset["roles"])

    @cached_property
    def _sae(self) -> SAE:
        return open_sae(self._session, self._sae_id)

    @cached_property
    def _documents(self) -> list[Document]:
        with self._session.workspace.reader() as reader:
            return load_documents(reader, self._dataset["dataset_id"])

    @cached_property
    def _unseen_first(self) -> list[Document]:
        """In an order no file decides, before all others those that no training here has seen."""
        from facviz.activations import is_held_out

        return sorted(self._documents, key=lambda d: (not is_held_out(d.doc_id), d.doc_id))

    def _once(self, kind: str, work: Callable[[], dict[str, Any]], *more: object) -> dict[str, Any]:
        session, name = self._session, str(self._dataset["name"])
        described = (kind, self._sae_id, self._dataset["dataset_id"], self._encoding(kind), *more)
        scope = Scope("sae-eval", f"{self._sae_id}/{kind}/{name}", fingerprint("sae-eval", CODE_VERSION, *described))

        def measured() -> dict[str, Any]:
            measures = work()
            manifest = session.workspace.manifest
            write_evaluation(manifest, scope, sae_id=self._sae_id, kind=kind, dataset=name, measures=measures)
            return measures

        return session.run_once(scope, measured)

    def _encoding(self, kind: str) -> str:
        """Names what decides the activations; health and fidelity are measured in float32, whatever is faster."""
        session = self._session
        if kind in ("eval", "probing"):
            return session.encoding_fingerprint()
        config = dataclasses.replace(session.backbone_config, name="", layer=session.backbone.layer, dtype="float32")
        return fingerprint(session.backbone.identity, config)

    def evaluation(self) -> dict[str, Any]:
        """Measures of kind `eval`."""
        return self._once("eval", self._evaluate)

    def _evaluate(self) -> dict[str, Any]:
        from facviz.activations import content_activations
        from facviz.sae.metrics import SaeEvaluator

        session, documents = self._session, self._documents
        evaluator, renderer = SaeEvaluator(self._sae), session.renderer(self._roles)
        for start in range(0, len(documents), CHUNK_DOCS):
            part = list(enumerate(documents[start : start + CHUNK_DOCS], start))
            tokenized = renderer.render_many(part)
            for batch in content_activations(session.fast, tokenized, session.backbone_config.batch_tokens):
                evaluator.update(batch.acts)
            session.progress.update("evaluate", start + len(part), len(documents), "documents")
        return eval_measures(evaluator.result(), self._sae)

    def health(self) -> dict[str, Any]:
        """Measures of kind `health`."""
        recorded = _recorded_fvu(self._sae, sae_row(self._session.workspace, self._sae_id))

        def work() -> dict[str, Any]:
            from facviz.fidelity import check_health
            from facviz.fidelity.health import HEALTH_TOKENS

            session, sae = self._session, self._sae
            tokens = affordable_tokens(sae.d_sae, 2 * N_COMBINATIONS * sae.d_in * sae.d_sae, HEALTH_TOKENS)
            session.progress.update("health", 0, None, "whether the SAE fits the model")
            renderer = session.renderer(self._roles)
            found = check_health(
                session.backbone, sae, self._unseen_first, renderer, recorded_fvu=recorded, max_tokens=tokens
            )
            return health_measures(found, recorded)

        return self._once("health", work, recorded)

    def fidelity(self) -> dict[str, Any]:
        """Measures of kind `fidelity`."""
        return self._once("fidelity", self._fidelity)

    def _fidelity(self) -> dict[str, Any]:
        from facviz.fidelity import measure_fidelity

        session = self._session
        renderer = session.renderer(self._roles)
        chosen, n_tokens = [], 0
        for document in self._unseen_first:
            if n_tokens >= FIDELITY_TOKENS:
                break
            chosen.append(document)
            n_tokens += renderer.render(document).n_content_tokens
        found = measure_fidelity(session.backbone, self._sae, chosen, renderer, progress=session.progress)
        return fidelity_measures(found)

    def refuse_without_labels(self) -> None:
        """Raises InputError, before anything is measured, where there is nothing to probe for."""
        from facviz.sae.probing import MAX_LABELS

        n_labels = len({d.label for d in self._documents if d.label is not None})
        if not 2 <= n_labels <= MAX_LABELS:
            raise InputError(
                f"Dataset {self._dataset['name']!r} has {n_labels} different labels; probing needs 2 to {MAX_LABELS}, "
                "so leave --probe out or take a labelled dataset."
            )

    def probing(self) -> dict[str, Any]:
        """Measures of kind `probing`."""
        return self._once("probing", self._probing)

    def _probing(self) -> dict[str, Any]:
        from facviz.sae.probing import probe_labels

        max_acts, n_tokens = self._encoded()
        labels, ids = zip(*((d.label, d.doc_id) for d in self._documents))
        return probing_measures(probe_labels(max_acts, labels, n_tokens, ids))

    def _encoded(self) -> tuple[Any, Ints]:
        """Document maxima [n_docs, d_sae] and content tokens: those of the spans stage, or new ones."""
        import numpy as np
        from scipy import sparse

        session, documents = self._session, self._documents
        key = {"sae_id": self._sae_id, "dataset_id": self._dataset["dataset_id"], "mode": MODE}
        with session.workspace.reader() as reader:
            stored = reader.named("encoded_documents", **key)
            if stored.num_rows == len(documents):
                return reader.activation_matrix(**key, d_sae=self._sae.d_sae), stored["n_content_tokens"].to_numpy()
        encoder, parts = session.encoder(self._sae, self._roles), []
        for start in range(0, len(documents), CHUNK_DOCS):
            parts.append(encoder.encode(documents[start : start + CHUNK_DOCS]))
            session.progress.update("probing", min(start + CHUNK_DOCS, len(documents)), len(documents), "documents")
        return sparse.vstack([p.max_acts for p in parts], "csr"), np.concatenate([p.n_content_tokens for p in parts])


def _recorded_fvu(sae: SAE, row: Mapping[str, Any]) -> float | None:
    """What its maker measured on held-out texts, wherever a file or a training here says so."""
    stated = sae.metadata.get(MEASURED)
    values = (stated.get("fvu") if isinstance(stated, dict) else None, sae.metadata.get("fvu"))
    for value in (*values, json.loads(row["metrics"]).get("fvu")):
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def match(workspace: Workspace, a: str, b: str) -> dict[str, Any]:
    """Features of two SAEs of one model paired by decoder cosine: how many they share, and the best and worst pairs.

    Raises:
        InputError: an SAE is not there, or they read different models.
    """
    from facviz.sae.geometry import match_features

    identities = {json.loads(sae_row(workspace, i)["provenance"])["identity"] for i in (a, b)}
    if len(identities) > 1:
        raise InputError(f"SAEs {a} and {b} read different models, so their features cannot be matched.")
    found = match_features(*(_decoder(workspace, i) for i in (a, b)))
    pairs = _pairs(found)
    return {
        "a": a,
        "b": b,
        "method": found.method,
        "mean_max_cosine": round(found.mean_max_cosine, 4),
        "share_matched": round(found.share_matched, 4),
        "n": len(pairs),
        "best": pairs[:N_PAIRS],
        "worst": pairs[: -N_PAIRS - 1 : -1],
    }


def _decoder(workspace: Workspace, sae_id: str) -> Any:
    from facviz.sae.formats import load_sae

    return load_sae(workspace.sae_folder(sae_id) / "weights", "saelens").weights.decoder_view


def _pairs(found: FeatureMatch) -> list[dict[str, Any]]:
    """Every matched pair, the most similar first."""
    ids = (found.partner >= 0).nonzero().flatten()
    order = ids[found.cosine[ids].argsort(descending=True, stable=True)]
    cosines = found.cosine[order].tolist()
    return [
        {"a": i, "b": partner, "cosine": round(cosine, 4)}
        for i, partner, cosine in zip(order.tolist(), found.partner[order].tolist(), cosines)
    ]
