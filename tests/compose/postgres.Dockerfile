# PostgreSQL from Debian packages, for machines that reach no image registry; speaks the POSTGRES_* variables and
# keeps its data where the official image does.
FROM debian-postgres:base
COPY postgres-entrypoint /usr/local/bin/postgres-entrypoint
RUN mkdir -p /var/lib/postgresql/data && chown postgres:postgres /var/lib/postgresql/data
USER postgres
ENTRYPOINT ["/usr/local/bin/postgres-entrypoint"]
