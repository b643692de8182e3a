//! Which machine kernels compute on, as a word of their names.

use candle_core::Device;

use super::cpu::isa::Isa;

/// The instruction set of the CPU, or the generation of the GPU: what the bits of candle's own operations hang on.
pub(super) fn name(device: &Device) -> String {
    match device {
        Device::Cpu => Isa::best().name().to_owned(),
        _ => gpu(device),
    }
}

#[cfg(feature = "cuda")]
fn gpu(device: &Device) -> String {
    let capability =
        device.as_cuda_device().ok().and_then(|gpu| gpu.cuda_stream().context().compute_capability().ok());
    capability.map_or_else(|| "cuda".to_owned(), |(major, minor)| format!("cuda-sm{major}{minor}"))
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: &Device) -> String {
    "gpu".to_owned()
}
