"""The build step: one model into full, pruned, quantized and distilled variants, each with measured evidence.

Like the gateway it tells ONNX Runtime, before that is imported, to report nothing to its maker.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
