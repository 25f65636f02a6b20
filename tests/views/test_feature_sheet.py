"""The page of chosen features: whatever stands in the tables, only its own few elements reach a browser."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from facviz.errors import InputError
from facviz.views.feature_sheet import MAX_FEATURES, feature_sheet

HOSTILE = "</style><script>x()</script><a href='javascript:x()' onclick=\"x()\">"
OWN = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "nav", "a", "main", "section", "table",
    "thead", "tbody", "tr", "th", "td", "div", "span", "footer",
}  # fmt: skip


ANSWERS = {
    "feature_stats_of": [
        {"name": HOSTILE, "density": 0.01, "n_docs": 1, "n_all_docs": 2, "max_act": 2.0, "p95_act": None,
         "is_dead": False, "is_always_on": True},
    ],
    "feature_spans": [
        {"split": "explain", "tokens": [HOSTILE, " b"], "acts": [2.0, 0.0], "peak": 0},
        {"split": "score", "tokens": ["a", HOSTILE], "acts": [0.0, 1.0], "peak": 1},
    ],
    "feature_relevance": [
        {"task": HOSTILE, "verdict": "yes", "author": HOSTILE, "source": "llm", "rationale": HOSTILE},
    ],
    "feature_explanation": [
        {"text": HOSTILE, "written": "", "author": HOSTILE, "author_kind": "llm", "status": "rejected",
         "reason": HOSTILE, "scores": "{}"},
    ],
    "written_explanation": [],
    "events_of": [],
}  # fmt: skip


class Tables:
    """Answers the page's queries with one feature whose every text is hostile."""

    def rows(self, query, **parameters):
        return [] if parameters.get("feature_id") == 9 else ANSWERS[query]


class Elements(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.names, self.attributes = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs


def sheet(ids):
    return feature_sheet(Tables(), HOSTILE, {"dataset_id": "d", "name": HOSTILE}, ids, title=HOSTILE)


def test_hostile_names_tokens_rationales_and_authors_stay_text():
    found = Elements(sheet([7]))
    assert found.names == OWN
    assert not [name for name, _ in found.attributes if name.startswith("on") or name == "src"]
    assert [value for name, value in found.attributes if name == "href"] == ["#f7"]


def test_every_span_is_drawn_in_both_halves_and_both_modes():
    page = sheet([7])
    assert page.count('class="fv-row"') == 4
    assert page.index("may have been explained from") < page.index("Held-out spans")
    assert "always on" in page


@pytest.mark.parametrize("ids", [[], list(range(MAX_FEATURES + 1)), [9]])
def test_no_too_many_and_unknown_features_are_refused(ids):
    with pytest.raises(InputError, match="--features"):
        sheet(ids)
