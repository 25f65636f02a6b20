"""A planted backbone and SAE: every word is its own direction, every feature fires on one known word.

The backbone is a real two-layer Llama whose layers add nothing to the residual stream, so a token's activation is its
embedding: `STRENGTHS[word]` along the word's own axis. Feature i reads axis i: its activation on word i is that
strength exactly, in float32 and bfloat16. Two features share one word, one is dead. The output head is zero, so the
model writes uniformly random words, which is enough for a whole synthesis loop to run on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights

WORDS = (
    "apple", "bread", "cloud", "drum", "eagle", "flame", "grape", "house",
    "island", "jungle", "kettle", "lemon", "mirror", "needle", "ocean", "piano",
    "queen", "river", "silver", "tiger", "umbrella", "violin", "window", "yellow",
)  # fmt: skip
STRENGTHS = {word: float(2 + i % 4) for i, word in enumerate(WORDS)}
"""Activation of word i's feature: 2, 3, 4, 5, 2, 3 …"""

TWIN_FEATURE = len(WORDS)
"""Fires on "apple" as feature 0 does, half as strongly: two overlapping features."""
DEAD_FEATURE = len(WORDS) + 1
"""Fires on nothing."""
D_SAE = len(WORDS) + 2
D_IN = 32
LAYER = 1
SPECIAL = ("<unk>", "<|im_start|>", "<|im_end|>")
TEMPLATE_WORDS = ("system", "user", "assistant")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def planted_tokenizer() -> Any:
    """One token a word; any other word is `<unk>`."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *TEMPLATE_WORDS, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrap: Any = PreTrainedTokenizerFast
    return wrap(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHAT_TEMPLATE,
    )


def planted_model() -> Any:
    """A two-layer Llama whose residual stream is its embedding at every layer."""
    tokenizer = planted_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_IN,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config)
    model.train(False)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        for i, word in enumerate(WORDS):
            model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(word), i] = STRENGTHS[word]
    return model


def planted_sae() -> SAE:
    """Feature i reads axis i; the twin reads axis 0 at half strength; the dead feature is biased far below zero."""
    W_enc = torch.zeros(D_IN, D_SAE)
    b_enc = torch.zeros(D_SAE)
    for i in range(len(WORDS)):
        W_enc[i, i] = 1.0
    W_enc[0, TWIN_FEATURE] = 0.5
    b_enc[DEAD_FEATURE] = -100.0
    W_dec = torch.zeros(D_SAE, D_IN)
    W_dec[: len(WORDS), : len(WORDS)] = torch.eye(len(WORDS))
    W_dec[TWIN_FEATURE, len(WORDS)] = 1.0
    W_dec[DEAD_FEATURE, len(WORDS) + 1] = 1.0
    activation = Activation("jumprelu", threshold=torch.zeros(D_SAE))
    weights = SaeWeights(W_enc, b_enc, W_dec, torch.zeros(D_IN), activation, pre_bias=False)
    return SAE(weights, {"layer": LAYER, "training_architecture": "planted"})


def save_planted(folder: Path) -> tuple[Path, Path]:
    """Write the backbone as a Hugging Face folder and the SAE in the SAELens format; their two folders."""
    backbone, sae = folder / "backbone", folder / "sae"
    model = planted_model()
    model.generation_config.pad_token_id = model.config.pad_token_id
    model.save_pretrained(backbone)
    planted_tokenizer().save_pretrained(backbone)
    planted_sae().save(sae)
    return backbone, sae
