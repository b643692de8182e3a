//! What the demo trains on: the CPU, or a GPU that was asked for.

use std::path::PathBuf;
use std::process::Command;

use toml::{Table, Value};

use super::program;
use crate::config::DeviceName;
use crate::ctl::flags;
use crate::edge::failure::Failure;

/// The demo's configuration on the CPU.
pub const CONFIG: &str = include_str!("demo.toml");

/// A device, and the trainer for it.
#[derive(Debug)]
pub struct Machine {
    device: DeviceName,
    trainer: PathBuf,
    /// Whether either is another than the demo's own.
    is_asked_for: bool,
}

impl Machine {
    /// As was asked for.
    ///
    /// # Errors
    /// There is no such trainer.
    pub fn new(asked: &flags::Demo) -> Result<Self, Failure> {
        let trainer = match &asked.trainer {
            Some(trainer) => trainer.canonicalize().map_err(|error| {
                Failure::new(format!("`{}` cannot be used as the trainer", trainer.display())).because(error)
            })?,
            None => program("lrpath-train")?,
        };
        let is_asked_for = asked.device.is_some() || asked.trainer.is_some();
        Ok(Self { device: asked.device.clone().unwrap_or(DeviceName::Cpu), trainer, is_asked_for })
    }

    /// The demo's configuration there: as it is written where nothing was asked for; on a GPU in the precision that it is made for.
    ///
    /// # Errors
    /// None that a user could mend.
    pub fn configuration(&self) -> Result<String, Failure> {
        if !self.is_asked_for {
            return Ok(CONFIG.to_owned());
        }
        let failed =
            |error: String| Failure::new("the demo's configuration cannot be written").because(error);
        let mut config: Table = toml::from_str(CONFIG).map_err(|error| failed(error.to_string()))?;
        let list = |word: String| Value::Array(vec![word.into()]);
        let command = Table::from_iter([("command".to_owned(), list(self.trainer.display().to_string()))]);
        config.insert("trainer".to_owned(), command.into());
        if self.device != DeviceName::Cpu {
            if let Some(Value::Table(model)) = config.get_mut("model") {
                model.insert("precision".to_owned(), "bf16".into());
            }
            let slot =
                [("name".to_owned(), "gpu".into()), ("devices".to_owned(), list(self.device.to_string()))];
            config.insert("slots".to_owned(), Value::Array(vec![Table::from_iter(slot).into()]));
        }
        toml::to_string(&config).map_err(|error| failed(error.to_string()))
    }

    /// The trainer, on the device.
    pub fn trainer(&self) -> Command {
        let mut command = Command::new(&self.trainer);
        let seen = match &self.device {
            DeviceName::Cpu => return command,
            DeviceName::Numbered(number) => number.to_string(),
            DeviceName::Named(name) => name.clone(),
        };
        // As the driver numbers them, and as the daemon does for its jobs.
        command.env("CUDA_DEVICE_ORDER", "PCI_BUS_ID").env("CUDA_VISIBLE_DEVICES", seen);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config(device: DeviceName) -> Config {
        let machine = Machine { device, trainer: "/opt/lrpath-train".into(), is_asked_for: true };
        toml::from_str(&machine.configuration().unwrap()).unwrap()
    }

    #[test]
    fn the_configuration_keeps_its_comments_where_nothing_was_asked_for() {
        let machine =
            Machine { device: DeviceName::Cpu, trainer: "/opt/lrpath-train".into(), is_asked_for: false };
        assert_eq!(machine.configuration().unwrap(), CONFIG);
    }

    #[test]
    fn the_configuration_is_that_of_the_demo_on_the_device_that_was_asked_for() {
        let plain: Config = toml::from_str(CONFIG).unwrap();
        for (device, slot) in [
            (DeviceName::Cpu, None),
            (DeviceName::Numbered(1), Some("cuda:1")),
            (DeviceName::Named("GPU-7d1c3e52".to_owned()), Some("GPU-7d1c3e52")),
        ] {
            let config = config(device);
            assert_eq!(config.schedule, plain.schedule);
            assert_eq!(config.data, plain.data);
            assert_eq!(config.cut, plain.cut);
            assert_eq!(config.trainer.command, Some(vec!["/opt/lrpath-train".to_owned()]));
            match slot {
                None => {
                    assert_eq!((&config.slots, config.model.precision), (&plain.slots, plain.model.precision))
                }
                Some(slot) => {
                    assert_eq!(config.slots[0].devices, [slot]);
                    assert_eq!(config.model.precision, artifacts::job::Precision::Bf16);
                }
            }
        }
    }
}
