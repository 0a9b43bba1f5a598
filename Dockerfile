# The autoPET challenge's container: docs/challenge.md tells how to build, run and change it.
#   docker build -t petlesion-challenge .                  the processor alone, without torch
#   docker build -t petlesion-challenge --target cuda .    with torch and CUDA, for runs and nnU-Net's model folders

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN groupadd --gid 1000 petlesion \
    && useradd --uid 1000 --gid petlesion --no-create-home --home-dir /nonexistent petlesion \
    && mkdir /input /output \
    && chown petlesion:petlesion /output
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install /wheels/*.whl
WORKDIR /
ENTRYPOINT ["petlesion", "challenge", "--input", "/input", "--output", "/output"]

FROM base AS cuda
# A second step, so that both images share the first one. Torch's wheels bring CUDA; the host brings the driver.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install "$(echo /wheels/*.whl)[train]"
# nnU-Net imports matplotlib, which wants a place for its fonts.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility MPLCONFIGDIR=/tmp/matplotlib
# By number, which is how Kubernetes sees that it is not root.
USER 1000:1000

FROM base AS challenge
USER 1000:1000
