"""``examples/decode.c`` prints the greedy text of ``unrolled generate``.

The Python package of ONNX Runtime has the library and no header: ``ONNXRUNTIME_INCLUDE`` names the folder of
``onnxruntime_c_api.h``, where it is not in the compiler's own folders.
"""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from unrolled.generate import SamplerConfig, generate
from unrolled.predict import NeuralPredictor
from unrolled.runs import Run

SOURCE = Path(__file__).resolve().parents[3] / "examples" / "decode.c"
LENGTH = 60


@pytest.fixture(scope="session")
def decode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    include = os.environ.get("ONNXRUNTIME_INCLUDE")
    options = [] if include is None else [f"-I{include}"]
    probe = [compiler, *options, "-E", "-x", "c", "-"]
    if subprocess.run(probe, input=b"#include <onnxruntime_c_api.h>\n", capture_output=True).returncode:
        pytest.skip("onnxruntime_c_api.h was not found; set ONNXRUNTIME_INCLUDE to its folder")
    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    library = next((Path(spec.origin).parent / "capi").glob("libonnxruntime.so.*"))
    made = tmp_path_factory.mktemp("decode") / "decode"
    # the name that the library has for the loader is not the one of its file in the package
    (made.parent / "libonnxruntime.so.1").symlink_to(library)
    strict = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"]
    linked = [str(made.parent / "libonnxruntime.so.1"), f"-Wl,-rpath,{made.parent}"]
    subprocess.run([compiler, *strict, *options, str(SOURCE), "-o", str(made), *linked], check=True)
    return made


def printed(*command: object) -> str:
    return subprocess.run(list(map(str, command)), check=True, capture_output=True).stdout.decode()


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["", "the cat "])
def test_it_prints_what_generate_does(decode: Path, tiny_run: Path, exported: tuple[Path, dict], prompt: str) -> None:
    run = Run(tiny_run, "cpu")
    predictor = NeuralPredictor(run.model, run.tokenizer.start_id)
    wanted = generate(predictor, run.tokenizer, [prompt], LENGTH, SamplerConfig(temperature=0.0))[0]
    found = printed(decode, exported[0], LENGTH, *run.tokenizer.encode(prompt))
    assert found == wanted.text
    assert len(wanted.tokens) == LENGTH


@pytest.mark.slow
def test_it_says_what_is_wrong(decode: Path, tmp_path: Path) -> None:
    for arguments, sentence in (([], "MODEL.onnx TOKENS"), ([tmp_path / "none.onnx", 3], "none.onnx")):
        done = subprocess.run([str(decode), *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode
        assert sentence in done.stderr
