//! How a device is named in a slot.

use std::fmt;
use std::str::FromStr;

/// What the name of a GPU's own begins with, as its driver gives it.
const GPU: &str = "GPU-";
/// What stands before a number in the driver's order.
const NUMBERED: &str = "cuda:";

/// A device as a slot names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceName {
    /// The CPU.
    Cpu,
    /// The GPU with this number in the driver's order, which may change with a restart of the machine.
    Numbered(u32),
    /// The GPU with this name of its own.
    Named(String),
}

/// A word that names no device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is no device: \"cpu\", \"cuda:0\" or a GPU's own name (\"GPU-...\", from `nvidia-smi -L`) was expected"
)]
pub struct NoDevice;

impl FromStr for DeviceName {
    type Err = NoDevice;

    fn from_str(text: &str) -> Result<Self, NoDevice> {
        let is_of_a_name = |rest: &str| {
            rest.len() >= 8
                && rest.len() <= 64
                && rest.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        };
        match (text, text.strip_prefix(NUMBERED), text.strip_prefix(GPU)) {
            ("cpu", ..) => Ok(Self::Cpu),
            (_, Some(number), _) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse().map(Self::Numbered).map_err(|_| NoDevice)
            }
            (_, _, Some(rest)) if is_of_a_name(rest) => Ok(Self::Named(text.to_owned())),
            _ => Err(NoDevice),
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Numbered(number) => write!(f, "{NUMBERED}{number}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_three_kinds_of_names() {
        for (text, device) in [
            ("cpu", DeviceName::Cpu),
            ("cuda:0", DeviceName::Numbered(0)),
            ("cuda:15", DeviceName::Numbered(15)),
            (
                "GPU-7d1c3e52-0d1f-4b6e-9a0f-5a2f6a5b1c11",
                DeviceName::Named("GPU-7d1c3e52-0d1f-4b6e-9a0f-5a2f6a5b1c11".to_owned()),
            ),
        ] {
            assert_eq!(text.parse(), Ok(device.clone()));
            assert_eq!(device.to_string(), text);
        }
        for text in [
            "",
            "CPU",
            "gpu",
            "cuda",
            "cuda:",
            "cuda:-1",
            "cuda:+1",
            "cuda:4294967296",
            "GPU-",
            "GPU-../..",
            "MIG-7d1c3e52",
        ] {
            assert_eq!(text.parse::<DeviceName>(), Err(NoDevice), "{text}");
        }
    }
}
