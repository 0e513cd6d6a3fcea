# The GPU worker. Build from the repository's root:
#   docker build -f docker/worker.Dockerfile -t captionq-worker .
# PyPI's torch carries its own CUDA libraries; the host needs the NVIDIA container toolkit alone.
# TORCH_INDEX chooses another build, e.g. PyTorch's CPU index for hosts without a GPU.
FROM python:3.12-slim-bookworm

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /srv/captionq

COPY constraints.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' constraints.txt)"

COPY pyproject.toml README.md LICENSE ./
COPY producer ./producer
COPY worker ./worker
RUN pip install -c constraints.txt ".[worker]" \
    && useradd --system --uid 10001 --create-home captionq

USER captionq
ENV HF_HOME=/home/captionq/.cache/huggingface
# A volume is as its mount point was in the image: where there is none, root's alone.
RUN mkdir -p "$HF_HOME"
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s \
    CMD celery -b "$CAPTIONQ_BROKER_URL" inspect ping --timeout 5 | grep -q "@$(hostname): OK"
ENTRYPOINT ["captionq-worker"]
CMD ["run", "--devices", "auto"]
