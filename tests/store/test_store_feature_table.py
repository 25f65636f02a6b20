"""The feature table: sorting, paging, filters and searches against plain loops, up to 65,536 features."""

from __future__ import annotations

import json

import numpy as np
import pytest

from facviz.errors import InputError
from facviz.store.database import Database
from facviz.store.events import explanation_of, relevance_of
from facviz.store.feature_table import (
    ASIDE,
    PAGE_ROWS,
    SORTS,
    TableFilter,
    TableScope,
    feature_page,
    feature_row,
    feature_totals,
    mapped,
    passing,
)
from facviz.store.manifest import Scope
from facviz.store.schema import rows_to_arrow, to_arrow
from facviz.store.workspace import open_workspace

SCOPE = TableScope("sae", "anchor-id", "toxicity", "label", "run")


class Synthetic:
    """Columns of a made-up SAE: what a table of it must show can be read off the arrays."""

    def __init__(self, n: int, rng_seed: int = 0) -> None:
        rng = np.random.default_rng(rng_seed)
        self.n = n
        self.density = rng.permutation(n) / (4 * n)
        self.n_docs = rng.integers(0, 500, n)
        self.max_act = rng.random(n).astype(np.float32) * 10
        self.seed_max = np.where(rng.random(n) < 0.3, 0, self.max_act).astype(np.float32)
        self.p95 = self.max_act * np.float32(0.8)
        self.dead = rng.random(n) < 0.05
        self.always_on = rng.random(n) < 0.01
        self.score = np.where(rng.random(n) < 0.5, rng.random(n), np.nan)
        self.relevant = rng.random(n) < 0.2
        self.missing = np.flatnonzero(self.relevant & ~self.always_on & (self.seed_max == 0))
        self.filled = self.missing[::3]

    def write(self, workspace) -> None:
        """The rows a finished loop would have written, in shards."""
        write = workspace.manifest.write_shard
        scope = Scope("made", "up", "f" * 16)
        datasets = [{"dataset_id": f"{name}-id", "name": name, "role": name} for name in ("anchor", "seed")]
        write(scope, "dataset", "0", rows_to_arrow("dataset", datasets))
        for name, act in (("anchor", self.max_act), ("seed", self.seed_max)):
            stats = {
                "sae_id": "sae",
                "dataset_id": f"{name}-id",
                "mode": "inference",
                "feature_id": np.arange(self.n, dtype=np.int32),
                "density": self.density,
                "n_docs": self.n_docs,
                "max_act": act,
                "p95_act": self.p95,
                "is_dead": self.dead,
                "is_always_on": self.always_on,
            }
            write(scope, "feature_stats", name, to_arrow("feature_stats", stats, self.n))
        explanation = {
            "sae_id": "sae",
            "feature_id": np.arange(self.n, dtype=np.int32),
            "version": 1,
            "text": [f"fires on word{i % 97} and 100%_sure" for i in range(self.n)],
            "author_kind": "lexical",
            "author": "machine",
            "prompt": "",
            "outcome": "explained",
            "scores": [json.dumps({} if np.isnan(s) else {"embedding_auroc": float(s)}) for s in self.score],
        }
        write(scope, "explanation", "0", to_arrow("explanation", explanation, self.n))
        relevance = {
            "task": "toxicity",
            "sae_id": "sae",
            "feature_id": np.arange(self.n, dtype=np.int32),
            "source": "label",
            "verdict": ["yes" if r else "no" for r in self.relevant],
            "score": 0.5,
            "rationale": "",
            "author": "",
            "theme": "",
        }
        write(scope, "relevance", "0", to_arrow("relevance", relevance, self.n))
        run = {"coverage_id": "run", "task": "toxicity", "sae_id": "sae", "anchor": "anchor", "seed": "seed"}
        run |= {"threshold_kind": "relative", "act_threshold": 1.0, "level": "maybe", "relevance_source": "label"}
        write(scope, "coverage_run", "0", rows_to_arrow("coverage_run", [run]))
        missing = [{"coverage_id": "run", "feature_id": int(f), "n_anchor_docs": int(f) % 7} for f in self.missing]
        write(scope, "missing_feature", "0", rows_to_arrow("missing_feature", missing))
        tried = [{"coverage_id": "run", "feature_id": int(f), "state": "filled"} for f in self.filled]
        write(scope, "synthesis_feature", "0", rows_to_arrow("synthesis_feature", tried))

    def state(self, i: int) -> str:
        """Coverage state by the definitions: δ is 1 × the feature's own p95 on the anchor set."""
        if i in set(self.missing.tolist()):
            return "filled" if i in set(self.filled.tolist()) else "missing"
        is_active = self.max_act[i] > self.p95[i] and self.seed_max[i] > self.p95[i]
        return "covered" if self.relevant[i] and not self.always_on[i] and is_active else ""


@pytest.fixture
def made_up(workspace):
    """300 features in an open database."""
    made = Synthetic(300)
    made.write(workspace)
    with Database(workspace) as database:
        database.sync()
        yield made, database


def ids(page):
    return [row["feature_id"] for row in page.rows]


def test_a_table_of_65536_features_sorts_and_pages_as_numpy_does(workspace):
    made = Synthetic(65_536)
    made.write(workspace)
    with Database(workspace) as database:
        database.sync()
        counted = np.flatnonzero(~made.dead & ~made.always_on)
        by_density = counted[np.argsort(-made.density[counted], kind="stable")]
        for number in (0, 1, len(counted) // PAGE_ROWS):
            page = feature_page(
                database, SCOPE, TableFilter(), sort="density", descending=True, offset=number * PAGE_ROWS
            )
            assert ids(page) == by_density[number * PAGE_ROWS : (number + 1) * PAGE_ROWS].tolist()
            assert page.n_rows == len(counted)
        known = np.flatnonzero(~made.dead & ~made.always_on & ~np.isnan(made.score))
        by_score = known[np.lexsort((known, made.score[known]))]
        assert ids(feature_page(database, SCOPE, TableFilter(), sort="score")) == by_score[:PAGE_ROWS].tolist()
        totals = feature_totals(database, SCOPE)
        assert totals["n_features"] == 65_536
        assert totals["n_filled"] == len(made.filled)
        assert totals["n_missing"] == len(made.missing) - len(made.filled)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", sorted(SORTS))
def test_every_sort_shows_every_feature_once_over_all_pages(made_up, sort, descending):
    made, database = made_up
    everything = TableFilter(with_dead=True, with_always_on=True)
    pages = [
        ids(feature_page(database, SCOPE, everything, sort=sort, descending=descending, offset=offset))
        for offset in range(0, made.n, PAGE_ROWS)
    ]
    assert sorted(i for page in pages for i in page) == list(range(made.n))


def test_states_equal_a_loop_over_the_definitions(made_up):
    made, database = made_up
    everything = TableFilter(with_dead=True, with_always_on=True)
    rows = feature_page(database, SCOPE, everything, limit=made.n).rows
    assert [row["state"] for row in rows] == [made.state(i) for i in range(made.n)]
    assert {row["state"] for row in rows} == {"missing", "filled", "covered", ""}


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        ("WORD5 ", lambda i: i % 97 == 5),
        ("100%_sure", lambda i: True),
        ("100%%", lambda i: False),
        ("word_", lambda i: False),
        ("' OR 1=1 --", lambda i: False),
        ("42", lambda i: i == 42 or "42" in f"word{i % 97}"),
    ],
)
def test_a_search_in_explanations_is_literal(made_up, words, passes):
    made, database = made_up
    chosen = TableFilter(text=words if words != "WORD5 " else "WORD5 and", with_dead=True, with_always_on=True)
    found = feature_page(database, SCOPE, chosen, limit=made.n)
    assert ids(found) == [i for i in range(made.n) if passes(i)]


def test_filters_hold_together(made_up):
    made, database = made_up
    chosen = TableFilter(states=["missing"], verdicts=["yes"], min_density=0.05, max_density=0.2)
    found = ids(feature_page(database, SCOPE, chosen, limit=made.n))
    kept = [
        i
        for i in range(made.n)
        if made.state(i) == "missing" and 0.05 <= made.density[i] <= 0.2 and not made.dead[i] and not made.always_on[i]
    ]
    assert found == kept
    assert kept


def test_peoples_words_verdicts_and_statuses_win(made_up):
    made, database = made_up
    covered = next(i for i in range(made.n) if made.state(i) == "covered" and not made.dead[i])
    database.record("ann", explanation_of("sae", covered), "edit", {"text": "<b>my words</b>"})
    database.record("ann", relevance_of("sae", covered, "toxicity"), "verdict", {"verdict": "no"})
    [row] = feature_page(database, SCOPE, TableFilter(text="my words")).rows
    assert (row["feature_id"], row["explanation"], row["status"]) == (covered, "<b>my words</b>", "edited")
    assert (row["verdict"], row["is_judged_by_person"], row["state"]) == ("no", True, "")
    assert row["score"] is None  # a person's words were never scored
    assert ids(feature_page(database, SCOPE, TableFilter(statuses=["edited"]))) == [covered]
    assert feature_totals(database, SCOPE)["n_reviewed"] == 1


def test_a_page_behind_the_last_one_is_the_first(made_up):
    _, database = made_up
    page = feature_page(database, SCOPE, TableFilter(), offset=10_000)
    assert (page.offset, len(page.rows)) == (0, PAGE_ROWS)


def test_features_found_elsewhere_keep_their_rank(made_up):
    _, database = made_up
    near = {7: 0.9, 3: 0.5, 250: 0.7}
    chosen = TableFilter(closeness=near, with_dead=True, with_always_on=True)
    page = feature_page(database, SCOPE, chosen, sort="match", descending=True)
    assert [(r["feature_id"], r["match"]) for r in page.rows] == [(7, 0.9), (250, 0.7), (3, 0.5)]
    assert feature_page(database, SCOPE, TableFilter(closeness={})).n_rows == 0


def test_a_word_finds_the_features_whose_spans_peak_on_it(loop_copy):
    with open_workspace(loop_copy / "workspace").reader() as reader:
        [sae] = reader.rows("saes")
        scope = TableScope(sae["sae_id"], reader.dataset("anchor")["dataset_id"])
        for word, found in (("Apple", [0, 24]), ("app", []), ("tiger", [19]), ("absent", []), ("'", [])):
            assert ids(feature_page(reader, scope, TableFilter(word=word))) == found, word
        spans = reader.rows("spans", sae_id=sae["sae_id"], feature_id=19)
        spans = [s for s in spans if s["dataset_id"] == scope.dataset_id]
        [row] = feature_page(reader, scope, TableFilter(word="tiger")).rows
        assert row["match"] == len(spans) > 0


def test_an_unknown_sort_is_refused(made_up):
    _, database = made_up
    with pytest.raises(InputError, match="choose one of feature, explanation"):
        feature_page(database, SCOPE, TableFilter(), sort="density; DROP TABLE span")


def test_without_a_coverage_run_or_explanations_the_table_still_stands(workspace):
    made = Synthetic(20)
    made.write(workspace)
    with workspace.reader() as reader:
        page = feature_page(reader, TableScope("sae", "seed-id"), TableFilter(with_dead=True, with_always_on=True))
        assert ids(page) == list(range(20))
        assert {(row["state"], row["verdict"]) for row in page.rows} == {("", None)}
        assert feature_page(reader, TableScope("nobody", "x"), TableFilter()).n_rows == 0
        assert feature_totals(reader, TableScope("nobody", "x"))["n_features"] == 0


def test_one_row_is_that_of_the_whole_table(made_up):
    _, database = made_up
    everything = TableFilter(with_dead=True, with_always_on=True)
    rows = feature_page(database, SCOPE, everything, limit=300).rows
    for row in rows[::37]:
        found = feature_row(database, SCOPE, row["feature_id"])
        assert {name: value for name, value in row.items() if name not in ("match", *ASIDE)} == found
    assert feature_row(database, SCOPE, 10**6) == {}


def test_ranges_of_score_and_activation_hold_and_leave_out_what_has_none(made_up):
    made, database = made_up
    chosen = TableFilter(
        min_score=0.3, max_score=0.8, min_max_act=2.0, max_max_act=9.0, with_dead=True, with_always_on=True
    )
    found = ids(feature_page(database, SCOPE, chosen, limit=made.n))
    kept = [i for i in range(made.n) if 0.3 <= made.score[i] <= 0.8 and 2 <= made.max_act[i] <= 9]
    assert found == kept
    assert kept


def test_only_dead_and_only_always_on_need_no_other_switch(made_up):
    made, database = made_up
    dead = ids(feature_page(database, SCOPE, TableFilter(only_dead=True, with_always_on=True), limit=made.n))
    assert dead == np.flatnonzero(made.dead).tolist()
    on = ids(feature_page(database, SCOPE, TableFilter(only_always_on=True, with_dead=True), limit=made.n))
    assert on == np.flatnonzero(made.always_on).tolist()
    both = ids(feature_page(database, SCOPE, TableFilter(only_always_on=True, only_dead=True), limit=made.n))
    assert both == np.flatnonzero(made.always_on | made.dead).tolist()


def test_relevance_to_any_task_takes_a_persons_word_first(made_up):
    made, database = made_up
    live = [i for i in range(made.n) if not made.dead[i] and not made.always_on[i]]
    relevant = [i for i in live if made.relevant[i]]
    other = next(i for i in live if not made.relevant[i])
    database.record("ann", relevance_of("sae", relevant[0], "toxicity"), "verdict", {"verdict": "no"})
    database.record("ann", relevance_of("sae", other, "a task, own"), "verdict", {"verdict": "maybe"})
    one = ids(feature_page(database, SCOPE, TableFilter(tasks=["toxicity"]), limit=made.n))
    assert one == relevant[1:]
    any_of = ids(feature_page(database, SCOPE, TableFilter(tasks=["toxicity", "a task, own"]), limit=made.n))
    assert any_of == sorted([*relevant[1:], other])


def test_what_stands_aside_sorts_with_its_feature_and_is_unknown_without_a_ranking(made_up):
    _, database = made_up
    near = {9: 0.5, 4: 0.6, 7: 0.7}
    aside = {"q": np.array([0.03, 0.01, 0.02]), "share_a": np.array([0.1, 0.2, 0.3])}
    everything = {"with_dead": True, "with_always_on": True}
    page = feature_page(database, SCOPE, TableFilter(closeness=near, aside=aside, **everything), sort="q")
    assert [(r["feature_id"], r["q"], r["share_a"], r["share_b"]) for r in page.rows] == [
        (4, 0.01, 0.2, None),
        (7, 0.02, 0.3, None),
        (9, 0.03, 0.1, None),
    ]
    assert feature_page(database, SCOPE, TableFilter(aside=aside)).rows[0]["q"] is None


def test_all_that_pass_are_listed_with_what_was_decided(made_up):
    made, database = made_up
    database.record("ann", explanation_of("sae", 5), "accept")
    rows = passing(database, SCOPE, TableFilter(with_dead=True, with_always_on=True)).to_pylist()
    assert [r["feature_id"] for r in rows] == list(range(made.n))
    assert (rows[5]["status"], rows[6]["status"], rows[6]["is_explained"]) == ("accepted", "unreviewed", True)


def test_places_come_with_their_colours_and_clusters_narrow_the_table(made_up, workspace):
    made, database = made_up
    assert mapped(database, SCOPE).num_rows == 0
    rows = [{"sae_id": "sae", "feature_id": i, "umap_x": i / 2, "umap_y": 0.0, "cluster": i % 3 - 1} for i in range(30)]
    scope = Scope("map", "sae", "a" * 16)
    workspace.manifest.write_shard(scope, "feature_map", "0", rows_to_arrow("feature_map", rows))
    workspace.manifest.mark_done(scope, {})
    database.sync()
    found = mapped(database, SCOPE).to_pylist()
    assert [r["feature_id"] for r in found] == list(range(30))
    assert found[4]["umap_x"] == 2.0
    assert found[4]["max_act"] == pytest.approx(made.max_act[4])
    assert {r["state"] for r in found} == {made.state(i) for i in range(30)}
    chosen = TableFilter(clusters=[1], with_dead=True, with_always_on=True)
    assert ids(feature_page(database, SCOPE, chosen)) == [i for i in range(30) if i % 3 == 2]
