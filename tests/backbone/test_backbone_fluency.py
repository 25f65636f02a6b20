"""Surprise per content token, against the whole forward pass of one document at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_llama import chats, tiny_backbone

from facviz.backbone import Renderer
from facviz.backbone.fluency import MAX_TOKENS, BackboneSurprise
from facviz.records import Document, Message


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone(3)


def by_hand(backbone, document, roles=("user",)):
    """Log-probability of each content token, from one unpadded pass."""
    tokens = Renderer(backbone.tokenizer, max_tokens=MAX_TOKENS, roles=roles).render(document)
    ids = torch.from_numpy(tokens.token_ids.astype(np.int64))
    log_p = backbone.model(input_ids=ids[None]).logits[0].log_softmax(-1)
    return np.array([-log_p[i - 1, ids[i]].item() for i in np.flatnonzero(tokens.is_content)])


def test_the_surprise_of_documents_of_any_length_equals_that_of_each_alone(backbone):
    documents = [*chats(40), Document.from_text("apple"), Document.from_text("")]
    found = BackboneSurprise(backbone, roles=("user",)).surprises(documents)
    for document, surprise in zip(documents, found, strict=True):
        assert surprise == pytest.approx(by_hand(backbone, document), abs=1e-4)
    assert [len(s) for s in found[-2:]] == [1, 0]


def test_only_the_roles_that_count_are_measured(backbone):
    document = Document((Message("user", "apple bread cloud"), Message("assistant", "drum eagle")))
    for roles, n in ((("user",), 3), (("assistant",), 2), (("user", "assistant"), 5)):
        [found] = BackboneSurprise(backbone, roles=roles).surprises([document])
        assert len(found) == n
        assert found == pytest.approx(by_hand(backbone, document, roles), abs=1e-4)


def test_no_documents_have_no_surprises(backbone):
    assert BackboneSurprise(backbone, roles=("user",)).surprises([]) == []


def test_a_model_that_writes_at_random_is_surprised_equally_by_every_token(planted_backbone):
    n_tokens = planted_backbone.unembedding.shape[0]
    [found] = BackboneSurprise(planted_backbone, roles=("user",)).surprises([Document.from_text("mirror drum apple")])
    assert found == pytest.approx([np.log(n_tokens)] * 3)
