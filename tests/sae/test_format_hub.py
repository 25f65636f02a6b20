"""Hub names: what is asked of the hub, what comes back, and what is said where nothing can."""

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from facviz.errors import SaeError
from facviz.sae.formats import hub, load_sae
from tests.sae.test_sae_formats import make_sae

ANSWER = SimpleNamespace(headers={}, request=None)
ENDINGS = ["json", "safetensors", "npz", "pt", "pth"]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The hub as a folder; gives what was asked of it."""
    calls = []

    def snapshot_download(repo, **arguments):
        calls.append((repo, arguments))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def refusing(monkeypatch, error):
    def snapshot_download(repo, **arguments):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def test_a_folder_of_a_repository_is_fetched_and_loaded(tmp_path, asked):
    make_sae(model_name="m").save(tmp_path / "layer_3" / "16k")
    assert load_sae("owner/repo/layer_3/16k").metadata["model_name"] == "m"
    [(repo, arguments)] = asked
    assert repo == "owner/repo"
    assert arguments["allow_patterns"] == [f"layer_3/16k/*.{ending}" for ending in ENDINGS]
    assert arguments["ignore_patterns"] == ["layer_3/16k/*/*/*"]


def test_of_a_whole_repository_only_the_top_is_fetched(tmp_path, asked):
    assert hub.fetch("owner/repo") == tmp_path
    assert asked[0][1]["allow_patterns"] == [f"*.{ending}" for ending in ENDINGS]
    assert asked[0][1]["ignore_patterns"] == ["*/*"]


def test_a_file_comes_with_the_json_beside_it(tmp_path, asked):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "params.safetensors").touch()
    assert hub.fetch("owner/repo/sub/params.safetensors") == tmp_path / "sub" / "params.safetensors"
    assert asked[0][1]["allow_patterns"] == ["sub/params.safetensors", "sub/*.json"]
    (tmp_path / "layer1.sae.pt").touch()
    assert hub.fetch("owner/repo/layer1.sae.pt") == tmp_path / "layer1.sae.pt"
    assert asked[1][1]["allow_patterns"] == ["layer1.sae.pt", "*.json"]


def test_nothing_that_could_be_run_is_ever_asked_for(asked):
    hub.fetch("owner/repo")
    assert not [p for p in asked[0][1]["allow_patterns"] if p.endswith((".bin", ".py", ".pkl", "*"))]


def test_what_is_here_is_never_asked_for(tmp_path, asked, monkeypatch):
    make_sae().save(tmp_path / "owner" / "repo")
    monkeypatch.chdir(tmp_path)
    assert load_sae("owner/repo").d_sae
    assert asked == []


@pytest.mark.parametrize(
    "name", ["./owner/repo", "/owner/repo", "~/repo", "owner", "owner/../repo", "owner//r", "o/r/"]
)
def test_paths_are_no_hub_names(name, asked):
    assert not hub.is_hub_name(name)
    with pytest.raises(SaeError, match=r"no SAE at|no hub name"):
        hub.fetch(name)
    assert asked == []


def test_a_missing_folder_of_a_repository_is_named(asked):
    with pytest.raises(SaeError, match="has no such file or folder"):
        hub.fetch("owner/repo/nowhere")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError("gated", response=ANSWER), "accept its licence"),
        (RepositoryNotFoundError("gone", response=ANSWER), "neither here nor on the hub"),
        (LocalEntryNotFoundError("offline"), "cannot be reached"),
        (ConnectionError("first line.\nsecond line"), "first line"),
    ],
)
def test_failures_are_one_sentence(monkeypatch, error, words):
    refusing(monkeypatch, error)
    with pytest.raises(SaeError, match=words) as refusal:
        load_sae("owner/repo/sub")
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith(".")


def test_offline_the_real_client_gives_the_same_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SaeError, match="no SAE at facviz-test/none, and the hub cannot be reached"):
        load_sae("facviz-test/none")
