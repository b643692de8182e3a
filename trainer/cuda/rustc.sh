#!/usr/bin/env bash
# Rust's compiler as cargo's wrapper: CUDA's bindings look for its libraries when they are asked for, so that one program runs
# with and without a GPU. They have that as a feature, which candle does not ask them for and nobody else can; all other crates
# are what they are without it, and so are shared with `make build`.
compiler=$1
shift
case " $* " in
  *" --crate-name cudarc "*) exec "$compiler" "$@" --cfg 'feature="dynamic-loading"' ;;
esac
exec "$compiler" "$@"
