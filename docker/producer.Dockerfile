# All that produces jobs and looks on: the gateway, the listener, the tools for agents, the command
# line, Flower; no torch. Build from the repository's root:
#   docker build -f docker/producer.Dockerfile -t captionq-producer .
#   docker build -f docker/producer.Dockerfile -t captionq-flower --target flower .
#   docker run captionq-producer                                 the gateway, on port 8000
#   docker run captionq-producer listen sqs://uploads            the listener
#   docker run -i captionq-producer mcp                          the tools for agents
#   docker run captionq-producer submit https://... --wait       the command line
#
# Python is that of the tests. Everything is pinned by constraints.txt, what builds the package too.
FROM python:3.11-slim-bookworm AS installed

WORKDIR /srv/captionq
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PIP_CONSTRAINT=/srv/captionq/constraints.txt PIP_BUILD_CONSTRAINT=/srv/captionq/constraints.txt \
    PYTHONUNBUFFERED=1

# Whoever runs it; what it keeps: the file of API keys; uploads and keys, where shared.
RUN groupadd --gid 10001 captionq \
    && useradd --uid 10001 --gid captionq --home-dir /var/lib/captionq --create-home captionq \
    && install -d -o captionq -g captionq /srv/uploads /srv/keys

# From what changes seldom and is large to what changes often and is small, a layer each. The wheel
# is made without `worker`.
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN mkdir producer worker && touch producer/__init__.py \
    && pip install -c constraints.txt ".[gateway,listen,mcp,search,flower,tracing]" \
    && rm -r producer worker

COPY producer ./producer
RUN mkdir worker && pip install --no-deps --force-reinstall . && rm -r producer worker
COPY docker/healthy.py ./

USER 10001:10001
ENV HOME=/var/lib/captionq CAPTIONQ_HOME=/var/lib/captionq
VOLUME /var/lib/captionq
STOPSIGNAL SIGTERM
ENTRYPOINT ["captionq"]


FROM installed AS flower

EXPOSE 5555
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/srv/captionq/healthy.py", "5555", "/healthcheck"]
CMD ["flower", "--address", "0.0.0.0"]


# What is built without --target.
FROM installed AS producer

EXPOSE 8000
# Of the gateway; commands that serve nothing are run with --no-healthcheck.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/srv/captionq/healthy.py", "8000"]
CMD ["serve", "--host", "0.0.0.0"]
