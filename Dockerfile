# One image for workers, MLflow, Optuna Dashboard and the commands. No weights and no data are in it.
FROM python:3.12.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The account of the Postgres image; folders that volumes take their owner from.
RUN groupadd --gid 999 bnvit && useradd --uid 999 --gid 999 --no-create-home --home-dir /tmp bnvit \
    && install -d -o 999 -g 999 /data /srv/bnvit /srv/bnvit/tls /srv/bnvit/proxy /srv/bnvit/artifacts

WORKDIR /app
# What is needed changes seldom, and is a layer of its own.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > /tmp/needed.txt \
    && pip install --no-cache-dir --constraint constraints.txt --requirement /tmp/needed.txt \
    && rm /tmp/needed.txt

COPY README.md LICENSE ./
COPY models models
COPY objectives objectives
COPY study study
RUN pip install --no-cache-dir --no-deps .

ENV BNVIT_DATA_DIR=/data
VOLUME /data
WORKDIR /data
USER 999:999
ENTRYPOINT ["bnvit-study"]
CMD ["--help"]
