"""Loss and gradients of the first batches of jobs: gradients.py [JOB CHECKPOINT]...

How far a gradient is off is the norm of the difference over the norm of torch's. A checkpoint is the one after its job's only step, at which nothing was clipped: AdamW's first moments are then
(1 - beta1) times the gradients.
"""

import sys
from pathlib import Path

from common import Job, load, pairs, say
from safetensors.torch import load_file


def compare(job, checkpoint):
    model = load(job.folder / job.told["start"]["path"])
    loss = job.loss(model, job.batches()[0])
    loss.backward()
    moments = load_file(checkpoint / "optimizer.safetensors")
    share = 1 - job.told["optimizer"]["beta1"]
    differences = {}
    for name, parameter in model.named_parameters():
        found, expected = moments[f"exp_avg.{name}"] / share, parameter.grad
        differences[name] = ((found - expected).norm() / expected.norm()).item()
    return {"loss": loss.item(), "differences": differences, "tensors": len(moments) // 2}


say([compare(Job(job), Path(checkpoint)) for job, checkpoint in pairs(sys.argv[1:])])
