"""The frame around every page: navigation, sidebar, the page's question, and what shows when something goes wrong."""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from facviz.errors import FacvizError
from facviz.jobs import list_jobs
from facviz.pipeline.demo import default_target
from facviz.store.database import Database
from facviz.store.workspace import META_FILE
from facviz.ui import resources, state
from facviz.ui.components.style import page_style
from facviz.views.palette import Mode

PAGES_FOLDER = Path(__file__).resolve().parents[2] / "pages"


@dataclass(frozen=True, slots=True)
class PageInfo:
    """One page: its file under `pages/`, its name in the menu, and the question it answers."""

    key: str
    name: str
    question: str
    icon: str
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Here:
    """What a page works with: the open database and how this reader looks at it."""

    database: Database
    mode: Mode
    reviewer: str
    blurred: bool

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return self.database.workspace.root


_questions: dict[str, str] = {}


def run(groups: Mapping[str, Sequence[PageInfo]]) -> None:
    """Draw navigation and sidebar, then the page that was asked for."""
    menu = {group: [_streamlit_page(info) for info in infos] for group, infos in groups.items()}
    _questions.update({info.key: info.question for infos in groups.values() for info in infos})
    page = st.navigation(menu, position="sidebar", expanded=True)
    st.html(page_style(state.mode()))
    with st.sidebar:
        _sidebar()
    page.run()


def _streamlit_page(info: PageInfo) -> st.Page:
    return st.Page(
        PAGES_FOLDER / f"{info.key}.py",
        title=info.name,
        icon=info.icon,
        url_path=info.key,
        default=info.key == "overview",
        visibility="hidden" if info.hidden else "visible",
    )


@contextmanager
def page(key: str) -> Iterator[Here]:
    """Title, open database, and a failure state in place of a traceback."""
    if not _questions:
        _run_app()
    st.title(_questions[key], anchor=False)
    here = _here()
    try:
        yield here
    except FacvizError as error:
        failure(str(error))


def _run_app() -> None:
    """Enter by the front door: a first visit to a page's own address makes Streamlit run that file by itself."""
    runpy.run_path(str(PAGES_FOLDER.parent / "app.py"))
    st.stop()


def _here() -> Here:
    try:
        database = resources.open_database(state.workspace_root())
    except FacvizError as error:
        failure(str(error))
        st.stop()
    for sentence in database.damaged:
        st.warning(sentence, icon=":material/broken_image:")
    return Here(database, state.mode(), state.reviewer(), state.is_blurred())


def failure(sentence: str) -> None:
    """What happened and what to do, and that nothing is lost."""
    with st.container(border=True, key="fv_failure"):
        st.markdown(":material/error: **This page could not be shown.**")
        st.text(sentence)
        st.caption("What was measured and decided before is safe in the workspace.")


def empty(title: str, why: str, *, page: str | None = None, button: str = "") -> None:
    """The state before there is anything to show: what will be here, why it is not, and the one next step."""
    with st.container(border=True, key=f"fv_empty_{state_key(title)}"):
        st.subheader(title, anchor=False)
        st.caption(why)
        if page is not None:
            st.page_link(f"pages/{page}.py", label=button, icon=":material/arrow_forward:")


def state_key(text: str) -> str:
    """Letters and digits of a text, for widget keys."""
    return "".join(c if c.isalnum() else "_" for c in text)[:40]


def _sidebar() -> None:
    _workspace_picker()
    with st.popover("Reader settings", icon=":material/tune:", width="stretch", key="fv_settings"):
        _identity()
        st.toggle(
            "Blur texts until I point at them",
            key=state.blur_key(),
            persist_state="session",
            help="For corpora with offensive content. Only your browser session is affected.",
        )
    _running()


def _identity() -> None:
    """Whose name decisions carry: the person logged in, or a name to type."""
    logged_in = state.logged_in_name()
    if logged_in is None:
        st.session_state.setdefault(state.reviewer_key(), state.login_name())
        st.text_input(
            "Your name",
            key=state.reviewer_key(),
            max_chars=60,
            persist_state="session",
            help="Stands beside every decision you make.",
        )
    elif logged_in:
        st.text(f"Logged in as {logged_in}")
        st.button("Log out", key="fv_log_out", on_click=st.logout)
    else:
        st.caption("Decisions carry the name you log in with.")
        st.button("Log in", key="fv_log_in", type="primary", on_click=st.login)


def _running() -> None:
    try:
        active = [job for job in list_jobs(state.workspace_root()) if job.is_active]
    except FacvizError:
        return
    if active:
        label = active[0].title if len(active) == 1 else f"{len(active)} jobs running"
        st.page_link("pages/jobs.py", label=label, icon=":material/progress_activity:")


def _workspace_picker() -> None:
    try:
        current = state.workspace_root()
    except FacvizError:
        return  # the page says why
    known = _known_workspaces(current)
    chosen = st.selectbox(
        "Workspace",
        known,
        index=known.index(current),
        format_func=_workspace_name,
        key=f"fv_workspace_choice_{state_key(str(current))}",
        help=f"{current}\n\nFolders beside this one that hold a workspace, and the demo.",
    )
    if chosen != current:
        state.choose_workspace(chosen)
        st.rerun()


def _workspace_name(root: Path) -> str:
    return "Demo" if root == default_target() else root.name


def _known_workspaces(current: Path) -> list[Path]:
    """The open one, its neighbours and the demo; nothing outside what the user already pointed the dashboard at."""
    first = state.first_workspace()
    found = [current, first, default_target()]
    for parent in {current.parent, first.parent}:
        try:
            found += sorted(parent.iterdir())[:200]
        except OSError:
            continue
    return [p for p in dict.fromkeys(found) if p == current or (p / META_FILE).is_file()]
