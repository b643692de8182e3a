"""What the peers share: no network, and a job as the trainer's contract says it: its files, batches and optimizer.

torch computes on as many threads as OMP_NUM_THREADS says, on two without it. transformers is imported where a model of
its own is made: the others measure their memory.
"""

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import numpy as np
import torch

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))

PIECE = np.dtype([("file", "<u4"), ("count", "<u4"), ("first", "<u8")])


class Job:
    """A job.json and the files beside it."""

    def __init__(self, path):
        self.folder = Path(path).parent
        self.told = json.loads(Path(path).read_text())
        self.length = self.told["sequence_length"]
        self.tokens = [np.fromfile(self.folder / file, "<u4") for file in self.told["token_files"]]
        self.rates = np.fromfile(self.folder / self.told["learning_rates"], "<f8").tolist()

    def piece(self, piece):
        first = int(piece["first"])
        return self.tokens[piece["file"]][first : first + int(piece["count"])].astype(np.int64)

    def batches(self):
        """For each step its sequences, (sequences, length + 1)."""
        pieces = np.fromfile(self.folder / self.told["sequences"], PIECE)
        stream = np.concatenate([self.piece(piece) for piece in pieces])
        return torch.from_numpy(stream).view(-1, self.told["sequences_per_step"], self.length + 1)

    def windows(self, increment):
        """The windows of an increment's held-out blocks."""
        for block in increment["blocks"]:
            tokens = torch.from_numpy(self.piece(block["piece"]))
            for first in range(0, len(tokens) - 1, self.length):
                yield tokens[first : first + self.length + 1]

    def arithmetic(self):
        """The job's precision; bf16 is torch's autocast, with weights, moments and gradients in f32."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.told["precision"] == "bf16")

    def optimizer(self, model, **settings):
        """AdamW that does not decay norms."""
        told = self.told["optimizer"]
        decayed = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
        others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
        groups = [{"params": decayed, "weight_decay": told["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, betas=(told["beta1"], told["beta2"]), eps=told["eps"], **settings)

    def loss(self, model, sequences):
        """Mean nats a target of sequences of one length."""
        inputs, targets = sequences[:, :-1], sequences[:, 1:]
        mask = within_documents(inputs, self.told["mask_documents_at"])
        with self.arithmetic():
            logits = model(inputs, attention_mask=mask, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def held_out(self, model):
        """Mean nats a target of each increment's held-out blocks."""
        losses = []
        with torch.no_grad():
            for increment in self.told["evaluation"]["increments"]:
                nats, targets = 0.0, 0
                for window in self.windows(increment):
                    count = len(window) - 1
                    nats += self.loss(model, window[None]).item() * count
                    targets += count
                losses.append({"increment": increment["increment"], "loss": nats / targets, "tokens": targets})
        return losses


def within_documents(inputs, end_of_text):
    """Causal attention that does not cross an end-of-text token; None where documents see each other."""
    if end_of_text is None:
        return None
    ends = (inputs == end_of_text).long()
    document = ends.cumsum(1) - ends
    same = document[:, :, None] == document[:, None, :]
    causal = torch.ones(inputs.shape[1], inputs.shape[1], dtype=torch.bool).tril()
    visible = (same & causal)[:, None]
    return torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)


def pairs(arguments):
    return zip(arguments[::2], arguments[1::2], strict=True)


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def say(answer):
    print(json.dumps(answer), flush=True)
