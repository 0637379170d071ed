"""Examples in docstrings run files in ONNX Runtime; without it, they are left out."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("onnxruntime") else ["sj_ann2snn_onnx/*.py"]
