"""How far files of logits are from transformers' own: logits.py TOKENS [FOLDER LOGITS]... (a sequence of u32 tokens)."""

import sys

from common import load, np, pairs, say, torch
from safetensors.torch import load_file

sequence = torch.from_numpy(np.fromfile(sys.argv[1], "<u4").astype(np.int64))[None]
differences = []
for folder, file in pairs(sys.argv[2:]):
    with torch.no_grad():
        expected = load(folder)(sequence).logits[0]
    found = load_file(file)["logits"]
    assert found.shape == expected.shape == (sequence.shape[1], expected.shape[1]), (found.shape, expected.shape)
    differences.append(((found - expected).abs().max() / expected.abs().max()).item())
say(differences)
