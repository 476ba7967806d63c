"""The name under which the protocol's message types say that they live: Ray Serve pickles messages by it."""

from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

__all__ = ["ModelInferRequest", "ModelInferResponse"]
