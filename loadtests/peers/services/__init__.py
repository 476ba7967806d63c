"""What runs inside the peers, each in its own environment: NumPy, ONNX Runtime and the peer's package, no more."""
