ARG BASE
FROM ${BASE}
COPY temporal /usr/local/bin/temporal
ENTRYPOINT ["temporal"]
