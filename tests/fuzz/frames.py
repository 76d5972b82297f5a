"""Damaged frames: files that are trained on, and runs that are measured and written with."""

import io
import json
import random
import shutil
from pathlib import Path

import numpy as np

from fuzz.mutate import damage_bytes, damage_json, damage_tensors
from fuzz.seeds import Seeds

__all__ = ["frames"]

_SEQUENCES = [[[0.5, 1.0], [0.25, 0.0], [-3.0, 1.0]], [[1.5, 0.0]] * 4]
_PIANO = {"train": [[[60, 64], [], [21]], [[108]] * 4], "valid": [[[60], [61]]]}


def _array(draw: random.Random, values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    data = file.getvalue()
    return damage_bytes(data, draw) if draw.random() < 0.7 else data


def frames(draw: random.Random, seeds: Seeds, folder: Path) -> list[object]:
    """The arguments of a command on something damaged."""
    if draw.random() < 0.5:
        run = Path(shutil.copytree(seeds.frames, folder / "run"))
        path = run / draw.choice(("config.json", "config.json", "model.safetensors", "record.json"))
        data = path.read_bytes()
        if path.suffix == ".safetensors":
            path.write_bytes(damage_tensors(data, draw))
        else:
            path.write_bytes(damage_json(json.loads(data), draw).encode("utf-8", "surrogatepass"))
        use = draw.choice((["generate", run, "--prompt", "ab", "--tokens", 5], ["eval", run, "--limit", 20]))
        return [*use, "--json", "--device", "cpu"]
    settings = ["task.name=frames", "model.width=4", "stream.columns=1", "stream.window=2"]
    way = draw.choice(("npy", "json", "piano"))
    path = folder / ("x.npy" if way == "npy" else "x.json")
    if way == "npy":
        path.write_bytes(_array(draw, np.concatenate([np.array(one) for one in _SEQUENCES])))
        if draw.random() < 0.5:
            (folder / "x.starts.npy").write_bytes(_array(draw, np.array([0, 3])))
    else:
        path.write_text(damage_json(_PIANO if way == "piano" else _SEQUENCES, draw), errors="surrogatepass")
    if way == "piano":
        settings += ["task.frames.name=piano", f"task.frames.path={path}"]
    else:
        settings += ["task.frames.name=files", f"task.frames.train={path}", "task.head.name=mixture"]
        settings.append(f"task.frames.bits={draw.choice((0, 1, 1, 1))}")
    settings += ["train.steps=2", "train.validations=1", "train.threads=1"]
    chosen = [part for setting in settings for part in ("--set", setting)]
    return ["train", *chosen, "--out", folder / "out", "--device", "cpu"]
