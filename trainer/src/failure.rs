//! How an attempt fails: a word for programs, a sentence for people, a code for the shell.

use std::fmt;
use std::io;

use crate::data::DataError;
use crate::guard::{MissingGradient, NotFinite};
use crate::model::{ConfigError, WeightsError};
use crate::state::StateError;

/// What sort of failure it was; the word of the `failed` event and the exit code follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The command line makes no sense.
    Usage,
    /// A token file, a rate or a sequence is not what it should be.
    Data,
    /// A checkpoint or weights are damaged, or not those that were asked for.
    Checkpoint,
    /// A file is not there.
    NoInput,
    /// A parameter got no gradient: the kernels or the model are wrong.
    MissingGradient,
    /// A loss or a gradient is not a finite number.
    NotFinite,
    /// The program is wrong.
    Software,
    /// The system refused something that is no file.
    Os,
    /// The device that the job asks for is not there, or cannot be used.
    Device,
    /// Another of the job's processes has ended.
    Parted,
    /// The job takes more memory than there is.
    NoMemory,
    /// Another trainer holds the job's folder.
    Locked,
    /// Something cannot be created.
    CannotCreate,
    /// The disk is full.
    NoSpace,
    /// Reading or writing failed.
    Io,
    /// The job or the model's configuration asks for what cannot be done.
    Config,
}

impl Kind {
    /// The word in the `failed` event.
    pub fn word(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Data => "data",
            Self::Checkpoint => "checkpoint",
            Self::NoInput => "no-input",
            Self::MissingGradient => "missing-gradient",
            Self::NotFinite => "not-finite",
            Self::Software => "software",
            Self::Os => "os",
            Self::Device => "device",
            Self::Parted => "parted",
            Self::NoMemory => "no-memory",
            Self::Locked => "locked",
            Self::CannotCreate => "cannot-create",
            Self::NoSpace => "no-space",
            Self::Io => "io",
            Self::Config => "config",
        }
    }

    /// The exit code, as in sysexits.h.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 64,
            Self::Data | Self::Checkpoint => 65,
            Self::NoInput => 66,
            Self::MissingGradient | Self::NotFinite | Self::Software => 70,
            // As where the system cannot fork: the job is sound, this machine lacks what it takes.
            Self::Os | Self::Device | Self::Parted | Self::NoMemory => 71,
            Self::Locked | Self::CannotCreate => 73,
            Self::NoSpace | Self::Io => 74,
            Self::Config => 78,
        }
    }

    /// The kind of a failure to read a file.
    pub fn of_reading(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NoInput,
            _ => Self::Io,
        }
    }
}

/// What NVIDIA's driver calls it.
const OUT_OF_DEVICE_MEMORY: &str = "CUDA_ERROR_OUT_OF_MEMORY";
/// How the errors of NVIDIA's driver, its matrix products, its sums over GPUs and its attention are called.
const OF_A_DEVICE: [&str; 4] = ["CUDA_ERROR_", "CUBLAS_STATUS_", "NCCL error ", "cuDNN error"];

/// A failure: its kind, and a sentence that says what happened, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What sort it is.
    pub kind: Kind,
    /// The sentence.
    pub message: String,
    /// The step that cannot be made, where that is all that is wrong.
    pub step: Option<u64>,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(kind: Kind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string(), step: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let kind = match &error {
            ConfigError::Unreadable { source, .. } => Kind::of_reading(source),
            ConfigError::Malformed { .. } | ConfigError::Unsupported { .. } => Kind::Config,
        };
        Self::new(kind, error)
    }
}

impl From<WeightsError> for Failure {
    fn from(error: WeightsError) -> Self {
        let kind = match &error {
            WeightsError::Unreadable { source, .. } => Kind::of_reading(source),
            WeightsError::Candle(_) => Kind::Software,
            _ => Kind::Checkpoint,
        };
        Self::new(kind, error)
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let kind = match &error {
            DataError::Unreadable { source, .. } => Kind::of_reading(source),
            DataError::Thread(_) => Kind::Os,
            _ => Kind::Data,
        };
        Self::new(kind, error)
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Weights(error) => error.into(),
            StateError::Storage(error) if error.is_full() => Self::new(Kind::NoSpace, error),
            StateError::Storage(error) => Self::new(Kind::Io, error),
            StateError::Thread(_) => Self::new(Kind::Os, error),
            StateError::Damage(damage) if damage.is_unknown() => Self::new(Kind::Io, damage),
            _ => Self::new(Kind::Checkpoint, error),
        }
    }
}

impl From<NotFinite> for Failure {
    fn from(error: NotFinite) -> Self {
        let step = match &error {
            NotFinite::Loss { step, .. } | NotFinite::Gradient { step, .. } => Some(*step),
            NotFinite::HeldOut { .. } => None,
        };
        Self { step, ..Self::new(Kind::NotFinite, error) }
    }
}

impl From<MissingGradient> for Failure {
    fn from(error: MissingGradient) -> Self {
        Self::new(Kind::MissingGradient, error)
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        let mut error = &error;
        // Where the environment asks for backtraces, candle's words have one: not for an event, which is read by people.
        while let candle_core::Error::WithBacktrace { inner, .. } = error {
            error = inner;
        }
        let error = error.to_string();
        if error.contains(OUT_OF_DEVICE_MEMORY) {
            let message =
                format!("the GPU's memory does not suffice: take a smaller trainer.micro_batch ({error})");
            return Self::new(Kind::NoMemory, message);
        }
        if OF_A_DEVICE.iter().any(|words| error.contains(words)) {
            let message = format!(
                "the GPU has failed, or its driver was reset: `nvidia-smi` and `dmesg` say more ({error})"
            );
            return Self::new(Kind::Device, message);
        }
        Self::new(Kind::Software, format!("a tensor operation failed: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gpu_fails_with_is_told_apart() {
        for (error, kind, words) in [
            (
                "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                Kind::NoMemory,
                "a smaller trainer.micro_batch",
            ),
            (
                "DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, \"an illegal memory access\")",
                Kind::Device,
                "the GPU has failed",
            ),
            ("CublasError(CUBLAS_STATUS_EXECUTION_FAILED)", Kind::Device, "the GPU has failed"),
            ("shape mismatch in matmul", Kind::Software, "a tensor operation failed"),
        ] {
            let told = candle_core::Error::WithBacktrace {
                inner: Box::new(candle_core::Error::Msg(error.to_owned())),
                backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
            };
            let failure = Failure::from(told);
            assert_eq!(failure.kind, kind, "{error}");
            assert!(!failure.message.contains("at ") && !failure.message.contains('\n'), "{failure}");
            assert!(failure.message.contains(words) && failure.message.contains(error), "{failure}");
        }
    }
}
