#!/usr/bin/env bash
# A tool kit of CUDA 13.0 that compiles and runs nothing: no GPU, no driver, no root. It is put together from pinned wheels
# of PyPI (224 MB to fetch, 431 MB on the disk), with stubs to link against; and cuDNN as far as it can plan without a GPU.
#
#   cargo fetch --locked              # so that the sources of the bindings are there, from which the stubs are made
#   bash trainer/cuda/kit.sh FOLDER   # needs python3 with pip, and g++
#   . FOLDER/env.sh
#
# `make build-cuda` does all of it.
set -euo pipefail
folder=${1:?usage: kit.sh FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
wheels=(
  nvidia-cuda-nvcc==13.0.88    # nvcc, ptxas, cudafe++, fatbinary, nvlink
  nvidia-nvvm==13.0.88         # cicc, libdevice
  nvidia-cuda-crt==13.0.88     # headers of the compiler
  nvidia-cuda-runtime==13.0.96 # cuda.h, cuda_bf16.h, libcudart_static.a
  nvidia-cuda-cccl==13.0.85    # cub
  nvidia-cuda-nvrtc==13.0.88   # what cuDNN compiles by when it plans
  nvidia-cudnn-frontend==1.32.0
  nvidia-cudnn-jit-cu13==9.20.0.48
)

rm -rf "$folder/site" "$folder/cuda" "$folder/cudnn"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile \
  --only-binary=:all: --target "$folder/site" "${wheels[@]}"
mv "$folder/site/nvidia/cu13" "$folder/cuda"
mv "$folder/site/nvidia/cudnn_jit" "$folder/cudnn"
mv "$folder"/site/include/cudnn_* "$folder/cudnn/include"
rm -rf "$folder/site" "$folder"/cuda/lib/*.alt.so.*
cd "$folder/cuda"
ln -sfn lib lib64
# The static runtime under the name by which it is asked for.
ln -sfn libcudart_static.a lib/libcudart.a

# Names to link against, as the tool kit's own lib/stubs has them. The program looks for the libraries when a job wants
# them, so the linker drops these again.
bindings=$(find "${CARGO_HOME:-$HOME/.cargo}"/registry/src -maxdepth 2 -name 'cudarc-0.19.*' -type d | sort -V | tail -1)
[ -n "$bindings" ] || { echo "the sources of cudarc are not there: run cargo fetch first" >&2; exit 1; }
mkdir -p lib/stubs
stub() { # module of the bindings, library, its soname
  grep -ohE 'pub unsafe fn (cu|nvrtc)[A-Za-z0-9_]+\(' "$bindings/src/$1/sys/mod.rs" |
    sed -E 's/pub unsafe fn ([A-Za-z0-9_]+)\(/\1/' | grep -vx culib | sort -u |
    sed 's/.*/void &(void){__builtin_trap();}/' > "lib/stubs/$2.c"
  gcc -shared -fPIC -O1 -nostdlib -fno-builtin -Wl,-soname,"$3" -o "lib/stubs/lib$2.so" "lib/stubs/$2.c"
  rm "lib/stubs/$2.c"
}
stub driver cuda libcuda.so.1
stub nvrtc nvrtc libnvrtc.so.13
stub curand curand libcurand.so.10
stub cublas cublas libcublas.so.13
stub cublaslt cublasLt libcublasLt.so.13

# Of candle's kernels the trainer calls copies, casts and fills; its own do the rest. The others are most of the time to compile:
# they become empty objects and modules, and whoever calls one after all fails at the link, or is told that it is not there.
cat > "$folder/nvcc" <<'EOF'
#!/bin/sh
compiler=$(dirname "$0")/cuda/bin/nvcc
out= folder= source= previous=
for word in "$@"; do
  case $previous in
    -o) out=$word ;;
    --output-directory) folder=$word ;;
  esac
  case $word in src/*.cu | */candle-kernels-*/src/*.cu) source=$word ;; esac
  previous=$word
done
case $source in
  src/kernels/* | */cast.cu | */fill.cu | */unary.cu | "") exec "$compiler" "$@" ;;
esac
if [ -n "$out" ]; then exec gcc -c -x c -fPIC -o "$out" /dev/null; fi
printf '.version 8.0\n.target sm_80\n.address_size 64\n' > "$folder/$(basename "$source" .cu).ptx"
EOF
chmod +x "$folder/nvcc"

cat > "$folder/env.sh" <<EOF
export CUDA_HOME="$folder/cuda" CUDA_PATH="$folder/cuda" CUDA_ROOT="$folder/cuda" CUDA_TOOLKIT_ROOT_DIR="$folder/cuda"
export CUDNN_HOME="$folder/cudnn"
export PATH="$folder/cuda/bin:\$PATH" NVCC="$folder/nvcc" CUDA_COMPUTE_CAP=90 CUDARC_CUDA_VERSION=13000
export LIBRARY_PATH="$folder/cuda/lib:$folder/cuda/lib/stubs\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
EOF
