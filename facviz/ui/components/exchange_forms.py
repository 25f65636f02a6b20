"""Features in other formats, out as downloads and in as uploads, a dry run and its conflicts before any change."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from facviz.errors import FacvizError, InputError
from facviz.files import disk_errors
from facviz.store.workspace import open_workspace
from facviz.ui.components.imports import save_upload
from facviz.ui.frame import Here
from facviz.views.explain_jobs import WHICH, chosen_ids
from facviz.views.format import count, count_of
from facviz.views.scope import Looked

FORMATS = {
    "html": "One HTML page",
    "jsonl": "JSON lines, zipped",
    "review-csv": "Table for review (CSV)",
    "fac-tsv": "FAC table (TSV)",
}
_NOTES = {
    "html": "Spans with heat, numbers and verdicts; opens anywhere, needs no network. At most 500 features.",
    "jsonl": "Features, spans and explanations in Neuronpedia’s layout.",
    "review-csv": "Explanations and verdicts to be changed in a spreadsheet and brought back here.",
    "fac-tsv": "Every feature that fires, as the published FAC code reads and writes it.",
}
_MIME = {
    "html": "text/html",
    "jsonl": "application/zip",
    "review-csv": "text/csv",
    "fac-tsv": "text/tab-separated-values",
}
_ENDINGS = {"html": "html", "jsonl": "zip", "review-csv": "csv", "fac-tsv": "tsv"}
_REPORT = "fv_exchange_report"


@st.dialog("Exchange features", width="large")
def exchange_dialog(here: Here, looked: Looked) -> None:
    """Both ways; opened by a button of the page."""
    out, back = st.tabs(["Take away", "Bring in"])
    with out:
        _take_away(here, looked)
    with back:
        _bring_in(here, looked)


def _take_away(here: Here, looked: Looked) -> None:
    what = st.segmented_control(
        "As", list(FORMATS), format_func=FORMATS.__getitem__, default="html", required=True, key="fv_exchange_as"
    )
    st.caption(_NOTES[what])
    ids: Sequence[int] = ()
    try:
        if what != "fac-tsv":
            offered = [key for key in ("these", "missing", "all") if key != "missing" or looked.run is not None]
            offered = [key for key in offered if key != "all" or what != "html"]
            left, right = st.columns(2, vertical_alignment="bottom")
            which = left.selectbox("Features", offered, format_func=WHICH.__getitem__, key=f"fv_exchange_which_{what}")
            typed = ""
            if which == "these":
                typed = right.text_input("Feature ids", "0-9", key="fv_exchange_ids", max_chars=4000)
            ids = chosen_ids(here.database, looked, str(which), typed)
    except FacvizError as error:
        st.warning(str(error), icon=":material/info:")
        return
    named = count_of(len(ids), "feature") if ids else "all features"
    st.download_button(
        f"Download {named}",
        partial(_download, here.root, looked.sae_id, looked.dataset.name, looked.task, what, tuple(ids)),
        file_name=f"features-{looked.sae_id[:6]}.{_ENDINGS[what]}",
        mime=_MIME[what],
        key="fv_exchange_download",
        icon=":material/download:",
        type="primary",
        on_click="ignore",
    )


def _download(root: Path, sae_id: str, dataset: str, task: str, what: str, ids: tuple[int, ...]) -> bytes:
    """The file; where it cannot be made, one that says why: a download has no other way to."""
    try:
        return export_bytes(root, sae_id, dataset, task, what, ids)
    except FacvizError as error:
        return str(error).encode()


def export_bytes(root: Path, sae_id: str, dataset: str, task: str, what: str, ids: Sequence[int]) -> bytes:
    """What a download holds, made in the workspace and removed again.

    Raises:
        InputError: the features or the format cannot be had.
    """
    from facviz.pipeline import exchange
    from facviz.views.feature_sheet import feature_sheet

    workspace = open_workspace(root)
    if what == "html":
        with workspace.reader() as reader:
            return feature_sheet(reader, sae_id, reader.dataset(dataset), ids, title="Features").encode()
    exports = root / "exports"
    with disk_errors(exports):
        exports.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=exports) as folder:
        out = Path(folder) / "features"
        if what == "jsonl":
            exchange.export_feature_batches(workspace, out, sae_id, dataset, ids or None)
            return _zipped(out)
        if what == "review-csv":
            exchange.export_review_csv(workspace, out, sae_id, task or None, ids or None)
        elif what == "fac-tsv":
            exchange.export_fac_tsv(workspace, out, sae_id, dataset, task or None)
        else:
            raise InputError(f"There is no format {what!r}; choose one of {', '.join(FORMATS)}.")
        return out.read_bytes()


def _zipped(folder: Path) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_STORED) as archive:  # its files are compressed already
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(path, path.relative_to(folder))
    return held.getvalue()


def _bring_in(here: Here, looked: Looked) -> None:
    upload = st.file_uploader(
        "A table for review (CSV) or a FAC table (TSV)", type=["csv", "tsv"], key="fv_exchange_file", max_upload_size=50
    )
    if upload is None:
        st.caption("Nothing is changed before you have seen what would be.")
        return
    is_review = upload.name.lower().endswith(".csv")
    left, right = st.columns(2, vertical_alignment="bottom")
    author = left.text_input("Whose words these are", here.reviewer, key="fv_exchange_author", max_chars=80)
    by_person = is_review or right.toggle("A person wrote them", key="fv_exchange_person", help=_PERSON_HELP)
    task = looked.task if not is_review else ""
    wants_theirs = right.toggle("Where both changed, the file wins", key="fv_exchange_theirs")
    try:
        path = save_upload(here.root, upload.name, upload.getvalue())
        asked = (path, author, by_person, wants_theirs, task)
        known = st.session_state.get(_REPORT)
        if st.button("See what would change", key="fv_exchange_look", icon=":material/difference:"):
            known = (asked, bring_in(here.root, looked.sae_id, *asked, dry_run=True))
            st.session_state[_REPORT] = known
        if known is None or known[0] != asked:
            return
        _report(known[1])
        if st.button("Take it in", key="fv_exchange_apply", type="primary", icon=":material/upload:"):
            found = bring_in(here.root, looked.sae_id, *asked, dry_run=False)
            del st.session_state[_REPORT]
            st.success(f"{count_of(found['n_applied'], 'change')} taken in; every one of a person’s can be undone.")
    except FacvizError as error:
        st.error(str(error))


def bring_in(
    root: Path, sae_id: str, path: Path, author: str, by_person: bool, theirs: bool, task: str, *, dry_run: bool
) -> dict[str, Any]:
    """Import an uploaded file; a dry run changes nothing and needs no lock."""
    from facviz.pipeline import imports

    workspace = open_workspace(root)
    wish = imports.ImportWish(author, by_person, theirs, dry_run)

    def work() -> dict[str, Any]:
        if path.suffix.lower() == ".csv":
            return imports.import_review_csv(workspace, path, sae_id, wish)
        return imports.import_fac_tsv(workspace, path, sae_id, task or None, wish)

    if dry_run:
        return work()
    with workspace.lock():
        return work()


def _report(found: dict[str, Any]) -> None:
    parts = [f"{count_of(found['n_rows'], 'row')} read"]
    names = {"n_would_apply": "would change", "n_already_so": "are so already", "n_conflicts": "conflict"}
    names |= {"n_explained": "explanations", "n_cannot_tell": "cannot tell", "n_verdicts": "verdicts"}
    parts += [f"{count(found[key])} {words}" for key, words in names.items() if found.get(key)]
    parts += [f"{count(found['n_malformed'])} could not be used"] * bool(found["n_malformed"])
    st.markdown(" · ".join(parts))
    if conflicts := found.get("conflicts"):
        st.caption("Changed here since the file was written; left as they are unless the file is to win.")
        keys = ("feature_id", "task", "value", "previous", "current")
        st.dataframe([{k: row.get(k) for k in keys} for row in conflicts], hide_index=True, key="fv_exchange_conflicts")
    problems = [*found["malformed"], *found.get("refused", []), *found.get("unreadable_verdicts", [])]
    if problems:
        st.dataframe(problems, hide_index=True, key="fv_exchange_problems")


_PERSON_HELP = "Then each is a review decision with this name. Otherwise it is another machine’s explanation."
