// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inner loops, in SSE2 double precision.
//!
//! The target of bare-metal programs has no floating-point registers as far as the compiler is
//! concerned, so they are written as what they are to be: it also keeps the count of their
//! instructions the same with every compiler. Nothing else touches the registers. The runtime
//! has enabled them (CR4.OSFXSR). Numbers in general registers are the bits of an `f64`.

use core::arch::global_asm;

global_asm!(
    r#"
    # RAX = sum of RSI[i] * RDX[i]; RDI numbers
compute_dot:
    xorpd xmm0, xmm0
    xor eax, eax
2:  movapd xmm1, [rsi + rax * 8]
    mulpd xmm1, [rdx + rax * 8]
    addpd xmm0, xmm1
    add rax, 2
    cmp rax, rdi
    jb 2b
    movapd xmm1, xmm0
    unpckhpd xmm1, xmm1
    addsd xmm0, xmm1
    movq rax, xmm0
    ret

    # R9[i] = RSI * RDX[i] + RCX * R8[i]; RDI numbers
compute_axpby:
    movq xmm4, rsi
    unpcklpd xmm4, xmm4
    movq xmm5, rcx
    unpcklpd xmm5, xmm5
    xor eax, eax
2:  movapd xmm0, [rdx + rax * 8]
    mulpd xmm0, xmm4
    movapd xmm1, [r8 + rax * 8]
    mulpd xmm1, xmm5
    addpd xmm0, xmm1
    movapd [r9 + rax * 8], xmm0
    add rax, 2
    cmp rax, rdi
    jb 2b
    ret

    # R9[row] = sum of RCX[k] * R8[RDX[k]] for k from RSI[row] up to RSI[row + 1]; RDI rows, none
    # of them empty
compute_sparse:
    push rbx
    xor eax, eax
    mov r10d, [rsi]
2:  mov r11d, [rsi + rax * 4 + 4]
    xorpd xmm0, xmm0
3:  mov ebx, [rdx + r10 * 4]
    movsd xmm1, [rcx + r10 * 8]
    mulsd xmm1, [r8 + rbx * 8]
    addsd xmm0, xmm1
    inc r10
    cmp r10, r11
    jb 3b
    movsd [r9 + rax * 8], xmm0
    inc rax
    cmp rax, rdi
    jb 2b
    pop rbx
    ret

    # RDX[i] = RSI[i]; RDI numbers
compute_copy:
    xor eax, eax
2:  movapd xmm0, [rsi + rax * 8]
    movapd [rdx + rax * 8], xmm0
    add rax, 2
    cmp rax, rdi
    jb 2b
    ret

    # RCX[i] = RSI * RDX[i]; RDI numbers
compute_scale:
    movq xmm4, rsi
    unpcklpd xmm4, xmm4
    xor eax, eax
2:  movapd xmm0, [rdx + rax * 8]
    mulpd xmm0, xmm4
    movapd [rcx + rax * 8], xmm0
    add rax, 2
    cmp rax, rdi
    jb 2b
    ret

    # RCX[i] = RSI[i] + RDX[i]; RDI numbers
compute_add:
    xor eax, eax
2:  movapd xmm0, [rsi + rax * 8]
    addpd xmm0, [rdx + rax * 8]
    movapd [rcx + rax * 8], xmm0
    add rax, 2
    cmp rax, rdi
    jb 2b
    ret

    # R8[i] = RDX[i] + RSI * RCX[i]; RDI numbers
compute_triad:
    movq xmm4, rsi
    unpcklpd xmm4, xmm4
    xor eax, eax
2:  movapd xmm0, [rcx + rax * 8]
    mulpd xmm0, xmm4
    addpd xmm0, [rdx + rax * 8]
    movapd [r8 + rax * 8], xmm0
    add rax, 2
    cmp rax, rdi
    jb 2b
    ret
    "#
);

unsafe extern "sysv64" {
    fn compute_dot(count: usize, x: *const f64, y: *const f64) -> u64;
    fn compute_axpby(
        count: usize,
        alpha: u64,
        x: *const f64,
        beta: u64,
        y: *const f64,
        sum: *mut f64,
    );
    fn compute_sparse(
        rows: usize,
        starts: *const u32,
        columns: *const u32,
        values: *const f64,
        x: *const f64,
        product: *mut f64,
    );
    fn compute_copy(count: usize, from: *const f64, to: *mut f64);
    fn compute_scale(count: usize, factor: u64, from: *const f64, to: *mut f64);
    fn compute_add(count: usize, x: *const f64, y: *const f64, sum: *mut f64);
    fn compute_triad(count: usize, factor: u64, x: *const f64, y: *const f64, sum: *mut f64);
}

/// Numbers for the kernels: there are some, an even number of them, and they begin at a multiple
/// of 16 bytes. Panics otherwise, or when the lengths differ.
fn check(lengths: &[usize], pointers: &[*const f64]) {
    let first = lengths.first().copied().unwrap_or(0);
    assert!(first > 0 && first.is_multiple_of(2), "{first} numbers");
    assert!(lengths.iter().all(|&length| length == first), "the lengths differ");
    assert!(pointers.iter().all(|pointer| pointer.addr().is_multiple_of(16)), "not aligned");
}

/// The inner product.
pub fn dot(x: &[f64], y: &[f64]) -> f64 {
    check(&[x.len(), y.len()], &[x.as_ptr(), y.as_ptr()]);
    // SAFETY: both have the length given, which is even, and are aligned.
    f64::from_bits(unsafe { compute_dot(x.len(), x.as_ptr(), y.as_ptr()) })
}

/// `y = alpha * x + beta * y`.
pub fn update(alpha: f64, x: &[f64], beta: f64, y: &mut [f64]) {
    check(&[x.len(), y.len()], &[x.as_ptr(), y.as_ptr()]);
    let to = y.as_mut_ptr();
    // SAFETY: both have the length given, which is even, and are aligned; each number is read
    // before its place is written to.
    unsafe { compute_axpby(x.len(), alpha.to_bits(), x.as_ptr(), beta.to_bits(), to, to) };
}

/// A square sparse matrix by rows: the values of row `i` are those from `starts[i]` up to
/// `starts[i + 1]`.
pub struct Sparse {
    starts: &'static [u32],
    columns: &'static [u32],
    values: &'static [f64],
}

impl Sparse {
    /// The matrix of these rows; `columns` has the column of each value. Panics when a row is
    /// empty, or a column or a value is not there.
    pub fn new(starts: &'static [u32], columns: &'static [u32], values: &'static [f64]) -> Self {
        let rows = starts.len() - 1;
        assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "an empty row");
        assert!(columns.iter().all(|&column| (column as usize) < rows), "a column beyond the last");
        let last = starts.last().copied().unwrap_or(0) as usize;
        assert!(last == columns.len() && last == values.len(), "values or columns are missing");
        Self { starts, columns, values }
    }

    /// `product = self * x`.
    pub fn times(&self, x: &[f64], product: &mut [f64]) {
        let rows = self.starts.len() - 1;
        assert!(x.len() == rows && product.len() == rows, "the lengths differ");
        let to = product.as_mut_ptr();
        let (starts, columns) = (self.starts.as_ptr(), self.columns.as_ptr());
        // SAFETY: `new` has seen that rows are not empty, that their values and columns are there
        // and that columns are below `rows`, the length of `x` and `product`.
        unsafe {
            compute_sparse(rows, starts, columns, self.values.as_ptr(), x.as_ptr(), to);
        }
    }
}

/// `to = from`.
pub fn copy(from: &[f64], to: &mut [f64]) {
    check(&[from.len(), to.len()], &[from.as_ptr(), to.as_ptr()]);
    // SAFETY: both have the length given, which is even, and are aligned.
    unsafe { compute_copy(from.len(), from.as_ptr(), to.as_mut_ptr()) };
}

/// `to = factor * from`.
pub fn scale(factor: f64, from: &[f64], to: &mut [f64]) {
    check(&[from.len(), to.len()], &[from.as_ptr(), to.as_ptr()]);
    // SAFETY: as in `copy`.
    unsafe { compute_scale(from.len(), factor.to_bits(), from.as_ptr(), to.as_mut_ptr()) };
}

/// `sum = x + y`.
pub fn add(x: &[f64], y: &[f64], sum: &mut [f64]) {
    check(&[x.len(), y.len(), sum.len()], &[x.as_ptr(), y.as_ptr(), sum.as_ptr()]);
    // SAFETY: as in `copy`, all three.
    unsafe { compute_add(x.len(), x.as_ptr(), y.as_ptr(), sum.as_mut_ptr()) };
}

/// `sum = x + factor * y`.
pub fn triad(factor: f64, x: &[f64], y: &[f64], sum: &mut [f64]) {
    check(&[x.len(), y.len(), sum.len()], &[x.as_ptr(), y.as_ptr(), sum.as_ptr()]);
    let to = sum.as_mut_ptr();
    // SAFETY: as in `copy`, all three.
    unsafe { compute_triad(x.len(), factor.to_bits(), x.as_ptr(), y.as_ptr(), to) };
}
