# The package with what constraints.txt pins, for a cluster's --image. EXTRA is tpu, cuda (CUDA 13),
# cuda12, or nothing for the CPU:
#   docker build --build-arg EXTRA=tpu --tag emergent-alignment:tpu .
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
ARG EXTRA=""
WORKDIR /work
COPY setup.py pyproject.toml constraints.txt README.md LICENSE ./
COPY emergent_alignment emergent_alignment
COPY configs configs
COPY launch launch
RUN python3 -m pip install --no-cache-dir --constraint constraints.txt ".${EXTRA:+[$EXTRA]}"
# Lines come as they are printed; compiled programs stay where a volume can be mounted.
ENV PYTHONUNBUFFERED=1 JAX_COMPILATION_CACHE_DIR=/work/compiled
CMD ["emergent-alignment", "--help"]
