# volback as an image: docker build -t volback .
# Any base with Python 3.11 or later and its venv, GNU tar and find, and bash will do: what helpers run on is made of
# the image's own programs.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
# pip's own settings for this build. For a machine that reaches no package index: --build-arg PIP_NO_INDEX=1
# --build-arg PIP_FIND_LINKS=wheels, with the wheels in a directory of that name beside this file.
ARG PIP_INDEX_URL
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
WORKDIR /source
COPY . .
# boto3 brings botocore, which describes all of AWS, in 28 MB: kept is what S3 and its credentials need.
RUN python3 -m venv /opt/volback \
 && /opt/volback/bin/pip install --no-cache-dir --disable-pip-version-check . \
 && /opt/volback/bin/pip uninstall --quiet --yes pip setuptools \
 && find /opt/volback/lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
    ! -name s3 ! -name sts ! -name 'sso*' ! -name signin -exec rm -r {} +

FROM ${BASE}
# What the base lacks; empty: nothing. With openssh-client it reaches engines at ssh://HOST.
ARG PACKAGES="zstd"
RUN [ -z "${PACKAGES}" ] \
 || (apt-get update -qq && apt-get install -qq -y --no-install-recommends ${PACKAGES} && rm -rf /var/lib/apt/lists/*)
# Not root: who can reach the socket is root anyway, but what only writes backups need not be.
RUN echo 'volback:x:10001:10001:volback:/var/lib/volback:/usr/sbin/nologin' >>/etc/passwd \
 && echo 'volback:x:10001:' >>/etc/group \
 && install -d -o 10001 -g 10001 -m 0755 /var/lib/volback
COPY --from=build /opt/volback /opt/volback
# The repository is in /var/lib/volback unless volback.toml or VOLBACK_REPO names another one.
ENV PATH=/opt/volback/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/volback \
    XDG_DATA_HOME=/var/lib \
    VOLBACK_STATE_DIR=/var/lib/volback/state
# What the image is made of: --build-arg REVISION="$(git rev-parse HEAD)" --build-arg CREATED="$(date -u +%FT%TZ)"
ARG VERSION="0.1.0"
ARG REVISION=""
ARG CREATED=""
# A container's labels are its image's too: its own volumes (repository, state) are no part of `backup --all`.
LABEL volback.enable="false" \
      org.opencontainers.image.title="volback" \
      org.opencontainers.image.description="Back up, restore and prove Docker volumes" \
      org.opencontainers.image.source="https://github.com/volback/volback" \
      org.opencontainers.image.documentation="https://github.com/volback/volback/blob/main/docs/README.md" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER volback
WORKDIR /var/lib/volback
# volback passes signals on and reaps orphans where it is process 1: no --init, with which its guard would die too early.
ENTRYPOINT ["volback"]
CMD ["scheduler"]
HEALTHCHECK --interval=1m --timeout=10s --start-period=10s CMD ["volback", "scheduler", "--check"]
