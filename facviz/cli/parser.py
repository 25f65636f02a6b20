"""Sub-commands and flags (design §5). Flags have no defaults of their own: what is not given comes from the configs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from facviz import __version__
from facviz.errors import InputError


class _Parser(argparse.ArgumentParser):
    """Usage errors as one sentence."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}; see `{self.prog} --help`.")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    common = _common()
    parser = _Parser(prog="facviz", description="Which features does a training set miss?")
    parser.add_argument("--version", action="version", version=f"facviz {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_run(commands, common)
    _add_data(commands, common)
    _add_sae(commands, common)
    _add_features(commands, common)
    _add_gap(commands, common)
    _add_evaluation(commands, common)
    _add_export(commands, common)
    _add_demo(commands, common)
    return parser


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--workspace", metavar="W", help="folder of the project (default: FACVIZ_WORKSPACE)")
    common.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    common.add_argument("--rng-seed", type=int, help="seed of everything random in this command")
    common.add_argument("--wait", action="store_true", help="wait for a stage that is writing to the workspace")
    common.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return common


def _backbone_flags(parser: argparse.ArgumentParser, *, several_layers: bool = False) -> None:
    parser.add_argument("--backbone", metavar="B", help="hub id, folder, GGUF file or `default`")
    many = "; several with commas" if several_layers else ""
    parser.add_argument(
        "--layer",
        type=_numbers if several_layers else int,
        metavar="L",
        help=f"hidden-state index; default half depth{many}",
    )
    parser.add_argument("--site", choices=["resid", "mlp", "attn"], help="residual stream, or what adds to it there")
    parser.add_argument("--max-tokens-per-doc", type=int, metavar="N", help="documents are cut to this many tokens")


_BATCH = "all requests together, at half the price, answered within a day; only anthropic"
_STRATEGIES = (
    "paper", "one-step", "steered", "paper+steered", "plain", "self-instruct", "magpie", "evol", "random-feature",
)  # fmt: skip
_ARCHITECTURES = ("batchtopk", "topk", "matryoshka", "jumprelu", "gated", "relu", "matching_pursuit", "paper")


Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_run(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    run = _command(commands, "run", common, "the whole loop from one TOML file")
    run.add_argument("config", metavar="CONFIG.toml")
    doctor = _command(commands, "doctor", common, "what is installed and reachable here")
    doctor.add_argument("--backbone", metavar="B", help="backbone to look for")
    database = _command(commands, "db", common, "the dashboard's database file")
    database.add_argument("action", choices=["rebuild"], help="recreate facviz.duckdb from shards and events")


def _add_data(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    add = _command(commands, "data", common, "add a corpus to the workspace")
    add.add_argument("action", choices=["add"])
    add.add_argument(
        "path", metavar="PATH", help="JSONL, JSON, CSV, TSV, Parquet or text, also .gz, or a folder of them"
    )
    add.add_argument("--name", required=True)
    add.add_argument("--role", choices=["anchor", "seed", "eval"])
    add.add_argument(
        "--shape",
        choices=["auto", "text", "messages", "prompt_completion", "alpaca", "chosen_rejected", "transcript"],
    )
    add.add_argument("--text-field", metavar="F")
    add.add_argument("--label-field", metavar="L")
    add.add_argument("--role-field", metavar="F", help="field naming who speaks in a text row")
    add.add_argument("--text-role", choices=["user", "assistant", "text"], help="who speaks in plain texts")
    add.add_argument("--roles", type=_names, metavar="R,R", help="roles whose content counts, such as user,assistant")
    add.add_argument("--source", help="where the data come from")
    add.add_argument("--licence", help="licence of the data")
    add.add_argument("--limit", type=int, help="read at most this many documents")
    _backbone_flags(add)
    capture = _command(commands, "capture", common, "activations of a dataset to disk")
    capture.add_argument("--dataset", required=True)
    capture.add_argument("--tokens", type=int, help="content tokens for training")
    _backbone_flags(capture)


def _add_sae(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    sae = commands.add_parser("sae", help="train, load, measure or match sparse autoencoders")  # type: ignore[attr-defined]
    actions = sae.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Parser)
    train = actions.add_parser("train", parents=[common], help="train one SAE, or several on one pass of the model")
    train.add_argument("--dataset", required=True)
    train.add_argument("--tokens", type=int, help="content tokens to capture and train on")
    train.add_argument("--architecture", choices=_ARCHITECTURES)
    train.add_argument("--d-sae", type=_numbers, metavar="M", help="features; several SAEs with commas: 4096,16384")
    train.add_argument("--k", type=_numbers, help="active features a token; several with commas")
    train.add_argument("--continue-from", metavar="ID", help="train this SAE further")
    train.add_argument("--no-keep", action="store_true", help="straight from the model, without activations on disk")
    train.add_argument("--epochs", type=int)
    train.add_argument("--batch-tokens", type=int)
    train.add_argument("--learning-rate", type=float)
    train.add_argument("--sparsity-coefficient", type=float, help="fixed penalty of relu, gated and jumprelu")
    _backbone_flags(train, several_layers=True)
    _add_sae_quality(actions, common)


def _add_sae_quality(actions: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    load = _command(actions, "load", common, "take a saved SAE into the workspace and check whether it fits")
    load.add_argument("path", metavar="PATH_OR_REPO", help="file, folder, or owner/repo/folder on the hub")
    load.add_argument("--format", default="auto")
    load.add_argument("--check", metavar="DATASET", help="check on this one; default the first anchor set, else any")
    load.add_argument("--no-check", action="store_true", help="skip the health check")
    _backbone_flags(load)
    measure = _command(actions, "eval", common, "FVU, L0 and densities on a dataset")
    measure.add_argument("sae", metavar="ID")
    measure.add_argument("--dataset", required=True)
    measure.add_argument("--fidelity", action="store_true", help="cross-entropy and KL with the SAE spliced in")
    measure.add_argument("--probe", action="store_true", help="k-sparse probing for the dataset's labels")
    measure.add_argument("--health", action="store_true", help="whether the SAE fits model, layer and template")
    matching = _command(actions, "match", common, "features that two SAEs share")
    matching.add_argument("a", metavar="A")
    matching.add_argument("b", metavar="B")


def _add_features(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    spans = _command(commands, "spans", common, "where features fire")
    spans.add_argument("--sae", metavar="ID")
    spans.add_argument("--dataset", required=True, action="append", dest="datasets")
    spans.add_argument("--per-split", type=int, help="spans kept per feature in each half")
    explain = _command(commands, "explain", common, "what features seem to mean")
    explain.add_argument("--sae", metavar="ID")
    explain.add_argument("--dataset", required=True, help="dataset whose spans are read")
    explain.add_argument("--provider", choices=["auto", "anthropic", "openai", "local", "lexical"])
    explain.add_argument("--model", help="model of a paid provider; default: the provider's")
    which = explain.add_mutually_exclusive_group()
    which.add_argument("--features", type=_numbers, metavar="ID,ID", help="explain only these by the model")
    which.add_argument("--max-features", type=int, metavar="N", help="explain so many by the model, drawn at random")
    explain.add_argument("--n-candidates", type=int, metavar="N", help="explanations written of each, the best is kept")
    explain.add_argument("--budget-usd", type=float, metavar="X", help="most that explaining this SAE may cost in all")
    explain.add_argument("--concurrency", type=int, metavar="N", help="requests under way at a time")
    explain.add_argument("--batch", action="store_const", const=True, help=_BATCH)
    explain.add_argument("--dry-run", action="store_true", help="what would be sent and cost at most; sends nothing")
    explain.add_argument("--no-score", action="store_true", help="skip the held-out embedding score")
    _add_score(commands, common)
    mapping = _command(commands, "map", common, "a map of an SAE's features by their decoder directions")
    mapping.add_argument("--sae", metavar="ID")
    relevance = _command(commands, "relevance", common, "which features matter to a task")
    relevance.add_argument("--sae", metavar="ID")
    relevance.add_argument("--task", required=True)
    relevance.add_argument("--labels", required=True, metavar="DATASET", help="labelled dataset")
    relevance.add_argument("--source", choices=["label", "embedding", "llm"])
    relevance.add_argument("--provider", choices=["auto", "anthropic", "openai", "local"], help="who judges with llm")
    relevance.add_argument("--model", help="model of a paid judge")
    relevance.add_argument("--budget-usd", type=float, metavar="X", help="most that judging this task may cost in all")
    relevance.add_argument("--concurrency", type=int, metavar="N", help="requests under way at a time")
    relevance.add_argument("--batch", action="store_const", const=True, help=_BATCH)
    relevance.add_argument("--dry-run", action="store_true", help="what would be sent and cost at most; sends nothing")
    relevance.add_argument("--positive", help="label of the class the task is about")


def _add_score(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    score = _command(commands, "score", common, "how well explanations hold on spans they were not written from")
    score.add_argument("--sae", metavar="ID")
    score.add_argument("--dataset", required=True, help="dataset whose held-out spans are judged")
    score.add_argument(
        "--kinds", type=_names, metavar="K,K", help="embedding (default), detection, fuzzing, intruder, with commas"
    )
    score.add_argument("--provider", choices=["auto", "anthropic", "openai", "local"], help="who judges")
    score.add_argument("--model", help="model of a paid judge; best another than the explainer's")
    which = score.add_mutually_exclusive_group()
    which.add_argument("--features", type=_numbers, metavar="ID,ID", help="score only these")
    which.add_argument("--max-features", type=int, metavar="N", help="score so many, drawn at random")
    score.add_argument("--negatives", choices=["nearest", "random"], help="texts without the feature: hard or any")
    score.add_argument("--n-items", type=int, metavar="N", help="texts per feature; default 20")
    score.add_argument("--n-lineups", type=int, metavar="N", help="line-ups per feature of intruder; default 10")
    score.add_argument("--budget-usd", type=float, metavar="X", help="most that scoring this SAE may cost in all")
    score.add_argument("--concurrency", type=int, metavar="N", help="requests under way at a time")
    score.add_argument("--batch", action="store_const", const=True, help=_BATCH)
    score.add_argument("--dry-run", action="store_true", help="what would be sent and cost at most; sends nothing")


def _add_gap(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    for name, text in (
        ("coverage", "which relevant features are missing"),
        ("synthesize", "write samples that fill them"),
    ):
        command = _command(commands, name, common, text)
        command.add_argument("--sae", metavar="ID")
        command.add_argument("--task", required=True)
        command.add_argument("--anchor", required=True)
        command.add_argument("--seed", required=True)
        command.add_argument("--relevance-source", choices=["label", "embedding", "llm"], default="label")
        command.add_argument("--threshold", type=float, metavar="δ")
        command.add_argument("--kind", choices=["relative", "absolute"])
        command.add_argument("--level", choices=["yes", "probably", "maybe"])
        command.add_argument("--include-always-on", action="store_const", const=True)
        command.add_argument("--n-bootstrap", type=int, metavar="N", help="resamples of the seed set for the interval")
        if name == "coverage":
            command.add_argument("--min-fac", type=float, metavar="X", help="exit 1 when FAC is below")
        else:
            _synthesis_flags(command)


def _synthesis_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--strategy", choices=_STRATEGIES)
    command.add_argument("--step", choices=["pairs", "guided", "both"])
    command.add_argument("--features", type=_numbers, metavar="I,I", help="attempt exactly these missing features")
    command.add_argument("--max-features", type=int)
    command.add_argument("--per-feature", type=int, metavar="N", help="accepted samples wanted")
    command.add_argument("--max-candidates", type=int, metavar="M")
    command.add_argument("--passes", type=int, metavar="N", help="rounds; each but the first on what is still missing")
    command.add_argument("--order", choices=["relevance", "gain"], help="which missing features come first")
    command.add_argument("--no-axes", action="store_true", help="ask every batch in the same words")
    command.add_argument("--temperature", type=float)
    command.add_argument("--top-p", type=float)
    command.add_argument("--max-kl", type=float, metavar="X", help="how far a push may move the model, in nats a token")
    command.add_argument("--no-anti-copy", action="store_true", help="accept samples that fire by copied words alone")
    command.add_argument("--no-embedding-gate", action="store_true", help="compare texts by their words alone")
    command.add_argument("--provider", choices=["local", "auto", "anthropic", "openai"], help="who writes")
    command.add_argument("--model", help="model of a paid provider; default: the provider's")
    command.add_argument(
        "--judge-provider", choices=["local", "auto", "anthropic", "openai"], help="who judges samples"
    )
    command.add_argument("--judge-model", help="model of a paid judge")
    command.add_argument("--budget-usd", type=float, metavar="X", help="most that this synthesis may cost in all")
    command.add_argument("--concurrency", type=int, metavar="N", help="requests under way at a time")
    command.add_argument("--dry-run", action="store_true", help="what would be asked and cost at most; asks nothing")


def _add_evaluation(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    evaluate = _command(commands, "evaluate", common, "do the samples help a head on frozen states?")
    evaluate.add_argument("--task", required=True)
    evaluate.add_argument("--coverage", metavar="ID", help="coverage run whose samples count; default: the newest")
    evaluate.add_argument("--syntheses", type=_names, metavar="ID,ID", help="only texts of these runs; default: all")
    evaluate.add_argument("--test", metavar="DATASET", help="labelled dataset the head is scored on")
    evaluate.add_argument("--gold", metavar="DATASET", help="labelled real texts; default: the run's anchor")
    evaluate.add_argument("--positive", type=_names, metavar="L,L", help="labels of the positive class")
    evaluate.add_argument("--arms", type=_names, metavar="A,A", help="strategies, unverified, gold; default: all")
    evaluate.add_argument("--n-added", type=int, metavar="N", help="positives every arm adds")
    evaluate.add_argument("--min-added", type=int, metavar="N", help="arms with fewer texts are left out")
    evaluate.add_argument("--n-seeds", type=int, metavar="N", help="seeds, each with other draws and folds")
    evaluate.add_argument("--n-bootstrap", type=int, metavar="N", help="draws for the intervals")


def _add_export(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    export = _command(commands, "export", common, "hand results over")
    kinds = ["samples", "features", "lists", "report", "sae", "fac-tsv", "neuronpedia", "review-csv", "html"]
    export.add_argument("what", choices=kinds)
    export.add_argument("--out", required=True, metavar="PATH")
    export.add_argument("--sae", metavar="ID")
    rows = ["messages", "sft", "prompt-completion", "preference", "alpaca", "sharegpt", "choices"]
    formats = [*rows, "tsv", "parquet", "hf"]
    export.add_argument("--format", choices=formats, help="of samples; default messages")
    export.add_argument("--only-approved", action="store_true", help="samples that a person approved, and no others")
    export.add_argument("--dataset", help="whose spans and statistics to write")
    export.add_argument("--task", help="whose verdicts to write")
    export.add_argument("--features", type=_numbers, metavar="I,I", help="only these features")
    _add_import(commands, common)


def _add_import(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    take = _command(commands, "import", common, "take in what others say of features")
    take.add_argument("what", choices=["fac-tsv", "review-csv"])
    take.add_argument("path", metavar="FILE")
    take.add_argument("--sae", metavar="ID")
    take.add_argument("--task", help="what the Task column of a fac-tsv judges")
    take.add_argument("--author", help="who says it; default for a fac-tsv the file's name")
    take.add_argument("--by-person", action="store_true", help="a person wrote this fac-tsv: review decisions")
    take.add_argument("--theirs", action="store_true", help="where both changed, the file wins")
    take.add_argument("--dry-run", action="store_true", help="say what would change, and change nothing")
    compare = _command(commands, "tsv-coverage", common, "coverage straight from two FAC TSV files")
    compare.add_argument("anchor", metavar="ANCHOR.tsv")
    compare.add_argument("seed", metavar="SEED.tsv")
    compare.add_argument("--level", choices=["yes", "probably", "maybe"], default="maybe")
    compare.add_argument("--column", default="Task", help="column with the relevance verdicts")
    compare.add_argument("--require-verify", action="store_true", help="Verify must reach the level too, as published")
    compare.add_argument("--min-fac", type=float, metavar="X", help="exit 1 when FAC is below")


def _add_demo(commands: Commands, common: argparse.ArgumentParser) -> None:  # type: ignore[valid-type]
    demo = _command(commands, "demo", common, "install the demo workspace and say where it is")
    demo.add_argument("--reset", action="store_true", help="the demo as it shipped; the one in use is kept beside it")
    demo.add_argument("--rebuild", action="store_true", help="for maintainers: make the shipped demo anew, in place")
    demo.add_argument("--retrain", metavar="CORPUS", help="for maintainers: --rebuild with an SAE trained on this file")
    app = _command(commands, "app", common, "open the dashboard")
    app.add_argument("--port", type=int, default=8501, help="port on this machine; default 8501")


def _command(commands: Commands, name: str, common: argparse.ArgumentParser, text: str) -> argparse.ArgumentParser:  # type: ignore[valid-type]
    parser: argparse.ArgumentParser = commands.add_parser(name, parents=[common], help=text)  # type: ignore[attr-defined]
    return parser


def _names(text: str) -> Sequence[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> Sequence[int]:
    try:
        ids = [int(part) for part in _names(text)]
    except ValueError:
        ids = []
    if not ids:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 12,40")
    return ids
