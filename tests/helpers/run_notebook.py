"""Run the code cells of one notebook in this process: ``python run_notebook.py FILE``.

Plain `exec` does here what nbclient would do, without a kernel, its two dozen packages and its seconds of start-up. The
value of a cell's last expression is rendered as a notebook would render it.
"""

from __future__ import annotations

import ast
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any


def main(notebook: Path) -> None:
    """Run the cells from top to bottom; a warning is an error, as in the rest of the suite."""
    warnings.simplefilter("error")
    # SpikingJelly 0.0.0.0.14 applies torch.jit.script at import, which current torch calls deprecated.
    warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.*is deprecated")
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        where = f"{notebook.name}, code cell {number}"
        tree = ast.parse("".join(cell["source"]), where)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, where, "exec"), names)
        if isinstance(last, ast.Expr):
            render(eval(compile(ast.Expression(last.value), where, "eval"), names))


def render(value: Any) -> None:
    """Do what a notebook does with the value of a cell."""
    if hasattr(value, "savefig"):
        value.savefig(io.BytesIO(), format="png")
    elif hasattr(value, "_repr_html_"):
        value._repr_html_()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
