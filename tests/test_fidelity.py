"""An SAE spliced into a small random Llama, against hooks written by hand; its health at the right and wrong places."""

import numpy as np
import pytest
import torch
from tiny_llama import (
    D_IN,
    N_LAYERS,
    ROLES,
    chats,
    constant_sae,
    identity_sae,
    model_acts,
    pca_sae,
    raw,
    renderer_of,
    tiny_backbone,
)
from torch.nn.functional import cross_entropy, kl_div

from facviz import fidelity
from facviz.backbone import Renderer
from facviz.errors import InputError, SaeError
from facviz.fidelity import check_health, health_table, measure_fidelity, replaced_acts
from facviz.records import Document, Message
from facviz.sae.metrics import SaeEvaluator
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights
from facviz.testing.planted import planted_sae

TEST, TRAIN = chats(12, seed=2), chats(40, seed=1)


def measure(backbone, sae, documents=TEST, **changes):
    return measure_fidelity(backbone, sae, documents, renderer_of(backbone), **changes)


def hooks_of(backbone):
    return [h for m in backbone.model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]


def by_hand(backbone, documents, replace):
    """Clean and spliced CE and KL, one document after the other, by a hook on the decoder layer before `layer`."""
    clean_ce, ce, kl = [], [], []
    for document in documents:
        tokenized = renderer_of(backbone).render(document)
        ids = torch.from_numpy(tokenized.token_ids).long()[None]
        content = torch.from_numpy(tokenized.is_content)

        def splice(module, inputs, output, content=content):
            return torch.where(content[None, :, None], replace(output), output)

        clean = backbone.model(input_ids=ids).logits[0]
        handle = backbone.model.model.layers[backbone.layer - 1].register_forward_hook(splice)
        spliced = backbone.model(input_ids=ids).logits[0]
        handle.remove()
        predicted = content[1:]
        clean_ce.append(cross_entropy(clean[:-1][predicted], ids[0, 1:][predicted], reduction="none"))
        ce.append(cross_entropy(spliced[:-1][predicted], ids[0, 1:][predicted], reduction="none"))
        p, q = (logits[:-1][predicted].log_softmax(-1) for logits in (clean, spliced))
        kl.append(kl_div(q, p, log_target=True, reduction="none").sum(-1))
    return tuple(float(torch.cat(parts).mean()) for parts in (clean_ce, ce, kl))


@pytest.mark.parametrize("layer", [1, 3, 5])
def test_costs_equal_those_of_hooks_written_by_hand(layer):
    backbone = tiny_backbone(layer)
    sae = pca_sae(backbone, TRAIN)
    mean = model_acts(backbone, TEST).mean(0)
    found = measure(backbone, sae, batch_tokens=150)
    flat = lambda acts: sae.reconstruct(acts.reshape(-1, D_IN)).reshape(acts.shape)  # noqa: E731
    clean, ce, kl = by_hand(backbone, TEST, flat)
    assert (found.ce_clean, found.ce_sae, found.kl_sae) == pytest.approx((clean, ce, kl), abs=1e-5)
    assert (found.ce_zero, found.kl_zero) == pytest.approx(by_hand(backbone, TEST, torch.zeros_like)[1:], abs=1e-5)
    assert (found.ce_mean, found.kl_mean) == pytest.approx(
        by_hand(backbone, TEST, lambda acts: mean.expand_as(acts))[1:], abs=1e-5
    )
    assert found.n_tokens == sum(len(d.text.split()) for d in TEST)
    assert found.kl_sae > 0.01


def test_scores_are_the_share_of_the_damage_avoided():
    found = measure(tiny_backbone(3), pca_sae(tiny_backbone(3), TRAIN))
    assert found.delta_ce == pytest.approx(found.ce_sae - found.ce_clean)
    for score, ablated in ((found.ce_score_zero, found.ce_zero), (found.ce_score_mean, found.ce_mean)):
        assert score == pytest.approx((ablated - found.ce_sae) / (ablated - found.ce_clean))
    assert found.kl_score_zero == pytest.approx((found.kl_zero - found.kl_sae) / found.kl_zero)
    assert found.kl_score_mean == pytest.approx((found.kl_mean - found.kl_sae) / found.kl_mean)
    assert 0.3 < found.kl_score_mean < 1


@pytest.mark.parametrize("layer", [0, 3, N_LAYERS])
def test_an_sae_without_error_costs_nothing_at_any_layer(layer):
    found = measure(tiny_backbone(layer), identity_sae())
    assert found.delta_ce == pytest.approx(0.0, abs=1e-5)
    scores = (found.ce_score_zero, found.ce_score_mean, found.kl_score_zero, found.kl_score_mean)
    assert scores == pytest.approx((1.0, 1.0, 1.0, 1.0), abs=1e-4)
    assert found.kl_zero > 0.1


@pytest.mark.parametrize("layer", [0, 3, N_LAYERS])
def test_an_sae_of_zeros_is_zero_ablation_at_any_layer(layer):
    found = measure(tiny_backbone(layer), constant_sae(torch.zeros(D_IN)))
    assert (found.ce_sae, found.kl_sae) == (found.ce_zero, found.kl_zero)
    assert (found.ce_score_zero, found.kl_score_zero) == (0.0, 0.0)


def test_an_sae_that_always_says_the_mean_is_mean_ablation():
    backbone = tiny_backbone(3)
    found = measure(backbone, constant_sae(model_acts(backbone, TEST).mean(0)))
    assert (found.ce_sae, found.kl_sae) == pytest.approx((found.ce_mean, found.kl_mean), abs=1e-5)


@pytest.mark.parametrize("site", ["attn", "mlp"])
def test_outputs_of_attention_and_mlp_are_replaced_too(site):
    backbone = tiny_backbone(3, site=site)
    exact, silent = measure(backbone, identity_sae()), measure(backbone, constant_sae(torch.zeros(D_IN)))
    assert exact.delta_ce == pytest.approx(0.0, abs=1e-5)
    assert silent.ce_sae == silent.ce_zero
    assert silent.kl_zero > 0.01


@pytest.mark.parametrize("batch_tokens", [1, 100, 4096])
def test_costs_do_not_depend_on_batches_or_chunks_of_logits(batch_tokens, monkeypatch):
    backbone = tiny_backbone(3)
    sae = pca_sae(backbone, TRAIN)
    whole = measure(backbone, sae)
    monkeypatch.setattr(fidelity.splice, "_LOGIT_TOKENS", 7)
    parts = measure(backbone, sae, batch_tokens=batch_tokens)
    assert parts.n_tokens == whole.n_tokens
    for name in ("ce_clean", "ce_sae", "ce_zero", "ce_mean", "kl_sae", "kl_zero", "kl_mean"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), abs=1e-5)


def test_template_and_padding_positions_keep_their_own_activations():
    backbone = tiny_backbone(3)
    ids = torch.arange(24).reshape(2, 12) + 3
    content = torch.zeros(2, 12, dtype=torch.bool)
    content[0, 3:7] = content[1, 5:9] = True
    read = []
    before = backbone.on_model_acts(lambda acts: read.append(acts.clone()))
    with replaced_acts(backbone, content, lambda acts: acts * 0 + 7):
        after = backbone.on_model_acts(lambda acts: read.append(acts.clone()))
        backbone.model(input_ids=ids)
    assert (read[1][content] == 7).all()
    assert (read[1][~content] == read[0][~content]).all()
    before.remove()
    after.remove()


def test_hooks_are_gone_afterwards_also_after_an_error():
    backbone = tiny_backbone(3)

    def broken(acts):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), replaced_acts(backbone, torch.ones(1, 4, dtype=torch.bool), broken):
        backbone.model(input_ids=torch.arange(4)[None])
    measure(backbone, identity_sae(), TEST[:2])
    health_table(backbone, identity_sae(), TEST[:2], renderer_of(backbone))
    backbone.model.model.layers[0].mlp.down_proj.weight.fill_(torch.inf)
    with pytest.raises(SaeError, match="NaN or infinite"):
        health_table(backbone, identity_sae(), TEST[:2], renderer_of(backbone))
    assert hooks_of(backbone) == []


def test_an_ablation_without_damage_leaves_no_score(planted_backbone):
    found = measure_fidelity(planted_backbone, planted_sae(), TEST, renderer_of(planted_backbone))
    assert found.delta_ce == 0.0  # the planted model predicts every token alike
    assert np.isnan([found.ce_score_zero, found.ce_score_mean, found.kl_score_zero, found.kl_score_mean]).all()


def test_progress_reaches_the_last_document():
    class Watch:
        steps = ()

        def update(self, stage, done, total, note=""):
            self.steps += ((stage, done, total),)

    watch = Watch()
    documents = [*TEST[:5], Document.from_text("")]
    measure(tiny_backbone(2), identity_sae(), documents, progress=watch, batch_tokens=100)
    assert watch.steps[-1] == ("fidelity", 6, 6)


@pytest.mark.parametrize("documents", [[], [Document.from_text("")]])
def test_documents_without_content_are_refused(documents):
    backbone = tiny_backbone(3)
    with pytest.raises(InputError, match="no content tokens"):
        measure(backbone, identity_sae(), documents)
    with pytest.raises(InputError, match="no content tokens"):
        check_health(backbone, identity_sae(), documents, renderer_of(backbone))


def test_an_sae_of_another_width_is_refused():
    backbone = tiny_backbone(3)
    weights = SaeWeights(torch.zeros(8, 4), torch.zeros(4), None, torch.zeros(8), Activation("relu"))
    with pytest.raises(InputError, match=r"reads 8 dimensions but tiny has 32"):
        measure(backbone, SAE(weights))
    with pytest.raises(InputError, match=r"reads 8 dimensions but tiny has 32"):
        health_table(backbone, SAE(weights), TEST, renderer_of(backbone))


# Health.


def check(backbone, sae, documents=TEST, **changes):
    return check_health(backbone, sae, documents, renderer_of(backbone), **changes)


def heldout_fvu(backbone, sae, documents=TEST):
    evaluator = SaeEvaluator(sae)
    evaluator.update(model_acts(backbone, documents))
    return evaluator.result().fvu


@pytest.fixture(scope="module")
def right():
    """A backbone at layer 3 of 6 and an SAE made for it, with the FVU on its record."""
    backbone = tiny_backbone(3)
    sae = pca_sae(backbone, TRAIN)
    return backbone, sae, heldout_fvu(backbone, sae, chats(12, seed=3))


def test_the_right_pair_fits(right):
    backbone, sae, record = right
    health = check(backbone, sae, recorded_fvu=record)
    assert health.verdict == "fits"
    assert (health.best.layer, health.best.template) == (3, True)
    assert {(c.layer, c.template) for c in health.table} == {(n, t) for n in range(1, 6) for t in (True, False)}
    assert check(backbone, sae).verdict == "plausible"


@pytest.mark.parametrize("layer", [1, 2, 4, 5])
def test_an_sae_moved_by_one_or_two_layers_is_sent_back_to_its_own(right, layer):
    health = check(tiny_backbone(layer), right[1], recorded_fvu=right[2])
    assert health.verdict == "does not fit"
    assert "fits better at layer 3 with the template" in health.sentence


def test_an_sae_of_another_model_does_not_fit(right):
    health = check(tiny_backbone(3, seed=1), right[1], recorded_fvu=right[2])
    assert health.verdict == "does not fit"
    assert "another model" in health.sentence


def test_a_normalisation_that_is_applied_twice_does_not_fit(right):
    once = right[1].weights
    twice = SAE(SaeWeights(once.W_enc, once.b_enc, 10 * once.W_dec, 10 * once.b_dec, once.activation))
    health = check(right[0], twice)
    assert health.verdict == "does not fit"
    assert health.given.fvu > 1
    assert "normalised differently" in health.sentence


def test_an_sae_made_without_a_template_shows_both_figures_with_one(right):
    backbone = right[0]
    health = check(backbone, pca_sae(backbone, raw(TRAIN)))
    assert health.verdict == "does not fit"
    assert "fits better at layer 3 without a template" in health.sentence
    for combination in (health.given, health.best):
        assert f"(FVU {combination.fvu:.3f})" in health.sentence


def test_raw_text_has_no_template_to_compare(right):
    backbone = right[0]
    documents = raw(TRAIN)
    health = check(backbone, pca_sae(backbone, documents), raw(TEST))
    assert health.verdict == "plausible"
    assert not any(c.template for c in health.table)
    assert len(health.table) == 5


def test_the_table_holds_the_fvu_of_each_layer_over_the_content_tokens(right):
    backbone, sae, _ = right
    documents = raw(TEST)
    sums = health_table(backbone, sae, documents, renderer_of(backbone), batch_tokens=99)
    assert [s.layer for s in sums] == [1, 2, 3, 4, 5]
    for s in sums:
        assert len(s.squared_error) == len(documents)
        expected = heldout_fvu(tiny_backbone(s.layer), sae, documents)
        assert s.squared_error.sum() / s.squared_deviation.sum() == pytest.approx(expected, rel=1e-5)


def test_without_the_template_the_same_tokens_are_read_in_raw_text(right):
    backbone, sae, _ = right
    alone = Document((Message("text", "zebra " + TEST[0].text),))  # the first token of a raw text is never content
    chat = Document.from_text("zebra " + TEST[0].text)
    documents = [chat, *TEST[1:3]]
    [measured] = [
        s for s in health_table(backbone, sae, documents, renderer_of(backbone)) if (s.layer, s.template) == (3, False)
    ]
    x = model_acts(backbone, [alone])
    assert measured.squared_error[0] == pytest.approx(float((x - sae.reconstruct(x)).square().sum()), rel=1e-4)


@pytest.mark.parametrize(("layer", "expected"), [(0, [0, 1, 2]), (1, [0, 1, 2, 3]), (N_LAYERS, [4, 5, 6])])
def test_at_the_ends_of_the_model_only_layers_that_exist_are_tried(layer, expected):
    backbone = tiny_backbone(layer)
    table = health_table(backbone, identity_sae(), TEST, renderer_of(backbone))
    assert sorted({s.layer for s in table}) == expected


def test_health_of_an_mlp_output_is_compared_with_those_of_other_layers():
    backbone = tiny_backbone(2, site="mlp")
    sae = pca_sae(backbone, TRAIN)
    health = check(backbone, sae, recorded_fvu=heldout_fvu(backbone, sae))
    assert health.verdict == "fits"
    assert sorted({c.layer for c in health.table}) == [1, 2, 3, 4]
    assert "fits better at layer 2" in check(tiny_backbone(4, site="mlp"), sae).sentence


def test_tokens_are_limited_and_shared_among_documents(right):
    backbone, sae, _ = right
    passes = []
    handle = backbone.model.register_forward_pre_hook(
        lambda module, args, kwargs: passes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    sums = health_table(backbone, sae, TRAIN, renderer_of(backbone), max_tokens=80)
    handle.remove()
    assert {len(s.squared_error) for s in sums} == {8}
    assert len(passes) == 2
    assert sum(rows * length for rows, length in passes) < 8 * 30


def test_roles_that_do_not_count_are_left_out_of_both_renderings(right):
    backbone, sae, _ = right
    documents = [Document((Message("user", a.text), Message("assistant", b.text))) for a, b in zip(TEST[:4], TEST[4:8])]
    counts = []
    for roles in (("user",), ("assistant",), ROLES):
        renderer = Renderer(backbone.tokenizer, max_tokens=256, roles=roles)
        sums = health_table(backbone, sae, documents, renderer, max_tokens=10_000)
        counts.append([float(s.squared_error.sum()) for s in sums if s.layer == 3])
    for user, assistant, both in zip(*counts):
        assert user + assistant == pytest.approx(both, rel=1e-3)
