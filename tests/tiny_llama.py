"""A small random Llama whose layers matter, and SAEs made for it in closed form."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from facviz.activations import content_activations
from facviz.backbone import Backbone, Renderer
from facviz.records import Document
from facviz.sae.model import SAE
from facviz.sae.weights import Activation, SaeWeights
from facviz.testing.planted import WORDS, planted_tokenizer

N_LAYERS, D_IN = 6, 32
ROLES = ("user", "assistant", "text")


def tiny_backbone(layer, seed=0, **changes):
    """Wide initial weights, so that one layer changes the residual stream as much as a trained one does."""
    tokenizer = planted_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=D_IN,
        intermediate_size=64,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        initializer_range=0.25,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).eval().requires_grad_(False)
    return Backbone(model, tokenizer, layer, "tiny", **changes)


def renderer_of(backbone, **changes):
    return Renderer(backbone.tokenizer, **({"max_tokens": 256, "roles": ROLES} | changes))


def texts(n=24, seed=0):
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(12, 40, (n,), generator=rng).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(len(WORDS), (m,), generator=rng)) for m in lengths]


def chats(n=24, seed=0):
    return [Document.from_text(t) for t in texts(n, seed)]


def raw(documents):
    return [Document.from_text(d.text, role="text") for d in documents]


def model_acts(backbone, documents):
    tokenized = renderer_of(backbone).render_many(list(enumerate(documents)))
    return torch.cat([batch.acts for batch in content_activations(backbone, tokenized, 256)])


def signed_sae(directions, centre):
    """Two features per direction, one for each sign: reconstructs its span about the centre, and nothing else."""
    both = torch.cat([directions, -directions])
    activation = Activation("relu")
    return SAE(SaeWeights(both.T.contiguous(), torch.zeros(len(both)), both.contiguous(), centre, activation))


def pca_sae(backbone, documents, n_directions=8):
    """The best linear reconstruction of these activations with so few directions."""
    acts = model_acts(backbone, documents)
    centre = acts.mean(0)
    return signed_sae(torch.linalg.svd(acts - centre, full_matrices=False).Vh[:n_directions], centre)


def identity_sae():
    return signed_sae(torch.eye(D_IN), torch.zeros(D_IN))


def constant_sae(prediction):
    return signed_sae(torch.zeros(1, D_IN), prediction)
