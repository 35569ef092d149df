# ok: dockerfile-no-user
FROM scratch AS build
COPY server /server
# ruleid: dockerfile-no-user
FROM scratch
COPY --from=build /server /server
