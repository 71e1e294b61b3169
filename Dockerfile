# syntax=docker/dockerfile:1
# All services in one image: `docker run IMAGE services.worker --pool small`. Built by `make image`.
# The base is named by digest, which has no default: a tag may be another image tomorrow.
#   docker buildx imagetools inspect python:3.11-slim-bookworm   # tells it
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm
ARG PYTHON_DIGEST

# --- packages, as locked, each by its hash; wheels only, so no compiler is needed here either
FROM ${PYTHON}@${PYTHON_DIGEST} AS packages
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv --without-pip /opt/skelgraph
COPY requirements/runtime.txt /tmp/runtime.txt
RUN python -m pip --python /opt/skelgraph/bin/python install \
      --only-binary :all: --require-hashes --no-deps --no-compile -r /tmp/runtime.txt

# --- what runs: the packages, our sources, a user without a name; no pip of ours, no compiler, no tests
FROM ${PYTHON}@${PYTHON_DIGEST}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="skelgraph" \
      org.opencontainers.image.description="Skeleton Graph Decoding as a service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# -I would hide /app; the root is read-only, so there is nothing to compile into.
ENV PATH=/opt/skelgraph/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=packages /opt/skelgraph /opt/skelgraph
WORKDIR /app
COPY proto /app/proto
COPY services /app/services
COPY LICENSE /app/LICENSE
# By number: Kubernetes checks runAsNonRoot without reading /etc/passwd.
USER 10001:10001
# Exec form: Python is process 1 and gets SIGTERM itself.
ENTRYPOINT ["python", "-m"]
CMD ["services.planner", "--help"]
