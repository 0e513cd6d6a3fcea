# Flower, to watch the workers. Build from the repository's root:
#   docker build -f docker/flower.Dockerfile -t captionq-flower .
FROM python:3.12-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /srv/captionq

COPY constraints.txt ./
RUN pip install -c constraints.txt "celery[redis]" flower \
    && useradd --system --uid 10001 --create-home captionq

USER captionq
EXPOSE 5555
ENTRYPOINT ["celery"]
CMD ["flower", "--address=0.0.0.0", "--port=5555"]
