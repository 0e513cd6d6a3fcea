# The worker. Build from the repository's root:
#   docker build -f docker/worker.Dockerfile -t captionq-worker .
# PyPI's torch carries its own CUDA libraries: the host needs a driver and NVIDIA's container toolkit
# alone. TORCH_INDEX chooses another build: for hosts without a GPU, PyTorch's index of CPU builds.
# --target baked makes an image with its models inside, which asks no hub for anything.
#
# Python is that of the tests. Everything is pinned by constraints.txt, what builds the package too.
FROM python:3.11-slim-bookworm AS installed

WORKDIR /srv/captionq
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PIP_CONSTRAINT=/srv/captionq/constraints.txt PIP_BUILD_CONSTRAINT=/srv/captionq/constraints.txt \
    PYTHONUNBUFFERED=1

# Whoever runs it; what it keeps: models of the hub, measured batch sizes; uploads, where shared.
RUN groupadd --gid 10001 captionq \
    && useradd --uid 10001 --gid captionq --home-dir /var/lib/captionq --create-home captionq \
    && install -d -o captionq -g captionq /var/lib/captionq/huggingface /srv/uploads

# From what changes seldom and is large to what changes often and is small, a layer each. An index of
# torch's builds has torch, and not all that it needs: that comes with the rest.
COPY constraints.txt ./
ARG TORCH_INDEX=""
RUN pip install -c constraints.txt ${TORCH_INDEX:+--no-deps --index-url "$TORCH_INDEX"} torch

COPY pyproject.toml README.md LICENSE ./
RUN mkdir producer worker && touch producer/__init__.py worker/__init__.py \
    && pip install -c constraints.txt ".[worker,heic,manifests,report,tracing]" \
    && rm -r producer worker

COPY producer ./producer
COPY worker ./worker
RUN pip install --no-deps --force-reinstall . && rm -r producer worker
COPY docker/healthy.py ./

USER 10001:10001
# torch's threads wait without spinning: others are on the same processors.
ENV HOME=/var/lib/captionq CAPTIONQ_HOME=/var/lib/captionq HF_HOME=/var/lib/captionq/huggingface \
    CAPTIONQ_METRICS_HOST=0.0.0.0 CAPTIONQ_METRICS_PORT=9464 OMP_WAIT_POLICY=passive
VOLUME /var/lib/captionq
EXPOSE 9464
STOPSIGNAL SIGTERM
# Models are fetched (2 GB, once), loaded, and the largest batch is run, before it is healthy.
HEALTHCHECK --interval=15s --timeout=10s --start-period=1800s --retries=4 \
    CMD ["python", "/srv/captionq/healthy.py", "CAPTIONQ_METRICS_PORT"]
ENTRYPOINT ["captionq-worker"]
CMD ["run", "--devices", "auto"]


FROM installed AS baked

ARG CAPTION_MODEL=Salesforce/blip-image-captioning-base
ARG CAPTION_REVISION=""
ARG MATCH_MODEL=Salesforce/blip-itm-base-coco
ARG MATCH_REVISION=""
USER 0:0
RUN export HF_HOME=/tmp/hub \
    && captionq-worker fetch-model "$CAPTION_MODEL" -o /srv/models/caption \
        ${CAPTION_REVISION:+--revision "$CAPTION_REVISION"} \
    && captionq-worker fetch-model "$MATCH_MODEL" -o /srv/models/match \
        ${MATCH_REVISION:+--revision "$MATCH_REVISION"} \
    && rm -rf /tmp/hub
ENV HF_HUB_OFFLINE=1 CAPTIONQ_CAPTION_MODEL=/srv/models/caption CAPTIONQ_MATCH_MODEL=/srv/models/match
USER 10001:10001


# What is built without --target.
FROM installed AS worker
