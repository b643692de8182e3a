//! Views of matrices in slices.

/// A matrix that is read: element (i, j) is `data[i * stride + j]`, or `data[j * stride + i]` where it is transposed.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a, E> {
    data: &'a [E],
    rows: usize,
    columns: usize,
    stride: usize,
    transposed: bool,
}

/// A matrix that is written: element (i, j) is `data[i * stride + j]`.
#[derive(Debug)]
pub struct MatrixMut<'a, E> {
    data: &'a mut [E],
    rows: usize,
    columns: usize,
    stride: usize,
}

impl<'a, E> Matrix<'a, E> {
    /// Rows that follow each other.
    pub fn new(data: &'a [E], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that begin `stride` elements apart.
    pub fn strided(data: &'a [E], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(fits(data.len(), rows, columns, stride), "a matrix lies inside its slice");
        Self { data, rows, columns, stride, transposed: false }
    }

    /// Its transpose.
    pub fn transpose(self) -> Self {
        Self { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Where it lies.
    pub fn data(&self) -> &'a [E] {
        self.data
    }

    /// Elements between the beginnings of two rows, of two columns where it is transposed.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Whether columns, and not rows, lie in one piece.
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }
}

impl<'a, E> MatrixMut<'a, E> {
    /// Rows that follow each other.
    pub fn new(data: &'a mut [E], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that begin `stride` elements apart.
    pub fn strided(data: &'a mut [E], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(fits(data.len(), rows, columns, stride), "a matrix lies inside its slice");
        Self { data, rows, columns, stride }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Elements between the beginnings of two rows.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Where it lies.
    pub fn data(&mut self) -> &mut [E] {
        self.data
    }
}

fn fits(length: usize, rows: usize, columns: usize, stride: usize) -> bool {
    let end = || (rows - 1).checked_mul(stride)?.checked_add(columns);
    rows == 0 || columns == 0 || (columns <= stride && end().is_some_and(|end| end <= length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kernels read and write without looking again hangs on this.
    #[test]
    fn a_matrix_lies_inside_its_slice() {
        assert!(fits(7, 2, 3, 4));
        assert!(!fits(6, 2, 3, 4));
        assert!(!fits(100, 2, 3, 2));
        assert!(fits(0, 0, 3, 4) && fits(0, 3, 0, 0));
        assert!(!fits(1, (1 << 32) + 1, 1, 1 << 32));
        assert!(!fits(usize::MAX, 2, usize::MAX, usize::MAX));
    }

    #[test]
    #[should_panic(expected = "a matrix lies inside its slice")]
    fn one_that_does_not_is_refused() {
        let _ = MatrixMut::strided(&mut [0f32; 6], 2, 3, 4);
    }
}
