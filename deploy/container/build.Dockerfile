# Builds variants: the gateway's packages, torch, and what else a build needs. From the root of a clone:
#
#   docker build --file deploy/container/build.Dockerfile --tag tiergate-build:0.1.0 .
#   docker run --read-only --tmpfs /tmp --volume ./repository:/models tiergate-build:0.1.0 build digits --output /models
#
# TORCH_INDEX_URL: PyTorch's own index has builds for CPUs only, a tenth of the size; its address is on PyTorch's page.
# Pin the base to the bytes that you have checked: --build-arg PYTHON_DIGEST=@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG PYTHON_DIGEST=

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST} AS install
ARG TORCH_INDEX_URL=
WORKDIR /src
RUN python -m venv /opt/tiergate
COPY pyproject.toml constraints.txt ./
RUN /opt/tiergate/bin/pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*project['dependencies'], *project['optional-dependencies']['build'], sep='\n')" > dependencies.txt
RUN /opt/tiergate/bin/pip install --no-cache-dir --constraint constraints.txt --requirement dependencies.txt
COPY README.md LICENSE ./
COPY service service
COPY variants variants
COPY loadtests loadtests
RUN /opt/tiergate/bin/pip install --no-cache-dir --constraint constraints.txt --no-deps .

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST}
COPY --from=install /opt/tiergate /opt/tiergate
# Libraries keep caches below HOME; /tmp is all that may be written beside the volume. ONNX Runtime reports its use to its
# maker unless it is told not to before it is loaded.
ENV ORT_DISABLE_TELEMETRY=1 PATH=/opt/tiergate/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGINT
# It serves nobody: a build that stands still is ended by the deadline of its Job.
HEALTHCHECK NONE
ENTRYPOINT ["tiergate"]
CMD ["build", "digits", "--output", "/models"]
