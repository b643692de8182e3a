//! The inner loops: a few rows of the left operand times one panel of the right one.
//!
//! All operands come in *units* of 32 bits, one f32 or two bf16 that follow each other along the inner dimension. A
//! tile's sums begin at zero, stay in registers, and are added to what is in memory at the end. An instruction set
//! gives a [`Kernel`] for each type of element; the loops around its instructions are written once, here, so that what
//! is seen to hold for one set speaks for the others.

/// The most columns that a panel of any version has.
pub(super) const WIDEST: usize = 32;
/// The most rows that a tile of any version has.
pub(super) const TALLEST: usize = 12;

/// `c [+]= a b` for a tile of c, a panel's columns wide: (a, stride of a in bytes, b, inner, c, stride of c, add).
///
/// # Safety
/// The machine has the instructions of the set. `a` is, for every row r of the tile, `inner` elements at byte `r *
/// stride` ([`Kernels::rows`]), or units (p, r) at byte `p * stride + 4 * r` ([`Kernels::blocks`]). `b` is a panel:
/// `inner` elements, rounded up to units, of every column. Each row of c begins `stride of c` elements after the one
/// before, and a panel's columns of it may be written, and read too where `add` is set.
pub(super) type Micro = unsafe fn(*const u8, usize, *const u32, usize, *mut f32, usize, bool);

/// The tiles of an instruction set for a type of element: `[r - 1]` computes r rows.
#[derive(Clone, Copy)]
pub(super) struct Kernels {
    /// Left operand: rows of elements that follow each other.
    pub rows: &'static [Micro],
    /// Left operand: the units of a step of all rows beside each other.
    pub blocks: &'static [Micro],
    /// Columns of a panel.
    pub width: usize,
}

impl Kernels {
    /// The most rows of a tile.
    pub(super) fn height(&self) -> usize {
        self.rows.len()
    }
}

/// How an instruction set multiplies units.
///
/// # Safety
/// (of its functions) The machine has the instructions; pointers are to one unit (`left`), to `LANES` units (`right`)
/// or to `LANES` numbers (`load`, `store`); those of `left` may lie at any address, the others are aligned for an f32.
pub(super) trait Kernel {
    /// A register.
    type Vector: Copy;
    /// Columns in one; a panel is two of them wide.
    const LANES: usize;
    /// Elements in a unit.
    const TOGETHER: usize;
    /// Multiplications that a unit takes, one after the other: 1 or 2.
    const PARTS: usize;

    unsafe fn zero() -> Self::Vector;
    /// A unit's factor of multiplication `part`, in all lanes.
    unsafe fn left(unit: *const u32, part: usize) -> Self::Vector;
    /// The factors of multiplication `part`, one from each unit.
    unsafe fn right(units: *const u32, part: usize) -> Self::Vector;
    /// `left * right + sum`
    unsafe fn multiply(left: Self::Vector, right: Self::Vector, sum: Self::Vector) -> Self::Vector;
    unsafe fn add(x: Self::Vector, y: Self::Vector) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, value: Self::Vector);
}

/// A tile of `R` rows; `ROWS` says how the left operand lies.
///
/// # Safety
/// As [`Micro`].
#[inline(always)]
pub(super) unsafe fn tile<K: Kernel, const R: usize, const ROWS: bool>(
    a: *const u8,
    a_stride: usize,
    b: *const u32,
    inner: usize,
    c: *mut f32,
    c_stride: usize,
    add: bool,
) {
    // SAFETY: the caller's promises; in `ROWS`, only whole units are read as such, and the element that is left over
    // is read alone.
    unsafe {
        let mut sums = [[K::zero(); 2]; R];
        let whole = if ROWS { inner / K::TOGETHER } else { inner.div_ceil(K::TOGETHER) };
        let (along, across) = if ROWS { (4, a_stride) } else { (a_stride, 4) };
        for p in 0..whole {
            let a = a.add(p * along);
            step::<K, R>(&mut sums, b.add(p * 2 * K::LANES), |r| a.add(r * across).cast());
        }
        if ROWS && whole * K::TOGETHER < inner {
            let mut last = [0u32; R];
            for (r, last) in last.iter_mut().enumerate() {
                *last = u32::from(a.add(whole * 4 + r * a_stride).cast::<u16>().read_unaligned());
            }
            step::<K, R>(&mut sums, b.add(whole * 2 * K::LANES), |r| &raw const last[r]);
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (half, sum) in sums.into_iter().enumerate() {
                let c = c.add(r * c_stride + half * K::LANES);
                K::store(c, if add { K::add(K::load(c), sum) } else { sum });
            }
        }
    }
}

/// One unit of every row times one unit of every column.
///
/// # Safety
/// As [`Kernel`]: `b` is to a unit of each of a panel's columns, `unit(r)` to one of row r.
#[inline(always)]
unsafe fn step<K: Kernel, const R: usize>(
    sums: &mut [[K::Vector; 2]; R],
    b: *const u32,
    unit: impl Fn(usize) -> *const u32,
) {
    for part in 0..K::PARTS {
        // SAFETY: the caller's promises.
        unsafe {
            let right = [K::right(b, part), K::right(b.add(K::LANES), part)];
            for (r, sums) in sums.iter_mut().enumerate() {
                let left = K::left(unit(r), part);
                sums[0] = K::multiply(left, right[0], sums[0]);
                sums[1] = K::multiply(left, right[1], sums[1]);
            }
        }
    }
}

/// `kernel!(Name { .. })`: a [`Kernel`] of the expressions for its instructions.
macro_rules! kernel {
    ($(#[$meta:meta])* $name:ident {
        vector: $vector:ty, $lanes:literal lanes, $together:literal together, $parts:literal parts,
        zero: $zero:expr,
        left: |$unit:ident, $left_part:ident| $left:expr,
        right: |$units:ident, $right_part:ident| $right:expr,
        multiply: |$x:ident, $y:ident, $sum:ident| $multiply:expr,
        add: $add:path, load: $load:path, store: $store:path,
    }) => {
        $(#[$meta])*
        struct $name;

        // SAFETY (of the blocks below): the caller's promises, which are those of the trait.
        impl $crate::kernels::cpu::gemm::micro::Kernel for $name {
            type Vector = $vector;
            const LANES: usize = $lanes;
            const TOGETHER: usize = $together;
            const PARTS: usize = $parts;

            #[inline(always)]
            unsafe fn zero() -> $vector {
                // SAFETY: as above.
                #[allow(unused_unsafe, reason = "an array needs no instruction")]
                unsafe {
                    $zero
                }
            }

            #[inline(always)]
            unsafe fn left(unit: *const u32, $left_part: usize) -> $vector {
                // SAFETY: as above.
                unsafe {
                    let $unit = unit.read_unaligned();
                    $left
                }
            }

            #[inline(always)]
            unsafe fn right($units: *const u32, $right_part: usize) -> $vector {
                // SAFETY: as above.
                unsafe { $right }
            }

            #[inline(always)]
            unsafe fn multiply($x: $vector, $y: $vector, $sum: $vector) -> $vector {
                // SAFETY: as above.
                #[allow(unused_unsafe, reason = "an array needs no instruction")]
                unsafe {
                    $multiply
                }
            }

            #[inline(always)]
            unsafe fn add(x: $vector, y: $vector) -> $vector {
                // SAFETY: as above.
                #[allow(unused_unsafe, reason = "an array needs no instruction")]
                unsafe {
                    $add(x, y)
                }
            }

            #[inline(always)]
            unsafe fn load(from: *const f32) -> $vector {
                // SAFETY: as above.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn store(to: *mut f32, value: $vector) {
                // SAFETY: as above.
                unsafe { $store(to, value) }
            }
        }
    };
}

/// `kernels!(run, K, [1 2 3])`: [`Kernels`] of the tiles `run::<K, R, ROWS>`.
macro_rules! kernels {
    ($run:ident, $kernel:ty, [$($rows:literal)+]) => {
        $crate::kernels::cpu::gemm::micro::Kernels {
            rows: &[$($run::<$kernel, $rows, true>),+],
            blocks: &[$($run::<$kernel, $rows, false>),+],
            width: 2 * <$kernel as $crate::kernels::cpu::gemm::micro::Kernel>::LANES,
        }
    };
}

/// `run!(name, #[target_feature(..)])`: [`tile`] as a function of its own, compiled for an instruction set.
macro_rules! run {
    ($name:ident $(, #[$feature:meta])?) => {
        /// [`tile`](super::micro::tile) for this instruction set.
        ///
        /// # Safety
        /// As [`Micro`](super::micro::Micro).
        $(#[$feature])?
        unsafe fn $name<K: $crate::kernels::cpu::gemm::micro::Kernel, const R: usize, const ROWS: bool>(
            a: *const u8,
            a_stride: usize,
            b: *const u32,
            inner: usize,
            c: *mut f32,
            c_stride: usize,
            add: bool,
        ) {
            // SAFETY: the caller's promises.
            unsafe { $crate::kernels::cpu::gemm::micro::tile::<K, R, ROWS>(a, a_stride, b, inner, c, c_stride, add) }
        }
    };
}

pub(super) use {kernel, kernels, run};
