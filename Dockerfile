# Images from one file:
#
#   docker build --target controller -t fedtrain/controller:dev .   # operator and aggregator: no torch
#   docker build --target tracker    -t fedtrain/tracker:dev .      # the chart's tracking.enabled
#   docker build --target trainer    -t fedtrain/trainer:dev .      # what participants run, or build FROM
#
# `make images` gives them the labels of a release.
#
# Any base with Python 3.11 or newer as `python3`, with its venv and pip, will do (for the
# controller also apt, which brings the compiler of a stage that is left behind). Everything lies in
# one virtual environment, so `python` and `torchrun` mean the same on each of them. What is large
# and seldom changes comes first, our own code last: a change of it moves less than a megabyte.
ARG BASE=python:3.11-slim-bookworm


FROM ${BASE} AS common
ENV PATH=/opt/fedtrain/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /workspace


# The aggregator's optional kernel; of this stage only the library goes into an image. The flags are
# those of fedtrain.aggregation.kernel, which tries the library's bits whenever it is loaded.
FROM ${BASE} AS kernel
RUN apt-get update -q \
 && apt-get install -q -y --no-install-recommends gcc libc6-dev
COPY trainer/fedtrain/aggregation/kernel.c /kernel/
RUN gcc -std=c11 -O3 -ffp-contract=off -fPIC -shared -o /kernel/libkernel.so /kernel/kernel.c


FROM common AS controller
COPY requirements/controller.txt /opt/fedtrain/
# In the end it has no pip, not the tests of others, and of the Kubernetes client (half of all that
# is installed, generated models that we import and never use) only the bytecode, without docstrings.
RUN python3 -m venv /opt/fedtrain \
 && pip install --no-cache-dir --require-hashes --requirement /opt/fedtrain/controller.txt \
 && pip uninstall --quiet --yes setuptools pip \
 && cd /opt/fedtrain/lib/python3.*/site-packages \
 && echo /opt/fedtrain/code > fedtrain.pth \
 && find . -type d -name tests -prune -exec rm -r {} + \
 && python -m compileall -q -b -o 2 kubernetes \
 && find kubernetes ! -name '*.pyc' -type f -delete \
 && find kubernetes -type d -name __pycache__ -prune -exec rm -r {} +
COPY operator/fedoperator /opt/fedtrain/code/fedoperator
COPY trainer/fedtrain /opt/fedtrain/code/fedtrain
COPY --from=kernel /kernel/libkernel.so /opt/fedtrain/code/fedtrain/aggregation/
RUN python -m compileall -q /opt/fedtrain/code
# A pod may run as a user that /etc/passwd does not know, and libraries ask for both.
ENV HOME=/tmp LOGNAME=fedtrain
USER 65532:65532
CMD ["python", "-m", "fedoperator"]
ARG VERSION=dev
ARG REVISION=""
ARG CREATED=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="fedtrain/controller" \
      org.opencontainers.image.description="The operator and the aggregator of fedtrain" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"


# The controller with the clients of trackers, which nothing else of it imports.
FROM controller AS tracker
USER root
COPY requirements/tracker.txt /opt/fedtrain/
RUN python -m ensurepip \
 && python -m pip install --no-cache-dir --require-hashes --requirement /opt/fedtrain/tracker.txt \
 && python -m pip uninstall --quiet --yes pip
USER 65532:65532
CMD ["python", "-m", "fedoperator.cli", "track", "--all"]
# The other labels are the controller's.
LABEL org.opencontainers.image.title="fedtrain/tracker" \
      org.opencontainers.image.description="Sends the rounds of fedtrain to MLflow and TensorBoard"


# What is built FROM this installs more as root: USER root, RUN pip install ..., USER 65532:65532.
FROM common AS trainer
# In a layer of its own, which only a change of these versions makes anew: gigabytes, of torch.
COPY requirements/trainer.txt /opt/fedtrain/
RUN python3 -m venv /opt/fedtrain \
 && pip install --no-cache-dir --require-hashes --requirement /opt/fedtrain/trainer.txt
# What is built FROM this has its versions from here.
COPY constraints.txt /opt/fedtrain/
RUN echo /opt/fedtrain/code > "$(echo /opt/fedtrain/lib/python3.*/site-packages)/fedtrain.pth"
COPY trainer/fedtrain /opt/fedtrain/code/fedtrain
RUN python -m compileall -q /opt/fedtrain/code
# A pod may run as a user that /etc/passwd does not know, and libraries ask for both.
ENV HOME=/tmp LOGNAME=fedtrain
USER 65532:65532
CMD ["python"]
ARG VERSION=dev
ARG REVISION=""
ARG CREATED=""
ARG SOURCE=""
LABEL org.opencontainers.image.title="fedtrain/trainer" \
      org.opencontainers.image.description="torch and the fedtrain SDK, for participants" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.source="$SOURCE"
