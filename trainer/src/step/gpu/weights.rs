//! Weights as products take them, and the gradients that products give.
//!
//! The matrices that a layer multiplies the same input with lie below each other, so that they are one product: query, key and
//! value, gate and up. The gradients of such a stack are one tensor too, of which each parameter's is a part.

use candle_core::{DType, Device, Result, Tensor};

use crate::kernels::cuda::Operations;
use crate::step::places::{Layer, Places};
use crate::step::sizes::Sizes;

/// One matrix for each product of a layer.
#[derive(Debug)]
pub(super) struct Matrices {
    /// (attended, width)
    pub attended: Tensor,
    /// (width, queries)
    pub output: Tensor,
    /// (2 feed_forward, width)
    pub gate_up: Tensor,
    /// (width, feed_forward)
    pub down: Tensor,
}

impl Matrices {
    fn new(sizes: Sizes, make: impl Fn(usize, usize) -> Result<Tensor>) -> Result<Self> {
        let Sizes { width, queries, feed_forward, .. } = sizes;
        Ok(Self {
            attended: make(sizes.attended(), width)?,
            output: make(width, queries)?,
            gate_up: make(2 * feed_forward, width)?,
            down: make(width, feed_forward)?,
        })
    }

    pub fn all(&self) -> [&Tensor; 4] {
        [&self.attended, &self.output, &self.gate_up, &self.down]
    }

    /// The part of each parameter, with the parameter's place.
    fn parts(&self, sizes: Sizes, layer: &Layer) -> Result<[(usize, Tensor); 7]> {
        let Sizes { queries, keys, feed_forward, .. } = sizes;
        Ok([
            (layer.query, self.attended.narrow(0, 0, queries)?),
            (layer.key, self.attended.narrow(0, queries, keys)?),
            (layer.value, self.attended.narrow(0, queries + keys, keys)?),
            (layer.output, self.output.clone()),
            (layer.gate, self.gate_up.narrow(0, 0, feed_forward)?),
            (layer.up, self.gate_up.narrow(0, feed_forward, feed_forward)?),
            (layer.down, self.down.clone()),
        ])
    }
}

/// The weights of all products, in the type that these are computed in.
#[derive(Debug)]
pub(super) struct Rounded {
    pub layers: Vec<Matrices>,
    /// (vocabulary, width)
    pub head: Tensor,
}

impl Rounded {
    pub fn new(sizes: Sizes, vocabulary: usize, dtype: DType, device: &Device) -> Result<Self> {
        let make = |rows: usize, columns: usize| Tensor::zeros((rows, columns), dtype, device);
        let layers = (0..sizes.layers).map(|_| Matrices::new(sizes, make)).collect::<Result<_>>()?;
        Ok(Self { layers, head: make(vocabulary, sizes.width)? })
    }

    /// Takes the weights as they are now.
    pub fn take(
        &self,
        operations: &Operations,
        sizes: Sizes,
        places: &Places,
        weights: &[&Tensor],
    ) -> Result<()> {
        for (matrices, layer) in self.layers.iter().zip(&places.layers) {
            for (place, part) in matrices.parts(sizes, layer)? {
                operations.round(weights[place], &part)?;
            }
        }
        operations.round(weights[places.head], &self.head)
    }
}

/// The gradients of all parameters.
#[derive(Debug)]
pub(super) struct Gradients {
    pub layers: Vec<Matrices>,
    /// Of each parameter, by its place; those in `layers` are parts of what is there.
    pub parts: Vec<Tensor>,
}

impl Gradients {
    /// Of parameters like `weights`, with the numbers that `make` gives.
    pub fn new(
        sizes: Sizes,
        places: &Places,
        weights: &[&Tensor],
        make: impl Fn(&[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        let matrix = |rows: usize, columns: usize| make(&[rows, columns]);
        let layers: Vec<_> =
            (0..sizes.layers).map(|_| Matrices::new(sizes, matrix)).collect::<Result<_>>()?;
        let mut parts = vec![None; weights.len()];
        for (matrices, layer) in layers.iter().zip(&places.layers) {
            for (place, part) in matrices.parts(sizes, layer)? {
                parts[place] = Some(part);
            }
        }
        let parts = parts
            .into_iter()
            .zip(weights)
            .map(|(part, weight)| part.map_or_else(|| make(weight.dims()), Ok))
            .collect::<Result<_>>()?;
        Ok(Self { layers, parts })
    }
}
