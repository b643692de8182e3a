//! The backward pass of a layer.
//!
//! Gradients of weights are sums over tokens. Those of a step's first micro batch are written, those of the others are
//! added, so that no second set of gradients exists.

use super::buffers::{Kept, Slopes, Working};
use super::machine::{Machine, Turn};
use crate::kernels::cpu::element::Element;
use crate::kernels::cpu::gemm::Store;
use crate::kernels::cpu::isa::Isa;
use crate::kernels::cpu::matrix::{Matrix, MatrixMut};
use crate::kernels::cpu::{attention, norm, rope, swiglu};
use crate::step::laps::Operation;

/// The gradients of all parameters, and what is done with what is there already.
pub(super) struct Gradients<'a, 'b> {
    pub parts: &'a mut [&'b mut [f32]],
    pub store: Store,
}

impl Gradients<'_, '_> {
    /// The gradient of a parameter to which a kernel only adds.
    pub fn sum(&mut self, place: usize) -> &mut [f32] {
        let part = &mut *self.parts[place];
        if self.store == Store::Write {
            part.fill(0.0);
        }
        part
    }
}

/// One layer: the gradient of the stream behind it comes in, that of the stream before it goes out.
pub(super) fn layer<E: Element>(
    turn: Turn<'_>,
    machine: &mut Machine<E>,
    kept: &mut Kept<E>,
    working: &mut Working<E>,
    gradients: &mut Gradients<'_, '_>,
) {
    feed_forward(turn, machine, kept, working, gradients);
    attend(turn, machine, kept, working, gradients);
}

fn feed_forward<E: Element>(
    turn: Turn<'_>,
    machine: &mut Machine<E>,
    kept: &mut Kept<E>,
    working: &mut Working<E>,
    gradients: &mut Gradients<'_, '_>,
) {
    let Turn { model, weights, layer, examples } = turn;
    let (isa, width, inner) = (machine.isa, model.sizes.width, model.sizes.feed_forward);
    let n = examples.inputs.len();
    let Working { normed, activation, slopes, .. } = working;
    let Slopes { stream: stream_gradient, rounded, normed: normed_gradient, .. } = slopes;
    let stream_gradient = &mut stream_gradient[..n * width];
    let gate_up = &mut kept.gate_up[..n * 2 * inner];
    let activation = if kept.activation.is_empty() {
        swiglu::forward(isa, gate_up, inner, &mut activation[..n * inner]);
        &mut activation[..n * inner]
    } else {
        &mut kept.activation[..n * inner]
    };
    machine.laps.lap(Operation::SwiGlu);
    let dy = Matrix::new(E::all_nearest(stream_gradient, &mut rounded[..E::rounded(n * width)]), n, width);
    machine.pack_input(Matrix::new(activation, n, inner));
    machine.weight_gradient(dy, inner, gradients.parts[layer.down], gradients.store);
    // The activation is not needed any more: its gradient takes its place.
    machine.input_gradient(dy, weights[layer.down], MatrixMut::new(activation, n, inner), Store::Write);
    machine.laps.lap(Operation::Linear);
    swiglu::backward(isa, activation, inner, gate_up);
    machine.laps.lap(Operation::SwiGlu);

    let (unit, weight) = (&kept.unit2[..n * width], weights[layer.post_norm]);
    let normed = again(isa, unit, weight, &kept.normed2, normed);
    machine.laps.lap(Operation::Norm);
    machine.pack_input(Matrix::new(normed, n, width));
    let halves = [(0, layer.gate), (inner, layer.up)].map(|(first, place)| {
        let dy = Matrix::strided(&gate_up[first..], n, inner, 2 * inner);
        (dy, place)
    });
    for (dy, place) in halves {
        machine.weight_gradient(dy, width, gradients.parts[place], gradients.store);
    }
    let normed_gradient = &mut normed_gradient[..n * width];
    for ((dy, place), store) in halves.into_iter().zip([Store::Write, Store::Add]) {
        machine.input_gradient(dy, weights[place], MatrixMut::new(normed_gradient, n, width), store);
    }
    machine.laps.lap(Operation::Linear);
    let (scale, sum) = (&kept.scale2[..n], gradients.sum(layer.post_norm));
    norm::backward(isa, normed_gradient, unit, scale, weight, stream_gradient, sum, &mut machine.norm);
    machine.laps.lap(Operation::Norm);
}

fn attend<E: Element>(
    turn: Turn<'_>,
    machine: &mut Machine<E>,
    kept: &mut Kept<E>,
    working: &mut Working<E>,
    gradients: &mut Gradients<'_, '_>,
) {
    let Turn { model, weights, layer, examples } = turn;
    let (isa, sizes, n) = (machine.isa, model.sizes, examples.inputs.len());
    let (width, queries, attended) = (sizes.width, sizes.queries, sizes.attended());
    let Working { normed, slopes, .. } = working;
    let Slopes {
        stream: stream_gradient,
        rounded,
        normed: normed_gradient,
        attention: attention_gradient,
        attended: attended_gradient,
    } = slopes;
    let stream_gradient = &mut stream_gradient[..n * width];
    let attention = Matrix::new(&kept.attention[..n * queries], n, queries);
    let dy = Matrix::new(E::all_nearest(stream_gradient, &mut rounded[..E::rounded(n * width)]), n, width);
    machine.pack_input(attention);
    machine.weight_gradient(dy, queries, gradients.parts[layer.output], gradients.store);
    let attention_gradient = &mut attention_gradient[..n * queries];
    let dx = MatrixMut::new(attention_gradient, n, queries);
    machine.input_gradient(dy, weights[layer.output], dx, Store::Write);
    machine.laps.lap(Operation::Linear);
    let attended_gradient = &mut attended_gradient[..n * attended];
    attention::backward(
        isa,
        model.attention(examples),
        model.operands(&kept.attended[..n * attended], examples),
        attention::Given {
            out: attention,
            lse: &kept.log_sums[..n * sizes.heads],
            dout: Matrix::new(attention_gradient, n, queries),
        },
        MatrixMut::new(attended_gradient, n, attended),
        &mut machine.attention,
    );
    machine.laps.lap(Operation::Attention);
    rope::backward(isa, attended_gradient, model.rotated(), model.angles(examples.length));
    machine.laps.lap(Operation::Rope);

    let (unit, weight) = (&kept.unit1[..n * width], weights[layer.input_norm]);
    let normed = again(isa, unit, weight, &kept.normed1, normed);
    machine.laps.lap(Operation::Norm);
    machine.pack_input(Matrix::new(normed, n, width));
    let thirds = model.projections(layer).map(|(columns, place)| {
        let dy = Matrix::strided(&attended_gradient[columns.start..], n, columns.len(), attended);
        (dy, place)
    });
    for (dy, place) in thirds {
        machine.weight_gradient(dy, width, gradients.parts[place], gradients.store);
    }
    let normed_gradient = &mut normed_gradient[..n * width];
    for ((dy, place), store) in thirds.into_iter().zip([Store::Write, Store::Add, Store::Add]) {
        machine.input_gradient(dy, weights[place], MatrixMut::new(normed_gradient, n, width), store);
    }
    machine.laps.lap(Operation::Linear);
    let (scale, sum) = (&kept.scale1[..n], gradients.sum(layer.input_norm));
    norm::backward(isa, normed_gradient, unit, scale, weight, stream_gradient, sum, &mut machine.norm);
    machine.laps.lap(Operation::Norm);
}

/// A norm's output: as it was kept, or computed again to the same bits.
fn again<'a, E: Element>(
    isa: Isa,
    unit: &[f32],
    weight: &[f32],
    kept: &'a [E],
    working: &'a mut [E],
) -> &'a [E] {
    if !kept.is_empty() {
        return &kept[..unit.len()];
    }
    let normed = &mut working[..unit.len()];
    norm::scale_by_weight(isa, unit, weight, normed);
    normed
}
