"""Machine-written versions of an explanation: all of them, the one shown first, compared word by word."""

from __future__ import annotations

import json

from facviz.store.events import explanation_of
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow
from facviz.views.decisions import read_said
from facviz.views.versions import read_versions


def write_version(database, sae_id, author, text, outcome="explained", **scores):
    row = {"sae_id": sae_id, "feature_id": 3, "version": 2, "text": text, "author_kind": "llm", "author": author}
    row |= {"prompt": "explain_feature.v1", "outcome": outcome, "scores": json.dumps(scores)}
    scope = Scope("explain", f"{sae_id}/{author}", "e" * 16)
    database.workspace.manifest.write_shard(scope, "explanation", "0", rows_to_arrow("explanation", [row]))
    database.workspace.manifest.mark_done(scope, {})
    database.sync()


def versions(database, sae_id):
    return read_versions(database, sae_id, 3, read_said(database, sae_id, 3))


def test_every_explainer_has_its_version_and_the_shown_one_comes_first(database):
    sae_id = database.rows("saes")[0]["sae_id"]
    [only] = versions(database, sae_id)
    assert (only.text, only.by, only.is_shown, only.diff_html) == ('fires on "drum"', "facviz lexical v1", True, "")
    scores = {"embedding_auroc": 0.9, "embedding_auroc_lexical": 0.7, "embedding_auroc_shuffled": 0.5}
    write_version(database, sae_id, "model a", "fires on <b>drums</b>", **scores)
    write_version(database, sae_id, "model b", "", outcome="cannot_tell")
    first, second, third = versions(database, sae_id)
    assert (first.by, first.is_shown) == ("model a", True)  # the better held-out score
    assert first.facts == (
        "by a language model · explain_feature.v1 · held-out score 0.900, 0.500 with another feature's words"
    )
    assert (second.by, second.is_shown) == ("facviz lexical v1", False)
    assert "&lt;b&gt;drums&lt;/b&gt;" in second.diff_html
    assert "<b>" not in second.diff_html
    assert (third.text, third.diff_html) == ("", "")
    assert "could not tell" in third.facts


def test_a_persons_words_are_what_versions_are_compared_with(database):
    sae_id = database.rows("saes")[0]["sae_id"]
    database.record("ann", explanation_of(sae_id, 3), "edit", {"text": "about drums"})
    [machine] = versions(database, sae_id)
    assert not machine.is_shown
    assert "about" in machine.diff_html
