# docker build -t bgaug .
# docker run --gpus all --ipc=host -v /data:/data bgaug torchrun --standalone --nproc-per-node=8 -m train …
FROM nvidia/cuda:12.6.3-runtime-ubuntu24.04
# Triton builds its launchers with gcc, against Python's headers.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        gcc libc6-dev python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/bgaug
ENV PATH=/opt/bgaug/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /bgaug
COPY . .
RUN pip install --no-cache-dir --editable '.[watch,saliency]'
CMD ["python", "-m", "tools"]
