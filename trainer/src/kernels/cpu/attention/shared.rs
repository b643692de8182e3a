//! An output that several threads write, each its own columns of its own rows.

use std::marker::PhantomData;

use super::super::matrix::MatrixMut;

/// A matrix whose parts are handed out to threads.
pub(super) struct Shared<'a, E> {
    data: *mut E,
    rows: usize,
    columns: usize,
    stride: usize,
    _borrow: PhantomData<&'a mut [E]>,
}

// SAFETY: it is a mutable borrow of elements that may be sent; `row` makes its caller promise that no two threads hold
// the same ones.
unsafe impl<E: Send> Send for Shared<'_, E> {}
// SAFETY: as above; nothing but `row` reaches the elements.
unsafe impl<E: Send> Sync for Shared<'_, E> {}

impl<'a, E> Shared<'a, E> {
    pub(super) fn new(mut matrix: MatrixMut<'a, E>) -> Self {
        let (rows, columns, stride) = (matrix.rows(), matrix.columns(), matrix.stride());
        Self { data: matrix.data().as_mut_ptr(), rows, columns, stride, _borrow: PhantomData }
    }

    /// `width` elements of a row.
    ///
    /// # Safety
    /// While the result lives, no other one has an element of it.
    #[allow(clippy::mut_from_ref, reason = "the caller promises that parts are disjoint")]
    pub(super) unsafe fn row(&self, row: usize, column: usize, width: usize) -> &mut [E] {
        let fits = width <= self.columns && column <= self.columns - width;
        assert!(row < self.rows && fits, "a part of a row lies inside its matrix");
        // SAFETY: a `MatrixMut` lies inside its slice: (rows - 1) * stride + columns elements, of which the assertion
        // above leaves `width` from here; the caller promises that they are borrowed once.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride + column), width) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_rows_lie_where_they_should() {
        let mut data = [0f32; 8];
        let shared = Shared::new(MatrixMut::strided(&mut data, 2, 3, 5));
        // SAFETY: one part at a time.
        unsafe {
            shared.row(0, 0, 3).fill(1.0);
            shared.row(1, 1, 2).fill(2.0);
        }
        assert_eq!(data, [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 2.0, 2.0]);
    }

    #[test]
    fn a_part_outside_the_matrix_is_refused() {
        for (row, column, width) in [(2, 0, 1), (0, 3, 1), (0, 0, 4), (0, 2, usize::MAX)] {
            let refused = std::panic::catch_unwind(|| {
                let mut data = [0f32; 8];
                let shared = Shared::new(MatrixMut::strided(&mut data, 2, 3, 5));
                // SAFETY: one part.
                unsafe { shared.row(row, column, width) }.len()
            });
            assert!(refused.is_err(), "{row}, {column}, {width}");
        }
    }
}
