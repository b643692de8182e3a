"""A dense LLaMA in torch's own operations: the ones that torch is fastest with, and none of the generality of others.

Its parameters have the names and shapes of transformers' `LlamaForCausalLM`, so that both load the same file.
"""

import torch
from torch import nn
from torch.nn import functional


class Norm(nn.Module):
    def __init__(self, told):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(told["hidden_size"]))
        self.eps = told["rms_norm_eps"]

    def forward(self, x):
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, told):
        super().__init__()
        width, heads, groups, size = shape(told)
        self.heads, self.groups, self.size = heads, groups, size
        self.q_proj = nn.Linear(width, heads * size, bias=False)
        self.k_proj = nn.Linear(width, groups * size, bias=False)
        self.v_proj = nn.Linear(width, groups * size, bias=False)
        self.o_proj = nn.Linear(heads * size, width, bias=False)

    def forward(self, x, angles):
        def apart(y, heads):
            return y.view(*x.shape[:2], heads, self.size).transpose(1, 2)

        q, k = (rotated(apart(y, n), angles) for y, n in ((self.q_proj(x), self.heads), (self.k_proj(x), self.groups)))
        v = apart(self.v_proj(x), self.groups)
        y = functional.scaled_dot_product_attention(
            q.to(v.dtype), k.to(v.dtype), v, is_causal=True, enable_gqa=self.heads != self.groups
        )
        return self.o_proj(y.transpose(1, 2).reshape(*x.shape[:2], -1))


class FeedForward(nn.Module):
    def __init__(self, told):
        super().__init__()
        width, inner = told["hidden_size"], told["intermediate_size"]
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x):
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, told):
        super().__init__()
        self.input_layernorm = Norm(told)
        self.self_attn = Attention(told)
        self.post_attention_layernorm = Norm(told)
        self.mlp = FeedForward(told)

    def forward(self, x, angles):
        x = x + self.self_attn(self.input_layernorm(x), angles)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, told, length):
        super().__init__()
        self.embed_tokens = nn.Embedding(told["vocab_size"], told["hidden_size"])
        self.layers = nn.ModuleList(Layer(told) for _ in range(told["num_hidden_layers"]))
        self.norm = Norm(told)
        size = shape(told)[3]
        inverse = told["rope_parameters"]["rope_theta"] ** -(torch.arange(0, size, 2).float() / size)
        angles = torch.outer(torch.arange(length).float(), inverse)
        self.register_buffer("angles", torch.stack((angles.cos(), angles.sin())), persistent=False)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, self.angles)
        return self.norm(x)


class Llama(nn.Module):
    def __init__(self, told, length):
        super().__init__()
        assert told["model_type"] == "llama" and not told["tie_word_embeddings"], "this is a LLaMA with its own head"
        self.model = Body(told, length)
        self.lm_head = nn.Linear(told["hidden_size"], told["vocab_size"], bias=False)

    def forward(self, sequences):
        """Mean nats a target of sequences of one length."""
        logits = self.lm_head(self.model(sequences[:, :-1]))
        return functional.cross_entropy(logits.flatten(0, 1).float(), sequences[:, 1:].flatten())


def shape(told):
    """Width of the residual stream, heads, groups of keys and values, size of a head."""
    width, heads = told["hidden_size"], told["num_attention_heads"]
    return width, heads, told["num_key_value_heads"], told.get("head_dim") or width // heads


def rotated(x, angles):
    cos, sin = angles
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
