"""The same jobs with torch's own AdamW: train.py JOB... gives each step's loss and gradient norm, and held-out losses."""

import sys

from common import Job, load, say, torch


def train(job):
    model = load(job.folder / job.told["start"]["path"]).train()
    optimizer = job.optimizer(model)
    steps = []
    for sequences, rate in zip(job.batches(), job.rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = job.loss(model, sequences)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), job.told["optimizer"]["clip"])
        optimizer.step()
        optimizer.zero_grad()
        steps.append({"loss": loss.item(), "grad_norm": norm.item()})
    return {"steps": steps, "held_out": job.held_out(model.eval())}


say([train(Job(job)) for job in sys.argv[1:]])
