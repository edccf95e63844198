ARG BASE
FROM ${BASE}
COPY bao /usr/bin/bao
ENTRYPOINT ["bao"]
