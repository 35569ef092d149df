# The image of the program itself. Both bases are OCI layouts made beforehand, named in
# secure-pipeline.yaml and recorded by digest ('make image' makes them):
#   secure-pipeline base debian --suite bookworm --include … --output dist/bases/debian
#   packaging/wheelhouse dist/bases/wheelhouse
FROM wheelhouse AS wheels

FROM debian-base AS build
COPY --from=wheels /wheels /wheels
COPY requirements/runtime.txt requirements/build.txt /requirements/
ENV PYTHONPATH=/wheels/pip-26.3-py3-none-any.whl \
    PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_REQUIRE_HASHES=1 PIP_NO_COMPILE=1 \
    PIP_ONLY_BINARY=:all: PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN ["python3", "-m", "pip", "install", "--quiet", "--target", "/build", "-r", "/requirements/build.txt"]
RUN ["python3", "-m", "pip", "install", "--quiet", "--target", "/opt/secure-pipeline", \
     "-r", "/requirements/runtime.txt"]
COPY pyproject.toml README.md CHANGELOG.md /source/
COPY src /source/src
COPY policies /source/policies
COPY tools /source/tools
WORKDIR /source
# The same bytes as packaging/wheel gives for the same commit; they stay in the image as a file.
RUN ["env", "PYTHONPATH=/build", "python3", "-c", \
     "from hatchling.build import build_wheel; build_wheel('/opt/wheel')"]
RUN ["sh", "-c", "PIP_REQUIRE_HASHES=0 python3 -m pip install --quiet --no-deps --target /opt/secure-pipeline /opt/wheel/*.whl"]
# The compiled files carry a hash of their source instead of its time: two builds agree.
RUN ["python3", "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "/opt/secure-pipeline"]
RUN ["env", "PYTHONPATH=/opt/secure-pipeline", "python3", "-m", "secure_pipeline", "--version"]

FROM debian-base AS runtime
COPY --from=build /opt /opt
RUN ["install", "-d", "-o", "65532", "-g", "65532", "/workspace"]
ENV PYTHONPATH=/opt/secure-pipeline \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/workspace
WORKDIR /workspace
USER 65532:65532
ENTRYPOINT ["python3", "-m", "secure_pipeline"]
