"""Tiny random language models, one of each family whose inside facviz reads; sizes that run in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
import transformers

N_LAYERS = 4
D_MODEL = 16
VOCABULARY = 40

_COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
_LLAMA_LIKE = {
    "hidden_size": D_MODEL,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "head_dim": 8,
}
_GPT2 = {"n_embd": D_MODEL, "n_layer": N_LAYERS, "n_head": 2}
_NEOX = {"hidden_size": D_MODEL, "num_hidden_layers": N_LAYERS, "num_attention_heads": 2, "intermediate_size": 24}

FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (transformers.LlamaConfig, _LLAMA_LIKE),
    "qwen2": (transformers.Qwen2Config, _LLAMA_LIKE),
    "qwen3": (transformers.Qwen3Config, _LLAMA_LIKE),
    "mistral": (transformers.MistralConfig, _LLAMA_LIKE),
    "gemma": (transformers.GemmaConfig, _LLAMA_LIKE),
    "gemma2": (transformers.Gemma2Config, _LLAMA_LIKE | {"final_logit_softcapping": None}),
    "gemma3": (transformers.Gemma3TextConfig, _LLAMA_LIKE),
    "gpt2": (transformers.GPT2Config, _GPT2),
    "gpt_neox": (transformers.GPTNeoXConfig, _NEOX | {"use_parallel_residual": True}),
    "gpt_neox_sequential": (transformers.GPTNeoXConfig, _NEOX | {"use_parallel_residual": False}),
}


def random_model(family: str, rng_seed: int = 0) -> Any:
    """A causal language model of this family in evaluation mode, the same for the same `rng_seed`."""
    config, sizes = FAMILIES[family]
    auto: Any = transformers.AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(rng_seed)
        model = auto.from_config(config(**_COMMON, **sizes))
        with torch.no_grad():
            for parameter in model.parameters():  # norms start at exactly one and would hide a mistake
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval().requires_grad_(False)
