"""The fifteen tasks of the Chomsky hierarchy by another road than their generators."""

import math
from collections.abc import Callable

__all__ = ["SOLVERS"]

_MODULUS = 5


def _value(text: list[str], x: int = 0) -> int:
    """An expression modulo 5, products before sums, by recursive descent."""
    place = 0

    def factor() -> int:
        nonlocal place
        symbol = text[place]
        place += 1
        if symbol == "-":
            return -factor()
        if symbol == "(":
            found = total()
            place += 1
            return found
        return x if symbol == "x" else int(symbol)

    def product() -> int:
        nonlocal place
        found = factor()
        while place < len(text) and text[place] == "*":
            place += 1
            found *= factor()
        return found

    def total() -> int:
        nonlocal place
        found = product()
        while place < len(text) and text[place] in "+-":
            sign = 1 if text[place] == "+" else -1
            place += 1
            found += sign * product()
        return found

    return total() % _MODULUS


def _stack(text: list[str]) -> list[str]:
    stack = ""
    for symbol in text:
        stack = stack[:-1] if symbol == "pop" else stack + symbol[-1]
    return [*reversed(stack), *["end"] * (len(text) + 1 - len(stack))]


def _missing(text: list[str]) -> list[str]:
    place, half = text.index("lost"), len(text) // 2
    return [text[(place + half) % len(text)]]


def _sorted(text: list[str]) -> list[str]:
    return [digit for digit in "01234" for _ in range(text.count(digit))]


def _addition(text: list[str]) -> list[str]:
    """Bit by bit with a carry."""
    cut = text.index("+")
    first, second, carry, found = text[:cut], text[cut + 1 :], 0, []
    for place in range(len(text) + 1):
        total = carry + sum(int(bits[place]) for bits in (first, second) if place < len(bits))
        found.append(str(total % 2))
        carry = total // 2
    return _ended(found)


def _ended(bits: list[str]) -> list[str]:
    """End symbols in the place of zeros above the highest one."""
    last = max((place for place, bit in enumerate(bits) if bit == "1"), default=0)
    return [*bits[: last + 1], *["end"] * (len(bits) - last - 1)]


def _multiplication(text: list[str]) -> list[str]:
    """The sum of the shifted first number, one for each bit of the second."""
    cut, total = text.index("*"), [0] * (2 * len(text))
    for shift, bit in enumerate(text[cut + 1 :]):
        for place, other in enumerate(text[:cut]):
            total[place + shift] += int(bit) * int(other)
    for place in range(len(total) - 1):
        total[place + 1] += total[place] // 2
        total[place] %= 2
    return _ended([str(bit) for bit in total[: len(text) + 1]])


def _sqrt(text: list[str]) -> list[str]:
    root = math.isqrt(sum(2**place for place, bit in enumerate(reversed(text)) if bit == "1"))
    return list(f"{root:b}")


SOLVERS: dict[str, Callable[[list[str]], list[str]]] = {
    "even_pairs": lambda text: ["1" if text[0] == text[-1] else "0"],
    "modular_arithmetic": lambda text: [str(_value(text))],
    "parity": lambda text: ["01"[text.count("1") % 2]],
    "cycle": lambda text: [str(sum({"stay": 0, "up": 1, "down": 4}[move] for move in text) % _MODULUS)],
    "stack_manipulation": _stack,
    "reverse": lambda text: list(reversed(text)),
    "modular_arithmetic_brackets": lambda text: [str(_value(text))],
    "solve_equation": lambda text: [str(x) for x in range(_MODULUS) if _value(text[:-2], x) == int(text[-1])],
    "duplicate": lambda text: text * 2,
    "missing_duplicate": _missing,
    "odds_first": lambda text: [symbol for odd in (1, 0) for place, symbol in enumerate(text, 1) if place % 2 == odd],
    "bucket_sort": _sorted,
    "addition": _addition,
    "multiplication": _multiplication,
    "sqrt": _sqrt,
}
"""Task -> what the string that was read has as its answer."""
