# Image for running sweeps: on the CPU by default, on NVIDIA GPUs with a CUDA runtime as the base.
#
#   docker build -t sweep .
#   docker build -t sweep-cuda --build-arg BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04 .
#   docker run --rm -v "$PWD/results:/sweeps/results" sweep sweep run experiment=demo
#   docker run --rm --gpus all -v "$PWD/results:/sweeps/results" sweep-cuda sweep doctor
#
# The base can be any Debian or Ubuntu with Python 3.11 or newer installed or in its packages. The build arguments
# below, or configuration files mounted during the build, set the sources of pip and apt packages.
# Runs as user 10001, which needs write access to /sweeps/results; --user selects another.
ARG BASE=python:3.11-slim
FROM ${BASE}

ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
# Replaces the pinned torch, for example torch==2.13.0+cpu: the pinned one includes CUDA.
ARG TORCH=""

# tini forwards SIGTERM and reaps orphaned processes of workers. On a GPU, Triton builds its launcher with a C compiler
# and Python's headers on first use; the CPU image does without. Versions are those of the base.
# hadolint ignore=DL3008
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && if ! command -v python3; then \
        apt-get install -y --no-install-recommends python3 python3-venv python3-dev gcc libc6-dev; fi \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -c 'import sys; sys.version_info >= (3, 11) or sys.exit("sweep needs Python 3.11 or newer")' \
    && python3 -m venv /opt/sweep \
    && useradd --uid 10001 --create-home sweep \
    && install --directory --owner sweep /sweeps /sweeps/results

ENV PATH=/opt/sweep/bin:$PATH \
    PYTHONUNBUFFERED=1

# Separate layers for dependencies: rebuilt only when they change, not when the code does.
WORKDIR /opt/source
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*project["dependencies"], *project["optional-dependencies"]["train"], sep="\n")' >requirements.txt \
    && if [ -n "$TORCH" ]; then sed -i "s|^torch==.*|$TORCH|" constraints.txt; fi \
    && pip install --no-cache-dir -c constraints.txt -r requirements.txt

COPY README.md LICENSE ./
COPY configs configs
COPY sweep sweep
RUN pip install --no-cache-dir --no-deps .

USER 10001
WORKDIR /sweeps
ENTRYPOINT ["tini", "--"]
CMD ["sweep", "run", "experiment=smoke"]
