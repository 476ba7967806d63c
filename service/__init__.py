"""The gateway: serves a model's variants as one model and answers each request with the right one.

ONNX Runtime's Linux wheels report to their maker from 1.31 on unless told not to before they are imported; whoever
imports any part of this package has told them.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
