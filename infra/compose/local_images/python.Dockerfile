ARG BASE
FROM ${BASE}
# Registries may be reachable through the machine's own authorities only.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    PIP_ROOT_USER_ACTION=ignore
CMD ["python3"]
