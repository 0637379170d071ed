"""Mappers for sums, products and quotients."""

from __future__ import annotations

import operator

import torch

from sj_ann2snn import Average, LayerMapper, Linear, Product, Refuse, Replacement, Site, Sum, hookimpl

ANN2SNN_API = 1


class AdditionMapper(LayerMapper):
    """Residual addition and subtraction."""

    name = "addition"
    claims = (operator.add, operator.sub, torch.add, torch.sub, torch.subtract, "add", "sub", "subtract")

    def map(self, site: Site) -> Replacement:
        return Sum() if site.argument("alpha", 2, 1) == 1 and not _has_numbers(site) else Linear()


class NegationMapper(LayerMapper):
    """A change of sign."""

    name = "negation"
    claims = (operator.neg, torch.neg, torch.negative, "neg", "negative")

    def map(self, site: Site) -> Replacement:
        return Average()


class ProductMapper(LayerMapper):
    """Products: linear as long as only one factor varies over time."""

    name = "product"
    claims = (operator.mul, torch.mul, torch.multiply, "mul", "multiply")

    def map(self, site: Site) -> Replacement:
        return Product()


class QuotientMapper(LayerMapper):
    """Quotients: linear as long as the divisor is fixed."""

    name = "quotient"
    claims = (operator.truediv, torch.div, torch.divide, torch.true_divide, "div", "divide", "true_divide")

    def map(self, site: Site) -> Replacement:
        if site.argument("rounding_mode", 2) is not None:
            return Refuse("it rounds, which is not linear", "divide without rounding_mode")
        return Product(divisor=1)


class MatrixProductMapper(LayerMapper):
    """Matrix products: linear as long as only one factor varies over time."""

    name = "matrix-product"
    claims = (operator.matmul, torch.matmul, torch.mm, torch.bmm, torch.einsum, "matmul", "mm", "bmm")

    def map(self, site: Site) -> Replacement:
        return Product(elementwise=False)


def _has_numbers(site: Site) -> bool:
    """True if an operand is a plain number, which would have to be divided by the scale as well."""
    operands = (*site.args[:2], site.kwargs.get("other"))
    return any(isinstance(operand, (int, float)) for operand in operands)


@hookimpl
def ann2snn_layer_mappers() -> list[type[LayerMapper]]:
    return [AdditionMapper, MatrixProductMapper, NegationMapper, ProductMapper, QuotientMapper]
