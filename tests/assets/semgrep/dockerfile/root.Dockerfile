# ok: dockerfile-base-not-pinned
FROM scratch
COPY server /server
# ok: dockerfile-runs-as-root
USER 65532
RUN true
# ruleid: dockerfile-runs-as-root
USER root
