//! One slice that several threads write disjoint parts of.

#![expect(
    unsafe_code,
    reason = "threads write parts of one slice that no chain of safe splits describes"
)]

use std::marker::PhantomData;

use crate::LANES;

/// A mutable slice, shared by the tasks of one kernel.
pub(crate) struct Out<'a> {
    start: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: an `Out` is a `&mut [f32]`, which may be sent; sharing it is safe since access is by
// `lanes` only, whose contract keeps tasks apart.
unsafe impl Send for Out<'_> {}
// SAFETY: see above.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    pub(crate) const fn new(slice: &'a mut [f32]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            slice: PhantomData,
        }
    }

    /// The 16 floats at `at`; panics when they are not inside.
    ///
    /// # Safety
    ///
    /// While the reference lives, nobody else may ask for one that overlaps: the tasks of a kernel
    /// write different (block, pixel) pairs, each 16 floats long and 16 floats apart.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "disjointness is the contract")]
    pub(crate) unsafe fn lanes(&self, at: usize) -> &mut [f32; LANES] {
        assert!(
            at <= self.len && self.len - at >= LANES,
            "outside of the output"
        );
        // SAFETY: inside of the slice by the assertion, exclusive by contract.
        unsafe { &mut *self.start.add(at).cast::<[f32; LANES]>() }
    }
}
