//! Which instruction set the kernels run on.
//!
//! One program carries every version, and the machine decides at run time. A kernel is written once, as plain loops over
//! slices that the compiler turns into vector instructions; `dispatch!` compiles it once for each set. Only the inner
//! loops of the matrix products are written for each by hand (`gemm::micro`).
//!
//! Reductions run over [`LANES`] partial sums whatever the width of a register, and AVX2 and AVX-512 both fuse
//! multiplication and addition: these two compute equal bits in f32. The portable version rounds after each, on every
//! architecture, whether it could fuse or not: its name stands for its bits.

/// Partial sums of a reduction, at every width of a register: it decides the order of additions, and so the last bits.
pub const LANES: usize = 16;

/// An instruction set that this machine has.
///
/// A value of it is the proof: there is none that the machine was not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

/// The sets there are versions for, the slowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The version that runs everywhere.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// All that this machine has, the slowest first.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self(Kind::Avx2));
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512cd")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    all.push(Self(Kind::Avx512));
                }
            }
        }
        all
    }

    /// The fastest that this machine has.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::PORTABLE)
    }

    /// Its name, as the log and the checkpoints say it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Kind::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
        }
    }

    /// Whether it multiplies bf16 numbers in one instruction (AVX-512-BF16).
    pub fn multiplies_bf16(self) -> bool {
        match self.0 {
            Kind::Portable => false,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => false,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => is_x86_feature_detected!("avx512bf16"),
        }
    }

    pub(super) fn kind(self) -> Kind {
        self.0
    }
}

/// Who made this CPU, in a word: `amd`, `intel`, or what it says itself.
pub fn maker() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = std::arch::x86_64::__cpuid(0);
        let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat();
        match name.as_slice() {
            b"AuthenticAMD" => "amd".to_owned(),
            b"GenuineIntel" => "intel".to_owned(),
            other => String::from_utf8_lossy(other)
                .trim_matches(|c: char| !c.is_ascii_alphanumeric())
                .to_lowercase(),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH.to_owned()
}

/// How a version multiplies and adds.
pub trait Version {
    /// `a * b + c`, rounded once where the set has an instruction for it, else twice.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
}

/// Multiplication and addition are one instruction.
pub struct Fused;

/// They are two.
pub struct Separate;

impl Version for Fused {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl Version for Separate {
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// `dispatch! { pub fn name<E: Element>(x: &[E], ..) -> f32 = body }` makes `name(isa, x, ..)` of an `#[inline(always)]`
/// `fn body<V: Version, E: Element>(x: &[E], ..) -> f32`, compiled for each instruction set.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$($g:ident : $bound:path),+>)? (
        $($arg:ident : $type:ty),* $(,)?
    ) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "the arguments of a kernel are its operands")]
        $vis fn $name $(<$($g: $bound),+>)? (isa: $crate::kernels::cpu::isa::Isa, $($arg: $type),*) $(-> $ret)? {
            use $crate::kernels::cpu::isa::{Kind, Separate};
            #[cfg(target_arch = "x86_64")]
            use $crate::kernels::cpu::isa::Fused;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments, reason = "as above")]
            fn avx2 $(<$($g: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
                $body::<Fused $($(, $g)+)?>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")]
            #[allow(clippy::too_many_arguments, reason = "as above")]
            fn avx512 $(<$($g: $bound),+>)? ($($arg: $type),*) $(-> $ret)? {
                $body::<Fused $($(, $g)+)?>($($arg),*)
            }
            match isa.kind() {
                Kind::Portable => $body::<Separate $($(, $g)+)?>($($arg),*),
                // SAFETY: an `Isa` of this kind exists only where the machine has these instructions.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx2 => unsafe { avx2 $(::<$($g),+>)? ($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Kind::Avx512 => unsafe { avx512 $(::<$($g),+>)? ($($arg),*) },
            }
        }
    };
}

pub(crate) use dispatch;

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn dot_body<V: Version>(x: &[f32], y: &[f32]) -> f32 {
        let mut sums = [0f32; LANES];
        for (x, y) in x.chunks_exact(LANES).zip(y.chunks_exact(LANES)) {
            for lane in 0..LANES {
                sums[lane] = V::mul_add(x[lane], y[lane], sums[lane]);
            }
        }
        sums.iter().sum()
    }

    dispatch! { fn dot(x: &[f32], y: &[f32]) -> f32 = dot_body }

    #[test]
    fn versions_that_fuse_compute_equal_bits() {
        let x: Vec<f32> = (0..160).map(|i| libm::sinf(i as f32)).collect();
        let y: Vec<f32> = (0..160).map(|i| libm::cosf(i as f32 * 3.0)).collect();
        let all = Isa::available();
        let results: Vec<f32> = all.iter().map(|isa| dot(*isa, &x, &y)).collect();
        for result in &results {
            assert!((result - results[0]).abs() < 1e-5);
        }
        assert!(results[1..].windows(2).all(|pair| pair[0].to_bits() == pair[1].to_bits()));
    }
}
