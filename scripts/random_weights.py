"""Random weights for a Llama whose answers depend on the whole prompt.

vLLM's own dummy weights (`--load-format dummy`) lie within 1e-3 of zero: every document then gets the same answer,
so that no comparison of texts can fail. Here attention scores have a standard deviation near 2.5, which makes each
token attend to a few dozen others, and each layer adds a quarter of the residual's scale: another document gives
another text, and the noise of bfloat16 stays small.
"""
import json
import os

import torch
from safetensors.torch import save_file

SCORE_STD = 2.5       # of an attention score
LAYER_SHARE = 0.25    # of the residual's scale, added by each layer
LOGIT_STD = 3.0


def write(folder, config, seed=1):
    """Writes one safetensors file a layer and their index, in bfloat16. `config`: what `config.json` holds."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device=device).manual_seed(seed)
    hidden, inner, vocabulary = (config[key] for key in ["hidden_size", "intermediate_size", "vocab_size"])
    heads = config["num_attention_heads"] * config["head_dim"]
    kv_heads = config["num_key_value_heads"] * config["head_dim"]
    files, total_bytes = {}, 0

    def random(rows, columns, std):
        values = torch.randn(rows, columns, generator=generator, device=device, dtype=torch.float32) * std
        return values.to(torch.bfloat16).cpu()

    def save(name, tensors):
        nonlocal total_bytes
        save_file(tensors, os.path.join(folder, name), metadata={"format": "pt"})
        for key, tensor in tensors.items():
            files[key] = name
            total_bytes += tensor.numel() * tensor.element_size()

    ones = torch.ones(hidden, dtype=torch.bfloat16)
    into, score = 1 / hidden ** 0.5, SCORE_STD ** 0.5 / hidden ** 0.5
    save("embed.safetensors", {"model.embed_tokens.weight": random(vocabulary, hidden, 1.0)})
    save("head.safetensors", {"lm_head.weight": random(vocabulary, hidden, LOGIT_STD * into),
                              "model.norm.weight": ones.clone()})
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        save(f"layer{number:02}.safetensors", {
            layer + "self_attn.q_proj.weight": random(heads, hidden, score),
            layer + "self_attn.k_proj.weight": random(kv_heads, hidden, score),
            layer + "self_attn.v_proj.weight": random(kv_heads, hidden, into),
            layer + "self_attn.o_proj.weight": random(hidden, heads, LAYER_SHARE / heads ** 0.5),
            layer + "mlp.gate_proj.weight": random(inner, hidden, into),
            layer + "mlp.up_proj.weight": random(inner, hidden, into),
            layer + "mlp.down_proj.weight": random(hidden, inner, LAYER_SHARE / inner ** 0.5),
            layer + "input_layernorm.weight": ones.clone(),
            layer + "post_attention_layernorm.weight": ones.clone(),
        })
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as index:
        json.dump({"metadata": {"total_size": total_bytes}, "weight_map": files}, index)
