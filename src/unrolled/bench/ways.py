"""Ways of writing a text, timed as texts that a model writes: settings of the sampler, constraints, what is done at
test time, and the methods of :mod:`unrolled.bench.methods`, each by its name in the table that it has already."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.bench.methods import METHODS, MethodConfig
from unrolled.core.config import Config, apply_settings, parse_setting
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.generate import SamplerConfig, draws
from unrolled.generate.constraints import CONSTRAINTS
from unrolled.generate.constraints.asked import constraint_asked
from unrolled.predict import ADAPTERS, PredictorConfig
from unrolled.predict.config import as_table

__all__ = ["DRAW", "Way", "parse_way"]

DRAW = "draw"
"""Plain draws."""

_PAIRS = {"(": ")", "[": "]", "{": "}"}


class Way(NamedTuple):
    """sampler: how a token is chosen, and what the text may be. predict: what is done to the model at test time.
    method: how texts are written with both."""

    sampler: SamplerConfig
    predict: PredictorConfig
    method: MethodConfig


class _Chosen(Config):
    """A method, so that its errors say where they are."""

    method: Annotated[SerializeAsAny[MethodConfig], BeforeValidator(METHODS.parse)]


def parse_way(text: str) -> Way:
    """What a way is made of: its settings, with commas between.

    A setting is ``NAME=VALUE``, ``NAME`` or ``NAME.OPTION=VALUE``, where NAME is a field of the sampler, a method, a
    constraint or an adapter, looked for in this order; ``predict.NAME`` is an adapter in any case.

    Raises:
        UsageError: a name that none of the tables has; options that it does not have; what does not go together.
    """
    sampler: list[str] = []
    options: list[str] = []
    constrain: dict[str, Any] = {}
    adapters: dict[str, Any] = {}
    methods: dict[str, Any] = {}
    for piece in _pieces(text):
        name = re.split("[.=]", piece, maxsplit=1)[0].strip()
        bare = piece.partition("=")[0].strip() == name
        if name in SamplerConfig.model_fields:
            sampler.append(piece)
        elif name in METHODS:
            _give(methods, name, piece, bare, METHODS[name].Config.short)
        elif name in CONSTRAINTS:
            if bare:
                constrain |= constraint_asked(piece)
            else:
                constrain |= {"name": name, **apply_settings({}, [piece])[name]}
        elif name in ADAPTERS or name == "predict":
            if bare and name in ADAPTERS:
                value = parse_setting(piece)[1] if "=" in piece else {}
                adapters[name] = {**adapters.get(name, {}), **as_table(name, value)}
            else:
                options.append(piece if name == "predict" else f"predict.{piece}")
        else:
            raise unknown_name(
                "way of writing", name, [*SamplerConfig.model_fields, *METHODS, *CONSTRAINTS, *ADAPTERS, "predict"]
            )
    if len(methods) > 1:
        raise UsageError(f"{' and '.join(methods)} are not combined; leave out one of them.")
    method = _Chosen.parse({"method": next(iter(methods.values()), DRAW)}).method
    values = apply_settings({"constrain": constrain} if constrain else {}, sampler)
    found = SamplerConfig.parse(values)
    if draws(found) and not METHODS[method.name].draws:
        raise UsageError(f"with {method.name} texts are chosen, not drawn; leave out temperature and filters.")
    predict = apply_settings({"predict": adapters}, options)["predict"]
    return Way(found, PredictorConfig.parse(predict), method)


def _give(found: dict[str, Any], name: str, piece: str, bare: bool, short: str | None) -> None:
    """Put a setting of a method into its table."""
    table = found.setdefault(name, {"name": name})
    if not bare:
        found[name] = apply_settings({name: table}, [piece])[name]
        return
    if "=" in piece:
        value = parse_setting(piece)[1]
        if not isinstance(value, Mapping) and short is None:
            raise UsageError(f"{name} has no main option that a value would set; write {name}.OPTION=VALUE.")
        table.update(value if isinstance(value, Mapping) else {str(short): value})


def _pieces(text: str) -> list[str]:
    """The text cut at its commas, but for those within brackets or quotes."""
    found, start, open_, quote = [], 0, [], ""
    for place, sign in enumerate(text):
        if quote:
            escaped = quote == '"' and (place - len(text[:place].rstrip("\\"))) % 2
            quote = "" if sign == quote and not escaped else quote
        elif sign in "'\"" and (open_ or text[:place].rstrip().endswith("=")):  # elsewhere it is an apostrophe
            quote = sign
        elif sign in _PAIRS:
            open_.append(_PAIRS[sign])
        elif open_ and sign == open_[-1]:
            open_.pop()
        elif sign == "," and not open_:
            found.append(text[start:place])
            start = place + 1
    return [piece.strip() for piece in [*found, text[start:]]]
