"""Exports for other tools and imports from them, on the planted loop whose numbers are known."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re

import pytest

from facviz.cli import main
from facviz.errors import FacvizError, InputError
from facviz.exchange.fac_tsv import read_fac_tsv
from facviz.exchange.review_csv import COLUMNS
from facviz.pipeline.exchange import export_fac_tsv, export_feature_batches, export_review_csv, tsv_coverage
from facviz.pipeline.imports import ImportWish, import_fac_tsv, import_review_csv
from facviz.store.database import Database
from facviz.store.events import explanation_of, read_events, relevance_of
from facviz.store.workspace import open_workspace

RELEVANT = [0, 1, 2, 3, *range(12, 24), 24]
MARKED = list(range(12, 24))
ANN = ImportWish(author="ann")


@pytest.fixture
def read_only(planted_loop):
    return open_workspace(planted_loop / "workspace")


@pytest.fixture
def workspace(loop_copy):
    return open_workspace(loop_copy / "workspace")


def explanation(workspace, feature_id):
    return next(r for r in workspace.explanations().to_pylist() if r["feature_id"] == feature_id)


def sae_of(workspace):
    return workspace.features().to_pylist()[0]["sae_id"]


def decide(workspace, target, kind, **payload):
    with Database(workspace) as database:
        return database.record("bob", target, kind, payload)


def edited(path, **by_feature):
    """Change cells of an exported review CSV: `f3={"verdict": "no"}`."""
    cells = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))
    for row in cells:
        row.update(by_feature.get(f"f{row['feature_id']}", {}))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(cells)
    return path


def test_coverage_of_two_exported_files_is_the_coverage_worked_out_by_hand(read_only, tmp_path):
    for name in ("anchor", "seed"):
        export_fac_tsv(read_only, tmp_path / f"{name}.tsv", None, name, "toxicity")
    found = tsv_coverage(tmp_path / "anchor.tsv", tmp_path / "seed.tsv")
    assert (found["n_relevant"], found["n_anchor"], found["missing"]) == (len(RELEVANT), 17, MARKED)
    assert (found["fac"], found["saturated"], found["malformed"]) == (round(5 / 17, 4), False, [])
    assert found["anchor_activated"].endswith("25 features, each with spans on its line")


def test_an_exported_tsv_holds_spans_explanation_and_verdict_and_says_what_nobody_judged(workspace, tmp_path):
    decide(workspace, explanation_of(sae_of(workspace), 12), "accept")
    export_fac_tsv(workspace, tmp_path / "a.tsv", None, "anchor", "toxicity")
    table = read_fac_tsv(tmp_path / "a.tsv")
    assert table.columns == ("FeatureID", "Task", "Verify", "Summary", "Words")
    rows = {row.feature_id: row for row in table.rows}
    assert rows[12].summary == explanation(workspace, 12)["text"]
    assert rows[12].words.startswith("Span 1: ")
    assert (rows[12].verify.decision, rows[13].verify.decision) == ("yes", "not_judged")
    assert rows[12].task.decision.verdict is not None


def test_a_machines_file_becomes_explanations_and_verdicts_that_name_their_author(workspace, tmp_path):
    path = tmp_path / "gpt.tsv"
    path.write_text(
        "FeatureID\tTask\tVerify\tSummary\tWords\n"
        "3\tmaybe|||because\tyes\tA planted word.\tSpan 1: x\n"
        "4\tnonsense\tyes\tCannot Tell.\tSpan 1: x\n"
        "900\tyes\tyes\tNot of this SAE.\tSpan 1: x\n"
        "broken\n",
        encoding="utf-8",
    )
    wish = ImportWish(author="gpt-4o-mini")
    dry = import_fac_tsv(workspace, path, None, "toxicity", ImportWish(author="gpt-4o-mini", dry_run=True))
    assert (dry["n_applied"], explanation(workspace, 3)["author_kind"]) == (0, "lexical")
    found = import_fac_tsv(workspace, path, None, "toxicity", wish)
    assert (found["n_explained"], found["n_cannot_tell"], found["n_verdicts"], found["n_applied"]) == (1, 1, 1, 3)
    assert [(p["line"], p["reason"][:20]) for p in found["malformed"]] == [
        (5, "1 columns where the "),
        (4, "feature 900 is not o"),
    ]
    assert [p["line"] for p in found["unreadable_verdicts"]] == [3]
    said = explanation(workspace, 3)
    assert (said["text"], said["author_kind"], said["author"]) == ("A planted word.", "llm", "gpt-4o-mini")
    assert explanation(workspace, 4)["outcome"] == "cannot_tell"
    with workspace.reader() as reader:
        rows = reader.rows("relevance", task="toxicity", sae_id=said["sae_id"])
    [judged] = [r for r in rows if r["source"] == "llm"]
    assert (judged["feature_id"], judged["verdict"], judged["rationale"]) == (3, "maybe", "because")
    assert judged["author"] == "gpt-4o-mini"
    again = import_fac_tsv(workspace, path, None, "toxicity", wish)
    assert (again["n_applied"], explanation(workspace, 3)["version"]) == (0, said["version"])


def test_a_persons_file_becomes_decisions_and_leaves_what_another_person_decided(workspace, tmp_path):
    sae_id = sae_of(workspace)
    decide(workspace, explanation_of(sae_id, 5), "edit", text="bob's words")
    decide(workspace, relevance_of(sae_id, 5, "toxicity"), "verdict", verdict="yes")
    path = tmp_path / "ann.tsv"
    path.write_text("FeatureID\tTask\tSummary\n3\tno\tann's 3\n5\tno\tann's 5\n", encoding="utf-8")
    found = import_fac_tsv(workspace, path, None, "toxicity", ImportWish("ann", by_person=True))
    assert (found["n_applied"], found["n_conflicts"]) == (2, 2)
    assert {c["current"] for c in found["conflicts"]} == {"bob's words", "yes"}
    assert explanation(workspace, 3)["author"] == "ann"
    assert explanation(workspace, 5)["text"] == "bob's words"


def test_changes_made_in_a_spreadsheet_are_decisions_that_can_be_undone(workspace, tmp_path):
    path = tmp_path / "review.csv"
    export_review_csv(workspace, path, None, "toxicity")
    before = explanation(workspace, 12)["text"]
    edited(path, f12={"explanation": "a better word"}, f13={"verdict": "no"})
    dry = import_review_csv(workspace, path, None, ImportWish(author="ann", dry_run=True))
    assert (dry["n_would_apply"], dry["n_applied"]) == (2, 0)
    assert read_events(workspace.root / "events") == []
    assert import_review_csv(workspace, path, None, ANN)["n_applied"] == 2
    assert (explanation(workspace, 12)["text"], explanation(workspace, 12)["reviewer"]) == ("a better word", "ann")
    again = import_review_csv(workspace, path, None, ANN)
    assert (again["n_applied"], again["n_already_so"], again["n_conflicts"]) == (0, 2, 0)
    assert len(read_events(workspace.root / "events")) == 2
    with Database(workspace) as database:
        database.sync()
        database.undo("ann", explanation_of(sae_of(workspace), 12))
    assert explanation(workspace, 12)["text"] == before


def test_what_was_decided_since_the_export_is_a_conflict_unless_theirs_wins(workspace, tmp_path):
    path, sae_id = tmp_path / "review.csv", sae_of(workspace)
    export_review_csv(workspace, path, None, "toxicity")
    edited(path, f12={"explanation": "ann's words"}, f13={"verdict": "no"}, f14={"explanation": "free"})
    decide(workspace, explanation_of(sae_id, 12), "edit", text="bob's words")
    decide(workspace, relevance_of(sae_id, 13, "toxicity"), "verdict", verdict="maybe")
    found = import_review_csv(workspace, path, None, ANN)
    assert (found["n_applied"], found["n_conflicts"]) == (1, 2)
    assert [(c["feature_id"], c["value"], c["current"]) for c in found["conflicts"]] == [
        (12, "ann's words", "bob's words"),
        (13, "no", "maybe"),
    ]
    assert explanation(workspace, 12)["text"] == "bob's words"
    theirs = import_review_csv(workspace, path, None, ImportWish(author="ann", theirs=True))
    assert (theirs["n_applied"], theirs["n_conflicts"]) == (2, 0)
    assert explanation(workspace, 12)["text"] == "ann's words"
    last = read_events(workspace.root / "events")[-2]["payload"]
    assert (last["previous"], last["imported_from"]) == ("bob's words", "review.csv")


def test_a_change_that_cannot_be_recorded_is_refused_while_the_others_are_made(workspace, tmp_path):
    path = tmp_path / "review.csv"
    export_review_csv(workspace, path, None, None, [12, 13])
    edited(path, f12={"explanation": "x" * 3000}, f13={"explanation": "fine"})
    found = import_review_csv(workspace, path, None, ANN)
    assert (found["n_applied"], [r["line"] for r in found["refused"]]) == (1, [2])
    assert "3,000 characters" in found["refused"][0]["reason"]
    with pytest.raises(InputError, match="--author"):
        import_review_csv(workspace, path, None, ImportWish())


def test_neuronpedias_folder_is_whole_and_the_same_every_time(read_only, tmp_path):
    found = export_feature_batches(read_only, tmp_path / "np", None, "anchor", [3, 12])
    files = {p.relative_to(tmp_path / "np").as_posix(): p.read_bytes() for p in (tmp_path / "np").rglob("*.*")}
    assert set(files) == {"model.jsonl", "source.jsonl"} | {
        f"{part}/batch-0.jsonl.gz" for part in ("features", "activations", "explanations")
    }
    lines = {n: [json.loads(x) for x in gzip.decompress(b).splitlines()] for n, b in files.items() if n.endswith("gz")}
    assert [line["index"] for line in lines["features/batch-0.jsonl.gz"]] == ["3", "12"]
    spans = lines["activations/batch-0.jsonl.gz"]
    assert len(spans) == found["n_spans"] > 0
    assert all(s["values"][s["maxValueTokenIndex"]] == s["maxValue"] == max(s["values"]) for s in spans)
    export_feature_batches(read_only, tmp_path / "again", None, "anchor", [3, 12])
    assert files == {
        p.relative_to(tmp_path / "again").as_posix(): p.read_bytes() for p in (tmp_path / "again").rglob("*.*")
    }
    with pytest.raises(InputError, match="exists already"):
        export_feature_batches(read_only, tmp_path / "np", None, "anchor")


def test_a_refused_export_leaves_nothing_behind(read_only, tmp_path):
    for call in (
        lambda: export_feature_batches(read_only, tmp_path / "np", None, "anchor", [3, 900]),
        lambda: export_feature_batches(read_only, tmp_path / "np", None, "nowhere"),
        lambda: export_fac_tsv(read_only, tmp_path / "a.tsv", None, "nowhere"),
        lambda: export_review_csv(read_only, tmp_path / "a.csv", None, None, [900]),
        lambda: export_fac_tsv(read_only, tmp_path / "no folder" / "a.tsv", None, "anchor"),
    ):
        with pytest.raises(FacvizError) as refused:
            call()
        assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_html_of_hostile_words_is_inert_and_needs_nothing_from_elsewhere(workspace, tmp_path, capsys):
    hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    decide(workspace, explanation_of(sae_of(workspace), 12), "edit", text=hostile)
    out = tmp_path / "f.html"
    flags = ["--features", "12,3", "--dataset", "anchor", "--out", str(out), "--workspace", str(workspace.root)]
    assert main(["export", "html", *flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_features"] == 2
    page = out.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=alert(2)&gt;&quot;&#x27;&amp;" in page
    assert not re.search(r"<(script|img|link|iframe)|https?://|\son\w+=\"|url\(", page)
    assert "bob · by a person" in page
    assert 'id="f12"' in page
    assert page.index('id="f12"') < page.index('id="f3"')
    assert page.count('class="light"') == page.count('class="dark"') > 0
    assert "prefers-color-scheme:dark" in page


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["export", "html", "--features", "900", "--dataset", "anchor"], "has no feature 900"),
        (["export", "html", "--dataset", "anchor"], "--features"),
        (["export", "neuronpedia"], "--dataset"),
        (["export", "fac-tsv", "--dataset", "anchor", "--features", "3"], "no use for --features"),
        (["export", "report", "--task", "toxicity"], "no use for --task"),
    ],
)
def test_flags_that_make_no_export_are_refused_in_a_sentence(planted_loop, tmp_path, capsys, flags, sentence):
    code = main([*flags, "--out", str(tmp_path / "x"), "--workspace", str(planted_loop / "workspace")])
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert sentence in capsys.readouterr().err


def test_the_command_line_imports_compares_and_says_no(workspace, tmp_path, capsys):
    root, path = str(workspace.root), tmp_path / "review.csv"
    assert main(["export", "review-csv", "--task", "toxicity", "--out", str(path), "--workspace", root]) == 0
    edited(path, f12={"explanation": "ann's words"})
    decide(workspace, explanation_of(sae_of(workspace), 12), "edit", text="bob's words")
    command = ["import", "review-csv", str(path), "--author", "ann", "--workspace", root, "--json", "--quiet"]
    capsys.readouterr()
    assert main(command) == 1
    assert json.loads(capsys.readouterr().out)["n_conflicts"] == 1
    assert main([*command, "--theirs"]) == 0
    for name in ("anchor", "seed"):
        out = str(tmp_path / f"{name}.tsv")
        flags = ["--dataset", name, "--task", "toxicity", "--out", out, "--workspace", root]
        assert main(["export", "fac-tsv", *flags]) == 0
    capsys.readouterr()
    compare = ["tsv-coverage", str(tmp_path / "anchor.tsv"), str(tmp_path / "seed.tsv"), "--json"]
    assert main([*compare, "--min-fac", "0.2"]) == 0
    assert json.loads(capsys.readouterr().out)["n_missing"] == 12
    assert main([*compare, "--min-fac", "0.9"]) == 1
