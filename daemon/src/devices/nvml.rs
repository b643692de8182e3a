//! NVIDIA's driver, through its management library where that is there, else through `/proc`. The library is looked for at
//! run time: the daemon starts without it, and finds it when it is installed later.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use nvml_wrapper::error::NvmlError;

use super::{Device, Driver, proc};

/// The library under the name that the driver itself installs.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// GPUs that are asked for at most.
const MOST: u32 = 64;

/// The driver, held open while somebody asks.
#[derive(Debug, Default)]
pub struct Nvml {
    open: Option<nvml_wrapper::Nvml>,
    /// What was wrong when it was asked last, so that the log says it once: with all (none), or with one of them.
    wrong: BTreeMap<Option<u32>, String>,
}

impl Nvml {
    /// The library's answer, or a line of the log where it has none.
    fn told<T>(&mut self, whom: Option<u32>, answer: Result<T, NvmlError>) -> Option<T> {
        let error = match answer {
            Ok(answer) => {
                self.wrong.remove(&whom);
                return Some(answer);
            }
            Err(error) => error.to_string(),
        };
        if self.wrong.get(&whom) != Some(&error) {
            match whom {
                Some(index) => tracing::warn!(index, error, "a GPU does not answer any more"),
                None => tracing::info!(error, "no GPUs are told of"),
            }
            self.wrong.insert(whom, error);
        }
        None
    }

    fn opened(&mut self) -> Option<nvml_wrapper::Nvml> {
        if let Some(open) = self.open.take() {
            return Some(open);
        }
        let opened = nvml_wrapper::Nvml::builder().lib_path(OsStr::new(LIBRARY)).init();
        self.told(None, opened)
    }
}

impl Driver for Nvml {
    fn devices(&mut self) -> Vec<Device> {
        let Some(nvml) = self.opened() else { return proc::devices(Path::new(proc::GPUS)) };
        // A driver that was reset or unloaded has forgotten those who held it: it is opened anew the next time.
        let Some(count) = self.told(None, nvml.device_count()) else { return Vec::new() };
        let devices =
            (0..count.min(MOST)).filter_map(|index| self.told(Some(index), device(&nvml, index))).collect();
        self.open = Some(nvml);
        devices
    }

    fn rest(&mut self) {
        self.open = None;
    }
}

/// A device. What this kind of GPU does not count is left open; what should answer and does not is an error.
fn device(nvml: &nvml_wrapper::Nvml, index: u32) -> Result<Device, NvmlError> {
    let device = nvml.device_by_index(index)?;
    let memory = counted(device.memory_info())?;
    let utilisation = counted(device.utilization_rates())?;
    Ok(Device {
        index,
        uuid: device.uuid()?,
        name: device.name()?,
        memory: memory.as_ref().map(|memory| memory.total),
        memory_used: memory.map(|memory| memory.used),
        utilisation: utilisation.map(|rates| f64::from(rates.gpu) / 100.0),
    })
}

fn counted<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(counted) => Ok(Some(counted)),
        Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
