#!/usr/bin/env python3
"""Builds a model with Llama-3-8B's geometry and random weights whose answers depend on the prompt (16 GB).

The tokenizer is word-level, `t0` to `t127999`: every id is one word, so prompts have exact lengths.
usage: scripts/make-gpu-check-model.py DIR        needs tokenizers, torch and safetensors; half a minute with a GPU
"""
import json
import os
import sys

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import random_weights

WORDS, VOCABULARY = 128_000, 128_256

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
vocabulary = {f"t{i}": i for i in range(WORDS)}
special = {WORDS: "<|begin_of_text|>", WORDS + 1: "<|end_of_text|>"}
for i in range(WORDS, VOCABULARY):
    vocabulary[special.get(i, f"<|reserved_{i}|>")] = i
tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|begin_of_text|>"))
tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer.decoder = decoders.WordPiece(prefix="", cleanup=False)
tokenizer.add_special_tokens(list(special.values()))
tokenizer.save(os.path.join(out, "tokenizer.json"))


def write(name, **values):
    with open(os.path.join(out, name), "w") as file:
        json.dump(values, file, indent=1)
    return values


write("tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", bos_token=special[WORDS],
      eos_token=special[WORDS + 1], model_max_length=131_072,
      chat_template="{% for m in messages %}{{ m['content'] }} {% endfor %}")
config = write("config.json", architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=VOCABULARY,
               hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
               num_key_value_heads=8, head_dim=128, max_position_embeddings=131_072, rms_norm_eps=1e-5,
               rope_theta=500000.0, hidden_act="silu", bos_token_id=WORDS, eos_token_id=WORDS + 1,
               torch_dtype="bfloat16", tie_word_embeddings=False)
write("generation_config.json", bos_token_id=WORDS, eos_token_id=WORDS + 1)
random_weights.write(out, config)
