"""The comparison with other libraries: its arithmetic, its command lines, and one run of our own side."""

import json
import math
import sys

import numpy as np
import pytest
import torch

from benchmarks.peers import __main__ as program
from benchmarks.peers import environment
from benchmarks.peers.activations import captured, corpus_path, first_tokens
from benchmarks.peers.environment import PEERS, Peer, commands, failure, last_words, prepare, python_of, quiet
from benchmarks.peers.interop import judged, trained, write_cases
from benchmarks.peers.job import Feed, Job, fvu, timing
from benchmarks.peers.measure import check_own, evaluate, levelled, measure
from benchmarks.peers.report import BARS, best_of, compare, passed, table
from benchmarks.sae import synthetic_activations
from benchmarks.texts import pseudo_documents
from facviz.activations import is_held_out
from facviz.backbone import Backbone
from facviz.errors import InputError, SaeError
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights
from facviz.testing.planted import LAYER, WORDS, planted_model, planted_tokenizer


def run(side="facviz", architecture="topk", d_sae=4096, lr=9e-4, speed=1000.0, fvu=0.3, alive=1.0, **more):
    return {
        "side": side,
        "architecture": architecture,
        "d_sae": d_sae,
        "learning_rate": lr,
        "setting": "float32",
        "tokens_per_second": speed,
        "steady_tokens_per_second": speed * 1.1,
        "fvu": fvu,
        "l0": 32.0,
        "alive": alive,
        **more,
    }


@pytest.fixture
def activations(tmp_path):
    folder = tmp_path / "activations"
    folder.mkdir()
    np.save(folder / "train.npy", synthetic_activations(4096, 16).numpy())
    np.save(folder / "heldout.npy", synthetic_activations(512, 16).numpy())
    return folder


def random_sae(kind, d_in=16, d_sae=64, k=4):
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator))
    activation = Activation("topk", k=k) if kind == "topk" else Activation("jumprelu", threshold=torch.zeros(d_sae))
    return SAE(SaeWeights(W_dec.T.contiguous(), torch.zeros(d_sae), W_dec, torch.zeros(d_in), activation))


class TestEnvironment:
    def test_a_venv_is_made_and_filled_with_pinned_versions_and_our_build_of_torch(self, tmp_path):
        folder = tmp_path / "sae-lens"
        make, torch_first, library = commands(PEERS["sae-lens"], folder, "2.13.0+cpu")
        assert make == [sys.executable, "-m", "venv", str(folder)]
        assert torch_first[0] == library[0] == str(python_of(folder))
        assert torch_first[-3:] == ["--extra-index-url", "https://download.pytorch.org/whl/cpu", "torch==2.13.0+cpu"]
        assert library[-2:] == ["torch==2.13.0+cpu", "sae-lens==6.54.12"]

    def test_a_plain_torch_needs_no_other_index(self, tmp_path):
        assert not any("--extra-index-url" in command for command in commands(PEERS["sae-lens"], tmp_path, "2.13.0"))

    def test_what_breaks_a_peer_is_taken_out_last(self, tmp_path):
        last = commands(PEERS["dictionary-learning"], tmp_path, "2.13.0")[-1]
        assert last[3:] == ["--disable-pip-version-check", "uninstall", "--quiet", "--yes", "torchvision"]

    def test_a_peer_that_cannot_be_installed_is_reported_with_the_reason(self, tmp_path, monkeypatch):
        broken = [sys.executable, "-c", "import sys; sys.exit('first line\\nno matching distribution')"]
        monkeypatch.setattr(environment, "commands", lambda *_: [broken])
        found = prepare(Peer("nobody", "nobody==1", "nobody", "x"), tmp_path, "2.13.0")
        assert found.python is None
        assert found.reason == "could not be installed: no matching distribution"

    def test_a_peer_that_cannot_be_imported_is_reported_and_not_installed_again(self, tmp_path, monkeypatch):
        peer = Peer("nobody", "nobody==1", "no_such_module", "x")
        (tmp_path / "nobody").mkdir()
        (tmp_path / "nobody" / "facviz-peer.txt").write_text("nobody==1 torch==2.13.0\n", encoding="utf-8")
        monkeypatch.setattr(environment, "commands", lambda *_: pytest.fail("installed again"))
        monkeypatch.setattr(environment, "python_of", lambda _: sys.executable)
        found = prepare(peer, tmp_path, "2.13.0")
        assert found.python is None
        assert "could not be imported: ModuleNotFoundError: No module named 'no_such_module'" in found.reason

    def test_another_version_is_installed_anew(self, tmp_path, monkeypatch):
        peer = Peer("json", "json==2", "json", "x")
        (tmp_path / "json").mkdir()
        (tmp_path / "json" / "facviz-peer.txt").write_text("json==1 torch==2.13.0\n", encoding="utf-8")
        built = []
        monkeypatch.setattr(environment, "commands", lambda *_: built.append(1) or [])
        monkeypatch.setattr(environment, "python_of", lambda _: sys.executable)
        assert prepare(peer, tmp_path, "2.13.0").python == sys.executable
        assert prepare(peer, tmp_path, "2.13.0").python == sys.executable
        assert built == [1]

    def test_an_interpreter_that_is_not_there_is_a_reason_and_no_exception(self, tmp_path):
        assert "No such file" in failure([str(tmp_path / "python")])

    def test_last_words_name_the_error_or_are_the_last_line_and_are_bounded(self):
        assert last_words("one\ntwo\n\n", 1) == "two"
        assert last_words("one\nNotImplementedError: no\nregistered at x.cpp", 1) == "NotImplementedError: no"
        assert last_words("ERROR: No matching distribution found\n", 1) == "ERROR: No matching distribution found"
        assert last_words("", 7) == "exit status 7"
        assert len(last_words("x" * 5000, 1)) == 300

    def test_children_get_none_of_our_packages_and_stay_offline(self):
        inherited = {"PATH": "p", "PYTHONPATH": "ours", "VIRTUAL_ENV": "ours"}
        assert quiet(inherited).keys() == {"PATH", "HF_HUB_OFFLINE", "WANDB_MODE", "PYTHONDONTWRITEBYTECODE"}


class TestJob:
    def test_the_feed_gives_whole_batches_in_the_stored_order_and_notes_when(self, activations):
        feed = Feed(Job(str(activations), "", "topk", 64, n_tokens=1100, learning_rate=1e-3, batch_tokens=512))
        batches = list(feed)
        assert [len(batch) for batch in batches] == [512, 512]
        assert np.array_equal(torch.cat(batches).numpy(), np.load(activations / "train.npy")[:1024])
        assert len(feed.asked) == 2
        assert feed.asked == sorted(feed.asked)

    @pytest.mark.parametrize("n_tokens", [100, 100_000])
    def test_a_run_without_a_batch_or_beyond_what_is_stored_is_refused(self, activations, n_tokens):
        with pytest.raises(ValueError, match="4096 are stored"):
            Feed(Job(str(activations), "", "topk", 64, n_tokens=n_tokens, learning_rate=1e-3, batch_tokens=512))

    def test_rates_count_the_whole_call_and_again_without_the_first_two_batches(self):
        found = timing(10.0, [12.0, 17.0, 18.0, 19.0], 20.0, batch_tokens=100)
        assert found["seconds"] == 10
        assert found["tokens_per_second"] == 40
        assert found["warm_seconds"] == 8
        assert found["steady_tokens_per_second"] == 100

    def test_a_setting_that_compiles_long_must_win_the_time_back(self):
        slow_start = {"warm_seconds": 50.0, "steady_tokens_per_second": 2000.0}
        plain = {"warm_seconds": 2.0, "steady_tokens_per_second": 1000.0}
        short, long = (
            lambda p: program.expected_seconds(p, 24_096, 2048),
            lambda p: program.expected_seconds(p, 10**6, 2048),
        )
        assert short(plain) == 22
        assert short(plain) < short(slow_start)
        assert long(slow_start) < long(plain)

    def test_fvu_is_one_for_the_mean_and_zero_for_perfection_also_far_from_the_origin(self):
        x = synthetic_activations(5000, 16) + 1000
        mean = x.double().mean(0)
        assert fvu(x, lambda part: mean.expand(len(part), -1)) == pytest.approx(1, abs=1e-9)
        assert fvu(x, lambda part: part) == 0


class TestMeasure:
    def test_topk_is_measured_as_it_is_saved(self):
        sae, x = random_sae("topk"), synthetic_activations(1000, 16)
        found = measure(sae, x, k=4)
        assert found == evaluate(sae, x)
        assert found["l0"] <= 4
        assert found["fvu"] == pytest.approx(fvu(x, sae.reconstruct))

    def test_a_threshold_is_levelled_to_k_and_the_saved_one_kept_beside_it(self):
        sae, x = random_sae("jumprelu"), synthetic_activations(4000, 16)
        found = measure(sae, x, k=4)
        assert found["as_saved"]["l0"] > 20
        assert found["l0"] == pytest.approx(4, abs=0.4)
        assert found["as_saved"]["fvu"] != found["fvu"]

    def test_levelling_gives_exactly_k_on_average_where_it_is_fitted(self):
        sae, x = random_sae("jumprelu"), synthetic_activations(4000, 16)
        assert evaluate(levelled(sae, x, 4), x[::8])["l0"] == 4

    def test_an_sae_with_fewer_active_features_than_k_keeps_all_that_are_positive(self):
        sae, x = random_sae("jumprelu"), synthetic_activations(400, 16)
        assert evaluate(levelled(sae, x, 64), x) == evaluate(sae, x)

    def test_alive_is_the_share_of_features_that_fire_on_the_held_out_tokens(self):
        sae = random_sae("topk")
        sae.weights.b_enc[:48] = -1e6
        assert evaluate(sae, synthetic_activations(2000, 16))["alive"] == 0.25

    def test_a_library_that_measures_another_fvu_on_its_own_weights_is_refused(self):
        check_own({"own_fvu": 0.30001}, {"fvu": 0.4, "as_saved": {"fvu": 0.3}})
        check_own({"own_fvu": 0.30001}, {"fvu": 0.3})
        for wrong in (0.301, math.nan):
            with pytest.raises(SaeError, match="reads it wrongly"):
                check_own({"own_fvu": wrong}, {"fvu": 0.3})


class TestReport:
    def test_the_best_run_is_that_of_lowest_fvu_with_the_median_rate_of_all(self):
        runs = [run(lr=1, speed=10.0, fvu=0.5), run(lr=2, speed=20.0, fvu=0.3), run(lr=3, speed=90.0, fvu=0.4)]
        best = best_of([*runs, {"failed": "diverged"}])
        assert (best["learning_rate"], best["fvu"], best["tokens_per_second"]) == (2, 0.3, 20.0)
        assert best_of([{"failed": "diverged"}]) is None

    def test_ratios_are_ours_through_theirs_and_bars_hold_against_saelens_alone(self):
        runs = [run(speed=3000.0, fvu=0.27), run("sae-lens", fvu=0.30), run("dictionary-learning", fvu=0.01)]
        against_saelens, against_other = compare(runs)
        assert against_saelens["ratios"] == pytest.approx({"speed": 3, "steady_speed": 3, "fvu": 0.9})
        assert against_saelens["bars"] == {"speed ≥ 3×": True, "FVU ≤ 0.97×": True, "alive ≥ 95%": True}
        assert against_other["bars"] == {}
        assert passed([against_saelens, against_other])

    @pytest.mark.parametrize(
        ("d_sae", "ours", "missed"),
        [
            (4096, {"speed": 2990.0, "fvu": 0.2}, "speed ≥ 3×"),
            (4096, {"speed": 9000.0, "fvu": 0.2911}, "FVU ≤ 0.97×"),
            (4096, {"speed": 9000.0, "fvu": 0.2, "alive": 0.949}, "alive ≥ 95%"),
            (16_384, {"speed": 3990.0, "fvu": 0.2}, "speed ≥ 4×"),
            (16_384, {"speed": 9000.0, "fvu": 0.2611}, "FVU ≤ 0.87×"),
        ],
    )
    def test_each_bar_can_be_missed(self, d_sae, ours, missed):
        (entry,) = compare([run(d_sae=d_sae, **ours), run("sae-lens", d_sae=d_sae)])
        assert [name for name, reached in entry["bars"].items() if not reached] == [missed]
        assert not passed([entry])

    def test_bars_are_missed_where_nothing_could_be_measured(self):
        assert not passed([])
        (entry,) = compare([run(), run("sae-lens", failed="out of memory")])
        assert entry["theirs"] is None
        assert not passed([entry])

    def test_architectures_and_widths_are_compared_each_on_its_own(self):
        cases = [("topk", 4096), ("topk", 16_384), ("batchtopk", 4096)]
        runs = [run(side, architecture, d_sae) for architecture, d_sae in cases for side in ("facviz", "sae-lens")]
        assert [(e["architecture"], e["d_sae"]) for e in compare(runs)] == cases
        assert set(BARS) == set(program.TOKENS) == set(program.QUICK_TOKENS)

    def test_the_table_shows_runs_ratios_verdicts_failures_and_who_is_missing(self):
        runs = [run(speed=3100.0), run("sae-lens", fvu=0.30), run("sae-lens", lr=1e-2, failed="it diverged")]
        record = {
            "seconds": 12.0,
            "quick": True,
            "missing": {"dictionary-learning": "could not be installed: no network"},
            "probes": [],
            "runs": runs,
            "comparisons": compare(runs),
            "interop": [
                {"name": "relu → standard", "features": 1e-7, "reconstruction": 2e-5, "l0": 8.0, "passed": False},
                {"name": "of all exports", "failed": "it crashed", "passed": False},
            ],
        }
        shown = table(record, "a machine").splitlines()
        assert shown[:2] == ["a machine", "12 s in all, --quick: too short for the bars"]
        assert [line.split()[2] for line in shown[3:5]] == ["facviz", "sae-lens"]
        assert "ours is 3.10× as fast (3.10× once warm), FVU 1.000×; speed ≥ 3× pass; FVU ≤ 0.97× MISSED" in shown[5]
        assert shown[6] == "dictionary-learning could not be installed: no network"
        assert shown[7] == "failed: sae-lens topk 4096 float32 lr 0.01: it diverged"
        assert shown[8].endswith("reconstructions by 2.0e-05, L0 8.0: MISSED")
        assert shown[9] == "interop of all exports: it crashed"


class TestActivations:
    def test_without_a_corpus_the_message_says_how_to_give_one(self, monkeypatch, tmp_path):
        monkeypatch.delenv("FACVIZ_DATA", raising=False)
        with pytest.raises(InputError, match="give --corpus FILE or set FACVIZ_DATA"):
            corpus_path(None)
        monkeypatch.setenv("FACVIZ_DATA", str(tmp_path))
        with pytest.raises(InputError, match="There is no corpus at"):
            corpus_path(None)
        assert corpus_path(tmp_path) == tmp_path

    def test_training_and_held_out_tokens_come_from_different_documents_and_are_kept(self, monkeypatch, tmp_path):
        backbone = Backbone(planted_model(), planted_tokenizer(), LAYER, "planted")
        documents = pseudo_documents(150, mean_words=9, words=WORDS)
        corpus = tmp_path / "corpus.jsonl"
        lines = [json.dumps({"text": document.messages[0].content}) for document in documents]
        corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
        asked = []

        def note(backbone, documents, n_tokens):
            asked.append({document.doc_id for document in documents})
            return first_tokens(backbone, documents, n_tokens)

        monkeypatch.setattr("benchmarks.peers.activations._fast_backbone", lambda: backbone)
        monkeypatch.setattr("benchmarks.peers.activations.HELDOUT_TOKENS", 40)
        monkeypatch.setattr("benchmarks.peers.activations.first_tokens", note)
        folder = captured(corpus, tmp_path / "kept", 300)
        train, heldout = np.load(folder / "train.npy"), np.load(folder / "heldout.npy")
        assert (train.shape, heldout.shape) == ((300, backbone.d_model), (40, backbone.d_model))
        assert train.dtype == heldout.dtype == np.float32
        assert not asked[0] & asked[1]
        assert {is_held_out(doc_id) for doc_id in asked[1]} == {True}
        assert captured(corpus, tmp_path / "kept", 300) == folder
        assert len(asked) == 2

    def test_a_corpus_that_is_too_small_is_refused_with_both_figures(self):
        backbone = Backbone(planted_model(), planted_tokenizer(), LAYER, "planted")
        with pytest.raises(InputError, match="100000 are needed; give a larger one"):
            first_tokens(backbone, pseudo_documents(3, mean_words=9, words=WORDS), 100_000)


class TestProgram:
    @pytest.mark.parametrize("architecture", program.ARCHITECTURES)
    def test_our_side_trains_in_a_child_and_is_measured(self, activations, architecture):
        side = program.Side("facviz", sys.executable, "benchmarks.peers.ours")
        job = Job(str(activations), "", architecture, 64, n_tokens=4096, learning_rate=3e-3, k=4, batch_tokens=256)
        found = program.run_job(side, job)
        assert "failed" not in found, found
        assert found["own_fvu"] == pytest.approx(found.get("as_saved", found)["fvu"], rel=1e-4)
        assert found["fvu"] < 1
        assert found["l0"] <= 4.4
        assert found["tokens_per_second"] == pytest.approx(4096 / found["seconds"])

    def test_a_child_that_fails_is_reported_with_its_last_words(self, activations):
        side = program.Side("facviz", sys.executable, "benchmarks.peers.ours")
        found = program.run_job(side, Job(str(activations), "", "topk", 64, n_tokens=1, learning_rate=1e-3))
        assert found["failed"] == "ValueError: 1 tokens are asked for; 4096 are stored."
        assert found["side"] == "facviz"

    def test_the_setting_expected_to_end_soonest_is_chosen_and_failures_are_kept(self, monkeypatch):
        seconds = {"float32": (1.0, 500.0), "autocast": (1.0, 2000.0), "compile+autocast": (90.0, 2100.0)}

        def probe(side, job, *, measured):
            assert job.n_tokens == 5 * job.batch_tokens
            if job.setting not in seconds:
                return {"setting": job.setting, "failed": "not on this device"}
            warm, steady = seconds[job.setting]
            return {"setting": job.setting, "warm_seconds": warm, "steady_tokens_per_second": steady}

        monkeypatch.setattr(program, "run_job", probe)
        probes = []
        job = Job("", "", "topk", 4096, n_tokens=65_536, learning_rate=1e-3)
        assert program._fastest_setting(program.Side("sae-lens", sys.executable, "x"), job, probes) == "autocast"
        assert [p["setting"] for p in probes if "failed" in p] == ["sparse"]
        assert program._fastest_setting(program.Side("facviz", sys.executable, "x"), job, probes) == "float32"

    def test_bad_input_ends_with_one_sentence(self, monkeypatch, capsys, tmp_path):
        monkeypatch.delenv("FACVIZ_DATA", raising=False)
        monkeypatch.setattr(program, "prepare", lambda *_: environment.Environment(None, "is not tried here"))
        assert program.main(["--out", str(tmp_path / "results.json")]) == 2
        assert "Error: No corpus to capture activations from" in capsys.readouterr().err

    def test_a_peer_that_is_missing_is_in_the_record_and_the_table_and_the_bench_does_not_pass(
        self, monkeypatch, capsys, tmp_path, activations
    ):
        monkeypatch.setattr(program, "prepare", lambda *_: environment.Environment(None, "could not be installed: no"))
        monkeypatch.setattr(program, "captured", lambda *_: activations)
        monkeypatch.setattr(program, "run_job", lambda side, job: run(side.name, job.architecture, job.d_sae))
        out = tmp_path / "results.json"
        assert program.main(["--quick", "--corpus", str(tmp_path), "--out", str(out)]) == 1
        record = json.loads(out.read_text(encoding="utf-8"))
        assert record["missing"] == dict.fromkeys(PEERS, "could not be installed: no")
        assert not record["passed"]
        assert "sae-lens could not be installed: no" in capsys.readouterr().out


class TestInterop:
    def test_exports_agree_only_within_the_tolerance_and_where_features_fire(self):
        good = {"features": 1e-6, "reconstruction": 1e-5, "l0": 8.0}
        opened = [good, good | {"features": 2e-5}, good | {"reconstruction": math.nan}, good | {"l0": 0.0}]
        assert [each["passed"] for each in judged(list("abcd"), opened)] == [True, False, False, False]

    def test_every_case_is_written_with_inputs_features_and_reconstructions(self, monkeypatch, tmp_path):
        small = trained("topk")
        monkeypatch.setattr("benchmarks.peers.interop.trained", lambda _: small)
        names = write_cases(tmp_path)
        assert len(names) == len(set(names)) == 9
        for number in range(len(names)):
            case = tmp_path / str(number)
            assert json.loads((case / "cfg.json").read_text(encoding="utf-8"))["architecture"] == "topk"
            assert (np.load(case / "features.npy") > 0).sum() > 512
            assert np.load(case / "reconstruction.npy").shape == np.load(tmp_path / "x.npy").shape
