"""A run of torch that is told over standard input: race.py JOB [--compile] [--check].

It says a line of JSON about itself when it has read the job. `run K` makes the job's next K steps, from the first again
after the last, and answers with a line of JSON: seconds and CPU seconds of each step, its loss before the update, CPU
seconds spent while waiting, and the peak of memory so far. It ends with its input.

The precision is the job's, see `common`. The attention, AdamW and the rest are the fastest that torch has; `--compile`
has its own compiler make forward and backward. `--check` holds the loss of the first step against transformers' model.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from common import Job, load, say, torch
from llama import Llama
from safetensors import safe_open


def peak():
    """Most bytes of memory that this process has had at once."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


class Race:
    def __init__(self, path, compiled):
        self.job = Job(path)
        self.model = Llama(json.loads((self.job.folder / self.job.told["model"]).read_text()), self.job.length)
        self.folder = self.job.folder / self.job.told["start"]["path"]
        with safe_open(self.folder / "model.safetensors", "pt") as file, torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(file.get_tensor(name))
        self.batches = self.job.batches()
        self.optimizer = self.job.optimizer(self.model, fused=True)
        self.forward = torch.compile(self.model) if compiled else self.model
        self.done = 0

    def step(self):
        at = self.done % len(self.batches)
        for group in self.optimizer.param_groups:
            group["lr"] = self.job.rates[at]
        with self.job.arithmetic():
            loss = self.forward(self.batches[at])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.job.told["optimizer"]["clip"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.done += 1
        return loss.item()

    def run(self, count):
        seconds, cpu_seconds, losses = [], [], []
        for _ in range(count):
            wall, cpu = time.perf_counter(), time.process_time()
            losses.append(self.step())
            seconds.append(time.perf_counter() - wall)
            cpu_seconds.append(time.process_time() - cpu)
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, "losses": losses, "peak": peak()}

    def difference(self):
        """Relative difference of the first step's loss from the one of transformers' model."""
        with torch.no_grad(), self.job.arithmetic():
            expected = self.job.loss(load(self.folder), self.batches[0]).item()
            return abs(self.model(self.batches[0]).item() / expected - 1)


parser = argparse.ArgumentParser()
parser.add_argument("job")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--check", action="store_true")
arguments = parser.parse_args()
imported = peak()
race = Race(arguments.job, arguments.compile)
hello = {
    "torch": torch.__version__,
    "threads": torch.get_num_threads(),
    "affinity": sorted(os.sched_getaffinity(0)),
    "instructions": torch.backends.cpu.get_cpu_capability(),
    "imported": imported,
}
say(hello | ({"difference": race.difference()} if arguments.check else {}))
waiting = time.process_time()
for line in sys.stdin:
    word, count = line.split()
    assert word == "run", line
    idle = time.process_time() - waiting
    say(race.run(int(count)) | {"idle_cpu_seconds": idle})
    waiting = time.process_time()
