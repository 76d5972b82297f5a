"""What a recipe would take on many machines: memory, traffic and time of a run, by arithmetic alone.

    python examples/growing.py [RECIPE] [PROCESSES] [A.B=VALUE ...]     # absent: ptb-char-cpu, 64

The GPU and the link are below: an H100's dense bf16 products, 30 % of which is what careful code reaches, and 25 GB/s
between the processes. Change them to your own.
"""

import sys

from unrolled.train.dry_run import dry_run
from unrolled.train.recipes import load_experiment

PRODUCTS, UTILISATION, MEMORY, LINK = 989e12, 0.30, 80e9, 25e9  # operations/s, share, bytes, bytes/s
BOTH_PASSES = 3  # forward and backward, in units of the forward pass


def main(recipe: str = "ptb-char-cpu", processes: str = "64", *settings: str) -> None:
    for kind in ("ddp", "fsdp"):
        parallel = [f"train.parallel.kind={kind}", f"train.parallel.shards={processes}", "train.parallel.reduce=bf16"]
        size = dry_run(load_experiment(recipe, [*settings, *parallel]))
        step = size["columns"] * size["window"]
        compute = BOTH_PASSES * size["flops_per_token"] * step / int(processes) / (PRODUCTS * UTILISATION)
        send = size["traffic_bytes_a_step"] / LINK
        memory, states = size["memory_bytes_a_process_at_least"], size["carried_bytes_a_process"]
        print(f"{kind}: {size['parameters']:,} parameters on {processes} processes, {step:,} tokens a step")
        print(f"  memory {memory / 1e9:.2f} GB of {MEMORY / 1e9:.0f}, of which carried states {states / 1e9:.4f}")
        print(f"  a step computes for {1e3 * compute:.2f} ms and sends for {1e3 * send:.2f} ms")
        print(f"  training state of {size['training_state_bytes'] / 1e9:.2f} GB, all processes together")
        if size["tokens"]:
            days = size["tokens"] / step * max(compute, send) / 86400
            print(f"  {size['tokens']:,} tokens in {days:.2f} days")


if __name__ == "__main__":
    main(*sys.argv[1:])
