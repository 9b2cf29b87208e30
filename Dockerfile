# The epochd server. On a machine without a package index, wheels in ./wheels are used instead (see tests/compose).
# A CPU-only build of torch makes the image gigabytes smaller: --build-arg PIP_EXTRA_INDEX_URL=<PyTorch's CPU index>.
FROM python:3.11-slim

ARG PIP_EXTRA_INDEX_URL=
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# Dependencies first, in a layer of their own: they change less often than the code.
RUN --mount=type=bind,target=/context \
    set -eu; \
    offline=$([ -d /context/wheels ] && echo "--no-index --find-links /context/wheels" || true); \
    mkdir -p /tmp/skeleton/client/epochd /tmp/skeleton/server/epochd_server; \
    cd /context; cp pyproject.toml README.md LICENSE /tmp/skeleton/; \
    pip install $offline -c constraints.txt torch '/tmp/skeleton[server]'; \
    pip uninstall --yes epochd; rm -rf /tmp/skeleton

RUN --mount=type=bind,target=/context \
    set -eu; \
    offline=$([ -d /context/wheels ] && echo "--no-index --find-links /context/wheels" || true); \
    cp -r /context /tmp/source; pip install $offline --no-deps /tmp/source; rm -rf /tmp/source; \
    useradd --system --uid 10001 --home-dir /var/lib/epochd --create-home epochd

USER epochd
VOLUME /var/lib/epochd
# The root file system may be read-only: everything that is written goes to the volume or to /tmp.
ENV EPOCHD_LISTEN=0.0.0.0:50051 EPOCHD_DATA_DIR=/var/lib/epochd
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=180s CMD ["epochd", "--server", "127.0.0.1:50051", "health"]
ENTRYPOINT ["epochd"]
CMD ["serve"]
