"""The model as a Ray Serve deployment; run with the ONNX file, the HTTP port and the gRPC port."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from compute import Compute
from ray import serve
from starlette.responses import Response
from tritonclient.grpc import service_pb2

if TYPE_CHECKING:
    from starlette.requests import Request

_SERVICER = "tritonclient.grpc.service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
_JSON = "application/json"


class PeerDeployment:
    """Answers JSON and raw bytes over HTTP, and ``ModelInfer`` over gRPC."""

    def __init__(self, file: str) -> None:
        self._compute = Compute(file)

    async def __call__(self, request: Request) -> Any:  # noqa: ANN401 - what Ray Serve can answer with
        """Answer one HTTP request: a document, or raw bytes with the shape in a header."""
        body = await request.body()
        if request.headers["content-type"] == _JSON:
            document = json.loads(body)
            output = self._compute(np.array(document["data"], np.float32).reshape(document["shape"]))
            return {"data": output.ravel().tolist(), "shape": list(output.shape)}
        shape = [int(size) for size in request.headers["shape"].split(",")]
        output = self._compute(np.frombuffer(body, np.float32).reshape(shape))
        return Response(output.tobytes(), media_type="application/octet-stream")

    async def ModelInfer(  # noqa: N802 - Ray Serve finds the method by its name in the protocol
        self, request: service_pb2.ModelInferRequest
    ) -> service_pb2.ModelInferResponse:
        """Answer one gRPC request."""
        data = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
        output = self._compute(data)
        response = service_pb2.ModelInferResponse(model_name="peer", raw_output_contents=[output.tobytes()])
        response.outputs.add(name="y", datatype="FP32", shape=output.shape)
        return response


PEER = serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})(PeerDeployment)


def main() -> None:
    """Serve until a signal comes."""
    file, http, grpc, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", _temp_dir=folder)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": http},
        grpc_options={"port": grpc, "grpc_servicer_functions": [_SERVICER]},
        logging_config={"enable_access_log": False, "log_level": "ERROR"},
    )
    serve.run(PEER.bind(file), name="peer", route_prefix="/peer")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main()
