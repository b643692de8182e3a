"""Makes small LLaMAs with random weights: make_model.py [FOLDER SETTINGS]... (settings: JSON over the defaults)."""

import json
import sys

from common import pairs, torch
from transformers import LlamaConfig, LlamaForCausalLM



def make(folder, settings):
    config = LlamaConfig(
        **{
            "vocab_size": 300,
            "hidden_size": 32,
            "intermediate_size": 88,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 96,
            "initializer_range": 0.1,
            "bos_token_id": None,
            "eos_token_id": None,
            **settings,
        }
    )
    torch.manual_seed(1)
    model = LlamaForCausalLM(config)
    # Norms start as ones, which would hide a norm that is left out.
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(folder)


for folder, settings in pairs(sys.argv[1:]):
    make(folder, json.loads(settings))
