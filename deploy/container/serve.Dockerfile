# The gateway: serves built models, has no torch. From the root of a clone:
#
#   docker build --file deploy/container/serve.Dockerfile --tag tiergate:0.1.0 .
#   docker run --read-only --tmpfs /tmp --volume ./repository:/models:ro --publish 8000:8000 --publish 8001:8001 tiergate:0.1.0
#
# Extras of pyproject.toml that settings ask for: --build-arg EXTRAS="pyvoy otel".
# Pin the base to the bytes that you have checked: --build-arg PYTHON_DIGEST=@sha256:...
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG PYTHON_DIGEST=

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST} AS install
ARG EXTRAS=
WORKDIR /src
RUN python -m venv /opt/tiergate
# The dependencies first: they change less often than the code, and make the larger layer.
COPY pyproject.toml constraints.txt ./
RUN python -c "import os, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    extras = [project['optional-dependencies'][name] for name in os.environ.get('EXTRAS', '').split()]; \
    print(*project['dependencies'], *sum(extras, []), sep='\n')" > dependencies.txt
RUN /opt/tiergate/bin/pip install --no-cache-dir --constraint constraints.txt --requirement dependencies.txt
COPY README.md LICENSE ./
COPY service service
COPY variants variants
COPY loadtests loadtests
RUN /opt/tiergate/bin/pip install --no-cache-dir --constraint constraints.txt --no-deps .

FROM ${PYTHON_IMAGE}${PYTHON_DIGEST}
COPY --from=install /opt/tiergate /opt/tiergate
COPY deploy/container/health.py /opt/tiergate/health.py
# ONNX Runtime reports its use to its maker unless it is told not to before it is loaded.
ENV ORT_DISABLE_TELEMETRY=1 PATH=/opt/tiergate/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can see that it is not root. It owns nothing in the image.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "/opt/tiergate/health.py"]
ENTRYPOINT ["tiergate"]
CMD ["serve", "/models", "--host", "0.0.0.0", "--no-pin-lanes"]
