// SPDX-License-Identifier: MIT OR Apache-2.0
//! Room on the host's heap for what grows with a VM's configuration, or with what its guest does:
//! asked for, so that a host that has none gets an error and not an abort.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::{
    fmt::{self, Write},
    hash::Hash,
};

use hashbrown::HashMap;
use host_iface::HostError;

fn too_much<T>(count: usize) -> HostError {
    HostError::OutOfHeap { bytes: count.saturating_mul(size_of::<T>()) as u64 }
}

/// An empty vector with room for `count` elements.
///
/// # Errors
/// [`HostError::OutOfHeap`].
pub fn vec_with_room<T>(count: usize) -> Result<Vec<T>, HostError> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(count).map_err(|_| too_much::<T>(count))?;
    Ok(vec)
}

/// Makes room in `vec` for `count` elements in all.
///
/// # Errors
/// [`HostError::OutOfHeap`]; the vector is as before then.
pub fn make_room<T>(vec: &mut Vec<T>, count: usize) -> Result<(), HostError> {
    let missing = count.saturating_sub(vec.len());
    vec.try_reserve(missing).map_err(|_| too_much::<T>(count))
}

/// `N` times `value`, in a box.
///
/// # Errors
/// [`HostError::OutOfHeap`].
pub fn boxed_array<T: Clone, const N: usize>(value: T) -> Result<Box<[T; N]>, HostError> {
    let mut vec = vec_with_room(N)?;
    vec.resize(N, value);
    // It has just this length, and room for no more, so that nothing is allocated again.
    vec.into_boxed_slice().try_into().map_err(|_| too_much::<T>(N))
}

/// `value`, in a box.
///
/// # Errors
/// [`HostError::OutOfHeap`].
pub fn boxed<T>(value: T) -> Result<Box<T>, HostError> {
    let mut vec = vec_with_room(1)?;
    vec.push(value);
    let one = Box::into_raw(vec.into_boxed_slice());
    // SAFETY: the slice has one element, so it has the layout of that, and was a box until now.
    Ok(unsafe { Box::from_raw(one.cast::<T>()) })
}

/// An empty map with room for `count` keys.
///
/// # Errors
/// [`HostError::OutOfHeap`].
pub fn map_with_room<K: Eq + Hash, V>(count: usize) -> Result<HashMap<K, V>, HostError> {
    let mut map = HashMap::new();
    map.try_reserve(count).map_err(|_| too_much::<(K, V)>(count))?;
    Ok(map)
}

/// A text that ends where the heap does.
#[derive(Default)]
struct Text(String);

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.try_reserve(part.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(part);
        Ok(())
    }
}

/// What `arguments` say, as much of it as there is room for: why a VM has ended is worth less than
/// the host.
pub fn text(arguments: fmt::Arguments<'_>) -> String {
    let mut text = Text::default();
    // What did not fit is left out.
    let _ = text.write_fmt(arguments);
    text.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_says_what_format_would() {
        assert_eq!(text(format_args!("{:#x} at {}", 18, "a place")), "0x12 at a place");
    }

    #[test]
    fn what_cannot_be_had_is_an_error() {
        let bytes = usize::MAX as u64;
        let none = HostError::OutOfHeap { bytes };
        assert_eq!(vec_with_room::<u64>(usize::MAX).err(), Some(none));
        assert_eq!(map_with_room::<u64, u64>(usize::MAX).err(), Some(none));
        let mut vec = alloc::vec![1_u64];
        assert_eq!(make_room(&mut vec, usize::MAX), Err(none));
        assert_eq!(vec, [1]);
    }

    #[test]
    fn what_can_be_had_is_there() {
        assert_eq!(*boxed_array::<u16, 512>(7).unwrap(), [7; 512]);
        assert_eq!(*boxed([1_u64, 2]).unwrap(), [1, 2]);
        let mut vec = alloc::vec![1_u64];
        make_room(&mut vec, 9).unwrap();
        assert!(vec.capacity() >= 9 && vec_with_room::<u8>(5).unwrap().capacity() >= 5);
        assert!(map_with_room::<u8, u8>(5).unwrap().capacity() >= 5);
    }
}
