// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conjugate gradients on a sparse matrix, as the HPCCG mini-application does it: products of the
//! matrix with a vector, inner products, sums of vectors.

use super::arena::Arena;
use super::kernels::{self, Sparse};
use super::{ROUNDS, matrix, say};
use crate::samples::Bench;

/// The largest square of the residual's norm with which the solution is one.
const RESIDUAL: f64 = 1e-12;
/// How far numbers of the solution may be from their values.
const TOLERANCE: f64 = 1e-6;

/// The vectors of the method.
struct Vectors {
    solution: &'static mut [f64],
    residual: &'static mut [f64],
    direction: &'static mut [f64],
    product: &'static mut [f64],
}

/// Measures and verifies it.
pub fn run(bench: &Bench, arena: &mut Arena, edge: usize, steps: usize) -> bool {
    let (matrix, wanted) = matrix::make(arena, edge);
    let mut vector = || arena.take(wanted.len(), 0.0);
    let mut vectors =
        Vectors { solution: vector(), residual: vector(), direction: vector(), product: vector() };
    let mut residual = 0.0;
    bench.few("conjugate-gradient", ROUNDS, || {
        residual = solve(&matrix, wanted, &mut vectors, steps);
    });
    // The solution is all ones.
    let error = vectors.solution.iter().map(|number| (number - 1.0).abs()).fold(0.0, f64::max);
    say("conjugate-gradient-residual", residual.to_bits());
    say("conjugate-gradient-error", error.to_bits());
    residual <= RESIDUAL && error <= TOLERANCE
}

/// Solves from zero on, in so many steps, and gives the square of the residual's norm.
fn solve(matrix: &Sparse, wanted: &[f64], vectors: &mut Vectors, steps: usize) -> f64 {
    let Vectors { solution, residual, direction, product } = vectors;
    solution.fill(0.0);
    residual.copy_from_slice(wanted);
    direction.copy_from_slice(wanted);
    let mut square = kernels::dot(residual, residual);
    for _ in 0..steps {
        matrix.times(direction, product);
        let alpha = square / kernels::dot(direction, product);
        kernels::update(alpha, direction, 1.0, solution);
        kernels::update(-alpha, product, 1.0, residual);
        let before = square;
        square = kernels::dot(residual, residual);
        kernels::update(1.0, residual, square / before, direction);
    }
    square
}
