# The image of the program itself, with its tools. Both bases are OCI layouts made beforehand,
# named in secure-pipeline.yaml and recorded by digest ('make image' makes them):
#   secure-pipeline base debian --suite bookworm --include … --output dist/bases/debian
#   packaging/wheelhouse dist/bases/wheelhouse
FROM wheelhouse AS house

# The tools: this stage does not hold the program, so that another one does not install them anew.
FROM debian-base AS tools
COPY --from=house /wheels /wheels
COPY --from=house /opt/secure-pipeline/tools /opt/secure-pipeline/tools
COPY packaging/pip.txt tools/semgrep/requirements.txt /requirements/
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_REQUIRE_HASHES=1 PIP_ONLY_BINARY=:all: \
    PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_QUIET=1
RUN ["env", "PYTHONPATH=/wheels/pip-26.3-py3-none-any.whl", "python3", "-m", "pip", "install", \
     "--target", "/usr/local/lib/python3.11/dist-packages", "-r", "/requirements/pip.txt"]
# At its place, because an environment cannot be moved. With that variable, compiled files carry a
# hash of their source instead of its time: two builds agree.
RUN ["sh", "-ec", "cd /opt/secure-pipeline/tools/semgrep-* && python3 -m venv --without-pip $PWD \
     && SOURCE_DATE_EPOCH=0 python3 -m pip --python $PWD install -r /requirements/requirements.txt"]

FROM tools AS build
COPY requirements/runtime.txt requirements/build.txt /requirements/
RUN ["python3", "-m", "venv", "--without-pip", "/opt/secure-pipeline/program"]
RUN ["env", "SOURCE_DATE_EPOCH=0", "python3", "-m", "pip", "--python", "/opt/secure-pipeline/program", \
     "install", "-r", "/requirements/runtime.txt"]
RUN ["python3", "-m", "pip", "install", "--target", "/usr/local/lib/python3.11/dist-packages", \
     "-r", "/requirements/build.txt"]
COPY pyproject.toml README.md CHANGELOG.md /source/
COPY src /source/src
COPY policies /source/policies
COPY tools /source/tools
COPY packaging/receipt /source/packaging/
WORKDIR /source
# The same bytes as packaging/wheel gives for the same commit; they stay in the image as a file.
RUN ["python3", "-c", "from hatchling.build import build_wheel; build_wheel('/opt/wheel')"]
RUN ["sh", "-ec", "SOURCE_DATE_EPOCH=0 PIP_REQUIRE_HASHES=0 \
     python3 -m pip --python /opt/secure-pipeline/program install --no-deps /opt/wheel/*.whl"]
RUN ["/opt/secure-pipeline/program/bin/python", "packaging/receipt", "/opt/secure-pipeline/tools", "/receipts"]

FROM debian-base AS runtime
# The builder needs subordinate ids for its user, and newuidmap and newgidmap to use them; no other
# program becomes another user.
RUN ["sh", "-ec", "\
     echo 'secure-pipeline:x:65532:65532::/workspace:/usr/sbin/nologin' >> /etc/passwd; \
     echo 'secure-pipeline:x:65532:' >> /etc/group; \
     echo 'secure-pipeline:100000:65536' | tee /etc/subuid > /etc/subgid; \
     find / -xdev -perm /6000 -type f ! -name newuidmap ! -name newgidmap -exec chmod a-s {} +; \
     install -d -o 65532 -g 65532 /workspace /opt/secure-pipeline/databases; \
     ln -s /opt/secure-pipeline/program/bin/secure-pipeline /usr/local/bin/"]
COPY --from=tools /opt/secure-pipeline/tools /opt/secure-pipeline/tools
COPY --from=build /receipts /opt/secure-pipeline/tools
COPY --from=build /opt/secure-pipeline/program /opt/secure-pipeline/program
COPY --from=build /opt/wheel /opt/wheel
ENV SECURE_PIPELINE_TOOLS=/opt/secure-pipeline/tools \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    HOME=/workspace
WORKDIR /workspace
USER 65532:65532
ENTRYPOINT ["secure-pipeline"]
