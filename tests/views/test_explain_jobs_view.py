"""What the form's choices become: the command, which features, what the dry run says, how a job ended."""

import pytest

from facviz.cli.parser import build_parser
from facviz.config import ExplainConfig, RelevanceConfig, ScoreConfig, from_mapping
from facviz.errors import InputError
from facviz.store.workspace import open_workspace
from facviz.views.explain_jobs import Wish, asked_by, chosen_ids, cost_cells, money, outcome_words, read_ids
from facviz.views.scope import look

WISHES = [
    Wish("explain", "s", "d", "lexical"),
    Wish("explain", "s", "d", "local", ids=(1, 2)),
    Wish("explain", "s", "d", "anthropic", "m", max_features=9, n_candidates=3, budget_usd=2.5, concurrency=8),
    Wish("score", "s", "d", "local", kinds=("embedding",), ids=(4,)),
    Wish("score", "s", "d", "openai", kinds=("embedding", "detection"), budget_usd=1.0),
    Wish("judge", "s", "d", "anthropic", task="toxicity", budget_usd=1.0),
    Wish("explain", "s", "d", "anthropic", budget_usd=1.0, is_batch=True),
]
CONFIGS = {"explain": ExplainConfig, "score": ScoreConfig, "judge": RelevanceConfig}


@pytest.mark.parametrize("wish", WISHES)
def test_the_command_and_the_config_of_the_dry_run_say_the_same(wish):
    given = vars(build_parser().parse_args([*wish.arguments, "--workspace=w"]))
    config = from_mapping(CONFIGS[wish.what], wish.settings, where="the form")
    for name, value in wish.settings.items():
        assert getattr(config, name) == value
        flag = given[name]
        assert (tuple(flag) if isinstance(flag, list) else flag) == value, name
    assert asked_by(wish.arguments)


def test_only_what_asks_a_paid_model_needs_a_dry_run():
    assert [wish.is_paid for wish in WISHES] == [False, False, True, False, True, True, True]
    assert [wish.asks_model for wish in WISHES] == [False, True, True, False, True, True, True]


def test_ids_are_read_with_commas_and_ranges():
    assert read_ids(" 12, 40;100-103 , ") == [12, 40, 100, 101, 102, 103]
    assert read_ids("7–9") == [7, 8, 9]


@pytest.mark.parametrize("text", ["a", "1,b", "-3", "3-", "1-999999", "9" * 30])
def test_what_is_no_list_of_ids_is_said(text):
    with pytest.raises(InputError, match=r"no feature|too wide"):
        read_ids(text)


def test_the_features_chosen_have_spans_and_are_what_the_words_say(planted_loop):
    workspace = open_workspace(planted_loop / "workspace")
    with workspace.reader() as reader:
        looked = look(reader, workspace.manifest)
        assert chosen_ids(reader, looked, "all") == ()
        missing = {row["feature_id"] for row in reader.rows("missing", coverage_id=looked.run["coverage_id"])}
        assert set(chosen_ids(reader, looked, "missing")) == missing == set(range(12, 24))
        explained = {r["feature_id"]: r["outcome"] for r in reader.rows("explanations", sae_id=looked.sae_id)}
        without = [f for f in range(25) if explained.get(f) != "explained"]
        if without:
            assert chosen_ids(reader, looked, "unexplained") == tuple(without)
        else:
            with pytest.raises(InputError, match="no features among those without an explanation"):
                chosen_ids(reader, looked, "unexplained")
        assert chosen_ids(reader, looked, "these", "3,5") == (3, 5)
        with pytest.raises(InputError, match="no features among these"):
            chosen_ids(reader, looked, "these", "")


def test_a_dry_run_says_calls_tokens_money_and_time_and_unknown_is_not_nothing():
    told = {"n_calls": 300, "n_cached": 20, "n_input_tokens": 9000, "n_output_tokens": 1000, "usd": 0.5, "seconds": 90}
    cells = {label: (value, note) for label, value, note in cost_cells(told)}
    assert cells["Calls"] == ("280", "20 more are recorded and cost nothing.")
    assert (cells["Tokens in, about"][0], cells["Tokens out, at most"][0]) == ("9,000", "1,000")
    assert cells["Cost, at most"][0] == "$0.50"
    assert cells["Time, about"][0] == "1 min 30 s"
    unknown = {label: (value, note) for label, value, note in cost_cells(told | {"usd": None})}
    assert unknown["Cost, at most"][0] == "–"
    assert "priced" in unknown["Cost, at most"][1]
    assert money(0.0123) == "$0.0123"


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            {
                "n_explained": 5,
                "n_cannot_tell": 1,
                "n_failed": 3,
                "failures": {"refused": 2, "invalid": 1},
                "usd": 0.02,
            },
            "5 explained · 1 cannot tell · 1 invalid · 2 refused · $0.0200 spent on this so far",
        ),
        ({"n_judged": 4, "n_failed": 1, "yes": 3, "no": 1}, "4 judged · 3 yes · 1 no · 1 without a usable verdict"),
        (
            {"detection": {"median": 0.8, "median_shuffled": 0.5, "n_scored": 9, "n_invalid": 2}},
            "detection 0.800, other label 0.500 (median of 9) · 2 answers unreadable",
        ),
    ],
)
def test_how_a_job_ended_is_said_in_counts(result, words):
    assert outcome_words(result) == words
