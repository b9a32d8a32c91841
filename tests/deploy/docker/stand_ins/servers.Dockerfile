# Users, folders and programs where the official images have them, as far as deploy/compose.yaml knows of them.
FROM debian:trixie-slim AS postgres
RUN groupadd --gid 999 postgres && useradd --uid 999 --gid postgres --home-dir /var/lib/postgresql postgres \
 && apt-get update && apt-get install --yes --no-install-recommends postgresql-17 && rm -rf /var/lib/apt/lists/* \
 && install --directory --owner postgres --group postgres --mode 1777 /var/lib/postgresql/data \
 && install --directory --owner postgres --group postgres --mode 3777 /var/run/postgresql
COPY --chmod=755 postgres.sh /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/lib/postgresql/17/bin:$PATH PGDATA=/var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]

FROM debian:trixie-slim AS redis
RUN groupadd --gid 999 redis && useradd --uid 999 --gid redis redis \
 && apt-get update && apt-get install --yes --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/* \
 && install --directory --owner redis --group redis /data
WORKDIR /data
CMD ["redis-server"]

FROM debian:trixie-slim AS kafka
RUN useradd --uid 1000 appuser && mkdir -p /usr/share/man/man1 \
 && apt-get update && apt-get install --yes --no-install-recommends openjdk-21-jre-headless && rm -rf /var/lib/apt/lists/* \
 && install --directory --owner appuser --group appuser /var/lib/kafka/data
COPY kafka /opt/kafka/libs
COPY --chmod=755 kafka-storage.sh kafka-server-start.sh /opt/kafka/bin/
USER appuser
