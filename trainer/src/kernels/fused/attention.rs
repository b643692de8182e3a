//! Attention over candle's tensors, as one node of its graph.

use candle_core::{Result, Tensor, bail};

use super::tensor;
use crate::kernels::cpu::attention::{Given, Operands, Scratch, Shape, backward, forward};
use crate::kernels::cpu::isa::Isa;
use crate::kernels::cpu::matrix::{Matrix, MatrixMut};
use crate::kernels::slices::view;
use crate::kernels::{Mask, adjoint};

/// The tensors of one attention, and what its backward needs of its forward.
struct Attention {
    isa: Isa,
    shape: Shape,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: Option<Vec<u32>>,
    out: Tensor,
    lse: Vec<f32>,
}

/// Attention of `q` (B, T, H, hd) to `k` and `v` (B, S, G, hd); with a gradient only where T = S.
pub(super) fn attention(isa: Isa, q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Result<Tensor> {
    let mut attention = Attention::new(isa, (q, k, v), mask)?;
    attention.forward()?;
    let out = attention.out.clone();
    adjoint::ternary("attention", (q, k, v), out, move |dout| attention.backward(dout))
}

impl Attention {
    fn new(isa: Isa, (q, k, v): (&Tensor, &Tensor, &Tensor), mask: &Mask) -> Result<Self> {
        let (sequences, queries, heads, width) = q.dims4()?;
        let (of_keys, keys, groups, width_of_keys) = k.dims4()?;
        if (of_keys, width_of_keys) != (sequences, width) || v.dims() != k.dims() {
            bail!("attention: q is {:?}, k {:?}, v {:?}", q.dims(), k.dims(), v.dims());
        }
        let documents = match mask.documents() {
            Some(documents) => Some(documents.flatten_all()?.to_vec1::<u32>()?),
            None => None,
        };
        let rows = |x: &Tensor| x.detach().contiguous();
        let shape = Shape { sequences, queries, keys, heads, groups, width };
        let out = tensor(Vec::new(), 0)?;
        Ok(Self { isa, shape, q: rows(q)?, k: rows(k)?, v: rows(v)?, documents, out, lse: Vec::new() })
    }

    /// Queries of all sequences and their columns, keys and theirs.
    fn sizes(&self) -> [(usize, usize); 2] {
        let Shape { sequences, queries, keys, heads, groups, width } = self.shape;
        [(sequences * queries, heads * width), (sequences * keys, groups * width)]
    }

    fn forward(&mut self) -> Result<()> {
        let [(rows, columns), of_keys] = self.sizes();
        let mut out = vec![0f32; rows * columns];
        let mut lse = vec![0f32; rows * self.shape.heads];
        let (q, k, v) = (view(&self.q)?, view(&self.k)?, view(&self.v)?);
        let operands = Operands {
            q: Matrix::new(&q, rows, columns),
            k: Matrix::new(&k, of_keys.0, of_keys.1),
            v: Matrix::new(&v, of_keys.0, of_keys.1),
            documents: self.documents.as_deref(),
        };
        let matrix = MatrixMut::new(&mut out, rows, columns);
        forward(self.isa, self.shape, operands, matrix, &mut lse, &mut Scratch::default());
        self.out = tensor(out, self.q.shape())?;
        self.lse = lse;
        Ok(())
    }

    fn backward(&self, dout: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
        let [(rows, columns), of_keys] = self.sizes();
        let (q, k, v) = (view(&self.q)?, view(&self.k)?, view(&self.v)?);
        let operands = Operands {
            q: Matrix::new(&q, rows, columns),
            k: Matrix::new(&k, of_keys.0, of_keys.1),
            v: Matrix::new(&v, of_keys.0, of_keys.1),
            documents: self.documents.as_deref(),
        };
        let (out, dout) = (view(&self.out)?, view(dout)?);
        let given = Given {
            out: Matrix::new(&out, rows, columns),
            lse: &self.lse,
            dout: Matrix::new(&dout, rows, columns),
        };
        let all = columns + 2 * of_keys.1;
        let mut gradient = vec![0f32; rows * all];
        let matrix = MatrixMut::new(&mut gradient, rows, all);
        backward(self.isa, self.shape, operands, given, matrix, &mut Scratch::default());
        let gradient = tensor(gradient, (rows, all))?;
        let part = |first: usize, of: &Tensor| {
            let count = of.elem_count() / rows;
            gradient.narrow(1, first, count)?.contiguous()?.reshape(of.shape())
        };
        let (q, k, v) = (&self.q, &self.k, &self.v);
        Ok((part(0, q)?, part(columns, k)?, part(columns + of_keys.1, v)?))
    }
}
