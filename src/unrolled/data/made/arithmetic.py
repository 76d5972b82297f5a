"""Expressions modulo 5 of a given number of symbols, with their values."""

import numpy as np

__all__ = ["chain", "equation", "nested"]

_MODULUS = 5


def _digit(g: np.random.Generator) -> tuple[list[str], int]:
    value = int(g.integers(_MODULUS))
    return [str(value)], value


def chain(g: np.random.Generator, length: int) -> tuple[list[str], list[str]]:
    """Digits with +, - and * between them, products first; of an even length with a minus before."""
    text, value = _digit(g)
    sign = 1
    if length % 2 == 0:
        text, sign = ["-", *text], -1
    total = 0  # of the terms before the last one, which is sign * value
    for _ in range((length - 1) // 2):
        operator, (digit, number) = "+-*"[int(g.integers(3))], _digit(g)
        text += [operator, *digit]
        if operator == "*":
            value = value * number
        else:
            total, sign, value = total + sign * value, 1 if operator == "+" else -1, number
    return text, [str((total + sign * value) % _MODULUS)]


def _expression(g: np.random.Generator, length: int, operators: str) -> tuple[list[str], int]:
    """A bracketed expression of exactly ``length`` symbols."""
    if length == 1:
        return _digit(g)
    if length == 2:
        text, value = _digit(g)
        return ["-", *text], -value
    if length < 5:
        text, value = _expression(g, length - 2, operators)
        return ["(", *text, ")"], value
    left = int(g.integers(1, length - 3))
    (first, a), (second, b) = (_expression(g, size, operators) for size in (left, length - 3 - left))
    operator = operators[int(g.integers(len(operators)))]
    value = a + b if operator == "+" else a - b if operator == "-" else a * b
    return ["(", *first, operator, *second, ")"], value % _MODULUS


def nested(g: np.random.Generator, length: int) -> tuple[list[str], list[str]]:
    """A bracketed expression with +, - and *."""
    text, value = _expression(g, length, "+-*")
    return text, [str(value % _MODULUS)]


def equation(g: np.random.Generator, length: int) -> tuple[list[str], list[str]]:
    """A bracketed expression with + and - in which x stands for a digit, and what it is equal to."""
    text, value = _expression(g, max(length - 2, 3), "+-")
    places = [place for place, symbol in enumerate(text) if symbol.isdigit()]
    place = places[int(g.integers(len(places)))]
    lost, text[place] = text[place], "x"
    return [*text, "is", str(value % _MODULUS)], [lost]
