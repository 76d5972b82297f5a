"""Hugging Face's transformers: importing this module makes its Auto classes know the models that were exported.

import unrolled.hf
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("exported")
"""

from unrolled.core.extras import require

require("hf", "transformers")

from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from unrolled.serve.hf.cache import UnrolledCache  # noqa: E402
from unrolled.serve.hf.configuration import UnrolledConfig  # noqa: E402
from unrolled.serve.hf.modeling import UnrolledForCausalLM  # noqa: E402

__all__ = ["UnrolledCache", "UnrolledConfig", "UnrolledForCausalLM"]

AutoConfig.register(UnrolledConfig.model_type, UnrolledConfig, exist_ok=True)
AutoModelForCausalLM.register(UnrolledConfig, UnrolledForCausalLM, exist_ok=True)
