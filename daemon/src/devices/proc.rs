//! The GPUs as NVIDIA's kernel module lists them in `/proc`, for machines on which the management library is missing: enough
//! to give each to one job, and nothing of what they do.

use std::fs;
use std::path::Path;

use super::Device;

/// Where the module lists them, a folder each, by their places on the bus.
pub(super) const GPUS: &str = "/proc/driver/nvidia/gpus";
/// Bytes of a GPU's description at most.
const LONGEST: usize = 1 << 16;

/// Those that are listed in a folder, in the order of their places on the bus.
pub(super) fn devices(folder: &Path) -> Vec<Device> {
    let mut places: Vec<_> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    places.sort();
    let descriptions = places.iter().filter_map(|place| fs::read_to_string(place.join("information")).ok());
    let described = descriptions.filter(|text| text.len() <= LONGEST).filter_map(|text| described(&text));
    described
        .zip(0..)
        .map(|((uuid, name), index)| Device {
            index,
            uuid,
            name,
            memory: None,
            memory_used: None,
            utilisation: None,
        })
        .collect()
}

fn described(text: &str) -> Option<(String, String)> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim_start_matches([':', ' ', '\t']).trim().to_owned())
    };
    let uuid = value("GPU UUID").filter(|uuid| uuid.starts_with("GPU-") && !uuid.contains('?'))?;
    Some((uuid, value("Model").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the module of driver 580 writes, but for the numbers.
    fn information(uuid: &str) -> String {
        format!(
            "Model: \t\t NVIDIA H200\nIRQ:   \t\t 120\nGPU UUID: \t {uuid}\nVideo BIOS: \t 96.00.a5.00.01\nBus Type: \t PCIe\n\
             DMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t 0000:19:00.0\nDevice Minor: \t 0\n"
        )
    }

    #[test]
    fn each_gpu_of_the_list_is_told_in_the_order_of_the_bus() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(devices(&folder.path().join("nothing")), []);
        for (place, uuid) in [
            ("0000:3b:00.0", "GPU-0b9d6f0c-8e0a-4c43-b0a7-3f1f4d9f2e22"),
            ("0000:19:00.0", "GPU-7d1c3e52-0d1f-4b6e-9a0f-5a2f6a5b1c11"),
            // One that has fallen off the bus.
            ("0000:5d:00.0", "GPU-????????-????-????-????-????????????"),
        ] {
            fs::create_dir(folder.path().join(place)).unwrap();
            fs::write(folder.path().join(place).join("information"), information(uuid)).unwrap();
        }
        let found = devices(folder.path());
        let known: Vec<_> =
            found.iter().map(|device| (device.index, device.uuid.as_str(), device.name.as_str())).collect();
        assert_eq!(
            known,
            [
                (0, "GPU-7d1c3e52-0d1f-4b6e-9a0f-5a2f6a5b1c11", "NVIDIA H200"),
                (1, "GPU-0b9d6f0c-8e0a-4c43-b0a7-3f1f4d9f2e22", "NVIDIA H200"),
            ]
        );
    }
}
