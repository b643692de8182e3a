//! Devices that models are trained on, with where each number is from.
//!
//! Rates are those of dense bf16 products with f32 sums, of one device: data sheets print twice as much, which only sparse
//! matrices reach. Prices are what was seen on a day, and differ by a factor of ten between clouds: they are there to be
//! replaced. The share of the rate that training reaches is a judgement, and is marked as one.

use serde::Serialize;

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(feature = "tsify", derive(tsify::Tsify))]
pub struct Device {
    /// Its name in addresses and scripts.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// FLOP/s of dense bf16 products with f32 sums.
    pub flops: f64,
    /// Of these, the best share that was measured of a matrix product.
    pub best_measured: Option<f64>,
    /// The share that training is taken to reach: a judgement (see [`Device::MFU_SOURCE`]).
    pub mfu: f64,
    /// Memory in GB of 10^9 bytes, as its vendor says.
    pub memory_gb: Option<f64>,
    /// TB/s to its memory.
    pub bandwidth: Option<f64>,
    /// Watts, as its vendor says.
    pub power: Option<f64>,
    /// Dollars an hour: what is taken without a better number.
    pub price: Option<f64>,
    /// Dollars an hour: the lowest and the highest that were seen.
    pub prices_seen: Option<(f64, f64)>,
    /// Where the price is from, and when.
    pub price_source: &'static str,
    /// Where the other numbers are from.
    pub source: &'static str,
}

/// github.com/stas00/ml-engineering, its tables of accelerators.
const ML_ENGINEERING: &str = "github.com/stas00/ml-engineering compute/accelerator/README.md, 2026-08-22";
const NO_PRICE: &str = "none found: yours is needed";

/// Where nothing is known.
const UNKNOWN: Device = Device {
    id: "",
    name: "",
    flops: 0.0,
    best_measured: None,
    mfu: 0.0,
    memory_gb: None,
    bandwidth: None,
    power: None,
    price: None,
    prices_seen: None,
    price_source: NO_PRICE,
    source: ML_ENGINEERING,
};

impl Device {
    /// What the default shares stand on.
    pub const MFU_SOURCE: &'static str = "judgement, from published runs: GPT-3 21 %, Megatron-Turing 530B 30 %, Gopher \
        33 %, PaLM 46 % (arXiv 2204.02311), 530B on A100 42 to 54 % (arXiv 2205.05198), Llama 3 405B on H100 38 to 43 % \
        (arXiv 2407.21783)";

    /// All of them.
    pub const ALL: [Self; 19] = [
        Self {
            id: "a100-80-sxm",
            name: "A100 80GB SXM",
            flops: 312e12,
            best_measured: Some(0.869),
            mfu: 0.45,
            memory_gb: Some(80.0),
            bandwidth: Some(2.0),
            power: Some(400.0),
            price: Some(1.5),
            prices_seen: Some((0.8, 3.0)),
            price_source: "mercatus-ai.com/blog/cloud-gpu-pricing, May 2026",
            ..UNKNOWN
        },
        Self {
            id: "a100-80-pcie",
            name: "A100 80GB PCIe",
            flops: 312e12,
            best_measured: Some(0.811),
            mfu: 0.45,
            memory_gb: Some(80.0),
            bandwidth: Some(1.94),
            power: Some(300.0),
            price: Some(1.3),
            price_source: "judgement: below that of the SXM",
            ..UNKNOWN
        },
        Self {
            id: "h100-sxm",
            name: "H100 SXM",
            flops: 989.4e12,
            best_measured: Some(0.803),
            mfu: 0.4,
            memory_gb: Some(80.0),
            bandwidth: Some(3.35),
            power: Some(700.0),
            price: Some(2.95),
            prices_seen: Some((1.99, 5.0)),
            price_source: "median of 37 providers, aimultiple.com/gpu-index, 2026-05-20; range mercatus-ai.com, May 2026",
            source: "glennklockwood.com/garden/processors/h100",
        },
        Self {
            id: "h100-pcie",
            name: "H100 PCIe",
            flops: 756e12,
            mfu: 0.4,
            memory_gb: Some(80.0),
            bandwidth: Some(2.0),
            power: Some(350.0),
            price: Some(2.5),
            price_source: "judgement: below that of the SXM",
            source: "github.com/stas00/ml-engineering, 2026-08-22; power: NVIDIA product brief PB-11133-001",
            ..UNKNOWN
        },
        Self {
            id: "h200-sxm",
            name: "H200 SXM",
            flops: 989.4e12,
            best_measured: Some(0.803),
            mfu: 0.4,
            memory_gb: Some(141.0),
            bandwidth: Some(4.8),
            power: Some(700.0),
            price: Some(3.8),
            prices_seen: Some((2.5, 7.0)),
            price_source: "mercatus-ai.com/blog/cloud-gpu-pricing, May 2026",
            ..UNKNOWN
        },
        Self {
            id: "gh200",
            name: "GH200 141GB",
            flops: 989.4e12,
            best_measured: Some(0.838),
            mfu: 0.4,
            memory_gb: Some(141.0),
            bandwidth: Some(4.8),
            ..UNKNOWN
        },
        Self {
            id: "b200-sxm",
            name: "B200 SXM",
            flops: 2250e12,
            best_measured: Some(0.776),
            mfu: 0.35,
            memory_gb: Some(180.0),
            bandwidth: Some(8.0),
            power: Some(1000.0),
            price: Some(5.5),
            prices_seen: Some((2.25, 6.03)),
            price_source: "lyceum.technology, 2026-03-11 (the lowest is a spot price); spheron.network, 2026-03-17",
            source: "glennklockwood.com/garden/processors/B200; docs.vultr.com, 2026-03-11",
        },
        Self {
            id: "b300-sxm",
            name: "B300 SXM",
            flops: 2250e12,
            best_measured: Some(0.786),
            mfu: 0.35,
            memory_gb: Some(288.0),
            bandwidth: Some(8.0),
            power: Some(1000.0),
            source: "github.com/stas00/ml-engineering, 2026-08-22; aibase.com/news/14280 says 1,200 W",
            ..UNKNOWN
        },
        Self {
            id: "gb200",
            name: "GB200, one of its GPUs",
            flops: 2500e12,
            best_measured: Some(0.729),
            mfu: 0.35,
            memory_gb: Some(186.0),
            bandwidth: Some(8.0),
            power: Some(1200.0),
            price: Some(4.54),
            price_source: "half of a superchip, spheron.network, 2026-03-17",
            source: "glennklockwood.com/garden/processors/B200; github.com/stas00/ml-engineering, 2026-08-22",
            ..UNKNOWN
        },
        Self {
            id: "gb300",
            name: "GB300, one of its GPUs",
            flops: 2500e12,
            mfu: 0.35,
            memory_gb: Some(288.0),
            bandwidth: Some(8.0),
            power: Some(1400.0),
            source: "github.com/stas00/ml-engineering, 2026-08-22; memory taken to be that of the B300; power aibase.com/news/14280",
            ..UNKNOWN
        },
        Self {
            id: "mi300x",
            name: "AMD MI300X",
            flops: 1307.4e12,
            best_measured: Some(0.514),
            mfu: 0.3,
            memory_gb: Some(192.0),
            bandwidth: Some(5.3),
            power: Some(750.0),
            price: Some(1.99),
            prices_seen: Some((1.5, 6.0)),
            price_source: "cliffcenter.com/research/amd-inference-economics, 2026-05-18",
            ..UNKNOWN
        },
        Self {
            id: "mi325x",
            name: "AMD MI325X",
            flops: 1307.4e12,
            best_measured: Some(0.604),
            mfu: 0.33,
            memory_gb: Some(256.0),
            bandwidth: Some(6.0),
            power: Some(1000.0),
            price: Some(2.25),
            prices_seen: Some((1.95, 2.25)),
            price_source: "cliffcenter.com/research/amd-inference-economics, 2026-05-18",
            ..UNKNOWN
        },
        Self {
            id: "mi355x",
            name: "AMD MI355X",
            flops: 2500e12,
            best_measured: Some(0.68),
            mfu: 0.33,
            memory_gb: Some(288.0),
            bandwidth: Some(8.0),
            power: Some(1400.0),
            ..UNKNOWN
        },
        Self {
            id: "l40s",
            name: "L40S",
            flops: 362e12,
            mfu: 0.3,
            memory_gb: Some(48.0),
            bandwidth: Some(0.86),
            power: Some(350.0),
            price: Some(0.9),
            prices_seen: Some((0.79, 0.9)),
            price_source: "deploybase.ai, undated, little trusted",
            ..UNKNOWN
        },
        Self {
            id: "rtx4090",
            name: "RTX 4090",
            flops: 165.2e12,
            mfu: 0.3,
            memory_gb: Some(24.0),
            bandwidth: Some(1.008),
            power: Some(450.0),
            price: Some(0.4),
            prices_seen: Some((0.34, 0.4)),
            price_source: "deploybase.ai, undated, little trusted",
            source: "gigagpu.com/?p=34220; ozyphus.github.io/gpu-maths.html",
            ..UNKNOWN
        },
        Self {
            id: "rtx5090",
            name: "RTX 5090",
            flops: 209.5e12,
            mfu: 0.3,
            memory_gb: Some(32.0),
            bandwidth: Some(1.792),
            power: Some(575.0),
            price: Some(0.7),
            prices_seen: Some((0.69, 0.7)),
            price_source: "deploybase.ai, undated, little trusted",
            source: "a quarter of the 838 TFLOP/s of sparse f16 sums, Linux Format, May 2025",
            ..UNKNOWN
        },
        Self {
            id: "gaudi3",
            name: "Intel Gaudi 3",
            flops: 1677e12,
            best_measured: Some(0.741),
            mfu: 0.3,
            memory_gb: Some(128.0),
            bandwidth: Some(3.7),
            power: Some(900.0),
            ..UNKNOWN
        },
        Self {
            id: "tpu-v5p",
            name: "Google TPU v5p",
            flops: 459e12,
            mfu: 0.4,
            memory_gb: Some(95.0),
            bandwidth: Some(2.76),
            ..UNKNOWN
        },
        Self { id: "tpu-v6e", name: "Google TPU v6e", flops: 918e12, mfu: 0.4, ..UNKNOWN },
    ];

    /// The device of this name.
    pub fn named(id: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|device| device.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_makes_sense() {
        for (place, device) in Device::ALL.iter().enumerate() {
            let id = device.id;
            assert!(Device::ALL.iter().skip(place + 1).all(|other| other.id != id), "{id} comes twice");
            assert_eq!(Device::named(id), Some(device));
            assert!(!device.name.is_empty() && !device.source.is_empty(), "{id}");
            assert!((1e14..3e15).contains(&device.flops), "{id}: no sparse rate, no vector rate");
            let best = device.best_measured.unwrap_or(0.9);
            assert!(
                0.0 < device.mfu && device.mfu < best && best < 1.0,
                "{id}: training reaches less than a product"
            );
            if let (Some(price), Some((low, high))) = (device.price, device.prices_seen) {
                assert!(low <= price && price <= high, "{id}");
            }
            assert_eq!(device.price.is_none(), device.price_source == NO_PRICE, "{id}");
        }
        assert_eq!(Device::named("h100"), None);
    }
}
