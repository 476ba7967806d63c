"""Load tests and benchmarks: black boxes over the wire.

Like the gateway they tell ONNX Runtime, before that is imported, to report nothing to its maker.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
