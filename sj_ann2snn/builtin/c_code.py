"""The C file of an integer network, statement by statement."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from sj_ann2snn import IntegerNetwork

__all__ = ["CCode"]

Array = Any

LINE = 110
"""Characters in a line of numbers."""

KINDS = (("int8_t", 1, 1 << 7), ("int16_t", 2, 1 << 15), ("int32_t", 4, 1 << 31))
"""Types of integers, their bytes, and one more than the largest of them."""

HELPERS = """\
static int32_t clamp(int32_t x, int32_t low, int32_t high) {
    return x < low ? low : x > high ? high : x;
}

/* The nearest integer, halves to the even neighbour. */
static int32_t nearest(float x, int32_t low, int32_t high) {
    int32_t whole;
    float rest;
    if (!(x > (float)low)) return low;
    if (!(x < (float)high)) return high;
    whole = (int32_t)x;
    if ((float)whole > x) whole--;
    rest = x - (float)whole;
    return rest > 0.5f || (rest == 0.5f && whole % 2 != 0) ? whole + 1 : whole;
}
"""

MAIN = """\
#ifdef {upper}_MAIN
/* Reads samples of float numbers from stdin, one after the other, and runs each for as many steps as the first argument
   says. For every step, it writes the spikes of every layer as bytes, and the outputs as 32-bit integers. */
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **words) {{
    int steps = count > 1 ? atoi(words[1]) : 1, t, layer;
    while ({reads}) {{
        {rounds}
        {name}_reset();
        {name}_input({given});
        for (t = 0; t < steps; t++) {{
            {name}_step({taken});
            for (layer = 0; layer < {name}_layer_count; layer++)
                fwrite({name}_layers[layer].spikes, 1, (size_t){name}_layers[layer].size, stdout);
            {writes}
        }}
    }}
    return 0;
}}
#endif
"""


def plain(text: str) -> str:
    """Text that may stand in a comment or a string.

    >>> plain('layer.0*/"')
    'layer.0___'
    """
    return re.sub(r"[^A-Za-z0-9_.:\-]", "_", text)


class CCode:
    """Writes the C of an integer network.

    Args:
        network: The network.
        name: What its functions and constants are called after.
    """

    def __init__(self, network: IntegerNetwork, name: str) -> None:
        self.network, self.name = network, name
        self.data: list[str] = []
        self.bytes = {"weights": 0, "tables": 0, "state": 0}
        self.known: dict[tuple[str, bytes], str] = {}
        self.buffers: dict[int, tuple[str, bool]] = {}
        self.resets: list[str] = []
        self.body: dict[bool, list[str]] = {False: [], True: []}

    def text(self) -> str:
        """The whole file."""
        for number, one in enumerate(self.network.operations):
            code = [line for line in getattr(self, f"_{one.kind}")(number, one) if line]
            if code:
                self.body[one.varies] += [f"    /* {plain(one.name)}: {one.kind}, {one.size:,} values */", *code]
        parts = [self._head(), "#include <stdint.h>\n", *self.data, HELPERS, self._layers(), self._functions()]
        return "\n".join(part for part in parts if part) + "\n" + self._main()

    # The parts of the file

    def _head(self) -> str:
        network, name = self.network, self.name
        inputs = [one for one in network.operations if one.kind == "input"]
        results = [one for one in network.operations if one.kind == "result"]
        given = ", ".join(f"const int32_t x{index}[{one.size}]" for index, one in enumerate(inputs))
        taken = ", ".join(f"int32_t y{index}[{one.size}]" for index, one in enumerate(results))
        sizes = ", ".join(f"{value:,} bytes of {what}" for what, value in self.bytes.items())
        return (
            f"/* {plain(network.name)}, a spiking network of integers, written by sj-ann2snn. C99 alone.\n\n"
            f"   {name}_reset()        begins a sample\n"
            f"   {name}_round0(x, q)   turns its numbers into integers; one function for each input\n"
            f"   {name}_input({given})\n"
            "                        computes what is the same at every step\n"
            f"   {name}_step({taken})\n"
            "                        computes a step, and writes the outputs of that step\n\n"
            f"   An answer is the mean of the outputs over all steps, times {name}_scale0, a number for each.\n"
            f"   {name}_layers lists the spikes of the last step, layer by layer.\n\n"
            f"   {sizes}.\n"
            f"   {network.additions:,} additions of a weight in a step, if every neuron spiked. */\n"
        )

    def _functions(self) -> str:
        name, network = self.name, self.network
        inputs: list[Any] = [one for one in network.operations if one.kind == "input"]
        results = [one for one in network.operations if one.kind == "result"]
        rounds = "\n".join(
            f"void {name}_round{index}(const float *x, int32_t *q) {{\n"
            "    int32_t i;\n"
            f"    for (i = 0; i < {one.size}; i++)\n"
            f"        q[i] = nearest(x[i] / {float_text(one.scale)}, {one.low}, {one.high});\n"
            "}\n"
            for index, one in enumerate(inputs)
        )
        given = ", ".join(f"const int32_t *x{index}" for index in range(len(inputs)))
        taken = ", ".join(f"int32_t *y{index}" for index in range(len(results)))
        loops = "    int32_t i, o, p, k, c;\n    (void)i; (void)o; (void)p; (void)k; (void)c;\n"
        resets, still, moving = ("\n".join(lines) for lines in (self.resets, self.body[False], self.body[True]))
        return (
            f"{rounds}\n"
            f"void {name}_reset(void) {{\n    int32_t i;\n{resets}\n}}\n\n"
            f"void {name}_input({given}) {{\n{loops}{still}\n}}\n\n"
            f"void {name}_step({taken}) {{\n{loops}{moving}\n}}\n"
        )

    def _layers(self) -> str:
        neurons = [(n, one) for n, one in enumerate(self.network.operations) if one.kind == "neuron"]
        rows = ",\n".join(f'    {{"{plain(one.name)}", {self.buffers[n][0]}, {one.size}}}' for n, one in neurons)
        name = self.name
        return (
            f"typedef struct {{ const char *name; const uint8_t *spikes; int32_t size; }} {name}_layer;\n"
            f"const {name}_layer {name}_layers[] = {{\n{rows}\n}};\nconst int {name}_layer_count = {len(neurons)};\n"
        )

    def _main(self) -> str:
        inputs = [one for one in self.network.operations if one.kind == "input"]
        results = [one for one in self.network.operations if one.kind == "result"]
        statics = "".join(
            [
                f"static float main_f{i}[{one.size}];\nstatic int32_t main_q{i}[{one.size}];\n"
                for i, one in enumerate(inputs)
            ]
            + [f"static int32_t main_y{i}[{one.size}];\n" for i, one in enumerate(results)]
        )
        name = self.name
        text = MAIN.format(
            name=name,
            upper=name.upper(),
            reads=" && ".join(
                f"fread(main_f{i}, sizeof(float), {one.size}, stdin) == {one.size}" for i, one in enumerate(inputs)
            ),
            rounds=" ".join(f"{name}_round{i}(main_f{i}, main_q{i});" for i in range(len(inputs))),
            given=", ".join(f"main_q{i}" for i in range(len(inputs))),
            taken=", ".join(f"main_y{i}" for i in range(len(results))),
            writes=" ".join(
                f"fwrite(main_y{i}, sizeof(int32_t), {one.size}, stdout);" for i, one in enumerate(results)
            ),
        )
        return text.replace("int main(", statics + "\nint main(")

    # Data

    def _table(self, values: Array, what: str = "tables") -> str:
        """The name of a constant array with these values; equal ones are the same array."""
        values = np.ascontiguousarray(values, dtype=np.int64).ravel()
        kind, size, _ = next(one for one in KINDS if -one[2] <= values.min() and values.max() < one[2])
        key = kind, values.tobytes()
        if key not in self.known:
            self.known[key] = f"t{len(self.known)}"
            self.bytes[what] += size * len(values)
            self.data.append(f"static const {kind} {self.known[key]}[{len(values)}] = {{\n{numbers(values)}\n}};\n")
        return self.known[key]

    def _along(self, values: Array, shape: tuple[int, ...]) -> str:
        """An expression for the i-th of the values of a sample, from as small a table as possible."""
        if (values == values[0]).all():
            return str(int(values[0]))
        channels = shape[0] if shape else 1
        rows = values.reshape(channels, -1)
        if (rows == rows[:, :1]).all():
            positions = rows.shape[1]
            return f"{self._table(rows[:, 0])}[{'i' if positions == 1 else f'i / {positions}'}]"
        columns = values.reshape(-1, shape[-1])
        if (columns == columns[:1]).all():
            return f"{self._table(columns[0])}[i % {shape[-1]}]"
        return f"{self._table(values)}[i]"

    def _buffer(self, number: int, size: int, *, spikes: bool = False, prefix: str = "x", wide: bool = False) -> str:
        name = f"{prefix}{number}_"
        kind, width = ("uint8_t", 1) if spikes else ("int64_t", 8) if wide else ("int32_t", 4)
        self.bytes["state"] += width * size
        self.data.append(f"static {kind} {name}[{size}];\n")
        if prefix == "x":
            self.buffers[number] = name, spikes
        return name

    def _read(self, one: Any) -> list[str]:
        return [self.buffers[source][0] for source in one.sources]

    # Operations

    def _input(self, number: int, one: Any) -> Iterator[str]:
        index = sum(1 for other in self.network.operations[:number] if other.kind == "input")
        self.buffers[number] = f"x{index}", False
        # A step may read the input itself, so it is kept.
        name = self._buffer(number, one.size)
        yield f"    for (i = 0; i < {one.size}; i++) {name}[i] = x{index}[i];"

    def _weighted(self, number: int, one: Any) -> Iterator[str]:
        (x,), out = self._read(one), self._buffer(number, one.size)
        outputs, inputs, window = one.weight.shape
        positions = len(one.windows)
        size = self.network.operations[one.sources[0]].size // (inputs * one.groups)
        weight, places = self._table(one.weight, "weights"), self._table(one.windows)
        bias = self._table(one.bias, "weights")
        shift = f"(1 << {self._table(one.shift)}[o])" if one.shift.any() else "1"
        whole = (one.windows >= 0).all()
        group = f" + o / {outputs // one.groups} * {inputs * size}" if one.groups > 1 else ""
        place = f"{places}[p * {window} + k]"
        product = f"{weight}[(o * {inputs} + c) * {window} + k] * in[c * {size} + place]"
        yield f"    for (o = 0; o < {outputs}; o++) for (p = 0; p < {positions}; p++) {{"
        kind = "uint8_t" if self.buffers[one.sources[0]][1] else "int32_t"
        yield f"        const {kind} *in = {x}{group};"
        yield "        int32_t sum = 0, place;"
        yield f"        for (k = 0; k < {window}; k++) {{"
        yield f"            place = {place};"
        if not whole:
            yield "            if (place < 0) continue;"
        yield f"            for (c = 0; c < {inputs}; c++) sum += {product};"
        yield "        }"
        yield f"        {out}[o * {positions} + p] = sum * {shift} + {bias}[o];"
        yield "    }"

    def _pool(self, number: int, one: Any) -> Iterator[str]:
        (x,), growth = self._read(one), one.reduce == "growth"
        spikes = growth and self.buffers[one.sources[0]][1]
        out = self._buffer(number, one.size, spikes=spikes)
        (positions, window), places = one.windows.shape, self._table(one.windows)
        source = self.network.operations[one.sources[0]].size
        size = source // one.channels
        if growth:
            # Sums of spikes over time fit into 32 bits, those of currents do not.
            total, before = (
                self._buffer(number, n, prefix=p, wide=not spikes) for n, p in ((source, "total"), (one.size, "before"))
            )
            self.resets += [f"    for (i = 0; i < {source}; i++) {total}[i] = 0;"]
            self.resets += [f"    for (i = 0; i < {one.size}; i++) {before}[i] = 0;"]
            yield f"    for (i = 0; i < {source}; i++) {total}[i] += {x}[i];"
            x = total
        yield f"    for (c = 0; c < {one.channels}; c++) for (p = 0; p < {positions}; p++) {{"
        wide = growth and not spikes
        start = "0" if one.reduce == "sum" else "INT64_MIN" if wide else "INT32_MIN"
        yield "        int32_t place;"
        yield f"        {'int64_t' if wide else 'int32_t'} found = {start};"
        yield f"        for (k = 0; k < {window}; k++) {{"
        yield f"            place = {places}[p * {window} + k];"
        if not (one.windows >= 0).all():
            yield "            if (place < 0) continue;"
        value = f"{x}[c * {size} + place]"
        yield (
            f"            found += {value};"
            if one.reduce == "sum"
            else f"            if ({value} > found) found = {value};"
        )
        yield "        }"
        here = f"[c * {positions} + p]"
        if growth:
            cast = "(uint8_t)" if spikes else "(int32_t)"
            yield f"        {out}{here} = {cast}(found - {before}{here});"
            yield f"        {before}{here} = found;"
        else:
            yield f"        {out}{here} = found;"
        yield "    }"

    def _product(self, number: int, one: Any) -> Iterator[str]:
        (x,), out = self._read(one), self._buffer(number, one.size)
        factor, bias = self._along(one.factor, one.shape), self._along(one.bias, one.shape)
        yield f"    for (i = 0; i < {one.size}; i++) {out}[i] = {x}[i] * {factor} + {bias};"

    def _sum(self, number: int, one: Any) -> Iterator[str]:
        out = self._buffer(number, one.size)
        terms = " ".join(
            f"{'+' if sign > 0 else '-'} {x}[i]" for sign, x in zip(one.signs, self._read(one), strict=True)
        )
        yield f"    for (i = 0; i < {one.size}; i++) {out}[i] = {terms};"

    def _gather(self, number: int, one: Any) -> Iterator[str]:
        sizes = [self.network.operations[source].size for source in one.sources]
        spikes = all(self.buffers[source][1] for source in one.sources)
        whole = one.size == sum(sizes) and (one.index == np.arange(one.size)).all()
        if whole and len(sizes) == 1:  # the same values in another shape
            self.buffers[number] = self.buffers[one.sources[0]]
            return
        read = self._read(one)
        if len(sizes) == 1:
            joined = read[0]
        else:
            joined = self._buffer(number, sum(sizes), spikes=spikes, prefix="x" if whole else "joined")
            start = 0
            for x, size in zip(read, sizes, strict=True):
                yield f"    for (i = 0; i < {size}; i++) {joined}[{start} + i] = {x}[i];"
                start += size
            if whole:
                return
        out, index = self._buffer(number, one.size, spikes=spikes), f"{self._table(one.index)}[i]"
        value = f"{joined}[{index}]"
        if (one.index < 0).any():
            value = f"{index} < 0 ? 0 : {value}"
        yield f"    for (i = 0; i < {one.size}; i++) {out}[i] = {value};"

    def _neuron(self, number: int, one: Any) -> Iterator[str]:
        (x,), out = self._read(one), self._buffer(number, one.size, spikes=True)
        v = self._buffer(number, one.size, prefix="v")
        threshold, start = self._along(one.threshold, one.shape), self._along(one.potential, one.shape)
        self.resets.append(f"    for (i = 0; i < {one.size}; i++) {v}[i] = {start};")
        low, high = -(1 << (one.bits - 1)), (1 << (one.bits - 1)) - 1
        yield f"    for (i = 0; i < {one.size}; i++) {{"
        yield f"        {v}[i] = clamp({v}[i] + {x}[i], {low}, {high});"
        yield f"        {out}[i] = {v}[i] >= {threshold};"
        yield f"        if ({out}[i]) {v}[i] -= {threshold};"
        yield "    }"

    def _result(self, number: int, one: Any) -> Iterator[str]:
        index = sum(1 for other in self.network.operations[:number] if other.kind == "result")
        (x,) = self._read(one)
        scale = ",\n".join(float_text(value) for value in one.scale)
        self.data.append(f"const float {self.name}_scale{index}[{one.size}] = {{\n{scale}\n}};\n")
        # What does not vary is an output of every step as well.
        self.body[True].append(f"    for (i = 0; i < {one.size}; i++) y{index}[i] = {x}[i];")
        yield ""


def float_text(value: float) -> str:
    """A number in single precision as C writes it.

    >>> float_text(0.1)
    '0.100000001f'
    """
    text = f"{np.float32(value):.9g}"
    return text + ("f" if "." in text or "e" in text else ".0f")


def numbers(values: Array) -> str:
    """Numbers in lines."""
    lines, line = [], ""
    for value in values.tolist():
        text = f"{value},"
        if len(line) + len(text) > LINE:
            lines.append(line)
            line = ""
        line += text
    return "\n".join([*lines, line])
