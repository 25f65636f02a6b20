"""The training loop: start, folding, exact repetition and resumption, and what it reports and leaves behind."""

import dataclasses
import json

import pytest
import torch
from torch.nn import Parameter
from torch.testing import assert_close

from facviz.config import SaeConfig
from facviz.errors import SaeError
from facviz.sae import train
from facviz.sae.adam import Adam
from facviz.sae.architectures import get_architecture
from facviz.sae.buffer import mixing_buffer
from facviz.sae.checkpoint import FileCheckpoints, load_state, save_state
from facviz.sae.init import ENCODER_SCALE, init_weights, offset_ratio
from facviz.sae.metrics import SaeEvaluator
from facviz.sae.model import SAE
from facviz.sae.train import remove_radial_part, share_gradient, train_sae

D_IN, N_STEPS = 16, 30
CONFIG = SaeConfig(d_sae=64, k=4, batch_tokens=128, dead_after_tokens=200, aux_k=8)
ARCHITECTURES = ("batchtopk", "topk")


def make_acts(n, seed):
    """Sparse combinations of fixed directions, off centre."""
    directions = torch.randn(40, D_IN, generator=torch.Generator().manual_seed(99))
    rng = torch.Generator().manual_seed(seed)
    strengths = torch.rand(n, 40, generator=rng) * (torch.rand(n, 40, generator=rng) < 0.08)
    return 10 * strengths @ directions + 20


SAMPLE = make_acts(1000, 7)


def batches(start):
    chunks = (make_acts(500, seed) for seed in range(9))
    return mixing_buffer(chunks, batch_size=128, capacity=1000, rng_seed=0, skip_batches=start)


def run(config=CONFIG, n_steps=N_STEPS, source=batches, **options):
    return train_sae(source, config, d_in=D_IN, n_steps=n_steps, init_sample=SAMPLE, **options)


class MemoryCheckpoints:
    """Keeps every state, round-tripped through a file so that only what is written can be resumed."""

    def __init__(self, folder, due):
        self.folder, self.due_steps, self.states = folder, due, {}

    def due(self, step):
        return step in self.due_steps

    def save(self, state, export):
        path = self.folder / f"{state.step}.safetensors"
        save_state(state, path)
        self.states[state.step] = load_state(path)


def tensors_of(weights):
    threshold = weights.activation.threshold
    return [weights.W_enc, weights.b_enc, weights.W_dec, weights.b_dec] + ([] if threshold is None else [threshold])


def assert_bitwise_equal(first, second):
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(first), tensors_of(second)))


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_runs_give_bitwise_the_same_weights_and_another_seed_does_not(architecture, n_threads):
    torch.set_num_threads(n_threads)
    config = dataclasses.replace(CONFIG, architecture=architecture)
    first = run(config)
    assert_bitwise_equal(first, run(config))
    assert not torch.equal(first.W_enc, run(dataclasses.replace(config, rng_seed=1)).W_enc)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_resumed_run_ends_bitwise_where_an_uninterrupted_one_does(architecture, tmp_path):
    config = dataclasses.replace(CONFIG, architecture=architecture)
    sink = MemoryCheckpoints(tmp_path, due={13})
    whole = run(config, checkpoint=sink)
    steps = []
    resumed = run(config, resume=sink.states[13], on_step=lambda report: steps.append(report.step))
    assert_bitwise_equal(whole, resumed)
    assert steps == list(range(14, N_STEPS + 1))
    assert_bitwise_equal(whole, run(config, resume=sink.states[N_STEPS]))


def test_the_state_after_the_last_step_is_always_kept(tmp_path):
    run(checkpoint=FileCheckpoints(tmp_path / "state.safetensors", every_steps=1000))
    assert load_state(tmp_path / "state.safetensors").step == N_STEPS
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    sink = MemoryCheckpoints(tmp_path, due=())
    run(checkpoint=sink)
    with pytest.raises(SaeError, match="another k"):
        run(dataclasses.replace(CONFIG, k=5), resume=sink.states[N_STEPS])
    with pytest.raises(SaeError, match="another n_steps"):
        run(n_steps=N_STEPS + 1, resume=sink.states[N_STEPS])


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(SaeError, match="no usable training checkpoint"):
        load_state(tmp_path / "state")
    with pytest.raises(SaeError, match="no usable training checkpoint"):
        load_state(tmp_path / "missing")


def test_reports_name_every_metric_and_training_improves_the_fit():
    reports = []
    run(dataclasses.replace(CONFIG, architecture="topk", learning_rate=0.01), on_step=reports.append)
    assert [report.step for report in reports] == list(range(1, N_STEPS + 1))
    assert [report.n_tokens for report in reports] == [128 * (i + 1) for i in range(N_STEPS)]
    assert all(0 < report.l0 <= CONFIG.k for report in reports)
    assert reports[-1].fvu < 0.5 * reports[0].fvu
    assert reports[0].learning_rate < reports[10].learning_rate > reports[-1].learning_rate > 0


def test_held_out_metrics_of_a_short_run_are_finite_and_named():
    sae = SAE(run(dataclasses.replace(CONFIG, learning_rate=0.01)))
    evaluator = SaeEvaluator(sae)
    evaluator.update(make_acts(2000, 1234))
    metrics = evaluator.result()
    assert 0 < metrics.fvu < 0.8
    assert metrics.l0 > 0
    assert 0 <= metrics.dead_share < 1


def test_decoder_rows_stay_on_the_unit_sphere():
    assert_close(run().W_dec.norm(dim=1), torch.ones(CONFIG.d_sae))


def test_the_radial_part_of_the_gradient_is_removed():
    rows = torch.nn.functional.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    parameter = Parameter(rows)
    parameter.grad = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    tangent = parameter.grad - (parameter.grad * rows).sum(1, keepdim=True) * rows
    remove_radial_part(parameter)
    assert_close(parameter.grad, tangent)


def test_a_shared_gradient_is_the_sum_on_both_sides():
    first, second = Parameter(torch.zeros(2)), Parameter(torch.zeros(2))
    first.grad, second.grad = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
    share_gradient(first, second)
    assert first.grad.tolist() == second.grad.tolist() == [11.0, 22.0]
    first.grad.add_(1)
    assert second.grad.tolist() == [11.0, 22.0]


@pytest.mark.parametrize("architecture", ["topk", "gated", "paper"])
def test_encoder_and_decoder_learn_alike_at_first_where_features_compete_and_the_decoder_three_times_as_fast(
    architecture, monkeypatch
):
    steps = []

    class Spy(Adam):
        def step(self, learning_rate):
            decoder = run.parameters.decoder
            is_shared = torch.equal(run.parameters.W_enc.grad, decoder.grad)
            [name] = [name for name, parameter in self.parameters.items() if parameter is decoder]
            steps.append((is_shared, self.factors.get(name, 1.0) / self.factors.get("b_enc", 1.0)))
            super().step(learning_rate)

    monkeypatch.setattr(train, "Adam", Spy)
    run = train._Run(train.Plan(dataclasses.replace(CONFIG, architecture=architecture), SAMPLE), 10)
    for seed in range(10):
        run.train_on(make_acts(128, seed))
    shared = {"topk": [True] * 4 + [False] * 6, "gated": [False] * 10, "paper": [True] * 10}[architecture]
    assert [is_shared for is_shared, _ in steps] == shared  # the paper's are one matrix
    assert [factor for _, factor in steps] == pytest.approx([1.0 if architecture == "paper" else 3.0] * 10)


def test_training_a_finished_sae_further_leaves_encoder_and_decoder_apart_from_the_first_step():
    start = run(dataclasses.replace(CONFIG, architecture="topk"))
    further = train._Run(train.Plan(dataclasses.replace(CONFIG, architecture="topk"), SAMPLE, start=start), 10)
    assert further.tied_steps == 0
    assert train._Run(train.Plan(dataclasses.replace(CONFIG, architecture="topk"), SAMPLE), 10).tied_steps == 4


def test_folding_the_input_scale_changes_units_only():
    start = init_weights(SAMPLE, CONFIG.d_sae, 0)
    trainer = train._Run(train.Plan(CONFIG, SAMPLE), N_STEPS)
    for batch in [next(batches(0)), make_acts(128, 3)]:
        trainer.train_on(batch)
    x = make_acts(300, 55)
    scaled = x * start.input_scale
    p = {name: parameter.detach() for name, parameter in trainer.named.items()}
    pre = (scaled - p["b_dec"]) @ p["W_enc"].T + p["b_enc"]
    acts = pre * (pre > max(trainer.architecture.threshold, 0.0))
    sae = SAE(trainer.export())
    assert sae.architecture == "jumprelu"
    assert_close(sae.encode_dense(x), acts / start.input_scale, rtol=1e-5, atol=1e-3)
    expected = (acts @ p["W_dec"] + p["b_dec"]) / start.input_scale
    assert_close(sae.reconstruct(x), expected, rtol=1e-4, atol=1e-3)


def test_training_starts_centred_scaled_tied_and_on_the_sphere():
    start = init_weights(SAMPLE, 64, rng_seed=3)
    scaled = SAMPLE * start.input_scale
    assert_close(start.b_dec, scaled.mean(0), rtol=1e-5, atol=1e-5)
    assert float((scaled - start.b_dec).square().sum(1).mean()) == pytest.approx(D_IN, rel=1e-5)
    assert torch.equal(start.W_enc, ENCODER_SCALE * start.W_dec)
    assert_close(start.W_dec.norm(dim=1), torch.ones(64))


def test_more_directions_start_where_activations_vary_more_and_none_is_left_out():
    spread = torch.tensor([100.0, 1.0, 1.0, 1e-12])
    sample = torch.randn(4000, 4, generator=torch.Generator().manual_seed(0)) * spread.sqrt()
    share = init_weights(sample, 4000, rng_seed=0).W_dec.square().mean(0)
    assert share[0] > 1.5 * share[1]
    assert share[1] == pytest.approx(float(share[2]), rel=0.1)
    assert share[3] > 0


def test_offset_ratio_is_mean_norm_over_deviation_norm():
    assert offset_ratio(torch.tensor([[3.0, 5.0], [5.0, 5.0]])) == pytest.approx(41**0.5)


@pytest.mark.parametrize(
    "sample", [torch.ones(5, D_IN), torch.ones(1, D_IN), torch.full((4, D_IN), torch.nan)], ids=["same", "one", "nan"]
)
def test_a_sample_without_spread_is_refused(sample):
    with pytest.raises(SaeError):
        train_sae(batches, CONFIG, d_in=D_IN, n_steps=2, init_sample=sample)


def test_activations_that_run_out_or_do_not_fit_are_named():
    with pytest.raises(SaeError, match="ran out at step 2 of 30"):
        run(source=lambda start: iter([SAMPLE[:128]] * 2))
    with pytest.raises(SaeError, match="shape"):
        run(source=lambda start: iter([SAMPLE[:100]]))
    with pytest.raises(SaeError, match="not finite at step 0"):
        run(source=lambda start: iter([torch.full((128, D_IN), torch.nan)]))
    with pytest.raises(SaeError, match="has width"):
        train_sae(batches, CONFIG, d_in=D_IN + 1, n_steps=2, init_sample=SAMPLE)


def test_batchtopk_keeps_about_k_features_per_token_at_inference_too():
    config = dataclasses.replace(CONFIG, learning_rate=3e-3)
    sae = SAE(run(config, n_steps=200, source=lambda start: (make_acts(128, seed) for seed in range(start, 200))))
    counts = sae.encode(make_acts(4000, 4321)).offsets.diff()
    assert float(counts.float().mean()) == pytest.approx(CONFIG.k, rel=0.1)
    assert len(set(counts.tolist())) > 3
    assert sae.weights.activation.threshold.unique().numel() == 1


def test_an_unknown_architecture_lists_the_known_ones():
    with pytest.raises(SaeError, match="batchtopk, gated, jumprelu"):
        get_architecture("guarded")


def test_provenance_survives_json():
    provenance = run(n_steps=2).provenance
    assert json.loads(json.dumps(provenance))["config"]["k"] == CONFIG.k
    assert provenance["n_training_tokens"] == 2 * CONFIG.batch_tokens
    assert provenance["offset_ratio"] > 1


def test_selection_in_half_precision_and_in_float32_fit_equally_well(monkeypatch):
    config, fvu = dataclasses.replace(CONFIG, learning_rate=3e-3, architecture="topk"), {}
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(train, "selection_dtype", lambda device, dtype=dtype: dtype)
        source = lambda start: (make_acts(128, seed) for seed in range(start, 200))  # noqa: E731
        evaluator = SaeEvaluator(SAE(run(config, n_steps=200, source=source)))
        evaluator.update(make_acts(4000, 4321))
        fvu[dtype] = evaluator.result().fvu
    assert fvu[torch.bfloat16] == pytest.approx(fvu[torch.float32], rel=0.05)
