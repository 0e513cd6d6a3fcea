# Flower, to watch the workers. Build from the repository's root:
#   docker build -f docker/flower.Dockerfile -t captionq-flower .
FROM python:3.11-slim-bookworm

WORKDIR /srv/captionq
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PIP_CONSTRAINT=/srv/captionq/constraints.txt PYTHONUNBUFFERED=1

RUN groupadd --gid 10001 captionq \
    && useradd --uid 10001 --gid captionq --home-dir /var/lib/captionq --create-home captionq

COPY constraints.txt ./
RUN pip install -c constraints.txt "celery[redis]" flower
COPY docker/healthy.py ./

USER 10001:10001
ENV HOME=/var/lib/captionq
EXPOSE 5555
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/srv/captionq/healthy.py", "5555", "/healthcheck"]
ENTRYPOINT ["celery"]
CMD ["flower", "--address=0.0.0.0", "--port=5555"]
