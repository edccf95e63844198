# Two images of one source: `api` (small: no Kubernetes library, no cloud SDK, no root) and `worker`
# (the same, the worker's packages, and the pinned programs of a control plane).

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG GO_IMAGE=golang:1.26-bookworm

FROM ${GO_IMAGE} AS go

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PATH=/opt/bulkhead/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /opt/bulkhead/app

FROM base AS installer
ARG UV_VERSION=0.13.9
ENV UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_NO_CACHE=1
RUN python3 -m venv /opt/uv \
    && /opt/uv/bin/pip install --no-cache-dir --quiet "uv==${UV_VERSION}" \
    && /opt/uv/bin/uv venv --quiet --python python3 /opt/bulkhead/venv

FROM installer AS api-packages
COPY requirements-api.lock .
RUN /opt/uv/bin/uv pip sync --quiet --python /opt/bulkhead/venv/bin/python --compile-bytecode \
    --require-hashes requirements-api.lock

FROM installer AS worker-packages
COPY requirements-worker.lock .
RUN /opt/uv/bin/uv pip sync --quiet --python /opt/bulkhead/venv/bin/python --compile-bytecode \
    --require-hashes requirements-worker.lock

# Only the pins decide this layer: a change of our code does not build Kubernetes again.
FROM api-packages AS programs
COPY --from=go /usr/local/go /usr/local/go
COPY domain/__init__.py domain/errors.py domain/
COPY infra/__init__.py infra/
COPY infra/tools infra/tools
RUN PATH=/usr/local/go/bin:$PATH python -m infra.tools --into /opt/bulkhead/programs \
    && rm -rf /root/.cache /root/go

FROM base AS code
COPY LICENSE pyproject.toml worker.py ./
COPY domain domain
COPY infra infra
COPY activities activities
COPY workflows workflows
COPY api api
COPY cli cli
# Files keep the rights of the checkout, which may be closed to others.
RUN chmod -R a+rX,go-w .

FROM base AS api
COPY --from=api-packages /opt/bulkhead/venv /opt/bulkhead/venv
COPY --from=code /opt/bulkhead/app /opt/bulkhead/app
USER 10001:10001
EXPOSE 8443
CMD ["python", "-m", "api"]

FROM base AS worker
COPY --from=worker-packages /opt/bulkhead/venv /opt/bulkhead/venv
COPY --from=programs /opt/bulkhead/programs /opt/bulkhead/programs
COPY --from=code /opt/bulkhead/app /opt/bulkhead/app
CMD ["infra/compose/worker"]
