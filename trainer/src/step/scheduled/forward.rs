//! The forward pass of a layer.

use super::buffers::{Kept, Working};
use super::machine::{Machine, Turn};
use crate::kernels::cpu::element::Element;
use crate::kernels::cpu::gemm::Store;
use crate::kernels::cpu::matrix::{Matrix, MatrixMut};
use crate::kernels::cpu::{attention, norm, rope, swiglu};
use crate::step::laps::Operation;

/// One layer: the stream goes in and comes out; what its backward needs stays in `kept`.
pub(super) fn layer<E: Element>(
    turn: Turn<'_>,
    machine: &mut Machine<E>,
    kept: &mut Kept<E>,
    working: &mut Working<E>,
) {
    attend(turn, machine, kept, working);
    feed_forward(turn, machine, kept, working);
}

/// The stream, and to it what attention says.
fn attend<E: Element>(
    turn: Turn<'_>,
    machine: &mut Machine<E>,
    kept: &mut Kept<E>,
    working: &mut Working<E>,
) {
    let Turn { model, weights, layer, examples } = turn;
    let (isa, sizes, n) = (machine.isa, model.sizes, examples.inputs.len());
    let (width, attended) = (sizes.width, sizes.attended());
    let Working { stream, normed, .. } = working;
    let stream = &mut stream[..n * width];
    let normed = chosen(&mut kept.normed1, normed, n * width);
    let unit = &mut kept.unit1[..n * width];
    let weight = weights[layer.input_norm];
    norm::forward(isa, stream, weight, model.norm_eps, unit, &mut kept.scale1[..n], normed);
    machine.laps.lap(Operation::Norm);
    for (columns, weight) in model.projections(layer) {
        let y = &mut kept.attended[columns.start..n * attended];
        let y = MatrixMut::strided(y, n, columns.len(), attended);
        machine.linear(Matrix::new(normed, n, width), weights[weight], y, Store::Write);
    }
    machine.laps.lap(Operation::Linear);
    rope::forward(isa, &mut kept.attended[..n * attended], model.rotated(), model.angles(examples.length));
    machine.laps.lap(Operation::Rope);
    attention::forward(
        isa,
        model.attention(examples),
        model.operands(&kept.attended[..n * attended], examples),
        MatrixMut::new(&mut kept.attention[..n * sizes.queries], n, sizes.queries),
        &mut kept.log_sums[..n * sizes.heads],
        &mut machine.attention,
    );
    machine.laps.lap(Operation::Attention);
    let attention = Matrix::new(&kept.attention[..n * sizes.queries], n, sizes.queries);
    machine.linear(attention, weights[layer.output], MatrixMut::new(stream, n, width), Store::Add);
    machine.laps.lap(Operation::Linear);
}

/// The stream, and to it what the feed-forward part says.
fn feed_forward<E: Element>(
    turn: Turn<'_>,
    machine: &mut Machine<E>,
    kept: &mut Kept<E>,
    working: &mut Working<E>,
) {
    let Turn { model, weights, layer, examples } = turn;
    let (isa, width, inner) = (machine.isa, model.sizes.width, model.sizes.feed_forward);
    let n = examples.inputs.len();
    let Working { stream, normed, activation, .. } = working;
    let stream = &mut stream[..n * width];
    let normed = chosen(&mut kept.normed2, normed, n * width);
    let unit = &mut kept.unit2[..n * width];
    let weight = weights[layer.post_norm];
    norm::forward(isa, stream, weight, model.norm_eps, unit, &mut kept.scale2[..n], normed);
    machine.laps.lap(Operation::Norm);
    for (number, weight) in [layer.gate, layer.up].into_iter().enumerate() {
        let y = &mut kept.gate_up[number * inner..n * 2 * inner];
        let y = MatrixMut::strided(y, n, inner, 2 * inner);
        machine.linear(Matrix::new(normed, n, width), weights[weight], y, Store::Write);
    }
    machine.laps.lap(Operation::Linear);
    let activation = chosen(&mut kept.activation, activation, n * inner);
    swiglu::forward(isa, &kept.gate_up[..n * 2 * inner], inner, activation);
    machine.laps.lap(Operation::SwiGlu);
    let activation = Matrix::new(activation, n, inner);
    machine.linear(activation, weights[layer.down], MatrixMut::new(stream, n, width), Store::Add);
    machine.laps.lap(Operation::Linear);
}

/// The kept memory where there is some, else the working memory.
fn chosen<'a, E>(kept: &'a mut [E], working: &'a mut [E], length: usize) -> &'a mut [E] {
    let memory = if kept.is_empty() { working } else { kept };
    &mut memory[..length]
}
