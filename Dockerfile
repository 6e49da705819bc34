# GradiSeg in a container, made by the two scripts that make it everywhere.
#
#   docker build -t gradiseg .
#   docker run --rm -v "$PWD/output:/gradiseg/output" gradiseg                       the quick start
#   docker run --rm gradiseg bash scripts/test.sh                                    the tests
#
# For GPUs the base is an image that has nvcc, and the container is started with --gpus all:
#
#   docker build -t gradiseg-cuda --build-arg BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04 .
#
# --build-arg PIP_EXTRA_INDEX_URL=... takes PyTorch from another index, such as that of its CPU builds (a smaller image).
ARG BASE=python:3.11-slim
FROM ${BASE}

RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      build-essential git python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ARG PIP_EXTRA_INDEX_URL
WORKDIR /gradiseg
COPY . .
RUN bash scripts/setup_env.sh

CMD ["bash", "scripts/quickstart.sh"]
