# syntax=docker/dockerfile:1
#
# One recipe for every image; docker-compose.yml says which target is what. Each final image is a base with a C library
# and nothing else, one program, and the authorities that TLS trusts: no shell, no package manager, no root.
#
#   docker build --target coordinator -t gainsay-coordinator .
#   docker build --target worker      -t gainsay-worker      .
#   docker build --target worker-cuda -t gainsay-worker-cuda .
#   docker build --target challenger  -t gainsay-challenger  .
#   docker build --target tools       -t gainsay-tools       .

ARG RUST=1.95.0
# What the programs run on. Its C library has to be at least as new as that of the building stage (Debian 12, glibc 2.36).
ARG RUNTIME=gcr.io/distroless/cc-debian12
# What the worker for NVIDIA's GPUs runs on: the same, and CUDA 13's cuBLAS and cuRAND.
ARG RUNTIME_CUDA=nvidia/cuda:13.0.1-runtime-ubuntu24.04

FROM rust:${RUST}-slim-bookworm AS source
# The toolchain that is here, without the components that only development needs.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION} CARGO_TERM_COLOR=never
WORKDIR /source
COPY . .
# An empty folder for volumes to take their owner from.
RUN mkdir /empty

# Stages differ by package alone. Downloads and finished dependencies are kept between builds by the cache mounts.
FROM source AS build-coordinator
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --release --package gainsay-coordinator \
    && install -D --strip target/release/gainsay-coordinator /out/gainsay-coordinator

FROM source AS build-worker
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --release --package gainsay-worker \
    && install -D --strip target/release/gainsay-worker /out/gainsay-worker

# Neither a GPU nor a driver is needed to build it: the toolkit is put together by the script that developers use.
FROM rust:${RUST}-slim-bookworm AS toolkit-cuda
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY scripts/cuda-toolkit /cuda-toolkit
RUN /cuda-toolkit /cuda

FROM toolkit-cuda AS build-worker-cuda
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION} CARGO_TERM_COLOR=never
WORKDIR /source
COPY . .
# The GPU that candle's own kernels are compiled for, 80 for an A100; those of Gainsay are compiled for all.
ARG CUDA_COMPUTE_CAP=90
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    . /cuda/env.sh \
    && cargo build --locked --release --package gainsay-worker --features cuda \
    && install -D --strip target/release/gainsay-worker /out/gainsay-worker

FROM source AS build-challenger
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --release --package gainsay-challenger \
    && install -D --strip target/release/gainsay-challenger /out/gainsay-challenger

FROM source AS build-tools
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --release --package gainsay \
    && install -D --strip target/release/gainsay /out/gainsay

FROM ${RUNTIME} AS base
COPY --from=source /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Keys, state and weights. A named volume that is new takes the owner from here.
COPY --from=source --chown=10001:10001 /empty /var/lib/gainsay
WORKDIR /var/lib/gainsay
USER 10001:10001
# The programs stop on SIGTERM, after what they have in hand.
STOPSIGNAL SIGTERM

FROM base AS coordinator
COPY --from=build-coordinator /out/gainsay-coordinator /usr/local/bin/gainsay-coordinator
ENV GAINSAY_LISTEN=0.0.0.0:8650 \
    GAINSAY_BLOB_DIR=/var/lib/gainsay/blobs \
    GAINSAY_KEY_FILE=/var/lib/gainsay/coordinator.key
EXPOSE 8650
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/gainsay-coordinator", "health"]
ENTRYPOINT ["/usr/local/bin/gainsay-coordinator"]

FROM base AS worker
COPY --from=build-worker /out/gainsay-worker /usr/local/bin/gainsay-worker
ENV GAINSAY_WORKER_HOME=/var/lib/gainsay \
    GAINSAY_STATUS_FILE=/tmp/gainsay.prom
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/gainsay-worker", "health"]
ENTRYPOINT ["/usr/local/bin/gainsay-worker"]

# The worker's image on another base, which brings libraries that a GPU wants.
FROM ${RUNTIME_CUDA} AS worker-cuda
COPY --from=source /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=source --chown=10001:10001 /empty /var/lib/gainsay
WORKDIR /var/lib/gainsay
USER 10001:10001
STOPSIGNAL SIGTERM
COPY --from=build-worker-cuda /out/gainsay-worker /usr/local/bin/gainsay-worker
# What the driver makes of PTX for a card later than the code that is built is kept with the worker's state.
ENV GAINSAY_WORKER_HOME=/var/lib/gainsay \
    GAINSAY_STATUS_FILE=/tmp/gainsay.prom \
    CUDA_CACHE_PATH=/var/lib/gainsay/cuda-cache \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/gainsay-worker", "health"]
ENTRYPOINT ["/usr/local/bin/gainsay-worker"]

FROM base AS challenger
COPY --from=build-challenger /out/gainsay-challenger /usr/local/bin/gainsay-challenger
ENV GAINSAY_CHALLENGER_HOME=/var/lib/gainsay \
    GAINSAY_STATUS_FILE=/tmp/gainsay.prom
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/gainsay-challenger", "health"]
ENTRYPOINT ["/usr/local/bin/gainsay-challenger"]

FROM base AS tools
COPY --from=build-tools /out/gainsay /usr/local/bin/gainsay
ENTRYPOINT ["/usr/local/bin/gainsay"]
