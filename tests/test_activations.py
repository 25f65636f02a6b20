"""Model activations of one layer: against hand-computed numbers and the library's own hidden states; kills; errors."""

from __future__ import annotations

import copy
import errno

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from facviz.activations import (
    RENDER_CHUNK,
    ActivationShards,
    SaeEncoder,
    activations_at_layer,
    capture,
    content_activations,
    faster_dtype,
    forward,
    is_held_out,
    length_batches,
    plan_capture,
)
from facviz.backbone import Backbone, Renderer
from facviz.config import BackboneConfig, CaptureConfig
from facviz.errors import BackboneError, InputError, WorkspaceError
from facviz.files import read_lines
from facviz.records import Document, Message, TokenizedDocument
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights
from facviz.testing.fakes import SilentProgress
from facviz.testing.families import FAMILIES, random_model
from facviz.testing.planted import (
    D_IN,
    D_SAE,
    LAYER,
    STRENGTHS,
    TWIN_FEATURE,
    WORDS,
    planted_model,
    planted_sae,
    planted_tokenizer,
)

HEADER = 2  # <|im_start|> user


def expected_row(text: str) -> tuple[dict[int, float], dict[int, int]]:
    """By hand: feature to maximum, and feature to the token position of it, plus one."""
    acts, peaks = {}, {}
    for position, word in enumerate(text.split()):
        if word in WORDS:
            acts[WORDS.index(word)] = STRENGTHS[word]
            peaks.setdefault(WORDS.index(word), HEADER + position + 1)
    if "apple" in text.split():
        acts[TWIN_FEATURE], peaks[TWIN_FEATURE] = STRENGTHS["apple"] / 2, peaks[0]
    return acts, peaks


def stored(matrix, row: int) -> dict[int, float]:
    line = matrix[row]
    return dict(zip(line.indices.tolist(), line.data.tolist()))


def check_encoded(encoded, texts):
    assert encoded.max_acts.shape == encoded.peaks.shape == (len(texts), D_SAE)
    for row, text in enumerate(texts):
        acts, peaks = expected_row(text)
        assert stored(encoded.max_acts, row) == acts
        assert stored(encoded.peaks, row) == peaks
    assert encoded.n_content_tokens.tolist() == [sum(w in WORDS for w in t.split()) for t in texts]


def test_two_planted_words_give_the_numbers_a_person_computes(planted_encoder):
    encoded = planted_encoder.encode(["apple drum"])
    assert encoded.max_acts.toarray()[0].tolist() == [2.0, 0, 0, 5.0] + [0.0] * 20 + [1.0, 0.0]
    assert encoded.peaks.toarray()[0].tolist() == [3, 0, 0, 4] + [0] * 20 + [3, 0]
    assert encoded.n_content_tokens.tolist() == [2]
    assert (encoded.max_acts.dtype, encoded.peaks.dtype) == (np.float32, np.int32)


def test_planted_texts_of_many_lengths_keep_their_order_and_their_numbers(planted_encoder):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice([*WORDS, "zebra"], rng.integers(0, 30))) for _ in range(80)]
    check_encoded(planted_encoder.encode(texts), texts)
    check_encoded(planted_encoder.encode([Document.from_text(t) for t in texts]), texts)


def test_a_document_alone_measures_as_it_does_in_a_batch(planted_encoder):
    texts = ["apple drum drum", "river", "", "queen tiger apple cloud flame"]
    for text in texts:
        check_encoded(planted_encoder.encode_alone(text), [text])
        check_encoded(planted_encoder.encode_alone(Document.from_text(text)), [text])


def test_documents_without_content_tokens_get_rows_of_zeros(planted_encoder):
    check_encoded(planted_encoder.encode(["", "apple", ""]), ["", "apple", ""])
    check_encoded(planted_encoder.encode(["", ""]), ["", ""])


def test_no_documents_give_no_rows(planted_encoder):
    check_encoded(planted_encoder.encode([]), [])
    assert list(planted_encoder.stream([])) == []


def test_numbers_given_to_documents_come_back_with_their_codes(planted_encoder):
    numbered = [(40, Document.from_text("apple")), (7, Document.from_text("drum bread"))]
    found = {d.doc_no: codes for codes in planted_encoder.stream(numbered) for d in codes.documents}
    assert set(found) == {40, 7}


def test_reading_ahead_is_bounded_whatever_the_corpus(planted_encoder):
    n_read = 0

    def corpus():
        nonlocal n_read
        for n_read in range(1, 3 * RENDER_CHUNK + 1):
            yield n_read, Document.from_text("apple")

    next(planted_encoder.stream(corpus()))
    assert n_read == RENDER_CHUNK


def test_only_the_chosen_roles_count(planted_backbone, planted_sae):
    document = Document((Message("user", "apple"), Message("assistant", "drum")))
    encoder = SaeEncoder(planted_backbone, planted_sae, roles=("assistant",))
    assert stored(encoder.encode([document]).max_acts, 0) == {3: 5.0}


def test_long_documents_are_cut_and_the_rest_never_fires(planted_backbone, planted_sae):
    encoder = SaeEncoder(planted_backbone, planted_sae, config=BackboneConfig(max_tokens=3))
    encoded = encoder.encode(["apple drum bread"])
    assert stored(encoded.max_acts, 0) == {0: 2.0, TWIN_FEATURE: 1.0}
    assert encoded.n_content_tokens.tolist() == [1]


def loud_backbone() -> Backbone:
    """A planted backbone on which template words, special tokens and the padding id would fire feature 0, loudly."""
    model, tokenizer = planted_model(), planted_tokenizer()
    with torch.no_grad():
        model.model.embed_tokens.weight[:6, 0] = 50.0
    return Backbone(model, tokenizer, LAYER, "loud")


def test_defect_22_only_content_tokens_count_whatever_the_template_and_the_padding_do(planted_sae):
    encoder = SaeEncoder(loud_backbone(), planted_sae, config=BackboneConfig(system_prompt="user system"))
    encoded = encoder.encode(["bread", "bread " * 20, "apple", "bread user"])
    assert encoded.max_acts[:, 0].toarray().ravel().tolist() == [0.0, 0.0, 2.0, 50.0]
    assert encoded.n_content_tokens.tolist() == [1, 20, 1, 2]


def test_every_content_token_has_codes_and_no_other_token_does(planted_backbone):
    encoder = SaeEncoder(planted_backbone, planted_sae(), config=BackboneConfig(batch_tokens=16))
    documents = [Document.from_text("apple " * n) for n in range(6)]
    for codes in encoder.stream(enumerate(documents)):
        seen = [[] for _ in codes.documents]
        for i, p in zip(codes.doc_index, codes.position):
            seen[i].append(int(p))
        assert seen == [np.flatnonzero(d.is_content).tolist() for d in codes.documents]
        assert len(codes.offsets) == len(codes.position) + 1


def test_an_sae_of_another_width_is_refused_by_name(planted_backbone):
    weights = SaeWeights(
        torch.zeros(8, 4), torch.zeros(4), torch.zeros(4, 8), torch.zeros(8), Activation("relu"), pre_bias=False
    )
    with pytest.raises(InputError, match=r"reads 8 dimensions but .* has 32"):
        SaeEncoder(planted_backbone, SAE(weights))


def test_dense_mode_keeps_what_the_threshold_would_hide(planted_backbone):
    plain = planted_sae().weights
    weights = SaeWeights(
        plain.W_enc,
        plain.b_enc,
        plain.W_dec,
        plain.b_dec,
        Activation("jumprelu", threshold=torch.full((D_SAE,), 2.5)),
        pre_bias=False,
    )
    acts = [
        stored(SaeEncoder(planted_backbone, SAE(weights), dense=d).encode(["apple drum"]).max_acts, 0)
        for d in (False, True)
    ]
    assert acts == [{3: 5.0}, {0: 2.0, 3: 5.0, TWIN_FEATURE: 1.0}]


def n_forwards(model) -> list[int]:
    calls: list[int] = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_the_fast_copy_serves_batches_and_the_exact_one_serves_verdicts(planted_sae):
    exact = Backbone(planted_model(), planted_tokenizer(), LAYER)
    fast = Backbone(planted_model().to(torch.bfloat16), planted_tokenizer(), LAYER)
    encoder = SaeEncoder(exact, planted_sae, fast=fast)
    on_exact, on_fast = n_forwards(exact.model), n_forwards(fast.model)
    check_encoded(encoder.encode(["apple drum"]), ["apple drum"])
    assert (len(on_exact), len(on_fast)) == (0, 1)
    check_encoded(encoder.encode_alone("apple drum"), ["apple drum"])
    assert (len(on_exact), len(on_fast)) == (1, 1)


@pytest.mark.parametrize("n_shared", [0, 8, 9])
def test_a_shared_template_start_is_run_once_and_changes_no_activation(n_shared):
    backbone = random_llama(2)
    rng = np.random.default_rng(0)
    start = rng.integers(0, 10, 9)
    start_of_second = start if n_shared == 9 else np.concatenate([start[:n_shared], (start[n_shared:] + 1) % 10])
    documents = []
    for number, first in enumerate([start, start_of_second, start]):
        ids = np.concatenate([first, rng.integers(0, 10, 4 + number), [1, 2]])
        content = np.zeros(len(ids), bool)
        content[9:-2] = True
        documents.append(TokenizedDocument(number, ids, content, ids * 0, ids * 0))
    lengths = []
    handle = backbone.model.model.embed_tokens.register_forward_pre_hook(
        lambda _, inputs: lengths.append(tuple(inputs[0].shape))
    )
    [together] = content_activations(backbone, documents, 1000)
    handle.remove()
    rest = 9 - n_shared + 6  # the two template tokens after the longest content are not run either
    assert lengths == ([(1, n_shared), (3, rest)] if n_shared else [(3, rest)])
    for row, document in enumerate(together.documents):
        [alone] = content_activations(backbone, [document], 1000)
        mine = together.doc_index == row
        assert together.position[mine].tolist() == list(range(9, len(document.token_ids) - 2))
        torch.testing.assert_close(together.acts[torch.from_numpy(mine)], alone.acts, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("site", ["resid", "mlp", "attn"])
@pytest.mark.parametrize("layer", [1, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_reads_at_every_site_what_each_document_alone_gives(family, layer, site):
    backbone = Backbone(random_model(family), None, layer, site=site)
    rng = np.random.default_rng(1)
    start = rng.integers(0, 40, 9)
    documents = []
    for number in range(3):
        ids = np.concatenate([start, rng.integers(0, 40, 3 + 2 * number), [1, 2]])
        content = np.arange(len(ids)) >= 9
        content[-2:] = False
        documents.append(TokenizedDocument(number, ids, content, ids * 0, ids * 0))
    shapes = []
    embedding = backbone.model.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    [together] = content_activations(backbone, documents, 1000)
    handle.remove()
    has_sliding_cache = family in ("mistral", "gemma2", "gemma3")
    assert shapes == ([(3, 16)] if has_sliding_cache else [(1, 9), (3, 7)])
    for row, document in enumerate(together.documents):
        ids = torch.from_numpy(document.token_ids)[None]
        alone = activations_at_layer(backbone, ids)[0][torch.from_numpy(document.is_content)]
        mine = torch.from_numpy(together.doc_index == row)
        torch.testing.assert_close(together.acts[mine], alone, rtol=1e-5, atol=1e-5)


@given(st.lists(st.integers(0, 40), max_size=30), st.integers(1, 100))
def test_length_batches_hold_every_document_once_and_never_exceed_their_tokens(lengths, batch_tokens):
    empty = np.empty(0, np.int32)
    documents = [
        TokenizedDocument(i, np.zeros(n, np.int32), np.zeros(n, bool), empty, empty) for i, n in enumerate(lengths)
    ]
    batches = length_batches(documents, batch_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= batch_tokens


def random_llama(layer: int) -> Backbone:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    return Backbone(transformers.LlamaForCausalLM(config).eval().requires_grad_(False), planted_tokenizer(), layer)


@pytest.mark.parametrize("layer", range(4))
def test_batched_activations_equal_the_hidden_states_of_each_document_alone(layer):
    backbone = random_llama(layer)
    renderer = Renderer(backbone.tokenizer, max_tokens=64, roles=("user",))
    texts = ["apple", "bread cloud drum", "eagle " * 11, "", "queen river"]
    documents = renderer.render_many([(i, Document.from_text(t)) for i, t in enumerate(texts)])
    seen = {}
    for part in content_activations(backbone, documents, 60):
        for document in part.documents:
            of_document = part.doc_index == [d.doc_no for d in part.documents].index(document.doc_no)
            seen[document.doc_no] = part.acts[torch.from_numpy(of_document)]
    assert sorted(seen) == [0, 1, 2, 3, 4]
    for document in documents:
        with torch.no_grad():
            ids = torch.from_numpy(document.token_ids).long()[None]
            expected = backbone.model(ids, output_hidden_states=True).hidden_states[layer][0]
        content = torch.from_numpy(document.is_content)
        torch.testing.assert_close(seen[document.doc_no], expected[content], rtol=1e-5, atol=1e-6)


def test_padding_to_the_right_without_a_mask_changes_nothing_before_it():
    backbone = random_llama(2)
    ids = torch.tensor([[3, 7, 11, 2]])
    padded = torch.tensor([[3, 7, 11, 2, 0, 0, 9, 9], [5, 5, 5, 5, 5, 5, 5, 5]])
    found = activations_at_layer(backbone, padded)[0, :4]
    torch.testing.assert_close(found, activations_at_layer(backbone, ids)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_later_layers_and_the_output_head_never_run(layer):
    backbone = random_llama(layer)
    ran = []
    for name, module in [*enumerate(backbone.model.model.layers), ("head", backbone.model.lm_head)]:
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    activations_at_layer(backbone, torch.tensor([[1, 2, 3]]))
    assert ran == list(range(layer))


def test_defect_8_an_error_in_the_forward_is_never_mistaken_for_the_early_stop(planted_sae):
    backbone = Backbone(planted_model(), planted_tokenizer(), 2)
    encoder = SaeEncoder(backbone, planted_sae, config=BackboneConfig(batch_tokens=1))
    healthy = encoder.encode(["drum", "bread cloud"]).max_acts.toarray()

    def fail(module, args):
        if args[0].shape[1] > 3:
            raise RuntimeError("CUDA out of memory")

    handle = backbone.model.model.layers[0].register_forward_pre_hook(fail)
    stream = encoder.stream([(0, Document.from_text("apple")), (1, Document.from_text("bread cloud"))])
    assert [d.doc_no for d in next(stream).documents] == [0]
    with pytest.raises(RuntimeError, match="out of memory"):
        next(stream)
    assert list(stream) == []
    with pytest.raises(RuntimeError, match="out of memory"):
        encoder.encode_alone("bread cloud")
    handle.remove()
    hooked = [m for m in backbone.model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooked == []
    assert np.array_equal(encoder.encode(["drum", "bread cloud"]).max_acts.toarray(), healthy)


def test_a_forward_that_never_reaches_the_layer_says_so(planted_backbone):
    backbone = copy.copy(planted_backbone)
    backbone.on_model_acts = lambda _: torch.nn.Identity().register_forward_hook(print)
    with pytest.raises(BackboneError, match="never reached layer 1; choose another layer"):
        activations_at_layer(backbone, torch.tensor([[1, 2]]))


@pytest.mark.parametrize(("seconds", "chosen"), [((2.0, 1.0), torch.bfloat16), ((1.1, 1.0), torch.float32)])
def test_the_reduced_precision_must_be_clearly_faster_to_be_chosen(monkeypatch, planted_backbone, seconds, chosen):
    fast = Backbone(planted_model().to(torch.bfloat16), planted_tokenizer(), LAYER)
    clock = [0.0]

    def run(backbone, ids):
        clock[0] += seconds[backbone is fast]
        return activations_at_layer(backbone, ids)

    monkeypatch.setattr(forward, "activations_at_layer", run)
    monkeypatch.setattr(forward.time, "perf_counter", lambda: clock[0])
    dtype, ratio = faster_dtype(planted_backbone, fast)
    assert dtype is chosen
    assert ratio == pytest.approx(seconds[0] / seconds[1])


# Capture


def corpus(n: int = 120) -> list[Document]:
    rng = np.random.default_rng(5)
    return [Document.from_text(" ".join(rng.choice(WORDS, rng.integers(2, 12)))) for _ in range(n)]


@pytest.fixture
def renderer(planted_backbone):
    return Renderer(planted_backbone.tokenizer, max_tokens=64, roles=("user",))


SMALL = CaptureConfig(dataset="d", tokens=200, heldout_tokens=20, shard_docs=10)


def ids_of_plan(documents, plan):
    return [(name, [documents[i].doc_id for i in members]) for name, members in plan.shards]


def test_the_plan_is_the_same_for_every_order_of_the_file(renderer):
    documents = corpus()
    expected = ids_of_plan(documents, plan_capture(documents, renderer, SMALL))
    for rng_seed in range(3):
        shuffled = [documents[i] for i in np.random.default_rng(rng_seed).permutation(len(documents))]
        plan = plan_capture(shuffled, renderer, SMALL)
        assert ids_of_plan(shuffled, plan) == expected


def test_held_out_documents_never_stand_among_training_documents(renderer):
    documents = corpus(400)
    plan = plan_capture(documents, renderer, CaptureConfig(dataset="d", shard_docs=50))
    sides = {"train": set(), "heldout": set()}
    for name, members in plan.shards:
        sides[name.split("-")[0]] |= {documents[i].doc_id for i in members}
    assert not sides["train"] & sides["heldout"]
    assert all(is_held_out(d) for d in sides["heldout"])
    assert sides["train"] | sides["heldout"] == {d.doc_id for d in documents}
    assert 400 / 16 / 2 < len(sides["heldout"]) < 400 / 16 * 2


def test_the_plan_stops_after_the_shard_that_reaches_the_goal(renderer):
    documents = corpus()
    plan = plan_capture(documents, renderer, SMALL)
    lengths = {
        name: sum(len(documents[i].text.split()) for i in members)
        for name, members in plan.shards
        if name.startswith("train")
    }
    assert sum(lengths.values()) == plan.n_tokens >= 200
    assert sum(list(lengths.values())[:-1]) < 200
    assert plan.n_heldout_tokens > 0


@pytest.mark.parametrize("n_docs", [0, 1, 2])
def test_a_corpus_too_small_to_hold_some_out_is_refused(renderer, n_docs):
    with pytest.raises(InputError, match="give a larger one"):
        plan_capture(corpus(n_docs), renderer, SMALL)


class Recorder(SilentProgress):
    """Progress that remembers, and can stop the run like a kill between two shards."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.calls: list[tuple[float, float | None]] = []
        self._stop_after = stop_after

    def update(self, stage, done, total, note=""):
        self.calls.append((done, total))
        if len(self.calls) == self._stop_after:
            raise KeyboardInterrupt


def run_capture(backbone, renderer, documents, folder, progress=None):
    plan = plan_capture(documents, renderer, SMALL)
    progress = progress or Recorder()
    capture([backbone], renderer, documents, plan, [folder], batch_tokens=64, progress=progress)
    return plan, progress


def shard_bytes(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}


def test_shards_hold_the_content_activations_and_where_they_come_from(planted_backbone, renderer, tmp_path):
    documents = corpus()
    plan, progress = run_capture(planted_backbone, renderer, documents, tmp_path)
    n_tokens = 0
    for name, members in plan.shards:
        shard = safetensors.torch.load_file(tmp_path / f"{name}.safetensors")
        assert shard["acts"].dtype is torch.bfloat16
        assert set(shard["doc_no"].tolist()) == set(members)
        for x, doc_no, position in zip(shard["acts"], shard["doc_no"].tolist(), shard["position"].tolist()):
            word = documents[doc_no].text.split()[position - HEADER]
            expected = torch.zeros(D_IN, dtype=torch.bfloat16)
            expected[WORDS.index(word)] = STRENGTHS[word]
            assert torch.equal(x, expected)
        n_tokens += len(shard["acts"])
    assert n_tokens == plan.n_tokens + plan.n_heldout_tokens
    assert progress.calls[-1] == (n_tokens, n_tokens)


def test_a_second_capture_runs_nothing_and_rewrites_nothing(planted_folder, renderer, tmp_path):
    backbone = Backbone(planted_model(), planted_tokenizer(), LAYER)
    run_capture(backbone, renderer, corpus(), tmp_path)
    before = {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.iterdir()}
    calls = n_forwards(backbone.model)
    run_capture(backbone, renderer, corpus(), tmp_path)
    assert calls == []
    assert {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in tmp_path.iterdir()} == before


def test_a_capture_killed_between_shards_resumes_to_identical_bytes(planted_backbone, renderer, tmp_path):
    documents = corpus()
    run_capture(planted_backbone, renderer, documents, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_capture(planted_backbone, renderer, documents, tmp_path / "killed", Recorder(stop_after=2))
    assert len(shard_bytes(tmp_path / "killed")) == 2
    (tmp_path / "killed" / "train-00002.tmp").write_bytes(b"half a shard")
    _, progress = run_capture(planted_backbone, renderer, documents, tmp_path / "killed")
    assert shard_bytes(tmp_path / "killed") == shard_bytes(tmp_path / "whole")
    assert progress.calls[-1][0] == progress.calls[-1][1]


def test_a_shard_that_was_written_but_not_listed_is_made_again_and_counted_once(
    planted_backbone, renderer, tmp_path, monkeypatch
):
    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("facviz.activations.shards.append_line", kill)
        with pytest.raises(KeyboardInterrupt):
            run_capture(planted_backbone, renderer, corpus(), tmp_path)
    assert len(shard_bytes(tmp_path)) == 1
    plan, _ = run_capture(planted_backbone, renderer, corpus(), tmp_path)
    assert [e["shard"] for e in read_lines(tmp_path / "shards.jsonl")] == [name for name, _ in plan.shards]


def test_a_deleted_shard_is_captured_again_and_progress_still_ends_at_the_total(planted_backbone, renderer, tmp_path):
    run_capture(planted_backbone, renderer, corpus(), tmp_path)
    whole = shard_bytes(tmp_path)
    (tmp_path / "train-00001.safetensors").unlink()
    _, progress = run_capture(planted_backbone, renderer, corpus(), tmp_path)
    assert shard_bytes(tmp_path) == whole
    assert [done == total for done, total in progress.calls] == [True]


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_gives_one_sentence_and_keeps_the_finished_shards(
    planted_backbone, renderer, tmp_path, monkeypatch
):
    run_capture(planted_backbone, renderer, corpus(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_capture(planted_backbone, renderer, corpus(), tmp_path / "full", Recorder(stop_after=1))
    with monkeypatch.context() as patched:
        patched.setattr(safetensors.torch, "save_file", full_disk)
        with pytest.raises(WorkspaceError, match=r"train-00001.*No space left on device.*finished work is kept\.$"):
            run_capture(planted_backbone, renderer, corpus(), tmp_path / "full")
    assert set(shard_bytes(tmp_path / "full")) == {"train-00000.safetensors"}
    run_capture(planted_backbone, renderer, corpus(), tmp_path / "full")
    assert shard_bytes(tmp_path / "full") == shard_bytes(tmp_path / "whole")


def test_training_reads_every_training_shard_once_in_an_order_fixed_by_the_seed(planted_backbone, renderer, tmp_path):
    plan, _ = run_capture(planted_backbone, renderer, corpus(), tmp_path)
    shards = ActivationShards(tmp_path, plan)
    names = [n for n, _ in plan.shards if n.startswith("train")]
    whole = {n: safetensors.torch.load_file(tmp_path / f"{n}.safetensors")["acts"] for n in names}

    def order(rng_seed: int) -> list[str]:
        return [next(n for n in names if torch.equal(whole[n], c)) for c in shards.train_chunks(rng_seed)]

    assert len(names) > 2
    assert all(sorted(order(s)) == names for s in range(5))
    assert order(3) == order(3)
    assert len({tuple(order(s)) for s in range(5)}) > 1


def test_held_out_chunks_are_the_held_out_shards_alone(planted_backbone, renderer, tmp_path):
    plan, _ = run_capture(planted_backbone, renderer, corpus(), tmp_path)
    assert sum(len(c) for c in ActivationShards(tmp_path, plan).heldout_chunks()) == plan.n_heldout_tokens


@pytest.mark.parametrize("damage", [None, b"", b"junk that is no tensor file"])
def test_a_damaged_or_missing_shard_is_named_with_what_to_do(planted_backbone, renderer, tmp_path, damage):
    plan, _ = run_capture(planted_backbone, renderer, corpus(), tmp_path)
    path = tmp_path / "train-00000.safetensors"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(WorkspaceError, match=r"train-00000.*delete it and capture again"):
        list(ActivationShards(tmp_path, plan).train_chunks(0))
