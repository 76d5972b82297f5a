"""Write a run as a page for the browser."""

import importlib.resources
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_folder
from unrolled.runs import Run
from unrolled.serve.export import Exported
from unrolled.serve.onnx.session import OnnxStep
from unrolled.serve.onnx.write import made_step

__all__ = ["RUNTIME", "TOKENIZERS", "export_web"]

PARTS = ("index.html", "page.css", "page.js", "tokenizer.js")
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Files of onnxruntime-web: its module, and the runtime that it loads."""
TOKENIZERS = ("byte", "char", "word")
"""Those that the page has."""


def export_web(run: Run, out: Path, options: Mapping[str, Any]) -> Exported:
    """Write a folder that any server of files can serve: the page, the step, and the user's own onnxruntime-web.

    Args:
        out: a folder that does not exist yet.
        options: runtime, int8, verify; see ``unrolled export --help``.
    Raises:
        UsageError: a folder that is there; no runtime; a tokenizer that the page does not have; see ``export_onnx``.
        UnrolledError: see ``export_onnx``.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; name a new folder, or remove that one.")
    runtime = _runtime(options.get("runtime"))
    tokenizer = run.tokenizer
    if tokenizer.kind not in TOKENIZERS:
        raise UsageError(
            f"the page has the tokenizers {', '.join(TOKENIZERS)}, and {run.path} was trained with {tokenizer.kind}; "
            "export it as .onnx, and bring your own."
        )
    data, record = made_step(run, {name: value for name, value in options.items() if name != "runtime"})
    step = OnnxStep(data)
    about = f"{run.model.num_params():,} parameters, {record['precision']}, in this browser alone"
    model = {
        "title": run.path.resolve().name,
        "about": about,
        "model_id": record["model_id"],
        "tokenizer": step.tokenizer,
        "pieces": step.metadata["pieces"],
        "start_id": step.start_id,
        "end_id": int(step.metadata["end_id"]),
        "state": [
            {"name": name, "type": dtype, "shape": shape, "initial": step.metadata[f"initial.{name}"]}
            for name, dtype, shape in step.forms()
        ],
    }
    with atomic_folder(out) as folder:
        for name in PARTS:
            source = importlib.resources.files("unrolled.serve.web").joinpath(name)
            (folder / name).write_bytes(source.read_bytes())
        (folder / "step.onnx").write_bytes(data)
        (folder / "model.json").write_text(json.dumps(model, ensure_ascii=False), encoding="utf-8")
        (folder / "runtime").mkdir()
        for name in RUNTIME:
            shutil.copyfile(runtime / name, folder / "runtime" / name)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    record = {"folder": str(out), "bytes": size, **record}
    return Exported(
        record, f"page of {size / 1e6:.1f} MB written to {out}; look at it with: python -m http.server -d {out}"
    )


def _runtime(given: Any) -> Path:
    if given is None:
        raise UsageError(
            "the page needs onnxruntime-web, which is not shipped; npm install onnxruntime-web, and name its folder: "
            "--runtime node_modules/onnxruntime-web/dist."
        )
    path = Path(given)
    if missing := [name for name in RUNTIME if not (path / name).is_file()]:
        raise UsageError(f"{path} is not the folder dist of onnxruntime-web: it has no {missing[0]}; npm install it.")
    return path
