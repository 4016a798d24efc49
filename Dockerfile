# One image for everything: the services, the command line and the simulated clusters. The command says which:
#   gpufleet-inventory | gpufleet-scheduler | gpufleet-dispatcher | gpufleet-rescheduler | gpufleet … | python -m sim …
#
# It runs as user 65532, on a read-only file system if /tmp is a tmpfs (kubeconfig certificates are there for a moment).
# What is installed is pinned with hashes: the tools that build by requirements-build.lock, what runs by
# requirements-runtime.lock (`make lock` writes both). Test and lint packages are not in it, nor is the embedded broker.

ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /src
COPY requirements-build.lock requirements-runtime.lock ./
RUN python -m pip install --require-hashes -r requirements-build.lock
RUN uv venv --python /usr/local/bin/python3 /opt/gpufleet \
 && VIRTUAL_ENV=/opt/gpufleet uv pip install --require-hashes --compile-bytecode -r requirements-runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY proto/ proto/
COPY gpufleet/ gpufleet/
COPY services/ services/
COPY sim/ sim/
COPY deploy/docker/healthcheck.py /opt/gpufleet/
# Readable for everybody, whatever the modes are in the checkout.
RUN python -m hatchling build --target wheel --directory /dist \
 && VIRTUAL_ENV=/opt/gpufleet uv pip install --no-deps --no-index --compile-bytecode /dist/*.whl \
 && chmod -R a+rX /opt/gpufleet

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 65532 gpufleet \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin gpufleet \
 && install -d -o 65532 -g 65532 /var/lib/gpufleet
COPY --from=build /opt/gpufleet /opt/gpufleet
# PYTHONSAFEPATH: a folder called `sim` or `services` in the working directory is not ours.
ENV PATH=/opt/gpufleet/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "/opt/gpufleet/healthcheck.py", "/livez"]
CMD ["gpufleet", "--help"]
