// SPDX-License-Identifier: MIT OR Apache-2.0
//! The matrix that the HPCCG mini-application solves: on a cube of points each is coupled to its
//! up to 26 neighbours by -1 and to itself by 27.

use super::arena::Arena;
use super::kernels::Sparse;

/// A point's own coefficient, and that of a neighbour.
const OWN: f64 = 27.0;
const NEIGHBOUR: f64 = -1.0;

/// The matrix for a cube with this edge, and the right-hand side for which the solution is all
/// ones: the sums of its rows.
pub fn make(arena: &mut Arena, edge: usize) -> (Sparse, &'static mut [f64]) {
    let rows = edge.pow(3);
    // Along each axis all points but the first and the last have three neighbours with themselves.
    let entries = (3 * edge - 2).pow(3);
    let starts = arena.take(rows + 1, 0_u32);
    let columns = arena.take(entries, 0_u32);
    let values = arena.take(entries, NEIGHBOUR);
    let sums = arena.take(rows, 0.0);
    let mut entry = 0;
    for row in 0..rows {
        let point = [row % edge, row / edge % edge, row / edge / edge];
        let mut sum = 0.0;
        for neighbour in neighbours(point, edge) {
            columns[entry] = neighbour as u32;
            if neighbour == row {
                values[entry] = OWN;
            }
            sum += values[entry];
            entry += 1;
        }
        starts[row + 1] = entry as u32;
        sums[row] = sum;
    }
    (Sparse::new(starts, columns, values), sums)
}

/// The rows of the point and of those around it, in ascending order.
fn neighbours(point: [usize; 3], edge: usize) -> impl Iterator<Item = usize> {
    let around = move |axis: usize| {
        let at = point[axis];
        at.saturating_sub(1)..=(at + 1).min(edge - 1)
    };
    around(2).flat_map(move |z| {
        around(1).flat_map(move |y| around(0).map(move |x| (z * edge + y) * edge + x))
    })
}
