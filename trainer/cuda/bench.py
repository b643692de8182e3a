"""lrpath-train against PyTorch on one GPU: `make bench-cuda`.

Needs a driver, an `lrpath-train` that was built elsewhere (`make build-cuda`) and a Python with PyTorch for CUDA and
numpy; no other package, and no tool chain. Both train the same LLaMAs on the same tokens in bf16, torch with the best that it has: its
compiler, scaled dot-product attention and fused AdamW, autocast, weights and moments in f32. Rounds take turns. Then both
train the smallest model from the same weights, and their losses are held against torch's in f32.

It prints a table for docs/results.md and, with --out, leaves all figures as JSON. Where there is no GPU it says so and ends
with 77. --device cpu runs everything on the CPU, on a tiny model: that the script works, and nothing else.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import libraries

HERE = Path(__file__).resolve().parent
SKIPPED = 77

# Layers, width, width of the feed-forward part, heads; sequences of a step, and of a micro batch. 1.2b is the paper's size.
SIZES = {
    "tiny": (2, 64, 176, 2, 4, 2),
    "125m": (12, 768, 2048, 12, 32, 16),
    "350m": (24, 1024, 2816, 16, 32, 16),
    "1.2b": (22, 2048, 5504, 16, 32, 8),
}
VOCABULARY = 32000


def config(size, length):
    layers, width, inner, heads, _, _ = SIZES[size]
    return {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width // heads,
        "max_position_embeddings": length,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "initializer_range": 0.02,
        "tie_word_embeddings": False,
    }


def tokens(count):
    """Tokens of which most follow from the one before."""
    state, token, all_of_them = 1, 1, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        draw = state >> 33
        token = draw % VOCABULARY if draw % 5 == 0 else (token * 31 + 17) % VOCABULARY
        all_of_them.append(token)
    return all_of_them


def write_job(folder, size, length, steps, device, precision, start):
    """A job as docs/trainer-contract.md says it."""
    sequences, micro_batch = SIZES[size][4:]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(size, length)))
    count = steps * sequences
    stream = tokens(count * (length + 1))
    (folder / "tokens.u32").write_bytes(struct.pack(f"<{len(stream)}I", *stream))
    pieces = [struct.pack("<IIQ", 0, length + 1, number * (length + 1)) for number in range(count)]
    (folder / "sequences").write_bytes(b"".join(pieces))
    rates = [3e-4 * min(step + 1, 10) / 10 for step in range(steps)]
    (folder / "learning_rates").write_bytes(struct.pack(f"<{steps}d", *rates))
    job = {
        "format": 1,
        "job": 1,
        "attempt": 1,
        "path": f"bench.{size}",
        "model": "config.json",
        "start": start,
        "from": 0,
        "to": steps,
        "sequence_length": length,
        "sequences_per_step": sequences,
        "micro_batch": micro_batch,
        "mask_documents_at": None,
        "precision": precision,
        "device": device,
        "ranks": 1,
        "recompute": "none",
        "learning_rates": "learning_rates",
        "sequences": "sequences",
        "token_files": ["tokens.u32"],
        "skip": [],
        "optimizer": {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0},
        "checkpoints": {"folder": "checkpoints", "every": None, "at_end": True, "wait": 0},
        "evaluation": {"every": None, "at_end": False, "increments": []},
        "threads": None,
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder / "job.json"


def write_safetensors(path, tensors):
    """Tensors of f32 by their names."""
    header, offset = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.contiguous().cpu().numpy().tobytes())


class Torch:
    """torch's steps of a job; a process of its own, so that nothing of it is left on the GPU."""

    def __init__(self, job, precision, weights=None):
        command = [sys.executable, __file__, "--torch", str(job), "--precision", precision]
        command += ["--weights", str(weights)] if weights else []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit("torch's process has ended: what it said is above")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def torch_worker(path, precision, weights):
    """Makes as many of the job's next steps as each line of the input says, and prints a line of JSON about them."""
    import time

    sys.path.insert(0, str(HERE.parent.parent / "tests/peers"))
    from common import Job, torch
    from llama import Llama

    job = Job(path)
    told = json.loads((job.folder / job.told["model"]).read_text())
    device = torch.device(job.told["device"])
    on_gpu = device.type == "cuda"
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    model = Llama(told, job.length)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=told["initializer_range"])
        else:
            torch.nn.init.ones_(parameter)
    if weights:
        write_safetensors(weights / "model.safetensors", {name: p.detach() for name, p in model.named_parameters()})
    model = model.to(device)
    optimizer, batches = job.optimizer(model, lr=0.0, fused=True), job.batches()
    forward = torch.compile(model) if on_gpu else model
    micro_batch, done = job.told["micro_batch"], 0

    def wait():
        if on_gpu:
            torch.cuda.synchronize()

    def step(number):
        for group in optimizer.param_groups:
            group["lr"] = job.rates[number]
        parts = batches[number].to(device).split(micro_batch)
        losses = []
        for part in parts:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = forward(part) / len(parts)
            loss.backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), job.told["optimizer"]["clip"])
        optimizer.step()
        optimizer.zero_grad()
        return sum(losses)

    for line in sys.stdin:
        seconds, losses = [], []
        for _ in range(int(line)):
            wait()
            begun = time.perf_counter()
            loss = step(done)
            wait()
            seconds.append(time.perf_counter() - begun)
            losses.append(loss.item())
            done = (done + 1) % len(batches)
        peak = torch.cuda.max_memory_reserved() if on_gpu else None
        print(json.dumps({"seconds": seconds, "losses": losses, "peak": peak}), flush=True)


def ours(program, job, warm_up, steps):
    command = [program, "bench", "--job", str(job), "--warm-up", str(warm_up), "--steps", str(steps), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return json.loads(done.stdout)


def speeds(arguments, folder, size, length):
    """Tokens a second of both, in turns."""
    warm_up, steps = arguments.warm_up, arguments.steps
    job = write_job(folder / size, size, length, warm_up + steps, arguments.device, "bf16", {"kind": "new", "seed": 1})
    a_step = SIZES[size][4] * length
    found, theirs = [], []
    for _ in range(arguments.rounds):
        found.append(ours(arguments.program, job, warm_up, steps))
        torch = Torch(job, "bf16")
        torch.run(warm_up)
        theirs.append(torch.run(steps))
        torch.end()
    fastest = statistics.median(report["tokens_per_second"] for report in found)
    of_torch = statistics.median(a_step / statistics.median(run["seconds"]) for run in theirs)
    last = found[-1]
    return {
        "size": size,
        "parameters": last["parameters"],
        "kernels": last["kernels"],
        "tokens_per_second": fastest,
        "torch": of_torch,
        "ratio": fastest / of_torch,
        "flops_per_token": last["flops_per_token"],
        "matmul_peak": last["matmul_peak"],
        "peak": last["memory"]["peak"],
        "forecast": last["memory"]["forecast"],
        "torch_peak": theirs[-1]["peak"],
        "operations": last["operations"],
    }


def race(arguments, folder, size, length):
    """Losses from the same weights: how far ours in bf16 and torch's in bf16 are from torch's in f32."""
    steps = arguments.race
    at = folder / "race"
    job = write_job(at, size, length, steps, arguments.device, "bf16", {"kind": "folder", "path": "weights"})
    (at / "weights").mkdir(exist_ok=True)
    losses = {}
    for precision in ("f32", "bf16"):
        torch = Torch(job, precision, at / "weights")
        losses[precision] = torch.run(steps)["losses"]
        torch.end()
    losses["ours"] = ours(arguments.program, job, 0, steps)["losses"]
    distance = {
        who: max(abs(x - y) / y for x, y in zip(losses[who], losses["f32"], strict=True)) for who in ("ours", "bf16")
    }
    return {"size": size, "steps": steps, "losses": losses, "distance": distance}


def row(result, peak):
    giga = lambda count: f"{count / 2**30:.1f} GiB" if count else "-"
    flops = result["flops_per_token"]
    mfu = lambda speed: f"{speed * flops / peak:.1%}"
    cells = [
        f"{result['size']} ({result['parameters'] / 1e6:.0f} M)",
        f"{result['tokens_per_second']:.0f}",
        f"{result['torch']:.0f}",
        f"{result['ratio']:.3f}",
        mfu(result["tokens_per_second"]),
        mfu(result["torch"]),
        giga(result["peak"]),
        giga(result["torch_peak"]),
    ]
    return "| " + " | ".join(cells) + " |"


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--program", default="target/cuda/lrpath-train")
    words.add_argument("--sizes", help="125m,350m,1.2b; on a CPU tiny")
    words.add_argument("--length", type=int, help="targets of a sequence: 2048; on a CPU 32")
    words.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    words.add_argument("--warm-up", type=int, default=5)
    words.add_argument("--steps", type=int, default=10)
    words.add_argument("--rounds", type=int, default=2)
    words.add_argument("--race", type=int, default=50, help="steps from the same weights; 0: none")
    words.add_argument("--peak", type=float, help="FLOP/s of the GPU by its maker; else the best product that was measured")
    words.add_argument("--out", type=Path)
    words.add_argument("--torch", type=Path, help=argparse.SUPPRESS)
    words.add_argument("--precision", help=argparse.SUPPRESS)
    words.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    arguments = words.parse_args()
    # For lrpath-train; torch has found its own by now.
    os.environ["LD_LIBRARY_PATH"] = libraries.path()
    if arguments.torch:
        return torch_worker(arguments.torch, arguments.precision, arguments.weights)
    on_gpu = arguments.device == "cuda"
    try:
        import torch
    except ImportError as error:
        print(f"skipped: {error}")
        return SKIPPED
    if on_gpu and not torch.cuda.is_available():
        print("skipped: torch finds no GPU")
        return SKIPPED
    sizes = (arguments.sizes or ("125m,350m,1.2b" if on_gpu else "tiny")).split(",")
    length = arguments.length or (2048 if on_gpu else 32)
    print(f"torch {torch.__version__} on {torch.cuda.get_device_name() if on_gpu else 'the CPU'}; sequences of {length}")
    print("| model | lrpath, tokens/s | torch, tokens/s | ratio | MFU | torch's | memory | torch's |")
    print("|---|---|---|---|---|---|---|---|")
    results = {"speeds": [], "race": None}
    with tempfile.TemporaryDirectory(prefix="lrpath-bench-") as folder:
        for size in sizes:
            result = speeds(arguments, Path(folder), size, length)
            results["speeds"].append(result)
            print(row(result, arguments.peak or result["matmul_peak"]), flush=True)
        against = "the maker's" if arguments.peak else "the best product that was measured"
        print(f"\nMFU: 6 FLOPs a parameter in products and token, 12 L H hd T of attention (PaLM, appendix B), of {against}.")
        for operation in results["speeds"][-1]["operations"]:
            print(f"{sizes[-1]}: {operation['name']:24}{operation['seconds'] * 1e3:10.2f} ms {operation['share']:7.1%}")
        if arguments.race:
            results["race"] = race(arguments, Path(folder), sizes[0], length)
            far = results["race"]["distance"]
            print(
                f"\n{arguments.race} steps of {sizes[0]} from the same weights: the losses are at most {far['ours']:.2e} from "
                f"torch's in f32; torch's in bf16 are {far['bf16']:.2e} from them."
            )
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1))
    if results["race"] and results["race"]["distance"]["ours"] > results["race"]["distance"]["bf16"]:
        print("FAILED: further away than torch")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
